//! The salt of this spool: with it the fingerprints of API keys are made that records hold.
//!
//! Without it a fingerprint tells nobody anything, and two spools do not show that they use the same
//! key. It is made once and synced before it is used. Should it get lost, every fingerprint becomes
//! that of a key nobody has any more, and each batch has to be seen once before its job goes on.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::StoreError;

/// The file's name in the state folder.
pub const NAME: &str = "key-salt";

/// The salt; it is made if there is none, or if what is there was torn when it was first written.
///
/// # Errors
/// [`StoreError::Io`] if it can neither be read nor made.
pub fn read_or_make(state: &Path) -> Result<String, StoreError> {
    if let Some(salt) = read_file(state)? {
        return Ok(salt);
    }
    let salt = ulid::Ulid::generate().to_string();
    let path = state.join(NAME);
    let mut made = File::options();
    let made = made.write(true).create(true).truncate(true).mode(0o600).open(&path);
    made.and_then(|mut file| file.write_all(salt.as_bytes()).and_then(|()| file.sync_all()))
        .map_err(failed("write", path))?;
    let folder = File::open(state).and_then(|folder| folder.sync_all());
    folder.map_err(failed("sync", state.to_owned()))?;
    Ok(salt)
}

/// The salt that is there.
///
/// # Errors
/// [`StoreError::Io`] if it can not be read.
pub fn read(state: &Path) -> Result<String, StoreError> {
    read_file(state)?.ok_or_else(|| {
        let gone = io::Error::new(io::ErrorKind::NotFound, "it was removed; restart the daemon");
        failed("read", state.join(NAME))(gone)
    })
}

fn read_file(state: &Path) -> Result<Option<String>, StoreError> {
    let path = state.join(NAME);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed("read", path)(error)),
    };
    let mut bytes = Vec::new();
    file.take(BYTES_MAX).read_to_end(&mut bytes).map_err(failed("read", path))?;
    let salt = String::from_utf8(bytes).ok();
    Ok(salt.filter(|salt| salt.parse::<ulid::Ulid>().is_ok()))
}

fn failed(action: &'static str, path: PathBuf) -> impl FnOnce(io::Error) -> StoreError {
    move |source| StoreError::Io { action, path, source }
}

/// More is no salt of ours.
const BYTES_MAX: u64 = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spool_keeps_its_salt_and_no_two_have_the_same() {
        let (one, other) = (tempfile::tempdir().expect("made"), tempfile::tempdir().expect("made"));
        let salt = read_or_make(one.path()).expect("made");
        assert_eq!(read_or_make(one.path()).expect("read"), salt);
        assert_eq!(read(one.path()).expect("read"), salt);
        assert_ne!(read_or_make(other.path()).expect("made"), salt);
    }

    #[test]
    fn one_that_was_torn_when_it_was_made_is_made_again() {
        let state = tempfile::tempdir().expect("made");
        assert!(read(state.path()).is_err(), "none is there");
        let mut file = File::create(state.path().join(NAME)).expect("made");
        file.write_all(b"01J").expect("written");
        let salt = read_or_make(state.path()).expect("made");
        assert_eq!((salt.len(), read(state.path()).expect("read")), (26, salt));
    }

    #[test]
    fn a_salt_that_can_not_be_opened_is_not_replaced() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        std::os::unix::fs::symlink(NAME, folder.path().join(NAME)).expect("made");
        assert!(read_or_make(folder.path()).is_err(), "a link to itself");
        assert!(read(folder.path()).is_err());
    }
}
