//! Lines in OpenAI's batch format: what stands in them, and what is wrong with them.
//!
//! One pass over a file names every line that is no request for the endpoint of its batch, and every
//! id that comes twice. What a body holds is looked at when it is answered, one line at a time.

use std::collections::HashSet;
use std::io::{self, BufRead};

use memchr::memmem::Finder;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::rows::next_line;
use crate::engine::job::Task;

/// A line.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LayerRow<'a> {
    /// The client's name for it.
    pub custom_id: String,
    method: String,
    url: String,
    /// What is asked for.
    #[serde(borrow)]
    pub body: &'a RawValue,
}

impl<'a> LayerRow<'a> {
    /// Takes a line apart.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(line: &'a [u8]) -> Result<LayerRow<'a>, String> {
        serde_json::from_slice(line).map_err(|error| error.to_string())
    }

    fn check(&self, task: Task) -> Result<(), String> {
        let endpoint = match task {
            Task::Generate => "/v1/chat/completions",
            Task::Embed => "/v1/embeddings",
        };
        if self.method != "POST" {
            return Err("method must be POST".to_owned());
        }
        if self.url != endpoint {
            return Err(format!("url must be {endpoint}, the endpoint of the batch"));
        }
        if !self.body.get().starts_with('{') {
            return Err("body must be an object".to_owned());
        }
        Ok(())
    }

    /// The model that its body names.
    fn model(&self) -> Option<String> {
        #[derive(Deserialize)]
        struct Body {
            model: String,
        }
        let body: Body = serde_json::from_str(self.body.get()).ok()?;
        Some(body.model.strip_prefix("models/").map(str::to_owned).unwrap_or(body.model))
    }
}

/// What one pass over a file told.
#[derive(Debug, Default)]
pub struct Survey {
    /// Lines that are not blank.
    pub rows: u64,
    /// Of these, the first that are no requests, with what is wrong with each.
    pub errors: Vec<(u64, String)>,
    /// Whether one contains the text that a fault looks for.
    pub poisoned: bool,
    /// The model that the first line names.
    pub model: String,
}

/// Reads all lines once.
///
/// # Errors
/// If they can not be read.
pub fn survey(mut input: impl BufRead, task: Task, poison: Option<&str>) -> io::Result<Survey> {
    let finder = poison.map(|text| Finder::new(text.as_bytes()));
    let (mut survey, mut ids) = (Survey::default(), HashSet::new());
    let (mut line, mut number) = (Vec::new(), 0_u64);
    while next_line(&mut input, &mut line)? {
        number += 1;
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        survey.rows += 1;
        survey.poisoned |= finder.as_ref().is_some_and(|finder| finder.find(&line).is_some());
        let read = LayerRow::read(&line).and_then(|row| {
            row.check(task)?;
            if survey.rows == 1 {
                survey.model = row.model().unwrap_or_default();
            }
            match ids.insert(row.custom_id.clone()) {
                true => Ok(()),
                false => Err(format!("custom_id {:?} is there twice", row.custom_id)),
            }
        });
        if let Err(what) = read
            && survey.errors.len() < ERRORS_MAX
        {
            survey.errors.push((number, what));
        }
    }
    Ok(survey)
}

/// Bad lines named of one file.
const ERRORS_MAX: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_that_is_no_request_is_named() {
        let file = concat!(
            r#"{"custom_id":"1","method":"POST","url":"/v1/chat/completions","body":{"model":"m"}}"#,
            "\n\n",
            r#"{"custom_id":"1","method":"POST","url":"/v1/chat/completions","body":{"model":"m"}}"#,
            "\n",
            r#"{"custom_id":"2","method":"POST","url":"/v1/embeddings","body":{"model":"m"}}"#,
            "\n",
            r#"{"key":"3","request":{}}"#,
            "\n",
        );
        let survey = survey(file.as_bytes(), Task::Generate, Some("embed")).expect("read");
        assert_eq!((survey.rows, survey.poisoned, survey.model.as_str()), (4, true, "m"));
        let lines: Vec<u64> = survey.errors.iter().map(|(line, _)| *line).collect();
        assert_eq!(lines, [3, 4, 5]);
        assert!(survey.errors[0].1.contains("twice"), "{:?}", survey.errors);
    }
}
