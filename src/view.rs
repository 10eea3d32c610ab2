//! What an operator may see: a snapshot of the engine, ready to be sent and shown.
//!
//! It holds names, counts, states and reasons; never a prompt, an answer or a key. The form is
//! versioned, since the command line may be older than the daemon it speaks to. Finished jobs
//! beyond the last thousand are only counted.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::engine::ids::{JobId, Millis};
use crate::engine::job::{Chunk, ChunkState, Delivery, Job, JobState, Refusal, RemoteState};

/// Everything there is to see at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// The version of this form: [`VERSION`].
    pub version: u32,
    /// How the daemon is.
    pub health: Health,
    /// Jobs by state, those not listed included.
    pub counts: BTreeMap<String, u64>,
    /// The jobs: all that are not over and the last thousand that are, oldest first.
    pub jobs: Vec<JobView>,
}

/// How the daemon is; filled in by the daemon itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// The daemon's version.
    pub daemon: String,
    /// Its process id.
    pub pid: u32,
    /// The inbox it watches.
    pub inbox: String,
    /// How it watches it: `events` or `polling`.
    pub watching: String,
    /// When it started, RFC 3339.
    pub started: String,
    /// The moment of the snapshot, RFC 3339.
    pub now: String,
    /// Why nothing is sent at present, such as a key that was refused.
    pub paused: Option<String>,
    /// What is wrong on this machine, such as a full disk.
    pub trouble: Option<String>,
}

/// One job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobView {
    /// Its id.
    pub id: String,
    /// The input, with the sub-folder it lay in.
    pub file: String,
    /// Its queue.
    pub queue: String,
    /// The model.
    pub model: String,
    /// `claimed`, `planned`, `active`, `merging`, `done`, `held`, `failed` or `cancelled`.
    pub state: String,
    /// What is happening, in words.
    pub phase: String,
    /// Why it waits or ended, and what to do, where there is something to say.
    pub reason: Option<String>,
    /// Its lines.
    pub lines: Lines,
    /// Chunks by state.
    pub chunks: BTreeMap<String, u64>,
    /// Batches, the newest last; at most a hundred of them.
    pub batches: Vec<BatchView>,
    /// All batches made so far.
    pub batches_total: u64,
    /// The output files begin with this, once it is known.
    pub output: Option<String>,
    /// When things happened.
    pub times: Times,
}

/// Lines of a job.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lines {
    /// All of them; 0 until the file is read.
    pub total: u64,
    /// Answered so far.
    pub answered: u64,
    /// Failed so far.
    pub failed: u64,
    /// Neither yet.
    pub open: u64,
}

/// One batch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
}

/// When things happened, RFC 3339.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Times {
    /// The file was taken.
    pub claimed: String,
    /// The file was read.
    pub planned: Option<String>,
    /// The first batch was created.
    pub first_create: Option<String>,
    /// The last results came in.
    pub last_result: Option<String>,
    /// The outputs were put into the outbox.
    pub delivered: Option<String>,
}

/// Why a text names no job.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoSuchJob {
    /// Fewer than four characters.
    #[error("{0:?} is too short: give at least {PREFIX_MIN} characters of the job's id")]
    TooShort(String),
    /// No id begins so.
    #[error("no job's id begins with {0:?}; `gemini-batchd status` lists them")]
    Unknown(String),
    /// Several ids begin so.
    #[error(
        "{count} jobs begin with {prefix:?}, such as {first} and {second}; give more characters"
    )]
    Several {
        /// What was given.
        prefix: String,
        /// How many begin so.
        count: usize,
        /// One of them.
        first: String,
        /// Another.
        second: String,
    },
}

impl Snapshot {
    /// Builds the snapshot of these jobs; `older` counts those that are not among them, by state.
    pub fn build<'a>(
        health: Health,
        jobs: impl IntoIterator<Item = &'a Job>,
        older: impl IntoIterator<Item = (&'static str, usize)>,
    ) -> Snapshot {
        let older = older.into_iter().map(|(word, count)| (word.to_owned(), count as u64));
        let mut counts: BTreeMap<String, u64> = older.collect();
        let (mut live, mut over) = (Vec::new(), Vec::new());
        for job in jobs {
            *counts.entry(state_word(job).to_owned()).or_insert(0) += 1;
            if job.is_over() { over.push(job) } else { live.push(job) }
        }
        over.sort_by_key(|job| (job.head.claimed, job.head.id));
        live.extend(over.split_off(over.len().saturating_sub(FINISHED_MAX)));
        live.sort_by_key(|job| (job.head.claimed, job.head.id));
        let jobs = live.into_iter().map(JobView::new).collect();
        Snapshot { version: VERSION, health, counts, jobs }
    }

    /// Says why a job waits.
    pub fn explain(&mut self, id: JobId, why: String) {
        if let Some(view) = self.jobs.iter_mut().find(|view| view.id == id.as_str()) {
            view.reason = Some(why);
        }
    }

    /// The one job whose id begins with `prefix`; upper and lower case are the same.
    ///
    /// # Errors
    /// If it is too short, or none or several begin so.
    pub fn job_by_prefix(&self, prefix: &str) -> Result<&JobView, NoSuchJob> {
        let wanted = prefix.trim().to_ascii_uppercase();
        if wanted.chars().count() < PREFIX_MIN {
            return Err(NoSuchJob::TooShort(shortened(prefix)));
        }
        let mut found = self.jobs.iter().filter(|job| job.id.starts_with(&wanted));
        match (found.next(), found.next()) {
            (Some(one), None) => Ok(one),
            (Some(first), Some(second)) => Err(NoSuchJob::Several {
                prefix: shortened(prefix),
                count: found.count() + 2,
                first: first.id.clone(),
                second: second.id.clone(),
            }),
            (None, _) => Err(NoSuchJob::Unknown(shortened(prefix))),
        }
    }
}

impl JobView {
    /// What is to be seen of one job.
    pub fn new(job: &Job) -> JobView {
        let head = &job.head;
        let file = match head.source.folder.as_str() {
            "" => head.source.name.clone(),
            folder => format!("{folder}/{}", head.source.name),
        };
        let (batches, batches_total) = batches(job);
        let mut chunks = BTreeMap::new();
        for chunk in job.leaves() {
            *chunks.entry(chunk_word(&chunk.state).to_owned()).or_insert(0) += 1;
        }
        JobView {
            id: head.id.to_string(),
            file,
            queue: head.queue.name.clone(),
            model: head.queue.model.clone(),
            state: state_word(job).to_owned(),
            phase: phase(job),
            reason: reason(job),
            lines: lines(job),
            chunks,
            batches,
            batches_total,
            output: delivery(job).map(|delivery| match head.source.folder.as_str() {
                "" => delivery.stem.clone(),
                folder => format!("{folder}/{}", delivery.stem),
            }),
            times: times(job),
        }
    }

    /// Whether nothing more will happen to the job by itself.
    pub fn is_over(&self) -> bool {
        matches!(self.state.as_str(), "done" | "failed" | "held" | "cancelled")
    }
}

/// What happened and what to do about it, as two sentences without a last full stop.
pub fn told(message: &str, remedy: &str) -> String {
    let (message, remedy) = (message.trim_end_matches('.'), remedy.trim_end_matches('.'));
    let mut letters = remedy.chars();
    match letters.next() {
        Some(first) => {
            let stop = if message.ends_with('?') { "" } else { "." };
            format!("{message}{stop} {}{}", first.to_uppercase(), letters.as_str())
        }
        None => message.to_owned(),
    }
}

/// A moment as RFC 3339, UTC, whole seconds.
pub fn moment(at: Millis) -> String {
    let seconds = i64::try_from(at.0 / 1000).unwrap_or(i64::MAX);
    let time = jiff::Timestamp::from_second(seconds).unwrap_or(jiff::Timestamp::MAX);
    time.to_string()
}

fn state_word(job: &Job) -> &'static str {
    let fresh =
        |chunk: &Chunk| matches!(chunk.state, ChunkState::Waiting { .. }) && chunk.attempt.0 == 1;
    match &job.head.state {
        JobState::Claiming | JobState::Planning => "claimed",
        JobState::Active(_) if job.chunks.values().all(fresh) => "planned",
        JobState::Active(_) => "active",
        JobState::Merging(_) | JobState::Delivering(_) | JobState::Cleaning(_) => "merging",
        JobState::Done(delivery) if delivery.plan.cancelled => "cancelled",
        JobState::Done(_) => "done",
        JobState::Refusing(_) | JobState::Failed(_) => "failed",
        JobState::Holding(_) | JobState::Held(_) => "held",
    }
}

fn chunk_word(state: &ChunkState) -> &'static str {
    match state {
        ChunkState::Waiting { .. } => "waiting",
        ChunkState::Uploading { .. } => "uploading",
        ChunkState::Creating { .. } => "creating",
        ChunkState::Uncertain { .. } => "uncertain",
        ChunkState::Stuck { .. } => "stuck",
        ChunkState::Polling(batch) if batch.remote == RemoteState::Pending => "pending",
        ChunkState::Polling(_) => "running",
        ChunkState::Collecting { .. } => "collecting",
        ChunkState::Settled => "settled",
        ChunkState::Split { .. } => "split",
    }
}

fn phase(job: &Job) -> String {
    match &job.head.state {
        JobState::Claiming => on_hold(job, "taking the file"),
        JobState::Planning => on_hold(job, "reading the file"),
        JobState::Active(plan) => {
            let words = active_phase(job);
            if plan.cancelled { format!("stopping; {words}") } else { on_hold(job, &words) }
        }
        JobState::Merging(_) => "writing the results".to_owned(),
        JobState::Delivering(_) => "putting the results into the outbox".to_owned(),
        JobState::Cleaning(_) => "tidying up".to_owned(),
        JobState::Done(delivery) if delivery.plan.cancelled => "cancelled".to_owned(),
        JobState::Done(_) => "complete".to_owned(),
        JobState::Refusing(_) | JobState::Failed(_) => "refused".to_owned(),
        JobState::Holding(_) | JobState::Held(_) => "waits for a person".to_owned(),
    }
}

/// What happens to a job, and whether an operator holds it back.
fn on_hold(job: &Job, words: &str) -> String {
    if job.head.on_hold { format!("on hold; {words}") } else { words.to_owned() }
}

/// The chunks do different things at once; what a person most wants to know goes first.
fn active_phase(job: &Job) -> String {
    let all = job.leaves().count();
    for (word, says) in PHASES {
        let count = job.leaves().filter(|chunk| chunk_word(&chunk.state) == *word).count();
        if count > 0 && all > 1 {
            return format!("{says} ({count} of {all} chunks)");
        } else if count > 0 {
            return (*says).to_owned();
        }
    }
    "all chunks settled".to_owned()
}

fn reason(job: &Job) -> Option<String> {
    match &job.head.state {
        JobState::Refusing(refusal)
        | JobState::Failed(refusal)
        | JobState::Holding(refusal)
        | JobState::Held(refusal) => Some(refused(refusal)),
        JobState::Active(_) => active_reason(job),
        JobState::Claiming
        | JobState::Planning
        | JobState::Merging(_)
        | JobState::Delivering(_)
        | JobState::Cleaning(_)
        | JobState::Done(_) => None,
    }
}

fn refused(refusal: &Refusal) -> String {
    let told = told(&refusal.message, &refusal.remedy);
    match (refusal.line, refusal.column) {
        // Most messages name the line themselves.
        (Some(line), _) if told.contains(&format!("line {line}")) => told,
        (Some(line), Some(column)) => format!("line {line}, column {column}: {told}"),
        (Some(line), None) => format!("line {line}: {told}"),
        (None, _) => told,
    }
}

fn active_reason(job: &Job) -> Option<String> {
    let id = job.head.id;
    if job.leaves().any(|chunk| matches!(chunk.state, ChunkState::Stuck { .. })) {
        return Some(format!(
            "a create call had no reply and its batch was not found; `gemini-batchd release {id}` \
             sends it again, `gemini-batchd cancel {id}` gives up"
        ));
    }
    let waits_after_error = |chunk: &&Chunk| {
        matches!(chunk.state, ChunkState::Waiting { .. }) && chunk.last_error.is_some()
    };
    let chunk = job.leaves().find(waits_after_error)?;
    let error = chunk.last_error.as_ref()?;
    Some(format!("is sent again after: {} (code {})", shortened(&error.message), error.code))
}

fn lines(job: &Job) -> Lines {
    if let Some(delivery) = delivery(job) {
        let tally = &delivery.tally;
        return Lines {
            total: delivery.plan.rows,
            answered: tally.answered,
            failed: tally.failed,
            open: 0,
        };
    }
    let Some(plan) = job.head.state.plan() else { return Lines::default() };
    let open = job.leaves().filter(|chunk| chunk.state != ChunkState::Settled);
    let open: u64 = open.map(|chunk| chunk.rest.rows()).sum();
    let ended = job.chunks.values().flat_map(|chunk| &chunk.batches);
    let answered: u64 = ended.map(|batch| batch.answered).sum();
    let failed = plan.rows.saturating_sub(open).saturating_sub(answered);
    Lines { total: plan.rows, answered, failed, open }
}

fn batches(job: &Job) -> (Vec<BatchView>, u64) {
    let mut all = Vec::new();
    for chunk in job.chunks.values() {
        for ended in &chunk.batches {
            all.push((
                ended.created,
                BatchView {
                    name: ended.name.0.clone(),
                    chunk: chunk.no.0,
                    attempt: ended.attempt.0,
                    state: ended.state.as_str().to_owned(),
                    lines: ended.lines,
                },
            ));
        }
        if let ChunkState::Polling(batch) | ChunkState::Collecting { batch, .. } = &chunk.state {
            all.push((
                batch.created,
                BatchView {
                    name: batch.name.0.clone(),
                    chunk: chunk.no.0,
                    attempt: chunk.attempt.0,
                    state: batch.remote.as_str().to_owned(),
                    lines: chunk.rest.rows(),
                },
            ));
        }
    }
    all.sort_by_key(|(created, _)| *created);
    let total = all.len() as u64;
    let newest = all.split_off(all.len().saturating_sub(BATCHES_MAX));
    (newest.into_iter().map(|(_, batch)| batch).collect(), total)
}

fn times(job: &Job) -> Times {
    let plan = job.head.state.plan();
    Times {
        claimed: moment(job.head.claimed),
        planned: plan.map(|plan| moment(plan.planned)),
        first_create: plan.and_then(|plan| plan.first_create).map(moment),
        last_result: plan.and_then(|plan| plan.last_result).map(moment),
        delivered: delivery(job).map(|delivery| moment(delivery.delivered)),
    }
}

fn delivery(job: &Job) -> Option<&Delivery> {
    match &job.head.state {
        JobState::Delivering(delivery)
        | JobState::Cleaning(delivery)
        | JobState::Done(delivery) => Some(delivery),
        JobState::Claiming
        | JobState::Planning
        | JobState::Active(_)
        | JobState::Merging(_)
        | JobState::Refusing(_)
        | JobState::Failed(_)
        | JobState::Holding(_)
        | JobState::Held(_) => None,
    }
}

/// A text from outside, bounded.
fn shortened(text: &str) -> String {
    match text.char_indices().nth(200) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

/// The version of [`Snapshot`].
pub const VERSION: u32 = 1;
/// Shortest prefix of an id that may name a job.
const PREFIX_MIN: usize = 4;
/// Finished jobs that are listed.
const FINISHED_MAX: usize = 1000;
/// Batches listed for one job.
const BATCHES_MAX: usize = 100;

/// What chunks do, the most noteworthy first.
const PHASES: &[(&str, &str)] = &[
    ("stuck", "waits for a person"),
    ("uncertain", "checking whether a batch was made"),
    ("collecting", "fetching results"),
    ("creating", "creating a batch"),
    ("uploading", "uploading"),
    ("running", "waiting at Google"),
    ("pending", "waiting at Google"),
    ("waiting", "waiting for its turn"),
];

#[cfg(test)]
mod tests;
