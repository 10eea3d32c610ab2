//! JSON taken apart and put together by its members, without touching what stands in them.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, Visitor};
use serde_json::value::RawValue;

/// Why something can not be translated: the member, and what about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Untranslatable {
    /// Such as `messages[2].content[0].image_url`.
    pub path: String,
    /// What about it, to stand after the path.
    pub why: String,
}

impl Untranslatable {
    /// Something about a member.
    pub fn new(path: impl Into<String>, why: impl Into<String>) -> Untranslatable {
        Untranslatable { path: path.into(), why: why.into() }
    }

    /// A member that there is nothing for.
    pub fn unknown(path: &str, name: &str) -> Untranslatable {
        let name: String = name.chars().take(60).collect();
        let path = if path.is_empty() { name } else { format!("{path}.{name}") };
        Untranslatable::new(path, "has no counterpart in a native request")
    }
}

/// The members of an object in their order; those that are `null` count as not there.
#[derive(Debug)]
pub struct Members<'a>(pub Vec<(String, &'a RawValue)>);

impl<'a> Members<'a> {
    /// Takes an object apart.
    ///
    /// # Errors
    /// If it is none, or has a member twice.
    pub fn of(raw: &'a RawValue, path: &str) -> Result<Members<'a>, Untranslatable> {
        serde_json::from_str(raw.get())
            .map_err(|_| Untranslatable::new(path, "is not an object, or has a member twice"))
    }

    /// Takes a member out.
    pub fn take(&mut self, name: &str) -> Option<&'a RawValue> {
        let at = self.0.iter().position(|(other, _)| other == name)?;
        Some(self.0.remove(at).1)
    }

    /// Nothing may be left.
    ///
    /// # Errors
    /// The first member that is.
    pub fn end(&self, path: &str) -> Result<(), Untranslatable> {
        match self.0.first() {
            Some((name, _)) => Err(Untranslatable::unknown(path, name)),
            None => Ok(()),
        }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Members<'a>, D::Error> {
        struct All;
        impl<'de> Visitor<'de> for All {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let (mut all, mut names) = (Vec::new(), std::collections::HashSet::new());
                while let Some(name) = map.next_key::<String>()? {
                    let value: &RawValue = map.next_value()?;
                    if !names.insert(name.clone()) {
                        return Err(A::Error::custom("a member stands twice"));
                    }
                    if value.get() != "null" {
                        all.push((name, value));
                    }
                }
                Ok(Members(all))
            }
        }
        deserializer.deserialize_map(All)
    }
}

/// The elements of a list.
///
/// # Errors
/// If it is none.
pub fn list<'a>(raw: &'a RawValue, path: &str) -> Result<Vec<&'a RawValue>, Untranslatable> {
    serde_json::from_str(raw.get()).map_err(|_| Untranslatable::new(path, "is not a list"))
}

/// A text.
///
/// # Errors
/// If it is none.
pub fn text<'a>(raw: &'a RawValue, path: &str) -> Result<Cow<'a, str>, Untranslatable> {
    #[derive(Deserialize)]
    struct Text<'a>(#[serde(borrow)] Cow<'a, str>);
    let Text(text) =
        serde_json::from_str(raw.get()).map_err(|_| Untranslatable::new(path, "is not a text"))?;
    Ok(text)
}

/// Whether something is a text.
pub fn is_text(raw: &RawValue) -> bool {
    raw.get().starts_with('"')
}

/// A text as JSON.
pub fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// An object that is being written.
#[derive(Debug, Default)]
pub struct Object(String);

impl Object {
    /// Adds a member whose value is JSON.
    pub fn put(&mut self, name: &str, value: &str) {
        self.0.push(if self.0.is_empty() { '{' } else { ',' });
        self.0.push_str(&quoted(name));
        self.0.push(':');
        self.0.push_str(value);
    }

    /// Whether it has no members.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The whole.
    pub fn end(mut self) -> String {
        if self.0.is_empty() {
            self.0.push('{');
        }
        self.0.push('}');
        self.0
    }
}

/// An object with one member.
pub fn single(name: &str, value: &str) -> String {
    let mut object = Object::default();
    object.put(name, value);
    object.end()
}

/// A list of values that are JSON.
pub fn joined(values: &[String]) -> String {
    format!("[{}]", values.join(","))
}
