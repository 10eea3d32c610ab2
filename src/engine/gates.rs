//! When the API is left alone for a while, for each key by itself.
//!
//! A key that is refused, or a project that is ill, must not hold up the work of others.

use super::event::Failure;
use super::ids::Millis;
use super::keys::KeyNo;
use super::lanes::{Lane, Queue};
use super::machine::{Engine, Running};

/// The API is not to be bothered with a key for a while.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gate {
    /// Until then.
    pub until: Millis,
    /// Failures in a row.
    pub failures: u32,
    /// What a person must mend before it can work again, if it is that.
    pub mend: Option<Mend>,
    /// What the last failure said.
    pub message: String,
}

/// What only a person can mend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mend {
    /// The API key, or what it may do.
    Key,
    /// The way to the API: a certificate, a proxy, an address.
    Way,
}

impl Engine {
    /// Why the API is left alone, if it is: of several keys, what a person must mend goes first.
    pub fn gate(&self) -> Option<&Gate> {
        self.gates.values().max_by_key(|gate| (gate.mend.is_some(), gate.until))
    }

    /// Why the API is left alone with some keys, and with which.
    pub fn gates(&self) -> impl Iterator<Item = (KeyNo, &Gate)> {
        self.gates.iter().map(|(key, gate)| (*key, gate))
    }

    /// Whether the disk has room for a lane that takes some, and the API is well enough for this
    /// key, in a lane that leads to it.
    pub(super) fn is_open(&self, lane: Lane, key: Option<KeyNo>, now: Millis) -> bool {
        if self.full.is_some() && lane.needs_room() {
            return false;
        }
        let gate = key.and_then(|key| self.gates.get(&key)).filter(|_| lane.is_remote());
        let Some(gate) = gate else { return true };
        // While the API is ill, one request at a time finds out whether it is well again.
        let is_asking = |running: &Running| running.lane.is_remote() && self.key_in(running) == key;
        let idle = !self.running.values().any(is_asking);
        now >= gate.until && (gate.failures <= GATE_AFTER && gate.mend.is_none() || idle)
    }

    /// Takes note of a failure that may be the API's as a whole.
    pub(super) fn shut(&mut self, running: &Running, failure: &Failure, now: Millis) {
        let mend = match failure {
            Failure::Denied(_) => Some(Mend::Key),
            Failure::Barred(_) => Some(Mend::Way),
            Failure::Transient(_)
            | Failure::RateLimited { .. }
            | Failure::Ambiguous(_)
            | Failure::Rejected(_)
            | Failure::Gone(_)
            | Failure::NotReady(_)
            | Failure::Damaged { .. }
            | Failure::Local(_)
            | Failure::Removed(_) => None,
        };
        let ill =
            mend.is_some() || matches!(failure, Failure::Transient(_) | Failure::Ambiguous(_));
        let key = self.key_in(running).filter(|_| running.lane.is_remote() && ill);
        let Some(key) = key else { return };
        let failures = self.gates.get(&key).map_or(0, |gate| gate.failures).saturating_add(1);
        let pause = if mend.is_some() || failures > GATE_AFTER {
            self.policy.backoff_ms(failures, 0)
        } else {
            0
        };
        let message = self.policy.keys.telling(key, failure.message());
        self.gates.insert(key, Gate { until: now.plus(pause), failures, mend, message });
    }

    /// The API answered with this key: it is well.
    pub(super) fn reopen(&mut self, running: &Running) {
        if let Some(key) = self.key_in(running).filter(|_| running.lane.is_remote()) {
            self.gates.remove(&key);
        }
    }

    /// The key an effect under way is done with, if that is still in use.
    pub(super) fn key_in(&self, running: &Running) -> Option<KeyNo> {
        running.print.as_deref().and_then(|print| self.policy.keys.of_print(print))
    }

    /// Where the units of an effect under way stood.
    pub(super) fn queue_of(&self, running: &Running) -> Queue {
        let key = self.key_in(running).filter(|_| running.lane.is_remote());
        (running.lane, running.size, key)
    }

    /// Why everything that is still to be done waits for somebody to mend something, if it does.
    pub fn only_a_person_helps(&self) -> Option<&Gate> {
        let is_shut = |key: KeyNo| self.gates.get(&key).is_some_and(|gate| gate.mend.is_some());
        let waits = self.jobs.values().filter(|job| !job.is_over()).all(|job| {
            self.waits_for_a_person(job)
                || self.waits_for_its_window(job)
                || self.key_of_job(job).is_some_and(is_shut)
        });
        self.gate().filter(|gate| gate.mend.is_some() && waits && self.running.is_empty())
    }
}

/// So many failures in a row are taken for accidents; after that the API seems ill.
pub(super) const GATE_AFTER: u32 = 3;
