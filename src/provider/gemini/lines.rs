//! Result lines on disk: what may be built on, what is whole, what is too long.
//!
//! Promises: memory is bounded by one buffer; a file that ends inside a line, or in the zero
//! bytes that a power cut leaves, is never taken for whole. Nothing here knows the network.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

/// Makes valid UTF-8 of what is read: a broken character in one result must not hide the
/// others.
pub struct WholeText<R> {
    inner: R,
    ready: Vec<u8>,
    taken: usize,
    carry: Vec<u8>,
    ended: bool,
}

impl<R: Read> WholeText<R> {
    /// Reads from `inner`.
    pub fn new(inner: R) -> WholeText<R> {
        WholeText { inner, ready: Vec::new(), taken: 0, carry: Vec::new(), ended: false }
    }

    fn fill(&mut self) -> io::Result<()> {
        self.ready.clear();
        self.taken = 0;
        let mut raw = std::mem::take(&mut self.carry);
        let before = raw.len();
        raw.resize(before + BUFFER_BYTES, 0);
        let read = self.inner.read(raw.get_mut(before..).unwrap_or_default())?;
        raw.truncate(before + read);
        self.ended = read == 0;
        let mut rest = raw.as_slice();
        for chunk in raw.utf8_chunks() {
            self.ready.extend_from_slice(chunk.valid().as_bytes());
            rest = rest.get(chunk.valid().len() + chunk.invalid().len()..).unwrap_or_default();
            // A character may go on in the next buffer; none is longer than four bytes.
            let torn = rest.is_empty() && !self.ended && chunk.invalid().len() < 4;
            if torn && std::str::from_utf8(chunk.invalid()).is_err_and(|e| e.error_len().is_none())
            {
                self.carry = chunk.invalid().to_vec();
            } else if !chunk.invalid().is_empty() {
                self.ready.extend_from_slice("\u{FFFD}".as_bytes());
            }
        }
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
        let mut breaks = memchr::memchr_iter(b'\n', chunk).peekable();
        let first = breaks.peek().copied().unwrap_or(chunk.len());
        let longest_first = self.len + first as u64;
        // Lines that begin and end inside one piece are shorter than any limit.
        self.len = match breaks.last() {
            Some(last) => (chunk.len() - last - 1) as u64,
            None => longest_first,
        };
        longest_first <= self.max
    }
}

/// How much of what an earlier try left can be built on. After a power cut a file may be longer
/// than what was written, and filled up with zero bytes, which no result holds.
///
/// # Errors
/// If it can not be read.
pub fn usable_len(path: &Path) -> io::Result<u64> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(error),
    };
    let len = file.metadata()?.len();
    file.seek(SeekFrom::Start(len.saturating_sub(TAIL_BYTES)))?;
    let mut tail = Vec::new();
    file.take(TAIL_BYTES).read_to_end(&mut tail)?;
    Ok(if tail.contains(&0) { 0 } else { len })
}

/// Whether a file ends with a line break, or with a line that is whole without one.
///
/// # Errors
/// If it can not be read.
pub fn ends_whole(path: &Path, line_max: u64) -> io::Result<bool> {
    let mut file = File::open(path)?;
    let len = file.metadata()?.len();
    let Some(line_start) = last_line_start(&mut file, len, line_max)? else { return Ok(false) };
    file.seek(SeekFrom::Start(line_start))?;
    let mut reader = BufReader::with_capacity(BUFFER_BYTES, file);
    if reader.fill_buf()?.is_empty() {
        return Ok(true);
    }
    Ok(serde_json::from_reader::<_, serde::de::IgnoredAny>(reader).is_ok())
}

/// Where the last line begins: after the last line break, or at the end if that is one.
fn last_line_start(file: &mut File, len: u64, line_max: u64) -> io::Result<Option<u64>> {
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut end = len;
    while end > 0 && len - end <= line_max {
        let start = end.saturating_sub(BUFFER_BYTES as u64);
        let part = buffer.get_mut(..(end - start) as usize).unwrap_or_default();
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(part)?;
        if let Some(at) = memchr::memrchr(b'\n', part) {
            return Ok(Some(start + at as u64 + 1));
        }
        end = start;
    }
    Ok((end == 0).then_some(0))
}

/// Syncs the results and tells their size in bytes.
///
/// # Errors
/// If it can not be opened or synced.
pub fn seal(path: &Path) -> io::Result<u64> {
    let file = File::open(path)?;
    file.sync_all()?;
    Ok(file.metadata()?.len())
}

/// Bytes read or written at once.
pub const BUFFER_BYTES: usize = 256 * 1024;

/// Bytes at the end of an unfinished download that are looked at before it is built on.
const TAIL_BYTES: u64 = 4096;

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

    #[test]
    fn only_a_whole_last_line_ends_a_file() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("lines");
        let long = format!("{{\"a\":1}}\n{{\"b\":\"{}\"}}", "x".repeat(2 * BUFFER_BYTES));
        let ends = |text: &str, max| {
            std::io::Write::write_all(&mut File::create(&path).expect("made"), text.as_bytes())
                .expect("written");
            ends_whole(&path, max).expect("read")
        };
        assert!(ends("", 100));
        assert!(ends("{}\n", 100));
        assert!(ends("{}\n{}", 100));
        assert!(!ends("{}\n{", 100));
        assert!(!ends("{\"key\":\"1\",\"resp", 100));
        assert!(ends(&long, 1 << 30));
        assert!(!ends(&long[..long.len() - 1], 1 << 30));
    }
}
