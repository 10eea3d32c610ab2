//! Money that comes and goes while jobs wait: what is checked once more, and what people are told.

use gemini_batchd::engine::budget::{Budget, Periods};
use gemini_batchd::engine::effect::Effect;
use gemini_batchd::engine::event::{Event, Failure, Outcome};
use gemini_batchd::engine::job::{Queue, RemoteState, Transport};
use gemini_batchd::engine::money::{Amount, Means};
use gemini_batchd::engine::policy::{Policy, Uncertain};
use gemini_batchd::engine::{ChunkNo, ChunkState, Millis};

use crate::budget::{
    add, answered, count, finish, held, inline, lines, means, night, nightly, plan_of, rig_with,
    tomorrow, tonight, with,
};
use crate::rig::{Rig, batch, id, policy, queue};

#[test]
fn a_file_that_a_person_holds_stays_so_when_its_money_is_there_again() {
    let mut rig = rig_with(nightly(20), &[10, 10]);
    finish(&mut rig, "b", 10, 10_000);
    finish(&mut rig, "c", 10, 10_000);
    let hold = |rig: &mut Rig, number| {
        let turn = rig.engine.hold(id(number), rig.now).expect("it comes back by itself");
        rig.consume(turn);
    };
    let plan = |rig: &mut Rig, number: u64| {
        rig.answer("claim", Ok(plan_of(&format!("content {number}"), &[5])));
    };
    rig.arrive(2, inline(), 100);
    hold(&mut rig, 2);
    plan(&mut rig, 2);
    rig.answer("hold", Ok(Outcome::Moved));
    rig.arrive(3, inline(), 100);
    plan(&mut rig, 3);
    rig.answer("hold", Ok(Outcome::Moved));
    hold(&mut rig, 3);
    assert_eq!((held(&rig, 2).reason, held(&rig, 3).reason), ("budget".into(), "budget".into()));
    rig.restart();
    rig.tell(Event::Periods(tomorrow()));
    plan(&mut rig, 2);
    plan(&mut rig, 3);
    assert_eq!(count(&rig, "create"), 0, "{:?}", rig.kinds());
    for number in [2, 3] {
        let turn = rig.engine.release(id(number), rig.now).expect("it is on hold");
        rig.consume(turn);
    }
    assert_eq!(count(&rig, "create"), 2);
}

#[test]
fn a_file_that_is_uploaded_is_not_created_when_others_have_taken_its_money_meanwhile() {
    let mut rig = rig_with(nightly(25), &[10]);
    add(&mut rig, 2, queue(Transport::File), &[10]);
    assert_eq!(night(&rig).1, lines(20), "enough is set aside for both");
    finish(&mut rig, "b", 10, 20_000);
    let ChunkState::Uploading { file } =
        rig.engine.job(id(2)).expect("known").chunks[&ChunkNo(1)].state.clone()
    else {
        panic!("uploading")
    };
    rig.answer("upload", Ok(Outcome::Uploaded { file }));
    assert_eq!(count(&rig, "create"), 0, "20 of 25 are spent, and 10 are needed");
    assert_eq!(night(&rig), (lines(20), Amount(0)), "for others what is left is there");
    assert_eq!(held(&rig, 2).reason, "budget");
}

#[test]
fn a_note_that_goes_when_money_is_there_leaves_one_for_a_create_in_doubt() {
    // Either note may still be on its way when the money comes.
    for late in [None, Some("budget"), Some("uncertain")] {
        let hold = Policy { uncertain: Uncertain::Hold, ..nightly(30) };
        let mut rig = rig_with(hold.clone(), &[10, 10, 10]);
        rig.answer("create", Err(Failure::Ambiguous("reset".to_owned())));
        rig.create("b");
        rig.end("b", RemoteState::Succeeded);
        rig.collect(answered(10, 15_000));
        rig.answer("create", Err(Failure::Transient("not sent".to_owned())));
        while !matches!(rig.state(1), ChunkState::Stuck { .. }) {
            rig.wait();
            if rig.kinds().contains(&"find") {
                rig.answer("find", Ok(Outcome::Found(Vec::new())));
            }
        }
        let told = |ticket| Event::Done { ticket, outcome: Outcome::Told };
        let mut on_its_way = None;
        for note in [rig.take("notify"), rig.take("notify")] {
            let Effect::Notify { refusal, .. } = &note.effect else { unreachable!() };
            match late == Some(refusal.reason.as_str()) {
                true => on_its_way = Some(told(note.ticket)),
                false => rig.tell(told(note.ticket)),
            }
        }
        assert_eq!(on_its_way.is_some(), late.is_some());
        let enough = Means { night: Some(lines(40)), ..means() };
        let turn = rig.engine.adopt(Policy { means: enough, ..hold }, rig.now);
        rig.consume(turn);
        if late == Some("budget") {
            on_its_way.take().into_iter().for_each(|event| rig.tell(event));
        }
        rig.answer("withdraw", Ok(Outcome::Withdrawn(id(1))));
        on_its_way.into_iter().for_each(|event| rig.tell(event));
        assert!(rig.engine.has_news(), "a file has one note, and that is gone");
        rig.answer("notify", Ok(Outcome::Told));
        assert!(!rig.engine.has_news());
    }
}

#[test]
fn a_night_and_a_month_last_from_their_begin_to_before_their_end() {
    let night = tonight();
    let before = |at: Millis| Millis(at.0 - 1);
    assert!(night.hold(night.night) && night.hold(before(night.night_end)));
    assert!(!night.hold(before(night.night)) && !night.hold(night.night_end));
    let month_begins = Periods { month: night.night.plus(10), ..night };
    assert!(!month_begins.hold(night.night) && month_begins.hold(night.night.plus(10)));
    let month_ends = Periods { month_end: night.night.plus(10), ..night };
    assert!(month_ends.hold(night.night) && !month_ends.hold(night.night.plus(10)));
    let rig = rig_with(nightly(10), &[1]);
    assert_eq!(rig.engine.periods(), night);
}

#[test]
fn a_job_remembers_in_which_currency_it_was_estimated_and_what_it_has_cost() {
    let means = Means { currency: "EUR".to_owned(), ..means() };
    let mut rig = rig_with(with(means), &[10, 10]);
    let funds = rig.saved[&id(1)].head.funds.clone().expect("its model has a price");
    assert_eq!((funds.currency.as_str(), funds.most), ("EUR", lines(20)));
    let spent = |rig: &Rig| rig.engine.spent_for(rig.engine.job(id(1)).expect("known"));
    assert_eq!(spent(&rig), Some((Amount(0), lines(20))));
    finish(&mut rig, "b", 10, 3_000);
    assert_eq!(spent(&rig), Some((lines(3), lines(10))));
    let rig = Rig::with_job(policy(), inline(), &[10]);
    assert_eq!(spent(&rig), None, "nobody counts where there is no price");
}

#[test]
fn what_is_set_aside_counts_for_its_own_queue_only() {
    let queues = [("a".to_owned(), lines(50)), ("b".to_owned(), lines(50))].into();
    let mut rig = Rig::new(with(Means { queues, ..means() }));
    rig.tell(Event::Periods(tonight()));
    for (number, name, rows) in [(1, "a", 10), (2, "b", 20)] {
        add(&mut rig, number, Queue { name: name.to_owned(), ..inline() }, &[rows]);
    }
    let held: Vec<(Budget, Amount)> =
        rig.engine.standings().into_iter().map(|it| (it.budget, it.held)).collect();
    assert!(held.contains(&(Budget::Queue("a".to_owned()), lines(10))), "{held:?}");
    assert!(held.contains(&(Budget::Queue("b".to_owned()), lines(20))), "{held:?}");
}

#[test]
fn a_job_of_which_a_part_took_more_than_expected_stops_at_its_own_budget() {
    let mut rig = Rig::new(Policy { open_batches: 1, ..with(means()) });
    rig.tell(Event::Periods(tonight()));
    add(&mut rig, 1, Queue { budget: Some(lines(25)), ..inline() }, &[10, 10]);
    let turn = rig.engine.hold(id(1), rig.now).expect("half of it waits");
    rig.consume(turn);
    finish(&mut rig, "b", 10, 20_000);
    let turn = rig.engine.release(id(1), rig.now).expect("it is on hold");
    rig.consume(turn);
    assert_eq!((count(&rig, "create"), count(&rig, "notify")), (0, 1), "{:?}", rig.kinds());
}

#[test]
fn another_night_brings_back_what_that_night_can_pay_and_not_what_its_own_budget_refuses() {
    let mut rig = rig_with(nightly(30), &[10]);
    finish(&mut rig, "b", 10, 25_000);
    let own = |limit| Queue { budget: Some(lines(limit)), ..inline() };
    add(&mut rig, 2, own(20), &[20]);
    add(&mut rig, 3, own(20), &[21]);
    for _ in 0..2 {
        rig.answer("hold", Ok(Outcome::Moved));
    }
    rig.tell(Event::Periods(tomorrow()));
    assert_eq!(count(&rig, "claim"), 1);
    let Effect::Claim { head, .. } = rig.take("claim").effect else { unreachable!() };
    assert_eq!(head.id, id(2));
}

#[test]
fn a_file_of_which_a_create_was_turned_away_before_stays_and_people_are_told() {
    let mut rig = rig_with(nightly(25), &[10]);
    let message = "slow".to_owned();
    rig.answer("create", Err(Failure::RateLimited { retry_after_ms: None, message }));
    rig.wait();
    rig.answer("find", Ok(Outcome::Found(Vec::new())));
    rig.answer("create", Err(Failure::Transient("not sent".to_owned())));
    assert!(matches!(rig.state(1), ChunkState::Waiting { .. }), "{:?}", rig.state(1));
    let turn = rig.engine.hold(id(1), rig.now).expect("it waits");
    rig.consume(turn);
    add(&mut rig, 2, inline(), &[10]);
    let created = Outcome::Created { batch: batch("b"), created: Some(rig.now) };
    rig.answer("create", Ok(created));
    rig.end("b", RemoteState::Succeeded);
    rig.collect(answered(10, 20_000));
    rig.pass(10_000);
    let turn = rig.engine.release(id(1), rig.now).expect("it is on hold");
    rig.consume(turn);
    assert_eq!((count(&rig, "notify"), count(&rig, "hold")), (1, 0), "{:?}", rig.kinds());
}

#[test]
fn a_note_about_money_that_is_taken_back_too_late_is_written_again() {
    let mut rig = rig_with(nightly(30), &[10, 10, 10]);
    finish(&mut rig, "b", 10, 25_000);
    rig.answer("create", Err(Failure::Transient("not sent".to_owned())));
    rig.wait();
    rig.answer("notify", Ok(Outcome::Told));
    // There is more money for a moment.
    let night = |limit| Means { night: Some(lines(limit)), ..means() };
    let turn = rig.engine.adopt(with(night(60)), rig.now);
    rig.consume(turn);
    let withdrawal = rig.take("withdraw");
    let turn = rig.engine.adopt(with(night(30)), rig.now);
    rig.consume(turn);
    rig.answer("create", Err(Failure::Transient("not sent".to_owned())));
    rig.pass(10_000);
    rig.answer("notify", Ok(Outcome::Told));
    assert!(!rig.engine.has_news());
    rig.tell(Event::Done { ticket: withdrawal.ticket, outcome: Outcome::Withdrawn(id(1)) });
    assert!(rig.engine.has_news(), "its note is gone");
}

#[test]
fn what_is_left_of_a_budget_is_neither_spent_nor_set_aside() {
    let mut rig = rig_with(nightly(40), &[10, 10]);
    finish(&mut rig, "b", 10, 12_000);
    let left = |budget| {
        let standings = rig.engine.standings();
        standings.iter().find(|it| it.budget == budget).expect("always told").left()
    };
    assert_eq!(left(Budget::Night), lines(40 - 12 - 10));
    assert!(left(Budget::Month) > lines(1_000_000), "there is no limit");
}
