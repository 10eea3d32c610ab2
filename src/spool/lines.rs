//! Cuts a stream of bytes into lines.
//!
//! Blocks go in as they are read, pieces come out. A line that lies within one block is handed
//! on where it lies; one that spans blocks is put together in a buffer that never grows beyond the
//! limit for one line: of a longer line only its place and length are told. Lines are counted as
//! an editor counts them, blank ones included; blank ones are not handed on.

/// A piece of an input: a line, or an element of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece<'a> {
    /// Byte offset in the input.
    pub start: u64,
    /// Length in bytes, without the line break and blanks at the end.
    pub len: u64,
    /// Number of the line, or of the element, from 1.
    pub number: u64,
    /// The bytes; `None` if there are more than the limit.
    pub bytes: Option<&'a [u8]>,
}

/// Cuts blocks into lines.
#[derive(Debug)]
pub struct Lines {
    limit: usize,
    /// Offset of the line that has begun.
    start: u64,
    /// Its number.
    number: u64,
    /// Bytes of it seen in earlier blocks.
    seen: u64,
    /// These bytes, as long as they are within the limit.
    held: Vec<u8>,
    /// Whether anything but blanks was seen in a line beyond the limit.
    inked: bool,
}

impl Lines {
    /// Starts at the byte offset `start` of the input, with line 1. A line may have `limit`
    /// bytes.
    pub fn new(start: u64, limit: usize) -> Lines {
        Lines { limit, start, number: 1, seen: 0, held: Vec::new(), inked: false }
    }

    /// Takes the next block and hands on every line that ends in it.
    ///
    /// # Errors
    /// The first one of `sink`.
    pub fn feed<E>(
        &mut self,
        block: &[u8],
        sink: &mut impl FnMut(Piece<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut begin = 0;
        for end in memchr::memchr_iter(b'\n', block) {
            self.end(&block[begin..end], sink)?;
            self.start += self.seen + (end - begin) as u64 + 1;
            self.number += 1;
            self.forget();
            begin = end + 1;
        }
        self.hold(&block[begin..]);
        Ok(())
    }

    /// Hands on the last line, if no line break stands after it.
    ///
    /// # Errors
    /// That of `sink`.
    pub fn finish<E>(mut self, sink: &mut impl FnMut(Piece<'_>) -> Result<(), E>) -> Result<(), E> {
        self.end(&[], sink)
    }

    fn end<E>(
        &mut self,
        tail: &[u8],
        sink: &mut impl FnMut(Piece<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let (start, number) = (self.start, self.number);
        if self.seen + tail.len() as u64 > self.limit as u64 {
            let len = self.seen + tail.len() as u64;
            self.inked |= !is_blank(&self.held) || !is_blank(tail);
            if !self.inked {
                return Ok(());
            }
            return sink(Piece { start, len, number, bytes: None });
        }
        let whole = if self.seen == 0 {
            tail
        } else {
            self.held.extend_from_slice(tail);
            &self.held
        };
        let line = whole.trim_ascii_end();
        if is_blank(line) {
            return Ok(());
        }
        sink(Piece { start, len: line.len() as u64, number, bytes: Some(line) })
    }

    fn hold(&mut self, part: &[u8]) {
        self.seen += part.len() as u64;
        if self.seen <= self.limit as u64 {
            self.held.extend_from_slice(part);
        } else {
            self.inked |= !is_blank(&self.held) || !is_blank(part);
            self.held = Vec::new();
        }
    }

    fn forget(&mut self) {
        self.inked = false;
        if self.seen == 0 {
            return;
        }
        self.seen = 0;
        self.held.clear();
        // One long line must not cost its memory for the rest of the file.
        self.held.shrink_to(HELD_BYTES);
    }
}

/// Whether a line holds nothing.
pub fn is_blank(line: &[u8]) -> bool {
    line.iter().all(u8::is_ascii_whitespace)
}

/// Bytes of buffer that are kept from line to line.
const HELD_BYTES: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(text: &[u8], block: usize, limit: usize) -> Vec<(u64, u64, u64, Option<Vec<u8>>)> {
        let mut found = Vec::new();
        let mut sink = |piece: Piece<'_>| {
            let bytes = piece.bytes.map(<[u8]>::to_vec);
            found.push((piece.number, piece.start, piece.len, bytes));
            Ok::<(), ()>(())
        };
        let mut lines = Lines::new(0, limit);
        for part in text.chunks(block) {
            lines.feed(part, &mut sink).expect("fed");
            assert!(lines.held.capacity() <= (limit + block).next_power_of_two());
        }
        lines.finish(&mut sink).expect("finished");
        found
    }

    #[test]
    fn lines_come_out_the_same_whatever_the_blocks() {
        let text = b"one\r\n\n  \t\r\n two \nthree is too long\n         \nlast";
        let expected = vec![
            (1, 0, 3, Some(b"one".to_vec())),
            (4, 11, 4, Some(b" two".to_vec())),
            (5, 17, 17, None),
            (7, 45, 4, Some(b"last".to_vec())),
        ];
        for block in 1..=text.len() {
            assert_eq!(cut(text, block, 8), expected, "blocks of {block}");
        }
    }

    /// Fault 44.
    #[test]
    fn a_line_break_at_the_end_makes_no_line() {
        assert_eq!(cut(b"a\n", 10, 8).len(), 1);
        assert_eq!(cut(b"a", 10, 8).len(), 1);
        assert_eq!(cut(b"", 10, 8).len(), 0);
        assert_eq!(cut(b"\n\r\n", 10, 8).len(), 0);
    }

    #[test]
    fn a_line_that_only_blanks_make_too_long_is_told_wherever_it_is_cut() {
        let text = b"\n  ink   \nlast";
        for block in 1..=text.len() {
            let expected = vec![(2, 1, 8, None), (3, 10, 4, Some(b"last".to_vec()))];
            assert_eq!(cut(text, block, 6), expected, "blocks of {block}");
        }
    }

    #[test]
    fn a_line_of_a_hundred_megabytes_is_never_held() {
        let block = vec![b'x'; 256 * 1024];
        let mut lines = Lines::new(0, 1 << 20);
        let mut found = Vec::new();
        let mut sink = |piece: Piece<'_>| {
            found.push((piece.len, piece.bytes.is_some()));
            Ok::<(), ()>(())
        };
        for _ in 0..400 {
            lines.feed(&block, &mut sink).expect("fed");
            assert!(lines.held.capacity() <= 2 << 20);
        }
        lines.feed(b"\nshort", &mut sink).expect("fed");
        lines.finish(&mut sink).expect("finished");
        assert_eq!(found, [(400 * 256 * 1024, false), (5, true)]);
    }
}
