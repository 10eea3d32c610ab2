//! One result line of a batch: whose it is, and what it says (API contract, 5.2, 5.3, 5.5).
//!
//! Reads the lines of result files and the items of inline results alike, members in any order.
//! What stands here came from outside: unknown members, wrong types, members that come twice
//! (the first counts) and odd numbers never make a line unreadable, only text that is not JSON
//! does. The response itself is never copied or changed, only pointed at. An answer whose
//! insides we cannot make sense of still counts as one: it was paid for.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::engine::ids::Row;
use crate::engine::job::Tokens;
use crate::engine::verdict::{AnswerFacts, Verdict, judge_answer, judge_error};

/// A result line, pointing into the bytes it was read from.
#[derive(Debug)]
pub struct ResultLine<'a> {
    /// The row it answers, if its key is one of ours.
    pub row: Option<Row>,
    /// The response, if the line has one that is an object, byte for byte as received.
    pub response: Option<&'a str>,
    /// The error, if there is one and no response.
    pub error: Option<RowError>,
}

/// What the API said of a row it did not answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowError {
    /// gRPC code; 2 (unknown) if none was given.
    pub code: i32,
    /// What it said, at most [`MESSAGE_MAX`] bytes.
    pub message: Option<String>,
}

/// What a response says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Answer {
    /// Why the prompt was blocked.
    pub block_reason: Option<String>,
    /// Why the first candidate ended.
    pub finish_reason: Option<String>,
    /// Whether there is anything in it that is not a mere thought.
    pub has_content: bool,
    /// What it cost.
    pub tokens: Tokens,
}

/// Longest message of an error that is kept, bytes.
pub const MESSAGE_MAX: usize = 16 * 1024;

impl<'a> ResultLine<'a> {
    /// Reads a line without its newline. `None` if it is not a JSON object, so that the line
    /// must have been damaged on its way.
    pub fn parse(line: &'a [u8]) -> Option<ResultLine<'a>> {
        let text = std::str::from_utf8(line).ok()?;
        let whole: &RawValue = serde_json::from_str(text).ok()?;
        if !whole.get().starts_with('{') {
            return None;
        }
        let members: Members<'_> = read(whole.get()).unwrap_or_default();
        let within: Option<Metadata<'_>> = members.metadata.and_then(|raw| read(raw.get()));
        let key = members.key.or(within.and_then(|metadata| metadata.key));
        let response = members.response.map(RawValue::get).filter(|raw| raw.starts_with('{'));
        let error = match response {
            Some(_) => None,
            None => members.error.or(members.status).map(|raw| RowError::read(raw.get())),
        };
        Some(ResultLine { row: key.and_then(|raw| row_of(raw.get())), response, error })
    }

    /// What the line means for its row.
    pub fn verdict(&self) -> Verdict {
        match (self.response, &self.error) {
            (Some(response), _) => Answer::read(response).verdict(),
            (None, Some(error)) => judge_error(i64::from(error.code)),
            (None, None) => Verdict::Empty,
        }
    }
}

impl Answer {
    /// Reads what matters out of a response.
    pub fn read(response: &str) -> Answer {
        let Some(seen) = read::<Response<'_>>(response) else {
            return Answer { has_content: true, ..Answer::default() };
        };
        let mut tokens = seen.usage;
        if tokens == Tokens::default() {
            // Older embedding models count beside the embedding (API contract, 5.7).
            tokens.prompt = seen.token_count;
            tokens.total = seen.token_count;
        }
        Answer {
            block_reason: seen.block_reason.and_then(word).filter(|word| !unspecified(word)),
            finish_reason: seen.candidates.finish_reason.and_then(word),
            has_content: seen.has_embedding || seen.candidates.has_content,
            tokens,
        }
    }

    /// What the answer means.
    pub fn verdict(&self) -> Verdict {
        judge_answer(AnswerFacts {
            block_reason: self.block_reason.as_deref(),
            finish_reason: self.finish_reason.as_deref(),
            has_content: self.has_content,
        })
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

/// The text up to `max` bytes, cut between characters.
pub fn cut(text: &str, max: usize) -> &str {
    let mut end = max.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
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

/// A number, bare or as a string (API contract, 1.2).
fn number<N: std::str::FromStr>(raw: &str) -> Option<N> {
    raw.trim_matches('"').parse().ok()
}

/// An enum's word; the longest real one has about 30 letters.
fn word(raw: &RawValue) -> Option<String> {
    serde_json::from_str::<String>(raw.get()).ok().map(|text| cut(&text, 64).to_owned())
}

fn unspecified(word: &str) -> bool {
    word == "BLOCK_REASON_UNSPECIFIED"
}

fn read<'a, T: Shape<'a>>(raw: &'a str) -> Option<T> {
    serde_json::from_str::<Loose<T>>(raw).ok().map(|Loose(shape)| shape)
}

/// Some members of an object, each taken only if it has the type we expect.
trait Shape<'de>: Default {
    /// Takes the value of a member, or skips it; the value must be consumed either way.
    fn member<A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<(), A::Error>;

    /// Where a list was found: takes what its next object holds.
    fn absorb(&mut self, _next: Self) {}
}

/// Reads a shape from an object, or from all objects of a list; anything else is an empty shape.
struct Loose<T>(T);

impl<'de, T: Shape<'de>> Deserialize<'de> for Loose<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Loose<T>, D::Error> {
        deserializer.deserialize_any(LooseVisitor(PhantomData))
    }
}

struct LooseVisitor<T>(PhantomData<T>);

impl<'de, T: Shape<'de>> Visitor<'de> for LooseVisitor<T> {
    type Value = Loose<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Loose<T>, A::Error> {
        let mut shape = T::default();
        while let Some(Name(name)) = map.next_key()? {
            shape.member(&name, &mut map)?;
        }
        Ok(Loose(shape))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Loose<T>, A::Error> {
        let Some(Loose(mut shape)) = seq.next_element::<Loose<T>>()? else {
            return Ok(Loose(T::default()));
        };
        while let Some(Loose(next)) = seq.next_element()? {
            shape.absorb(next);
        }
        Ok(Loose(shape))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Loose<T>, E> {
        Ok(Loose(T::default()))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Loose<T>, E> {
        Ok(Loose(T::default()))
    }

    fn visit_u64<E>(self, _: u64) -> Result<Loose<T>, E> {
        Ok(Loose(T::default()))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Loose<T>, E> {
        Ok(Loose(T::default()))
    }

    fn visit_str<E>(self, _: &str) -> Result<Loose<T>, E> {
        Ok(Loose(T::default()))
    }

    fn visit_unit<E>(self) -> Result<Loose<T>, E> {
        Ok(Loose(T::default()))
    }
}

/// A member's name, copied only if it is written with escapes.
#[derive(serde::Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

#[derive(Default)]
struct Members<'a> {
    key: Option<&'a RawValue>,
    response: Option<&'a RawValue>,
    error: Option<&'a RawValue>,
    status: Option<&'a RawValue>,
    metadata: Option<&'a RawValue>,
}

impl<'de> Shape<'de> for Members<'de> {
    fn member<A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<(), A::Error> {
        match name {
            "key" => take(&mut self.key, map),
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

#[derive(Default)]
struct Response<'a> {
    block_reason: Option<&'a RawValue>,
    candidates: Candidate<'a>,
    has_embedding: bool,
    usage: Tokens,
    token_count: u64,
}

impl<'de> Shape<'de> for Response<'de> {
    fn member<A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<(), A::Error> {
        match name {
            "promptFeedback" => {
                let Loose(Feedback { block_reason }) = map.next_value()?;
                self.block_reason = block_reason;
            }
            "candidates" => Loose(self.candidates) = map.next_value()?,
            "usageMetadata" => Loose(self.usage) = map.next_value()?,
            "embedding" => self.has_embedding |= present(map)?,
            "tokenCount" => count(&mut self.token_count, map)?,
            _ => skip(map)?,
        }
        Ok(())
    }
}

#[derive(Default)]
struct Feedback<'a> {
    block_reason: Option<&'a RawValue>,
}

impl<'de> Shape<'de> for Feedback<'de> {
    fn member<A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<(), A::Error> {
        if name == "blockReason" { take(&mut self.block_reason, map) } else { skip(map) }
    }
}

#[derive(Default)]
struct Candidate<'a> {
    finish_reason: Option<&'a RawValue>,
    has_content: bool,
}

impl<'de> Shape<'de> for Candidate<'de> {
    fn member<A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<(), A::Error> {
        match name {
            "finishReason" => take(&mut self.finish_reason, map),
            "content" => {
                let Loose(Content { has_content }) = map.next_value()?;
                self.has_content |= has_content;
                Ok(())
            }
            _ => skip(map),
        }
    }

    fn absorb(&mut self, next: Self) {
        self.has_content |= next.has_content;
    }
}

#[derive(Default)]
struct Content {
    has_content: bool,
}

impl<'de> Shape<'de> for Content {
    fn member<A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<(), A::Error> {
        if name != "parts" {
            return skip(map);
        }
        let Loose(part): Loose<Part> = map.next_value()?;
        self.has_content |= part.any_counts || part.counts();
        Ok(())
    }
}

/// One part of a content, or what was absorbed of several.
#[derive(Default)]
struct Part {
    is_thought: bool,
    carries: bool,
    any_counts: bool,
}

impl Part {
    fn counts(&self) -> bool {
        self.carries && !self.is_thought
    }
}

impl<'de> Shape<'de> for Part {
    fn member<A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<(), A::Error> {
        match name {
            "thought" => self.is_thought |= map.next_value::<&RawValue>()?.get() == "true",
            // These only describe a part.
            "thoughtSignature" | "videoMetadata" | "mediaResolution" | "partMetadata" => skip(map)?,
            // Text, data, calls, code, and whatever kinds of content are yet to come.
            _ => self.carries |= present(map)?,
        }
        Ok(())
    }

    fn absorb(&mut self, next: Self) {
        self.any_counts |= next.counts();
    }
}

impl<'de> Shape<'de> for Tokens {
    fn member<A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<(), A::Error> {
        match name {
            "promptTokenCount" => count(&mut self.prompt, map),
            "candidatesTokenCount" => count(&mut self.output, map),
            "thoughtsTokenCount" => count(&mut self.thinking, map),
            "cachedContentTokenCount" => count(&mut self.cached, map),
            "totalTokenCount" => count(&mut self.total, map),
            _ => skip(map),
        }
    }
}

fn take<'de, A: MapAccess<'de>>(
    place: &mut Option<&'de RawValue>,
    map: &mut A,
) -> Result<(), A::Error> {
    let raw: &RawValue = map.next_value()?;
    if place.is_none() && raw.get() != "null" {
        *place = Some(raw);
    }
    Ok(())
}

fn count<'de, A: MapAccess<'de>>(place: &mut u64, map: &mut A) -> Result<(), A::Error> {
    *place = number(map.next_value::<&RawValue>()?.get()).unwrap_or(0);
    Ok(())
}

fn present<'de, A: MapAccess<'de>>(map: &mut A) -> Result<bool, A::Error> {
    Ok(!matches!(map.next_value::<&RawValue>()?.get(), "null" | "\"\""))
}

fn skip<'de, A: MapAccess<'de>>(map: &mut A) -> Result<(), A::Error> {
    map.next_value::<IgnoredAny>().map(|_| ())
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
            (r#"{"candidates":1e400}"#.to_owned(), Verdict::Answered),
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
    fn tokens_are_read_as_numbers_and_as_strings() {
        let answer = Answer::read(
            r#"{"usageMetadata":{"promptTokenCount":5,"candidatesTokenCount":"1373",
            "thoughtsTokenCount":1582,"totalTokenCount":2960,"cachedContentTokenCount":-1}}"#,
        );
        let expected = Tokens { prompt: 5, output: 1373, thinking: 1582, cached: 0, total: 2960 };
        assert_eq!(answer.tokens, expected);
        let older = Answer::read(r#"{"tokenCount":"4","embedding":{"values":[]}}"#);
        assert_eq!((older.tokens.prompt, older.tokens.total), (4, 4));
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
