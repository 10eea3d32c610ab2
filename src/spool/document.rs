//! Takes a `.json` document apart without holding it: the elements of its list of requests come
//! out one by one, each with its place in the file.
//!
//! A document is one list, or the body of a create call with such a list at
//! `batch.inputConfig.requests.requests`, or a single request over several lines. What surrounds
//! the list is kept, as a skeleton, and checked by a real JSON reader at the end; the elements are
//! checked by whoever receives them. Memory is bounded by the limit for one element.

use std::ops::Range;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::lines::Piece;

/// What is wrong with the document as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// Line of the file, from 1.
    pub line: u64,
    /// Column in bytes, from 1.
    pub column: u64,
    /// What happened.
    pub message: String,
}

/// What a document turned out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Whole {
    /// A list; its elements have been handed on.
    List {
        /// The model that the body of a create call names.
        model: Option<String>,
        /// Members of that body that have no effect here.
        unused: Vec<&'static str>,
    },
    /// One object, with its offset in the file.
    Single(u64, Vec<u8>),
}

/// Takes a document apart, block by block.
#[derive(Debug)]
pub struct Document {
    limit: usize,
    place: Place,
    /// Bytes of the file so far, lines among them, and where the last line began.
    offset: u64,
    line: u64,
    line_start: u64,
    /// Everything outside of the elements.
    skeleton: Vec<u8>,
    string: InString,
    /// The last string outside of the elements, as a range of the skeleton.
    last_string: Range<usize>,
    /// Open objects (with their current member) and lists outside of the elements.
    stack: Vec<Level>,
    /// Where the list ended.
    list_end: Option<ListEnd>,
    element: Element,
    elements: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Outside,
    /// In the list; may an element, a comma, the end come next?
    Between {
        element: bool,
        end: bool,
    },
    Inside,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum InString {
    No,
    Yes,
    AfterBackslash,
}

#[derive(Debug)]
enum Level {
    List,
    Object(String),
}

/// One place, in the skeleton and in the file.
#[derive(Debug)]
struct ListEnd {
    skeleton: usize,
    line: u64,
    column: u64,
}

#[derive(Debug, Default)]
struct Element {
    start: u64,
    len: u64,
    held: Vec<u8>,
    /// Brackets that are open.
    open: Vec<u8>,
}

impl Document {
    /// Starts at the byte offset `start` of the file. One element may have `limit` bytes.
    pub fn new(start: u64, limit: usize) -> Document {
        Document {
            limit,
            place: Place::Outside,
            offset: start,
            line: 1,
            line_start: start,
            skeleton: Vec::new(),
            string: InString::No,
            last_string: 0..0,
            stack: Vec::new(),
            list_end: None,
            element: Element::default(),
            elements: 0,
        }
    }

    /// Takes the next block and hands on every element that ends in it.
    ///
    /// # Errors
    /// If the document is broken, or that of `sink`.
    pub fn feed<E: From<Broken>>(
        &mut self,
        block: &[u8],
        sink: &mut impl FnMut(Piece<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut at = 0;
        while at < block.len() {
            let rest = &block[at..];
            let taken = match self.place {
                Place::Outside => self.outside(rest[0])?,
                Place::Between { element, end } => self.between(rest[0], element, end)?,
                Place::Inside => self.inside(rest, sink)?,
            };
            at += taken;
        }
        Ok(())
    }

    /// Checks what surrounds the list, when all of the file was fed.
    ///
    /// # Errors
    /// If the document is broken.
    pub fn finish(self) -> Result<Whole, Broken> {
        if self.place != Place::Outside {
            let message = format!(
                "the file ends in the middle of the list, after {} requests, as if it was cut off",
                self.elements
            );
            return Err(self.broken(message));
        }
        let Some(_) = self.list_end else { return self.single() };
        if self.skeleton.trim_ascii_start().starts_with(b"[") {
            let list: Result<[IgnoredAny; 0], _> = serde_json::from_slice(&self.skeleton);
            list.map_err(|error| self.skeleton_error(&error))?;
            return Ok(Whole::List { model: None, unused: Vec::new() });
        }
        let body: Body =
            serde_json::from_slice(&self.skeleton).map_err(|error| self.skeleton_error(&error))?;
        let mut unused = Vec::new();
        let mut note = |member, given: bool| given.then(|| unused.push(member));
        note("displayName", body.batch.display_name.is_some());
        note("priority", body.batch.priority.is_some());
        note("webhookConfig", body.batch.webhook_config.is_some());
        Ok(Whole::List { model: body.batch.model, unused })
    }

    fn outside(&mut self, byte: u8) -> Result<usize, Broken> {
        if self.skeleton.len() >= self.limit {
            let message = format!("more than {} bytes that are no element of a list", self.limit);
            return Err(self.broken(message));
        }
        if self.string != InString::No {
            self.string = match (self.string, byte) {
                (InString::Yes, b'\\') => InString::AfterBackslash,
                (InString::Yes, b'"') => {
                    self.last_string.end = self.skeleton.len() + 1;
                    InString::No
                }
                (InString::Yes | InString::AfterBackslash | InString::No, _) => InString::Yes,
            };
        } else {
            match byte {
                b'"' => {
                    self.string = InString::Yes;
                    self.last_string = self.skeleton.len()..self.skeleton.len();
                }
                b':' => {
                    let name = serde_json::from_slice(&self.skeleton[self.last_string.clone()]);
                    if let (Some(Level::Object(member)), Ok(name)) = (self.stack.last_mut(), name) {
                        *member = name;
                    }
                }
                b'[' if self.is_list_of_requests() => {
                    if self.list_end.is_some() {
                        return Err(self.broken("a second list of requests".to_owned()));
                    }
                    self.place = Place::Between { element: true, end: true };
                }
                b'[' => self.stack.push(Level::List),
                b'{' => self.stack.push(Level::Object(String::new())),
                b']' | b'}' => drop(self.stack.pop()),
                _ => {}
            }
            if self.stack.len() > OUTER_DEPTH_MAX {
                return Err(self.broken("brackets nested too deep".to_owned()));
            }
        }
        self.skeleton.push(byte);
        self.pass(byte);
        Ok(1)
    }

    fn is_list_of_requests(&self) -> bool {
        let path: Option<Vec<&str>> = (self.stack.iter())
            .map(|level| match level {
                Level::Object(member) => Some(member.as_str()),
                Level::List => None,
            })
            .collect();
        matches!(
            path.as_deref(),
            Some([] | ["batch", "inputConfig" | "input_config", "requests", "requests"])
        ) && (!self.stack.is_empty() || self.skeleton.trim_ascii().is_empty())
    }

    fn between(&mut self, byte: u8, element: bool, end: bool) -> Result<usize, Broken> {
        match byte {
            b' ' | b'\t' | b'\r' | b'\n' => {}
            b',' if !element => self.place = Place::Between { element: true, end: false },
            b']' if end => {
                self.skeleton.push(b']');
                self.place = Place::Outside;
                self.list_end = Some(ListEnd {
                    skeleton: self.skeleton.len(),
                    line: self.line,
                    column: self.offset - self.line_start + 1,
                });
            }
            b',' | b']' | b'}' | b':' => {
                let message = if element && !end {
                    "a request is expected after the comma"
                } else {
                    "a request, or the end of the list, is expected"
                };
                return Err(self.broken(message.to_owned()));
            }
            _ if element => {
                self.place = Place::Inside;
                self.element.start = self.offset;
                self.element.len = 0;
                self.element.held.clear();
                self.element.held.shrink_to(HELD_BYTES);
                // Nothing is taken: the byte belongs to the element.
                return Ok(0);
            }
            _ => {
                return Err(self.broken("a comma is missing between two requests".to_owned()));
            }
        }
        self.pass(byte);
        Ok(1)
    }

    /// Takes as much of `rest` as belongs to the element.
    fn inside<E: From<Broken>>(
        &mut self,
        rest: &[u8],
        sink: &mut impl FnMut(Piece<'_>) -> Result<(), E>,
    ) -> Result<usize, E> {
        let mut at = 0;
        let mut ended = false;
        while at < rest.len() && !ended {
            let byte = rest[at];
            if self.string == InString::AfterBackslash {
                self.string = InString::Yes;
            } else if self.string == InString::Yes {
                match memchr::memchr3(b'"', b'\\', b'\n', &rest[at..]) {
                    None => {
                        self.offset += (rest.len() - at) as u64;
                        at = rest.len();
                        break;
                    }
                    Some(skip) => {
                        at += skip;
                        self.offset += skip as u64;
                    }
                }
                self.string = match rest[at] {
                    b'\\' => InString::AfterBackslash,
                    b'"' => InString::No,
                    _ => InString::Yes,
                };
                ended = self.string == InString::No && self.element.open.is_empty();
            } else if self.element.open.is_empty()
                && matches!(byte, b',' | b']' | b'}' | b' ' | b'\t' | b'\r' | b'\n')
            {
                // The end of a number or a word; this byte is not part of it.
                break;
            } else {
                ended = self.bracket(byte)?;
            }
            self.pass(rest[at]);
            at += 1;
        }
        let more = at < rest.len();
        self.element.len += at as u64;
        if self.element.len <= self.limit as u64 {
            self.element.held.extend_from_slice(&rest[..at]);
        } else {
            self.element.held = Vec::new();
        }
        if ended || more {
            self.elements += 1;
            self.place = Place::Between { element: false, end: true };
            let fits = self.element.len <= self.limit as u64;
            sink(Piece {
                start: self.element.start,
                len: self.element.len,
                number: self.elements,
                bytes: fits.then_some(&self.element.held),
            })?;
        }
        Ok(at)
    }

    /// One byte of an element outside of strings; whether the element ends with it.
    fn bracket(&mut self, byte: u8) -> Result<bool, Broken> {
        match byte {
            b'"' => self.string = InString::Yes,
            b'{' | b'[' if self.element.open.len() >= INNER_DEPTH_MAX => {
                return Err(self.broken("brackets nested too deep".to_owned()));
            }
            b'{' | b'[' => self.element.open.push(byte),
            b'}' | b']' => {
                let expected = if byte == b'}' { b'{' } else { b'[' };
                if self.element.open.pop() != Some(expected) {
                    let message = format!("`{}` closes nothing that is open", char::from(byte));
                    return Err(self.broken(message));
                }
                return Ok(self.element.open.is_empty());
            }
            _ => {}
        }
        Ok(false)
    }

    fn single(self) -> Result<Whole, Broken> {
        if let Err(error) = serde_json::from_slice::<IgnoredAny>(&self.skeleton) {
            return Err(self.skeleton_error(&error));
        }
        let blanks = self.skeleton.len() - self.skeleton.trim_ascii_start().len();
        let start = self.offset - self.skeleton.len() as u64 + blanks as u64;
        Ok(Whole::Single(start, self.skeleton.trim_ascii().to_vec()))
    }

    /// Counts a byte that was taken.
    fn pass(&mut self, byte: u8) {
        self.offset += 1;
        if byte == b'\n' {
            self.line += 1;
            self.line_start = self.offset;
        }
    }

    fn broken(&self, message: String) -> Broken {
        Broken { line: self.line, column: self.offset - self.line_start + 1, message }
    }

    /// Finds the place in the file for an error found in the skeleton: after the list, line
    /// breaks between its elements are missing there.
    fn skeleton_error(&self, error: &serde_json::Error) -> Broken {
        let said = error.to_string();
        let said = said.rsplit_once(" at line ").map_or(said.as_str(), |(what, _)| what);
        let (mut line, mut column) = (error.line() as u64, error.column() as u64);
        if let Some(end) = &self.list_end {
            let before = &self.skeleton[..end.skeleton];
            let last = memchr::memchr_iter(b'\n', before).count() as u64 + 1;
            let width = before.len() - memchr::memrchr(b'\n', before).map_or(0, |at| at + 1);
            if line == last && column >= width as u64 {
                column = column - width as u64 + end.column;
            }
            if line >= last {
                line = line - last + end.line;
            }
        }
        let message = if error.is_eof() {
            format!("the JSON ends too early ({said}), as if it was cut off")
        } else {
            format!("not valid JSON: {said}")
        };
        Broken { line, column, message }
    }
}

/// The body of a create call around its list (API contract, 3.2).
#[derive(Deserialize)]
struct Body {
    batch: Batch,
}

#[derive(Deserialize)]
struct Batch {
    model: Option<String>,
    #[serde(alias = "display_name", rename = "displayName")]
    display_name: Option<IgnoredAny>,
    priority: Option<IgnoredAny>,
    #[serde(alias = "webhook_config", rename = "webhookConfig")]
    webhook_config: Option<IgnoredAny>,
}

/// Brackets open at once around the list.
const OUTER_DEPTH_MAX: usize = 10_000;

/// Brackets open at once in an element of a list.
const INNER_DEPTH_MAX: usize = 10_000;

/// Bytes of buffer that are kept from element to element.
const HELD_BYTES: usize = 1 << 20;

#[cfg(test)]
mod tests;
