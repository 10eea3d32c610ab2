//! Lines damaged at random, and what two readers make of each: the fast walk of ours and
//! serde_json, which has the last word.
//!
//! Whatever the walk accepts, serde_json must accept with the same places. `DAMAGED_LINES` says
//! how many lines are tried, `DAMAGE_SEED` where the dice begin.

mod agree;

use std::fs;
use std::path::Path;

use agree::agree;

#[test]
fn damaged_lines_are_judged_as_serde_json_judges_them() {
    let lines = kept();
    let mut dice = Dice(number("DAMAGE_SEED", 7) | 1);
    let mut accepted = 0_u64;
    let count = number("DAMAGED_LINES", 100_000);
    for _ in 0..count {
        let other = &lines[dice.below(lines.len())];
        let mut line = lines[dice.below(lines.len())].clone();
        for _ in 0..=dice.below(3) {
            damage(&mut line, other, &mut dice);
        }
        accepted += u64::from(agree(&line));
    }
    // Otherwise the dice only ever make rubbish, or only ever harmless changes.
    assert!((count / 20..count / 2).contains(&accepted), "{accepted} of {count} were accepted");
}

#[test]
fn every_kept_piece_is_judged_as_serde_json_judges_it() {
    let lines = kept();
    assert!(lines.len() > 30, "only {} pieces are kept", lines.len());
    for line in &lines {
        agree(line);
        for cut in 0..line.len() {
            agree(&line[..cut]);
        }
    }
}

/// The pieces that are kept for the fuzzer, sound and broken ones.
fn kept() -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/pieces");
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
