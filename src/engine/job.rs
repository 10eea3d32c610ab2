//! A job, its chunks, and every state they can be in.
//!
//! States carry exactly their own data. What is saved is all there is: what a job needs next
//! is a function of these values alone, so a restart runs the same code as a normal step.

use std::collections::BTreeMap;

pub use super::answers::{Answers, Media, Terms};
pub use super::batch::{Aid, Batch, BatchRecord, Input, RemoteEnd, RemoteError, RemoteState};
pub use super::canary::{Canary, Tolerance, Trial};
pub use super::conversion::Conversion;
pub use super::deadline::{By, Deadline, Promise};
pub use super::estimate::Density;
use super::ids::{Attempt, ChunkNo, FileName, JobId, Millis, Row, Rows};
pub use super::money::{Amount, Cost, Funds, Purse};
pub use super::queue::{Accept, Moments, OpenAiLines, Queue, Task, Transport};
pub use super::rescue::{Tier, Tiers};
pub use super::stuck::Stuck;
pub use super::tally::{MediaTally, Tally, Tokens};
pub use super::window::Window;

/// One input file and all that is done for it.
#[derive(Debug, Clone, PartialEq)]
pub struct Job {
    /// Everything but the chunks; saved as one record.
    pub head: Head,
    /// The chunks, each saved as a record of its own. Empty until the job is planned.
    pub chunks: BTreeMap<ChunkNo, Chunk>,
}

/// What is known of a job apart from its chunks.
#[derive(Debug, Clone, PartialEq)]
pub struct Head {
    /// The job's id.
    pub id: JobId,
    /// Where the input came from.
    pub source: Source,
    /// The queue's settings as they were when the file was claimed.
    pub queue: Queue,
    /// When the file was claimed.
    pub claimed: Millis,
    /// A person has said that the file is to be processed, although it was held for its content;
    /// it is fetched from `held/` then.
    pub released: bool,
    /// An operator wants nothing new of it to be sent until it is released.
    pub on_hold: bool,
    /// Fingerprint of the API key the job is bound to, once something of it was sent; records of
    /// earlier versions do not have it.
    pub key_print: Option<String>,
    /// What is known of the money for it, once it is planned and its model has a price.
    pub funds: Option<Box<Funds>>,
    /// Where the job stands.
    pub state: JobState,
}

/// An input file as it lay in the inbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Sub-folder of the inbox, `/` between the parts; empty for the inbox itself.
    pub folder: String,
    /// File name with its ending: one path component, valid UTF-8, no control characters.
    pub name: String,
    /// Size in bytes.
    pub bytes: u64,
    /// Name of the file beside it whose settings are part of the job's, if there was one: like
    /// [`Source::name`]. It goes where the input goes.
    pub sidecar: Option<String>,
}

/// Whose requests a file holds, and so which calls its batches need. Found when it is planned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Family {
    /// The API's own.
    #[default]
    Native,
    /// OpenAI's, for the API's OpenAI-compatible layer.
    OpenAi,
}

/// Where a job stands.
#[derive(Debug, Clone, PartialEq)]
pub enum JobState {
    /// The input is in the inbox (or, if released, in `held/`) or already in the working folder.
    Claiming,
    /// The input is being read, checked and indexed.
    Planning,
    /// Chunks are on their way.
    Active(Plan),
    /// All chunks are settled; results and errors are written.
    Merging(Plan),
    /// The outputs move into the outbox, the manifest last.
    Delivering(Delivery),
    /// The outbox is complete; the input goes to the archive, remains are removed.
    Cleaning(Delivery),
    /// Complete.
    Done(Delivery),
    /// The input moves to `failed/`.
    Refusing(Refusal),
    /// Refused whole; the input lies in `failed/`.
    Failed(Refusal),
    /// The input moves to `held/`.
    Holding(Refusal),
    /// Waits for a person; the input lies in `held/`.
    Held(Refusal),
}

/// What reading the input told.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// Requests in the input, valid or not.
    pub rows: u64,
    /// Of these, rows that can not be sent.
    pub invalid: u64,
    /// Bytes of the input.
    pub bytes: u64,
    /// SHA-256 of the input, lower-case hexadecimal.
    pub sha256: String,
    /// Whose requests they are.
    pub family: Family,
    /// Print of the settings that make another job of the same bytes, such as the model; records of
    /// earlier versions do not have it.
    pub asks: Option<u64>,
    /// When planning ended.
    pub planned: Millis,
    /// When the first batch was created.
    pub first_create: Option<Millis>,
    /// When the last results were collected.
    pub last_result: Option<Millis>,
    /// An operator asked to stop: nothing more is sent.
    pub cancelled: bool,
    /// What the user should know although it is no failure.
    pub warnings: Vec<String>,
    /// Rows are read from the prepared lines in the working folder, not from the input.
    pub prepared: bool,
    /// Lines name files, which were taken into the working folder.
    pub media: bool,
    /// Its canary, if it has one.
    pub canary: Option<Box<Trial>>,
    /// Rows answered from the cache: they are never sent.
    pub reused: u64,
    /// What became of the deadline, as soon as there is something to say.
    pub promise: Option<Box<Promise>>,
}

/// A merged job on its way to the outbox.
#[derive(Debug, Clone, PartialEq)]
pub struct Delivery {
    /// What planning told.
    pub plan: Plan,
    /// Lines counted while merging.
    pub tally: Tally,
    /// Output files are named after this, so that nothing is overwritten.
    pub stem: String,
    /// The moment the manifest names as the delivery.
    pub delivered: Millis,
}

/// Why a whole file was refused or held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// A word for scripts, such as `no_valid_line` or `duplicate`.
    pub reason: String,
    /// What happened.
    pub message: String,
    /// What to do about it.
    pub remedy: String,
    /// The line it was found on, where there is one.
    pub line: Option<u64>,
    /// The column on that line.
    pub column: Option<u64>,
}

/// A run of rows that goes to the API as one batch.
#[derive(Debug, Clone, PartialEq)]
pub struct Chunk {
    /// The chunk's number.
    pub no: ChunkNo,
    /// The chunk of the plan that this one was halved out of; itself, if it never was.
    pub root: ChunkNo,
    /// The rows it answers for. Rows that are settled already are not sent again.
    pub rows: Rows,
    /// What is still unanswered.
    pub rest: Rest,
    /// The attempt under way, or the last one.
    pub attempt: Attempt,
    /// Attempts that reached the API and came to an end; limited by [`Queue::attempts`].
    pub tries: u16,
    /// Fingerprint of the API key that the latest create was sent with; records of earlier
    /// versions do not have it.
    pub key_print: Option<String>,
    /// What its requests are like; records of earlier versions do not have it.
    pub density: Option<Density>,
    /// What it has of a budget, if its model has a price.
    pub purse: Option<Box<Purse>>,
    /// Where the attempt stands.
    pub state: ChunkState,
    /// Batches that came to an end, oldest first.
    pub batches: Vec<BatchRecord>,
    /// The last whole refusal or failure, as told by the API.
    pub last_error: Option<RemoteError>,
    /// What was done because a batch took too long, if anything was.
    pub aid: Option<Box<Aid>>,
}

/// The rows of a chunk that still want an answer, counted in two halves so that the chunk
/// can be cut in two without reading the input again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rest {
    /// Rows up to and including [`Rows::middle`].
    pub left: Share,
    /// The rows after it.
    pub right: Share,
}

impl Rest {
    /// Unanswered rows.
    pub fn rows(self) -> u64 {
        self.left.rows + self.right.rows
    }

    /// Their requests in bytes, as lines of an input file for the API.
    pub fn bytes(self) -> u64 {
        self.left.bytes + self.right.bytes
    }
}

/// Some unanswered rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Share {
    /// How many rows.
    pub rows: u64,
    /// Their requests in bytes, as lines of an input file for the API.
    pub bytes: u64,
}

/// Where an attempt stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChunkState {
    /// Waits for its turn, not before the given time.
    Waiting {
        /// Earliest time to go on.
        not_before: Millis,
    },
    /// Its requests are being uploaded as a file.
    Uploading {
        /// The name the file has at the API, chosen by us.
        file: FileName,
    },
    /// The intent is durable; the paid call may be on the wire.
    Creating {
        /// How the requests travel.
        input: Input,
        /// When the intent was saved.
        since: Millis,
    },
    /// Nobody knows whether the batch exists: it is looked for until `until`.
    Uncertain {
        /// How the requests travelled.
        input: Input,
        /// When the intent was saved.
        since: Millis,
        /// When the next look is due.
        next_probe: Millis,
        /// After this, a batch that was not found does not exist.
        until: Millis,
        /// Why it is not known.
        doubt: Doubt,
    },
    /// Still unknown after the settling window, and a person is asked: by the settings, or because
    /// the API key is another one by now.
    Stuck {
        /// How the requests travelled.
        input: Input,
        /// When the intent was saved.
        since: Millis,
    },
    /// The batch exists and is polled.
    Polling(Batch),
    /// The batch has ended; its results are fetched.
    Collecting {
        /// The batch.
        batch: Batch,
        /// How it ended.
        end: RemoteEnd,
    },
    /// Its rows are asked one by one. This is the intent; which rows were sent is noted beside the
    /// answers before they are.
    Rescuing {
        /// The tier they are asked through.
        tier: Tier,
        /// When the intent was saved.
        since: Millis,
    },
    /// Nothing more to do for this chunk.
    Settled,
    /// Cut in two; these chunks go on.
    Split {
        /// The chunk with the first half.
        left: ChunkNo,
        /// The chunk with the second half.
        right: ChunkNo,
    },
}

/// Why nobody knows whether a batch exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doubt {
    /// The create request got no answer that says so.
    Lost,
    /// It was turned away for asking too much; one look makes sure before it is sent again.
    RateLimited,
    /// A person has let it go on; one last look, as it may have shown up since they were asked.
    Released,
}

impl JobState {
    /// What reading the input told, once it is read.
    pub fn plan(&self) -> Option<&Plan> {
        match self {
            JobState::Active(plan) | JobState::Merging(plan) => Some(plan),
            JobState::Delivering(delivery)
            | JobState::Cleaning(delivery)
            | JobState::Done(delivery) => Some(&delivery.plan),
            JobState::Claiming
            | JobState::Planning
            | JobState::Refusing(_)
            | JobState::Failed(_)
            | JobState::Holding(_)
            | JobState::Held(_) => None,
        }
    }

    /// Whether something of the job may still be going to be sent.
    pub fn may_send(&self) -> bool {
        match self {
            JobState::Claiming | JobState::Planning | JobState::Active(_) => true,
            JobState::Merging(_)
            | JobState::Delivering(_)
            | JobState::Cleaning(_)
            | JobState::Done(_)
            | JobState::Refusing(_)
            | JobState::Failed(_)
            | JobState::Holding(_)
            | JobState::Held(_) => false,
        }
    }

    /// Whose requests the job has; before it is planned nobody knows, and nothing is sent.
    pub fn family(&self) -> Family {
        self.plan().map_or(Family::Native, |plan| plan.family)
    }
}

impl Job {
    /// Whether nothing more will happen to the job by itself.
    pub fn is_over(&self) -> bool {
        matches!(self.head.state, JobState::Done(_) | JobState::Failed(_) | JobState::Held(_))
    }

    /// The rows of every chunk that was not cut in two, in input order.
    pub fn leaves(&self) -> impl Iterator<Item = &Chunk> {
        let mut leaves: Vec<&Chunk> = self
            .chunks
            .values()
            .filter(|chunk| !matches!(chunk.state, ChunkState::Split { .. }))
            .collect();
        leaves.sort_by_key(|chunk| chunk.rows.first);
        leaves.into_iter()
    }
}

impl Chunk {
    /// A chunk of a fresh plan.
    pub fn new(no: ChunkNo, root: ChunkNo, rows: Rows, rest: Rest) -> Chunk {
        Chunk {
            no,
            root,
            rows,
            rest,
            attempt: Attempt(1),
            tries: 0,
            key_print: None,
            density: None,
            purse: None,
            state: ChunkState::Waiting { not_before: Millis(0) },
            batches: Vec::new(),
            last_error: None,
            aid: None,
        }
    }

    /// The only row left, if exactly one is.
    pub fn is_single(&self) -> bool {
        self.rest.rows() == 1
    }

    /// The last row of the first half of the chunk.
    pub fn middle(&self) -> Row {
        self.rows.middle()
    }
}
