//! What the engine asks the shell to do.
//!
//! A [`Turn`] is consumed by one function of the shell, in this order: save, then act.

use super::ids::{Attempt, BatchName, ChunkNo, FileName, JobId, Millis, Row, Rows, Stamp, Ticket};
use super::job::{Chunk, Family, Head, Input, Job, Refusal, RemoteEnd, Task, Terms, Tier};

/// The answer of the engine to one event.
#[derive(Debug, Clone, PartialEq, Default)]
#[must_use = "a turn must be saved and then acted upon"]
pub struct Turn {
    /// Records to save, in one step, before anything else.
    pub save: Vec<Change>,
    /// Effects to begin, only when everything is saved.
    pub then: Vec<Issued>,
}

/// A change to the stored records.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// The job's own record is new or has changed.
    Head(Box<Head>),
    /// A chunk's record is new or has changed.
    Chunk(JobId, Box<Chunk>),
    /// The job is complete and its chunks are not needed any more: they are to be forgotten.
    Shed(JobId),
    /// The job and all its chunks are to be forgotten.
    Forget(JobId),
    /// A note is new or has changed; an empty one is to be removed.
    Note {
        /// Its name.
        name: &'static str,
        /// What it says.
        value: String,
    },
}

/// An effect with the ticket its outcome will carry.
#[derive(Debug, Clone, PartialEq)]
pub struct Issued {
    /// Comes back with the outcome.
    pub ticket: Ticket,
    /// What to do.
    pub effect: Effect,
    /// Fingerprint of the API key to do it with; `None` if none is needed, or none is there.
    pub key: Option<String>,
}

/// Which attempt an effect is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Which {
    /// The job.
    pub job: JobId,
    /// The chunk.
    pub chunk: ChunkNo,
    /// The attempt.
    pub attempt: Attempt,
    /// The rows the chunk answers for; the unanswered ones of them are sent.
    pub rows: Rows,
    /// The last row of the first half, for counting what is left.
    pub middle: Row,
    /// What its answers are held to.
    pub terms: Terms,
    /// As [`Plan::prepared`](super::job::Plan::prepared).
    pub prepared: bool,
}

impl Which {
    /// The attempt's stamp.
    pub fn stamp(&self) -> Stamp {
        Stamp::new(self.job, self.chunk, self.attempt)
    }
}

/// One thing to do in the world outside.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Move the input from the inbox into the working folder.
    Claim {
        /// The job.
        head: Box<Head>,
        /// Do what [`Effect::Plan`] does right after: the input is small, and a restart finds out
        /// by itself how far this got.
        plan: bool,
    },
    /// Read, check and index the input, and cut it into chunks.
    Plan {
        /// The job.
        head: Box<Head>,
        /// The upload of the first chunk's first attempt may begin meanwhile, as far as its rows
        /// are known: nothing would keep it from going now. It must not end; the [`Effect::Upload`]
        /// that follows does that, and relies on nothing of it.
        early: bool,
    },
    /// Upload the unanswered rows as a file, or resume doing so.
    Upload {
        /// The attempt.
        which: Which,
        /// The name the file is to have.
        file: FileName,
    },
    /// Create the batch. The one effect that must never be repeated blindly.
    Create {
        /// The attempt.
        which: Which,
        /// How its requests travel.
        input: Input,
        /// The model, without `models/`.
        model: String,
        /// What the requests ask for.
        task: Task,
        /// Whose requests they are.
        family: Family,
        /// Passed to the API.
        priority: i64,
    },
    /// List all pages and pick the batches of the attempt.
    Find {
        /// The attempt.
        which: Which,
        /// The input file by which its batches are known, where they bear no stamp: in the
        /// OpenAI-compatible layer. No other attempt's batches are made from it while this one is
        /// in doubt.
        file: Option<FileName>,
    },
    /// Ask for the state of these batches.
    Poll {
        /// All that are due.
        batches: Vec<BatchName>,
    },
    /// Fetch the results of a batch that has ended, and index them.
    Collect {
        /// The attempt.
        which: Which,
        /// The batch.
        batch: BatchName,
        /// How it ended.
        end: RemoteEnd,
        /// So many rows sent may lack a line: more than none only for results that came short or
        /// damaged several times. Damaged lines are kept aside then.
        missing_max: u64,
    },
    /// Ask for the unanswered rows one by one, as many of them as there is time for. Which rows are
    /// sent is to be durable before they are; answers are taken in as they come.
    Rescue {
        /// The attempt.
        which: Which,
        /// The tier to ask through.
        tier: Tier,
        /// The model, without `models/`.
        model: String,
        /// What the requests ask for.
        task: Task,
        /// Nothing is sent any more from then on.
        until: Millis,
    },
    /// Remove a collected attempt's batch and input file at the API, to make room there.
    Discard {
        /// The batch.
        batch: BatchName,
        /// How its requests got there.
        input: Input,
    },
    /// Remove the input file of a batch that exists: the API has read it (API contract, 3.4).
    DropInput {
        /// The file.
        file: FileName,
    },
    /// Ask the API to stop a batch.
    CancelBatch {
        /// The batch.
        batch: BatchName,
    },
    /// Count which lines of a job's canary came back badly.
    Judge {
        /// The job.
        head: Box<Head>,
    },
    /// Write results and errors aside.
    Merge {
        /// The job with all its chunks.
        job: Box<Job>,
    },
    /// Move the outputs into the outbox, the manifest last.
    Deliver {
        /// The job with all its chunks.
        job: Box<Job>,
    },
    /// Archive the input, remove remote files and batches and the working folder.
    Clean {
        /// The job with all its chunks.
        job: Box<Job>,
    },
    /// Move the input to `failed/` with its reason.
    Refuse {
        /// The job.
        head: Box<Head>,
        /// Why.
        refusal: Refusal,
    },
    /// Move the input to `held/` with its reason.
    Hold {
        /// The job.
        head: Box<Head>,
        /// Why.
        refusal: Refusal,
    },
    /// Tell people in `held/` that a chunk waits for them; the input stays where it is.
    Notify {
        /// The job.
        head: Box<Head>,
        /// Why.
        refusal: Refusal,
    },
    /// Take back what [`Effect::Notify`] wrote: a person has decided.
    Withdraw {
        /// The job.
        head: Box<Head>,
    },
}

impl Effect {
    /// A word for what it does, as the log has it.
    pub fn word(&self) -> &'static str {
        match self {
            Effect::Claim { .. } => "claim",
            Effect::Plan { .. } => "plan",
            Effect::Upload { .. } => "upload",
            Effect::Create { .. } => "create",
            Effect::Find { .. } => "find",
            Effect::Poll { .. } => "poll",
            Effect::Collect { .. } => "collect",
            Effect::Rescue { .. } => "rescue",
            Effect::Discard { .. } => "discard",
            Effect::DropInput { .. } => "drop",
            Effect::CancelBatch { .. } => "cancel",
            Effect::Judge { .. } => "judge",
            Effect::Merge { .. } => "merge",
            Effect::Deliver { .. } => "deliver",
            Effect::Clean { .. } => "clean",
            Effect::Refuse { .. } => "refuse",
            Effect::Hold { .. } => "hold",
            Effect::Notify { .. } => "notify",
            Effect::Withdraw { .. } => "withdraw",
        }
    }
}
