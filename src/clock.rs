//! The only call to the system clock.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::engine::Millis;

/// Tells the time. Everything that wants to know it is handed one of these.
pub trait Clock: Send + Sync {
    /// Milliseconds since the Unix epoch, UTC.
    fn now(&self) -> Millis;

    /// How long to wait until a span of its time has passed.
    fn wait(&self, span_ms: u64) -> Duration {
        Duration::from_millis(span_ms)
    }
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

/// A clock that shows a night within a minute: it begins at any moment and goes faster.
#[derive(Debug, Clone, Copy)]
pub struct FastClock {
    start: Millis,
    begun: Instant,
    factor: u32,
}

impl FastClock {
    /// It shows `start` now, and goes `factor` times as fast as others; at least once.
    pub fn new(start: Millis, factor: u32) -> FastClock {
        FastClock { start, begun: Instant::now(), factor: factor.max(1) }
    }
}

impl Clock for FastClock {
    fn now(&self) -> Millis {
        let passed = self.begun.elapsed().saturating_mul(self.factor);
        self.start.plus(u64::try_from(passed.as_millis()).unwrap_or(u64::MAX))
    }

    fn wait(&self, span_ms: u64) -> Duration {
        Duration::from_millis(span_ms) / self.factor
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fast_clock_is_where_it_should_be_after_each_wait() {
        let start = Millis(1_700_000_000_000);
        let clock = FastClock::new(start, 3600);
        assert_eq!(clock.wait(3_600_000), Duration::from_secs(1));
        let (one, other) = (clock.now(), clock.now());
        assert!(start <= one && one <= other);
        let late = FastClock { begun: clock.begun - Duration::from_secs(2), ..clock };
        assert!(late.now().since(start) >= 7_200_000);
        assert_eq!(FastClock::new(start, 0).wait(5), Duration::from_millis(5));
    }
}
