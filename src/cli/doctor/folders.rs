//! The folders of the spool: there, writable, of one owner, and on a disk that keeps its word.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use crate::spool::durable;

use super::super::ExitCode;
use super::{Context, Finding};

/// The folders by the names people know, those that matter most first.
pub fn all(context: &Context) -> [(&'static str, &Path); 7] {
    let folders = &context.config.folders;
    [
        ("inbox", folders.inbox.as_path()),
        ("working", &folders.working),
        ("outbox", &folders.outbox),
        ("held", &folders.held),
        ("failed", &folders.failed),
        ("archive", &folders.archive),
        ("state", &folders.state),
    ]
}

/// Whether each folder can be written, or be made, and whose they are.
pub fn places(context: &Context) -> Vec<Finding> {
    let mut findings = Vec::new();
    let (mut there, mut missing, mut owners) = (0, 0, BTreeSet::new());
    for (name, path) in all(context) {
        let is_there = path.symlink_metadata().is_ok();
        // What lies above may be no folder at all, which is found out by trying.
        let place = path.ancestors().find(|path| path.symlink_metadata().is_ok());
        let place = place.unwrap_or(Path::new("."));
        match durable::try_writing(place) {
            Ok(()) if is_there => there += 1,
            Ok(()) => missing += 1,
            Err(error) => {
                let text = match is_there {
                    true => format!("{name}: {error}"),
                    false => format!("{name}: {} can not be made: {error}", path.display()),
                };
                let remedy = "give the folder to the daemon's user, or choose another spool with \
                              --spool or spool.dir; run this as that user";
                let found = Finding::fail("folders", text, Some(remedy.to_owned()));
                findings.push(Finding { code: ExitCode::Configuration, ..found });
            }
        }
        if let Ok(found) = fs::metadata(path) {
            owners.insert((found.uid(), found.gid()));
        }
    }
    if owners.len() > 1 {
        let told: Vec<String> = owners.iter().map(|(uid, gid)| format!("{uid}:{gid}")).collect();
        findings.push(Finding::warn(
            "folders",
            format!("they belong to different users or groups: {}", told.join(", ")),
            "unless that is meant so, give them all to the daemon's user and group with chown",
        ));
    }
    if findings.is_empty() {
        let inbox = context.config.folders.inbox.display();
        let whose = owners.first().map(|(uid, gid)| format!(", of {uid}:{gid}"));
        let text = match (there, missing) {
            (0, _) => format!("none is there yet, all can be made; inbox {inbox}"),
            (_, 0) => format!("all can be written{}; inbox {inbox}", whose.unwrap_or_default()),
            (_, missing) => format!("{missing} are still to be made; inbox {inbox}"),
        };
        findings.push(Finding::ok("folders", text));
    }
    findings
}

/// Whether they lie on one file system, so that moving a file moves no bytes.
pub fn disks(context: &Context) -> Vec<Finding> {
    let device = |path: &Path| fs::metadata(nearest(path)).ok().map(|found| found.dev());
    let own = device(&context.config.folders.working);
    let elsewhere: Vec<&str> = all(context)
        .into_iter()
        .filter(|(_, path)| device(path) != own)
        .map(|(name, _)| name)
        .collect();
    if elsewhere.is_empty() {
        return vec![Finding::ok("file system", "one for all folders")];
    }
    vec![Finding::warn(
        "file system",
        format!("{} and working lie on different ones: files are copied", elsewhere.join(", ")),
        "with all folders on one file system, a file is moved without touching its bytes",
    )]
}

/// Whether a file can be renamed so that it never overwrites another.
pub fn renames(context: &Context) -> Vec<Finding> {
    let folder = nearest(&context.config.folders.working);
    let tried = || -> std::io::Result<Result<(), Errno>> {
        let one = tempfile::NamedTempFile::new_in(&folder)?;
        let other = tempfile::NamedTempFile::new_in(&folder)?;
        Ok(renameat_with(CWD, one.path(), CWD, other.path(), RenameFlags::NOREPLACE))
    };
    match tried() {
        // That has been told with the folders.
        Err(_) => Vec::new(),
        Ok(Err(Errno::EXIST)) => vec![Finding::ok("renames", "never overwrite")],
        Ok(Ok(())) => vec![Finding::fail(
            "renames",
            format!("in {} one overwrote a file that it should not have", folder.display()),
            Some("this file system loses files: choose another one for the spool".to_owned()),
        )],
        Ok(Err(_)) => vec![Finding::ok(
            "renames",
            "can not be told not to overwrite here; files get a second name instead",
        )],
    }
}

/// Whether what is written can be made to outlive a power cut.
pub fn syncs(context: &Context) -> Vec<Finding> {
    let folder = nearest(&context.config.folders.state);
    let begun = Instant::now();
    let tried = || -> std::io::Result<()> {
        let mut file = tempfile::tempfile_in(&folder)?;
        file.write_all(&[0; 4096])?;
        file.sync_all()?;
        fs::File::open(&folder)?.sync_all()
    };
    if fs::metadata(&folder).is_ok() && durable::try_writing(&folder).is_err() {
        // That has been told with the folders.
        return Vec::new();
    }
    match tried() {
        Err(error) => vec![Finding::fail(
            "syncs",
            format!("{} can not be synced: {error}", folder.display()),
            Some("check the disk (dmesg, smartctl) before anything is trusted to it".to_owned()),
        )],
        Ok(()) if begun.elapsed() > SLOW => vec![Finding::warn(
            "syncs",
            format!("one took {} ms", begun.elapsed().as_millis()),
            "every step of a job waits for some: a disk with less to do would be better",
        )],
        Ok(()) => {
            vec![Finding::ok("syncs", format!("one takes {} ms", begun.elapsed().as_millis()))]
        }
    }
}

/// The folder itself, or the nearest above it that is there.
pub fn nearest(path: &Path) -> PathBuf {
    let there = path.ancestors().find(|path| path.is_dir());
    there.filter(|path| !path.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned()
}

/// Longer is slow.
const SLOW: Duration = Duration::from_secs(1);
