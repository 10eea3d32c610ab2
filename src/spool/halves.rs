//! Counts the sendable rows of a chunk and of its first half, while the rows are put down.
//!
//! Where the half ends is known only when the chunk does. So what was counted is marked every few
//! rows, less often in a longer chunk; what lies between the last mark and the half, at most one row
//! in five hundred, is read from the index afterwards. Memory does not grow with the chunk.

use std::io;

use super::frame::Frame;
use super::gauge::Gauge;
use super::index::{IndexReader, LineEntry};
use crate::engine::event::PlannedChunk;
use crate::engine::ids::{Row, Rows};
use crate::engine::job::{Density, Share};

/// A chunk that still grows.
#[derive(Debug)]
pub struct Growing {
    first: Row,
    /// Rows, sendable or not.
    rows: u64,
    all: Share,
    /// What was counted after each `step` rows.
    marks: Vec<Share>,
    step: u64,
    /// What its sendable rows are like.
    pub gauge: Gauge,
}

impl Growing {
    /// A chunk without rows that begins with `first`.
    pub fn begin(first: Row) -> Growing {
        Growing {
            first,
            rows: 0,
            all: Share::default(),
            marks: Vec::new(),
            step: 1,
            gauge: Gauge::default(),
        }
    }

    /// What was counted so far.
    pub fn all(&self) -> Share {
        self.all
    }

    /// Counts the next row: its bytes as a line of an input file, `None` if it can not be sent.
    #[inline]
    pub fn count(&mut self, sendable: Option<u64>) {
        self.rows += 1;
        if let Some(bytes) = sendable {
            self.all.rows += 1;
            self.all.bytes += bytes;
        }
        if self.rows >= (self.marks.len() as u64 + 1) * self.step {
            self.mark();
        }
    }

    fn mark(&mut self) {
        self.marks.push(self.all);
        if self.marks.len() == MARKS_MAX {
            // Every second one stays.
            let mut stays = true;
            self.marks.retain(|_| {
                stays = !stays;
                stays
            });
            self.step *= 2;
        }
    }

    /// The chunk as it is, and a new one that begins where it ends.
    pub fn end(&mut self) -> Grown {
        let rows = Rows { first: self.first, last: Row(self.first.0 + self.rows - 1) };
        let left = rows.middle().0 - rows.first.0 + 1;
        let marks = left / self.step;
        let marked = marks.checked_sub(1).map(|last| self.marks[last as usize]);
        let grown = Grown {
            rows,
            all: self.all,
            left: marked.unwrap_or_default(),
            next: Row(rows.first.0 + marks * self.step),
            density: self.gauge.density(),
        };
        *self = Growing::begin(Row(rows.last.0 + 1));
        grown
    }
}

/// A chunk with all its rows.
#[derive(Debug)]
pub struct Grown {
    rows: Rows,
    all: Share,
    /// What was counted before `next`, which lies in the first half or right after it.
    left: Share,
    next: Row,
    density: Option<Density>,
}

impl Grown {
    /// Counts the rest of the first half from the index.
    ///
    /// # Errors
    /// If that can not be read.
    pub fn finish(&self, index: &mut IndexReader<LineEntry>) -> io::Result<PlannedChunk> {
        let mut left = self.left;
        for row in self.next.0..=self.rows.middle().0 {
            let entry = index.get(Row(row))?;
            if entry.fate.is_sent() {
                left.rows += 1;
                left.bytes += Frame::on_file(entry.fate).len(Row(row), false, entry.request_len);
            }
        }
        let right = Share { rows: self.all.rows - left.rows, bytes: self.all.bytes - left.bytes };
        Ok(PlannedChunk { rows: self.rows, left, right, density: self.density })
    }
}

/// Marks kept, at most.
const MARKS_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spool::index::{self, LineFate};

    #[test]
    fn both_halves_are_counted_right_in_chunks_of_every_size() {
        let sendable = |row: u64| (!row.is_multiple_of(7)).then_some((row % 1000) as u32);
        let mut file = tempfile::tempfile().expect("a temporary file");
        let sizes = (1..=40).chain([1022, 1023, 1024, 1025, 2047, 2048, 3000, 70_001]);
        let mut chunk = Growing::begin(Row(1));
        let (mut chunks, mut row) = (Vec::new(), 0);
        for size in sizes {
            for _ in 0..size {
                row += 1;
                let len = sendable(row);
                let entry = LineEntry {
                    request_start: 0,
                    request_len: len.unwrap_or(9),
                    key: None,
                    line: 1,
                    fate: if len.is_some() { LineFate::Valid } else { LineFate::TooLong },
                };
                index::append(&mut file, &entry).expect("written");
                chunk.count(len.map(|len| Frame::FileLine.len(Row(row), false, len)));
                assert!(chunk.marks.len() < MARKS_MAX);
            }
            chunks.push(chunk.end());
        }
        let mut index = IndexReader::new(file).expect("an index");
        let mut first = 1;
        for grown in chunks {
            let found = grown.finish(&mut index).expect("counted");
            assert_eq!(found.rows.first.0, first);
            first = found.rows.last.0 + 1;
            let count = |rows: std::ops::RangeInclusive<u64>| {
                rows.fold(Share::default(), |share, row| match sendable(row) {
                    None => share,
                    Some(len) => Share {
                        rows: share.rows + 1,
                        bytes: share.bytes + Frame::FileLine.len(Row(row), false, len),
                    },
                })
            };
            let middle = found.rows.middle().0;
            assert_eq!(found.left, count(found.rows.first.0..=middle));
            assert_eq!(found.right, count(middle + 1..=found.rows.last.0));
        }
        assert_eq!(first, row + 1);
    }
}
