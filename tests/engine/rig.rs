//! An engine without a world: the test says what happens, and sees what is saved and begun.

use std::collections::BTreeMap;

use gemini_batchd::engine::effect::{Change, Effect, Issued, Turn};
use gemini_batchd::engine::event::{
    Event, Failure, Harvest, Outcome, PlannedChunk, Polled, RemoteBatch,
};
use gemini_batchd::engine::job::{
    Accept, Chunk, ChunkState, Family, Job, JobState, Plan, Queue, RemoteState, Rest, Share,
    Source, Task, Transport,
};
use gemini_batchd::engine::keys::{Credential, Keys};
use gemini_batchd::engine::money::Means;
use gemini_batchd::engine::policy::{Duplicates, Policy, Uncertain};
use gemini_batchd::engine::rescue::RescuePace;
use gemini_batchd::engine::{BatchName, ChunkNo, Engine, JobId, Millis, Recollection, Row, Rows};

/// When every test begins.
pub const START: Millis = Millis(1_700_000_000_000);

/// An engine, and the records and effects that its turns gave.
pub struct Rig {
    pub engine: Engine,
    pub policy: Policy,
    pub now: Millis,
    /// The records as they were saved.
    pub saved: BTreeMap<JobId, Job>,
    /// The notes as they were saved.
    pub notes: BTreeMap<&'static str, String>,
    /// Effects that were begun and not answered yet, oldest first.
    pub begun: Vec<Issued>,
    /// How often something happened; a test that goes in circles ends by it.
    told: usize,
}

impl Rig {
    pub fn new(policy: Policy) -> Rig {
        let (engine, turn) = Engine::resume(Vec::new(), policy.clone(), START);
        assert_eq!(turn, Turn::default(), "nothing to do yet");
        let (saved, notes, begun) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
        Rig { engine, policy, now: START, saved, notes, begun, told: 0 }
    }

    /// An engine with one job, planned into chunks of so many rows.
    pub fn with_job(policy: Policy, queue: Queue, chunks: &[u64]) -> Rig {
        let mut rig = Rig::new(policy);
        rig.add_job(1, queue, chunks);
        rig
    }

    /// The same for a job of OpenAI lines.
    pub fn with_openai_job(policy: Policy, queue: Queue, chunks: &[u64]) -> Rig {
        let mut rig = Rig::new(policy);
        rig.arrive(1, queue, 100);
        let Outcome::Planned { plan, chunks } = planned("content 1", chunks) else {
            unreachable!()
        };
        let plan = Plan { family: Family::OpenAi, ..plan };
        rig.answer("claim", Ok(Outcome::Planned { plan, chunks }));
        rig
    }

    /// A job comes, is claimed and planned.
    pub fn add_job(&mut self, number: u64, queue: Queue, chunks: &[u64]) {
        self.arrive(number, queue, 100);
        let outcome = planned(&format!("content {number}"), chunks);
        self.answer("claim", Ok(outcome));
    }

    /// A file of so many bytes comes.
    pub fn arrive(&mut self, number: u64, queue: Queue, bytes: u64) {
        let source =
            Source { folder: String::new(), name: format!("{number}.jsonl"), bytes, sidecar: None };
        self.tell(Event::Arrived { id: id(number), source, queue });
    }

    /// A small file of this name comes.
    pub fn arrive_as(&mut self, number: u64, name: &str, queue: Queue) {
        let source =
            Source { folder: String::new(), name: name.to_owned(), bytes: 1, sidecar: None };
        self.tell(Event::Arrived { id: id(number), source, queue });
    }

    /// Something happens.
    pub fn tell(&mut self, event: Event) {
        self.told += 1;
        assert!(self.told < 20_000, "nothing comes of all this: {:?}", self.kinds());
        let turn = self.engine.handle(event, self.now);
        self.consume(turn);
    }

    /// Saves and begins what a turn says.
    pub fn consume(&mut self, turn: Turn) {
        for change in turn.save {
            match change {
                Change::Head(head) => {
                    let id = head.id;
                    let chunks = self.saved.remove(&id).map(|job| job.chunks).unwrap_or_default();
                    self.saved.insert(id, Job { head: *head, chunks });
                }
                Change::Chunk(id, chunk) => {
                    let job = self.saved.get_mut(&id).expect("a chunk's job is saved first");
                    job.chunks.insert(chunk.no, *chunk);
                }
                Change::Shed(id) => self.saved.get_mut(&id).expect("saved").chunks.clear(),
                Change::Forget(id) => {
                    self.saved.remove(&id);
                }
                Change::Note { name, value } => {
                    self.notes.insert(name, value);
                }
            }
        }
        self.begun.extend(turn.then);
        for job in self.engine.unfinished() {
            assert_eq!(self.saved.get(&job.head.id), Some(job), "what is believed is saved");
        }
    }

    /// The oldest effect of a kind that was begun comes to its end.
    pub fn answer(&mut self, kind: &str, result: Result<Outcome, Failure>) -> Effect {
        let Issued { ticket, effect, .. } = self.take(kind);
        match result {
            Ok(outcome) => self.tell(Event::Done { ticket, outcome }),
            Err(failure) => self.tell(Event::Failed { ticket, failure }),
        }
        effect
    }

    /// Takes the oldest effect of a kind off the list of what was begun.
    pub fn take(&mut self, kind: &str) -> Issued {
        let at = self.begun.iter().position(|issued| issued.effect.word() == kind);
        let at = at.unwrap_or_else(|| panic!("no {kind} among {:?}", self.kinds()));
        self.begun.remove(at)
    }

    /// What was begun and not answered yet, in words.
    pub fn kinds(&self) -> Vec<&'static str> {
        self.begun.iter().map(|issued| issued.effect.word()).collect()
    }

    /// Lets the time pass until something is due. Answers with how long it was, milliseconds.
    pub fn wait(&mut self) -> u64 {
        let until = self.engine.next_wakeup().expect("something waits for its time");
        assert!(until > self.now, "{until:?} is past, it is {:?}", self.now);
        let passed = until.since(self.now);
        self.now = until;
        self.tell(Event::Tick);
        passed
    }

    /// Ticks at this moment, which is not past.
    pub fn until(&mut self, moment: Millis) {
        assert!(moment >= self.now);
        self.now = moment;
        self.tell(Event::Tick);
    }

    /// Time passes, and somebody looks up now and then, as the daemon does.
    pub fn pass(&mut self, span_ms: u64) {
        let end = self.now.plus(span_ms);
        while self.now < end {
            self.until(end.min(self.now.plus(60_000)));
        }
    }

    /// The process ends and starts again; what was under way is forgotten.
    pub fn restart(&mut self) {
        let mut recollection = Recollection::default();
        self.saved.values().cloned().for_each(|job| recollection.take_in(job));
        recollection.pause(self.engine.pauses().clone());
        self.notes.iter().for_each(|(name, value)| recollection.note(name, value));
        recollection.periods(self.engine.periods());
        let (engine, turn) = recollection.resume(self.policy.clone(), self.now);
        self.engine = engine;
        self.begun.clear();
        self.consume(turn);
    }

    /// The state of the first job.
    pub fn job(&self) -> &JobState {
        self.job_of(1)
    }

    pub fn job_of(&self, number: u64) -> &JobState {
        &self.saved.get(&id(number)).expect("the job is saved").head.state
    }

    /// The plan of the first job, which is active.
    pub fn plan(&self) -> &Plan {
        self.job().plan().expect("the job is planned")
    }

    /// A chunk of the first job.
    pub fn chunk(&self, no: u32) -> &Chunk {
        let chunks = &self.saved.get(&id(1)).expect("the job is saved").chunks;
        chunks.get(&ChunkNo(no)).unwrap_or_else(|| panic!("no chunk {no} among {chunks:?}"))
    }

    pub fn state(&self, no: u32) -> &ChunkState {
        &self.chunk(no).state
    }

    /// The first job's only chunk gets a batch of this name.
    pub fn create(&mut self, name: &str) {
        let created = Outcome::Created { batch: batch(name), created: Some(self.now) };
        self.answer("create", Ok(created));
        if self.kinds().contains(&"drop") {
            self.answer("drop", Ok(Outcome::Discarded));
        }
    }

    /// The next look at the batches tells this of one of them.
    pub fn poll(&mut self, name: &str, polled: Polled) {
        if !self.kinds().contains(&"poll") {
            self.wait();
        }
        self.answer("poll", Ok(Outcome::Polled(vec![(batch(name), polled)])));
    }

    /// The batch of this name is seen to have ended.
    pub fn end(&mut self, name: &str, state: RemoteState) {
        let remote = RemoteBatch { state, done: true, ..remote(name) };
        self.poll(name, Polled::Seen(remote));
    }

    /// The results of the batch are fetched.
    pub fn collect(&mut self, harvest: Harvest) {
        self.answer("collect", Ok(Outcome::Collected(harvest)));
    }
}

/// The limits as they are by default, but that equal content is no matter.
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
        duplicates: Duplicates::Process,
        duplicate_window_ms: 604_800_000,
        records_keep_ms: 7_776_000_000,
        remote_cleanup: true,
        rescue: RescuePace::default(),
        keys: Keys::one("key"),
        means: Means::default(),
    }
}

/// A credential and the fingerprint of its key.
pub fn credential(name: &str, print: &str) -> Credential {
    Credential { name: name.to_owned(), print: print.to_owned(), former: None }
}

/// The settings of a queue whose requests travel like this.
pub fn queue(transport: Transport) -> Queue {
    Queue {
        name: "default".to_owned(),
        model: "gemini-2.5-flash".to_owned(),
        task: Task::Generate,
        transport,
        lines_per_batch: 0,
        priority: 0,
        attempts: 3,
        accept: Accept { truncated: true, blocked: false, empty: false },
        ..Queue::default()
    }
}

/// What planning tells of chunks of so many rows.
pub fn planned(content: &str, chunks: &[u64]) -> Outcome {
    let plan = Plan {
        rows: chunks.iter().sum(),
        invalid: 0,
        bytes: 100,
        sha256: content.to_owned(),
        planned: START,
        first_create: None,
        last_result: None,
        cancelled: false,
        warnings: Vec::new(),
        ..Plan::default()
    };
    let mut first = 1;
    let cut = |rows: &u64| {
        let run = Rows { first: Row(first), last: Row(first + rows - 1) };
        first += rows;
        let rest = rest(*rows);
        PlannedChunk { rows: run, left: rest.left, right: rest.right, density: None }
    };
    let chunks = chunks.iter().map(cut).collect();
    Outcome::Planned { plan, chunks }
}

/// So many unanswered rows, the first half of them in the first half of the chunk.
pub fn rest(rows: u64) -> Rest {
    let share = |rows| Share { rows, bytes: rows * ROW_BYTES };
    Rest { left: share(rows.div_ceil(2)), right: share(rows / 2) }
}

/// Bytes of every row.
pub const ROW_BYTES: u64 = 100;

/// A batch that is being worked on.
pub fn remote(name: &str) -> RemoteBatch {
    RemoteBatch {
        name: batch(name),
        display_name: String::new(),
        state: RemoteState::Running,
        done: false,
        error: None,
        created: None,
        ended: None,
        input_file: None,
        output_file: None,
    }
}

pub fn batch(name: &str) -> BatchName {
    BatchName(name.to_owned())
}

pub fn id(number: u64) -> JobId {
    format!("01JD{number:022}").parse().expect("an id")
}
