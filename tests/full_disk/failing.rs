//! A disk whose calls fail, as `strace` makes them.
//!
//! `GEMINI_BATCHD_EPISODES=60` fails more calls of each kind.

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use gemini_batchd::provider::gemini::emulator::Faults;

use super::rig::{DISK, Rig, requests};
use super::spool::Contents;

/// Calls that fail, and how.
const FAULTS: [(&str, &str); 9] = [
    ("fsync,fdatasync", "EIO"),
    ("fsync,fdatasync", "ENOSPC"),
    ("pwrite64", "ENOSPC"),
    ("pwrite64", "EIO"),
    ("rename,renameat,renameat2", "EIO"),
    ("rename,renameat,renameat2", "ENOSPC"),
    ("mkdir,mkdirat", "ENOSPC"),
    ("ftruncate,fallocate", "ENOSPC"),
    ("pread64", "EIO"),
];

/// Faults 22, 23 and 29.
#[test]
fn whichever_call_fails_once_the_outbox_ends_the_same() {
    if !strace_is_here() {
        return;
    }
    let Some(undisturbed) = filled() else { return };
    assert_eq!(undisturbed.drain(), 3, "{}", undisturbed.log());
    let (contents, rows) = (Contents::of(&undisturbed), undisturbed.rows_paid());
    let large = std::env::var_os("GEMINI_BATCHD_EPISODES").is_some();
    let counts: Vec<u32> = if large { (1..=40).collect() } else { vec![1, 2, 4, 7, 11] };
    let cases = FAULTS.iter().flat_map(|fault| counts.iter().map(move |count| (fault, *count)));
    let (failed, ended) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let count = FAULTS.len() * counts.len();
    in_parallel(cases, |((calls, error), number)| {
        let what = format!("{calls} {error}, number {number} of a thread");
        let rig = filled().expect("there was a disk before");
        let inject = format!("inject={calls}:error={error}:when={number}");
        let trace = rig.aside("trace").display().to_string();
        let watched = format!("trace={calls},openat,unlink");
        let strace = ["strace", "-f", "-qq", "-y", "-o", &trace, "-e", &watched, "-e", &inject];
        let status = rig.through(&strace, &["once"]).status().expect("it starts");
        let code = status.code().unwrap_or_else(|| panic!("{what}: {status}\n{}", rig.log()));
        // The loader reads too, and gives up with 127.
        assert!(matches!(code, 1 | 3 | 14 | 127), "{what}: {code}\n{}", rig.log());
        let trace = std::fs::read_to_string(trace).expect("traced");
        failed.fetch_add(trace.matches("(INJECTED)").count(), Ordering::Relaxed);
        ended.fetch_add(usize::from(code != 3), Ordering::Relaxed);
        relies_on_no_second_sync(&trace, &what);
        let code = rig.drain();
        assert!(matches!(code, 3 | 4), "{what}: {code}\n{}", rig.log());
        assert_eq!(rig.rows_paid(), rows, "{what}: rows paid\n{}", rig.log());
        Contents::of(&rig).assert_same(&contents, &what);
    });
    let (failed, ended) = (failed.into_inner(), ended.into_inner());
    assert!(failed >= count / 2, "hardly any call failed");
    println!(
        "campaign: failed calls {failed} in {count} runs, ended the process {ended}, lost 0, doubled 0, seed none"
    );
}

/// A file whose sync failed is written anew before it is synced again: the system tells of a
/// failure once, and takes what it could not write for written. A folder is no matter of ours:
/// one that can not be written makes the whole disk read-only.
#[track_caller]
fn relies_on_no_second_sync(trace: &str, what: &str) {
    let mut failed = BTreeSet::new();
    for line in trace.lines() {
        let Some((_, call)) = line.split_once(' ') else { continue };
        let call = call.trim_start();
        if call.starts_with("fsync(") || call.starts_with("fdatasync(") {
            let Some(path) = call.split(['<', '>']).nth(1) else { continue };
            if call.contains("(INJECTED)") {
                failed.insert(path.to_owned());
            } else if call.ends_with("= 0") && path.contains('.') {
                let name = path.rsplit('/').next().unwrap_or_default();
                let is_file = name.contains('.');
                assert!(!is_file || !failed.contains(path), "{what}: {path} was synced again");
            }
        } else if let Some(path) = call.split('"').nth(1)
            && (call.starts_with("unlink(") || call.contains("O_TRUNC"))
        {
            failed.remove(path);
        }
    }
}

/// A spool with a file in its inbox.
fn filled() -> Option<Rig> {
    let settings = ["queue.default.lines_per_batch = 4", "queue.default.transport = \"file\""];
    let rig = Rig::on(DISK, Faults::default(), &settings)?;
    rig.bring("a.jsonl", requests(9, 200));
    rig.drop_file("a.jsonl");
    Some(rig)
}

/// Whether processes can be traced here; said aloud if not.
pub fn strace_is_here() -> bool {
    let tried = Command::new("strace").args(["-f", "-o", "/dev/null", "true"]).output();
    let is_here = tried.is_ok_and(|output| output.status.success());
    if !is_here {
        assert!(std::env::var_os("CI").is_none(), "no process can be traced");
        eprintln!("SKIPPED: no process can be traced");
    }
    is_here
}

fn in_parallel<C: Send>(cases: impl Iterator<Item = C> + Send, run: impl Fn(C) + Sync) {
    let cases = Mutex::new(cases);
    let next = || cases.lock().expect("taking the next does not panic").next();
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while let Some(case) = next() {
                    run(case);
                }
            });
        }
    });
}
