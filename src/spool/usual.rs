//! The usual forms of a request, recognised in one walk.
//!
//! Almost every line is valid and written in the usual way; for these one walk finds request and
//! key. Whatever is wrong or odd gives `None`, which says nothing about the piece, only that
//! [`forms`](super::forms) has to judge it with a real JSON reader. A request found here is found
//! there with the same places: the tests damage lines at random to hold the two against each
//! other.

use std::ops::Range;

use super::forms::{KEY_BYTES_MAX, Request, model_name};
use super::index::LineFate;
use super::scan::Cursor;

/// The request in a piece, if it is written in the usual way; `model` is the queue's.
pub fn request(bytes: &[u8], model: &str) -> Option<Request> {
    let mut cursor = Cursor::over(bytes)?;
    let mut found = Found::default();
    cursor.peek()?;
    let start = cursor.at();
    cursor.object(|name, value| match name {
        b"key" => once(&mut found.key, key(value)?),
        b"request" => once(&mut found.request, inner(value, model)?),
        b"metadata" => once(&mut found.metadata, metadata(value)?),
        b"contents" => once(&mut found.contents, contents(value)?),
        b"model" => once(&mut found.model, same_model(value, model)?),
        // They belong to other forms, or say that something is amiss.
        b"content" | b"custom_id" | b"body" | b"batch" => None,
        _ => value.skip().map(drop),
    })?;
    let end = cursor.at();
    cursor.end()?;
    if let Some(span) = found.request {
        let key = found.key.or(found.metadata.flatten());
        return Some(Request { span, key, fate: LineFate::Valid });
    }
    let bare = found.contents.is_some() && found.key.is_none() && found.metadata.is_none();
    bare.then_some(Request { span: start..end, key: None, fate: LineFate::Valid })
}

/// The members of a piece that have been seen.
#[derive(Default)]
struct Found {
    key: Option<Range<usize>>,
    request: Option<Range<usize>>,
    /// With the key in it.
    metadata: Option<Option<Range<usize>>>,
    contents: Option<()>,
    model: Option<()>,
}

/// Keeps what was found, unless something was found before: a member may not stand twice.
fn once<T>(place: &mut Option<T>, found: T) -> Option<()> {
    place.replace(found).is_none().then_some(())
}

fn key(value: &mut Cursor<'_>) -> Option<Range<usize>> {
    matches!(value.peek()?, b'"' | b'-' | b'0'..=b'9').then_some(())?;
    value.skip().filter(|place| place.len() <= KEY_BYTES_MAX)
}

fn metadata(value: &mut Cursor<'_>) -> Option<Option<Range<usize>>> {
    let mut found = None;
    value.object(|name, value| match name {
        b"key" => once(&mut found, key(value)?),
        _ => value.skip().map(drop),
    })?;
    Some(found)
}

/// What stands at `request`.
fn inner(value: &mut Cursor<'_>, model: &str) -> Option<Range<usize>> {
    value.peek()?;
    let start = value.at();
    let (mut listed, mut named) = (None, None);
    value.object(|name, value| match name {
        b"contents" => once(&mut listed, contents(value)?),
        b"model" => once(&mut named, same_model(value, model)?),
        b"content" => None,
        _ => value.skip().map(drop),
    })?;
    listed.map(|()| start..value.at())
}

/// A list of objects that is not empty.
fn contents(value: &mut Cursor<'_>) -> Option<()> {
    let mut count = 0;
    value.array(|element| {
        count += 1;
        (element.peek()? == b'{').then_some(())?;
        element.skip().map(drop)
    })?;
    (count > 0).then_some(())
}

fn same_model(value: &mut Cursor<'_>, model: &str) -> Option<()> {
    let named = value.string()?;
    // With an escape in it, it may still be the same name: not our business.
    let name = named.strip_prefix(b"models/").unwrap_or(named);
    (name == model_name(model).as_bytes() && !named.contains(&b'\\')).then_some(())
}

#[cfg(test)]
mod tests;
