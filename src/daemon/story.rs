//! What saved changes mean for people: from one state of a job to the next, as events.

use std::collections::{BTreeMap, BTreeSet};

use crate::engine::effect::Change;
use crate::engine::ids::{ChunkNo, JobId};
use crate::engine::job::{Chunk, ChunkState, Delivery, Head, Job, JobState, RemoteState, Tier};
use crate::engine::{rescue, stuck};
use crate::view::{self, Kind};

use super::chronicle::Draft;

/// What was told of each job that may still change.
#[derive(Debug, Default)]
pub struct Story {
    jobs: BTreeMap<JobId, Known>,
}

/// What was told of a job.
#[derive(Debug, Default)]
struct Known {
    file: String,
    step: Option<Step>,
    /// Whether it was told that the deadline is in danger, and that it has passed.
    deadline: (bool, bool),
    chunks: BTreeMap<ChunkNo, Seen>,
}

/// What was told of a chunk.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Seen {
    attempt: u16,
    /// Batches that came to an end.
    ended: usize,
    stands: Stands,
    /// The batch that was found not to begin.
    stuck: Option<String>,
}

/// Where an attempt stands, as far as it is told.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
enum Stands {
    #[default]
    Waiting,
    Uploading,
    InDoubt,
    Stuck,
    AtTheApi(RemoteState),
    Rescuing(Tier),
    Over,
}

/// How far a job has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Claiming,
    Planning,
    Active,
    Merging,
    Delivering,
    Cleaning,
    Refusing,
    Over,
}

impl Story {
    /// Takes note of jobs that are there already, without a word.
    pub fn recall<'a>(&mut self, jobs: impl IntoIterator<Item = &'a Job>) {
        for job in jobs {
            let chunks = job.chunks.values().map(|chunk| (chunk.no, Seen::of(chunk))).collect();
            let step = Some(Step::of(&job.head.state));
            let (file, deadline) = (view::file_of(&job.head.source), deadline_of(&job.head));
            let known = Known { file, step, deadline, chunks };
            self.jobs.insert(job.head.id, known);
        }
    }

    /// What these changes, which were saved together, have to tell.
    pub fn tell(&mut self, changes: &[Change]) -> Vec<Draft> {
        let mut drafts = Vec::new();
        for change in changes {
            match change {
                Change::Head(head) => self.tell_head(head, changes, &mut drafts),
                Change::Chunk(id, chunk) => self.tell_chunk(*id, chunk, &mut drafts),
                Change::Shed(id) | Change::Forget(id) => {
                    self.jobs.remove(id);
                }
                Change::Note { .. } => {}
            }
        }
        drafts
    }

    fn tell_head(&mut self, head: &Head, changes: &[Change], drafts: &mut Vec<Draft>) {
        let known = self.jobs.entry(head.id).or_default();
        let step = Step::of(&head.state);
        if known.file.is_empty() {
            known.file = view::file_of(&head.source);
        }
        let told = std::mem::replace(&mut known.deadline, deadline_of(head));
        drafts.extend(
            deadline_told(head, told).map(|text| known.draft(head.id, Kind::Deadline, text)),
        );
        if known.step.replace(step) == Some(step) {
            return;
        }
        let chunks = || {
            let of_it = |change: &Change| match change {
                Change::Chunk(id, chunk) if *id == head.id => Some(chunk.no),
                Change::Chunk(..)
                | Change::Head(_)
                | Change::Shed(_)
                | Change::Forget(_)
                | Change::Note { .. } => None,
            };
            // A chunk that is begun in the same turn is saved twice in it.
            changes.iter().filter_map(of_it).collect::<BTreeSet<_>>().len()
        };
        let told = match &head.state {
            JobState::Claiming => Some((Kind::Claimed, taken(head))),
            JobState::Active(plan) => {
                let text = format!("{} in {}", lines(plan.rows), batches(chunks()));
                Some((Kind::Planned, text))
            }
            JobState::Merging(_) => Some((Kind::Merging, "all answers are here".to_owned())),
            JobState::Cleaning(delivery) => Some((Kind::Delivered, delivered(delivery))),
            JobState::Done(it) if it.plan.cancelled => Some((Kind::Cancelled, delivered(it))),
            JobState::Done(delivery) => Some((Kind::Done, delivered(delivery))),
            JobState::Failed(why) => Some((Kind::Failed, view::told(&why.message, &why.remedy))),
            JobState::Held(why) => Some((Kind::Held, view::told(&why.message, &why.remedy))),
            JobState::Planning
            | JobState::Delivering(_)
            | JobState::Refusing(_)
            | JobState::Holding(_) => None,
        };
        drafts.extend(told.map(|(kind, text)| known.draft(head.id, kind, text)));
        if step == Step::Over {
            known.chunks.clear();
        }
        if matches!(head.state, JobState::Done(_)) {
            self.jobs.remove(&head.id);
        }
    }

    fn tell_chunk(&mut self, id: JobId, chunk: &Chunk, drafts: &mut Vec<Draft>) {
        let Some(known) = self.jobs.get_mut(&id) else { return };
        let now = Seen::of(chunk);
        let fresh = Seen { attempt: 1, ..Seen::default() };
        let before = known.chunks.insert(chunk.no, now.clone()).unwrap_or(fresh);
        let mut tell = |kind, text| drafts.push(known.draft(id, kind, text));
        for record in chunk.batches.iter().skip(before.ended) {
            let (name, state) = (&record.name.0, record.state.as_str());
            let of = lines(record.lines);
            let mut text = format!("{name} {state}: {} of {of} answered", record.answered);
            if let Some(error) = &record.error {
                text.push_str(&format!(
                    "; {} (code {})",
                    view::shortened(&error.message),
                    error.code
                ));
            }
            tell(Kind::Collected, text);
        }
        let rest = lines(chunk.rest.rows());
        let which = format!("chunk {}, attempt {}", chunk.no.0, chunk.attempt.0);
        if now.attempt > before.attempt && chunk.rest.rows() > 0 && now.stands != Stands::Over {
            tell(Kind::Retried, format!("{rest} to be sent again: {which}"));
        }
        if let Some(name) = now.stuck.as_ref().filter(|_| now.stuck != before.stuck) {
            let text = format!("{name} does not begin: {rest}, {which}");
            tell(Kind::Stuck, text);
        }
        if now.stands == before.stands && now.attempt == before.attempt {
            return;
        }
        match (&now.stands, &chunk.state) {
            (Stands::Uploading, _) => {
                let bytes = chunk.rest.bytes();
                tell(Kind::Uploading, format!("{rest}, {bytes} bytes: {which}"));
            }
            (Stands::InDoubt, _) => {
                let text = format!("it is not known whether a batch was created; looking: {which}");
                tell(Kind::Uncertain, text);
            }
            (Stands::Stuck, _) => {
                let text = format!("no batch was found; a person has to decide: {which}");
                tell(Kind::Uncertain, text);
            }
            (Stands::Rescuing(tier), _) => {
                let word = tier.word();
                let text = format!("{rest} asked one by one through the {word} tier: {which}");
                tell(Kind::Rescuing, text);
            }
            (Stands::AtTheApi(remote), ChunkState::Polling(batch)) => {
                let (name, is_new) = (&batch.name.0, !matches!(before.stands, Stands::AtTheApi(_)));
                match is_new || now.attempt > before.attempt {
                    true => tell(Kind::BatchCreated, format!("{name}: {rest}, {which}")),
                    false => tell(Kind::BatchState, format!("{name} {}", remote.as_str())),
                }
            }
            (Stands::AtTheApi(remote), ChunkState::Collecting { batch, .. }) => {
                tell(Kind::BatchState, format!("{} {}", batch.name.0, remote.as_str()));
            }
            (Stands::AtTheApi(_) | Stands::Waiting | Stands::Over, _) => {}
        }
    }
}

impl Known {
    fn draft(&self, job: JobId, kind: Kind, text: String) -> Draft {
        Draft { job: Some(job), file: Some(self.file.clone()), kind, text }
    }
}

impl Seen {
    fn of(chunk: &Chunk) -> Seen {
        let stands = match &chunk.state {
            ChunkState::Waiting { .. } | ChunkState::Creating { .. } => Stands::Waiting,
            ChunkState::Uploading { .. } => Stands::Uploading,
            ChunkState::Uncertain { .. } => Stands::InDoubt,
            ChunkState::Stuck { .. } => Stands::Stuck,
            ChunkState::Polling(batch) => Stands::AtTheApi(batch.remote.clone()),
            ChunkState::Collecting { end, .. } => Stands::AtTheApi(end.state.clone()),
            ChunkState::Rescuing { tier, .. } => Stands::Rescuing(*tier),
            ChunkState::Settled | ChunkState::Split { .. } => Stands::Over,
        };
        let stuck = stuck::stuck(chunk).map(|name| name.0.clone());
        Seen { attempt: chunk.attempt.0, ended: chunk.batches.len(), stands, stuck }
    }
}

impl Step {
    fn of(state: &JobState) -> Step {
        match state {
            JobState::Claiming => Step::Claiming,
            JobState::Planning => Step::Planning,
            JobState::Active(_) => Step::Active,
            JobState::Merging(_) => Step::Merging,
            JobState::Delivering(_) => Step::Delivering,
            JobState::Cleaning(_) => Step::Cleaning,
            JobState::Refusing(_) | JobState::Holding(_) => Step::Refusing,
            JobState::Done(_) | JobState::Failed(_) | JobState::Held(_) => Step::Over,
        }
    }
}

/// Whether the deadline of a job is in danger, and whether it has passed.
fn deadline_of(head: &Head) -> (bool, bool) {
    let promise = head.state.plan().and_then(|plan| plan.promise.as_ref());
    promise.map_or((false, false), |it| (it.danger.is_some(), it.missed.is_some()))
}

/// What is new about the deadline of a job, in words.
fn deadline_told(head: &Head, told: (bool, bool)) -> Option<String> {
    let (danger, missed) = deadline_of(head);
    let by = view::moment(head.queue.moments.deliver_by?);
    let promise = head.state.plan()?.promise.as_ref()?;
    if missed && !told.1 {
        return Some(format!("was to be delivered by {by}, and is not complete"));
    }
    let begun = promise.rescue.is_some();
    (danger && !told.0).then(|| match (begun, rescue::not_for(head)) {
        (true, _) => format!("is wanted by {by}: its lines are asked one by one from now on"),
        (false, Some(why)) => format!("may not be delivered by {by}; {why}"),
        (false, None) => format!("may not be delivered by {by}"),
    })
}

fn taken(head: &Head) -> String {
    let from = if head.released { "held" } else { "the inbox" };
    format!("taken from {from}: {} bytes", head.source.bytes)
}

fn delivered(delivery: &Delivery) -> String {
    let tally = &delivery.tally;
    format!(
        "{} answered, {} failed; outputs are named {}",
        lines(tally.answered),
        tally.failed,
        delivery.stem
    )
}

fn lines(count: u64) -> String {
    if count == 1 { "1 line".to_owned() } else { format!("{count} lines") }
}

fn batches(count: usize) -> String {
    if count == 1 { "1 batch".to_owned() } else { format!("{count} batches") }
}
