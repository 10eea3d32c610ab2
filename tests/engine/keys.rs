//! Which key the work of a job is done with, and what happens when keys are exchanged.

use gemini_batchd::engine::effect::Effect;
use gemini_batchd::engine::event::{Event, Failure, Harvest, Outcome, Polled};
use gemini_batchd::engine::ids::FileName;
use gemini_batchd::engine::job::{JobState, Queue, RemoteState, Transport};
use gemini_batchd::engine::keys::{Credential, Keys};
use gemini_batchd::engine::{Attempt, ChunkState, Policy};

use crate::rig::{Rig, credential, id, policy, queue, remote};

/// A queue with a credential of its own.
fn queue_of(name: &str, transport: Transport) -> Queue {
    Queue { credential: name.to_owned(), ..queue(transport) }
}

/// Credentials and the fingerprints of their keys.
fn keys(all: &[(&str, &str)]) -> Keys {
    Keys::new(all.iter().map(|(name, print)| credential(name, print)))
}

fn with_keys(all: &[(&str, &str)]) -> Policy {
    Policy { keys: keys(all), ..policy() }
}

/// The configuration is reloaded with other keys.
fn exchange(rig: &mut Rig, all: &[(&str, &str)]) {
    let policy = Policy { keys: keys(all), ..rig.policy.clone() };
    rig.policy = policy.clone();
    let turn = rig.engine.adopt(policy, rig.now);
    rig.consume(turn);
}

/// What was begun, with its key.
fn begun(rig: &Rig) -> Vec<(&'static str, &str)> {
    let key = |key: &'_ Option<String>| {
        key.as_deref().map_or("", |key| match key {
            "old" => "old",
            "new" => "new",
            "one" => "one",
            "two" => "two",
            _ => "another",
        })
    };
    rig.begun.iter().map(|issued| (issued.effect.word(), key(&issued.key))).collect()
}

fn bound_to(rig: &Rig, job: u64) -> Option<&str> {
    rig.saved.get(&id(job)).and_then(|job| job.head.key_print.as_deref())
}

fn batch_print(rig: &Rig, chunk: u32) -> &str {
    match rig.state(chunk) {
        ChunkState::Polling(batch) | ChunkState::Collecting { batch, .. } => &batch.key_print,
        other => panic!("{other:?}"),
    }
}

fn why_it_waits(rig: &Rig, job: u64) -> Option<String> {
    rig.engine.waits_for_key(rig.engine.job(id(job)).expect("known"))
}

#[test]
fn each_job_is_done_with_the_key_of_its_queue() {
    let mut rig = Rig::new(with_keys(&[("", "one"), ("team", "two")]));
    rig.add_job(1, queue(Transport::Inline), &[10]);
    rig.add_job(2, queue_of("team", Transport::Inline), &[10]);
    assert_eq!(begun(&rig), [("create", "one"), ("create", "two")]);
    rig.create("a");
    rig.create("b");
    assert_eq!((bound_to(&rig, 1), bound_to(&rig, 2)), (Some("one"), Some("two")));
    rig.wait();
    assert_eq!(begun(&rig), [("poll", "one"), ("poll", "two")], "no list shows both");
}

#[test]
fn a_key_that_is_refused_holds_up_nobody_with_another() {
    let mut rig = Rig::new(with_keys(&[("", "one"), ("team", "two")]));
    for number in 1..=200 {
        rig.add_job(number, queue(Transport::Inline), &[10]);
        if number == 1 {
            rig.answer("create", Err(Failure::Denied("403".to_owned())));
        }
    }
    assert_eq!(begun(&rig), []);
    assert_eq!(rig.engine.only_a_person_helps(), rig.engine.gate());
    let told = rig.engine.gate().expect("shut").message.clone();
    assert_eq!(told, "with the default API key: 403");
    rig.add_job(201, queue_of("team", Transport::Inline), &[10]);
    assert_eq!(begun(&rig), [("create", "two")]);
    assert!(rig.engine.only_a_person_helps().is_none());
    rig.create("b");
    assert!(rig.engine.gate().is_some(), "an answer with one key opens nothing for the other");
}

#[test]
fn batches_and_storage_are_limited_for_each_key_by_itself() {
    let policy = Policy { open_batches: 1, ..with_keys(&[("", "one"), ("team", "two")]) };
    let mut rig = Rig::new(policy);
    rig.add_job(1, queue(Transport::Inline), &[10, 10]);
    rig.add_job(2, queue_of("team", Transport::Inline), &[10, 10]);
    assert_eq!(begun(&rig), [("create", "one"), ("create", "two")]);
    let no = |name| rig.policy.keys.named(name).expect("configured");
    assert_eq!(rig.engine.usage_of(no("team")).open_batches, 1);
    assert_eq!(rig.engine.usage().open_batches, 2);
    let shared = Policy { open_batches: 1, ..with_keys(&[("", "one"), ("team", "one")]) };
    let mut rig = Rig::new(shared);
    rig.add_job(1, queue(Transport::Inline), &[10]);
    rig.add_job(2, queue_of("team", Transport::Inline), &[10]);
    assert_eq!(begun(&rig), [("create", "one")], "two names for one key are one key");
}

#[test]
fn a_batch_that_the_new_key_sees_binds_its_job_to_that() {
    let mut rig = Rig::new(Policy { open_batches: 1, ..with_keys(&[("", "old")]) });
    rig.add_job(1, queue(Transport::Inline), &[10, 10]);
    rig.create("b");
    exchange(&mut rig, &[("", "new")]);
    rig.policy.open_batches = 2;
    exchange(&mut rig, &[("", "new")]);
    assert_eq!(begun(&rig), [("poll", "new")], "the second half is not sent before that");
    rig.poll("b", Polled::Seen(remote("b")));
    assert_eq!((batch_print(&rig, 1), bound_to(&rig, 1)), ("new", Some("new")));
    assert_eq!(begun(&rig), [("create", "new")]);
    rig.create("c");
    assert_eq!(why_it_waits(&rig, 1), None);
}

#[test]
fn a_batch_that_the_new_key_does_not_see_waits_and_holds_up_no_other_job() {
    let mut rig = Rig::new(with_keys(&[("", "old")]));
    rig.add_job(1, queue(Transport::Inline), &[10]);
    rig.create("b");
    exchange(&mut rig, &[("", "new")]);
    for _ in 0..3 {
        rig.poll("b", Polled::Gone);
    }
    let why = why_it_waits(&rig, 1).expect("told");
    assert!(why.contains("b was made with another API key"), "{why}");
    assert!(why.contains(&format!("gemini-batchd cancel {}", id(1))), "{why}");
    let job = rig.engine.job(id(1)).expect("known");
    assert!(rig.engine.waits_for_a_person(job), "a run that ends by itself does not wait for it");
    rig.add_job(2, queue(Transport::Inline), &[10]);
    assert_eq!(begun(&rig), [("create", "new")]);
    rig.create("c");
    // Beside the new key, under any name, the former one is used for what it made.
    exchange(&mut rig, &[("", "new"), ("former", "old")]);
    assert_eq!(begun(&rig), [("poll", "old"), ("poll", "new")]);
    assert_eq!(why_it_waits(&rig, 1), None);
    assert_eq!(bound_to(&rig, 1), Some("old"));
}

#[test]
fn a_release_looks_at_once_with_the_key_in_use() {
    let mut rig = Rig::new(with_keys(&[("", "old")]));
    rig.add_job(1, queue(Transport::Inline), &[10]);
    rig.create("b");
    assert!(rig.engine.release(id(1), rig.now).is_err(), "nothing waits");
    exchange(&mut rig, &[("", "new")]);
    for _ in 0..3 {
        rig.poll("b", Polled::Gone);
    }
    assert_eq!(begun(&rig), []);
    let turn = rig.engine.release(id(1), rig.now).expect("it waits");
    rig.consume(turn);
    assert_eq!(begun(&rig), [("poll", "new")]);
    rig.poll("b", Polled::Seen(remote("b")));
    assert_eq!(bound_to(&rig, 1), Some("new"));
}

#[test]
fn a_job_without_a_key_waits_until_it_has_one_or_is_cancelled() {
    for is_cancelled in [false, true] {
        let mut rig = Rig::new(with_keys(&[("", "one"), ("team", "two")]));
        rig.add_job(1, queue_of("team", Transport::Inline), &[10]);
        rig.create("b");
        exchange(&mut rig, &[("", "one")]);
        rig.add_job(2, queue_of("team", Transport::Inline), &[10]);
        rig.pass(1_000_000);
        assert_eq!(begun(&rig), [], "it is asked for with no other key");
        for number in [1, 2] {
            let why = why_it_waits(&rig, number).expect("told");
            assert!(why.contains("[credential.team]"), "{why}");
        }
        let refused = rig.engine.release(id(1), rig.now).expect_err("no release helps");
        assert!(refused.contains("[credential.team]"), "{refused}");
        if is_cancelled {
            let turn = rig.engine.cancel(id(1), rig.now).expect("active");
            rig.consume(turn);
            assert!(matches!(rig.job(), JobState::Merging(_)), "{:?}", rig.state(1));
            let told = rig.plan().warnings.join("\n");
            assert!(told.contains("b: its API key is not configured any more"), "{told}");
        } else {
            exchange(&mut rig, &[("", "one"), ("team", "two")]);
            assert_eq!(begun(&rig), [("poll", "two"), ("create", "two")]);
        }
    }
}

#[test]
fn what_was_uploaded_with_a_former_key_is_uploaded_anew() {
    let mut rig = Rig::new(with_keys(&[("", "old")]));
    rig.add_job(1, queue(Transport::File), &[10]);
    assert_eq!(begun(&rig), [("upload", "old")]);
    exchange(&mut rig, &[("", "new")]);
    let file = FileName("files/1".to_owned());
    rig.answer("upload", Ok(Outcome::Uploaded { file: file.clone() }));
    assert_eq!(begun(&rig), [("upload", "new")], "the new key can not see it");
    rig.answer("upload", Ok(Outcome::Uploaded { file: file.clone() }));
    assert_eq!(begun(&rig), [("create", "new")]);
    assert_eq!(rig.chunk(1).attempt, Attempt(1));
    rig.create("b");
    assert_eq!(bound_to(&rig, 1), Some("new"));
}

#[test]
fn a_batch_bears_the_key_it_was_sent_with_whatever_was_reloaded_meanwhile() {
    let mut rig = Rig::new(with_keys(&[("", "old")]));
    rig.add_job(1, queue(Transport::Inline), &[10]);
    let create = rig.take("create");
    exchange(&mut rig, &[("", "new")]);
    let outcome = Outcome::Created { batch: crate::rig::batch("b"), created: None };
    rig.tell(Event::Done { ticket: create.ticket, outcome });
    assert_eq!((batch_print(&rig, 1), bound_to(&rig, 1)), ("old", Some("old")));
}

#[test]
fn what_a_former_key_did_not_see_says_nothing_of_the_new_one() {
    let mut rig = Rig::new(with_keys(&[("", "old")]));
    rig.add_job(1, queue(Transport::Inline), &[10]);
    rig.create("b");
    rig.end("b", RemoteState::Succeeded);
    let collect = rig.take("collect");
    exchange(&mut rig, &[("", "new")]);
    let failure = Failure::Gone("404".to_owned());
    rig.tell(Event::Failed { ticket: collect.ticket, failure });
    assert_eq!(why_it_waits(&rig, 1), None, "the new key has not looked yet");
    rig.pass(10_000);
    assert_eq!(begun(&rig), [("collect", "new")]);
    rig.collect(Harvest { answered: 10, ..Harvest::default() });
    let record = &rig.chunk(1).batches[0];
    assert_eq!(record.key_print.as_deref(), Some("new"), "it is removed with that one");
}

#[test]
fn what_is_removed_is_removed_with_the_key_it_was_made_with() {
    let mut rig = Rig::new(with_keys(&[("", "one"), ("team", "two")]));
    rig.add_job(1, queue_of("team", Transport::File), &[10]);
    rig.answer("upload", Ok(Outcome::Uploaded { file: FileName("files/1".to_owned()) }));
    let created = Outcome::Created { batch: crate::rig::batch("b"), created: None };
    rig.answer("create", Ok(created));
    assert_eq!(begun(&rig), [("drop", "two")]);
    let Effect::DropInput { file } = rig.answer("drop", Ok(Outcome::Discarded)) else {
        unreachable!()
    };
    assert_eq!(file, FileName("files/1".to_owned()));
}

#[test]
fn fingerprints_of_earlier_versions_are_known() {
    let former = Some("unsalted".to_owned());
    let one = Credential { name: String::new(), print: "new".to_owned(), former };
    let keys = Keys::new([one]);
    assert_eq!(keys.of_print("unsalted"), keys.named(""));
    let mut rig = Rig::new(with_keys(&[("", "unsalted")]));
    rig.add_job(1, queue(Transport::Inline), &[10]);
    rig.create("b");
    rig.policy.keys = keys;
    rig.restart();
    for _ in 0..5 {
        rig.poll("b", Polled::Gone);
    }
    assert_eq!(why_it_waits(&rig, 1), None, "it is the same key: the batch is not out of sight");
    rig.poll("b", Polled::Seen(remote("b")));
    assert_eq!(bound_to(&rig, 1), Some("new"));
}
