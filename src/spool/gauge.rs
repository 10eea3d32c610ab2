//! What the requests of a chunk are like, from a sample of them: how many tokens their texts take,
//! and how long their answers may be.
//!
//! The first requests of a chunk are all looked at, after them one now and then, so that it costs
//! next to nothing however long the input is. Tokens are estimated by script; what is no text, such
//! as an image, counts as much as an image does. Requests come from outside: whatever stands in
//! them, the worst is a wrong estimate.

use super::quotes::closing;
use crate::engine::job::Density;

/// Looks at some of the requests of a chunk.
#[derive(Debug, Clone, Default)]
pub struct Gauge {
    passed: u64,
    looked_at: u64,
    lines: u64,
    /// Of the prompts, in quarters.
    tokens: u64,
    bounded: u64,
    /// Of all limits together.
    bound: u64,
}

impl Gauge {
    /// Shows a request, which takes `len` bytes as a line of an input file; it may be looked at.
    #[inline]
    pub fn show(&mut self, request: &[u8], len: u64) {
        self.passed += len;
        if self.lines == 0 || self.looked_at + len <= FIRST_BYTES + self.passed / ONE_BYTE_OF {
            self.look(request, len);
        }
    }

    fn look(&mut self, request: &[u8], len: u64) {
        self.lines += 1;
        self.looked_at += len;
        let mut walk = Walk { rest: request, key: b"" };
        let mut limit = None;
        while let Some(found) = walk.next() {
            match found {
                Found::Text(text) => self.tokens += quarters(text),
                Found::Media => self.tokens += 4 * MEDIA_TOKENS,
                Found::Limit(tokens) => limit = Some(tokens),
            }
        }
        if let Some(limit) = limit {
            self.bounded += 1;
            self.bound = self.bound.saturating_add(limit);
        }
    }

    /// What was found; `None` if nothing was shown.
    pub fn density(&self) -> Option<Density> {
        let lines = self.lines;
        if lines == 0 {
            return None;
        }
        let per_kb = (self.tokens.div_ceil(4)).saturating_mul(1000).div_ceil(self.looked_at.max(1));
        let bound = self.bound.checked_div(self.bounded).unwrap_or(0);
        Some(Density {
            per_kb: u32::try_from(per_kb).unwrap_or(u32::MAX),
            bound: u32::try_from(bound).unwrap_or(u32::MAX),
            unbounded: u16::try_from((lines - self.bounded) * 1000 / lines).unwrap_or(1000),
        })
    }
}

/// What counts in a request.
enum Found<'a> {
    /// The inside of a string, escapes and all.
    Text(&'a [u8]),
    /// Something that is no text.
    Media,
    /// How many tokens the answer may have.
    Limit(u64),
}

/// Goes from string to string.
struct Walk<'a> {
    rest: &'a [u8],
    /// The name of the member whose value comes next.
    key: &'a [u8],
}

impl<'a> Walk<'a> {
    fn next(&mut self) -> Option<Found<'a>> {
        loop {
            let start = memchr::memchr(b'"', self.rest)? + 1;
            let inside = self.rest.get(start..)?;
            let len = closing(inside, 0)?;
            let (text, rest) = (&inside[..len], &inside[len + 1..]);
            self.rest = rest;
            if let Some(value) = rest.trim_ascii_start().strip_prefix(b":") {
                self.key = text;
                if LIMITS.contains(&text)
                    && let Some(limit) = number(value)
                {
                    return Some(Found::Limit(limit));
                }
                continue;
            }
            match self.key {
                b"data" | b"fileUri" | b"file_uri" => return Some(Found::Media),
                b"mimeType" | b"mime_type" | b"role" => continue,
                _ if text.starts_with(b"data:") => return Some(Found::Media),
                _ => return Some(Found::Text(text)),
            }
        }
    }
}

fn number(value: &[u8]) -> Option<u64> {
    let value = value.trim_ascii_start();
    let digits = value.iter().take_while(|byte| byte.is_ascii_digit()).count();
    std::str::from_utf8(&value[..digits]).ok()?.parse().ok()
}

/// Tokens of a text, in quarters: four Latin letters are about one, two of most other scripts, and
/// each of those that write words or syllables.
fn quarters(text: &[u8]) -> u64 {
    let mut sum = 0;
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        let (quarters, len) = match byte {
            b'\\' => escape(&text[at..]),
            // Inside of letters of several bytes.
            0x80..=0xBF => (0, 1),
            0x00..=0xCA => (1, 1),
            0xCB..=0xE2 => (2, 1),
            0xE3..=0xFF => (4, 1),
        };
        sum += quarters;
        at += len;
    }
    sum
}

fn escape(text: &[u8]) -> (u64, usize) {
    let hex = text.strip_prefix(b"\\u").and_then(|rest| rest.get(..4));
    let code = hex.and_then(|hex| u32::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
    match code {
        Some(0..=0x24F) => (1, 6),
        Some(0x250..=0x2E7F) => (2, 6),
        // Two of them make one.
        Some(0xD800..=0xDFFF) => (2, 6),
        Some(_) => (4, 6),
        None => (1, 2),
    }
}

/// Members that say how long an answer may be.
const LIMITS: &[&[u8]] =
    &[b"maxOutputTokens", b"max_output_tokens", b"max_tokens", b"max_completion_tokens"];
/// What an image of usual size takes.
const MEDIA_TOKENS: u64 = 258;
/// So much of a chunk is looked at in any case.
const FIRST_BYTES: u64 = 16 * 1024;
/// Of the rest, one byte of so many.
const ONE_BYTE_OF: u64 = 512;

#[cfg(test)]
mod tests {
    use super::*;

    fn of(request: &str) -> Density {
        let mut gauge = Gauge::default();
        gauge.show(request.as_bytes(), 1000);
        gauge.density().expect("a request was shown")
    }

    fn text(text: &str) -> String {
        format!(r#"{{"contents":[{{"role":"user","parts":[{{"text":"{text}"}}]}}]}}"#)
    }

    #[test]
    fn scripts_are_told_apart_in_letters_and_in_escapes() {
        for (letters, tokens) in [
            ("water water ", 300),
            ("Größe äöüß éè", 325),
            ("вода вода во", 550),
            ("水と火と土と", 600),
            (r"\u6c34\u6c34\u6c34\u6c34\u6c34\u6c34", 600),
            (r"\u0432\u043e\u0434\u0430", 200),
            (r#"a\"b\\c\nd\te"#, 225),
        ] {
            let density = of(&text(&letters.repeat(100)));
            assert_eq!(density.per_kb, tokens, "{letters}");
        }
    }

    #[test]
    fn data_counts_as_an_image_and_names_of_members_do_not_count() {
        let data = format!(
            r#"{{"parts":[{{"inlineData":{{"mimeType":"image/png","data":"{}"}}}}]}}"#,
            "A".repeat(100_000)
        );
        assert_eq!(of(&data).per_kb, 258);
        let url = r#"{"url":"data:image/png;base64,AAAA"}"#;
        assert_eq!(of(url).per_kb, 258);
        assert_eq!(of(r#"{"fileData": {"fileUri" : "files/x"}}"#).per_kb, 258);
        assert_eq!(of(r#"{"generationConfig":{"temperature":1}}"#).per_kb, 0);
    }

    #[test]
    fn limits_are_averaged_over_those_that_have_one() {
        let mut gauge = Gauge::default();
        assert_eq!(gauge.density(), None);
        for limit in [
            r#"{"generationConfig":{"maxOutputTokens": 100}}"#,
            r#"{"max_tokens":300}"#,
            "{}",
            "{}",
        ] {
            gauge.show(limit.as_bytes(), 10);
        }
        let density = gauge.density().expect("four were shown");
        assert_eq!((density.bound, density.unbounded), (200, 500));
    }

    #[test]
    fn only_some_of_many_lines_are_looked_at_and_the_first_one_always_is() {
        let line = text(&"water ".repeat(100));
        let mut gauge = Gauge::default();
        for _ in 0..100_000 {
            gauge.show(line.as_bytes(), line.len() as u64);
        }
        let one_in = gauge.passed / gauge.looked_at;
        assert!((300..=512).contains(&one_in), "{one_in}");
        let long = text(&"water ".repeat(100_000));
        let mut gauge = Gauge::default();
        gauge.show(long.as_bytes(), long.len() as u64);
        assert_eq!(gauge.lines, 1);
    }

    #[test]
    fn whatever_stands_in_a_request_it_has_an_estimate() {
        for odd in [
            "",
            "\"",
            "\"\\",
            r#"{"a":"#,
            r#"{"max_tokens":99999999999999999999}"#,
            r#""\u12"#,
            "{\"x\":\"\\ud800",
        ] {
            of(odd);
        }
    }
}
