//! The message types of the API, as `schema.json` tells them.
//!
//! That file is cut out of Google's discovery document by `derive_schema.py`; this reads it once.
//! Pure data for whoever has to know what a request may hold: `lint` before it is sent, the
//! emulator when it arrives. It never looks at a request itself.

use std::collections::HashMap;
use std::sync::LazyLock;

/// The type of a field.
#[derive(Debug, Clone)]
pub enum Kind {
    /// A string.
    Text,
    /// A boolean.
    Bool,
    /// A number of 32 bits, or its text.
    Int32,
    /// A number of 64 bits, or its text.
    Int64,
    /// Any number, or its text.
    Number,
    /// Base64.
    Bytes,
    /// RFC 3339.
    Time,
    /// Seconds with an `s`.
    Duration,
    /// Anything.
    Any,
    /// Any object.
    Struct,
    /// One of these names, or a number.
    Enum(Vec<String>),
    /// A message of this type.
    Message(String),
    /// A list of these.
    List(Box<Kind>),
    /// An object whose members have any names and these values.
    Map(Box<Kind>),
}

impl Kind {
    /// Reads one word of `schema.json`.
    fn parse(word: &str) -> Kind {
        if let Some(item) = word.strip_prefix('[') {
            return Kind::List(Box::new(Kind::parse(item.trim_end_matches(']'))));
        }
        if let Some(value) = word.strip_prefix('{') {
            return Kind::Map(Box::new(Kind::parse(value.trim_end_matches('}'))));
        }
        if let Some(name) = word.strip_prefix('#') {
            return Kind::Message(name.to_owned());
        }
        if let Some(names) = word.strip_prefix('=') {
            return Kind::Enum(names.split('|').map(str::to_owned).collect());
        }
        match word {
            "string" => Kind::Text,
            "bool" => Kind::Bool,
            "int32" => Kind::Int32,
            "int64" => Kind::Int64,
            "number" => Kind::Number,
            "bytes" => Kind::Bytes,
            "time" => Kind::Time,
            "duration" => Kind::Duration,
            "struct" => Kind::Struct,
            "any" => Kind::Any,
            other => unreachable!("derive_schema.py writes no such type: {other}"),
        }
    }

    /// The character that a value of this kind must begin with, where there is only one.
    pub fn opens_with(&self) -> Option<char> {
        match self {
            Kind::List(_) => Some('['),
            Kind::Message(_) | Kind::Map(_) | Kind::Struct => Some('{'),
            Kind::Text => Some('"'),
            Kind::Bool
            | Kind::Int32
            | Kind::Int64
            | Kind::Number
            | Kind::Bytes
            | Kind::Time
            | Kind::Duration
            | Kind::Any
            | Kind::Enum(_) => None,
        }
    }

    /// Whether a whole number may stand here.
    pub fn takes_whole(&self, value: i64) -> bool {
        match self {
            Kind::Int32 | Kind::Enum(_) => i32::try_from(value).is_ok(),
            Kind::Int64 | Kind::Number | Kind::Any => true,
            Kind::Text | Kind::Bool | Kind::Bytes | Kind::Time | Kind::Duration => false,
            Kind::Struct | Kind::Message(_) | Kind::List(_) | Kind::Map(_) => false,
        }
    }

    /// Whether any number may stand here.
    pub fn takes_number(&self, value: f64) -> bool {
        let whole = value.fract() == 0.0 && value.abs() < 9e15;
        if whole && matches!(self, Kind::Int32 | Kind::Int64) {
            return self.takes_whole(value as i64);
        }
        matches!(self, Kind::Number | Kind::Any)
    }

    /// Whether a string may stand here.
    pub fn takes_text(&self, value: &str) -> bool {
        match self {
            Kind::Text | Kind::Any => true,
            Kind::Int32 => value.parse::<i32>().is_ok(),
            Kind::Int64 => value.parse::<i64>().is_ok(),
            Kind::Number => value.parse::<f64>().is_ok(),
            Kind::Bytes => looks_like_base64(value),
            Kind::Time => value.parse::<jiff::Timestamp>().is_ok(),
            Kind::Duration => {
                value.strip_suffix('s').is_some_and(|seconds| seconds.parse::<f64>().is_ok())
            }
            Kind::Enum(names) => names.iter().any(|name| name.eq_ignore_ascii_case(value)),
            Kind::Bool | Kind::Struct | Kind::Message(_) | Kind::List(_) | Kind::Map(_) => false,
        }
    }

    /// How the service calls it in its messages.
    pub fn type_name(&self) -> String {
        match self {
            Kind::Text | Kind::Enum(_) => "TYPE_STRING".to_owned(),
            Kind::Bool => "TYPE_BOOL".to_owned(),
            Kind::Int32 => "TYPE_INT32".to_owned(),
            Kind::Int64 => "TYPE_INT64".to_owned(),
            Kind::Number => "TYPE_DOUBLE".to_owned(),
            Kind::Bytes => "TYPE_BYTES".to_owned(),
            Kind::Time => "type.googleapis.com/google.protobuf.Timestamp".to_owned(),
            Kind::Duration => "type.googleapis.com/google.protobuf.Duration".to_owned(),
            Kind::Any => "type.googleapis.com/google.protobuf.Value".to_owned(),
            Kind::Struct | Kind::Map(_) => "type.googleapis.com/google.protobuf.Struct".to_owned(),
            Kind::Message(name) => {
                format!("type.googleapis.com/google.ai.generativelanguage.v1main.{name}")
            }
            Kind::List(item) => item.type_name(),
        }
    }
}

/// The fields of a message, under both spellings.
pub type Fields = HashMap<String, Field>;

/// A field of a message.
#[derive(Debug, Clone)]
pub struct Field {
    /// Its name in camelCase.
    pub camel: String,
    /// Its name in snake_case.
    pub snake: String,
    /// Its type.
    pub kind: Kind,
}

/// All message types by name.
pub static MESSAGES: LazyLock<HashMap<String, Fields>> = LazyLock::new(|| {
    let words: HashMap<String, HashMap<String, String>> =
        serde_json::from_str(include_str!("schema/schema.json")).expect("schema.json is ours");
    words.into_iter().map(|(message, fields)| (message, both_spellings(fields))).collect()
});

fn both_spellings(fields: HashMap<String, String>) -> Fields {
    let mut both = Fields::new();
    for (camel, word) in fields {
        let snake = snake_case(&camel);
        let field = Field { camel: camel.clone(), snake, kind: Kind::parse(&word) };
        both.insert(field.snake.clone(), field.clone());
        both.insert(camel, field);
    }
    both
}

fn snake_case(camel: &str) -> String {
    let mut snake = String::with_capacity(camel.len() + 4);
    for c in camel.chars() {
        if c.is_ascii_uppercase() {
            snake.push('_');
        }
        snake.push(c.to_ascii_lowercase());
    }
    snake
}

fn looks_like_base64(text: &str) -> bool {
    let body = text.trim_end_matches('=');
    text.len() - body.len() <= 2
        && body.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'-' | b'_'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_that_the_schema_refers_to_is_in_it() {
        fn refers(kind: &Kind) -> Option<&str> {
            match kind {
                Kind::Message(name) => Some(name),
                Kind::List(inner) | Kind::Map(inner) => refers(inner),
                Kind::Text
                | Kind::Bool
                | Kind::Int32
                | Kind::Int64
                | Kind::Number
                | Kind::Bytes
                | Kind::Time
                | Kind::Duration
                | Kind::Any
                | Kind::Struct
                | Kind::Enum(_) => None,
            }
        }
        for (message, fields) in MESSAGES.iter() {
            for field in fields.values() {
                if let Some(name) = refers(&field.kind) {
                    assert!(MESSAGES.contains_key(name), "{message}.{} → {name}", field.snake);
                }
            }
        }
    }
}
