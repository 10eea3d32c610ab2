//! The numbers the engine decides by. Every one names its unit, and all of them shrink in tests.

use super::ids::Millis;
use super::job::{Queue, Rest, Transport};
use super::keys::Keys;
use super::lanes::{Lane, Size};
use super::money::Means;
use super::rescue::RescuePace;

/// Limits and delays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Batches that may be open at the API at once (API contract, section 8); a tenth of them is
    /// kept for small jobs.
    pub open_batches: usize,
    /// Bytes of uploaded files that may lie at the API at once; a hundredth is kept for small jobs.
    pub storage_bytes: u64,
    /// Uploads at a time, not counting one of a small job, which may go beside them.
    pub uploads: usize,
    /// A create request below this many bytes may carry its requests inline.
    pub inline_bytes: u64,
    /// Shortest pause between two looks at a batch, milliseconds.
    pub poll_min_ms: u64,
    /// Longest pause between two looks at a batch, milliseconds.
    pub poll_max_ms: u64,
    /// First pause after a failure, milliseconds.
    pub backoff_min_ms: u64,
    /// Longest pause after many failures, milliseconds.
    pub backoff_max_ms: u64,
    /// What to do when nobody knows whether a batch exists and it can not be found.
    pub uncertain: Uncertain,
    /// How long a batch is looked for before it counts as not created, milliseconds.
    pub uncertain_window_ms: u64,
    /// What to do with a file whose content was dropped before.
    pub duplicates: Duplicates,
    /// How long a finished job's content counts as dropped before, milliseconds.
    pub duplicate_window_ms: u64,
    /// How long records of finished jobs are kept, milliseconds.
    pub records_keep_ms: u64,
    /// Whether what is not needed any more is removed at the API.
    pub remote_cleanup: bool,
    /// How fast a rescue is thought to be.
    pub rescue: RescuePace,
    /// The API keys in use. What may be open or stored at the API is counted for each by itself.
    pub keys: Keys,
    /// Prices, budgets, and tokens that may be enqueued.
    pub means: Means,
}

/// What to do when a batch may have been created but is not found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Uncertain {
    /// Send it again.
    Resubmit,
    /// Wait for a person.
    Hold,
}

/// What to do with a file whose content was dropped before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Duplicates {
    /// Move it to `held/` with a pointer to the first.
    Hold,
    /// Process it like any other.
    Process,
}

impl Policy {
    /// The pause after the `failures`-th failure in a row, spread by `salt` so that units that
    /// failed together do not come back together.
    pub fn backoff_ms(&self, failures: u32, salt: u64) -> u64 {
        let doublings = failures.saturating_sub(1).min(20);
        let base = self.backoff_min_ms.saturating_mul(1 << doublings).min(self.backoff_max_ms);
        spread(base, salt ^ u64::from(failures))
    }

    /// When to look again at a batch of this age: after an eighth of it, within bounds, or up to
    /// half of that pause earlier, so that batches fall due together. One list shows them all,
    /// and costs the same however many of them are wanted.
    pub fn next_poll(&self, now: Millis, age_ms: u64) -> Millis {
        let pause = (age_ms / 8).clamp(self.poll_min_ms, self.poll_max_ms).max(2);
        let latest = now.plus(pause);
        // Powers of two, so that every moment of a coarse grid is one of each finer grid.
        let grid = 1 << (pause / 2).ilog2();
        Millis(latest.0 - latest.0 % grid)
    }

    /// The pause between two looks for a batch whose creation got no answer.
    pub fn probe_ms(&self) -> u64 {
        (self.uncertain_window_ms / 10).clamp(1, 30_000)
    }

    /// Whether these rows travel inside the create request.
    pub fn goes_inline(&self, queue: &Queue, rest: Rest) -> bool {
        let whole = rest.bytes() + rest.rows() * INLINE_EXTRA + INLINE_ENVELOPE;
        match queue.transport {
            Transport::Inline => true,
            Transport::File => false,
            Transport::Auto => whole <= self.inline_bytes,
        }
    }

    /// Batches that may be open at once for jobs that are not small.
    pub fn open_batches_of_others(&self) -> usize {
        self.open_batches - self.open_batches / 10
    }

    /// Bytes of files that may lie at the API for jobs that are not small.
    pub fn storage_bytes_of_others(&self) -> u64 {
        self.storage_bytes - self.storage_bytes / 100
    }

    /// The pause a server asked for, within reason: an absurd one is cut to an hour.
    pub fn honoured_ms(&self, asked_ms: Option<u64>) -> u64 {
        asked_ms.unwrap_or(0).min(RETRY_AFTER_MAX_MS)
    }
}

/// How much work a job is whose input has so many bytes.
pub fn size_of(input_bytes: u64) -> Size {
    if input_bytes <= SMALL_BYTES_MAX {
        Size::Small
    } else if input_bytes <= MIDDLE_BYTES_MAX {
        Size::Middle
    } else {
        Size::Large
    }
}

/// The size that counts in a lane: a short question is as quick for a large job as for a small one.
pub fn size_in(lane: Lane, input_bytes: u64) -> Size {
    match lane {
        Lane::Cancel | Lane::Find | Lane::Poll => Size::Small,
        Lane::Claim
        | Lane::Move
        | Lane::Collect
        | Lane::Rescue
        | Lane::Merge
        | Lane::Upload
        | Lane::Send
        | Lane::Plan => size_of(input_bytes),
    }
}

/// How many effects of a lane are under way at a time for jobs of one size. Uploads are limited by
/// [`Policy::uploads`] when an attempt begins.
pub fn at_a_time(lane: Lane, size: Size) -> usize {
    match (lane, size) {
        (Lane::Find | Lane::Poll, _) => 1,
        (Lane::Cancel, _) => 2,
        (Lane::Upload, _) => usize::MAX,
        // They mostly wait, for the disk or for an answer, and the disk serves many with one sync.
        (Lane::Claim | Lane::Move | Lane::Collect | Lane::Send, Size::Small) => 16,
        (Lane::Plan | Lane::Merge, Size::Small) => 8,
        // All of them together are paced by the shell.
        (Lane::Rescue, Size::Small) => 16,
        (Lane::Rescue, Size::Middle | Size::Large) => 4,
        (Lane::Send, Size::Middle | Size::Large) => 4,
        (Lane::Claim | Lane::Move, Size::Middle | Size::Large) => 2,
        (Lane::Collect, Size::Middle) => 2,
        // Each holds megabytes of lines that it sorts, and one alone fills the line.
        (Lane::Collect, Size::Large) => 1,
        (Lane::Plan | Lane::Merge, Size::Middle | Size::Large) => 1,
    }
}

/// `base` give or take a quarter, decided by `salt` alone.
fn spread(base: u64, salt: u64) -> u64 {
    let mixed = mix(salt) % 1001;
    base - base / 4 + (base / 2).saturating_mul(mixed) / 1000
}

/// Stirs the bits of a number (the finaliser of SplitMix64).
fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// Whether an error of a whole batch blames its content, so that sending the same again is vain.
pub fn blames_content(code: i32) -> bool {
    // INVALID_ARGUMENT, FAILED_PRECONDITION, OUT_OF_RANGE, UNIMPLEMENTED.
    matches!(code, 3 | 9 | 11 | 12)
}

/// Whether a moment lies more than `span_ms` milliseconds back; one still to come never does.
pub fn is_older_than(moment: Millis, span_ms: u64, now: Millis) -> bool {
    now.since(moment) > span_ms
}

/// The moment another clock told, if it is near the one that ours told; else ours. Pauses are
/// computed from it, so a clock that is far off must not count.
pub fn plausible(told: Option<Millis>, ours: Millis) -> Millis {
    told.filter(|told| told.0.abs_diff(ours.0) <= CLOCKS_APART_MAX_MS).unwrap_or(ours)
}

/// The input of a small job has at most so many bytes: it is read, sent and merged in milliseconds.
const SMALL_BYTES_MAX: u64 = 1 << 20;
/// The input of a middling job has at most so many bytes.
const MIDDLE_BYTES_MAX: u64 = 256 << 20;
/// Clocks further apart than this are not believed, milliseconds.
const CLOCKS_APART_MAX_MS: u64 = 600_000;
/// What an inline item costs more than a line of a file (spool/frame.rs).
const INLINE_EXTRA: u64 = 13;
/// Bytes around the items of an inline create request, generously.
const INLINE_ENVELOPE: u64 = 1024;
/// No server may ask for a longer pause than this.
const RETRY_AFTER_MAX_MS: u64 = 3_600_000;

/// Whole refusals and failures after which a family of chunks that never had a single success
/// is given up: it is not a poison line then.
pub const POISON_HUNT_MAX: u64 = 200;
/// How long a batch may claim success without showing results, milliseconds.
pub const NOT_READY_MAX_MS: u64 = 86_400_000;
/// How long results must be told to be gone before that is believed, milliseconds: they were paid
/// for, and a proxy or a key that is refused for a while looks the same.
pub const RESULTS_GONE_MS: u64 = 3_600_000;
/// How often in a row at least: a server that refuses at random does not refuse so often.
pub const RESULTS_GONE_LOOKS: u32 = 20;
/// Looks in a row that must miss a batch before it counts as gone.
pub const GONE_LOOKS: u32 = 3;
/// Fetches that must come back short or torn before missing rows are believed.
pub const SHORT_FETCHES: u32 = 2;
/// After so many it does not matter any more that an earlier one had brought more.
pub const SHORT_FETCHES_MAX: u32 = 8;

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub fn policy() -> Policy {
        Policy {
            open_batches: 90,
            storage_bytes: 20_000_000_000,
            uploads: 2,
            inline_bytes: 16 << 20,
            poll_min_ms: 10_000,
            poll_max_ms: 300_000,
            backoff_min_ms: 1000,
            backoff_max_ms: 300_000,
            uncertain: Uncertain::Resubmit,
            uncertain_window_ms: 300_000,
            duplicates: Duplicates::Hold,
            duplicate_window_ms: 604_800_000,
            records_keep_ms: 7_776_000_000,
            remote_cleanup: true,
            rescue: RescuePace::default(),
            keys: Keys::one("print"),
            means: Means::default(),
        }
    }

    #[test]
    fn backoff_grows_to_its_limit_and_never_beyond_a_quarter_more() {
        let policy = policy();
        for salt in 0..50 {
            assert!((750..=1250).contains(&policy.backoff_ms(1, salt)));
            assert!(policy.backoff_ms(60, salt) <= 375_000);
            assert!(policy.backoff_ms(60, salt) >= 225_000);
        }
    }

    #[test]
    fn two_units_that_failed_together_come_back_apart() {
        let policy = policy();
        let first = policy.backoff_ms(5, 1);
        assert!((2..20).any(|salt| policy.backoff_ms(5, salt) != first));
    }

    #[test]
    fn young_batches_are_looked_at_often_and_old_ones_rarely() {
        let policy = policy();
        for now in [Millis(0), Millis(1_700_000_000_123), Millis(u64::MAX / 2)] {
            let young = policy.next_poll(now, 0).since(now);
            assert!((5_000..=10_000).contains(&young), "{young}");
            let old = policy.next_poll(now, 36_000_000).since(now);
            assert!((150_000..=300_000).contains(&old), "{old}");
        }
    }

    #[test]
    fn old_batches_that_were_looked_at_apart_fall_due_together() {
        let policy = policy();
        let now = 1_700_000_000_000;
        let due: std::collections::BTreeSet<Millis> = (0..10_000)
            .map(|n| policy.next_poll(Millis(now + n * 30), 10_000_000 + n * 1_000))
            .collect();
        // Five minutes of looks, one batch after the other, end in a few rounds of lists.
        assert!(due.len() <= 4, "{} moments", due.len());
    }

    #[test]
    fn a_pause_of_nothing_is_a_pause_all_the_same() {
        let policy = Policy { poll_min_ms: 0, poll_max_ms: 0, ..policy() };
        assert!(policy.next_poll(Millis(7), 0) > Millis(7));
    }

    /// Fault 76.
    #[test]
    fn a_clock_that_is_a_day_off_is_not_believed() {
        let ours = Millis(1_000_000_000);
        assert_eq!(plausible(Some(ours.plus(2_000)), ours), ours.plus(2_000));
        assert_eq!(plausible(Some(ours.plus(86_400_000)), ours), ours);
        assert_eq!(plausible(Some(Millis(0)), ours), ours);
        assert_eq!(plausible(None, ours), ours);
    }

    /// Fault 55.
    #[test]
    fn an_absurd_pause_is_cut_to_an_hour() {
        assert_eq!(policy().honoured_ms(Some(u64::MAX)), 3_600_000);
        assert_eq!(policy().honoured_ms(None), 0);
    }
}
