//! The messages of a chat become contents and a system instruction.
//!
//! Texts are copied byte for byte, media as the base64 that they came in. A result of a tool finds
//! the name of its function among the calls before it.

use serde_json::value::RawValue;

use super::members::{
    Members, Object, Untranslatable, is_text, joined, list, quoted, single, text,
};

/// What messages become, as JSON.
#[derive(Debug, Default)]
pub struct Contents {
    /// The list of contents.
    pub contents: Vec<String>,
    /// The parts of the system instruction.
    pub system: Vec<String>,
    /// Calls so far: their ids and the names of their functions.
    calls: Vec<(String, String)>,
    /// Results of tools that belong into one content.
    results: Vec<String>,
}

impl Contents {
    /// Translates all messages.
    ///
    /// # Errors
    /// What can not be.
    pub fn of(messages: &RawValue) -> Result<Contents, Untranslatable> {
        let mut contents = Contents::default();
        for (at, message) in list(messages, "messages")?.into_iter().enumerate() {
            contents.message(message, &format!("messages[{at}]"))?;
        }
        contents.flush();
        if contents.contents.is_empty() {
            let why = "holds nothing but instructions; a native request needs something to answer";
            return Err(Untranslatable::new("messages", why));
        }
        Ok(contents)
    }

    fn message(&mut self, message: &RawValue, path: &str) -> Result<(), Untranslatable> {
        let mut members = Members::of(message, path)?;
        let role = members.take("role").map(|role| text(role, path)).transpose()?;
        let content = members.take("content");
        let place = format!("{path}.content");
        match role.as_deref() {
            Some("tool") => {
                self.result(&mut members, content, path)?;
                return members.end(path);
            }
            Some("system" | "developer")
                if !self.contents.is_empty() || !self.results.is_empty() =>
            {
                let why = "is an instruction after other messages; natively they all come first";
                return Err(Untranslatable::new(path, why));
            }
            Some("system" | "developer") => self.system.extend(parts(content, &place, false)?),
            Some("user") => {
                let parts = parts(content, &place, true)?;
                self.say("user", &parts, path)?;
            }
            Some("assistant") => {
                let mut spoken = parts(content, &place, false)?;
                if let Some(calls) = members.take("tool_calls") {
                    spoken.extend(self.calls(calls, &format!("{path}.tool_calls"))?);
                }
                self.say("model", &spoken, path)?;
            }
            Some(other) => {
                let why = format!("is {other:?}, which no native role stands for");
                return Err(Untranslatable::new(format!("{path}.role"), why));
            }
            None => return Err(Untranslatable::new(path, "has no role")),
        }
        members.end(path)
    }

    fn say(&mut self, role: &str, parts: &[String], path: &str) -> Result<(), Untranslatable> {
        if parts.is_empty() {
            return Err(Untranslatable::new(path, "says nothing"));
        }
        self.flush();
        self.put(role, parts);
        Ok(())
    }

    fn put(&mut self, role: &str, parts: &[String]) {
        let mut content = Object::default();
        content.put("role", &quoted(role));
        content.put("parts", &joined(parts));
        self.contents.push(content.end());
    }

    /// Results that came one after another are one content.
    fn flush(&mut self) {
        if !self.results.is_empty() {
            let results = std::mem::take(&mut self.results);
            self.put("user", &results);
        }
    }

    /// The calls of an assistant's message as parts.
    fn calls(&mut self, calls: &RawValue, path: &str) -> Result<Vec<String>, Untranslatable> {
        let mut parts = Vec::new();
        for (at, call) in list(calls, path)?.into_iter().enumerate() {
            let path = format!("{path}[{at}]");
            let mut members = Members::of(call, &path)?;
            let function = function_of(&mut members, &path)?;
            let id = members.take("id").map(|id| text(id, &path)).transpose()?;
            members.end(&path)?;
            let place = format!("{path}.function");
            let mut function = Members::of(function, &place)?;
            let name = name_of(&mut function, &place)?;
            let mut part = Object::default();
            part.put("name", &quoted(&name));
            if let Some(arguments) = function.take("arguments") {
                let place = format!("{place}.arguments");
                let said = text(arguments, &place)?;
                let said = if said.trim().is_empty() { "{}".into() } else { said };
                part.put(
                    "args",
                    &object_in(&said).ok_or_else(|| {
                        Untranslatable::new(place, "is no JSON object written as a text")
                    })?,
                );
            }
            function.end(&place)?;
            if let Some(id) = id {
                self.calls.push((id.into_owned(), name));
            }
            parts.push(single("functionCall", &part.end()));
        }
        Ok(parts)
    }

    /// What a tool answered.
    fn result(
        &mut self,
        members: &mut Members<'_>,
        content: Option<&RawValue>,
        path: &str,
    ) -> Result<(), Untranslatable> {
        let id = members.take("tool_call_id").map(|id| text(id, path)).transpose()?;
        let id = id.unwrap_or_default();
        let call = self.calls.iter().rev().find(|(known, _)| *known == id);
        let Some((_, name)) = call else {
            let why = "names no call of a message before it";
            return Err(Untranslatable::new(format!("{path}.tool_call_id"), why));
        };
        let place = format!("{path}.content");
        let said = match content {
            Some(content) if is_text(content) => text(content, &place)?.into_owned(),
            _ => return Err(Untranslatable::new(place, "is not a text")),
        };
        // A function answers with an object; any other text is put into one.
        let response = object_in(&said).unwrap_or_else(|| single("result", &quoted(&said)));
        let mut part = Object::default();
        part.put("name", &quoted(name));
        part.put("response", &response);
        self.results.push(single("functionResponse", &part.end()));
        Ok(())
    }
}

/// The `function` of a call, a tool or a choice, which must be of that type.
pub fn function_of<'a>(
    members: &mut Members<'a>,
    path: &str,
) -> Result<&'a RawValue, Untranslatable> {
    if let Some(kind) = members.take("type") {
        let place = format!("{path}.type");
        if text(kind, &place)? != "function" {
            return Err(Untranslatable::new(place, "is not \"function\""));
        }
    }
    members.take("function").ok_or_else(|| Untranslatable::new(path, "has no function"))
}

/// The name of a function.
pub fn name_of(function: &mut Members<'_>, path: &str) -> Result<String, Untranslatable> {
    let name = function.take("name").map(|name| text(name, path)).transpose()?;
    name.map(|name| name.into_owned()).ok_or_else(|| Untranslatable::new(path, "has no name"))
}

/// A text that is a JSON object.
fn object_in(text: &str) -> Option<String> {
    let raw: &RawValue = serde_json::from_str(text).ok()?;
    raw.get().starts_with('{').then(|| raw.get().to_owned())
}

/// The parts of a message's content; media only where they may be.
fn parts(
    content: Option<&RawValue>,
    path: &str,
    media: bool,
) -> Result<Vec<String>, Untranslatable> {
    let Some(content) = content else { return Ok(Vec::new()) };
    if is_text(content) {
        return Ok(vec![single("text", content.get())]);
    }
    let part = |(at, part): (usize, &RawValue)| self::part(part, &format!("{path}[{at}]"), media);
    list(content, path)
        .map_err(|_| Untranslatable::new(path, "is neither a text nor a list of parts"))?
        .into_iter()
        .enumerate()
        .map(part)
        .collect()
}

fn part(part: &RawValue, path: &str, media: bool) -> Result<String, Untranslatable> {
    let mut members = Members::of(part, path)?;
    let kind = members.take("type").map(|kind| text(kind, path)).transpose()?.unwrap_or_default();
    let translated = match kind.as_ref() {
        "text" => {
            let said = members.take("text").filter(|said| is_text(said));
            single("text", said.ok_or_else(|| Untranslatable::new(path, "has no text"))?.get())
        }
        "image_url" if media => {
            let place = format!("{path}.image_url");
            let image = members.take("image_url");
            image_part(image.ok_or_else(|| Untranslatable::new(path, "has no image_url"))?, &place)?
        }
        "input_audio" if media => {
            let place = format!("{path}.input_audio");
            let audio = members.take("input_audio");
            audio_part(
                audio.ok_or_else(|| Untranslatable::new(path, "has no input_audio"))?,
                &place,
            )?
        }
        other => {
            let other: String = other.chars().take(60).collect();
            let why = format!("is {other:?}, which has no counterpart here");
            return Err(Untranslatable::new(format!("{path}.type"), why));
        }
    };
    members.end(path)?;
    Ok(translated)
}

/// An image given as a data URI.
fn image_part(image: &RawValue, path: &str) -> Result<String, Untranslatable> {
    let mut members = Members::of(image, path)?;
    let url = members.take("url").map(|url| text(url, path)).transpose()?.unwrap_or_default();
    if let Some(detail) = members.take("detail")
        && text(detail, path)? != "auto"
    {
        let why = "is not \"auto\"; natively the resolution is that of all media of a request";
        return Err(Untranslatable::new(format!("{path}.detail"), why));
    }
    members.end(path)?;
    let data = url.strip_prefix("data:").and_then(|rest| rest.split_once(";base64,"));
    let Some((mime_type, data)) = data else {
        let why = "is no data URI such as data:image/png;base64,…; natively a file at another \
                   address is not fetched";
        return Err(Untranslatable::new(format!("{path}.url"), why));
    };
    Ok(inline(mime_type, data))
}

fn audio_part(audio: &RawValue, path: &str) -> Result<String, Untranslatable> {
    let mut members = Members::of(audio, path)?;
    let data = members.take("data").map(|data| text(data, path)).transpose()?;
    let format = members.take("format").map(|format| text(format, path)).transpose()?;
    members.end(path)?;
    let mime_type = match format.as_deref() {
        Some("wav") => "audio/wav",
        Some("mp3") => "audio/mp3",
        Some(_) | None => {
            let why = "is neither \"wav\" nor \"mp3\"";
            return Err(Untranslatable::new(format!("{path}.format"), why));
        }
    };
    let data = data.ok_or_else(|| Untranslatable::new(path, "has no data"))?;
    Ok(inline(mime_type, &data))
}

fn inline(mime_type: &str, data: &str) -> String {
    let mut blob = Object::default();
    blob.put("mimeType", &quoted(mime_type));
    blob.put("data", &quoted(data));
    single("inlineData", &blob.end())
}
