//! Jobs in every state, drawn from a seed.

use std::collections::BTreeMap;

use gemini_batchd::engine::job::{
    Accept, Batch, BatchRecord, Delivery, Doubt, Input, Plan, Queue, Refusal, RemoteEnd,
    RemoteError, RemoteState, Rest, Share, Source, Tally, Task, Tokens, Transport,
};
use gemini_batchd::engine::{
    Attempt, BatchName, Chunk, ChunkNo, ChunkState, FileName, Head, JobId, JobState, Millis, Row,
    Rows,
};

/// How many states a job can be in; one past the last argument of [`Dice::job_state`].
pub const JOB_STATES: u64 = 11;

/// How many states a chunk can be in; one past the last argument of [`Dice::chunk_state`].
pub const CHUNK_STATES: u64 = 9;

/// A source of numbers that is the same for the same seed (splitmix64).
pub struct Dice(pub u64);

impl Dice {
    /// Any number.
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.roll() % end
    }

    pub fn coin(&mut self) -> bool {
        self.below(2) == 0
    }

    pub fn maybe<T>(&mut self, make: impl FnOnce(&mut Dice) -> T) -> Option<T> {
        if self.coin() { Some(make(self)) } else { None }
    }

    /// Numbers near both ends of what fits, and others.
    pub fn number(&mut self) -> u64 {
        match self.below(4) {
            0 => self.below(3),
            1 => u64::MAX - self.below(3),
            _ => self.roll() >> self.below(64),
        }
    }

    pub fn text(&mut self) -> String {
        let alphabet =
            ["a", "Z", "0", "\"", "\\", "\n", "\u{0}", "é", "批", "🦀", "/", " ", "\u{2028}"];
        (0..self.below(12)).map(|_| alphabet[self.below(13) as usize]).collect()
    }

    /// One of `count` job ids.
    pub fn job_id(&mut self, count: u64) -> JobId {
        id(self.below(count))
    }

    /// A head in any state.
    pub fn head(&mut self, id: JobId) -> Head {
        let state = self.below(JOB_STATES);
        let mut head = self.head_in(id, state);
        head.key_print = self.maybe(Dice::text);
        head.queue.credential = self.text();
        head.on_hold = self.coin();
        head.queue.task = if self.coin() { Task::Embed } else { Task::Generate };
        head
    }

    /// A head in a given state.
    pub fn head_in(&mut self, id: JobId, state: u64) -> Head {
        let transports = [Transport::Auto, Transport::Inline, Transport::File];
        Head {
            id,
            source: Source {
                folder: self.text(),
                name: self.text(),
                bytes: self.number(),
                sidecar: None,
            },
            queue: Queue {
                name: self.text(),
                model: self.text(),
                task: Task::Generate,
                transport: transports[self.below(3) as usize],
                lines_per_batch: self.number(),
                priority: self.roll() as i64,
                attempts: self.roll() as u16,
                accept: Accept { truncated: self.coin(), blocked: self.coin(), empty: self.coin() },
                // What came later than version 1 must not change what the dice show.
                ..Queue::default()
            },
            claimed: self.millis(),
            released: false,
            on_hold: false,
            key_print: None,
            funds: None,
            state: self.job_state(state),
        }
    }

    /// The job state of a number.
    pub fn job_state(&mut self, number: u64) -> JobState {
        match number {
            0 => JobState::Claiming,
            1 => JobState::Planning,
            2 => JobState::Active(self.plan()),
            3 => JobState::Merging(self.plan()),
            4 => JobState::Delivering(self.delivery()),
            5 => JobState::Cleaning(self.delivery()),
            6 => JobState::Done(self.delivery()),
            7 => JobState::Refusing(self.refusal()),
            8 => JobState::Failed(self.refusal()),
            9 => JobState::Holding(self.refusal()),
            _ => JobState::Held(self.refusal()),
        }
    }

    /// A chunk in any state.
    pub fn chunk(&mut self, no: ChunkNo) -> Chunk {
        let state = self.below(CHUNK_STATES);
        let mut chunk = Chunk { key_print: self.maybe(Dice::text), ..self.chunk_in(no, state) };
        for batch in &mut chunk.batches {
            batch.key_print = self.maybe(Dice::text);
            batch.collected = self.maybe(Dice::millis);
            batch.input_gone = self.coin();
            batch.result_bytes = self.number();
        }
        if let ChunkState::Polling(batch) | ChunkState::Collecting { batch, .. } = &mut chunk.state
        {
            batch.input_gone = self.coin();
        }
        chunk
    }

    /// A chunk in a given state, as version 1 had them.
    pub fn chunk_in(&mut self, no: ChunkNo, state: u64) -> Chunk {
        Chunk {
            no,
            root: ChunkNo(self.roll() as u32),
            rows: Rows { first: Row(self.number()), last: Row(self.number()) },
            rest: Rest { left: self.share(), right: self.share() },
            attempt: self.attempt(),
            tries: self.roll() as u16,
            key_print: None,
            density: None,
            purse: None,
            state: self.chunk_state(state),
            batches: (0..self.below(3)).map(|_| self.batch_record()).collect(),
            last_error: self.maybe(Dice::error),
            aid: None,
        }
    }

    /// The chunk state of a number.
    pub fn chunk_state(&mut self, number: u64) -> ChunkState {
        match number {
            0 => ChunkState::Waiting { not_before: self.millis() },
            1 => ChunkState::Uploading { file: FileName(self.text()) },
            2 => ChunkState::Creating { input: self.input(), since: self.millis() },
            3 => ChunkState::Uncertain {
                input: self.input(),
                since: self.millis(),
                next_probe: self.millis(),
                until: self.millis(),
                doubt: if self.coin() { Doubt::Lost } else { Doubt::RateLimited },
            },
            4 => ChunkState::Stuck { input: self.input(), since: self.millis() },
            5 => ChunkState::Polling(self.batch()),
            6 => ChunkState::Collecting { batch: self.batch(), end: self.end() },
            7 => ChunkState::Settled,
            _ => ChunkState::Split {
                left: ChunkNo(self.roll() as u32),
                right: ChunkNo(self.roll() as u32),
            },
        }
    }

    fn millis(&mut self) -> Millis {
        Millis(self.number())
    }

    fn attempt(&mut self) -> Attempt {
        Attempt(self.roll() as u16)
    }

    fn share(&mut self) -> Share {
        Share { rows: self.number(), bytes: self.number() }
    }

    fn plan(&mut self) -> Plan {
        Plan {
            rows: self.number(),
            invalid: self.number(),
            bytes: self.number(),
            sha256: self.text(),
            planned: self.millis(),
            first_create: self.maybe(Dice::millis),
            last_result: self.maybe(Dice::millis),
            cancelled: self.coin(),
            warnings: (0..self.below(3)).map(|_| self.text()).collect(),
            ..Plan::default()
        }
    }

    fn delivery(&mut self) -> Delivery {
        let failures: BTreeMap<String, u64> =
            (0..self.below(3)).map(|_| (self.text(), self.number())).collect();
        Delivery {
            plan: self.plan(),
            tally: Tally {
                answered: self.number(),
                failed: self.number(),
                truncated: self.number(),
                failures,
                tokens: Tokens {
                    prompt: self.number(),
                    output: self.number(),
                    thinking: self.number(),
                    cached: self.number(),
                    total: self.number(),
                },
                // What came later would change all that is drawn after it.
                ..Tally::default()
            },
            stem: self.text(),
            delivered: self.millis(),
        }
    }

    pub fn refusal(&mut self) -> Refusal {
        Refusal {
            reason: self.text(),
            message: self.text(),
            remedy: self.text(),
            line: self.maybe(Dice::number),
            column: self.maybe(Dice::number),
        }
    }

    fn input(&mut self) -> Input {
        if self.coin() { Input::Inline } else { Input::File(FileName(self.text())) }
    }

    fn batch(&mut self) -> Batch {
        Batch {
            name: BatchName(self.text()),
            input: self.input(),
            created: self.millis(),
            adopted: self.coin(),
            remote: self.remote(),
            key_print: self.text(),
            input_gone: false,
        }
    }

    fn remote(&mut self) -> RemoteState {
        match self.below(7) {
            0 => RemoteState::Pending,
            1 => RemoteState::Running,
            2 => RemoteState::Succeeded,
            3 => RemoteState::Failed,
            4 => RemoteState::Cancelled,
            5 => RemoteState::Expired,
            _ => RemoteState::Unknown(
                ["PENDING", "JOB_STATE_ODD", ""][self.below(3) as usize].into(),
            ),
        }
    }

    fn end(&mut self) -> RemoteEnd {
        let (state, ended) = (self.remote(), self.millis());
        RemoteEnd { state, ended, error: self.maybe(Dice::error) }
    }

    fn error(&mut self) -> RemoteError {
        RemoteError { code: self.roll() as i32, message: self.text() }
    }

    fn batch_record(&mut self) -> BatchRecord {
        BatchRecord {
            name: BatchName(self.text()),
            attempt: self.attempt(),
            input: self.input(),
            state: self.remote(),
            lines: self.number(),
            bytes: self.number(),
            answered: self.number(),
            created: self.millis(),
            ended: self.millis(),
            collected: None,
            adopted: self.coin(),
            error: self.maybe(Dice::error),
            key_print: None,
            input_gone: false,
            result_bytes: 0,
            cost: None,
        }
    }
}

/// The job id of a number.
pub fn id(number: u64) -> JobId {
    format!("01JD{number:022}").parse().expect("26 characters")
}
