//! A job, its chunks, and every state they can be in.
//!
//! States carry exactly their own data. What is saved is all there is: what a job needs next
//! is a function of these values alone, so a restart runs the same code as a normal step.

use std::collections::BTreeMap;
use std::sync::Arc;

pub use super::answers::{Answers, Media, Terms};
pub use super::batch::{Batch, BatchRecord, Input, RemoteEnd, RemoteError, RemoteState};
pub use super::conversion::Conversion;
use super::ids::{Attempt, ChunkNo, FileName, JobId, Millis, Row, Rows};
pub use super::tally::{MediaTally, Tally, Tokens};

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

/// The settings a queue gives to its jobs, fixed when a job is claimed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queue {
    /// The queue's name.
    pub name: String,
    /// The model without a `models/` prefix.
    pub model: String,
    /// What its files ask for.
    pub task: Task,
    /// How requests go out.
    pub transport: Transport,
    /// At most so many lines in a batch; 0: as many as the limits allow.
    pub lines_per_batch: u64,
    /// Higher goes first; also passed to the API.
    pub priority: i64,
    /// How often a line may be sent before it fails.
    pub attempts: u16,
    /// What counts as an answer.
    pub accept: Accept,
    /// What is made of answers.
    pub answers: Answers,
    /// The credential whose API key is used; empty for the default one.
    pub credential: String,
    /// What becomes of lines in the OpenAI batch format.
    pub openai: OpenAiLines,
    /// Members that every request gets which does not have them: a JSON object, written without
    /// blanks. A planned job does without it: they stand in its prepared lines.
    pub defaults: Option<Arc<str>>,
    /// How its inputs are converted; `None`: as usual.
    pub conversion: Option<Arc<Conversion>>,
    /// An absolute folder: lines may name files below it, and not only beside the input.
    pub media_root: Option<Arc<str>>,
    /// What is wrong with the settings that lay beside the file: it is refused once it is ours.
    pub wrong: Option<Box<Refusal>>,
}

impl Queue {
    /// How its inputs are converted.
    pub fn conversion(&self) -> &Conversion {
        self.conversion.as_deref().unwrap_or(&Conversion::USUAL)
    }

    /// Makes them those of a job with this plan.
    pub fn fit_to(&mut self, plan: &Plan) {
        // They stand in the prepared lines by now; in memory there would be one of each job.
        self.defaults = None;
        if plan.media && self.transport == Transport::Auto {
            // Uploading what its lines name takes time, and no create is begun before.
            self.transport = Transport::File;
        }
        if plan.family == Family::OpenAi {
            // The layer takes nothing else.
            self.transport = Transport::File;
        }
    }
}

/// What holds where nothing is said.
impl Default for Queue {
    fn default() -> Queue {
        Queue {
            name: "default".to_owned(),
            model: "gemini-2.5-flash".to_owned(),
            task: Task::Generate,
            transport: Transport::Auto,
            lines_per_batch: 0,
            priority: 0,
            attempts: 3,
            accept: Accept { truncated: true, blocked: false, empty: false },
            answers: Answers::default(),
            credential: String::new(),
            openai: OpenAiLines::Layer,
            defaults: None,
            conversion: None,
            media_root: None,
            wrong: None,
        }
    }
}

/// What becomes of lines in the OpenAI batch format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OpenAiLines {
    /// They go through the API's OpenAI-compatible layer, and their results are OpenAI's.
    #[default]
    Layer,
    /// They become native requests before anything else is done with them.
    Translate,
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

/// What the requests of a file ask for; a batch is of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Task {
    /// Content.
    #[default]
    Generate,
    /// Embeddings.
    Embed,
}

/// How the requests of a chunk travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// Inline when the whole request stays under the inline limit, else a file.
    Auto,
    /// Always inside the create request.
    Inline,
    /// Always as an uploaded file.
    File,
}

/// Which doubtful answers count as answered; the others are failed lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accept {
    /// Cut off at the token limit.
    pub truncated: bool,
    /// Blocked by a filter.
    pub blocked: bool,
    /// Without any content.
    pub empty: bool,
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
    /// Where the attempt stands.
    pub state: ChunkState,
    /// Batches that came to an end, oldest first.
    pub batches: Vec<BatchRecord>,
    /// The last whole refusal or failure, as told by the API.
    pub last_error: Option<RemoteError>,
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
            state: ChunkState::Waiting { not_before: Millis(0) },
            batches: Vec::new(),
            last_error: None,
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
