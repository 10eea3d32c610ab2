//! Lines that a writer added to an input after it had been read.
//!
//! A file is taken once it was still for a while; a writer that pauses longer than that and then
//! goes on writes into a file that is ours by then. What came so is no part of the job, and must
//! not be left unanswered either: it becomes a file of its own in the inbox, `NAME.late.jsonl`,
//! and from there a job like any other. A line that was cut off where the reading ended comes
//! whole. No byte is handed on twice, whatever crashes between: the piece is cut off and synced
//! under a name that says where it ends, that end is noted, and only then it moves to the inbox.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::durable::{self, Moved};
use super::free_name::{first_free, is_free, split, sub_folder};
use super::source::{self, Ending, NAME_BYTES_MAX, Opened};
use super::{At, Folders, JobFolder, SpoolError, sidecar};
use crate::engine::ids::JobId;
use crate::engine::job::{Plan, Source};

/// What came of an input that has another size than when it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Late {
    /// What was added lies in the inbox under this name, with its sub-folder.
    Dropped {
        /// The name.
        name: String,
        /// Its bytes.
        bytes: u64,
    },
    /// Nobody wants an answer to what was added: the job was cancelled.
    Left {
        /// Bytes the input has now.
        bytes: u64,
    },
    /// What was added is no file by itself: the end of a packed one, or records without a header.
    Part {
        /// Bytes the input has now.
        bytes: u64,
    },
    /// The input is shorter than it was: somebody cut it off.
    Shorter {
        /// Bytes it has now.
        bytes: u64,
    },
}

impl Late {
    /// What to tell people.
    pub fn told(&self, bytes_read: u64) -> String {
        let advice =
            "rename files into the inbox when they are whole, or use `gemini-batchd submit`";
        match self {
            Late::Dropped { name, bytes } => format!(
                "the writer of the input went on after a pause longer than intake.settle: {bytes} \
                 bytes that came after the first {bytes_read} were put into the inbox as {name}, \
                 and are answered as a file of their own; {advice}"
            ),
            Late::Left { bytes } => format!(
                "the input had {bytes_read} bytes when it was read and has {bytes} now; what came \
                 then was not sent, since the job was cancelled"
            ),
            Late::Part { bytes } => format!(
                "the input had {bytes_read} bytes when it was read and has {bytes} now; what came \
                 then was not sent, since it can not be read without the rest: drop it again as a \
                 file of its own (the whole input is in the archive); {advice}"
            ),
            Late::Shorter { bytes } => format!(
                "the input had {bytes_read} bytes when it was read and has {bytes} now: somebody \
                 cut it off meanwhile; {advice}"
            ),
        }
    }
}

/// Puts what was added to a job's input since it was read into the inbox, unless the job was
/// cancelled. `None` if there is nothing: the input is as it was, only blank lines came, it is
/// gone, or all is handed on already.
///
/// # Errors
/// If the input can not be read, or the piece not be written or moved. Doing it again goes on.
pub fn hand_on(
    folders: &Folders,
    job: JobId,
    source: &Source,
    plan: &Plan,
) -> Result<Option<Late>, SpoolError> {
    let bytes_read = plan.bytes;
    let (folder, input) = (folders.job(job), folders.job(job).input(&source.name));
    let file = match source::open(&input).at("open", &input)? {
        Opened::File(file) => file,
        Opened::Special(_) | Opened::Unreadable | Opened::Missing => return Ok(None),
    };
    let len = file.metadata().at("look at", &input)?.len();
    if len < bytes_read {
        return Ok(Some(Late::Shorter { bytes: len }));
    }
    if plan.cancelled {
        return Ok((len > bytes_read).then_some(Late::Left { bytes: len }));
    }
    if source::packing(&source.name).is_some() || source::ending(&source.name) == Ending::Table {
        return Ok((len > bytes_read).then_some(Late::Part { bytes: len }));
    }
    let cuts = Cuts::of(&folder)?;
    let known = cuts.end.unwrap_or(bytes_read);
    let piece = match cuts.piece {
        Some(piece) => piece,
        None if len <= known => return Ok(None),
        None => {
            let from = first_late(&file, known).at("read", &input)?;
            match cut(&folder, &file, &input, from, len)? {
                Some(piece) => piece,
                None => return Ok(None),
            }
        }
    };
    durable::create(&folder.path.join(format!("{NOTED}{}", piece.end)), b"")?;
    let bytes = fs::metadata(&piece.path).at("look at", &piece.path)?.len();
    let name = drop_into_inbox(folders, source, &piece.path, &folder.sidecar(&source.name))?;
    Ok(Some(Late::Dropped { name, bytes }))
}

/// How far the input was handed on.
#[derive(Default)]
struct Cuts {
    /// A piece that is not in the inbox yet.
    piece: Option<Piece>,
    /// Where the last piece ended that is.
    end: Option<u64>,
}

/// A piece of the input in the working folder, whole and synced.
struct Piece {
    path: PathBuf,
    /// Where it ends in the input, bytes.
    end: u64,
}

impl Cuts {
    fn of(folder: &JobFolder) -> Result<Cuts, SpoolError> {
        let mut cuts = Cuts::default();
        for entry in fs::read_dir(&folder.path).at("list", &folder.path)? {
            let path = entry.at("list", &folder.path)?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let number = |start| name.strip_prefix(start).and_then(|rest| rest.parse().ok());
            if let Some(end) = number(PIECE) {
                cuts.piece = Some(Piece { path, end });
            } else if let Some(end) = number(NOTED) {
                cuts.end = cuts.end.max(Some(end));
            }
        }
        Ok(cuts)
    }
}

/// Where the first line begins that was not read whole.
fn first_late(file: &File, bytes_read: u64) -> io::Result<u64> {
    let mut byte = [0];
    if bytes_read == 0 || file.read_exact_at(&mut byte, bytes_read - 1).is_ok() && byte == *b"\n" {
        return Ok(bytes_read);
    }
    // If nothing but blanks follow in the line, it was whole, and is answered.
    let mut at = bytes_read;
    while file.read_at(&mut byte, at)? == 1 {
        at += 1;
        match byte[0] {
            b'\n' => return Ok(at),
            b' ' | b'\t' | b'\r' => {}
            _ => return line_start(file, bytes_read),
        }
    }
    Ok(bytes_read)
}

/// Where the line begins that has the byte before `end`.
fn line_start(file: &File, end: u64) -> io::Result<u64> {
    let mut block = vec![0; BLOCK_BYTES];
    let mut end = end;
    while end > 0 {
        let start = end.saturating_sub(BLOCK_BYTES as u64);
        let part = &mut block[..(end - start) as usize];
        file.read_exact_at(part, start)?;
        if let Some(at) = memchr::memrchr(b'\n', part) {
            return Ok(start + at as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

/// Copies a part of the input into the working folder; `None` if it holds nothing but blanks.
fn cut(
    folder: &JobFolder,
    file: &File,
    input: &Path,
    from: u64,
    to: u64,
) -> Result<Option<Piece>, SpoolError> {
    let aside = folder.path.join(".late.aside");
    let mut copy = File::create(&aside).at("write", &aside)?;
    let (mut at, mut blank) = (from, true);
    let mut block = vec![0; BLOCK_BYTES];
    while at < to {
        let wanted = (to - at).min(BLOCK_BYTES as u64) as usize;
        file.read_exact_at(&mut block[..wanted], at).at("read", input)?;
        blank = blank && block[..wanted].iter().all(u8::is_ascii_whitespace);
        copy.write_all(&block[..wanted]).at("write", &aside)?;
        at += wanted as u64;
    }
    if blank {
        fs::remove_file(&aside).at("remove", &aside)?;
        return Ok(None);
    }
    copy.sync_all().at("sync", &aside)?;
    let path = folder.path.join(format!("{PIECE}{to}"));
    durable::rename(&aside, &path)?;
    Ok(Some(Piece { path, end: to }))
}

/// Moves a piece into the inbox, beside where its input lay, after its `settings` if it had any. Answers with its name there.
fn drop_into_inbox(
    folders: &Folders,
    source: &Source,
    piece: &Path,
    settings: &Path,
) -> Result<String, SpoolError> {
    let folder = sub_folder(&folders.inbox, &source.folder)?;
    durable::make_folder(&folder)?;
    let (stem, ending) = split(&source.name);
    let room = NAME_BYTES_MAX - LATE.len() - ending.len();
    loop {
        let named = |stem: &str| format!("{stem}{LATE}{ending}");
        let free = |stem: &str| is_free(&folder.join(named(stem)));
        let name = named(&first_free(stem, room, &folder, free)?);
        if source.sidecar.is_some() {
            copy_sidecar(settings, &folder.join(sidecar::full_name(&name)))?;
        }
        match durable::move_file(piece, &folder.join(&name))? {
            Moved::Now | Moved::NoSource if source.folder.is_empty() => return Ok(name),
            Moved::Now | Moved::NoSource => return Ok(format!("{}/{name}", source.folder)),
            // Somebody was faster; the next name is looked for.
            Moved::Taken => {}
        }
    }
}

/// Puts the settings of an input beside a piece of it that is not there yet: it is answered like the
/// rest. What else has the name there was put there for it by somebody.
fn copy_sidecar(settings: &Path, target: &Path) -> Result<(), SpoolError> {
    let Opened::File(file) = source::open(settings).at("open", settings)? else { return Ok(()) };
    let mut text = Vec::new();
    file.take(sidecar::BYTES_MAX).read_to_end(&mut text).at("read", settings)?;
    durable::create(target, &text).map(drop)
}

/// How the name of a piece begins in the working folder; the rest is where it ends.
const PIECE: &str = "late-";
/// How the name of the note begins that says up to where the input was handed on.
const NOTED: &str = "handed-on-";
/// What the name of a piece has before its ending.
const LATE: &str = ".late";
/// Bytes read at once.
const BLOCK_BYTES: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "tests write as people do")]

    use super::*;
    use crate::engine::ids::Millis;

    struct World {
        _folder: tempfile::TempDir,
        folders: Folders,
        job: JobId,
        source: Source,
    }

    /// A job whose input was read when it had only the first of these texts.
    fn world(read: &str, late: &str) -> World {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let folders = Folders::below(folder.path());
        let job: JobId = "01JD0000000000000000000000".parse().expect("an id");
        let source = Source {
            folder: "sub".to_owned(),
            name: "a.jsonl".to_owned(),
            bytes: 1,
            sidecar: None,
        };
        let input = folders.job(job).input("a.jsonl");
        fs::create_dir_all(input.parent().expect("a folder")).expect("made");
        fs::create_dir_all(&folders.inbox).expect("made");
        fs::write(&input, format!("{read}{late}")).expect("written");
        World { _folder: folder, folders, job, source }
    }

    impl World {
        fn hand_on(&self, bytes_read: usize) -> Option<Late> {
            self.hand_on_of(bytes_read, false)
        }

        fn hand_on_of(&self, bytes_read: usize, cancelled: bool) -> Option<Late> {
            let plan = Plan {
                rows: 1,
                invalid: 0,
                bytes: bytes_read as u64,
                sha256: String::new(),
                planned: Millis(0),
                first_create: None,
                last_result: None,
                cancelled,
                family: Default::default(),
                warnings: Vec::new(),
                ..Plan::default()
            };
            hand_on(&self.folders, self.job, &self.source, &plan).expect("looked at")
        }

        fn inbox(&self) -> Vec<String> {
            let Ok(entries) = fs::read_dir(self.folders.inbox.join("sub")) else { return vec![] };
            let text = |path| fs::read_to_string(path).expect("read");
            let mut all: Vec<_> = entries.flatten().map(|entry| text(entry.path())).collect();
            all.sort();
            all
        }
    }

    /// Fault 39.
    #[test]
    fn what_came_late_goes_to_the_inbox_once_and_a_cut_line_comes_whole() {
        for (read, late, expected) in [
            ("one\n", "two\n", Some("two\n")),
            ("one\ntw", "o\nthree", Some("two\nthree")),
            ("on", "e\n", Some("one\n")),
            ("one", "\ntwo\n", Some("two\n")),
            ("one", " \r\ntwo\n", Some("two\n")),
            ("one\n", "\n \n", None),
            ("one", "\n", None),
            ("one\n", "", None),
        ] {
            let world = world(read, late);
            let found = world.hand_on(read.len());
            let name = "sub/a.late.jsonl".to_owned();
            let bytes = expected.map(|text| text.len() as u64);
            assert_eq!(found, bytes.map(|bytes| Late::Dropped { name, bytes }), "{read:?}");
            assert_eq!(world.inbox(), Vec::from_iter(expected), "{read:?} then {late:?}");
            assert_eq!(world.hand_on(read.len()), None, "and not twice");
            assert_eq!(world.inbox().len(), usize::from(expected.is_some()));
        }
    }

    /// Fault 39.
    #[test]
    fn whatever_comes_after_a_piece_is_a_piece_of_its_own() {
        let world = world("one\n", "two\n");
        world.hand_on(4).expect("a piece");
        let input = world.folders.job(world.job).input("a.jsonl");
        fs::write(&input, "one\ntwo\nthree\n").expect("written");
        let found = world.hand_on(4).expect("another piece");
        assert_eq!(found, Late::Dropped { name: "sub/a~2.late.jsonl".to_owned(), bytes: 6 });
        assert_eq!(world.inbox(), ["three\n", "two\n"]);
    }

    /// Fault 39.
    #[test]
    fn a_line_that_was_cut_off_between_two_pieces_comes_whole_in_the_second() {
        let world = world("one\n", "two\nthr");
        world.hand_on(4).expect("a piece");
        let input = world.folders.job(world.job).input("a.jsonl");
        fs::write(&input, "one\ntwo\nthree\n").expect("written");
        world.hand_on(4).expect("another piece");
        assert_eq!(world.inbox(), ["three\n", "two\nthr"]);
        assert_eq!(world.hand_on_of(4, true), Some(Late::Left { bytes: 14 }), "if cancelled");
    }

    #[test]
    fn what_is_no_file_by_itself_is_told_and_left() {
        for name in ["a.csv", "a.txt.gz"] {
            let mut world = world("one\n", "two\n");
            let input = |name: &str| world.folders.job(world.job).input(name);
            fs::rename(input("a.jsonl"), input(name)).expect("renamed");
            world.source.name = name.to_owned();
            assert_eq!(world.hand_on(4), Some(Late::Part { bytes: 8 }), "{name}");
            assert!(world.inbox().is_empty());
        }
    }

    /// Fault 39.
    #[test]
    fn a_crash_at_any_step_hands_every_byte_on_once() {
        let world = world("one\n", "two\n");
        let folder = world.folders.job(world.job);
        // It died with the piece cut off, but neither noted nor moved.
        fs::write(folder.path.join("late-8"), "two\n").expect("written");
        let input = folder.input("a.jsonl");
        fs::write(&input, "one\ntwo\nthree\n").expect("written");
        world.hand_on(4).expect("the piece");
        assert_eq!(world.inbox(), ["two\n"]);
        world.hand_on(4).expect("the rest");
        assert_eq!(world.inbox(), ["three\n", "two\n"]);
        assert_eq!(world.hand_on(4), None);
    }

    #[test]
    fn an_input_that_was_cut_off_or_taken_away_is_no_reason_to_invent_lines() {
        let world = world("one\n", "");
        assert_eq!(world.hand_on(9), Some(Late::Shorter { bytes: 4 }));
        fs::remove_file(world.folders.job(world.job).input("a.jsonl")).expect("removed");
        assert_eq!(world.hand_on(4), None);
        assert!(world.inbox().is_empty());
    }
}
