//! Money: what is set aside before a create, what is spent after it, and what waits for more.

use gemini_batchd::engine::budget::{Budget, Periods};
use gemini_batchd::engine::effect::Effect;
use gemini_batchd::engine::event::{Event, Failure, Harvest, Outcome, PlannedChunk, Polled};
use gemini_batchd::engine::job::{Cost, Density, Queue, Refusal, RemoteState, Tokens, Transport};
use gemini_batchd::engine::money::{Amount, Means, Price};
use gemini_batchd::engine::policy::Policy;
use gemini_batchd::engine::{ChunkState, JobState, Millis};

use crate::rig::{Rig, START, id, planned, policy, queue, rest};

/// A line costs at most a thousandth, and half of that probably.
const PRICE: Price =
    Price { input: 0, output: 2_000_000, cached: 0, image: None, batch_factor: 500_000 };
const LINE: u64 = 1_000_000;

pub fn lines(count: u64) -> Amount {
    Amount(count * LINE)
}

pub fn means() -> Means {
    let prices = [("gemini-2.5-flash".to_owned(), PRICE)].into();
    Means { prices, ..Means::default() }
}

pub fn with(means: Means) -> Policy {
    Policy { means, ..policy() }
}

pub fn nightly(night: u64) -> Policy {
    with(Means { night: Some(lines(night)), ..means() })
}

pub fn inline() -> Queue {
    queue(Transport::Inline)
}

/// What planning tells of lines whose answers have a limit.
pub fn plan_of(content: &str, chunks: &[u64]) -> Outcome {
    let Outcome::Planned { plan, chunks } = planned(content, chunks) else { unreachable!() };
    let density = Some(Density { per_kb: 0, bound: 1000, unbounded: 0 });
    let chunks = chunks.into_iter().map(|chunk| PlannedChunk { density, ..chunk }).collect();
    Outcome::Planned { plan, chunks }
}

pub fn add(rig: &mut Rig, number: u64, queue: Queue, chunks: &[u64]) {
    rig.arrive(number, queue, 100);
    rig.answer("claim", Ok(plan_of(&format!("content {number}"), chunks)));
}

pub fn rig_with(policy: Policy, chunks: &[u64]) -> Rig {
    let mut rig = Rig::new(policy);
    rig.tell(Event::Periods(tonight()));
    add(&mut rig, 1, inline(), chunks);
    rig
}

pub fn tonight() -> Periods {
    let hour = |hours: u64| Millis(START.0 + hours * 3_600_000);
    Periods {
        night: Millis(START.0 - 3_600_000),
        night_end: hour(23),
        month: Millis(START.0 - 86_400_000),
        month_end: hour(400),
    }
}

pub fn tomorrow() -> Periods {
    Periods {
        night: tonight().night_end,
        night_end: tonight().night_end.plus(86_400_000),
        ..tonight()
    }
}

pub fn count(rig: &Rig, kind: &str) -> usize {
    rig.kinds().iter().filter(|begun| **begun == kind).count()
}

/// Spent and set aside in this night.
pub fn night(rig: &Rig) -> (Amount, Amount) {
    let standings = rig.engine.standings();
    let night = standings.iter().find(|it| it.budget == Budget::Night).expect("always told");
    (night.spent, night.held)
}

pub fn answered(rows: u64, output: u64) -> Harvest {
    let tokens = Tokens { output, total: output, ..Tokens::default() };
    Harvest { answered: rows, tokens, ..Harvest::default() }
}

/// The only batch under way ends, and its answers take so many tokens.
pub fn finish(rig: &mut Rig, name: &str, rows: u64, output: u64) {
    rig.create(name);
    rig.end(name, RemoteState::Succeeded);
    rig.collect(answered(rows, output));
}

pub fn held(rig: &Rig, number: u64) -> Refusal {
    match rig.job_of(number) {
        JobState::Holding(refusal) | JobState::Held(refusal) => refusal.clone(),
        other => panic!("it is not held: {other:?}"),
    }
}

#[test]
fn what_a_batch_will_hardly_exceed_is_saved_with_the_intent_and_exchanged_for_what_it_took() {
    let mut rig = rig_with(nightly(100), &[10]);
    assert!(matches!(rig.state(1), ChunkState::Creating { .. }));
    let held = rig.chunk(1).purse.as_ref().and_then(|purse| purse.held);
    assert_eq!(held, Some(Cost { amount: lines(10), at: START }));
    assert_eq!(night(&rig), (Amount(0), lines(10)));
    let funds = rig.saved[&id(1)].head.funds.clone().expect("its model has a price");
    assert_eq!((funds.likely, funds.most), (lines(5), lines(10)));
    finish(&mut rig, "b", 10, 2_000);
    assert_eq!(night(&rig), (lines(2), Amount(0)));
    let cost = rig.chunk(1).batches[0].cost.expect("it is known");
    assert_eq!((cost.amount, cost.at), (lines(2), START));
    assert_eq!(rig.chunk(1).purse, None);
}

#[test]
fn answers_that_do_not_say_what_they_took_count_as_expected() {
    let mut rig = rig_with(nightly(100), &[10]);
    rig.create("b");
    rig.end("b", RemoteState::Succeeded);
    rig.collect(Harvest { uncounted: 4, ..answered(10, 600) });
    assert_eq!(night(&rig).0, Amount(600_000).plus(lines(4)));
}

#[test]
fn a_batch_that_vanished_counts_as_if_it_had_taken_all_that_was_set_aside() {
    let mut rig = rig_with(nightly(100), &[10]);
    rig.create("b");
    while rig.chunk(1).batches.is_empty() {
        rig.poll("b", Polled::Gone);
    }
    assert_eq!(rig.chunk(1).batches[0].cost.map(|cost| cost.amount), Some(lines(10)));
    assert_eq!(night(&rig).0, lines(10));
}

#[test]
fn a_refused_create_gives_back_what_was_set_aside_and_one_in_doubt_keeps_it() {
    let mut rig = rig_with(nightly(100), &[10]);
    rig.answer("create", Err(Failure::Transient("not sent".to_owned())));
    assert_eq!(night(&rig), (Amount(0), Amount(0)));
    rig.wait();
    assert_eq!(night(&rig), (Amount(0), lines(10)));
    rig.answer("create", Err(Failure::Ambiguous("no answer".to_owned())));
    assert_eq!(night(&rig), (Amount(0), lines(10)), "nobody knows");
    rig.restart();
    assert_eq!(night(&rig), (Amount(0), lines(10)), "nor after a restart");
    while matches!(rig.state(1), ChunkState::Uncertain { .. }) {
        match rig.kinds().contains(&"find") {
            true => drop(rig.answer("find", Ok(Outcome::Found(Vec::new())))),
            false => drop(rig.wait()),
        }
    }
    assert_eq!(night(&rig), (lines(10), lines(10)), "it may have been paid for, and is sent again");
    rig.restart();
    assert_eq!(night(&rig), (lines(10), lines(10)));
}

#[test]
fn what_was_turned_away_for_asking_too_much_was_not_paid_for() {
    let mut rig = rig_with(nightly(100), &[10]);
    let message = "429".to_owned();
    rig.answer("create", Err(Failure::RateLimited { retry_after_ms: None, message }));
    rig.wait();
    rig.answer("find", Ok(Outcome::Found(Vec::new())));
    assert_eq!(night(&rig), (Amount(0), lines(10)), "of the next attempt");
    assert_eq!(rig.kinds(), ["create"]);
}

#[test]
fn no_create_goes_over_the_nights_budget_and_what_comes_back_is_used() {
    let mut rig = Rig::new(nightly(25));
    rig.tell(Event::Periods(tonight()));
    for number in 1..=3 {
        add(&mut rig, number, inline(), &[10]);
    }
    assert_eq!(count(&rig, "create"), 2);
    assert_eq!(night(&rig), (Amount(0), lines(20)));
    let waits = rig.engine.waits_for_means(&rig.saved[&id(3)]).expect("it waits");
    assert!(waits.starts_with("waits for the night's budget: to let it go over"), "{waits}");
    finish(&mut rig, "b", 10, 2_000);
    assert_eq!(count(&rig, "create"), 2, "the first took less than was set aside");
    assert_eq!(rig.engine.waits_for_means(&rig.saved[&id(3)]), None);
    assert_eq!(night(&rig), (lines(2), lines(20)));
}

#[test]
fn a_file_that_costs_more_than_its_own_budget_is_held_whole_with_figures_and_the_way_out() {
    let mut rig = Rig::new(with(means()));
    let budget = Some(lines(20));
    add(&mut rig, 1, Queue { budget, ..inline() }, &[10, 11]);
    assert_eq!(rig.kinds(), ["hold"]);
    let refusal = held(&rig, 1);
    assert_eq!(refusal.reason, "budget");
    let message = "none of its 21 lines was sent: up to 0.021 USD are needed, and of its own budget, \
                   0.02 USD, 0.00 are spent";
    assert_eq!(refusal.message, message);
    assert!(
        refusal.remedy.contains(&format!("gemini-batchd release {}", id(1))),
        "{}",
        refusal.remedy
    );
    rig.answer("hold", Ok(Outcome::Moved));
    add(&mut rig, 2, Queue { budget, ..inline() }, &[10, 10]);
    assert_eq!(count(&rig, "create"), 2, "as much as there is may be spent");
}

#[test]
fn a_released_file_goes_over_its_budget_and_is_counted_all_the_same() {
    let mut rig = rig_with(nightly(5), &[10]);
    rig.answer("hold", Ok(Outcome::Moved));
    rig.restart();
    assert_eq!(rig.kinds(), [""; 0]);
    let turn = rig.engine.release(id(1), rig.now).expect("it waits for that");
    rig.consume(turn);
    let claim = rig.answer("claim", Ok(plan_of("content 1", &[10])));
    let Effect::Claim { head, .. } = claim else { unreachable!() };
    assert!(head.released, "it is fetched from held/");
    assert_eq!(count(&rig, "create"), 1);
    assert_eq!(night(&rig), (Amount(0), lines(10)));
    rig.restart();
    rig.answer("find", Ok(Outcome::Found(Vec::new())));
    assert!(rig.saved[&id(1)].head.funds.as_ref().is_some_and(|funds| funds.over));
}

#[test]
fn a_held_file_comes_back_by_itself_when_the_budget_is_raised_or_the_night_is_over() {
    let mut rig = rig_with(nightly(25), &[10, 10]);
    finish(&mut rig, "b", 10, 10_000);
    finish(&mut rig, "c", 10, 10_000);
    assert_eq!(night(&rig), (lines(20), Amount(0)));
    add(&mut rig, 2, inline(), &[10]);
    rig.answer("hold", Ok(Outcome::Moved));
    assert_eq!(held(&rig, 2).reason, "budget");
    rig.now = tomorrow().night;
    rig.tell(Event::Tick);
    assert_eq!(count(&rig, "claim"), 0, "nobody has said that it is another night");
    rig.tell(Event::Periods(tomorrow()));
    rig.answer("claim", Ok(plan_of("content 2", &[10])));
    assert_eq!(count(&rig, "create"), 1);
    add(&mut rig, 3, inline(), &[30]);
    rig.answer("hold", Ok(Outcome::Moved));
    let turn = rig.engine.adopt(nightly(39), rig.now);
    rig.consume(turn);
    assert_eq!(count(&rig, "claim"), 0, "10 are set aside, and 30 are needed");
    let turn = rig.engine.adopt(nightly(40), rig.now);
    rig.consume(turn);
    assert_eq!(count(&rig, "claim"), 1);
}

#[test]
fn of_a_file_that_was_sent_in_part_people_are_told_how_much_of_it() {
    let mut rig = rig_with(nightly(30), &[10, 10, 10]);
    assert_eq!(count(&rig, "create"), 3);
    // The first two take more than anybody expected, and the third did not leave.
    for name in ["b", "c"] {
        rig.create(name);
    }
    rig.end("b", RemoteState::Succeeded);
    rig.collect(answered(10, 15_000));
    rig.answer("create", Err(Failure::Transient("not sent".to_owned())));
    rig.wait();
    let Effect::Notify { refusal, .. } = rig.take("notify").effect else { unreachable!() };
    let begins = "20 of 30 lines are sent, 10 wait: up to 0.01 USD are needed, and of the night's \
                  budget, 0.03 USD, 0.015 are spent, 0.01 are set aside";
    assert!(refusal.message.starts_with(begins), "{}", refusal.message);
    assert_eq!(refusal.reason, "budget");
    assert!(matches!(rig.state(3), ChunkState::Waiting { .. }));
}

#[test]
fn a_job_that_waits_in_part_goes_on_when_a_person_says_so_and_the_note_is_taken_back() {
    let mut rig = rig_with(nightly(30), &[10, 10, 10]);
    finish(&mut rig, "b", 10, 25_000);
    rig.answer("create", Err(Failure::Transient("not sent".to_owned())));
    rig.wait();
    assert!(rig.engine.has_news());
    rig.answer("notify", Ok(Outcome::Told));
    assert!(!rig.engine.has_news());
    rig.tell(Event::Tick);
    assert_eq!(count(&rig, "notify"), 0, "once is enough");
    let turn = rig.engine.release(id(1), rig.now).expect("it waits for that");
    rig.consume(turn);
    assert_eq!((count(&rig, "withdraw"), count(&rig, "create")), (1, 2));
    assert!(rig.plan().warnings.iter().any(|it| it.contains("over its budget")));
}

#[test]
fn a_note_that_could_not_be_written_is_written_later() {
    let mut rig = rig_with(nightly(30), &[10, 10, 10]);
    finish(&mut rig, "b", 10, 25_000);
    rig.answer("create", Err(Failure::Transient("not sent".to_owned())));
    rig.wait();
    rig.answer("notify", Err(Failure::Local("disk full".to_owned())));
    assert!(rig.engine.has_news());
    rig.wait();
    rig.answer("notify", Ok(Outcome::Told));
}

#[test]
fn what_is_spent_is_known_after_a_restart_although_its_job_is_forgotten() {
    let mut rig = rig_with(nightly(25), &[10]);
    finish(&mut rig, "b", 10, 10_000);
    rig.answer("merge", Ok(Outcome::Merged { tally: Default::default(), stem: "1".to_owned() }));
    rig.answer("deliver", Ok(Outcome::Delivered));
    rig.answer("clean", Ok(Outcome::Cleaned));
    let spent = night(&rig);
    assert_eq!(spent, (lines(10), Amount(0)));
    rig.restart();
    assert_eq!(night(&rig), spent, "counted once, although the job and the note both tell of it");
    let turn = rig.engine.delete(id(1)).expect("it is over");
    rig.consume(turn);
    rig.restart();
    assert_eq!(night(&rig), spent, "by the note");
}

#[test]
fn what_is_spent_is_known_from_the_jobs_when_the_note_is_lost() {
    let mut rig = rig_with(nightly(25), &[10, 10]);
    finish(&mut rig, "b", 10, 3_000);
    rig.notes.clear();
    rig.restart();
    assert_eq!(night(&rig), (lines(3), lines(10)));
}

#[test]
fn a_job_waits_for_the_price_of_its_model_as_long_as_there_is_a_budget() {
    let mut rig = Rig::new(with(Means { night: Some(lines(100)), ..Means::default() }));
    rig.tell(Event::Periods(tonight()));
    add(&mut rig, 1, inline(), &[10]);
    rig.answer("hold", Ok(Outcome::Moved));
    let refusal = held(&rig, 1);
    assert!(refusal.message.contains("no price for the model gemini-2.5-flash"), "{refusal:?}");
    assert!(refusal.remedy.contains("[price.\"gemini-2.5-flash\"]"), "{refusal:?}");
    let turn = rig.engine.adopt(nightly(100), rig.now);
    rig.consume(turn);
    assert_eq!(rig.kinds(), ["claim"]);
}

#[test]
fn without_prices_and_budgets_nothing_is_saved_of_money() {
    let mut rig = Rig::new(policy());
    add(&mut rig, 1, inline(), &[10]);
    finish(&mut rig, "b", 10, 1_000);
    assert_eq!((&rig.saved[&id(1)].head.funds, &rig.chunk(1).purse), (&None, &None));
    assert_eq!(rig.chunk(1).batches[0].cost, None);
    assert!(rig.notes.is_empty());
}

#[test]
fn a_cancelled_job_gives_back_what_was_set_aside_for_what_was_not_sent() {
    let mut rig = rig_with(nightly(100), &[10, 10]);
    rig.create("b");
    rig.answer("create", Err(Failure::Transient("not sent".to_owned())));
    let turn = rig.engine.cancel(id(1), rig.now).expect("it is under way");
    rig.consume(turn);
    assert_eq!(night(&rig), (Amount(0), lines(10)), "the batch that is there may still cost that");
}

#[test]
fn a_queue_that_has_spent_its_part_of_the_night_does_not_hold_up_another() {
    let queues = [("reviews".to_owned(), lines(10))].into();
    let mut rig = Rig::new(with(Means { queues, ..means() }));
    rig.tell(Event::Periods(tonight()));
    let reviews = || Queue { name: "reviews".to_owned(), ..inline() };
    add(&mut rig, 1, reviews(), &[10]);
    for number in 2..100 {
        add(&mut rig, number, reviews(), &[1]);
    }
    assert_eq!(
        (count(&rig, "create"), count(&rig, "hold")),
        (1, 0),
        "they may fit when it is done"
    );
    add(&mut rig, 100, inline(), &[10]);
    assert_eq!(count(&rig, "create"), 2);
    finish(&mut rig, "b", 10, 10_000);
    assert_eq!(count(&rig, "hold"), 16, "now there is nothing left, and so many move at a time");
}

/// Fault 75.
#[test]
fn what_was_spent_by_a_clock_that_was_ahead_counts_for_now() {
    let mut rig = rig_with(nightly(25), &[10]);
    rig.answer("create", Err(Failure::Transient("not sent".to_owned())));
    rig.now = tomorrow().night.plus(1);
    rig.tell(Event::Periods(tomorrow()));
    finish(&mut rig, "b", 10, 20_000);
    assert_eq!(night(&rig).0, lines(20));
    rig.now = START.plus(1_000);
    rig.tell(Event::Periods(tonight()));
    assert_eq!(night(&rig).0, lines(20));
    rig.restart();
    assert_eq!(night(&rig).0, lines(20));
}

#[test]
fn a_file_is_held_whole_when_its_turn_comes_and_the_money_is_gone() {
    let mut rig = Rig::new(nightly(20));
    rig.tell(Event::Periods(tonight()));
    add(&mut rig, 1, inline(), &[10]);
    add(&mut rig, 2, inline(), &[5, 6]);
    assert_eq!(count(&rig, "create"), 1, "it is not begun before there is enough for all of it");
    rig.create("b");
    rig.end("b", RemoteState::Succeeded);
    rig.collect(Harvest { rest: rest(0), ..answered(10, 15_000) });
    assert_eq!(held(&rig, 2).reason, "budget");
    assert!(rig.saved[&id(2)].chunks.is_empty(), "it is read anew when it comes back");
    rig.answer("hold", Ok(Outcome::Moved));
    rig.restart();
    assert_eq!(held(&rig, 2).reason, "budget");
}
