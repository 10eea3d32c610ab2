//! Tokens in the API's queue: how many are enqueued for each model, and how many it lets in.
//!
//! Nobody tells how many tokens may be enqueued for a model; a create beyond them is refused with
//! a bare 429 (API contract, 8 and 9.3). So they are counted here, by key and model, and chunks are
//! held back instead of being refused. Where no limit is configured the ceiling is learned: each
//! refusal lowers it below what was enqueued, each success close to it raises it, and some hours
//! after the last refusal it is forgotten. A tenth is kept for small jobs. A chunk that is refused
//! again and again although nothing else is enqueued is halved.

use std::collections::BTreeMap;

use super::effect::{Change, Turn};
use super::ids::{ChunkNo, Millis, Row, Rows};
use super::job::{Aid, Chunk, ChunkState, Rest, Share};
use super::keys::KeyNo;
use super::lanes::{Size, Unit};
use super::machine::{Engine, find, find_mut};

/// What is enqueued at the API, by our count, and what it lets in, as far as that was learned.
#[derive(Debug, Default)]
pub(super) struct Quota {
    enqueued: BTreeMap<Line, Enqueued>,
    parts: BTreeMap<Unit, (Line, Enqueued)>,
    /// By fingerprint of the key, and model.
    ceilings: BTreeMap<(String, String), Ceiling>,
    /// How often in a row a chunk was refused with nothing else enqueued.
    alone: BTreeMap<Unit, u32>,
    /// The note is behind.
    is_new: bool,
    /// There may be more room than before.
    pub(super) freed: bool,
}

/// The queue of a model, for one key.
type Line = (KeyNo, Box<str>);

/// Tokens in a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Enqueued {
    small: u64,
    others: u64,
}

/// What the API was found to let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ceiling {
    tokens: u64,
    /// When it refused last.
    refused: Millis,
}

/// The queue of a model at the API, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueRoom {
    /// The model.
    pub model: String,
    /// Tokens in it, estimated.
    pub enqueued: u64,
    /// Tokens that it lets in: configured or learned.
    pub ceiling: Option<u64>,
}

impl Enqueued {
    fn all(self) -> u64 {
        self.small.saturating_add(self.others)
    }
}

impl Quota {
    /// What was learned before a restart.
    pub(super) fn recalled(note: &str) -> Quota {
        let ceiling = |line: &str| {
            let mut parts = line.splitn(4, ' ');
            let tokens = parts.next()?.parse().ok()?;
            let refused = Millis(parts.next()?.parse().ok()?);
            let (model, print) = (parts.next()?.to_owned(), parts.next()?.to_owned());
            Some(((print, model), Ceiling { tokens, refused }))
        };
        Quota { ceilings: note.lines().filter_map(ceiling).collect(), ..Quota::default() }
    }

    fn exchange(&mut self, unit: Unit, now: Option<(Line, Enqueued)>) {
        if now.is_none() && !self.parts.contains_key(&unit) {
            return;
        }
        let mut change = |(line, part): (Line, Enqueued), is_added: bool| {
            let sum = self.enqueued.entry(line).or_default();
            let one = |sum: u64, part: u64| match is_added {
                true => sum.saturating_add(part),
                false => sum.saturating_sub(part),
            };
            let small = one(sum.small, part.small);
            *sum = Enqueued { small, others: one(sum.others, part.others) };
        };
        if let Some(before) = self.parts.remove(&unit) {
            self.freed |= now.as_ref().is_none_or(|(_, now)| now.all() < before.1.all());
            change(before, false);
        }
        if let Some(now) = now {
            change(now.clone(), true);
            self.parts.insert(unit, now);
        }
    }

    /// Forgets what was learned long ago.
    fn expire(&mut self, now: Millis) {
        let before = self.ceilings.len();
        self.ceilings.retain(|_, ceiling| now < ceiling.refused.plus(LEARNED_MS));
        let expired = self.ceilings.len() < before;
        self.freed |= expired;
        self.is_new |= expired;
    }
}

impl Engine {
    /// Keeps the count of the tokens that a chunk has in the API's queue.
    pub(super) fn account_tokens(&mut self, unit: Unit) {
        let part =
            find(&self.jobs, unit).filter(|(job, chunk)| !job.is_over() && is_enqueued(chunk));
        let part = part.and_then(|(job, chunk)| {
            let line = (self.key_of(job, chunk)?, job.head.queue.model.as_str().into());
            let tokens = self.tokens_of(chunk);
            let enqueued = match self.size(unit.job) {
                Size::Small => Enqueued { small: tokens, others: 0 },
                Size::Middle | Size::Large => Enqueued { small: 0, others: tokens },
            };
            Some((line, enqueued))
        });
        self.quota.exchange(unit, part);
    }

    /// Forgets what was counted by keys that may be others now.
    pub(super) fn count_tokens_anew(&mut self) {
        self.quota.enqueued.clear();
        self.quota.parts.clear();
        self.quota.freed = true;
    }

    fn tokens_of(&self, chunk: &Chunk) -> u64 {
        chunk.density.unwrap_or_default().prompt(chunk.rest.bytes())
    }

    /// Tokens that the queue of a model takes with a key, as far as that is known.
    fn ceiling(&self, key: KeyNo, model: &str) -> Option<u64> {
        let means = &self.policy.means;
        let set = means.tokens_of.get(model).copied().unwrap_or(means.tokens);
        let print = || self.policy.keys.print(key).unwrap_or_default().to_owned();
        // Mostly there is none.
        let learned = match self.quota.ceilings.is_empty() {
            true => None,
            false => self.quota.ceilings.get(&(print(), model.to_owned())),
        };
        let learned = learned.map(|ceiling| ceiling.tokens);
        [(set > 0).then_some(set), learned].into_iter().flatten().min()
    }

    /// Whether the API's queue has room for a chunk by our count; its own part in it is left out.
    pub(super) fn has_room_for(&self, unit: Unit, size: Size, key: KeyNo) -> bool {
        let Some((job, chunk)) = find(&self.jobs, unit) else { return true };
        let model = job.head.queue.model.as_str();
        let Some(ceiling) = self.ceiling(key, model) else { return true };
        let line: Line = (key, model.into());
        let mut enqueued = self.quota.enqueued.get(&line).copied().unwrap_or_default();
        if let Some((of, own)) = self.quota.parts.get(&unit)
            && *of == line
        {
            enqueued.small = enqueued.small.saturating_sub(own.small);
            enqueued.others = enqueued.others.saturating_sub(own.others);
        }
        let (tokens, share) = (self.tokens_of(chunk), ceiling / 10);
        let fits = enqueued.all().saturating_add(tokens) <= ceiling;
        match size {
            // What is larger than the whole queue is tried alone.
            Size::Small => {
                enqueued.all() == 0 || fits || enqueued.small.saturating_add(tokens) <= share
            }
            Size::Middle | Size::Large => {
                let others = enqueued.others.saturating_add(tokens) <= ceiling - share;
                enqueued.others == 0 || fits && others
            }
        }
    }

    /// A create was turned away for asking too much, without a word on when to come back: the
    /// queue of its model is full.
    pub(super) fn turned_away(&mut self, unit: Unit, retry_after_ms: Option<u64>, now: Millis) {
        if retry_after_ms.is_some() {
            return;
        }
        let Some((job, chunk)) = find(&self.jobs, unit) else { return };
        let Some(key) = self.key_of(job, chunk) else { return };
        let model = job.head.queue.model.clone();
        let tokens = self.tokens_of(chunk);
        let line: Line = (key, model.as_str().into());
        let all = self.quota.enqueued.get(&line).copied().unwrap_or_default().all();
        let own = self.quota.parts.get(&unit).map_or(0, |(_, own)| own.all());
        let others = all.saturating_sub(own);
        if others == 0 {
            *self.quota.alone.entry(unit).or_default() += 1;
            return;
        }
        let print = self.policy.keys.print(key).unwrap_or_default().to_owned();
        let tokens = tokens.max(others / 10 * 7).max(1);
        self.quota.ceilings.insert((print, model), Ceiling { tokens, refused: now });
        self.quota.is_new = true;
    }

    /// A create was let in: if its queue was nearly full by our count, it takes a little more.
    pub(super) fn let_in(&mut self, unit: Unit) {
        self.quota.alone.remove(&unit);
        let Some((line, own)) = self.quota.parts.get(&unit) else { return };
        let all = self.quota.enqueued.get(line).copied().unwrap_or_default().all();
        let print = self.policy.keys.print(line.0).unwrap_or_default().to_owned();
        let Some(ceiling) = self.quota.ceilings.get_mut(&(print, line.1.to_string())) else {
            return;
        };
        if all.saturating_mul(2) >= ceiling.tokens {
            ceiling.tokens =
                ceiling.tokens.saturating_add(own.all().min(ceiling.tokens / 5).max(1));
            self.quota.is_new = true;
            self.quota.freed = true;
        }
    }

    /// Whether a chunk is too large for the queue of its model: it was refused several times
    /// although nothing else was enqueued.
    pub(super) fn is_too_large(&self, unit: Unit) -> bool {
        let refused = self.quota.alone.get(&unit).copied().unwrap_or(0);
        refused >= ALONE_MAX
            && find(&self.jobs, unit).is_some_and(|(_, chunk)| {
                chunk.rest.rows() > 1 && self.tokens_of(chunk) > self.policy.means.halved_above
            })
    }

    /// Cuts a chunk in two that is too large for the queue of its model.
    pub(super) fn halve_for_room(&mut self, unit: Unit, now: Millis, turn: &mut Turn) {
        self.quota.alone.remove(&unit);
        let no = unit.chunk.map_or(0, |no| no.0);
        self.warn(
            unit.job,
            turn,
            format!("chunk {no} was refused alone as too large for the API's queue; it was halved"),
        );
        self.share_out(unit);
        self.cut_in_two(unit, now, turn);
    }

    /// The halves of a chunk that was itself cut out of another are counted at its first end. Until
    /// then half of what is left is taken to lie in each, so that no row is taken to be over: what is
    /// sent is what is open, however much of that there turns out to be.
    fn share_out(&mut self, unit: Unit) {
        let Some((_, chunk)) = find_mut(&mut self.jobs, unit) else { return };
        let all = chunk.rest.left;
        if chunk.batches.is_empty() && chunk.rest.right == Share::default() && chunk.rows.len() > 1
        {
            let right = Share { rows: all.rows / 2, bytes: all.bytes / 2 };
            let left = Share { rows: all.rows - right.rows, bytes: all.bytes - right.bytes };
            chunk.rest = Rest { left, right };
        }
    }

    /// Puts two halves in the place of a chunk.
    pub(super) fn cut_in_two(&mut self, unit: Unit, now: Millis, turn: &mut Turn) {
        let Some((job, chunk)) = find(&self.jobs, unit) else { return };
        let highest = job.chunks.keys().next_back().map_or(0, |no| no.0);
        let (left, right) = (ChunkNo(highest + 1), ChunkNo(highest + 2));
        let (rows, rest, middle) = (chunk.rows, chunk.rest, chunk.middle());
        let (root, error, density) = (chunk.root, chunk.last_error.clone(), chunk.density);
        let resent = chunk.aid.as_ref().map(|aid| aid.resent).filter(|resent| *resent > 0);
        self.set_chunk(unit, ChunkState::Split { left, right }, turn);
        let second = Row(middle.0 + 1);
        let halves = [
            (left, Rows { first: rows.first, last: middle }, rest.left),
            (right, Rows { first: second, last: rows.last }, rest.right),
        ];
        for (no, rows, share) in halves {
            // Its own halves are counted when it comes to its own end.
            let rest = Rest { left: share, right: Share::default() };
            let mut child = Chunk::new(no, root, rows, rest);
            child.last_error = error.clone();
            child.density = density;
            child.aid = resent.map(|resent| Box::new(Aid { resent, ..Aid::default() }));
            child.state = match share.rows {
                0 => ChunkState::Settled,
                _ => ChunkState::Waiting { not_before: now },
            };
            self.add_chunk(unit.job, child, turn);
        }
        self.merge_when_settled(unit.job, turn);
    }

    /// Forgets what was learned long ago about queues.
    pub(super) fn forget_ceilings(&mut self, now: Millis) {
        self.quota.expire(now);
    }

    /// When the next ceiling is forgotten.
    pub(super) fn next_ceiling(&self) -> Option<Millis> {
        self.quota.ceilings.values().map(|ceiling| ceiling.refused.plus(LEARNED_MS)).min()
    }

    /// The queues of models in which anything is, or of which a ceiling is known.
    pub fn queue_rooms(&self) -> Vec<QueueRoom> {
        let mut all: BTreeMap<String, QueueRoom> = BTreeMap::new();
        for ((key, model), enqueued) in &self.quota.enqueued {
            let ceiling = self.ceiling(*key, model);
            if enqueued.all() == 0 && ceiling.is_none() {
                continue;
            }
            let name = model.to_string();
            let room =
                all.entry(name.clone()).or_insert(QueueRoom { model: name, enqueued: 0, ceiling });
            room.enqueued = room.enqueued.saturating_add(enqueued.all());
            room.ceiling = room.ceiling.min(ceiling).or(room.ceiling).or(ceiling);
        }
        all.into_values().collect()
    }

    /// Saves what was learned, if that has changed.
    pub(super) fn note_ceilings(&mut self, turn: &mut Turn) {
        if !std::mem::take(&mut self.quota.is_new) {
            return;
        }
        let ceilings = self.quota.ceilings.iter().take(CEILINGS_MAX);
        let value = ceilings.fold(String::new(), |text, ((print, model), ceiling)| {
            text + &format!("{} {} {model} {print}\n", ceiling.tokens, ceiling.refused.0)
        });
        turn.save.push(Change::Note { name: NOTE, value });
    }
}

/// Whether the requests of a chunk are, or may be, in the API's queue, or are about to be.
fn is_enqueued(chunk: &Chunk) -> bool {
    match &chunk.state {
        ChunkState::Uploading { .. }
        | ChunkState::Creating { .. }
        | ChunkState::Uncertain { .. }
        | ChunkState::Stuck { .. }
        | ChunkState::Polling(_) => true,
        ChunkState::Waiting { .. }
        | ChunkState::Collecting { .. }
        | ChunkState::Rescuing { .. }
        | ChunkState::Settled
        | ChunkState::Split { .. } => false,
    }
}

/// The note that says what was learned.
pub const NOTE: &str = "quota";
/// Ceilings that are saved.
const CEILINGS_MAX: usize = 200;
/// What a refusal taught is believed for so long, milliseconds: other programs may share the queue.
const LEARNED_MS: u64 = 6 * 3_600_000;
/// A chunk is refused so often, with nothing else enqueued, before it is halved.
const ALONE_MAX: u32 = 3;
