//! The files that lines name, on their way to the API: before any line that names one goes out.
//!
//! Each is uploaded once for a job, and again only when the API would soon forget it: what is sent
//! now may wait there for a day and longer. What is known of it is durable before its address is
//! used. To upload a file costs nothing, so that it may happen twice; each bears the mark of its job,
//! by which housekeeping finds what a crash left behind. A file that the API will not have fails the
//! lines that name it, and no others.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use futures_util::{StreamExt, TryStreamExt, stream};

use crate::engine::effect::Which;
use crate::engine::event::{Failure, Objection, Outcome};
use crate::engine::ids::{FileName, JobId, Millis, Row};
use crate::engine::job::{Head, RemoteError};
use crate::provider::gemini::Media;
use crate::spool::answers;
use crate::spool::body::Body;
use crate::spool::frame::Frame;
use crate::spool::media::addresses::{self, Addresses, Remote, Sent};
use crate::spool::media::slots::MediaId;
use crate::spool::media::take::Places;
use crate::spool::plan::{CutRules, PlanError, Planned};
use crate::spool::prepare::{self, Recipe};
use crate::spool::{Folders, JobFolder};

use super::blocking::blocking;
use super::payload::file_payload;
use super::perform::{Performer, local, plan_in, removed};

/// Lets the chunks of one job upload their files one after the other, since most of these are the
/// same.
#[derive(Debug, Default)]
pub struct MediaTurns(Mutex<BTreeMap<JobId, Weak<tokio::sync::Mutex<()>>>>);

impl MediaTurns {
    fn of(&self, job: JobId) -> Arc<tokio::sync::Mutex<()>> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, turn| turn.strong_count() > 0);
        let known = all.get(&job).and_then(Weak::upgrade);
        known.unwrap_or_else(|| {
            let turn = Arc::new(tokio::sync::Mutex::new(()));
            all.insert(job, Arc::downgrade(&turn));
            turn
        })
    }
}

/// What rows need before they can go out.
pub(super) enum Named {
    /// Nothing: they name no files.
    Nothing,
    /// All files are there.
    Ready(Ready),
    /// The API will not have some of them; the rows that name those have failed.
    Refused(Outcome),
}

/// Files that can be named in requests.
pub(super) struct Ready {
    pub(super) addresses: Arc<Addresses>,
    /// When the API forgets the first of them, milliseconds since 1970.
    expires_ms: u64,
}

impl Performer {
    /// Sees to it that the files which the rows of a body name are at the API, and will be for a
    /// while.
    pub(super) async fn media_of(&self, which: &Which, body: &Arc<Body>) -> Result<Named, Failure> {
        if !which.prepared {
            return Ok(Named::Nothing);
        }
        let counted = Arc::clone(body);
        let named = blocking(move || counted.media()).await.map_err(|error| local(&error))?;
        if named.is_empty() {
            return Ok(Named::Nothing);
        }
        let turn = self.media_turns.of(which.job);
        let _turn = turn.lock().await;
        let found: Vec<(MediaId, Result<Remote, String>)> = stream::iter(named.into_keys())
            .map(|media| async move { Ok((media, self.at_api(which.job, media).await?)) })
            .buffer_unordered(AT_ONCE)
            .try_collect()
            .await?;
        let (mut ready, mut refused) = (Vec::new(), BTreeMap::new());
        let mut expires_ms = u64::MAX;
        for (media, found) in found {
            match found {
                Ok(remote) => {
                    expires_ms = expires_ms.min(remote.expires_ms);
                    ready.push((media, remote.uri));
                }
                Err(why) => {
                    refused.insert(media, why);
                }
            }
        }
        if refused.is_empty() {
            let addresses = Arc::new(ready.into_iter().collect());
            return Ok(Named::Ready(Ready { addresses, expires_ms }));
        }
        self.refuse_rows(*which, Arc::clone(body), refused).await.map(Named::Refused)
    }

    /// The same for rows that travel inside the create request.
    pub(super) async fn media_inline(&self, which: &Which) -> Result<Named, Failure> {
        if !which.prepared {
            return Ok(Named::Nothing);
        }
        let body = self.body(which, Frame::InlineItem).await?;
        self.media_of(which, &body).await
    }

    /// One file: where it is, or why the API will not have it.
    async fn at_api(&self, job: JobId, media: MediaId) -> Result<Result<Remote, String>, Failure> {
        let folder = self.folders.job(job);
        let known = self.on_disk(move |folders| addresses::load(&folders.job(job), &media)).await?;
        let lasts = |remote: &Remote| remote.expires_ms >= self.clock.now().plus(LEFT_MS).0;
        let mut generation = 1;
        if let Some(remote) = known {
            if remote.key_print == self.key_print && lasts(&remote) {
                return Ok(Ok(remote));
            }
            generation = remote.generation + 1;
        }
        let path = folder.media().join(media.hex());
        let looked_at = path.clone();
        let Ok(found) = blocking(move || std::fs::metadata(looked_at)).await else {
            return Err(removed(&folder, &path));
        };
        let payload = file_payload(path, found.len());
        let (display_name, mime) = (addresses::display_name(job, &media), media.kind.mime());
        let last = generation + GENERATIONS_TRIED;
        loop {
            let name = addresses::name_at_api(job, &media, generation);
            let sent = self.client.upload_media(&name, &display_name, mime, &payload).await;
            let (uri, expires) = match sent.map_err(not_sent)? {
                Media::Ready { uri, expires } => (uri, expires),
                Media::Refused(why) => return Ok(Err(why)),
            };
            let expires_ms = self.by_our_clock(expires).0;
            let key_print = self.key_print.clone();
            let remote = Remote { generation, uri, expires_ms, key_print };
            // One of that name may have been there for long, if what was known of it was lost.
            if !lasts(&remote) && generation < last {
                generation += 1;
                continue;
            }
            let kept = remote.clone();
            self.on_disk(move |folders| addresses::keep(&folders.job(job), &media, &kept)).await?;
            return Ok(Ok(remote));
        }
    }

    /// Fails the rows that name files which the API will not have.
    async fn refuse_rows(
        &self,
        which: Which,
        body: Arc<Body>,
        refused: BTreeMap<MediaId, String>,
    ) -> Result<Outcome, Failure> {
        self.on_disk(move |folders| {
            let mut rows: BTreeSet<(Row, MediaId)> = BTreeSet::new();
            body.each_named(|media, row| {
                if refused.contains_key(&media) {
                    rows.insert((row, media));
                }
            })?;
            let mut named: Vec<(Row, String)> = Vec::new();
            for (row, media) in rows {
                if named.last().is_none_or(|(last, _)| *last != row) {
                    let why = refused.get(&media).map_or("", String::as_str);
                    named.push((row, format!("a file that the line names was refused: {why}")));
                }
            }
            let rest = answers::reject(&folders.job(which.job), &which, &named, INVALID)?;
            let message = named.first().map_or_else(String::new, |(_, why)| why.clone());
            let error = RemoteError { code: INVALID, message };
            let to = Objection::Lines { named: named.len() as u64, rest };
            Ok(Outcome::Refused { error, to })
        })
        .await
    }

    /// Notes what goes into a file of lines. One of that name with other addresses in it goes: an
    /// upload that finds it there would take it for its own.
    pub(super) async fn note_sent(
        &self,
        which: &Which,
        file: &FileName,
        ready: &Ready,
    ) -> Result<(), Failure> {
        let (job, name) = (which.job, file.clone());
        let before = self.on_disk(move |folders| Sent::load(&folders.job(job), &name)).await?;
        let print = ready.addresses.print();
        if let Some(before) = before {
            if before.print == print {
                return Ok(());
            }
            self.client.delete_file(file).await?;
        }
        let (since_ms, expires_ms) = (self.clock.now().0, ready.expires_ms);
        let sent = Sent { print, since_ms, expires_ms };
        let name = file.clone();
        self.on_disk(move |folders| sent.keep(&folders.job(job), &name)).await
    }

    /// Whether the files that a file of lines names would be forgotten too soon, so that the lines
    /// have to be sent with fresh addresses: after a long wait for their create.
    pub(super) async fn outlived(
        &self,
        which: &Which,
        file: &FileName,
    ) -> Result<Option<Outcome>, Failure> {
        if !which.prepared {
            return Ok(None);
        }
        let (which, name, now) = (*which, file.clone(), self.clock.now());
        self.on_disk(move |folders| {
            let folder = folders.job(which.job);
            if Sent::load(&folder, &name)?.is_none_or(|sent| sent.lasts(now, LEFT_AT_CREATE_MS)) {
                return Ok(None);
            }
            let rest = answers::rest(&folder, which.rows)?;
            let message = "the files that its lines name would soon be gone at the API".to_owned();
            let error = RemoteError { code: FAILED_PRECONDITION, message };
            Ok(Some(Outcome::Refused { error, to: Objection::Lines { named: 0, rest } }))
        })
        .await
    }

    /// Removes the files that a job's lines named.
    pub(super) async fn remove_media(&self, job: JobId) -> Result<(), Failure> {
        let key_print = self.key_print.clone();
        let listed =
            self.on_disk(move |folders| addresses::uploaded(&folders.job(job), job, &key_print));
        stream::iter(listed.await?)
            .map(|name| async move { self.client.delete_file(&name).await })
            .buffer_unordered(AT_ONCE)
            .try_collect()
            .await
    }

    /// When a file ends, by our clock; the API tells it by its own, if at all.
    fn by_our_clock(&self, expires: Option<Millis>) -> Millis {
        let now = self.clock.now();
        let skew_ms = self.client.server_time_skew(now).unwrap_or(0);
        let ours = |expires: Millis| Millis(expires.0.saturating_add_signed(-skew_ms));
        expires.map_or(now.plus(LIFETIME_MS), ours)
    }
}

/// Where the files are that lines of a job may name.
pub(super) fn places(folders: &Folders, head: &Head) -> Places {
    Places {
        inbox: folders.inbox.clone(),
        folder: head.source.folder.clone(),
        root: head.queue.media_root.as_deref().map(PathBuf::from),
    }
}

/// Plans an input again whose lines turned out to name files; other errors stay as they are.
pub(super) fn plan_naming(
    folder: &JobFolder,
    head: &Head,
    rules: &CutRules,
    places: &Places,
    error: PlanError,
) -> Result<Planned, PlanError> {
    let PlanError::NamesFiles = error else { return Err(error) };
    let recipe = Recipe::taking(&head.source.name, &head.queue, places);
    let prepared = prepare::prepare(folder, &recipe, rules)?;
    plan_in(folder, head, Some(&prepared), rules, None)
}

/// A failure while no line has gone out: it leaves no doubt about a batch.
fn not_sent(failure: Failure) -> Failure {
    match failure {
        Failure::Transient(_)
        | Failure::RateLimited { .. }
        | Failure::Denied(_)
        | Failure::Barred(_)
        | Failure::Local(_)
        | Failure::Removed(_) => failure,
        Failure::Ambiguous(why)
        | Failure::Rejected(why)
        | Failure::Gone(why)
        | Failure::NotReady(why)
        | Failure::Damaged { message: why, .. } => Failure::Transient(why),
    }
}

/// Files on their way at once.
const AT_ONCE: usize = 4;
/// What the API forgets sooner is uploaded again, milliseconds: a batch may wait for a day.
const LEFT_MS: u64 = 26 * 3_600_000;
/// The same when the lines have been sent and only the batch is still to be made.
const LEFT_AT_CREATE_MS: u64 = 24 * 3_600_000;
/// How long the API keeps a file (API contract, 8), milliseconds.
const LIFETIME_MS: u64 = 48 * 3_600_000;
/// Names that are tried beyond the first.
const GENERATIONS_TRIED: u32 = 3;
/// gRPC codes.
const INVALID: i32 = 3;
const FAILED_PRECONDITION: i32 = 9;
