//! The records of a table with the answers beside them, as a table: `NAME.results.csv`.
//!
//! A copy for people: the results and errors stay what counts, and it is made of them. Every record
//! of the input is in it, in input order and with all its columns as they were, then the text of
//! its answer, then why it has none. Fields are data: one that a spreadsheet would take for a
//! formula stays as it is. Memory is one record and one result line. The file gets its name when it
//! is whole and synced; written again, it has the same bytes.

use std::borrow::Cow;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::path::Path;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::answer::Answer;
use super::records::{Record, Records, empty};
use super::{BLOCK_BYTES, KEPT_BYTES, MARK, Rules, unpacked};
use crate::engine::job::Head;
use crate::spool::source::{self, Ending};
use crate::spool::steady::SteadyFile;
use crate::spool::{At, JobFolder, SpoolError, durable, moment};

/// Whether the answers to an input are wanted as a table too.
pub fn is_wanted(head: &Head) -> bool {
    head.queue.conversion().emit_csv && source::ending(&head.source.name) == Ending::Table
}

/// Writes [`JobFolder::merged_table`] from the input, of which `bytes` were planned, and the merged
/// results and errors.
///
/// # Errors
/// If a file can not be read or written, or they do not fit together. The table has no name then.
pub fn write(
    folder: &JobFolder,
    name: &str,
    bytes: u64,
    rules: Rules<'_>,
) -> Result<(), SpoolError> {
    let (input, target) = (folder.input(name), folder.merged_table());
    let aside = target.with_extension("aside");
    let file = source::reopen(&input).at("read", &input)?.take(bytes);
    let answers = Lines::of(&folder.merged_results())?;
    let failures = Lines::of(&folder.merged_errors())?;
    let out = SteadyFile::new(File::create(&aside).at("write", &aside)?);
    let mut out = BufWriter::with_capacity(BLOCK_BYTES, out);
    let written = unpacked(file, name, rules.conversion)
        .and_then(|table| join(table, rules, answers, failures, &mut out))
        .and_then(|()| out.flush())
        .and_then(|()| out.get_mut().sync());
    if written.is_err() {
        // A full disk is not made fuller by what is written again anyway.
        drop(fs::remove_file(&aside));
    }
    written.at("write", &aside)?;
    moment("merge:table", &target)?;
    durable::rename(&aside, &target)
}

/// Reads lines that may be long, one at a time.
struct Lines<R> {
    input: Option<R>,
    line: Vec<u8>,
}

impl Lines<BufReader<File>> {
    /// Of a file; one that is not there has none.
    fn of(path: &Path) -> Result<Lines<BufReader<File>>, SpoolError> {
        let input = match File::open(path) {
            Ok(file) => Some(BufReader::with_capacity(BLOCK_BYTES, file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error).at("read", path),
        };
        Ok(Lines { input, line: Vec::new() })
    }
}

impl<R: BufRead> Lines<R> {
    fn next(&mut self) -> io::Result<Option<&[u8]>> {
        self.line.clear();
        self.line.shrink_to(KEPT_BYTES);
        let Some(input) = &mut self.input else { return Ok(None) };
        let read = input.read_until(b'\n', &mut self.line)?;
        Ok((read > 0).then_some(&self.line))
    }
}

/// Why a record has no answer.
struct Failure {
    line: u64,
    told: String,
}

fn next_failure<R: BufRead>(failures: &mut Lines<R>) -> io::Result<Option<Failure>> {
    #[derive(Deserialize)]
    struct Failed {
        line: u64,
        error: Told,
    }
    #[derive(Deserialize)]
    struct Told {
        reason: String,
        message: String,
    }
    let Some(line) = failures.next()? else { return Ok(None) };
    let Failed { line, error } = serde_json::from_slice(line)?;
    Ok(Some(Failure { line, told: format!("{}: {}", error.reason, error.message) }))
}

fn next_answer<R: BufRead>(answers: &mut Lines<R>) -> io::Result<Option<String>> {
    #[derive(Deserialize)]
    struct Answered<'a> {
        #[serde(borrow)]
        response: &'a RawValue,
    }
    let Some(line) = answers.next()? else { return Ok(None) };
    let Answered { response } = serde_json::from_slice(line)?;
    Ok(Some(Answer::text(response.get())))
}

fn join<A: BufRead, F: BufRead>(
    table: impl Read,
    rules: Rules<'_>,
    mut answers: Lines<A>,
    mut failures: Lines<F>,
    out: &mut impl Write,
) -> io::Result<()> {
    let mut records = Records::open(table, rules.conversion.csv_delimiter, rules.line_bytes_max)?;
    let mut record = Record::default();
    if !records.next(&mut record)? {
        return Err(empty());
    }
    if records.marked {
        out.write_all(MARK)?;
    }
    let names: Vec<Vec<u8>> = record.fields().map(<[u8]>::to_vec).collect();
    let mut row = Row { out, delimiter: records.delimiter, returns: records.returns };
    row.write(&record, names.len(), &own_name("answer", &names), &own_name("error", &names))?;
    let mut failure = next_failure(&mut failures)?;
    while records.next(&mut record)? {
        if record.is_blank(names.len()) {
            continue;
        }
        match failure.take_if(|failure| failure.line == record.line) {
            Some(Failure { told, .. }) => {
                row.write(&record, names.len(), "", &told)?;
                failure = next_failure(&mut failures)?;
            }
            None => {
                let answer = next_answer(&mut answers)?.ok_or_else(changed)?;
                row.write(&record, names.len(), &answer, "")?;
            }
        }
    }
    if failure.is_some() || next_answer(&mut answers)?.is_some() {
        return Err(changed());
    }
    Ok(())
}

/// Writes records.
struct Row<'w, W> {
    out: &'w mut W,
    delimiter: u8,
    returns: bool,
}

impl<W: Write> Row<'_, W> {
    /// A record of so many columns, and two more.
    fn write(
        &mut self,
        record: &Record,
        width: usize,
        answer: &str,
        error: &str,
    ) -> io::Result<()> {
        for number in 0..width {
            self.field(record.field(number))?;
            self.out.write_all(&[self.delimiter])?;
        }
        self.field(answer.as_bytes())?;
        self.out.write_all(&[self.delimiter])?;
        self.field(error.as_bytes())?;
        self.out.write_all(if self.returns { b"\r\n" } else { b"\n" })
    }

    /// A field, in quotes if it could not be told from the rest otherwise.
    fn field(&mut self, field: &[u8]) -> io::Result<()> {
        let special = |byte: &u8| matches!(byte, b'"' | b'\r' | b'\n') || *byte == self.delimiter;
        if !field.iter().any(special) {
            return self.out.write_all(field);
        }
        self.out.write_all(b"\"")?;
        for (number, part) in field.split(|byte| *byte == b'"').enumerate() {
            if number > 0 {
                self.out.write_all(b"\"\"")?;
            }
            self.out.write_all(part)?;
        }
        self.out.write_all(b"\"")
    }
}

/// A name for a column of ours that no column has.
fn own_name(name: &'static str, names: &[Vec<u8>]) -> Cow<'static, str> {
    let is_taken = |name: &str| {
        names.iter().any(|other| other.trim_ascii().eq_ignore_ascii_case(name.as_bytes()))
    };
    if !is_taken(name) {
        return Cow::Borrowed(name);
    }
    let numbered = (2_u64..).map(|number| format!("{name}~{number}"));
    let free = numbered.into_iter().find(|name| !is_taken(name));
    Cow::Owned(free.expect("there are more numbers than columns"))
}

fn changed() -> io::Error {
    let text = "the answers do not fit the records of the input: it was changed since it was read; \
                put it back as it was";
    io::Error::new(io::ErrorKind::InvalidData, text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::job::{Conversion, Task};

    fn joined(table: &str, answers: &str, failures: &str) -> io::Result<String> {
        let conversion = &Conversion::default();
        let rules = Rules { conversion, task: Task::Generate, line_bytes_max: 1 << 20 };
        let lines = |text: &'static str| Lines { input: Some(text.as_bytes()), line: Vec::new() };
        let mut out = Vec::new();
        let answers = lines(answers.to_owned().leak());
        join(table.as_bytes(), rules, answers, lines(failures.to_owned().leak()), &mut out)?;
        Ok(String::from_utf8(out).expect("text"))
    }

    fn answer(text: &str) -> String {
        let text = serde_json::Value::from(text);
        format!(
            "{{\"key\":1,\"response\":{{\"candidates\":[{{\"content\":{{\"parts\":[{{\"text\":{text}}}]}}}}]}}}}\n"
        )
    }

    fn failure(line: u64) -> String {
        format!(
            "{{\"key\":1,\"error\":{{\"code\":3,\"status\":\"X\",\"message\":\"no, never\",\"reason\":\"bad\"}},\"line\":{line},\"request\":null}}\n"
        )
    }

    #[test]
    fn answers_and_reasons_stand_beside_their_records_in_input_order() {
        let table = "id,prompt\n1,a\n\n2,\"b\nb\"\n3,\n4,\"=1+1\"\n";
        let answers = answer("A") + &answer("B, \"b\"\nb") + &answer("D");
        let text = joined(table, &answers, &failure(6)).expect("joined");
        let expected = "id,prompt,answer,error\n1,a,A,\n2,\"b\nb\",\"B, \"\"b\"\"\nb\",\n\
                        3,,,\"bad: no, never\"\n4,=1+1,D,\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn the_table_keeps_its_mark_its_delimiter_and_its_line_ends() {
        let text = joined("\u{feff}prompt;n\r\nx;1,5\r\n", &answer("a;b"), "").expect("joined");
        assert_eq!(text, "\u{feff}prompt;n;answer;error\r\nx;1,5;\"a;b\";\r\n");
    }

    #[test]
    fn records_of_another_width_are_there_too() {
        let table = "a,prompt\n1\n1,2,3\n4,5\n";
        let failures = failure(2) + &failure(3);
        let text = joined(table, &answer("A"), &failures).expect("joined");
        let why = "\"bad: no, never\"";
        assert_eq!(text, format!("a,prompt,answer,error\n1,,,{why}\n1,2,,{why}\n4,5,A,\n"));
    }

    #[test]
    fn columns_of_ours_take_no_name_that_is_there() {
        let text = joined("prompt,Answer,answer~2\nx,y,z\n", &answer("a"), "").expect("joined");
        assert_eq!(text, "prompt,Answer,answer~2,answer~3,error\nx,y,z,a,\n");
    }

    #[test]
    fn a_table_that_is_another_one_by_now_is_told() {
        for (table, answers, failures) in [
            ("prompt\nx\ny\n", answer("a"), String::new()),
            ("prompt\nx\n", answer("a") + &answer("b"), String::new()),
            ("prompt\nx\n", answer("a"), failure(3)),
        ] {
            let error = joined(table, &answers, &failures).expect_err(table);
            assert!(error.to_string().contains("changed since"), "{error}");
        }
    }
}
