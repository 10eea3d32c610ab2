//! Who is ready for what, and who waits for a moment to come.
//!
//! A unit is a job or one of its chunks. It stands in at most one place: ready in a lane, or
//! waiting for a time. Taking the next of a lane costs the same however many jobs there are.
//! Jobs of different sizes queue apart, so that a small one never waits behind large ones; so do
//! those of different API keys, so that a key that is refused holds up nobody else's.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::ids::{ChunkNo, JobId, Millis};
use super::keys::KeyNo;

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
    /// Ask for rows one by one.
    Rescue,
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
    pub const ALL: [Lane; 11] = [
        Lane::Claim,
        Lane::Move,
        Lane::Cancel,
        Lane::Find,
        Lane::Poll,
        Lane::Collect,
        Lane::Rescue,
        Lane::Merge,
        Lane::Upload,
        Lane::Send,
        Lane::Plan,
    ];

    /// Whether the lane takes on what needs room on this machine's disk, now or when its results
    /// come. The others end what was begun, ask, or free some.
    pub fn needs_room(self) -> bool {
        match self {
            Lane::Claim
            | Lane::Plan
            | Lane::Upload
            | Lane::Send
            | Lane::Collect
            | Lane::Rescue
            | Lane::Merge => true,
            Lane::Move | Lane::Cancel | Lane::Find | Lane::Poll => false,
        }
    }

    /// Whether the lane leads to the API.
    pub fn is_remote(self) -> bool {
        match self {
            Lane::Cancel
            | Lane::Find
            | Lane::Poll
            | Lane::Collect
            | Lane::Rescue
            | Lane::Upload
            | Lane::Send => true,
            Lane::Claim | Lane::Move | Lane::Merge | Lane::Plan => false,
        }
    }
}

/// How much work a job is, by the bytes of its input. In a lane, each size has room of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Size {
    /// Done in a moment.
    Small,
    /// Seconds.
    Middle,
    /// Minutes or hours.
    Large,
}

impl Size {
    /// All sizes.
    pub const ALL: [Size; 3] = [Size::Small, Size::Middle, Size::Large];
}

/// Where a unit queues when it is ready; what does not lead to the API has no key.
pub type Queue = (Lane, Size, Option<KeyNo>);

/// Higher priority first, then older jobs, then earlier chunks.
type Rank = (Reverse<i64>, Unit);

#[derive(Debug, Clone, Copy)]
enum Place {
    Ready(Queue, Rank),
    Timed(Millis, Queue, Rank),
}

/// All units that want something.
#[derive(Debug, Default)]
pub struct Lanes {
    ready: BTreeMap<Queue, BTreeSet<Rank>>,
    timed: BTreeSet<(Millis, Unit)>,
    places: BTreeMap<Unit, Place>,
}

impl Lanes {
    /// Puts a unit where it belongs now, wherever it stood before.
    pub fn put(&mut self, unit: Unit, queue: Queue, not_before: Millis, priority: i64) {
        self.remove(unit);
        let rank = (Reverse(priority), unit);
        self.timed.insert((not_before, unit));
        self.places.insert(unit, Place::Timed(not_before, queue, rank));
    }

    /// Takes a unit out.
    pub fn remove(&mut self, unit: Unit) {
        match self.places.remove(&unit) {
            Some(Place::Ready(queue, rank)) => {
                self.ready.entry(queue).or_default().remove(&rank);
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
            if let Some(Place::Timed(_, queue, rank)) = self.places.get(&unit).copied() {
                self.ready.entry(queue).or_default().insert(rank);
                self.places.insert(unit, Place::Ready(queue, rank));
            }
        }
    }

    /// The first ready unit of a lane that passes the test, taken out, and where it stood; of each
    /// queue, only a handful of units that do not pass are looked at.
    pub fn take(
        &mut self,
        lane: Lane,
        has_room: impl Fn(Queue) -> bool,
        mut fits: impl FnMut(Unit, Queue) -> bool,
    ) -> Option<(Unit, Queue)> {
        let mut first: Option<(Rank, Queue)> = None;
        for (&queue, ready) in of_lane(&self.ready, lane).filter(|(queue, _)| has_room(**queue)) {
            // Whoever stands behind the best of another queue need not be looked at.
            let better = |rank: &&Rank| first.is_none_or(|(best, _)| **rank < best);
            let mut seen = ready.iter().take(LOOK_AHEAD).take_while(better);
            if let Some(rank) = seen.find(|(_, unit)| fits(*unit, queue)) {
                first = Some((*rank, queue));
            }
        }
        let (rank, queue) = first?;
        self.ready.get_mut(&queue)?.remove(&rank);
        self.places.remove(&rank.1);
        Some((rank.1, queue))
    }

    /// The first ready unit of each queue in a lane.
    pub fn first_ready(&self, lane: Lane) -> impl Iterator<Item = (Unit, Queue)> {
        of_lane(&self.ready, lane)
            .filter_map(|(queue, ready)| ready.first().map(|(_, unit)| (*unit, *queue)))
    }

    /// Whether anybody is ready in a lane to work with a key, or without one.
    pub fn any_ready(&self, lane: Lane, key: Option<KeyNo>) -> bool {
        self.first_ready(lane).any(|(_, (_, _, of))| of == key)
    }

    /// When a unit gets ready that waits for a moment.
    pub fn time_of(&self, unit: Unit) -> Option<Millis> {
        match self.places.get(&unit)? {
            Place::Timed(at, _, _) => Some(*at),
            Place::Ready(..) => None,
        }
    }

    /// When the next waiting unit gets ready. Units that are ready and only wait for capacity
    /// do not count: whatever frees the capacity is an event of its own.
    pub fn next_time(&self) -> Option<Millis> {
        self.timed.first().map(|(at, _)| *at)
    }
}

/// What is ready in a lane, by queue.
fn of_lane(
    ready: &BTreeMap<Queue, BTreeSet<Rank>>,
    lane: Lane,
) -> impl Iterator<Item = (&Queue, &BTreeSet<Rank>)> {
    ready.range((lane, Size::Small, None)..).take_while(move |((of, _, _), _)| *of == lane)
}

/// How many units that do not fit are passed over in search of one that does.
const LOOK_AHEAD: usize = 64;
