//! Walks over one JSON text and checks it fully, without building a single value.
//!
//! One piece of text in, the places of its parts out: what is not wanted is skipped at the speed of
//! memory. Every answer is either right or `None`, which does not mean that the text is wrong, only
//! that serde_json has to be asked; it decides, and finds the words. So whatever is accepted here,
//! serde_json accepts with the same spans. Nothing is decoded, no number is computed, and nothing
//! recurses: values may be nested 63 deep, beyond that the answer is `None`.

use std::ops::Range;

use super::quotes;

/// A place in a JSON text, and what can be read from there.
///
/// All methods skip the blanks before what they read. After a `None` the cursor stands anywhere:
/// it is of no use any more.
#[derive(Debug, Clone)]
pub struct Cursor<'a> {
    text: &'a [u8],
    at: usize,
    /// No control character stands anywhere, so no string has to be searched for one.
    clean: bool,
}

impl<'a> Cursor<'a> {
    /// Stands at the beginning of a text; `None` if that is not UTF-8.
    pub fn over(text: &'a [u8]) -> Option<Cursor<'a>> {
        // Both at once, since reading is what costs.
        let (mut least, mut all) = (u8::MAX, 0);
        for byte in text {
            least = least.min(*byte);
            all |= *byte;
        }
        if !all.is_ascii() && simdutf8::basic::from_utf8(text).is_err() {
            return None;
        }
        Some(Cursor { text, at: 0, clean: least >= BLANK })
    }

    /// The first byte of the next token; `None` at the end.
    pub fn peek(&mut self) -> Option<u8> {
        loop {
            let byte = *self.text.get(self.at)?;
            if !matches!(byte, b' ' | b'\n' | b'\r' | b'\t') {
                return Some(byte);
            }
            self.at += 1;
        }
    }

    /// Bytes of the text that have been passed; after [`Cursor::peek`], where the token begins.
    pub fn at(&self) -> usize {
        self.at
    }

    /// Reads an object. `member` is told each name and must read the value. A name with an escape
    /// gives `None`, so that those told are what they mean.
    pub fn object(
        &mut self,
        mut member: impl FnMut(&'a [u8], &mut Cursor<'a>) -> Option<()>,
    ) -> Option<()> {
        self.take(b'{')?;
        if self.peek()? == b'}' {
            self.at += 1;
            return Some(());
        }
        loop {
            let name = self.string()?;
            if name.contains(&b'\\') {
                return None;
            }
            self.take(b':')?;
            member(name, self)?;
            match self.peek()? {
                b',' => self.at += 1,
                b'}' => {
                    self.at += 1;
                    return Some(());
                }
                _ => return None,
            }
        }
    }

    /// Reads a list. `element` must read the value it is called at.
    pub fn array(&mut self, mut element: impl FnMut(&mut Cursor<'a>) -> Option<()>) -> Option<()> {
        self.take(b'[')?;
        if self.peek()? == b']' {
            self.at += 1;
            return Some(());
        }
        loop {
            element(self)?;
            match self.peek()? {
                b',' => self.at += 1,
                b']' => {
                    self.at += 1;
                    return Some(());
                }
                _ => return None,
            }
        }
    }

    /// Checks a value of any kind and answers with its place.
    pub fn skip(&mut self) -> Option<Range<usize>> {
        let first = self.peek()?;
        let start = self.at;
        if !self.scalar_or_open(first)? {
            self.nested(first)?;
        }
        Some(start..self.at)
    }

    /// Reads a string and answers with what stands between its quotes, escapes untouched. They
    /// are escapes of JSON, but may name half a surrogate pair.
    pub fn string(&mut self) -> Option<&'a [u8]> {
        self.take(b'"')?;
        let start = self.at;
        self.close()?;
        self.text.get(start..self.at - 1)
    }

    /// Makes sure that nothing but blanks follows.
    pub fn end(&mut self) -> Option<()> {
        self.peek().is_none().then_some(())
    }

    fn take(&mut self, expected: u8) -> Option<()> {
        (self.peek()? == expected).then(|| self.at += 1)
    }

    /// Passes a value that begins with `first`, or only its opening bracket; tells whether it is
    /// complete.
    #[inline]
    fn scalar_or_open(&mut self, first: u8) -> Option<bool> {
        match first {
            b'"' => {
                self.at += 1;
                self.close()?;
            }
            b'{' | b'[' => {
                self.at += 1;
                return Some(false);
            }
            b'-' | b'0'..=b'9' => self.number(first)?,
            b't' => self.word(b"true")?,
            b'f' => self.word(b"false")?,
            b'n' => self.word(b"null")?,
            _ => return None,
        }
        Some(true)
    }

    /// Passes the rest of a value whose opening bracket has been passed.
    fn nested(&mut self, bracket: u8) -> Option<()> {
        // The innermost bracket is the lowest bit: 1 for an object. The one above the outermost
        // marks the depth.
        let mut open: u64 = 0b10 | u64::from(bracket == b'{');
        let mut just_opened = true;
        loop {
            // Within `open`, before a value or the end.
            let next = self.peek()?;
            let is_object = open & 1 == 1;
            let closing = if is_object { b'}' } else { b']' };
            if next == closing {
                // Right after a comma nothing may close, and there this is not reached.
                self.at += 1;
                open >>= 1;
                if open == 1 {
                    return Some(());
                }
                just_opened = false;
                continue;
            }
            if !just_opened {
                (next == b',').then(|| self.at += 1)?;
            }
            if is_object {
                self.take(b'"')?;
                self.close()?;
                self.take(b':')?;
            }
            let first = self.peek()?;
            just_opened = !self.scalar_or_open(first)?;
            if just_opened {
                if open.leading_zeros() == 0 {
                    return None;
                }
                open = open << 1 | u64::from(first == b'{');
            }
        }
    }

    /// Passes the rest of a string, with its closing quote.
    #[inline]
    fn close(&mut self) -> Option<()> {
        let start = self.at;
        self.at = quotes::closing(self.text, start)? + 1;
        // In a clean text nothing has to be looked for.
        let fine = self.clean || self.text[start..self.at].iter().all(|byte| *byte >= BLANK);
        fine.then_some(())
    }

    fn number(&mut self, first: u8) -> Option<()> {
        if first == b'-' {
            self.at += 1;
        }
        // A zero stands alone; a digit after it is no token that may follow.
        if self.text.get(self.at) == Some(&b'0') {
            self.at += 1;
        } else {
            self.digits()?;
        }
        if self.text.get(self.at) == Some(&b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.text.get(self.at) {
            self.at += 1;
            if let Some(b'+' | b'-') = self.text.get(self.at) {
                self.at += 1;
            }
            self.digits()?;
        }
        // Whoever asks for one value only must not take the front of something longer for it.
        let follows = self.text.get(self.at);
        follows.is_none_or(|byte| !byte.is_ascii_alphanumeric()).then_some(())
    }

    /// Passes one digit or more.
    fn digits(&mut self) -> Option<()> {
        let rest = self.text.get(self.at..)?;
        let count = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        self.at += count;
        (count > 0).then_some(())
    }

    fn word(&mut self, word: &[u8]) -> Option<()> {
        self.text.get(self.at..)?.starts_with(word).then(|| self.at += word.len())
    }
}

/// The first byte that is no control character.
const BLANK: u8 = 0x20;

#[cfg(test)]
mod tests;
