//! What a result of the OpenAI-compatible layer says (API contract, section 11).
//!
//! Only looked at, never copied or changed. As with native results, nothing odd makes a result
//! unreadable, and an answer whose insides we cannot make sense of still counts as one.

use serde::de::MapAccess;
use serde_json::value::RawValue;

use super::super::loose::{Loose, Shape, cut, number, read, skip, take};
use super::super::response::Answer;
use super::super::result_line::{MESSAGE_MAX, RowError};
use super::usage;

/// The error of a result, if it is none that answers. `response` and `error` are the members of
/// its line.
pub fn error(response: Option<&str>, error: Option<&str>) -> Option<RowError> {
    let Some(response) = response else { return error.map(told) };
    let seen: Response<'_> = read(response)?;
    let status = seen.status?;
    if (200..300).contains(&status) {
        return None;
    }
    let body = seen.body.map(RawValue::get);
    let inner = body.and_then(|body| read::<Body<'_>>(body)?.error).map(RawValue::get);
    let said = inner.or(error).map(told).and_then(|error| error.message);
    Some(RowError { code: code_of_http(status), message: said })
}

/// Reads what matters out of a response that is no error.
pub fn answer(response: &str) -> Answer {
    let unread = || Answer { has_content: true, ..Answer::default() };
    let Some(seen) = read::<Response<'_>>(response) else { return unread() };
    let Some(body) = seen.body.filter(|body| body.get().starts_with('{')) else {
        return Answer::default();
    };
    let Some(body) = read::<Body<'_>>(body.get()) else { return unread() };
    let word = |raw: &RawValue| serde_json::from_str::<String>(raw.get()).ok();
    Answer {
        block_reason: None,
        finish_reason: body.choices.finish_reason.and_then(word).map(|it| cut(&it, 64).to_owned()),
        has_content: body.choices.has_content || body.data.has_content,
        tokens: body.usage.map(|usage| usage::tokens(usage.get())).unwrap_or_default(),
    }
}

/// The usage of a response, where it stands.
pub fn usage_of(response: &str) -> Option<&str> {
    let body = read::<Response<'_>>(response)?.body?;
    let usage = read::<Body<'_>>(body.get())?.usage?;
    usage.get().starts_with('{').then_some(usage.get())
}

/// An error as OpenAI writes them: its code may be a word, a gRPC code, or an HTTP status.
fn told(raw: &str) -> RowError {
    let seen: Told<'_> = read(raw).unwrap_or_default();
    let said = seen.message.map_or(raw, RawValue::get);
    let message = serde_json::from_str::<String>(said).ok();
    let word = seen.code.or(seen.kind).map_or("", RawValue::get);
    let code = match number::<i32>(word) {
        Some(code @ 1..=99) => code,
        Some(status) => code_of_http(i64::from(status)),
        None if word.contains("cancel") => 1,
        None if word.contains("expired") => 4,
        None if word.contains("invalid") => 3,
        None => 2,
    };
    let message = message.map(|text| cut(&text, MESSAGE_MAX).to_owned());
    RowError { code, message: message.filter(|text| !text.is_empty()) }
}

/// The gRPC code that an HTTP status stands for.
fn code_of_http(status: i64) -> i32 {
    match status {
        401 => 16,
        403 => 7,
        404 => 5,
        408 | 504 => 4,
        409 => 10,
        429 => 8,
        499 => 1,
        400..=498 => 3,
        501 => 12,
        503 => 14,
        500..=599 => 13,
        _ => 2,
    }
}

#[derive(Default)]
struct Response<'a> {
    status: Option<i64>,
    body: Option<&'a RawValue>,
}

impl<'de> Shape<'de> for Response<'de> {
    fn member<A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<(), A::Error> {
        match name {
            "status_code" | "statusCode" => {
                self.status = number(map.next_value::<&RawValue>()?.get());
                Ok(())
            }
            "body" => take(&mut self.body, map),
            _ => skip(map),
        }
    }
}

#[derive(Default)]
struct Body<'a> {
    choices: Choice<'a>,
    data: Vector,
    usage: Option<&'a RawValue>,
    error: Option<&'a RawValue>,
}

impl<'de> Shape<'de> for Body<'de> {
    fn member<A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<(), A::Error> {
        match name {
            "choices" => Loose(self.choices) = map.next_value()?,
            "data" => Loose(self.data) = map.next_value()?,
            "usage" => take(&mut self.usage, map)?,
            "error" => take(&mut self.error, map)?,
            _ => skip(map)?,
        }
        Ok(())
    }
}

#[derive(Default)]
struct Choice<'a> {
    finish_reason: Option<&'a RawValue>,
    has_content: bool,
}

impl<'de> Shape<'de> for Choice<'de> {
    fn member<A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<(), A::Error> {
        match name {
            "finish_reason" | "finishReason" => take(&mut self.finish_reason, map),
            "message" => {
                let Loose(Message { has_content }) = map.next_value()?;
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
struct Message {
    has_content: bool,
}

impl<'de> Shape<'de> for Message {
    fn member<A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<(), A::Error> {
        match name {
            "content" | "tool_calls" | "toolCalls" | "function_call" | "refusal" | "audio" => {
                self.has_content |= is_filled(map)?;
                Ok(())
            }
            _ => skip(map),
        }
    }
}

#[derive(Default)]
struct Vector {
    has_content: bool,
}

impl<'de> Shape<'de> for Vector {
    fn member<A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<(), A::Error> {
        if name != "embedding" {
            return skip(map);
        }
        self.has_content |= is_filled(map)?;
        Ok(())
    }

    fn absorb(&mut self, next: Self) {
        self.has_content |= next.has_content;
    }
}

#[derive(Default)]
struct Told<'a> {
    code: Option<&'a RawValue>,
    kind: Option<&'a RawValue>,
    message: Option<&'a RawValue>,
}

impl<'de> Shape<'de> for Told<'de> {
    fn member<A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<(), A::Error> {
        match name {
            "code" => take(&mut self.code, map),
            "type" => take(&mut self.kind, map),
            "message" => take(&mut self.message, map),
            _ => skip(map),
        }
    }
}

fn is_filled<'de, A: MapAccess<'de>>(map: &mut A) -> Result<bool, A::Error> {
    Ok(!matches!(map.next_value::<&RawValue>()?.get(), "null" | "\"\"" | "[]"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::super::result_line::ResultLine;
    use super::*;
    use crate::engine::ids::Row;
    use crate::engine::job::Tokens;
    use crate::engine::verdict::Verdict;

    fn verdict(response: serde_json::Value) -> Verdict {
        let line = json!({"id": "x", "custom_id": "7", "response": response, "error": null});
        let line = line.to_string();
        let line = ResultLine::parse(line.as_bytes()).expect("an object");
        assert_eq!(line.row, Some(Row(7)));
        line.verdict()
    }

    fn chat(finish: &str, message: serde_json::Value) -> serde_json::Value {
        json!({"status_code": 200, "body": {"choices": [{"finish_reason": finish, "message": message}]}})
    }

    #[test]
    fn every_shape_of_a_result_gets_its_verdict() {
        let said = json!({"role": "assistant", "content": "hi"});
        let call = json!({"content": null, "tool_calls": [{"id": "c"}]});
        let none = json!({"content": null, "tool_calls": []});
        let vector = |numbers: serde_json::Value| json!({"status_code": 200, "body": {"data": [{"embedding": numbers}]}});
        let failed =
            |status: u16| json!({"status_code": status, "body": {"error": {"message": "no"}}});
        let cases = [
            (chat("stop", said.clone()), Verdict::Answered),
            (chat("tool_calls", call), Verdict::Answered),
            (chat("length", said.clone()), Verdict::Truncated),
            (chat("content_filter", none.clone()), Verdict::Blocked),
            (chat("stop", none), Verdict::Empty),
            (vector(json!([0.5])), Verdict::Answered),
            (vector(json!([])), Verdict::Empty),
            (failed(400), Verdict::Failed),
            (failed(404), Verdict::Failed),
            (failed(429), Verdict::Retryable),
            (failed(500), Verdict::Retryable),
            (failed(503), Verdict::Retryable),
            (json!({"status_code": 200, "body": null}), Verdict::Empty),
            (json!({"body": {"choices": [{"message": said}]}}), Verdict::Answered),
            (json!(null), Verdict::Empty),
        ];
        for (response, expected) in cases {
            assert_eq!(verdict(response.clone()), expected, "{response}");
        }
    }

    #[test]
    fn an_error_beside_the_response_counts_where_there_is_none() {
        for (code, expected) in [
            (json!("batch_expired"), 4),
            (json!("batch_cancelled"), 1),
            (json!("invalid_request_error"), 3),
            (json!(13), 13),
            (json!("429"), 8),
            (json!("odd"), 2),
            (json!(null), 2),
        ] {
            let line = json!({"custom_id": "1", "response": null, "error": {"code": code, "message": "m"}});
            let line = line.to_string();
            let line = ResultLine::parse(line.as_bytes()).expect("an object");
            let error = line.error.expect("an error");
            assert_eq!((error.code, error.message.as_deref()), (expected, Some("m")), "{code}");
        }
    }

    #[test]
    fn what_the_server_said_of_a_failed_row_is_kept() {
        let list =
            json!({"status_code": 400, "body": [{"error": {"code": 400, "message": "bad"}}]});
        let error = error(Some(&list.to_string()), None).expect("an error");
        assert_eq!((error.code, error.message.as_deref()), (3, Some("bad")));
    }

    #[test]
    fn tokens_are_counted_whatever_their_names() {
        for usage in [
            json!({"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 10}),
            json!({"promptTokens": 5, "completionTokens": "3", "totalTokens": 10}),
        ] {
            let response = json!({"status_code": 200, "body": {"choices": [], "usage": usage}});
            let tokens = answer(&response.to_string()).tokens;
            let expected = Tokens { prompt: 5, output: 3, thinking: 2, cached: 0, total: 10 };
            assert_eq!(tokens, expected);
        }
    }
}
