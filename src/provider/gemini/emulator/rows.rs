//! Rows: the lines of an input file, and the requests of an inline create kept in the same form.
//!
//! One pass over a file checks every row as the service does at create (API contract, 3.5 and
//! 3.6): siblings of `key` and `request` are ignored, a bare request is a row without a key, and
//! every bad line is named with its number and column. Rows are read one at a time.

use std::io::{self, BufRead};

use memchr::memmem::Finder;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::schema::{self, Misfit};
use crate::engine::job::Task;

/// The members of a row that count.
#[derive(Debug, Deserialize)]
struct Wrapped<'a> {
    #[serde(borrow, default)]
    key: Option<&'a RawValue>,
    #[serde(borrow, default)]
    request: Option<&'a RawValue>,
    #[serde(borrow, default)]
    metadata: Option<&'a RawValue>,
}

/// A row taken apart; all parts are JSON text.
#[derive(Debug, Clone, Copy)]
pub struct Row<'a> {
    /// The client's name for it, of rows in files.
    pub key: Option<&'a str>,
    /// The request.
    pub request: &'a str,
    /// What the client attached, of inline rows.
    pub metadata: Option<&'a str>,
}

impl<'a> Row<'a> {
    /// Takes a line apart. Only the outside is checked, not the request.
    ///
    /// # Errors
    /// What is wrong, and at which byte.
    pub fn read(line: &'a [u8]) -> Result<Row<'a>, Misfit> {
        let first = line.iter().position(|b| !b.is_ascii_whitespace()).unwrap_or(0);
        if line.get(first) != Some(&b'{') {
            let found =
                line.get(first..).and_then(|rest| String::from_utf8_lossy(rest).chars().next());
            let found = found.map_or_else(|| "end of line".to_owned(), |c| format!("'{c}'"));
            let what = format!("unexpected character: {found}; expected '{{'");
            return Err(Misfit { column: first + 1, what });
        }
        let wrapped: Wrapped<'a> = serde_json::from_slice(line).map_err(|e| Misfit::of(&e))?;
        let Some(request) = wrapped.request else {
            let whole = std::str::from_utf8(line).map_err(|error| Misfit {
                column: error.valid_up_to() + 1,
                what: "invalid UTF-8".to_owned(),
            })?;
            return Ok(Row { key: None, request: whole, metadata: None });
        };
        Ok(Row {
            key: wrapped.key.map(RawValue::get).filter(|key| *key != "null"),
            request: request.get(),
            metadata: wrapped.metadata.map(RawValue::get),
        })
    }

    /// Checks a row of a file wholly.
    fn check(line: &'a [u8], task: Task) -> Result<(), Misfit> {
        let row = Row::read(line)?;
        let column_of = |part: &str| part.as_ptr() as usize - line.as_ptr() as usize;
        if let Some(key) = row.key.filter(|key| !key.starts_with('"')) {
            let found = key.chars().next().unwrap_or(' ');
            let what = format!("unexpected character: '{found}'; expected '\"'");
            return Err(Misfit { column: column_of(key) + 1, what });
        }
        let message = match task {
            Task::Generate => "GenerateContentRequest",
            Task::Embed => "EmbedContentRequest",
        };
        schema::first_offence(message, row.request.as_bytes()).map_err(|misfit| Misfit {
            column: column_of(row.request) + misfit.column,
            what: misfit.what,
        })
    }
}

/// What one pass over all rows of a batch told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Survey {
    /// Rows there are.
    pub rows: u64,
    /// Bytes of them all.
    pub bytes: u64,
    /// One sentence for each bad line, up to 100.
    pub errors: Vec<String>,
    /// Whether a row contains the text that a fault looks for, in the order given.
    pub contains: [bool; 2],
}

/// Reads all rows once. `check` says as what they are checked, if they are: inline rows were, with
/// their body. `texts` are looked for in every row.
///
/// # Errors
/// If the rows can not be read.
pub fn survey(
    mut input: impl BufRead,
    check: Option<Task>,
    texts: [Option<&str>; 2],
) -> io::Result<Survey> {
    let finders = texts.map(|text| text.map(|text| Finder::new(text.as_bytes())));
    let mut survey = Survey::default();
    let mut line = Vec::new();
    let mut number = 0_u64;
    while next_line(&mut input, &mut line)? {
        number += 1;
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        survey.rows += 1;
        survey.bytes += line.len() as u64;
        for (found, finder) in survey.contains.iter_mut().zip(&finders) {
            *found |= finder.as_ref().is_some_and(|finder| finder.find(&line).is_some());
        }
        if let Some(task) = check
            && survey.errors.len() < ERRORS_MAX
            && let Err(Misfit { column, what }) = Row::check(&line, task)
        {
            let error =
                format!("Error on line {number}: invalid JSON, near column {column}: {what}");
            survey.errors.push(error);
        }
    }
    Ok(survey)
}

/// Reads the next line without its line break; `false` at the end.
///
/// # Errors
/// If it can not be read, or is longer than any row that the service would take.
pub fn next_line(input: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<bool> {
    line.clear();
    let read = io::Read::take(&mut *input, LINE_BYTES_MAX).read_until(b'\n', line)?;
    if read as u64 == LINE_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a line is longer than 256 MiB"));
    }
    if line.last() == Some(&b'\n') {
        line.pop();
    }
    if line.last() == Some(&b'\r') {
        line.pop();
    }
    Ok(read > 0)
}

/// Bad lines named in one answer.
const ERRORS_MAX: usize = 100;

const LINE_BYTES_MAX: u64 = 256 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn errors(file: &str) -> Vec<String> {
        survey(file.as_bytes(), Some(Task::Generate), [None, None]).expect("read").errors
    }

    #[test]
    fn every_bad_line_is_named_with_its_column() {
        let file = concat!(
            "{\"key\":\"a\",\"request\":{\"contents\":[{\"parts\":[{\"text\":\"x\"}]}]}}\n",
            "{\"key\":\"b\",\"request\":{\"contents\":[],\"thinking_config\":{}}}\n",
            "\n",
            "[1]\n",
            "{\"key\":\"c\",\"request\":{\"systemInstruction\":[]}}\n",
            "{\"key\":\"d\",\n",
            "{\"key\":5,\"request\":{}}\n",
        );
        let errors = errors(file);
        assert_eq!(errors.len(), 5, "{errors:#?}");
        assert!(errors[0].starts_with("Error on line 2: invalid JSON, near column "));
        assert!(errors[0].ends_with(": no such field: 'thinking_config'"), "{}", errors[0]);
        assert_eq!(
            errors[1],
            "Error on line 4: invalid JSON, near column 1: unexpected character: '['; expected '{'"
        );
        assert!(errors[2].contains("line 5") && errors[2].ends_with("'['; expected '{'"));
        assert!(errors[3].contains("line 6"), "{}", errors[3]);
        assert!(errors[4].contains("line 7") && errors[4].contains("column 8"), "{}", errors[4]);
    }

    #[test]
    fn bare_requests_and_siblings_of_the_request_are_accepted() {
        let file = concat!(
            "{\"contents\":[{\"parts\":[{\"text\":\"x\"}]}]}\r\n",
            "{\"config\":{\"foo\":1},\"key\":\"k\",\"request\":{\"contents\":[]}}",
        );
        assert_eq!(errors(file), Vec::<String>::new());
    }

    #[test]
    fn a_text_is_found_in_any_row() {
        let file = "{\"request\":{}}\n{\"request\":{\"model\":\"arsenic\"}}\n";
        let survey = survey(file.as_bytes(), Some(Task::Generate), [Some("arsenic"), Some("lead")])
            .expect("read");
        assert_eq!((survey.rows, survey.contains), (2, [true, false]));
    }
}
