//! What two readers make of one text: the fast walk of ours and serde_json, which has the last
//! word. The fuzz target includes this file too.

use std::ops::Range;

use gemini_batchd::spool::scan::Cursor;
use gemini_batchd::spool::{forms, usual};
use serde_json::value::RawValue;

/// Holds the readers against each other; tells whether the walk accepted the text.
///
/// # Panics
/// If they do not agree.
pub fn agree(text: &[u8]) -> bool {
    let shown = || String::from_utf8_lossy(text).into_owned();
    if let Some(request) = usual::request(text, "m") {
        assert_eq!(Ok(request), forms::examine_closely(text, "m"), "{}", shown());
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
    walked.is_some()
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
