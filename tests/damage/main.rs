//! What comes from outside, damaged at random, and what must hold of it all the same. The checks
//! are those of the fuzz targets, and so are the pieces that they begin with.
//!
//! `DAMAGED_LINES` says how many lines are tried (of the other kinds a part of that), `SEED` where
//! the dice begin.

mod agree;
mod results;
mod settings;
mod stream;
mod wire;

use std::fs;
use std::path::Path;

/// Fault 45.
#[test]
fn damaged_lines_are_judged_as_serde_json_judges_them() {
    let (accepted, count) = damaged("pieces", 1, agree::agree);
    // Otherwise the dice only ever make rubbish, or only ever harmless changes.
    assert!((count / 20..count / 2).contains(&accepted), "{accepted} of {count} were accepted");
}

#[test]
fn every_kept_piece_is_judged_as_serde_json_judges_it() {
    let lines = kept("pieces");
    assert!(lines.len() > 30, "only {} pieces are kept", lines.len());
    for line in &lines {
        agree::agree(line);
        for cut in (0..line.len()).rev().take(500) {
            agree::agree(&line[..cut]);
        }
    }
}

/// Faults 69 and 70.
#[test]
fn result_lines_mean_the_same_to_both_readers() {
    replay("results", results::check);
    let (readable, count) = damaged("results", 2, results::check);
    assert!(readable > count / 20, "{readable} of {count} were readable");
}

/// Faults 58 and 60.
#[test]
fn no_answer_of_a_server_breaks_a_rule_of_the_wire() {
    replay("wire", wire::check);
    let (readable, count) = damaged("wire", 2, wire::check);
    assert!(readable > count / 20, "{readable} of {count} were readable");
}

/// Fault 14.
#[test]
fn a_configuration_is_refused_in_words_or_shown_so_that_it_can_be_read_again() {
    replay("settings", settings::check);
    let (right, count) = damaged("settings", 50, settings::check);
    assert!(right > count / 20, "{right} of {count} were right");
}

/// Faults 68, 70 and 74.
#[test]
fn results_come_to_the_same_wherever_their_stream_is_cut() {
    let memory = Path::new("/dev/shm");
    let folder = match memory.is_dir() {
        true => tempfile::tempdir_in(memory),
        false => tempfile::tempdir(),
    };
    let folder = folder.expect("a folder");
    let place = stream::Place::below(folder.path());
    replay("stream", |data| place.check(data));
    let (taken, count) = damaged("stream", 100, |data| place.check(data));
    assert!(taken > count / 20, "{taken} of {count} were taken in");
}

/// Damages kept pieces in so many ways and checks each; tells how many were still good, and how
/// many there were.
fn damaged(kind: &str, part: u64, check: impl Fn(&[u8]) -> bool) -> (u64, u64) {
    let lines = kept(kind);
    let seed = number("SEED", 7);
    let mut dice = Dice(seed | 1);
    let count = number("DAMAGED_LINES", 100_000) / part;
    let mut good = 0;
    for _ in 0..count {
        let other = &lines[dice.below(lines.len())];
        let mut line = lines[dice.below(lines.len())].clone();
        for _ in 0..=dice.below(3) {
            damage(&mut line, other, &mut dice);
        }
        good += u64::from(check(&line));
    }
    println!("campaign: damaged {kind} {count}, still good {good}, broken rules 0, seed {seed}");
    (good, count)
}

/// Checks every kept piece as it is.
fn replay(kind: &str, check: impl Fn(&[u8]) -> bool) {
    for piece in kept(kind) {
        check(&piece);
    }
}

/// The pieces that are kept for the fuzzer, sound and broken ones.
fn kept(kind: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(kind);
    let mut paths: Vec<_> =
        fs::read_dir(&folder).expect("kept").map(|entry| entry.expect("listed").path()).collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).expect("read")).collect()
}

/// Changes one thing.
fn damage(line: &mut Vec<u8>, other: &[u8], dice: &mut Dice) {
    const TELLING: &[u8] = b"\"\\{}[]:,0123456789-+.eEutfnrb/ \t\r\n\0\x1f\x7f\x80\xc3\xe4\xed\xff";
    let (at, far) = (dice.below(line.len() + 1), dice.below(line.len() + 1));
    let (from, to) = (at.min(far), at.max(far));
    let telling = TELLING[dice.below(TELLING.len())];
    match dice.below(9) {
        0 if at < line.len() => line[at] ^= 1 << dice.below(8),
        1 if at < line.len() => line[at] = telling,
        2 if at < line.len() => drop(line.remove(at)),
        3 => line.insert(at, telling),
        4 if to < line.len() => line.swap(from, to),
        5 => line.truncate(line.len() - (line.len() - at) / 8),
        6 => drop(line.drain(from..from + (to - from) / 8)),
        // Members and brackets twice, or from another line.
        7 => {
            let again = line[from..from + (to - from) / 4].to_vec();
            drop(line.splice(at..at, again));
        }
        8 => {
            let start = dice.below(other.len() + 1);
            let len = dice.below(other.len() - start + 1) / 4;
            drop(line.splice(at..at, other[start..start + len].iter().copied()));
        }
        _ => {}
    }
}

/// Numbers that look random, the same ones every time (xorshift).
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}
