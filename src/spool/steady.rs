//! A file that is synced piece by piece while it is being written.
//!
//! The disk begins at once instead of when all is written, so that the last sync, the only one
//! that promises anything, has little left to wait for.

use std::fs::File;
use std::io::{self, IoSlice, Write};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

/// A file under way to the disk.
pub struct SteadyFile {
    file: File,
    /// Bytes written since a sync was last asked for.
    since: u64,
    syncer: Option<Syncer>,
}

struct Syncer {
    ask: SyncSender<()>,
    thread: JoinHandle<io::Result<()>>,
}

impl SteadyFile {
    /// Writes to this file, from where it stands.
    pub fn new(file: File) -> SteadyFile {
        SteadyFile { file, since: 0, syncer: None }
    }

    /// Makes everything that was written durable.
    ///
    /// # Errors
    /// If anything could not be written back, now or at any time before.
    pub fn sync(&mut self) -> io::Result<()> {
        self.settle()?;
        self.since = 0;
        self.file.sync_all()
    }

    /// Waits for what is on its way to the disk. The system tells of each failure once, so whoever
    /// opens the file again after this one must know what the thread was told.
    ///
    /// # Errors
    /// If something could not be written back: nothing in the file is to be relied on then.
    pub fn settle(&mut self) -> io::Result<()> {
        let Some(Syncer { ask, thread }) = self.syncer.take() else { return Ok(()) };
        drop(ask);
        thread.join().map_err(|_| io::Error::other("the syncing thread failed"))?
    }

    fn wrote(&mut self, bytes: usize) -> io::Result<()> {
        self.since += bytes as u64;
        if self.since < STEP_BYTES {
            return Ok(());
        }
        let syncer = match self.syncer.take() {
            Some(syncer) => syncer,
            None => Syncer::start(self.file.try_clone()?)?,
        };
        // If the disk is still busy with the piece before, this one waits for the next turn.
        if syncer.ask.try_send(()).is_ok() {
            self.since = 0;
        }
        self.syncer = Some(syncer);
        Ok(())
    }
}

impl Syncer {
    fn start(file: File) -> io::Result<Syncer> {
        let (ask, asked) = sync_channel(1);
        let work = move || asked.iter().try_for_each(|()| file.sync_data());
        let thread = thread::Builder::new().name("sync".to_owned()).spawn(work)?;
        Ok(Syncer { ask, thread })
    }
}

impl Write for SteadyFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.wrote(count)?;
        Ok(count)
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        let count = self.file.write_vectored(parts)?;
        self.wrote(count)?;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Bytes after which the disk is asked to begin.
const STEP_BYTES: u64 = 32 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_synced_on_the_way_is_all_there() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("file");
        let mut file = SteadyFile::new(File::create(&path).expect("made"));
        let block = vec![7; 1 << 20];
        for _ in 0..((3 * STEP_BYTES) >> 20) {
            file.write_all(&block).expect("written");
        }
        file.sync().expect("synced");
        file.write_all(b"end").expect("written after a sync");
        file.sync().expect("synced again");
        assert_eq!(std::fs::metadata(&path).expect("there").len(), 3 * STEP_BYTES + 3);
    }
}
