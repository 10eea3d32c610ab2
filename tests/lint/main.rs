//! Lines and what `lint` says of them; and what mending makes of them.

mod agree;
mod found;
mod mended;
mod report;

use gemini_batchd::engine::job::Task;
use gemini_batchd::lint::{self, Asked, Finding};

const FLASH: Asked<'static> = Asked { task: Task::Generate, model: "models/gemini-2.5-flash" };
const EMBED: Asked<'static> = Asked { task: Task::Embed, model: "gemini-embedding-001" };

/// A line in the file form, with these members beside the contents.
fn request(more: &str) -> String {
    let more = if more.is_empty() { String::new() } else { format!(", {more}") };
    format!(r#"{{"key": 1, "request": {{"contents": [{{"parts": [{{"text": "hi"}}]}}]{more}}}}}"#)
}

fn check(line: &str) -> Vec<Finding> {
    lint::check(line, FLASH)
}

/// Kinds and places, as `kind place`.
fn said(findings: &[Finding]) -> Vec<String> {
    findings.iter().map(|it| format!("{} {}", it.kind.as_str(), it.path)).collect()
}
