//! Whether this state is where it was left.
//!
//! Two daemons that go on from copies of one state would pay for everything twice, and take each
//! other's batches away. So `state/instance` says on which machine the state is, and which file it
//! is itself. A state that comes from another machine is refused until a person says that the
//! other one is not in use. One that was copied or restored on the same machine may be older than
//! what was sent since: it is used, but nothing of it is believed that a search can clear up.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::StoreError;

/// The file's name in the state folder.
pub const NAME: &str = "instance";

/// Where a state is, as far as it tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Where it was left, or it never said.
    Own,
    /// It is a copy, or was restored, or a person took it over from another machine.
    Restored,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Instance {
    v: u32,
    /// A fingerprint of the machine; not there if it has no name.
    machine: Option<String>,
    /// The inode of the file that holds this, which no copy has.
    file: u64,
}

/// Looks where the state is; changes nothing.
///
/// # Errors
/// [`StoreError::Elsewhere`] if it belongs to another machine; [`StoreError::Io`] if the file can
/// not be read.
pub fn check(state: &Path) -> Result<Standing, StoreError> {
    check_on(state, machine().as_deref())
}

/// Says that the state is here. To be called when it is safe to go on with it.
///
/// # Errors
/// [`StoreError::Io`] if that can not be written.
pub fn settle(state: &Path) -> Result<(), StoreError> {
    if read(state)?.is_some_and(|(said, inode)| said.file == inode) {
        return Ok(());
    }
    write(state, machine(), |inode| inode)
}

/// Takes the state over from wherever it was. The next start finds it restored.
///
/// # Errors
/// [`StoreError::Io`] if that can not be written.
pub fn take_over(state: &Path) -> Result<(), StoreError> {
    // No file has this inode.
    write(state, machine(), |_| 0)
}

fn check_on(state: &Path, here: Option<&str>) -> Result<Standing, StoreError> {
    let Some((said, inode)) = read(state)? else { return Ok(Standing::Own) };
    match (said.machine.as_deref(), here) {
        (Some(there), Some(here)) if there != here => {
            Err(StoreError::Elsewhere { path: state.join(NAME) })
        }
        _ if said.file == inode => Ok(Standing::Own),
        _ => Ok(Standing::Restored),
    }
}

/// What the file says, and its inode. One that was torn when it was first written says nothing:
/// nothing was begun then.
fn read(state: &Path) -> Result<Option<(Instance, u64)>, StoreError> {
    let path = state.join(NAME);
    let mut file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed("read", path)(error)),
    };
    let mut text = String::new();
    let inode = file.metadata().map_err(failed("look at", path.clone()))?.ino();
    file.read_to_string(&mut text).map_err(failed("read", path))?;
    Ok(serde_json::from_str(&text).ok().map(|said| (said, inode)))
}

fn write(
    state: &Path,
    machine: Option<String>,
    file_of: impl FnOnce(u64) -> u64,
) -> Result<(), StoreError> {
    let path = state.join(NAME);
    let mut file = File::create(&path).map_err(failed("write", path.clone()))?;
    let inode = file.metadata().map_err(failed("look at", path.clone()))?.ino();
    let instance = Instance { v: 1, machine, file: file_of(inode) };
    let text = serde_json::to_vec(&instance).expect("it holds a text and numbers");
    file.write_all(&text).and_then(|()| file.sync_all()).map_err(failed("write", path))?;
    let folder = File::open(state).and_then(|folder| folder.sync_all());
    folder.map_err(failed("sync", state.to_owned()))
}

/// A fingerprint of this machine. Its id itself is not for other files.
fn machine() -> Option<String> {
    fingerprint(std::fs::read_to_string("/etc/machine-id").ok()?.trim())
}

fn fingerprint(id: &str) -> Option<String> {
    let is_id = id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_id.then(|| {
        let digest = Sha256::new().chain_update("gemini-batchd ").chain_update(id).finalize();
        digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
    })
}

fn failed(action: &'static str, path: PathBuf) -> impl FnOnce(io::Error) -> StoreError {
    move |source| StoreError::Io { action, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> tempfile::TempDir {
        tempfile::tempdir().expect("a temporary folder")
    }

    /// Fault 21.
    #[test]
    fn a_state_of_another_machine_is_refused_until_it_is_taken_over() {
        let state = state();
        let write_as = |name: &str| {
            write(state.path(), Some(name.to_owned()), |inode| inode).expect("written");
        };
        assert_eq!(check_on(state.path(), Some("here")).expect("new"), Standing::Own);
        write_as("there");
        let error = check_on(state.path(), Some("here")).expect_err("elsewhere").to_string();
        assert!(error.contains("gemini-batchd take-over"), "{error}");
        assert_eq!(check_on(state.path(), None).expect("nobody knows"), Standing::Own);
        write_as("here");
        assert_eq!(check_on(state.path(), Some("here")).expect("ours"), Standing::Own);
        take_over(state.path()).expect("taken");
        assert_eq!(check(state.path()).expect("ours"), Standing::Restored);
        settle(state.path()).expect("settled");
        assert_eq!(check(state.path()).expect("ours"), Standing::Own);
    }

    /// Fault 21.
    #[test]
    fn a_copy_on_the_same_machine_is_told_from_the_original() {
        let (state, copy) = (state(), state());
        settle(state.path()).expect("settled");
        std::fs::copy(state.path().join(NAME), copy.path().join(NAME)).expect("copied");
        assert_eq!(check(copy.path()).expect("here"), Standing::Restored);
        assert_eq!(check(state.path()).expect("here"), Standing::Own);
    }

    #[test]
    fn a_machine_is_told_by_a_fingerprint_and_not_by_its_id() {
        let id = "0123456789abcdef0123456789abcdef";
        let print = fingerprint(id).expect("that is an id");
        assert!(print.len() == 16 && print.bytes().all(|byte| byte.is_ascii_hexdigit()), "{print}");
        assert!(!id.contains(&print), "{print}");
        assert_eq!(fingerprint(id), Some(print), "the same each time");
        for other in ["", "uninitialized", &id[1..], "g123456789abcdef0123456789abcdef"] {
            assert_eq!(fingerprint(other), None, "{other}");
        }
        let here = std::fs::read_to_string("/etc/machine-id").ok();
        assert_eq!(machine(), here.and_then(|id| fingerprint(id.trim())));
    }

    #[test]
    fn a_torn_file_says_nothing() {
        let state = state();
        let mut file = File::create(state.path().join(NAME)).expect("made");
        file.write_all(b"{\"v\":1,\"mach").expect("written");
        assert_eq!(check(state.path()).expect("asked"), Standing::Own);
        settle(state.path()).expect("settled");
    }
}
