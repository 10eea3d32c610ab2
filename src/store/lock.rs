//! One daemon for one spool.
//!
//! The lock is the kernel's and goes away with its holder, however that ends; the file is only
//! where it hangs, and is never removed. It holds the process id of its holder, for people and
//! for the message that the next one gets. Taking it never waits.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;

use super::StoreError;

/// The lock on a state folder; released when dropped.
#[derive(Debug)]
pub struct StateLock {
    file: File,
}

impl StateLock {
    /// The lock file's name in the state folder.
    pub const NAME: &'static str = "lock";

    /// Takes the lock of a state folder that exists.
    ///
    /// # Errors
    /// [`StoreError::Locked`] names the holder; [`StoreError::Io`] if the file can not be opened,
    /// for instance because it is a symbolic link.
    pub fn take(state: &Path) -> Result<StateLock, StoreError> {
        let path = state.join(StateLock::NAME);
        let io = |action| {
            let path = path.clone();
            move |source| StoreError::Io { action, path, source }
        };
        let flags = i32::try_from(OFlags::NOFOLLOW.bits()).expect("O_NOFOLLOW fits an int");
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(flags)
            .open(&path)
            .map_err(io("open"))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                let holder = holder(&mut file);
                return Err(StoreError::Locked { path, holder });
            }
            Err(errno) => return Err(io("lock")(errno.into())),
        }
        let pid = format!("{}\n", std::process::id());
        let told = file.write_all(pid.as_bytes()).and_then(|()| file.set_len(pid.len() as u64));
        // Only people read it, and a disk that is full is told of by whoever needs room on it. The
        // name of an earlier holder must not stay, though.
        if told.is_err() {
            drop(file.set_len(0));
        }
        Ok(StateLock { file })
    }
}

impl Drop for StateLock {
    fn drop(&mut self) {
        // Closing would do, were it not for a child process that was just forked and still has
        // a copy of the handle. If this fails, closing does it a moment later.
        let _ = flock(&self.file, FlockOperation::Unlock);
    }
}

/// Who holds the lock, as far as the file tells.
fn holder(file: &mut File) -> String {
    let mut text = String::new();
    let read = file.take(DIGITS_MAX).read_to_string(&mut text);
    match (read, text.trim().parse::<u32>()) {
        (Ok(_), Ok(pid)) => format!("process {pid}"),
        (Ok(_) | Err(_), Ok(_) | Err(_)) => "another process".to_owned(),
    }
}

/// More than any process id needs, bytes.
const DIGITS_MAX: u64 = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_taker_is_told_who_holds_the_lock() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let held = StateLock::take(folder.path()).expect("free");
        let refused = StateLock::take(folder.path()).expect_err("held").to_string();
        assert!(refused.contains(&format!("process {}", std::process::id())), "{refused}");
        drop(held);
        StateLock::take(folder.path()).expect("free again");
    }

    #[test]
    fn a_copy_of_the_handle_in_a_child_does_not_keep_the_lock() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let held = StateLock::take(folder.path()).expect("free");
        let copy = held.file.try_clone().expect("copied");
        drop(held);
        StateLock::take(folder.path()).expect("free again");
        drop(copy);
    }

    /// Fault 19.
    #[test]
    fn a_lock_file_left_by_a_dead_process_locks_nothing() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut left = File::create(folder.path().join(StateLock::NAME)).expect("created");
        left.write_all(b"4194304\nand more").expect("written");
        StateLock::take(folder.path()).expect("free");
        let text = std::fs::read_to_string(folder.path().join(StateLock::NAME)).expect("read");
        assert_eq!(text, format!("{}\n", std::process::id()));
    }

    #[test]
    fn a_symbolic_link_is_not_followed() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let elsewhere = folder.path().join("elsewhere");
        std::os::unix::fs::symlink(&elsewhere, folder.path().join(StateLock::NAME))
            .expect("linked");
        assert!(matches!(StateLock::take(folder.path()), Err(StoreError::Io { .. })));
        assert!(!elsewhere.exists());
    }
}
