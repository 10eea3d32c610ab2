//! What an operator may see: a snapshot of the engine, ready to be sent and shown.
//!
//! It holds names, counts, states and reasons; never a prompt, an answer or a key. The form is
//! versioned, since the command line may be older than the daemon it speaks to. Finished jobs
//! beyond the last thousand are only counted.

pub mod batch;
pub mod deadline;
pub mod event;
pub mod figures;
pub mod found;
pub mod lists;
pub mod money;
pub mod overview;
pub mod report;
pub mod schedule;
pub mod when;
pub mod words;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::engine::canary;
use crate::engine::ids::{BatchName, Millis};
use crate::engine::job::{
    Chunk, ChunkState, Delivery, Job, JobState, Refusal, RemoteState, Source,
};
use crate::engine::stuck::stuck;

pub use batch::{BatchEntry, BatchList, BatchView};
pub use deadline::DeadlineView;
pub use event::{Event, EventFilter, EventList, Kind};
pub use figures::{Figures, HookCounts, Wakeups};
pub use found::NoSuchJob;
pub use lists::{BadQuery, BatchQuery, DayList, DayView, JobFilter, JobList, JobQuery, TokensView};
pub use money::{BudgetView, CostView, ModelQueueView, SpendingView};
pub use overview::{Overview, QueueView};

/// Everything there is to see at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Snapshot {
    /// The version of this interface: [`VERSION`].
    pub version: u32,
    /// How the daemon is.
    pub health: Health,
    /// Jobs by state, those not listed included.
    pub counts: BTreeMap<String, u64>,
    /// The queues: those of the configuration, and those that jobs have.
    pub queues: Vec<QueueView>,
    /// At most 200 jobs: what needs a person first, then what is under way, both oldest first, then
    /// the newest that are over.
    pub jobs: Vec<JobView>,
    /// All jobs, those not listed included.
    pub jobs_total: u64,
    /// What is spent and enqueued, if anybody counts that.
    #[serde(default)]
    pub spending: Option<SpendingView>,
}

/// How the daemon is; filled in by the daemon itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
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
    /// Whether nothing more is taken from the inbox, and the daemon ends when all is done.
    pub draining: bool,
    /// Whether an operator has paused the daemon.
    pub paused_by_operator: bool,
}

/// One job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
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
    /// Tokens of its answers, once it is delivered.
    pub tokens: Option<TokensView>,
    /// Failed lines by reason, once it is delivered.
    pub failures: BTreeMap<String, u64>,
    /// Whether a person has said that nothing new of it is sent.
    pub on_hold: bool,
    /// Nothing of it is sent before this moment, RFC 3339, if it waits for one.
    #[serde(default)]
    pub opens: Option<String>,
    /// Seconds that its oldest open batch has been at the API.
    pub waiting_s: Option<u64>,
    /// Seconds that batches of its model took lately: the median.
    pub typical_s: Option<u64>,
    /// Bytes of its input.
    pub bytes: u64,
    /// By when its results are wanted, and whether they will be there; missing if nobody said.
    #[serde(default)]
    pub deadline: Option<DeadlineView>,
    /// Of its answered lines, those answered from the cache.
    #[serde(default)]
    pub reused: u64,
    /// What it costs, if its model has a price.
    #[serde(default)]
    pub cost: Option<CostView>,
}

/// Lines of a job.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
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

/// When things happened, RFC 3339.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
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

impl JobView {
    /// What is to be seen of one job by itself.
    pub fn new(job: &Job) -> JobView {
        let head = &job.head;
        let (batches, batches_total) = batch::newest_of(job);
        let mut chunks = BTreeMap::new();
        for chunk in job.leaves() {
            *chunks.entry(chunk_word(&chunk.state).to_owned()).or_insert(0) += 1;
        }
        JobView {
            id: head.id.to_string(),
            file: file_of(&head.source),
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
            tokens: delivery(job).map(|delivery| delivery.tally.tokens.into()),
            failures: delivery(job).map(|it| it.tally.failures.clone()).unwrap_or_default(),
            on_hold: head.on_hold,
            opens: None,
            waiting_s: None,
            typical_s: None,
            bytes: head.source.bytes,
            deadline: DeadlineView::of(job, None, None),
            reused: job.head.state.plan().map_or(0, |plan| plan.reused),
            cost: CostView::of(job),
        }
    }

    /// The same at the moment `now`, among jobs whose batches took `typical_ms` lately.
    pub fn at(job: &Job, now: Millis, typical_ms: Option<u64>) -> JobView {
        let waiting = batch::oldest_open(job).map(|created| now.since(created) / 1000);
        let typical_s = typical_ms.map(|ms| ms.div_ceil(1000));
        let deadline = DeadlineView::of(job, Some(now), typical_ms);
        let mut view = JobView { waiting_s: waiting, typical_s, deadline, ..JobView::new(job) };
        if let Some(until) = when::waits_until(job, now) {
            view.opens = job.head.queue.moments.opens.map(moment);
            if matches!(job.head.state, JobState::Active(_)) {
                view.phase = on_hold(job, &format!("waiting until {until}"));
            }
        }
        view
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

/// The product's word for where a job stands: one of [`STATES`].
pub fn state_word(job: &Job) -> &'static str {
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
        ChunkState::Rescuing { .. } => "rescuing",
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
    let trial = job.head.state.plan().and_then(|plan| plan.canary.as_ref());
    if canary::is_stopped(job) {
        return "waits for a person".to_owned();
    }
    let first = match trial {
        Some(trial) if trial.bad.is_none() => {
            format!("{} lines first, ", trial.lines)
        }
        Some(_) | None => String::new(),
    };
    let all = job.leaves().count();
    for (word, says) in PHASES {
        let count = job.leaves().filter(|chunk| chunk_word(&chunk.state) == *word).count();
        if count > 0 && all > 1 {
            return format!("{first}{says} ({count} of {all} chunks)");
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
    if let Some(refusal) = canary::told(job) {
        return Some(refused(&refusal));
    }
    if job.leaves().any(|chunk| matches!(chunk.state, ChunkState::Stuck { .. })) {
        return Some(format!(
            "a create call had no reply and its batch was not found; `gemini-batchd release {id}` \
             sends it again, `gemini-batchd cancel {id}` gives up"
        ));
    }
    if let Some(name) = job.leaves().find_map(pending_too_long) {
        return Some(format!(
            "{} does not begin at Google, far longer than is usual; `gemini-batchd cancel {id}` gives \
             up what is not answered",
            name.0
        ));
    }
    let waits_after_error = |chunk: &&Chunk| {
        matches!(chunk.state, ChunkState::Waiting { .. }) && chunk.last_error.is_some()
    };
    let chunk = job.leaves().find(waits_after_error)?;
    let error = chunk.last_error.as_ref()?;
    Some(format!("is sent again after: {} (code {})", shortened(&error.message), error.code))
}

/// The batch of a chunk that does not begin, as long as it does not.
fn pending_too_long(chunk: &Chunk) -> Option<&BatchName> {
    let ChunkState::Polling(batch) = &chunk.state else { return None };
    let is_pending = batch.remote == RemoteState::Pending;
    stuck(chunk).filter(|name| is_pending && **name == batch.name)
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
    let rescued = plan.promise.as_ref().map_or(0, |promise| promise.flex + promise.standard);
    let answered: u64 = ended.map(|batch| batch.answered).sum::<u64>() + rescued + plan.reused;
    let failed = plan.rows.saturating_sub(open).saturating_sub(answered);
    Lines { total: plan.rows, answered, failed, open }
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

/// The path of an input below the inbox.
pub fn file_of(source: &Source) -> String {
    match source.folder.as_str() {
        "" => source.name.clone(),
        folder => format!("{folder}/{}", source.name),
    }
}

/// A text from outside, bounded.
pub fn shortened(text: &str) -> String {
    match text.char_indices().nth(200) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

/// The version of all that the control plane answers.
pub const VERSION: u32 = 1;
/// The words for states of jobs.
pub const STATES: [&str; 8] =
    ["claimed", "planned", "active", "merging", "done", "held", "failed", "cancelled"];

/// What chunks do, the most noteworthy first.
const PHASES: &[(&str, &str)] = &[
    ("stuck", "waits for a person"),
    ("uncertain", "checking whether a batch was made"),
    ("rescuing", "rescuing: asking line by line, as the deadline is near"),
    ("collecting", "fetching results"),
    ("creating", "creating a batch"),
    ("uploading", "uploading"),
    ("running", "waiting at Google"),
    ("pending", "waiting at Google"),
    ("waiting", "waiting for its turn"),
];

#[cfg(test)]
mod tests;
