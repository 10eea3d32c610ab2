//! A line that could not be prepared, as it stands among the prepared ones.
//!
//! It says why, and holds key and request of the line that it stands for, so that planning makes an
//! invalid row of it with this reason, and the errors hold what was asked. Whoever writes such a
//! line into an input of their own only fails that line.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::forms::{self, Fault, KEY_BYTES_MAX};
use super::index::LineFate;

/// Writes the line that stands for one that can not be prepared, to `out`: on one line, if the
/// original is on one.
pub(super) fn write(original: &[u8], fate: LineFate, message: &str, out: &mut Vec<u8>) {
    let text = |text: &str| serde_json::Value::from(text).to_string();
    out.extend_from_slice(START);
    out.extend_from_slice(b"{\"reason\":");
    out.extend_from_slice(text(fate.reason()).as_bytes());
    out.extend_from_slice(b",\"message\":");
    out.extend_from_slice(text(message).as_bytes());
    out.extend_from_slice(b"}");
    if let Some(key) = forms::find_key(original) {
        out.extend_from_slice(b",\"key\":");
        out.extend_from_slice(&original[key]);
    }
    out.extend_from_slice(b",\"request\":");
    out.extend_from_slice(request(original).unwrap_or("null").as_bytes());
    out.push(b'}');
}

/// What is wrong with a line, if it is one of these.
pub(super) fn read(line: &[u8]) -> Option<Fault> {
    if !line.starts_with(START) {
        return None;
    }
    let Line { fault, key } = serde_json::from_slice(line).ok()?;
    let fate = LineFate::of_reason(&fault.reason)?;
    let is_plain = |key: &&RawValue| matches!(key.get().as_bytes()[0], b'"' | b'-' | b'0'..=b'9');
    let key = key.filter(|key| is_plain(key) && key.get().len() <= KEY_BYTES_MAX).map(|key| {
        let start = key.get().as_ptr().addr() - line.as_ptr().addr();
        start..start + key.get().len()
    });
    Some(Fault { key, ..Fault::new(fate, None, fault.message) })
}

/// The request of a line, or all of it; `None` if it is no JSON.
fn request(line: &[u8]) -> Option<&str> {
    #[derive(Deserialize)]
    struct Wrapped<'a> {
        #[serde(borrow)]
        request: &'a RawValue,
    }
    match serde_json::from_slice::<Wrapped<'_>>(line) {
        Ok(Wrapped { request }) => Some(request.get()),
        Err(_) => serde_json::from_slice::<&RawValue>(line).ok().map(RawValue::get),
    }
}

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(rename = "gemini-batchd:fault")]
    fault: Told,
    #[serde(borrow)]
    key: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Told {
    reason: String,
    message: String,
}

/// How such a line begins.
const START: &[u8] = b"{\"gemini-batchd:fault\":";

#[cfg(test)]
mod tests {
    use super::*;

    fn written(original: &str) -> String {
        let mut out = Vec::new();
        write(original.as_bytes(), LineFate::OtherModel, "say \"why\"\n", &mut out);
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn a_fault_line_gives_back_reason_key_and_request() {
        for (original, key, request) in [
            (
                r#"{"key": "a\n", "request": {"contents": 1.50}}"#,
                Some(r#""a\n""#),
                r#"{"contents": 1.50}"#,
            ),
            (r#"{"metadata": {"key": 7}, "request": 3}"#, Some("7"), "3"),
            (
                r#"{"custom_id": "c", "body": {}}"#,
                Some(r#""c""#),
                r#"{"custom_id": "c", "body": {}}"#,
            ),
            (r#"{"key": [1], "x": 2}"#, None, r#"{"key": [1], "x": 2}"#),
            ("no JSON", None, "null"),
        ] {
            let line = written(original);
            let fault = read(line.as_bytes()).expect("a fault line");
            assert_eq!(fault.fate, LineFate::OtherModel);
            assert_eq!(fault.message, "say \"why\"\n");
            assert_eq!(fault.key.map(|span| &line[span]), key, "{original}");
            assert!(line.ends_with(&format!(",\"request\":{request}}}")), "{line}");
            assert!(!line.contains('\n'), "{line}");
        }
    }

    #[test]
    fn no_other_line_is_taken_for_one() {
        for line in [
            r#"{"key": 1, "request": {"contents": []}}"#,
            r#"{"gemini-batchd:fault":{"reason":"valid","message":""}}"#,
            r#"{"gemini-batchd:fault":{"reason":"bad luck","message":""}}"#,
            r#"{"gemini-batchd:fault":7}"#,
            r#"{"gemini-batchd:fault":{"reason":"#,
        ] {
            assert_eq!(read(line.as_bytes()), None, "{line}");
        }
    }
}
