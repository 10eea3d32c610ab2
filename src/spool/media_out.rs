//! Data in answers becomes files: `NAME.media/<line>-<number>.<ending>`.
//!
//! The base64 is decoded piece by piece from where it stands in the answer, so that memory is
//! bounded by the line. Names are made of numbers and endings of ours, never of anything from
//! outside. In the answer, `fileData` with the path relative to the folder of the results takes the
//! place of `inlineData`. Files are written into the working folder and synced there; the delivery
//! moves their folder to the outbox before the results. What can not be decoded stays in the answer.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::ops::Range;
use std::path::PathBuf;

use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use base64::read::DecoderReader;
use memchr::memmem;

use super::inline_data::{InlineData, find};
use super::steady::SteadyFile;
use super::{At, JobFolder, SpoolError, durable, moment};
use crate::engine::job::MediaTally;

/// The files of one merge.
pub struct MediaFiles {
    folder: PathBuf,
    /// The folder's name in the outbox, as it stands in a JSON string.
    name: String,
    made: bool,
    tally: MediaTally,
    piece: Vec<u8>,
}

/// What takes the place of a stretch of a response.
pub type Replaced = (Range<usize>, String);

impl MediaFiles {
    /// Begins anew: files of an earlier merge are removed.
    ///
    /// # Errors
    /// If they can not be removed.
    pub fn begin(folder: &JobFolder, stem: &str) -> Result<MediaFiles, SpoolError> {
        let folder = folder.merged_media();
        match fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).at("remove", &folder);
            }
            Ok(()) | Err(_) => {}
        }
        let name = serde_json::Value::from(folder_name(stem)).to_string();
        let name = name[1..name.len() - 1].to_owned();
        let (made, tally, piece) = (false, MediaTally::default(), Vec::new());
        Ok(MediaFiles { folder, name, made, tally, piece })
    }

    /// Writes the data of a response to files and answers with what is to stand in its place, in
    /// the order of the response. `line` is the number of its line in the input.
    ///
    /// # Errors
    /// If a file can not be written or synced.
    pub fn take_out(&mut self, line: u32, response: &[u8]) -> Result<Vec<Replaced>, SpoolError> {
        let is_there = |name: &str| memmem::find(response, name.as_bytes()).is_some();
        if !is_there("inlineData") && !is_there("inline_data") {
            return Ok(Vec::new());
        }
        let Some(pieces) = find(response) else {
            self.tally.unreadable += 1;
            return Ok(Vec::new());
        };
        let mut replaced = Vec::new();
        for piece in pieces {
            let mime = &response[piece.mime.clone()];
            let file = format!("{line}-{}.{}", replaced.len() + 1, ending(mime));
            match self.write(&file, &response[piece.data.clone()])? {
                Some(bytes) => {
                    self.tally.files += 1;
                    self.tally.bytes += bytes;
                    let text = self.file_data(&file, response, &piece);
                    replaced.push((piece.member, text));
                }
                None => self.tally.unreadable += 1,
            }
        }
        Ok(replaced)
    }

    /// Makes the files' names durable and tells how many there are.
    ///
    /// # Errors
    /// If they can not be synced.
    pub fn finish(&self) -> Result<MediaTally, SpoolError> {
        if self.made {
            durable::sync_folder(&self.folder)?;
            moment("merge:media", &self.folder)?;
        }
        Ok(self.tally)
    }

    /// Removes what was written.
    pub fn discard(&self) {
        // The next merge removes it too; there is nothing to tell anybody.
        drop(fs::remove_dir_all(&self.folder));
    }

    /// Writes one file and tells its bytes; `None` if the data is no base64.
    fn write(&mut self, file: &str, data: &[u8]) -> Result<Option<u64>, SpoolError> {
        if !self.made {
            durable::make_folder(&self.folder)?;
            self.made = true;
        }
        let path = self.folder.join(file);
        let mut target = SteadyFile::new(File::create_new(&path).at("write", &path)?);
        let mut decoder = DecoderReader::new(Unescaped { text: data }, &ENGINE);
        self.piece.resize(PIECE_BYTES, 0);
        let mut bytes = 0;
        loop {
            let Ok(count) = fill(&mut decoder, &mut self.piece) else {
                target.settle().at("write", &path)?;
                drop(target);
                fs::remove_file(&path).at("remove", &path)?;
                return Ok(None);
            };
            if count == 0 {
                break;
            }
            target.write_all(&self.piece[..count]).at("write", &path)?;
            bytes += count as u64;
        }
        target.sync().at("sync", &path)?;
        moment("merge:medium", &path)?;
        Ok(Some(bytes))
    }

    fn file_data(&self, file: &str, response: &[u8], piece: &InlineData) -> String {
        let text = |range: &Range<usize>| String::from_utf8_lossy(&response[range.clone()]);
        let mime = match piece.mime.is_empty() {
            true => "application/octet-stream".into(),
            false => text(&piece.mime),
        };
        let uri = format!("{}/{file}", self.name);
        let others: String = piece.others.iter().map(|other| format!(",{}", text(other))).collect();
        format!(r#""fileData":{{"mimeType":"{mime}","fileUri":"{uri}"{others}}}"#)
    }
}

/// The name in the outbox of the folder with the files of a job.
pub fn folder_name(stem: &str) -> String {
    format!("{stem}.media")
}

/// The ending of a file by its media type, which comes from outside.
fn ending(mime: &[u8]) -> &'static str {
    let mime = String::from_utf8_lossy(mime).to_ascii_lowercase();
    // A slash may be written with an escape.
    let mime = mime.replace("\\/", "/");
    let kind = mime.split(';').next().unwrap_or_default().trim();
    ENDINGS.iter().find(|(name, _)| *name == kind).map_or("bin", |(_, ending)| ending)
}

/// Media types that the models answer with, and some more.
const ENDINGS: &[(&str, &str)] = &[
    ("image/png", "png"),
    ("image/jpeg", "jpg"),
    ("image/webp", "webp"),
    ("image/gif", "gif"),
    ("image/bmp", "bmp"),
    ("image/heic", "heic"),
    ("image/heif", "heif"),
    ("image/avif", "avif"),
    ("image/svg+xml", "svg"),
    ("audio/wav", "wav"),
    ("audio/x-wav", "wav"),
    ("audio/mpeg", "mp3"),
    ("audio/mp3", "mp3"),
    ("audio/ogg", "ogg"),
    ("audio/flac", "flac"),
    ("audio/aac", "aac"),
    ("audio/mp4", "m4a"),
    ("audio/l16", "pcm"),
    ("audio/pcm", "pcm"),
    ("video/mp4", "mp4"),
    ("video/webm", "webm"),
    ("video/quicktime", "mov"),
    ("application/pdf", "pdf"),
    ("application/json", "json"),
    ("text/plain", "txt"),
    ("text/csv", "csv"),
];

fn fill(from: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match from.read(&mut buffer[filled..])? {
            0 => break,
            count => filled += count,
        }
    }
    Ok(filled)
}

/// The text of a JSON string, in which only such escapes stand as base64 may be written with; its
/// other alphabet is turned into the usual one.
struct Unescaped<'a> {
    text: &'a [u8],
}

impl Unescaped<'_> {
    fn next(&mut self) -> io::Result<Option<u8>> {
        let odd = || io::Error::from(io::ErrorKind::InvalidData);
        let Some((&first, rest)) = self.text.split_first() else { return Ok(None) };
        let (byte, used) = match (first, rest) {
            (b'\\', [b'/', ..]) => (b'/', 2),
            (b'\\', [b'u', hex @ ..]) => {
                let hex = hex.get(..4).and_then(|hex| std::str::from_utf8(hex).ok());
                let code = hex.and_then(|hex| u8::from_str_radix(hex, 16).ok());
                (code.ok_or_else(odd)?, 6)
            }
            (b'\\', _) => return Err(odd()),
            (byte, _) => (byte, 1),
        };
        self.text = &self.text[used..];
        Ok(Some(match byte {
            b'-' => b'+',
            b'_' => b'/',
            byte => byte,
        }))
    }
}

impl Read for Unescaped<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // Nearly always nothing stands there that is written otherwise than it is.
        let len = buffer.len().min(self.text.len());
        let plain = memchr::memchr3(b'\\', b'-', b'_', &self.text[..len]).unwrap_or(len);
        if plain > 0 {
            buffer[..plain].copy_from_slice(&self.text[..plain]);
            self.text = &self.text[plain..];
            return Ok(plain);
        }
        match (buffer.first_mut(), len) {
            (Some(place), 1..) => match self.next()? {
                Some(byte) => {
                    *place = byte;
                    Ok(1)
                }
                None => Ok(0),
            },
            (Some(_) | None, _) => Ok(0),
        }
    }
}

/// Padding may be missing, as it is in some answers.
const ENGINE: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Bytes decoded and written at once.
const PIECE_BYTES: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use base64::Engine as _;

    use super::*;

    fn files() -> (tempfile::TempDir, MediaFiles) {
        let temp = tempfile::tempdir().expect("a temporary folder");
        let files = MediaFiles::begin(&JobFolder { path: temp.path().to_owned() }, "a \"b\"");
        (temp, files.expect("begun"))
    }

    fn response(mime: &str, data: &str) -> String {
        format!(
            r#"{{"candidates":[{{"content":{{"parts":[{{"inlineData":{{"mimeType":"{mime}","data":"{data}"}}}}]}}}}]}}"#
        )
    }

    #[test]
    fn data_becomes_a_file_however_its_base64_is_written() {
        let plain: Vec<u8> =
            (0..200_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        let standard = base64::engine::general_purpose::STANDARD.encode(&plain);
        let escaped = standard.replace('/', "\\/").replace('=', "\\u003d");
        let url_safe = standard.replace('+', "-").replace('/', "_");
        let unpadded = standard.trim_end_matches('=').to_owned();
        assert!(escaped != standard && url_safe != standard && unpadded != standard);
        let (_temp, mut files) = files();
        for (line, text) in (7..).zip([standard, escaped, url_safe, unpadded]) {
            let response = response("image/png", &text);
            let replaced = files.take_out(line, response.as_bytes()).expect("written");
            let file = format!("{line}-1.png");
            let [(at, text)] = &replaced[..] else { panic!("one piece") };
            assert!(response[at.clone()].starts_with("\"inlineData\":{"));
            let uri = format!("a \\\"b\\\".media/{file}");
            assert_eq!(
                *text,
                format!(r#""fileData":{{"mimeType":"image/png","fileUri":"{uri}"}}"#)
            );
            assert_eq!(fs::read(files.folder.join(file)).expect("there"), plain);
        }
        let tally = files.finish().expect("synced");
        assert_eq!((tally.files, tally.bytes, tally.unreadable), (4, 800_000, 0));
    }

    #[test]
    fn what_is_no_base64_stays_where_it_is_and_leaves_no_file() {
        let (_temp, mut files) = files();
        for data in ["QQ", "Q Q=", "QQ==QQ==", "Q", "\\n", "\\u00e9", "\\u12", "Qé=="] {
            let taken = files.take_out(1, response("image/png", data).as_bytes()).expect("read");
            assert_eq!(taken.is_empty(), data != "QQ", "{data}");
            drop(fs::remove_file(files.folder.join("1-1.png")));
        }
        assert_eq!(fs::read_dir(&files.folder).expect("listed").count(), 0);
        assert_eq!(files.finish().expect("synced").unreadable, 7);
    }

    #[test]
    fn endings_come_from_a_list_of_ours() {
        for (mime, expected) in [
            ("IMAGE/PNG", "png"),
            ("image\\/jpeg", "jpg"),
            ("audio/L16;codec=pcm;rate=24000", "pcm"),
            ("../../etc/passwd", "bin"),
            ("", "bin"),
        ] {
            assert_eq!(ending(mime.as_bytes()), expected, "{mime}");
        }
    }
}
