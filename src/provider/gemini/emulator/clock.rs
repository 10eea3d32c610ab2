//! The emulator's own time: it starts at a given moment and runs at a chosen speed.
//!
//! It follows tokio's clock, so that tests with paused time control it, and it can be moved
//! forward by hand. It never runs backwards.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

/// A clock that can be sped up and moved forward.
#[derive(Debug)]
pub struct Clock {
    start: Moment,
    began: Instant,
    speed: f64,
    jumped_ns: AtomicU64,
}

impl Clock {
    /// Starts at `start` (the system's time if `None`), running `speed` times as fast as real
    /// time; a speed that is negative or not a number counts as 0: the clock stands still.
    pub fn new(start: Option<SystemTime>, speed: f64) -> Clock {
        Clock {
            start: Moment::from_system(start.unwrap_or_else(system_now)),
            began: Instant::now(),
            speed: if speed.is_finite() { speed.max(0.0) } else { 0.0 },
            jumped_ns: AtomicU64::new(0),
        }
    }

    /// What the clock shows.
    pub fn now(&self) -> Moment {
        self.at(self.began.elapsed())
    }

    fn at(&self, elapsed: Duration) -> Moment {
        let ran = elapsed.as_nanos() as f64 * self.speed;
        let jumped = self.jumped_ns.load(Ordering::Relaxed);
        Moment(self.start.0.saturating_add(ran as u64).saturating_add(jumped))
    }

    /// Moves the clock forward.
    pub fn advance(&self, by: Duration) {
        self.jumped_ns.fetch_add(nanos(by), Ordering::Relaxed);
    }
}

/// A moment of virtual time, nanoseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(pub u64);

impl Moment {
    /// A moment that never comes.
    pub const NEVER: Moment = Moment(u64::MAX);

    /// The moment of a system time; 1970 for any time before.
    pub fn from_system(time: SystemTime) -> Moment {
        Moment(nanos(time.duration_since(UNIX_EPOCH).unwrap_or_default()))
    }

    /// The moment so much later; [`Moment::NEVER`] if it is beyond all bounds.
    pub fn after(self, duration: Duration) -> Moment {
        Moment(self.0.saturating_add(nanos(duration)))
    }

    /// Milliseconds since 1970.
    pub fn as_millis(self) -> u64 {
        self.0 / 1_000_000
    }
}

impl fmt::Display for Moment {
    /// RFC 3339 in UTC with nine digits, as the service writes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_nanosecond(i128::from(self.0)) {
            Ok(time) => write!(f, "{time:.9}"),
            Err(_) => f.write_str("9999-12-31T23:59:59.000000000Z"),
        }
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// The system's time.
#[expect(clippy::disallowed_methods, reason = "the emulator is a server with a clock of its own")]
pub fn system_now() -> SystemTime {
    SystemTime::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_runs_at_its_speed_and_can_be_moved() {
        let start = UNIX_EPOCH + Duration::from_secs(1_765_391_221);
        let clock = Clock::new(Some(start), 60.0);
        let after = |seconds| Moment::from_system(start).after(Duration::from_secs(seconds));
        assert_eq!(clock.at(Duration::from_secs(1)), after(60));
        clock.advance(Duration::from_secs(3600));
        assert_eq!(clock.at(Duration::from_secs(1)), after(3660));
        let still = Clock::new(Some(start), f64::NAN);
        assert_eq!(still.at(Duration::from_secs(1)), after(0));
    }

    #[test]
    fn moments_are_written_with_nine_digits() {
        assert_eq!(Moment(1_765_391_221_407_650_525).to_string(), "2025-12-10T18:27:01.407650525Z");
        assert_eq!(Moment(1_000_000_000).to_string(), "1970-01-01T00:00:01.000000000Z");
    }
}
