//! JSON from outside, read for a few members without minding the rest.
//!
//! One pass, nothing copied: members may come in any order, twice (the first counts), or with a
//! type that was not expected; numbers may be of any size. None of that is an error.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// Reads a shape from JSON text; `None` if that is damaged or nested too deeply.
pub fn read<'a, T: Shape<'a>>(raw: &'a str) -> Option<T> {
    serde_json::from_str::<Loose<T>>(raw).ok().map(|Loose(shape)| shape)
}

/// Some members of an object, each taken only if it has the type we expect.
pub trait Shape<'de>: Default {
    /// Takes the value of a member, or skips it; the value must be consumed either way.
    ///
    /// # Errors
    /// If the value is not JSON.
    fn member<A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<(), A::Error>;

    /// Where a list was found: takes what its next object holds.
    fn absorb(&mut self, _next: Self) {}
}

/// Reads a shape from an object, or from all objects of a list; anything else is an empty shape.
pub struct Loose<T>(pub T);

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

/// Takes a member's value as it stands; the first one that is not `null` counts.
///
/// # Errors
/// If the value is not JSON.
pub fn take<'de, A: MapAccess<'de>>(
    place: &mut Option<&'de RawValue>,
    map: &mut A,
) -> Result<(), A::Error> {
    let raw: &RawValue = map.next_value()?;
    if place.is_none() && raw.get() != "null" {
        *place = Some(raw);
    }
    Ok(())
}

/// Takes a count; zero if it is none.
///
/// # Errors
/// If the value is not JSON.
pub fn count<'de, A: MapAccess<'de>>(place: &mut u64, map: &mut A) -> Result<(), A::Error> {
    *place = number(map.next_value::<&RawValue>()?.get()).unwrap_or(0);
    Ok(())
}

/// Skips a member's value and tells whether there is anything in it.
///
/// # Errors
/// If the value is not JSON.
pub fn present<'de, A: MapAccess<'de>>(map: &mut A) -> Result<bool, A::Error> {
    Ok(!matches!(map.next_value::<&RawValue>()?.get(), "null" | "\"\""))
}

/// Skips a member's value.
///
/// # Errors
/// If the value is not JSON.
pub fn skip<'de, A: MapAccess<'de>>(map: &mut A) -> Result<(), A::Error> {
    map.next_value::<IgnoredAny>().map(|_| ())
}

/// A number, bare or as a string (API contract, 1.2).
pub fn number<N: std::str::FromStr>(raw: &str) -> Option<N> {
    raw.trim_matches('"').parse().ok()
}

/// The text up to `max` bytes, cut between characters.
pub fn cut(text: &str, max: usize) -> &str {
    let mut end = max.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_cut_between_characters() {
        assert_eq!(cut("aé", 2), "a");
        assert_eq!(cut("aé", 3), "aé");
        assert_eq!(cut("aé", 99), "aé");
    }

    #[test]
    fn numbers_are_read_bare_and_as_strings() {
        assert_eq!(number::<u64>("\"12\""), Some(12));
        assert_eq!(number::<u64>("12"), Some(12));
        assert_eq!(number::<u64>("1e400"), None);
    }
}
