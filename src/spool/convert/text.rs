//! Plain text: one prompt a line.

use std::borrow::Cow;
use std::io::{self, Read};
use std::iter;

use super::prompt::{Fault, Wording, line_key, text};
use super::template::Template;
use super::{BLOCK_BYTES, Numbering, Step, Unmarked, behind_mark, fault_line, unfit};
use crate::spool::index::LineFate;
use crate::spool::lines::{Lines, Piece};

/// Makes a request of each line.
pub struct Text<R> {
    input: R,
    wording: Wording,
    lines: Option<Lines>,
    limit: usize,
    numbering: Numbering,
    /// Line breaks that were read.
    breaks: u64,
    block: Box<[u8]>,
}

impl<R: Read> Text<Unmarked<R>> {
    /// Begins behind a byte order mark. A line may have `limit` bytes.
    ///
    /// # Errors
    /// If the beginning can not be read, or the template asks for more than a line.
    pub fn open(input: R, wording: Wording, limit: usize) -> io::Result<Text<Unmarked<R>>> {
        if let Some(name) = wording.template.as_ref().and_then(stray) {
            let message =
                format!("the template names a column {name:?}, and a text has only {{{{line}}}}");
            let remedy = "Write {{line}} in `template`, or drop a .csv file with such a column.";
            return Err(unfit("unknown_column", message, remedy));
        }
        Ok(Text {
            input: behind_mark(input)?.0,
            wording,
            lines: Some(Lines::new(0, limit)),
            limit,
            numbering: Numbering::default(),
            breaks: 0,
            block: vec![0; BLOCK_BYTES].into_boxed_slice(),
        })
    }
}

impl<R: Read> Step for Text<R> {
    fn step(&mut self, made: &mut Vec<u8>) -> io::Result<bool> {
        let Some(mut lines) = self.lines.take() else { return Ok(false) };
        let count = super::fill(&mut self.input, &mut self.block)?;
        let (wording, limit, numbering) = (&self.wording, self.limit, &mut self.numbering);
        let mut sink = |piece: Piece<'_>| {
            // A block has no more lines than bytes.
            while !numbering.reach(piece.number, made) {}
            match prompt(&piece, limit) {
                Ok(prompt) => {
                    let key = line_key(piece.number);
                    match &wording.template {
                        None => wording.request(&key, iter::once(Cow::Borrowed(prompt)), made),
                        Some(template) => wording.request(&key, template.fill(|_| prompt), made),
                    }
                }
                Err(fault) => fault_line(&fault, None, made),
            }
            numbering.end(made);
            Ok::<(), io::Error>(())
        };
        if count == 0 {
            lines.finish(&mut sink)?;
            return Ok(false);
        }
        let block = &self.block[..count];
        lines.feed(block, &mut sink)?;
        self.breaks += memchr::memchr_iter(b'\n', block).count() as u64;
        while !self.numbering.reach(self.breaks + 1, made) {}
        self.lines = Some(lines);
        Ok(true)
    }
}

/// What a template asks for that no text has.
fn stray(template: &Template) -> Option<String> {
    let name = template.names().find(|name| !name.eq_ignore_ascii_case(LINE))?;
    Some(name.chars().take(80).collect())
}

fn prompt<'p>(piece: &Piece<'p>, limit: usize) -> Result<&'p str, Fault> {
    let Some(bytes) = piece.bytes else { return Err(Fault::too_long("line", piece.len, limit)) };
    let prompt = text(bytes, "")?;
    if prompt.trim().is_empty() {
        // Blanks of other alphabets; those of ASCII make a blank line.
        return Err(Fault::new(LineFate::NotARequest, "there is no text in the line".to_owned()));
    }
    Ok(prompt)
}

/// What a template calls the text of a line.
const LINE: &str = "line";
