//! A disk without room, files that somebody took away, and settings that change.

use gemini_batchd::engine::event::{Event, Failure, Harvest, Outcome};
use gemini_batchd::engine::job::{JobState, RemoteState, Transport};
use gemini_batchd::engine::keys::Keys;
use gemini_batchd::engine::{ChunkState, Recollection};

use crate::rig::{Rig, id, planned, policy, queue, rest};

fn full(rig: &mut Rig, why: Option<&str>) {
    rig.tell(Event::Room(why.map(str::to_owned)));
}

/// Faults 22 and 23.
#[test]
fn on_a_full_disk_nothing_is_taken_on_and_what_was_begun_is_followed() {
    let mut rig = Rig::with_job(policy(), queue(Transport::Inline), &[10]);
    rig.create("b");
    full(&mut rig, Some("no room"));
    assert_eq!(rig.engine.full(), Some("no room"));
    rig.arrive(2, queue(Transport::Inline), 1);
    assert_eq!(rig.kinds(), [""; 0], "a file stays in the inbox");
    rig.end("b", RemoteState::Succeeded);
    assert_eq!(rig.kinds(), [""; 0], "results stay at the API");
    full(&mut rig, None);
    assert_eq!((rig.engine.full(), rig.kinds()), (None, vec!["claim", "collect"]));
}

/// Fault 22.
#[test]
fn what_failed_for_want_of_room_is_tried_at_once_when_there_is_some() {
    let mut rig = Rig::with_job(policy(), queue(Transport::Inline), &[10, 10]);
    rig.create("b");
    rig.end("b", RemoteState::Succeeded);
    for _ in 0..6 {
        rig.answer("collect", Err(Failure::Local("disk full".to_owned())));
        rig.wait();
    }
    rig.answer("collect", Err(Failure::Local("disk full".to_owned())));
    rig.answer("create", Err(Failure::Transient("503".to_owned())));
    full(&mut rig, None);
    assert_eq!(rig.kinds(), [""; 0], "it was never told to be full");
    full(&mut rig, Some("no room"));
    full(&mut rig, None);
    assert_eq!(rig.kinds(), ["collect"], "the other one did not wait for room");
}

/// Fault 24.
#[test]
fn a_start_on_a_full_disk_takes_nothing_on_until_there_is_room() {
    let rig = Rig::with_job(policy(), queue(Transport::File), &[10]);
    let mut recollection = Recollection::default();
    recollection.room(Some("no room".to_owned()));
    rig.saved.values().cloned().for_each(|job| recollection.take_in(job));
    let (mut engine, turn) = recollection.resume(policy(), rig.now);
    assert_eq!((turn.then.len(), engine.full()), (0, Some("no room")));
    assert_eq!(engine.handle(Event::Room(None), rig.now).then.len(), 1);
}

/// Fault 34.
#[test]
fn a_file_taken_out_of_the_working_folder_fails_what_needs_it_and_no_more() {
    let removed = || Err(Failure::Removed("the input is gone".to_owned()));
    let mut rig = Rig::with_job(policy(), queue(Transport::File), &[10]);
    rig.answer("upload", removed());
    assert_eq!(*rig.state(1), ChunkState::Settled);
    let told = |rig: &Rig| rig.chunk(1).last_error.clone().map(|error| (error.code, error.message));
    assert_eq!(told(&rig), Some((5, "the input is gone".to_owned())));
    rig.answer("merge", removed());
    let JobState::Refusing(refusal) = rig.job() else { panic!("{:?}", rig.job()) };
    assert_eq!(
        (refusal.reason.as_str(), refusal.message.as_str()),
        ("removed", "the input is gone")
    );
    let mut rig = Rig::with_job(policy(), queue(Transport::Inline), &[10]);
    rig.answer("create", removed());
    assert_eq!(*rig.state(1), ChunkState::Settled);
    let mut rig = Rig::with_job(policy(), queue(Transport::Inline), &[10]);
    rig.create("b");
    rig.end("b", RemoteState::Succeeded);
    rig.answer("collect", removed());
    assert_eq!((rig.state(1), rig.chunk(1).rest), (&ChunkState::Settled, rest(10)));
    let error = rig.chunk(1).batches[0].error.clone().map(|error| (error.code, error.message));
    assert_eq!(error, Some((5, "the input is gone".to_owned())));
}

/// Fault 56.
#[test]
fn changed_settings_are_in_force_at_once_and_end_every_pause() {
    let mut rig = Rig::with_job(policy(), queue(Transport::Inline), &[10]);
    rig.answer("create", Err(Failure::Denied("403".to_owned())));
    assert!(rig.engine.gate().is_some());
    let mut policy = policy();
    policy.keys = Keys::one("another");
    let turn = rig.engine.adopt(policy, rig.now);
    assert!(rig.engine.gate().is_none() && rig.engine.latest_trouble().is_none());
    rig.consume(turn);
    assert_eq!(rig.kinds(), ["create"]);
    rig.create("b");
    let ChunkState::Polling(batch) = rig.state(1) else { panic!("{:?}", rig.state(1)) };
    assert_eq!(batch.key_print, "another");
}

#[test]
fn counts_of_jobs_and_of_files_to_claim_are_those_of_now() {
    let mut rig = Rig::new(policy());
    assert_eq!((rig.engine.jobs().count(), rig.engine.is_busy()), (0, false));
    for number in 1..=3 {
        rig.arrive(number, queue(Transport::Inline), 1);
    }
    assert_eq!((rig.engine.claims_waiting(), rig.engine.jobs().count()), (3, 3));
    rig.answer("claim", Ok(planned("x", &[1])));
    rig.create("b");
    rig.end("b", RemoteState::Succeeded);
    rig.collect(Harvest { answered: 1, ..Harvest::default() });
    rig.answer("merge", Ok(Outcome::Merged { tally: Default::default(), stem: "n".to_owned() }));
    rig.answer("deliver", Ok(Outcome::Delivered));
    rig.answer("clean", Ok(Outcome::Cleaned));
    let ids: Vec<_> = rig.engine.jobs().map(|job| job.head.id).collect();
    assert_eq!(ids, [id(1), id(2), id(3)], "complete ones first");
    let unfinished: Vec<_> = rig.engine.unfinished().map(|job| job.head.id).collect();
    assert_eq!(unfinished, [id(2), id(3)]);
    let past: Vec<_> = rig.engine.past().ids().collect();
    assert_eq!(past, [id(1)]);
    for number in 1..=3 {
        assert_eq!(rig.engine.job(id(number)).map(|job| job.head.id), Some(id(number)));
    }
    assert!(rig.engine.job(id(4)).is_none());
}
