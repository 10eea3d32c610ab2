//! What the sink knows: upload sessions, files, batches; and how they look in JSON.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

/// A session of an upload.
pub struct Session {
    /// `files/…` that it becomes.
    pub file: String,
    /// As the client gave it.
    pub display_name: String,
    /// Bytes received.
    pub received: u64,
    /// Its beginning, or all of it if it is small.
    pub start: Vec<u8>,
    /// Where it is kept, if it is.
    pub keep: Option<std::fs::File>,
}

/// An uploaded file.
#[derive(Debug, Clone)]
pub struct Uploaded {
    /// `files/…`.
    pub name: String,
    /// As the client gave it.
    pub display_name: String,
    /// Its size.
    pub bytes: u64,
    /// What it is answered with.
    pub answers: Answers,
}

/// Where the results of a batch come from.
#[derive(Debug, Clone)]
pub enum Answers {
    /// From a file that was prepared.
    Prepared(PathBuf),
    /// The same short answer for each of these keys.
    Canned(Arc<Vec<String>>),
}

/// A batch.
#[derive(Debug, Clone)]
pub struct Batch {
    /// `batches/…`.
    pub name: String,
    /// As the client gave it.
    pub display_name: String,
    /// `models/…`.
    pub model: String,
    /// `files/…`, unless its requests came inline.
    pub input: Option<String>,
    /// Microseconds since 1970.
    pub created_us: u64,
    /// When it ends.
    pub done_us: u64,
    /// Its results.
    pub answers: Answers,
    /// Whether a client was told that it has ended.
    pub told: bool,
}

impl Batch {
    /// The file of its results, unless they come inline.
    pub fn output(&self) -> Option<String> {
        self.input.as_ref()?;
        Some(format!("files/batch-{}", self.name.trim_start_matches("batches/")))
    }

    /// The operation; with all results if they come inline and `whole` is asked for.
    pub fn operation(&self, now_us: u64, whole: bool) -> String {
        let done = now_us >= self.done_us;
        let state = match done {
            true => "BATCH_STATE_SUCCEEDED",
            false if now_us == self.created_us => "BATCH_STATE_PENDING",
            false => "BATCH_STATE_RUNNING",
        };
        let Batch { name, display_name, model, created_us, .. } = self;
        let created = rfc3339(*created_us);
        let mut metadata = format!(
            "\"@type\":\"{TYPE}GenerateContentBatch\",\"model\":\"{model}\",\
             \"displayName\":\"{display_name}\",\"createTime\":\"{created}\",\
             \"updateTime\":\"{created}\",\"batchStats\":{{}},\"name\":\"{name}\",\
             \"state\":\"{state}\""
        );
        if let Some(input) = &self.input {
            metadata.push_str(&format!(",\"inputConfig\":{{\"fileName\":\"{input}\"}}"));
        }
        if !done {
            return format!("{{\"name\":\"{name}\",\"metadata\":{{{metadata}}}}}");
        }
        metadata.push_str(&format!(",\"endTime\":\"{}\"", rfc3339(self.done_us)));
        let output = match (self.output(), &self.answers) {
            (Some(file), _) => format!("\"responsesFile\":\"{file}\""),
            (None, Answers::Canned(keys)) if whole => {
                let items: Vec<String> = keys.iter().map(|key| inline_item(key)).collect();
                let items = items.join(",");
                format!("\"inlinedResponses\":{{\"inlinedResponses\":[{items}]}}")
            }
            (None, _) => String::new(),
        };
        if output.is_empty() {
            return format!("{{\"name\":\"{name}\",\"done\":true,\"metadata\":{{{metadata}}}}}");
        }
        metadata.push_str(&format!(",\"output\":{{{output}}}"));
        if !whole {
            return format!("{{\"name\":\"{name}\",\"done\":true,\"metadata\":{{{metadata}}}}}");
        }
        format!(
            "{{\"name\":\"{name}\",\"done\":true,\"metadata\":{{{metadata}}},\
             \"response\":{{\"@type\":\"{TYPE}GenerateContentBatchOutput\",{output}}}}}"
        )
    }
}

impl Uploaded {
    /// As `files.get` shows it.
    pub fn json(&self) -> String {
        let Uploaded { name, display_name, bytes, .. } = self;
        format!(
            "{{\"name\":\"{name}\",\"displayName\":\"{display_name}\",\
             \"mimeType\":\"application/jsonl\",\"sizeBytes\":\"{bytes}\",\"state\":\"ACTIVE\",\
             \"uri\":\"https://sink.invalid/{name}\",\"createTime\":\"2026-01-01T00:00:00Z\"}}"
        )
    }
}

/// Everything, behind one lock.
#[derive(Default)]
pub struct Known {
    /// By the id in their URL.
    pub sessions: BTreeMap<u64, Arc<Mutex<Session>>>,
    /// By name.
    pub files: BTreeMap<String, Uploaded>,
    /// By number, the newest last.
    pub batches: BTreeMap<u64, Batch>,
    last: u64,
}

impl Known {
    /// A number that no session and no batch has yet.
    pub fn number(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    /// The batch of this name.
    pub fn batch(&mut self, name: &str) -> Option<&mut Batch> {
        let number = number_of(name)?;
        self.batches.get_mut(&number)
    }
}

/// The name of the batch with this number.
pub fn batch_name(number: u64) -> String {
    format!("batches/sink{number:08}")
}

/// The number in the name of a batch.
pub fn number_of(name: &str) -> Option<u64> {
    name.rsplit_once("sink")?.1.parse().ok()
}

/// A line of results for a key.
pub fn canned_line(key: &str) -> String {
    format!("{{\"key\":\"{key}\",\"response\":{CANNED}}}\n")
}

fn inline_item(key: &str) -> String {
    format!("{{\"response\":{CANNED},\"metadata\":{{\"key\":\"{key}\"}}}}")
}

/// The text of the first member of this name, with any blanks around the colon.
pub fn member<'a>(json: &'a str, names: &[&str]) -> Option<&'a str> {
    names.iter().find_map(|name| {
        let quoted = format!("\"{name}\"");
        let rest = json[json.find(&quoted)? + quoted.len()..].trim_start();
        let rest = rest.strip_prefix(':')?.trim_start().strip_prefix('"')?;
        rest.split('"').next()
    })
}

/// The keys of the lines of an input file.
pub fn keys_of_lines(text: &[u8]) -> Vec<String> {
    let lines = text.split(|byte| *byte == b'\n');
    lines.filter_map(|line| key_after(line.strip_prefix(b"{\"key\":\"")?)).collect()
}

/// The keys of the items of an inline create.
pub fn keys_of_items(text: &[u8]) -> Vec<String> {
    const BEFORE: &[u8] = b"\"metadata\":{\"key\":\"";
    let mut keys = Vec::new();
    let mut at = 0;
    while let Some(found) = text[at..].windows(BEFORE.len()).position(|part| part == BEFORE) {
        at += found + BEFORE.len();
        keys.extend(key_after(&text[at..]));
    }
    keys
}

fn key_after(text: &[u8]) -> Option<String> {
    let end = text.iter().position(|byte| *byte == b'"')?;
    String::from_utf8(text[..end].to_vec()).ok()
}

/// A time as the API writes it.
fn rfc3339(us: u64) -> String {
    let (seconds, micros) = (us / 1_000_000, us % 1_000_000);
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Years begin in March here, so that the day that may be missing is the last.
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z")
}

/// Takes a lock, whatever became of another thread.
pub fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

const TYPE: &str = "type.googleapis.com/google.ai.generativelanguage.v1main.";
const CANNED: &str = "{\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"yes\"}],\
                      \"role\":\"model\"},\"finishReason\":\"STOP\"}]}";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_written_as_the_calendar_says() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000000Z");
        assert_eq!(rfc3339(1_765_391_221_407_650), "2025-12-10T18:27:01.407650Z");
        assert_eq!(rfc3339(1_709_164_800_000_000), "2024-02-29T00:00:00.000000Z");
    }

    #[test]
    fn keys_are_found_in_lines_and_items() {
        let lines = b"{\"key\":\"1\",\"request\":{}}\n{\"key\":\"12\",\"request\":{}}\n";
        assert_eq!(keys_of_lines(lines), ["1", "12"]);
        let items = b"[{\"request\":{},\"metadata\":{\"key\":\"3\"}},{\"request\":{},\
                      \"metadata\":{\"key\":\"4\"}}]";
        assert_eq!(keys_of_items(items), ["3", "4"]);
    }
}
