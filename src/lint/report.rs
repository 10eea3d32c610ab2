//! What was found in many lines: each thing once, with how often and where first.
//!
//! A million lines with one mistake are one entry. Memory is bounded whatever the file holds.

use std::collections::BTreeMap;

use super::{Asked, Finding, Kind, check};

/// What was found in the lines looked at so far.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    entries: BTreeMap<(Order, String), Entry>,
    /// Findings of further kinds than are kept.
    more: u64,
    lines: u64,
    with_errors: u64,
    with_warnings: u64,
    mendable: u64,
}

/// Errors first.
type Order = (bool, Kind);

/// One thing that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// As it was found first.
    pub first: Finding,
    /// Where, `[]` for every element.
    pub place: String,
    /// On how many lines.
    pub lines: u64,
    /// The first of them.
    pub examples: Vec<u64>,
    /// On how many of them it can be mended.
    pub mendable: u64,
    last: u64,
}

impl Entry {
    /// The first line it was found on.
    pub fn first_line(&self) -> u64 {
        self.examples.first().copied().unwrap_or(self.last)
    }

    /// `lines 3, 7, 8 and 20 more`.
    pub fn on_lines(&self) -> String {
        let numbers: Vec<String> = self.examples.iter().map(u64::to_string).collect();
        let more = self.lines - self.examples.len() as u64;
        let s = if self.lines == 1 { "" } else { "s" };
        match more {
            0 => format!("line{s} {}", numbers.join(", ")),
            more => format!("line{s} {} and {more} more", numbers.join(", ")),
        }
    }
}

impl Report {
    /// Takes what was found on a line.
    pub fn note(&mut self, line: u64, findings: &[Finding]) {
        self.lines += 1;
        let errors = findings.iter().any(|finding| finding.kind.is_error());
        self.with_errors += u64::from(errors);
        self.with_warnings += u64::from(!errors && !findings.is_empty());
        self.mendable += u64::from(findings.iter().any(|finding| finding.mend.is_some()));
        for finding in findings {
            let place = finding.path.of_kind();
            let key = ((!finding.kind.is_error(), finding.kind), place);
            if !self.entries.contains_key(&key) && self.entries.len() >= ENTRIES_MAX {
                self.more += 1;
                continue;
            }
            let place = key.1.clone();
            let entry = self.entries.entry(key).or_insert_with(|| Entry {
                first: finding.clone(),
                place,
                lines: 0,
                examples: Vec::new(),
                mendable: 0,
                last: 0,
            });
            entry.count(line, finding.mend.is_some());
        }
    }

    /// Everything found, errors first.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }

    /// Findings that are in none of the entries, since there were too many kinds.
    pub fn more(&self) -> u64 {
        self.more
    }

    /// Lines looked at.
    pub fn lines(&self) -> u64 {
        self.lines
    }

    /// Lines that the API would refuse.
    pub fn with_errors(&self) -> u64 {
        self.with_errors
    }

    /// Other lines with something to say about.
    pub fn with_warnings(&self) -> u64 {
        self.with_warnings
    }

    /// Lines of which something can be mended.
    pub fn mendable(&self) -> u64 {
        self.mendable
    }

    /// The same as sentences for a manifest, a few and none very long; `rows` are those of the file.
    pub fn warnings(&self, rows: u64) -> Vec<String> {
        let seen = match self.lines < rows {
            true => format!(" (of {} looked at)", self.lines),
            false => String::new(),
        };
        let one = |entry: &Entry| {
            let Finding { kind, message, remedy, .. } = &entry.first;
            let (kind, lines, on) = (kind.as_str(), entry.lines, entry.on_lines());
            let place = if entry.place.is_empty() { "the line" } else { &entry.place };
            let text =
                format!("{kind}: {lines} request(s){seen}, {on}: {place}: {message}; {remedy}");
            text.chars().take(WARNING_CHARS_MAX).collect()
        };
        let mut warnings: Vec<String> = self.entries.values().take(WARNINGS_MAX).map(one).collect();
        let rest = self.entries.len().saturating_sub(WARNINGS_MAX) as u64 + self.more;
        if rest > 0 {
            warnings.push(format!("{rest} more findings; `gemini-batchd lint FILE` tells them"));
        }
        warnings
    }
}

impl Entry {
    fn count(&mut self, line: u64, mendable: bool) {
        // The same thing may be found twice on a line.
        if self.last == line {
            return;
        }
        self.last = line;
        self.lines += 1;
        self.mendable += u64::from(mendable);
        if self.examples.len() < EXAMPLES_MAX {
            self.examples.push(line);
        }
    }
}

/// Looks at as many lines of a file as cost next to nothing.
///
/// The first ones are all looked at; after them one now and then, all over the file. Which ones
/// follows from the lengths of the lines alone, so the same file always gives the same report.
#[derive(Debug)]
pub struct Sample<'a> {
    asked: Asked<'a>,
    report: Report,
    passed: u64,
    looked_at: u64,
}

impl<'a> Sample<'a> {
    /// Nothing seen yet.
    pub fn of(asked: Asked<'a>) -> Sample<'a> {
        Sample { asked, report: Report::default(), passed: 0, looked_at: 0 }
    }

    /// Shows a line, which may be looked at.
    pub fn show(&mut self, number: u64, line: &[u8]) {
        let len = line.len() as u64;
        self.passed += len;
        if self.looked_at + len > FIRST_BYTES + self.passed / ONE_BYTE_OF {
            return;
        }
        self.looked_at += len;
        if let Ok(line) = std::str::from_utf8(line) {
            self.report.note(number, &check(line, self.asked));
        }
    }

    /// What was found.
    pub fn report(self) -> Report {
        self.report
    }
}

/// Kinds of findings with their places that are kept.
const ENTRIES_MAX: usize = 60;
/// Line numbers that are kept of each.
const EXAMPLES_MAX: usize = 5;
/// Warnings in a manifest.
const WARNINGS_MAX: usize = 12;
const WARNING_CHARS_MAX: usize = 600;
/// So much of a file is looked at in any case.
const FIRST_BYTES: u64 = 16 * 1024;
/// Of the rest, one byte of so many.
const ONE_BYTE_OF: u64 = 2048;
