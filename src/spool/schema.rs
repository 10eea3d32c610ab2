//! Whether an answer fits the schema that its own request asks for.
//!
//! The first candidate counts, without its thoughts. Schemas come from users and answers from
//! outside: nothing is fetched for a schema, what can not be used as one is told and checks nothing,
//! and what is said of an answer names the place, not what stands there. A schema is read once for
//! all lines that have the same.

use std::collections::HashMap;

use jsonschema::Validator;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::loose::cut;
use super::openapi::to_json_schema;

/// Whether an answer fits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fit {
    /// It does, or nothing was asked for.
    Fits,
    /// It does not: where, and what is wrong.
    Misfit(String),
    /// The schema can not be used.
    Unknown,
}

/// The schemas met so far.
#[derive(Default)]
pub struct Schemas {
    known: HashMap<String, Option<Validator>>,
}

impl Schemas {
    /// Compares a response with the schema of its request, both as JSON text.
    pub fn fit(&mut self, request: &[u8], response: &str) -> Fit {
        let Some(settings) = settings(request) else { return Fit::Fits };
        let Some((name, schema)) = settings.schema() else { return Fit::Fits };
        let Some(text) = said(response) else { return Fit::Fits };
        let value = match settings.is_bare_word() {
            true => Value::String(text.trim().to_owned()),
            false => match serde_json::from_str(&text) {
                Ok(value) => value,
                Err(error) => return Fit::Misfit(format!("it is no JSON: {error}")),
            },
        };
        let Some(validator) = self.validator(name, schema.get()) else { return Fit::Unknown };
        match validator.iter_errors(&value).next() {
            None => Fit::Fits,
            Some(error) => {
                let place = error.instance_path().to_string();
                let place = if place.is_empty() { "its root" } else { cut(&place, PLACE_MAX) };
                let what = error.masked_with("what stands there").to_string();
                Fit::Misfit(format!("at {place}: {}", cut(&what, WHAT_MAX)))
            }
        }
    }

    fn validator(&mut self, name: &str, schema: &str) -> Option<&Validator> {
        let key = format!("{name} {schema}");
        if !self.known.contains_key(&key) && self.known.len() >= KNOWN_MAX {
            self.known.clear();
        }
        let compile = |_: &String| {
            let written: Value = serde_json::from_str(schema).ok()?;
            let schema = if name == OPENAPI { to_json_schema(&written) } else { written };
            jsonschema::validator_for(&schema).ok()
        };
        self.known.entry(key).or_insert_with_key(compile).as_ref()
    }
}

/// What a request says of its answer's form.
#[derive(Deserialize)]
struct Settings<'a> {
    #[serde(borrow, default, rename = "responseSchema", alias = "response_schema")]
    openapi: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "responseJsonSchema", alias = "response_json_schema")]
    json: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "_responseJsonSchema")]
    hidden: Option<&'a RawValue>,
    #[serde(default, rename = "responseMimeType", alias = "response_mime_type")]
    mime: Option<String>,
}

impl<'a> Settings<'a> {
    fn schema(&self) -> Option<(&'static str, &'a RawValue)> {
        let json = self.json.or(self.hidden).map(|schema| ("responseJsonSchema", schema));
        let found = self.openapi.map(|schema| (OPENAPI, schema)).or(json);
        found.filter(|(_, schema)| schema.get() != "null")
    }

    /// The answer is a word of an enumeration, not JSON.
    fn is_bare_word(&self) -> bool {
        self.mime.as_deref() == Some("text/x.enum")
    }
}

fn settings(request: &[u8]) -> Option<Settings<'_>> {
    #[derive(Deserialize)]
    struct Request<'a> {
        #[serde(borrow, rename = "generationConfig", alias = "generation_config")]
        settings: Settings<'a>,
    }
    serde_json::from_slice::<Request<'_>>(request).ok().map(|request| request.settings)
}

/// The text of an answer; `None` if it holds none, such as one that calls a function.
fn said(response: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Response {
        #[serde(default)]
        candidates: Vec<Candidate>,
    }
    #[derive(Deserialize)]
    struct Candidate {
        #[serde(default)]
        content: Content,
    }
    #[derive(Deserialize, Default)]
    struct Content {
        #[serde(default)]
        parts: Vec<Part>,
    }
    #[derive(Deserialize)]
    struct Part {
        text: Option<String>,
        #[serde(default)]
        thought: bool,
    }
    let response: Response = serde_json::from_str(response).ok()?;
    let parts = response.candidates.into_iter().next()?.content.parts;
    let texts = parts.into_iter().filter(|part| !part.thought).filter_map(|part| part.text);
    texts.reduce(|said, more| said + &more)
}

/// The name of the API's own kind of schema.
const OPENAPI: &str = "responseSchema";

/// Schemas kept, at most.
const KNOWN_MAX: usize = 64;

/// Bytes of a place that are told.
const PLACE_MAX: usize = 200;

/// Bytes of what is wrong that are told.
const WHAT_MAX: usize = 300;

#[cfg(test)]
mod tests {
    use super::*;

    fn fit(settings: &str, text: &str) -> Fit {
        let request = format!(r#"{{"contents":[],"generationConfig":{settings}}}"#);
        let parts = format!(r#"[{{"text":"hm","thought":true}},{{"text":{}}}]"#, Value::from(text));
        let response = format!(r#"{{"candidates":[{{"content":{{"parts":{parts}}}}}]}}"#);
        Schemas::default().fit(request.as_bytes(), &response)
    }

    const WORDS: &str = r#"{"responseSchema":{"type":"OBJECT","required":["words"],"properties":{
        "words":{"type":"ARRAY","items":{"type":"STRING"}}}}}"#;

    #[test]
    fn an_answer_that_fits_is_one() {
        assert_eq!(fit(WORDS, r#"{"words":["a"]}"#), Fit::Fits);
        let json = r#"{"response_json_schema":{"type":["string","null"]}}"#;
        assert_eq!(fit(json, "null"), Fit::Fits);
        let word = r#"{"responseMimeType":"text/x.enum","responseSchema":{"type":"STRING","enum":["yes","no"]}}"#;
        assert_eq!(fit(word, "yes\n"), Fit::Fits);
        assert_ne!(fit(word, "perhaps"), Fit::Fits);
        assert_eq!(fit("{}", "what it likes"), Fit::Fits);
        assert_eq!(fit(r#"{"responseSchema":null}"#, "what it likes"), Fit::Fits);
    }

    #[test]
    fn what_does_not_fit_is_named_by_its_place_and_not_repeated() {
        let Fit::Misfit(what) = fit(WORDS, r#"{"words":["a", {"long":"secret"}]}"#) else {
            panic!("it does not fit");
        };
        assert!(what.starts_with("at /words/1: ") && what.contains("string"), "{what}");
        assert!(!what.contains("secret"), "{what}");
        let Fit::Misfit(what) = fit(WORDS, "[]") else { panic!("it does not fit") };
        assert!(what.starts_with("at its root: "), "{what}");
        let Fit::Misfit(what) = fit(WORDS, "Here it is: {") else { panic!("it does not fit") };
        assert!(what.starts_with("it is no JSON: "), "{what}");
    }

    #[test]
    fn a_schema_that_can_not_be_used_is_told_and_nothing_is_fetched() {
        for schema in [r#"{"$ref":"http://127.0.0.1:9/schema.json"}"#, r#"{"type":"nonsense"}"#] {
            let settings = format!(r#"{{"responseJsonSchema":{schema}}}"#);
            assert_eq!(fit(&settings, "{}"), Fit::Unknown, "{schema}");
        }
    }

    #[test]
    fn an_answer_without_text_is_not_compared() {
        let request = format!(r#"{{"generationConfig":{WORDS}}}"#);
        let call = r#"{"candidates":[{"content":{"parts":[{"functionCall":{"name":"f"}}]}}]}"#;
        assert_eq!(Schemas::default().fit(request.as_bytes(), call), Fit::Fits);
    }
}
