//! How much goes on at a time, and who comes first.

use gemini_batchd::engine::effect::Effect;
use gemini_batchd::engine::event::{Event, Failure, Harvest, Outcome, Polled};
use gemini_batchd::engine::job::{Input, Queue, RemoteState, Transport};
use gemini_batchd::engine::policy::Policy;
use gemini_batchd::engine::{ChunkState, FileName};

use crate::rig::{ROW_BYTES, Rig, batch, id, planned, policy, queue, remote, rest};

/// A job that is not small, so that nothing is kept for it.
fn middling(rig: &mut Rig, number: u64, queue: Queue, chunks: &[u64]) {
    rig.arrive(number, queue, 2 << 20);
    rig.answer("claim", Ok(Outcome::Claimed));
    rig.answer("plan", Ok(planned(&format!("content {number}"), chunks)));
}

fn count(rig: &Rig, kind: &str) -> usize {
    rig.kinds().iter().filter(|begun| **begun == kind).count()
}

#[test]
fn no_more_batches_are_open_than_allowed_and_the_next_begins_when_one_ends() {
    let policy = Policy { open_batches: 2, ..policy() };
    let mut rig = Rig::with_job(policy, queue(Transport::Inline), &[10, 10, 10]);
    assert_eq!((count(&rig, "create"), rig.engine.usage().open_batches), (2, 2));
    rig.create("b");
    rig.create("c");
    assert_eq!(count(&rig, "create"), 0);
    rig.wait();
    let polled = vec![
        (batch("b"), Polled::Seen(remote("b"))),
        (batch("c"), Polled::Seen(remote_ended("c"))),
    ];
    rig.answer("poll", Ok(Outcome::Polled(polled)));
    assert_eq!(count(&rig, "create"), 1, "what has ended takes no room");
    assert_eq!(rig.engine.usage().open_batches, 2);
}

fn remote_ended(name: &str) -> gemini_batchd::engine::event::RemoteBatch {
    let state = RemoteState::Succeeded;
    gemini_batchd::engine::event::RemoteBatch { state, done: true, ..remote(name) }
}

#[test]
fn a_tenth_of_the_batches_is_kept_for_small_jobs() {
    let mut rig = Rig::new(Policy { open_batches: 20, ..policy() });
    middling(&mut rig, 1, queue(Transport::Inline), &[10; 30]);
    for number in 0..30 {
        if count(&rig, "create") == 0 {
            break;
        }
        assert!(count(&rig, "create") <= 4, "so many calls at a time");
        rig.create(&format!("b{number}"));
    }
    assert_eq!(rig.engine.usage().open_batches, 18);
    rig.add_job(2, queue(Transport::Inline), &[1, 1, 1]);
    assert_eq!(rig.engine.usage().open_batches, 20);
}

#[test]
fn uploads_are_counted_and_a_small_one_may_go_beside_them() {
    let mut rig = Rig::new(policy());
    middling(&mut rig, 1, queue(Transport::File), &[10; 5]);
    assert_eq!((count(&rig, "upload"), rig.engine.usage().uploading), (2, 2));
    rig.add_job(2, queue(Transport::File), &[1, 1]);
    assert_eq!((count(&rig, "upload"), rig.engine.usage().uploading), (3, 3), "one of them");
    let file = |name: &str| Ok(Outcome::Uploaded { file: FileName(name.to_owned()) });
    rig.answer("upload", file("files/1"));
    assert_eq!(rig.engine.usage().uploading, 3, "the next of the middling ones");
    let mut alone = Rig::with_job(policy(), queue(Transport::File), &[1, 1, 1]);
    assert_eq!(count(&alone, "upload"), 2, "small ones alone keep to the limit");
    alone.answer("upload", file("files/2"));
    assert_eq!(count(&alone, "upload"), 2);
}

#[test]
fn what_travels_inline_needs_neither_upload_nor_storage() {
    let policy = Policy { storage_bytes: 0, uploads: 0, ..policy() };
    let rig = Rig::with_job(policy, queue(Transport::Inline), &[10]);
    assert_eq!(rig.kinds(), ["create"]);
    assert_eq!(rig.engine.usage().stored_bytes, 0);
}

#[test]
fn the_way_requests_travel_is_chosen_by_their_size() {
    let whole = 10 * (ROW_BYTES + 13) + 1024;
    for (inline_bytes, kind) in [(whole, "create"), (whole - 1, "upload")] {
        let policy = Policy { inline_bytes, ..policy() };
        let rig = Rig::with_job(policy, queue(Transport::Auto), &[10]);
        assert_eq!(rig.kinds(), [kind], "{inline_bytes}");
    }
}

/// The batch of the first upload is created; its input stays at the API, since removing it fails.
fn create_keeping_its_input(rig: &mut Rig) {
    let created = Outcome::Created { batch: batch("b"), created: Some(rig.now) };
    rig.answer("create", Ok(created));
    let begun = rig.answer("drop", Err(Failure::Transient("503".to_owned())));
    assert_eq!(begun, Effect::DropInput { file: FileName("files/1".to_owned()) });
    let ChunkState::Polling(batch) = rig.state(1) else { panic!("{:?}", rig.state(1)) };
    assert!(!batch.input_gone);
}

/// Nobody knows when the OpenAI-compatible layer reads its input.
#[test]
fn the_input_of_a_batch_in_the_layer_stays_as_long_as_the_batch() {
    let policy = Policy { storage_bytes: 15 * ROW_BYTES, ..policy() };
    let mut rig = Rig::with_openai_job(policy, queue(Transport::File), &[10, 10]);
    rig.answer("upload", Ok(uploaded()));
    let created = Outcome::Created { batch: batch("b"), created: Some(rig.now) };
    rig.answer("create", Ok(created));
    assert_eq!(rig.kinds(), [""; 0], "not even for the room that the second chunk waits for");
    assert_eq!(rig.engine.usage().stored_bytes, 10 * ROW_BYTES);
}

fn uploaded() -> Outcome {
    Outcome::Uploaded { file: FileName("files/1".to_owned()) }
}

#[test]
fn storage_is_counted_from_the_upload_until_the_input_is_removed() {
    let policy = Policy { storage_bytes: 15 * ROW_BYTES, ..policy() };
    let mut rig = Rig::with_job(policy, queue(Transport::File), &[10, 10]);
    let bytes = |rig: &Rig| rig.engine.usage().stored_bytes;
    assert_eq!((rig.kinds(), bytes(&rig)), (vec!["upload"], 10 * ROW_BYTES));
    rig.answer("upload", Ok(uploaded()));
    assert_eq!((rig.kinds(), bytes(&rig)), (vec!["create"], 10 * ROW_BYTES));
    create_keeping_its_input(&mut rig);
    // The second chunk waits for room, so it is tried again.
    rig.answer("drop", Err(Failure::Transient("503".to_owned())));
    assert_eq!((rig.kinds(), bytes(&rig)), (vec![], 10 * ROW_BYTES), "it lies there still");
    let pause = rig.wait();
    assert!((750..=1250).contains(&pause), "{pause}");
    rig.answer("drop", Ok(Outcome::Discarded));
    assert_eq!((rig.kinds(), bytes(&rig)), (vec!["upload"], 10 * ROW_BYTES), "now there is room");
    let ChunkState::Polling(batch) = rig.state(1) else { panic!("{:?}", rig.state(1)) };
    assert!(batch.input_gone, "it is saved, so that a restart does not count it");
}

#[test]
fn results_are_counted_and_removed_when_room_is_needed() {
    let policy = Policy { storage_bytes: 15 * ROW_BYTES, ..policy() };
    let mut rig = Rig::with_job(policy, queue(Transport::File), &[10]);
    rig.answer("upload", Ok(uploaded()));
    rig.create("b");
    rig.end("b", RemoteState::Succeeded);
    rig.add_job(2, queue(Transport::File), &[3]);
    rig.answer("upload", Err(Failure::Transient("503".to_owned())));
    let bytes = 13 * ROW_BYTES;
    rig.collect(Harvest { answered: 4, rest: rest(6), bytes, ..Harvest::default() });
    let stored = |rig: &Rig| rig.engine.usage().stored_bytes;
    assert_eq!(stored(&rig), bytes + 3 * ROW_BYTES);
    rig.pass(120_000);
    let begun = rig.answer("discard", Err(Failure::Transient("503".to_owned())));
    let Effect::Discard { batch: name, input } = begun else { unreachable!() };
    assert_eq!((name, input), (batch("b"), Input::File(FileName("files/1".to_owned()))));
    rig.pass(60_000);
    rig.answer("discard", Ok(Outcome::Discarded));
    assert_eq!(stored(&rig), 9 * ROW_BYTES, "what is sent again, and the other job's");
}

#[test]
fn without_permission_to_clean_up_nothing_is_removed_at_the_api() {
    let storage_bytes = 15 * ROW_BYTES;
    let policy = Policy { remote_cleanup: false, storage_bytes, ..policy() };
    let mut rig = Rig::with_job(policy, queue(Transport::File), &[10, 10]);
    rig.answer("upload", Ok(uploaded()));
    rig.create("b");
    rig.end("b", RemoteState::Succeeded);
    rig.collect(Harvest { answered: 10, ..Harvest::default() });
    rig.pass(120_000);
    assert_eq!(rig.kinds(), [""; 0], "the second chunk waits for room, and nobody makes any");
}

#[test]
fn what_is_collected_stays_at_the_api_while_nobody_needs_the_room() {
    let mut rig = Rig::with_job(policy(), queue(Transport::File), &[10]);
    rig.answer("upload", Ok(uploaded()));
    create_keeping_its_input(&mut rig);
    rig.end("b", RemoteState::Expired);
    rig.collect(Harvest { answered: 4, rest: rest(6), ..Harvest::default() });
    assert_eq!(rig.kinds(), [""; 0]);
    assert_eq!(rig.engine.usage().stored_bytes, 10 * ROW_BYTES, "the first attempt's file");
    rig.wait();
    assert_eq!(rig.engine.usage().stored_bytes, 16 * ROW_BYTES, "and that of the second");
}

#[test]
fn what_is_larger_than_all_the_storage_is_tried_alone() {
    let policy = Policy { storage_bytes: ROW_BYTES, ..policy() };
    let rig = Rig::with_job(policy, queue(Transport::File), &[10, 10]);
    assert_eq!(rig.kinds(), ["upload"]);
}

#[test]
fn a_hundredth_of_the_storage_is_kept_for_small_jobs() {
    let storage_bytes = 1000 * ROW_BYTES;
    let mut rig = Rig::new(Policy { storage_bytes, uploads: 9, ..policy() });
    middling(&mut rig, 1, queue(Transport::File), &[985, 6]);
    assert_eq!(count(&rig, "upload"), 1, "985 and 6 are more than 990");
    rig.add_job(2, queue(Transport::File), &[15]);
    assert_eq!(count(&rig, "upload"), 2);
    assert_eq!(rig.engine.usage().stored_bytes, storage_bytes);
}

#[test]
fn a_higher_priority_goes_first_and_then_the_older_job() {
    let one = Policy { open_batches: 1, ..policy() };
    let mut rig = Rig::with_job(one, queue(Transport::Inline), &[10]);
    rig.add_job(3, queue(Transport::Inline), &[10]);
    rig.add_job(2, queue(Transport::Inline), &[10]);
    rig.add_job(4, Queue { priority: 5, ..queue(Transport::Inline) }, &[10]);
    let mut order = Vec::new();
    for number in 0..4 {
        let Effect::Create { which, priority, .. } = &rig.begun[0].effect else {
            panic!("{:?}", rig.kinds())
        };
        order.push((which.job, *priority));
        let name = format!("b{number}");
        rig.create(&name);
        rig.wait();
        rig.answer(
            "poll",
            Ok(Outcome::Polled(vec![(batch(&name), Polled::Seen(remote_ended(&name)))])),
        );
        rig.begun.retain(|issued| matches!(issued.effect, Effect::Create { .. }));
    }
    assert_eq!(order, [(id(1), 0), (id(4), 5), (id(2), 0), (id(3), 0)]);
}

#[test]
fn one_look_asks_for_all_batches_that_are_due() {
    let mut rig = Rig::with_job(policy(), queue(Transport::Inline), &[10; 3]);
    for name in ["a", "b", "c"] {
        rig.create(name);
    }
    rig.wait();
    let Effect::Poll { batches } = rig.take("poll").effect else { unreachable!() };
    assert_eq!(batches, [batch("a"), batch("b"), batch("c")]);
    assert_eq!(count(&rig, "poll"), 0);
}

#[test]
fn so_many_effects_of_a_kind_go_on_at_a_time() {
    for (bytes, claims, plans) in [(1, 16, 0), (2 << 20, 2, 1), (1 << 30, 2, 1)] {
        let mut rig = Rig::new(policy());
        for number in 1..=20 {
            rig.arrive(number, queue(Transport::Inline), bytes);
        }
        assert_eq!(count(&rig, "claim"), claims, "{bytes}");
        if plans > 0 {
            for _ in 0..20 {
                rig.answer("claim", Ok(Outcome::Claimed));
            }
            assert_eq!(count(&rig, "plan"), plans, "{bytes}");
        }
    }
    let mut rig = Rig::new(policy());
    for number in 1..=20 {
        rig.add_job(number, queue(Transport::Inline), &[]);
    }
    assert_eq!(count(&rig, "merge"), 8);
    let rig = Rig::with_job(policy(), queue(Transport::Inline), &[10; 20]);
    assert_eq!(count(&rig, "create"), 16);
    assert!(matches!(rig.state(17), ChunkState::Waiting { .. }));
}

#[test]
fn large_and_middling_jobs_do_not_stand_in_each_others_way() {
    let mut rig = Rig::new(policy());
    for (number, bytes) in [(1, 256 << 20), (2, 256 << 20), (3, (256 << 20) + 1)] {
        rig.arrive(number, queue(Transport::Inline), bytes);
        rig.answer("claim", Ok(Outcome::Claimed));
    }
    assert_eq!(count(&rig, "plan"), 2, "one of each size");
}

/// Whether a plan that has begun may be overtaken by its upload.
fn early(rig: &Rig) -> Vec<bool> {
    let early = |issued: &gemini_batchd::engine::effect::Issued| match issued.effect {
        Effect::Plan { early, .. } => Some(early),
        _ => None,
    };
    rig.begun.iter().filter_map(early).collect()
}

fn claimed(rig: &mut Rig, number: u64, queue: Queue, bytes: u64) {
    rig.arrive(number, queue, bytes);
    rig.answer("claim", Ok(Outcome::Claimed));
}

#[test]
fn an_upload_may_run_ahead_of_a_plan_only_if_a_file_of_that_size_goes_by_upload() {
    for (transport, bytes, expected) in [
        (Transport::File, 2 << 20, true),
        (Transport::File, 1 << 30, true),
        (Transport::Auto, 1 << 30, true),
        (Transport::Auto, (16 << 20) - 1024, false),
        (Transport::Inline, 1 << 30, false),
    ] {
        let mut rig = Rig::new(policy());
        claimed(&mut rig, 1, queue(transport), bytes);
        assert_eq!(early(&rig), [expected], "{transport:?} {bytes}");
    }
}

#[test]
fn a_small_file_that_is_planned_once_more_has_no_upload_ahead() {
    let mut rig = Rig::new(policy());
    claimed(&mut rig, 1, queue(Transport::File), 100);
    assert_eq!(early(&rig), [false]);
}

#[test]
fn nothing_runs_ahead_of_a_plan_when_the_limits_are_used_up() {
    let by_file = || queue(Transport::File);
    let tight = [
        Policy { uploads: 2, ..policy() },
        Policy { open_batches: 2, ..policy() },
        Policy { storage_bytes: 20 * ROW_BYTES, ..policy() },
    ];
    for policy in tight {
        let mut rig = Rig::new(policy.clone());
        middling(&mut rig, 1, by_file(), &[10, 10]);
        claimed(&mut rig, 2, by_file(), 2 << 20);
        assert_eq!(early(&rig), [false], "{policy:?}");
    }
}

#[test]
fn nothing_runs_ahead_of_a_plan_while_the_api_is_ill() {
    let mut rig = Rig::new(policy());
    middling(&mut rig, 1, queue(Transport::File), &[10]);
    rig.answer("upload", Err(Failure::Transient("503".to_owned())));
    claimed(&mut rig, 2, queue(Transport::File), 2 << 20);
    assert_eq!(early(&rig), [false]);
}

#[test]
fn an_upload_that_runs_ahead_counts_as_one_until_the_plan_is_done() {
    let mut rig = Rig::new(Policy { uploads: 1, ..policy() });
    claimed(&mut rig, 1, queue(Transport::File), 2 << 20);
    claimed(&mut rig, 2, queue(Transport::File), 1 << 30);
    assert_eq!(early(&rig), [true, false]);
    let plan = rig.begun.iter().rposition(|issued| issued.effect.word() == "plan").expect("two");
    let second = rig.begun.remove(plan);
    let outcome = planned("second", &[10]);
    rig.tell(Event::Done { ticket: second.ticket, outcome });
    assert_eq!(count(&rig, "upload"), 0, "there is one already");
    rig.answer("plan", Ok(planned("first", &[10])));
    assert_eq!(count(&rig, "upload"), 1);
    let mut again = Rig::new(Policy { uploads: 1, ..policy() });
    claimed(&mut again, 1, queue(Transport::File), 2 << 20);
    again.answer("plan", Err(Failure::Local("broken".to_owned())));
    claimed(&mut again, 2, queue(Transport::File), 2 << 20);
    assert_eq!(early(&again), [true], "one that failed is none");
}
