//! Takes the files that lines name into the working folder of their job.
//!
//! From then on, what becomes of the original does not matter. A path is relative to the folder of
//! the inbox in which the input lay, or leads below the queue's `media_root`; no component of it may
//! be a symbolic link or `..`, and each is opened from the one before, so that nothing can be put in
//! between. The copy shares the blocks of the original where the file system can do that. It has the
//! SHA-256 of its content as its name, is synced before it has it, and is there once, however many
//! lines name it.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;
use sha2::{Digest, Sha256};

use super::Kind;
use super::parts::{self, FilePart};
use super::slots::{MediaId, SLOT_BYTES, Slot, SlotWriter, hex};
use crate::spool::index::LineFate;
use crate::spool::source::{self, Opened};
use crate::spool::{At, JobFolder, SpoolError, durable};

/// Where the files are that the lines of an input may name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    /// The inbox.
    pub inbox: PathBuf,
    /// The folder of it in which the input lay.
    pub folder: String,
    /// The queue's `media_root`.
    pub root: Option<PathBuf>,
}

/// Takes the files that the lines of a job name, and notes where their addresses have to stand.
#[derive(Debug)]
pub struct Take {
    taker: Taker,
    slots: SlotWriter,
    found: Vec<Slot>,
    any: bool,
}

impl Take {
    /// For the job in this folder.
    ///
    /// # Errors
    /// If the index of places can not be written.
    pub fn begin(folder: &JobFolder, places: &Places) -> Result<Take, SpoolError> {
        let taker = Taker::new(folder, places.clone());
        let slots = SlotWriter::create(&folder.slots())?;
        Ok(Take { taker, slots, found: Vec::new(), any: false })
    }

    /// Takes what one line names and writes the line to `out`, which is empty. It will stand at
    /// byte `start` of the prepared ones.
    ///
    /// # Errors
    /// See [`TakeError`].
    pub fn line(&mut self, line: &[u8], start: u64, out: &mut Vec<u8>) -> Result<(), TakeError> {
        self.found.clear();
        self.taker.line(line, start, out, &mut self.found)?;
        for slot in &self.found {
            self.slots.put(slot)?;
            self.any = true;
        }
        Ok(())
    }

    /// Makes all of it durable, and tells whether any file was named.
    ///
    /// # Errors
    /// If it can not be written, synced or named.
    pub fn finish(self) -> Result<bool, SpoolError> {
        self.taker.finish()?;
        self.slots.finish()?;
        Ok(self.any)
    }
}

/// Takes the media of one job.
#[derive(Debug)]
struct Taker {
    folder: PathBuf,
    /// Relative paths lead to where the input lay; whole ones, and those that are not there, below
    /// the root.
    places: Places,
    /// What paths led to, as far as it is remembered.
    known: HashMap<String, [u8; 32]>,
    /// Contents that are there.
    taken: HashSet<[u8; 32]>,
}

/// Why a line's files were not taken.
#[derive(Debug, thiserror::Error)]
pub enum TakeError {
    /// The line names a file that can not be sent; it fails with this.
    #[error("{message}")]
    Line {
        /// What kind of fault it is.
        fate: LineFate,
        /// Which file, what is wrong with it, and what to do.
        message: String,
    },
    /// This machine could not; trying again may help.
    #[error(transparent)]
    Spool(#[from] SpoolError),
}

impl Taker {
    fn new(folder: &JobFolder, places: Places) -> Taker {
        let folder = folder.media();
        Taker { folder, places, known: HashMap::new(), taken: HashSet::new() }
    }

    /// Takes the files of one line, makes room in it for their addresses, and adds it to `out`;
    /// `slots` gets the places, with `start` as the offset of the line.
    ///
    /// # Errors
    /// See [`TakeError`]; nothing is added then.
    fn line(
        &mut self,
        line: &[u8],
        start: u64,
        out: &mut Vec<u8>,
        slots: &mut Vec<Slot>,
    ) -> Result<(), TakeError> {
        let text = std::str::from_utf8(line).ok();
        let named = text.filter(|_| memchr::memmem::find(line, parts::BEGINNING).is_some());
        let found = named.map(parts::file_parts).unwrap_or_default();
        let mut media = Vec::with_capacity(found.len());
        for part in &found {
            media.push(self.part(part)?);
        }
        let (begin, mut done) = (out.len(), 0);
        for (part, media) in found.iter().zip(media) {
            out.extend_from_slice(&line[done..part.uri.start]);
            done = part.uri.end;
            let uri = &line[part.uri.clone()];
            let len = uri.len().max(SLOT_BYTES);
            let at = start + (out.len() - begin) as u64;
            slots.push(Slot { start: at, len: u32::try_from(len).unwrap_or(u32::MAX), media });
            out.extend_from_slice(uri);
            out.resize(out.len() + len - uri.len(), b' ');
            if part.mime.is_none() {
                // What the name tells is told to the API, too.
                out.extend_from_slice(b",\"mimeType\":\"");
                out.extend_from_slice(media.kind.mime().as_bytes());
                out.push(b'"');
            }
        }
        out.extend_from_slice(&line[done..]);
        Ok(())
    }

    /// Makes sure that the names of all copies are durable.
    ///
    /// # Errors
    /// If their folder can not be synced.
    fn finish(self) -> Result<(), SpoolError> {
        if self.taken.is_empty() { Ok(()) } else { durable::sync_folder(&self.folder) }
    }

    fn part(&mut self, part: &FilePart) -> Result<MediaId, TakeError> {
        let path = path_of(&part.path)?;
        let kind = match &part.mime {
            Some(mime) => Kind::of_mime(mime).ok_or_else(|| unknown_type(&path, mime))?,
            None => Kind::of_name(&path).ok_or_else(|| unknown_ending(&path))?,
        };
        if let Some(sha256) = self.known.get(path.as_ref()) {
            return Ok(MediaId { sha256: *sha256, kind });
        }
        let file = self.open(&path)?;
        let sha256 = self.copy(file, &path)?;
        if self.known.len() >= KNOWN_MAX {
            self.known.clear();
        }
        self.known.insert(path.into_owned(), sha256);
        Ok(MediaId { sha256, kind })
    }

    fn open(&self, path: &str) -> Result<File, TakeError> {
        let Places { inbox, folder, root } = &self.places;
        if Path::new(path).is_absolute() {
            let Some(root) = root else {
                return Err(outside(
                    path,
                    "is absolute; write it relative to the input's folder in the inbox, or set \
                     media_root in the queue's settings",
                ));
            };
            let Ok(below) = Path::new(path).strip_prefix(root) else {
                let why = format!("lies outside of media_root, which is {}", root.display());
                return Err(outside(path, &why));
            };
            let below = below.to_string_lossy().into_owned();
            return open_below(root, &below, path)?.ok_or_else(|| missing(path, &[root]));
        }
        // The folder, too, can have become a link since the input was found in it.
        if let Some(file) = open_below(inbox, &format!("{folder}/{path}"), path)? {
            return Ok(file);
        }
        let beside = inbox.join(folder);
        let Some(root) = root else { return Err(missing(path, &[&beside])) };
        open_below(root, path, path)?.ok_or_else(|| missing(path, &[&beside, root]))
    }

    /// Copies a file under the SHA-256 of its content, and answers with that.
    fn copy(&mut self, mut from: File, path: &str) -> Result<[u8; 32], TakeError> {
        let size = from.metadata().at("look at", Path::new(path))?.len();
        check_size(path, size)?;
        durable::make_folder(&self.folder)?;
        let aside = self.folder.join(".taking");
        let mut to = File::options();
        let to = to.read(true).write(true).create(true).truncate(true).open(&aside);
        let mut to = to.at("write", &aside)?;
        let shared = rustix::fs::ioctl_ficlone(&to, &from).is_ok();
        let copied = if shared { sum(&mut to, None) } else { sum(&mut from, Some(&mut to)) };
        let (sha256, bytes) = copied.map_err(|error| match error {
            Copying::Read(error) => unreadable(path, &error),
            Copying::Write(source) => {
                // A full disk is not made fuller by half a copy.
                drop(fs::remove_file(&aside));
                TakeError::Spool(SpoolError { action: "write", path: aside.clone(), source })
            }
        })?;
        check_size(path, bytes)?;
        let target = self.folder.join(hex(&sha256));
        if self.taken.contains(&sha256) {
            fs::remove_file(&aside).at("remove", &aside)?;
            return Ok(sha256);
        }
        if self.taken.len() >= MEDIA_MAX {
            let message = format!(
                "`{}`: one input can name {MEDIA_MAX} different files; split it into several",
                source::spoken(OsStr::new(path))
            );
            return Err(TakeError::Line { fate: LineFate::MediaUnusable, message });
        }
        to.sync_all().at("sync", &aside)?;
        durable::rename_unsynced(&aside, &target)?;
        self.taken.insert(sha256);
        Ok(sha256)
    }
}

/// Why a copy stopped.
enum Copying {
    Read(io::Error),
    Write(io::Error),
}

/// Reads a file to its end, and writes what it reads; answers with the SHA-256 and the size.
fn sum(from: &mut File, mut to: Option<&mut File>) -> Result<([u8; 32], u64), Copying> {
    let (mut hash, mut bytes) = (Sha256::new(), 0);
    let mut block = vec![0; BLOCK_BYTES];
    // One byte more than allowed shows that it grew meanwhile.
    while bytes <= MEDIA_BYTES_MAX {
        let got = match from.read(&mut block) {
            Ok(0) => break,
            Ok(got) => got,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(Copying::Read(error)),
        };
        hash.update(&block[..got]);
        bytes += got as u64;
        if let Some(to) = &mut to {
            to.write_all(&block[..got]).map_err(Copying::Write)?;
        }
    }
    Ok((hash.finalize().into(), bytes))
}

/// The path that a URI names, without `file:`. What follows `//` is a URL, with its escapes;
/// anything else is the path itself.
fn path_of(rest: &str) -> Result<Cow<'_, str>, TakeError> {
    let Some(url) = rest.strip_prefix("//") else { return Ok(Cow::Borrowed(rest)) };
    let local = url.strip_prefix("localhost").unwrap_or(url);
    if !local.starts_with('/') {
        return Err(outside(rest, "names another machine; write file:PATH or file:///PATH"));
    }
    percent_decoded(local).map(Cow::Owned).ok_or_else(|| {
        outside(rest, "has a `%` that begins no escape; write file:PATH for a path as it is")
    })
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        if *first != b'%' {
            bytes.push(*first);
            rest = after;
            continue;
        }
        let (digits, after) = after.split_first_chunk::<2>()?;
        if !digits.iter().all(u8::is_ascii_hexdigit) {
            return None;
        }
        bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
        rest = after;
    }
    String::from_utf8(bytes).ok()
}

/// Opens a regular file below a folder, component by component; `None` if there is none. `shown` is
/// the path as it was written.
fn open_below(root: &Path, path: &str, shown: &str) -> Result<Option<File>, TakeError> {
    let parts: Vec<&str> = path.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    if parts.contains(&"..") {
        return Err(outside(shown, "has `..` in it; name a file in the input's folder or below"));
    }
    if path.contains('\0') {
        return Err(outside(shown, "has a NUL character in it"));
    }
    let Some((name, folders)) = parts.split_last() else {
        return Err(unusable(shown, "names no file"));
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut folder: OwnedFd = match rustix::fs::open(root, flags, Mode::empty()) {
        Ok(folder) => folder,
        Err(Errno::NOENT) => return Ok(None),
        Err(errno) => return Err(not_opened(root, errno)),
    };
    for part in folders {
        folder = match rustix::fs::openat(&folder, *part, flags | OFlags::NOFOLLOW, Mode::empty()) {
            Ok(next) => next,
            Err(Errno::NOENT | Errno::NAMETOOLONG) => return Ok(None),
            Err(Errno::NOTDIR | Errno::LOOP) => return Err(no_folder(&folder, part, shown)),
            Err(Errno::ACCESS | Errno::PERM) => return Err(no_right(shown)),
            Err(errno) => return Err(not_opened(root, errno)),
        };
    }
    match source::open_at(&folder, *name) {
        Ok(Opened::File(file)) => Ok(Some(file)),
        Ok(Opened::Missing) => Ok(None),
        Ok(Opened::Unreadable) => Err(no_right(shown)),
        Ok(Opened::Special("symbolic link")) => Err(symlink(shown, name)),
        Ok(Opened::Special(kind)) => {
            Err(unusable(shown, &format!("is a {kind}, and only regular files can be sent")))
        }
        Err(error) if error.raw_os_error() == Some(Errno::NAMETOOLONG.raw_os_error()) => Ok(None),
        Err(error) => Err(unreadable(shown, &error)),
    }
}

fn not_opened(root: &Path, errno: Errno) -> TakeError {
    TakeError::Spool(SpoolError {
        action: "open a folder below",
        path: root.to_owned(),
        source: errno.into(),
    })
}

/// Something else than a folder stands where one is needed.
fn no_folder(folder: impl AsFd, part: &str, shown: &str) -> TakeError {
    let found = rustix::fs::statat(folder, part, AtFlags::SYMLINK_NOFOLLOW);
    let is_link = |mode| FileType::from_raw_mode(mode) == FileType::Symlink;
    if found.is_ok_and(|found| is_link(found.st_mode)) {
        return symlink(shown, part);
    }
    missing_because(shown, &format!("`{}` is no folder", source::spoken(OsStr::new(part))))
}

fn check_size(path: &str, bytes: u64) -> Result<(), TakeError> {
    match bytes {
        0 => Err(unusable(path, "is empty")),
        bytes if bytes > MEDIA_BYTES_MAX => {
            Err(unusable(path, &format!("has {bytes} bytes; the API takes {MEDIA_BYTES_MAX}")))
        }
        _ => Ok(()),
    }
}

fn fault(fate: LineFate, path: &str, what: &str) -> TakeError {
    let message = format!("file:{} {what}", source::spoken(OsStr::new(path)));
    TakeError::Line { fate, message }
}

fn missing(path: &str, looked: &[&PathBuf]) -> TakeError {
    let looked: Vec<String> = looked.iter().map(|path| path.display().to_string()).collect();
    let looked = looked.join(" and in ");
    let what = format!("is not there; looked for in {looked}. Put it there before the input");
    fault(LineFate::MediaMissing, path, &what)
}

fn missing_because(path: &str, why: &str) -> TakeError {
    fault(LineFate::MediaMissing, path, &format!("is not there: {why}"))
}

fn outside(path: &str, what: &str) -> TakeError {
    fault(LineFate::MediaOutside, path, what)
}

fn symlink(path: &str, part: &str) -> TakeError {
    let part = source::spoken(OsStr::new(part));
    let what = format!("leads over `{part}`, a symbolic link; put the file itself there");
    fault(LineFate::MediaOutside, path, &what)
}

fn unusable(path: &str, what: &str) -> TakeError {
    fault(LineFate::MediaUnusable, path, what)
}

fn no_right(path: &str) -> TakeError {
    unusable(path, "can not be read by this user; give that user the right to read it")
}

fn unreadable(path: &str, error: &io::Error) -> TakeError {
    unusable(path, &format!("can not be read: {error}"))
}

fn unknown_ending(path: &str) -> TakeError {
    unusable(
        path,
        "has an ending that tells no media type; add \"mimeType\", such as \"image/png\"",
    )
}

fn unknown_type(path: &str, mime: &str) -> TakeError {
    let mime = source::spoken(OsStr::new(mime));
    let what = format!(
        "is said to be `{mime}`, which is no media type that the API takes in files; it takes \
         pictures (image/png, image/jpeg, image/webp, …), sounds, films, application/pdf and texts"
    );
    unusable(path, &what)
}

/// The largest file that the API takes (API contract, 8), bytes.
const MEDIA_BYTES_MAX: u64 = 2_147_483_648;
/// Different files that one job can name: what is kept of each in memory is small, but not nothing.
const MEDIA_MAX: usize = 100_000;
/// Paths that are remembered; the others are read again.
const KNOWN_MAX: usize = 20_000;
/// Bytes copied at once.
const BLOCK_BYTES: usize = 256 * 1024;

#[cfg(test)]
mod tests;
