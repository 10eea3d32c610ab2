//! The paid call: answered, refused, or not known to have happened.

use gemini_batchd::engine::effect::{Effect, Issued};
use gemini_batchd::engine::event::{Failure, Objection, Outcome};
use gemini_batchd::engine::job::{
    Doubt, Family, Input, JobState, RemoteError, RemoteState, Rest, Task, Transport,
};
use gemini_batchd::engine::{Attempt, ChunkState, FileName, Millis};

use crate::rig::{ROW_BYTES, Rig, batch, id, planned, policy, queue, rest};

fn inline(chunks: &[u64]) -> Rig {
    Rig::with_job(policy(), queue(Transport::Inline), chunks)
}

fn refused(to: Objection) -> Result<Outcome, Failure> {
    let error = RemoteError { code: 3, message: "no".to_owned() };
    Ok(Outcome::Refused { error, to })
}

#[test]
fn the_intent_is_saved_before_the_create_is_begun_and_names_all_of_it() {
    let mut rig = inline(&[10]);
    assert_eq!(*rig.state(1), ChunkState::Creating { input: Input::Inline, since: rig.now });
    let Issued { effect: Effect::Create { which, input, model, task, family, priority }, .. } =
        rig.take("create")
    else {
        unreachable!("it is a create")
    };
    assert_eq!((which.job, which.chunk, which.attempt), (id(1), rig.chunk(1).no, Attempt(1)));
    assert_eq!((which.rows, which.middle), (rig.chunk(1).rows, rig.chunk(1).middle()));
    assert_eq!((input, model.as_str(), task), (Input::Inline, "gemini-2.5-flash", Task::Generate));
    assert_eq!((priority, family), (0, Family::Native));
    let stamp = which.stamp().0;
    assert_eq!(stamp, format!("gemini-batchd/{}/c1/a1", id(1)));
}

#[test]
fn a_file_is_uploaded_under_a_name_of_ours_and_then_created_from() {
    let mut rig = Rig::with_job(policy(), queue(Transport::File), &[10]);
    let ChunkState::Uploading { file } = rig.state(1).clone() else { panic!("{:?}", rig.state(1)) };
    assert_eq!(file.0, format!("files/{}-1-1", id(1).as_str().to_ascii_lowercase()));
    let theirs = FileName("files/theirs".to_owned());
    rig.answer("upload", Ok(Outcome::Uploaded { file: theirs.clone() }));
    let input = Input::File(theirs);
    assert_eq!(*rig.state(1), ChunkState::Creating { input: input.clone(), since: rig.now });
    let Effect::Create { input: sent, .. } = rig.take("create").effect else { unreachable!() };
    assert_eq!(sent, input);
}

#[test]
fn an_answered_create_is_polled_and_the_first_one_is_noted_in_the_plan() {
    let mut rig = inline(&[10, 10]);
    let first = rig.now;
    rig.create("batches/1");
    let ChunkState::Polling(made) = rig.state(1).clone() else { panic!("{:?}", rig.state(1)) };
    assert_eq!((made.name, made.created, made.adopted), (batch("batches/1"), first, false));
    assert_eq!((made.remote, made.key_print.as_str()), (RemoteState::Pending, "key"));
    assert_eq!(rig.plan().first_create, Some(first));
    rig.pass(5);
    rig.create("batches/2");
    assert_eq!(rig.plan().first_create, Some(first), "the second changes nothing");
    assert_eq!(rig.chunk(2).attempt, Attempt(1));
}

#[test]
fn a_creation_far_from_our_own_clock_is_not_believed() {
    let mut rig = inline(&[10]);
    let created = Some(Millis(7));
    rig.answer("create", Ok(Outcome::Created { batch: batch("b"), created }));
    let ChunkState::Polling(made) = rig.state(1) else { panic!("{:?}", rig.state(1)) };
    assert_eq!(made.created, rig.now);
}

#[test]
fn named_lines_fail_alone_and_the_rest_is_sent_at_once() {
    let mut rig = inline(&[10]);
    rig.answer("create", refused(Objection::Lines { named: 3, rest: rest(7) }));
    let chunk = rig.chunk(1);
    assert_eq!((chunk.rest, chunk.attempt, chunk.tries), (rest(7), Attempt(2), 0));
    assert_eq!(chunk.last_error.as_ref().map(|error| error.message.as_str()), Some("no"));
    assert!(matches!(chunk.state, ChunkState::Creating { .. }), "{chunk:?}");
    rig.answer("create", refused(Objection::Lines { named: 7, rest: Rest::default() }));
    assert_eq!(*rig.state(1), ChunkState::Settled);
    assert!(matches!(rig.job(), JobState::Merging(_)));
}

#[test]
fn lines_can_be_refused_for_what_they_name_before_anything_of_them_is_sent() {
    let mut rig = Rig::with_job(policy(), queue(Transport::File), &[10]);
    rig.answer("upload", refused(Objection::Lines { named: 4, rest: rest(6) }));
    let chunk = rig.chunk(1);
    assert_eq!((chunk.rest, chunk.attempt, chunk.tries), (rest(6), Attempt(2), 0));
    assert!(matches!(chunk.state, ChunkState::Uploading { .. }), "{chunk:?}");
    // Nothing else can be refused before a create.
    rig.answer("upload", refused(Objection::Model));
    assert_eq!(rig.chunk(1).attempt, Attempt(2));
    assert!(matches!(rig.job(), JobState::Active(_)));
}

#[test]
fn lines_that_name_files_go_by_file_unless_the_queue_says_otherwise() {
    for (transport, by_file) in
        [(Transport::Auto, true), (Transport::File, true), (Transport::Inline, false)]
    {
        let mut rig = Rig::new(policy());
        rig.arrive(1, queue(transport), 100);
        let Outcome::Planned { mut plan, chunks } = planned("content", &[2]) else { panic!() };
        plan.media = true;
        rig.answer("claim", Ok(Outcome::Planned { plan, chunks }));
        let uploads = matches!(rig.state(1), ChunkState::Uploading { .. });
        assert_eq!(uploads, by_file, "{transport:?}: {:?}", rig.state(1));
    }
    let small = Rig::with_job(policy(), queue(Transport::Auto), &[2]);
    assert!(matches!(small.state(1), ChunkState::Creating { .. }));
}

#[test]
fn a_file_the_api_does_not_take_is_sent_anew_as_often_as_the_queue_allows() {
    let mut rig = Rig::with_job(policy(), queue(Transport::File), &[10]);
    for attempt in 1..=3 {
        assert_eq!(rig.chunk(1).attempt, Attempt(attempt));
        let file = FileName("files/x".to_owned());
        rig.answer("upload", Ok(Outcome::Uploaded { file }));
        rig.answer("create", refused(Objection::File));
    }
    assert_eq!(*rig.state(1), ChunkState::Settled);
    assert_eq!(rig.chunk(1).rest, rest(10), "its rows are unanswered");
}

#[test]
fn an_upload_the_api_does_not_take_is_sent_anew_as_often_as_the_queue_allows() {
    let mut rig = Rig::with_job(policy(), queue(Transport::File), &[10]);
    for attempt in 1..=3 {
        assert_eq!(rig.chunk(1).attempt, Attempt(attempt));
        if !rig.kinds().contains(&"upload") {
            rig.wait();
        }
        rig.answer("upload", Err(Failure::Rejected("too odd".to_owned())));
    }
    let chunk = rig.chunk(1);
    assert_eq!((&chunk.state, chunk.tries), (&ChunkState::Settled, 3));
    let error = RemoteError { code: 3, message: "too odd".to_owned() };
    assert_eq!(chunk.last_error, Some(error));
}

#[test]
fn an_upload_that_broke_goes_on_after_a_pause_and_nothing_is_changed() {
    let mut rig = Rig::with_job(policy(), queue(Transport::File), &[10]);
    let before = rig.chunk(1).clone();
    rig.answer("upload", Err(Failure::Transient("reset".to_owned())));
    assert_eq!(rig.kinds(), [""; 0]);
    let pause = rig.wait();
    assert!((750..=1250).contains(&pause), "{pause}");
    assert_eq!(rig.kinds(), ["upload"]);
    assert_eq!(*rig.chunk(1), before);
}

#[test]
fn a_model_nobody_knows_refuses_the_file_when_nothing_was_spent() {
    let mut rig = inline(&[10]);
    rig.answer("create", refused(Objection::Model));
    let JobState::Refusing(refusal) = rig.job() else { panic!("{:?}", rig.job()) };
    assert_eq!(refusal.reason, "unknown_model");
    assert!(refusal.message.contains("gemini-2.5-flash: no"), "{}", refusal.message);
    assert!(refusal.remedy.contains("[queue.default]"), "{}", refusal.remedy);
    rig.answer("refuse", Ok(Outcome::Moved));
    assert!(matches!(rig.job(), JobState::Failed(_)));
    assert_eq!(rig.kinds(), [""; 0]);
}

#[test]
fn of_several_creates_that_are_told_of_an_unknown_model_the_last_refuses_the_file() {
    let mut rig = inline(&[10, 10]);
    rig.answer("create", refused(Objection::Model));
    let ChunkState::Waiting { not_before } = rig.state(1) else { panic!("{:?}", rig.state(1)) };
    assert!(*not_before > rig.now, "it waits for what its sibling is told");
    assert!(matches!(rig.job(), JobState::Active(_)));
    rig.answer("create", refused(Objection::Model));
    assert!(matches!(rig.job(), JobState::Refusing(_)));
}

#[test]
fn a_model_that_vanished_in_between_costs_only_what_is_not_sent_yet() {
    let mut rig = inline(&[10, 10]);
    rig.create("batches/1");
    rig.answer("create", refused(Objection::Model));
    assert_eq!(*rig.state(2), ChunkState::Settled);
    assert!(matches!(rig.job(), JobState::Active(_)), "the first chunk goes on");
    assert!(matches!(rig.state(1), ChunkState::Polling(_)));
}

#[test]
fn a_chunk_refused_without_a_reason_is_halved_until_one_line_stands_alone() {
    let mut rig = inline(&[3]);
    rig.answer("create", refused(Objection::Whole { rest: rest(3) }));
    let ChunkState::Split { left, right } = rig.state(1) else { panic!("{:?}", rig.state(1)) };
    assert_eq!((left.0, right.0), (2, 3));
    let (left, right) = (rig.chunk(2), rig.chunk(3));
    assert_eq!((left.rows.first.0, left.rows.last.0), (1, 2));
    assert_eq!((right.rows.first.0, right.rows.last.0), (3, 3));
    assert_eq!((left.rest.rows(), right.rest.rows()), (2, 1));
    assert_eq!((left.rest.bytes(), right.rest.bytes()), (2 * ROW_BYTES, ROW_BYTES));
    assert_eq!((left.root.0, right.root.0), (1, 1));
    assert_eq!(left.last_error, right.last_error);
    assert!(left.last_error.is_some(), "what was said is handed on");
    assert_eq!((left.attempt, left.tries), (Attempt(1), 0));
    assert_eq!(rig.kinds(), ["create", "create"]);
    rig.create("left");
    rig.answer("create", refused(Objection::Whole { rest: rest(1) }));
    assert_eq!(*rig.state(3), ChunkState::Settled, "a line alone is not cut");
}

#[test]
fn a_half_without_open_rows_is_settled_when_it_is_made() {
    let mut rig = inline(&[4]);
    let mut left_only = rest(2);
    left_only.left.rows += left_only.right.rows;
    left_only.right = Default::default();
    rig.answer("create", refused(Objection::Whole { rest: left_only }));
    assert_eq!(*rig.state(3), ChunkState::Settled);
    assert!(matches!(rig.state(2), ChunkState::Creating { .. }));
}

#[test]
fn what_a_failed_create_means_depends_on_how_it_failed() {
    let text = || "why".to_owned();
    let limited = |retry_after_ms| Failure::RateLimited { retry_after_ms, message: text() };
    let not_sent = [
        Failure::Transient(text()),
        Failure::Denied(text()),
        Failure::Rejected(text()),
        Failure::Local(text()),
    ];
    for failure in not_sent {
        let mut rig = inline(&[10]);
        rig.answer("create", Err(failure.clone()));
        let ChunkState::Waiting { not_before } = rig.state(1) else { panic!("{failure:?}") };
        assert!((750..=1250).contains(&not_before.since(rig.now)), "{failure:?}");
        assert_eq!(rig.chunk(1).attempt, Attempt(1), "nothing was sent under it");
    }
    for (failure, pause) in [(limited(None), 750..=1250), (limited(Some(60_000)), 60_000..=60_000)]
    {
        let mut rig = inline(&[10]);
        let began = rig.now;
        rig.answer("create", Err(failure));
        let ChunkState::Uncertain { input, since, next_probe, until, doubt } = rig.state(1) else {
            panic!("{:?}", rig.state(1))
        };
        assert_eq!((input, *since, *doubt), (&Input::Inline, began, Doubt::RateLimited));
        assert_eq!(next_probe, until, "one look, right before it is sent again");
        assert!(pause.contains(&until.since(rig.now)), "{until:?}");
    }
    let unknown = [Failure::Ambiguous(text()), Failure::Gone(text()), Failure::NotReady(text())];
    for failure in unknown {
        let mut rig = inline(&[10]);
        rig.answer("create", Err(failure.clone()));
        let ChunkState::Uncertain { next_probe, until, doubt, .. } = rig.state(1) else {
            panic!("{failure:?}: {:?}", rig.state(1))
        };
        assert_eq!(*doubt, Doubt::Lost);
        assert_eq!(next_probe.since(rig.now), 30_000);
        assert_eq!(until.since(rig.now), 300_000);
    }
}
