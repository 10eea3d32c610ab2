//! The first answers of a results file, short enough for a terminal.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::telemetry::escaped;

/// One answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The user's key, as JSON text.
    pub key: String,
    /// The beginning of the answer's text.
    pub text: String,
}

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(borrow, alias = "custom_id")]
    key: &'a RawValue,
    response: Response,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Response {
    candidates: Vec<Candidate>,
    embedding: Embedding,
    /// Of the OpenAI-compatible layer.
    body: OpenAi,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct OpenAi {
    choices: Vec<Choice>,
    data: Vec<Vector>,
}

#[derive(Deserialize)]
struct Choice {
    message: Message,
}

#[derive(Deserialize)]
struct Message {
    content: Option<String>,
}

#[derive(Deserialize)]
struct Vector {
    embedding: Vec<f64>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Embedding {
    values: Vec<f64>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Candidate {
    content: Content,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Content {
    parts: Vec<Part>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Part {
    text: String,
    thought: bool,
}

/// The first answers, at most `count`. Lines that can not be shown are passed over.
///
/// # Errors
/// If the file can not be read.
pub fn first_answers(results: &Path, count: usize) -> io::Result<Vec<Answer>> {
    let mut reader = BufReader::new(File::open(results)?.take(PREVIEW_BYTES_MAX));
    let mut answers = Vec::new();
    let mut line = Vec::new();
    while answers.len() < count && reader.read_until(b'\n', &mut line)? > 0 {
        if let Ok(parsed) = serde_json::from_slice::<Line<'_>>(&line) {
            let key = shortened(parsed.key.get());
            answers.push(Answer { key, text: shortened(&text(&parsed.response)) });
        }
        line.clear();
    }
    Ok(answers)
}

fn text(response: &Response) -> String {
    let vector = response.body.data.first().map(|vector| &vector.embedding);
    let values = vector.unwrap_or(&response.embedding.values);
    if !values.is_empty() {
        let first: Vec<String> = values.iter().take(3).map(|value| format!("{value:.4}")).collect();
        return format!("a vector of {} numbers: {}, …", values.len(), first.join(", "));
    }
    if let Some(choice) = response.body.choices.first() {
        return choice.message.content.clone().unwrap_or_default();
    }
    let parts = response.candidates.first().map(|first| first.content.parts.as_slice());
    let spoken = parts.unwrap_or_default().iter().filter(|part| !part.thought);
    spoken.map(|part| part.text.as_str()).collect()
}

fn shortened(text: &str) -> String {
    let one_line: Vec<&str> = text.split_whitespace().collect();
    let one_line = escaped(&one_line.join(" "));
    match one_line.char_indices().nth(TEXT_CHARS_MAX) {
        Some((at, _)) => format!("{}…", &one_line[..at]),
        None => one_line,
    }
}

const TEXT_CHARS_MAX: usize = 100;
/// Enough for a few answers of usual size; a preview is no reason to read a large file.
const PREVIEW_BYTES_MAX: u64 = 4 << 20;

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "tests write plain files")]

    use super::*;

    #[test]
    fn thoughts_line_breaks_and_escape_sequences_are_left_out() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("r.jsonl");
        let line = r#"{"key": 7, "response": {"candidates": [{"content": {"parts": [
            {"text": "hm", "thought": true}, {"text": "Guten\nTag \u001b[31m"}, {"text": "!"}]}}]}}"#;
        let line = line.replace('\n', " ");
        std::fs::write(&path, format!("{line}\nnot json\n{line}\n")).expect("written");
        let answers = first_answers(&path, 5).expect("read");
        assert_eq!(answers.len(), 2);
        assert_eq!(answers[0].key, "7");
        assert_eq!(answers[0].text, "Guten Tag \\u{1b}[31m!");
        assert_eq!(first_answers(&path, 1).expect("read").len(), 1);
    }

    #[test]
    fn answers_in_openais_format_are_shown_too() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("r.jsonl");
        let line = |id: u8, body: &str| {
            format!(
                r#"{{"id":"i","custom_id":{id},"response":{{"status_code":200,"body":{body}}},"error":null}}"#
            )
        };
        let chat = line(1, r#"{"choices":[{"message":{"role":"assistant","content":"hi"}}]}"#);
        let vector = line(2, r#"{"data":[{"embedding":[0.5,0.25]}]}"#);
        std::fs::write(&path, format!("{chat}\n{vector}\n")).expect("written");
        let answers = first_answers(&path, 5).expect("read");
        assert_eq!((answers[0].key.as_str(), answers[0].text.as_str()), ("1", "hi"));
        assert_eq!(answers[1].text, "a vector of 2 numbers: 0.5000, 0.2500, …");
    }

    #[test]
    fn a_long_answer_is_cut_between_characters() {
        assert_eq!(shortened(&"日".repeat(500)).chars().count(), TEXT_CHARS_MAX + 1);
    }
}
