//! Whether the disks under the spool have room for more work.
//!
//! Looked at now and then by the loop. Below the limit nothing is begun that takes room; that is
//! long before the disk is full, so that what is under way can be recorded, and there is
//! something left for whoever comes to make room. A little more than the limit must be free again
//! before work goes on, so that it does not stop and go with every file.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::statvfs;

use crate::spool::Folders;

/// What is known of the room for one spool.
#[derive(Debug)]
pub struct Room {
    /// One folder on each disk that fills while jobs are under way.
    folders: Vec<PathBuf>,
    /// Less than this is too little, bytes.
    free_bytes_min: u64,
    looked: Option<Instant>,
    /// Why there is too little.
    full: Option<String>,
}

impl Room {
    /// Nothing looked at yet. The outbox may be on a disk of its own: deliveries wait for room
    /// there by themselves.
    pub fn of(folders: &Folders, free_bytes_min: u64) -> Room {
        let folders = vec![folders.state.clone(), folders.working.clone()];
        Room { folders, free_bytes_min, looked: None, full: None }
    }

    /// Another limit, bytes; counts from the next look on, which is due.
    pub fn want(&mut self, free_bytes_min: u64) {
        self.free_bytes_min = free_bytes_min;
        self.looked = None;
    }

    /// Why there is too little room, if so. Looks anew if the last look was a while ago.
    pub fn full(&mut self) -> Option<&str> {
        if self.looked.is_none_or(|looked| looked.elapsed() >= LOOK_EVERY) {
            self.looked = Some(Instant::now());
            let was_full = self.full.is_some();
            let lacking = |folder: &PathBuf| self.lacking(folder, was_full);
            self.full = self.folders.iter().find_map(lacking);
        }
        self.full.as_deref()
    }

    /// How long until the next look.
    pub fn patience(&self) -> Duration {
        match &self.full {
            Some(_) => LOOK_EVERY,
            None => Duration::MAX,
        }
    }

    /// What a disk has too little of, in words. One that can not be asked is left to those who
    /// work on it.
    fn lacking(&self, folder: &Path, was_full: bool) -> Option<String> {
        let found = statvfs(folder).ok()?;
        let wanted = |min: u64| if was_full { min.saturating_add(min / 4) } else { min };
        let (place, free) = (folder.display(), found.f_bavail.saturating_mul(found.f_frsize));
        if free < wanted(self.free_bytes_min) {
            let (free, wanted) = (free >> 20, wanted(self.free_bytes_min).div_ceil(1 << 20));
            return Some(format!(
                "{place} has {free} MiB free and {wanted} MiB are wanted (limits.free_bytes): \
                 nothing new is begun until there is more room"
            ));
        }
        // File systems that make inodes as they go tell none at all.
        let scarce = found.f_files > 0 && found.f_favail < wanted(INODES_MIN);
        scarce.then(|| {
            format!(
                "the disk of {place} has room for {} more files only: nothing new is begun until \
                 some are removed there",
                found.f_favail
            )
        })
    }
}

/// The shortest pause between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Fewer files than this that can still be made are too few; a job under way has about ten.
const INODES_MIN: u64 = 200;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_has_room_or_says_what_it_lacks() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let folders = Folders::below(folder.path());
        for folder in [&folders.state, &folders.working] {
            std::fs::create_dir_all(folder).expect("made");
        }
        assert_eq!(Room::of(&folders, 1).full(), None);
        let mut room = Room::of(&folders, u64::MAX);
        let why = room.full().expect("too little").to_owned();
        assert!(why.starts_with(&folders.state.display().to_string()), "{why}");
        assert!(why.contains("limits.free_bytes"), "{why}");
        assert_eq!(room.patience(), LOOK_EVERY);
    }

    #[test]
    fn a_folder_that_can_not_be_asked_says_nothing() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let folders = Folders::below(&folder.path().join("gone"));
        assert_eq!(Room::of(&folders, u64::MAX).full(), None);
    }
}
