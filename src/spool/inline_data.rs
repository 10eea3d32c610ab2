//! Where in a response data stands inline: images, sounds and the like (API contract, 5.5).
//!
//! A checked walk over the text that tells places and copies nothing. Data of thoughts, such as the
//! drafts of an image, is passed over. What is unusual in any way, such as a name with escapes, gives
//! `None`: such a response is left as it came.

use std::ops::Range;

use super::scan::Cursor;

/// A piece of inline data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InlineData {
    /// The member of its part that holds it, from the quote before its name on.
    pub member: Range<usize>,
    /// Its media type, as JSON text without the quotes; empty if there is none.
    pub mime: Range<usize>,
    /// Its base64, as JSON text without the quotes.
    pub data: Range<usize>,
    /// Members that stand beside those two, each with its name.
    pub others: Vec<Range<usize>>,
}

/// All pieces of a response, in their order.
pub fn find(response: &[u8]) -> Option<Vec<InlineData>> {
    let mut found = Vec::new();
    let mut cursor = Cursor::over(response)?;
    cursor.object(|name, value| match name {
        b"candidates" => list(value, &mut |value| {
            object(value, &mut |name, value| match name {
                b"content" => object(value, &mut |name, value| match name {
                    b"parts" => list(value, &mut |value| part(response, value, &mut found)),
                    _ => value.skip().map(drop),
                }),
                _ => value.skip().map(drop),
            })
        }),
        _ => value.skip().map(drop),
    })?;
    cursor.end()?;
    Some(found)
}

fn part(text: &[u8], value: &mut Cursor<'_>, found: &mut Vec<InlineData>) -> Option<()> {
    let before = found.len();
    let mut is_thought = false;
    object(value, &mut |name, value| {
        match name {
            b"thought" => is_thought |= text.get(value.skip()?) == Some(&b"true"[..]),
            b"inlineData" | b"inline_data" => {
                let start = place(text, name).start - 1;
                let (mut mime, mut data, mut others) = (None, None, Vec::new());
                object(value, &mut |name, value| {
                    let is_text = value.peek()? == b'"';
                    match name {
                        b"mimeType" | b"mime_type" if is_text && mime.is_none() => {
                            mime = Some(place(text, value.string()?));
                        }
                        b"data" if is_text && data.is_none() => {
                            data = Some(place(text, value.string()?));
                        }
                        _ => others.push(place(text, name).start - 1..value.skip()?.end),
                    }
                    Some(())
                })?;
                let member = start..value.at();
                if let Some(data) = data.filter(|data| !data.is_empty()) {
                    found.push(InlineData { member, mime: mime.unwrap_or_default(), data, others });
                }
            }
            _ => {
                value.skip()?;
            }
        }
        Some(())
    })?;
    if is_thought {
        found.truncate(before);
    }
    Some(())
}

/// Reads an object; any other value is skipped.
fn object<'a>(
    value: &mut Cursor<'a>,
    member: &mut dyn FnMut(&'a [u8], &mut Cursor<'a>) -> Option<()>,
) -> Option<()> {
    match value.peek()? {
        b'{' => value.object(member),
        _ => value.skip().map(drop),
    }
}

/// Reads a list; any other value is skipped.
fn list<'a>(
    value: &mut Cursor<'a>,
    element: &mut dyn FnMut(&mut Cursor<'a>) -> Option<()>,
) -> Option<()> {
    match value.peek()? {
        b'[' => value.array(element),
        _ => value.skip().map(drop),
    }
}

/// Where in a text a part of it stands.
fn place(text: &[u8], part: &[u8]) -> Range<usize> {
    let start = part.as_ptr().addr() - text.as_ptr().addr();
    start..start + part.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(response: &str) -> Option<Vec<(&str, &str, &str)>> {
        let pieces = find(response.as_bytes())?;
        let part = |range: &Range<usize>| &response[range.clone()];
        Some(pieces.iter().map(|it| (part(&it.member), part(&it.mime), part(&it.data))).collect())
    }

    fn parts(parts: &str) -> String {
        format!(r#"{{"modelVersion":"m", "candidates":[{{"content":{{"parts":[{parts}]}}}}]}}"#)
    }

    #[test]
    fn pieces_are_found_in_all_candidates_between_texts() {
        let one =
            r#"{ "inlineData" : {"mimeType":"image/png","data":"QQ=="} , "thoughtSignature":"x"}"#;
        let two = r#"{"inline_data":{"data":"Qg==","displayName":"b","mime_type":"a/b"}}"#;
        let other = format!(r#"]}}}},{{"content":{{"parts":[{two}"#);
        let response = parts(&format!(r#"{{"text":"\"inlineData\":{{}}"}},{one}{other}"#));
        let found = shown(&response).expect("it is read");
        let member = r#""inlineData" : {"mimeType":"image/png","data":"QQ=="}"#;
        assert_eq!(found[0], (member, "image/png", "QQ=="));
        assert_eq!((found[1].1, found[1].2, found.len()), ("a/b", "Qg==", 2));
        let others = &find(response.as_bytes()).expect("it is read")[1].others;
        assert_eq!(&response[others[0].clone()], r#""displayName":"b""#);
    }

    #[test]
    fn drafts_and_what_is_not_data_are_passed_over() {
        for part in [
            r#"{"inlineData":{"data":"QQ=="},"thought":true}"#,
            r#"{"thought":true,"inlineData":{"data":"QQ=="}}"#,
            r#"{"inlineData":{"data":""}}"#,
            r#"{"inlineData":{"data":7}}"#,
            r#"{"inlineData":"QQ=="}"#,
            r#"7"#,
        ] {
            assert_eq!(shown(&parts(part)), Some(Vec::new()), "{part}");
        }
        let kept = r#"{"inlineData":{"data":"QQ=="},"thought":false}"#;
        assert_eq!(shown(&parts(kept)).map(|found| found.len()), Some(1));
    }

    #[test]
    fn a_response_that_is_unusual_is_left_alone() {
        let part = r#"{"inlineD\u0061ta":{"data":"QQ=="}}"#;
        assert_eq!(shown(&parts(part)), None);
    }
}
