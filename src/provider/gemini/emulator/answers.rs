//! Answers: what a request is answered with, always the same for the same request.
//!
//! The answer echoes the last thing the user said, or is JSON that fits the schema asked for.
//! Counts of tokens are characters divided by four, and add up. Members come in an order that
//! differs from answer to answer, as the service's do (API contract, 5.3).

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::Value;

use super::fitting::{fitting, misfit};
use super::pictures;

/// How an answer is spoiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spoiled {
    /// Not at all.
    No,
    /// The prompt is blocked.
    Blocked,
    /// Cut short by the token limit.
    Truncated,
    /// Does not fit the schema asked for.
    Misfit,
}

/// A request can not be answered: a `google.rpc.Status` with code 3.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unanswerable(pub String);

/// Answers a request, given as JSON text, with the JSON text of a `GenerateContentResponse`.
///
/// `seen` is a word for each file that it names. `mark` is drawn from the request and decides what
/// may differ: ids and the order of members.
///
/// # Errors
/// What the service says of such a row when it runs it.
pub fn answer(
    model: &str,
    request: &str,
    seen: &str,
    mark: u64,
    spoiled: Spoiled,
) -> Result<String, Unanswerable> {
    let request: Request<'_> =
        serde_json::from_str(request).map_err(|error| Unanswerable(error.to_string()))?;
    let contents = request.contents.as_slice();
    if contents.is_empty() {
        let message = "* GenerateContentRequest.contents: contents is not specified\n";
        return Err(Unanswerable(message.to_owned()));
    }
    let settings = request.generation_config.unwrap_or_default();
    settings.check()?;
    let asked = contents.iter().chain(&request.system_instruction);
    let prompt = asked.map(Content::chars).sum::<usize>().div_ceil(4).max(1);
    let model = model.strip_prefix("models/").unwrap_or(model);

    if spoiled == Spoiled::Blocked {
        let usage = usage(&[("promptTokenCount", prompt), ("totalTokenCount", prompt)], prompt, 0);
        return Ok(object(
            &[
                ("promptFeedback", r#"{"blockReason":"PROHIBITED_CONTENT"}"#),
                ("usageMetadata", &usage),
                ("modelVersion", &quoted(model)),
                ("responseId", &quoted(&response_id(mark))),
            ],
            mark,
        ));
    }

    let said = last_words(contents) + seen;
    let full = settings.text_for(&said, spoiled);
    let (text, finish) = match settings.cut(&full, spoiled) {
        Some(text) => (text, "MAX_TOKENS"),
        None => (full.as_str(), "STOP"),
    };
    let pictured = settings.pictures(model, mark);
    let tokens = if pictured.is_empty() { 0 } else { TOKENS_OF_A_PICTURE };
    let answered = text.chars().count().div_ceil(4).max(1) + tokens;
    let thought = settings.thoughts(model, prompt);
    let mut counts = vec![
        ("promptTokenCount", prompt),
        ("candidatesTokenCount", answered),
        ("totalTokenCount", prompt + answered + thought),
    ];
    if thought > 0 {
        counts.push(("thoughtsTokenCount", thought));
    }
    let parts = match settings.only_pictures() && !pictured.is_empty() {
        true => format!("[{pictured}]"),
        false if pictured.is_empty() => format!(r#"[{{"text":{}}}]"#, quoted(text)),
        false => format!(r#"[{{"text":{}}},{pictured}]"#, quoted(text)),
    };
    let content = object(&[("parts", &parts), ("role", r#""model""#)], mark >> 8);
    let candidate = object(
        &[("content", &content), ("finishReason", &quoted(finish)), ("index", "0")],
        mark >> 16,
    );
    Ok(object(
        &[
            ("candidates", &format!("[{candidate}]")),
            ("usageMetadata", &usage(&counts, prompt, mark >> 24)),
            ("modelVersion", &quoted(model)),
            ("responseId", &quoted(&response_id(mark))),
        ],
        mark,
    ))
}

/// A JSON object of members that are JSON text already; `turn` says which comes first.
pub fn object(members: &[(&str, &str)], turn: u64) -> String {
    let mut text = String::with_capacity(members.iter().map(|(n, v)| n.len() + v.len() + 4).sum());
    let first = (turn % members.len().max(1) as u64) as usize;
    for (name, value) in members[first..].iter().chain(&members[..first]) {
        text.push(if text.is_empty() { '{' } else { ',' });
        text.push('"');
        text.push_str(name);
        text.push_str("\":");
        text.push_str(value);
    }
    text.push('}');
    text
}

/// A text as JSON.
pub fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

/// A number that looks random, drawn from others (splitmix64).
pub fn mix(seed: u64, number: u64) -> u64 {
    let mut z = seed.wrapping_add(number.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// An id of `len` characters of `a-z0-9`, drawn from numbers.
pub fn id(seed: u64, number: u64, len: usize) -> String {
    const LETTERS: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
    let draw = |at: usize| mix(mix(seed, number), at as u64) % LETTERS.len() as u64;
    (0..len).map(|at| char::from(LETTERS[draw(at) as usize])).collect()
}

/// A number drawn from bytes (FNV-1a).
pub fn mark(bytes: &[u8]) -> u64 {
    let step = |hash: u64, b: &u8| (hash ^ u64::from(*b)).wrapping_mul(0x0000_0100_0000_01B3);
    mix(bytes.iter().fold(0xCBF2_9CE4_8422_2325, step), 0)
}

fn usage(counts: &[(&str, usize)], prompt: usize, turn: u64) -> String {
    let details = format!(r#"[{{"modality":"TEXT","tokenCount":{prompt}}}]"#);
    let numbers: Vec<(&str, String)> = counts.iter().map(|(n, c)| (*n, c.to_string())).collect();
    let mut members: Vec<(&str, &str)> = numbers.iter().map(|(n, c)| (*n, c.as_str())).collect();
    members.push(("promptTokensDetails", &details));
    object(&members, turn)
}

fn response_id(mark: u64) -> String {
    id(mark, 0, 22)
}

fn last_words(contents: &[Content<'_>]) -> String {
    let users = || contents.iter().rev().filter(|content| content.role.as_deref() != Some("model"));
    let content = users().find(|content| content.texts().next().is_some());
    let text = content.map_or_else(String::new, |content| content.texts().collect());
    match text.char_indices().nth(ECHO_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[derive(Deserialize)]
struct Request<'a> {
    #[serde(borrow, default)]
    contents: OneOrMany<Content<'a>>,
    #[serde(borrow, default, alias = "system_instruction", rename = "systemInstruction")]
    system_instruction: Option<Content<'a>>,
    #[serde(default, alias = "generation_config", rename = "generationConfig")]
    generation_config: Option<Settings>,
}

#[derive(Deserialize)]
struct Content<'a> {
    #[serde(borrow, default)]
    role: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    parts: OneOrMany<Part<'a>>,
}

impl Content<'_> {
    fn texts(&self) -> impl Iterator<Item = &str> {
        self.parts.as_slice().iter().filter_map(|part| part.text.as_deref())
    }

    fn chars(&self) -> usize {
        self.texts().map(|text| text.chars().count()).sum()
    }
}

/// All that is read of a part; media is skipped where it stands.
#[derive(Deserialize)]
struct Part<'a> {
    #[serde(borrow, default)]
    text: Option<Cow<'a, str>>,
}

/// A list, or the single item that bodies may have in its place.
#[derive(Deserialize, Default)]
#[serde(untagged)]
enum OneOrMany<T> {
    Many(Vec<T>),
    One(T),
    #[default]
    None,
}

impl<T> OneOrMany<T> {
    fn as_slice(&self) -> &[T] {
        match self {
            OneOrMany::Many(items) => items,
            OneOrMany::One(item) => std::slice::from_ref(item),
            OneOrMany::None => &[],
        }
    }
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Settings {
    #[serde(alias = "response_mime_type", rename = "responseMimeType")]
    mime_type: Option<String>,
    #[serde(alias = "response_schema", rename = "responseSchema")]
    schema: Option<Value>,
    #[serde(alias = "response_json_schema", rename = "responseJsonSchema")]
    json_schema: Option<Value>,
    #[serde(alias = "max_output_tokens", rename = "maxOutputTokens")]
    max_output_tokens: Option<Value>,
    #[serde(alias = "thinking_config", rename = "thinkingConfig")]
    thinking: Option<Value>,
    #[serde(alias = "response_modalities", rename = "responseModalities")]
    modalities: Vec<String>,
    #[serde(alias = "image_config", rename = "imageConfig")]
    image: Option<Image>,
}

#[derive(Deserialize)]
struct Image {
    #[serde(default, alias = "image_size", rename = "imageSize")]
    size: Option<String>,
}

impl Settings {
    /// What the service finds wrong with them only when it runs the row.
    fn check(&self) -> Result<(), Unanswerable> {
        let tokens = number(self.max_output_tokens.as_ref());
        if let Some(tokens) = tokens.filter(|tokens| !(0..=TOKENS_MAX).contains(tokens)) {
            return Err(Unanswerable(format!(
                "Unable to submit request because it has a maxOutputTokens value of {tokens} but \
                 the supported range is from 1 (inclusive) to {} (exclusive). Update the value and \
                 try again.",
                TOKENS_MAX + 1
            )));
        }
        match pictures::side_of(self.image_size()) {
            Some(_) => Ok(()),
            None => Err(Unanswerable("* image_config.image_size: not a known size\n".to_owned())),
        }
    }

    fn image_size(&self) -> Option<&str> {
        self.image.as_ref().and_then(|image| image.size.as_deref())
    }

    /// The parts with pictures that a model answers with; none but for image models. Newer ones
    /// show a draft first.
    fn pictures(&self, model: &str, mark: u64) -> String {
        let asked = self.modalities.is_empty() || self.modalities.iter().any(|one| one == "IMAGE");
        if !model.contains("image") || !asked {
            return String::new();
        }
        let side = pictures::side_of(self.image_size()).unwrap_or_default();
        let picture = pictures::inline_data(side, mark);
        match model.starts_with("gemini-3") {
            false => format!("{{{picture}}}"),
            true => {
                let draft = pictures::inline_data(4, mark);
                format!(r#"{{{draft},"thought":true}},{{{picture},"thoughtSignature":"c2ln"}}"#)
            }
        }
    }

    fn only_pictures(&self) -> bool {
        !self.modalities.is_empty() && !self.modalities.iter().any(|one| one == "TEXT")
    }

    fn text_for(&self, said: &str, spoiled: Spoiled) -> String {
        let schema = self.schema.as_ref().or(self.json_schema.as_ref());
        if let (Some(schema), Spoiled::Misfit) = (schema, spoiled) {
            return misfit(fitting(schema, said)).to_string();
        }
        match (schema, self.mime_type.as_deref()) {
            (Some(schema), Some("text/x.enum")) => {
                let value = fitting(schema, said);
                value.as_str().map_or_else(|| value.to_string(), str::to_owned)
            }
            (Some(schema), _) => fitting(schema, said).to_string(),
            (None, Some("application/json")) => serde_json::json!({ "echo": said }).to_string(),
            (None, _) => format!("Echo of request: {said}"),
        }
    }

    /// The text up to the token limit, if it is longer.
    fn cut<'t>(&self, text: &'t str, spoiled: Spoiled) -> Option<&'t str> {
        let limit = number(self.max_output_tokens.as_ref())
            .filter(|tokens| *tokens > 0)
            .map_or(usize::MAX, |tokens| (tokens as usize).saturating_mul(4));
        let limit = match spoiled {
            Spoiled::Truncated => limit.min(text.chars().count() / 2),
            Spoiled::No | Spoiled::Blocked | Spoiled::Misfit => limit,
        };
        text.char_indices().nth(limit).map(|(end, _)| &text[..end])
    }

    /// Tokens spent on thinking.
    fn thoughts(&self, model: &str, prompt: usize) -> usize {
        let thinks = ["gemini-2.5", "gemini-3"].iter().any(|family| model.starts_with(family));
        let budget = self.thinking.as_ref().and_then(|thinking| {
            number(thinking.get("thinkingBudget").or(thinking.get("thinking_budget")))
        });
        let wanted = 16 + prompt / 2;
        match budget {
            _ if !thinks => 0,
            Some(budget) if budget >= 0 => wanted.min(budget as usize),
            Some(_) | None => wanted,
        }
    }
}

/// A number, which may be written as text.
pub fn number(value: Option<&Value>) -> Option<i64> {
    value.and_then(|value| value.as_i64().or_else(|| value.as_str()?.parse().ok()))
}

/// Characters of a request that are echoed.
const ECHO_CHARS_MAX: usize = 4096;

/// Most tokens that can be asked for.
const TOKENS_MAX: i64 = 65_536;

const TOKENS_OF_A_PICTURE: usize = 1290;

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(request: &str, spoiled: Spoiled) -> Value {
        let text =
            answer("models/gemini-2.5-flash", request, "", mark(request.as_bytes()), spoiled);
        serde_json::from_str(&text.expect("answered")).expect("JSON")
    }

    fn text_of(answer: &Value) -> &str {
        answer["candidates"][0]["content"]["parts"][0]["text"].as_str().expect("text")
    }

    #[test]
    fn the_last_words_of_the_user_are_echoed_as_they_are() {
        let answer = answered(
            r#"{"contents":[{"role":"user","parts":[{"text":"first"}]},
                {"role":"model","parts":[{"text":"no"}]},{"parts":{"text":"你好 \"世界\""}}]}"#,
            Spoiled::No,
        );
        assert_eq!(text_of(&answer), "Echo of request: 你好 \"世界\"");
        let usage = &answer["usageMetadata"];
        let count = |name: &str| usage[name].as_u64().expect("a count");
        assert_eq!(
            count("totalTokenCount"),
            count("promptTokenCount") + count("candidatesTokenCount") + count("thoughtsTokenCount")
        );
        assert_eq!(answer["candidates"][0]["finishReason"], "STOP");
        assert_eq!(answer["modelVersion"], "gemini-2.5-flash");
    }

    #[test]
    fn an_answer_fits_the_schema_asked_for() {
        let request = r#"{"contents":[{"parts":[{"text":"hi"}]}],"generation_config":{
            "response_mime_type":"application/json","responseSchema":{"type":"OBJECT","properties":{
            "label":{"type":"STRING","enum":["good","bad"]},"words":{"type":"array","items":{"type":"STRING"}},
            "score":{"type":"INTEGER"}}}}}"#;
        let inner: Value =
            serde_json::from_str(text_of(&answered(request, Spoiled::No))).expect("JSON");
        assert_eq!(inner, serde_json::json!({"label": "good", "words": ["hi"], "score": 1}));
    }

    #[test]
    fn limits_cut_answers_and_blocks_leave_no_candidate() {
        let request = r#"{"contents":[{"parts":[{"text":"hello"}]}],"generationConfig":{"maxOutputTokens":2}}"#;
        let cut = answered(request, Spoiled::No);
        assert_eq!(
            (text_of(&cut), &cut["candidates"][0]["finishReason"]),
            ("Echo of ", &Value::from("MAX_TOKENS"))
        );
        let blocked = answered(request, Spoiled::Blocked);
        assert_eq!(blocked["candidates"], Value::Null);
        assert_eq!(blocked["promptFeedback"]["blockReason"], "PROHIBITED_CONTENT");
    }

    #[test]
    fn the_order_of_members_differs_but_repeats() {
        let request = |n: u32| format!(r#"{{"contents":[{{"parts":[{{"text":"{n}"}}]}}]}}"#);
        let text =
            |n| answer("m", &request(n), "", mark(request(n).as_bytes()), Spoiled::No).expect("ok");
        assert_eq!(text(1), text(1));
        let starts: std::collections::HashSet<String> =
            (0..20).map(|n| text(n).chars().take(8).collect()).collect();
        assert!(starts.len() > 1, "{starts:?}");
    }

    #[test]
    fn a_request_without_contents_is_unanswerable() {
        assert!(answer("m", r#"{"contents":[]}"#, "", 0, Spoiled::No).is_err());
    }
}
