//! Batches that do not begin.

use std::sync::Arc;

use gemini_batchd::engine::event::{Harvest, Outcome, Polled, RemoteBatch};
use gemini_batchd::engine::job::{
    ChunkState, Deadline, JobState, Queue, RemoteState, Stuck, Transport,
};
use gemini_batchd::engine::stuck::stuck;

use crate::rescue::HOUR_MS;
use crate::rig::{Rig, START, batch, policy, queue, remote, rest};

fn queue_with(stuck: Stuck) -> Queue {
    let deadline = Deadline { stuck, ..Deadline::USUAL };
    Queue { deadline: Some(Arc::new(deadline)), attempts: 1, ..queue(Transport::Inline) }
}

/// A batch waits for so long.
fn wait(rig: &mut Rig, name: &str, span_ms: u64) {
    let end = rig.now.plus(span_ms);
    while rig.now < end {
        if rig.kinds().contains(&"poll") {
            let seen = RemoteBatch { state: RemoteState::Pending, ..remote(name) };
            let polled = vec![(batch(name), Polled::Seen(seen))];
            rig.answer("poll", Ok(Outcome::Polled(polled)));
        }
        let next = rig.engine.next_wakeup().unwrap_or(end).min(end).max(rig.now.plus(1));
        rig.until(next);
    }
}

/// The batch that was stopped is seen to have ended without any answer.
fn stop(rig: &mut Rig, name: &str) {
    rig.answer("cancel", Ok(Outcome::Cancelled));
    rig.end(name, RemoteState::Cancelled);
    rig.collect(Harvest { missing: 10, rest: rest(10), ..Harvest::default() });
}

#[test]
fn a_batch_that_does_not_begin_is_told_of_and_nothing_else() {
    let mut rig = Rig::with_job(policy(), queue(Transport::Inline), &[10]);
    rig.create("batches/b");
    wait(&mut rig, "batches/b", 6 * HOUR_MS);
    assert_eq!(stuck(rig.chunk(1)), None);
    wait(&mut rig, "batches/b", HOUR_MS);
    assert_eq!(stuck(rig.chunk(1)), Some(&batch("batches/b")));
    assert!(!rig.kinds().contains(&"cancel"));
    assert!(matches!(rig.state(1), ChunkState::Polling(_)));
}

#[test]
fn one_that_is_running_is_not_stuck_however_long_it_takes() {
    let mut rig = Rig::with_job(policy(), queue_with(Stuck::Resubmit), &[10]);
    rig.create("batches/b");
    crate::rescue::run_until(&mut rig, "batches/b", START.plus(40 * HOUR_MS));
    assert_eq!(stuck(rig.chunk(1)), None);
}

#[test]
fn it_is_stopped_collected_and_sent_again_twice_at_most_and_none_of_that_is_a_try() {
    let mut rig = Rig::with_job(policy(), queue_with(Stuck::Resubmit), &[10]);
    for name in ["batches/a", "batches/b"] {
        rig.create(name);
        wait(&mut rig, name, HOUR_MS);
        assert!(!rig.kinds().contains(&"cancel"), "another one was stuck");
        wait(&mut rig, name, 6 * HOUR_MS);
        stop(&mut rig, name);
        rig.pass(5_000);
        assert_eq!(rig.chunk(1).tries, 0);
    }
    rig.create("batches/c");
    wait(&mut rig, "batches/c", 20 * HOUR_MS);
    assert_eq!(stuck(rig.chunk(1)), Some(&batch("batches/c")), "it is told of");
    assert!(!rig.kinds().contains(&"cancel"), "but not stopped a third time");
}

#[test]
fn a_stuck_batch_can_be_sent_again_in_two_halves() {
    let mut rig = Rig::with_job(policy(), queue_with(Stuck::Split), &[10]);
    rig.create("batches/a");
    wait(&mut rig, "batches/a", 7 * HOUR_MS);
    stop(&mut rig, "batches/a");
    assert!(matches!(rig.state(1), ChunkState::Split { .. }), "{:?}", rig.state(1));
    rig.pass(5_000);
    let creates = rig.kinds().iter().filter(|kind| **kind == "create").count();
    assert_eq!(creates, 2);
    assert_eq!((rig.chunk(2).rest.rows(), rig.chunk(3).rest.rows()), (5, 5));
}

#[test]
fn what_a_stuck_batch_answered_before_it_stopped_is_kept() {
    let mut rig = Rig::with_job(policy(), queue_with(Stuck::Resubmit), &[10]);
    rig.create("batches/a");
    wait(&mut rig, "batches/a", 7 * HOUR_MS);
    rig.answer("cancel", Ok(Outcome::Cancelled));
    rig.end("batches/a", RemoteState::Cancelled);
    rig.collect(Harvest { answered: 10, ..Harvest::default() });
    assert!(matches!(rig.job(), JobState::Merging(_)), "{:?}", rig.job());
}

#[test]
fn how_long_is_too_long_can_be_set() {
    let deadline = Deadline { stuck_after: Some(HOUR_MS), ..Deadline::USUAL };
    let queue = Queue { deadline: Some(Arc::new(deadline)), ..queue(Transport::Inline) };
    let mut rig = Rig::with_job(policy(), queue, &[10]);
    rig.create("batches/b");
    wait(&mut rig, "batches/b", 2 * HOUR_MS);
    assert_eq!(stuck(rig.chunk(1)), Some(&batch("batches/b")));
}

#[test]
fn a_batch_that_somebody_else_stopped_is_no_stuck_one() {
    let mut rig = Rig::with_job(policy(), queue(Transport::Inline), &[10]);
    rig.create("batches/b");
    rig.end("batches/b", RemoteState::Cancelled);
    rig.collect(Harvest { missing: 10, rest: rest(10), ..Harvest::default() });
    assert_eq!((&rig.chunk(1).aid, rig.chunk(1).tries), (&None, 1));
}
