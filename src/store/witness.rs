//! A count of saves, kept outside the store.
//!
//! It is written after each save and never synced, so it may be behind what is durable, never
//! ahead of it; after a crash without a power cut it is exact. A store with fewer saves than its
//! witness has lost some. The file is one line of fixed length, so it is never torn.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::StoreError;
use super::open::{SCHEMA, io_error};

/// Counts the saves of a store from outside it.
#[derive(Debug)]
pub(super) struct Witness {
    file: File,
    /// The count when it was opened.
    pub saves: u64,
}

impl Witness {
    /// Where the witness of a store's folder lies: `jobs.sled.saves` for `jobs.sled`.
    pub fn beside(folder: &Path) -> PathBuf {
        let mut path = folder.as_os_str().to_owned();
        path.push(".saves");
        path.into()
    }

    /// Opens the witness of a store's folder, or makes one that has seen nothing.
    pub fn open(folder: &Path) -> Result<Witness, StoreError> {
        let path = Witness::beside(folder);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let file = options.open(&path).map_err(io_error("open", &path))?;
        let mut text = Vec::new();
        (&file).take(LINE_MAX).read_to_end(&mut text).map_err(io_error("read", &path))?;
        // After a power cut the file may be there without its content.
        if text.iter().all(|byte| *byte == 0) {
            return Ok(Witness { file, saves: 0 });
        }
        match Witness::parse(&text) {
            Some((schema, saves)) if schema <= SCHEMA => Ok(Witness { file, saves }),
            Some((found, _)) => {
                Err(StoreError::Newer { path: folder.to_owned(), found, known: SCHEMA })
            }
            None => Err(StoreError::NoCount { path }),
        }
    }

    /// The number of the save after `saves`; beyond all that was ever seen here.
    pub fn after(&self, saves: u64) -> u64 {
        saves.max(self.saves).saturating_add(1)
    }

    /// Notes that this many saves are durable.
    pub fn write(&self, saves: u64) -> io::Result<()> {
        self.file.write_all_at(format!("schema {SCHEMA:03} saves {saves:020}\n").as_bytes(), 0)
    }

    /// Makes the file itself durable, once after it was made.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_all()
    }

    fn parse(text: &[u8]) -> Option<(u64, u64)> {
        let text = std::str::from_utf8(text).ok()?.strip_prefix("schema ")?;
        let (schema, saves) = text.strip_suffix('\n')?.split_once(" saves ")?;
        Some((schema.parse().ok()?, saves.parse().ok()?))
    }
}

/// More than a witness ever holds, bytes.
const LINE_MAX: u64 = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_that_is_no_count_stops_the_start() {
        let state = tempfile::tempdir().expect("a temporary folder");
        let folder = state.path().join("jobs.sled");
        for (content, saves) in [(&b""[..], Some(0)), (&[0; 36], Some(0)), (b"nonsense", None)] {
            let file = File::create(Witness::beside(&folder)).expect("created");
            file.write_all_at(content, 0).expect("written");
            assert_eq!(Witness::open(&folder).map(|w| w.saves).ok(), saves);
        }
        let refused = Witness::open(&folder);
        assert!(matches!(refused, Err(StoreError::NoCount { .. })), "{refused:?}");
    }

    #[test]
    fn what_a_witness_wrote_it_reads_again() {
        let state = tempfile::tempdir().expect("a temporary folder");
        let folder = state.path().join("jobs.sled");
        for saves in [7, u64::MAX] {
            Witness::open(&folder).expect("open").write(saves).expect("written");
            assert_eq!(Witness::open(&folder).expect("open").saves, saves);
        }
        assert!(state.path().join("jobs.sled.saves").exists());
    }
}
