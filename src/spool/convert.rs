//! Inputs that are no JSON Lines yet become JSON Lines: packed ones, plain text, tables.
//!
//! A chain of readers: what is packed is unpacked, and of what is text or a table each line or
//! record becomes a request on the line on which it begins. Whatever is no request becomes a blank
//! line, so that the lines keep their numbers. A line that can not become a request says so in its
//! place and holds no other back; a file that is damaged, too large when unpacked, or without the
//! columns it needs, is refused whole. Memory is a few blocks and the longest record, whatever
//! comes: nothing is unpacked that has not been asked for.

mod answer;
mod prompt;
mod records;
mod table;
mod template;
mod text;
mod unpack;
pub mod written_back;

use std::io::{self, Read};

use super::fault_line::{self as fault_form};
use super::source::{self, Ending, refusal};
use crate::engine::job::{Conversion, Refusal, Task};

use prompt::{Fault, Wording};
pub use template::Template;
use text::Text;
use unpack::Unpacked;

/// How inputs are converted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules<'a> {
    /// What their queue says.
    pub conversion: &'a Conversion,
    /// What its requests are for.
    pub task: Task,
    /// A line, or a record, may have so many bytes.
    pub line_bytes_max: usize,
}

/// Why a whole input can not be converted, as the cause of an [`io::Error`].
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.message)]
pub struct Unfit(Refusal);

/// The refusal that an error of a chain stands for; `None` if it is one of the disk.
pub fn refusal_of(error: &io::Error) -> Option<&Refusal> {
    error.get_ref()?.downcast_ref::<Unfit>().map(|unfit| &unfit.0)
}

/// Adds the line that stands for one of which no request can be made, under a key if it has one.
fn fault_line(fault: &Fault, key: Option<&str>, lines: &mut Vec<u8>) {
    let mut original = Vec::new();
    if let Some(key) = key {
        original.extend_from_slice(b"{\"key\":");
        prompt::string(key, &mut original);
        original.extend_from_slice(b",\"request\":null}");
    }
    fault_form::write(&original, fault.fate, &fault.message, lines);
}

/// Whether an input of this name is not read as it stands.
pub fn is_needed(name: &str) -> bool {
    source::packing(name).is_some()
        || match source::ending(name) {
            Ending::Text | Ending::Table => true,
            Ending::Lines | Ending::Document | Ending::Unknown => false,
        }
}

/// The JSON Lines, or the document, that an input of this name holds. A plain one comes as it is.
///
/// # Errors
/// If the beginning can not be read, or already tells that the input is unfit ([`refusal_of`]). The
/// reader has the same errors later on.
pub fn open<'a>(
    input: impl Read + 'a,
    name: &str,
    rules: Rules<'_>,
) -> io::Result<Box<dyn Read + 'a>> {
    let plain = unpacked(input, name, rules.conversion)?;
    let wording = || Wording::new(rules.task, rules.conversion.template.as_deref());
    let limit = rules.line_bytes_max;
    Ok(match source::ending(name) {
        Ending::Lines | Ending::Document | Ending::Unknown => plain,
        Ending::Text => Box::new(Stepwise::new(Text::open(plain, wording()?, limit)?)),
        Ending::Table => {
            let table = table::Table::open(plain, wording()?, rules.conversion, limit)?;
            Box::new(Stepwise::new(table))
        }
    })
}

/// What an input of this name holds when it is unpacked.
fn unpacked<'a>(
    input: impl Read + 'a,
    name: &str,
    conversion: &Conversion,
) -> io::Result<Box<dyn Read + 'a>> {
    Ok(match source::packing(name) {
        None => Box::new(input),
        Some(packing) => Box::new(Unpacked::open(input, packing, conversion)?),
    })
}

/// Makes lines, a few at a time.
trait Step {
    /// Adds what comes next; `false` if that was the last.
    fn step(&mut self, lines: &mut Vec<u8>) -> io::Result<bool>;
}

/// Reads what steps make.
struct Stepwise<S> {
    steps: S,
    made: Vec<u8>,
    /// Bytes of it that were read already.
    read: usize,
    ended: bool,
}

impl<S: Step> Stepwise<S> {
    fn new(steps: S) -> Stepwise<S> {
        Stepwise { steps, made: Vec::new(), read: 0, ended: false }
    }
}

impl<S: Step> Read for Stepwise<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.read == self.made.len() && !self.ended {
            self.made.clear();
            // One long record must not cost its memory for the rest of the file.
            self.made.shrink_to(KEPT_BYTES);
            self.read = 0;
            self.ended = !self.steps.step(&mut self.made)?;
        }
        let count = (&self.made[self.read..]).read(buffer)?;
        self.read += count;
        Ok(count)
    }
}

/// Puts blank lines where no requests are, so that each line has the number it had.
#[derive(Debug, Default)]
struct Numbering {
    /// Lines that are complete.
    ended: u64,
}

impl Numbering {
    /// Adds blank lines until `number` is the next; `false` if there are more of them than are worth
    /// adding at once.
    fn reach(&mut self, number: u64, lines: &mut Vec<u8>) -> bool {
        let missing = number.saturating_sub(self.ended + 1);
        let now = missing.min(KEPT_BYTES as u64);
        lines.resize(lines.len() + now as usize, b'\n');
        self.ended += now;
        now == missing
    }

    /// Ends the line that was added last.
    fn end(&mut self, lines: &mut Vec<u8>) {
        lines.push(b'\n');
        self.ended += 1;
    }
}

/// An input behind its byte order mark.
type Unmarked<R> = io::Chain<io::Cursor<Vec<u8>>, R>;

/// Reads on behind a byte order mark, and tells whether there is one.
///
/// # Errors
/// If it can not be read, or is the mark of UTF-16.
fn behind_mark<R: Read>(mut input: R) -> io::Result<(Unmarked<R>, bool)> {
    let mut head = Vec::new();
    input.by_ref().take(MARK.len() as u64).read_to_end(&mut head)?;
    if head.starts_with(&[0xff, 0xfe]) || head.starts_with(&[0xfe, 0xff]) {
        return Err(unfit("utf16", "the file is UTF-16 text".to_owned(), "Save it as UTF-8."));
    }
    let marked = head == MARK;
    if marked {
        head.clear();
    }
    Ok((io::Cursor::new(head).chain(input), marked))
}

/// Reads until the buffer is full or nothing more comes.
fn fill(input: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match input.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(more) => filled += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

fn unfit(reason: &str, message: String, remedy: &str) -> io::Error {
    unfit_at(None, reason, message, remedy)
}

fn unfit_at(line: Option<u64>, reason: &str, message: String, remedy: &str) -> io::Error {
    let refusal = Refusal { line, ..refusal(reason, message, remedy) };
    io::Error::new(io::ErrorKind::InvalidData, Unfit(refusal))
}

/// The byte order mark of UTF-8.
const MARK: &[u8] = &[0xef, 0xbb, 0xbf];

/// Bytes read at once.
const BLOCK_BYTES: usize = 256 * 1024;

/// Bytes of buffer that are kept from step to step.
const KEPT_BYTES: usize = 1 << 20;

#[cfg(test)]
mod tests;
