//! The upload of a file's first chunk, begun while the file is still being planned.
//!
//! Only a create costs anything, and it comes after the plan as ever. So an upload may run ahead, and
//! what it sends is thrown away if the plan is refused. Promises: it sends the very bytes that the
//! chunk's upload would send, up to where they are known; it never ends the upload, so that no file
//! comes of it; the address is kept on disk only when the plan is whole, for the upload to go on
//! with, which believes only what the server says; whatever goes wrong is silent, and left to that
//! upload to meet and to tell.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tracing::Instrument;

use crate::engine::effect::Which;
use crate::engine::ids::{Attempt, ChunkNo, FileName, JobId, Row, Stamp};
use crate::engine::job::{Head, Transport};
use crate::provider::gemini::{Client, EarlyUpload};
use crate::spool::body::BodyReader;
use crate::spool::sketch::Known;
use crate::spool::{JobFolder, SpoolError, session};

use super::blocking::blocking;
use super::payload::{lock, next_bytes};
use super::perform::Performer;
use super::spawn;

/// Early uploads under way, by their job.
#[derive(Default)]
pub struct EarlyUploads(Mutex<BTreeMap<JobId, Arc<Lead>>>);

impl EarlyUploads {
    fn of(&self, job: JobId) -> Option<Arc<Lead>> {
        self.all().get(&job).cloned()
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<JobId, Arc<Lead>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What an early upload is told, and where it is.
pub struct Lead {
    told: watch::Sender<Told>,
    /// The address of its session, once it has one.
    address: Arc<OnceLock<String>>,
}

/// What is known of the file.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Told {
    /// So much of the first chunk.
    Growing(Known),
    /// All of it: the upload itself comes next.
    Planned,
    /// It will not be sent, or not like this.
    InVain,
}

impl Lead {
    /// More of the first chunk is known.
    pub(super) fn known(&self, known: Known) {
        self.told.send_replace(Told::Growing(known));
    }

    fn give_up(&self) {
        self.told.send_replace(Told::InVain);
    }
}

impl Performer {
    /// Begins an upload that goes as far as it is told, from the input or, if there are any, from
    /// its `prepared` lines.
    pub(super) fn begin_early(&self, head: &Head, prepared: bool, client: &Client) -> Arc<Lead> {
        let folder = self.folders.job(head.id);
        let (told, hears) = watch::channel(Told::Growing(Known::default()));
        let lead = Arc::new(Lead { told, address: Arc::default() });
        let early = Early {
            client: client.clone(),
            input: folder.requests(&head.source.name, prepared),
            folder,
            file: Stamp::file(head.id, CHUNK, ATTEMPT),
            stamp: Stamp::new(head.id, CHUNK, ATTEMPT),
            least: match head.queue.transport {
                Transport::File => 1,
                // What has become too long to go inline will not get shorter.
                Transport::Auto | Transport::Inline => self.inline_bytes + 1,
            },
            told: hears,
            address: Arc::clone(&lead.address),
        };
        let (uploads, this, job) = (Arc::clone(&self.early), Arc::clone(&lead), head.id);
        uploads.all().insert(job, Arc::clone(&lead));
        let work = async move {
            early.run().await;
            let mut all = uploads.all();
            // A plan that was tried again may have begun another one.
            if all.get(&job).is_some_and(|lead| Arc::ptr_eq(lead, &this)) {
                all.remove(&job);
            }
        };
        spawn(work.in_current_span());
        lead
    }

    /// The plan is whole, or there is none: the upload is kept to go on with, or given up.
    pub(super) async fn settle_early(
        &self,
        lead: &Lead,
        job: JobId,
        is_planned: bool,
        key: Option<&str>,
    ) {
        let Some(address) = lead.address.get().filter(|_| is_planned).cloned() else {
            return lead.give_up();
        };
        let (folder, print) = (self.folders.job(job), key.unwrap_or_default().to_owned());
        let keep = move || session::keep(&folder, CHUNK, ATTEMPT, &print, Some(address.as_str()));
        match blocking(keep).await {
            Ok(()) => {
                lead.told.send_replace(Told::Planned);
            }
            Err(error) => {
                tracing::debug!(%error, "the early upload's address was not kept");
                lead.give_up();
            }
        }
    }

    /// Waits until nothing is sent early any more for the attempt that is to be uploaded.
    pub(super) async fn await_early(&self, which: &Which) {
        if (which.chunk, which.attempt) == (CHUNK, ATTEMPT)
            && let Some(lead) = self.early.of(which.job)
        {
            lead.told.closed().await;
        }
    }

    /// What was begun early for a job is given up, if anything was. `address` is what [`kept`] or
    /// [`forget`] told.
    pub(super) fn give_up_early(&self, job: JobId, address: Option<String>, key: Option<&str>) {
        if let Some(lead) = self.early.of(job) {
            return lead.give_up();
        }
        let (Some(address), Ok(client)) = (address, self.clients.with(key)) else { return };
        let client = client.clone();
        let work = async move { cancel(&client, &address).await };
        spawn(work.in_current_span());
    }
}

/// The address of a job's early upload, if one was kept.
pub(super) fn kept(folder: &JobFolder, key_print: &str) -> Option<String> {
    session::load(folder, CHUNK, ATTEMPT, key_print)
}

/// Forgets an address that an earlier try at planning may have kept, and tells it: nobody knows any
/// more whether the file was the same then.
///
/// # Errors
/// If it can not be removed.
pub(super) fn forget(folder: &JobFolder, key_print: &str) -> Result<Option<String>, SpoolError> {
    let address = kept(folder, key_print);
    session::keep(folder, CHUNK, ATTEMPT, key_print, None)?;
    Ok(address)
}

/// One early upload.
struct Early {
    client: Client,
    folder: JobFolder,
    input: PathBuf,
    file: FileName,
    stamp: Stamp,
    /// It begins when so many bytes are known.
    least: u64,
    told: watch::Receiver<Told>,
    address: Arc<OnceLock<String>>,
}

impl Early {
    async fn run(mut self) {
        if !self.is_worth_it().await {
            return;
        }
        let mut upload = match self.client.upload_early(&self.file, &self.stamp.0).await {
            Ok(upload) => upload,
            Err(failure) => {
                let why = failure.message();
                return tracing::debug!(why, "the upload does not begin early");
            }
        };
        let address = upload.address().to_owned();
        // There is nobody else to set it.
        let _ = self.address.set(address.clone());
        if let Err(why) = self.send(&mut upload).await {
            tracing::debug!(why, "the early upload goes no further");
        }
        if self.is_in_vain().await {
            cancel(&self.client, &address).await;
        }
    }

    /// Waits until enough is known, if ever.
    async fn is_worth_it(&mut self) -> bool {
        let least = self.least;
        let enough = |told: &Told| match told {
            Told::Growing(known) => known.bytes >= least,
            Told::Planned | Told::InVain => true,
        };
        let told = self.told.wait_for(enough).await;
        told.is_ok_and(|told| matches!(*told, Told::Growing(_)))
    }

    /// Sends what is known, until all is; in words what went wrong.
    async fn send(&mut self, upload: &mut EarlyUpload) -> Result<(), String> {
        let (folder, input) = (self.folder.clone(), self.input.clone());
        let reader = blocking(move || BodyReader::growing(&folder, &input)).await;
        let reader = Arc::new(Mutex::new(reader.map_err(|error| error.to_string())?));
        loop {
            let Told::Growing(known) = *self.told.borrow_and_update() else { return Ok(()) };
            let len = upload.next_piece(known.bytes, PIECE_BYTES_MAX);
            if len == 0 {
                self.told.changed().await.map_err(|error| error.to_string())?;
                continue;
            }
            lock(&reader).grow(Row(known.rows));
            tokio::select! {
                sent = upload.send(len, next_bytes(&reader, len)) => {
                    sent.map_err(|failure| failure.message().to_owned())?;
                }
                () = overdue(self.told.clone()) => return Ok(()),
            }
        }
    }

    /// Waits for what comes of the plan.
    async fn is_in_vain(&mut self) -> bool {
        let over = |told: &Told| !matches!(told, Told::Growing(_));
        // Kept means that the upload goes on; whoever went without a word kept nothing.
        self.told.wait_for(over).await.is_ok_and(|told| *told == Told::InVain)
    }
}

/// Ends when a piece that is still under way is not to be waited for any longer.
async fn overdue(mut told: watch::Receiver<Told>) {
    let over = |told: &Told| !matches!(told, Told::Growing(_));
    let is_planned = told.wait_for(over).await.is_ok_and(|told| *told == Told::Planned);
    if is_planned {
        // It can still be refused, as a duplicate.
        let in_vain = told.wait_for(|told| *told == Told::InVain);
        let _ = tokio::time::timeout(PATIENCE, in_vain).await;
    }
}

/// Tells the server to forget an upload. If it does not hear, it forgets in time.
async fn cancel(client: &Client, address: &str) {
    if let Err(failure) = client.give_up_upload(address).await {
        tracing::debug!(why = failure.message(), "an early upload was not given up");
    }
}

/// What is uploaded early is the first attempt at the first chunk.
const CHUNK: ChunkNo = ChunkNo(1);
const ATTEMPT: Attempt = Attempt(1);

/// Bytes of one piece, at most: one that is under way when the plan is done is waited for.
const PIECE_BYTES_MAX: u64 = 64 << 20;

/// How long such a piece is waited for; then the upload asks the server what came of it.
const PATIENCE: Duration = Duration::from_secs(10);
