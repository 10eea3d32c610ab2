//! What lines cost that are asked one by one, and batches that were left for them.

use gemini_batchd::engine::effect::Effect;
use gemini_batchd::engine::event::{Event, Harvest, Outcome, Rescued};
use gemini_batchd::engine::job::{RemoteState, Tier, Tiers};
use gemini_batchd::engine::money::Amount;
use gemini_batchd::engine::{ChunkState, Millis};

use crate::budget::{add, answered, lines, night, nightly, tonight};
use crate::rescue::{HOUR_MS, into_its_rescue, run_until, wanted};
use crate::rig::{Rig, START, batch, id, rest};

/// Ten lines whose rescue has begun; a line costs a line of the budget at most.
fn late(flex: bool, standard: bool) -> Rig {
    let mut rig = Rig::new(nightly(100));
    rig.tell(Event::Periods(tonight()));
    add(&mut rig, 1, wanted(flex, standard), &[10]);
    let mut rig = into_its_rescue(rig, Tiers { flex, standard });
    assert_eq!(night(&rig), (Amount(0), lines(10)));
    rig.answer("cancel", Ok(Outcome::Cancelled));
    rig
}

/// The batch is stopped, and has nothing.
fn stopped(rig: &mut Rig) {
    rig.end("batches/b", RemoteState::Cancelled);
    rig.collect(Harvest { missing: 10, rest: rest(10), ..Harvest::default() });
}

fn brought(answers: u64, output: u64, uncertain: u64) -> Outcome {
    let left = 10 - answers;
    let harvest = Harvest { missing: left, rest: rest(left), ..answered(answers, output) };
    Outcome::Rescued(Box::new(Rescued { harvest, uncertain, ..Rescued::default() }))
}

#[test]
fn flex_costs_what_a_batch_does_and_counts_by_what_its_answers_took() {
    let mut rig = late(true, false);
    stopped(&mut rig);
    assert_eq!(night(&rig), (Amount(0), lines(10)), "set aside before anything is asked");
    rig.answer("rescue", Ok(brought(10, 4_000, 0)));
    assert_eq!(night(&rig), (lines(4), Amount(0)));
    rig.restart();
    assert_eq!(night(&rig), (lines(4), Amount(0)));
}

#[test]
fn standard_costs_twice_as_much() {
    let mut rig = late(false, true);
    stopped(&mut rig);
    assert!(matches!(rig.state(1), ChunkState::Rescuing { tier: Tier::Standard, .. }));
    assert_eq!(night(&rig), (Amount(0), lines(20)));
    rig.answer("rescue", Ok(brought(10, 4_000, 0)));
    assert_eq!(night(&rig), (lines(8), Amount(0)));
}

#[test]
fn a_call_in_doubt_counts_as_if_it_had_been_answered_at_length() {
    let mut rig = late(true, false);
    stopped(&mut rig);
    rig.answer("rescue", Ok(brought(7, 1_000, 3)));
    // One for what is told, three for what nobody knows; for the rest as much is set aside anew.
    assert_eq!(night(&rig).0, lines(4));
    let deadline = Millis(START.0 + 10 * HOUR_MS);
    rig.until(deadline);
    rig.restart();
    assert_eq!(night(&rig).0, lines(4));
}

#[test]
fn a_batch_that_is_left_to_itself_may_have_cost_all_that_was_set_aside() {
    let mut rig = late(true, false);
    let begun = rig.plan().promise.as_ref().and_then(|it| it.rescue).expect("begun");
    run_until(&mut rig, "batches/b", begun.plus(150_000));
    let left = rig.chunk(1).aid.as_ref().and_then(|aid| aid.left.clone());
    assert_eq!(left.expect("remembered").name, batch("batches/b"));
    assert_eq!(night(&rig), (lines(10), lines(10)), "for it, and for asking one by one");
    rig.answer("rescue", Ok(brought(10, 4_000, 0)));
    assert_eq!(night(&rig), (lines(14), Amount(0)));
    assert_eq!(rig.engine.spent_for(&rig.saved[&id(1)]), Some((lines(14), Amount(0))));
}

#[test]
fn a_rescue_that_no_budget_allows_waits_and_people_are_told() {
    let mut rig = Rig::new(nightly(15));
    rig.tell(Event::Periods(tonight()));
    add(&mut rig, 1, wanted(false, true), &[10]);
    let mut rig = into_its_rescue(rig, Tiers { flex: false, standard: true });
    rig.answer("cancel", Ok(Outcome::Cancelled));
    stopped(&mut rig);
    assert!(matches!(rig.state(1), ChunkState::Waiting { .. }), "{:?}", rig.state(1));
    let Effect::Notify { refusal, .. } = rig.take("notify").effect else { unreachable!() };
    assert!(refusal.message.contains("up to 0.02 USD are needed"), "{}", refusal.message);
    let turn = rig.engine.release(id(1), rig.now).expect("it waits for that");
    rig.consume(turn);
    assert!(rig.kinds().contains(&"rescue"), "{:?}", rig.kinds());
    assert_eq!(night(&rig), (Amount(0), lines(20)));
}
