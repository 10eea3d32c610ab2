//! Lines are asked one by one when their deadline is near.

use std::sync::Arc;

use gemini_batchd::engine::effect::Effect;
use gemini_batchd::engine::event::{Failure, Harvest, Outcome, Polled, Rescued};
use gemini_batchd::engine::ids::Millis;
use gemini_batchd::engine::job::{
    ChunkState, Deadline, Family, JobState, Promise, Queue, RemoteState, Task, Tier, Tiers,
    Transport,
};
use gemini_batchd::engine::policy::Policy;
use gemini_batchd::engine::rescue::{RescuePace, not_for, tier_at};

use crate::rig::{Rig, START, batch, id, policy, queue, remote, rest};

pub const HOUR_MS: u64 = 3_600_000;

/// A queue whose files are wanted after ten hours, and which may be rescued so.
pub fn wanted(flex: bool, standard: bool) -> Queue {
    let deadline = Deadline { rescue: Tiers { flex, standard }, ..Deadline::USUAL };
    let mut queue = Queue { deadline: Some(Arc::new(deadline)), ..queue(Transport::Inline) };
    queue.moments.deliver_by = Some(START.plus(10 * HOUR_MS));
    queue
}

fn brought(answered: u64, missing: u64) -> Outcome {
    let harvest = Harvest { answered, missing, rest: rest(missing), ..Harvest::default() };
    Outcome::Rescued(Box::new(Rescued { harvest, ..Rescued::default() }))
}

fn promise(rig: &Rig) -> Promise {
    rig.plan().promise.as_deref().cloned().unwrap_or_default()
}

/// Looks at the batch until the moment, as long as it is only running.
pub fn run_until(rig: &mut Rig, name: &str, moment: Millis) {
    while rig.now < moment {
        if rig.kinds().contains(&"poll") {
            let seen = Polled::Seen(remote(name));
            rig.answer("poll", Ok(Outcome::Polled(vec![(batch(name), seen)])));
        }
        let next = rig.engine.next_wakeup().unwrap_or(moment).min(moment).max(rig.now.plus(1));
        rig.until(next);
    }
}

/// What a rescue of so many rows needs.
fn need(rows: u64, flex: bool, standard: bool) -> u64 {
    RescuePace::default().need_ms(rows, Tiers { flex, standard })
}

/// A job whose batch runs until its rescue begins.
fn late(queue: Queue) -> Rig {
    let tiers = queue.rescue();
    let rig = Rig::with_job(policy(), queue, &[10]);
    into_its_rescue(rig, tiers)
}

/// The only job has ten lines in one chunk, and its batch runs until its rescue begins.
pub fn into_its_rescue(mut rig: Rig, tiers: Tiers) -> Rig {
    rig.create("batches/b");
    let begins = START.plus(10 * HOUR_MS - need(10, tiers.flex, tiers.standard));
    run_until(&mut rig, "batches/b", Millis(begins.0 - 1));
    assert_eq!(rig.plan().promise.as_ref().and_then(|it| it.rescue), None, "there is time");
    if rig.kinds().contains(&"poll") {
        let seen = Polled::Seen(remote("batches/b"));
        rig.answer("poll", Ok(Outcome::Polled(vec![(batch("batches/b"), seen)])));
    }
    rig.until(begins);
    rig
}

/// The batch is stopped and what it has is collected.
fn stopped(rig: &mut Rig, answered: u64) {
    rig.answer("cancel", Ok(Outcome::Cancelled));
    rig.end("batches/b", RemoteState::Cancelled);
    let left = 10 - answered;
    rig.collect(Harvest { answered, missing: left, rest: rest(left), ..Harvest::default() });
}

#[test]
fn a_batch_that_would_be_late_is_stopped_collected_and_only_the_rest_is_asked() {
    let mut rig = late(wanted(true, false));
    assert!(promise(&rig).rescue.is_some() && promise(&rig).danger.is_some());
    stopped(&mut rig, 4);
    assert_eq!(rig.chunk(1).tries, 0, "what we stopped was no try");
    let asked = rig.answer("rescue", Ok(brought(6, 0)));
    let Effect::Rescue { which, tier, until, .. } = asked else { panic!("{asked:?}") };
    assert_eq!((which.attempt.0, tier), (2, Tier::Flex));
    assert_eq!(until, START.plus(10 * HOUR_MS));
    assert!(matches!(rig.job(), JobState::Merging(_)), "{:?}", rig.job());
    assert_eq!((promise(&rig).flex, promise(&rig).standard), (6, 0));
    assert!(!rig.kinds().contains(&"create"));
}

#[test]
fn without_leave_nothing_is_rescued_and_the_danger_and_the_miss_are_noted_once() {
    let mut rig = Rig::with_job(policy(), wanted(false, false), &[10]);
    rig.create("batches/b");
    run_until(&mut rig, "batches/b", START.plus(11 * HOUR_MS));
    let promise = promise(&rig);
    assert!(promise.danger.expect("noted") < START.plus(10 * HOUR_MS));
    assert_eq!(promise.missed, Some(START.plus(10 * HOUR_MS)));
    assert_eq!(promise.rescue, None);
    assert!(matches!(rig.state(1), ChunkState::Polling(_)));
    assert!(!rig.kinds().contains(&"cancel"));
}

#[test]
fn a_chunk_that_is_not_created_yet_is_asked_at_once_and_the_intent_is_saved_first() {
    let mut rig = Rig::with_job(Policy { open_batches: 0, ..policy() }, wanted(true, false), &[10]);
    rig.until(START.plus(10 * HOUR_MS - need(10, true, false)));
    assert_eq!(rig.kinds(), ["rescue"]);
    assert!(matches!(rig.state(1), ChunkState::Rescuing { tier: Tier::Flex, .. }));
    assert_eq!(rig.saved[&id(1)].head.key_print.as_deref(), Some("key"));
    rig.restart();
    assert_eq!(rig.kinds(), ["rescue"], "it goes on where it was");
    assert_eq!(rig.chunk(1).attempt.0, 1);
}

#[test]
fn what_flex_leaves_goes_through_standard_in_the_last_quarter() {
    let mut rig = late(wanted(true, true));
    stopped(&mut rig, 0);
    let Effect::Rescue { until, .. } = rig.answer("rescue", Ok(brought(7, 3))) else {
        panic!("rescue")
    };
    let begun = promise(&rig).rescue.expect("begun");
    let by = START.plus(10 * HOUR_MS);
    assert_eq!(until, Millis(by.0 - by.since(begun) / 4));
    let Effect::Rescue { tier, .. } = rig.take("rescue").effect else { panic!("rescue") };
    assert_eq!(tier, Tier::Flex, "there is time left for it");
    rig.restart();
    rig.until(until);
    rig.answer("rescue", Ok(brought(0, 3)));
    rig.pass(100_000);
    let Effect::Rescue { tier, until, .. } = rig.answer("rescue", Ok(brought(3, 0))) else {
        panic!("rescue")
    };
    assert_eq!((tier, until), (Tier::Standard, by));
    assert_eq!((promise(&rig).flex, promise(&rig).standard), (7, 3));
    assert!(matches!(rig.job(), JobState::Merging(_)));
}

#[test]
fn what_no_tier_answers_in_time_goes_on_as_a_batch_and_nothing_of_it_fails() {
    let queue = Queue { attempts: 1, ..wanted(true, false) };
    let mut rig = late(queue);
    stopped(&mut rig, 0);
    rig.until(START.plus(10 * HOUR_MS));
    rig.answer("rescue", Ok(brought(2, 8)));
    rig.pass(10_000);
    assert!(promise(&rig).missed.is_some());
    assert_eq!(rig.chunk(1).rest.rows(), 8);
    let Effect::Create { which, .. } = rig.take("create").effect else { panic!("create") };
    assert_eq!(which.attempt.0, 3);
}

#[test]
fn a_batch_that_does_not_end_is_left_and_its_late_answers_are_not_paid_for_again() {
    let mut rig = late(wanted(true, false));
    rig.answer("cancel", Ok(Outcome::Cancelled));
    let leave = promise(&rig).rescue.expect("begun").plus(120_000);
    run_until(&mut rig, "batches/b", leave.plus(30_000));
    assert!(matches!(rig.state(1), ChunkState::Rescuing { .. }), "{:?}", rig.state(1));
    let left = rig.chunk(1).aid.as_ref().and_then(|aid| aid.left.clone());
    assert_eq!(left.expect("remembered").name, batch("batches/b"));
    rig.until(START.plus(10 * HOUR_MS));
    rig.answer("rescue", Ok(brought(6, 4)));
    rig.pass(10_000);
    // The rest is not sent again: the batch may have it.
    assert!(!rig.kinds().contains(&"create"), "{:?}", rig.kinds());
    assert!(matches!(rig.state(1), ChunkState::Polling(_)), "{:?}", rig.state(1));
    rig.end("batches/b", RemoteState::Cancelled);
    rig.collect(Harvest { answered: 4, unknown: 5, ..Harvest::default() });
    assert_eq!(promise(&rig).wasted, 5, "answers to lines that were rescued");
    assert!(matches!(rig.job(), JobState::Merging(_)), "{:?}", rig.job());
}

#[test]
fn a_batch_that_was_left_with_nothing_to_answer_is_written_down_for_the_end() {
    let mut rig = late(wanted(true, false));
    rig.answer("cancel", Ok(Outcome::Cancelled));
    let leave = promise(&rig).rescue.expect("begun").plus(120_000);
    run_until(&mut rig, "batches/b", leave.plus(30_000));
    rig.answer("rescue", Ok(brought(10, 0)));
    assert!(matches!(rig.job(), JobState::Merging(_)), "{:?}", rig.job());
    let chunk = rig.chunk(1);
    assert_eq!(chunk.batches.len(), 1);
    assert_eq!(chunk.batches[0].name, batch("batches/b"));
    assert!(chunk.aid.as_ref().is_some_and(|aid| aid.left.is_some()), "it is weighed at the end");
}

#[test]
fn nothing_is_rescued_of_a_job_on_hold_of_a_cancelled_one_or_through_the_layer() {
    let begins = START.plus(10 * HOUR_MS - need(10, true, false));
    let mut rig = Rig::with_job(Policy { open_batches: 0, ..policy() }, wanted(true, false), &[10]);
    let turn = rig.engine.hold(id(1), rig.now).expect("held");
    rig.consume(turn);
    rig.until(begins);
    assert_eq!(rig.kinds(), [] as [&str; 0]);
    let turn = rig.engine.release(id(1), rig.now).expect("released");
    rig.consume(turn);
    rig.pass(700_000);
    assert_eq!(rig.kinds(), ["rescue"], "as soon as it may");

    let mut rig = Rig::with_openai_job(policy(), wanted(true, true), &[10]);
    rig.begun.clear();
    rig.until(begins);
    assert!(!rig.kinds().contains(&"rescue"));
    assert!(promise(&rig).danger.is_some() && promise(&rig).rescue.is_none());

    let mut rig = late(wanted(true, false));
    let turn = rig.engine.cancel(id(1), rig.now).expect("cancelled");
    rig.consume(turn);
    stopped(&mut rig, 3);
    assert!(matches!(rig.job(), JobState::Merging(_)), "{:?}", rig.job());
}

#[test]
fn a_tier_that_the_api_does_not_take_is_given_up_and_said() {
    let mut rig = late(wanted(true, true));
    stopped(&mut rig, 0);
    let harvest = Harvest { missing: 10, rest: rest(10), ..Harvest::default() };
    let refused = Some("not for this model".to_owned());
    let outcome = Rescued { harvest, refused, ..Rescued::default() };
    rig.answer("rescue", Ok(Outcome::Rescued(Box::new(outcome))));
    assert!(promise(&rig).no_flex);
    assert!(rig.plan().warnings.iter().any(|it| it.contains("flex tier: not for this model")));
    rig.pass(3_000);
    let Effect::Rescue { tier, .. } = rig.take("rescue").effect else { panic!("rescue") };
    assert_eq!(tier, Tier::Standard);
}

#[test]
fn uncertain_calls_are_counted_and_said() {
    let mut rig = late(wanted(true, false));
    stopped(&mut rig, 0);
    let harvest = Harvest { answered: 10, ..Harvest::default() };
    let outcome = Rescued { harvest, uncertain: 2, ..Rescued::default() };
    rig.answer("rescue", Ok(Outcome::Rescued(Box::new(outcome))));
    assert_eq!(promise(&rig).uncertain, 2);
    assert!(rig.plan().warnings.iter().any(|it| it.contains("of 2 calls to the flex tier")));
}

#[test]
fn a_rescue_that_fails_is_begun_again_under_the_same_attempt() {
    let mut rig = late(wanted(true, false));
    stopped(&mut rig, 0);
    rig.answer("rescue", Err(Failure::Transient("no route".to_owned())));
    rig.pass(5_000);
    let Effect::Rescue { which, .. } = rig.take("rescue").effect else { panic!("rescue") };
    assert_eq!(which.attempt.0, 2);
}

#[test]
fn embeddings_go_through_standard_only() {
    let mut queue = Queue { task: Task::Embed, ..wanted(true, true) };
    let by = START.plus(HOUR_MS);
    let tier = |queue: &Queue| tier_at(queue, &Promise::default(), by, START);
    assert_eq!(tier(&queue), Some((Tier::Standard, by)));
    queue.deadline = wanted(true, false).deadline;
    assert_eq!(tier(&queue), None);
}

#[test]
fn a_clock_that_is_set_back_or_leaps_ahead_loses_nothing() {
    let mut rig = late(wanted(true, false));
    rig.now = START;
    rig.tell(gemini_batchd::engine::event::Event::Tick);
    stopped(&mut rig, 4);
    rig.answer("rescue", Ok(brought(0, 6)));
    // Days later by the clock: the deadline has passed, and the rest goes on as a batch.
    rig.until(START.plus(100 * HOUR_MS));
    rig.pass(10_000);
    assert!(rig.kinds().contains(&"create"), "{:?}", rig.kinds());
    assert_eq!(rig.chunk(1).rest.rows(), 6);
}

#[test]
fn jobs_that_are_wanted_at_the_same_time_begin_early_enough_for_all() {
    let mut rig =
        Rig::with_job(Policy { open_batches: 0, ..policy() }, wanted(true, false), &[1000]);
    rig.add_job(2, wanted(true, false), &[1000]);
    rig.until(START.plus(10 * HOUR_MS - need(2000, true, false)));
    assert!(rig.kinds().contains(&"rescue"), "{:?}", rig.kinds());
}

#[test]
fn however_many_lines_there_are_their_batches_get_half_of_the_time() {
    let mut rig = Rig::with_job(policy(), wanted(true, false), &[1_000_000]);
    rig.create("batches/b");
    run_until(&mut rig, "batches/b", START.plus(4 * HOUR_MS));
    assert_eq!(promise(&rig).rescue, None);
    run_until(&mut rig, "batches/b", START.plus(5 * HOUR_MS));
    assert!(promise(&rig).rescue.is_some());
}

#[test]
fn a_pause_that_the_api_asks_for_is_kept_between_two_runs() {
    let mut rig = late(wanted(true, false));
    stopped(&mut rig, 0);
    let harvest = Harvest { answered: 4, missing: 6, rest: rest(6), ..Harvest::default() };
    let outcome = Rescued { harvest, pause_ms: 200_000, ..Rescued::default() };
    rig.answer("rescue", Ok(Outcome::Rescued(Box::new(outcome))));
    rig.pass(190_000);
    assert_eq!(rig.kinds(), [] as [&str; 0]);
    rig.pass(20_000);
    assert_eq!(rig.kinds(), ["rescue"]);
}

#[test]
fn the_last_quarter_is_kept_for_the_second_tier() {
    let both = wanted(true, true);
    let promise = Promise { rescue: Some(START), ..Promise::default() };
    let hours = |count: u64| START.plus(count * HOUR_MS);
    let tier = |now| tier_at(&both, &promise, hours(8), now);
    assert_eq!(tier(START), Some((Tier::Flex, hours(6))));
    assert_eq!(tier(Millis(hours(6).0 - 1)), Some((Tier::Flex, hours(6))));
    assert_eq!(tier(hours(6)), Some((Tier::Standard, hours(8))));
    let pace = RescuePace { parallel: 16, call_ms: 12_000, patience_ms: 1_000, margin_ms: 500 };
    let need = |flex, standard| pace.need_ms(160, Tiers { flex, standard });
    assert_eq!((need(true, false), need(false, true)), (133_500, 133_500));
    assert_eq!(need(true, true), 133_500 + 132_000 / 3);
}

#[test]
fn those_that_are_wanted_later_or_may_not_be_rescued_do_not_make_a_rescue_begin_earlier() {
    let none = Policy { open_batches: 0, ..policy() };
    let mut rig = Rig::with_job(none, wanted(true, false), &[1000]);
    rig.add_job(2, wanted(false, false), &[1000]);
    let mut later = wanted(true, false);
    later.moments.deliver_by = Some(START.plus(20 * HOUR_MS));
    rig.add_job(3, later, &[1000]);
    let begins = START.plus(10 * HOUR_MS - need(1000, true, false));
    rig.until(Millis(begins.0 - 1));
    assert_eq!(rig.kinds(), [""; 0]);
    rig.until(begins);
    assert_eq!(rig.kinds(), ["rescue"]);
}

#[test]
fn how_long_calls_took_says_when_the_next_rescue_begins() {
    let mut rig = late(wanted(true, false));
    stopped(&mut rig, 0);
    for (answered, missing, took) in [(5, 5, 80_000), (5, 0, 40_000)] {
        let harvest = Harvest { answered, missing, rest: rest(missing), ..Harvest::default() };
        let outcome = Rescued { harvest, call_ms: Some(took), ..Rescued::default() };
        rig.answer("rescue", Ok(Outcome::Rescued(Box::new(outcome))));
    }
    let mut next = wanted(true, false);
    let by = rig.now.plus(10 * HOUR_MS);
    next.moments.deliver_by = Some(by);
    rig.add_job(2, next, &[800]);
    let tiers = Tiers { flex: true, standard: false };
    let learned = RescuePace { call_ms: 70_000, ..RescuePace::default() };
    let begins = Millis(by.0 - learned.need_ms(800, tiers));
    let begun = |rig: &Rig| {
        let plan = rig.engine.job(id(2)).and_then(|job| job.head.state.plan()).expect("active");
        plan.promise.as_ref().is_some_and(|promise| promise.rescue.is_some())
    };
    rig.until(Millis(begins.0 - 1));
    assert!(!begun(&rig));
    rig.until(begins);
    assert!(begun(&rig));
}

#[test]
fn an_answer_that_calls_for_another_try_counts_as_one_and_a_missing_one_does_not() {
    let brought = |retryable, missing| {
        let left = retryable + missing;
        let harvest = Harvest { retryable, missing, rest: rest(left), ..Harvest::default() };
        Ok(Outcome::Rescued(Box::new(Rescued { harvest, ..Rescued::default() })))
    };
    let mut rig = late(Queue { attempts: 2, ..wanted(true, false) });
    stopped(&mut rig, 0);
    for (retryable, missing, tries) in [(0, 10, 0), (4, 6, 1), (4, 6, 2)] {
        rig.answer("rescue", brought(retryable, missing));
        assert_eq!(rig.chunk(1).tries, tries);
        asked_again(&mut rig);
    }
    rig.answer("rescue", brought(10, 0));
    assert_eq!(rig.state(1), &ChunkState::Settled, "each has had its tries");
}

/// What is left is asked after a pause.
fn asked_again(rig: &mut Rig) {
    while !rig.kinds().contains(&"rescue") {
        rig.wait();
    }
}

#[test]
fn the_last_results_are_those_of_the_last_call_that_brought_any() {
    let mut rig = late(wanted(true, false));
    stopped(&mut rig, 1);
    let before = rig.plan().last_result;
    rig.pass(60_000);
    rig.answer("rescue", Ok(brought(0, 9)));
    assert_eq!(rig.plan().last_result, before);
    asked_again(&mut rig);
    for harvest in [
        Harvest { answered: 1, missing: 8, rest: rest(8), ..Harvest::default() },
        Harvest { failed: 1, missing: 7, rest: rest(7), ..Harvest::default() },
    ] {
        rig.pass(1_000);
        asked_again(&mut rig);
        rig.answer(
            "rescue",
            Ok(Outcome::Rescued(Box::new(Rescued { harvest, ..Rescued::default() }))),
        );
        assert_eq!(rig.plan().last_result, Some(rig.now));
    }
}

#[test]
fn whose_lines_can_not_be_rescued_is_told_only_to_those_who_want_it() {
    let rig = Rig::with_job(policy(), wanted(true, false), &[10]);
    let head = |rig: &Rig, task, tiers| {
        let mut head = rig.engine.job(id(1)).expect("known").head.clone();
        head.queue.task = task;
        let deadline = Deadline { rescue: tiers, ..Deadline::USUAL };
        head.queue.deadline = Some(Arc::new(deadline));
        head
    };
    let tiers = |flex, standard| Tiers { flex, standard };
    for (task, rescue, says) in [
        (Task::Generate, tiers(true, false), None),
        (Task::Embed, tiers(true, false), Some("embeddings")),
        (Task::Embed, tiers(true, true), None),
        (Task::Embed, tiers(false, false), None),
    ] {
        let why = not_for(&head(&rig, task, rescue));
        assert_eq!(why.is_some(), says.is_some(), "{task:?} {rescue:?} {why:?}");
        assert!(why.unwrap_or_default().starts_with(says.unwrap_or_default()), "{why:?}");
    }
    let mut of_layer = head(&rig, Task::Generate, tiers(true, true));
    let JobState::Active(plan) = &mut of_layer.state else { panic!("{:?}", rig.job()) };
    plan.family = Family::OpenAi;
    assert!(not_for(&of_layer).is_some_and(|why| why.contains("OpenAI")));
}

#[test]
fn what_was_begun_is_taken_in_at_once_when_it_may_not_go_on() {
    for is_held in [true, false] {
        let mut rig = late(wanted(true, true));
        stopped(&mut rig, 0);
        rig.take("rescue");
        if is_held {
            let turn = rig.engine.hold(id(1), rig.now).expect("it is under way");
            rig.consume(turn);
        } else {
            // It is the turn of the other tier.
            rig.now = Millis(START.0 + 10 * HOUR_MS - 1_000);
        }
        rig.restart();
        let Effect::Rescue { tier, until, .. } = rig.take("rescue").effect else {
            panic!("rescue")
        };
        assert_eq!((tier, until), (Tier::Flex, rig.now), "nothing more is asked");
    }
}

#[test]
fn only_a_batch_that_was_left_to_itself_can_have_answered_in_vain() {
    let mut rig = Rig::with_job(policy(), queue(Transport::Inline), &[10]);
    rig.create("batches/b");
    rig.end("batches/b", RemoteState::Succeeded);
    rig.collect(Harvest { answered: 10, unknown: 3, ..Harvest::default() });
    assert_eq!(rig.plan().promise, None);
    assert!(rig.plan().warnings[0].contains("3"), "{:?}", rig.plan().warnings);
}
