//! Spans, sizes and counts in a few letters.

use std::io::{self, Write};

use crate::engine::ids::{Attempt, ChunkNo, JobId};
use crate::provider::gemini::Counts;
use crate::telemetry::escaped;

/// An attempt of ours in words.
pub fn attempt((job, chunk, attempt): (JobId, ChunkNo, Attempt)) -> String {
    format!("job {job}, chunk {}, attempt {}", chunk.0, attempt.0)
}

/// A span of time in its largest unit, rounded down.
pub fn span(ms: u64) -> String {
    let seconds = ms / 1000;
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// A size in its largest unit, powers of ten.
pub fn size(bytes: u64) -> String {
    let (mut whole, mut tenths, mut unit) = (bytes, 0, "B");
    for larger in ["kB", "MB", "GB", "TB"] {
        if whole < 1000 {
            break;
        }
        (tenths, whole, unit) = (whole % 1000 / 100, whole / 1000, larger);
    }
    if whole < 10 && unit != "B" {
        format!("{whole}.{tenths} {unit}")
    } else {
        format!("{whole} {unit}")
    }
}

/// How many requests are over, of how many.
pub fn progress(counts: Counts) -> String {
    let over = counts.answered.unwrap_or(0).saturating_add(counts.failed.unwrap_or(0));
    match counts.total {
        Some(total) => format!("{over}/{total}"),
        None => "?".to_owned(),
    }
}

/// A text from outside, safe for a terminal and at most `max` characters long.
pub fn short(text: &str, max: usize) -> String {
    let safe = escaped(text);
    match safe.char_indices().nth(max) {
        Some(_) => safe.chars().take(max.saturating_sub(1)).chain(['…']).collect(),
        None => safe,
    }
}

/// Writes a text behind a head, from this column on, broken between words where a line would get too
/// long. What came from outside is escaped here.
///
/// # Errors
/// As the writer's.
pub fn wrapped(head: &str, column: usize, text: &str, out: &mut dyn Write) -> io::Result<()> {
    let mut line = format!("{head:<column$}");
    let mut is_first = true;
    for word in text.split_whitespace().map(escaped) {
        if !is_first && line.chars().count() + 1 + word.chars().count() > COLUMNS {
            writeln!(out, "{}", line.trim_end())?;
            line = " ".repeat(column);
            is_first = true;
        }
        if !is_first {
            line.push(' ');
        }
        line.push_str(&word);
        is_first = false;
    }
    writeln!(out, "{}", line.trim_end())
}

/// No line is longer, unless a word is.
const COLUMNS: usize = 80;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_and_sizes_are_told_in_their_largest_unit() {
        let spans = [(0, "0 s"), (59_999, "59 s"), (60_000, "1 min"), (3_600_000, "1 h")];
        for (ms, text) in spans.into_iter().chain([(172_800_000, "2 d")]) {
            assert_eq!(span(ms), text);
        }
        let sizes = [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (1_499_999, "1.4 MB")];
        for (bytes, text) in sizes.into_iter().chain([(12_000_000_000, "12 GB")]) {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn a_long_text_is_broken_between_words_and_nothing_odd_comes_through() {
        let mut out = Vec::new();
        let text = format!("{} end\u{1b}[31m", "words ".repeat(15));
        wrapped("warn  check", 21, &text, &mut out).expect("written");
        let said = String::from_utf8(out).expect("UTF-8");
        assert!(said.lines().all(|line| line.chars().count() <= COLUMNS), "{said}");
        assert_eq!(said.lines().count(), 2, "{said}");
        assert!(said.lines().nth(1).expect("two").starts_with(&" ".repeat(21)), "{said}");
        assert!(said.contains("end\\u{1b}[31m"), "{said}");
    }

    #[test]
    fn a_long_text_is_cut_and_an_odd_one_escaped() {
        assert_eq!(short("abcdef", 4), "abc…");
        assert_eq!(short("abcd", 4), "abcd");
        assert_eq!(short("a\u{1b}[m", 20), "a\\u{1b}[m");
    }

    #[test]
    fn counts_that_nobody_told_are_not_made_up() {
        assert_eq!(progress(Counts::default()), "?");
        let counts = Counts { total: Some(5), answered: Some(2), failed: Some(1) };
        assert_eq!(progress(counts), "3/5");
    }
}
