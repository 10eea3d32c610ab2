//! What happened when, in microseconds since 1970, to be compared with the clock of this machine.

use std::fmt::Write;
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

/// One thing that happened.
struct Entry {
    at_us: u64,
    what: &'static str,
    whom: String,
    number: u64,
}

/// All that happened.
#[derive(Default)]
pub struct Journal(Mutex<Vec<Entry>>);

impl Journal {
    /// Notes that something happens now.
    pub fn note(&self, what: &'static str, whom: &str, number: u64) {
        self.note_at(now_us(), what, whom, number);
    }

    /// Notes that something happened, or will, at a time.
    pub fn note_at(&self, at_us: u64, what: &'static str, whom: &str, number: u64) {
        let entry = Entry { at_us, what, whom: whom.to_owned(), number };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(entry);
    }

    /// The entries from the one with this number on, one a line: time, what, whom, number, with
    /// tabs between.
    pub fn text(&self, from: usize) -> String {
        let entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut text = String::new();
        for entry in entries.iter().skip(from) {
            let Entry { at_us, what, whom, number } = entry;
            writeln!(text, "{at_us}\t{what}\t{whom}\t{number}").expect("a String takes everything");
        }
        text
    }

    /// How many entries of a kind there are.
    pub fn count(&self, what: &str) -> usize {
        let entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        entries.iter().filter(|entry| entry.what == what).count()
    }
}

/// Microseconds since 1970.
pub fn now_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}
