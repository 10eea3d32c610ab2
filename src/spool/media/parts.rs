//! Finds the parts of a request that name a file on this machine.
//!
//! Only where a request has its parts: in `contents`, `content` and `systemInstruction`, in both
//! spellings of their members. The same words elsewhere, such as in the arguments of a function,
//! are the user's data and stay as they are. Nothing is copied; whatever does not look like a
//! request is left for the plan to judge.

use std::borrow::Cow;
use std::ops::Range;

use serde::Deserialize;
use serde_json::value::RawValue;

/// A part that names a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilePart {
    /// Where its URI stands in the line, quotes included.
    pub uri: Range<usize>,
    /// What stands after `file:`.
    pub path: String,
    /// The media type, if it is told.
    pub mime: Option<String>,
}

/// What each such URI begins with, as JSON.
pub const BEGINNING: &[u8] = b"\"file:";

/// Looks for such a beginning in blocks that follow one another.
#[derive(Debug, Default)]
pub struct Named {
    /// The end of the block before.
    end: Vec<u8>,
}

impl Named {
    /// Whether one ends in this block. Most inputs have none, and need not be prepared; one within
    /// a text only costs that.
    pub fn seen_in(&mut self, block: &[u8]) -> bool {
        let keep = BEGINNING.len() - 1;
        self.end.extend_from_slice(&block[..keep.min(block.len())]);
        let seen = [self.end.as_slice(), block]
            .iter()
            .any(|bytes| memchr::memmem::find(bytes, BEGINNING).is_some());
        if let Some(start) = block.len().checked_sub(keep) {
            self.end.clear();
            self.end.extend_from_slice(&block[start..]);
        } else {
            self.end.drain(..self.end.len().saturating_sub(keep));
        }
        seen
    }
}

/// The parts of a line that name a file, in the order in which they stand there.
pub fn file_parts(line: &str) -> Vec<FilePart> {
    let mut found = Vec::new();
    if let Ok(Line { request, .. }) = serde_json::from_str::<Line<'_>>(line) {
        let request = request.map_or(line, RawValue::get);
        if let Ok(request) = serde_json::from_str::<Request<'_>>(request) {
            request.look(line, &mut found);
        }
    }
    found.sort_unstable_by_key(|part| part.uri.start);
    found
}

/// A line in any form: its request is a member, or the line itself.
#[derive(Deserialize)]
struct Line<'a> {
    #[serde(borrow)]
    request: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Request<'a> {
    #[serde(borrow)]
    contents: Option<&'a RawValue>,
    #[serde(borrow)]
    content: Option<&'a RawValue>,
    #[serde(borrow)]
    system_instruction: Option<&'a RawValue>,
    #[serde(borrow, rename = "system_instruction")]
    snake_instruction: Option<&'a RawValue>,
}

impl<'a> Request<'a> {
    fn look(&self, line: &str, found: &mut Vec<FilePart>) {
        let instruction = self.system_instruction.or(self.snake_instruction);
        let all = [self.contents, self.content, instruction].into_iter().flatten();
        for content in all.flat_map(one_or_many) {
            let Some(Content { parts: Some(parts) }) = read(content) else { continue };
            for part in one_or_many(parts) {
                found.extend(read::<Part<'a>>(part).and_then(|part| part.file(line)));
            }
        }
    }
}

#[derive(Deserialize)]
struct Content<'a> {
    #[serde(borrow)]
    parts: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Part<'a> {
    #[serde(borrow)]
    file_data: Option<&'a RawValue>,
    #[serde(borrow, rename = "file_data")]
    snake_data: Option<&'a RawValue>,
}

impl Part<'_> {
    fn file(&self, line: &str) -> Option<FilePart> {
        let data: FileData<'_> = read(self.file_data.or(self.snake_data)?)?;
        let uri = data.file_uri.or(data.snake_uri)?;
        let text: Cow<'_, str> = read(uri)?;
        let path = text.strip_prefix("file:")?.to_owned();
        let start = uri.get().as_ptr() as usize - line.as_ptr() as usize;
        let mime = data.mime_type.or(data.snake_type).map(Cow::into_owned);
        Some(FilePart { uri: start..start + uri.get().len(), path, mime })
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct FileData<'a> {
    #[serde(borrow)]
    file_uri: Option<&'a RawValue>,
    #[serde(borrow, rename = "file_uri")]
    snake_uri: Option<&'a RawValue>,
    #[serde(borrow)]
    mime_type: Option<Cow<'a, str>>,
    #[serde(borrow, rename = "mime_type")]
    snake_type: Option<Cow<'a, str>>,
}

fn read<'a, T: Deserialize<'a>>(value: &'a RawValue) -> Option<T> {
    serde_json::from_str(value.get()).ok()
}

/// The elements of a list; anything else by itself, as the API takes it.
fn one_or_many(value: &RawValue) -> Vec<&RawValue> {
    if value.get().starts_with('[') {
        return read(value).unwrap_or_default();
    }
    vec![value]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(line: &str) -> Vec<(String, Option<String>)> {
        let parts = file_parts(line);
        for part in &parts {
            let uri: String = serde_json::from_str(&line[part.uri.clone()]).expect("a string");
            assert_eq!(uri, format!("file:{}", part.path));
        }
        parts.into_iter().map(|part| (part.path, part.mime)).collect()
    }

    #[test]
    fn parts_are_found_in_every_form_and_spelling() {
        let one = |path: &str, mime: Option<&str>| vec![(path.to_owned(), mime.map(str::to_owned))];
        let camel = r#"{"fileData": {"fileUri": "file:a.png", "mimeType": "image/png"}}"#;
        let snake = r#"{"file_data":{"mime_type":"image/png","file_uri":"file:a.png"}}"#;
        for part in [camel, snake] {
            for line in [
                format!(r#"{{"key": 1, "request": {{"contents": [{{"parts": [{part}]}}]}}}}"#),
                format!(r#"{{"request":{{"contents":[{{"parts":{part}}}]}},"metadata":{{}}}}"#),
                format!(r#"  {{"contents": [{{"role": "user", "parts": [{{}}, {part}]}}]}}"#),
                format!(r#"{{"request": {{"content": {{"parts": [{part}]}}}}}}"#),
                format!(r#"{{"contents":[],"systemInstruction":{{"parts":[{part}]}}}}"#),
                format!(r#"{{"contents":[],"system_instruction":{{"parts":[{part}]}}}}"#),
            ] {
                assert_eq!(paths(&line), one("a.png", Some("image/png")), "{line}");
            }
        }
        let escaped =
            r#"{"contents":[{"parts":[{"fileData":{"fileUri":"file:\/\/\/b\u00e4r.png"}}]}]}"#;
        assert_eq!(paths(escaped), one("///bär.png", None));
    }

    #[test]
    fn parts_are_told_in_the_order_in_which_they_stand() {
        let line = r#"{"request":{"system_instruction":{"parts":[{"file_data":{"file_uri":"file:1"}}]},
            "contents":[{"parts":[{"file_data":{"file_uri":"file:2"}},{"text":"file:x"}]},
            {"parts":[{"file_data":{"file_uri":"file:3"}}]}]}}"#;
        let found: Vec<String> = paths(line).into_iter().map(|(path, _)| path).collect();
        assert_eq!(found, ["1", "2", "3"]);
    }

    #[test]
    fn a_beginning_is_seen_wherever_blocks_are_cut() {
        let text = br#"{"fileUri":"file:a.png"}"#;
        for first in 0..text.len() {
            for second in first..text.len() {
                let mut named = Named::default();
                let blocks = [&text[..first], &text[first..second], &text[second..]];
                assert!(
                    blocks.map(|block| named.seen_in(block)).contains(&true),
                    "{first} {second}"
                );
            }
        }
        let mut named = Named::default();
        assert!(
            ![&b"\"fil"[..], b"x", b"e:", b"\"", b"", b"ile:"]
                .map(|b| named.seen_in(b))
                .contains(&true)
        );
    }

    #[test]
    fn what_is_no_part_that_names_a_file_is_left_alone() {
        for line in [
            r#"{"contents":[{"parts":[{"text":"\"fileUri\": \"file:a.png\""}]}]}"#,
            r#"{"contents":[{"parts":[{"fileData":{"fileUri":"https://there/a.png"}}]}]}"#,
            r#"{"contents":[{"parts":[{"fileData":{"fileUri":5}}]}]}"#,
            r#"{"contents":[{"parts":[{"functionResponse":{"response":{"fileData":{"fileUri":"file:a"}}}}]}]}"#,
            r#"{"contents":[{"parts":[{"fileData":{"fileUri":"file:a.png"}"#,
            r#"{"contents":"file:a.png"}"#,
            r#"["file:a.png"]"#,
            "",
        ] {
            assert_eq!(paths(line), [], "{line}");
        }
    }
}
