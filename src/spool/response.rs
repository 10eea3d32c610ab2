//! What a response says of itself (API contract, 5.5, 5.7): content, blocks, tokens.
//!
//! Only looked at, never copied or changed. An answer whose insides we cannot make sense of still
//! counts as one: it was paid for.

use serde::de::MapAccess;
use serde_json::value::RawValue;

use super::loose::{Loose, Shape, count, cut, present, read, skip, take};
use crate::engine::job::Tokens;
use crate::engine::verdict::{AnswerFacts, Verdict, judge_answer};

/// What a response says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Answer {
    /// Why the prompt was blocked.
    pub block_reason: Option<String>,
    /// Why the first candidate ended.
    pub finish_reason: Option<String>,
    /// Whether there is anything in it that is not a mere thought.
    pub has_content: bool,
    /// What it cost.
    pub tokens: Tokens,
}

impl Answer {
    /// Reads what matters out of a response.
    pub fn read(response: &str) -> Answer {
        let Some(seen) = read::<Response<'_>>(response) else {
            return Answer { has_content: true, ..Answer::default() };
        };
        let mut tokens = seen.usage;
        if tokens == Tokens::default() {
            // Older embedding models count beside the embedding (API contract, 5.7).
            tokens.prompt = seen.token_count;
            tokens.total = seen.token_count;
        }
        Answer {
            block_reason: seen.block_reason.and_then(word).filter(|word| !unspecified(word)),
            finish_reason: seen.candidates.finish_reason.and_then(word),
            has_content: seen.has_embedding || seen.candidates.has_content,
            tokens,
        }
    }

    /// What the answer means.
    pub fn verdict(&self) -> Verdict {
        judge_answer(AnswerFacts {
            block_reason: self.block_reason.as_deref(),
            finish_reason: self.finish_reason.as_deref(),
            has_content: self.has_content,
        })
    }
}

/// An enum's word; the longest real one has about 30 letters.
fn word(raw: &RawValue) -> Option<String> {
    serde_json::from_str::<String>(raw.get()).ok().map(|text| cut(&text, 64).to_owned())
}

fn unspecified(word: &str) -> bool {
    word == "BLOCK_REASON_UNSPECIFIED"
}

#[derive(Default)]
struct Response<'a> {
    block_reason: Option<&'a RawValue>,
    candidates: Candidate<'a>,
    has_embedding: bool,
    usage: Tokens,
    token_count: u64,
}

impl<'de> Shape<'de> for Response<'de> {
    fn member<A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<(), A::Error> {
        match name {
            "promptFeedback" => {
                let Loose(Feedback { block_reason }) = map.next_value()?;
                self.block_reason = block_reason;
            }
            "candidates" => Loose(self.candidates) = map.next_value()?,
            "usageMetadata" => Loose(self.usage) = map.next_value()?,
            "embedding" => self.has_embedding |= present(map)?,
            "tokenCount" => count(&mut self.token_count, map)?,
            _ => skip(map)?,
        }
        Ok(())
    }
}

#[derive(Default)]
struct Feedback<'a> {
    block_reason: Option<&'a RawValue>,
}

impl<'de> Shape<'de> for Feedback<'de> {
    fn member<A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<(), A::Error> {
        if name == "blockReason" { take(&mut self.block_reason, map) } else { skip(map) }
    }
}

#[derive(Default)]
struct Candidate<'a> {
    finish_reason: Option<&'a RawValue>,
    has_content: bool,
}

impl<'de> Shape<'de> for Candidate<'de> {
    fn member<A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<(), A::Error> {
        match name {
            "finishReason" => take(&mut self.finish_reason, map),
            "content" => {
                let Loose(Content { has_content }) = map.next_value()?;
                self.has_content |= has_content;
                Ok(())
            }
            _ => skip(map),
        }
    }

    fn absorb(&mut self, next: Self) {
        self.has_content |= next.has_content;
    }
}

#[derive(Default)]
struct Content {
    has_content: bool,
}

impl<'de> Shape<'de> for Content {
    fn member<A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<(), A::Error> {
        if name != "parts" {
            return skip(map);
        }
        let Loose(part): Loose<Part> = map.next_value()?;
        self.has_content |= part.any_counts || part.counts();
        Ok(())
    }
}

/// One part of a content, or what was absorbed of several.
#[derive(Default)]
struct Part {
    is_thought: bool,
    carries: bool,
    any_counts: bool,
}

impl Part {
    fn counts(&self) -> bool {
        self.carries && !self.is_thought
    }
}

impl<'de> Shape<'de> for Part {
    fn member<A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<(), A::Error> {
        match name {
            "thought" => self.is_thought |= map.next_value::<&RawValue>()?.get() == "true",
            // These only describe a part.
            "thoughtSignature" | "videoMetadata" | "mediaResolution" | "partMetadata" => skip(map)?,
            // Text, data, calls, code, and whatever kinds of content are yet to come.
            _ => self.carries |= present(map)?,
        }
        Ok(())
    }

    fn absorb(&mut self, next: Self) {
        self.any_counts |= next.counts();
    }
}

impl<'de> Shape<'de> for Tokens {
    fn member<A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<(), A::Error> {
        match name {
            "promptTokenCount" => count(&mut self.prompt, map),
            "candidatesTokenCount" => count(&mut self.output, map),
            "thoughtsTokenCount" => count(&mut self.thinking, map),
            "cachedContentTokenCount" => count(&mut self.cached, map),
            "totalTokenCount" => count(&mut self.total, map),
            _ => skip(map),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_read_as_numbers_and_as_strings() {
        let answer = Answer::read(
            r#"{"usageMetadata":{"promptTokenCount":5,"candidatesTokenCount":"1373",
            "thoughtsTokenCount":1582,"totalTokenCount":2960,"cachedContentTokenCount":-1}}"#,
        );
        let expected = Tokens { prompt: 5, output: 1373, thinking: 1582, cached: 0, total: 2960 };
        assert_eq!(answer.tokens, expected);
        let older = Answer::read(r#"{"tokenCount":"4","embedding":{"values":[]}}"#);
        assert_eq!((older.tokens.prompt, older.tokens.total), (4, 4));
    }

    #[test]
    fn insides_we_can_not_read_still_are_an_answer() {
        assert_eq!(Answer::read(r#"{"candidates":1e400}"#).verdict(), Verdict::Answered);
    }
}
