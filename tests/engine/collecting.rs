//! From the first look at a batch to the end of its attempt, and what follows.

use gemini_batchd::engine::effect::Effect;
use gemini_batchd::engine::event::{Failure, Harvest, Polled, RemoteBatch};
use gemini_batchd::engine::job::{JobState, RemoteEnd, RemoteError, RemoteState, Rest, Transport};
use gemini_batchd::engine::keys::Keys;
use gemini_batchd::engine::{Attempt, ChunkState};

use crate::rig::{ROW_BYTES, Rig, policy, queue, remote, rest};

/// A job of one chunk whose batch is called `b`.
fn polling(rows: u64) -> Rig {
    let mut rig = Rig::with_job(policy(), queue(Transport::Inline), &[rows]);
    rig.create("b");
    rig
}

/// The same, and the batch has ended.
fn ended(rows: u64, state: RemoteState) -> Rig {
    let mut rig = polling(rows);
    rig.end("b", state);
    rig
}

/// So many rows answered, and so many not.
fn harvest(answered: u64, open: u64) -> Harvest {
    Harvest { answered, rest: rest(open), ..Harvest::default() }
}

#[test]
fn a_batch_is_looked_at_often_at_first_and_rarely_later() {
    let mut rig = polling(10);
    let mut pauses = Vec::new();
    for _ in 0..60 {
        pauses.push(rig.wait());
        rig.poll("b", Polled::Seen(remote("b")));
    }
    assert!((5_000..=10_000).contains(&pauses[0]), "{pauses:?}");
    let last = pauses[59];
    assert!((150_000..=300_000).contains(&last), "{pauses:?}");
}

#[test]
fn a_state_that_changed_is_saved_and_an_unknown_one_kept_as_it_came() {
    let mut rig = polling(10);
    for state in [RemoteState::Running, RemoteState::Unknown("ODD".to_owned())] {
        rig.poll("b", Polled::Seen(RemoteBatch { state: state.clone(), ..remote("b") }));
        let ChunkState::Polling(batch) = rig.state(1) else { panic!("{:?}", rig.state(1)) };
        assert_eq!(batch.remote, state);
    }
}

#[test]
fn a_batch_has_ended_when_it_says_so_or_its_state_does() {
    let (unknown, at) = (RemoteState::Unknown("ODD".to_owned()), Some(crate::rig::START.plus(77)));
    let error = Some(RemoteError { code: 13, message: "internal".to_owned() });
    for (state, done, ended) in [
        (RemoteState::Expired, false, at),
        (unknown, true, at),
        (RemoteState::Succeeded, true, None),
    ] {
        let mut rig = polling(10);
        let seen =
            RemoteBatch { state: state.clone(), done, ended, error: error.clone(), ..remote("b") };
        rig.poll("b", Polled::Seen(seen));
        let ChunkState::Collecting { batch, end } = rig.state(1) else { panic!("{state:?}") };
        let ended = ended.unwrap_or(rig.now);
        assert_eq!(*end, RemoteEnd { state: state.clone(), ended, error: error.clone() });
        let Effect::Collect { batch: name, end: begun, missing_max, .. } =
            rig.begun[0].effect.clone()
        else {
            panic!("{:?}", rig.kinds())
        };
        assert_eq!((&name, &begun, missing_max), (&batch.name, end, 0));
    }
}

#[test]
fn what_was_answered_settles_the_chunk_and_is_written_down() {
    let mut rig = ended(10, RemoteState::Succeeded);
    let created = crate::rig::START;
    rig.collect(harvest(10, 0));
    let chunk = rig.chunk(1);
    assert_eq!((&chunk.state, chunk.tries, chunk.rest), (&ChunkState::Settled, 1, Rest::default()));
    let [record] = &chunk.batches[..] else { panic!("{:?}", chunk.batches) };
    assert_eq!((record.lines, record.bytes, record.answered), (10, 10 * ROW_BYTES, 10));
    assert_eq!((record.attempt, record.created, record.adopted), (Attempt(1), created, false));
    let JobState::Merging(plan) = rig.job() else { panic!("{:?}", rig.job()) };
    assert_eq!(plan.last_result, Some(rig.now));
    assert_eq!(plan.warnings, [""; 0]);
}

#[test]
fn the_unanswered_rest_is_sent_again_as_often_as_the_queue_allows() {
    let mut rig = ended(10, RemoteState::Expired);
    let mut pauses = Vec::new();
    for attempt in 1..=2 {
        rig.collect(harvest(2, 10 - 2 * attempt));
        let chunk = rig.chunk(1);
        assert_eq!(chunk.attempt, Attempt(attempt as u16 + 1));
        assert_eq!(chunk.rest.rows(), 10 - 2 * attempt);
        let ChunkState::Waiting { not_before } = chunk.state else { panic!("{chunk:?}") };
        pauses.push(not_before.since(rig.now));
        rig.wait();
        rig.create("b");
        rig.end("b", RemoteState::Expired);
    }
    assert!((750..=1250).contains(&pauses[0]) && (1500..=2500).contains(&pauses[1]), "{pauses:?}");
    rig.collect(harvest(2, 4));
    let chunk = rig.chunk(1);
    assert_eq!((&chunk.state, chunk.tries, chunk.rest), (&ChunkState::Settled, 3, rest(4)));
    let sent: Vec<u64> = chunk.batches.iter().map(|record| record.lines).collect();
    assert_eq!(sent, [10, 8, 6]);
}

#[test]
fn whatever_is_odd_about_results_is_told_with_its_count() {
    let mut rig = ended(10, RemoteState::Succeeded);
    rig.collect(Harvest { unknown: 4, repeated: 5, missing: 6, ..harvest(10, 0) });
    let warnings = &rig.plan().warnings;
    let begin = |at: usize, text: &str| {
        assert!(warnings[at].starts_with(text), "{warnings:?}");
    };
    assert_eq!(warnings.len(), 3);
    begin(0, "chunk 1: 4 result lines for rows that were not sent");
    begin(1, "chunk 1: 5 result lines for rows that had one already");
    begin(2, "chunk 1: 6 rows without a result line");
}

/// An end as a whole, with this code.
fn failed(rig: &mut Rig, code: i32) {
    let error = Some(RemoteError { code, message: "as a whole".to_owned() });
    let end = RemoteBatch { state: RemoteState::Failed, done: true, error, ..remote("b") };
    rig.poll("b", Polled::Seen(end));
}

#[test]
fn a_batch_that_failed_whole_is_halved_when_its_content_is_blamed() {
    for code in [3, 9, 11, 12] {
        let mut rig = polling(10);
        failed(&mut rig, code);
        rig.collect(harvest(0, 10));
        assert!(matches!(rig.state(1), ChunkState::Split { .. }), "{code}: {:?}", rig.state(1));
        let told = rig.chunk(2).last_error.as_ref().map(|error| error.code);
        assert_eq!(told, Some(code));
    }
    let mut rig = polling(1);
    failed(&mut rig, 3);
    rig.collect(harvest(0, 1));
    assert_eq!(*rig.state(1), ChunkState::Settled, "a line alone is not cut");
}

#[test]
fn a_batch_that_failed_whole_by_accident_is_sent_again_before_it_is_halved() {
    let mut rig = polling(10);
    failed(&mut rig, 13);
    rig.collect(harvest(0, 10));
    assert!(matches!(rig.state(1), ChunkState::Waiting { .. }), "{:?}", rig.state(1));
    rig.wait();
    rig.create("b");
    failed(&mut rig, 13);
    rig.collect(harvest(0, 10));
    assert!(matches!(rig.state(1), ChunkState::Split { .. }), "twice is no accident");
}

#[test]
fn a_line_alone_that_failed_by_accident_has_all_its_attempts() {
    let mut rig = polling(1);
    for _ in 0..2 {
        failed(&mut rig, 13);
        rig.collect(harvest(0, 1));
        rig.wait();
        rig.create("b");
    }
    failed(&mut rig, 13);
    rig.collect(harvest(0, 1));
    assert_eq!((rig.state(1), rig.chunk(1).tries), (&ChunkState::Settled, 3));
}

#[test]
fn a_failure_after_an_answer_or_with_some_outcome_is_no_failure_of_the_whole() {
    let some = [
        Harvest { answered: 1, ..harvest(1, 9) },
        Harvest { failed: 1, ..harvest(0, 9) },
        Harvest { retryable: 1, ..harvest(0, 10) },
    ];
    for harvest in some {
        let mut rig = polling(10);
        failed(&mut rig, 3);
        rig.collect(harvest.clone());
        assert!(matches!(rig.state(1), ChunkState::Waiting { .. }), "{harvest:?}");
    }
    let mut rig = polling(10);
    failed(&mut rig, 13);
    rig.collect(harvest(1, 9));
    rig.wait();
    rig.create("b");
    failed(&mut rig, 13);
    rig.collect(harvest(0, 9));
    assert!(matches!(rig.state(1), ChunkState::Waiting { .. }), "the one before had an answer");
    let mut rig = ended(10, RemoteState::Succeeded);
    rig.collect(harvest(0, 10));
    assert!(matches!(rig.state(1), ChunkState::Waiting { .. }), "it did not fail");
}

#[test]
fn a_batch_is_gone_when_three_looks_in_a_row_miss_it_and_it_is_no_newborn() {
    let mut rig = polling(10);
    for _ in 0..10 {
        rig.poll("b", Polled::Gone);
    }
    assert!(rig.now.since(crate::rig::START) < 300_000, "too young to be missed");
    assert!(matches!(rig.state(1), ChunkState::Polling(_)));
    rig.pass(300_000);
    rig.poll("b", Polled::Seen(remote("b")));
    rig.poll("b", Polled::Gone);
    rig.poll("b", Polled::Gone);
    assert!(matches!(rig.state(1), ChunkState::Polling(_)), "it was seen in between");
    rig.poll("b", Polled::Gone);
    let chunk = rig.chunk(1);
    assert!(matches!(chunk.state, ChunkState::Waiting { .. }), "{chunk:?}");
    assert_eq!((chunk.attempt, chunk.tries, chunk.rest), (Attempt(2), 1, rest(10)));
    let [record] = &chunk.batches[..] else { panic!("{chunk:?}") };
    assert_eq!((&record.state, record.answered), (&RemoteState::Unknown("GONE".to_owned()), 0));
    assert_eq!(record.error.as_ref().map(|error| error.code), Some(5));
}

#[test]
fn a_batch_that_a_look_did_not_tell_of_is_neither_seen_nor_missed() {
    let mut rig = polling(10);
    rig.pass(400_000);
    rig.poll("b", Polled::Gone);
    rig.poll("b", Polled::Gone);
    for _ in 0..5 {
        rig.poll("another", Polled::Gone);
        assert!(matches!(rig.state(1), ChunkState::Polling(_)));
    }
    rig.poll("b", Polled::Gone);
    assert!(!matches!(rig.state(1), ChunkState::Polling(_)), "the third miss");
}

#[test]
fn a_batch_made_with_another_key_is_never_taken_for_gone() {
    let mut rig = polling(10);
    rig.policy.keys = Keys::one("another");
    rig.restart();
    rig.pass(400_000);
    for _ in 0..5 {
        rig.poll("b", Polled::Gone);
    }
    assert!(matches!(rig.state(1), ChunkState::Polling(_)));
    let trouble = rig.engine.trouble(crate::rig::id(1), Some(rig.chunk(1).no)).expect("told");
    assert!(trouble.message.contains("put the former key back"), "{}", trouble.message);
    assert_eq!(trouble.failures, 1, "it is no failure in a row: nothing is tried more often");
    let shown = rig.engine.latest_trouble().expect("told").message.clone();
    assert_eq!(shown, trouble.message);
}

/// Fetches fail like this until the results are given up. Answers with how long that took,
/// milliseconds.
fn fetch_in_vain(rig: &mut Rig, failure: &Failure) -> u64 {
    let first = rig.now;
    while *rig.state(1) != ChunkState::Settled {
        match rig.kinds().contains(&"collect") {
            true => drop(rig.answer("collect", Err(failure.clone()))),
            false => rig.pass(60_000),
        }
    }
    rig.now.since(first)
}

/// Fault 67.
#[test]
fn results_that_are_gone_for_an_hour_fail_the_rows_and_are_never_paid_again() {
    let text = || "404".to_owned();
    for failure in [Failure::Gone(text()), Failure::Rejected(text())] {
        let mut rig = ended(10, RemoteState::Succeeded);
        let took = fetch_in_vain(&mut rig, &failure);
        assert!((3_600_001..5_000_000).contains(&took), "{took}");
        assert_eq!(rig.chunk(1).rest, rest(10));
        let record = &rig.chunk(1).batches[0];
        assert_eq!((record.answered, &record.state), (0, &RemoteState::Succeeded));
        let told = &record.error.as_ref().expect("told").message;
        assert_eq!(told, "the results of b can not be had: 404");
    }
    // Any other answer in between, and the hour begins anew.
    let mut rig = ended(10, RemoteState::Succeeded);
    rig.answer("collect", Err(Failure::Gone(text())));
    for _ in 0..12 {
        rig.pass(400_000);
        rig.answer("collect", Err(Failure::NotReady("soon".to_owned())));
    }
    let took = fetch_in_vain(&mut rig, &Failure::Gone(text()));
    assert!(took > 3_600_000, "{took}");
}

#[test]
fn results_are_not_given_up_after_a_few_looks_however_far_apart_they_are() {
    let mut rig = ended(10, RemoteState::Succeeded);
    rig.policy.backoff_max_ms = 3_600_000;
    rig.restart();
    for look in 1..20 {
        rig.answer("collect", Err(Failure::Gone("403".to_owned())));
        assert!(matches!(rig.state(1), ChunkState::Collecting { .. }), "look {look}");
        while rig.kinds().is_empty() {
            rig.pass(60_000);
        }
    }
    rig.answer("collect", Err(Failure::Gone("403".to_owned())));
    assert_eq!(*rig.state(1), ChunkState::Settled);
}

/// The key was exchanged for that of another project while results were waiting.
#[test]
fn results_of_a_batch_made_with_another_key_are_waited_for_and_not_given_up() {
    let mut rig = ended(10, RemoteState::Succeeded);
    rig.policy.keys = Keys::one("another");
    rig.restart();
    for failure in [Failure::Gone("404".to_owned()), Failure::Rejected("403".to_owned())] {
        rig.answer("collect", Err(failure));
        assert!(matches!(rig.state(1), ChunkState::Collecting { .. }), "{:?}", rig.state(1));
        let told = rig.engine.latest_trouble().expect("told").message.clone();
        assert!(told.contains("put the former key back"), "{told}");
        assert_eq!(rig.wait(), rig.policy.poll_max_ms);
    }
    rig.policy.keys = Keys::one("key");
    rig.restart();
    rig.collect(harvest(10, 0));
    assert!(matches!(rig.job(), JobState::Merging(_)));
}

#[test]
fn other_failures_of_a_fetch_only_mean_later() {
    let text = || "why".to_owned();
    let failures = [
        Failure::Transient(text()),
        Failure::RateLimited { retry_after_ms: None, message: text() },
        Failure::Ambiguous(text()),
        Failure::Denied(text()),
        Failure::Local(text()),
        Failure::NotReady(text()),
        Failure::Damaged { message: text(), missing: None },
    ];
    for failure in failures {
        let mut rig = ended(10, RemoteState::Succeeded);
        let before = rig.chunk(1).clone();
        rig.answer("collect", Err(failure.clone()));
        assert_eq!(*rig.chunk(1), before, "{failure:?}");
        while rig.kinds().is_empty() {
            rig.wait();
        }
        assert_eq!(rig.kinds(), ["collect"], "{failure:?}");
    }
}

#[test]
fn fetches_that_came_short_twice_are_believed_once_the_api_has_settled() {
    let mut rig = ended(10, RemoteState::Succeeded);
    let begin = rig.now;
    for missing in [None, Some(4), None, Some(3)] {
        assert_eq!(fetch(&mut rig, missing.map(Some)), 0);
    }
    let settled = begin.plus(policy().uncertain_window_ms);
    assert!(rig.now >= settled, "{} ms early", settled.since(rig.now));
    assert_eq!(fetch(&mut rig, Some(Some(5))), 3, "as many as in the best of them");
}

#[test]
fn a_fetch_that_had_more_rows_than_later_ones_is_waited_for_only_so_often() {
    let mut rig = ended(10, RemoteState::Succeeded);
    let believed: Vec<u64> =
        [3, 5, 5, 5, 2, 5, 5, 5, 5].map(|missing| fetch(&mut rig, Some(Some(missing)))).to_vec();
    assert_eq!(believed, [0, 0, 3, 3, 3, 2, 2, 2, u64::MAX]);
}

#[test]
fn results_that_only_came_damaged_are_taken_as_they_are_in_the_end() {
    let mut rig = ended(10, RemoteState::Succeeded);
    let believed: Vec<u64> = (0..3).map(|_| fetch(&mut rig, Some(None))).collect();
    assert_eq!(believed, [0, 0, u64::MAX]);
}

/// The next fetch fails: short of so many rows if that is known, or for another reason. Answers with
/// how many might have been missing.
fn fetch(rig: &mut Rig, damaged: Option<Option<u64>>) -> u64 {
    let failure = match damaged {
        Some(missing) => Failure::Damaged { message: "short".to_owned(), missing },
        None => Failure::Transient("reset".to_owned()),
    };
    let effect = rig.answer("collect", Err(failure));
    let Effect::Collect { missing_max, .. } = effect else { unreachable!() };
    while rig.kinds().is_empty() {
        rig.wait();
    }
    missing_max
}

#[test]
fn results_that_are_announced_and_never_shown_are_given_up_after_a_day() {
    let mut rig = ended(10, RemoteState::Succeeded);
    let took = fetch_in_vain(&mut rig, &Failure::NotReady("soon".to_owned()));
    assert!((86_400_001..87_000_000).contains(&took), "{took}");
    // A machine that sleeps waits for nothing.
    let mut rig = ended(10, RemoteState::Succeeded);
    rig.answer("collect", Err(Failure::NotReady("soon".to_owned())));
    rig.until(rig.now.plus(3 * 86_400_000));
    rig.answer("collect", Err(Failure::NotReady("soon".to_owned())));
    assert!(matches!(rig.state(1), ChunkState::Collecting { .. }));
}

#[test]
fn a_hunt_for_a_bad_line_ends_when_nothing_ever_worked() {
    for (worked, answered) in [(false, 0), (true, 0), (true, 500), (true, 1)] {
        let mut rig = Rig::with_job(policy(), queue(Transport::Inline), &[1000]);
        let mut splits = 0;
        if worked {
            // One half works, so it is a matter of lines.
            refuse(&mut rig);
            rig.create("b");
            splits += 1;
        }
        if answered > 0 {
            let seen = RemoteBatch { state: RemoteState::Succeeded, ..remote("b") };
            rig.poll("b", Polled::Seen(seen));
            let failed = 500 - answered;
            rig.collect(Harvest { failed, rest: Rest::default(), ..harvest(answered, 0) });
        }
        while rig.kinds().contains(&"create") {
            let before = rig.saved[&crate::rig::id(1)].chunks.len();
            refuse(&mut rig);
            splits += usize::from(rig.saved[&crate::rig::id(1)].chunks.len() > before);
        }
        match worked {
            true => assert_eq!(splits, 500, "one cut for every two lines, but those of one half"),
            false => assert_eq!(splits, 201),
        }
    }
}

/// The oldest create is refused as a whole.
fn refuse(rig: &mut Rig) {
    use gemini_batchd::engine::event::{Objection, Outcome};
    let issued = rig.begun.iter().find(|issued| issued.effect.word() == "create");
    let Some(Effect::Create { which, .. }) = issued.map(|issued| &issued.effect) else {
        panic!("no create among {:?}", rig.kinds())
    };
    let error = RemoteError { code: 3, message: "no".to_owned() };
    let to = Objection::Whole { rest: rest(which.rows.len()) };
    rig.answer("create", Ok(Outcome::Refused { error, to }));
}
