//! A line in the OpenAI batch format becomes a native one, for queues that want that.
//!
//! Nothing is dropped in silence: a member either becomes what means the same natively, or says
//! nothing (`null`, or the default), or the line can not be translated and says why. What becomes of
//! what stands in docs/openai.md, which a test holds against this.

use serde_json::value::RawValue;

use super::super::forms::{self, Fault, Wanted};
use super::super::index::LineFate;
use super::super::prepare::{Mapper, Unmapped};
use super::contents::{Contents, function_of, name_of};
use super::members::{
    Members, Object, Untranslatable, is_text, joined, list, quoted, single, text,
};
use super::schema;
use crate::engine::job::{Family, Task};

/// Translates the lines of a queue.
pub struct Translate {
    model: String,
    task: Task,
}

impl Translate {
    /// For a queue with this model and task.
    pub fn new(model: &str, task: Task) -> Translate {
        Translate { model: model.to_owned(), task }
    }
}

impl Mapper for Translate {
    fn map(&mut self, line: &[u8], out: &mut Vec<u8>) -> Result<(), Unmapped> {
        let wanted = Wanted { model: &self.model, task: self.task };
        self::line(line, wanted, out).map_err(Unmapped::Fault)
    }
}

/// Writes the native line that a line becomes to `out`; one that is not in the OpenAI batch format
/// as it is.
///
/// # Errors
/// Why a line in that format can not be translated, or could not be sent anyway.
pub fn line(line: &[u8], wanted: Wanted<'_>, out: &mut Vec<u8>) -> Result<(), Fault> {
    let request = match forms::examine(line, wanted) {
        Ok(request) if request.fate.family() == Family::OpenAi => request,
        Err(fault) if fault.family == Some(Family::OpenAi) => return Err(fault),
        Ok(_) | Err(_) => {
            out.extend_from_slice(line);
            return Ok(());
        }
    };
    let body: &RawValue = serde_json::from_slice(&line[request.span])
        .expect("the body of a line that was found to be one is JSON");
    let native = match wanted.task {
        Task::Generate => chat(body),
        Task::Embed => embedding(body),
    };
    let native = native.map_err(|Untranslatable { path, why }| {
        let message = format!(
            "`body.{path}` {why}; take it out, or let the queue send such lines to the API's \
             OpenAI-compatible layer (openai = \"layer\")"
        );
        Fault::new(LineFate::NotARequest, None, message)
    })?;
    out.push(b'{');
    if let Some(key) = request.key {
        out.extend_from_slice(b"\"key\":");
        out.extend_from_slice(&line[key]);
        out.push(b',');
    }
    out.extend_from_slice(b"\"request\":");
    out.extend_from_slice(native.as_bytes());
    out.push(b'}');
    Ok(())
}

/// A chat becomes a `GenerateContentRequest`.
fn chat(body: &RawValue) -> Result<String, Untranslatable> {
    let mut request = Object::default();
    let mut config = Object::default();
    let mut limit: Option<&str> = None;
    for (name, value) in Members::of(body, "")?.0 {
        let raw = value.get();
        match name.as_str() {
            // The queue's model, or the line would not have come so far.
            "model" => {}
            "messages" => {
                let Contents { contents, system, .. } = Contents::of(value)?;
                request.put("contents", &joined(&contents));
                if !system.is_empty() {
                    request.put("systemInstruction", &single("parts", &joined(&system)));
                }
            }
            "temperature" => config.put("temperature", number(value, &name)?),
            "top_p" => config.put("topP", number(value, &name)?),
            "n" => config.put("candidateCount", number(value, &name)?),
            "seed" => config.put("seed", number(value, &name)?),
            "presence_penalty" => config.put("presencePenalty", number(value, &name)?),
            "frequency_penalty" => config.put("frequencyPenalty", number(value, &name)?),
            "top_logprobs" => config.put("logprobs", number(value, &name)?),
            "logprobs" if matches!(raw, "true" | "false") => config.put("responseLogprobs", raw),
            "max_tokens" | "max_completion_tokens" => {
                let number = number(value, &name)?;
                if limit.is_some_and(|other| other != number) {
                    let why = "differs from the other limit; natively there is one";
                    return Err(Untranslatable::new(name, why));
                }
                if limit.replace(number).is_none() {
                    config.put("maxOutputTokens", number);
                }
            }
            "stop" if is_text(value) => config.put("stopSequences", &format!("[{raw}]")),
            "stop" => {
                list(value, &name)?;
                config.put("stopSequences", raw);
            }
            "response_format" => format(value, &mut config)?,
            "tools" => request.put("tools", &tools(value)?),
            "tool_choice" => request.put("toolConfig", &choice(value)?),
            // What these ask for is what is done anyway.
            "stream" | "store" if raw == "false" => {}
            "parallel_tool_calls" if raw == "true" => {}
            _ => return Err(Untranslatable::unknown("", &name)),
        }
    }
    if !config.is_empty() {
        request.put("generationConfig", &config.end());
    }
    Ok(request.end())
}

/// An embedding becomes an `EmbedContentRequest`.
fn embedding(body: &RawValue) -> Result<String, Untranslatable> {
    let mut request = Object::default();
    for (name, value) in Members::of(body, "")?.0 {
        match name.as_str() {
            "model" => {}
            "input" => {
                let only = match is_text(value) {
                    true => vec![value],
                    false => list(value, &name)?,
                };
                let [text] = &only[..] else {
                    let why = "holds several texts; natively a line has one: write a line for each";
                    return Err(Untranslatable::new(name, why));
                };
                if !is_text(text) {
                    return Err(Untranslatable::new(name, "is not a text"));
                }
                let parts = joined(&[single("text", text.get())]);
                request.put("content", &single("parts", &parts));
            }
            "dimensions" => request.put("outputDimensionality", number(value, &name)?),
            "encoding_format" if value.get() == "\"float\"" => {}
            _ => return Err(Untranslatable::unknown("", &name)),
        }
    }
    Ok(request.end())
}

/// A number as it was written.
fn number<'a>(value: &'a RawValue, path: &str) -> Result<&'a str, Untranslatable> {
    match value.get().as_bytes().first() {
        Some(b'-' | b'0'..=b'9') => Ok(value.get()),
        Some(_) | None => Err(Untranslatable::new(path, "is not a number")),
    }
}

/// The shape that answers are to have.
fn format(value: &RawValue, config: &mut Object) -> Result<(), Untranslatable> {
    let path = "response_format";
    let mut members = Members::of(value, path)?;
    let kind = members.take("type").map(|kind| text(kind, path)).transpose()?.unwrap_or_default();
    match kind.as_ref() {
        "text" => config.put("responseMimeType", "\"text/plain\""),
        "json_object" => config.put("responseMimeType", "\"application/json\""),
        "json_schema" => {
            let path = "response_format.json_schema";
            let schema = members.take("json_schema");
            let schema = schema.ok_or_else(|| Untranslatable::new(path, "is missing"))?;
            let mut inner = Members::of(schema, path)?;
            // A label, and a promise that natively is always kept.
            for said in ["name", "strict"] {
                inner.take(said);
            }
            let place = format!("{path}.schema");
            let schema = inner.take("schema");
            let schema = schema.ok_or_else(|| Untranslatable::new(&place, "is missing"))?;
            inner.end(path)?;
            config.put("responseMimeType", "\"application/json\"");
            config.put("responseSchema", &schema::native(schema, &place)?);
        }
        other => {
            let why = format!("is {other:?}, which has no counterpart here");
            return Err(Untranslatable::new("response_format.type", why));
        }
    }
    members.end(path)
}

/// Functions become declarations in one tool.
fn tools(value: &RawValue) -> Result<String, Untranslatable> {
    let mut declarations = Vec::new();
    for (at, tool) in list(value, "tools")?.into_iter().enumerate() {
        let path = format!("tools[{at}]");
        let mut members = Members::of(tool, &path)?;
        let function = function_of(&mut members, &path)?;
        members.end(&path)?;
        let path = format!("{path}.function");
        let mut function = Members::of(function, &path)?;
        let mut declaration = Object::default();
        declaration.put("name", &quoted(&name_of(&mut function, &path)?));
        if let Some(description) = function.take("description") {
            declaration.put("description", description.get());
        }
        if let Some(parameters) = function.take("parameters") {
            declaration.put("parametersJsonSchema", parameters.get());
        }
        if function.take("strict").is_some_and(|strict| strict.get() != "false") {
            let why = "is not false; natively a call may depart from its schema";
            return Err(Untranslatable::new(format!("{path}.strict"), why));
        }
        function.end(&path)?;
        declarations.push(declaration.end());
    }
    Ok(joined(&[single("functionDeclarations", &joined(&declarations))]))
}

/// Which function may or must be called.
fn choice(value: &RawValue) -> Result<String, Untranslatable> {
    let path = "tool_choice";
    let mut config = Object::default();
    if is_text(value) {
        let mode = match text(value, path)?.as_ref() {
            "none" => "NONE",
            "auto" => "AUTO",
            "required" => "ANY",
            _ => return Err(Untranslatable::new(path, "is none of none, auto and required")),
        };
        config.put("mode", &quoted(mode));
    } else {
        let mut members = Members::of(value, path)?;
        let mut function = Members::of(function_of(&mut members, path)?, path)?;
        members.end(path)?;
        let name = name_of(&mut function, path)?;
        function.end(path)?;
        config.put("mode", "\"ANY\"");
        config.put("allowedFunctionNames", &joined(&[quoted(&name)]));
    }
    Ok(single("functionCallingConfig", &config.end()))
}

#[cfg(test)]
#[path = "translate_tests.rs"]
mod tests;
