//! Where the configuration file is, and its text.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::{Environment, Flags};

/// The file of this configuration, if there is one.
pub(super) fn find(flags: &Flags, environment: &Environment) -> Option<PathBuf> {
    if let Some(path) = &flags.config {
        return Some(environment.folder().join(path));
    }
    let home = || environment.get("HOME").map(|home| Path::new(home).join(".config"));
    let user = environment.get("XDG_CONFIG_HOME").map(PathBuf::from).or_else(home);
    let places = [
        Some(environment.folder().to_owned()),
        user.map(|folder| folder.join("gemini-batchd")),
        Some(PathBuf::from("/etc/gemini-batchd")),
    ];
    places.into_iter().flatten().map(|folder| folder.join(FILE_NAME)).find(|path| path.exists())
}

/// Its text.
///
/// # Errors
/// In words, if it is no file, too long, or can not be read.
pub(super) fn read(path: &Path) -> Result<String, String> {
    let say = |error: std::io::Error| format!("cannot be read: {error}");
    // Before opening: a FIFO would never come back.
    if !std::fs::metadata(path).map_err(say)?.is_file() {
        return Err("is not a file; name the configuration file itself".to_owned());
    }
    let mut text = String::new();
    let file = File::open(path).map_err(say)?;
    let read = file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(say)?;
    if read as u64 > FILE_BYTES_MAX {
        return Err("is longer than 1 MiB; is this the right file?".to_owned());
    }
    Ok(text)
}

const FILE_NAME: &str = "gemini-batchd.toml";
const FILE_BYTES_MAX: u64 = 1 << 20;
