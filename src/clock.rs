//! The only call to the system clock.

use std::sync::{Mutex, MutexGuard, PoisonError};
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
#[derive(Debug)]
pub struct FastClock {
    course: Mutex<Course>,
}

/// What a fast clock does since its speed was set.
#[derive(Debug, Clone, Copy)]
struct Course {
    start: Millis,
    begun: Instant,
    speed: u32,
}

impl FastClock {
    /// It shows `start` now, and goes `speed` times as fast as others; at least once.
    pub fn new(start: Millis, speed: u32) -> FastClock {
        let course = Course { start, begun: Instant::now(), speed: speed.max(1) };
        FastClock { course: Mutex::new(course) }
    }

    /// Goes so many times as fast as others from now on; at least once.
    pub fn set_speed(&self, speed: u32) {
        let mut course = self.course();
        let start = course.now();
        *course = Course { start, begun: Instant::now(), speed: speed.max(1) };
    }

    fn course(&self) -> MutexGuard<'_, Course> {
        self.course.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Course {
    fn now(self) -> Millis {
        let passed = self.begun.elapsed().saturating_mul(self.speed);
        self.start.plus(u64::try_from(passed.as_millis()).unwrap_or(u64::MAX))
    }
}

impl Clock for FastClock {
    fn now(&self) -> Millis {
        self.course().now()
    }

    fn wait(&self, span_ms: u64) -> Duration {
        Duration::from_millis(span_ms) / self.course().speed
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
        clock.course().begun -= Duration::from_secs(2);
        let then = clock.now();
        assert!(then.since(start) >= 7_200_000);
        clock.set_speed(0);
        assert_eq!(clock.wait(5), Duration::from_millis(5), "no slower than others");
        assert!(clock.now() >= then, "and never back");
    }
}
