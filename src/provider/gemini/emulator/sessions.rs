//! Upload sessions: what their calls do to the server's state (API contract, 7.2 to 7.4).
//!
//! The bytes themselves go past the server: it says where a piece belongs, and is told how much of
//! it came. A session keeps every byte that arrived, also of a piece whose connection broke.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use super::clock::Moment;
use super::create;
use super::files::{FILE_ID_MAX, StoredFile, struck_at};
use super::journal::Happened;
use super::reply::{Refusal, Reply, StoreId, UploadReply};
use super::server::{ProjectNo, Server};

/// An upload session.
#[derive(Debug, Clone)]
pub struct Upload {
    project: ProjectNo,
    number: u64,
    file_id: String,
    display_name: String,
    mime_type: String,
    announced: Option<u64>,
    received: u64,
    store: StoreId,
    progress: Progress,
}

impl Upload {
    /// Whether bytes may still come.
    pub fn is_under_way(&self) -> bool {
        self.progress == Progress::Active
    }
}

#[derive(Debug, Clone, PartialEq)]
enum Progress {
    Active,
    Final,
    Cancelled,
}

/// What a client says when it starts an upload.
#[derive(Debug, Clone, Default)]
pub struct UploadStart {
    /// Bytes announced.
    pub length: Option<u64>,
    /// Media type announced.
    pub mime_type: Option<String>,
    /// The body.
    pub body: Vec<u8>,
}

/// What a client wants of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Sends a piece, perhaps the last.
    Piece {
        /// Where in the file it stands.
        /// `None` if the client did not say.
        offset: Option<u64>,
        /// Its bytes, if known.
        length: Option<u64>,
        /// Whether it is the last.
        finalize: bool,
    },
    /// Asks how far the upload is.
    Query,
    /// Gives up.
    Cancel,
}

/// A piece may come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Admission {
    /// Where in the file it stands.
    pub offset: u64,
    /// Bytes at its start that are there already.
    pub skip: u64,
    /// Bytes it may bring beyond those.
    pub take: u64,
    /// Bytes beyond those after which the connection is cut.
    pub cut_after: Option<u64>,
    /// Whether it is the last.
    pub finalize: bool,
}

/// What came of a piece.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrived {
    /// Bytes read off the wire.
    pub wire: u64,
    /// Bytes added to the file.
    pub added: u64,
    /// Whether the piece came to its end.
    pub whole: bool,
    /// Whether it brought more than was announced.
    pub excess: bool,
    /// SHA-256 of the file so far, lowercase hex.
    pub sha256_hex: String,
}

impl Server {
    /// Opens an upload session; its bytes are to lie under `store`.
    pub fn upload_start(
        &mut self,
        who: ProjectNo,
        start: &UploadStart,
        store: StoreId,
        now: Moment,
    ) -> Reply {
        match self.open_upload(who, start, store, now) {
            Ok(reply) => Reply::Upload(reply),
            Err(refusal) => Reply::Refused(Refusal { upload_status: Some("final"), ..refusal }),
        }
    }

    fn open_upload(
        &mut self,
        who: ProjectNo,
        start: &UploadStart,
        store: StoreId,
        now: Moment,
    ) -> Result<UploadReply, Refusal> {
        if self.faults.upload_start_no_url.take() {
            let body = Refusal::new(503, "The service is currently unavailable.").body(false);
            return Ok(UploadReply { body: Some(body), ..UploadReply::default() });
        }
        let asked = read_start(&start.body)?;
        let announced = start.length.or(asked.size_bytes.as_ref().and_then(number));
        if announced.is_some_and(|bytes| bytes > FILE_BYTES_MAX) {
            let message = format!("File size exceeds the limit: {FILE_BYTES_MAX} bytes.");
            return Err(Refusal::new(400, message));
        }
        let full = self.stored_bytes(who, now).saturating_add(announced.unwrap_or(0))
            > self.rules.storage_bytes;
        if full || self.faults.upload_start_429.take() {
            let message = format!(
                "You exceeded your current quota: file_storage_bytes, limit: {}. Delete files or \
                 wait for them to expire.",
                self.rules.storage_bytes
            );
            return Err(Refusal::new(429, message));
        }
        let mime_type = asked.mime_type.or(start.mime_type.clone());
        let mime_type = mime_type.unwrap_or_else(|| "application/octet-stream".to_owned());
        if mime_type == "jsonl" && self.faults.upload_jsonl_type_refused {
            return Err(Refusal::new(400, "Unsupported MIME type: jsonl"));
        }
        let file_id = match asked.name {
            None => self.draw(12),
            Some(name) => {
                let id = name.strip_prefix("files/").unwrap_or(&name).to_owned();
                check_file_id(&id)?;
                self.check_free(who, &id, now)?;
                id
            }
        };
        let session = format!("ABPtcP{}", self.draw(40));
        self.uploads_started += 1;
        let number = self.uploads_started;
        self.hold(store);
        self.uploads.insert(
            session.clone(),
            Upload {
                project: who,
                number,
                file_id,
                display_name: asked.display_name.unwrap_or_default(),
                mime_type,
                announced,
                received: 0,
                store,
                progress: Progress::Active,
            },
        );
        self.journal.note(now, who.0, Happened::UploadStarted { upload: number, announced });
        Ok(UploadReply {
            status: Some("active"),
            session: Some((session, self.rules.granularity)),
            ..UploadReply::default()
        })
    }

    fn check_free(&self, who: ProjectNo, id: &str, now: Moment) -> Result<(), Refusal> {
        match self.projects[who.0].files.get(id).filter(|file| file.lives(now)) {
            Some(_) => {
                Err(Refusal::new(409, format!("Requested entity already exists: files/{id}")))
            }
            None => Ok(()),
        }
    }

    /// A call on a session. A piece is let in with an [`Admission`] and must be followed by
    /// [`Server::upload_arrived`]; everything else is answered at once.
    ///
    /// # Errors
    /// The answer.
    pub fn upload_command(
        &mut self,
        session: &str,
        command: Command,
        base: &str,
        now: Moment,
    ) -> Result<Admission, Reply> {
        if self.uploads.contains_key(session)
            && self.faults.upload_session_lost.take()
            && let Some(upload) = self.uploads.remove(session)
            && upload.progress == Progress::Active
        {
            self.release(upload.store);
        }
        let granularity = self.rules.granularity;
        let Some(upload) = self.uploads.get_mut(session) else {
            return Err(upload_refused(404, "Upload session not found.", "cancelled"));
        };
        let (project, number) = (upload.project, upload.number);
        match (&upload.progress, command) {
            (Progress::Cancelled, _) => {
                Err(upload_refused(400, "The upload was cancelled.", "cancelled"))
            }
            (Progress::Final, _) => {
                let upload = upload.clone();
                Err(self.final_reply(&upload, base, now))
            }
            (Progress::Active, Command::Query) => {
                let received = Some(upload.received);
                Err(Reply::Upload(UploadReply {
                    status: Some("active"),
                    received,
                    ..UploadReply::default()
                }))
            }
            (Progress::Active, Command::Cancel) => {
                upload.progress = Progress::Cancelled;
                let store = upload.store;
                self.release(store);
                self.journal.note(now, project.0, Happened::UploadCancelled { upload: number });
                let status = Some("cancelled");
                Err(Reply::Upload(UploadReply { status, ..UploadReply::default() }))
            }
            (Progress::Active, Command::Piece { offset, length, finalize }) => {
                let offset = offset.unwrap_or(upload.received);
                if offset > upload.received {
                    let message = format!(
                        "Invalid upload offset {offset}: {} bytes were received.",
                        upload.received
                    );
                    return Err(upload_refused(400, &message, "active"));
                }
                if !finalize && length.is_none_or(|length| !length.is_multiple_of(granularity)) {
                    let message = format!(
                        "All pieces but the last must be a multiple of {granularity} bytes."
                    );
                    return Err(upload_refused(400, &message, "active"));
                }
                let received = upload.received;
                let end = upload.announced.unwrap_or(FILE_BYTES_MAX);
                if self.faults.upload_refused.take() {
                    return Err(upload_refused(503, "The service is unavailable.", "active"));
                }
                let reaches = length.map_or(u64::MAX, |length| offset.saturating_add(length));
                let cut_after = struck_at(&mut self.faults.upload_cut, received, reaches);
                Ok(Admission {
                    offset,
                    skip: received - offset,
                    take: end.saturating_sub(received),
                    cut_after,
                    finalize,
                })
            }
        }
    }

    /// A piece, or a part of one, has come.
    pub fn upload_arrived(
        &mut self,
        session: &str,
        admission: Admission,
        arrived: &Arrived,
        base: &str,
        now: Moment,
    ) -> Reply {
        let Some(upload) = self.uploads.get_mut(session) else {
            return upload_refused(404, "Upload session not found.", "cancelled");
        };
        upload.received += arrived.added;
        let upload = upload.clone();
        let received = arrived.wire;
        let piece =
            Happened::UploadPiece { upload: upload.number, offset: admission.offset, received };
        self.journal.note(now, upload.project.0, piece);
        if !arrived.whole {
            return Reply::Dropped;
        }
        if arrived.excess {
            return upload_refused(400, "More bytes came than were announced.", "active");
        }
        if !admission.finalize {
            let status = Some("active");
            return Reply::Upload(UploadReply { status, ..UploadReply::default() });
        }
        if let Some(announced) = upload.announced.filter(|bytes| *bytes != upload.received) {
            let message =
                format!("{announced} bytes were announced, but {} received.", upload.received);
            return upload_refused(400, &message, "active");
        }
        if let Err(refusal) = self.check_free(upload.project, &upload.file_id, now) {
            return Reply::Refused(Refusal { upload_status: Some("final"), ..refusal });
        }
        self.complete(session, &upload, &arrived.sha256_hex, now);
        if self.faults.upload_finalize_lost.take() {
            return Reply::Dropped;
        }
        self.final_reply(&upload, base, now)
    }

    fn complete(&mut self, session: &str, upload: &Upload, sha256_hex: &str, now: Moment) {
        self.drawn += 1;
        let is_film = upload.mime_type.starts_with("video/");
        let processing_ms = if is_film { self.faults.processing_ms } else { 0 };
        let file = StoredFile {
            store: upload.store,
            number: self.drawn,
            display_name: upload.display_name.clone(),
            mime_type: upload.mime_type.clone(),
            bytes: upload.received,
            created: now,
            sha256_hex: sha256_hex.to_owned(),
            ready: now.after(Duration::from_millis(processing_ms)),
            fails: is_film && self.faults.processing_failed.take(),
        };
        let files = &mut self.projects[upload.project.0].files;
        if let Some(expired) = files.insert(upload.file_id.clone(), file) {
            self.release(expired.store);
        }
        if let Some(upload) = self.uploads.get_mut(session) {
            upload.progress = Progress::Final;
        }
        let what = Happened::Uploaded {
            upload: upload.number,
            file: format!("files/{}", upload.file_id),
            bytes: upload.received,
        };
        self.journal.note(now, upload.project.0, what);
    }

    fn final_reply(&self, upload: &Upload, base: &str, now: Moment) -> Reply {
        let file = self.projects[upload.project.0].files.get(&upload.file_id);
        Reply::Upload(UploadReply {
            status: Some("final"),
            received: Some(upload.received),
            body: file.map(|file| json!({ "file": file.resource(&upload.file_id, base, now) })),
            ..UploadReply::default()
        })
    }

    /// Where the bytes of a session are; `None` if there is no such session.
    pub fn upload_store(&self, session: &str) -> Option<StoreId> {
        self.uploads.get(session).map(|upload| upload.store)
    }
}

fn upload_refused(http: u16, message: &str, status: &'static str) -> Reply {
    Reply::Refused(Refusal { upload_status: Some(status), ..Refusal::new(http, message) })
}

fn check_file_id(id: &str) -> Result<(), Refusal> {
    let fits = (1..=FILE_ID_MAX).contains(&id.len())
        && id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !id.starts_with('-')
        && !id.ends_with('-');
    if fits {
        return Ok(());
    }
    let message = "* CreateFileRequest.file.name: must be up to 40 lowercase letters, digits and \
                   dashes, without a dash at either end";
    Err(Refusal::new(400, message))
}

#[derive(Deserialize, Default)]
struct StartBody {
    #[serde(default)]
    file: Option<AskedFile>,
}

#[derive(Deserialize, Default)]
struct AskedFile {
    name: Option<String>,
    #[serde(alias = "display_name", rename = "displayName")]
    display_name: Option<String>,
    #[serde(alias = "mime_type", rename = "mimeType")]
    mime_type: Option<String>,
    #[serde(alias = "size_bytes", rename = "sizeBytes")]
    size_bytes: Option<Value>,
}

fn read_start(body: &[u8]) -> Result<AskedFile, Refusal> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok(AskedFile::default());
    }
    create::check("CreateFileRequest", body)?;
    let start: StartBody = serde_json::from_slice(body)
        .map_err(|error| Refusal::new(400, format!("Invalid JSON payload received. {error}")))?;
    Ok(start.file.unwrap_or_default())
}

fn number(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.parse().ok())
}

/// The largest file that can be uploaded.
const FILE_BYTES_MAX: u64 = 2_147_483_648;
