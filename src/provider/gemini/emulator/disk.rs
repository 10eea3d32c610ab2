//! The bytes behind the server: uploads, rows and results, in a temporary folder of their own.
//!
//! Everything is streamed through buffers of 256 KiB. Files bear numbers, never a client's name.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use sha2::{Digest, Sha256};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;

use super::layer_rows;
use super::reply::StoreId;
use super::results::{self, Outcome};
use super::rows::{self, Survey};
use super::server::Work;
use crate::engine::job::Task;

/// The folder.
#[derive(Debug)]
pub struct Disk {
    folder: TempDir,
    next: AtomicU64,
    growing: Mutex<HashMap<StoreId, Arc<tokio::sync::Mutex<Growing>>>>,
    /// Whether bytes stay although their server does not need them any more.
    keeps_all: bool,
}

impl Disk {
    /// A new folder inside `parent`, or inside the system's folder for temporary files. It goes
    /// when the last user of the disk does.
    ///
    /// # Errors
    /// If it can not be made.
    pub fn new(parent: Option<&Path>, keeps_all: bool) -> io::Result<Disk> {
        let mut builder = tempfile::Builder::new();
        builder.prefix("gemini-emulator-");
        let folder = match parent {
            Some(parent) => builder.tempdir_in(parent)?,
            None => builder.tempdir()?,
        };
        Ok(Disk { folder, next: AtomicU64::new(1), growing: Mutex::default(), keeps_all })
    }

    /// A place for new bytes.
    pub fn fresh(&self) -> StoreId {
        StoreId(self.next.fetch_add(1, Ordering::Relaxed))
    }

    /// The file of some bytes.
    pub fn path(&self, store: StoreId) -> PathBuf {
        self.folder.path().join(format!("{}.bytes", store.0))
    }

    /// An upload that grows piece by piece; made empty when first asked for.
    ///
    /// # Errors
    /// If its file can not be made.
    pub fn growing(&self, store: StoreId) -> io::Result<Arc<tokio::sync::Mutex<Growing>>> {
        let mut growing = self.growing.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(upload) = growing.get(&store) {
            return Ok(Arc::clone(upload));
        }
        let file = tokio::fs::File::from_std(File::create_new(self.path(store))?);
        let writer = tokio::io::BufWriter::with_capacity(BUFFER_BYTES, file);
        let upload = Growing { writer, hash: Sha256::new() };
        let upload = Arc::new(tokio::sync::Mutex::new(upload));
        growing.insert(store, Arc::clone(&upload));
        Ok(upload)
    }

    /// An upload will not grow any more.
    pub fn grown(&self, store: StoreId) {
        self.growing.lock().unwrap_or_else(PoisonError::into_inner).remove(&store);
    }

    /// Removes bytes that nobody needs. What is gone already is no error.
    pub fn remove(&self, stores: &[StoreId]) {
        for store in stores {
            self.grown(*store);
            if self.keeps_all {
                continue;
            }
            match std::fs::remove_file(self.path(*store)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!(%error, "the emulator can not remove a file of its own");
                }
                Ok(()) | Err(_) => {}
            }
        }
    }

    /// Puts bytes aside.
    ///
    /// # Errors
    /// If they can not be written.
    pub fn save(&self, bytes: &[u8]) -> io::Result<StoreId> {
        let store = self.fresh();
        File::create_new(self.path(store))?.write_all(bytes)?;
        Ok(store)
    }

    /// See [`rows::survey`].
    ///
    /// # Errors
    /// If the rows can not be read.
    pub fn survey(
        &self,
        store: StoreId,
        check: Option<Task>,
        look_for: [Option<&str>; 2],
    ) -> io::Result<Survey> {
        rows::survey(self.reader(store)?, check, look_for)
    }

    /// See [`layer_rows::survey`].
    ///
    /// # Errors
    /// If the lines can not be read.
    pub fn survey_layer(
        &self,
        store: StoreId,
        task: Task,
        poison: Option<&str>,
    ) -> io::Result<layer_rows::Survey> {
        layer_rows::survey(self.reader(store)?, task, poison)
    }

    /// Writes the results of a batch.
    ///
    /// # Errors
    /// If the rows can not be read or the results not be written.
    pub fn write_results(&self, work: &Work) -> io::Result<(StoreId, u64, Outcome)> {
        let mut store = self.fresh();
        let writer = |store| -> io::Result<_> {
            Ok(BufWriter::with_capacity(BUFFER_BYTES, File::create_new(self.path(store))?))
        };
        let outcome = results::write(&work.recipe, self.reader(work.input)?, writer(store)?)?;
        if let Some(seed) = work.recipe.shuffled {
            let shuffled = self.fresh();
            results::shuffle(seed, self.reader(store)?, writer(shuffled)?)?;
            self.remove(&[store]);
            store = shuffled;
        }
        let bytes = std::fs::metadata(self.path(store))?.len();
        Ok((store, bytes, outcome))
    }

    /// Reads bytes from the first.
    ///
    /// # Errors
    /// If they are not there.
    pub fn reader(&self, store: StoreId) -> io::Result<BufReader<File>> {
        Ok(BufReader::with_capacity(BUFFER_BYTES, File::open(self.path(store))?))
    }

    /// Reads `len` bytes from `from` on.
    ///
    /// # Errors
    /// If they are not there.
    pub fn part(&self, store: StoreId, from: u64, len: u64) -> io::Result<io::Take<File>> {
        let mut file = File::open(self.path(store))?;
        file.seek(SeekFrom::Start(from))?;
        Ok(file.take(len))
    }
}

/// An upload that grows.
#[derive(Debug)]
pub struct Growing {
    writer: tokio::io::BufWriter<tokio::fs::File>,
    hash: Sha256,
}

impl Growing {
    /// Adds bytes at its end.
    ///
    /// # Errors
    /// If they can not be written.
    pub async fn add(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hash.update(bytes);
        self.writer.write_all(bytes).await
    }

    /// Hands everything to the system; the SHA-256 so far, lowercase hex.
    ///
    /// # Errors
    /// If it can not be written.
    pub async fn flush(&mut self) -> io::Result<String> {
        self.writer.flush().await?;
        let digest = self.hash.clone().finalize();
        Ok(digest.iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

/// Measured: smaller buffers cost time, larger ones win none.
pub const BUFFER_BYTES: usize = 256 << 10;
