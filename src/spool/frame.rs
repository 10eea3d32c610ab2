//! How a row is dressed when it goes out: our own key, the row number, around the user's request.
//!
//! A line of an input file (API contract, 3.5), an item of an inline create request (3.3), or a
//! line of a file for the OpenAI-compatible layer (11). The request itself goes out byte for byte, except that line breaks between its
//! tokens become spaces, since an input file has one request a line.

use std::ops::Deref;

use super::index::LineFate;
use crate::engine::ids::Row;

/// Which dress a row wears.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frame {
    /// `{"key":"7","request":…}` and a newline.
    FileLine,
    /// `{"request":…,"metadata":{"key":"7"}}`, items separated by commas.
    InlineItem,
    /// `{"custom_id":"7","body":…,"method":"POST","url":"/v1/chat/completions"}` and a newline.
    ChatLine,
    /// The same for `/v1/embeddings`.
    EmbeddingsLine,
}

impl Frame {
    /// The dress of a row in a file.
    pub fn on_file(fate: LineFate) -> Frame {
        Frame::FileLine.for_row(fate)
    }

    /// The dress of a row where native rows wear this one.
    pub fn for_row(self, fate: LineFate) -> Frame {
        match fate {
            LineFate::Chat => Frame::ChatLine,
            LineFate::Embeddings => Frame::EmbeddingsLine,
            LineFate::Valid
            | LineFate::InvalidJson
            | LineFate::NotARequest
            | LineFate::TooLong
            | LineFate::InvalidUtf8
            | LineFate::OtherModel
            | LineFate::BadKey
            | LineFate::OtherTask
            | LineFate::MediaMissing
            | LineFate::MediaOutside
            | LineFate::MediaUnusable => self,
        }
    }

    /// What stands before the request.
    pub fn before(self, row: Row, first: bool) -> Piece {
        match (self, first) {
            (Frame::FileLine, _) => Piece::around(b"{\"key\":\"", row, b"\",\"request\":"),
            (Frame::InlineItem, true) => Piece::of(b"{\"request\":"),
            (Frame::InlineItem, false) => Piece::of(b",{\"request\":"),
            (Frame::ChatLine | Frame::EmbeddingsLine, _) => {
                Piece::around(b"{\"custom_id\":\"", row, b"\",\"body\":")
            }
        }
    }

    /// What stands after it.
    pub fn after(self, row: Row) -> Piece {
        match self {
            Frame::FileLine => Piece::of(b"}\n"),
            Frame::InlineItem => Piece::around(b",\"metadata\":{\"key\":\"", row, b"\"}}"),
            Frame::ChatLine => {
                Piece::of(b",\"method\":\"POST\",\"url\":\"/v1/chat/completions\"}\n")
            }
            Frame::EmbeddingsLine => {
                Piece::of(b",\"method\":\"POST\",\"url\":\"/v1/embeddings\"}\n")
            }
        }
    }

    /// Bytes that a row takes on the wire.
    pub fn len(self, row: Row, first: bool, request_len: u32) -> u64 {
        let digits = u64::from(row.0.max(1).ilog10()) + 1;
        let fixed = match (self, first) {
            (Frame::FileLine, _) => 22,
            (Frame::InlineItem, true) => 34,
            (Frame::InlineItem, false) => 35,
            (Frame::ChatLine, _) => 70,
            (Frame::EmbeddingsLine, _) => 64,
        };
        fixed + digits + u64::from(request_len)
    }
}

/// A few bytes of a frame, kept where they are made: there are millions of them.
#[derive(Debug, Clone, Copy)]
pub struct Piece {
    bytes: [u8; Piece::BYTES],
    len: usize,
}

impl Piece {
    /// Enough for the longest text with the longest number in it.
    const BYTES: usize = 48;

    fn of(text: &[u8]) -> Piece {
        let mut piece = Piece { bytes: [0; Piece::BYTES], len: 0 };
        piece.push(text);
        piece
    }

    fn around(before: &[u8], row: Row, after: &[u8]) -> Piece {
        let mut digits = [0; 20];
        let (mut from, mut rest) = (digits.len(), row.0);
        loop {
            from -= 1;
            digits[from] = b'0' + (rest % 10) as u8;
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        let mut piece = Piece::of(before);
        piece.push(&digits[from..]);
        piece.push(after);
        piece
    }

    fn push(&mut self, text: &[u8]) {
        self.bytes[self.len..self.len + text.len()].copy_from_slice(text);
        self.len += text.len();
    }
}

impl Deref for Piece {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_row_number_is_written_out_whatever_its_length() {
        for row in [0, 9, 10, 1_234_567_890, u64::MAX] {
            let line = Frame::FileLine.before(Row(row), false);
            assert_eq!(&*line, format!("{{\"key\":\"{row}\",\"request\":").as_bytes());
            let item = Frame::InlineItem.after(Row(row));
            assert_eq!(&*item, format!(",\"metadata\":{{\"key\":\"{row}\"}}}}").as_bytes());
            let chat = Frame::ChatLine.before(Row(row), false);
            assert_eq!(&*chat, format!("{{\"custom_id\":\"{row}\",\"body\":").as_bytes());
        }
    }

    #[test]
    fn the_length_is_that_of_what_is_written() {
        for frame in [Frame::FileLine, Frame::InlineItem, Frame::ChatLine, Frame::EmbeddingsLine] {
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
