//! The address of an upload under way, kept beside the job so that a restart can go on with it.
//!
//! The address is a capability: whoever has it can write to the upload. It is kept readable for
//! its owner alone, and removed as soon as the upload is over.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;

use super::{At, JobFolder, SpoolError, durable};
use crate::engine::ids::{Attempt, ChunkNo};

/// The address kept for an attempt's upload, if there is one.
pub fn load(folder: &JobFolder, chunk: ChunkNo, attempt: Attempt) -> Option<String> {
    let text = fs::read_to_string(folder.session(chunk, attempt)).ok()?;
    (!text.is_empty() && text.len() <= ADDRESS_MAX).then_some(text)
}

/// Keeps the address of an attempt's upload; `None` removes it.
///
/// # Errors
/// If the file can not be written or removed.
pub fn keep(
    folder: &JobFolder,
    chunk: ChunkNo,
    attempt: Attempt,
    address: Option<&str>,
) -> Result<(), SpoolError> {
    let path = folder.session(chunk, attempt);
    match address {
        Some(address) => {
            durable::replace(&path, address.as_bytes())?;
            let owner_only = fs::Permissions::from_mode(0o600);
            fs::set_permissions(&path, owner_only).at("restrict", &path)
        }
        None => match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).at("remove", &path),
            Ok(()) | Err(_) => Ok(()),
        },
    }
}

/// No address is longer than this many bytes.
const ADDRESS_MAX: usize = 8192;
