//! Room for a last few saves on a disk that is full.
//!
//! `reserve` in the state folder is a file of a few MiB that holds nothing but its place on the
//! disk. A save that would find too little room gets that place first: enough to record what is
//! under way and to stop taking on more. When there is room again, the next save makes the file
//! anew. It never holds data, so it may be missing, and be removed by anybody at any time.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, fallocate, statvfs};
use rustix::io::Errno;

use super::StoreError;
use super::open::io_error;

/// The reserve of one state folder.
#[derive(Debug)]
pub(super) struct Reserve {
    state: PathBuf,
    path: PathBuf,
    /// A save wants at least so much free, bytes.
    needed_bytes: u64,
    /// Whether the file is there.
    held: bool,
}

impl Reserve {
    /// The file's name in the state folder.
    pub const NAME: &'static str = "reserve";

    /// Its size, bytes.
    pub const BYTES: u64 = 4 * 1024 * 1024;

    /// The reserve of this folder, as an earlier process left it.
    pub fn of(state: &Path, needed_bytes: u64) -> Reserve {
        let path = state.join(Reserve::NAME);
        let held = fs::symlink_metadata(&path).is_ok();
        Reserve { state: state.to_owned(), path, needed_bytes, held }
    }

    /// Sees to it that a save finds room: gives the reserve up if there is no other, and makes it
    /// anew when there is plenty.
    ///
    /// # Errors
    /// [`StoreError::NoSpace`] if the disk is full even so.
    pub fn make_room(&mut self) -> Result<(), StoreError> {
        let free_bytes = self.free_bytes()?;
        if free_bytes >= self.needed_bytes {
            let plenty = self.needed_bytes.saturating_add(4 * Reserve::BYTES);
            if !self.held && free_bytes >= plenty {
                // Without it a full disk only ends the process a little earlier.
                self.held = self.make().is_ok();
            }
            return Ok(());
        }
        if self.held {
            self.give_up()?;
        }
        let (path, needed_bytes) = (self.state.clone(), self.needed_bytes);
        match self.free_bytes()? {
            free_bytes if free_bytes < needed_bytes => {
                Err(StoreError::NoSpace { path, free_bytes, needed_bytes })
            }
            _ => Ok(()),
        }
    }

    fn give_up(&mut self) -> Result<(), StoreError> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(io_error("remove", &self.path)(error));
            }
            Ok(()) | Err(_) => {}
        }
        self.held = false;
        Ok(())
    }

    fn make(&self) -> io::Result<()> {
        let made = self.fill();
        if made.is_err() {
            // A part of it would be taken for the whole by the next start.
            drop(fs::remove_file(&self.path));
        }
        made
    }

    fn fill(&self) -> io::Result<()> {
        let mut options = File::options();
        let mut file = options.write(true).create_new(true).mode(0o600).open(&self.path)?;
        match fallocate(&file, FallocateFlags::empty(), 0, Reserve::BYTES) {
            // Not every file system can set room aside without writing.
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
                io::copy(&mut io::Read::take(io::repeat(0), Reserve::BYTES), &mut file)?;
                file.flush()
            }
            result => result.map_err(io::Error::from),
        }
    }

    fn free_bytes(&self) -> Result<u64, StoreError> {
        let failed = |errno: Errno| io_error("ask for free space", &self.state)(errno.into());
        let stat = statvfs(&self.state).map_err(failed)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn length(state: &Path) -> Option<u64> {
        fs::metadata(state.join(Reserve::NAME)).ok().map(|found| found.len())
    }

    #[test]
    fn the_reserve_is_made_where_there_is_plenty_of_room() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut reserve = Reserve::of(folder.path(), 1);
        reserve.make_room().expect("room");
        assert_eq!(length(folder.path()), Some(Reserve::BYTES));
        // Somebody removed it: nothing fails, and another process makes it anew.
        fs::remove_file(folder.path().join(Reserve::NAME)).expect("removed");
        reserve.make_room().expect("room");
        Reserve::of(folder.path(), 1).make_room().expect("room");
        assert_eq!(length(folder.path()), Some(Reserve::BYTES));
    }

    /// Fault 23.
    #[test]
    fn without_room_the_reserve_is_given_up_before_anything_is_refused() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        Reserve::of(folder.path(), 1).make_room().expect("room");
        let refused = Reserve::of(folder.path(), u64::MAX).make_room();
        assert!(matches!(refused, Err(StoreError::NoSpace { .. })), "{refused:?}");
        assert_eq!(length(folder.path()), None);
    }

    #[test]
    fn the_reserve_takes_a_few_saves_of_the_largest_records() {
        let record = crate::store::record::BYTES_MAX as u64;
        assert!(Reserve::BYTES >= 32 * record, "{} bytes", Reserve::BYTES);
    }

    #[test]
    fn a_reserve_that_can_not_be_given_up_is_told() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        fs::create_dir(folder.path().join(Reserve::NAME)).expect("made");
        let refused = Reserve::of(folder.path(), u64::MAX).make_room();
        assert!(matches!(refused, Err(StoreError::Io { .. })), "{refused:?}");
    }
}
