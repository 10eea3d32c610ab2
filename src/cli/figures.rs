//! Numbers, times and sizes as people read them, and lines that fit a terminal.
//!
//! Colour goes to a terminal only, and never where `NO_COLOR` is set. Whoever passes a text from
//! outside has escaped it; nothing here lets a control character of its own through but colours.

use std::io::IsTerminal;

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

pub use crate::view::words::{number, plural, size, span};

/// How much room there is, and whether colours are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    /// Columns that a line may take; longer ones are cut. `None`: lines are as long as they are.
    pub columns: Option<usize>,
    /// With colours.
    pub colour: bool,
}

/// What a piece of text is, as far as its colour tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    /// As everything else.
    Plain,
    /// A heading.
    Strong,
    /// Of less interest.
    Faint,
    /// Went well.
    Good,
    /// Wants a look.
    Warn,
    /// Went wrong.
    Bad,
}

/// A line of pieces, each with its tone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Line(Vec<(Tone, String)>);

impl Look {
    /// For standard output: what a terminal has, or no limit and no colour.
    pub fn of_stdout() -> Look {
        if !std::io::stdout().is_terminal() {
            return Look { columns: None, colour: false };
        }
        let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let columns = crossterm::terminal::size().map_or(COLUMNS, |(columns, _)| columns.into());
        Look { columns: Some(columns), colour: !no_colour }
    }

    /// The columns that texts are broken at: those there are, as far as one still reads well.
    pub fn measure(&self) -> usize {
        self.columns.unwrap_or(COLUMNS).clamp(40, 110)
    }
}

impl Line {
    /// One piece.
    pub fn of(tone: Tone, text: impl Into<String>) -> Line {
        Line(vec![(tone, text.into())])
    }

    /// One plain piece.
    pub fn plain(text: impl Into<String>) -> Line {
        Line::of(Tone::Plain, text)
    }

    /// With one more piece.
    pub fn and(mut self, tone: Tone, text: impl Into<String>) -> Line {
        self.0.push((tone, text.into()));
        self
    }

    /// With all pieces of another one.
    pub fn followed_by(mut self, other: Line) -> Line {
        self.0.extend(other.0);
        self
    }

    /// As it is written: cut to the columns there are, coloured if wanted, no spaces at its end.
    pub fn shown(&self, look: &Look) -> String {
        let mut left = look.columns.unwrap_or(usize::MAX);
        let mut shown = String::new();
        // Spaces at the end take no columns from what is said before them.
        let said = self.0.iter().rposition(|(_, text)| !text.trim_end().is_empty());
        for (at, (tone, text)) in self.0.iter().enumerate().take(said.map_or(0, |last| last + 1)) {
            let is_last = said == Some(at);
            let text = if is_last { text.trim_end() } else { text.as_str() };
            let more = !is_last;
            let room = if more && text.width() == left { left.saturating_sub(1) } else { left };
            let piece = fit(text, room);
            left = left.saturating_sub(piece.width());
            match (look.colour, code(*tone)) {
                (true, Some(code)) if !piece.is_empty() => {
                    shown.push_str(&format!("\u{1b}[{code}m{piece}\u{1b}[0m"));
                }
                (true | false, _) => shown.push_str(&piece),
            }
            if piece.len() < text.len() {
                break;
            }
        }
        shown.truncate(shown.trim_end().len());
        shown
    }
}

fn code(tone: Tone) -> Option<&'static str> {
    match tone {
        Tone::Plain => None,
        Tone::Strong => Some("1"),
        Tone::Faint => Some("2"),
        Tone::Good => Some("32"),
        Tone::Warn => Some("33"),
        Tone::Bad => Some("31"),
    }
}

/// A text in at most so many columns; what is cut off ends in `…`.
pub fn fit(text: &str, columns: usize) -> String {
    if text.width() <= columns {
        return text.to_owned();
    }
    let mut left = columns.saturating_sub(1);
    let mut kept = String::new();
    for letter in text.chars() {
        let wide = letter.width().unwrap_or(0);
        if wide > left {
            break;
        }
        left -= wide;
        kept.push(letter);
    }
    if columns > 0 {
        kept.push('…');
    }
    kept
}

/// A text with spaces after it up to so many columns.
pub fn pad(text: &str, columns: usize) -> String {
    format!("{text}{}", " ".repeat(columns.saturating_sub(text.width())))
}

/// A text broken at spaces into lines of at most so many columns; a longer word stays whole.
pub fn wrapped(text: &str, columns: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        let line = lines.last_mut().expect("there is always one");
        if line.is_empty() {
            line.push_str(word);
        } else if line.width() + 1 + word.width() <= columns {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

/// A moment that was told as RFC 3339, in the time zone of this machine, to the second.
pub fn local(rfc3339: &str) -> String {
    match rfc3339.parse::<jiff::Timestamp>() {
        Ok(time) => {
            let local = time.to_zoned(jiff::tz::TimeZone::system());
            local.strftime("%Y-%m-%d %H:%M:%S").to_string()
        }
        Err(_) => crate::telemetry::escaped(rfc3339),
    }
}

/// The seconds from one moment to another, both RFC 3339; 0 if the second is earlier.
pub fn between(from: &str, to: &str) -> Option<u64> {
    let (from, to) = (from.parse::<jiff::Timestamp>().ok()?, to.parse::<jiff::Timestamp>().ok()?);
    u64::try_from(to.as_second().saturating_sub(from.as_second())).or(Ok::<u64, ()>(0)).ok()
}

/// Where nobody says how wide it is.
const COLUMNS: usize = 80;

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3600;
    const DAY: u64 = 24 * HOUR;

    #[test]
    fn times_numbers_and_sizes_are_told_as_people_say_them() {
        for (seconds, said) in [
            (0, "0 s"),
            (59, "59 s"),
            (60, "1 min"),
            (3599, "59 min"),
            (7200, "2 h"),
            (7800, "2 h 10 min"),
            (DAY, "1 d"),
            (3 * DAY + 4 * HOUR + 5, "3 d 4 h"),
        ] {
            assert_eq!(span(seconds), said);
        }
        for (bytes, said) in [
            (1, "1 byte"),
            (999, "999 bytes"),
            (1000, "1.0 kB"),
            (1_440_000_000, "1.4 GB"),
            (999_999_999, "999 MB"),
            (u64::MAX, "18446744 TB"),
        ] {
            assert_eq!(size(bytes), said);
        }
        for (value, said) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(number(value), said);
        }
        assert_eq!(between("2026-01-01T00:00:00Z", "2026-01-01T00:01:01Z"), Some(61));
        assert_eq!(between("2026-01-01T00:01:00Z", "2026-01-01T00:00:00Z"), Some(0));
        assert_eq!(between("", "2026-01-01T00:00:00Z"), None);
    }

    #[test]
    fn a_line_is_cut_to_the_columns_there_are_wide_letters_counted() {
        let line = Line::plain("批处理 ").and(Tone::Bad, "failed").and(Tone::Plain, "  ");
        let look = |columns| Look { columns, colour: false };
        assert_eq!(line.shown(&look(None)), "批处理 failed");
        assert_eq!(line.shown(&look(Some(13))), "批处理 failed");
        assert_eq!(line.shown(&look(Some(10))), "批处理 fa…");
        assert_eq!(line.shown(&look(Some(6))), "批处…");
        for columns in 0..20 {
            assert!(line.shown(&look(Some(columns))).width() <= columns, "{columns}");
        }
        let coloured = Line::of(Tone::Bad, "no").shown(&Look { columns: None, colour: true });
        assert_eq!(coloured, "\u{1b}[31mno\u{1b}[0m");
    }

    #[test]
    fn a_text_is_broken_at_spaces_and_a_long_word_stays_whole() {
        assert_eq!(wrapped("one two three", 7), ["one two", "three"]);
        assert_eq!(wrapped("batches/abcdefgh x", 7), ["batches/abcdefgh", "x"]);
        assert_eq!(wrapped("", 7), [""]);
    }
}
