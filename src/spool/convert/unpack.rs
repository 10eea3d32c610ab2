//! Packed inputs: gzip and Zstandard, unpacked as they are read.
//!
//! Members or frames may follow one another. What is cut off, damaged, of another kind than its
//! name says, or more than the limits allow, is an error that refuses the whole input and names the
//! byte that was reached; checksums are compared where there are any. An error of the disk stays
//! what it is. At most one window of the format is held, [`WINDOW_BYTES_MAX`] at the most.

use std::io::{self, BufRead, BufReader, Read};

use flate2::bufread::GzDecoder;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

use super::{BLOCK_BYTES, unfit};
use crate::engine::job::Conversion;
use crate::spool::source::Packing;

/// What a packed input holds, within limits.
pub struct Unpacked<R: Read> {
    format: Format<R>,
    bytes_max: u64,
    ratio_max: u64,
    /// Bytes that came out.
    bytes: u64,
}

enum Format<R: Read> {
    /// Between two members there is a bare input.
    Gzip(Option<Gzip<R>>),
    Zstd(Box<Zstd<R>>),
}

enum Gzip<R: Read> {
    Between(Packed<R>),
    Member(Box<GzDecoder<Packed<R>>>),
}

struct Zstd<R: Read> {
    packed: Packed<R>,
    frame: FrameDecoder,
    /// Whether the frame has begun and is not read whole.
    within: bool,
    /// Bytes that came out of it.
    bytes: u64,
}

impl<R: Read> Unpacked<R> {
    /// Begins to unpack.
    ///
    /// # Errors
    /// If the input can not be read, or does not begin as its name promises.
    pub fn open(input: R, packing: Packing, conversion: &Conversion) -> io::Result<Unpacked<R>> {
        let mut packed = Packed::new(input);
        packed.check_begin(packing)?;
        let format = match packing {
            Packing::Gzip => Format::Gzip(Some(Gzip::Between(packed))),
            Packing::Zstd => {
                let mut frame = FrameDecoder::new();
                frame.set_max_window_size(WINDOW_BYTES_MAX);
                Format::Zstd(Box::new(Zstd { packed, frame, within: false, bytes: 0 }))
            }
        };
        let Conversion { unpacked_bytes, unpacked_ratio, .. } = *conversion;
        Ok(Unpacked { format, bytes_max: unpacked_bytes, ratio_max: unpacked_ratio, bytes: 0 })
    }

    fn check(&self) -> io::Result<()> {
        let Unpacked { bytes_max, ratio_max, .. } = *self;
        if self.bytes > bytes_max {
            let message = format!(
                "it holds more than the {bytes_max} bytes that an input may have when it is \
                 unpacked"
            );
            let remedy = "Cut it into several files, or raise intake.unpacked_bytes.";
            return Err(unfit("unpacked_too_large", message, remedy));
        }
        let packed = self.format.position();
        if self.bytes > FREE_BYTES && self.bytes / ratio_max.max(1) > packed {
            let message = format!(
                "its first {packed} bytes unpack to more than {ratio_max} times as many, which no real \
                 list of requests does"
            );
            let remedy =
                "If it is one, unpack it and drop it again, or raise intake.unpacked_ratio.";
            return Err(unfit("unpacked_too_large", message, remedy));
        }
        Ok(())
    }
}

impl<R: Read> Read for Unpacked<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let count = match &mut self.format {
            Format::Gzip(gzip) => read_gzip(gzip, buffer)?,
            Format::Zstd(zstd) => zstd.read(buffer)?,
        };
        self.bytes += count as u64;
        self.check()?;
        Ok(count)
    }
}

impl<R: Read> Format<R> {
    fn position(&self) -> u64 {
        match self {
            Format::Gzip(None) => 0,
            Format::Gzip(Some(Gzip::Between(packed))) => packed.position,
            Format::Gzip(Some(Gzip::Member(member))) => member.get_ref().position,
            Format::Zstd(zstd) => zstd.packed.position,
        }
    }
}

fn read_gzip<R: Read>(gzip: &mut Option<Gzip<R>>, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match gzip.take() {
            None => return Ok(0),
            Some(Gzip::Between(mut packed)) => {
                if packed.is_over()? {
                    *gzip = Some(Gzip::Between(packed));
                    return Ok(0);
                }
                *gzip = Some(Gzip::Member(Box::new(GzDecoder::new(packed))));
            }
            Some(Gzip::Member(mut member)) => match member.read(buffer) {
                Ok(0) => *gzip = Some(Gzip::Between(member.into_inner())),
                Ok(count) => {
                    *gzip = Some(Gzip::Member(member));
                    return Ok(count);
                }
                Err(error) => return Err(member.get_mut().told(error, "gzip")),
            },
        }
    }
}

impl<R: Read> Zstd<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if !self.within && !self.begin()? {
                return Ok(0);
            }
            // Some blocks only fill the window.
            while self.frame.can_collect() == 0 && !self.frame.is_finished() {
                let strategy = BlockDecodingStrategy::UptoBlocks(1);
                if let Err(error) = self.frame.decode_blocks(&mut self.packed, strategy) {
                    return Err(self.packed.told(error, "zstd"));
                }
            }
            let count = self.frame.read(buffer)?;
            self.bytes += count as u64;
            if count > 0 {
                return Ok(count);
            }
            self.end()?;
        }
    }

    /// Begins the next frame; `false` if there is none.
    fn begin(&mut self) -> io::Result<bool> {
        loop {
            if self.packed.is_over()? {
                return Ok(false);
            }
            match self.frame.reset(&mut self.packed) {
                Ok(()) => {
                    (self.within, self.bytes) = (true, 0);
                    return Ok(true);
                }
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                    length,
                    ..
                })) => self.packed.skip(u64::from(length))?,
                Err(FrameDecoderError::WindowSizeTooBig { requested, .. }) => {
                    let message = format!(
                        "it was packed with a window of {requested} bytes, more than the \
                         {WINDOW_BYTES_MAX} that unpacking may take of the memory"
                    );
                    let remedy = "Pack it again without --long or --ultra.";
                    return Err(unfit("damaged", message, remedy));
                }
                Err(FrameDecoderError::DictNotProvided { .. }) => {
                    let message = "it was packed with a dictionary".to_owned();
                    return Err(unfit("damaged", message, "Pack it again without one."));
                }
                Err(error) => return Err(self.packed.told(error, "zstd")),
            }
        }
    }

    /// Compares what came out of a frame with what it says of itself.
    fn end(&mut self) -> io::Result<()> {
        self.within = false;
        let promised = self.frame.content_size();
        let sums = self.frame.get_checksum_from_data();
        if sums.is_some() && sums != self.frame.get_calculated_checksum() {
            return Err(self.packed.damaged("zstd", "its checksum is another"));
        }
        // No size is told as 0.
        if promised != 0 && promised != self.bytes {
            return Err(self.packed.damaged("zstd", "it has another length than it says"));
        }
        Ok(())
    }
}

/// A packed input, with what is known of how far it was read.
struct Packed<R: Read> {
    input: BufReader<R>,
    /// Bytes that were taken.
    position: u64,
    /// Whether more was asked for than there is.
    ended: bool,
    /// The error of reading itself; what comes after it is no fault of the content.
    failed: Option<io::Error>,
}

impl<R: Read> Packed<R> {
    fn new(input: R) -> Packed<R> {
        let input = BufReader::with_capacity(BLOCK_BYTES, input);
        Packed { input, position: 0, ended: false, failed: None }
    }

    fn check_begin(&mut self, packing: Packing) -> io::Result<()> {
        let mut head = [0; 4];
        let len = {
            let begin = self.fill_buf()?;
            let len = begin.len().min(head.len());
            head[..len].copy_from_slice(&begin[..len]);
            len
        };
        let (word, begins_so) = match packing {
            Packing::Gzip => ("gzip", head.starts_with(&[0x1f, 0x8b])),
            // The second is a frame to be skipped.
            Packing::Zstd => (
                "zstd",
                head == [0x28, 0xb5, 0x2f, 0xfd]
                    || head[0] & 0xf0 == 0x50 && head[1..] == [0x2a, 0x4d, 0x18],
            ),
        };
        if len == 0 {
            let remedy = "Write requests into it, pack it, and drop it again.";
            return Err(unfit("empty", "the file is empty".to_owned(), remedy));
        }
        // A few bytes of the right kind are one that is cut off, which is told better later.
        if begins_so || len < 4 && word == "zstd" && [0x28, 0xb5, 0x2f].starts_with(&head[..len]) {
            return Ok(());
        }
        let message = format!("its name says that it is packed with {word}, its content does not");
        let remedy = "Name it after what it is, without .gz or .zst if it is plain text.";
        Err(unfit("damaged", message, remedy))
    }

    /// Whether nothing more comes.
    fn is_over(&mut self) -> io::Result<bool> {
        // Here is where more need not come.
        let ended = self.ended;
        let over = self.fill_buf()?.is_empty();
        self.ended = ended;
        Ok(over)
    }

    /// Leaves out so many bytes.
    fn skip(&mut self, bytes: u64) -> io::Result<()> {
        let skipped = io::copy(&mut self.by_ref().take(bytes), &mut io::sink())?;
        if skipped == bytes {
            return Ok(());
        }
        Err(self.told(io::Error::from(io::ErrorKind::UnexpectedEof), "zstd"))
    }

    /// What to say of an error of a decoder.
    fn told(&mut self, error: impl std::fmt::Display, word: &str) -> io::Error {
        if let Some(failed) = self.failed.take() {
            return failed;
        }
        if !self.ended {
            return self.damaged(word, &error.to_string());
        }
        let message = format!(
            "it is cut off: the {word} data is not at its end after byte {}, the last of the file",
            self.position
        );
        unfit("damaged", message, REMEDY)
    }

    fn damaged(&self, word: &str, what: &str) -> io::Error {
        let what: String = what.chars().filter(|c| !c.is_control()).take(200).collect();
        let message = format!("its {word} data is damaged near byte {}: {what}", self.position);
        unfit("damaged", message, REMEDY)
    }
}

impl<R: Read> BufRead for Packed<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while let Err(error) = self.input.fill_buf() {
            if error.kind() != io::ErrorKind::Interrupted {
                let again = match error.raw_os_error() {
                    Some(number) => io::Error::from_raw_os_error(number),
                    None => io::Error::new(error.kind(), error.to_string()),
                };
                self.failed = Some(error);
                return Err(again);
            }
        }
        let bytes = self.input.fill_buf()?;
        self.ended |= bytes.is_empty();
        Ok(bytes)
    }

    fn consume(&mut self, count: usize) {
        self.input.consume(count);
        self.position += count as u64;
    }
}

impl<R: Read> Read for Packed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.fill_buf()?.read(buffer)?;
        self.consume(count);
        Ok(count)
    }
}

/// The largest window, bytes: that of `zstd --ultra -21`.
const WINDOW_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// So many unpacked bytes do no harm, whatever they were before.
const FREE_BYTES: u64 = 16 * 1024 * 1024;

const REMEDY: &str = "Pack it again, copy it whole, and drop it again.";
