//! One result line of a batch: whose it is, and what it says (API contract, 5.2, 5.3).
//!
//! Reads the lines of result files and the items of inline results alike. What stands here came
//! from outside: unknown members, wrong types, members that come twice and odd numbers never
//! make a line unreadable, only text that is not JSON does. The response itself is never copied
//! or changed, only pointed at.

use std::borrow::Cow;

use serde::de::{IgnoredAny, MapAccess};
use serde_json::value::RawValue;

use super::loose::{Shape, cut, number, read, skip, take};
use super::openai::result;
use super::response::Answer;
use crate::engine::ids::Row;
use crate::engine::verdict::{Verdict, judge_error};

/// A result line, pointing into the bytes it was read from.
#[derive(Debug)]
pub struct ResultLine<'a> {
    /// The row it answers, if its key is one of ours.
    pub row: Option<Row>,
    /// The response, if the line has one that is an object, byte for byte as received.
    pub response: Option<&'a str>,
    /// The error, if there is one and no response.
    pub error: Option<RowError>,
    /// Whether it is one of the OpenAI-compatible layer: `response` holds a status and a body then.
    pub is_openai: bool,
    /// The id that the layer gave it, as JSON.
    pub id: Option<&'a str>,
}

/// What the API said of a row it did not answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowError {
    /// gRPC code; 2 (unknown) if none was given.
    pub code: i32,
    /// What it said, at most [`MESSAGE_MAX`] bytes.
    pub message: Option<String>,
}

/// Longest message of an error that is kept, bytes.
pub const MESSAGE_MAX: usize = 16 * 1024;

impl<'a> ResultLine<'a> {
    /// Reads a line without its newline. `None` if it is not a JSON object, so that the line
    /// must have been damaged on its way.
    pub fn parse(line: &'a [u8]) -> Option<ResultLine<'a>> {
        let text = std::str::from_utf8(line).ok()?;
        if !text.trim_start().starts_with('{') {
            return None;
        }
        let members: Members<'_> = match read(text) {
            Some(members) => members,
            // A name that is no text, such as half a surrogate, may still stand in whole JSON.
            None => serde_json::from_str::<IgnoredAny>(text).map(|_| Members::default()).ok()?,
        };
        if let (None, Some(id)) = (members.key, members.custom_id) {
            let response = members.response.map(RawValue::get).filter(|raw| raw.starts_with('{'));
            let error = result::error(response, members.error.map(RawValue::get));
            let response = response.filter(|_| error.is_none());
            let (row, id) = (row_of(id.get()), members.id.map(RawValue::get));
            return Some(ResultLine { row, response, error, is_openai: true, id });
        }
        let within: Option<Metadata<'_>> = members.metadata.and_then(|raw| read(raw.get()));
        let key = members.key.or(within.and_then(|metadata| metadata.key));
        let response = members.response.map(RawValue::get).filter(|raw| raw.starts_with('{'));
        let error = match response {
            Some(_) => None,
            None => members.error.or(members.status).map(|raw| RowError::read(raw.get())),
        };
        let row = key.and_then(|raw| row_of(raw.get()));
        Some(ResultLine { row, response, error, is_openai: false, id: None })
    }

    /// What the response says of itself.
    pub fn answer(&self) -> Option<Answer> {
        let read = if self.is_openai { result::answer } else { Answer::read };
        self.response.map(read)
    }

    /// What the line means for its row.
    pub fn verdict(&self) -> Verdict {
        match (self.answer(), &self.error) {
            (Some(answer), _) => answer.verdict(),
            (None, Some(error)) => judge_error(i64::from(error.code)),
            (None, None) => Verdict::Empty,
        }
    }
}

impl RowError {
    fn read(raw: &str) -> RowError {
        let status: Status<'_> = read(raw).unwrap_or_default();
        let said = status.message.map_or(raw, RawValue::get);
        let message = serde_json::from_str::<String>(said).ok();
        let code = status.code.and_then(|raw| number(raw.get()));
        RowError {
            code: code.filter(|code| *code != 0).unwrap_or(2),
            message: message
                .map(|text| cut(&text, MESSAGE_MAX).to_owned())
                .filter(|text| !text.is_empty()),
        }
    }
}

/// The row a key names. Only the spelling we send counts; `"007"` is somebody else's.
fn row_of(raw: &str) -> Option<Row> {
    let text: Cow<'_, str> = match raw.starts_with('"') {
        true => Cow::Owned(serde_json::from_str(raw).ok()?),
        false => Cow::Borrowed(raw),
    };
    let row: u64 = text.parse().ok()?;
    (row > 0 && row.to_string() == text).then_some(Row(row))
}

#[derive(Default)]
struct Members<'a> {
    key: Option<&'a RawValue>,
    custom_id: Option<&'a RawValue>,
    id: Option<&'a RawValue>,
    response: Option<&'a RawValue>,
    error: Option<&'a RawValue>,
    status: Option<&'a RawValue>,
    metadata: Option<&'a RawValue>,
}

impl<'de> Shape<'de> for Members<'de> {
    fn member<A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<(), A::Error> {
        match name {
            "key" => take(&mut self.key, map),
            "custom_id" | "customId" => take(&mut self.custom_id, map),
            "id" => take(&mut self.id, map),
            "response" => take(&mut self.response, map),
            "error" => take(&mut self.error, map),
            "status" => take(&mut self.status, map),
            "metadata" => take(&mut self.metadata, map),
            _ => skip(map),
        }
    }
}

#[derive(Default)]
struct Metadata<'a> {
    key: Option<&'a RawValue>,
}

impl<'de> Shape<'de> for Metadata<'de> {
    fn member<A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<(), A::Error> {
        if name == "key" { take(&mut self.key, map) } else { skip(map) }
    }
}

#[derive(Default)]
struct Status<'a> {
    code: Option<&'a RawValue>,
    message: Option<&'a RawValue>,
}

impl<'de> Shape<'de> for Status<'de> {
    fn member<A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<(), A::Error> {
        match name {
            "code" => take(&mut self.code, map),
            "message" => take(&mut self.message, map),
            _ => skip(map),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> ResultLine<'_> {
        ResultLine::parse(line.as_bytes()).expect("a JSON object")
    }

    #[test]
    fn the_key_is_found_first_last_within_metadata_and_as_a_number() {
        for line in [
            r#"{"key":"7","response":{}}"#,
            r#"{"response":{},"key":"7"}"#,
            r#"{"response":{},"metadata":{"key":"7"}}"#,
            r#"{"metadata":{"other":1e400,"key":7},"response":{}}"#,
            r#"{"k\u0065y":"\u0037"}"#,
            r#"{"key":"7","key":"8"}"#,
        ] {
            assert_eq!(parsed(line).row, Some(Row(7)), "{line}");
        }
    }

    #[test]
    fn a_key_we_never_sent_names_no_row() {
        for key in ["\"007\"", "\"+7\"", "0", "\"\"", "null", "1e400", "7.0", "[7]", "\"\\ud800\""]
        {
            assert_eq!(parsed(&format!("{{\"key\":{key}}}")).row, None, "{key}");
        }
    }

    #[test]
    fn only_text_that_is_no_json_object_is_unreadable() {
        for line in
            [&b"{\"key\":\"1\",\"resp"[..], b"[]", b"7", b"{\"key\":\"\xff\"}", b"\0\0", b"{}{}"]
        {
            assert!(ResultLine::parse(line).is_none(), "{line:?}");
        }
        let deep = format!("{{\"key\":\"1\",\"x\":{}{}}}", "[".repeat(5000), "]".repeat(5000));
        assert_eq!(parsed(&deep).row, Some(Row(1)));
    }

    #[test]
    fn the_response_is_handed_on_byte_for_byte() {
        let line = r#"{"key":"1","response":{ "a" : 1e400, "b":"\u00e9é\ud800"}}"#;
        assert_eq!(parsed(line).response, Some(r#"{ "a" : 1e400, "b":"\u00e9é\ud800"}"#));
    }

    #[test]
    fn every_shape_of_a_line_gets_its_verdict() {
        let text =
            r#"{"candidates":[{"content":{"parts":[{"text":"hi"}]},"finishReason":"STOP"}]}"#;
        let cases = [
            (format!(r#"{{"response":{text}}}"#), Verdict::Answered),
            (format!(r#"{{"response":{text},"error":null}}"#), Verdict::Answered),
            (text.replace("STOP", "MAX_TOKENS"), Verdict::Truncated),
            (text.replace("STOP", "SAFETY"), Verdict::Blocked),
            (text.replace("hi", ""), Verdict::Empty),
            (text.replace(r#""text":"hi""#, r#""text":"hi","thought":true"#), Verdict::Empty),
            (
                text.replace(r#"{"text":"hi"}"#, r#"{"text":"","thought":true},{"inlineData":{}}"#),
                Verdict::Answered,
            ),
            (text.replace(r#""parts":[{"text":"hi"}]"#, r#""parts":7"#), Verdict::Empty),
            (r#"{"embedding":{"values":[1e400]}}"#.to_owned(), Verdict::Answered),
            (r#"{"promptFeedback":{"blockReason":"OTHER"}}"#.to_owned(), Verdict::Blocked),
            (r#"{"error":{"code":13}}"#.to_owned(), Verdict::Retryable),
            (r#"{"status":{"code":"3","message":"no"}}"#.to_owned(), Verdict::Failed),
            (r#"{"error":"odd"}"#.to_owned(), Verdict::Retryable),
            (r#"{"response":null,"error":null}"#.to_owned(), Verdict::Empty),
            (r#"{"response":"odd"}"#.to_owned(), Verdict::Empty),
        ];
        for (line, verdict) in cases {
            let wrapped = match line.starts_with(r#"{"response"#)
                || line.starts_with(r#"{"error"#)
                || line.starts_with(r#"{"status"#)
            {
                true => line,
                false => format!(r#"{{"response":{line}}}"#),
            };
            assert_eq!(parsed(&wrapped).verdict(), verdict, "{wrapped}");
        }
    }

    #[test]
    fn an_error_without_code_or_message_is_unknown() {
        let error = parsed(r#"{"key":"1","error":{}}"#).error.expect("an error");
        assert_eq!(error, RowError { code: 2, message: None });
        let long = format!(r#"{{"error":{{"code":3,"message":"{}"}}}}"#, "é".repeat(MESSAGE_MAX));
        let error = parsed(&long).error.expect("an error");
        assert!(error.message.is_some_and(|text| text.len() <= MESSAGE_MAX));
    }
}
