//! Looks through the inbox and says which files have arrived whole.
//!
//! A scan is the truth, events only ask for one. It goes through sub-folders by open folder
//! handles, follows no symbolic link, and opens regular files only. Pictures and the like, which the
//! lines of an input may name, are passed over and stay where they are. A file is ready when an event
//! said that it was renamed in, or when its size and time of change have been still for the
//! settling time. Nothing is moved here, and nothing outside of the inbox is looked at.
//!
//! Every name is seen by every scan, but only a limited number of files is given out by one, the
//! oldest first; only those are opened. The system is asked about a file no more often than it
//! matters: of one that was still before, when its turn has come; of one that still settles, when
//! it may have settled. So a hundred thousand of them cost little.

mod turn;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::{CStr, OsStr};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::sidecar;
use super::source::{self, DEPTH_MAX, Ending, refusal};
use super::{At, Folders, SpoolError, media};
use crate::engine::ids::Millis;
use crate::engine::job::{Refusal, Source};

/// When a file is taken, and which names are never touched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IntakeRules {
    /// A file must have been still for so many milliseconds.
    pub settle_ms: u64,
    /// More names to leave alone: `*` stands for any characters, `?` for one.
    pub ignore: Vec<String>,
}

/// What a scan found.
#[derive(Debug, Default)]
pub struct Scan {
    /// Files that have arrived whole, the oldest first; at most as many as were asked for.
    pub ready: Vec<Source>,
    /// When each of those came: the latest change of its content, its name or its attributes.
    pub came: Vec<Millis>,
    /// What stands in the sidecars of those that have one, by their place in `ready`; or why that
    /// can not be told, so that they must not be answered.
    pub sidecars: BTreeMap<usize, Result<String, Refusal>>,
    /// Whether more of them lie there.
    pub more: bool,
    /// Entries that will never be an input.
    pub refused: Vec<Refused>,
    /// When a file that still settles may be ready.
    pub next_look: Option<Millis>,
    /// What could not be looked at, to be logged; the first few. The next scan tries again.
    pub troubles: Vec<SpoolError>,
}

/// An entry of the inbox that will never be an input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Where it lies.
    pub path: PathBuf,
    /// Why, and what to do about it.
    pub refusal: Refusal,
}

/// Whether the files of a sub-folder are not given out for now.
pub type PassedOver = Box<dyn Fn(&str) -> bool + Send>;

/// Scans the inbox again and again, and remembers what has not settled yet.
pub struct Scanner {
    rules: IntakeRules,
    passed_over: Option<PassedOver>,
    /// Files that may still change, by their inodes.
    settling: HashMap<u64, Seen>,
    /// When the files that were still were last changed, by their inodes. It only says whose turn
    /// it is; whether a file is still the same is asked when it has come.
    still: HashMap<u64, i128>,
}

/// How a file looked, and since when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    bytes: u64,
    changed_ns: i128,
    since: Millis,
    /// When it may have settled. What is written to it until then makes that later; a time of change
    /// that is set back would make it sooner, and is not worth asking every file every time.
    due: Millis,
}

impl Seen {
    /// Whether it is of no use to look at the file now. A clock that went back makes what is known
    /// of it worthless.
    fn settles_at(&self, now: Millis) -> bool {
        self.since <= now && now < self.due
    }
}

impl Scanner {
    /// A scanner that has seen nothing yet.
    pub fn new(rules: IntakeRules) -> Scanner {
        Scanner { rules, passed_over: None, settling: HashMap::new(), still: HashMap::new() }
    }

    /// Other rules from the next scan on.
    pub fn set_rules(&mut self, rules: IntakeRules) {
        self.rules = rules;
        // By the new ones it may be sooner.
        self.settling.values_mut().for_each(|seen| seen.due = Millis(0));
    }

    /// From the next scan on files of these sub-folders are left where they are; `None`: of none.
    pub fn pass_over(&mut self, passed_over: Option<PassedOver>) {
        self.passed_over = passed_over;
    }

    /// Looks through the whole inbox and gives out at most `max` files. `fresh` are paths that an
    /// event said were renamed in: they are whole, and so is everything in a folder that was.
    ///
    /// # Errors
    /// If the inbox itself can not be read. An entry that goes away meanwhile is no error, and
    /// one that can not be looked at does not hold the others back.
    pub fn scan(
        &mut self,
        folders: &Folders,
        now: Millis,
        fresh: &HashSet<PathBuf>,
        max: usize,
    ) -> Result<Scan, SpoolError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let inbox = rustix::fs::open(&folders.inbox, flags, Mode::empty())
            .map_err(std::io::Error::from)
            .at("open folder", &folders.inbox)?;
        let mut walk = Walk {
            rules: &self.rules,
            passed_over: self.passed_over.as_ref(),
            before: &self.settling,
            still_before: &self.still,
            now,
            fresh,
            settling: HashMap::with_capacity(self.settling.len()),
            still: HashMap::with_capacity(self.still.len()),
            folders: Vec::new(),
            candidates: Vec::new(),
            scan: Scan::default(),
        };
        walk.folder(&inbox, &folders.inbox, "", 0, false)?;
        walk.give_out(&inbox, &folders.inbox, max);
        let Walk { settling, still, scan, .. } = walk;
        (self.settling, self.still) = (settling, still);
        Ok(scan)
    }
}

struct Walk<'a> {
    rules: &'a IntakeRules,
    passed_over: Option<&'a PassedOver>,
    before: &'a HashMap<u64, Seen>,
    still_before: &'a HashMap<u64, i128>,
    now: Millis,
    fresh: &'a HashSet<PathBuf>,
    settling: HashMap<u64, Seen>,
    still: HashMap<u64, i128>,
    /// Sub-folders of the inbox with candidates in them, by their index.
    folders: Vec<String>,
    candidates: Vec<Candidate>,
    scan: Scan,
}

/// A file whose turn may have come. They are ordered by age.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    changed_ns: i128,
    /// Index of its sub-folder.
    folder: u32,
    name: Box<str>,
    /// Whether it or its folder was renamed in.
    whole: bool,
}

impl Walk<'_> {
    fn folder(
        &mut self,
        handle: &OwnedFd,
        path: &Path,
        folder: &str,
        depth: usize,
        whole: bool,
    ) -> Result<(), SpoolError> {
        let read = |errno: Errno| std::io::Error::from(errno);
        for entry in Dir::read_from(handle).map_err(read).at("read folder", path)? {
            let entry = entry.map_err(read).at("read folder", path)?;
            let raw = entry.file_name();
            let name = OsStr::from_bytes(raw.to_bytes());
            if self.is_left_alone(name) {
                continue;
            }
            if entry.file_type() == FileType::RegularFile
                && name.to_str().is_some_and(media::is_left_in_inbox)
            {
                // It is no input: lines of one may name it.
                continue;
            }
            if entry.file_type() == FileType::RegularFile
                && self.need_not_ask(entry.ino(), folder, name, |walk| {
                    whole || walk.is_fresh(path, name)
                })
            {
                continue;
            }
            let stat = match rustix::fs::statat(handle, raw, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                Err(Errno::NOENT) => continue,
                Err(errno) => {
                    self.trouble("look at", path.join(name), errno.into());
                    continue;
                }
            };
            let whole = whole || self.is_fresh(path, name);
            let path = path.join(name);
            let kind = FileType::from_raw_mode(stat.st_mode);
            match (source::check_name(name), kind) {
                (Err(what), _) => self.refuse(path, bad_name(name, what)),
                (Ok(name), FileType::Directory) => {
                    self.sub_folder(handle, raw, path, (folder, name), depth, whole);
                }
                (Ok(name), FileType::RegularFile) => {
                    self.file(path, (folder, name), &stat, whole);
                }
                (
                    Ok(_),
                    FileType::Symlink
                    | FileType::Fifo
                    | FileType::Socket
                    | FileType::CharacterDevice
                    | FileType::BlockDevice
                    | FileType::Unknown,
                ) => self.refuse(path, special(name, source::kind_of(kind))),
            }
        }
        Ok(())
    }

    /// Whether enough is known of a file from an earlier scan. One that was just renamed in is
    /// whole, whatever was known.
    fn need_not_ask(
        &mut self,
        inode: u64,
        folder: &str,
        name: &OsStr,
        is_whole: impl FnOnce(&Self) -> bool,
    ) -> bool {
        if let Some(seen) = self.before.get(&inode).copied()
            && seen.settles_at(self.now)
            && !is_whole(self)
        {
            self.settle(inode, seen);
            return true;
        }
        if let Some(changed_ns) = self.still_before.get(&inode).copied()
            && let Ok(name) = source::check_name(name)
            && is_input(name)
        {
            self.candidate(inode, changed_ns, folder, name, false);
            return true;
        }
        false
    }

    fn sub_folder(
        &mut self,
        parent: &OwnedFd,
        raw: &CStr,
        path: PathBuf,
        (folder, name): (&str, &str),
        depth: usize,
        whole: bool,
    ) {
        if source::ending(name) != Ending::Unknown {
            let message = format!("`{name}` is a folder, although it is named like an input");
            let remedy = "Drop the files in it one by one, or rename the folder.";
            self.refuse(path, refusal("folder", message, remedy));
            return;
        }
        if depth >= DEPTH_MAX {
            let message = format!("`{name}` lies more than {DEPTH_MAX} folders deep");
            self.refuse(path, refusal("too_deep", message, "Drop it higher up."));
            return;
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let handle = match rustix::fs::openat(parent.as_fd(), raw, flags, Mode::empty()) {
            Ok(handle) => handle,
            // It went away, or is another thing by now: the next scan will see.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return,
            Err(Errno::ACCESS | Errno::PERM) => {
                self.refuse(path, unreadable(name));
                return;
            }
            Err(errno) => return self.trouble("open folder", path, errno.into()),
        };
        let folder = if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") };
        if let Err(error) = self.folder(&handle, &path, &folder, depth + 1, whole) {
            self.note(error);
        }
    }

    fn file(&mut self, path: PathBuf, (folder, name): (&str, &str), stat: &Stat, whole: bool) {
        if media::is_left_in_inbox(name) {
            return;
        }
        let was_whole = self.still_before.get(&stat.st_ino) == Some(&changed_ns(stat));
        if !whole && !was_whole && !self.is_still(stat) {
            return;
        }
        match source::ending(name) {
            Ending::Lines | Ending::Document | Ending::Text | Ending::Table => {
                self.candidate(stat.st_ino, changed_ns(stat), folder, name, whole);
            }
            Ending::Unknown => {
                let message = format!("`{name}` does not end in {}", source::ENDINGS_TOLD);
                let remedy = "Drop files with one JSON request a line, named .jsonl, or one of the \
                              other kinds.";
                self.refuse(path, refusal("unknown_ending", message, remedy));
            }
        }
    }

    fn candidate(&mut self, inode: u64, changed_ns: i128, folder: &str, name: &str, whole: bool) {
        if self.folders.last().is_none_or(|last| last != folder) {
            self.folders.push(folder.to_owned());
        }
        let index = u32::try_from(self.folders.len() - 1).unwrap_or(u32::MAX);
        self.still.insert(inode, changed_ns);
        let name = name.into();
        self.candidates.push(Candidate { changed_ns, folder: index, name, whole });
    }

    /// Whether a file has been still for the settling time. If not, it is remembered.
    fn is_still(&mut self, stat: &Stat) -> bool {
        let (now, settle_ms) = (self.now, self.rules.settle_ms);
        let changed_ns = changed_ns(stat);
        let age_ms = i128::from(now.0) - changed_ns.div_euclid(1_000_000);
        if age_ms >= i128::from(settle_ms) {
            return true;
        }
        let bytes = u64::try_from(stat.st_size).unwrap_or(0);
        let mut seen = Seen { bytes, changed_ns, since: now, due: now };
        if let Some(before) = self.before.get(&stat.st_ino) {
            let same = (before.bytes, before.changed_ns) == (bytes, changed_ns);
            // A clock that went back makes the first look worthless.
            if same && before.since <= now {
                seen.since = before.since;
            }
            if now.since(seen.since) >= settle_ms {
                return true;
            }
        }
        // A time of change in the future says nothing; only our own looks count then.
        let from = u64::try_from(changed_ns.div_euclid(1_000_000))
            .map_or(seen.since, |changed| Millis(changed).min(seen.since));
        seen.due = from.plus(settle_ms).max(now.plus(1));
        self.settle(stat.st_ino, seen);
        false
    }

    fn settle(&mut self, inode: u64, seen: Seen) {
        self.scan.next_look = Some(self.scan.next_look.map_or(seen.due, |look| look.min(seen.due)));
        self.settling.insert(inode, seen);
    }

    /// Whether an event said that it was renamed in.
    fn is_fresh(&self, folder: &Path, name: &OsStr) -> bool {
        !self.fresh.is_empty() && self.fresh.contains(&folder.join(name))
    }

    fn is_left_alone(&self, name: &OsStr) -> bool {
        let name = name.as_bytes();
        name.starts_with(b".")
            || ENDINGS_LEFT_ALONE.iter().any(|ending| name.ends_with(ending.as_bytes()))
            || NAMES_LEFT_ALONE.iter().any(|left| name == left.as_bytes())
            || self.rules.ignore.iter().any(|pattern| matches(pattern.as_bytes(), name))
    }

    fn trouble(&mut self, action: &'static str, path: PathBuf, source: std::io::Error) {
        self.note(SpoolError { action, path, source });
    }

    fn note(&mut self, error: SpoolError) {
        if self.scan.troubles.len() < TROUBLES_MAX {
            self.scan.troubles.push(error);
        }
    }

    fn refuse(&mut self, path: PathBuf, refusal: Refusal) {
        self.scan.refused.push(Refused { path, refusal });
    }
}

/// How names end that are never touched, besides hidden ones: those of unfinished transfers, and of
/// sidecars, which are read along with their input.
const ENDINGS_LEFT_ALONE: [&str; 4] = [".part", ".tmp", ".crdownload", sidecar::ENDING];

/// Folders that storage boxes and file systems make.
const NAMES_LEFT_ALONE: [&str; 2] = ["@eaDir", "lost+found"];

fn is_input(name: &str) -> bool {
    source::ending(name) != Ending::Unknown
}

/// Troubles kept of one scan.
const TROUBLES_MAX: usize = 16;

fn bad_name(name: &OsStr, what: &str) -> Refusal {
    let message = format!("the name `{}` {what}", source::spoken(name));
    refusal("bad_name", message, "Give it a shorter, printable name in UTF-8 and drop it again.")
}

fn special(name: &OsStr, kind: &str) -> Refusal {
    let message = format!("`{}` is a {kind}; only regular files are taken", source::spoken(name));
    let reason = if kind == "symbolic link" { "symlink" } else { "special_file" };
    refusal(reason, message, "Drop the file itself, or a copy of it.")
}

fn unreadable(name: &str) -> Refusal {
    let message = format!("`{name}` can not be read by the user of the daemon");
    refusal("unreadable", message, "Give that user the right to read it, and drop it again.")
}

fn changed_ns(stat: &Stat) -> i128 {
    i128::from(stat.st_mtime) * 1_000_000_000 + i128::from(stat.st_mtime_nsec)
}

/// Whether a name is like a pattern with `*` and `?`.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut retry = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                retry = Some((p, n));
                p += 1;
            }
            Some(byte) if *byte == b'?' || *byte == name[n] => (p, n) = (p + 1, n + 1),
            Some(_) | None => {
                // The last star takes one more byte, and all after it is tried again.
                let Some((star, taken)) = retry else { return false };
                retry = Some((star, taken + 1));
                (p, n) = (star + 1, taken + 1);
            }
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests;
