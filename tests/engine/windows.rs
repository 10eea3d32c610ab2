//! Release windows: nothing of a job is sent before its moment, and whatever else holds it back
//! counts as well.

use std::sync::Arc;

use gemini_batchd::engine::effect::Effect;
use gemini_batchd::engine::event::{Event, Failure, Harvest, Outcome};
use gemini_batchd::engine::job::{JobState, Moments, Queue, RemoteState, Transport};
use gemini_batchd::engine::policy::{Duplicates, Policy};
use gemini_batchd::engine::steering::Pauses;
use gemini_batchd::engine::{ChunkState, Millis, Window};

use crate::rig::{Rig, START, id, planned, policy, queue, rest};

const HOUR_MS: u64 = 3_600_000;

/// A queue whose files wait for an hour from the start of the test.
fn nightly(transport: Transport) -> Queue {
    let window = Window { release: "0 22 * * *".to_owned(), zone: String::new() };
    let moments = Moments { opens: Some(START.plus(HOUR_MS)), deliver_by: None };
    Queue { window: Some(Arc::new(window)), moments, ..queue(transport) }
}

fn opens(rig: &Rig) -> Option<Millis> {
    rig.saved[&id(1)].head.queue.moments.opens
}

fn release(rig: &mut Rig) {
    let turn = rig.engine.release(id(1), rig.now).expect("it waits");
    rig.consume(turn);
}

#[test]
fn a_file_is_read_at_once_and_sent_when_its_window_opens() {
    for (transport, first) in [(Transport::Inline, "create"), (Transport::File, "upload")] {
        let mut rig = Rig::with_job(policy(), nightly(transport), &[10, 10]);
        assert!(matches!(rig.job(), JobState::Active(_)), "its faults are told at once");
        assert_eq!(rig.engine.next_wakeup(), Some(START.plus(HOUR_MS)));
        rig.pass(HOUR_MS - 1);
        assert_eq!(rig.kinds(), Vec::<&str>::new());
        let job = rig.engine.job(id(1)).expect("known");
        assert_eq!(rig.engine.opens(job), Some(START.plus(HOUR_MS)));
        assert!(rig.engine.waits_for_its_window(job));
        rig.pass(1);
        assert_eq!(rig.kinds(), [first, first]);
        let job = rig.engine.job(id(1)).expect("known");
        assert!(!rig.engine.waits_for_its_window(job));
    }
}

#[test]
fn a_slot_that_was_missed_is_caught_up_at_once() {
    let mut rig = Rig::new(policy());
    rig.now = START.plus(9 * HOUR_MS);
    rig.add_job(1, nightly(Transport::Inline), &[10]);
    assert_eq!(rig.kinds(), ["create"]);
}

#[test]
fn a_window_outlives_a_restart_and_one_that_has_opened_stays_open_when_the_clock_goes_back() {
    let mut rig = Rig::with_job(policy(), nightly(Transport::Inline), &[10]);
    rig.restart();
    rig.pass(HOUR_MS - 1);
    assert_eq!(rig.kinds(), Vec::<&str>::new());
    rig.pass(1);
    rig.create("b");
    assert_eq!(opens(&rig), None, "it is said in the record");
    rig.end("b", RemoteState::Succeeded);
    rig.now = START;
    rig.tell(Event::Tick);
    rig.collect(Harvest { answered: 6, retryable: 4, rest: rest(4), ..Harvest::default() });
    rig.pass(600_000);
    assert!(rig.kinds().contains(&"create"), "{:?}", rig.kinds());
}

#[test]
fn a_release_sends_at_once_and_outlives_a_restart() {
    let mut rig = Rig::with_job(policy(), nightly(Transport::Inline), &[10]);
    release(&mut rig);
    assert_eq!((rig.kinds(), opens(&rig)), (vec!["create"], None));
    rig.engine.release(id(1), rig.now).expect_err("nothing waits any more");
    let mut rig = Rig::new(policy());
    rig.arrive(1, nightly(Transport::Inline), 100);
    release(&mut rig);
    rig.restart();
    rig.answer("claim", Ok(planned("x", &[10])));
    assert_eq!(rig.kinds(), ["create"], "it was released before it was read");
}

#[test]
fn a_hold_and_a_pause_count_after_the_window_has_opened_too() {
    let mut rig = Rig::with_job(policy(), nightly(Transport::Inline), &[10]);
    let turn = rig.engine.hold(id(1), rig.now).expect("it can be held");
    rig.consume(turn);
    rig.pass(2 * HOUR_MS);
    assert_eq!(rig.kinds(), Vec::<&str>::new());
    release(&mut rig);
    assert_eq!(rig.kinds(), ["create"]);

    let mut rig = Rig::with_job(policy(), nightly(Transport::Inline), &[10]);
    let pauses = Pauses { all: true, ..Pauses::default() };
    let turn = rig.engine.pause(pauses, rig.now);
    rig.consume(turn);
    release(&mut rig);
    rig.pass(2 * HOUR_MS);
    assert_eq!(rig.kinds(), Vec::<&str>::new());
    let turn = rig.engine.pause(Pauses::default(), rig.now);
    rig.consume(turn);
    assert_eq!(rig.kinds(), ["create"]);
}

#[test]
fn a_job_that_waits_can_be_cancelled_and_comes_to_its_end() {
    let mut rig = Rig::with_job(policy(), nightly(Transport::File), &[10]);
    let turn = rig.engine.cancel(id(1), rig.now).expect("it is active");
    rig.consume(turn);
    assert!(matches!(rig.job(), JobState::Merging(_)));
    let job = rig.engine.job(id(1)).expect("known");
    assert_eq!(rig.engine.opens(job), None);
}

#[test]
fn a_large_file_is_not_uploaded_beside_its_plan_before_its_window_opens() {
    let mut rig = Rig::new(policy());
    rig.arrive(1, nightly(Transport::File), 1 << 30);
    rig.answer("claim", Ok(Outcome::Claimed));
    let Effect::Plan { early, .. } = rig.take("plan").effect else { unreachable!() };
    assert!(!early);
}

#[test]
fn a_duplicate_that_is_released_still_waits_for_its_window() {
    let mut rig = Rig::new(Policy { duplicates: Duplicates::Hold, ..policy() });
    rig.add_job(2, queue(Transport::Inline), &[10]);
    rig.arrive(1, nightly(Transport::Inline), 100);
    rig.answer("claim", Ok(planned("content 2", &[10])));
    rig.answer("hold", Ok(Outcome::Moved));
    release(&mut rig);
    rig.take("create");
    rig.answer("claim", Ok(planned("content 2", &[10])));
    assert_eq!(rig.kinds(), Vec::<&str>::new(), "that it is no mistake does not make it urgent");
    release(&mut rig);
    assert_eq!(rig.kinds(), ["create"]);
}

#[test]
fn a_moment_that_a_wrong_clock_made_is_in_doubt_and_can_be_set_right() {
    let mut rig = Rig::new(policy());
    let queue = nightly(Transport::Inline);
    rig.now = START.plus(1000 * HOUR_MS);
    let at = |hours: u64| Some(START.plus(hours * HOUR_MS));
    let far = Moments { opens: at(1001), deliver_by: at(1008) };
    rig.add_job(1, Queue { moments: far, ..queue }, &[10]);
    assert!(rig.engine.windows_in_doubt(rig.now).is_empty());
    let claimed = rig.now.0;
    let in_doubt = |ahead| !rig.engine.windows_in_doubt(Millis(claimed - ahead)).is_empty();
    assert_eq!([120_000, 120_001].map(in_doubt), [false, true], "two minutes are an accident");
    rig.now = START;
    rig.tell(Event::Tick);
    assert_eq!(rig.engine.windows_in_doubt(rig.now), [id(1)]);
    let near = Moments { opens: at(1), deliver_by: at(8) };
    let turn = rig.engine.set_moments(id(1), near, rig.now);
    rig.consume(turn);
    rig.restart();
    assert_eq!(rig.engine.job(id(1)).expect("known").head.queue.moments, near);
    rig.pass(HOUR_MS - 1);
    assert_eq!(rig.kinds(), Vec::<&str>::new());
    rig.pass(1);
    assert_eq!(rig.kinds(), ["create"]);
    let turn = rig.engine.set_moments(id(1), Moments { opens: at(9), ..near }, rig.now);
    assert_eq!(turn, Default::default(), "one that has opened is not closed again");
}

#[test]
fn whoever_waits_for_its_window_does_not_keep_a_refused_key_from_being_told() {
    let mut rig = Rig::with_job(policy(), nightly(Transport::Inline), &[10]);
    rig.add_job(2, queue(Transport::Inline), &[10]);
    rig.answer("create", Err(Failure::Denied("403".to_owned())));
    assert!(rig.engine.only_a_person_helps().is_some());
}

#[test]
fn what_is_sent_again_does_not_wait_for_another_window() {
    let mut rig = Rig::with_job(policy(), nightly(Transport::Inline), &[10]);
    rig.pass(HOUR_MS);
    rig.answer("create", Err(Failure::Transient("503".to_owned())));
    assert!(matches!(rig.state(1), ChunkState::Waiting { .. }));
    rig.pass(60_000);
    assert_eq!(rig.kinds(), ["create"]);
}

#[test]
fn a_job_that_waits_for_its_moment_or_after_an_error_says_until_when() {
    let mut rig =
        Rig::with_job(Policy { open_batches: 0, ..policy() }, nightly(Transport::Inline), &[10]);
    let says = |rig: &Rig| {
        let job = rig.engine.job(id(1)).expect("known");
        (rig.engine.opens(job), rig.engine.wakes(job))
    };
    let opens = START.plus(HOUR_MS);
    rig.until(Millis(opens.0 - 1));
    assert_eq!(says(&rig), (Some(opens), Some(opens)));
    rig.until(opens);
    assert_eq!(says(&rig), (None, None), "now it waits for room");
    let mut rig = Rig::with_job(policy(), queue(Transport::Inline), &[10]);
    rig.answer("create", Err(Failure::Transient("not sent".to_owned())));
    assert_eq!(says(&rig), (None, rig.engine.next_wakeup()));
    assert!(says(&rig).1.is_some());
}
