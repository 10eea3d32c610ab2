//! Answers of the OpenAI-compatible layer: as the API's own are, in OpenAI's shape.
//!
//! A chat echoes its user's last words, texts become vectors. A body is checked first, and refused as
//! the layer does it: its line comes back with a status and an error. Members it does not know are
//! refused, as Google's parsers do.

use serde::Deserialize;
use serde_json::{Value, json};

use super::answers::{self, Spoiled, id, mark};
use super::batches::models_for;
use super::embeddings;
use super::layer_rows::LayerRow;
use crate::engine::job::Task;

/// What becomes of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fortune {
    /// It is answered, whole or spoiled.
    Answered(Spoiled),
    /// It fails with code 13.
    Internal,
    /// The batch was cancelled before it.
    Cancelled,
}

/// The result line of a row, and whether it answers. `number` counts the rows of the batch; with
/// `keyless` it lacks its id.
pub fn result(row: &LayerRow<'_>, task: Task, fortune: Fortune, keyless: bool) -> (Value, bool) {
    let mark = mark(row.body.get().as_bytes());
    let (response, error) = match fortune {
        Fortune::Answered(spoiled) => match body(row.body.get(), task, mark, spoiled) {
            Ok(body) => (response(200, body, mark), Value::Null),
            Err((status, message)) => {
                let error = json!({"error": {"code": status, "message": message}});
                (response(status, error, mark), Value::Null)
            }
        },
        Fortune::Internal => {
            let message = "An internal error has occurred.";
            let error = json!({"error": {"code": 500, "message": message, "status": "INTERNAL"}});
            (response(500, error, mark), Value::Null)
        }
        Fortune::Cancelled => {
            let message = "This request was cancelled before it was run.";
            (Value::Null, json!({"code": "batch_cancelled", "message": message}))
        }
    };
    let answers = response["status_code"] == 200;
    let mut line = json!({
        "id": format!("batch_req_{}", id(mark, 1, 20)),
        "custom_id": row.custom_id,
        "response": response,
        "error": error,
    });
    if let (true, Some(members)) = (keyless, line.as_object_mut()) {
        members.remove("custom_id");
    }
    (line, answers)
}

fn response(status: u16, body: Value, mark: u64) -> Value {
    json!({"status_code": status, "request_id": id(mark, 2, 20), "body": body})
}

/// A status and a message.
type Refused = (u16, String);

fn body(text: &str, task: Task, mark: u64, spoiled: Spoiled) -> Result<Value, Refused> {
    let bad = |error: serde_json::Error| {
        let error = error.to_string();
        let name = error.split('`').nth(1).filter(|_| error.starts_with("unknown field"));
        (
            400,
            match name {
                Some(name) => {
                    format!(
                        "Invalid JSON payload received. Unknown name \"{name}\": Cannot find field."
                    )
                }
                None => format!("Invalid JSON payload received. {error}"),
            },
        )
    };
    match task {
        Task::Generate => chat(&serde_json::from_str(text).map_err(bad)?, mark, spoiled),
        Task::Embed => vectors(&serde_json::from_str(text).map_err(bad)?, mark),
    }
}

fn known_model(model: &str, task: Task) -> Result<&str, Refused> {
    let model = model.strip_prefix("models/").unwrap_or(model);
    match models_for(task).contains(&model) {
        true => Ok(model),
        false => Err((404, format!("models/{model} is not found for API version v1main."))),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "what is only checked for its type is read by nobody")]
struct Chat {
    model: String,
    messages: Vec<Message>,
    max_tokens: Option<u32>,
    max_completion_tokens: Option<u32>,
    response_format: Option<Format>,
    n: Option<u8>,
    tools: Option<Vec<Value>>,
    tool_choice: Option<Value>,
    temperature: Option<f64>,
    top_p: Option<f64>,
    stop: Option<Value>,
    stream: Option<bool>,
    seed: Option<i64>,
    presence_penalty: Option<f64>,
    frequency_penalty: Option<f64>,
    reasoning_effort: Option<String>,
}

#[derive(Deserialize)]
struct Message {
    role: String,
    #[serde(default)]
    content: Value,
}

#[derive(Deserialize)]
struct Format {
    r#type: String,
    #[serde(default)]
    json_schema: Value,
}

impl Message {
    fn said(&self) -> String {
        let parts = self.content.as_array().map_or(&[][..], Vec::as_slice);
        let texts = parts.iter().filter_map(|part| part.get("text")?.as_str());
        self.content.as_str().into_iter().chain(texts).collect()
    }
}

/// Answered as the API itself would answer the last words, then put into the other shape.
fn chat(chat: &Chat, mark: u64, spoiled: Spoiled) -> Result<Value, Refused> {
    let model = known_model(&chat.model, Task::Generate)?;
    let users = |message: &&Message| message.role == "user";
    let Some(last) = chat.messages.iter().rev().find(users) else {
        return Err((400, "messages must hold one of a user.".to_owned()));
    };
    let mut config = json!({});
    if let Some(limit) = chat.max_completion_tokens.or(chat.max_tokens) {
        config["maxOutputTokens"] = limit.into();
    }
    match chat.response_format.as_ref().map(|format| (format.r#type.as_str(), format)) {
        Some(("json_object", _)) => config["responseMimeType"] = "application/json".into(),
        Some(("json_schema", format)) => {
            config["responseMimeType"] = "application/json".into();
            config["responseJsonSchema"] = format.json_schema["schema"].clone();
        }
        Some(("text", _)) | None => {}
        Some((other, _)) => return Err((400, format!("response_format {other:?} is unknown."))),
    }
    let contents = json!([{"role": "user", "parts": [{"text": last.said()}]}]);
    let request = json!({"contents": contents, "generationConfig": config}).to_string();
    let native = answers::answer(model, &request, "", mark, spoiled).map_err(|why| (400, why.0))?;
    let native: Value = serde_json::from_str(&native).map_err(|why| (500, why.to_string()))?;
    let candidate = &native["candidates"][0];
    let (finish, text) = match candidate["finishReason"].as_str() {
        Some("MAX_TOKENS") => ("length", &candidate["content"]["parts"][0]["text"]),
        Some(_) => ("stop", &candidate["content"]["parts"][0]["text"]),
        None => ("content_filter", &Value::Null),
    };
    let calls = chat.tool_choice == Some("required".into());
    let tool = chat.tools.iter().flatten().next().filter(|_| calls && finish == "stop");
    let choice = |index: u8| match tool {
        None => json!({"index": index, "finish_reason": finish,
            "message": {"role": "assistant", "content": text}}),
        Some(tool) => {
            let function = json!({"name": tool["function"]["name"], "arguments": "{}"});
            let call = json!({"id": id(mark, 3, 12), "type": "function", "function": function});
            json!({"index": index, "finish_reason": "tool_calls",
                "message": {"role": "assistant", "content": null, "tool_calls": [call]}})
        }
    };
    let usage = &native["usageMetadata"];
    let count = |name: &str| usage[name].as_u64().unwrap_or(0);
    Ok(json!({
        "id": id(mark, 0, 22),
        "object": "chat.completion",
        "created": 0,
        "model": model,
        "choices": (0..chat.n.unwrap_or(1).max(1)).map(choice).collect::<Vec<Value>>(),
        "usage": {
            "promptTokens": count("promptTokenCount"),
            "completionTokens": count("candidatesTokenCount"),
            "totalTokens": count("totalTokenCount"),
        },
    }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Vectors {
    model: String,
    input: Input,
    dimensions: Option<u32>,
    encoding_format: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "input must be a text or a list of texts")]
enum Input {
    One(String),
    Many(Vec<String>),
}

fn vectors(asked: &Vectors, mark: u64) -> Result<Value, Refused> {
    let model = known_model(&asked.model, Task::Embed)?;
    if asked.encoding_format.as_deref().is_some_and(|format| format != "float") {
        return Err((400, "encoding_format must be \"float\".".to_owned()));
    }
    let texts = match &asked.input {
        Input::One(text) => std::slice::from_ref(text),
        Input::Many(texts) => texts.as_slice(),
    };
    let (mut data, mut tokens) = (Vec::new(), 0);
    for (index, text) in texts.iter().enumerate() {
        let mut request = json!({"content": {"parts": [{"text": text}]}});
        if let Some(dimensions) = asked.dimensions {
            request["outputDimensionality"] = dimensions.into();
        }
        let native = embeddings::answer(&request.to_string(), mark).map_err(|why| (400, why.0))?;
        let native: Value = serde_json::from_str(&native).map_err(|why| (500, why.to_string()))?;
        tokens += native["usageMetadata"]["promptTokenCount"].as_u64().unwrap_or(0);
        let vector = &native["embedding"]["values"];
        data.push(json!({"object": "embedding", "index": index, "embedding": vector}));
    }
    let usage = json!({"promptTokens": tokens, "totalTokens": tokens});
    Ok(json!({"object": "list", "model": model, "data": data, "usage": usage}))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(body: &Value, task: Task, fortune: Fortune) -> (Value, bool) {
        let url = match task {
            Task::Generate => "/v1/chat/completions",
            Task::Embed => "/v1/embeddings",
        };
        let line = json!({"custom_id": "c", "method": "POST", "url": url, "body": body});
        let line = line.to_string();
        result(&LayerRow::read(line.as_bytes()).expect("a row"), task, fortune, false)
    }

    fn chat_of(more: &Value) -> Value {
        let mut body = json!({"model": "gemini-2.5-flash",
            "messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]});
        for (name, value) in more.as_object().into_iter().flatten() {
            body[name] = value.clone();
        }
        body
    }

    #[test]
    fn a_chat_is_echoed_with_counts_in_camel_case() {
        let fine = Fortune::Answered(Spoiled::No);
        let (line, answers) = answered(&chat_of(&json!({"n": 2})), Task::Generate, fine);
        assert!(answers);
        assert_eq!(line["custom_id"], "c");
        let body = &line["response"]["body"];
        assert_eq!(body["choices"][1]["message"]["content"], "Echo of request: hi");
        assert!(body["usage"]["promptTokens"].as_u64().is_some_and(|count| count > 0), "{line}");
        let tool = json!({"type": "function", "function": {"name": "f"}});
        let more = json!({"tools": [tool], "tool_choice": "required"});
        let (line, _) = answered(&chat_of(&more), Task::Generate, fine);
        let call = &line["response"]["body"]["choices"][0]["message"]["tool_calls"][0];
        assert_eq!(call["function"]["name"], "f");
    }

    #[test]
    fn what_the_layer_does_not_take_comes_back_with_a_status() {
        let fine = Fortune::Answered(Spoiled::No);
        for (more, status) in [
            (json!({"model": "gpt-4o"}), 404),
            (json!({"messages": [{"role": "system", "content": "x"}]}), 400),
            (json!({"logit_bias": {}}), 400),
            (json!({"n": "two"}), 400),
            (json!({"response_format": {"type": "xml"}}), 400),
        ] {
            let (line, answers) = answered(&chat_of(&more), Task::Generate, fine);
            assert_eq!((line["response"]["status_code"].clone(), answers), (json!(status), false));
        }
    }

    #[test]
    fn texts_become_vectors_of_the_dimension_asked_for() {
        let body = json!({"model": "gemini-embedding-001", "input": ["a", "b"], "dimensions": 5});
        let (line, _) = answered(&body, Task::Embed, Fortune::Answered(Spoiled::No));
        let data = &line["response"]["body"]["data"];
        assert_eq!(data[1]["embedding"].as_array().map(Vec::len), Some(5), "{line}");
    }
}
