//! Tables: one request for each record after the header.
//!
//! The prompt is the column `prompt`, or what the queue's template makes of the columns; the key is
//! the column the queue names, else `key` or `id`, else the line. Names of columns are the same in
//! upper and lower case. A table without the columns it needs is refused with those it has.

use std::borrow::Cow;
use std::io::{self, Read};
use std::iter;

use super::prompt::{Fault, Wording, line_key, text};
use super::records::{Record, Records, empty};
use super::{KEPT_BYTES, Numbering, Step, Unmarked, fault_line, unfit, unfit_at};
use crate::engine::job::Conversion;
use crate::spool::index::LineFate;

/// Makes a request of each record.
pub struct Table<R> {
    records: Records<R>,
    record: Record,
    /// Whether there was a record.
    any: bool,
    /// Whether the record waits for its line.
    waits: bool,
    columns: Columns,
    wording: Wording,
    limit: usize,
    numbering: Numbering,
}

/// What the header says.
#[derive(Debug)]
struct Columns {
    names: Vec<String>,
    /// Of the prompt, or of each place of the template.
    prompt: Vec<usize>,
    key: Option<usize>,
}

impl<R: Read> Table<Unmarked<R>> {
    /// Reads the header. A record may have `limit` bytes.
    ///
    /// # Errors
    /// If it can not be read, or has not the columns that are needed.
    pub fn open(
        input: R,
        wording: Wording,
        conversion: &Conversion,
        limit: usize,
    ) -> io::Result<Table<Unmarked<R>>> {
        let mut records = Records::open(input, conversion.csv_delimiter, limit)?;
        let mut record = Record::default();
        if !records.next(&mut record)? {
            return Err(empty());
        }
        let columns = Columns::read(&record, &wording, conversion.key_column.as_deref())?;
        let numbering = Numbering::default();
        Ok(Table { records, record, any: false, waits: false, columns, wording, limit, numbering })
    }
}

impl<R: Read> Step for Table<R> {
    fn step(&mut self, made: &mut Vec<u8>) -> io::Result<bool> {
        let enough = made.len() + STEP_BYTES;
        while made.len() < enough {
            if !self.waits {
                if !self.records.next(&mut self.record)? {
                    return if self.any { Ok(false) } else { Err(no_record()) };
                }
                if self.record.is_blank(self.columns.names.len()) {
                    continue;
                }
            }
            self.waits = !self.numbering.reach(self.record.line, made);
            if self.waits {
                return Ok(true);
            }
            self.any = true;
            let start = made.len();
            if let Err(fault) = self.columns.request(&self.record, &self.wording, self.limit, made)
            {
                made.truncate(start);
                fault_line(&fault, self.columns.key_of(&self.record), made);
            }
            self.numbering.end(made);
        }
        Ok(true)
    }
}

impl Columns {
    fn read(header: &Record, wording: &Wording, key: Option<&str>) -> io::Result<Columns> {
        let named = header.fields().map(|field| text(field, "").map(|name| name.trim().to_owned()));
        let names: Vec<String> = match named.collect() {
            Ok(names) => names,
            Err(Fault { message, .. }) => {
                let message = format!("the names of the columns can not be read: {message}");
                return Err(unfit_at(Some(header.line), "invalid_header", message, MEND));
            }
        };
        if header.too_long.is_some() {
            let message = "the line with the names of the columns is too long".to_owned();
            return Err(unfit_at(Some(header.line), "invalid_header", message, MEND));
        }
        let find = |name: &str, whose: &str| column(&names, name, whose, header.line);
        let prompt = match &wording.template {
            None => vec![find("prompt", "for the prompts, and no template is set,")?],
            Some(template) => {
                let places = template.names().map(|name| find(name, "that the template names"));
                places.collect::<io::Result<_>>()?
            }
        };
        let key = match key {
            Some(name) => Some(find(name, "that is set as key_column")?),
            None => ["key", "id"].into_iter().find_map(|name| position(&names, name)),
        };
        Ok(Columns { names, prompt, key })
    }

    /// Adds the request of a record.
    fn request(
        &self,
        record: &Record,
        wording: &Wording,
        limit: usize,
        made: &mut Vec<u8>,
    ) -> Result<(), Fault> {
        if let Some(bytes) = record.too_long {
            return Err(Fault::too_long("record", bytes, limit));
        }
        let (found, wanted) = (record.fields().len(), self.names.len());
        if found != wanted {
            let message = format!(
                "the record has {found} field(s), the header {wanted}; put fields with the \
                 delimiter or line breaks in them into quotes"
            );
            return Err(Fault::new(LineFate::NotARequest, message));
        }
        let places = self.prompt.iter().map(|column| self.text(record, *column));
        let fields: Vec<&str> = places.collect::<Result<_, _>>()?;
        if fields.iter().all(|field| field.trim().is_empty()) {
            let names: Vec<&str> =
                self.prompt.iter().map(|column| self.names[*column].as_str()).collect();
            let message = format!("there is no text in {}", shown(&names));
            return Err(Fault::new(LineFate::NotARequest, message));
        }
        if let Some(column) = self.key {
            self.text(record, column)?;
        }
        let key = match self.key_of(record) {
            Some(key) => Cow::Borrowed(key),
            None => Cow::Owned(line_key(record.line)),
        };
        match &wording.template {
            None => wording.request(&key, iter::once(Cow::Borrowed(fields[0])), made),
            Some(template) => wording.request(&key, template.fill(|place| fields[place]), made),
        }
        Ok(())
    }

    /// The key of a record, unless it has none that can be read.
    fn key_of<'r>(&self, record: &'r Record) -> Option<&'r str> {
        let key = text(record.field(self.key?), "").ok()?;
        (!key.is_empty() && record.fields().len() == self.names.len()).then_some(key)
    }

    fn text<'r>(&self, record: &'r Record, column: usize) -> Result<&'r str, Fault> {
        text(record.field(column), &format!("column {}: ", shown(&[&self.names[column]])))
    }
}

fn no_record() -> io::Error {
    let remedy = "Write a record on each line below the names.";
    let message = "there is no record below the names of the columns".to_owned();
    unfit("empty", message, remedy)
}

/// The column with this name.
fn column(names: &[String], name: &str, whose: &str, line: u64) -> io::Result<usize> {
    let alike = names.iter().filter(|other| other.eq_ignore_ascii_case(name)).count();
    let exact = names.iter().filter(|other| *other == name).count();
    let known: Vec<&str> = names.iter().map(String::as_str).collect();
    let (reason, message) = match (position(names, name), exact, alike) {
        (Some(at), 1, _) | (Some(at), 0, 1) => return Ok(at),
        (Some(_), ..) => {
            ("repeated_column", format!("two columns have the name {}", shown(&[name])))
        }
        (None, ..) => (
            "unknown_column",
            format!("there is no column {} {whose} but {}", shown(&[name]), shown(&known)),
        ),
    };
    let remedy = "Name the columns on the first line, and set `template`, `key_column` or \
                  `csv_delimiter` where they are to be others.";
    Err(unfit_at(Some(line), reason, message, remedy))
}

/// The first column with this name, letter by letter, else in upper or lower case.
fn position(names: &[String], name: &str) -> Option<usize> {
    let exact = names.iter().position(|other| other == name);
    exact.or_else(|| names.iter().position(|other| other.eq_ignore_ascii_case(name)))
}

/// Names for a message.
fn shown(names: &[&str]) -> String {
    let mut all = String::new();
    for name in names.iter().take(NAMES_SHOWN) {
        let name: String = name.chars().take(80).collect();
        all.push_str(if all.is_empty() { "" } else { ", " });
        all.push_str(&format!("{name:?}"));
    }
    if names.len() > NAMES_SHOWN {
        all.push_str(&format!(" and {} more", names.len() - NAMES_SHOWN));
    }
    all
}

const MEND: &str = "Mend the first line and drop the file again.";

/// Columns named in one message.
const NAMES_SHOWN: usize = 20;

/// So many bytes of requests are made in one step.
const STEP_BYTES: usize = KEPT_BYTES / 4;
