//! Log lines on their way to a standard error that may be slow, blocked or closed.
//!
//! Whoever logs never waits: lines go into a queue of at most 1 MiB, and a thread of its own writes
//! them. What does not fit is dropped and counted, and the count is told in the log as soon as
//! there is one again. Errors of writing end nothing: a log that nobody reads is no reason to stop.

use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tracing_subscriber::fmt::MakeWriter;

/// The way to standard error; clones lead to the same.
#[derive(Debug, Clone, Default)]
pub struct Outlet {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    /// Whole lines.
    text: Vec<u8>,
    /// Lines for which there was no room since the last ones were written.
    dropped: u64,
    /// A part of what was queued is being written.
    writing: bool,
}

impl Outlet {
    /// Begins to write to `to`.
    ///
    /// # Errors
    /// If there can be no thread for it.
    pub fn open(to: impl Write + Send + 'static) -> io::Result<Outlet> {
        let outlet = Outlet::default();
        let writer = outlet.clone();
        thread::Builder::new().name("log".to_owned()).spawn(move || writer.write_on(to))?;
        Ok(outlet)
    }

    /// Waits until everything is written, but not for longer than `limit`; tells whether it is.
    pub fn flush(&self, limit: Duration) -> bool {
        let begun = Instant::now();
        let mut queue = self.shared.queue();
        while queue.writing || !queue.text.is_empty() {
            let left = limit.saturating_sub(begun.elapsed());
            if left.is_zero() {
                return false;
            }
            let waited = self.shared.changed.wait_timeout(queue, left);
            queue = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// Takes a line, or drops it.
    fn put(&self, line: &[u8]) {
        let mut queue = self.shared.queue();
        if queue.text.len() + line.len() > QUEUE_BYTES {
            queue.dropped += 1;
            return;
        }
        queue.text.extend_from_slice(line);
        self.shared.changed.notify_all();
    }

    fn write_on(&self, mut to: impl Write) {
        loop {
            let (text, dropped) = self.take();
            write_patiently(&mut to, &text);
            let mut queue = self.shared.queue();
            queue.writing = false;
            self.shared.changed.notify_all();
            drop(queue);
            if dropped > 0 {
                tracing::warn!(dropped, "log lines were dropped here: nobody took them");
            }
        }
    }

    /// Waits for lines; with them comes how many were dropped after them.
    fn take(&self) -> (Vec<u8>, u64) {
        let mut queue = self.shared.queue();
        while queue.text.is_empty() {
            queue = self.shared.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        queue.writing = true;
        (std::mem::take(&mut queue.text), std::mem::take(&mut queue.dropped))
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        // A thread that panicked while it held the queue left whole lines in it.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<'a> MakeWriter<'a> for Outlet {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line { outlet: self, text: Vec::new() }
    }
}

/// One line being written; it is queued as a whole, so that none is ever cut in two.
#[derive(Debug)]
pub struct Line<'a> {
    outlet: &'a Outlet,
    text: Vec<u8>,
}

impl Write for Line<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        if !self.text.is_empty() {
            self.outlet.put(&self.text);
        }
    }
}

/// Writes a text, also to a pipe that says that it is full instead of waiting. What can not be
/// written at all is lost.
fn write_patiently(to: &mut impl Write, mut text: &[u8]) {
    while !text.is_empty() {
        match to.write(text) {
            Ok(0) => return,
            Ok(count) => text = &text[count..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::sleep(FULL_PAUSE),
            Err(_) => return,
        }
    }
}

/// Text that waits to be written, at most, bytes.
const QUEUE_BYTES: usize = 1 << 20;
/// The pause after a writer said that it has no room.
const FULL_PAUSE: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

    use super::*;

    /// A pipe in which nothing fits that nobody takes out.
    struct Blocked(SyncSender<Vec<u8>>);

    impl Write for Blocked {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.send(bytes.to_vec()).map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn blocked() -> (Outlet, Receiver<Vec<u8>>) {
        let (sender, receiver) = sync_channel(0);
        (Outlet::open(Blocked(sender)).expect("a thread"), receiver)
    }

    fn log(outlet: &Outlet, text: &str) {
        outlet.make_writer().write_all(text.as_bytes()).expect("never fails");
    }

    /// Fault 86.
    #[test]
    fn whoever_logs_does_not_wait_for_a_log_that_nobody_reads() {
        let (outlet, receiver) = blocked();
        let line = "x".repeat(1023) + "\n";
        log(&outlet, &line);
        while !outlet.shared.queue().writing {
            thread::yield_now();
        }
        for _ in 1..4096 {
            log(&outlet, &line);
        }
        let dropped = outlet.shared.queue().dropped;
        assert_eq!(dropped, 4096 - 1 - 1024, "all but what is being written and what is queued");
        let mut read = 0;
        while read + dropped < 4096 {
            let text = receiver.recv().expect("it is written on");
            assert!(text.len() <= QUEUE_BYTES, "memory is bounded");
            assert!(text.ends_with(b"\n"), "only whole lines");
            read += text.len() as u64 / 1024;
        }
        assert!(outlet.flush(Duration::from_secs(60)));
        assert_eq!(read + dropped, 4096);
    }

    /// Fault 86.
    #[test]
    fn a_closed_log_is_no_error() {
        let (outlet, receiver) = blocked();
        drop(receiver);
        for _ in 0..10 {
            log(&outlet, "nobody reads this\n");
            assert!(outlet.flush(Duration::from_secs(60)));
        }
        let queue = outlet.shared.queue();
        assert!(queue.text.is_empty() && queue.dropped == 0);
    }

    #[test]
    fn lines_come_out_whole_and_in_order() {
        let (outlet, receiver) = blocked();
        let expected: String = (0..100).map(|n| format!("line {n}\n")).collect();
        expected.split_inclusive('\n').for_each(|line| log(&outlet, line));
        let mut text = Vec::new();
        while text.len() < expected.len() {
            text.extend(receiver.recv().expect("it is written on"));
        }
        assert_eq!(String::from_utf8(text).expect("UTF-8"), expected);
    }
}
