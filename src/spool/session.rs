//! The address of an upload under way, kept beside the job so that a restart can go on with it.
//!
//! It is kept with the fingerprint of the API key it was opened with: with another key the file would
//! end up in another project. The address is a capability: whoever has it can write to the upload.
//! It is kept readable for its owner alone, and removed as soon as the upload is over.

use std::fs;
use std::io;

use super::{At, JobFolder, SpoolError, durable};
use crate::engine::ids::{Attempt, ChunkNo};

/// The address kept for an attempt's upload, if there is one that was opened with this key.
pub fn load(
    folder: &JobFolder,
    chunk: ChunkNo,
    attempt: Attempt,
    key_print: &str,
) -> Option<String> {
    let text = fs::read_to_string(folder.session(chunk, attempt)).ok()?;
    let (print, address) = text.split_once(' ')?;
    let usable = print == key_print && !address.is_empty() && address.len() <= ADDRESS_MAX;
    usable.then(|| address.to_owned())
}

/// Keeps the address of an attempt's upload; `None` removes it.
///
/// # Errors
/// If the file can not be written or removed.
pub fn keep(
    folder: &JobFolder,
    chunk: ChunkNo,
    attempt: Attempt,
    key_print: &str,
    address: Option<&str>,
) -> Result<(), SpoolError> {
    let path = folder.session(chunk, attempt);
    match address {
        Some(address) => {
            durable::replace_secret(&path, format!("{key_print} {address}").as_bytes())
        }
        None => match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).at("remove", &path),
            Ok(()) | Err(_) => Ok(()),
        },
    }
}

/// No address is longer than this many bytes.
const ADDRESS_MAX: usize = 8192;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn an_address_is_only_used_with_the_key_it_was_opened_with() {
        let temp = tempfile::tempdir().expect("a temporary folder");
        let folder = JobFolder { path: temp.path().to_owned() };
        let (chunk, attempt) = (ChunkNo(1), Attempt(2));
        keep(&folder, chunk, attempt, "print-a", Some("https://there/upload?id=1")).expect("kept");
        let load = |print| load(&folder, chunk, attempt, print);
        assert_eq!(load("print-a").as_deref(), Some("https://there/upload?id=1"));
        assert_eq!(load("print-b"), None);
        let mode =
            fs::metadata(folder.session(chunk, attempt)).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        keep(&folder, chunk, attempt, "print-a", None).expect("removed");
        keep(&folder, chunk, attempt, "print-a", None).expect("removed already");
        assert_eq!(load("print-a"), None);
    }
}
