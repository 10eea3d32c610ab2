//! The batches of jobs: the newest of one job, and those of all for the timeline.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::engine::ids::Millis;
use crate::engine::job::{Batch, BatchRecord, Chunk, ChunkState, Job, RemoteEnd};

use super::{file_of, moment};

/// One batch of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BatchView {
    /// `batches/…`.
    pub name: String,
    /// The chunk it is for.
    pub chunk: u32,
    /// The attempt it is for.
    pub attempt: u16,
    /// Its last known state, such as `RUNNING`.
    pub state: String,
    /// Lines sent.
    pub lines: u64,
    /// When it was created, RFC 3339.
    pub created: String,
    /// When it ended at the API.
    pub ended: Option<String>,
    /// Lines it answered, once its results are there.
    pub answered: Option<u64>,
}

/// One batch among those of all jobs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BatchEntry {
    /// `batches/…`.
    pub name: String,
    /// Its job.
    pub job: String,
    /// The input of that job, with the sub-folder it lay in.
    pub file: String,
    /// The chunk it is for.
    pub chunk: u32,
    /// The attempt it is for.
    pub attempt: u16,
    /// Its last known state, such as `RUNNING`.
    pub state: String,
    /// Lines sent.
    pub lines: u64,
    /// When its lines were ready to be sent, RFC 3339.
    pub queued: Option<String>,
    /// When it was created.
    pub created: String,
    /// When it ended at the API.
    pub ended: Option<String>,
    /// When its results were here.
    pub collected: Option<String>,
}

/// Batches of all jobs, the newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BatchList {
    /// The version of this interface: [`super::VERSION`].
    pub version: u32,
    /// The batches.
    pub batches: Vec<BatchEntry>,
}

/// A batch that was made, wherever it stands.
#[derive(Clone, Copy)]
struct Made<'a> {
    job: &'a Job,
    chunk: &'a Chunk,
    stands: Stands<'a>,
}

#[derive(Clone, Copy)]
enum Stands<'a> {
    /// At the API.
    Open(&'a Batch),
    /// Its results are being fetched.
    Ended(&'a Batch, &'a RemoteEnd),
    /// It is over; its place among those of the chunk.
    Over(usize, &'a BatchRecord),
}

/// The newest batches of a job, oldest first, and how many there are in all.
pub(super) fn newest_of(job: &Job) -> (Vec<BatchView>, u64) {
    let mut all: Vec<Made<'_>> = made(job).collect();
    all.sort_by_key(Made::created);
    let total = all.len() as u64;
    let newest = all.split_off(all.len().saturating_sub(BATCHES_MAX));
    (newest.iter().map(Made::view).collect(), total)
}

/// When the oldest batch of a job that is still at the API was created.
pub(super) fn oldest_open(job: &Job) -> Option<Millis> {
    let created = |chunk: &Chunk| match &chunk.state {
        ChunkState::Polling(batch) => Some(batch.created),
        _ => None,
    };
    job.chunks.values().filter_map(created).min()
}

impl BatchList {
    /// The newest batches of these jobs, at most `limit`: those that are open, and those that ended
    /// at `since` or later.
    pub fn of<'a>(
        jobs: impl IntoIterator<Item = &'a Job>,
        since: Millis,
        limit: usize,
    ) -> BatchList {
        let mut all: Vec<Made<'_>> =
            jobs.into_iter().flat_map(made).filter(|made| made.lasted_to() >= since).collect();
        let newest_first = |made: &Made<'_>| std::cmp::Reverse((made.created(), made.job.head.id));
        if all.len() > limit {
            all.select_nth_unstable_by_key(limit, newest_first);
            all.truncate(limit);
        }
        all.sort_by_key(newest_first);
        let batches = all.iter().map(Made::entry).collect();
        BatchList { version: super::VERSION, batches }
    }
}

/// Every batch of a job.
fn made(job: &Job) -> impl Iterator<Item = Made<'_>> {
    job.chunks.values().flat_map(move |chunk| {
        let over = chunk.batches.iter().enumerate().map(|(at, batch)| Stands::Over(at, batch));
        let now = match &chunk.state {
            ChunkState::Polling(batch) => Some(Stands::Open(batch)),
            ChunkState::Collecting { batch, end } => Some(Stands::Ended(batch, end)),
            _ => None,
        };
        over.chain(now).map(move |stands| Made { job, chunk, stands })
    })
}

impl Made<'_> {
    fn created(&self) -> Millis {
        match self.stands {
            Stands::Open(batch) | Stands::Ended(batch, _) => batch.created,
            Stands::Over(_, record) => record.created,
        }
    }

    /// When it ended at the API.
    fn ended(&self) -> Option<Millis> {
        match self.stands {
            Stands::Open(_) => None,
            Stands::Ended(_, end) => Some(end.ended),
            Stands::Over(_, record) => Some(record.ended),
        }
    }

    fn lasted_to(&self) -> Millis {
        match self.stands {
            Stands::Open(_) | Stands::Ended(..) => Millis(u64::MAX),
            Stands::Over(_, record) => record.ended,
        }
    }

    /// When its lines were ready: when the file was read, or the batch before was over.
    fn queued(&self) -> Option<Millis> {
        let before = match self.stands {
            Stands::Over(at, _) => at.checked_sub(1).and_then(|at| self.chunk.batches.get(at)),
            Stands::Open(_) | Stands::Ended(..) => self.chunk.batches.last(),
        };
        let halved_out_of = || {
            let no = self.chunk.no;
            let whole = self.job.chunks.values().find(|chunk| match chunk.state {
                ChunkState::Split { left, right } => left == no || right == no,
                _ => false,
            });
            whole.and_then(|chunk| chunk.batches.last())
        };
        let before = match self.chunk.root == self.chunk.no {
            true => before,
            false => before.or_else(halved_out_of),
        };
        match before {
            Some(record) => Some(record.collected.unwrap_or(record.ended)),
            None => self.job.head.state.plan().map(|plan| plan.planned),
        }
    }

    fn view(&self) -> BatchView {
        let (name, state, lines, answered) = match self.stands {
            Stands::Open(batch) => (&batch.name, &batch.remote, self.chunk.rest.rows(), None),
            Stands::Ended(batch, end) => (&batch.name, &end.state, self.chunk.rest.rows(), None),
            Stands::Over(_, record) => {
                (&record.name, &record.state, record.lines, Some(record.answered))
            }
        };
        let attempt = match self.stands {
            Stands::Open(_) | Stands::Ended(..) => self.chunk.attempt,
            Stands::Over(_, record) => record.attempt,
        };
        BatchView {
            name: name.0.clone(),
            chunk: self.chunk.no.0,
            attempt: attempt.0,
            state: state.as_str().to_owned(),
            lines,
            created: moment(self.created()),
            ended: self.ended().map(moment),
            answered,
        }
    }

    fn entry(&self) -> BatchEntry {
        let view = self.view();
        let collected = match self.stands {
            Stands::Open(_) | Stands::Ended(..) => None,
            Stands::Over(_, record) => record.collected,
        };
        BatchEntry {
            name: view.name,
            job: self.job.head.id.to_string(),
            file: file_of(&self.job.head.source),
            chunk: view.chunk,
            attempt: view.attempt,
            state: view.state,
            lines: view.lines,
            queued: self.queued().map(moment),
            created: view.created,
            ended: view.ended,
            collected: collected.map(moment),
        }
    }
}

/// Batches listed for one job.
const BATCHES_MAX: usize = 100;
