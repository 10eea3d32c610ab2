//! The small values that decisions are made of, in tables.

use gemini_batchd::engine::event::{Failure, Objection, Outcome, RemoteBatch};
use gemini_batchd::engine::ids::NotAJobId;
use gemini_batchd::engine::job::{Accept, RemoteError, RemoteState, Tokens, Transport};
use gemini_batchd::engine::keys::Keys;
use gemini_batchd::engine::lanes::{Lane, Lanes, Size, Unit};
use gemini_batchd::engine::policy::{self, Policy};
use gemini_batchd::engine::verdict::{AnswerFacts, Verdict, judge_answer, judge_error};
use gemini_batchd::engine::{Attempt, JobId, Millis, Row, Rows};

use crate::rig::{Rig, credential, id, policy, queue, remote, rest};

/// Pauses are the same on every machine and after every restart: these are some of them.
#[test]
fn a_pause_is_decided_by_its_number_and_its_salt_alone() {
    let pauses = [
        (1, 0, 872),
        (1, 7, 853),
        (2, 7, 1887),
        (3, 0x1234_5678_90ab_cdef, 3430),
        (4, 1 << 40, 8268),
        (9, u64::MAX, 279_296),
        (10, 5, 339_600),
        (200, 5, 235_950),
    ];
    for (failures, salt, pause) in pauses {
        assert_eq!(policy().backoff_ms(failures, salt), pause, "{failures}, {salt:#x}");
    }
}

#[test]
fn a_look_at_a_batch_falls_on_a_grid_that_its_age_makes_coarser() {
    let looks: [(u64, u64, u64); 5] = [
        (1000003, 0, 1007616),
        (1000003, 100000, 1011712),
        (1000003, 263000, 1032192),
        (1700000000123, 1000000, 1700000104448),
        (1700000000123, 36000000, 1700000169984),
    ];
    for (now, age, next) in looks {
        assert_eq!(policy().next_poll(Millis(now), age), Millis(next), "{now}, {age}");
    }
}

#[test]
fn looks_for_a_lost_batch_are_a_tenth_of_the_window_apart_within_reason() {
    for (window, pause) in [(0, 1), (9, 1), (20, 2), (299_990, 29_999), (3_000_000, 30_000)] {
        let policy = Policy { uncertain_window_ms: window, ..policy() };
        assert_eq!(policy.probe_ms(), pause, "{window}");
    }
}

#[test]
fn small_jobs_have_their_part_of_every_limit() {
    for (all, others) in [(0, 0), (9, 9), (10, 9), (90, 81), (105, 95)] {
        let policy = Policy { open_batches: all, ..policy() };
        assert_eq!(policy.open_batches_of_others(), others);
    }
    for (all, others) in [(0, 0), (99, 99), (100, 99), (2_050, 2_030)] {
        let policy = Policy { storage_bytes: all, ..policy() };
        assert_eq!(policy.storage_bytes_of_others(), others);
    }
}

#[test]
fn the_way_is_the_queues_choice_or_a_matter_of_size() {
    let policy = Policy { inline_bytes: 2_154, ..policy() };
    let goes = |transport, rows| policy.goes_inline(&queue(transport), rest(rows));
    assert_eq!((goes(Transport::Inline, 1 << 40), goes(Transport::File, 1)), (true, false));
    assert_eq!((goes(Transport::Auto, 10), goes(Transport::Auto, 11)), (true, false));
}

#[test]
fn errors_that_blame_the_content_are_told_from_accidents() {
    let blamed: Vec<i32> = (-1..=20).filter(|code| policy::blames_content(*code)).collect();
    assert_eq!(blamed, [3, 9, 11, 12]);
}

#[test]
fn what_is_older_than_a_span_is_strictly_so() {
    let now = Millis(1000);
    for (moment, old) in [(899, true), (900, false), (901, false), (1000, false), (5000, false)] {
        assert_eq!(policy::is_older_than(Millis(moment), 100, now), old, "{moment}");
    }
}

#[test]
fn clocks_ten_minutes_apart_are_believed_and_no_more() {
    let ours = Millis(1_000_000);
    for (told, believed) in
        [(400_000, true), (399_999, false), (1_600_000, true), (1_600_001, false)]
    {
        let expected = if believed { Millis(told) } else { ours };
        assert_eq!(policy::plausible(Some(Millis(told)), ours), expected, "{told}");
    }
}

#[test]
fn sizes_go_by_bytes_but_for_short_questions() {
    const MIB: u64 = 1 << 20;
    for (bytes, size) in [
        (0, Size::Small),
        (MIB, Size::Small),
        (MIB + 1, Size::Middle),
        (256 * MIB, Size::Middle),
        (256 * MIB + 1, Size::Large),
    ] {
        assert_eq!(policy::size_of(bytes), size, "{bytes}");
        for lane in Lane::ALL {
            let short = matches!(lane, Lane::Cancel | Lane::Find | Lane::Poll);
            let expected = if short { Size::Small } else { size };
            assert_eq!(policy::size_in(lane, bytes), expected, "{lane:?}");
        }
    }
}

#[test]
fn what_leads_to_the_api_and_what_takes_room_here() {
    let of = |test: fn(Lane) -> bool| Lane::ALL.into_iter().filter(|lane| test(*lane)).collect();
    let remote: Vec<Lane> = of(Lane::is_remote);
    use Lane::{Cancel, Claim, Collect, Find, Merge, Plan, Poll, Rescue, Send, Upload};
    assert_eq!(remote, [Cancel, Find, Poll, Collect, Rescue, Upload, Send]);
    let room: Vec<Lane> = of(Lane::needs_room);
    assert_eq!(room, [Claim, Collect, Rescue, Merge, Upload, Send, Plan]);
}

#[test]
fn a_job_id_is_26_digits_and_capitals() {
    let good = "01JDZZZZZZZZZZZZZZZZZZZZ09";
    let parsed: JobId = good.parse().expect("an id");
    assert_eq!(
        (parsed.as_str(), parsed.to_string(), format!("{parsed:?}")),
        (good, good.to_owned(), good.to_owned())
    );
    assert!(JobId::MIN <= parsed && JobId::MIN.as_str() == "0".repeat(26));
    for bad in [
        "",
        "01jdzzzzzzzzzzzzzzzzzzzz09",
        "01JD",
        "../../../../../etc/passwd1",
        "01JDZZZZZZZZZZZZZZZZZZZZ090",
    ] {
        assert_eq!(bad.parse::<JobId>(), Err(NotAJobId), "{bad}");
    }
    assert_eq!(NotAJobId.to_string(), "a job id has 26 characters out of 0-9 and A-Z");
}

#[test]
fn rows_are_counted_with_both_ends() {
    let run = |first, last| Rows { first: Row(first), last: Row(last) };
    for (rows, len, middle) in [
        (run(1, 1), 1, 1),
        (run(1, 2), 2, 1),
        (run(1, 3), 3, 2),
        (run(5, 8), 4, 6),
        (run(10, 20), 11, 15),
        (run(4, 3), 0, 4),
        (run(9, 3), 0, 9),
    ] {
        assert_eq!((rows.len(), rows.middle(), rows.is_empty()), (len, Row(middle), len == 0));
    }
    let inside: Vec<u64> = (0..12).filter(|row| run(5, 8).contains(Row(*row))).collect();
    assert_eq!(inside, [5, 6, 7, 8]);
    assert_eq!((Attempt(1).next(), Attempt(u16::MAX).next()), (Attempt(2), Attempt(u16::MAX)));
    assert_eq!((Millis(5).since(Millis(9)), Millis(9).since(Millis(5))), (0, 4));
    assert_eq!(Millis(u64::MAX).plus(1), Millis(u64::MAX));
}

#[test]
fn every_state_of_the_api_has_its_name_and_some_are_the_last() {
    use RemoteState::{Cancelled, Expired, Failed, Pending, Running, Succeeded, Unknown};
    let states = [
        (Pending, "PENDING", false),
        (Running, "RUNNING", false),
        (Succeeded, "SUCCEEDED", true),
        (Failed, "FAILED", true),
        (Cancelled, "CANCELLED", true),
        (Expired, "EXPIRED", true),
        (Unknown("PAUSED".to_owned()), "PAUSED", false),
    ];
    for (state, name, last) in states {
        assert_eq!((state.as_str(), state.is_terminal()), (name, last));
        for prefix in ["", "BATCH_STATE_", "JOB_STATE_"] {
            assert_eq!(RemoteState::parse(&format!("{prefix}{name}")), state, "{prefix}{name}");
        }
        for done in [false, true] {
            let batch = RemoteBatch { state: state.clone(), done, ..remote("b") };
            assert_eq!(batch.is_finished(), done || last, "{name}");
        }
    }
}

#[test]
fn verdicts_say_what_becomes_of_a_row() {
    let all = Accept { truncated: true, blocked: true, empty: true };
    let none = Accept { truncated: false, blocked: false, empty: false };
    let verdicts = [
        (Verdict::Open, true, false, false),
        (Verdict::Answered, false, true, true),
        (Verdict::Truncated, false, true, false),
        (Verdict::Blocked, false, true, false),
        (Verdict::Empty, false, true, false),
        (Verdict::Failed, false, false, false),
        (Verdict::Retryable, true, false, false),
        (Verdict::Invalid, false, false, false),
    ];
    for (verdict, open, accepted, answer) in verdicts {
        assert_eq!(verdict.is_open(), open, "{verdict:?}");
        assert_eq!(
            (verdict.is_answer(all), verdict.is_answer(none)),
            (accepted, answer),
            "{verdict:?}"
        );
    }
    let one = |truncated, blocked, empty| Accept { truncated, blocked, empty };
    assert!(!Verdict::Truncated.is_answer(one(false, true, true)));
    assert!(!Verdict::Blocked.is_answer(one(true, false, true)));
    assert!(!Verdict::Empty.is_answer(one(true, true, false)));
}

#[test]
fn answers_and_errors_are_judged_by_what_they_say() {
    let judge = |block_reason, finish_reason, has_content| {
        judge_answer(AnswerFacts { block_reason, finish_reason, has_content })
    };
    assert_eq!(judge(Some("OTHER"), Some("STOP"), true), Verdict::Blocked);
    for reason in ["SAFETY", "RECITATION", "SPII", "IMAGE_SAFETY"] {
        assert_eq!(judge(None, Some(reason), true), Verdict::Blocked, "{reason}");
    }
    assert_eq!(judge(None, Some("MAX_TOKENS"), true), Verdict::Truncated);
    assert_eq!(judge(None, Some("STOP"), true), Verdict::Answered);
    assert_eq!(judge(None, None, true), Verdict::Answered);
    assert_eq!(judge(None, Some("STOP"), false), Verdict::Empty);
    assert_eq!(judge(None, None, false), Verdict::Empty);
    let passing: Vec<i64> =
        (-1..=20).filter(|code| judge_error(*code) == Verdict::Retryable).collect();
    assert_eq!(passing, [1, 2, 4, 8, 10, 13, 14]);
    assert_eq!(judge_error(3), Verdict::Failed);
}

#[test]
fn tokens_add_up_and_stay_at_their_limit() {
    let mut sum = Tokens { prompt: 1, output: 2, thinking: 3, cached: 4, total: u64::MAX };
    sum.add(Tokens { prompt: 10, output: 20, thinking: 30, cached: 40, total: 50 });
    let expected = Tokens { prompt: 11, output: 22, thinking: 33, cached: 44, total: u64::MAX };
    assert_eq!(sum, expected);
}

#[test]
fn a_failure_says_what_happened() {
    let why = || "why".to_owned();
    let failures = [
        Failure::Transient(why()),
        Failure::RateLimited { retry_after_ms: None, message: why() },
        Failure::Ambiguous(why()),
        Failure::Rejected(why()),
        Failure::Gone(why()),
        Failure::Denied(why()),
        Failure::NotReady(why()),
        Failure::Local(why()),
        Failure::Removed(why()),
    ];
    for failure in failures {
        assert_eq!(failure.message(), "why", "{failure:?}");
    }
}

#[test]
fn units_stand_in_one_place_and_come_out_in_order() {
    let unit = |number| Unit { job: id(number), chunk: None };
    let (small, large) = ((Lane::Send, Size::Small, None), (Lane::Send, Size::Large, None));
    let mut lanes = Lanes::default();
    lanes.put(unit(1), small, Millis(50), 0);
    lanes.put(unit(2), small, Millis(10), 0);
    lanes.put(unit(3), large, Millis(10), 7);
    assert_eq!((lanes.next_time(), lanes.any_ready(Lane::Send, None)), (Some(Millis(10)), false));
    lanes.ripen(Millis(9));
    assert!(!lanes.any_ready(Lane::Send, None));
    lanes.ripen(Millis(10));
    assert_eq!(lanes.next_time(), Some(Millis(50)));
    let first: Vec<_> = lanes.first_ready(Lane::Send).collect();
    assert_eq!(first, [(unit(2), small), (unit(3), large)]);
    assert!(!lanes.any_ready(Lane::Poll, None));
    // Moved elsewhere, it is not where it was.
    lanes.put(unit(1), (Lane::Poll, Size::Small, None), Millis(10), 0);
    lanes.ripen(Millis(10));
    assert_eq!(lanes.next_time(), None);
    let mut take = |room: fn(Size) -> bool| {
        let taken = lanes.take(Lane::Send, |(_, size, _)| room(size), |_, _| true);
        taken.map(|(unit, _)| unit)
    };
    assert_eq!(take(|size| size == Size::Middle), None);
    assert_eq!(take(|_| true), Some(unit(3)), "the higher priority");
    assert_eq!(take(|size| size == Size::Large), None, "it is out");
    assert_eq!(take(|_| true), Some(unit(2)));
    assert_eq!(take(|_| true), None);
    lanes.remove(unit(1));
    assert!(!lanes.any_ready(Lane::Poll, None));
}

#[test]
fn a_unit_is_found_behind_any_number_of_units_of_another_key() {
    let keys = Keys::new(["a", "b"].map(|name| credential(name, name)));
    let mut lanes = Lanes::default();
    let unit = |number| Unit { job: id(number), chunk: None };
    for number in 1..=1000 {
        let name = if number == 1000 { "b" } else { "a" };
        lanes.put(unit(number), (Lane::Send, Size::Small, keys.named(name)), Millis(0), 0);
    }
    lanes.ripen(Millis(0));
    assert!(lanes.any_ready(Lane::Send, keys.named("a")) && !lanes.any_ready(Lane::Send, None));
    let of_b = |(_, _, key)| key == keys.named("b");
    assert_eq!(lanes.take(Lane::Send, of_b, |_, _| true).map(|(unit, _)| unit), Some(unit(1000)));
    assert!(!lanes.any_ready(Lane::Send, keys.named("b")));
}

#[test]
fn the_rows_of_a_job_are_those_of_its_uncut_chunks_in_the_order_of_the_input() {
    let mut rig = Rig::with_job(policy(), queue(Transport::Inline), &[4, 4]);
    // The first is cut in two, so that its halves have higher numbers than the second.
    let error = RemoteError { code: 3, message: "no".to_owned() };
    let to = Objection::Whole { rest: rest(4) };
    rig.answer("create", Ok(Outcome::Refused { error, to }));
    let job = rig.engine.job(id(1)).expect("known");
    let firsts: Vec<u64> = job.leaves().map(|chunk| chunk.rows.first.0).collect();
    assert_eq!(firsts, [1, 3, 5]);
    let numbers: Vec<u32> = job.leaves().map(|chunk| chunk.no.0).collect();
    assert_eq!(numbers, [3, 4, 2]);
}
