//! The `usage` of a result of the OpenAI-compatible layer.
//!
//! The layer has been seen to name its counts in camelCase (API contract, section 11), where every
//! reader of OpenAI's format looks for `prompt_tokens` and counts nothing. They get the names they
//! should have; everything else stays byte for byte as it came.

use std::borrow::Cow;

use serde::de::MapAccess;
use serde_json::value::RawValue;

use super::super::loose::{Shape, number, read};
use super::result::usage_of;
use crate::engine::job::Tokens;

/// A response whose usage has the names of OpenAI's format.
pub fn repaired(response: &str) -> Cow<'_, str> {
    let Some(usage) = usage_of(response) else { return Cow::Borrowed(response) };
    match renamed(usage) {
        None => Cow::Borrowed(response),
        Some(mended) => {
            let start = usage.as_ptr().addr() - response.as_ptr().addr();
            let (before, after) = (&response[..start], &response[start + usage.len()..]);
            Cow::Owned(format!("{before}{mended}{after}"))
        }
    }
}

/// The counts of a usage, whatever its names look like.
pub fn tokens(usage: &str) -> Tokens {
    let all = counts(usage);
    let raw = |name: &str| all.iter().find(|(n, _)| snake(n) == name).map(|(_, raw)| raw.get());
    let count = |name: &str| raw(name).and_then(number::<u64>).unwrap_or(0);
    let detail = |name: &str, inner: &str| {
        let details = raw(name).map(counts).unwrap_or_default();
        let found = details.iter().find(|(n, _)| snake(n) == inner);
        found.and_then(|(_, raw)| number::<u64>(raw.get())).unwrap_or(0)
    };
    let (prompt, completion) = (count("prompt_tokens"), count("completion_tokens"));
    let total = count("total_tokens");
    let reasoning = detail("completion_tokens_details", "reasoning_tokens");
    // OpenAI counts thoughts among the completion; what the total has beyond both can be nothing
    // else either.
    let beyond = total.saturating_sub(prompt.saturating_add(completion));
    let (output, thinking) = match beyond {
        0 => (completion.saturating_sub(reasoning), reasoning),
        beyond => (completion, beyond),
    };
    let cached = detail("prompt_tokens_details", "cached_tokens");
    Tokens { prompt, output, thinking, cached, total }
}

fn counts(raw: &str) -> Vec<(String, &RawValue)> {
    read::<Counts<'_>>(raw).unwrap_or_default().0
}

/// An object with its names in snake_case, and the names inside it; `None` if they were already.
fn renamed(object: &str) -> Option<String> {
    let Counts(members) = read(object)?;
    let is_right = |(name, raw): &(String, &RawValue)| {
        *name == snake(name) && !raw.get().starts_with('{')
            || *name == snake(name) && renamed(raw.get()).is_none()
    };
    if members.iter().all(is_right) {
        return None;
    }
    let names: Vec<&str> = members.iter().map(|(name, _)| name.as_str()).collect();
    let mended = members.iter().map(|(name, raw)| {
        let right = snake(name);
        // A count that is there under both names keeps them.
        let right = if names.contains(&right.as_str()) { name.clone() } else { right };
        let inner = renamed(raw.get()).unwrap_or_else(|| raw.get().to_owned());
        format!("{}:{inner}", serde_json::Value::from(right))
    });
    Some(format!("{{{}}}", mended.collect::<Vec<_>>().join(",")))
}

/// `promptTokens` becomes `prompt_tokens`.
fn snake(name: &str) -> String {
    let mut snake = String::with_capacity(name.len() + 4);
    for (at, c) in name.char_indices() {
        if c.is_ascii_uppercase() && at > 0 {
            snake.push('_');
        }
        snake.push(c.to_ascii_lowercase());
    }
    snake
}

/// The members of an object in their order; none of anything else.
#[derive(Default)]
struct Counts<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Shape<'de> for Counts<'de> {
    fn member<A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<(), A::Error> {
        self.0.push((name.to_owned(), map.next_value()?));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_names_of_the_usage_are_mended() {
        let camel = r#"{"status_code":200, "body": {"someName": 1e400, "usage": {"promptTokens": 5,
            "completionTokensDetails": {"reasoningTokens":7}, "totalTokens":"12"}, "modelVersion":"x"}}"#;
        let expected = r#"{"status_code":200, "body": {"someName": 1e400, "usage": {"prompt_tokens":5,"completion_tokens_details":{"reasoning_tokens":7},"total_tokens":"12"}, "modelVersion":"x"}}"#;
        assert_eq!(repaired(camel), expected);
    }

    #[test]
    fn a_usage_that_is_right_stays_byte_for_byte() {
        for response in [
            r#"{"body": {"usage": { "prompt_tokens" : 5 , "prompt_tokens_details": {"cached_tokens":1}}}}"#,
            r#"{"body": {"usage": null}}"#,
            r#"{"body": {"usage": [1]}}"#,
            r#"{"body": {}}"#,
            r#"{"body": null}"#,
            "{}",
        ] {
            assert!(matches!(repaired(response), Cow::Borrowed(same) if same == response));
        }
    }

    #[test]
    fn a_count_under_both_names_loses_neither() {
        let both = r#"{"body":{"usage":{"promptTokens":5,"prompt_tokens":6}}}"#;
        assert_eq!(repaired(both), both);
    }

    #[test]
    fn thoughts_are_told_apart_where_they_are_counted() {
        let usage = r#"{"prompt_tokens":4,"completion_tokens":10,"total_tokens":14,
            "completion_tokens_details":{"reasoning_tokens":6},"prompt_tokens_details":{"cached_tokens":2}}"#;
        let expected = Tokens { prompt: 4, output: 4, thinking: 6, cached: 2, total: 14 };
        assert_eq!(tokens(usage), expected);
    }
}
