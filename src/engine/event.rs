//! What can happen: the inputs of the engine.

use super::budget::Periods;
use super::ids::{BatchName, ChunkNo, FileName, JobId, Millis, Ticket};
use super::job::{
    Chunk, Density, Plan, Refusal, RemoteError, RemoteState, Rest, Share, Source, Tally, Tokens,
};

/// One thing that happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The scan found a complete file in the inbox.
    Arrived {
        /// A fresh id for the job, drawn by the shell.
        id: JobId,
        /// The file.
        source: Source,
        /// The settings its queue gives it.
        queue: super::job::Queue,
    },
    /// An effect was done.
    Done {
        /// Of this effect.
        ticket: Ticket,
        /// What came of it.
        outcome: Outcome,
    },
    /// An effect could not be done.
    Failed {
        /// Of this effect.
        ticket: Ticket,
        /// Why.
        failure: Failure,
    },
    /// Time has passed; nothing else.
    Tick,
    /// The API says that this batch has ended, or that some batch has: its poll is due now.
    Noticed(Option<BatchName>),
    /// The housekeeping slot has come.
    Housekeeping,
    /// This machine's disk has got too full to take on more, and why that is so; or, with `None`,
    /// it has room again.
    Room(Option<String>),
    /// Another night or month has begun, or the clock was set to another one.
    Periods(Periods),
}

/// What an operator can ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Stop a job: cancel its batches, collect what they have, fail the rest.
    Cancel(JobId),
    /// Send nothing new of a job until it is released.
    Hold(JobId),
    /// Let a job go on that is on hold, or whose chunks or file wait for a person.
    Release(JobId),
    /// Try again now what waits after an error; of a job that is over, what failed.
    Retry(JobId),
    /// Forget the record of a job that is over; its files stay.
    Delete(JobId),
    /// Take in and send nothing new of a queue, or of none.
    Pause(Option<String>),
    /// Take that back; without a queue, also [`Command::Drain`].
    Resume(Option<String>),
    /// Take in nothing new, finish what was taken in, then end.
    Drain,
}

/// What came of an effect that was done.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// The input lies in the working folder.
    Claimed,
    /// The input is in neither place: somebody took it away before the claim.
    Vanished,
    /// The input lies in the working folder, is indexed and cut.
    Planned {
        /// What reading it told.
        plan: Plan,
        /// The chunks in input order.
        chunks: Vec<PlannedChunk>,
    },
    /// The input can not be sent at all.
    Unusable(Refusal),
    /// The chunk's file is complete at the API.
    Uploaded {
        /// The name it has there.
        file: FileName,
    },
    /// The batch exists.
    Created {
        /// Its name.
        batch: BatchName,
        /// When the API says it was created.
        created: Option<Millis>,
    },
    /// The API definitely refused the batch; it does not exist.
    Refused {
        /// What it said.
        error: RemoteError,
        /// What it objected to.
        to: Objection,
    },
    /// All pages were listed; these batches bear the stamp, oldest first.
    Found(Vec<RemoteBatch>),
    /// The API shows no list in which the attempt's batch could be found; in words.
    Unlisted(String),
    /// The state of every batch asked for.
    Polled(Vec<(BatchName, Polled)>),
    /// The results are on disk, synced and indexed.
    Collected(Harvest),
    /// So many lines of the canary are bad.
    Judged {
        /// Not answered, cut off, or blocked.
        bad: u64,
    },
    /// The rows of a chunk were asked one by one, as far as there was time.
    Rescued(Box<Rescued>),
    /// Results and errors are written and synced in the working folder.
    Merged {
        /// The lines, counted.
        tally: Tally,
        /// A name for the outputs that is free in the outbox.
        stem: String,
    },
    /// All outputs are in the outbox, the manifest last.
    Delivered,
    /// An output name was taken by somebody else in the meantime; nothing was moved.
    NameTaken {
        /// A name that is free now.
        free: String,
    },
    /// Nothing of the job is left in the working folder.
    Cleaned,
    /// The input lies in `failed/` or `held/`.
    Moved,
    /// The batch was asked to stop.
    Cancelled,
    /// What was to be removed at the API is not there any more.
    Discarded,
    /// People were told.
    Told,
    /// What people were told of a job was taken back.
    Withdrawn(JobId),
}

/// What a refused create was refused for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Objection {
    /// Single lines were named. They are failed on disk already; `rest` is what is left.
    Lines {
        /// How many lines were named.
        named: u64,
        /// The rows still unanswered.
        rest: Rest,
    },
    /// The model does not exist or can not be batched.
    Model,
    /// The input file is gone or belongs to another project.
    File,
    /// The request as a whole, without saying where.
    Whole {
        /// The rows still unanswered, counted anew.
        rest: Rest,
    },
}

/// A chunk as planning cut it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlannedChunk {
    /// Its rows.
    pub rows: super::ids::Rows,
    /// Its sendable rows in two halves.
    pub left: Share,
    /// The second half.
    pub right: Share,
    /// What its requests are like, if a sample was taken.
    pub density: Option<Density>,
}

impl PlannedChunk {
    /// The chunks of a fresh plan, numbered from 1.
    pub fn numbered(planned: &[PlannedChunk]) -> Vec<Chunk> {
        let chunk = |(planned, no): (&PlannedChunk, u32)| {
            let rest = Rest { left: planned.left, right: planned.right };
            let chunk = Chunk::new(ChunkNo(no), ChunkNo(no), planned.rows, rest);
            Chunk { density: planned.density, ..chunk }
        };
        planned.iter().zip(1..).map(chunk).collect()
    }
}

/// What a poll told of one batch.
#[derive(Debug, Clone, PartialEq)]
pub enum Polled {
    /// Its state.
    Seen(RemoteBatch),
    /// It does not exist (any more) for this key.
    Gone,
}

/// A batch as the API describes it, without its results.
#[derive(Debug, Clone, PartialEq)]
pub struct RemoteBatch {
    /// Its name.
    pub name: BatchName,
    /// Its display name; our stamp, if it is ours.
    pub display_name: String,
    /// Its state.
    pub state: RemoteState,
    /// Whether the operation says it is done.
    pub done: bool,
    /// The error of the whole batch.
    pub error: Option<RemoteError>,
    /// When it was created, by the API's clock.
    pub created: Option<Millis>,
    /// When it ended, by the API's clock.
    pub ended: Option<Millis>,
    /// The file its requests came from.
    pub input_file: Option<FileName>,
    /// The file with its results, if they are in one.
    pub output_file: Option<FileName>,
}

impl RemoteBatch {
    /// Whether its results can be fetched: done, or in a terminal state (API contract, 4.3).
    pub fn is_finished(&self) -> bool {
        self.done || self.state.is_terminal()
    }
}

/// What collecting the results of one batch brought.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Harvest {
    /// Rows answered by this batch.
    pub answered: u64,
    /// Rows that failed for good in this batch.
    pub failed: u64,
    /// Rows whose error may pass when they are sent again.
    pub retryable: u64,
    /// Rows sent, but without a result line.
    pub missing: u64,
    /// Result lines for rows that were not sent; kept aside.
    pub unknown: u64,
    /// Result lines for a row that already had one; the first was kept.
    pub repeated: u64,
    /// Answers to requests whose schema we can not make sense of, taken as they came.
    pub unchecked: u64,
    /// Tokens of the lines that were taken, if they are counted.
    pub tokens: Tokens,
    /// Answers that did not say what they took.
    pub uncounted: u64,
    /// What is still unanswered in the chunk.
    pub rest: Rest,
    /// Bytes of the results as they came.
    pub bytes: u64,
}

impl Harvest {
    /// The same without what was not sent in the end.
    pub fn without_missing(&self) -> Harvest {
        Harvest { missing: 0, ..self.clone() }
    }
}

/// What asking for rows one by one brought.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rescued {
    /// What was answered, and what is left; missing are the rows that were not asked, or turned away.
    pub harvest: Harvest,
    /// Calls of which nobody knows whether they were answered, and paid for.
    pub uncertain: u64,
    /// Why the API does not take this tier at all, if so.
    pub refused: Option<String>,
    /// What one call took on average, milliseconds.
    pub call_ms: Option<u64>,
    /// The API is not to be asked before so many milliseconds have passed.
    pub pause_ms: u64,
}

/// Why an effect was not done, sorted by what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// It did not happen and may work later.
    Transient(String),
    /// It did not happen: too much was asked in too short a time.
    RateLimited {
        /// The pause the server asked for, milliseconds.
        retry_after_ms: Option<u64>,
        /// What it said.
        message: String,
    },
    /// Nobody knows whether it happened.
    Ambiguous(String),
    /// The server will never accept this.
    Rejected(String),
    /// What it was about does not exist (any more).
    Gone(String),
    /// The key is missing, wrong, or not allowed to.
    Denied(String),
    /// It did not happen: a certificate, a proxy or a redirect stands in the way, until somebody
    /// acts.
    Barred(String),
    /// The server has ended the batch but does not show its results yet.
    NotReady(String),
    /// Results came damaged or short; the next fetch may bring them whole.
    Damaged {
        /// What was wrong with them.
        message: String,
        /// Rows sent that have no line, if the results were read to their end.
        missing: Option<u64>,
    },
    /// This machine could not: disk full, file unreadable.
    Local(String),
    /// Somebody took a file of the job out of its working folder; without it this can never work.
    Removed(String),
}

impl Failure {
    /// Whether nothing but other settings can help.
    pub fn is_of_settings(&self) -> bool {
        matches!(self, Failure::Denied(_) | Failure::Barred(_))
    }

    /// Rows without a line, if that is what failed and they were counted.
    pub fn missing(&self) -> Option<u64> {
        if let Failure::Damaged { missing, .. } = self { *missing } else { None }
    }

    /// What happened, in words.
    pub fn message(&self) -> &str {
        match self {
            Failure::Transient(message)
            | Failure::RateLimited { message, .. }
            | Failure::Ambiguous(message)
            | Failure::Rejected(message)
            | Failure::Gone(message)
            | Failure::Denied(message)
            | Failure::Barred(message)
            | Failure::NotReady(message)
            | Failure::Damaged { message, .. }
            | Failure::Local(message)
            | Failure::Removed(message) => message,
        }
    }
}
