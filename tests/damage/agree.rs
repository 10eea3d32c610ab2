//! What two readers make of one text: the fast walk of ours and serde_json, which has the last
//! word. The fuzz target includes this file too.

use std::ops::Range;

use gemini_batchd::engine::job::Task;
use gemini_batchd::spool::document::{Broken, Document, Whole};
use gemini_batchd::spool::lines::{Lines, Piece};
use gemini_batchd::spool::scan::Cursor;
use gemini_batchd::spool::{forms, usual};
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

const WANTED: forms::Wanted<'_> = forms::Wanted { model: "m", task: Task::Generate };

/// Holds the readers against each other; tells whether the walk accepted the text.
///
/// # Panics
/// If they do not agree.
pub fn agree(text: &[u8]) -> bool {
    let shown = || String::from_utf8_lossy(text).into_owned();
    if let Some(request) = usual::request(text, "m") {
        assert_eq!(Ok(request), forms::examine_closely(text, WANTED), "{}", shown());
    }
    let (walked, read) = (by_walk(text), by_serde(text));
    let brackets = text.iter().filter(|byte| matches!(byte, b'{' | b'[')).count();
    if walked.is_some() || brackets < 64 {
        // The walk may be less sure, but where nothing is nested deep it should not be.
        assert_eq!(walked, read, "{}", shown());
    }
    let members = members_by_walk(text);
    if members.is_some() {
        assert_eq!(members, members_by_serde(text), "{}", shown());
    }
    judge(text);
    cut_into_lines(text);
    take_apart(text);
    walked.is_some()
}

/// What is taken for a request is one, and the place of its key is that of the key.
fn judge(text: &[u8]) {
    let shown = || String::from_utf8_lossy(text).into_owned();
    let request = match forms::examine(text, WANTED) {
        Ok(request) => request,
        Err(fault) => {
            assert!(!fault.message.is_empty(), "{}", shown());
            assert!(fault.at.is_none_or(|at| at <= text.len()), "{fault:?} {}", shown());
            assert!(fault.key.is_none_or(|key| key.end <= text.len()), "{}", shown());
            return;
        }
    };
    let members = members_by_serde(text).unwrap_or_else(|| panic!("{}", shown()));
    let of = |members: &Members, wanted: &str| {
        let found = members.iter().find(|(name, _)| name == wanted).map(|(_, place)| place.clone());
        found.filter(|place| &text[place.clone()] != b"null")
    };
    let whole = text.len() - text.trim_ascii_start().len()..text.trim_ascii_end().len();
    assert_eq!(request.span, of(&members, "request").unwrap_or(whole), "{}", shown());
    let inside = |place: Range<usize>| {
        let members = members_by_serde(&text[place.clone()])?;
        let moved = |place: Range<usize>, by: usize| place.start + by..place.end + by;
        Some(members.into_iter().map(|(name, at)| (name, moved(at, place.start))).collect())
    };
    let metadata = of(&members, "metadata").and_then(inside);
    let key = of(&members, "key").or_else(|| of(metadata.as_ref()?, "key"));
    assert_eq!(request.key, key, "{}", shown());
    assert!(key.is_none_or(|key| matches!(text[key.start], b'"' | b'-' | b'0'..=b'9')));
    let contents = of(&inside(request.span.clone()).expect("an object"), "contents");
    let contents = &text[contents.expect("a request has contents")];
    let list: Vec<&RawValue> = serde_json::from_slice(contents).expect("a list");
    assert!(!list.is_empty() && list.iter().all(|one| one.get().starts_with('{')), "{}", shown());
}

/// Lines are the same wherever the blocks end, and those that an editor would show.
fn cut_into_lines(text: &[u8]) {
    let (step, limit) = (text.len() % 13 + 1, text.len() % 29 + 1);
    let cut = |step: usize| {
        let mut found = Vec::new();
        let mut sink = |piece: Piece<'_>| {
            found.push((piece.number, piece.start, piece.len, piece.bytes.map(<[u8]>::to_vec)));
            Ok::<(), ()>(())
        };
        let mut lines = Lines::new(0, limit);
        text.chunks(step).for_each(|block| lines.feed(block, &mut sink).expect("taken"));
        lines.finish(&mut sink).expect("taken");
        found
    };
    let found = cut(step);
    assert_eq!(found, cut(text.len().max(1)), "blocks of {step}: {text:?}");
    let mut expected = Vec::new();
    let mut start = 0;
    for (number, line) in (1..).zip(text.split(|byte| *byte == b'\n')) {
        let told = line.trim_ascii_end();
        if line.len() > limit && !told.is_empty() {
            expected.push((number, start, line.len() as u64, None));
        } else if !told.is_empty() {
            expected.push((number, start, told.len() as u64, Some(told.to_vec())));
        }
        start += line.len() as u64 + 1;
    }
    assert_eq!(found, expected, "{text:?}");
}

/// A document gives the same elements wherever it is cut, and if it is taken for a list and every
/// element is sound, then so is the whole.
fn take_apart(text: &[u8]) {
    let apart = |step: usize| {
        let mut found = Vec::new();
        let mut sink = |piece: Piece<'_>| {
            found.push((piece.number, piece.start, piece.bytes.map(<[u8]>::to_vec)));
            Ok::<(), Broken>(())
        };
        let mut document = Document::new(0, 1 << 20);
        let fed = text.chunks(step).try_for_each(|block| document.feed(block, &mut sink));
        (fed.and_then(|()| document.finish()), found)
    };
    let (whole, elements) = apart(text.len().max(1));
    assert_eq!((&whole, &elements), (&apart(text.len() % 7 + 1).0, &apart(text.len() % 7 + 1).1));
    for (_, start, bytes) in &elements {
        let bytes = bytes.as_deref().unwrap_or_default();
        let start = usize::try_from(*start).expect("small");
        assert_eq!(text.get(start..start + bytes.len()), Some(bytes), "{text:?}");
    }
    let sound = |bytes: &Vec<u8>| serde_json::from_slice::<IgnoredAny>(bytes).is_ok();
    let all_sound = elements.iter().all(|(_, _, bytes)| bytes.as_ref().is_some_and(sound));
    let is_json = serde_json::from_slice::<IgnoredAny>(text).is_ok();
    let shown = || String::from_utf8_lossy(text).into_owned();
    if let (Ok(Whole::List { .. }), true) = (&whole, all_sound) {
        assert!(is_json, "{}", shown());
    }
    if let Ok(list) = serde_json::from_slice::<Vec<&RawValue>>(text) {
        assert!(matches!(whole, Ok(Whole::List { .. })), "{whole:?} {}", shown());
        assert_eq!(elements.len(), list.len(), "{}", shown());
    }
}

fn by_walk(text: &[u8]) -> Option<Range<usize>> {
    let mut cursor = Cursor::over(text)?;
    let place = cursor.skip()?;
    cursor.end().map(|()| place)
}

fn by_serde(text: &[u8]) -> Option<Range<usize>> {
    serde_json::from_slice::<&RawValue>(text).ok().map(|value| place(text, value))
}

fn place(text: &[u8], value: &RawValue) -> Range<usize> {
    let start = value.get().as_ptr() as usize - text.as_ptr() as usize;
    start..start + value.get().len()
}

type Members = Vec<(String, Range<usize>)>;

fn members_by_walk(text: &[u8]) -> Option<Members> {
    let mut cursor = Cursor::over(text)?;
    let mut members = Vec::new();
    cursor.object(|name, value| {
        let name = String::from_utf8(name.to_vec()).ok()?;
        members.push((name, value.skip()?));
        Some(())
    })?;
    cursor.end().map(|()| members)
}

fn members_by_serde(text: &[u8]) -> Option<Members> {
    struct All<'a>(&'a [u8]);
    impl<'de> serde::de::Visitor<'de> for All<'de> {
        type Value = Members;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
            let mut members = Vec::new();
            while let Some((name, value)) = map.next_entry::<String, &RawValue>()? {
                members.push((name, place(self.0, value)));
            }
            Ok(members)
        }
    }
    let mut reader = serde_json::Deserializer::from_slice(text);
    let members = serde::Deserializer::deserialize_map(&mut reader, All(text)).ok()?;
    reader.end().ok().map(|()| members)
}
