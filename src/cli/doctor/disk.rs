//! Room on the disks, events from the inbox, and what kinds of file systems they are.

use std::fs;
use std::path::Path;

use rustix::fs::{statfs, statvfs};

use crate::config::Watch;
use crate::spool::source::DEPTH_MAX;
use crate::spool::watch::{self, WatchMode};

use super::super::remote::words;
use super::folders::{all, nearest};
use super::{Context, ExitCode, Finding};

/// Whether there is room for the largest input that waits, its answers and its results.
pub fn room(context: &Context) -> Vec<Finding> {
    let folders = &context.config.folders;
    let reserve = context.config.limits.free_bytes;
    let mut left = ENTRIES_MAX;
    let largest = largest(&folders.inbox, DEPTH_MAX, &mut left);
    let wanted = reserve.saturating_add(largest.saturating_mul(ROOM_FOR_ONE));
    let mut findings = Vec::new();
    for (name, path) in [("working", &folders.working), ("state", &folders.state)] {
        let Ok(found) = statvfs(nearest(path)) else { continue };
        let free = found.f_bavail.saturating_mul(found.f_frsize);
        if free < reserve {
            let text = format!(
                "{name} has {} free, less than limits.free_bytes ({}): nothing is begun",
                words::size(free),
                words::size(reserve)
            );
            let remedy = Some("make room on that disk".to_owned());
            let found = Finding::fail("room", text, remedy);
            findings.push(Finding { code: ExitCode::NoRoom, ..found });
        } else if free < wanted {
            let text = format!(
                "{name} has {} free; the largest input in the inbox ({}) may need {}",
                words::size(free),
                words::size(largest),
                words::size(wanted)
            );
            findings.push(Finding::warn("room", text, "make room on that disk"));
        } else if findings.is_empty() && name == "working" {
            findings.push(Finding::ok("room", format!("{} are free", words::size(free))));
        }
    }
    findings
}

/// Whether the inbox tells of new files by itself.
pub fn watching(context: &Context) -> Vec<Finding> {
    let inbox = &context.config.folders.inbox;
    if !inbox.is_dir() {
        return Vec::new();
    }
    let mode = match context.config.intake.watch {
        Watch::Auto => WatchMode::Auto,
        Watch::Events => WatchMode::Events,
        Watch::Poll => WatchMode::Poll,
    };
    let rescan = words::span(u64::try_from(context.config.intake.rescan.as_millis()).unwrap_or(0));
    match watch::watch(inbox, mode, |_| {}) {
        Ok(watching) if watching.is_limited() => vec![Finding::warn(
            "events",
            format!("new files are only seen by looking, every {rescan}: inotify is used up"),
            "raise it: sysctl fs.inotify.max_user_watches=524288 fs.inotify.max_user_instances=512",
        )],
        Ok(watching) => vec![match &watching.polling {
            Some(why) => Finding::ok("events", format!("new files are seen by looking: {why}")),
            None => Finding::ok("events", format!("new files are seen at once{}", limits())),
        }],
        Err(error) => {
            let found = Finding::fail("events", error.to_string(), None);
            vec![Finding { code: ExitCode::Configuration, ..found }]
        }
    }
}

/// What inotify allows to one user, as far as the system tells.
fn limits() -> String {
    let read = |name: &str| {
        let text = fs::read_to_string(format!("/proc/sys/fs/inotify/{name}")).ok()?;
        text.trim().parse::<u64>().ok()
    };
    match (read("max_user_watches"), read("max_user_instances")) {
        (Some(watches), Some(instances)) => {
            format!("; inotify allows {watches} watches, {instances} instances")
        }
        (Some(_) | None, Some(_) | None) => String::new(),
    }
}

/// Whether the folders lie where locks, syncs and renames mean what they say, and stay.
pub fn kinds(context: &Context) -> Vec<Finding> {
    let mut seen: Vec<(&'static str, Vec<&str>)> = Vec::new();
    for (name, path) in all(context).into_iter().filter(|(name, _)| *name != "inbox") {
        let Some(kind) = kind(&nearest(path)) else { continue };
        match seen.iter_mut().find(|(known, _)| *known == kind) {
            Some((_, names)) => names.push(name),
            None => seen.push((kind, vec![name])),
        }
    }
    if seen.is_empty() {
        return vec![Finding::ok("disk", "the folders lie on disks of this machine")];
    }
    let told = |(kind, names): (&'static str, Vec<&str>)| {
        let names = names.join(", ");
        let remedy = match kind {
            MEMORY => "all is lost when the machine stops: choose a spool on a disk",
            OVERLAY => "what lies there is lost with the container: mount a volume for the spool",
            _ => {
                "locks, syncs and renames are as good as that server's only: a disk of this \
                 machine is better for state and working; never run two daemons on one spool"
            }
        };
        Finding::warn("disk", format!("{names} lie on {kind}"), remedy)
    };
    seen.into_iter().map(told).collect()
}

/// The name of a file system that deserves a word.
fn kind(path: &Path) -> Option<&'static str> {
    // The field has another width and sign on other machines; the number has 32 bits.
    let magic = statfs(path).ok()?.f_type as u32;
    match magic {
        TMPFS_MAGIC => Some(MEMORY),
        _ => watch::eventless(path),
    }
}

/// The largest file in a folder and those below it, bytes. Links are not followed.
fn largest(folder: &Path, depth: usize, left: &mut usize) -> u64 {
    let mut largest_bytes = 0;
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if *left == 0 {
            break;
        }
        *left -= 1;
        let Ok(found) = entry.metadata() else { continue };
        let bytes = match found.is_dir() {
            true if depth > 0 => largest(&entry.path(), depth - 1, left),
            true => 0,
            false => found.len(),
        };
        largest_bytes = largest_bytes.max(bytes);
    }
    largest_bytes
}

/// What an input needs while it is under way, as a multiple of its size: itself, its answers, and
/// the results before they are delivered.
const ROOM_FOR_ONE: u64 = 3;
/// Entries of the inbox that are looked at.
const ENTRIES_MAX: usize = 1_000_000;
/// Of statfs(2).
const TMPFS_MAGIC: u32 = 0x0102_1994;
const MEMORY: &str = "tmpfs";
const OVERLAY: &str = "overlay";
