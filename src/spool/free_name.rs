//! Names that are not taken: `NAME`, `NAME~2`, `NAME~3`, …
//!
//! Nothing in the spool is ever overwritten, so a name is looked for that is free, and whoever
//! takes it does so without overwriting.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::loose::cut;
pub use super::source::split;
use super::{At, SpoolError};

/// The first of `stem`, `stem~2`, … that `is_free`. The stem is shortened if it must be, so that
/// `room` bytes suffice.
///
/// # Errors
/// As `is_free`, or if thousands are taken.
pub fn first_free(
    stem: &str,
    room: usize,
    folder: &Path,
    is_free: impl Fn(&str) -> Result<bool, SpoolError>,
) -> Result<String, SpoolError> {
    for number in 1..=TRIES {
        let mark = if number == 1 { String::new() } else { format!("~{number}") };
        let name = format!("{}{mark}", cut(stem, room - mark.len()));
        if is_free(&name)? {
            return Ok(name);
        }
    }
    let text = format!("{TRIES} names like {stem:?} are taken; move some of the files away");
    Err(io::Error::new(io::ErrorKind::AlreadyExists, text)).at("find a free name in", folder)
}

/// Whether nothing at all has this name.
///
/// # Errors
/// If that can not be told.
pub fn is_free(path: &Path) -> Result<bool, SpoolError> {
    match fs::symlink_metadata(path) {
        Ok(_) => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error).at("look at", path),
    }
}

/// The sub-folder of `root` that mirrors one of the inbox, `/` between its parts.
///
/// # Errors
/// If the parts would lead out of `root`.
pub fn sub_folder(root: &Path, folder: &str) -> Result<PathBuf, SpoolError> {
    let mut path = root.to_owned();
    for part in folder.split('/').filter(|part| !part.is_empty()) {
        if part == ".." || part == "." || part.contains('\0') {
            let text = format!("{folder:?} does not name a folder below it");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text)).at("use", root);
        }
        path.push(part);
    }
    Ok(path)
}

/// Longest file name that file systems take, bytes.
pub const NAME_MAX: usize = 255;

/// Names tried before giving up.
const TRIES: u32 = 9_999;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_stem_is_shortened_between_characters() {
        let name = first_free(&"é".repeat(100), 32, Path::new("/"), |name| Ok(name.contains('~')))
            .expect("found");
        assert!(name.len() <= 32 && name.ends_with("é~2"), "{name}");
    }

    #[test]
    fn a_folder_never_leads_out() {
        assert!(sub_folder(Path::new("/o"), "a/../../b").is_err());
        assert_eq!(sub_folder(Path::new("/o"), "/a//b").expect("below"), Path::new("/o/a/b"));
    }
}
