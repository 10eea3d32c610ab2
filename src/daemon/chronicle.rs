//! The record of events: what has happened, for people who ask later or follow.
//!
//! The newest are kept in memory, and all of the last while in `state/events.jsonl`, so that they
//! can be read after a restart too. It is a convenience and never a truth: nothing is decided by it,
//! nothing is synced, and what can not be written is told once and otherwise left out.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::broadcast;

use crate::engine::ids::{JobId, Millis};
use crate::spool::durable;
use crate::view::{Event, EventFilter, EventList, Kind, VERSION, moment};

/// An event before it has a number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    /// The job it happened to.
    pub job: Option<JobId>,
    /// The job's input.
    pub file: Option<String>,
    /// What happened.
    pub kind: Kind,
    /// The same in words.
    pub text: String,
}

/// The record of events.
#[derive(Debug)]
pub struct Chronicle {
    pages: Mutex<Pages>,
    live: broadcast::Sender<Arc<Event>>,
}

#[derive(Debug)]
struct Pages {
    /// The newest events, oldest first.
    kept: VecDeque<Arc<Event>>,
    /// The number of the newest event there ever was.
    last: u64,
    /// Events since the start.
    noted: u64,
    folder: PathBuf,
    file: Option<File>,
    /// Bytes of the file.
    bytes: u64,
    /// The file may end within a line.
    torn: bool,
    /// It was told that the file can not be written.
    told: bool,
}

impl Draft {
    /// Something that happened to the daemon as a whole.
    pub fn of_daemon(kind: Kind, text: impl Into<String>) -> Draft {
        Draft { job: None, file: None, kind, text: text.into() }
    }
}

impl Chronicle {
    /// Goes on with what is recorded in the state folder; what can not be read is left out.
    pub fn open(state: &Path) -> Chronicle {
        let mut kept = VecDeque::new();
        for name in [FORMER, CURRENT] {
            match read_end(&state.join(name)) {
                Ok(events) => kept.extend(events.into_iter().map(Arc::new)),
                Err(error) => tracing::warn!(file = name, %error, "events were not read"),
            }
        }
        // Numbers only rise: what does not fit came from elsewhere.
        let mut last = 0;
        kept.retain(|event: &Arc<Event>| {
            let fits = event.seq > last;
            last = last.max(event.seq);
            fits
        });
        kept.drain(..kept.len().saturating_sub(KEPT_MAX));
        let pages = Pages {
            kept,
            last,
            noted: 0,
            folder: state.to_owned(),
            file: None,
            bytes: 0,
            torn: false,
            told: false,
        };
        let (live, _) = broadcast::channel(LIVE_MAX);
        Chronicle { pages: Mutex::new(pages), live }
    }

    /// Notes what happened at this moment.
    pub fn note(&self, now: Millis, drafts: Vec<Draft>) {
        if drafts.is_empty() {
            return;
        }
        let (mut pages, time) = (self.pages(), moment(now));
        let mut text = Vec::new();
        for draft in drafts {
            pages.last += 1;
            pages.noted += 1;
            let event = Arc::new(Event {
                seq: pages.last,
                time: time.clone(),
                job: draft.job.map(|job| job.to_string()),
                file: draft.file,
                kind: draft.kind.word().to_owned(),
                text: draft.text,
            });
            serde_json::to_writer(&mut text, event.as_ref()).expect("an event is plain text");
            text.push(b'\n');
            if pages.kept.len() >= KEPT_MAX {
                pages.kept.pop_front();
            }
            pages.kept.push_back(Arc::clone(&event));
            // Nobody may be following.
            drop(self.live.send(event));
        }
        match pages.write(&text) {
            Ok(()) => pages.told = false,
            Err(error) if !pages.told => {
                pages.told = true;
                tracing::warn!(%error, "events are not written to {CURRENT}");
            }
            Err(_) => {}
        }
    }

    /// What has happened, as far as it is wanted and kept.
    pub fn list(&self, filter: &EventFilter) -> EventList {
        let pages = self.pages();
        let is_wanted = |event: &&Arc<Event>| {
            let of_job =
                |prefix: &String| event.job.as_ref().is_some_and(|job| job.starts_with(prefix));
            filter.job.as_ref().is_none_or(of_job)
        };
        let all = |event: &Arc<Event>| event.as_ref().clone();
        let Some(after) = filter.after else {
            let newest = pages.kept.iter().rev().filter(is_wanted).take(filter.limit);
            let mut events: Vec<Event> = newest.map(all).collect();
            events.reverse();
            return EventList { version: VERSION, events, next: pages.last };
        };
        let from = pages.kept.partition_point(|event| event.seq <= after);
        let wanted = pages.kept.range(from..).filter(is_wanted).take(filter.limit);
        let events: Vec<Event> = wanted.map(all).collect();
        let next = match events.last() {
            Some(last) if events.len() == filter.limit => last.seq,
            Some(_) | None => pages.last,
        };
        EventList { version: VERSION, events, next }
    }

    /// What happens from now on. One who reads too slowly misses some, and is told so.
    pub fn follow(&self) -> broadcast::Receiver<Arc<Event>> {
        self.live.subscribe()
    }

    /// Events since the start.
    pub fn noted(&self) -> u64 {
        self.pages().noted
    }

    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pages {
    fn write(&mut self, text: &[u8]) -> io::Result<()> {
        if self.bytes > FILE_BYTES_MAX {
            self.file = None;
            let (current, former) = (self.folder.join(CURRENT), self.folder.join(FORMER));
            durable::rename_unsynced(&current, &former).map_err(io::Error::other)?;
        }
        if self.file.is_none() {
            self.open()?;
        }
        let Some(file) = &mut self.file else { return Ok(()) };
        let whole;
        let text = match self.torn {
            true => {
                whole = [b"\n", text].concat();
                &whole
            }
            false => text,
        };
        let written = file.write_all(text);
        self.torn = written.is_err();
        self.bytes += text.len() as u64;
        written
    }

    fn open(&mut self) -> io::Result<()> {
        let path = self.folder.join(CURRENT);
        let mut options = OpenOptions::new();
        let mut file = options.read(true).append(true).create(true).mode(0o640).open(path)?;
        self.bytes = file.seek(SeekFrom::End(0))?;
        self.torn = false;
        if self.bytes > 0 {
            let mut end = [0];
            file.seek(SeekFrom::End(-1))?;
            file.read_exact(&mut end)?;
            self.torn = end != *b"\n";
        }
        self.file = Some(file);
        Ok(())
    }
}

/// The events at the end of a file; lines that are none are left out.
fn read_end(path: &Path) -> io::Result<Vec<Event>> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let length = file.seek(SeekFrom::End(0))?;
    file.seek(SeekFrom::Start(length.saturating_sub(READ_BYTES_MAX)))?;
    let mut bytes = Vec::new();
    file.take(READ_BYTES_MAX).read_to_end(&mut bytes)?;
    let lines = bytes.split(|byte| *byte == b'\n');
    Ok(lines.filter_map(|line| serde_json::from_slice(line).ok()).collect())
}

/// The file that is written.
const CURRENT: &str = "events.jsonl";
/// The one before it.
const FORMER: &str = "events.1.jsonl";
/// Events in memory.
const KEPT_MAX: usize = 10_000;
/// Events that one who follows may be behind.
const LIVE_MAX: usize = 1024;
/// A larger file is put aside.
const FILE_BYTES_MAX: u64 = 8 << 20;
/// Bytes of a file that are read at the start: those of the events kept in memory.
const READ_BYTES_MAX: u64 = 3 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "01JD0000000000000000000001";

    fn draft(text: &str) -> Draft {
        let job = text.starts_with("job").then(|| ID.parse().expect("an id"));
        Draft { job, file: None, kind: Kind::Planned, text: text.to_owned() }
    }

    fn texts(list: &EventList) -> Vec<&str> {
        list.events.iter().map(|event| event.text.as_str()).collect()
    }

    fn filter(after: Option<u64>, job: Option<&str>, limit: usize) -> EventFilter {
        EventFilter { after, job: job.map(str::to_owned), limit }
    }

    #[test]
    fn events_are_listed_by_number_and_by_job_and_survive_a_restart() {
        let state = tempfile::tempdir().expect("a temporary folder");
        let chronicle = Chronicle::open(state.path());
        chronicle.note(Millis(0), vec![draft("a"), draft("job b")]);
        chronicle.note(Millis(1000), vec![draft("c"), draft("job d")]);
        let again = Chronicle::open(state.path());
        for chronicle in [&chronicle, &again] {
            let newest = chronicle.list(&filter(None, None, 3));
            assert_eq!((texts(&newest), newest.next), (vec!["job b", "c", "job d"], 4));
            let first = chronicle.list(&filter(Some(0), None, 3));
            assert_eq!((texts(&first), first.next), (vec!["a", "job b", "c"], 3));
            let rest = chronicle.list(&filter(Some(3), None, 3));
            assert_eq!((texts(&rest), rest.next), (vec!["job d"], 4));
            let of_job = chronicle.list(&filter(Some(0), Some("01JD"), 9));
            assert_eq!((texts(&of_job), of_job.next), (vec!["job b", "job d"], 4));
            let beyond = chronicle.list(&filter(Some(99), None, 3));
            assert_eq!((texts(&beyond), beyond.next), (vec![], 4));
        }
        again.note(Millis(2000), vec![draft("e")]);
        assert_eq!(again.list(&filter(Some(4), None, 3)).events[0].seq, 5);
        assert_eq!((chronicle.noted(), again.noted()), (4, 1));
    }

    #[test]
    fn a_line_torn_by_a_crash_costs_no_other() {
        let state = tempfile::tempdir().expect("a temporary folder");
        Chronicle::open(state.path()).note(Millis(0), vec![draft("a"), draft("b")]);
        let path = state.path().join(CURRENT);
        let length = std::fs::metadata(&path).expect("there").len();
        let file = OpenOptions::new().write(true).open(&path).expect("opened");
        file.set_len(length - 5).expect("torn");
        let chronicle = Chronicle::open(state.path());
        chronicle.note(Millis(0), vec![draft("c")]);
        let again = Chronicle::open(state.path());
        assert_eq!(texts(&again.list(&filter(None, None, 9))), ["a", "c"]);
    }

    #[test]
    fn a_full_file_is_put_aside_and_both_are_read() {
        let state = tempfile::tempdir().expect("a temporary folder");
        let chronicle = Chronicle::open(state.path());
        let long = "x".repeat(1 << 20);
        for _ in 0..10 {
            chronicle.note(Millis(0), vec![draft(&long)]);
        }
        chronicle.note(Millis(0), vec![draft("last")]);
        assert!(state.path().join(FORMER).exists());
        let again = Chronicle::open(state.path());
        assert_eq!(again.list(&filter(None, None, 1)).events[0].text, "last");
        assert!(again.list(&filter(None, None, 9)).events.len() > 2);
    }

    #[test]
    fn what_can_not_be_written_is_kept_in_memory_all_the_same() {
        let state = tempfile::tempdir().expect("a temporary folder");
        std::fs::create_dir(state.path().join(CURRENT)).expect("made in the way");
        let chronicle = Chronicle::open(state.path());
        chronicle.note(Millis(0), vec![draft("a")]);
        assert_eq!(texts(&chronicle.list(&filter(None, None, 9))), ["a"]);
    }
}
