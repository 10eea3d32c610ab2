//! Asks for the answer to a single request, through a tier of the synchronous API (API contract,
//! section 16).
//!
//! The call is paid for and not idempotent: it goes out once, on a connection of its own, and its
//! outcome is one of: answered; refused for good; turned away; not sent; or nobody knows.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use reqwest::Method;
use reqwest::header::CONTENT_TYPE;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::classify::ErrorAnswer;
use super::client::{Client, failure};
use super::transfer::{Incoming, Pace, Payload, TransferError, send_stream};
use super::wire::{model_path, plain};
use crate::engine::event::Failure;
use crate::engine::job::{Task, Tier};

/// What came of a call.
#[derive(Debug, Clone, PartialEq)]
pub enum Asked {
    /// The response, as JSON on one line.
    Answer(Vec<u8>),
    /// This request will never be answered.
    Refused {
        /// gRPC code.
        code: i32,
        /// What the API said.
        message: String,
    },
    /// There was no room for it; nothing is to be paid.
    TurnedAway {
        /// The pause the server asked for, milliseconds.
        retry_after_ms: Option<u64>,
        /// What it said.
        message: String,
    },
    /// The API does not take requests of this model through this tier.
    NoSuchTier(String),
    /// Nobody knows whether it was answered.
    Unknown(String),
    /// It was not sent, or will not be taken, whatever the request.
    Failure(Failure),
}

impl Client {
    /// Asks for the answer to one request, given as JSON. Never sends anything twice; waits at most
    /// `patience` for the answer to begin.
    pub async fn ask_one(
        &self,
        model: &str,
        task: Task,
        tier: Tier,
        request: &[u8],
        patience: Duration,
    ) -> Asked {
        let Some(model) = model_path(model) else {
            return Asked::NoSuchTier(format!(
                "{:?} cannot be the name of a model",
                plain(model, 80)
            ));
        };
        let Ok(text) = std::str::from_utf8(request) else {
            return Asked::Refused { code: 3, message: "the request is not UTF-8".to_owned() };
        };
        let (method, body) = match task {
            Task::Generate => ("generateContent", with_tier(text, tier)),
            Task::Embed => ("embedContent", text.to_owned()),
        };
        let path = format!("/{}/{model}:{method}", self.inner.settings.version);
        let call = self.fresh_request(Method::POST, &path).header(CONTENT_TYPE, "application/json");
        let payload = Payload::from_bytes(Bytes::from(body));
        let body = (payload.open)(0, payload.len);
        let pace = Pace { reply: patience, ..self.pace() };
        let response = match send_stream(call, body, payload.len, pace).await {
            Ok(response) => response,
            Err(error @ (TransferError::Broken(_) | TransferError::TooSlow(_))) => {
                return Asked::Unknown(format!("ask: {error}"));
            }
            Err(error) => return Asked::Failure(failure(error, "ask")),
        };
        self.note_clock(&response);
        if !response.status().is_success() {
            return self.sorted(&self.read_error(response).await, tier);
        }
        let limit = self.inner.settings.item_bytes_max;
        let (mut body, cut) = Incoming::new(response, self.pace(), limit).start().await;
        if cut || serde_json::from_slice::<&RawValue>(&body).is_err() {
            return Asked::Unknown("ask: the answer broke off or is no JSON".to_owned());
        }
        // Between the tokens of JSON a line break is a blank; inside a string none can be.
        for byte in body.iter_mut().filter(|byte| matches!(**byte, b'\n' | b'\r')) {
            *byte = b' ';
        }
        Asked::Answer(body)
    }

    fn sorted(&self, answer: &ErrorAnswer, tier: Tier) -> Asked {
        let message = answer.describe("ask");
        match answer.http {
            429 | 503 => Asked::TurnedAway { retry_after_ms: answer.retry_after_ms, message },
            // What says nothing of whether the model had begun.
            408 | 409 | 499 | 500..=599 if answer.http != 501 => Asked::Unknown(message),
            400 | 404 | 501 if answer.from_api && names_tier(&answer.message, tier) => {
                Asked::NoSuchTier(message)
            }
            404 | 405 | 501 => Asked::NoSuchTier(message),
            _ => match answer.failure("ask") {
                Failure::Rejected(message) => Asked::Refused { code: 3, message },
                failure => Asked::Failure(failure),
            },
        }
    }
}

/// Whether a refusal is about the tier, and not about the request.
fn names_tier(message: &str, tier: Tier) -> bool {
    let said = message.to_ascii_lowercase();
    ["tier", "servicetier", "service_tier"].iter().any(|word| said.contains(word))
        || said.contains(&format!(" {}", tier.word()))
}

/// The request with the tier in the place of whatever it says of one.
fn with_tier(request: &str, tier: Tier) -> String {
    let word = tier.word();
    let own = |name: &str| matches!(name, "serviceTier" | "service_tier");
    let members = serde_json::from_str::<Members<'_>>(request).ok();
    if let Some(Members(members)) = members.filter(|it| it.0.iter().any(|(name, _)| own(name))) {
        let mut text = format!("{{\"serviceTier\":\"{word}\"");
        for (name, value) in members.iter().filter(|(name, _)| !own(name)) {
            let name = serde_json::Value::from(name.as_ref());
            text.push_str(&format!(",{name}:{}", value.get()));
        }
        text.push('}');
        return text;
    }
    // Byte for byte, but for the new member in front.
    let inside = request.trim_start().strip_prefix('{').unwrap_or(request);
    let comma = if inside.trim_start().starts_with('}') { "" } else { "," };
    format!("{{\"serviceTier\":\"{word}\"{comma}{inside}")
}

/// The members of an object in their order.
struct Members<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Members<'de>, D::Error> {
        struct Each;
        impl<'de> Visitor<'de> for Each {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut members = Vec::new();
                while let Some(name) = map.next_key::<Cow<'de, str>>()? {
                    members.push((name, map.next_value()?));
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Each)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tier_is_put_in_and_all_else_goes_out_byte_for_byte() {
        for (request, sent) in [
            ("{}", r#"{"serviceTier":"flex"}"#),
            (r#" { "contents" : [1e400]}"#, r#"{"serviceTier":"flex", "contents" : [1e400]}"#),
            (
                r#"{"a":"\ud800","service_tier":"priority","b":{"serviceTier": 1}}"#,
                r#"{"serviceTier":"flex","a":"\ud800","b":{"serviceTier": 1}}"#,
            ),
            (r#"{"serviceTier":"standard"}"#, r#"{"serviceTier":"flex"}"#),
        ] {
            assert_eq!(with_tier(request, Tier::Flex), sent, "{request}");
        }
    }

    #[test]
    fn a_refusal_of_the_tier_is_told_from_one_of_the_request() {
        assert!(names_tier("Service tier FLEX is not supported for this model.", Tier::Flex));
        assert!(names_tier("model x does not support flex", Tier::Flex));
        assert!(!names_tier("contents is not specified; flexible is no word", Tier::Standard));
        assert!(!names_tier("* GenerateContentRequest.contents: not specified", Tier::Flex));
    }
}
