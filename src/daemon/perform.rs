//! One effect becomes what happened: an outcome, or a failure sorted by what to do about it.
//!
//! Nothing is decided here. Disk work runs on threads made for it; the network is the client's.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;

use crate::clock::Clock;
use crate::engine::effect::{Effect, Which};
use crate::engine::event::{Failure, Outcome, PlannedChunk};
use crate::engine::ids::{FileName, Millis};
use crate::engine::job::{Family, Head, OpenAiLines, Plan, Queue, Task, Transport};
use crate::provider::gemini::{Listed, Payload};
use crate::spool::aside::{self, Aside};
use crate::spool::body::Body;
use crate::spool::cache::Cache;
use crate::spool::claim::{self, Claimed};
use crate::spool::frame::Frame;
use crate::spool::lost::{self, Needed};
use crate::spool::media::addresses::Addresses;
use crate::spool::media::take::Places;
use crate::spool::plan::{self, CutRules, PlanError, Planned};
use crate::spool::prepare::{self, Prepared, Recipe};
use crate::spool::sketch::OnKnown;
use crate::spool::{At, Folders, JobFolder, SpoolError, session};

use super::blocking::blocking;
use super::clients::Clients;
use super::create::Request;
use super::early::{self, EarlyUploads};
use super::ending;
use super::harvest;
use super::media::{MediaTurns, Named, places, plan_naming};
use super::payload::payload;
use super::rescue;

/// Everything effects need.
pub struct Performer {
    /// Where files live.
    pub folders: Folders,
    /// The API, with each key in use.
    pub clients: Clients,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Bytes of an uploaded input file, at most.
    pub file_bytes: u64,
    /// Bytes of a create request with its rows inline, at most.
    pub inline_bytes: u64,
    /// Whether files and batches at the API are removed when a job is done.
    pub remote_cleanup: bool,
    /// Whether the outbox was a disk of its own when the daemon started.
    pub outbox_was_mounted: bool,
    /// Whether it was told that the clock is off.
    pub skew_told: AtomicBool,
    /// Uploads that began before their files were planned.
    pub early: Arc<EarlyUploads>,
    /// The first pause after the API turned a single row away.
    pub backoff_min: Duration,
    /// Who may ask for a single row, and how many of them at a time.
    pub rescue_parallel: usize,
    /// Their turns.
    pub rescue_calls: Arc<Semaphore>,
    /// Held by who writes a note in `held/`, or takes it back: what lies beside it goes with it.
    pub notes: Arc<Mutex<()>>,
    /// Whose turn it is to upload files that lines name.
    pub media_turns: Arc<MediaTurns>,
    /// Whether something was put into the inbox that nobody has looked at yet.
    pub dropped_late: Arc<AtomicBool>,
    /// Answers that can be used again.
    pub cache: Arc<Cache>,
    /// What is left free on the disk by what is only convenient, bytes.
    pub free_bytes: u64,
}

impl Performer {
    /// Does one effect, with the API key of this fingerprint if it needs one.
    ///
    /// # Errors
    /// With the reason, sorted by what to do about it.
    pub async fn perform(
        self: &Arc<Self>,
        effect: Effect,
        key: Option<String>,
    ) -> Result<Outcome, Failure> {
        let key = key.as_deref();
        match effect {
            Effect::Claim { head, plan } => self.claim(*head, plan).await,
            Effect::Plan { head, early } => self.plan(*head, early, key).await,
            Effect::Upload { which, file } => self.upload(which, file, key).await,
            Effect::Create { which, input, family: Family::Native, model, task, priority } => {
                let request = Request { which, model: &model, task, priority };
                self.create(request, input, key).await
            }
            Effect::Create { which, input, family: Family::OpenAi, task, .. } => {
                self.create_in_layer(which, input, task, key).await
            }
            Effect::Find { which, file: None } => {
                self.clients.with(key)?.find(&which.stamp()).await.map(Outcome::Found)
            }
            Effect::Find { file: Some(file), .. } => {
                self.clients.with(key)?.find_in_layer(&file).await.map(|listed| match listed {
                    Listed::All(batches) => Outcome::Found(batches),
                    Listed::Nowhere(why) => Outcome::Unlisted(why),
                })
            }
            Effect::Poll { batches } => {
                let polled = self.clients.with(key)?.poll(&batches).await;
                self.tell_skew();
                polled.map(Outcome::Polled)
            }
            Effect::Collect { which, batch, end: _, missing_max } => {
                let folder = self.folders.job(which.job);
                let client = self.clients.with(key)?;
                harvest::collect(client, folder, which, &batch, missing_max)
                    .await
                    .map(Outcome::Collected)
            }
            Effect::Rescue { which, tier, model, task, until } => {
                self.rescue(rescue::Order { which, tier, model, task, until }, key).await
            }
            Effect::Discard { batch, input } => {
                let client = self.clients.with(key)?;
                ending::discard(client, &batch, &input, false).await?;
                Ok(Outcome::Discarded)
            }
            Effect::DropInput { file } => {
                self.clients.with(key)?.delete_file(&file).await.map(|()| Outcome::Discarded)
            }
            Effect::CancelBatch { batch } => {
                self.clients.with(key)?.cancel(&batch).await.map(|()| Outcome::Cancelled)
            }
            Effect::Merge { job } => self.merge(*job, key).await,
            Effect::Deliver { job } => self.deliver(*job).await,
            Effect::Clean { job } => self.clean(*job, key).await,
            Effect::Refuse { head, refusal } => {
                self.move_aside(Aside::Failed, *head, refusal, key).await
            }
            Effect::Hold { head, refusal } => {
                self.move_aside(Aside::Held, *head, refusal, key).await
            }
            Effect::Notify { head, refusal } => self.notify(*head, refusal).await,
            Effect::Judge { head } => self.judge(*head).await,
            Effect::Withdraw { head } => {
                let (this, id) = (Arc::clone(self), head.id);
                self.on_disk(move |folders| {
                    let _one = this.notes.lock().unwrap_or_else(PoisonError::into_inner);
                    aside::withdraw_notice(folders, head.id, &head.source)
                })
                .await?;
                Ok(Outcome::Withdrawn(id))
            }
        }
    }

    /// Says once if this machine's clock is far from the API's.
    fn tell_skew(&self) {
        let skew_ms = self.clients.server_time_skew(self.clock.now()).unwrap_or(0);
        if skew_ms.unsigned_abs() > SKEW_TOLD_MS && !self.skew_told.swap(true, Ordering::Relaxed) {
            let minutes = skew_ms.unsigned_abs() / 60_000;
            let way = if skew_ms > 0 { "behind" } else { "ahead of" };
            tracing::warn!(
                "this machine's clock is {minutes} minutes {way} the API's: times in manifests and \
                 what is kept for how long will be off; let it be set by NTP"
            );
        }
    }

    /// A small input is planned on the same thread as soon as it is ours.
    async fn claim(&self, head: Head, plan: bool) -> Result<Outcome, Failure> {
        let (rules, folder) = (self.rules(&head), self.folders.job(head.id));
        let asks = asks(&head.queue);
        let reusing = self.reusing();
        let claimed = self.on_disk(move |folders| {
            let claimed = match head.released {
                true => aside::take_back(folders, head.id, &head.source)?,
                false => claim::claim(folders, head.id, &head.source)?,
            };
            let is_ours = matches!(claimed, Claimed::Now | Claimed::Already);
            let planned = (plan && is_ours)
                .then(|| plan_at_once(&folder, &head, &rules, &places(folders, &head)))
                .map(|planned| reusing.apply(&folder, &head, &rules, planned));
            Ok((claimed, planned))
        });
        match claimed.await? {
            (Claimed::Now | Claimed::Already, Some(planned)) => self.planned(planned, asks),
            (Claimed::Now | Claimed::Already, None) => Ok(Outcome::Claimed),
            (Claimed::Vanished, _) => Ok(Outcome::Vanished),
        }
    }

    async fn plan(&self, head: Head, early: bool, key: Option<&str>) -> Result<Outcome, Failure> {
        let (rules, folder, job) = (self.rules(&head), self.folders.job(head.id), head.id);
        let asks = asks(&head.queue);
        let print = key.unwrap_or_default().to_owned();
        let stale = self.on_disk(move |folders| early::forget(&folders.job(job), &print));
        self.give_up_early(job, stale.await?, key);
        let places = places(&self.folders, &head);
        let whole = Arc::new((folder, head, rules, places));
        let preparing = Arc::clone(&whole);
        let prepared = blocking(move || {
            let (folder, head, rules, places) = &*preparing;
            prepare_in(folder, head, rules, places)
        });
        let prepared = match prepared.await {
            Ok(prepared) => prepared,
            Err(error) => return self.planned(Err(error), asks),
        };
        // What lines name has no address yet, and what was answered before is not sent.
        let early = early
            && whole.1.queue.cache_ms == 0
            && !prepared.as_ref().is_some_and(|prepared| prepared.media);
        let client = self.clients.with(key).ok().filter(|_| early);
        let lead = client.map(|client| self.begin_early(&whole.1, prepared.is_some(), client));
        let (on_known, reusing) = (lead.clone(), self.reusing());
        let planned = blocking(move || {
            let (folder, head, rules, places) = &*whole;
            let known = on_known.map(|lead| move |known| lead.known(known));
            let on_known = known.as_ref().map(|known| known as OnKnown<'_>);
            let planned = plan_in(folder, head, prepared.as_ref(), rules, on_known);
            let goes_on = planned.is_ok();
            let planned = planned.or_else(|error| plan_naming(folder, head, rules, places, error));
            (reusing.apply(folder, head, rules, planned), goes_on)
        });
        let (planned, goes_on) = planned.await;
        if let Some(lead) = lead {
            self.settle_early(&lead, job, goes_on, key).await;
        }
        self.planned(planned, asks)
    }

    pub(super) fn rules(&self, head: &Head) -> CutRules {
        cut_rules(&head.queue, self.file_bytes, self.inline_bytes)
    }

    fn planned(&self, planned: Result<Planned, PlanError>, asks: u64) -> Result<Outcome, Failure> {
        match planned {
            Ok(planned) => {
                let (plan, chunks) = plan_of(planned, asks, self.clock.now());
                Ok(Outcome::Planned { plan, chunks })
            }
            Err(PlanError::Unusable(refusal)) => Ok(Outcome::Unusable(refusal)),
            Err(PlanError::Spool(error)) => Err(local(&error)),
            Err(error @ PlanError::NamesFiles) => Err(Failure::Local(error.to_string())),
        }
    }

    pub(super) async fn body(&self, which: &Which, frame: Frame) -> Result<Arc<Body>, Failure> {
        let (rows, tokens_max) = (which.rows, which.terms.tokens_max);
        self.with_input(which, move |folder, input| {
            Body::open(folder, input, rows, frame, tokens_max).map(Arc::new)
        })
        .await
    }

    /// The rows as items; few of them are read at once, without a thread of their own. Rows that
    /// name files get their `addresses`.
    pub(super) async fn inline_body(
        &self,
        which: &Which,
        addresses: Option<Arc<Addresses>>,
    ) -> Result<(Arc<Body>, Payload), Failure> {
        let (rows, tokens_max) = (which.rows, which.terms.tokens_max);
        self.with_input(which, move |folder, input| {
            let frame = Frame::InlineItem;
            let body = Body::open(folder, input.clone(), rows, frame, tokens_max)?;
            let body = Arc::new(body.with(addresses.unwrap_or_default()));
            if body.len() > READ_AT_ONCE_BYTES {
                let items = payload(Arc::clone(&body));
                return Ok((body, items));
            }
            let mut items = Vec::with_capacity(body.len() as usize);
            let read = body.reader(0)?.read_to_end(&mut items);
            read.at("read", &input)?;
            Ok((body, Payload::from_bytes(items.into())))
        })
        .await
    }

    async fn upload(
        &self,
        which: Which,
        file: FileName,
        key: Option<&str>,
    ) -> Result<Outcome, Failure> {
        let client = self.clients.with(key)?;
        let mut body = self.body(&which, Frame::FileLine).await?;
        // With other addresses the bytes are others, and the session is of no use.
        let mut print = key.unwrap_or_default().to_owned();
        match self.media_of(&which, &body, key).await? {
            Named::Nothing => {}
            Named::Refused(outcome) => return Ok(outcome),
            Named::Ready(ready) => {
                self.note_sent(&which, &file, &ready, client).await?;
                print = format!("{print}-{}", ready.addresses.print());
                body = Arc::new(body.with(ready.addresses));
            }
        }
        let payload = payload(body);
        self.await_early(&which).await;
        let folder = self.folders.job(which.job);
        let kept = session::load(&folder, which.chunk, which.attempt, &print);
        let on_session = move |address: Option<&str>| {
            // Without it a restart begins the upload anew; that costs time, nothing else.
            let kept = session::keep(&folder, which.chunk, which.attempt, &print, address);
            if let Err(error) = kept {
                tracing::warn!(%error, "the upload's address was not kept");
            }
        };
        let stamp = which.stamp();
        let file = client.upload(&file, &stamp.0, &payload, kept, &on_session).await?;
        Ok(Outcome::Uploaded { file })
    }

    /// Reads the input of a job under way, or what was prepared of it, unless that is gone.
    async fn with_input<T: Send + 'static>(
        &self,
        which: &Which,
        work: impl FnOnce(&JobFolder, PathBuf) -> Result<T, SpoolError> + Send + 'static,
    ) -> Result<T, Failure> {
        let (folder, prepared) = (self.folders.job(which.job), which.prepared);
        let needed = if prepared { Needed::Prepared } else { Needed::Input };
        blocking(move || match lost::lost(&folder, needed) {
            Some(path) => Err(removed(&folder, &path)),
            None => {
                let input = match prepared {
                    true => Ok(folder.prepared()),
                    false => folder.input_name().map(|name| folder.input(&name)),
                };
                input.and_then(|input| work(&folder, input)).map_err(|error| local(&error))
            }
        })
        .await
    }

    pub(super) async fn on_disk<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Folders) -> Result<T, SpoolError> + Send + 'static,
    ) -> Result<T, Failure> {
        let folders = self.folders.clone();
        blocking(move || work(&folders)).await.map_err(|error| local(&error))
    }
}

/// Prepares and plans an input on this thread.
pub(super) fn plan_at_once(
    folder: &JobFolder,
    head: &Head,
    rules: &CutRules,
    places: &Places,
) -> Result<Planned, PlanError> {
    let prepared = prepare_in(folder, head, rules, places)?;
    let planned = plan_in(folder, head, prepared.as_ref(), rules, None);
    planned.or_else(|error| plan_naming(folder, head, rules, places, error))
}

/// What is kept of a plan, and its chunks.
pub(super) fn plan_of(planned: Planned, asks: u64, now: Millis) -> (Plan, Vec<PlannedChunk>) {
    let plan = Plan {
        rows: planned.rows,
        invalid: planned.invalid,
        bytes: planned.bytes,
        sha256: planned.sha256,
        family: planned.family,
        asks: Some(asks),
        planned: now,
        first_create: None,
        last_result: None,
        cancelled: false,
        warnings: planned.warnings,
        prepared: planned.prepared,
        media: planned.media,
        canary: planned.canary.map(Box::new),
        reused: planned.reused,
        promise: None,
    };
    (plan, planned.chunks)
}

/// Prepares an input that can not be sent as it stands, so far as that is known before it is read.
/// One with wrong settings is refused here, where it and they are moved as every other.
fn prepare_in(
    folder: &JobFolder,
    head: &Head,
    rules: &CutRules,
    places: &Places,
) -> Result<Option<Prepared>, PlanError> {
    if let Some(refusal) = &head.queue.wrong {
        return Err(PlanError::Unusable((**refusal).clone()));
    }
    if Recipe::of(&head.source.name, &head.queue).is_none() {
        return Ok(None);
    }
    let recipe = Recipe::taking(&head.source.name, &head.queue, places);
    prepare::prepare(folder, &recipe, rules).map(Some)
}

pub(super) fn plan_in(
    folder: &JobFolder,
    head: &Head,
    prepared: Option<&Prepared>,
    rules: &CutRules,
    on_known: Option<OnKnown<'_>>,
) -> Result<Planned, PlanError> {
    let name = &head.source.name;
    match (prepared, on_known) {
        (Some(prepared), _) => plan::plan_prepared(folder, prepared, rules, on_known),
        (None, Some(on_known)) => plan::plan_telling(folder, name, rules, on_known),
        (None, None) => plan::plan(folder, name, rules, &|_| {}),
    }
}

/// As [`Plan::asks`]. It must stay the same from version to version.
pub(super) fn asks(queue: &Queue) -> u64 {
    let task = match queue.task {
        Task::Generate => "generate",
        Task::Embed => "embed",
    };
    let defaults = queue.defaults.as_deref().unwrap_or_default();
    let openai = match queue.openai {
        OpenAiLines::Layer => "",
        OpenAiLines::Translate => "\ntranslate",
    };
    let mut all = format!("{}\n{task}\n{defaults}{openai}", queue.model);
    if let Some(template) = &queue.conversion().template {
        all += &format!("\n{template}");
    }
    let sum = Sha256::digest(all);
    u64::from_be_bytes(sum[..8].try_into().expect("a sum has 32 bytes"))
}

/// How a queue wants its files cut.
pub fn cut_rules(queue: &Queue, file_bytes: u64, inline_bytes: u64) -> CutRules {
    let mut rules = CutRules {
        batch_bytes_max: file_bytes,
        rows_max: queue.lines_per_batch,
        row_bytes_max: u64::MAX,
        line_bytes_max: LINE_BYTES_MAX,
        model: queue.model.clone(),
        task: queue.task,
    };
    if queue.transport == Transport::Inline {
        // Chunks are measured as lines of a file; inline, each row costs a few bytes more, and an
        // eighth is kept for those.
        let reserve = inline_bytes / 8;
        let rows_fitting = (reserve / INLINE_EXTRA_BYTES).max(1);
        rules.batch_bytes_max = inline_bytes.saturating_sub(reserve + ENVELOPE_BYTES);
        rules.row_bytes_max = rules.batch_bytes_max;
        rules.rows_max = match queue.lines_per_batch {
            0 => rows_fitting,
            lines => lines.min(rows_fitting),
        };
    }
    rules
}

/// A failure of this machine.
pub(super) fn local(error: &SpoolError) -> Failure {
    Failure::Local(error.to_string())
}

/// A failure for good: a job's file is gone.
pub(super) fn removed(folder: &JobFolder, path: &Path) -> Failure {
    let mut message = format!("{} was removed while its job was under way", path.display());
    if folder.has_answers() {
        let answers = folder.path.join("answers");
        message += &format!("; what had been answered by then lies in {}", answers.display());
    }
    Failure::Removed(message)
}

/// A clock that is off by more is worth a word, milliseconds.
const SKEW_TOLD_MS: u64 = 300_000;
/// Inline requests of at most so many bytes are read before they are sent.
const READ_AT_ONCE_BYTES: u64 = 256 * 1024;
/// The longest line that is sent, bytes.
pub const LINE_BYTES_MAX: u64 = 64_000_000;
/// What a row costs more inline than in a file (spool/frame.rs).
const INLINE_EXTRA_BYTES: u64 = 13;
/// Room for what stands around the rows of an inline create request.
const ENVELOPE_BYTES: u64 = 1024;
