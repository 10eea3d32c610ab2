//! Batches that are said to have ended, and rows that were answered before.

use gemini_batchd::engine::ChunkState;
use gemini_batchd::engine::event::{Event, Outcome, Polled};
use gemini_batchd::engine::job::{JobState, Plan, Share, Transport};

use crate::rig::{Rig, batch, planned, policy, queue, remote};

/// Two jobs of one chunk each, whose batches are called `a` and `b`, and were just looked at.
fn polled() -> Rig {
    let mut rig = Rig::new(policy());
    for (number, name) in [(1, "a"), (2, "b")] {
        rig.add_job(number, queue(Transport::Inline), &[3]);
        rig.create(name);
    }
    for _ in 0..2 {
        while !rig.kinds().contains(&"poll") {
            rig.wait();
        }
        let seen = ["a", "b"].map(|name| (batch(name), Polled::Seen(remote(name))));
        rig.answer("poll", Ok(Outcome::Polled(seen.to_vec())));
    }
    assert!(rig.kinds().is_empty(), "{:?}", rig.kinds());
    rig
}

#[test]
fn a_notice_lets_its_batch_be_polled_now_and_no_other() {
    let mut rig = polled();
    rig.tell(Event::Noticed(Some(batch("b"))));
    let Outcome::Polled(asked) = asked(&mut rig) else { unreachable!() };
    assert_eq!(asked.iter().map(|(name, _)| name.0.as_str()).collect::<Vec<_>>(), ["b"]);
    rig.tell(Event::Noticed(None));
    let Outcome::Polled(asked) = self::asked(&mut rig) else { unreachable!() };
    assert_eq!(asked.len(), 2, "one that names none is about all");
}

#[test]
fn a_notice_about_a_batch_of_others_or_of_a_job_that_is_over_changes_nothing() {
    let mut rig = polled();
    rig.tell(Event::Noticed(Some(batch("somebody's"))));
    assert!(rig.kinds().is_empty(), "{:?}", rig.kinds());
    let mut empty = Rig::new(policy());
    empty.tell(Event::Noticed(None));
    assert!(empty.kinds().is_empty());
}

/// Answers the poll that was begun, which nobody asked for otherwise; tells for what it was.
fn asked(rig: &mut Rig) -> Outcome {
    let issued = rig.take("poll");
    let gemini_batchd::engine::Effect::Poll { batches } = issued.effect else { unreachable!() };
    let seen = batches.iter().map(|name| (name.clone(), Polled::Seen(remote(&name.0))));
    let outcome = Outcome::Polled(seen.collect());
    rig.tell(Event::Done { ticket: issued.ticket, outcome: outcome.clone() });
    outcome
}

#[test]
fn a_chunk_whose_rows_were_all_answered_before_is_settled_and_never_sent() {
    let mut rig = Rig::new(policy());
    rig.arrive(1, queue(Transport::Inline), 100);
    let Outcome::Planned { plan, mut chunks } = planned("content", &[4, 2]) else { unreachable!() };
    (chunks[0].left, chunks[0].right) = (Share::default(), Share::default());
    let plan = Plan { reused: 4, ..plan };
    rig.answer("claim", Ok(Outcome::Planned { plan, chunks }));
    assert_eq!(rig.state(1), &ChunkState::Settled);
    assert_eq!(rig.kinds(), ["create"], "only what is left is sent");
    rig.restart();
    assert_eq!(rig.state(1), &ChunkState::Settled);
    assert_eq!(rig.plan().reused, 4);
}

#[test]
fn a_job_whose_rows_were_all_answered_before_is_merged_at_once() {
    let mut rig = Rig::new(policy());
    rig.arrive(1, queue(Transport::Inline), 100);
    let Outcome::Planned { plan, mut chunks } = planned("content", &[4]) else { unreachable!() };
    (chunks[0].left, chunks[0].right) = (Share::default(), Share::default());
    rig.answer("claim", Ok(Outcome::Planned { plan: Plan { reused: 4, ..plan }, chunks }));
    assert!(matches!(rig.job(), JobState::Merging(_)), "{:?}", rig.job());
    assert_eq!(rig.kinds(), ["merge"]);
}
