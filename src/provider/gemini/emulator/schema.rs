//! Checks JSON against the message types of the API, as strictly as the service does.
//!
//! The types are those of Google's discovery document. Bodies are checked while they are parsed:
//! nothing is kept of them, so a row of any size costs no memory beyond the row. Names are accepted
//! in camelCase and in snake_case.
//!
//! Two manners of complaint (API contract, 3.6): for a request body all offences are collected,
//! for a row of an input file the first one ends the check.

use std::borrow::Cow;
use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::schema::{Fields, Kind, MESSAGES};

/// Something in a request body that the API does not accept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offence {
    /// Where, such as `batch.input_config.requests.requests[0].request`; empty at the top.
    pub path: String,
    /// The sentence that the service says about it.
    pub sentence: String,
}

/// Checks a whole body as the message `message` and names all offences, up to 100.
///
/// # Errors
/// If it is not JSON at all: what the parser says.
pub fn offences(message: &str, json: &[u8]) -> Result<Vec<Offence>, serde_json::Error> {
    let mut found = Vec::new();
    run(message, json, &mut Manner::All(&mut found))?;
    Ok(found)
}

/// Checks one JSON value as the message `message` up to the first offence.
///
/// # Errors
/// What is wrong, and after how many bytes.
pub fn first_offence(message: &str, json: &[u8]) -> Result<(), Misfit> {
    run(message, json, &mut Manner::First).map_err(|error| Misfit::of(&error))
}

/// The first thing wrong with a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misfit {
    /// Bytes into the value, from 1.
    pub column: usize,
    /// What is wrong.
    pub what: String,
}

impl Misfit {
    /// What the parser ran into. Only for values without line breaks.
    pub fn of(error: &serde_json::Error) -> Misfit {
        let text = error.to_string();
        let what = text.rsplit_once(" at line ").map_or(text.as_str(), |(what, _)| what);
        Misfit { column: error.column(), what: what.to_owned() }
    }
}

fn run(message: &str, json: &[u8], manner: &mut Manner<'_>) -> Result<(), serde_json::Error> {
    let mut parser = serde_json::Deserializer::from_slice(json);
    let kind = Kind::Message(message.to_owned());
    Check { kind: &kind, path: &Path::Top, manner }.deserialize(&mut parser)?;
    parser.end()
}

enum Manner<'a> {
    First,
    All(&'a mut Vec<Offence>),
}

impl Manner<'_> {
    /// Files a complaint; an error if the check is to end here.
    fn complain<E: de::Error>(
        &mut self,
        short: impl FnOnce() -> String,
        long: impl FnOnce() -> Offence,
    ) -> Result<(), E> {
        match self {
            Manner::First => Err(E::custom(short())),
            Manner::All(found) if found.len() >= OFFENCES_MAX => Ok(()),
            Manner::All(found) => {
                found.push(long());
                Ok(())
            }
        }
    }
}

/// One value to be checked.
struct Check<'c, 'm> {
    kind: &'c Kind,
    path: &'c Path<'c>,
    manner: &'c mut Manner<'m>,
}

impl Check<'_, '_> {
    fn scalar<E: de::Error>(self, fits: bool, first: char, shown: &str) -> Result<(), E> {
        if fits {
            return Ok(());
        }
        let (kind, path) = (self.kind, self.path);
        self.manner.complain(
            || match kind.opens_with() {
                Some(expected) => format!("unexpected character: '{first}'; expected '{expected}'"),
                None => format!("invalid value {shown} for type {}", kind.type_name()),
            },
            || Offence {
                path: path.to_string(),
                sentence: format!("Invalid value at '{path}' ({}), {shown}", kind.type_name()),
            },
        )
    }

    fn opened<E: de::Error>(self, first: char, what: &str) -> Result<(), E> {
        let (kind, path) = (self.kind, self.path);
        self.manner.complain(
            || match kind.opens_with() {
                Some(expected) => format!("unexpected character: '{first}'; expected '{expected}'"),
                None => format!("unexpected character: '{first}'; expected a scalar value"),
            },
            || Offence {
                path: path.to_string(),
                sentence: format!(
                    "Invalid value at '{path}' ({}), Starting {what} on a scalar field",
                    path.last()
                ),
            },
        )
    }

    fn message<'de, A: MapAccess<'de>>(self, fields: &Fields, mut map: A) -> Result<(), A::Error> {
        while let Some(Name(name)) = map.next_key()? {
            match fields.get(&*name) {
                Some(field) => {
                    let path = Path::Member(self.path, &field.snake);
                    map.next_value_seed(Check {
                        kind: &field.kind,
                        path: &path,
                        manner: self.manner,
                    })?;
                }
                None => {
                    let path = self.path;
                    self.manner.complain(
                        || format!("no such field: '{}'", bounded(&name)),
                        || Offence { path: path.to_string(), sentence: unknown_name(&name, path) },
                    )?;
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Check<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        match self.kind {
            Kind::Any => deserializer.deserialize_ignored_any(IgnoredAny).map(|_| ()),
            Kind::Text
            | Kind::Bool
            | Kind::Int32
            | Kind::Int64
            | Kind::Number
            | Kind::Bytes
            | Kind::Time
            | Kind::Duration
            | Kind::Struct
            | Kind::Enum(_)
            | Kind::Message(_)
            | Kind::List(_)
            | Kind::Map(_) => deserializer.deserialize_any(self),
        }
    }
}

impl<'de> Visitor<'de> for Check<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: de::Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<(), E> {
        let fits = matches!(self.kind, Kind::Bool);
        let shown = value.to_string();
        self.scalar(fits, if value { 't' } else { 'f' }, &shown)
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<(), E> {
        let fits = self.kind.takes_whole(value);
        let shown = value.to_string();
        self.scalar(fits, shown.chars().next().unwrap_or('0'), &shown)
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<(), E> {
        match i64::try_from(value) {
            Ok(value) => self.visit_i64(value),
            Err(_) => {
                let fits = matches!(self.kind, Kind::Number);
                self.scalar(fits, '1', &value.to_string())
            }
        }
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<(), E> {
        let fits = self.kind.takes_number(value);
        let shown = value.to_string();
        self.scalar(fits, shown.chars().next().unwrap_or('0'), &shown)
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<(), E> {
        let fits = self.kind.takes_text(value);
        let shown = format!("\"{}\"", bounded(value));
        self.scalar(fits, '"', &shown)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        if let Kind::List(kind) = self.kind {
            let mut index = 0;
            loop {
                let path = Path::Item(self.path, index);
                let item = Check { kind, path: &path, manner: self.manner };
                if seq.next_element_seed(item)?.is_none() {
                    return Ok(());
                }
                index += 1;
            }
        }
        self.opened('[', "an array")?;
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut kind = self.kind;
        // A single message where a list belongs is accepted in bodies, but not in rows of a file.
        if let (Kind::List(item), Manner::All(_)) = (kind, &*self.manner) {
            kind = item;
        }
        match kind {
            Kind::Message(name) => {
                let fields = MESSAGES.get(name).ok_or_else(|| {
                    de::Error::custom(format!("message type {name} is not in schema.json"))
                })?;
                self.message(fields, map)
            }
            Kind::Map(values) => {
                while let Some(Name(name)) = map.next_key()? {
                    let path = Path::Entry(self.path, &name);
                    map.next_value_seed(Check { kind: values, path: &path, manner: self.manner })?;
                }
                Ok(())
            }
            Kind::Struct => {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(())
            }
            Kind::Text
            | Kind::Bool
            | Kind::Int32
            | Kind::Int64
            | Kind::Number
            | Kind::Bytes
            | Kind::Time
            | Kind::Duration
            | Kind::Enum(_)
            | Kind::List(_)
            | Kind::Any => {
                self.opened('{', "an object")?;
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(())
            }
        }
    }
}

/// A member's name, borrowed where it has no escapes.
#[derive(serde::Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

/// Where in a body a value stands.
enum Path<'a> {
    Top,
    Member(&'a Path<'a>, &'a str),
    Item(&'a Path<'a>, usize),
    Entry(&'a Path<'a>, &'a str),
}

impl Path<'_> {
    fn last(&self) -> &str {
        match self {
            Path::Top => "",
            Path::Member(_, name) | Path::Entry(_, name) => name,
            Path::Item(parent, _) => parent.last(),
        }
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Path::Top => Ok(()),
            Path::Member(Path::Top, name) => f.write_str(name),
            Path::Member(parent, name) => write!(f, "{parent}.{name}"),
            Path::Item(parent, index) => write!(f, "{parent}[{index}]"),
            Path::Entry(parent, key) => write!(f, "{parent}[\"{}\"]", bounded(key)),
        }
    }
}

/// The sentence about a name that a message does not have.
fn unknown_name(name: &str, path: &Path<'_>) -> String {
    let name = bounded(name);
    let path = path.to_string();
    let at = if path.is_empty() { String::new() } else { format!(" at '{path}'") };
    format!("Invalid JSON payload received. Unknown name \"{name}\"{at}: Cannot find field.")
}

/// A client's text as it may stand in a message.
fn bounded(text: &str) -> String {
    text.chars().take(100).collect()
}

/// Offences named in one answer.
const OFFENCES_MAX: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    fn sentences(body: &str) -> Vec<String> {
        offences("BatchGenerateContentRequest", body.as_bytes())
            .expect("JSON")
            .into_iter()
            .map(|offence| offence.sentence)
            .collect()
    }

    #[test]
    fn an_unknown_name_is_told_with_its_path_in_snake_case() {
        let body = r#"{"batch":{"inputConfig":{"requests":{"requests":[
            {"request":{"generationConfig":{"thinking_config":{},"topQ":1}}},
            {"request":{"contents":[{"parts":[{"text":"x"}]}]},"metadata":{"any":[1]}}]}}}}"#;
        assert_eq!(
            sentences(body),
            ["Invalid JSON payload received. Unknown name \"topQ\" at \
              'batch.input_config.requests.requests[0].request.generation_config': \
              Cannot find field."]
        );
    }

    #[test]
    fn every_offence_of_a_body_is_named() {
        let body = r#"{"foo":1,"batch":{"display_name":7,
            "inputConfig":{"requests":{"requests":[{"request":{"contents":[{"parts":[{"text":{}}]}]}}]}}}}"#;
        assert_eq!(
            sentences(body),
            [
                "Invalid JSON payload received. Unknown name \"foo\": Cannot find field.",
                "Invalid value at 'batch.display_name' (TYPE_STRING), 7",
                "Invalid value at 'batch.input_config.requests.requests[0].request.contents[0]\
                 .parts[0].text' (text), Starting an object on a scalar field",
            ]
        );
    }

    #[test]
    fn a_row_is_checked_up_to_its_first_offence_with_the_column() {
        let row = br#"{"contents":[{"parts":[{"text":"a"}]}],"thinking_config":{},"more":1}"#;
        let misfit = first_offence("GenerateContentRequest", row).expect_err("refused");
        assert_eq!(misfit.what, "no such field: 'thinking_config'");
        assert!((40..60).contains(&misfit.column), "{misfit:?}");
        let misfit = first_offence("GenerateContentRequest", br#"{"systemInstruction":["a"]}"#)
            .expect_err("refused");
        assert_eq!(misfit.what, "unexpected character: '['; expected '{'");
    }

    #[test]
    fn values_of_both_spellings_and_both_number_forms_are_accepted() {
        let row = br#"{"contents":[{"role":"user","parts":[{"inline_data":{"mimeType":"image/png","data":"aGk="}}]}],
            "generation_config":{"temperature":0.5,"maxOutputTokens":"12","top_k":40.0,"seed":null,
            "responseSchema":{"type":"object","properties":{"a":{"type":"STRING","maxLength":"3"}}}},
            "cachedContent":null}"#;
        assert_eq!(first_offence("GenerateContentRequest", row), Ok(()));
    }
}
