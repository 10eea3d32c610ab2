//! Places in a body from which it can be read on: a bounded number of them.

use crate::engine::ids::Row;

/// Places in a body from which it can be read on: a bounded number, whatever its length.
#[derive(Debug, Clone)]
pub struct Marks {
    kept: Vec<Mark>,
    /// Rows from mark to mark.
    step: u64,
}

/// Where a row stands in a body.
#[derive(Debug, Clone, Copy)]
pub struct Mark {
    /// Its number.
    pub row: Row,
    /// Bytes before it.
    pub offset: u64,
}

impl Default for Marks {
    fn default() -> Marks {
        Marks { kept: Vec::new(), step: 256 }
    }
}

impl Marks {
    /// Keeps the place of a row, with `passed` rows before it, if it is its turn.
    pub fn pass(&mut self, passed: u64, mark: Mark) {
        if passed < self.kept.len() as u64 * self.step {
            return;
        }
        self.kept.push(mark);
        if self.kept.len() == MARKS_MAX {
            // Every second one stays, the first among them.
            let mut stays = false;
            self.kept.retain(|_| {
                stays = !stays;
                stays
            });
            self.step *= 2;
        }
    }

    /// The last one at or before a byte.
    pub fn before(&self, offset: u64) -> Option<Mark> {
        let after = self.kept.partition_point(|mark| mark.offset <= offset);
        self.kept.get(after.checked_sub(1)?).copied()
    }
}

/// Places kept for reading on, at most.
const MARKS_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_stay_few_and_the_nearest_one_before_a_byte_is_found() {
        let mut marks = Marks::default();
        let rows = 3_000_000;
        for row in 0..rows {
            marks.pass(row, Mark { row: Row(row + 5), offset: row * 10 });
            assert!(marks.kept.len() < MARKS_MAX);
        }
        for offset in [0, 9, 10, 12_345_678, rows * 10 - 1, rows * 20] {
            let mark = marks.before(offset).expect("the first row is marked");
            assert_eq!(mark.offset, (mark.row.0 - 5) * 10);
            assert!(mark.offset <= offset);
            let near = offset.min(rows * 10) - mark.offset;
            assert!(near <= marks.step * 10, "{near} bytes before {offset}");
        }
        assert!(Marks::default().before(7).is_none());
    }
}
