//! Result lines as servers send them.

use std::fs;
use std::io::{Seek, SeekFrom, Write};

use gemini_batchd::engine::ids::{Attempt, ChunkNo, Row};
use gemini_batchd::engine::verdict::Verdict;
use gemini_batchd::spool::answers::{self, CollectError};
use gemini_batchd::spool::index::LineFate;
use proptest::prelude::*;
use proptest::sample::Index;

use crate::world::{World, answer, error, line, lines};

fn kept(world: &World, attempt: u16) -> bool {
    world.folder().answers(ChunkNo(1), Attempt(attempt)).exists()
}

#[test]
fn shuffled_lines_find_their_rows() {
    let world = World::new(&lines(4));
    world.download(1, [answer(3), answer(1), error(4, 3), error(2, 13)].concat());
    let harvest = world.collect(1).unwrap();
    assert_eq!((harvest.answered, harvest.failed, harvest.retryable), (2, 1, 1));
    assert_eq!((harvest.missing, harvest.unknown, harvest.repeated), (0, 0, 0));
    assert_eq!((harvest.rest.left.rows, harvest.rest.right.rows), (1, 0));
    let expected = [Verdict::Answered, Verdict::Retryable, Verdict::Answered, Verdict::Failed];
    assert_eq!(world.verdicts(), expected);
    assert!(kept(&world, 1));
}

#[test]
fn the_rest_is_counted_in_bytes_as_lines_of_an_input_file() {
    let world = World::new(&lines(10));
    world.download(1, error(10, 13));
    let harvest = world.accept(1);
    assert_eq!((harvest.rest.left.rows, harvest.rest.right.rows), (5, 5));
    let one = "{\"key\":\"1\",\"request\":{\"contents\":[]}}\n".len() as u64;
    assert_eq!((harvest.rest.left.bytes, harvest.rest.right.bytes), (5 * one, 5 * one + 1));
    assert_eq!(answers::rest(&world.folder(), world.which(1).rows).unwrap(), harvest.rest);
}

#[test]
fn a_missing_row_is_not_accepted_until_the_caller_says_so() {
    let world = World::new(&lines(3));
    world.download(1, [answer(1), answer(3)].concat());
    let short = world.collect(1).unwrap_err();
    assert!(matches!(short, CollectError::Short { missing: 1 }), "{short}");
    assert_eq!(world.verdicts(), [Verdict::Open; 3]);
    assert!(!kept(&world, 1));
    let harvest = world.accept(1);
    assert_eq!((harvest.answered, harvest.missing, harvest.rest.rows()), (2, 1, 1));
    assert!(kept(&world, 1));
}

/// Fault 70.
#[test]
fn the_first_of_repeated_lines_counts() {
    let world = World::new(&lines(1));
    world.download(1, [answer(1), error(1, 3), answer(1)].concat());
    let harvest = world.collect(1).unwrap();
    assert_eq!((harvest.answered, harvest.failed, harvest.repeated), (1, 0, 2));
    assert_eq!(world.outcomes()[0].start, 0);
}

/// Fault 69.
#[test]
fn lines_for_rows_that_were_not_sent_are_kept_aside_once() {
    let mut rows = lines(3);
    rows[1].fate = LineFate::NotARequest;
    let world = World::new(&rows);
    let strays = [answer(4), answer(2), answer(0), "{\"key\":null}\n".to_owned()].concat();
    // Fetched again after a short download: the strays must not be kept twice.
    world.download(1, [&strays, &*answer(1)].concat());
    assert!(world.collect(1).is_err());
    world.download(1, [&strays, &*answer(1), &*answer(3)].concat());
    assert_eq!(world.collect(1).unwrap().unknown, 4);
    assert_eq!(world.collect(1).unwrap().unknown, 4);
    assert_eq!(fs::read_to_string(world.folder().strays()).unwrap(), strays);
    assert_eq!(world.verdicts(), [Verdict::Answered, Verdict::Invalid, Verdict::Answered]);
    assert_eq!(fs::read_dir(world.folder().path.join("answers")).unwrap().count(), 1);
}

/// Fault 68.
#[test]
fn a_torn_line_is_refused_wherever_it_stands() {
    let world = World::new(&lines(2));
    let whole = [answer(1), answer(2)].concat();
    for torn in [&whole[..whole.len() - 3], "\0\0\0\n", "<html>\n", "[]\n"] {
        let text = if torn.starts_with('{') { torn.to_owned() } else { [&whole, torn].concat() };
        world.download(1, text);
        let error = world.collect(1).unwrap_err();
        assert!(matches!(error, CollectError::Torn { .. }), "{torn:?}: {error}");
        assert_eq!(world.verdicts(), [Verdict::Open; 2]);
        assert!(!kept(&world, 1));
    }
}

#[test]
fn a_torn_line_that_must_be_accepted_leaves_its_row_open() {
    let world = World::new(&lines(2));
    let whole = [answer(1), answer(2)].concat();
    world.download(1, &whole[..whole.len() - 3]);
    let harvest = world.accept(1);
    assert_eq!((harvest.answered, harvest.missing, harvest.unknown), (1, 1, 1));
    assert!(fs::read_to_string(world.folder().strays()).unwrap().starts_with("{\"response\""));
}

/// Fault 73.
#[test]
fn a_line_beyond_the_limit_is_passed_over_and_the_next_one_found() {
    let world = World::new(&lines(2));
    let path = world.folder().download(ChunkNo(1), Attempt(1));
    let mut file = fs::File::create(&path).unwrap();
    file.write_all(answer(1).as_bytes()).unwrap();
    // A hole reads as zero bytes and takes no room on the disk.
    file.seek(SeekFrom::Current(129 * 1024 * 1024)).unwrap();
    file.write_all(format!("\n{}", answer(2)).as_bytes()).unwrap();
    assert!(world.collect(1).unwrap_err().to_string().contains("longer than 128 MiB"));
    let harvest = world.accept(1);
    assert_eq!((harvest.answered, harvest.unknown), (2, 1));
    assert!(fs::metadata(world.folder().strays()).unwrap().len() < 100_000);
}

#[test]
fn blank_lines_and_a_missing_last_newline_are_fine() {
    let world = World::new(&lines(2));
    world.download(1, format!("\n{}\r\n  \n{}", answer(1), answer(2).trim_end()));
    assert_eq!(world.collect(1).unwrap().answered, 2);
}

#[test]
fn a_later_attempt_never_reopens_a_settled_row() {
    let world = World::new(&lines(3));
    world.download(1, [answer(1), error(2, 13), error(3, 3)].concat());
    world.collect(1).unwrap();
    let first = world.outcomes();
    world.download(2, [error(1, 13), answer(2), answer(3)].concat());
    let harvest = world.collect(2).unwrap();
    assert_eq!((harvest.answered, harvest.unknown, harvest.rest.rows()), (1, 2, 0));
    let second = world.outcomes();
    assert_eq!((second[0], second[2]), (first[0], first[2]));
    assert_eq!((second[1].verdict, second[1].attempt), (Verdict::Answered, Attempt(2)));
}

#[test]
fn a_retryable_row_that_stays_missing_keeps_its_older_error() {
    let world = World::new(&lines(1));
    world.download(1, error(1, 13));
    world.collect(1).unwrap();
    let before = world.outcomes();
    world.download(2, "");
    assert_eq!(world.accept(2).missing, 1);
    assert_eq!(world.outcomes(), before);
}

#[test]
fn collecting_again_after_a_crash_gives_the_same() {
    let world = World::new(&lines(5));
    let text = [answer(5), error(1, 13), answer(9), answer(2), answer(2), error(3, 3), answer(4)];
    world.download(1, text.concat());
    let harvest = world.collect(1).unwrap();
    let outcomes = world.outcomes();
    // After the rename: taken in again from the file that was kept.
    assert_eq!(world.collect(1).unwrap(), harvest);
    // Before the rename: the outcomes are noted, the file still has its old name.
    let folder = world.folder();
    let (kept, fresh) =
        (folder.answers(ChunkNo(1), Attempt(1)), folder.download(ChunkNo(1), Attempt(1)));
    fs::rename(kept, fresh).unwrap();
    assert_eq!(world.collect(1).unwrap(), harvest);
    assert_eq!(world.outcomes(), outcomes);
}

#[test]
fn rows_named_in_a_refusal_fail_and_the_others_stay() {
    let world = World::new(&lines(4));
    let named = [(Row(2), "bad \"part\"\n".to_owned()), (Row(9), "not ours".to_owned())];
    let rest = answers::reject(&world.folder(), &world.which(1), &named, 3).unwrap();
    assert_eq!((rest.left.rows, rest.right.rows), (1, 2));
    let outcomes = world.outcomes();
    assert_eq!(answers::reject(&world.folder(), &world.which(1), &named, 3).unwrap(), rest);
    assert_eq!(world.outcomes(), outcomes);
    assert_eq!(outcomes[1].verdict, Verdict::Failed);
    world.download(2, [answer(1), answer(3), answer(4)].concat());
    assert_eq!(world.collect(2).unwrap().rest.rows(), 0);
    world.merge();
    assert!(world.errors().contains("\"message\":\"bad \\\"part\\\"\\n\""), "{}", world.errors());
}

#[test]
fn nothing_downloaded_is_an_error_of_this_machine() {
    let world = World::new(&lines(1));
    assert!(matches!(world.collect(1).unwrap_err(), CollectError::Spool(_)));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..Default::default() })]

    /// Whatever comes in whatever order, every row ends in exactly one of the two outputs.
    #[test]
    fn results_and_errors_add_up_to_the_lines(
        fates in prop::collection::vec(0_u8..8, 1..40),
        picks in prop::collection::vec((any::<Index>(), 0_u8..5), 0..80),
    ) {
        let rows: Vec<_> = fates.iter().map(|fate| {
            let mut line = line("\"k\"");
            if *fate == 0 {
                line.fate = LineFate::InvalidJson;
            }
            line
        }).collect();
        let world = World::new(&rows);
        let text: String = picks.iter().map(|(pick, kind)| {
            let row = pick.index(rows.len() + 2) as u64;
            match kind {
                0 => error(row, 13),
                1 => error(row, 3),
                2 => "{\"key\":\"tor\n".to_owned(),
                _ => answer(row),
            }
        }).collect();
        world.download(1, text);
        let harvest = world.accept(1);
        let invalid = rows.iter().filter(|line| line.fate != LineFate::Valid).count() as u64;
        let sent = rows.len() as u64 - invalid;
        prop_assert_eq!(
            harvest.answered + harvest.failed + harvest.retryable + harvest.missing, sent);
        prop_assert_eq!(harvest.rest.rows(), harvest.retryable + harvest.missing);
        let seen = harvest.answered + harvest.failed + harvest.retryable
            + harvest.repeated + harvest.unknown;
        prop_assert_eq!(seen, picks.len() as u64);
        let tally = world.merge();
        prop_assert_eq!(tally.answered, harvest.answered);
        prop_assert_eq!(tally.failed, rows.len() as u64 - tally.answered);
        prop_assert_eq!(tally.failures.values().sum::<u64>(), tally.failed);
        let written = world.results().lines().count() as u64;
        prop_assert_eq!(written, tally.answered);
        let errors = if tally.failed > 0 { world.errors() } else { String::new() };
        prop_assert_eq!(errors.lines().count() as u64, tally.failed);
    }
}
