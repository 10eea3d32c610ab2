//! How a row is dressed when it goes out: our own key, the row number, around the user's request.
//!
//! Two frames: a line of an input file (API contract, 3.5), and an item of an inline create
//! request (3.3). The request itself goes out byte for byte, except that line breaks between its
//! tokens become spaces, since an input file has one request a line.

use crate::engine::ids::Row;

/// Which dress a row wears.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frame {
    /// `{"key":"7","request":…}` and a newline.
    FileLine,
    /// `{"request":…,"metadata":{"key":"7"}}`, items separated by commas.
    InlineItem,
}

impl Frame {
    /// What stands before the request.
    pub fn before(self, row: Row, first: bool) -> String {
        match (self, first) {
            (Frame::FileLine, _) => format!("{{\"key\":\"{}\",\"request\":", row.0),
            (Frame::InlineItem, true) => "{\"request\":".to_owned(),
            (Frame::InlineItem, false) => ",{\"request\":".to_owned(),
        }
    }

    /// What stands after it.
    pub fn after(self, row: Row) -> String {
        match self {
            Frame::FileLine => "}\n".to_owned(),
            Frame::InlineItem => format!(",\"metadata\":{{\"key\":\"{}\"}}}}", row.0),
        }
    }

    /// Bytes that a row takes on the wire.
    pub fn len(self, row: Row, first: bool, request_len: u32) -> u64 {
        let digits = u64::from(row.0.max(1).ilog10()) + 1;
        let fixed = match (self, first) {
            (Frame::FileLine, _) => 22,
            (Frame::InlineItem, true) => 34,
            (Frame::InlineItem, false) => 35,
        };
        fixed + digits + u64::from(request_len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_is_that_of_what_is_written() {
        for frame in [Frame::FileLine, Frame::InlineItem] {
            for row in [1, 9, 10, 99, 100, 123_456_789] {
                for first in [true, false] {
                    let row = Row(row);
                    let written = frame.before(row, first).len() + 2 + frame.after(row).len();
                    assert_eq!(frame.len(row, first, 2), written as u64, "{frame:?} {row:?}");
                }
            }
        }
    }
}
