//! Tokens in the API's queue: chunks are held back instead of being refused.

use gemini_batchd::engine::ChunkState;
use gemini_batchd::engine::effect::Effect;
use gemini_batchd::engine::event::{Event, Failure, Harvest, Outcome, Polled};
use gemini_batchd::engine::job::{Queue, RemoteState, Transport};
use gemini_batchd::engine::money::Means;
use gemini_batchd::engine::policy::Policy;

use crate::rig::{ROW_BYTES, Rig, batch, id, planned, policy, queue, remote, rest};

/// A line has a hundred bytes, and so this many tokens by estimate.
const LINE: u64 = 25;

fn enqueued(lines: u64) -> Policy {
    with(Means { tokens: lines * LINE, ..Means::default() })
}

fn with(means: Means) -> Policy {
    Policy { means, ..policy() }
}

fn inline() -> Queue {
    queue(Transport::Inline)
}

fn count(rig: &Rig, kind: &str) -> usize {
    rig.kinds().iter().filter(|begun| **begun == kind).count()
}

/// A job that is not small.
fn middling(rig: &mut Rig, number: u64, queue: Queue, chunks: &[u64]) {
    rig.arrive(number, queue, 2 << 20);
    rig.answer("claim", Ok(Outcome::Claimed));
    rig.answer("plan", Ok(planned(&format!("content {number}"), chunks)));
}

fn finish(rig: &mut Rig, name: &str, rows: u64) {
    rig.end(name, RemoteState::Succeeded);
    rig.collect(Harvest { answered: rows, ..Harvest::default() });
}

/// The oldest create is refused as the API refuses one for which its queue has no room.
fn refuse(rig: &mut Rig) {
    let message = "Resource has been exhausted (e.g. check quota).".to_owned();
    rig.answer("create", Err(Failure::RateLimited { retry_after_ms: None, message }));
}

fn ceiling(rig: &Rig) -> Option<u64> {
    rig.engine.queue_rooms().first().and_then(|room| room.ceiling)
}

#[test]
fn no_more_tokens_are_enqueued_than_configured_and_what_waits_says_for_what() {
    let mut rig = Rig::with_job(enqueued(25), inline(), &[10, 10, 10]);
    assert_eq!(count(&rig, "create"), 2);
    let waits = rig.engine.waits_for_means(&rig.saved[&id(1)]);
    assert_eq!(waits.as_deref(), Some("waits for room in the queue of gemini-2.5-flash"));
    rig.create("b");
    rig.create("c");
    finish(&mut rig, "b", 10);
    assert_eq!(count(&rig, "create"), 1, "one has left the queue");
    assert_eq!(rig.engine.waits_for_means(&rig.saved[&id(1)]), None);
}

#[test]
fn each_model_has_a_queue_of_its_own() {
    let tokens_of = [("gemini-2.5-pro".to_owned(), 100 * LINE)].into();
    let mut rig = Rig::new(with(Means { tokens: 10 * LINE, tokens_of, ..Means::default() }));
    let pro = || Queue { model: "gemini-2.5-pro".to_owned(), ..inline() };
    for number in 1..=80 {
        rig.add_job(number, inline(), &[10]);
    }
    assert_eq!(count(&rig, "create"), 1);
    rig.add_job(99, pro(), &[40, 40]);
    assert_eq!(count(&rig, "create"), 3, "however many stand before it for another model");
}

#[test]
fn a_two_line_file_never_waits_for_room_behind_one_of_millions_of_lines() {
    let mut rig = Rig::new(enqueued(1_000_000));
    middling(&mut rig, 1, inline(), &[400_000, 400_000, 400_000, 400_000, 400_000]);
    assert_eq!(count(&rig, "create"), 2);
    rig.add_job(2, inline(), &[2]);
    assert_eq!(count(&rig, "create"), 3);
    let mut alone = Rig::new(enqueued(1_000));
    middling(&mut alone, 1, inline(), &[2_000_000]);
    assert_eq!(count(&alone, "create"), 1, "what is larger than the queue is tried alone");
    alone.add_job(2, inline(), &[2]);
    assert_eq!(count(&alone, "create"), 2);
}

#[test]
fn a_large_file_does_not_wait_for_ever_because_small_ones_keep_coming() {
    let mut rig = Rig::new(enqueued(1_000));
    rig.add_job(1, inline(), &[10]);
    middling(&mut rig, 2, inline(), &[2_000]);
    assert_eq!(count(&rig, "create"), 2, "no other large one is in the queue");
}

#[test]
fn a_higher_priority_is_the_first_to_get_the_room_that_comes_back() {
    let mut rig = Rig::with_job(enqueued(10), inline(), &[10]);
    rig.add_job(2, inline(), &[10]);
    rig.add_job(3, Queue { priority: 5, ..inline() }, &[10]);
    rig.create("b");
    finish(&mut rig, "b", 10);
    let Effect::Create { which, .. } = rig.take("create").effect else { unreachable!() };
    assert_eq!(which.job, id(3));
}

#[test]
fn a_bare_refusal_lowers_the_ceiling_and_successes_raise_it_again() {
    let mut rig = Rig::with_job(policy(), inline(), &[10; 11]);
    for name in 0..10 {
        rig.create(&format!("b{name}"));
    }
    assert_eq!(ceiling(&rig), None, "nothing is known yet");
    refuse(&mut rig);
    assert_eq!(ceiling(&rig), Some(100 * LINE / 10 * 7), "seven tenths of what was enqueued");
    assert!(rig.notes["quota"].contains("gemini-2.5-flash"));
    rig.restart();
    assert_eq!(ceiling(&rig), Some(70 * LINE), "a restart remembers it");
    rig.pass(10_000);
    rig.answer("find", Ok(Outcome::Found(Vec::new())));
    assert_eq!(count(&rig, "create"), 0, "it is held back now");
    assert!(matches!(rig.state(11), ChunkState::Waiting { .. }));
}

#[test]
fn what_a_refusal_taught_is_forgotten_after_some_hours() {
    let mut rig = Rig::with_job(policy(), inline(), &[10, 10]);
    rig.create("b");
    refuse(&mut rig);
    assert_eq!(ceiling(&rig), Some(10 * LINE), "one chunk at least");
    rig.begun.clear();
    let forgotten = rig.now.plus(6 * 3_600_000);
    while rig.now < forgotten {
        assert_eq!(ceiling(&rig), Some(10 * LINE), "{:?}", rig.now);
        let next = rig.engine.next_wakeup().expect("it looks up when that is over");
        rig.until(next.min(forgotten));
        if rig.kinds().contains(&"find") {
            rig.answer("find", Ok(Outcome::Found(Vec::new())));
        }
        if rig.kinds().contains(&"poll") {
            let seen = vec![(batch("b"), Polled::Seen(remote("b")))];
            rig.answer("poll", Ok(Outcome::Polled(seen)));
        }
    }
    assert_eq!(ceiling(&rig), None);
    assert_eq!(count(&rig, "create"), 1, "it is tried again");
}

#[test]
fn a_pause_that_the_server_asks_for_says_nothing_about_its_queue() {
    let mut rig = Rig::with_job(policy(), inline(), &[10, 10]);
    rig.create("b");
    let message = "requests per minute".to_owned();
    rig.answer("create", Err(Failure::RateLimited { retry_after_ms: Some(1_000), message }));
    assert_eq!(ceiling(&rig), None);
}

#[test]
fn successes_close_to_the_ceiling_raise_it() {
    let mut rig = Rig::with_job(policy(), inline(), &[10, 10, 10]);
    rig.create("b");
    rig.create("c");
    refuse(&mut rig);
    assert_eq!(ceiling(&rig), Some(14 * LINE));
    rig.wait();
    rig.answer("find", Ok(Outcome::Found(Vec::new())));
    finish(&mut rig, "b", 10);
    finish(&mut rig, "c", 10);
    rig.create("d");
    assert_eq!(ceiling(&rig), Some(14 * LINE + 14 * LINE / 5));
}

/// A chunk is refused although nothing else is enqueued, and looked for, so many times.
fn refuse_alone(rig: &mut Rig, times: u32) {
    for _ in 0..times {
        while !rig.kinds().contains(&"create") {
            rig.wait();
        }
        refuse(rig);
        while !rig.kinds().contains(&"find") {
            rig.wait();
        }
        rig.answer("find", Ok(Outcome::Found(Vec::new())));
    }
}

#[test]
fn a_chunk_that_is_refused_alone_again_and_again_is_halved() {
    let halved_above = 5 * LINE;
    let mut rig = Rig::with_job(with(Means { halved_above, ..Means::default() }), inline(), &[10]);
    refuse_alone(&mut rig, 2);
    assert_eq!(rig.saved[&id(1)].chunks.len(), 1, "it may be an accident");
    refuse_alone(&mut rig, 1);
    assert!(matches!(rig.state(1), ChunkState::Split { .. }), "{:?}", rig.state(1));
    assert_eq!((rig.chunk(2).rest.rows(), rig.chunk(3).rest.rows()), (5, 5));
    assert_eq!((&rig.chunk(2).aid, &rig.chunk(3).aid), (&None, &None));
    assert!(rig.plan().warnings[0].contains("too large for the API's queue"));
    refuse_alone(&mut rig, 12);
    let waiting = rig.saved[&id(1)].chunks.len();
    assert_eq!(waiting, 3, "what is as small as that is not the reason, and no line is given up");
}

#[test]
fn halves_are_halved_again_and_every_row_is_sent() {
    let halved_above = 5 * LINE;
    let mut rig = Rig::with_job(with(Means { halved_above, ..Means::default() }), inline(), &[40]);
    refuse_alone(&mut rig, 21);
    let chunks = rig.saved[&id(1)].chunks.values();
    let open: Vec<(u64, u64)> = chunks
        .filter(|chunk| !matches!(chunk.state, ChunkState::Split { .. }))
        .map(|chunk| {
            assert!(!matches!(chunk.state, ChunkState::Settled), "{chunk:?}");
            assert!(chunk.rest.rows() <= chunk.rows.len(), "{chunk:?}");
            (chunk.rows.first.0, chunk.rows.last.0)
        })
        .collect();
    let rows: u64 = open.iter().map(|(first, last)| last - first + 1).sum();
    assert!(rows == 40 && open.len() > 2, "{open:?}");
    let rest = rig.saved[&id(1)].leaves().fold((0, 0), |(rows, bytes), chunk| {
        (rows + chunk.rest.rows(), bytes + chunk.rest.bytes())
    });
    assert_eq!(rest, (40, 40 * ROW_BYTES), "all of them are still to be sent");
}

#[test]
fn a_file_that_is_uploaded_when_the_queue_turns_out_to_be_full_waits_and_is_found_again() {
    let mut rig = Rig::with_job(policy(), queue(Transport::File), &[10, 10]);
    let uploaded = |rig: &mut Rig| {
        let Effect::Upload { file, .. } = &rig.begun[0].effect else { panic!("{:?}", rig.kinds()) };
        let file = file.clone();
        rig.answer("upload", Ok(Outcome::Uploaded { file: file.clone() }));
        file
    };
    uploaded(&mut rig);
    let Effect::Upload { file, .. } = rig.begun[0].effect.clone() else {
        panic!("{:?}", rig.kinds())
    };
    let turn = rig.engine.adopt(enqueued(10), rig.now);
    rig.consume(turn);
    uploaded(&mut rig);
    assert!(matches!(rig.state(2), ChunkState::Waiting { .. }), "{:?}", rig.state(2));
    rig.create("b");
    finish(&mut rig, "b", 10);
    let begun = rig.take("upload").effect;
    let Effect::Upload { file: again, .. } = begun else { unreachable!() };
    assert_eq!(again, file);
}

#[test]
fn tokens_are_counted_for_what_is_in_doubt_and_after_a_restart() {
    let mut rig = Rig::with_job(enqueued(100), inline(), &[10, 20]);
    rig.create("b");
    rig.answer("create", Err(Failure::Ambiguous("no answer".to_owned())));
    let tokens = |rig: &Rig| rig.engine.queue_rooms()[0].enqueued;
    assert_eq!(tokens(&rig), 30 * LINE);
    rig.restart();
    assert_eq!(tokens(&rig), 30 * LINE);
    rig.end("b", RemoteState::Expired);
    rig.collect(Harvest { answered: 4, rest: rest(6), ..Harvest::default() });
    rig.tell(Event::Tick);
    assert_eq!(tokens(&rig), 20 * LINE, "what is to be sent again is not in the queue");
}

#[test]
fn a_file_that_is_uploaded_does_not_count_itself_as_in_its_way() {
    let mut rig = Rig::with_job(enqueued(15), queue(Transport::File), &[10]);
    let ChunkState::Uploading { file } = rig.state(1).clone() else { panic!("{:?}", rig.state(1)) };
    rig.answer("upload", Ok(Outcome::Uploaded { file }));
    assert_eq!(count(&rig, "create"), 1);
}

#[test]
fn people_are_told_of_queues_in_which_something_is_or_whose_ceiling_is_known() {
    let mut rig = Rig::with_job(policy(), inline(), &[10]);
    let rooms = |rig: &Rig| {
        let rooms = rig.engine.queue_rooms().into_iter();
        rooms.map(|room| (room.enqueued, room.ceiling)).collect::<Vec<_>>()
    };
    assert_eq!(rooms(&rig), [(10 * LINE, None)]);
    rig.create("b");
    finish(&mut rig, "b", 10);
    assert_eq!(rooms(&rig), []);
    let turn = rig.engine.adopt(enqueued(50), rig.now);
    rig.consume(turn);
    rig.add_job(2, inline(), &[10]);
    assert_eq!(rooms(&rig), [(10 * LINE, Some(50 * LINE))]);
}
