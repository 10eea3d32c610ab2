//! Lines damaged at random, and what two readers make of each: the fast walk of ours and
//! serde_json, which has the last word.
//!
//! Whatever the walk accepts, serde_json must accept with the same places. `DAMAGED_LINES` says
//! how many lines are tried, `DAMAGE_SEED` where the dice begin.

use std::fs;
use std::ops::Range;
use std::path::Path;

use gemini_batchd::spool::scan::Cursor;
use gemini_batchd::spool::{forms, usual};
use serde_json::value::RawValue;

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

/// Holds the readers against each other; tells whether the walk accepted the text.
fn agree(text: &[u8]) -> bool {
    let shown = || String::from_utf8_lossy(text).into_owned();
    if let Some(request) = usual::request(text, "m") {
        assert_eq!(Ok(request), forms::examine_closely(text, "m"), "{}", shown());
    }
    let (walked, read) = (by_walk(text), by_serde(text));
    let brackets = text.iter().filter(|byte| matches!(byte, b'{' | b'[')).count();
    if walked.is_some() || brackets < 64 {
        // The walk may be less sure, but where nothing is nested deep it should not be.
        assert_eq!(walked, read, "{}", shown());
    }
    let members = members_by_walk(text);
    if members.is_some() {
        assert_eq!(members, members_by_serde(text), "{}", shown());
    }
    walked.is_some()
}

fn by_walk(text: &[u8]) -> Option<Range<usize>> {
    let mut cursor = Cursor::over(text)?;
    let place = cursor.skip()?;
    cursor.end().map(|()| place)
}

fn by_serde(text: &[u8]) -> Option<Range<usize>> {
    serde_json::from_slice::<&RawValue>(text).ok().map(|value| place(text, value))
}

fn place(text: &[u8], value: &RawValue) -> Range<usize> {
    let start = value.get().as_ptr() as usize - text.as_ptr() as usize;
    start..start + value.get().len()
}

type Members = Vec<(String, Range<usize>)>;

fn members_by_walk(text: &[u8]) -> Option<Members> {
    let mut cursor = Cursor::over(text)?;
    let mut members = Vec::new();
    cursor.object(|name, value| {
        let name = String::from_utf8(name.to_vec()).ok()?;
        members.push((name, value.skip()?));
        Some(())
    })?;
    cursor.end().map(|()| members)
}

fn members_by_serde(text: &[u8]) -> Option<Members> {
    struct All<'a>(&'a [u8]);
    impl<'de> serde::de::Visitor<'de> for All<'de> {
        type Value = Members;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
            let mut members = Vec::new();
            while let Some((name, value)) = map.next_entry::<String, &RawValue>()? {
                members.push((name, place(self.0, value)));
            }
            Ok(members)
        }
    }
    let mut reader = serde_json::Deserializer::from_slice(text);
    let members = serde::Deserializer::deserialize_map(&mut reader, All(text)).ok()?;
    reader.end().ok().map(|()| members)
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
