//! What may be taken out of a folder that other people write to: names and files.
//!
//! A name becomes part of a path of ours only after [`check_name`] has seen it, and a file is
//! opened only by [`open`], which follows no symbolic link and never waits for a FIFO. Whatever
//! does not pass is still named to people: [`spoken`] escapes it for messages and [`harmless`]
//! makes a name of it that can stand in a folder.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use super::index::LineEntry;
use super::{At, SpoolError};
use crate::engine::job::{Refusal, Source};

/// Bytes a name may have. The rest of the 255 that file systems allow is needed for the names
/// of the outputs: `~12`, `.manifest.json`, and the marks of a file that is being written.
pub const NAME_BYTES_MAX: usize = 200;

/// Folders below folders, counted from the inbox.
pub const DEPTH_MAX: usize = 16;

/// What the ending of a name says about the content, unpacked if the name says that it is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// `.jsonl` or `.ndjson`: one request a line.
    Lines,
    /// `.json`: one request a line, or one document.
    Document,
    /// `.txt`: one prompt a line.
    Text,
    /// `.csv`: a record for each request, below a line with the names of the columns.
    Table,
    /// Anything else.
    Unknown,
}

/// How a file is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    /// `.gz`
    Gzip,
    /// `.zst`
    Zstd,
}

/// Reads the ending of a name; upper and lower case are the same.
pub fn ending(name: &str) -> Ending {
    let (_, ending) = split(name);
    let plain = ending.get(1..).and_then(|ending| ending.split('.').next());
    match plain.map(str::to_ascii_lowercase).as_deref() {
        Some("jsonl" | "ndjson") => Ending::Lines,
        Some("json") => Ending::Document,
        Some("txt") => Ending::Text,
        Some("csv") => Ending::Table,
        Some(_) | None => Ending::Unknown,
    }
}

/// How a file with this name is packed.
pub fn packing(name: &str) -> Option<Packing> {
    let (_, ending) = split(name);
    PACKINGS.iter().find(|(packed, _)| has_ending(ending, packed)).map(|(_, packing)| *packing)
}

/// Splits a name before the ending that makes it an input: `a.b.jsonl.gz` into `a.b` and
/// `.jsonl.gz`. The ending is empty if there is none, and a name is never nothing but one.
pub fn split(name: &str) -> (&str, &str) {
    let packed = PACKINGS.iter().find(|(packed, _)| has_ending(name, packed));
    let bare = name.len() - packed.map_or(0, |(packed, _)| packed.len());
    let plain = ENDINGS.iter().find(|ending| has_ending(&name[..bare], ending));
    match plain.map(|ending| bare - ending.len()) {
        Some(at) if at > 0 => name.split_at(at),
        Some(_) | None => (name, ""),
    }
}

fn has_ending(name: &str, ending: &str) -> bool {
    let at = name.len().checked_sub(ending.len());
    at.and_then(|at| name.get(at..)).is_some_and(|end| end.eq_ignore_ascii_case(ending))
}

/// How the names of inputs end.
const ENDINGS: [&str; 5] = [".jsonl", ".ndjson", ".json", ".txt", ".csv"];

/// What may stand after it.
const PACKINGS: [(&str, Packing); 2] = [(".gz", Packing::Gzip), (".zst", Packing::Zstd)];

/// The endings, for messages.
pub const ENDINGS_TOLD: &str = ".jsonl, .ndjson, .json, .txt or .csv, each also with .gz or .zst";

/// The name, if it may become part of a path: one component, UTF-8, no control characters, not
/// hidden, not overlong.
///
/// # Errors
/// What is wrong with it, to be shown to a person.
pub fn check_name(name: &OsStr) -> Result<&str, &'static str> {
    let name = name.to_str().ok_or("is not valid UTF-8")?;
    if name.is_empty() || name.contains('/') {
        return Err("is not the name of one file");
    }
    if name.starts_with('.') {
        return Err("begins with a dot");
    }
    if name.chars().any(deceives) {
        return Err("contains control characters");
    }
    if name.len() > NAME_BYTES_MAX {
        return Err("is longer than 200 bytes");
    }
    Ok(name)
}

/// Checks every part of a source again, before a path is made of it.
///
/// # Errors
/// [`io::ErrorKind::InvalidInput`] with the part that does not pass.
pub fn check_source(source: &Source) -> io::Result<()> {
    let parts = source.folder.split('/').filter(|_| !source.folder.is_empty());
    for part in parts.chain([source.name.as_str()]).chain(source.sidecar.as_deref()) {
        check_name(OsStr::new(part)).map_err(|what| {
            let text = format!("`{}` {what}", spoken(OsStr::new(part)));
            io::Error::new(io::ErrorKind::InvalidInput, text)
        })?;
    }
    Ok(())
}

/// What [`open`] found.
#[derive(Debug)]
pub enum Opened {
    /// A regular file, open for reading.
    File(File),
    /// Something else, with its [`kind_of`] name.
    Special(&'static str),
    /// A regular file that this user may not read.
    Unreadable,
    /// Nothing.
    Missing,
}

/// Opens a regular file for reading. Never follows a link at the end of the path, never waits.
///
/// # Errors
/// What the system said, apart from the cases of [`Opened`].
pub fn open(path: &Path) -> io::Result<Opened> {
    open_at(rustix::fs::CWD, path)
}

/// As [`open`], for a path below an open folder.
///
/// # Errors
/// As [`open`].
pub fn open_at<P: rustix::path::Arg>(
    folder: impl std::os::fd::AsFd,
    path: P,
) -> io::Result<Opened> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match rustix::fs::openat(folder, path, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(Errno::LOOP) => return Ok(Opened::Special("symbolic link")),
        // A socket, or a device without a driver.
        Err(Errno::NXIO) => return Ok(Opened::Special("special file")),
        Err(Errno::ACCESS | Errno::PERM) => return Ok(Opened::Unreadable),
        Err(Errno::NOENT) => return Ok(Opened::Missing),
        Err(errno) => return Err(errno.into()),
    };
    let kind = FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode);
    if kind == FileType::RegularFile {
        Ok(Opened::File(file))
    } else {
        Ok(Opened::Special(kind_of(kind)))
    }
}

/// Opens an input that was looked at before; anything but a regular file is an error now.
///
/// # Errors
/// What stands in the way.
pub fn reopen(path: &Path) -> io::Result<File> {
    match open(path)? {
        Opened::File(file) => Ok(file),
        Opened::Special(kind) => Err(io::Error::other(format!("it is a {kind} now"))),
        Opened::Unreadable => Err(io::ErrorKind::PermissionDenied.into()),
        Opened::Missing => Err(io::ErrorKind::NotFound.into()),
    }
}

/// Fills `buffer` from byte `start` of an input on; answers with fewer bytes than it holds only at
/// the end of the input.
///
/// # Errors
/// What the system says.
pub fn fill(input: &File, buffer: &mut [u8], start: u64) -> io::Result<usize> {
    let mut got = 0;
    while got < buffer.len() {
        match input.read_at(&mut buffer[got..], start + got as u64) {
            Ok(0) => break,
            Ok(more) => got += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(got)
}

/// Reads the request of a valid row whole.
///
/// # Errors
/// If it can not be read.
pub fn request(input: &Path, entry: &LineEntry) -> Result<Vec<u8>, SpoolError> {
    let mut request = vec![0; entry.request_len as usize];
    let file = reopen(input).at("open", input)?;
    file.read_exact_at(&mut request, entry.request_start).at("read", input)?;
    Ok(request)
}

/// What a person calls this kind of file.
pub fn kind_of(kind: FileType) -> &'static str {
    match kind {
        FileType::RegularFile => "regular file",
        FileType::Directory => "folder",
        FileType::Symlink => "symbolic link",
        FileType::Fifo => "FIFO",
        FileType::Socket => "socket",
        FileType::CharacterDevice | FileType::BlockDevice => "device",
        FileType::Unknown => "special file",
    }
}

/// A name for messages: what could forge a log line is escaped, and it ends after 200 characters.
pub fn spoken(name: &OsStr) -> String {
    let mut text = String::new();
    for chunk in name.as_bytes().utf8_chunks() {
        for c in chunk.valid().chars() {
            if deceives(c) { text.extend(c.escape_unicode()) } else { text.push(c) }
        }
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    match text.char_indices().nth(200) {
        None => text,
        Some((cut, _)) => format!("{}…", &text[..cut]),
    }
}

/// A name made of another one, fit to stand in a folder of ours: what does not pass
/// [`check_name`] becomes `_`, and it ends after 100 bytes.
pub fn harmless(name: &OsStr) -> String {
    if let Ok(name) = check_name(name) {
        return name.to_owned();
    }
    let text = name.to_string_lossy();
    let plain = |c: char| if deceives(c) || "/\u{fffd}".contains(c) { '_' } else { c };
    let mut name: String = text.chars().map(plain).collect();
    while name.len() > 100 {
        name.pop();
    }
    if name.is_empty() || name.starts_with('.') {
        name.insert(0, '_');
    }
    name
}

/// Puts a refusal together that concerns no line.
pub fn refusal(reason: &str, message: String, remedy: &str) -> Refusal {
    Refusal {
        reason: reason.to_owned(),
        message,
        remedy: remedy.to_owned(),
        line: None,
        column: None,
    }
}

/// Whether a character can make a name look like something else, or break a log line.
fn deceives(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endings_are_told_apart_in_any_case() {
        use Packing::{Gzip, Zstd};
        for (name, expected, packing_expected) in [
            ("a.jsonl", Ending::Lines, None),
            ("a.b.NDJSON", Ending::Lines, None),
            ("a.JSON", Ending::Document, None),
            ("a.txt", Ending::Text, None),
            ("a.CSV", Ending::Table, None),
            ("a.jsonl.gz", Ending::Lines, Some(Gzip)),
            ("a.json.ZST", Ending::Document, Some(Zstd)),
            ("a.csv.gz", Ending::Table, Some(Gzip)),
            ("a.txt.zst", Ending::Text, Some(Zstd)),
            ("a.gz", Ending::Unknown, None),
            ("a.jsonl.gz.gz", Ending::Unknown, None),
            ("jsonl", Ending::Unknown, None),
            (".jsonl", Ending::Unknown, None),
            ("a.pdf", Ending::Unknown, None),
            ("aé", Ending::Unknown, None),
        ] {
            assert_eq!((ending(name), packing(name)), (expected, packing_expected), "{name}");
        }
    }

    #[test]
    fn endings_of_inputs_are_split_off_and_no_others() {
        for (name, stem, ending) in [
            ("a.jsonl", "a", ".jsonl"),
            ("a.b.NDJSON.Zst", "a.b", ".NDJSON.Zst"),
            ("é.json", "é", ".json"),
            ("日本.csv.gz", "日本", ".csv.gz"),
            ("a.txt", "a", ".txt"),
            ("a.pdf", "a.pdf", ""),
            ("a.gz", "a.gz", ""),
            (".jsonl", ".jsonl", ""),
        ] {
            assert_eq!(split(name), (stem, ending), "{name}");
        }
    }

    #[test]
    fn names_that_could_leave_the_folder_or_forge_a_log_do_not_pass() {
        let long = "x".repeat(NAME_BYTES_MAX + 1);
        for name in ["", ".", "..", "a/b", ".hidden", "a\nb", "a\u{1b}[2J", "a\u{202e}b", &long] {
            assert!(check_name(OsStr::new(name)).is_err(), "{name:?}");
            let harmless = harmless(OsStr::new(name));
            assert!(check_name(OsStr::new(&harmless)).is_ok(), "{name:?} became {harmless:?}");
            assert!(!spoken(OsStr::new(name)).chars().any(deceives), "{name:?}");
        }
        let bytes = OsStr::from_bytes(b"caf\xe9.jsonl");
        assert!(check_name(bytes).is_err());
        assert_eq!(harmless(bytes), "caf_.jsonl");
        assert_eq!(spoken(bytes), "caf\\xe9.jsonl");
        assert_eq!(check_name(OsStr::new("三个问题.jsonl")), Ok("三个问题.jsonl"));
    }

    #[test]
    fn opening_a_fifo_or_a_link_neither_waits_nor_follows() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let fifo = folder.path().join("fifo.jsonl");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)
            .expect("a fifo");
        assert!(matches!(open(&fifo).expect("asked"), Opened::Special("FIFO")));
        let link = folder.path().join("link.jsonl");
        std::os::unix::fs::symlink("/etc/passwd", &link).expect("a link");
        assert!(matches!(open(&link).expect("asked"), Opened::Special("symbolic link")));
        let gone = folder.path().join("gone");
        assert!(matches!(open(&gone).expect("asked"), Opened::Missing));
        assert!(matches!(open(folder.path()).expect("asked"), Opened::Special("folder")));
    }
}
