//! The tokens of an answer, found from its end.
//!
//! A response tells its tokens after its content, in the last few hundred bytes. Looking there
//! first spares a second walk over answers of a megabyte. What is found is what a whole walk would
//! find; where that is not certain, the whole walk is made.

use std::sync::LazyLock;

use memchr::memmem::FinderRev;

use super::index::Within;
use super::loose::number;
use super::response::Answer;
use super::result_line::ResultLine;
use super::scan::Cursor;
use crate::engine::job::Tokens;

/// The tokens of a response that is known to be a whole JSON object, in whose own names there
/// are no escapes.
pub fn tokens_of(response: &[u8]) -> Tokens {
    match at_the_end(response).filter(|tokens| *tokens != Tokens::default()) {
        Some(tokens) => tokens,
        None => std::str::from_utf8(response).map_or_else(|_| Tokens::default(), whole),
    }
}

/// The tokens of a result line's answer; `within` says where that stands, if it has a plain form.
pub fn tokens_in(line: &[u8], within: Option<Within>) -> Tokens {
    if let Some(response) = within.and_then(|within| plain_response(line, within)) {
        return tokens_of(response);
    }
    let answer = ResultLine::parse(line).and_then(|line| line.answer());
    answer.unwrap_or_default().tokens
}

/// The response of a line in which it is known where it stands; `None` if it does not.
pub fn plain_response(line: &[u8], within: Within) -> Option<&[u8]> {
    let end = line.len().checked_sub(usize::from(within.after))?;
    let response = line.get(usize::from(within.before)..end)?;
    (response.starts_with(b"{") && response.ends_with(b"}")).then_some(response)
}

fn whole(response: &str) -> Tokens {
    Answer::read(response).tokens
}

/// Finds the last `usageMetadata`, and makes sure that it is a member of the response itself.
///
/// In JSON that is whole, the name with its bare quotes can only be a string of its own or, after
/// a backslash, the end of one. If nothing but members follows up to the very end, the object that
/// it is a member of ends there, and only the response does.
fn at_the_end(response: &[u8]) -> Option<Tokens> {
    let tail = response.get(response.len().saturating_sub(TAIL_BYTES)..)?;
    let found = FINDER.rfind(tail)?;
    if found.checked_sub(1).is_none_or(|before| tail[before] == b'\\') {
        return None;
    }
    let mut rest = after(tail.get(found + NAME.len()..)?, b':')?;
    let mut usage = Cursor::over(rest)?;
    let mut tokens = Tokens::default();
    usage.object(|name, value| {
        let text = rest.get(value.skip()?)?;
        let count = || number(std::str::from_utf8(text).unwrap_or_default()).unwrap_or(0);
        match name {
            b"promptTokenCount" => tokens.prompt = count(),
            b"candidatesTokenCount" => tokens.output = count(),
            b"thoughtsTokenCount" => tokens.thinking = count(),
            b"cachedContentTokenCount" => tokens.cached = count(),
            b"totalTokenCount" => tokens.total = count(),
            _ => {}
        }
        Some(())
    })?;
    rest = rest.get(usage.at()..)?;
    while let Some(member) = after(rest, b',') {
        let mut name = Cursor::over(member)?;
        name.string()?;
        let value = after(member.get(name.at()..)?, b':')?;
        let mut cursor = Cursor::over(value)?;
        cursor.skip()?;
        rest = value.get(cursor.at()..)?;
    }
    after(rest, b'}')?.is_empty().then_some(tokens)
}

/// What stands after a sign that comes next.
fn after(text: &[u8], sign: u8) -> Option<&[u8]> {
    text.trim_ascii_start().strip_prefix(&[sign])
}

static FINDER: LazyLock<FinderRev<'static>> = LazyLock::new(|| FinderRev::new(NAME));
const NAME: &[u8] = b"\"usageMetadata\"";

/// How far from the end is looked, bytes.
const TAIL_BYTES: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_says_what_the_whole_says() {
        let usage = r#""usageMetadata": {"promptTokenCount":5,"totalTokenCount":"7","x":{"promptTokenCount":9}}"#;
        let cases = [
            format!(r#"{{{usage}}}"#),
            format!(r#"{{"candidates":[], {usage} , "modelVersion":"m","responseId":"r" }}"#),
            format!(r#"{{{usage},"usageMetadata":{{"promptTokenCount":1}}}}"#),
            format!(r#"{{"candidates":[{{{usage}}}]}}"#),
            format!(r#"{{"candidates":[{{"a":1,{usage}}}],"b":2}}"#),
            r#"{"candidates":["x\"usageMetadata",{"y\"usageMetadata":{"totalTokenCount":1}}]}"#
                .to_owned(),
            r#"{"a":"\"usageMetadata\":{\"totalTokenCount\":1}","b":3}"#.to_owned(),
            r#"{"x\"usageMetadata":{"totalTokenCount":1}}"#.to_owned(),
            r#"{"a":"usageMetadata","totalTokenCount":1}"#.to_owned(),
            r#"{"usageMetadata":[{"totalTokenCount":1}]}"#.to_owned(),
            r#"{"usageMetadata":{"totalTokenCount":1e3,"promptTokenCount":null}}"#.to_owned(),
            r#"{"embedding":{},"tokenCount":"4"}"#.to_owned(),
            format!(r#"{{{usage},"candidates":"{}"}}"#, "x".repeat(2 * TAIL_BYTES)),
        ];
        for response in cases {
            assert_eq!(
                tokens_of(response.as_bytes()),
                Answer::read(&response).tokens,
                "{response}"
            );
        }
    }
}
