//! What the API, or somebody in its place, may answer: lists, operations, files, errors.
//!
//! Whatever comes, it is read the same however it is cut; nothing that is not there is believed;
//! the key is in no text; and a create whose outcome is open is called nothing else. The fuzz
//! target includes this file too.

use std::io::{self, Read};

use gemini_batchd::engine::event::Failure;
use gemini_batchd::provider::gemini::classify::{
    ErrorAnswer, ErrorHead, RETRY_AFTER_MAX_MS, Verdict,
};
use gemini_batchd::provider::gemini::lines::{LineLimit, WholeText};
use gemini_batchd::provider::gemini::operation::{Operation, ReadError};
use gemini_batchd::provider::gemini::wire::{self, BatchPage, FilePage};
use gemini_batchd::provider::gemini::{ApiKey, RefusedKind};
use serde::de::IgnoredAny;

/// The key that may be in no text.
pub const KEY: &str = "AIza-K";

/// Checks an answer. Its first byte says what it is the answer to and where it is cut; tells
/// whether something could be read of it.
///
/// # Panics
/// If anything is not as it must be.
pub fn check(data: &[u8]) -> bool {
    let Some((first, body)) = data.split_first() else { return false };
    let step = usize::from(first >> 3) + 1;
    match first & 7 {
        0 => operation(body, step),
        1 => batches(body),
        2 => files(body),
        3 => text(body, step),
        4 => words(body),
        _ => error(body),
    }
}

/// Hands out a text in small pieces.
struct Drip<'a>(&'a [u8], usize);

impl Read for Drip<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.1.min(self.0.len()).min(buffer.len());
        buffer[..count].copy_from_slice(&self.0[..count]);
        self.0 = &self.0[count..];
        Ok(count)
    }
}

fn read(from: impl Read, max: u64) -> (Result<Operation, ReadError>, Vec<String>) {
    let mut items = Vec::new();
    let mut sink = |item: &str| {
        items.push(item.to_owned());
        Ok(())
    };
    let operation = Operation::read(from, max, Some(&mut sink));
    (operation, items)
}

fn operation(body: &[u8], step: usize) -> bool {
    let shown = || String::from_utf8_lossy(body).into_owned();
    let (whole, items) = read(body, body.len() as u64);
    let (cut, cut_items) = read(Drip(body, step), body.len() as u64);
    assert_eq!(whole.is_ok(), cut.is_ok(), "{}", shown());
    assert_eq!(items, cut_items, "{}", shown());
    // Through the reader for what does not fit in memory, which may refuse more.
    let (metered, metered_items) = read(body, (body.len() as u64).saturating_sub(1));
    assert!(items.starts_with(&metered_items), "{}", shown());
    let Ok(operation) = whole else {
        assert!(metered.is_err(), "{}", shown());
        return false;
    };
    assert!(serde_json::from_slice::<IgnoredAny>(body).is_ok(), "{}", shown());
    assert_eq!(Some(&operation), cut.ok().as_ref(), "{}", shown());
    if let Ok(metered) = metered {
        assert_eq!(operation, metered, "{}", shown());
    }
    assert_eq!(operation.items, items.len() as u64, "{}", shown());
    for item in &items {
        assert!(serde_json::from_str::<IgnoredAny>(item).is_ok(), "{item}");
    }
    let passed_over = Operation::read(body, u64::MAX, None).expect("as before");
    assert_eq!(Operation { items: operation.items, ..passed_over }, operation, "{}", shown());
    batch(operation)
}

/// Names are fit for a path, and texts for a line.
fn batch(operation: Operation) -> bool {
    let Ok(batch) = operation.into_batch() else { return false };
    assert!(wire::batch_name(&batch.name.0).is_ok(), "{batch:?}");
    for file in batch.input_file.iter().chain(&batch.output_file) {
        assert!(wire::file_name(&file.0).is_ok(), "{file:?}");
    }
    assert_plain(&batch.display_name, 513);
    if let Some(error) = &batch.error {
        assert_plain(&error.message, wire::MESSAGE_CHARS + 1);
    }
    true
}

fn assert_plain(text: &str, max: usize) {
    assert!(!text.contains(char::is_control), "{text:?}");
    assert!(text.chars().count() <= max, "{text:?}");
}

fn batches(body: &[u8]) -> bool {
    let Ok(page) = serde_json::from_slice::<BatchPage>(body) else { return false };
    let entries = page.operations.unwrap_or_default();
    entries.iter().filter_map(|entry| Operation::from_text(entry.get()).ok()).any(batch)
}

fn files(body: &[u8]) -> bool {
    let Ok(page) = serde_json::from_slice::<FilePage>(body) else { return false };
    for file in page.files.unwrap_or_default() {
        let _ = (file.bytes(), file.create_time.as_deref().and_then(wire::millis));
        if let Ok(name) = wire::file_name(&file.name.unwrap_or_default()) {
            assert_path(&name.0);
        }
    }
    true
}

/// A name changes no path that it is put into.
fn assert_path(name: &str) {
    let (folder, id) = name.split_once('/').expect("a folder and an id");
    assert!(matches!(folder, "files" | "batches" | "models" | "tunedModels"), "{name:?}");
    assert!(!id.contains(['/', '?', '#', ':', '%', ' ', '\\']), "{name:?}");
    assert!(!matches!(id, "" | "." | ".."), "{name:?}");
}

/// Text comes through in whole characters, and long lines are noticed, wherever both are cut.
fn text(body: &[u8], step: usize) -> bool {
    let came = io::read_to_string(WholeText::new(Drip(body, step))).expect("from memory");
    assert_eq!(came, String::from_utf8_lossy(body));
    let max = step.max(5);
    let mut limit = LineLimit::new(max as u64);
    let kept = body.chunks(step).all(|piece| limit.keeps(piece));
    let longest = body.split(|byte| *byte == b'\n').map(<[u8]>::len).max().unwrap_or(0);
    assert_eq!(kept, longest <= max, "{body:?}");
    true
}

/// Single words of the API.
fn words(body: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(body) else { return false };
    if let Some(path) = wire::model_path(text) {
        assert_path(&path);
    }
    for name in [wire::batch_name(text).map(|name| name.0), wire::file_name(text).map(|n| n.0)] {
        match name {
            Ok(name) => assert_path(&name),
            Err(error) => assert_plain(&error.to_string(), 700),
        }
    }
    assert_plain(&wire::plain(text, 40), 41);
    let _ = (wire::millis(text), wire::http_date(text), wire::duration_ms(text));
    true
}

/// `HTTP status` `Retry-After` `Date`, each to the end of its line, and the body.
fn error(data: &[u8]) -> bool {
    let mut parts = data.splitn(4, |byte| *byte == b'\n');
    let mut line = || String::from_utf8_lossy(parts.next().unwrap_or_default()).into_owned();
    let (status, retry_after, date) = (line(), line(), line());
    let Ok(http) = status.trim().parse::<u16>() else { return false };
    let body = parts.next().unwrap_or_default();
    let head = ErrorHead { http, retry_after: Some(retry_after), date: Some(date) };
    let key = ApiKey::new(KEY).expect("a key");
    for cut in [false, true] {
        let answer = ErrorAnswer::read(&head, body, cut, &key);
        let pause = answer.retry_after_ms.unwrap_or(0);
        assert!(pause <= RETRY_AFTER_MAX_MS, "{answer:?}");
        let failure = answer.failure("list");
        said(failure.message());
        let gives_up = matches!(failure, Failure::Gone(_) | Failure::Rejected(_));
        assert!(answer.from_api || !gives_up || http == 413, "{http}: {failure:?}");
        assert!(!matches!(failure, Failure::Ambiguous(_) | Failure::Local(_)), "{failure:?}");
        for file in [None, Some("files/j-1-1")] {
            refusal(http, answer.refusal(file));
        }
    }
    true
}

fn said(message: &str) {
    assert!(!message.contains(KEY), "{message}");
    assert_plain(message, 1400);
}

/// Only a definite refusal says that there is no batch.
fn refusal(http: u16, verdict: Verdict) {
    let is_open = matches!(http, 0..=299 | 408 | 409 | 499..);
    match verdict {
        Verdict::Failure(Failure::Ambiguous(message)) => {
            assert!(is_open, "{http} is no open outcome");
            said(&message);
        }
        Verdict::Failure(failure) => {
            assert!(!is_open, "{http} leaves it open: {failure:?}");
            assert!(!matches!(failure, Failure::Gone(_)), "{failure:?}");
            said(failure.message());
        }
        Verdict::Refused(error, kind) => {
            assert!(!is_open && (400..499).contains(&http), "{http} leaves it open: {error:?}");
            said(&error.message);
            if let RefusedKind::Lines(lines) = kind {
                assert!(!lines.is_empty() && lines[0].0 > 0, "{lines:?}");
                assert!(lines.is_sorted_by(|a, b| a.0 < b.0), "{lines:?}");
                lines.iter().for_each(|(_, what)| said(what));
            }
        }
    }
}
