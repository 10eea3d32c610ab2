//! Result lines on their way: what is text, what is too long.
//!
//! Promises: memory is bounded by one buffer. Nothing here knows the network or the disk.

use std::io::{self, Read};

/// Makes valid UTF-8 of what is read: a broken character in one result must not hide the
/// others.
pub struct WholeText<R> {
    inner: R,
    /// Bytes as they came; the first `carried` of them were left over from before.
    raw: Vec<u8>,
    carried: usize,
    ready: Vec<u8>,
    taken: usize,
    ended: bool,
}

impl<R: Read> WholeText<R> {
    /// Reads from `inner`.
    pub fn new(inner: R) -> WholeText<R> {
        let raw = vec![0; CHARACTER_BYTES + BUFFER_BYTES];
        WholeText { inner, raw, carried: 0, ready: Vec::new(), taken: 0, ended: false }
    }

    fn fill(&mut self) -> io::Result<()> {
        self.ready.clear();
        self.taken = 0;
        let room = self.raw.get_mut(self.carried..).unwrap_or_default();
        let read = self.inner.read(room)?;
        self.ended = read == 0;
        let raw = self.raw.get(..self.carried + read).unwrap_or_default();
        // Nearly always all of it is sound, which is seen many bytes at once.
        let sound = simdutf8::compat::from_utf8(raw).map_or_else(|e| e.valid_up_to(), str::len);
        let (head, tail) = raw.split_at(sound);
        self.ready.extend_from_slice(head);
        let (mut passed, mut carry) = (sound, 0..0);
        for chunk in tail.utf8_chunks() {
            self.ready.extend_from_slice(chunk.valid().as_bytes());
            let torn_at = passed + chunk.valid().len();
            passed = torn_at + chunk.invalid().len();
            // A character may go on in the next buffer.
            let torn =
                passed == raw.len() && !self.ended && chunk.invalid().len() < CHARACTER_BYTES;
            if torn && std::str::from_utf8(chunk.invalid()).is_err_and(|e| e.error_len().is_none())
            {
                carry = torn_at..passed;
            } else if !chunk.invalid().is_empty() {
                self.ready.extend_from_slice("\u{FFFD}".as_bytes());
            }
        }
        self.carried = carry.len();
        self.raw.copy_within(carry, 0);
        Ok(())
    }
}

impl<R: Read> Read for WholeText<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.taken == self.ready.len() && !self.ended {
            self.fill()?;
        }
        let rest = self.ready.get(self.taken..).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        buffer
            .get_mut(..count)
            .unwrap_or_default()
            .copy_from_slice(rest.get(..count).unwrap_or_default());
        self.taken += count;
        Ok(count)
    }
}

/// Counts the bytes since the last line break.
pub struct LineLimit {
    len: u64,
    max: u64,
}

impl LineLimit {
    /// Lines may have `max` bytes.
    pub fn new(max: u64) -> LineLimit {
        LineLimit { len: 0, max }
    }

    /// Whether the next bytes keep to the limit.
    pub fn keeps(&mut self, chunk: &[u8]) -> bool {
        let first = memchr::memchr(b'\n', chunk);
        let longest_first = self.len + first.unwrap_or(chunk.len()) as u64;
        // Lines that begin and end inside one piece are shorter than any limit.
        self.len = match first.and_then(|_| memchr::memrchr(b'\n', chunk)) {
            Some(last) => (chunk.len() - last - 1) as u64,
            None => longest_first,
        };
        longest_first <= self.max
    }
}

/// Bytes read at once.
const BUFFER_BYTES: usize = 64 * 1024;

/// No character takes more bytes.
const CHARACTER_BYTES: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    /// Hands out so many bytes at a time.
    struct Drip<'a>(&'a [u8], usize);

    impl Read for Drip<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let count = self.1.min(self.0.len()).min(buffer.len());
            buffer[..count].copy_from_slice(&self.0[..count]);
            self.0 = &self.0[count..];
            Ok(count)
        }
    }

    #[test]
    fn text_comes_through_whole_wherever_it_is_cut_and_broken_bytes_are_replaced() {
        let good = "aü漢🦀b".as_bytes();
        let broken = b"a\xffb\xf0\x9f\xa6c\xe6\xbc";
        for step in 1..8 {
            let read = |bytes| io::read_to_string(WholeText::new(Drip(bytes, step)));
            assert_eq!(read(good).expect("text"), "aü漢🦀b", "{step}");
            let text = read(broken).expect("text");
            assert_eq!(text, "a\u{FFFD}b\u{FFFD}c\u{FFFD}", "{step}");
        }
    }

    #[test]
    fn a_line_is_counted_over_pieces() {
        let mut limit = LineLimit::new(10);
        assert!(limit.keeps(b"0123456789"));
        assert!(limit.keeps(b"\n01234\n56789"));
        assert!(limit.keeps(b"01234\n"));
        assert!(limit.keeps(b"0123456789"));
        assert!(!limit.keeps(b"0"));
    }
}
