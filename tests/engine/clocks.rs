//! Pauses, clocks that jump, and an API that is ill.

use gemini_batchd::engine::event::{Failure, Outcome, Polled};
use gemini_batchd::engine::job::{JobState, Transport};
use gemini_batchd::engine::{ChunkState, Mend, Millis};

use crate::rig::{Rig, policy, queue, remote};

fn in_doubt() -> Rig {
    let mut rig = Rig::with_job(policy(), queue(Transport::Inline), &[10]);
    rig.answer("create", Err(Failure::Ambiguous("reset".to_owned())));
    rig
}

/// How long the only chunk is still looked for by the engine's own reckoning: the records say what
/// was decided first, and that is what a restart would begin with.
fn window_left(rig: &Rig) -> u64 {
    let job = rig.engine.unfinished().next().expect("a job");
    let chunk = job.chunks.values().next().expect("a chunk");
    let ChunkState::Uncertain { until, .. } = chunk.state else { panic!("{chunk:?}") };
    until.since(rig.now)
}

/// Something happens that is nobody's business; what is believed may differ from what is saved.
fn tick(rig: &mut Rig) {
    let turn = rig.engine.handle(gemini_batchd::engine::Event::Tick, rig.now);
    rig.begun.extend(turn.then);
}

#[test]
fn time_in_which_nobody_looked_does_not_count_towards_the_window() {
    for (slept, left) in [(120_000, 180_000), (120_001, 300_000), (7_200_000, 300_000)] {
        let mut rig = in_doubt();
        rig.now = rig.now.plus(slept);
        tick(&mut rig);
        assert_eq!(window_left(&rig), left, "{slept}");
    }
}

#[test]
fn a_clock_set_back_begins_windows_anew_and_nothing_waits_for_the_old_time() {
    let mut rig = in_doubt();
    rig.pass(100_000);
    assert_eq!(window_left(&rig), 200_000);
    rig.now = Millis(rig.now.0 - 5_000);
    tick(&mut rig);
    assert_eq!(window_left(&rig), 205_000, "a clock that is being adjusted");
    rig.now = Millis(rig.now.0 - 86_400_000);
    tick(&mut rig);
    assert_eq!(window_left(&rig), 300_000);
    let find = rig.take("find");
    let failure = Failure::Transient("503".to_owned());
    let _ = rig
        .engine
        .handle(gemini_batchd::engine::Event::Failed { ticket: find.ticket, failure }, rig.now);
    let next = rig.engine.next_wakeup().expect("it looks again");
    assert_eq!(next.since(rig.now), 30_000, "the pause between two looks");
}

#[test]
fn a_clock_set_back_forgets_pauses_polls_and_the_gate() {
    let mut rig = Rig::with_job(policy(), queue(Transport::Inline), &[10, 10]);
    rig.create("b");
    for _ in 0..30 {
        rig.wait();
        rig.poll("b", Polled::Seen(remote("b")));
    }
    for _ in 0..8 {
        while !rig.kinds().contains(&"create") {
            match rig.kinds().contains(&"poll") {
                true => rig.poll("b", Polled::Seen(remote("b"))),
                false => drop(rig.wait()),
            }
        }
        rig.answer("create", Err(Failure::Denied("403".to_owned())));
    }
    assert!(rig.engine.gate().is_some());
    rig.now = Millis(rig.now.0 - 86_400_000);
    tick(&mut rig);
    assert!(rig.engine.gate().is_none());
    assert!(rig.engine.latest_trouble().is_none());
    assert!(rig.kinds().contains(&"poll"), "{:?}", rig.kinds());
    // What waited for a moment in the future waits no longer than the longest pause there is.
    let next = rig.engine.next_wakeup().expect("the create is tried again");
    assert!(next.since(rig.now) <= 600_000, "{}", next.since(rig.now));
}

#[test]
fn a_restart_shortens_pauses_that_a_wrong_clock_had_made() {
    let mut rig = Rig::with_job(policy(), queue(Transport::Inline), &[10]);
    rig.answer("create", Err(Failure::Transient("no".to_owned())));
    rig.now = Millis(rig.now.0 - 86_400_000);
    let jobs = rig.saved.values().cloned().collect();
    let (engine, _) = gemini_batchd::engine::Engine::resume(jobs, rig.policy.clone(), rig.now);
    let next = engine.next_wakeup().expect("it waits");
    assert_eq!(next.since(rig.now), 600_000, "twice the longest pause");
}

#[test]
fn a_restart_looks_at_once_and_probes_that_a_wrong_clock_had_put_off_come_soon() {
    let mut rig = in_doubt();
    rig.now = Millis(rig.now.0 - 86_400_000);
    let jobs: Vec<_> = rig.saved.values().cloned().collect();
    let (engine, _) = gemini_batchd::engine::Engine::resume(jobs, rig.policy.clone(), rig.now);
    let next = engine.next_wakeup().expect("it waits");
    assert_eq!(next.since(rig.now), 30_000, "the pause between two looks");
    let mut rig = Rig::with_job(policy(), queue(Transport::Inline), &[10]);
    let failure =
        Failure::RateLimited { retry_after_ms: Some(3_000_000), message: "no".to_owned() };
    rig.answer("create", Err(failure));
    rig.now = Millis(rig.now.0 - 86_400_000);
    let jobs = rig.saved.values().cloned().collect();
    let (engine, _) = gemini_batchd::engine::Engine::resume(jobs, rig.policy.clone(), rig.now);
    let next = engine.next_wakeup().expect("it waits");
    assert_eq!(next.since(rig.now), 600_000, "twice the longest pause");
}

#[test]
fn after_a_few_accidents_in_a_row_the_api_is_left_alone() {
    let mut rig = Rig::with_job(policy(), queue(Transport::Inline), &[10; 6]);
    assert_eq!(rig.kinds().len(), 6);
    for failures in 1..=3 {
        rig.answer("create", Err(Failure::Transient("503".to_owned())));
        let gate = rig.engine.gate().expect("noted");
        assert_eq!((gate.failures, gate.until, gate.mend), (failures, rig.now, None));
    }
    rig.answer("create", Err(Failure::Transient("503 again".to_owned())));
    let gate = rig.engine.gate().expect("noted").clone();
    assert_eq!((gate.failures, gate.message.as_str()), (4, "503 again"));
    let pause = gate.until.since(rig.now);
    assert!((6_000..=10_000).contains(&pause), "{pause}");
    // The two that were under way come to their end; then one at a time finds out.
    rig.answer("create", Err(Failure::Transient("503".to_owned())));
    rig.answer("create", Err(Failure::Transient("503".to_owned())));
    assert_eq!(rig.kinds(), [""; 0]);
    let mut rounds = 0;
    while rig.kinds().is_empty() {
        rig.wait();
        rounds += 1;
        assert!(rounds < 20);
    }
    assert!(rig.now >= gate.until);
    assert_eq!(rig.kinds(), ["create"], "one finds out whether it is well again");
    rig.create("b");
    assert!(rig.engine.gate().is_none());
    assert!(rig.kinds().len() > 1, "all go on: {:?}", rig.kinds());
}

#[test]
fn a_refused_key_stops_all_but_one_try_now_and_then() {
    let mut rig = Rig::with_job(policy(), queue(Transport::Inline), &[10, 10]);
    rig.answer("create", Err(Failure::Denied("403".to_owned())));
    let gate = rig.engine.gate().expect("noted").clone();
    assert!(gate.mend == Some(Mend::Key) && gate.until > rig.now);
    rig.answer("create", Err(Failure::Denied("403".to_owned())));
    let before = rig.now;
    while rig.kinds().is_empty() {
        rig.wait();
    }
    assert!(rig.now > before);
    assert_eq!(rig.kinds(), ["create"]);
    rig.answer("create", Err(Failure::Denied("403".to_owned())));
    assert_eq!(rig.engine.gate().map(|gate| gate.failures), Some(3));
}

#[test]
fn a_shut_gate_wakes_nobody_who_does_not_wait_for_it() {
    let mut rig = Rig::with_job(policy(), queue(Transport::Inline), &[10, 10, 10]);
    for _ in 0..3 {
        rig.answer("create", Err(Failure::Denied("403".to_owned())));
    }
    while rig.kinds().is_empty() {
        rig.wait();
    }
    // One tries whether the gate can be opened, and the moment for that has come.
    rig.until(rig.now.max(rig.engine.gate().expect("shut").until));
    assert_eq!(rig.kinds(), ["create"]);
    assert!(rig.engine.next_wakeup().is_none_or(|at| at > rig.now), "no hot loop");
    rig.answer("create", Err(Failure::Denied("403".to_owned())));
    let turn = rig.engine.cancel(crate::rig::id(1), rig.now).expect("it is under way");
    rig.consume(turn);
    assert!(rig.engine.gate().is_some_and(|gate| gate.until > rig.now));
    assert_eq!(rig.engine.next_wakeup(), None, "nobody wants to go through it");
}

#[test]
fn units_that_failed_together_are_not_tried_again_together() {
    let mut rig = Rig::with_job(policy(), queue(Transport::Inline), &[10, 10]);
    rig.add_job(2, queue(Transport::Inline), &[10, 10]);
    for _ in 0..4 {
        let failure = Failure::RateLimited { retry_after_ms: None, message: "slow".to_owned() };
        rig.answer("create", Err(failure));
    }
    let pause = |job, chunk| {
        let chunk = Some(gemini_batchd::engine::ChunkNo(chunk));
        rig.engine.trouble(crate::rig::id(job), chunk).expect("noted").not_before
    };
    let pauses = [pause(1, 1), pause(1, 2), pause(2, 1), pause(2, 2)];
    let different: std::collections::BTreeSet<Millis> = pauses.into();
    assert_eq!(different.len(), 4, "{pauses:?}");
}

#[test]
fn trouble_of_one_unit_is_nobody_elses() {
    let limited = Failure::RateLimited { retry_after_ms: Some(9_000), message: "slow".to_owned() };
    for failure in [limited, Failure::Rejected("400".to_owned()), Failure::Gone("404".to_owned())] {
        let mut rig = Rig::with_job(policy(), queue(Transport::Inline), &[10]);
        rig.create("b");
        rig.wait();
        rig.answer("poll", Err(failure.clone()));
        assert!(rig.engine.gate().is_none(), "{failure:?}");
        let trouble = rig.engine.latest_trouble().expect("noted");
        let is_gone = !matches!(failure, Failure::RateLimited { .. });
        let since = is_gone.then_some(rig.now);
        assert_eq!((trouble.failures, trouble.gone_since), (1, since));
        let told = rig.engine.trouble(crate::rig::id(1), Some(rig.chunk(1).no));
        assert_eq!(told, Some(trouble));
        rig.wait();
        rig.answer("poll", Err(failure.clone()));
        let trouble = rig.engine.latest_trouble().expect("noted");
        assert_eq!((trouble.failures, trouble.gone_since), (2, since));
        rig.wait();
        rig.answer("poll", Ok(Outcome::Polled(Vec::new())));
        assert!(rig.engine.latest_trouble().is_none(), "it is overcome");
    }
}

#[test]
fn work_on_this_machine_goes_on_while_the_api_is_ill() {
    let mut rig = Rig::with_job(policy(), queue(Transport::Inline), &[10]);
    rig.answer("create", Err(Failure::Denied("403".to_owned())));
    rig.arrive(2, queue(Transport::Inline), 1 << 21);
    rig.answer("claim", Ok(Outcome::Claimed));
    rig.answer("plan", Ok(crate::rig::planned("other", &[5])));
    assert!(matches!(rig.job_of(2), JobState::Active(_)));
    assert_eq!(rig.kinds(), [""; 0], "but nothing is sent");
    let wakeup = rig.engine.next_wakeup().expect("the gate opens");
    assert!(wakeup <= rig.engine.gate().expect("ill").until);
}

/// Fault 56.
#[test]
fn what_an_old_key_was_refused_says_nothing_of_the_new_one() {
    let mut rig = Rig::with_job(policy(), queue(Transport::Inline), &[10]);
    assert_eq!(rig.kinds(), ["create"], "under way while the key is exchanged");
    let turn = rig.engine.adopt(rig.policy.clone(), rig.now);
    rig.consume(turn);
    rig.answer("create", Err(Failure::Denied("401".to_owned())));
    assert!(rig.engine.gate().is_none());
    assert_eq!(rig.kinds(), ["create"], "tried with the new key at once");
    rig.answer("create", Err(Failure::Denied("401".to_owned())));
    assert!(rig.engine.gate().is_some(), "the new one is refused as well");
}
