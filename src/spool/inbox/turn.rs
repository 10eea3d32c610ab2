//! Whose turn it is: the oldest candidates of a scan are looked at closely and given out.
//!
//! What a scan has noted of a candidate may be old; here the file itself is asked whether it is
//! still the same, and whether it can be taken at all.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::super::sidecar::{self, Found};
use super::super::source::{self, Opened, refusal};
use super::{Candidate, Walk, changed_ns, unreadable};
use crate::engine::ids::Millis;
use crate::engine::job::{Refusal, Source};

/// The sub-folder looked into last, held open.
struct Within {
    folder: u32,
    handle: OwnedFd,
}

impl Walk<'_> {
    /// Gives out the oldest candidates that are ready, at most `max` of them.
    pub(super) fn give_out(&mut self, inbox: &OwnedFd, path: &Path, max: usize) {
        let mut waiting = std::mem::take(&mut self.candidates);
        if let Some(passed_over) = self.passed_over {
            let left: Vec<bool> = self.folders.iter().map(|folder| passed_over(folder)).collect();
            waiting.retain(|candidate| !left[candidate.folder as usize]);
        }
        let mut within = None;
        while self.scan.ready.len() < max && !waiting.is_empty() {
            // Mostly all that are looked at are taken, and one round is enough.
            let wanted = (max - self.scan.ready.len()).min(waiting.len());
            if wanted < waiting.len() {
                waiting.select_nth_unstable(wanted - 1);
            }
            let rest = waiting.split_off(wanted);
            waiting.sort_unstable_by(|a, b| self.in_order(a).cmp(&self.in_order(b)));
            for candidate in std::mem::replace(&mut waiting, rest) {
                self.look_closely(inbox, path, &mut within, candidate);
            }
        }
        self.scan.more = !waiting.is_empty();
    }

    fn in_order<'c>(&'c self, candidate: &'c Candidate) -> (i128, &'c str, &'c str) {
        (candidate.changed_ns, &self.folders[candidate.folder as usize], &candidate.name)
    }

    fn look_closely(
        &mut self,
        inbox: &OwnedFd,
        path: &Path,
        within: &mut Option<Within>,
        candidate: Candidate,
    ) {
        let folder = self.folders[candidate.folder as usize].clone();
        let handle = match within {
            _ if folder.is_empty() => inbox,
            Some(within) if within.folder == candidate.folder => &within.handle,
            // A folder that went away took its files with it.
            within => match open_within(inbox, &folder) {
                Ok(handle) => &within.insert(Within { folder: candidate.folder, handle }).handle,
                Err(_) => return,
            },
        };
        let name = &*candidate.name;
        let path = path.join(&folder).join(name);
        let stat = match rustix::fs::statat(handle, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return,
            Err(errno) => return self.trouble("look at", path, errno.into()),
        };
        // It is another thing by now: the next scan will see.
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return;
        }
        let unchanged = changed_ns(&stat) == candidate.changed_ns;
        if !unchanged {
            self.still.remove(&stat.st_ino);
        }
        if !unchanged && !candidate.whole && !self.is_still(&stat) {
            return;
        }
        if self.can_be_taken(handle, path.clone(), name, &stat) {
            let bytes = u64::try_from(stat.st_size).unwrap_or(0);
            let source = Source { folder, name: name.to_owned(), bytes, sidecar: None };
            match sidecar::find(handle, name) {
                Ok(found) => {
                    self.take(source, path, found);
                    self.scan.came.resize(self.scan.ready.len(), came(&stat));
                }
                Err(error) => self.trouble("look for the settings of", path, error),
            }
        }
    }

    /// Gives a file out with its settings, unless those are of no use.
    fn take(&mut self, source: Source, path: PathBuf, found: Found) {
        match found {
            Found::Nothing => self.scan.ready.push(source),
            Found::Settings { name, text } => {
                self.scan.sidecars.insert(self.scan.ready.len(), Ok(text));
                self.scan.ready.push(Source { sidecar: Some(name), ..source });
            }
            Found::Unusable { name, refusal } => {
                self.scan.sidecars.insert(self.scan.ready.len(), Err(refusal));
                self.scan.ready.push(Source { sidecar: name, ..source });
            }
            // All of them, settled or not: the last one would find the settings its own.
            Found::Shared { inputs, refusal } => {
                if self.scan.refused.iter().any(|known| known.path == path) {
                    return;
                }
                for input in inputs {
                    self.refuse(path.with_file_name(input), refusal.clone());
                }
            }
        }
    }

    fn can_be_taken(&mut self, folder: &OwnedFd, path: PathBuf, name: &str, stat: &Stat) -> bool {
        if stat.st_nlink > 1 && stat.st_uid != rustix::process::geteuid().as_raw() {
            let message = format!(
                "`{name}` is a hard link to a file of user {}, which has other names too",
                stat.st_uid
            );
            self.refuse(path, refusal("hard_link", message, "Drop a copy of it."));
            return false;
        }
        let needed = Access::WRITE_OK | Access::EXEC_OK;
        if rustix::fs::accessat(folder, ".", needed, AtFlags::EACCESS).is_err() {
            self.refuse(path, not_to_be_taken(name));
            return false;
        }
        match source::open_at(folder, name) {
            Ok(Opened::File(_)) => true,
            // It went away, or is another thing by now: the next scan will see.
            Ok(Opened::Missing | Opened::Special(_)) => false,
            Ok(Opened::Unreadable) => {
                self.refuse(path, unreadable(name));
                false
            }
            Err(error) => {
                self.trouble("open", path, error);
                false
            }
        }
    }
}

/// When a file got its place here. Who moves a file keeps its time of change, and may set it as he
/// likes, but not this one.
fn came(stat: &Stat) -> Millis {
    let part = stat.st_ctime_nsec / 1_000_000;
    Millis(u64::try_from(stat.st_ctime).unwrap_or(0).saturating_mul(1000).saturating_add(part))
}

/// Opens a sub-folder part by part, through no symbolic link.
fn open_within(inbox: &OwnedFd, folder: &str) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut parts = folder.split('/');
    let first = rustix::fs::openat(inbox, parts.next().unwrap_or_default(), flags, Mode::empty())?;
    parts.try_fold(first, |at, part| rustix::fs::openat(at, part, flags, Mode::empty()))
}

fn not_to_be_taken(name: &str) -> Refusal {
    let user = rustix::process::geteuid().as_raw();
    let message = format!(
        "`{name}` lies in a folder that the daemon's user ({user}) may not write in, so it cannot be \
         taken out"
    );
    let remedy = "Let the daemon's group write there: chgrp and chmod g+w the folder.";
    refusal("folder_not_writable", message, remedy)
}
