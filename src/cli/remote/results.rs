//! `remote results`: the results of a batch, as the API has them.
//!
//! Promises: a file gets its name when it is whole and synced, and nothing is overwritten; what goes
//! to standard output is whole if the verb ends well. A download that breaks goes on where it broke,
//! where the API allows that. Nothing here judges the results.

use std::fs::{File, Permissions};
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::de::IgnoredAny;
use serde_json::json;
use tempfile::NamedTempFile;

use crate::engine::event;
use crate::engine::ids::BatchName;
use crate::provider::gemini::{Fetched, Results};
use crate::spool::durable::{self, Moved};
use crate::view::VERSION;

use super::super::{ExitCode, Failure, print_json};
use super::{Api, refused, words};

/// Downloads the results of a batch into a file, or to standard output.
///
/// # Errors
/// If the batch is not there or not over, the file is, or the results can not be had whole.
pub fn fetch(
    api: &Api,
    name: &BatchName,
    output: Option<&Path>,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let Some(path) = output else {
        // Past the lock that this thread holds, since the results come on others. Nothing was
        // written yet that could get into disorder.
        let handle = io::stdout().as_fd().try_clone_to_owned()?;
        download(api, name, Sink::new(File::from(handle), false))?;
        return Ok(());
    };
    let target = free(path)?;
    let aside = aside(&target).map_err(|error| not_written(path, error))?;
    let handle = aside.reopen().map_err(|error| not_written(path, error))?;
    let (fetched, sink) = download(api, name, Sink::new(handle, true))?;
    aside.as_file().sync_all().map_err(|error| not_written(path, error))?;
    match durable::move_file(aside.path(), &target)? {
        Moved::Now => {}
        Moved::Taken => return Err(taken(path)),
        Moved::NoSource => {
            let message = format!("the results of {} were taken away meanwhile", name.0);
            return Err(Failure::new(ExitCode::Failed, anyhow::Error::msg(message)));
        }
    }
    let (results, bytes) = (sink.lines, sink.written);
    if api.json {
        let said = json!({
            "version": VERSION, "batch": name.0, "state": fetched.remote.state.as_str(),
            "file": path.display().to_string(), "results": results, "bytes": bytes,
        });
        print_json(out, &said)?;
    } else {
        let (size, path) = (words::size(bytes), path.display());
        writeln!(out, "{results} results ({size}) written to {path}")?;
    }
    Ok(())
}

/// Fetches until the results are whole; what breaks is tried again a few times.
fn download(api: &Api, name: &BatchName, sink: Sink) -> Result<(Fetched, Sink), Failure> {
    let shared = Arc::new(Mutex::new(sink));
    let mut pause = api.config.api.backoff_min;
    let mut tries = 1;
    let fetched = loop {
        let fetched = api.block_on(api.client.fetch(name, &shared));
        if let Some(error) = lock(&shared).broken.take() {
            return Err(Failure::from(error).leading_to("the results cannot be written"));
        }
        match fetched {
            Err(event::Failure::Transient(why)) if tries < TRIES_MAX => {
                tracing::warn!(why, "the download broke; it is tried again");
                api.block_on(async { tokio::time::sleep(pause).await });
                pause = pause.saturating_mul(2).min(PAUSE_MAX);
                tries += 1;
            }
            fetched => break fetched.map_err(refused)?,
        }
    };
    let mut sink = lock(&shared).taken_out();
    sink.end().map_err(|error| Failure::from(error).leading_to("the results cannot be written"))?;
    Ok((fetched, sink))
}

/// Where results go.
struct Sink {
    /// `None` once it was taken out.
    to: Option<BufWriter<File>>,
    /// Whether what was written can be taken back.
    rewinds: bool,
    /// Bytes so far.
    written: u64,
    /// Whole lines so far.
    lines: u64,
    /// The last line, as long as its end has not come.
    tail: Vec<u8>,
    /// Why nothing more can be written.
    broken: Option<io::Error>,
}

impl Sink {
    fn new(file: File, rewinds: bool) -> Sink {
        let to = Some(BufWriter::with_capacity(256 * 1024, file));
        Sink { to, rewinds, written: 0, lines: 0, tail: Vec::new(), broken: None }
    }

    /// Everything that is there, leaving nothing.
    fn taken_out(&mut self) -> Sink {
        let empty = Sink { to: None, tail: Vec::new(), broken: None, ..*self };
        std::mem::replace(self, empty)
    }

    /// Gives the last line its end, and writes out what still waits.
    fn end(&mut self) -> io::Result<()> {
        if !self.tail.is_empty() {
            self.write(b"\n")?;
            self.note(b"\n");
        }
        self.to.as_mut().map_or(Ok(()), Write::flush)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.to {
            Some(to) => to.write_all(bytes),
            None => Err(io::Error::other("the download has ended")),
        }
    }

    fn note(&mut self, bytes: &[u8]) {
        self.written += bytes.len() as u64;
        self.lines += memchr::memchr_iter(b'\n', bytes).count() as u64;
        match memchr::memrchr(b'\n', bytes) {
            Some(end) => {
                self.tail.clear();
                self.tail.extend_from_slice(&bytes[end + 1..]);
            }
            None => self.tail.extend_from_slice(bytes),
        }
    }

    fn rewind(&mut self) -> io::Result<()> {
        if self.written == 0 {
            return Ok(());
        }
        if !self.rewinds {
            return Err(io::Error::other(
                "they have to begin anew, but the first of them are written; use -o FILE",
            ));
        }
        let Some(to) = &mut self.to else { return Ok(()) };
        to.flush()?;
        to.get_mut().set_len(0)?;
        to.seek(SeekFrom::Start(0))?;
        (self.written, self.lines) = (0, 0);
        self.tail.clear();
        Ok(())
    }

    /// Keeps an error, so that its kind is still known when it is told.
    fn keep<T>(&mut self, done: io::Result<T>) -> Result<T, event::Failure> {
        done.map_err(|error| {
            let message = error.to_string();
            self.broken = Some(error);
            event::Failure::Local(message)
        })
    }
}

impl Results for Sink {
    fn resume(&mut self) -> Result<u64, event::Failure> {
        Ok(self.written)
    }

    fn restart(&mut self) -> Result<(), event::Failure> {
        let done = self.rewind();
        self.keep(done)
    }

    fn take(&mut self, bytes: &[u8]) -> Result<(), event::Failure> {
        let done = self.write(bytes);
        self.keep(done)?;
        self.note(bytes);
        Ok(())
    }

    fn is_whole(&mut self) -> bool {
        self.tail.is_empty() || serde_json::from_slice::<IgnoredAny>(&self.tail).is_ok()
    }

    fn pause(&mut self) -> Result<(), event::Failure> {
        let done = self.to.as_mut().map_or(Ok(()), Write::flush);
        self.keep(done)
    }
}

fn lock(sink: &Mutex<Sink>) -> MutexGuard<'_, Sink> {
    sink.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The path as one that has a folder, if nothing has it yet.
fn free(path: &Path) -> Result<PathBuf, Failure> {
    let target = std::path::absolute(path).map_err(|error| not_written(path, error))?;
    match target.symlink_metadata() {
        Ok(_) => Err(taken(path)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(target),
        Err(error) => Err(not_written(path, error)),
    }
}

/// A hidden file beside the target, removed if it does not become that.
fn aside(target: &Path) -> io::Result<NamedTempFile> {
    let folder = target.parent().unwrap_or(Path::new("/"));
    tempfile::Builder::new()
        .prefix(".")
        .suffix(".aside")
        // As any file that a program writes: the umask decides.
        .permissions(Permissions::from_mode(0o666))
        .tempfile_in(folder)
}

fn taken(path: &Path) -> Failure {
    let message = format!("{} is there already; nothing is overwritten", path.display());
    Failure::new(ExitCode::Failed, anyhow::Error::msg(message)).with_remedy("choose another name")
}

fn not_written(path: &Path, error: io::Error) -> Failure {
    Failure::from(error).leading_to(format!("{} cannot be written", path.display()))
}

/// Downloads of one batch.
const TRIES_MAX: u32 = 6;
/// The longest pause between two of them.
const PAUSE_MAX: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    fn sink(rewinds: bool) -> (NamedTempFile, Sink) {
        let file = NamedTempFile::new().expect("a file");
        let handle = file.reopen().expect("opened");
        (file, Sink::new(handle, rewinds))
    }

    #[test]
    fn what_has_to_begin_anew_leaves_nothing_of_the_first_try() {
        let (file, mut sink) = sink(true);
        sink.take(b"{\"a\":1}\n{\"b").expect("taken");
        assert!(!sink.is_whole());
        assert_eq!(sink.resume(), Ok(11));
        sink.restart().expect("begun anew");
        sink.take(b"{\"c\":3}").expect("taken");
        assert!(sink.is_whole(), "the last line may lack its end");
        sink.end().expect("ended");
        assert_eq!((sink.lines, sink.written), (1, 8));
        assert_eq!(std::fs::read(file.path()).expect("read"), b"{\"c\":3}\n");
    }

    #[test]
    fn what_a_reader_has_got_already_can_not_be_taken_back() {
        let (_file, mut sink) = sink(false);
        sink.restart().expect("nothing was written yet");
        sink.take(b"{}\n").expect("taken");
        assert!(sink.restart().is_err());
        assert!(sink.broken.is_some());
    }
}
