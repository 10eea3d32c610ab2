//! Who is ready for what, and who waits for a moment to come.
//!
//! A unit is a job or one of its chunks. It stands in at most one place: ready in a lane, or
//! waiting for a time. Taking the next of a lane costs the same however many jobs there are.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::ids::{ChunkNo, JobId, Millis};

/// A job as a whole (`chunk` is `None`), or one of its chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Unit {
    /// The job.
    pub job: JobId,
    /// The chunk.
    pub chunk: Option<ChunkNo>,
}

/// What a ready unit wants done. Lanes are served in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    /// Move an input into the working folder.
    Claim,
    /// Move outputs or inputs to where they stay, or clean up.
    Move,
    /// Stop a batch.
    Cancel,
    /// Look for batches that may have been created.
    Find,
    /// Ask how batches are doing.
    Poll,
    /// Fetch results.
    Collect,
    /// Write results and errors.
    Merge,
    /// Upload a file.
    Upload,
    /// Begin an attempt.
    Send,
    /// Read and cut an input.
    Plan,
}

impl Lane {
    /// All lanes in the order in which they are served.
    pub const ALL: [Lane; 10] = [
        Lane::Claim,
        Lane::Move,
        Lane::Cancel,
        Lane::Find,
        Lane::Poll,
        Lane::Collect,
        Lane::Merge,
        Lane::Upload,
        Lane::Send,
        Lane::Plan,
    ];

    /// Whether the lane leads to the API.
    pub fn is_remote(self) -> bool {
        match self {
            Lane::Cancel | Lane::Find | Lane::Poll | Lane::Collect | Lane::Upload | Lane::Send => {
                true
            }
            Lane::Claim | Lane::Move | Lane::Merge | Lane::Plan => false,
        }
    }
}

/// Higher priority first, then older jobs, then earlier chunks.
type Rank = (Reverse<i64>, Unit);

#[derive(Debug, Clone, Copy)]
enum Place {
    Ready(Lane, Rank),
    Timed(Millis, Lane, Rank),
}

/// All units that want something.
#[derive(Debug, Default)]
pub struct Lanes {
    ready: BTreeMap<Lane, BTreeSet<Rank>>,
    timed: BTreeSet<(Millis, Unit)>,
    places: BTreeMap<Unit, Place>,
}

impl Lanes {
    /// Puts a unit where it belongs now, wherever it stood before.
    pub fn put(&mut self, unit: Unit, lane: Lane, not_before: Millis, priority: i64) {
        self.remove(unit);
        let rank = (Reverse(priority), unit);
        self.timed.insert((not_before, unit));
        self.places.insert(unit, Place::Timed(not_before, lane, rank));
    }

    /// Takes a unit out.
    pub fn remove(&mut self, unit: Unit) {
        match self.places.remove(&unit) {
            Some(Place::Ready(lane, rank)) => {
                self.ready.entry(lane).or_default().remove(&rank);
            }
            Some(Place::Timed(at, _, _)) => {
                self.timed.remove(&(at, unit));
            }
            None => {}
        }
    }

    /// Makes everything ready whose time has come.
    pub fn ripen(&mut self, now: Millis) {
        while let Some(&(at, unit)) = self.timed.first() {
            if at > now {
                return;
            }
            self.timed.pop_first();
            if let Some(Place::Timed(_, lane, rank)) = self.places.get(&unit).copied() {
                self.ready.entry(lane).or_default().insert(rank);
                self.places.insert(unit, Place::Ready(lane, rank));
            }
        }
    }

    /// The first ready unit of a lane that passes the test, taken out. Looks at no more than
    /// a handful of units that do not pass.
    pub fn take(&mut self, lane: Lane, mut fits: impl FnMut(Unit) -> bool) -> Option<Unit> {
        let queue = self.ready.get_mut(&lane)?;
        let rank = queue.iter().take(LOOK_AHEAD).find(|(_, unit)| fits(*unit)).copied()?;
        queue.remove(&rank);
        self.places.remove(&rank.1);
        Some(rank.1)
    }

    /// The first ready unit of a lane.
    pub fn first_ready(&self, lane: Lane) -> Option<Unit> {
        self.ready.get(&lane).and_then(|queue| queue.first()).map(|(_, unit)| *unit)
    }

    /// Whether anybody is ready in a lane.
    pub fn any_ready(&self, lane: Lane) -> bool {
        self.ready.get(&lane).is_some_and(|queue| !queue.is_empty())
    }

    /// When the next waiting unit gets ready. Units that are ready and only wait for capacity
    /// do not count: whatever frees the capacity is an event of its own.
    pub fn next_time(&self) -> Option<Millis> {
        self.timed.first().map(|(at, _)| *at)
    }
}

/// How many units that do not fit are passed over in search of one that does.
const LOOK_AHEAD: usize = 64;
