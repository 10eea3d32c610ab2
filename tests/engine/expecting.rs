//! When results are expected, and when that is too late.

use gemini_batchd::engine::deadline::expected_of;
use gemini_batchd::engine::event::{Harvest, Outcome};
use gemini_batchd::engine::job::{Job, Moments, Promise, Queue, RemoteState, Tally, Transport};
use gemini_batchd::engine::policy::Policy;
use gemini_batchd::engine::{JobState, Millis};

use crate::rescue::{HOUR_MS, run_until, wanted};
use crate::rig::{Rig, START, batch, id, policy, queue};

fn hours(count: u64) -> Millis {
    START.plus(count * HOUR_MS)
}

fn job(rig: &Rig) -> &Job {
    rig.engine.job(id(1)).expect("known")
}

/// When batches take two hours.
fn expected(rig: &Rig, now: Millis) -> Option<Millis> {
    expected_of(job(rig), Some(2 * HOUR_MS), now)
}

#[test]
fn a_batch_is_expected_after_the_usual_time_and_never_in_the_past() {
    let mut rig = Rig::with_job(policy(), queue(Transport::Inline), &[10, 10]);
    let now = hours(1);
    assert_eq!(
        expected(&rig, now),
        Some(hours(3)),
        "what is being created has all of it before it"
    );
    rig.create("batches/a");
    rig.create("batches/b");
    assert_eq!(expected(&rig, now), Some(hours(2)), "both are an hour old");
    assert_eq!(expected(&rig, hours(9)), Some(hours(9)));
    assert_eq!(expected_of(job(&rig), None, now), None, "nobody knows how long they take");
    rig.end("batches/a", RemoteState::Succeeded);
    rig.collect(Harvest { answered: 10, ..Harvest::default() });
    assert_eq!(expected(&rig, now), Some(hours(2)), "the other one is still there");
    rig.end("batches/b", RemoteState::Succeeded);
    assert_eq!(expected(&rig, now), Some(now), "its results only have to be fetched");
    rig.collect(Harvest { answered: 10, ..Harvest::default() });
    assert_eq!(expected(&rig, now), None, "nothing is under way any more");
}

#[test]
fn what_waits_is_expected_the_usual_time_after_it_may_go() {
    let closed = Moments { opens: Some(hours(4)), deliver_by: None };
    let rig = Rig::with_job(policy(), Queue { moments: closed, ..queue(Transport::Inline) }, &[10]);
    assert_eq!(expected(&rig, hours(1)), Some(hours(6)), "its window has not opened");
    let none = Policy { open_batches: 0, ..policy() };
    let rig = Rig::with_job(none, queue(Transport::Inline), &[10]);
    assert_eq!(expected(&rig, hours(1)), Some(hours(3)));
}

#[test]
fn of_a_rescue_the_end_is_not_told_before_the_deadline() {
    let mut rig = Rig::with_job(policy(), wanted(true, false), &[10]);
    rig.create("batches/a");
    let mut job = job(&rig).clone();
    let JobState::Active(plan) = &mut job.head.state else { panic!("{:?}", job.head.state) };
    plan.promise = Some(Box::new(Promise { rescue: Some(hours(9)), ..Promise::default() }));
    let told = |now| expected_of(&job, Some(2 * HOUR_MS), now);
    assert_eq!((told(hours(9)), told(hours(10))), (None, Some(hours(10))));
}

/// A batch of the model has taken so many hours; then a job comes that is wanted within ten.
fn danger_after(taken: u64) -> Option<Millis> {
    let mut rig = Rig::with_job(policy(), queue(Transport::Inline), &[10]);
    rig.create("batches/first");
    run_until(&mut rig, "batches/first", hours(taken));
    rig.end("batches/first", RemoteState::Succeeded);
    rig.collect(Harvest { answered: 10, ..Harvest::default() });
    let tally = Tally { answered: 10, ..Tally::default() };
    rig.answer("merge", Ok(Outcome::Merged { tally, stem: "out".to_owned() }));
    rig.answer("deliver", Ok(Outcome::Delivered));
    rig.answer("clean", Ok(Outcome::Cleaned));
    let mut next = wanted(false, false);
    next.moments.deliver_by = Some(rig.now.plus(10 * HOUR_MS));
    rig.add_job(2, next, &[10]);
    let created = Outcome::Created { batch: batch("batches/next"), created: Some(rig.now) };
    rig.answer("create", Ok(created));
    let begun = rig.now;
    rig.until(begun.plus(60_000));
    let job = rig.engine.job(id(2)).expect("known");
    let expected = rig.engine.expected_end(job, rig.now).expect("it is known how long they take");
    assert!(expected.since(begun).abs_diff(taken * HOUR_MS) < 2 * 300_000, "{expected:?}");
    job.head.state.plan().and_then(|plan| plan.promise.as_ref()?.danger)
}

#[test]
fn a_job_whose_batches_usually_take_too_long_is_in_danger_at_once() {
    assert!(danger_after(12).is_some());
    assert_eq!(danger_after(8), None);
}
