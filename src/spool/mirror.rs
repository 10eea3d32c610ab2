//! The mirror of a job's records in its working folder, from which a lost store is rebuilt.
//!
//! The store is the truth and is saved first; the mirror may lag by one change. It is replaced
//! by rename, so a reader finds the old or the new one, but it is not synced: after a power cut
//! it may be torn, and is then written again from the store. Mirrors change often and live for a
//! short time, so two files take turns: making and removing one each time costs more than writing.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::{At, JobFolder, SpoolError};
use crate::engine::ids::ChunkNo;

/// Replaces the mirror of a job.
///
/// # Errors
/// If it can not be written; the older mirror is untouched then.
pub fn write(folder: &JobFolder, record_json: &[u8]) -> Result<(), SpoolError> {
    put(&folder.record(), record_json)
}

/// Replaces the mirror of a job together with those of its chunks, whatever they say.
///
/// # Errors
/// If it can not be written, or the others not be removed.
pub fn write_anew(folder: &JobFolder, record_json: &[u8]) -> Result<(), SpoolError> {
    put(&folder.record(), record_json)?;
    let chunks = folder.path.join("chunks");
    match fs::remove_dir_all(&chunks) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).at("remove", &chunks),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Replaces the mirror of one chunk of a job that has too many of them to mirror all each time.
///
/// # Errors
/// If it can not be written; the older mirror is untouched then.
pub fn write_chunk(folder: &JobFolder, chunk: ChunkNo, record: &[u8]) -> Result<(), SpoolError> {
    let path = folder.chunk_record(chunk);
    if let Some(parent) = path.parent().filter(|parent| !parent.is_dir()) {
        fs::create_dir(parent).at("create folder", parent)?;
    }
    put(&path, record)
}

/// The mirrors of single chunks, in no order.
///
/// # Errors
/// If they can not be read.
pub fn read_chunks(folder: &JobFolder) -> Result<Vec<Vec<u8>>, SpoolError> {
    let path = folder.path.join("chunks");
    let entries = match fs::read_dir(&path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).at("list", &path),
    };
    let mut records = Vec::new();
    for entry in entries {
        let path = entry.at("list", &path)?.path();
        if path.extension().is_some_and(|ending| ending == "json") {
            records.push(fs::read(&path).at("read", &path)?);
        }
    }
    Ok(records)
}

#[expect(
    clippy::disallowed_methods,
    reason = "a mirror may lag, so it is not worth the syncs that every durable rename makes"
)]
fn put(path: &Path, record_json: &[u8]) -> Result<(), SpoolError> {
    let aside = path.with_extension("json.aside");
    if let Err(error) = write_over(&aside, record_json) {
        drop(fs::remove_file(&aside));
        return Err(error).at("write", &aside);
    }
    // The first time there is nothing to exchange; some file systems can not do it at all.
    if renameat_with(CWD, &aside, CWD, path, RenameFlags::EXCHANGE).is_ok() {
        return Ok(());
    }
    fs::rename(&aside, path).at("rename to", path)
}

/// Not truncated first: file systems take that for the replacement of a precious file, and write
/// it out at once.
fn write_over(path: &Path, content: &[u8]) -> io::Result<()> {
    let file = File::options().write(true).create(true).truncate(false).open(path)?;
    file.write_all_at(content, 0)?;
    let len = content.len() as u64;
    if file.metadata()?.len() == len { Ok(()) } else { file.set_len(len) }
}

/// Reads the mirror of a job; `None` if there is none. What is read may be torn.
///
/// # Errors
/// If it can not be read, or is larger than a mirror of ours ever gets.
pub fn read(folder: &JobFolder) -> Result<Option<Vec<u8>>, SpoolError> {
    let path = folder.record();
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).at("read", &path),
    };
    let mut bytes = Vec::new();
    file.take(BYTES_MAX + 1).read_to_end(&mut bytes).at("read", &path)?;
    if bytes.len() as u64 > BYTES_MAX {
        let text = "it is larger than 64 MiB, so it is none of ours";
        return Err(io::Error::new(io::ErrorKind::InvalidData, text)).at("use", &path);
    }
    Ok(Some(bytes))
}

/// Largest mirror read, bytes.
const BYTES_MAX: u64 = 64 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_mirror_written_is_the_one_read_however_long_those_before_were() {
        let temp = tempfile::tempdir().expect("a temporary folder");
        let folder = JobFolder { path: temp.path().to_owned() };
        assert_eq!(read(&folder).expect("asked"), None);
        for record in [&b"{\"a\":1}"[..], b"{}", b"{\"b\":22}", b"[]", b"[1]"] {
            write(&folder, record).expect("written");
            assert_eq!(read(&folder).expect("read").as_deref(), Some(record));
        }
        assert_eq!(fs::read_dir(temp.path()).expect("listed").count(), 2);
    }

    /// Fault 27.
    #[test]
    fn a_mirror_that_can_not_be_written_leaves_an_error() {
        let temp = tempfile::tempdir().expect("a temporary folder");
        let folder = JobFolder { path: temp.path().join("gone") };
        assert!(write(&folder, b"{}").is_err());
    }
}
