//! Looks through the inbox and says which files have arrived whole.
//!
//! A scan is the truth, events only ask for one. It goes through sub-folders by open folder
//! handles, follows no symbolic link, and opens regular files only. A file is ready when an event
//! said that it was renamed in, or when its size and time of change have been still for the
//! settling time. Nothing is moved here, and nothing outside of the inbox is looked at.

use std::collections::{HashMap, HashSet};
use std::ffi::{CStr, OsStr};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::source::{self, DEPTH_MAX, Ending, Opened, refusal};
use super::{At, Folders, SpoolError};
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
    /// Files that have arrived whole, the oldest first.
    pub ready: Vec<Source>,
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

/// Scans the inbox again and again, and remembers what has not settled yet.
#[derive(Debug)]
pub struct Scanner {
    rules: IntakeRules,
    settling: HashMap<PathBuf, Seen>,
}

/// How a file looked, and since when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    inode: u64,
    bytes: u64,
    changed_ns: i128,
    since: Millis,
}

impl Scanner {
    /// A scanner that has seen nothing yet.
    pub fn new(rules: IntakeRules) -> Scanner {
        Scanner { rules, settling: HashMap::new() }
    }

    /// Looks through the whole inbox. `fresh` are paths that an event said were renamed in: they
    /// are whole, and so is everything in a folder that was.
    ///
    /// # Errors
    /// If the inbox itself can not be read. An entry that goes away meanwhile is no error, and
    /// one that can not be looked at does not hold the others back.
    pub fn scan(
        &mut self,
        folders: &Folders,
        now: Millis,
        fresh: &HashSet<PathBuf>,
    ) -> Result<Scan, SpoolError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let inbox = rustix::fs::open(&folders.inbox, flags, Mode::empty())
            .map_err(std::io::Error::from)
            .at("open folder", &folders.inbox)?;
        let mut walk = Walk {
            rules: &self.rules,
            before: &self.settling,
            now,
            fresh,
            settling: HashMap::new(),
            ready: Vec::new(),
            scan: Scan::default(),
        };
        walk.folder(&inbox, &folders.inbox, "", 0, false)?;
        let Walk { settling, mut ready, mut scan, .. } = walk;
        self.settling = settling;
        ready.sort_unstable_by(|(a, left), (b, right)| {
            (a, &left.folder, &left.name).cmp(&(b, &right.folder, &right.name))
        });
        scan.ready = ready.into_iter().map(|(_, source)| source).collect();
        Ok(scan)
    }
}

struct Walk<'a> {
    rules: &'a IntakeRules,
    before: &'a HashMap<PathBuf, Seen>,
    now: Millis,
    fresh: &'a HashSet<PathBuf>,
    settling: HashMap<PathBuf, Seen>,
    ready: Vec<(i128, Source)>,
    scan: Scan,
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
            let stat = match rustix::fs::statat(handle, raw, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                Err(Errno::NOENT) => continue,
                Err(errno) => {
                    self.trouble("look at", path.join(name), errno.into());
                    continue;
                }
            };
            let path = path.join(name);
            let whole = whole || self.fresh.contains(&path);
            let kind = FileType::from_raw_mode(stat.st_mode);
            match (source::check_name(name), kind) {
                (Err(what), _) => self.refuse(path, bad_name(name, what)),
                (Ok(name), FileType::Directory) => {
                    self.sub_folder(handle, raw, path, (folder, name), depth, whole);
                }
                (Ok(name), FileType::RegularFile) => {
                    self.file(handle, path, (folder, name), &stat, whole);
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

    fn file(
        &mut self,
        parent: &OwnedFd,
        path: PathBuf,
        (folder, name): (&str, &str),
        stat: &Stat,
        whole: bool,
    ) {
        if !whole && !self.is_still(&path, stat) {
            return;
        }
        match source::ending(name) {
            Ending::Lines | Ending::Document => {}
            Ending::Compressed => {
                let message = format!("`{name}`: compressed input is not supported yet");
                let refusal = refusal("compressed", message, "Decompress it and drop it again.");
                self.refuse(path, refusal);
                return;
            }
            Ending::Unknown => {
                let message = format!("`{name}` ends neither in .jsonl nor in .ndjson or .json");
                let remedy = "Drop files with one JSON request a line, named so.";
                self.refuse(path, refusal("unknown_ending", message, remedy));
                return;
            }
        }
        if stat.st_nlink > 1 && stat.st_uid != rustix::process::geteuid().as_raw() {
            let message = format!(
                "`{name}` is a hard link to a file of user {}, which has other names too",
                stat.st_uid
            );
            let remedy = "Drop a copy of it.";
            self.refuse(path, refusal("hard_link", message, remedy));
            return;
        }
        match source::open_at(parent, name) {
            Ok(Opened::File(_)) => {}
            // It went away, or is another thing by now: the next scan will see.
            Ok(Opened::Missing | Opened::Special(_)) => return,
            Ok(Opened::Unreadable) => {
                self.refuse(path, unreadable(name));
                return;
            }
            Err(error) => return self.trouble("open", path, error),
        }
        let source = Source {
            folder: folder.to_owned(),
            name: name.to_owned(),
            bytes: u64::try_from(stat.st_size).unwrap_or(0),
        };
        self.ready.push((changed_ns(stat), source));
    }

    /// Whether a file has been still for the settling time. If not, it is remembered.
    fn is_still(&mut self, path: &Path, stat: &Stat) -> bool {
        let (now, settle_ms) = (self.now, self.rules.settle_ms);
        let changed_ns = changed_ns(stat);
        let age_ms = i128::from(now.0) - changed_ns.div_euclid(1_000_000);
        if age_ms >= i128::from(settle_ms) {
            return true;
        }
        let mut seen = Seen {
            inode: stat.st_ino,
            bytes: u64::try_from(stat.st_size).unwrap_or(0),
            changed_ns,
            since: now,
        };
        if let Some(before) = self.before.get(path) {
            let same = Seen { since: before.since, ..seen } == *before;
            // A clock that went back makes the first look worthless.
            if same && before.since <= now {
                seen.since = before.since;
            }
        }
        if self.before.contains_key(path) && now.since(seen.since) >= settle_ms {
            return true;
        }
        // A time of change in the future says nothing; only our own looks count then.
        let from = u64::try_from(changed_ns.div_euclid(1_000_000))
            .map_or(seen.since, |changed| Millis(changed).min(seen.since));
        let next = from.plus(settle_ms).max(now.plus(1));
        self.scan.next_look = Some(self.scan.next_look.map_or(next, |look| look.min(next)));
        self.settling.insert(path.to_owned(), seen);
        false
    }

    fn is_left_alone(&self, name: &OsStr) -> bool {
        let name = name.as_bytes();
        name.starts_with(b".")
            || NEVER_TOUCHED.iter().any(|pattern| matches(pattern.as_bytes(), name))
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

/// Names that are never touched, besides hidden ones: unfinished transfers, folders that
/// storage boxes and file systems make, and sidecars, which are read along with their input.
const NEVER_TOUCHED: &[&str] =
    &["*.part", "*.tmp", "*.crdownload", "@eaDir", "lost+found", "*.job.toml"];

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
mod tests {
    #![expect(clippy::disallowed_methods, reason = "tests drop files as people do")]

    use std::fs::{self, File, FileTimes};
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    const SETTLE_MS: u64 = 2_000;

    struct Inbox {
        _folder: tempfile::TempDir,
        folders: Folders,
        scanner: Scanner,
    }

    impl Inbox {
        fn new() -> Inbox {
            let folder = tempfile::tempdir().expect("a temporary folder");
            let folders = Folders::below(folder.path());
            fs::create_dir(&folders.inbox).expect("an inbox");
            let rules = IntakeRules { settle_ms: SETTLE_MS, ignore: vec!["skip-?.*".to_owned()] };
            Inbox { _folder: folder, folders, scanner: Scanner::new(rules) }
        }

        fn drop(&self, name: &str, content: &str, changed_ms: u64) -> PathBuf {
            let path = self.folders.inbox.join(name);
            fs::create_dir_all(path.parent().expect("in the inbox")).expect("a folder");
            fs::write(&path, content).expect("written");
            let changed = UNIX_EPOCH + Duration::from_millis(changed_ms);
            let file = File::options().write(true).open(&path).expect("opened");
            file.set_times(FileTimes::new().set_modified(changed)).expect("dated");
            path
        }

        fn scan(&mut self, now: u64) -> Scan {
            self.scanner.scan(&self.folders, Millis(now), &HashSet::new()).expect("scanned")
        }
    }

    fn names(scan: &Scan) -> Vec<String> {
        scan.ready.iter().map(|s| format!("{}|{}", s.folder, s.name)).collect()
    }

    fn reasons(scan: &Scan) -> Vec<(String, String)> {
        let mut found: Vec<(String, String)> = (scan.refused.iter())
            .map(|refused| {
                let name = refused.path.file_name().expect("a name");
                (source::spoken(name), refused.refusal.reason.clone())
            })
            .collect();
        found.sort();
        found
    }

    #[test]
    fn settled_files_are_ready_oldest_first_in_any_sub_folder() {
        let mut inbox = Inbox::new();
        inbox.drop("b.jsonl", "x", 5_000);
        inbox.drop("sub/deep/a.ndjson", "xy", 4_000);
        inbox.drop("c.JSON", "x", 6_000);
        let scan = inbox.scan(8_000);
        assert_eq!(names(&scan), ["sub/deep|a.ndjson", "|b.jsonl", "|c.JSON"]);
        assert_eq!(scan.ready[0].bytes, 2);
        assert_eq!(scan.next_look, None);
    }

    #[test]
    fn a_file_that_still_grows_waits_until_it_was_still_for_the_settling_time() {
        let mut inbox = Inbox::new();
        inbox.drop("a.jsonl", "x", 10_000);
        let scan = inbox.scan(10_500);
        assert!(scan.ready.is_empty());
        assert_eq!(scan.next_look, Some(Millis(12_000)));
        inbox.drop("a.jsonl", "xy", 11_900);
        assert!(inbox.scan(12_000).ready.is_empty());
        assert!(inbox.scan(13_899).ready.is_empty());
        assert_eq!(names(&inbox.scan(13_900)), ["|a.jsonl"]);
    }

    #[test]
    fn a_time_of_change_in_the_future_delays_a_file_only_by_the_settling_time() {
        let mut inbox = Inbox::new();
        inbox.drop("a.jsonl", "x", 90_000_000);
        let scan = inbox.scan(10_000);
        assert!(scan.ready.is_empty());
        assert_eq!(scan.next_look, Some(Millis(12_000)));
        assert!(inbox.scan(11_999).ready.is_empty());
        inbox.drop("a.jsonl", "xy", 90_000_000);
        assert!(inbox.scan(12_000).ready.is_empty(), "it grew");
        assert!(inbox.scan(9_000).ready.is_empty(), "the clock went back");
        assert!(inbox.scan(10_999).ready.is_empty());
        assert_eq!(names(&inbox.scan(11_000)), ["|a.jsonl"]);
    }

    #[test]
    fn what_was_renamed_in_is_ready_at_once_and_so_is_a_whole_folder() {
        let mut inbox = Inbox::new();
        let path = inbox.drop("a.jsonl", "x", 10_000);
        inbox.drop("sub/b.jsonl", "x", 10_000);
        inbox.drop("c.jsonl", "x", 10_000);
        let fresh = HashSet::from([path, inbox.folders.inbox.join("sub")]);
        let scan = inbox.scanner.scan(&inbox.folders, Millis(10_001), &fresh).expect("scanned");
        assert_eq!(names(&scan), ["|a.jsonl", "sub|b.jsonl"]);
    }

    #[test]
    fn unfinished_hidden_and_ignored_files_are_never_touched() {
        let mut inbox = Inbox::new();
        for name in [
            ".hidden.jsonl",
            "a.jsonl.part",
            "a.jsonl.tmp",
            "a.crdownload",
            ".syncthing.a.jsonl",
            "._a.jsonl",
            ".~lock.a.jsonl#",
            "@eaDir/a.jsonl",
            "a.job.toml",
            "skip-1.jsonl",
            "lost+found/a.jsonl",
        ] {
            inbox.drop(name, "x", 1_000);
        }
        let scan = inbox.scan(100_000);
        assert!(scan.ready.is_empty(), "{:?}", scan.ready);
        assert!(scan.refused.is_empty(), "{:?}", scan.refused);
    }

    #[test]
    fn whatever_is_no_plain_file_with_a_plain_name_is_refused_with_its_reason() {
        let mut inbox = Inbox::new();
        let root = inbox.folders.inbox.clone();
        inbox.drop("fine.jsonl", "x", 1_000);
        inbox.drop("a.csv", "x", 1_000);
        inbox.drop("young.csv", "x", 99_999);
        inbox.drop("a.jsonl.gz", "x", 1_000);
        inbox.drop("new\nline.jsonl", "x", 1_000);
        inbox.drop(&format!("{}.jsonl", "long".repeat(50)), "x", 1_000);
        inbox.drop("folder.jsonl/inside.jsonl", "x", 1_000);
        fs::write(root.join(OsStr::from_bytes(b"caf\xe9.jsonl")), "x").expect("written");
        std::os::unix::fs::symlink("fine.jsonl", root.join("link.jsonl")).expect("a link");
        std::os::unix::fs::symlink("/", root.join("root")).expect("a link");
        let fifo = root.join("fifo.jsonl");
        let mode = Mode::RUSR | Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, FileType::Fifo, mode, 0).expect("a fifo");
        let socket = std::os::unix::net::UnixListener::bind(root.join("socket.jsonl"));
        let scan = inbox.scan(100_000);
        drop(socket);
        assert_eq!(names(&scan), ["|fine.jsonl"]);
        let long = format!("{}.jsonl", "long".repeat(50));
        let mut expected = [
            ("a.csv", "unknown_ending"),
            ("a.jsonl.gz", "compressed"),
            ("caf\\xe9.jsonl", "bad_name"),
            ("fifo.jsonl", "special_file"),
            ("folder.jsonl", "folder"),
            ("link.jsonl", "symlink"),
            (&source::spoken(OsStr::new(&long)), "bad_name"),
            ("new\\u{a}line.jsonl", "bad_name"),
            ("root", "symlink"),
            ("socket.jsonl", "special_file"),
        ]
        .map(|(name, reason)| (name.to_owned(), reason.to_owned()));
        expected.sort();
        assert_eq!(reasons(&scan), expected);
    }

    #[test]
    fn folders_beyond_the_depth_are_refused_not_walked() {
        let mut inbox = Inbox::new();
        inbox.drop(&format!("{}a.jsonl", "d/".repeat(DEPTH_MAX)), "x", 1_000);
        inbox.drop(&format!("{}b.jsonl", "e/".repeat(DEPTH_MAX + 1)), "x", 1_000);
        let scan = inbox.scan(100_000);
        assert_eq!(scan.ready.len(), 1);
        assert_eq!(reasons(&scan), [("e".to_owned(), "too_deep".to_owned())]);
    }

    #[test]
    fn a_file_that_goes_away_is_forgotten() {
        let mut inbox = Inbox::new();
        let path = inbox.drop("a.jsonl", "x", 10_000);
        inbox.scan(10_001);
        assert_eq!(inbox.scanner.settling.len(), 1);
        fs::remove_file(path).expect("removed");
        assert_eq!(inbox.scan(10_002).next_look, None);
        assert!(inbox.scanner.settling.is_empty());
    }

    #[test]
    fn patterns_know_stars_and_question_marks() {
        for (pattern, name, expected) in [
            ("*.part", "a.part", true),
            ("*.part", ".part", true),
            ("*.part", "a.parts", false),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-c-b", false),
            ("?", "", false),
            ("a?c", "abc", true),
            ("*", "", true),
            ("", "a", false),
        ] {
            assert_eq!(matches(pattern.as_bytes(), name.as_bytes()), expected, "{pattern} {name}");
        }
    }
}
