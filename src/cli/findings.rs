//! What `lint` says of a file, as text and as JSON.
//!
//! One line for each kind of finding, however many lines of the file have it, in the form that
//! editors jump to.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;

use serde_json::{Value, json};

use crate::engine::job::Refusal;
use crate::lint::report::{self, Entry};
use crate::spool::plan::Planned;
use crate::spool::problem::Problem;
use crate::telemetry::escaped;

use super::mending::Mending;

/// All there is to say of a file.
pub struct Report<'a> {
    /// The file.
    pub file: &'a Path,
    /// Whether a mended copy was asked for.
    pub fix: bool,
    /// How reading it ended.
    pub read: &'a Result<Planned, Refusal>,
    /// The first lines that are no requests.
    pub problems: Vec<Problem>,
    /// What was found in all others.
    pub found: report::Report,
    /// How many lines are no requests, by their reasons.
    pub reasons: BTreeMap<&'static str, u64>,
    /// What `--fix` made of it.
    pub mending: Option<Mending>,
}

impl Report<'_> {
    /// Lines that can not be sent.
    pub fn invalid(&self) -> u64 {
        self.reasons.values().sum::<u64>() + self.found.with_errors()
    }

    /// Writes it for people.
    ///
    /// # Errors
    /// As the writer's.
    pub fn tell(&self, out: &mut dyn Write) -> io::Result<()> {
        let file = escaped(&self.file.display().to_string());
        for problem in &self.problems {
            let column = problem.column.map(|column| format!(":{column}")).unwrap_or_default();
            let (line, message) = (problem.line, escaped(&problem.message));
            writeln!(out, "{file}:{line}{column}: {message}")?;
        }
        let unread: u64 = self.reasons.values().sum();
        let hidden = unread.saturating_sub(self.problems.len() as u64);
        if hidden > 0 {
            writeln!(out, "… and {hidden} more; --show {unread} shows all")?;
            let reasons = self.reasons.iter().map(|(reason, lines)| format!("{lines} {reason}"));
            writeln!(out, "invalid by reason: {}", reasons.collect::<Vec<_>>().join(", "))?;
        }
        tell_entries(&file, &self.found, out)?;
        let Ok(planned) = self.read else { return self.tell_mending(out) };
        for warning in &planned.warnings {
            writeln!(out, "warning: {}", escaped(warning))?;
        }
        let (rows, invalid) = (planned.rows, self.invalid());
        let valid = rows.saturating_sub(invalid);
        let plural = if rows == 1 { "" } else { "s" };
        let warned = match self.found.with_warnings() {
            0 => String::new(),
            lines => format!(", {lines} with warnings"),
        };
        writeln!(out, "{file}: {rows} request{plural}, {valid} valid, {invalid} invalid{warned}")?;
        self.tell_mending(out)
    }

    fn tell_mending(&self, out: &mut dyn Write) -> io::Result<()> {
        let Some(mending) = &self.mending else {
            let mendable = self.found.mendable();
            if mendable > 0 && !self.fix {
                let s = if mendable == 1 { "" } else { "s" };
                writeln!(out, "{mendable} line{s} can be mended: --fix writes a mended copy")?;
            }
            return Ok(());
        };
        let Some(copy) = &mending.copy else {
            return writeln!(out, "nothing could be mended, so there is no copy");
        };
        let copy = escaped(&copy.display().to_string());
        let (Mending { mended, left, .. }, invalid) = (mending, mending.invalid());
        let s = if *mended == 1 { "" } else { "s" };
        writeln!(out, "{copy}: {mended} line{s} mended, {invalid} still invalid")?;
        tell_entries(&copy, left, out)
    }

    /// The same as JSON.
    pub fn to_json(&self) -> Value {
        let problem = |problem: &Problem| {
            json!({"line": problem.line, "column": problem.column, "reason": problem.reason,
                "message": problem.message})
        };
        let mut told = json!({
            "file": self.file.display().to_string(),
            "problems": self.problems.iter().map(problem).collect::<Vec<_>>(),
            "reasons": self.reasons,
            "findings": entries(&self.found),
            "with_warnings": self.found.with_warnings(),
        });
        let more = match self.read {
            Ok(planned) => json!({
                "requests": planned.rows,
                "valid": planned.rows.saturating_sub(self.invalid()),
                "invalid": self.invalid(),
                "bytes": planned.bytes,
                "sha256": planned.sha256,
                "warnings": planned.warnings,
            }),
            Err(refusal) => json!({
                "valid": 0,
                "refused": {"reason": refusal.reason, "message": refusal.message,
                    "line": refusal.line, "column": refusal.column, "remedy": refusal.remedy},
            }),
        };
        let mended = self.mending.as_ref().map(|mending| {
            json!({"mended": {
                "file": mending.copy.as_ref().map(|copy| copy.display().to_string()),
                "lines": mending.mended,
                "invalid": mending.invalid(),
                "findings": entries(&mending.left),
            }})
        });
        for part in [Some(more), mended].into_iter().flatten() {
            if let (Value::Object(told), Value::Object(part)) = (&mut told, part) {
                told.extend(part);
            }
        }
        told
    }
}

fn tell_entries(file: &str, found: &report::Report, out: &mut dyn Write) -> io::Result<()> {
    for entry in found.entries() {
        let (first, kind) = (entry.first_line(), entry.first.kind);
        let (place, message) = (escaped(&entry.place), escaped(&entry.first.message));
        let (severity, word, lines) = (kind.severity(), kind.as_str(), entry.on_lines());
        let remedy = escaped(&entry.first.remedy);
        let place = if place.is_empty() { "the line".to_owned() } else { place };
        writeln!(
            out,
            "{file}:{first}: {severity}: {place}: {message}; {remedy} [{word}, {lines}]"
        )?;
    }
    match found.more() {
        0 => Ok(()),
        more => writeln!(out, "… and {more} more findings of other kinds or in other places"),
    }
}

fn entries(found: &report::Report) -> Vec<Value> {
    let entry = |entry: &Entry| {
        json!({"severity": entry.first.kind.severity(), "kind": entry.first.kind.as_str(),
            "path": entry.place, "first": entry.first.path.to_string(), "lines": entry.lines,
            "first_lines": entry.examples, "message": entry.first.message,
            "remedy": entry.first.remedy, "mendable": entry.mendable})
    };
    found.entries().map(entry).collect()
}
