//! A job's way from the inbox to the outbox, and the ways it can end elsewhere.

use gemini_batchd::engine::effect::{Change, Effect};
use gemini_batchd::engine::event::{Event, Failure, Harvest, Outcome};
use gemini_batchd::engine::job::{JobState, Refusal, RemoteState, Tally, Transport};
use gemini_batchd::engine::policy::{Duplicates, Policy};
use gemini_batchd::engine::{ChunkState, Millis};

use crate::rig::{Rig, id, planned, policy, queue};

const DAY_MS: u64 = 86_400_000;

fn refusal(reason: &str) -> Refusal {
    let text = || "text".to_owned();
    Refusal { reason: reason.to_owned(), message: text(), remedy: text(), line: None, column: None }
}

/// A job whose only chunk is answered, on its way to the outbox.
fn merging(policy: Policy) -> Rig {
    let mut rig = Rig::with_job(policy, queue(Transport::Inline), &[10]);
    rig.create("b");
    rig.end("b", RemoteState::Succeeded);
    rig.collect(Harvest { answered: 10, ..Harvest::default() });
    rig
}

fn merged(answered: u64) -> Result<Outcome, Failure> {
    let tally = Tally { answered, ..Tally::default() };
    Ok(Outcome::Merged { tally, stem: "name".to_owned() })
}

/// The rest of the way, without a hitch.
fn deliver(rig: &mut Rig, answered: u64) {
    rig.answer("merge", merged(answered));
    rig.answer("deliver", Ok(Outcome::Delivered));
    rig.answer("clean", Ok(Outcome::Cleaned));
}

#[test]
fn results_that_name_files_by_a_taken_name_are_written_anew() {
    let mut rig = merging(policy());
    let Ok(Outcome::Merged { mut tally, stem }) = merged(10) else { unreachable!() };
    tally.media.files = 1;
    rig.answer("merge", Ok(Outcome::Merged { tally, stem }));
    rig.answer("deliver", Ok(Outcome::NameTaken { free: "name~2".to_owned() }));
    assert!(matches!(rig.job(), JobState::Merging(_)), "{:?}", rig.job());
    rig.answer("merge", merged(10));
    rig.answer("deliver", Ok(Outcome::Delivered));
}

#[test]
fn every_step_is_saved_before_the_next_is_begun() {
    let mut rig = merging(policy());
    assert_eq!(rig.kinds(), ["merge"]);
    rig.answer("merge", merged(10));
    let JobState::Delivering(delivery) = rig.job() else { panic!("{:?}", rig.job()) };
    assert_eq!((delivery.stem.as_str(), delivery.tally.answered), ("name", 10));
    assert_eq!(delivery.delivered, rig.now);
    rig.answer("deliver", Ok(Outcome::NameTaken { free: "name~2".to_owned() }));
    let JobState::Delivering(delivery) = rig.job() else { panic!("{:?}", rig.job()) };
    assert_eq!(delivery.stem, "name~2");
    let Effect::Deliver { job } = rig.answer("deliver", Ok(Outcome::Delivered)) else {
        unreachable!()
    };
    assert!(matches!(&job.head.state, JobState::Delivering(d) if d.stem == "name~2"));
    assert!(matches!(rig.job(), JobState::Cleaning(_)));
    rig.answer("clean", Ok(Outcome::Cleaned));
    assert!(matches!(rig.job(), JobState::Done(_)));
    assert_eq!((rig.kinds(), rig.engine.is_busy()), (vec![], false));
    assert_eq!(rig.engine.next_wakeup(), None);
    assert_eq!(rig.engine.usage(), Default::default());
    assert_eq!(rig.engine.jobs().count(), 1);
    assert_eq!(rig.engine.unfinished().count(), 0);
}

#[test]
fn a_step_on_this_machine_that_failed_is_begun_again_after_a_growing_pause() {
    let mut rig = merging(policy());
    let mut pauses = Vec::new();
    for step in ["merge", "deliver", "clean"] {
        for _ in 0..3 {
            let state = rig.job().clone();
            rig.answer(step, Err(Failure::Local("disk full".to_owned())));
            assert_eq!(*rig.job(), state);
            assert!(rig.engine.gate().is_none(), "the API has nothing to do with it");
            pauses.push(rig.wait());
        }
        let outcome = match step {
            "merge" => merged(10),
            "deliver" => Ok(Outcome::Delivered),
            _ => Ok(Outcome::Cleaned),
        };
        rig.answer(step, outcome);
    }
    for three in pauses.chunks(3) {
        assert!((750..=1250).contains(&three[0]), "{pauses:?}");
        assert!((1500..=2500).contains(&three[1]), "{pauses:?}");
        assert!((3000..=5000).contains(&three[2]), "{pauses:?}");
    }
}

#[test]
fn a_small_input_is_planned_with_its_claim_and_a_larger_one_after_it() {
    for (bytes, with_claim) in [(1 << 20, true), ((1 << 20) + 1, false)] {
        let mut rig = Rig::new(policy());
        rig.arrive(1, queue(Transport::Inline), bytes);
        assert_eq!(*rig.job(), JobState::Claiming);
        let Effect::Claim { plan, .. } = rig.begun[0].effect else { panic!("{:?}", rig.kinds()) };
        assert_eq!(plan, with_claim);
    }
    let mut rig = Rig::new(policy());
    rig.arrive(1, queue(Transport::Inline), 1 << 21);
    rig.answer("claim", Ok(Outcome::Claimed));
    assert_eq!(*rig.job(), JobState::Planning);
    rig.answer("plan", Ok(planned("x", &[3, 4])));
    assert_eq!((rig.chunk(1).rest.rows(), rig.chunk(2).rest.rows()), (3, 4));
    assert_eq!((rig.chunk(2).root, rig.chunk(2).rows.first.0), (rig.chunk(2).no, 4));
}

#[test]
fn a_plan_without_a_chunk_is_merged_at_once() {
    let rig = Rig::with_job(policy(), queue(Transport::Inline), &[]);
    assert!(matches!(rig.job(), JobState::Merging(_)));
}

#[test]
fn a_file_that_is_seen_twice_is_one_job_until_it_is_claimed() {
    let mut rig = Rig::new(policy());
    let again = |rig: &mut Rig, number| {
        let Event::Arrived { source, queue, .. } = arrived() else { unreachable!() };
        rig.tell(Event::Arrived { id: id(number), source, queue });
    };
    again(&mut rig, 1);
    again(&mut rig, 2);
    assert_eq!((rig.saved.len(), rig.engine.claims_waiting()), (1, 1));
    rig.restart();
    again(&mut rig, 3);
    assert_eq!((rig.saved.len(), rig.engine.claims_waiting()), (1, 1), "a restart knows it too");
    rig.answer("claim", Ok(planned("x", &[1])));
    assert_eq!(rig.engine.claims_waiting(), 0);
    again(&mut rig, 4);
    assert_eq!(rig.saved.len(), 2, "it is another file by that name");
    rig.answer("claim", Ok(Outcome::Vanished));
    assert_eq!((rig.saved.len(), rig.engine.claims_waiting()), (1, 0), "there was none");
    again(&mut rig, 5);
    assert_eq!(rig.saved.len(), 2);
}

fn arrived() -> Event {
    let source = gemini_batchd::engine::job::Source {
        folder: "a".to_owned(),
        name: "b".to_owned(),
        bytes: 1,
        sidecar: None,
    };
    Event::Arrived { id: id(1), source, queue: queue(Transport::Inline) }
}

#[test]
fn an_input_that_can_not_be_sent_is_moved_aside_with_its_reason() {
    let mut rig = Rig::new(policy());
    rig.arrive(1, queue(Transport::Inline), 1);
    rig.answer("claim", Ok(Outcome::Unusable(refusal("no_valid_line"))));
    assert_eq!(*rig.job(), JobState::Refusing(refusal("no_valid_line")));
    let Effect::Refuse { refusal: told, .. } = rig.answer("refuse", Ok(Outcome::Moved)) else {
        unreachable!()
    };
    assert_eq!(told, refusal("no_valid_line"));
    assert_eq!(*rig.job(), JobState::Failed(refusal("no_valid_line")));
    assert_eq!(rig.engine.next_wakeup(), None);
}

/// A second job with the content of the first.
fn drop_the_same(rig: &mut Rig) {
    rig.arrive(2, queue(Transport::Inline), 100);
    rig.answer("claim", Ok(planned("content 1", &[10])));
}

fn holding() -> Policy {
    Policy { duplicates: Duplicates::Hold, duplicate_window_ms: DAY_MS, ..policy() }
}

#[test]
fn content_that_is_under_way_already_is_held_wherever_it_is() {
    let mut rig = Rig::with_job(holding(), queue(Transport::Inline), &[10]);
    drop_the_same(&mut rig);
    let JobState::Holding(refusal) = rig.job_of(2) else { panic!("{:?}", rig.job_of(2)) };
    assert_eq!(refusal.reason, "duplicate");
    assert!(refusal.message.contains(&format!("1.jsonl (job {})", id(1))), "{}", refusal.message);
    rig.answer("hold", Ok(Outcome::Moved));
    assert!(matches!(rig.job_of(2), JobState::Held(_)));
    let mut rig = Rig::with_job(policy(), queue(Transport::Inline), &[10]);
    drop_the_same(&mut rig);
    assert!(matches!(rig.job_of(2), JobState::Active(_)), "nobody asked to hold it");
    let mut rig = Rig::with_job(holding(), queue(Transport::Inline), &[10]);
    rig.restart();
    drop_the_same(&mut rig);
    assert!(matches!(rig.job_of(2), JobState::Holding(_)), "a restart knows it too");
}

#[test]
fn content_that_was_answered_is_held_within_its_window() {
    for (answered, passed, held) in
        [(10, 0, true), (10, DAY_MS, true), (10, DAY_MS + 1, false), (0, 0, false)]
    {
        let mut rig = merging(holding());
        deliver(&mut rig, answered);
        rig.now = rig.now.plus(passed);
        drop_the_same(&mut rig);
        let state = rig.job_of(2);
        assert_eq!(matches!(state, JobState::Holding(_)), held, "{answered}, {passed}: {state:?}");
    }
}

#[test]
fn content_of_a_file_that_was_refused_or_cancelled_may_come_again() {
    let mut rig = Rig::with_job(holding(), queue(Transport::Inline), &[10]);
    let turn = rig.engine.cancel(id(1), rig.now).expect("it is active");
    rig.consume(turn);
    rig.answer("create", Err(Failure::Transient("no".to_owned())));
    assert!(matches!(rig.job(), JobState::Merging(_)), "{:?}", rig.job());
    deliver(&mut rig, 3);
    drop_the_same(&mut rig);
    assert!(matches!(rig.job_of(2), JobState::Active(_)), "{:?}", rig.job_of(2));
}

#[test]
fn records_of_finished_jobs_are_forgotten_when_they_are_old_and_no_others() {
    let mut rig = merging(Policy { records_keep_ms: DAY_MS, ..holding() });
    deliver(&mut rig, 10);
    rig.arrive(3, queue(Transport::Inline), 1);
    rig.answer("claim", Ok(Outcome::Unusable(refusal("empty"))));
    rig.answer("refuse", Ok(Outcome::Moved));
    rig.add_job(4, queue(Transport::Inline), &[10]);
    rig.now = rig.now.plus(DAY_MS);
    rig.tell(Event::Housekeeping);
    assert_eq!(rig.saved.len(), 3, "just a day");
    rig.now = rig.now.plus(DAY_MS);
    let turn = rig.engine.handle(Event::Housekeeping, rig.now);
    let forgotten: Vec<_> =
        turn.save.iter().filter(|change| matches!(change, Change::Forget(_))).collect();
    assert_eq!(forgotten.len(), 2, "{:?}", turn.save);
    rig.consume(turn);
    assert_eq!(rig.saved.keys().copied().collect::<Vec<_>>(), [id(4)]);
    drop_the_same(&mut rig);
    assert!(matches!(rig.job_of(2), JobState::Active(_)), "its content is forgotten too");
}

#[test]
fn nothing_is_begun_while_the_daemon_stops_and_what_ends_is_saved() {
    let mut rig = Rig::with_job(policy(), queue(Transport::File), &[10]);
    assert!(rig.engine.is_busy());
    rig.engine.drain();
    assert_eq!(rig.engine.next_wakeup(), None);
    let file = gemini_batchd::engine::FileName("files/x".to_owned());
    rig.answer("upload", Ok(Outcome::Uploaded { file }));
    assert!(matches!(rig.state(1), ChunkState::Uploading { .. }), "the next start finds it there");
    rig.arrive(2, queue(Transport::Inline), 1);
    assert_eq!((rig.saved.len(), rig.kinds()), (1, vec![]), "it stays in the inbox");
    assert!(!rig.engine.is_busy());
    rig.restart();
    assert_eq!(rig.kinds(), ["upload"]);
}

#[test]
fn an_outcome_nobody_waits_for_changes_nothing() {
    let mut rig = Rig::with_job(policy(), queue(Transport::Inline), &[10]);
    let before = rig.saved.clone();
    let ticket = gemini_batchd::engine::Ticket(4711);
    rig.tell(Event::Done { ticket, outcome: Outcome::Vanished });
    rig.tell(Event::Failed { ticket, failure: Failure::Local("no".to_owned()) });
    assert_eq!((rig.saved == before, rig.kinds()), (true, vec!["create"]));
    assert_ne!(rig.now, Millis(0));
}
