//! What operators hold back, try again, and forget.

use gemini_batchd::engine::effect::{Change, Effect};
use gemini_batchd::engine::event::{Event, Failure, Harvest, Outcome};
use gemini_batchd::engine::job::{JobState, Queue, Refusal, RemoteState, Tally, Transport};
use gemini_batchd::engine::policy::{Duplicates, Policy, Uncertain};
use gemini_batchd::engine::steering::{Pauses, Retry};
use gemini_batchd::engine::{Attempt, ChunkState};

use crate::rig::{Rig, id, planned, policy, queue, rest};

fn hold(rig: &mut Rig, number: u64) {
    let turn = rig.engine.hold(id(number), rig.now).expect("it can be held");
    rig.consume(turn);
}

fn release(rig: &mut Rig, number: u64) {
    let turn = rig.engine.release(id(number), rig.now).expect("it waits");
    rig.consume(turn);
}

fn pause(rig: &mut Rig, all: bool, queues: &[&str]) {
    let queues = queues.iter().map(|name| (*name).to_owned()).collect();
    let turn = rig.engine.pause(Pauses { all, queues }, rig.now);
    rig.consume(turn);
}

fn of_queue(name: &str, transport: Transport) -> Queue {
    Queue { name: name.to_owned(), ..queue(transport) }
}

fn ambiguous() -> Failure {
    Failure::Ambiguous("reset".to_owned())
}

fn is_waiting(rig: &Rig, chunk: u32) -> bool {
    matches!(rig.state(chunk), ChunkState::Waiting { .. })
}

#[test]
fn a_job_on_hold_sends_nothing_new_and_what_it_has_at_the_api_is_collected() {
    let one_at_a_time = Policy { open_batches: 1, ..policy() };
    let mut rig = Rig::with_job(one_at_a_time, queue(Transport::Inline), &[10, 10]);
    rig.create("b");
    hold(&mut rig, 1);
    rig.end("b", RemoteState::Succeeded);
    rig.collect(Harvest { answered: 6, retryable: 4, rest: rest(4), ..Harvest::default() });
    rig.pass(600_000);
    assert!(is_waiting(&rig, 1) && is_waiting(&rig, 2), "{:?}", rig.kinds());
    assert!(!rig.kinds().contains(&"create"), "{:?}", rig.kinds());
    let job = rig.engine.job(id(1)).expect("known");
    assert!(rig.engine.held_back(job).is_some_and(|why| why.contains("gemini-batchd release")));
    assert!(rig.engine.waits_for_a_person(job), "a daemon that drains need not wait for it");
    release(&mut rig, 1);
    assert!(rig.kinds().contains(&"create"), "{:?}", rig.kinds());
}

#[test]
fn a_hold_outlives_a_restart() {
    let mut rig = Rig::new(policy());
    rig.arrive(1, queue(Transport::Inline), 100);
    hold(&mut rig, 1);
    rig.answer("claim", Ok(planned("x", &[10])));
    assert!(is_waiting(&rig, 1) && rig.kinds().is_empty(), "{:?}", rig.kinds());
    rig.restart();
    rig.pass(600_000);
    assert!(is_waiting(&rig, 1) && rig.kinds().is_empty(), "{:?}", rig.kinds());
    hold(&mut rig, 1);
    release(&mut rig, 1);
    assert_eq!(rig.kinds(), ["create"]);
}

#[test]
fn an_upload_that_ends_under_a_hold_waits_and_takes_no_room_from_others() {
    let one_upload = Policy { uploads: 1, ..policy() };
    for failed in [false, true] {
        let mut rig = Rig::with_job(one_upload.clone(), queue(Transport::File), &[10]);
        let ChunkState::Uploading { file } = rig.state(1).clone() else {
            panic!("{:?}", rig.job())
        };
        hold(&mut rig, 1);
        assert_eq!(rig.engine.usage().uploading, 1, "it is under way");
        let ended = match failed {
            true => Err(Failure::Transient("broken off".to_owned())),
            false => Ok(Outcome::Uploaded { file: file.clone() }),
        };
        rig.answer("upload", ended);
        assert!(is_waiting(&rig, 1), "{:?}", rig.state(1));
        let usage = rig.engine.usage();
        assert_eq!((usage.uploading, usage.open_batches), (0, 0));
        rig.add_job(2, queue(Transport::File), &[10]);
        let uploaded = rig.answer("upload", Ok(Outcome::Uploaded { file: file.clone() }));
        let Effect::Upload { which, .. } = uploaded else { unreachable!() };
        assert_eq!(which.job, id(2));
        release(&mut rig, 1);
        rig.pass(5_000);
        assert_eq!(rig.chunk(1).attempt, Attempt(1));
        let Effect::Upload { file: again, .. } = rig.take("upload").effect else { unreachable!() };
        assert_eq!(again, file, "it is found where it is");
    }
}

#[test]
fn an_upload_that_was_begun_before_a_crash_waits_after_it_if_its_job_is_on_hold() {
    let mut rig = Rig::with_job(policy(), queue(Transport::File), &[10]);
    hold(&mut rig, 1);
    assert!(matches!(rig.state(1), ChunkState::Uploading { .. }));
    rig.restart();
    assert!(is_waiting(&rig, 1) && rig.kinds().is_empty(), "{:?}", rig.kinds());
}

#[test]
fn a_create_in_doubt_is_looked_for_under_a_hold_and_not_sent_again() {
    let mut rig = Rig::with_job(policy(), queue(Transport::Inline), &[10]);
    hold(&mut rig, 1);
    rig.answer("create", Err(ambiguous()));
    for _ in 0..50 {
        rig.pass(30_000);
        if rig.kinds().contains(&"find") {
            rig.answer("find", Ok(Outcome::Found(Vec::new())));
        }
    }
    assert!(is_waiting(&rig, 1) && rig.kinds().is_empty(), "{:?}", rig.kinds());
    release(&mut rig, 1);
    assert_eq!((rig.kinds(), rig.chunk(1).attempt), (vec!["create"], Attempt(2)));
}

#[test]
fn a_file_that_is_planned_under_a_hold_is_not_uploaded_beside() {
    let mut rig = Rig::new(policy());
    rig.arrive(1, queue(Transport::File), 1 << 30);
    hold(&mut rig, 1);
    rig.answer("claim", Ok(Outcome::Claimed));
    let Effect::Plan { early, .. } = rig.take("plan").effect else { unreachable!() };
    assert!(!early);
}

#[test]
fn a_release_ends_every_wait_of_a_job_at_once() {
    let asking = Policy { uncertain: Uncertain::Hold, ..policy() };
    let mut rig = Rig::with_job(asking, queue(Transport::Inline), &[10]);
    rig.answer("create", Err(ambiguous()));
    rig.pass(300_000);
    rig.answer("find", Ok(Outcome::Found(Vec::new())));
    rig.answer("notify", Ok(Outcome::Told));
    hold(&mut rig, 1);
    release(&mut rig, 1);
    rig.answer("find", Ok(Outcome::Found(Vec::new())));
    assert!(rig.kinds().contains(&"create"), "{:?}", rig.kinds());
    rig.engine.release(id(1), rig.now).expect_err("nothing waits any more");
}

#[test]
fn a_cancel_ends_a_hold_and_the_job() {
    let mut rig = Rig::with_job(policy(), queue(Transport::File), &[10]);
    hold(&mut rig, 1);
    let turn = rig.engine.cancel(id(1), rig.now).expect("it is active");
    rig.consume(turn);
    assert!(matches!(rig.job(), JobState::Merging(_)));
    assert!(!rig.engine.job(id(1)).expect("known").head.on_hold);
}

#[test]
fn what_can_not_be_held_says_why() {
    let mut rig = Rig::new(Policy { duplicates: Duplicates::Hold, ..policy() });
    let why = |rig: &mut Rig, number| rig.engine.hold(id(number), rig.now).expect_err("it can not");
    assert!(why(&mut rig, 1).contains("there is no job"));
    done(&mut rig, 1, 10, 0);
    assert!(why(&mut rig, 1).contains("nothing left to send"));
    rig.arrive(2, queue(Transport::Inline), 1);
    rig.answer("claim", Ok(planned("content 1", &[10])));
    assert!(why(&mut rig, 2).contains("waits for a person already"));
    rig.add_job(3, queue(Transport::Inline), &[10]);
    let turn = rig.engine.cancel(id(3), rig.now).expect("it is active");
    rig.consume(turn);
    assert!(why(&mut rig, 3).contains("is being cancelled"));
}

#[test]
fn of_a_paused_queue_nothing_is_claimed_or_sent_and_other_queues_go_on() {
    let mut rig = Rig::new(policy());
    rig.add_job(1, of_queue("a", Transport::File), &[10]);
    rig.arrive(2, of_queue("a", Transport::Inline), 1 << 30);
    pause(&mut rig, false, &["a"]);
    let ChunkState::Uploading { file } = rig.state(1).clone() else { panic!("{:?}", rig.job()) };
    rig.answer("upload", Ok(Outcome::Uploaded { file }));
    rig.answer("claim", Ok(Outcome::Claimed));
    rig.answer("plan", Ok(planned("x", &[10])));
    assert!(is_waiting(&rig, 1) && rig.kinds().is_empty(), "{:?}", rig.kinds());
    // A file that is found now stays in the inbox, and no record is made of it.
    rig.arrive(3, of_queue("a", Transport::Inline), 100);
    assert!(rig.engine.job(id(3)).is_none());
    rig.add_job(4, of_queue("b", Transport::Inline), &[10]);
    assert_eq!(rig.kinds(), ["create"]);
    rig.restart();
    rig.take("find");
    assert!(rig.kinds().is_empty(), "it outlives a restart: {:?}", rig.kinds());
    pause(&mut rig, false, &[]);
    let mut kinds = rig.kinds();
    kinds.sort_unstable();
    assert_eq!(kinds, ["create", "upload"]);
}

#[test]
fn files_that_were_seen_before_a_pause_wait_in_the_inbox_and_hold_up_no_others() {
    let mut rig = Rig::new(policy());
    for number in 1..=20 {
        rig.arrive(number, of_queue("a", Transport::Inline), 1);
    }
    let under_way = rig.kinds().len();
    assert!(under_way < 20);
    pause(&mut rig, false, &["a"]);
    assert_eq!(rig.engine.claims_waiting(), 0);
    for _ in 0..under_way {
        rig.answer("claim", Ok(Outcome::Vanished));
    }
    assert!(rig.kinds().is_empty(), "{:?}", rig.kinds());
    assert!(rig.engine.unfinished().all(|job| rig.engine.waits_for_a_person(job)));
    pause(&mut rig, true, &[]);
    assert!(rig.kinds().is_empty(), "{:?}", rig.kinds());
    pause(&mut rig, false, &[]);
    assert_eq!(rig.kinds().len(), 20 - under_way);
    assert_eq!(rig.engine.claims_waiting(), 20 - under_way);
}

#[test]
fn a_cancelled_job_of_a_paused_queue_comes_to_its_end() {
    let mut rig = Rig::with_job(policy(), queue(Transport::Inline), &[10, 10]);
    rig.create("b");
    pause(&mut rig, true, &[]);
    let turn = rig.engine.cancel(id(1), rig.now).expect("it is active");
    rig.consume(turn);
    rig.answer("cancel", Ok(Outcome::Cancelled));
    rig.answer("create", Err(Failure::Transient("not sent".to_owned())));
    rig.end("b", RemoteState::Cancelled);
    rig.collect(Harvest { answered: 4, rest: rest(6), ..Harvest::default() });
    assert!(matches!(rig.job(), JobState::Merging(_)), "{:?}", rig.job());
}

#[test]
fn who_closes_takes_in_nothing_new_and_finishes_the_rest() {
    let mut rig = Rig::with_job(policy(), queue(Transport::Inline), &[10]);
    rig.engine.close(true);
    rig.arrive(2, queue(Transport::Inline), 100);
    assert!(rig.engine.job(id(2)).is_none());
    rig.create("b");
    rig.end("b", RemoteState::Succeeded);
    rig.collect(Harvest { answered: 10, ..Harvest::default() });
    assert_eq!(rig.kinds(), ["merge"]);
    rig.engine.close(false);
    rig.arrive(2, queue(Transport::Inline), 100);
    assert!(rig.engine.job(id(2)).is_some());
    rig.engine.close(true);
    rig.restart();
    assert!(!rig.engine.is_closing(), "a restart takes it back");
}

/// A job of so many answered and failed lines that is over.
fn done(rig: &mut Rig, number: u64, answered: u64, failed: u64) {
    rig.add_job(number, queue(Transport::Inline), &[answered + failed]);
    let name = format!("b{number}");
    rig.create(&name);
    rig.end(&name, RemoteState::Succeeded);
    rig.collect(Harvest { answered, failed, ..Harvest::default() });
    let tally = Tally { answered, failed, ..Tally::default() };
    rig.answer("merge", Ok(Outcome::Merged { tally, stem: "out".to_owned() }));
    rig.answer("deliver", Ok(Outcome::Delivered));
    rig.answer("clean", Ok(Outcome::Cleaned));
}

/// A job that was refused whole.
fn refused(rig: &mut Rig, number: u64) {
    rig.arrive(number, queue(Transport::Inline), 1);
    let refusal = Refusal {
        reason: "no_valid_line".to_owned(),
        message: String::new(),
        remedy: String::new(),
        line: None,
        column: None,
    };
    rig.answer("claim", Ok(Outcome::Unusable(refusal)));
    rig.answer("refuse", Ok(Outcome::Moved));
    assert!(matches!(rig.job_of(number), JobState::Failed(_)));
}

#[test]
fn what_waits_after_an_error_is_tried_again_at_once() {
    let mut rig = Rig::with_job(policy(), queue(Transport::Inline), &[10]);
    let why = rig.engine.retry(id(1), rig.now).expect_err("nothing failed");
    assert!(why.contains("nothing of job"), "{why}");
    for _ in 0..4 {
        rig.answer("create", Err(Failure::Transient("503".to_owned())));
        assert!(rig.kinds().is_empty(), "{:?}", rig.kinds());
        let Ok(Retry::Now(turn)) = rig.engine.retry(id(1), rig.now) else { panic!("it waits") };
        rig.consume(turn);
        assert_eq!(rig.kinds(), ["create"], "the pause of the whole API is over too");
    }
    rig.answer(
        "create",
        Err(Failure::RateLimited { retry_after_ms: Some(60_000), message: "m".into() }),
    );
    let Ok(Retry::Now(turn)) = rig.engine.retry(id(1), rig.now) else { panic!("it waits") };
    rig.consume(turn);
    assert_eq!(rig.kinds(), ["find"], "one look makes sure before it is sent again");
}

#[test]
fn what_waits_for_an_operator_is_no_error_that_can_be_tried_again() {
    let mut rig = Rig::with_job(policy(), queue(Transport::Inline), &[10]);
    rig.create("b");
    hold(&mut rig, 1);
    let why = rig.engine.retry(id(1), rig.now).expect_err("nothing failed");
    assert!(why.contains("gemini-batchd release"), "{why}");
}

#[test]
fn of_a_job_that_is_over_only_what_failed_is_tried_again() {
    let mut rig = Rig::new(policy());
    done(&mut rig, 1, 10, 0);
    let why = rig.engine.cancel(id(1), rig.now).expect_err("it is over");
    assert!(why.contains("nothing left to cancel"), "{why}");
    let why = rig.engine.release(id(1), rig.now).expect_err("it is over");
    assert!(why.contains("is over"), "{why}");
    let why = rig.engine.retry(id(1), rig.now).expect_err("all is answered");
    assert!(why.contains("no failed lines"), "{why}");
    done(&mut rig, 2, 7, 3);
    let Ok(Retry::FailedLines(head, delivery)) = rig.engine.retry(id(2), rig.now) else {
        panic!("three lines failed")
    };
    assert_eq!((head.id, delivery.stem.as_str(), delivery.tally.failed), (id(2), "out", 3));
    refused(&mut rig, 3);
    let Ok(Retry::Input(head)) = rig.engine.retry(id(3), rig.now) else { panic!("refused whole") };
    assert_eq!(head.id, id(3));
    let why = rig.engine.retry(id(9), rig.now).expect_err("unknown");
    assert!(why.contains("there is no job"), "{why}");
}

#[test]
fn a_job_that_is_over_is_forgotten_with_its_content_and_no_other_is() {
    let mut rig = Rig::new(Policy { duplicates: Duplicates::Hold, ..policy() });
    done(&mut rig, 1, 10, 0);
    refused(&mut rig, 2);
    rig.arrive(3, queue(Transport::Inline), 1);
    rig.answer("claim", Ok(planned("content 1", &[10])));
    let why = rig.engine.delete(id(3)).expect_err("it is on its way to held/");
    assert!(why.contains("about to end"), "{why}");
    rig.answer("hold", Ok(Outcome::Moved));
    for number in [3, 2, 1] {
        let turn = rig.engine.delete(id(number)).expect("it is over");
        assert_eq!(turn.save, [Change::Forget(id(number))]);
        rig.consume(turn);
        assert!(rig.engine.job(id(number)).is_none());
        rig.engine.delete(id(number)).expect_err("it is forgotten");
    }
    rig.add_job(1, queue(Transport::Inline), &[10]);
    assert!(matches!(rig.job(), JobState::Active(_)), "its content is not known any more");
    let why = rig.engine.delete(id(1)).expect_err("it is under way");
    assert!(why.contains("gemini-batchd cancel"), "{why}");
}

#[test]
fn who_forgets_a_refused_job_does_not_forget_that_a_file_of_its_name_is_claimed() {
    let mut rig = Rig::new(policy());
    refused(&mut rig, 1);
    rig.arrive_as(2, "1.jsonl", queue(Transport::Inline));
    assert_eq!(rig.engine.claims_waiting(), 1);
    let turn = rig.engine.delete(id(1)).expect("it is over");
    rig.consume(turn);
    assert_eq!(rig.engine.claims_waiting(), 1);
    rig.arrive_as(3, "1.jsonl", queue(Transport::Inline));
    assert!(rig.engine.job(id(3)).is_none(), "it is the same file, seen twice");
}

/// The same, when its time has come.
#[test]
fn who_forgets_an_old_refused_job_does_not_forget_that_a_file_of_its_name_is_claimed() {
    let mut rig = Rig::new(policy());
    refused(&mut rig, 1);
    rig.now = rig.now.plus(policy().records_keep_ms + 120_000);
    rig.arrive_as(2, "1.jsonl", queue(Transport::Inline));
    rig.tell(Event::Housekeeping);
    assert!(rig.engine.job(id(1)).is_none());
    assert_eq!(rig.engine.claims_waiting(), 1);
}
