//! The only call to the system clock.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::engine::Millis;

/// Tells the time. Everything that wants to know it is handed one of these.
pub trait Clock: Send + Sync {
    /// Milliseconds since the Unix epoch, UTC.
    fn now(&self) -> Millis;
}

/// The clock of this machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the system clock")]
    fn now(&self) -> Millis {
        // A clock before 1970 reads as 1970: nothing is old then, and nothing expires.
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }
}
