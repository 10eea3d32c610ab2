//! Results taken in while they arrive, broken off at any place and gone on with.

use std::fs;
use std::path::PathBuf;

use gemini_batchd::engine::ids::{Attempt, ChunkNo};
use gemini_batchd::engine::verdict::Verdict;
use gemini_batchd::spool::answers::CollectError;
use gemini_batchd::spool::receiver::Receiver;
use proptest::prelude::*;

use crate::world::{World, answer, error, lines};

/// A receiver for the first attempt.
fn receiver(world: &World) -> Receiver {
    Receiver::open(&world.folder(), &world.which(1), 0).unwrap()
}

/// What comes before the results have their name.
fn download(world: &World) -> PathBuf {
    world.folder().download(ChunkNo(1), Attempt(1))
}

fn names(world: &World) -> Vec<String> {
    let listed = fs::read_dir(world.folder().path.join("answers")).unwrap();
    let mut names: Vec<_> =
        listed.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// An answer to a row of about so many bytes.
fn long_answer(row: u64, bytes: usize) -> String {
    answer(row).replacen("\"text\":\"", &format!("\"text\":\"{}", "x".repeat(bytes)), 1)
}

/// Answers for more rows than one run holds, in no order.
fn several_runs(rows: u64) -> String {
    let bytes = 30 * 1024 * 1024 / rows as usize;
    (0..rows).map(|n| long_answer(n * 7 % rows + 1, bytes)).collect()
}

/// The results of a world to which `stream` came in one go.
fn undisturbed(rows: u64, stream: &str) -> String {
    let world = World::new(&lines(rows));
    let mut receiver = receiver(&world);
    receiver.take(stream.as_bytes()).unwrap();
    receiver.finish().unwrap();
    world.merge();
    world.results()
}

#[test]
fn what_fits_into_one_run_lies_there_as_it_came() {
    let world = World::new(&lines(4));
    let stream = [answer(3), "\n".to_owned(), answer(1), error(4, 3), answer(2)].concat();
    let mut receiver = receiver(&world);
    assert_eq!(receiver.resume().unwrap(), 0);
    for byte in stream.as_bytes() {
        receiver.take(&[*byte]).unwrap();
    }
    assert!(receiver.is_whole());
    assert_eq!(receiver.finish().unwrap().answered, 3);
    assert_eq!(names(&world), ["c1-a1.jsonl"]);
    let kept = world.folder().answers(ChunkNo(1), Attempt(1));
    assert_eq!(fs::read_to_string(kept).unwrap(), stream);
}

#[test]
fn runs_are_in_order_and_hold_every_byte_that_came() {
    let rows = 3001;
    let world = World::new(&lines(rows));
    let stream = several_runs(rows);
    let mut receiver = receiver(&world);
    for block in stream.as_bytes().chunks(100_000) {
        receiver.take(block).unwrap();
    }
    assert_eq!(receiver.finish().unwrap().answered, rows);
    assert_eq!(names(&world), ["c1-a1.jsonl"]);
    let outcomes = world.outcomes();
    let mut starts: Vec<_> = outcomes.iter().map(|outcome| outcome.start).collect();
    let breaks = starts.windows(2).filter(|pair| pair[0] > pair[1]).count();
    assert!((1..3000).contains(&breaks), "rows are spread over the runs");
    let kept = fs::read_to_string(world.folder().answers(ChunkNo(1), Attempt(1))).unwrap();
    let (mut came, mut lie): (Vec<_>, Vec<_>) = (stream.lines().collect(), kept.lines().collect());
    came.sort_unstable();
    lie.sort_unstable();
    assert!(came == lie, "the same lines");
    let mut by_place = outcomes;
    by_place.sort_by_key(|outcome| outcome.start);
    starts.sort_unstable();
    starts.dedup();
    assert_eq!(starts.len() as u64, rows);
    world.merge();
    for (at, line) in world.results().lines().enumerate() {
        assert!(line.starts_with(&format!("{{\"key\":\"k{}\",", at + 1)));
        assert!(line.contains(&format!("x{}\"", at + 1)), "the answer of row {}", at + 1);
    }
}

#[test]
fn results_in_order_lie_there_as_they_came() {
    let world = World::new(&lines(30));
    let stream: String = (1..=30).map(|row| long_answer(row, 1 << 20)).collect();
    let mut receiver = receiver(&world);
    for block in stream.as_bytes().chunks(1 << 18) {
        receiver.take(block).unwrap();
    }
    receiver.finish().unwrap();
    let kept = world.folder().answers(ChunkNo(1), Attempt(1));
    assert!(fs::read(kept).unwrap() == stream.as_bytes());
}

#[test]
fn a_break_within_a_line_is_gone_on_from() {
    let world = World::new(&lines(3));
    let stream = [answer(2), answer(3), answer(1)].concat();
    for cut in [30, stream.len() / 2, stream.len() - 1] {
        let mut first = receiver(&world);
        let from = first.resume().unwrap() as usize;
        first.take(&stream.as_bytes()[from..cut]).unwrap();
        assert!(cut == stream.len() - 1 || !first.is_whole());
        first.pause().unwrap();
        assert_eq!(world.verdicts(), [Verdict::Open; 3], "nothing is noted of what is not whole");
        assert_eq!(fs::read_to_string(download(&world)).unwrap(), stream[..cut]);
    }
    let mut last = receiver(&world);
    assert_eq!(last.resume().unwrap(), stream.len() as u64 - 1);
    last.take(b"\n").unwrap();
    assert_eq!(last.finish().unwrap().answered, 3);
}

#[test]
fn a_last_line_without_its_newline_is_whole() {
    let world = World::new(&lines(2));
    let mut receiver = receiver(&world);
    let stream = [answer(2), answer(1)].concat();
    receiver.take(stream.trim_end().as_bytes()).unwrap();
    assert!(receiver.is_whole());
    assert_eq!(receiver.finish().unwrap().answered, 2);
    assert_eq!(world.merge().answered, 2);
}

#[test]
fn after_a_kill_the_last_whole_run_is_built_on() {
    let rows = 1501;
    let stream = several_runs(rows);
    let expected = undisturbed(rows, &stream);
    let world = World::new(&lines(rows));
    let mut killed = receiver(&world);
    for block in stream.as_bytes()[..stream.len() * 2 / 3].chunks(300_000) {
        killed.take(block).unwrap();
    }
    drop(killed);
    // A run that was cut off is on the disk, but not in the mark.
    let whole = fs::metadata(download(&world)).unwrap().len();
    let torn = [fs::read(download(&world)).unwrap(), b"{\"key\":\"1\",\"resp".to_vec()].concat();
    fs::write(download(&world), torn).unwrap();
    let mut next = receiver(&world);
    assert!(world.verdicts().iter().all(|verdict| *verdict == Verdict::Open));
    let from = next.resume().unwrap();
    assert_eq!(from, whole);
    assert!(from > 8 << 20);
    next.take(&stream.as_bytes()[from as usize..]).unwrap();
    assert_eq!(next.finish().unwrap().answered, rows);
    world.merge();
    assert!(world.results() == expected);
    assert_eq!(names(&world), ["c1-a1.jsonl"]);
}

#[test]
fn a_pause_after_some_runs_keeps_the_beginning_of_a_line_too() {
    let rows = 1501;
    let stream = several_runs(rows);
    let expected = undisturbed(rows, &stream);
    let world = World::new(&lines(rows));
    let mut from = 0;
    for cut in [9 << 20, (9 << 20) + 5, 20 << 20, stream.len()] {
        let mut receiver = receiver(&world);
        assert_eq!(receiver.resume().unwrap(), from as u64);
        for block in stream.as_bytes()[from..cut].chunks(300_000) {
            receiver.take(block).unwrap();
        }
        if cut == stream.len() {
            assert_eq!(receiver.finish().unwrap().answered, rows);
        } else {
            receiver.pause().unwrap();
        }
        from = cut;
    }
    world.merge();
    assert!(world.results() == expected);
}

#[test]
fn what_a_power_cut_has_emptied_is_not_built_on() {
    let world = World::new(&lines(2));
    let mark = download(&world).with_extension("resume");
    for (text, marked) in [
        (b"{\"key\"\0\0\0\0".to_vec(), None),
        ([answer(1).as_bytes(), &[0; 100], b"\n"].concat(), None),
        (answer(1).into_bytes(), Some(1000_u64.to_le_bytes().to_vec())),
        (answer(1).into_bytes(), Some(vec![1])),
        (b"<html>\n".to_vec(), None),
    ] {
        world.download(1, &text);
        if let Some(bytes) = &marked {
            fs::write(&mark, bytes).unwrap();
        }
        assert_eq!(receiver(&world).resume().unwrap(), 0, "{text:?}");
        drop(fs::remove_file(&mark));
    }
    assert_eq!(world.verdicts(), [Verdict::Open; 2]);
}

#[test]
fn a_damaged_line_is_told_as_it_comes() {
    let world = World::new(&lines(2));
    let mut receiver = receiver(&world);
    receiver.take(answer(1).as_bytes()).unwrap();
    let torn = receiver.take(b"\n<html>\n").unwrap_err();
    let CollectError::Torn { line, start, .. } = torn else { panic!("{torn:?}") };
    assert_eq!((line, start), (3, answer(1).len() as u64 + 1));
    receiver.restart().unwrap();
    assert_eq!(names(&world), [""; 0]);
    receiver.take([answer(1), answer(2)].concat().as_bytes()).unwrap();
    assert_eq!(receiver.finish().unwrap().answered, 2);
}

#[test]
fn strays_among_runs_are_kept_in_the_order_they_came() {
    let world = World::new(&lines(20));
    let mut stream = String::new();
    let mut strays = String::new();
    for row in (1..=20).rev() {
        let stray = answer(100 + row);
        stream += &(long_answer(row, 1 << 20) + &stray);
        strays += &stray;
    }
    let mut receiver = receiver(&world);
    receiver.take(stream.as_bytes()).unwrap();
    assert_eq!(receiver.finish().unwrap().unknown, 20);
    assert_eq!(fs::read_to_string(world.folder().strays()).unwrap(), strays);
    assert_eq!(world.merge().answered, 20);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..Default::default() })]

    /// Wherever it is cut and however often it breaks, the same comes out.
    #[test]
    fn breaks_and_kills_change_nothing(
        order in Just((1..=40_u64).collect::<Vec<_>>()).prop_shuffle(),
        breaks in prop::collection::vec((0_usize..9000, any::<bool>()), 0..6),
    ) {
        let stream: String = order.iter().map(|row| long_answer(*row, *row as usize)).collect();
        let expected = undisturbed(40, &stream);
        let world = World::new(&lines(40));
        for (count, is_kill) in breaks {
            let mut receiver = receiver(&world);
            let from = receiver.resume().unwrap() as usize;
            let end = (from + count).min(stream.len());
            receiver.take(&stream.as_bytes()[from..end]).unwrap();
            if !is_kill {
                receiver.pause().unwrap();
            }
        }
        let mut receiver = receiver(&world);
        let from = receiver.resume().unwrap() as usize;
        receiver.take(&stream.as_bytes()[from..]).unwrap();
        receiver.finish().unwrap();
        world.merge();
        prop_assert_eq!(world.results(), expected);
    }
}
