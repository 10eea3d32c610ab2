//! Results: one pass over the rows of a batch that writes their result lines (API contract, 5.2
//! and 5.3), with the faults that were switched on for it.
//!
//! One row is in memory at a time. Only a shuffle keeps an index of all lines, and copies the
//! lines into their new order afterwards.

use std::collections::HashSet;
use std::io::{self, BufRead, Seek, SeekFrom, Write};
use std::sync::Arc;

use super::answers::{self, Spoiled, mark, mix, object, quoted};
use super::embeddings;
use super::layer_answers::{self, Fortune};
use super::layer_rows::LayerRow;
use super::rows::{Row, next_line};
use super::shelf::Shelf;
use crate::engine::job::Task;

/// What is to be done with the rows of one batch. The distances are of [`super::faults::EveryNth`].
#[derive(Debug, Clone)]
pub struct Recipe {
    /// `models/…`.
    pub model: String,
    /// What the rows ask for.
    pub task: Task,
    /// Whether the rows came inline: results then carry their metadata, else their key.
    pub inline: bool,
    /// Whether they came, and are answered, in OpenAI's format.
    pub layer: bool,
    /// Rows that were served, counted from the first.
    pub served: u64,
    /// Whether the rows not served come back as cancelled; else they do not come back.
    pub rest_cancelled: bool,
    /// Rows left out.
    pub missing: u64,
    /// Rows written twice.
    pub repeated: u64,
    /// Rows after which one is added that nobody asked for.
    pub foreign: u64,
    /// Rows that fail with code 13.
    pub code_13: u64,
    /// Requests that have had their code 13 already, by mark; `None` if that does not save them.
    pub spared: Option<Arc<HashSet<u64>>>,
    /// Rows whose prompt is blocked.
    pub blocked: u64,
    /// Answers cut short.
    pub truncated: u64,
    /// Answers that do not fit the schema asked for.
    pub misfit: u64,
    /// Rows without their key.
    pub keyless: u64,
    /// The seed of another order, if there is to be one.
    pub shuffled: Option<u64>,
    /// The files that rows can name.
    pub shelf: Arc<Shelf>,
}

/// What became of the rows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Rows with a response.
    pub successful: u64,
    /// Rows with an error, written or not.
    pub failed: u64,
    /// Requests that had their code 13 now, by mark.
    pub struck_13: Vec<u64>,
}

/// Writes the result lines of all rows.
///
/// # Errors
/// If the rows can not be read or the results not be written.
pub fn write(recipe: &Recipe, mut rows: impl BufRead, mut out: impl Write) -> io::Result<Outcome> {
    let mut outcome = Outcome::default();
    let mut line = Vec::new();
    let mut number = 0_u64;
    while next_line(&mut rows, &mut line)? {
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        number += 1;
        if number > recipe.served && !recipe.rest_cancelled {
            break;
        }
        let result = match recipe.layer {
            true => layer_result_of(recipe, number, &line, &mut outcome)?,
            false => {
                let row = Row::read(&line).map_err(|misfit| unreadable(misfit.what))?;
                result_of(recipe, number, &row, &mut outcome)
            }
        };
        let nth = |every: u64| every > 0 && number.is_multiple_of(every);
        let times = if nth(recipe.missing) { 0 } else { 1 + usize::from(nth(recipe.repeated)) };
        for _ in 0..times {
            out.write_all(result.as_bytes())?;
            out.write_all(b"\n")?;
        }
        if nth(recipe.foreign) {
            out.write_all(foreign(recipe, number).as_bytes())?;
            out.write_all(b"\n")?;
        }
    }
    out.flush()?;
    Ok(outcome)
}

fn unreadable(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// What the faults make of a row.
fn fortune(recipe: &Recipe, number: u64, mark: u64, outcome: &mut Outcome) -> Fortune {
    let nth = |every: u64| every > 0 && number.is_multiple_of(every);
    if number > recipe.served {
        return Fortune::Cancelled;
    }
    if nth(recipe.code_13) && !recipe.spared.as_ref().is_some_and(|s| s.contains(&mark)) {
        outcome.struck_13.push(mark);
        return Fortune::Internal;
    }
    Fortune::Answered(match (nth(recipe.blocked), nth(recipe.truncated), nth(recipe.misfit)) {
        (true, _, _) => Spoiled::Blocked,
        (false, true, _) => Spoiled::Truncated,
        (false, false, true) => Spoiled::Misfit,
        (false, false, false) => Spoiled::No,
    })
}

fn layer_result_of(
    recipe: &Recipe,
    number: u64,
    line: &[u8],
    outcome: &mut Outcome,
) -> io::Result<String> {
    let row = LayerRow::read(line).map_err(unreadable)?;
    let mark = mark(row.body.get().as_bytes());
    let fortune = fortune(recipe, number, mark, outcome);
    let keyless = recipe.keyless > 0 && number.is_multiple_of(recipe.keyless);
    let (result, answers) = layer_answers::result(&row, recipe.task, fortune, keyless);
    outcome.successful += u64::from(answers);
    outcome.failed += u64::from(!answers);
    Ok(result.to_string())
}

fn result_of(recipe: &Recipe, number: u64, row: &Row<'_>, outcome: &mut Outcome) -> String {
    let mark = mark(row.request.as_bytes());
    let nth = |every: u64| every > 0 && number.is_multiple_of(every);
    let seen = recipe.shelf.look(row.request);
    let fortune = match &seen {
        Err(_) if number <= recipe.served => None,
        _ => Some(fortune(recipe, number, mark, outcome)),
    };
    let (name, value) = match (fortune, &seen) {
        (None, Err((code, message))) => {
            ("error", Err(format!(r#"{{"code":{code},"message":{}}}"#, quoted(message))))
        }
        (None | Some(Fortune::Cancelled), _) => ("error", Err(r#"{"code":1}"#.to_owned())),
        (Some(Fortune::Internal), _) => {
            let message = "An internal error has occurred. Please retry or report in \
                           https://developers.generativeai.google/guide/troubleshooting";
            ("error", Err(format!(r#"{{"code":13,"message":{}}}"#, quoted(message))))
        }
        (Some(Fortune::Answered(spoiled)), seen) => {
            let answered = match recipe.task {
                Task::Generate => {
                    let seen = seen.as_deref().unwrap_or_default();
                    answers::answer(&recipe.model, row.request, seen, mark, spoiled)
                }
                Task::Embed => embeddings::answer(row.request, mark),
            };
            match answered {
                Ok(response) => ("response", Ok(response)),
                Err(answers::Unanswerable(message)) => {
                    ("error", Err(format!(r#"{{"code":3,"message":{}}}"#, quoted(&message))))
                }
            }
        }
    };
    match value {
        Ok(_) => outcome.successful += 1,
        Err(_) => outcome.failed += 1,
    }
    let value = value.unwrap_or_else(|error| error);
    let label = if recipe.inline { "metadata" } else { "key" };
    let label_value = if recipe.inline { row.metadata } else { row.key };
    match label_value.filter(|_| !nth(recipe.keyless)) {
        Some(text) => object(&[(name, &value), (label, text)], mark >> 32),
        None => object(&[(name, &value)], 0),
    }
}

/// A row that belongs to somebody else.
fn foreign(recipe: &Recipe, number: u64) -> String {
    if recipe.layer {
        let error = r#"{"code":"batch_expired","message":"of somebody else"}"#;
        return format!(r#"{{"custom_id":"foreign-{number}","response":null,"error":{error}}}"#);
    }
    let key = quoted(&format!("foreign-{number}"));
    let said = r#"{"parts":[{"text":"of somebody else"}]}"#;
    let response = match recipe.task {
        Task::Generate => {
            let request = format!(r#"{{"contents":[{said}]}}"#);
            answers::answer(&recipe.model, &request, "", number, Spoiled::No)
        }
        Task::Embed => embeddings::answer(&format!(r#"{{"content":{said}}}"#), number),
    };
    let response = response.expect("this request has all it needs");
    let metadata = format!(r#"{{"key":{key}}}"#);
    if recipe.inline {
        object(&[("response", &response), ("metadata", &metadata)], number)
    } else {
        object(&[("key", &key), ("response", &response)], number)
    }
}

/// Copies the lines of a file in another order.
///
/// # Errors
/// If a line can not be read or written.
pub fn shuffle(seed: u64, mut lines: impl BufRead + Seek, mut out: impl Write) -> io::Result<()> {
    let mut spans: Vec<(u64, usize)> = Vec::new();
    let mut line = Vec::new();
    let mut start = 0_u64;
    loop {
        line.clear();
        let len = lines.read_until(b'\n', &mut line)?;
        if len == 0 {
            break;
        }
        spans.push((start, len));
        start += len as u64;
    }
    for last in (1..spans.len()).rev() {
        spans.swap(last, (mix(seed, last as u64) % (last as u64 + 1)) as usize);
    }
    for (start, len) in spans {
        lines.seek(SeekFrom::Start(start))?;
        line.resize(len, 0);
        lines.read_exact(&mut line)?;
        out.write_all(&line)?;
    }
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn recipe() -> Recipe {
        Recipe {
            task: Task::Generate,
            model: "models/gemini-2.0-flash".to_owned(),
            inline: false,
            layer: false,
            served: u64::MAX,
            rest_cancelled: false,
            missing: 0,
            repeated: 0,
            foreign: 0,
            code_13: 0,
            spared: None,
            blocked: 0,
            truncated: 0,
            misfit: 0,
            keyless: 0,
            shuffled: None,
            shelf: Arc::default(),
        }
    }

    fn rows(count: u64) -> String {
        let row = |n| {
            format!(
                "{{\"key\":\"{n}\",\"request\":{{\"contents\":[{{\"parts\":[{{\"text\":\"q{n}\"}}]}}]}}}}\n"
            )
        };
        (1..=count).map(row).collect()
    }

    fn results(recipe: &Recipe, count: u64) -> (Vec<Value>, Outcome) {
        let mut out = Vec::new();
        let outcome = write(recipe, rows(count).as_bytes(), &mut out).expect("written");
        let text = String::from_utf8(out).expect("UTF-8");
        (text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect(), outcome)
    }

    #[test]
    fn each_row_is_answered_under_its_key() {
        let (lines, outcome) = results(&recipe(), 3);
        assert_eq!((outcome.successful, outcome.failed), (3, 0));
        for (n, line) in (1..).zip(&lines) {
            assert_eq!(line["key"], n.to_string());
            let text = &line["response"]["candidates"][0]["content"]["parts"][0]["text"];
            assert_eq!(text, &format!("Echo of request: q{n}"));
        }
    }

    #[test]
    fn faults_strike_the_rows_they_are_aimed_at() {
        let recipe =
            Recipe { missing: 4, repeated: 3, foreign: 5, code_13: 2, keyless: 5, ..recipe() };
        let (lines, outcome) = results(&recipe, 6);
        let keys: Vec<Option<&str>> = lines.iter().map(|line| line["key"].as_str()).collect();
        let expected = [
            Some("1"),
            Some("2"),
            Some("3"),
            Some("3"),
            None,
            Some("foreign-5"),
            Some("6"),
            Some("6"),
        ];
        assert_eq!(keys, expected);
        assert_eq!(lines[1]["error"]["code"], 13);
        assert_eq!(outcome.struck_13.len(), 3);
    }

    #[test]
    fn code_13_spares_those_it_has_struck() {
        let first = Recipe { code_13: 1, spared: Some(Arc::default()), ..recipe() };
        let (_, outcome) = results(&first, 2);
        assert_eq!(outcome.failed, 2);
        let spared = Some(Arc::new(outcome.struck_13.into_iter().collect()));
        let (_, outcome) = results(&Recipe { spared, ..first }, 2);
        assert_eq!(outcome.successful, 2);
    }

    #[test]
    fn rows_not_served_are_cancelled_or_absent() {
        let cancelled = Recipe { served: 1, rest_cancelled: true, ..recipe() };
        let (lines, outcome) = results(&cancelled, 3);
        assert_eq!(
            (lines.len(), outcome.failed, &lines[2]["error"]["code"]),
            (3, 2, &Value::from(1))
        );
        let (lines, _) = results(&Recipe { served: 1, ..recipe() }, 3);
        assert_eq!(lines.len(), 1);
    }

    #[test]
    fn a_shuffle_loses_no_line() {
        let before: String = (0..50).map(|n| format!("{n}\n")).collect();
        let mut after = Vec::new();
        shuffle(7, io::Cursor::new(&before), &mut after).expect("shuffled");
        let after = String::from_utf8(after).expect("UTF-8");
        assert_ne!(after, before);
        let sorted = |text: &str| {
            let mut lines: Vec<u32> = text.lines().map(|l| l.parse().expect("number")).collect();
            lines.sort_unstable();
            lines
        };
        assert_eq!(sorted(&after), sorted(&before));
    }
}
