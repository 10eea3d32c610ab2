//! Members that every request of a queue gets which does not have them.
//!
//! The request's own members win, objects are merged member by member, and everything else (lists,
//! schemas, numbers) counts as one value. A member is the same in `camelCase` and in `snake_case`,
//! as for the API. What the user wrote is copied byte for byte, in its order; what is added comes
//! after it.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::forms::{self, Request, Wanted};
use super::prepare::{Mapper, Unmapped};
use crate::engine::job::{Family, Task};

/// The members, and for which requests they are.
pub(super) struct Defaults {
    members: Vec<Member>,
    model: String,
    task: Task,
}

/// A member with its value.
struct Member {
    name: String,
    /// The name as the API knows it.
    known: String,
    /// The value as JSON.
    value: String,
    /// The members of the value, if it is an object that is merged.
    inner: Option<Vec<Member>>,
}

impl Defaults {
    /// Members for requests in a queue with this model and task; of what is no JSON object,
    /// nothing is added.
    pub(super) fn new(object: &str, model: &str, task: Task) -> Defaults {
        let members = Member::all(object).unwrap_or_default();
        Defaults { members, model: model.to_owned(), task }
    }
}

impl Mapper for Defaults {
    fn map(&mut self, line: &[u8], out: &mut Vec<u8>) -> Result<(), Unmapped> {
        let wanted = Wanted { model: &self.model, task: self.task };
        // They are members of native requests: the OpenAI-compatible layer would refuse them.
        let native = |request: &Request| request.fate.family() == Family::Native;
        let merged = forms::examine(line, wanted).ok().filter(native).and_then(|request| {
            let text = str::from_utf8(&line[request.span.clone()]).ok()?;
            out.extend_from_slice(&line[..request.span.start]);
            merge(text, &self.members, out)?;
            out.extend_from_slice(&line[request.span.end..]);
            Some(())
        });
        if merged.is_none() {
            out.clear();
            out.extend_from_slice(line);
        }
        Ok(())
    }
}

impl Member {
    /// The members of an object, its objects among them taken apart too.
    fn all(object: &str) -> Option<Vec<Member>> {
        let Object(members) = serde_json::from_str(object).ok()?;
        let member = |(name, value): (Cow<'_, str>, &RawValue)| {
            let known = known(&name);
            let is_whole = WHOLE.contains(&known.as_str());
            let inner = if is_whole { None } else { Member::all(value.get()) };
            Member { name: name.into_owned(), known, value: value.get().to_owned(), inner }
        };
        Some(members.into_iter().map(member).collect())
    }
}

/// Writes an object with what it lacks; `None` if it is no object.
fn merge(object: &str, defaults: &[Member], out: &mut Vec<u8>) -> Option<()> {
    let Object(own) = serde_json::from_str(object).ok()?;
    let names: Vec<String> = own.iter().map(|(name, _)| known(name)).collect();
    let mut at = object.find('{')? + 1;
    out.extend_from_slice(&object.as_bytes()[..at]);
    for ((_, value), name) in own.iter().zip(&names) {
        let value = value.get();
        let start = value.as_ptr().addr() - object.as_ptr().addr();
        out.extend_from_slice(&object.as_bytes()[at..start]);
        at = start + value.len();
        let inner = defaults.iter().find(|member| member.known == *name);
        match inner.and_then(|member| member.inner.as_deref()) {
            Some(inner) if value.starts_with('{') => merge(value, inner, out)?,
            Some(_) | None => out.extend_from_slice(value.as_bytes()),
        }
    }
    let mut first = own.is_empty();
    for member in defaults.iter().filter(|member| !names.contains(&member.known)) {
        if !std::mem::take(&mut first) {
            out.push(b',');
        }
        out.extend_from_slice(serde_json::Value::from(member.name.as_str()).to_string().as_bytes());
        out.push(b':');
        out.extend_from_slice(member.value.as_bytes());
    }
    out.extend_from_slice(&object.as_bytes()[at..]);
    Some(())
}

/// The name of a member as the API knows it: `system_instruction` is `systemInstruction`.
pub fn known(name: &str) -> String {
    let mut known = String::with_capacity(name.len());
    let mut after = false;
    for c in name.chars() {
        if c == '_' && !known.is_empty() {
            after = true;
        } else if std::mem::take(&mut after) {
            known.push(c.to_ascii_uppercase());
        } else {
            known.push(c);
        }
    }
    known
}

/// The members of an object in their order.
struct Object<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Object<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Object<'a>, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Object<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object<'de>, A::Error> {
                let mut members = Vec::new();
                while let Some((Name(name), value)) = map.next_entry()? {
                    members.push((name, value));
                }
                Ok(Object(members))
            }
        }
        deserializer.deserialize_map(Members)
    }
}

/// A name, borrowed where it has no escapes.
#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

/// Half of one and half of another make no sense.
const WHOLE: [&str; 3] = ["responseSchema", "responseJsonSchema", "_responseJsonSchema"];

#[cfg(test)]
mod tests {
    use super::*;

    const DEFAULTS: &str = r#"{"systemInstruction":{"parts":[{"text":"Be brief."}]},"generationConfig":{"temperature":0.10,"thinkingConfig":{"thinkingBudget":0},"responseSchema":{"type":"STRING","enum":["a"]}}}"#;

    fn mapped(line: &str) -> String {
        let mut out = Vec::new();
        let mut defaults = Defaults::new(DEFAULTS, "m", Task::Generate);
        defaults.map(line.as_bytes(), &mut out).expect("mapped");
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn what_a_request_lacks_is_added_after_its_own_members() {
        let contents = r#""contents": [{"parts": [{"text": "é 1e400"}]}]"#;
        let added = &DEFAULTS[1..DEFAULTS.len() - 1];
        for (line, expected) in [
            (
                format!(r#" {{"key": 1,"request": {{ {contents} }} , "x": 2}}"#),
                format!(r#" {{"key": 1,"request": {{ {contents},{added} }} , "x": 2}}"#),
            ),
            (format!("{{{contents}}}"), format!("{{{contents},{added}}}")),
        ] {
            assert_eq!(mapped(&line), expected);
        }
    }

    #[test]
    fn what_a_request_has_wins_and_stays_as_it_was_written() {
        let line = r#"{"contents": [{}], "system_instruction": null, "generation_config": {"temperature" : 1.000, "thinkingConfig": {"includeThoughts": true}, "response_schema": {"type": "NUMBER"}}}"#;
        let expected = r#"{"contents": [{}], "system_instruction": null, "generation_config": {"temperature" : 1.000, "thinkingConfig": {"includeThoughts": true,"thinkingBudget":0}, "response_schema": {"type": "NUMBER"}}}"#;
        assert_eq!(mapped(line), expected);
        // Again there is nothing to add.
        assert_eq!(mapped(expected), expected);
    }

    #[test]
    fn a_value_of_another_kind_and_an_empty_object() {
        let line = r#"{"contents":[{}],"generationConfig":[],"systemInstruction":{}}"#;
        let expected = r#"{"contents":[{}],"generationConfig":[],"systemInstruction":{"parts":[{"text":"Be brief."}]}}"#;
        assert_eq!(mapped(line), expected);
    }

    #[test]
    fn a_line_that_is_no_request_is_handed_on_as_it_is() {
        for line in
            ["{", "7", r#"{"key": 1, "request": {}}"#, r#"{"contents": [{}], "model": "o"}"#]
        {
            assert_eq!(mapped(line), line);
        }
    }

    #[test]
    fn names_are_the_same_in_both_spellings() {
        for (name, as_known) in [
            ("system_instruction", "systemInstruction"),
            ("topK", "topK"),
            ("top_k", "topK"),
            ("_responseJsonSchema", "_responseJsonSchema"),
            ("_response_json_schema", "_responseJsonSchema"),
        ] {
            assert_eq!(known(name), as_known);
        }
    }
}
