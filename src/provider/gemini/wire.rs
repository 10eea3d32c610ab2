//! The words of the API: names, times, numbers, and the few bodies that are small.
//!
//! What is read is read leniently (proto3 JSON, API contract 1.2): default values may be
//! missing, 64-bit numbers may be strings, enums may have values we do not know. What goes into a
//! path is checked strictly. An operation, which may carry all results, is read by
//! [`super::operation`]. Nothing here does IO.

use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{self, Deserializer, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::engine::ids::{BatchName, FileName, Millis};
use crate::engine::job::RemoteError;

/// The media type of an input file (7.6).
pub const JSONL: &str = "application/jsonl";

/// Entries asked for on one page of a list; without it a list may come back empty (6.2).
pub const PAGE_SIZE: u32 = 100;

/// Granularity of pieces where the server names none (7.2), bytes.
pub const GRANULARITY: u64 = 8 * 1024 * 1024;

/// Something in an answer that can not be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// A name that we will not put into a path.
    #[error("the API named a {kind} in a way that cannot be used: {name:?}")]
    BadName {
        /// What it names.
        kind: &'static str,
        /// The name, shortened.
        name: String,
    },
}

/// Checks the name of a batch: `batches/` and letters, digits, `-`, `_`, `.` (4.1).
///
/// # Errors
/// If it is another kind of name, or one that could change the path it is put into.
pub fn batch_name(name: &str) -> Result<BatchName, WireError> {
    checked(name, "batches/", "batch").map(BatchName)
}

/// Checks the name of a file: `files/` and letters, digits, `-`, `_`, `.` (7.1, 7.8).
///
/// # Errors
/// If it is another kind of name, or one that could change the path it is put into.
pub fn file_name(name: &str) -> Result<FileName, WireError> {
    checked(name, "files/", "file").map(FileName)
}

/// The path of a model: `models/x` or `tunedModels/x` for `x`, `models/x`, `tunedModels/x` (3.1).
/// `None` if it can not be the name of a model.
pub fn model_path(model: &str) -> Option<String> {
    if is_id(model) {
        return Some(format!("models/{model}"));
    }
    let (kind, id) = model.split_once('/')?;
    (matches!(kind, "models" | "tunedModels") && is_id(id)).then(|| model.to_owned())
}

fn checked(name: &str, prefix: &str, kind: &'static str) -> Result<String, WireError> {
    match name.strip_prefix(prefix) {
        Some(id) if is_id(id) => Ok(name.to_owned()),
        Some(_) | None => Err(WireError::BadName { kind, name: plain(name, 80) }),
    }
}

/// Whether a text can be one part of a name: letters, digits, `-`, `_`, `.`.
pub fn is_id(id: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (1..=128).contains(&id.len()) && id.bytes().all(plain) && id.bytes().any(|byte| byte != b'.')
}

/// A time stamp of the API (RFC 3339) in milliseconds; `None` for what is none.
pub fn millis(text: &str) -> Option<Millis> {
    let stamp: jiff::Timestamp = text.parse().ok()?;
    u64::try_from(stamp.as_millisecond()).ok().map(Millis)
}

/// A date of an HTTP header (`Sun, 06 Nov 1994 08:49:37 GMT`) in milliseconds.
pub fn http_date(text: &str) -> Option<Millis> {
    let stamp = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
    u64::try_from(stamp.as_millisecond()).ok().map(Millis)
}

/// A duration such as `34.4s` (9.3) in milliseconds, rounded up.
pub fn duration_ms(text: &str) -> Option<u64> {
    let seconds: f64 = text.strip_suffix('s')?.parse().ok()?;
    // The cast saturates, so an absurd number becomes a long pause, never a short one.
    (seconds.is_finite() && seconds >= 0.0).then(|| (seconds * 1000.0).ceil() as u64)
}

/// A text from outside made fit for a log line: at most `max` characters, none of them a control
/// character, runs of blanks drawn together.
pub fn plain(text: &str, max: usize) -> String {
    let mut out = String::new();
    let mut count = 0;
    let mut blank = false;
    for c in text.chars() {
        if c.is_control() || c.is_whitespace() {
            blank = !out.is_empty();
            continue;
        }
        if count + 1 + usize::from(blank) > max {
            out.push('…');
            return out;
        }
        if std::mem::take(&mut blank) {
            out.push(' ');
            count += 1;
        }
        out.push(c);
        count += 1;
    }
    out
}

/// A `google.rpc.Status` inside an operation: the code is a gRPC number (9.1).
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Status {
    /// gRPC code.
    pub code: Option<Int64>,
    /// What it says; may be missing (5.2).
    pub message: Option<String>,
}

impl From<Status> for RemoteError {
    fn from(status: Status) -> RemoteError {
        let code = status.code.and_then(|code| i32::try_from(code.0).ok()).unwrap_or(2);
        let message = plain(&status.message.unwrap_or_default(), MESSAGE_CHARS);
        RemoteError { code, message }
    }
}

/// Characters kept of a message of the server.
pub const MESSAGE_CHARS: usize = 1000;

/// A 64-bit number, written as a JSON number or as a string (1.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Int64(pub i64);

impl<'de> Deserialize<'de> for Int64 {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Int64, D::Error> {
        struct Number;

        impl Visitor<'_> for Number {
            type Value = Int64;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a 64-bit number, or one in quotes")
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Int64, E> {
                Ok(Int64(number))
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Int64, E> {
                i64::try_from(number).map(Int64).map_err(E::custom)
            }

            fn visit_f64<E: de::Error>(self, number: f64) -> Result<Int64, E> {
                // proto3 JSON allows 1e3 for a whole number.
                if number.fract() == 0.0 && number.abs() < 9e15 {
                    return Ok(Int64(number as i64));
                }
                Err(E::custom("not a whole number"))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Int64, E> {
                text.parse().map(Int64).map_err(E::custom)
            }
        }

        from.deserialize_any(Number)
    }
}

/// One page of `batches.list`. The entries are read one by one, so that a strange one does not
/// hide the others.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BatchPage {
    /// The entries; missing when the page is empty (6.2).
    #[serde(deserialize_with = "few")]
    pub operations: Option<Vec<Box<RawValue>>>,
    /// Where the next page begins.
    pub next_page_token: Option<String>,
}

/// One page of `files.list`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FilePage {
    /// The entries; missing when the page is empty.
    #[serde(deserialize_with = "few")]
    pub files: Option<Vec<File>>,
    /// Where the next page begins.
    pub next_page_token: Option<String>,
}

/// Reads a list of at most [`ENTRIES_MAX`] entries, each of which takes more memory than it has
/// bytes.
fn few<'de, D, T>(from: D) -> Result<Option<Vec<T>>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    struct Few<T>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>> Visitor<'de> for Few<T> {
        type Value = Option<Vec<T>>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            write!(f, "a list of at most {ENTRIES_MAX} entries")
        }

        fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
            Ok(None)
        }

        fn visit_seq<S: SeqAccess<'de>>(self, mut list: S) -> Result<Self::Value, S::Error> {
            let mut entries = Vec::new();
            while let Some(entry) = list.next_element()? {
                if entries.len() == ENTRIES_MAX {
                    return Err(de::Error::custom(format!("more than {ENTRIES_MAX} entries")));
                }
                entries.push(entry);
            }
            Ok(Some(entries))
        }
    }

    from.deserialize_any(Few(PhantomData))
}

/// Entries of one page that are taken; no more than [`PAGE_SIZE`] are asked for.
const ENTRIES_MAX: usize = 10_000;

/// A file at the API (7.1).
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct File {
    /// `files/…`.
    pub name: Option<String>,
    /// The name it was given for people.
    pub display_name: Option<String>,
    /// Size in bytes; missing for none.
    pub size_bytes: Option<Int64>,
    /// When it was uploaded.
    pub create_time: Option<String>,
    /// `ACTIVE`, `PROCESSING`, `FAILED`.
    pub state: Option<String>,
    /// Its address, for requests.
    pub uri: Option<String>,
    /// When the API forgets it.
    pub expiration_time: Option<String>,
    /// Why it failed.
    pub error: Option<Status>,
}

impl File {
    /// Size in bytes.
    pub fn bytes(&self) -> u64 {
        self.size_bytes.and_then(|size| u64::try_from(size.0).ok()).unwrap_or(0)
    }
}

/// The answer to an upload: the file, wrapped (7.1).
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Uploaded {
    /// The file.
    pub file: Option<File>,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fault 62.
    #[test]
    fn a_name_that_would_change_the_path_is_refused() {
        assert!(batch_name("batches/abc123").is_ok());
        assert!(file_name("files/batch-0123456789abcdefghij0123456789abcdef").is_ok());
        let bad = ["batches/", "files/x", "batches/a/b", "batches/a?key=1", "batches/a:cancel"];
        for name in bad.into_iter().chain(["batches/..", "batches/a b", "batches/é", "", "x"]) {
            assert!(batch_name(name).is_err(), "{name}");
        }
    }

    #[test]
    fn a_model_may_be_named_in_three_ways() {
        assert_eq!(model_path("gemini-2.5-flash").as_deref(), Some("models/gemini-2.5-flash"));
        assert_eq!(model_path("models/x").as_deref(), Some("models/x"));
        assert_eq!(model_path("tunedModels/x").as_deref(), Some("tunedModels/x"));
        for model in ["", "files/x", "models/", "models/x/y", "x:batchGenerateContent", ".."] {
            assert_eq!(model_path(model), None, "{model}");
        }
    }

    #[test]
    fn times_and_durations_are_read_as_the_api_writes_them() {
        assert_eq!(millis("2025-12-10T18:27:01.407650525Z"), Some(Millis(1_765_391_221_407)));
        assert_eq!(millis("2025-12-10T19:27:01+01:00"), Some(Millis(1_765_391_221_000)));
        assert_eq!(millis("yesterday"), None);
        assert_eq!(http_date("Sun, 06 Nov 1994 08:49:37 GMT"), Some(Millis(784_111_777_000)));
        assert_eq!(duration_ms("3.957525076s"), Some(3958));
        assert_eq!(duration_ms("37s"), Some(37_000));
        assert_eq!(duration_ms("-1s"), None);
        assert_eq!(duration_ms("soon"), None);
    }

    #[test]
    fn a_message_cannot_forge_a_log_line() {
        assert_eq!(plain("a\n\x1b[31mb\r\n  c\0", 100), "a [31mb c");
        assert_eq!(plain("abcdef", 3), "abc…");
        assert_eq!(plain("abc", 3), "abc");
    }

    #[test]
    fn numbers_come_in_quotes_and_without() {
        let read = |text| serde_json::from_str::<Int64>(text).ok();
        assert_eq!(read("\"12\""), Some(Int64(12)));
        assert_eq!(read("12"), Some(Int64(12)));
        assert_eq!(read("-3"), Some(Int64(-3)));
        assert_eq!(read("1.5"), None);
        assert_eq!(read("\"many\""), None);
    }

    #[test]
    fn an_empty_page_has_no_members() {
        let page: BatchPage = serde_json::from_str("{}").expect("a page");
        assert!(page.operations.is_none() && page.next_page_token.is_none());
        let page: FilePage = serde_json::from_str("{}").expect("a page");
        assert!(page.files.is_none());
    }
}
