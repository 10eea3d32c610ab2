//! What operators ask for.

use gemini_batchd::engine::effect::Effect;
use gemini_batchd::engine::event::{Failure, Harvest, Objection, Outcome, Polled};
use gemini_batchd::engine::job::{JobState, RemoteError, RemoteState, Transport};
use gemini_batchd::engine::keys::Keys;
use gemini_batchd::engine::policy::{Duplicates, Policy, Uncertain};
use gemini_batchd::engine::{Attempt, ChunkState};

use crate::rig::{Rig, batch, id, planned, policy, queue, remote, rest};

fn cancel(rig: &mut Rig) {
    let turn = rig.engine.cancel(id(1), rig.now).expect("it is active");
    rig.consume(turn);
}

fn release(rig: &mut Rig) {
    let turn = rig.engine.release(id(1), rig.now).expect("it waits for a person");
    rig.consume(turn);
}

#[test]
fn a_cancelled_job_sends_nothing_more_and_merges_what_it_has() {
    let one_at_a_time = Policy { open_batches: 1, ..policy() };
    let mut rig = Rig::with_job(one_at_a_time, queue(Transport::File), &[10, 10]);
    assert!(matches!(rig.state(1), ChunkState::Uploading { .. }));
    assert!(matches!(rig.state(2), ChunkState::Waiting { .. }));
    cancel(&mut rig);
    assert_eq!((rig.state(1), rig.state(2)), (&ChunkState::Settled, &ChunkState::Settled));
    let JobState::Merging(plan) = rig.job() else { panic!("{:?}", rig.job()) };
    assert!(plan.cancelled);
    assert!(rig.kinds().contains(&"withdraw"), "a note in held/ would be stale");
    let file = gemini_batchd::engine::FileName("files/x".to_owned());
    rig.answer("upload", Ok(Outcome::Uploaded { file }));
    assert!(!rig.kinds().contains(&"create"));
}

#[test]
fn batches_of_a_cancelled_job_are_stopped_and_what_they_have_is_collected() {
    let mut rig = Rig::with_job(policy(), queue(Transport::Inline), &[10]);
    rig.create("b");
    cancel(&mut rig);
    let Effect::CancelBatch { batch: stopped } = rig.answer("cancel", Ok(Outcome::Cancelled))
    else {
        unreachable!()
    };
    assert_eq!(stopped, batch("b"));
    rig.poll("b", Polled::Seen(remote("b")));
    assert!(!rig.kinds().contains(&"cancel"), "once is enough");
    rig.end("b", RemoteState::Cancelled);
    rig.collect(Harvest { answered: 4, rest: rest(6), ..Harvest::default() });
    assert_eq!((rig.state(1), rig.chunk(1).rest), (&ChunkState::Settled, rest(6)));
    assert!(matches!(rig.job(), JobState::Merging(_)));
}

#[test]
fn a_batch_that_can_not_be_stopped_is_followed_to_its_end() {
    for failure in [Failure::Gone("404".to_owned()), Failure::Rejected("400".to_owned())] {
        let mut rig = Rig::with_job(policy(), queue(Transport::Inline), &[10]);
        rig.create("b");
        cancel(&mut rig);
        rig.answer("cancel", Err(failure));
        rig.wait();
        assert!(rig.kinds().contains(&"poll"), "{:?}", rig.kinds());
        assert!(!rig.kinds().contains(&"cancel"), "{:?}", rig.kinds());
    }
    let mut rig = Rig::with_job(policy(), queue(Transport::Inline), &[10]);
    rig.create("b");
    cancel(&mut rig);
    rig.answer("cancel", Err(Failure::Transient("503".to_owned())));
    rig.wait();
    assert!(rig.kinds().contains(&"cancel"), "this one may work yet: {:?}", rig.kinds());
}

#[test]
fn a_failed_look_at_a_batch_stops_nothing() {
    let mut rig = Rig::with_job(policy(), queue(Transport::Inline), &[10]);
    rig.create("b");
    rig.wait();
    rig.answer("poll", Err(Failure::Gone("404".to_owned())));
    cancel(&mut rig);
    assert!(!rig.kinds().contains(&"cancel"), "it is given a rest first");
    rig.wait();
    assert!(rig.kinds().contains(&"cancel"), "{:?}", rig.kinds());
}

#[test]
fn a_create_under_way_when_its_job_is_cancelled_is_stopped_when_it_is_known() {
    let mut rig = Rig::with_job(policy(), queue(Transport::Inline), &[10, 10, 10]);
    cancel(&mut rig);
    assert!(matches!(rig.state(1), ChunkState::Creating { .. }));
    rig.create("b");
    assert!(rig.kinds().contains(&"cancel"));
    rig.answer("create", Err(Failure::Transient("not sent".to_owned())));
    assert_eq!(*rig.state(2), ChunkState::Settled, "it is not sent after all");
    let error = RemoteError { code: 3, message: "no".to_owned() };
    let to = Objection::Whole { rest: rest(10) };
    rig.answer("create", Ok(Outcome::Refused { error, to }));
    assert_eq!(*rig.state(3), ChunkState::Settled, "nothing is cut to be sent");
}

/// The message says so, when the key was exchanged.
#[test]
fn a_job_whose_batch_can_not_be_seen_with_this_key_ends_when_it_is_cancelled() {
    for collecting in [false, true] {
        let mut rig = Rig::with_job(policy(), queue(Transport::Inline), &[10]);
        rig.create("b");
        if collecting {
            rig.end("b", RemoteState::Succeeded);
        }
        rig.policy.keys = Keys::one("another");
        rig.restart();
        rig.pass(400_000);
        cancel(&mut rig);
        for _ in 0..10 {
            let kinds = rig.kinds();
            let kind = kinds.iter().find(|kind| ["poll", "collect", "cancel"].contains(kind));
            match kind.copied() {
                _ if matches!(rig.job(), JobState::Merging(_)) => break,
                Some("poll") => rig.poll("b", Polled::Gone),
                Some(kind) => drop(rig.answer(kind, Err(Failure::Gone("404".to_owned())))),
                None => drop(rig.wait()),
            }
        }
        assert!(matches!(rig.job(), JobState::Merging(_)), "{:?}", rig.state(1));
        assert_eq!(rig.chunk(1).rest, rest(10), "unanswered, and not sent again");
    }
}

#[test]
fn what_can_not_be_cancelled_says_why() {
    let mut rig = Rig::new(policy());
    let why = |rig: &mut Rig| rig.engine.cancel(id(1), rig.now).expect_err("it can not");
    assert!(why(&mut rig).contains("there is no job"));
    rig.arrive(1, queue(Transport::Inline), 1 << 21);
    assert!(why(&mut rig).contains("still being read"));
    rig.answer("claim", Ok(Outcome::Claimed));
    assert!(why(&mut rig).contains("still being read"));
    rig.answer("plan", Ok(planned("x", &[])));
    assert!(why(&mut rig).contains("nothing left to cancel"));
}

/// A job whose only chunk waits for a person.
fn stuck() -> Rig {
    let policy = Policy { uncertain: Uncertain::Hold, ..policy() };
    let mut rig = Rig::with_job(policy, queue(Transport::Inline), &[10]);
    rig.answer("create", Err(Failure::Ambiguous("reset".to_owned())));
    rig.pass(300_000);
    rig.answer("find", Ok(Outcome::Found(Vec::new())));
    rig.answer("notify", Ok(Outcome::Told));
    assert!(matches!(rig.state(1), ChunkState::Stuck { .. }));
    rig
}

#[test]
fn a_released_chunk_is_sent_again_under_a_new_attempt_and_the_note_is_taken_back() {
    let mut rig = stuck();
    assert_eq!(rig.engine.usage().open_batches, 1, "there may be one");
    release(&mut rig);
    assert_eq!(rig.kinds(), ["withdraw", "find"], "it may have shown up since");
    rig.answer("find", Ok(Outcome::Found(Vec::new())));
    assert_eq!(rig.kinds(), ["withdraw", "create"]);
    assert_eq!(rig.chunk(1).attempt, Attempt(2));
    assert_eq!(rig.plan().warnings, ["chunk 1 was released by an operator"]);
    let mut rig = stuck();
    cancel(&mut rig);
    assert_eq!(*rig.state(1), ChunkState::Settled);
    assert_eq!(rig.kinds(), ["withdraw", "merge"]);
}

#[test]
fn what_can_not_be_released_says_why() {
    let mut rig = Rig::new(Policy { duplicates: Duplicates::Hold, ..policy() });
    let why =
        |rig: &mut Rig, number| rig.engine.release(id(number), rig.now).expect_err("it can not");
    assert!(why(&mut rig, 1).contains("there is no job"));
    rig.add_job(1, queue(Transport::Inline), &[10]);
    assert!(why(&mut rig, 1).contains("nothing of job"));
    rig.arrive(2, queue(Transport::Inline), 1);
    rig.answer("claim", Ok(planned("content 1", &[10])));
    assert!(why(&mut rig, 2).contains("nothing of job"), "it is on its way to held/");
}

#[test]
fn a_released_duplicate_is_fetched_from_where_it_lies_and_not_held_again() {
    let mut rig = Rig::new(Policy { duplicates: Duplicates::Hold, ..policy() });
    rig.add_job(1, queue(Transport::Inline), &[10]);
    rig.arrive(2, queue(Transport::Inline), 1);
    rig.answer("claim", Ok(planned("content 1", &[10])));
    rig.answer("hold", Ok(Outcome::Moved));
    let turn = rig.engine.release(id(2), rig.now).expect("a person wants it");
    rig.consume(turn);
    assert_eq!(rig.engine.claims_waiting(), 0, "nothing of it lies in the inbox");
    rig.restart();
    assert_eq!(rig.engine.claims_waiting(), 0);
    // A file of its name that comes meanwhile is another one.
    rig.arrive_as(3, "2.jsonl", queue(Transport::Inline));
    assert_eq!(rig.engine.claims_waiting(), 1);
    let Effect::Claim { head, .. } = rig.answer("claim", Ok(planned("content 1", &[10]))) else {
        unreachable!()
    };
    assert!((head.id, head.released) == (id(2), true), "{head:?}");
    assert!(matches!(rig.job_of(2), JobState::Active(_)), "{:?}", rig.job_of(2));
    assert_eq!(rig.engine.claims_waiting(), 1);
}

#[test]
fn a_restart_tells_again_of_what_is_stuck_only_while_the_job_is_active() {
    let mut rig = stuck();
    rig.restart();
    assert_eq!(rig.kinds(), ["notify"]);
    cancel(&mut rig);
    rig.restart();
    assert_eq!(rig.kinds(), ["merge"]);
}

#[test]
fn nobody_reads_more_than_a_hundred_warnings() {
    let mut rig = Rig::with_job(policy(), queue(Transport::Inline), &[10]);
    for _ in 0..110 {
        rig.answer("create", Err(Failure::Ambiguous("reset".to_owned())));
        while !rig.kinds().contains(&"create") {
            match rig.kinds().contains(&"find") {
                true => drop(rig.answer("find", Ok(Outcome::Found(Vec::new())))),
                false => rig.pass(30_000),
            }
        }
    }
    assert_eq!(rig.plan().warnings.len(), 100);
    assert_eq!(rig.chunk(1).attempt, Attempt(111));
}
