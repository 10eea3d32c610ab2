//! A request whose answer was cut off, with a higher limit: where in its text the limit stands, and
//! what is to stand there.
//!
//! Only a limit that the request sets itself is raised: without one, the answer was cut off at the
//! model's own, and asking again would be as vain as expensive.

use std::ops::Range;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::index::Raise;

/// A stretch of a request that goes out otherwise than it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Splice {
    /// Where it stands in the request, bytes.
    pub at: Range<usize>,
    /// What goes out instead.
    pub text: String,
}

/// Whether a request that went out with its limit doubled `times` could go out with a higher one.
pub fn can_rise(request: &[u8], times: u8, tokens_max: u32) -> bool {
    let higher = |(_, limit): (_, u64)| doubled(limit, times) < u64::from(tokens_max);
    times < Raise::TIMES_MAX && limit_of(request).is_some_and(higher)
}

/// What is to be changed in a request so that its limit is doubled so often, but never beyond
/// `tokens_max`; `None` if nothing is.
pub fn raised(request: &[u8], times: u8, tokens_max: u32) -> Option<Splice> {
    let (at, limit) = limit_of(request)?;
    let higher = doubled(limit, times).min(u64::from(tokens_max));
    (higher > limit).then(|| Splice { at, text: higher.to_string() })
}

fn doubled(limit: u64, times: u8) -> u64 {
    limit.saturating_mul(1 << times.min(Raise::TIMES_MAX))
}

/// The limit that a request sets, and where; `None` if it sets none that we understand.
fn limit_of(request: &[u8]) -> Option<(Range<usize>, u64)> {
    #[derive(Deserialize)]
    struct Request<'a> {
        #[serde(borrow, rename = "generationConfig", alias = "generation_config")]
        settings: Settings<'a>,
    }
    #[derive(Deserialize)]
    struct Settings<'a> {
        #[serde(borrow, rename = "maxOutputTokens", alias = "max_output_tokens")]
        limit: &'a RawValue,
    }
    let found: Request<'_> = serde_json::from_slice(request).ok()?;
    let text = found.settings.limit.get();
    // The API takes a number as text too.
    let bare = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(text);
    let limit = bare.parse().ok().filter(|limit| *limit > 0)?;
    let start = text.as_ptr().addr() - request.as_ptr().addr();
    Some((start..start + text.len(), limit))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(request: &str, times: u8, tokens_max: u32) -> Option<String> {
        let splice = raised(request.as_bytes(), times, tokens_max)?;
        let mut text = request.to_owned();
        text.replace_range(splice.at, &splice.text);
        Some(text)
    }

    #[test]
    fn a_limit_is_doubled_in_its_place_up_to_the_bound_and_nothing_else_changes() {
        for (request, times, higher) in [
            (r#"{"generationConfig":{"maxOutputTokens":100}}"#, 1, "200"),
            (r#"{"generationConfig":{"maxOutputTokens":100}}"#, 3, "800"),
            (r#"{"generationConfig":{"maxOutputTokens":100}}"#, 7, "1000"),
            (r#"{"generation_config" : { "max_output_tokens" : 100 , "x":[]}}"#, 1, "200"),
        ] {
            let expected = request.replace("100", higher);
            assert_eq!(after(request, times, 1000), Some(expected));
        }
        let text =
            r#"{"generationConfig":{"maxOutputTokens":"100"},"contents":["maxOutputTokens"]}"#;
        assert_eq!(after(text, 1, 1000), Some(text.replace("\"100\"", "200")));
    }

    #[test]
    fn a_request_without_room_above_its_limit_is_left_as_it_is() {
        for request in [
            r#"{}"#,
            r#"{"generationConfig":{}}"#,
            r#"{"generationConfig":null}"#,
            r#"{"generationConfig":{"maxOutputTokens":null}}"#,
            r#"{"generationConfig":{"maxOutputTokens":0}}"#,
            r#"{"generationConfig":{"maxOutputTokens":1.5}}"#,
            r#"{"generationConfig":{"maxOutputTokens":1000}}"#,
            r#"{"generationConfig":{"maxOutputTokens":5000}}"#,
            r#"{"generationConfig":{"maxOutputTokens":1,"maxOutputTokens":2}}"#,
            r#"{"contents":[{"generationConfig":{"maxOutputTokens":1}}]}"#,
        ] {
            assert_eq!(after(request, 1, 1000), None, "{request}");
            assert!(!can_rise(request.as_bytes(), 0, 1000), "{request}");
        }
    }

    #[test]
    fn a_limit_can_rise_until_it_is_at_the_bound() {
        let request = br#"{"generationConfig":{"maxOutputTokens":300}}"#;
        let rises: Vec<bool> = (0..4).map(|times| can_rise(request, times, 1000)).collect();
        assert_eq!(rises, [true, true, false, false]);
        assert!(!can_rise(br#"{"generationConfig":{"maxOutputTokens":1}}"#, 7, 1000));
    }
}
