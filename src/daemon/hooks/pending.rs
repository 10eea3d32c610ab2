//! What is still to be told, on the disk: one file in `state/hooks/` for each save.
//!
//! A file is there, synced, before the change that it tells of is saved, and goes when everybody has
//! been told of all that is in it. So an event can be told again after a crash, with its id, but is
//! never lost. What can not be read is put aside under another name, and told in the log.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde::{Deserialize, Serialize};

use super::message::Told;
use crate::daemon::failpoints;
use crate::engine::ids::Millis;
use crate::spool::{At, SpoolError, durable};

/// An event that is to be told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    /// When it happened, milliseconds since 1970.
    pub at: u64,
    /// What is told.
    pub told: Told,
}

/// Events that stand in one file, which goes with the last of them.
#[derive(Debug)]
pub struct Page {
    path: PathBuf,
    left: AtomicUsize,
}

impl Page {
    /// One of its events need not be told any more.
    pub fn settle_one(&self) {
        if self.left.fetch_sub(1, Ordering::AcqRel) == 1
            && let Err(error) = fs::remove_file(&self.path)
        {
            // It is told again after the next start; whoever hears it knows it by its id.
            tracing::warn!(%error, file = %self.path.display(), "what was told could not be removed");
        }
    }
}

/// The files.
#[derive(Debug)]
pub struct Pages {
    folder: PathBuf,
    /// Sets apart what is written in one millisecond.
    written: u64,
}

impl Pages {
    /// The files of a state folder.
    pub fn of(state: &Path) -> Pages {
        Pages { folder: state.join("hooks"), written: 0 }
    }

    /// Writes events down, durably.
    ///
    /// # Errors
    /// If they can not be written or synced.
    pub fn write(&mut self, all: &[Pending], now: Millis) -> Result<Arc<Page>, SpoolError> {
        durable::make_folder(&self.folder)?;
        loop {
            self.written += 1;
            let name = format!("{:015}-{:04}.jsonl", now.0, self.written % 10_000);
            let path = self.folder.join(name);
            if durable::create(&path, &text_of(all))? == durable::Moved::Now {
                failpoints::hooks_noted().at("note", &path)?;
                return Ok(Arc::new(Page { path, left: AtomicUsize::new(all.len()) }));
            }
        }
    }

    /// What an earlier run left, oldest first.
    pub fn read(&self) -> Vec<(Arc<Page>, Vec<Pending>)> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
        paths.retain(|path| path.extension().is_some_and(|ending| ending == "jsonl"));
        paths.retain(|path| !hidden(path));
        paths.sort();
        paths.into_iter().filter_map(|path| read(path).transpose()).filter_map(told).collect()
    }
}

fn hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
}

fn text_of(all: &[Pending]) -> Vec<u8> {
    let mut text = Vec::new();
    for pending in all {
        serde_json::to_writer(&mut text, pending).expect("texts and numbers always make JSON");
        text.push(b'\n');
    }
    text
}

type Read = (Arc<Page>, Vec<Pending>);

/// The events of a file; `None` if there is none in it.
fn read(path: PathBuf) -> Result<Option<Read>, SpoolError> {
    let text = fs::read(&path).at("read", &path)?;
    let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let all: Result<Vec<Pending>, _> = lines.map(serde_json::from_slice).collect();
    match all {
        Ok(all) if !all.is_empty() => {
            let left = AtomicUsize::new(all.len());
            Ok(Some((Arc::new(Page { path, left }), all)))
        }
        Ok(_) => fs::remove_file(&path).at("remove", &path).map(|()| None),
        Err(error) => {
            let aside = path.with_extension("unreadable");
            tracing::error!(%error, file = %aside.display(), "what was to be told can not be read");
            durable::rename(&path, &aside).map(|()| None)
        }
    }
}

fn told(read: Result<Read, SpoolError>) -> Option<Read> {
    read.inspect_err(|error| tracing::error!(%error, "what was to be told was not read")).ok()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "a test damages files")]

    use super::*;
    use crate::config::Occasion;

    fn pending(id: &str) -> Pending {
        let told = Told::new(Occasion::Done, id.to_owned(), Millis(5), "all".to_owned());
        Pending { at: 5, told }
    }

    #[test]
    fn a_file_goes_with_the_last_of_its_events_and_is_read_again_until_then() {
        let state = tempfile::tempdir().expect("a temporary folder");
        let mut pages = Pages::of(state.path());
        let first = [pending("a"), pending("b")];
        let page = pages.write(&first, Millis(7)).expect("written");
        let other = pages.write(&[pending("c")], Millis(7)).expect("written");
        page.settle_one();
        let again: Vec<Vec<Pending>> =
            Pages::of(state.path()).read().into_iter().map(|(_, all)| all).collect();
        assert_eq!(again, [first.to_vec(), vec![pending("c")]]);
        page.settle_one();
        other.settle_one();
        assert!(Pages::of(state.path()).read().is_empty());
        // A new process does not write over what the former one left.
        let kept = Pages::of(state.path()).write(&first, Millis(7)).expect("written");
        Pages::of(state.path()).write(&first, Millis(7)).expect("written");
        assert_eq!(Pages::of(state.path()).read().len(), 2);
        drop(kept);
    }

    #[test]
    fn what_can_not_be_read_is_put_aside_and_holds_up_nothing() {
        let state = tempfile::tempdir().expect("a temporary folder");
        let mut pages = Pages::of(state.path());
        pages.write(&[pending("a")], Millis(7)).expect("written");
        std::fs::write(state.path().join("hooks/000.jsonl"), "{\"at\":").expect("damaged");
        assert_eq!(pages.read().len(), 1);
        assert!(state.path().join("hooks/000.unreadable").exists());
    }
}
