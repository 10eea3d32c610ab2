//! One direction of a link with a fixed speed, shared by all connections.
//!
//! A token bucket without a bucket: each slice of bytes gets its time on the line, and whoever
//! sends or reads it waits until that time is over.

use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// See the module.
pub struct Link {
    /// Bytes a second; unlimited without.
    rate: Option<u64>,
    /// When the line is free again.
    free: Mutex<Instant>,
}

impl Link {
    /// A link that is free now.
    pub fn new(rate: Option<u64>) -> Link {
        Link { rate, free: Mutex::new(Instant::now()) }
    }

    /// Bytes that should pass at once.
    pub fn slice(&self) -> usize {
        match self.rate {
            Some(_) => LIMITED_SLICE,
            None => usize::MAX,
        }
    }

    /// Waits until `bytes` bytes have passed.
    pub fn pass(&self, bytes: usize) {
        let Some(rate) = self.rate else { return };
        let now = Instant::now();
        let takes = Duration::from_nanos(bytes as u64 * 1_000_000_000 / rate.max(1));
        let done = {
            let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
            // A line that was idle can not be used for the past, but for the grain of a sleep.
            *free = (*free).max(now - GRAIN) + takes;
            *free
        };
        if let Some(wait) = done.checked_duration_since(now).filter(|wait| *wait > GRAIN) {
            thread::sleep(wait);
        }
    }
}

/// Bytes that pass at once on a link with a limit: half a millisecond at 1 Gbit/s.
const LIMITED_SLICE: usize = 64 * 1024;
/// A sleep is not exact to this.
const GRAIN: Duration = Duration::from_micros(300);
