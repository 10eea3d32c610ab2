//! The world around the engine: a store, a disk, and an API that misbehave as a seed says.

use std::collections::{BTreeMap, BTreeSet};

use gemini_batchd::engine::Engine;
use gemini_batchd::engine::effect::{Change, Effect, Issued, Turn, Which};
use gemini_batchd::engine::event::{
    Event, Failure, Harvest, Objection, Outcome, PlannedChunk, Polled, RemoteBatch,
};
use gemini_batchd::engine::ids::{BatchName, JobId, Millis, Row, Rows, Stamp};
use gemini_batchd::engine::job::{
    Accept, Job, JobState, Plan, Queue, RemoteError, RemoteState, Rest, Share, Source, Tally,
    Transport,
};
use gemini_batchd::engine::policy::{Duplicates, Policy, Uncertain};

/// Everything there is.
pub struct World {
    pub transcript: Vec<String>,
    engine: Engine,
    policy: Policy,
    store: BTreeMap<JobId, Job>,
    under_way: Vec<(Millis, Issued)>,
    on_the_wire: Vec<(Millis, Which)>,
    batches: Vec<Remote>,
    inputs: BTreeMap<JobId, Input>,
    random: Random,
    now: Millis,
    /// How far the engine's clock is ahead of the world's, milliseconds.
    ahead: i64,
    faults_until: Millis,
}

/// A job's files.
struct Input {
    rows: u64,
    poison: BTreeSet<u64>,
    in_inbox: bool,
    answered: BTreeMap<u64, BatchName>,
    delivered: u32,
    /// What the file claims to have; its rows are few in any case.
    bytes: u64,
}

/// A batch at the API.
struct Remote {
    name: BatchName,
    stamp: Stamp,
    job: JobId,
    rows: Vec<u64>,
    created: Millis,
    visible: Millis,
    ends: Millis,
    end: RemoteState,
}

impl World {
    pub fn new(seed: u64) -> World {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let policy = Policy {
            open_batches: 1 + random.below(4) as usize,
            storage_bytes: 500 + random.below(5000),
            uploads: 1 + random.below(2) as usize,
            inline_bytes: if random.chance(50) { 0 } else { 4000 },
            poll_min_ms: 1000,
            poll_max_ms: 60_000,
            backoff_min_ms: 500,
            backoff_max_ms: 60_000,
            uncertain_window_ms: 180_000,
            ..limits()
        };
        let now = Millis(1_000_000_000);
        let (engine, _) = Engine::resume(Vec::new(), policy.clone(), now);
        World {
            transcript: Vec::new(),
            engine,
            policy,
            store: BTreeMap::new(),
            under_way: Vec::new(),
            on_the_wire: Vec::new(),
            batches: Vec::new(),
            inputs: BTreeMap::new(),
            random,
            now,
            ahead: 0,
            faults_until: now.plus(3_600_000),
        }
    }

    /// Lives until everything is done.
    pub fn run(&mut self) -> Result<(), String> {
        for number in 0..1 + self.random.below(3) {
            self.drop_file(number)?;
        }
        for step in 0.. {
            if step == STEPS_MAX {
                return Err("it goes on without getting anywhere".to_owned());
            }
            self.arrive_on_the_wire()?;
            if self.faulty(1) {
                self.crash("at rest")?;
            }
            if self.faulty(1) {
                // Far enough to be told from time that passes.
                let leap = 180_000 + self.random.below(3_600_000) as i64;
                self.ahead += if self.random.chance(50) { leap } else { -leap };
                self.note(format!("the clock jumps to {} ahead", self.ahead));
                // A clock that jumps wakes nobody: the loop looks up by itself every few seconds.
                self.now = self.now.plus(5_000);
                self.tell(Event::Tick)?;
            }
            let due = self.under_way.iter().map(|(at, _)| *at).min();
            let wire = self.on_the_wire.iter().map(|(at, _)| *at).min();
            let ahead = self.ahead;
            let tick = self.engine.next_wakeup();
            let tick = tick.map(|at| Millis(at.0.saturating_add_signed(-ahead)));
            let Some(next) = [due, wire, tick].into_iter().flatten().min() else { break };
            self.now = self.now.max(next);
            let ready = self.under_way.iter().position(|(at, _)| *at <= self.now);
            match ready {
                Some(at) => {
                    let (_, issued) = self.under_way.remove(at);
                    self.perform(issued)?;
                }
                None => self.tell(Event::Tick)?,
            }
        }
        self.check_the_end()
    }

    fn drop_file(&mut self, number: u64) -> Result<(), String> {
        let text = format!("{:026}", number + 1);
        let id: JobId = text.parse().map_err(|_| "not an id".to_owned())?;
        let rows = 1 + self.random.below(40);
        let mut poison = BTreeSet::new();
        while self.random.chance(25) {
            poison.insert(1 + self.random.below(rows));
        }
        let bytes = [1, 8 << 20, 1 << 30][self.random.below(3) as usize];
        let (in_inbox, answered) = (true, BTreeMap::new());
        let input = Input { rows, poison, in_inbox, answered, delivered: 0, bytes };
        self.inputs.insert(id, input);
        self.tell(arrival(id, bytes))
    }

    /// Hands an event over, and does with the turn what the shell does: save, then act.
    fn tell(&mut self, event: Event) -> Result<(), String> {
        let turn = self.engine.handle(event, self.clock());
        self.consume(turn)
    }

    fn consume(&mut self, turn: Turn) -> Result<(), String> {
        if !turn.save.is_empty() && self.faulty(2) {
            return self.crash("before a save");
        }
        for change in turn.save {
            self.save(change);
        }
        if !turn.then.is_empty() && self.faulty(2) {
            return self.crash("between save and effects");
        }
        for issued in turn.then {
            let after = self.now.plus(1 + self.random.below(3000));
            self.under_way.push((after, issued));
        }
        Ok(())
    }

    fn save(&mut self, change: Change) {
        match change {
            Change::Head(head) => match self.store.get_mut(&head.id) {
                Some(job) => job.head = head,
                None => {
                    self.store.insert(head.id, Job { head, chunks: BTreeMap::new() });
                }
            },
            Change::Chunk(id, chunk) => {
                if let Some(job) = self.store.get_mut(&id) {
                    job.chunks.insert(chunk.no, chunk);
                }
            }
            Change::Shed(id) => {
                if let Some(job) = self.store.get_mut(&id) {
                    job.chunks.clear();
                }
            }
            Change::Forget(id) => {
                self.store.remove(&id);
            }
        }
    }

    /// The process dies; a new one starts from what was saved. Creates on the wire still arrive.
    fn crash(&mut self, when: &str) -> Result<(), String> {
        self.note(format!("crash {when}"));
        let lost = std::mem::take(&mut self.under_way);
        for (_, issued) in lost {
            if let Effect::Create { which, .. } = issued.effect
                && self.random.chance(50)
            {
                let late = self.now.plus(self.random.below(60_000));
                self.on_the_wire.push((late, which));
            }
        }
        let jobs = self.store.values().cloned().collect();
        let (engine, turn) = Engine::resume(jobs, self.policy.clone(), self.clock());
        self.engine = engine;
        self.consume(turn)?;
        let waiting = self.inputs.iter().filter(|(_, input)| input.in_inbox);
        let waiting: Vec<_> = waiting.map(|(id, input)| (*id, input.bytes)).collect();
        for (id, bytes) in waiting {
            if !self.store.contains_key(&id) {
                self.tell(arrival(id, bytes))?;
            }
        }
        Ok(())
    }

    fn perform(&mut self, issued: Issued) -> Result<(), String> {
        let ticket = issued.ticket;
        self.note(format!("{:?}", issued.effect).chars().take(120).collect());
        let local = matches!(
            issued.effect,
            Effect::Claim { .. }
                | Effect::Plan { .. }
                | Effect::Merge { .. }
                | Effect::Clean { .. }
        );
        if self.faulty(5) {
            let failure = match local {
                true => Failure::Local("disk full".to_owned()),
                false => self.remote_failure(&issued.effect)?,
            };
            return self.tell(Event::Failed { ticket, failure });
        }
        let event = match self.effect(issued.effect)? {
            Ok(outcome) => Event::Done { ticket, outcome },
            Err(failure) => Event::Failed { ticket, failure },
        };
        self.tell(event)
    }

    /// A failure that fits the effect; what a lost create reply leaves at the API is left there.
    fn remote_failure(&mut self, effect: &Effect) -> Result<Failure, String> {
        let Effect::Create { which, .. } = effect else {
            return Ok(match self.random.below(3) {
                0 => Failure::RateLimited { retry_after_ms: None, message: "slow down".to_owned() },
                _ => Failure::Transient("503".to_owned()),
            });
        };
        Ok(match self.random.below(4) {
            0 => Failure::Transient("not sent".to_owned()),
            1 => Failure::RateLimited { retry_after_ms: None, message: "queue full".to_owned() },
            2 => {
                let late = self.now.plus(self.random.below(60_000));
                self.on_the_wire.push((late, *which));
                Failure::Ambiguous("reset".to_owned())
            }
            _ => {
                self.create(*which)?;
                Failure::Ambiguous("503 after creating".to_owned())
            }
        })
    }

    fn effect(&mut self, effect: Effect) -> Result<Result<Outcome, Failure>, String> {
        Ok(Ok(match effect {
            Effect::Claim { head, plan } => {
                self.input(head.id).in_inbox = false;
                if plan { self.plan(head.id) } else { Outcome::Claimed }
            }
            Effect::Plan { head } => self.plan(head.id),
            Effect::Upload { file, .. } => Outcome::Uploaded { file },
            Effect::Create { which, .. } => match self.create(which)? {
                Some(name) => Outcome::Created { batch: name, created: Some(self.now) },
                None => Outcome::Refused {
                    error: RemoteError { code: 3, message: "invalid argument".to_owned() },
                    to: Objection::Whole { rest: self.rest(which.job, which.rows) },
                },
            },
            Effect::Find { which } => {
                let stamp = which.stamp();
                let found = self.batches.iter().filter(|batch| batch.stamp == stamp);
                let visible = found.filter(|batch| batch.visible <= self.now);
                Outcome::Found(visible.map(|batch| batch.seen(self.now)).collect())
            }
            Effect::Poll { batches } => {
                let look = |name: &BatchName| {
                    let found = self.batches.iter().find(|batch| batch.name == *name);
                    let seen =
                        found.map_or(Polled::Gone, |batch| Polled::Seen(batch.seen(self.now)));
                    (name.clone(), seen)
                };
                Outcome::Polled(batches.iter().map(look).collect())
            }
            Effect::Collect { which, batch, .. } => Outcome::Collected(self.collect(which, &batch)),
            Effect::CancelBatch { .. } => Outcome::Cancelled,
            Effect::Discard { .. } => Outcome::Discarded,
            Effect::Merge { job } => {
                let answered = self.input(job.head.id).answered.len() as u64;
                Outcome::Merged {
                    tally: Tally { answered, ..Tally::default() },
                    stem: "name".to_owned(),
                }
            }
            Effect::Deliver { job } => {
                let input = self.input(job.head.id);
                input.delivered = 1;
                Outcome::Delivered
            }
            Effect::Clean { .. } => Outcome::Cleaned,
            Effect::Refuse { .. } | Effect::Hold { .. } => Outcome::Moved,
            Effect::Notify { .. } | Effect::Withdraw { .. } => Outcome::Told,
        }))
    }

    fn plan(&mut self, id: JobId) -> Outcome {
        let rows = self.input(id).rows;
        let size = 1 + self.random.below(rows);
        let mut chunks = Vec::new();
        let mut first = 1;
        while first <= rows {
            let run = Rows { first: Row(first), last: Row((first + size - 1).min(rows)) };
            let rest = self.rest(id, run);
            chunks.push(PlannedChunk { rows: run, left: rest.left, right: rest.right });
            first += size;
        }
        let plan = Plan {
            rows,
            invalid: 0,
            bytes: rows * ROW_BYTES,
            sha256: id.to_string(),
            planned: self.now,
            first_create: None,
            last_result: None,
            cancelled: false,
            warnings: Vec::new(),
        };
        Outcome::Planned { plan, chunks }
    }

    /// A create reaches the API. What it would be paid for is checked here.
    fn create(&mut self, which: Which) -> Result<Option<BatchName>, String> {
        let rows = self.open_rows(which.job, which.rows);
        if rows.is_empty() {
            return Err(format!("{} was sent without a row", which.stamp().0));
        }
        if rows.iter().any(|row| self.input(which.job).poison.contains(row)) {
            return Ok(None);
        }
        let stamp = which.stamp();
        if self.batches.iter().any(|batch| batch.stamp == stamp) {
            return Err(format!("{} was created twice", stamp.0));
        }
        self.check_not_paid_twice(which, &rows)?;
        let name = BatchName(format!("batches/{}", self.batches.len()));
        let lag = if self.now < self.faults_until { self.random.below(60_000) } else { 0 };
        let length = 1000 + self.random.below(600_000);
        let end = match self.random.below(if self.now < self.faults_until { 10 } else { 1 }) {
            9 => RemoteState::Failed,
            8 => RemoteState::Expired,
            _ => RemoteState::Succeeded,
        };
        self.batches.push(Remote {
            name: name.clone(),
            stamp,
            job: which.job,
            rows,
            created: self.now,
            visible: self.now.plus(lag),
            ends: self.now.plus(length),
            end,
        });
        Ok(Some(name))
    }

    /// A row may be sent again only when every earlier batch with it was seen to its end.
    fn check_not_paid_twice(&self, which: Which, rows: &[u64]) -> Result<(), String> {
        let job = self.store.get(&which.job).ok_or("a create for a job that was never saved")?;
        let concluded = |name: &BatchName| {
            job.chunks.values().flat_map(|c| &c.batches).any(|record| record.name == *name)
        };
        for earlier in self.batches.iter().filter(|batch| batch.job == which.job) {
            let row = earlier.rows.iter().find(|row| rows.contains(row));
            if let Some(row) = row.filter(|_| !concluded(&earlier.name)) {
                let stamp = which.stamp().0;
                return Err(format!(
                    "row {row} is in {} and was sent again as {stamp}",
                    earlier.name.0
                ));
            }
        }
        Ok(())
    }

    fn arrive_on_the_wire(&mut self) -> Result<(), String> {
        while let Some(at) = self.on_the_wire.iter().position(|(at, _)| *at <= self.now) {
            let (_, which) = self.on_the_wire.remove(at);
            let open = self.open_rows(which.job, which.rows);
            if !open.is_empty() {
                self.create(which)?;
            }
        }
        Ok(())
    }

    fn collect(&mut self, which: Which, name: &BatchName) -> Harvest {
        let mut harvest = Harvest::default();
        let batch = self.batches.iter().find(|batch| batch.name == *name);
        let (rows, end) =
            batch.map_or((Vec::new(), RemoteState::Failed), |b| (b.rows.clone(), b.end.clone()));
        let faulty = self.now < self.faults_until;
        for row in rows {
            let answered = match end {
                RemoteState::Failed => false,
                RemoteState::Expired => self.random.chance(30),
                _ => !(faulty && self.random.chance(10)),
            };
            if answered {
                let taken = self.input(which.job).answered.insert(row, name.clone());
                if taken.is_none_or(|before| before == *name) {
                    harvest.answered += 1;
                }
            } else if end != RemoteState::Failed {
                harvest.missing += 1;
            }
        }
        harvest.rest = self.rest(which.job, which.rows);
        harvest
    }

    fn rest(&mut self, job: JobId, rows: Rows) -> Rest {
        let middle = rows.middle();
        let mut rest = Rest::default();
        for row in self.open_rows(job, rows) {
            let share = if row <= middle.0 { &mut rest.left } else { &mut rest.right };
            *share = Share { rows: share.rows + 1, bytes: share.bytes + ROW_BYTES };
        }
        rest
    }

    fn open_rows(&mut self, job: JobId, rows: Rows) -> Vec<u64> {
        let input = self.input(job);
        (rows.first.0..=rows.last.0).filter(|row| !input.answered.contains_key(row)).collect()
    }

    fn check_the_end(&mut self) -> Result<(), String> {
        for (id, input) in &self.inputs {
            let job = self.store.get(id).ok_or_else(|| format!("job {id} is lost"))?;
            let JobState::Done(_) = &job.head.state else {
                return Err(format!("job {id} hangs in {:?}", job.head.state));
            };
            if input.delivered != 1 {
                return Err(format!("job {id} was not delivered"));
            }
            let covered: u64 = job.leaves().map(|chunk| chunk.rows.len()).sum();
            if covered != input.rows {
                return Err(format!("job {id}: chunks cover {covered} of {} rows", input.rows));
            }
            let healthy = (1..=input.rows).filter(|row| !input.poison.contains(row));
            for row in healthy {
                let sent = self.batches.iter().any(|b| b.job == *id && b.rows.contains(&row));
                if !sent {
                    return Err(format!("job {id}: row {row} was never sent and not poison"));
                }
            }
        }
        Ok(())
    }

    fn input(&mut self, id: JobId) -> &mut Input {
        self.inputs.get_mut(&id).expect("every job has its input")
    }

    /// What the engine's clock shows.
    fn clock(&self) -> Millis {
        Millis(self.now.0.saturating_add_signed(self.ahead))
    }

    fn faulty(&mut self, percent: u64) -> bool {
        self.now < self.faults_until && self.random.chance(percent)
    }

    fn note(&mut self, line: String) {
        self.transcript.push(format!("{} {line}", self.now.0));
    }
}

impl Remote {
    fn seen(&self, now: Millis) -> RemoteBatch {
        let done = self.ends <= now;
        RemoteBatch {
            name: self.name.clone(),
            display_name: self.stamp.0.clone(),
            state: if done { self.end.clone() } else { RemoteState::Running },
            done,
            error: (done && self.end == RemoteState::Failed)
                .then(|| RemoteError { code: 13, message: "internal".to_owned() }),
            created: Some(self.created),
            ended: done.then_some(self.ends),
            input_file: None,
            output_file: None,
        }
    }
}

/// The limits as they are by default.
pub fn limits() -> Policy {
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
        duplicates: Duplicates::Process,
        duplicate_window_ms: 0,
        records_keep_ms: u64::MAX,
        key_print: "key".to_owned(),
    }
}

/// A plan of one chunk with one row of so many bytes.
pub fn plan_of(bytes: u64) -> Outcome {
    let plan = Plan {
        rows: 1,
        invalid: 0,
        bytes,
        sha256: String::new(),
        planned: Millis(0),
        first_create: None,
        last_result: None,
        cancelled: false,
        warnings: Vec::new(),
    };
    let rows = Rows { first: Row(1), last: Row(1) };
    let chunk = PlannedChunk { rows, left: Share { rows: 1, bytes }, right: Share::default() };
    Outcome::Planned { plan, chunks: vec![chunk] }
}

/// A batch that has succeeded.
pub fn seen_ended(name: &BatchName, now: Millis) -> RemoteBatch {
    RemoteBatch {
        name: name.clone(),
        display_name: String::new(),
        state: RemoteState::Succeeded,
        done: true,
        error: None,
        created: Some(now),
        ended: Some(now),
        input_file: None,
        output_file: None,
    }
}

/// A file comes whole.
pub fn arrival(id: JobId, bytes: u64) -> Event {
    Event::Arrived {
        id,
        source: Source { folder: String::new(), name: format!("{id}.jsonl"), bytes },
        queue: Queue {
            name: "default".to_owned(),
            model: "gemini-2.5-flash".to_owned(),
            transport: Transport::Auto,
            lines_per_batch: 0,
            priority: 0,
            attempts: 3,
            accept: Accept { truncated: true, blocked: false, empty: false },
        },
    }
}

/// No world takes more steps to its end.
const STEPS_MAX: u32 = 200_000;
/// Bytes of every row in this world.
const ROW_BYTES: u64 = 100;

/// A small generator of numbers that a seed decides (xorshift64*).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, bound: u64) -> u64 {
        (self.next() >> 11) % bound.max(1)
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}
