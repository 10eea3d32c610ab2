//! What an answer says, as text for a cell of a table.

use std::borrow::Cow;

use serde::de::MapAccess;
use serde_json::value::RawValue;

use crate::spool::loose::{Loose, Shape, read, skip, take};

/// What is shown of a response.
#[derive(Default)]
pub struct Answer<'a> {
    first: Candidate<'a>,
    embedding: Embedding<'a>,
}

impl Answer<'_> {
    /// The text of the first candidate, without its thoughts; of an embedding the list of its
    /// numbers; empty if there is neither.
    pub fn text(response: &str) -> String {
        let Some(Answer { first, embedding }) = read(response) else { return String::new() };
        match embedding.values {
            Some(values) => values.get().to_owned(),
            None => first.content.parts.whole(),
        }
    }
}

impl<'de> Shape<'de> for Answer<'de> {
    fn member<A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<(), A::Error> {
        match name {
            "candidates" => Loose(self.first) = map.next_value()?,
            "embedding" => Loose(self.embedding) = map.next_value()?,
            _ => skip(map)?,
        }
        Ok(())
    }
}

#[derive(Default)]
struct Embedding<'a> {
    values: Option<&'a RawValue>,
}

impl<'de> Shape<'de> for Embedding<'de> {
    fn member<A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<(), A::Error> {
        if name == "values" { take(&mut self.values, map) } else { skip(map) }
    }
}

/// The first candidate; others are not absorbed.
#[derive(Default)]
struct Candidate<'a> {
    content: Content<'a>,
}

impl<'de> Shape<'de> for Candidate<'de> {
    fn member<A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<(), A::Error> {
        if name == "content" {
            Loose(self.content) = map.next_value()?;
            return Ok(());
        }
        skip(map)
    }
}

#[derive(Default)]
struct Content<'a> {
    parts: Part<'a>,
}

impl<'de> Shape<'de> for Content<'de> {
    fn member<A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<(), A::Error> {
        if name == "parts" {
            Loose(self.parts) = map.next_value()?;
            return Ok(());
        }
        skip(map)
    }
}

/// One part, with the texts of those after it.
#[derive(Default)]
struct Part<'a> {
    text: Option<&'a RawValue>,
    is_thought: bool,
    after: String,
}

impl Part<'_> {
    fn whole(self) -> String {
        let text = self.text.filter(|_| !self.is_thought).map(said).unwrap_or_default();
        if self.after.is_empty() { text.into_owned() } else { text.into_owned() + &self.after }
    }
}

impl<'de> Shape<'de> for Part<'de> {
    fn member<A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<(), A::Error> {
        match name {
            "text" => take(&mut self.text, map),
            "thought" => {
                self.is_thought |= map.next_value::<&RawValue>()?.get() == "true";
                Ok(())
            }
            _ => skip(map),
        }
    }

    fn absorb(&mut self, next: Self) {
        self.after.push_str(&next.whole());
    }
}

/// A string, or what stands there in its place.
fn said(raw: &RawValue) -> Cow<'_, str> {
    match serde_json::from_str::<String>(raw.get()) {
        Ok(text) => Cow::Owned(text),
        // Half a character, perhaps.
        Err(_) => Cow::Borrowed(raw.get().trim_matches('"')),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_the_text_of_the_first_candidate_without_its_thoughts() {
        for (response, expected) in [
            (r#"{"candidates":[{"content":{"parts":[{"text":"a"}]}}]}"#, "a"),
            (
                r#"{"candidates":[{"content":{"parts":[{"thought":true,"text":"hm"},{"text":"a\n"},
                {"text":"no","thought":true},{"inlineData":{}},{"text":"b"}]}},
                {"content":{"parts":[{"text":"other"}]}}]}"#,
                "a\nb",
            ),
            (r#"{"candidates":[{"content":{"parts":[{"text":"\ud83d!"}]}}]}"#, r"\ud83d!"),
            (r#"{"candidates":[]}"#, ""),
            (r#"{"embedding":{"values":[0.5,-1]}}"#, "[0.5,-1]"),
            ("[]", ""),
            ("null", ""),
        ] {
            assert_eq!(Answer::text(response), expected, "{response}");
        }
    }
}
