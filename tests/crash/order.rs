//! What the system calls of a daemon say: nothing gets its name in the outbox before it is on
//! the disk, and the name is made durable too.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use gemini_batchd::provider::gemini::emulator::Faults;

use super::rig::{Daemon, End, Rig, requests};

/// Fault 10.
#[test]
fn nothing_is_renamed_into_the_outbox_unsynced() {
    if let Some(why) = strace_is_missing() {
        println!("SKIPPED: {why}");
        return;
    }
    let rig = Rig::new(Faults::default(), &["queue.default.lines_per_batch = 8"]);
    rig.drop_file("a.jsonl", requests(30));
    rig.drop_file("sub/b.jsonl", requests(3));
    let trace = rig.aside("trace");
    let once = rig.command(&["once"]);
    let mut traced = Command::new("strace");
    traced.args(["-f", "-y", "-s", "0", "-e", CALLS, "-o"]).arg(&trace);
    traced.arg(once.get_program()).args(once.get_args());
    let path = std::env::var_os("PATH").unwrap_or_default();
    rig.prepare(&mut traced);
    assert_eq!(Daemon::start(traced.env("PATH", path)).end(), End::Exited(3), "{}", rig.log());

    let mut seen = Seen::default();
    let spool = rig.spool().canonicalize().expect("there");
    for line in fs::read_to_string(trace).expect("traced").lines() {
        seen.take_in(line, &spool);
    }
    assert_eq!(seen.unsynced_folders, BTreeMap::new(), "names that a power cut may take back");
    let expected = [
        "outbox/a.errors.jsonl",
        "outbox/a.manifest.json",
        "outbox/a.results.jsonl",
        "outbox/sub/b.manifest.json",
        "outbox/sub/b.results.jsonl",
    ];
    seen.named.retain(|name| !name.contains("/."));
    let mut named = seen.named.clone();
    named.sort();
    assert_eq!(named, expected);
    let manifest = seen.named.iter().position(|name| name == "outbox/a.manifest.json");
    let others = seen
        .named
        .iter()
        .rposition(|name| name.starts_with("outbox/a.") && name != "outbox/a.manifest.json");
    assert!(manifest > others, "the manifest comes last: {:?}", seen.named);
}

/// Why processes can not be traced here, if they can not.
fn strace_is_missing() -> Option<String> {
    match Command::new("strace").args(["-f", "-o", "/dev/null", "true"]).output() {
        Ok(output) if output.status.success() => None,
        Ok(output) => Some(String::from_utf8_lossy(&output.stderr).into_owned()),
        Err(error) => Some(format!("strace: {error}")),
    }
}

/// What is known of the disk after some system calls.
#[derive(Default)]
struct Seen {
    /// Whether a file has writes that are not synced; files never written to are not in here.
    dirty: BTreeMap<String, bool>,
    /// Folders of the outbox with new names that are not synced, and the last such name.
    unsynced_folders: BTreeMap<String, String>,
    /// Names given in the outbox, in this order.
    named: Vec<String>,
    /// Calls that have begun, by thread.
    begun: BTreeMap<String, String>,
}

impl Seen {
    /// Takes in a line of `strace -f -y`: `PID call(…) = 0`, or the two parts of one.
    fn take_in(&mut self, line: &str, spool: &Path) {
        let Some((thread, call)) = line.split_once(' ') else { return };
        let call = call.trim_start();
        if let Some(begun) = call.strip_suffix("<unfinished ...>") {
            // A write counts from its beginning, a sync from its end.
            self.wrote(begun);
            self.begun.insert(thread.to_owned(), begun.to_owned());
        } else if call.starts_with("<...") {
            let begun = self.begun.remove(thread).unwrap_or_default();
            if call.ends_with("= 0") {
                self.succeeded(&begun, spool);
            }
        } else {
            self.wrote(call);
            if call.ends_with("= 0") {
                self.succeeded(call, spool);
            }
        }
    }

    fn wrote(&mut self, call: &str) {
        if WRITES.iter().any(|name| call.starts_with(name))
            && let Some(path) = handle(call)
        {
            self.dirty.insert(path.to_owned(), true);
        }
    }

    fn succeeded(&mut self, call: &str, spool: &Path) {
        if call.starts_with("fsync(") || call.starts_with("fdatasync(") {
            let Some(path) = handle(call) else { return };
            self.dirty.insert(path.to_owned(), false);
            self.unsynced_folders.remove(path);
        } else if call.starts_with("rename") {
            let mut paths = call.split('"').skip(1).step_by(2);
            let (Some(from), Some(to)) = (paths.next(), paths.next()) else { return };
            let dirty = self.dirty.remove(from);
            let below = Path::new(to).strip_prefix(spool).expect("renames stay in the spool");
            if below.starts_with("outbox") {
                assert_eq!(dirty, Some(false), "not synced when it was renamed: {call}");
                let folder = Path::new(to).parent().expect("a folder").display().to_string();
                self.unsynced_folders.insert(folder, to.to_owned());
                self.named.push(below.display().to_string());
            }
            if let Some(dirty) = dirty {
                self.dirty.insert(to.to_owned(), dirty);
            }
        }
    }
}

/// The path of a call's first argument, as `-y` tells it: `write(7</path>, …`.
fn handle(call: &str) -> Option<&str> {
    let (number, rest) = call.split_once('(')?.1.split_once('<')?;
    let is_path = number.bytes().all(|b| b.is_ascii_digit()) && rest.starts_with('/');
    is_path.then(|| rest.split('>').next()).flatten()
}

const CALLS: &str = "trace=rename,renameat,renameat2,fsync,fdatasync,write,writev,pwrite64,\
                     pwritev,pwritev2,ftruncate,copy_file_range,sendfile,fallocate";
const WRITES: [&str; 8] = [
    "write(",
    "writev(",
    "pwrite64(",
    "pwritev(",
    "pwritev2(",
    "ftruncate(",
    "sendfile(",
    "fallocate(",
];
