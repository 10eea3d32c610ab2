//! A batch that may exist: looked for, adopted, sent again, or left to a person.

use gemini_batchd::engine::effect::Effect;
use gemini_batchd::engine::event::{Failure, Outcome, RemoteBatch};
use gemini_batchd::engine::job::{Doubt, Input, JobState, RemoteState, Transport};
use gemini_batchd::engine::keys::Keys;
use gemini_batchd::engine::policy::{Policy, Uncertain};
use gemini_batchd::engine::{Attempt, ChunkState, Engine, FileName, Job, Millis};

use crate::rig::{Rig, batch, id, policy, queue, remote};

/// A job of one chunk whose create got no answer.
fn in_doubt(policy: Policy) -> Rig {
    let mut rig = Rig::with_job(policy, queue(Transport::Inline), &[10]);
    rig.answer("create", Err(Failure::Ambiguous("reset".to_owned())));
    rig
}

fn found(rig: &mut Rig, batches: Vec<RemoteBatch>) {
    rig.answer("find", Ok(Outcome::Found(batches)));
}

/// Looks again and again, in vain, until the window is over.
fn look_in_vain(rig: &mut Rig) -> u32 {
    for looks in 1.. {
        rig.wait();
        found(rig, Vec::new());
        if !matches!(rig.state(1), ChunkState::Uncertain { .. }) {
            return looks;
        }
    }
    unreachable!("it ends")
}

#[test]
fn a_batch_that_is_found_is_adopted_and_the_oldest_counts() {
    let mut rig = in_doubt(policy());
    rig.wait();
    let ended = RemoteBatch { state: RemoteState::Cancelled, ..remote("second") };
    found(&mut rig, vec![remote("first"), ended]);
    let ChunkState::Polling(made) = rig.state(1) else { panic!("{:?}", rig.state(1)) };
    assert_eq!((&made.name, made.adopted), (&batch("first"), true));
    assert_eq!(made.created, crate::rig::START, "when the intent was saved, as nobody says more");
    let [warning] = &rig.plan().warnings[..] else { panic!("{:?}", rig.plan().warnings) };
    assert!(warning.starts_with("chunk 1: attempt 1 had made more than one batch"), "{warning}");
    assert!(warning.contains("second"), "{warning}");
    assert!(!rig.kinds().contains(&"cancel"), "it has ended already");
}

#[test]
fn the_moment_of_creation_is_the_apis_where_it_says_so() {
    let mut rig = in_doubt(policy());
    rig.wait();
    let created = Some(crate::rig::START.plus(1234));
    found(&mut rig, vec![RemoteBatch { created, ..remote("b") }]);
    let ChunkState::Polling(made) = rig.state(1) else { panic!("{:?}", rig.state(1)) };
    assert_eq!(Some(made.created), created);
}

#[test]
fn doubles_are_stopped_before_the_oldest_is_taken_up() {
    let mut rig = in_doubt(policy());
    rig.wait();
    found(&mut rig, vec![remote("first"), remote("second"), remote("third")]);
    let ChunkState::Uncertain { next_probe, until, .. } = rig.state(1) else {
        panic!("{:?}", rig.state(1))
    };
    assert_eq!(next_probe.since(rig.now), 30_000);
    assert!(until > next_probe);
    for name in ["second", "third"] {
        let Effect::CancelBatch { batch: stopped } = rig.take("cancel").effect else {
            unreachable!()
        };
        assert_eq!(stopped, batch(name));
    }
    rig.wait();
    let stopped = |name| RemoteBatch { state: RemoteState::Cancelled, ..remote(name) };
    found(&mut rig, vec![remote("first"), stopped("second"), stopped("third")]);
    assert!(matches!(rig.state(1), ChunkState::Polling(_)));
    assert_eq!(rig.plan().warnings.len(), 2);
}

#[test]
fn doubles_that_can_not_be_stopped_hold_nobody_up_for_ever() {
    let mut rig = in_doubt(policy());
    rig.pass(300_000);
    for _ in 0..10 {
        found(&mut rig, vec![remote("first"), remote("second")]);
        assert!(matches!(rig.state(1), ChunkState::Uncertain { .. }), "{:?}", rig.state(1));
        rig.answer("cancel", Err(Failure::Transient("503".to_owned())));
        rig.wait();
    }
    found(&mut rig, vec![remote("first"), remote("second")]);
    assert!(matches!(rig.state(1), ChunkState::Polling(_)), "{:?}", rig.state(1));
}

#[test]
fn what_is_not_found_within_the_window_is_sent_again_and_told() {
    let mut rig = in_doubt(policy());
    let looks = look_in_vain(&mut rig);
    assert_eq!(looks, 10, "every half minute for five minutes");
    assert_eq!(rig.now.since(crate::rig::START), 300_000, "not a moment earlier");
    assert_eq!(rig.chunk(1).attempt, Attempt(2));
    assert!(matches!(rig.state(1), ChunkState::Creating { .. }));
    let [warning] = &rig.plan().warnings[..] else { panic!("{:?}", rig.plan().warnings) };
    assert!(warning.contains("chunk 1: the create call of attempt 1 got no answer"), "{warning}");
}

#[test]
fn a_look_that_can_not_be_had_is_no_look() {
    let mut rig = in_doubt(policy());
    rig.pass(299_999);
    rig.answer("find", Err(Failure::Transient("503".to_owned())));
    assert!(matches!(rig.state(1), ChunkState::Uncertain { .. }));
    let pause = rig.wait();
    assert!((1500..=2500).contains(&pause), "the second failure in a row: {pause}");
    found(&mut rig, Vec::new());
    assert!(matches!(rig.state(1), ChunkState::Creating { .. }), "{:?}", rig.state(1));
}

#[test]
fn a_create_turned_away_for_its_rate_is_looked_for_once_and_sent_again_without_a_word() {
    let mut rig = Rig::with_job(policy(), queue(Transport::Inline), &[10]);
    let limited = || Failure::RateLimited { retry_after_ms: None, message: "slow".to_owned() };
    rig.answer("create", Err(limited()));
    rig.wait();
    found(&mut rig, Vec::new());
    assert!(matches!(rig.state(1), ChunkState::Creating { .. }), "{:?}", rig.state(1));
    assert_eq!(rig.plan().warnings, [""; 0]);
    // The looks in between do not make the pauses start from the beginning.
    rig.answer("create", Err(limited()));
    let pause = rig.wait();
    assert!((1500..=2500).contains(&pause), "{pause}");
    found(&mut rig, vec![remote("late")]);
    assert!(matches!(rig.state(1), ChunkState::Polling(_)));
}

#[test]
fn where_people_decide_a_lost_create_waits_for_them() {
    let mut rig = in_doubt(Policy { uncertain: Uncertain::Hold, ..policy() });
    look_in_vain(&mut rig);
    let since = crate::rig::START;
    assert_eq!(*rig.state(1), ChunkState::Stuck { input: Input::Inline, since });
    assert_eq!(rig.kinds(), ["notify"]);
    assert!(rig.engine.has_news(), "nobody was told yet");
    let Effect::Notify { refusal, .. } = rig.answer("notify", Ok(Outcome::Told)) else {
        unreachable!()
    };
    assert!(!rig.engine.has_news());
    assert_eq!(refusal.reason, "uncertain");
    assert!(refusal.message.contains(&format!("gemini-batchd/{}/c1/a1", id(1))));
    assert!(refusal.remedy.contains(&format!("release {}", id(1))), "{}", refusal.remedy);
    assert_eq!(rig.engine.next_wakeup(), None, "nobody looks any more");
    rig.restart();
    assert_eq!(rig.kinds(), ["notify"], "a note may have been lost; telling it twice makes one");
    let mut limited = Rig::with_job(
        Policy { uncertain: Uncertain::Hold, ..policy() },
        queue(Transport::Inline),
        &[1],
    );
    let failure = Failure::RateLimited { retry_after_ms: None, message: "slow".to_owned() };
    limited.answer("create", Err(failure));
    limited.wait();
    found(&mut limited, Vec::new());
    assert!(matches!(limited.state(1), ChunkState::Creating { .. }), "this one was not lost");
}

#[test]
fn a_note_that_a_person_was_faster_than_is_taken_back() {
    let mut rig = in_doubt(Policy { uncertain: Uncertain::Hold, ..policy() });
    assert!(!rig.engine.has_news(), "it is still looked for");
    look_in_vain(&mut rig);
    let turn = rig.engine.cancel(id(1), rig.now).expect("it waits");
    rig.consume(turn);
    rig.answer("withdraw", Ok(Outcome::Withdrawn(id(1))));
    assert!(!rig.engine.has_news());
    rig.answer("notify", Ok(Outcome::Told));
    assert!(rig.kinds().contains(&"withdraw"), "{:?}", rig.kinds());
}

#[test]
fn what_was_given_up_while_its_note_was_written_is_no_trouble_any_more() {
    let mut rig = in_doubt(Policy { uncertain: Uncertain::Hold, ..policy() });
    look_in_vain(&mut rig);
    let turn = rig.engine.cancel(id(1), rig.now).expect("it waits");
    rig.consume(turn);
    rig.answer("notify", Err(Failure::Local("disk full".to_owned())));
    assert_eq!(rig.engine.latest_trouble(), None);
}

#[test]
fn a_create_turned_away_for_its_rate_takes_its_file_again() {
    for limited in [true, false] {
        let mut rig = Rig::with_job(policy(), queue(Transport::File), &[10]);
        let ChunkState::Uploading { file } = rig.state(1).clone() else { unreachable!() };
        rig.answer("upload", Ok(Outcome::Uploaded { file: file.clone() }));
        let failure = match limited {
            true => Failure::RateLimited { retry_after_ms: None, message: "slow".to_owned() },
            false => Failure::Ambiguous("reset".to_owned()),
        };
        rig.answer("create", Err(failure));
        while rig.chunk(1).attempt == Attempt(1) {
            rig.wait();
            found(&mut rig, Vec::new());
        }
        assert_eq!((rig.chunk(1).attempt, rig.kinds()), (Attempt(2), vec!["upload"]));
        let ChunkState::Uploading { file: next } = rig.state(1) else { unreachable!() };
        assert_eq!(*next == file, limited, "what a lost batch may use is left alone");
    }
}

#[test]
fn a_create_that_is_turned_away_again_and_again_is_tried_ever_more_rarely() {
    let mut rig = Rig::with_job(policy(), queue(Transport::File), &[10]);
    let limited = || Failure::RateLimited { retry_after_ms: None, message: "slow".to_owned() };
    let pauses = [1_000, 2_000, 4_000, 8_000].map(|expected| {
        let ChunkState::Uploading { file } = rig.state(1).clone() else { unreachable!() };
        rig.answer("upload", Ok(Outcome::Uploaded { file }));
        rig.answer("create", Err(limited()));
        let pause = rig.wait();
        found(&mut rig, Vec::new());
        (expected, pause)
    });
    let grows =
        |(expected, pause): (u64, u64)| pause * 4 >= expected * 3 && pause * 4 <= expected * 5;
    assert!(pauses.into_iter().all(grows), "{pauses:?}");
}

#[test]
fn a_cancelled_job_does_not_send_again_what_was_not_found() {
    let mut rig = in_doubt(policy());
    let turn = rig.engine.cancel(id(1), rig.now).expect("it is under way");
    rig.consume(turn);
    assert!(matches!(rig.state(1), ChunkState::Uncertain { .. }), "a batch may exist");
    look_in_vain(&mut rig);
    assert_eq!(*rig.state(1), ChunkState::Settled);
    assert_eq!(rig.plan().warnings, [""; 0]);
}

#[test]
fn a_restart_looks_for_a_create_that_was_begun_over_a_whole_window() {
    let mut rig = Rig::with_job(policy(), queue(Transport::Inline), &[10]);
    let since = rig.now;
    rig.now = rig.now.plus(1_000_000);
    rig.restart();
    let (next_probe, until) = (rig.now, rig.now.plus(300_000));
    let state = ChunkState::Uncertain {
        input: Input::Inline,
        since,
        next_probe,
        until,
        doubt: Doubt::Lost,
    };
    assert_eq!(*rig.state(1), state);
    assert_eq!(rig.kinds(), ["find"], "at once");
    // A second restart begins the window anew: how long we were away is not known.
    rig.now = rig.now.plus(200_000);
    rig.restart();
    let ChunkState::Uncertain { until, .. } = rig.state(1) else { panic!("{:?}", rig.state(1)) };
    assert_eq!(until.since(rig.now), 300_000);
}

#[test]
fn a_restart_leaves_the_pause_of_a_create_that_was_turned_away() {
    let mut rig = Rig::with_job(policy(), queue(Transport::Inline), &[10]);
    let failure = Failure::RateLimited { retry_after_ms: Some(9_000), message: "slow".to_owned() };
    rig.answer("create", Err(failure));
    let before = rig.state(1).clone();
    rig.restart();
    assert_eq!(*rig.state(1), before);
    assert_eq!(rig.wait(), 9_000);
}

#[test]
fn what_a_mirror_calls_unsent_is_looked_for_and_the_rest_left_alone() {
    let job = |rig: &Rig| rig.saved.get(&id(1)).expect("saved").clone();
    let doubted = |rig: &Rig, transport| -> Job {
        let mut job = job(rig);
        job.head.queue.transport = transport;
        Engine::doubt(&mut job, &rig.policy, Millis(5));
        job
    };
    let state_of = |job: &Job| job.chunks.values().next().expect("a chunk").state.clone();
    let lost = |input| ChunkState::Uncertain {
        input,
        since: Millis(5),
        next_probe: Millis(5),
        until: Millis(300_005),
        doubt: Doubt::Lost,
    };
    let file =
        gemini_batchd::engine::Stamp::file(id(1), gemini_batchd::engine::ChunkNo(1), Attempt(1));
    // Nothing may be sent, so it waits.
    let mut rig =
        Rig::with_job(Policy { open_batches: 0, ..policy() }, queue(Transport::Inline), &[10]);
    assert!(matches!(rig.state(1), ChunkState::Waiting { .. }));
    assert_eq!(state_of(&doubted(&rig, Transport::Inline)), lost(Input::Inline));
    assert_eq!(state_of(&doubted(&rig, Transport::File)), lost(Input::File(file.clone())));
    rig = Rig::with_job(policy(), queue(Transport::File), &[10]);
    assert_eq!(state_of(&doubted(&rig, Transport::File)), lost(Input::File(file)));
    rig = Rig::with_job(policy(), queue(Transport::Inline), &[10]);
    assert_eq!(state_of(&doubted(&rig, Transport::Inline)), lost(Input::Inline));
    rig.create("b");
    assert_eq!(
        doubted(&rig, Transport::Inline),
        job(&rig),
        "it was sent, and where it is is known"
    );
    assert!(matches!(rig.job(), JobState::Active(_)));
}

#[test]
fn what_was_sent_with_a_former_key_is_not_sent_again_unless_a_person_says_so() {
    let mut rig = in_doubt(policy());
    exchange_key(&mut rig, "another");
    look_in_vain(&mut rig);
    assert!(matches!(rig.state(1), ChunkState::Stuck { .. }), "{:?}", rig.state(1));
    let Effect::Notify { refusal, .. } = rig.answer("notify", Ok(Outcome::Told)) else {
        unreachable!()
    };
    assert!(refusal.message.contains("another API key"), "{}", refusal.message);
    assert!(refusal.remedy.contains("put the former key back"), "{}", refusal.remedy);

    exchange_key(&mut rig, "key");
    let turn = rig.engine.release(id(1), rig.now).expect("it waits");
    rig.consume(turn);
    rig.answer("withdraw", Ok(Outcome::Withdrawn(id(1))));
    found(&mut rig, vec![remote("first")]);
    assert!(
        matches!(rig.state(1), ChunkState::Polling(batch) if batch.adopted),
        "nothing was sent"
    );
}

#[test]
fn a_release_looks_once_more_before_it_sends_again() {
    let mut rig = in_doubt(Policy { uncertain: Uncertain::Hold, ..policy() });
    look_in_vain(&mut rig);
    rig.answer("notify", Ok(Outcome::Told));
    let turn = rig.engine.release(id(1), rig.now).expect("it waits");
    rig.consume(turn);
    rig.answer("withdraw", Ok(Outcome::Withdrawn(id(1))));
    rig.restart();
    assert_eq!(rig.kinds(), ["find"], "it still looks, and nobody is asked again");
    found(&mut rig, Vec::new());
    assert!(matches!(rig.state(1), ChunkState::Creating { .. }), "{:?}", rig.state(1));
    assert_eq!(rig.chunk(1).attempt, Attempt(2));
}

fn exchange_key(rig: &mut Rig, key_print: &str) {
    let policy = Policy { keys: Keys::one(key_print), ..rig.policy.clone() };
    let turn = rig.engine.adopt(policy.clone(), rig.now);
    rig.policy = policy;
    rig.consume(turn);
}

/// A job of one chunk of OpenAI lines whose create got no answer.
fn in_doubt_in_the_layer(policy: Policy) -> Rig {
    let mut rig = Rig::with_openai_job(policy, queue(Transport::Inline), &[10]);
    rig.answer("upload", Ok(Outcome::Uploaded { file: FileName("files/f".to_owned()) }));
    rig.answer("create", Err(Failure::Ambiguous("reset".to_owned())));
    rig
}

#[test]
fn openai_lines_go_by_file_whatever_the_queue_says_and_are_looked_for_by_it() {
    let mut rig = in_doubt_in_the_layer(policy());
    rig.wait();
    let Effect::Find { file, .. } = rig.take("find").effect else { unreachable!() };
    assert_eq!(file, Some(FileName("files/f".to_owned())));
    // Also after a restart.
    rig.restart();
    let Effect::Find { file, .. } = rig.take("find").effect else { unreachable!() };
    assert_eq!(file, Some(FileName("files/f".to_owned())));
}

#[test]
fn without_a_list_a_create_in_doubt_waits_for_a_person_whatever_the_settings_say() {
    let mut rig = in_doubt_in_the_layer(policy());
    while matches!(rig.state(1), ChunkState::Uncertain { .. }) {
        rig.wait();
        rig.answer("find", Ok(Outcome::Unlisted("HTTP 404".to_owned())));
    }
    assert!(matches!(rig.state(1), ChunkState::Stuck { .. }), "{:?}", rig.state(1));
    let Effect::Notify { refusal, .. } = rig.take("notify").effect else { unreachable!() };
    assert_eq!(refusal.reason, "uncertain");
    assert!(refusal.message.contains("no list") && refusal.message.contains("HTTP 404"));
}

#[test]
fn a_create_in_the_layer_that_was_turned_away_is_sent_again_even_without_a_list() {
    let mut rig = Rig::with_openai_job(policy(), queue(Transport::Auto), &[10]);
    rig.answer("upload", Ok(Outcome::Uploaded { file: FileName("files/f".to_owned()) }));
    let failure = Failure::RateLimited { retry_after_ms: None, message: "429".to_owned() };
    rig.answer("create", Err(failure));
    rig.wait();
    rig.answer("find", Ok(Outcome::Unlisted("HTTP 404".to_owned())));
    assert!(matches!(rig.state(1), ChunkState::Uploading { .. }), "{:?}", rig.state(1));
}
