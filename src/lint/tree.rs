//! A request as a tree that can be changed and written again.
//!
//! Members keep their order, and whatever is not taken apart keeps its text: numbers and strings
//! come out as they went in, digit by digit. Names are decoded, values are borrowed from the line.
//! It never refuses what a JSON reader accepts; beyond a depth it only does not look inside.

use std::borrow::Cow;
use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// A JSON value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node<'a> {
    /// An object: names and values in their order. A name may stand twice.
    Object(Members<'a>),
    /// A list.
    List(Vec<Node<'a>>),
    /// The text of a scalar, or of something nested too deep.
    Text(Cow<'a, str>),
}

/// The members of an object.
pub type Members<'a> = Vec<(Cow<'a, str>, Node<'a>)>;

impl<'a> Node<'a> {
    /// Reads one JSON value.
    ///
    /// # Errors
    /// If the text is not JSON.
    pub fn read(text: &'a str) -> Result<Node<'a>, serde_json::Error> {
        Ok(Node::of(serde_json::from_str(text)?, DEPTH_MAX))
    }

    fn of(value: &'a RawValue, depth: usize) -> Node<'a> {
        let text = value.get();
        let opened = if depth == 0 { None } else { text.bytes().next() };
        let node = match opened {
            Some(b'{') => serde_json::from_str::<Texts<'a>>(text).ok().map(|members| {
                let inner = |(name, value)| (name, Node::of(value, depth - 1));
                Node::Object(members.0.into_iter().map(inner).collect())
            }),
            Some(b'[') => serde_json::from_str::<Vec<&'a RawValue>>(text).ok().map(|items| {
                Node::List(items.into_iter().map(|item| Node::of(item, depth - 1)).collect())
            }),
            _ => None,
        };
        node.unwrap_or(Node::Text(Cow::Borrowed(text)))
    }

    /// A string as a value.
    pub fn string(text: &str) -> Node<'static> {
        let quoted = serde_json::to_string(text).expect("every string can be written as JSON");
        Node::Text(Cow::Owned(quoted))
    }

    /// The members, if it is an object.
    pub fn members(&self) -> &[(Cow<'a, str>, Node<'a>)] {
        match self {
            Node::Object(members) => members,
            Node::List(_) | Node::Text(_) => &[],
        }
    }

    /// The elements, if it is a list.
    pub fn items(&self) -> &[Node<'a>] {
        match self {
            Node::List(items) => items,
            Node::Object(_) | Node::Text(_) => &[],
        }
    }

    /// Whether it is an object.
    pub fn is_object(&self) -> bool {
        matches!(self, Node::Object(_))
    }

    /// Whether it is `null`, which the API takes for a member that is not there.
    pub fn is_null(&self) -> bool {
        matches!(self, Node::Text(text) if text == "null")
    }

    /// Whether it is an object or a list without anything in it.
    pub fn is_empty(&self) -> bool {
        match self {
            Node::Object(members) => members.is_empty(),
            Node::List(items) => items.is_empty(),
            Node::Text(_) => false,
        }
    }

    /// The member of a name, in camelCase or in snake_case; `null` counts as missing.
    pub fn get(&self, camel: &str) -> Option<&Node<'a>> {
        self.find(camel).map(|(_, value)| value)
    }

    /// The same, with the name as it is written.
    pub fn find(&self, camel: &str) -> Option<(&str, &Node<'a>)> {
        let mut members = self.members().iter();
        let found = members.find(|(name, value)| is_named(name, camel) && !value.is_null());
        found.map(|(name, value)| (&**name, value))
    }

    /// The text of a string.
    pub fn as_str(&self) -> Option<Cow<'_, str>> {
        match self {
            Node::Text(text) if text.starts_with('"') => {
                serde_json::from_str::<Text<'_>>(text).ok().map(|text| text.0)
            }
            Node::Text(_) | Node::Object(_) | Node::List(_) => None,
        }
    }

    /// A number, also one that is written as a string, as the API takes it.
    pub fn as_number(&self) -> Option<f64> {
        match self {
            Node::Text(text) => text.trim_matches('"').parse().ok(),
            Node::Object(_) | Node::List(_) => None,
        }
    }
}

impl fmt::Display for Node<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Node::Text(text) => f.write_str(text),
            Node::List(items) => {
                f.write_str("[")?;
                for (number, item) in items.iter().enumerate() {
                    let comma = if number == 0 { "" } else { ", " };
                    write!(f, "{comma}{item}")?;
                }
                f.write_str("]")
            }
            Node::Object(members) => {
                f.write_str("{")?;
                for (number, (name, value)) in members.iter().enumerate() {
                    let comma = if number == 0 { "" } else { ", " };
                    write!(f, "{comma}{}: {value}", Node::string(name))?;
                }
                f.write_str("}")
            }
        }
    }
}

/// Whether a name as written is the one in camelCase, in either of the API's spellings.
pub fn is_named(written: &str, camel: &str) -> bool {
    if written == camel {
        return true;
    }
    let mut written = written.bytes();
    for byte in camel.bytes() {
        if byte.is_ascii_uppercase() && written.next() != Some(b'_') {
            return false;
        }
        if written.next() != Some(byte.to_ascii_lowercase()) {
            return false;
        }
    }
    written.next().is_none()
}

/// The members of an object with their texts.
struct Texts<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Texts<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Texts<'a>, D::Error> {
        struct All;
        impl<'de> Visitor<'de> for All {
            type Value = Texts<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Texts<'de>, A::Error> {
                let mut members = Vec::new();
                while let Some((Text(name), value)) = map.next_entry()? {
                    members.push((name, value));
                }
                Ok(Texts(members))
            }
        }
        de::Deserializer::deserialize_map(deserializer, All)
    }
}

/// A string, borrowed where it has no escapes.
#[derive(serde::Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// What is nested deeper is not taken apart: no request needs it.
const DEPTH_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_is_written_again_with_its_order_and_its_digits() {
        for text in [
            r#"{"b": 1.0, "a": 12345678901234567890123, "a": [1e400, -0], "\u00fc": {}}"#,
            r#"[null, true, "a\/b\u0041", {"x": []}]"#,
            "\"plain\"",
        ] {
            let node = Node::read(text).expect("JSON");
            let written = node.to_string();
            assert_eq!(Node::read(&written).expect("JSON"), node);
            assert_eq!(written, text.replace(r#""\u00fc""#, "\"ü\""));
        }
        assert!(Node::read("{\"a\": ").is_err());
    }

    #[test]
    fn nothing_is_too_deep_to_be_kept() {
        let text = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(Node::read(&text).expect("JSON").to_string(), text);
    }

    #[test]
    fn members_are_found_in_both_spellings_and_null_is_none() {
        let node = Node::read(r#"{"max_output_tokens": "12", "topP": null, "topk": 1}"#);
        let node = node.expect("JSON");
        assert_eq!(node.get("maxOutputTokens").and_then(Node::as_number), Some(12.0));
        assert_eq!(node.get("topP"), None);
        assert_eq!(node.get("topK"), None);
        assert!(is_named("_response_json_schema", "_responseJsonSchema"));
    }
}
