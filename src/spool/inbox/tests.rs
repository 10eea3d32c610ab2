//! Tests of the module above.

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
        self.scanner.scan(&self.folders, Millis(now), &HashSet::new(), usize::MAX).expect("scanned")
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

/// Fault 38.
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
fn a_file_that_is_dated_back_while_it_settles_waits_for_no_more_than_that() {
    let mut inbox = Inbox::new();
    inbox.drop("a.jsonl", "x", 10_000);
    assert!(inbox.scan(10_100).ready.is_empty());
    // As `cp -p` does at its end.
    inbox.drop("a.jsonl", "x", 1_000);
    let scan = inbox.scan(10_200);
    assert_eq!((names(&scan).len(), scan.next_look), (0, Some(Millis(12_000))));
    assert_eq!(names(&inbox.scan(12_000)), ["|a.jsonl"]);
}

#[test]
fn a_file_renamed_in_while_it_settles_is_ready_at_once() {
    let mut inbox = Inbox::new();
    let path = inbox.drop("a.jsonl", "x", 10_000);
    inbox.drop("sub/b.jsonl", "x", 10_000);
    assert!(inbox.scan(10_100).ready.is_empty());
    let fresh = HashSet::from([path, inbox.folders.inbox.join("sub")]);
    let scan =
        inbox.scanner.scan(&inbox.folders, Millis(10_200), &fresh, usize::MAX).expect("scanned");
    assert_eq!(names(&scan), ["|a.jsonl", "sub|b.jsonl"]);
}

#[test]
fn a_shorter_settling_time_holds_at_once() {
    let mut inbox = Inbox::new();
    inbox.drop("a.jsonl", "x", 10_000);
    assert!(inbox.scan(10_100).ready.is_empty());
    inbox.scanner.set_rules(IntakeRules { settle_ms: 0, ignore: Vec::new() });
    assert_eq!(names(&inbox.scan(10_200)), ["|a.jsonl"]);
}

#[test]
fn what_was_renamed_in_is_ready_at_once_and_so_is_a_whole_folder() {
    let mut inbox = Inbox::new();
    let path = inbox.drop("a.jsonl", "x", 10_000);
    inbox.drop("sub/b.jsonl", "x", 10_000);
    inbox.drop("c.jsonl", "x", 10_000);
    let fresh = HashSet::from([path, inbox.folders.inbox.join("sub")]);
    let scan =
        inbox.scanner.scan(&inbox.folders, Millis(10_001), &fresh, usize::MAX).expect("scanned");
    assert_eq!(names(&scan), ["|a.jsonl", "sub|b.jsonl"]);
}

/// Fault 49.
#[test]
fn a_full_inbox_is_given_out_by_parts_the_oldest_first() {
    let mut inbox = Inbox::new();
    for n in 0..25_u64 {
        let folder = ["", "sub/", "sub/deep/"][(n % 3) as usize];
        inbox.drop(&format!("{folder}{n:02}.jsonl"), "x", 5_000 - n);
    }
    inbox.drop("notes.xlsx", "x", 1_000);
    let mut given = Vec::new();
    for part in 0..3 {
        let none = HashSet::new();
        let scan = inbox.scanner.scan(&inbox.folders, Millis(100_000), &none, 10).expect("scanned");
        assert_eq!(scan.more, part < 2);
        assert_eq!(scan.refused.len(), 1, "what is no input takes nobody's turn");
        for source in scan.ready {
            fs::remove_file(inbox.folders.inbox.join(&source.folder).join(&source.name))
                .expect("taken");
            given.push(source.name);
        }
    }
    let oldest_first: Vec<String> = (0..25).rev().map(|n| format!("{n:02}.jsonl")).collect();
    assert_eq!(given, oldest_first);
}

#[test]
fn a_file_that_was_still_and_changed_before_its_turn_settles_again() {
    let mut inbox = Inbox::new();
    let path = inbox.drop("b.jsonl", "x", 5_000);
    inbox.drop("a.jsonl", "x", 4_000);
    let none = HashSet::new();
    let scan = |inbox: &mut Inbox, now| {
        inbox.scanner.scan(&inbox.folders, Millis(now), &none, 1).expect("scanned")
    };
    assert_eq!(names(&scan(&mut inbox, 10_000)), ["|a.jsonl"]);
    fs::remove_file(inbox.folders.inbox.join("a.jsonl")).expect("taken");
    inbox.drop("b.jsonl", "xy", 10_500);
    assert_eq!(fs::metadata(&path).expect("there").len(), 2);
    assert!(scan(&mut inbox, 11_000).ready.is_empty());
    assert_eq!(names(&scan(&mut inbox, 12_500)), ["|b.jsonl"]);
}

#[test]
fn a_file_renamed_in_stays_whole_while_it_waits_for_its_turn() {
    let mut inbox = Inbox::new();
    inbox.drop("a.jsonl", "x", 9_000);
    let path = inbox.drop("b.jsonl", "x", 10_000);
    let fresh = HashSet::from([path, inbox.folders.inbox.join("a.jsonl")]);
    let scan = inbox.scanner.scan(&inbox.folders, Millis(10_001), &fresh, 1).expect("scanned");
    assert_eq!((names(&scan), scan.more), (vec!["|a.jsonl".to_owned()], true));
    fs::remove_file(inbox.folders.inbox.join("a.jsonl")).expect("taken");
    assert_eq!(names(&inbox.scan(10_002)), ["|b.jsonl"]);
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

/// Fault 43.
#[test]
fn whatever_is_no_plain_file_with_a_plain_name_is_refused_with_its_reason() {
    let mut inbox = Inbox::new();
    let root = inbox.folders.inbox.clone();
    inbox.drop("fine.jsonl", "x", 1_000);
    inbox.drop("a.xlsx", "x", 1_000);
    inbox.drop("young.xlsx", "x", 99_999);
    inbox.drop("a.jsonl.bz2", "x", 1_000);
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
        ("a.jsonl.bz2", "unknown_ending"),
        ("a.xlsx", "unknown_ending"),
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
fn what_lines_may_name_is_left_where_it_is() {
    let mut inbox = Inbox::new();
    for name in ["cat.PNG", "films/a.mp4", "paper.pdf", "a.jsonl"] {
        inbox.drop(name, "x", 1_000);
    }
    let scan = inbox.scan(100_000);
    assert_eq!((names(&scan), reasons(&scan)), (vec!["|a.jsonl".to_owned()], Vec::new()));
    assert_eq!(scan.next_look, None);
    // A link is no file, whatever its name.
    std::os::unix::fs::symlink("/etc/passwd", inbox.folders.inbox.join("b.png")).expect("linked");
    assert_eq!(reasons(&inbox.scan(100_000)).len(), 1);
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
