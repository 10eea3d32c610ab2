//! Cuts a table into records, each with the line it begins on.
//!
//! csv-core reads the fields; here lines are counted as an editor counts them, and nothing grows
//! beyond one record of the allowed length. Lines between records are left out. A quote that is
//! never closed would swallow all that follows, so it is an error.

use std::io::{self, Read};

use csv_core::{ReadRecordResult, Reader, ReaderBuilder};

use super::{BLOCK_BYTES, KEPT_BYTES, Unmarked, behind_mark, unfit, unfit_at};

/// The records of a table, its header among them.
pub struct Records<R> {
    input: R,
    block: Box<[u8]>,
    /// What of the block is still to be read.
    from: usize,
    to: usize,
    reader: Reader,
    /// Between fields.
    pub delimiter: u8,
    /// Whether there is a byte order mark.
    pub marked: bool,
    /// Whether the record read last ended with a carriage return.
    pub returns: bool,
    limit: usize,
    /// The line that is read, from 1.
    line: u64,
    /// The line of the record before; 0 before the first.
    last: u64,
}

/// One record.
#[derive(Debug, Default)]
pub struct Record {
    /// The line it begins on, from 1; each record has another, also where no line feed stands
    /// between two of them.
    pub line: u64,
    /// Bytes of all fields, if there are more than the limit; no field is held then.
    pub too_long: Option<u64>,
    /// The fields, one after another.
    bytes: Vec<u8>,
    /// Where each field ends.
    ends: Vec<usize>,
    fields: usize,
}

impl Record {
    /// The fields, without their quotes.
    pub fn fields(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        (0..self.fields).map(|number| self.field(number))
    }

    /// The field with this number, from 0; empty if there is none.
    pub fn field(&self, number: usize) -> &[u8] {
        if number >= self.fields {
            return &[];
        }
        let start = number.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.bytes[start..self.ends[number]]
    }

    /// Whether it is a line with nothing but blanks on it, where a record has so many fields.
    pub fn is_blank(&self, width: usize) -> bool {
        let blank = || self.field(0).iter().all(u8::is_ascii_whitespace);
        width > 1 && self.fields == 1 && self.too_long.is_none() && blank()
    }

    fn clear(&mut self) {
        // One long record must not cost its memory for the rest of the file.
        self.bytes.truncate(KEPT_BYTES);
        self.bytes.shrink_to(KEPT_BYTES);
        (self.fields, self.too_long) = (0, None);
    }
}

impl<R: Read> Records<Unmarked<R>> {
    /// Begins behind a byte order mark, with this delimiter or the one the first record seems to
    /// have. A record may have `limit` bytes.
    ///
    /// # Errors
    /// If the beginning can not be read.
    pub fn open(
        input: R,
        delimiter: Option<char>,
        limit: usize,
    ) -> io::Result<Records<Unmarked<R>>> {
        let (mut input, marked) = behind_mark(input)?;
        let mut block = vec![0; BLOCK_BYTES].into_boxed_slice();
        let to = super::fill(&mut input, &mut block)?;
        let set = delimiter.and_then(|delimiter| u8::try_from(delimiter).ok());
        let delimiter = set.unwrap_or_else(|| sniffed(&block[..to]));
        let reader = ReaderBuilder::new().delimiter(delimiter).build();
        Ok(Records {
            input,
            block,
            from: 0,
            to,
            reader,
            delimiter,
            marked,
            returns: false,
            limit,
            line: 1,
            last: 0,
        })
    }
}

impl<R: Read> Records<R> {
    /// Reads the next record; `false` if there is none.
    ///
    /// # Errors
    /// If the input can not be read, or ends within quotes.
    pub fn next(&mut self, record: &mut Record) -> io::Result<bool> {
        record.clear();
        if !self.skip_breaks()? {
            return Ok(false);
        }
        // Where carriage returns alone end the records, the line stays the same for all of them.
        record.line = self.line.max(self.last + 1);
        self.last = record.line;
        let mut growing = Growing { record, filled: 0, bytes: 0, limit: self.limit };
        loop {
            if self.from == self.to && !self.fill()? {
                // A last line break would end every record but one within quotes.
                let (result, _) = growing.take(&mut self.reader, b"\n");
                if result == ReadRecordResult::Record {
                    return Ok(true);
                }
                return Err(never_closed(growing.record.line));
            }
            let (result, count) = growing.take(&mut self.reader, &self.block[self.from..self.to]);
            let taken = &self.block[self.from..self.from + count];
            self.line += memchr::memchr_iter(b'\n', taken).count() as u64;
            self.from += count;
            match result {
                ReadRecordResult::Record => {
                    self.returns = self.block[..self.from].ends_with(b"\r");
                    return Ok(true);
                }
                ReadRecordResult::InputEmpty
                | ReadRecordResult::OutputFull
                | ReadRecordResult::OutputEndsFull
                | ReadRecordResult::End => {}
            }
        }
    }

    /// Goes to the next byte that ends no line; `false` if there is none.
    fn skip_breaks(&mut self) -> io::Result<bool> {
        loop {
            if self.from == self.to && !self.fill()? {
                return Ok(false);
            }
            match self.block[self.from] {
                b'\n' => self.line += 1,
                b'\r' => {}
                _ => return Ok(true),
            }
            self.from += 1;
        }
    }

    fn fill(&mut self) -> io::Result<bool> {
        (self.from, self.to) = (0, super::fill(&mut self.input, &mut self.block)?);
        Ok(self.to > 0)
    }
}

/// A record while it is read.
struct Growing<'r> {
    record: &'r mut Record,
    /// Bytes of the fields that are held.
    filled: usize,
    /// Bytes of the fields, held or not.
    bytes: u64,
    limit: usize,
}

impl Growing<'_> {
    /// Takes what comes next of it; answers with the bytes that were read.
    fn take(&mut self, reader: &mut Reader, input: &[u8]) -> (ReadRecordResult, usize) {
        let record = &mut *self.record;
        if record.bytes.len() == self.filled {
            record.bytes.resize((2 * self.filled).max(ROOM_BYTES), 0);
        }
        if record.ends.len() == record.fields {
            record.ends.resize((2 * record.fields).max(ROOM_FIELDS), 0);
        }
        let room = &mut record.bytes[self.filled..];
        let ends = &mut record.ends[record.fields..];
        let (result, read, written, ended) = reader.read_record(input, room, ends);
        self.filled += written;
        self.bytes += written as u64;
        record.fields += ended;
        if self.filled > self.limit || record.fields > FIELDS_MAX || record.too_long.is_some() {
            record.too_long = Some(self.bytes);
            (self.filled, record.fields) = (0, 0);
        }
        (result, read)
    }
}

/// The delimiter that stands most often in the first record, outside of quotes.
fn sniffed(begin: &[u8]) -> u8 {
    let mut counts = [0_u32; DELIMITERS.len()];
    let mut quoted = false;
    for byte in begin.trim_ascii_start() {
        match byte {
            b'"' => quoted = !quoted,
            b'\n' | b'\r' if !quoted => break,
            other if !quoted => {
                if let Some(at) = DELIMITERS.iter().position(|delimiter| delimiter == other) {
                    counts[at] += 1;
                }
            }
            _ => {}
        }
    }
    let most = counts.into_iter().max().unwrap_or_default();
    let at = counts.iter().position(|count| *count == most).unwrap_or_default();
    DELIMITERS[at]
}

fn never_closed(line: u64) -> io::Error {
    let message = format!(
        "the record that begins on line {line} has a quote that is never closed, so all that \
         follows is part of it"
    );
    let remedy = "Close it, or write a quote within quotes twice, and drop the file again.";
    unfit_at(Some(line), "open_quote", message, remedy)
}

/// What to say of a table without a header.
pub fn empty() -> io::Error {
    let remedy = "Write a line with the names of the columns, and a record on each line after it.";
    unfit("empty", "there is no line with the names of the columns".to_owned(), remedy)
}

/// What may stand between fields, the most usual first.
const DELIMITERS: [u8; 4] = [b',', b';', b'\t', b'|'];

/// Room that a record is given at first.
const ROOM_BYTES: usize = 4096;
const ROOM_FIELDS: usize = 64;

/// Fields a record may have.
const FIELDS_MAX: usize = 65_536;

#[cfg(test)]
mod tests {
    use super::*;

    /// Line and fields of a record.
    type Read = (u64, Vec<String>);

    fn all(text: &[u8], limit: usize) -> io::Result<Vec<Read>> {
        let mut records = Records::open(text, Some(','), limit)?;
        let (mut record, mut found) = (Record::default(), Vec::new());
        while records.next(&mut record)? {
            let fields = record.fields().map(|field| String::from_utf8_lossy(field).into_owned());
            found.push((record.line, fields.collect()));
        }
        Ok(found)
    }

    fn lines(text: &[u8]) -> Vec<u64> {
        all(text, 1000).expect("read").into_iter().map(|(line, _)| line).collect()
    }

    #[test]
    fn a_record_has_the_line_it_begins_on_whatever_ends_the_lines() {
        assert_eq!(lines(b"a,b\n\n1,2\n\n\n\"x\ny\",3\n4,5"), [1, 3, 6, 8]);
        assert_eq!(lines(b"a,b\r\n\r\n1,2\r\n\"x\r\ny\",3\r\n4,5\r\n"), [1, 3, 4, 6]);
        assert_eq!(lines(b"\n\na\n"), [3]);
        assert_eq!(lines(b"a\rb\rc"), [1, 2, 3]);
        assert_eq!(lines(b""), [0_u64; 0]);
        assert_eq!(lines(b"\xef\xbb\xbfa\nb"), [1, 2]);
    }

    #[test]
    fn fields_come_without_their_quotes() {
        let found = all(b"a,\"b,\n\"\"c\"\"\",,d e \n", 1000).expect("read");
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].1, ["a", "b,\n\"c\"", "", "d e "]);
    }

    #[test]
    fn a_record_that_is_too_long_is_told_and_never_held() {
        let long = "x".repeat(300_000);
        let text = format!("a,b\n{long},2\n3,\"{long}\"\n5,6");
        let mut records = Records::open(text.as_bytes(), None, 5000).expect("opened");
        let (mut record, mut found) = (Record::default(), Vec::new());
        while records.next(&mut record).expect("read") {
            found.push((record.line, record.fields().len(), record.too_long));
            assert!(record.bytes.len() <= 2 * 5000 + ROOM_BYTES, "{}", record.bytes.len());
        }
        let too_long = Some(300_001);
        assert_eq!(found, [(1, 2, None), (2, 0, too_long), (3, 0, too_long), (4, 2, None)]);
    }

    #[test]
    fn a_quote_that_is_never_closed_is_told_with_its_line() {
        for text in ["a,b\n1,\"2\n3,4\n", "a,b\n1,\"2", "a,b\n1,\"2\"\"\n"] {
            let error = all(text.as_bytes(), 1000).expect_err(text);
            let refusal = super::super::refusal_of(&error).expect("a refusal");
            assert_eq!((refusal.reason.as_str(), refusal.line), ("open_quote", Some(2)), "{text}");
        }
        assert_eq!(all(b"a\n\"b\"", 1000).expect("closed").len(), 2);
    }

    #[test]
    fn the_delimiter_is_the_one_that_is_there() {
        for (text, delimiter) in [
            ("a,b", b','),
            ("a;b;c,d", b';'),
            ("a\tb", b'\t'),
            ("a|b", b'|'),
            ("alone", b','),
            ("\"a;b;c\",d\n1;2;3;4", b','),
            ("", b','),
        ] {
            assert_eq!(sniffed(text.as_bytes()), delimiter, "{text}");
        }
    }
}
