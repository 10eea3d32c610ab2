//! Drops a file into the inbox the safe way: written aside, synced, renamed.
//!
//! The daemon sees either nothing or the whole file. Nothing is ever overwritten: a name that is
//! taken gets `~2`. Memory does not grow with the file.

use std::fs::Permissions;
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::spool::durable::{self, Moved};
use crate::spool::{At, SpoolError, sidecar, source};

/// A file that lies in the inbox now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dropped {
    /// Where it lies, unless the daemon took it already.
    pub path: PathBuf,
    /// The name it got.
    pub name: String,
    /// SHA-256 of its content, lower-case hexadecimal.
    pub sha256: String,
    /// Its size.
    pub bytes: u64,
}

/// Copies `content` into the folder under `name`, or a name close to it.
///
/// # Errors
/// If something can not be read, written or renamed; nothing is left behind then.
pub fn drop_into(folder: &Path, name: &str, content: &mut dyn Read) -> Result<Dropped, SpoolError> {
    drop_with(folder, name, content, None)
}

/// The same, and before it come `settings` for this file alone, if there are any.
///
/// # Errors
/// As [`drop_into`].
pub fn drop_with(
    folder: &Path,
    name: &str,
    content: &mut dyn Read,
    settings: Option<&str>,
) -> Result<Dropped, SpoolError> {
    durable::make_folder(folder)?;
    // The daemon may run as another user of the same group: the umask decides, as for any file.
    let mut aside = tempfile::Builder::new()
        .prefix(".submit-")
        .suffix(".part")
        .permissions(Permissions::from_mode(0o666))
        .tempfile_in(folder)
        .at("write in", folder)?;
    let mut digest = Sha256::new();
    let mut buffer = vec![0_u8; BUFFER_BYTES];
    let mut bytes = 0;
    loop {
        let read = match content.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error).at("read what is to become", &folder.join(name)),
        };
        digest.update(&buffer[..read]);
        aside.write_all(&buffer[..read]).at("write", aside.path())?;
        bytes += read as u64;
    }
    aside.as_file().sync_all().at("sync", aside.path())?;
    let aside = aside.into_temp_path();
    let (stem, ending) = source::split(name);
    for number in 1..=NAMES_TRIED {
        let name = match number {
            1 => name.to_owned(),
            _ => format!("{stem}~{number}{ending}"),
        };
        let path = folder.join(&name);
        let sidecar = folder.join(sidecar::full_name(&name));
        if let Some(text) = settings
            && (path.symlink_metadata().is_ok()
                || durable::create(&sidecar, text.as_bytes())? != Moved::Now)
        {
            continue;
        }
        let moved = durable::move_file(&aside, &path);
        if settings.is_some() && !matches!(moved, Ok(Moved::Now)) {
            std::fs::remove_file(&sidecar).at("remove", &sidecar)?;
        }
        match moved? {
            Moved::Now => {
                // Nothing is left under the old name; removing it would only fail.
                drop(aside.keep());
                let sha256 = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
                return Ok(Dropped { path, name, sha256, bytes });
            }
            Moved::Taken => {}
            Moved::NoSource => {
                return Err(io::Error::other("it was removed meanwhile")).at("rename", &aside);
            }
        }
    }
    Err(io::Error::other("too many files of this name wait already")).at("drop", &folder.join(name))
}

const BUFFER_BYTES: usize = 256 * 1024;
const NAMES_TRIED: u32 = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_file_is_whole_and_alone() {
        let inbox = tempfile::tempdir().expect("a temporary folder");
        let folder = inbox.path().join("inbox/reviews");
        let dropped = drop_into(&folder, "a.jsonl", &mut &b"abc"[..]).expect("dropped");
        assert_eq!(std::fs::read(&dropped.path).expect("there"), b"abc");
        assert_eq!(dropped.bytes, 3);
        assert!(dropped.sha256.starts_with("ba7816bf"));
        assert_eq!(std::fs::read_dir(&folder).expect("listed").count(), 1);
    }

    #[test]
    fn a_name_that_is_taken_gets_a_number() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let names: Vec<String> = (0..3)
            .map(|_| drop_into(folder.path(), "a.jsonl", &mut &b"x"[..]).expect("dropped").name)
            .collect();
        assert_eq!(names, ["a.jsonl", "a~2.jsonl", "a~3.jsonl"]);
    }

    #[test]
    fn settings_lie_there_under_the_name_of_their_file_alone() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let at = |name: &str| folder.path().join(name);
        drop_into(folder.path(), "a.jsonl", &mut &b"x"[..]).expect("dropped");
        std::fs::File::create(at("a~2.jsonl.job.toml")).expect("of somebody else");
        let dropped = drop_with(folder.path(), "a.jsonl", &mut &b"y"[..], Some("attempts = 1"));
        assert_eq!(dropped.expect("dropped").name, "a~3.jsonl");
        let settings = std::fs::read_to_string(at("a~3.jsonl.job.toml")).expect("there");
        assert_eq!(settings, "attempts = 1");
        assert_eq!(std::fs::read(at("a~2.jsonl.job.toml")).expect("there"), b"");
        assert!(!at("a.jsonl.job.toml").exists());
    }

    #[test]
    fn a_source_that_breaks_leaves_nothing_behind() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("gone"))
            }
        }
        let folder = tempfile::tempdir().expect("a temporary folder");
        assert!(drop_with(folder.path(), "a.jsonl", &mut Broken, Some("")).is_err());
        assert_eq!(std::fs::read_dir(folder.path()).expect("listed").count(), 0);
    }
}
