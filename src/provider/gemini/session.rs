//! The single calls on an upload session, each with its answer sorted.
//!
//! The protocol is Google's resumable upload (API contract, 7.2 to 7.4). Nothing is sent twice
//! here, and a session of a foreign host is never sent anything. What to do about a break is
//! decided by those who call: `upload.rs` and `early.rs`.

use std::io;

use bytes::Bytes;
use futures_util::stream::BoxStream;
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE};
use reqwest::{Method, Response};
use url::Url;

use super::classify::ErrorAnswer;
use super::client::{CallError, Client, failure};
use super::transfer::{TransferError, send_stream};
use super::wire::{self, GRANULARITY, Uploaded};
use crate::engine::event::Failure;
use crate::engine::ids::FileName;

/// A session at the server.
pub(super) struct Session {
    pub(super) url: Url,
    /// Pieces, but for the last, are multiples of this, bytes.
    pub(super) granularity: u64,
}

impl Session {
    /// The longest piece of at most so many bytes that need not be the last; 0 if there is none.
    pub(super) fn whole_steps(&self, bytes: u64) -> u64 {
        bytes - bytes % self.granularity
    }
}

/// What the server is told of a file before it comes.
#[derive(Debug, Clone, Copy)]
pub(super) struct About<'a> {
    /// The name it is to have.
    pub(super) name: &'a FileName,
    /// The name it has for people.
    pub(super) display_name: &'a str,
    /// Its media type.
    pub(super) mime: &'a str,
}

/// A part of the file, bytes.
pub(super) struct Part {
    pub(super) offset: u64,
    pub(super) len: u64,
    /// Whether it ends the file.
    pub(super) last: bool,
}

/// What became of a piece.
pub(super) enum Piece {
    /// All of it was received.
    Received,
    /// It was the last one; the file as the server described it.
    Final(Option<wire::File>),
    /// The session is no more.
    Lost(String),
    /// The server gave the upload up for good.
    Refused(String),
    /// Nobody knows: ask.
    Trouble(String),
}

/// What the server says it has.
pub(super) enum Progress {
    /// Bytes it has received.
    At(u64),
    /// It has the whole file.
    Final,
    /// The session is no more.
    Lost(String),
}

impl Client {
    /// Asks for a session for a file of `len` bytes, if that is known; `None` if a file has the
    /// name already.
    pub(super) async fn start_session(
        &self,
        about: About<'_>,
        len: Option<u64>,
    ) -> Result<Option<Session>, Failure> {
        let action = "start upload";
        let body = serde_json::json!({"file": {
            "name": about.name.0, "displayName": about.display_name, "mimeType": about.mime,
        }});
        let version = &self.inner.settings.version;
        let mut request = self
            .fresh_request(Method::POST, &format!("/upload/{version}/files"))
            .header("x-goog-upload-protocol", "resumable")
            .header(COMMAND, "start")
            .header("x-goog-upload-header-content-type", about.mime)
            .header(CONTENT_TYPE, "application/json");
        if let Some(len) = len {
            request = request.header("x-goog-upload-header-content-length", len);
        }
        let response = match self.ask(request.body(body.to_string())).await {
            Ok(response) => response,
            Err(CallError::Answer(answer))
                if answer.http == 409 || answer.status == "ALREADY_EXISTS" =>
            {
                return Ok(None);
            }
            Err(error) => return Err(error.failure(action)),
        };
        let Some(url) = header(&response, "x-goog-upload-url") else {
            // The body may tell why, although the status is a success (7.2).
            let answer = self.read_error(response).await;
            return Err(Failure::Transient(format!(
                "{}; no session URL came with it",
                answer.describe(action)
            )));
        };
        let url = Url::parse(&url).ok().filter(|url| self.accepts(url)).ok_or_else(|| {
            Failure::Barred(format!(
                "{action}: the session is on a server that is not the API's; nothing was sent to it"
            ))
        })?;
        let granularity = number(&response, "x-goog-upload-chunk-granularity");
        let granularity = granularity.filter(|bytes| *bytes > 0).unwrap_or(GRANULARITY);
        Ok(Some(Session { url, granularity }))
    }

    /// Sends a part of the file.
    pub(super) async fn send_piece(
        &self,
        session: &Session,
        part: Part,
        bytes: BoxStream<'static, io::Result<Bytes>>,
    ) -> Result<Piece, Failure> {
        let Part { offset, len, last } = part;
        let command = match (last, len) {
            (true, 0) if offset > 0 => "finalize",
            (true, _) => "upload, finalize",
            (false, _) => "upload",
        };
        let request = self
            .session_request(session.url.clone())
            .header(COMMAND, command)
            .header("x-goog-upload-offset", offset);
        let response = match send_stream(request, bytes, len, self.pace()).await {
            Ok(response) => response,
            Err(error @ TransferError::Payload(_)) => return Err(failure(error, "upload")),
            Err(error) => return Ok(Piece::Trouble(error.to_string())),
        };
        self.note_clock(&response);
        let status = header(&response, STATUS);
        match (response.status().is_success(), status.as_deref()) {
            (true, Some("active")) if !last => Ok(Piece::Received),
            (true, Some("final")) if last => {
                let file = self.json::<Uploaded>(response, "upload").await;
                Ok(Piece::Final(file.ok().and_then(|uploaded| uploaded.file)))
            }
            (true, Some("cancelled")) => Ok(Piece::Lost("the session was cancelled".to_owned())),
            (true, status) => {
                let status = self.told(status.unwrap_or("none"));
                Ok(Piece::Trouble(format!("unexpected upload status: {status}")))
            }
            (false, status) => {
                let is_final = status == Some("final");
                let answer = self.read_error(response).await;
                sort_error(&answer, is_final)
            }
        }
    }

    /// Asks how much the server has.
    pub(super) async fn query_session(&self, session: &Session) -> Result<Progress, Failure> {
        let action = "query upload";
        let response = match self.ask(self.command(session, "query")).await {
            Ok(response) => response,
            Err(CallError::Answer(answer)) if matches!(answer.http, 400..=407 | 410) => {
                return Ok(Progress::Lost(answer.describe(action)));
            }
            Err(error) => return Err(error.failure(action)),
        };
        match header(&response, STATUS).as_deref() {
            Some("active") => number(&response, "x-goog-upload-size-received")
                .map(Progress::At)
                .ok_or_else(|| Failure::Transient(format!("{action}: no size in the answer"))),
            Some("final") => Ok(Progress::Final),
            Some("cancelled") => Ok(Progress::Lost("the session was cancelled".to_owned())),
            Some(_) | None => Err(Failure::Transient(format!("{action}: no status in the answer"))),
        }
    }

    /// Tells the server to forget a session.
    pub(super) async fn cancel_session(&self, session: &Session) -> Result<(), Failure> {
        let answer = self.ask(self.command(session, "cancel")).await;
        answer.map(drop).map_err(|error| error.failure("cancel upload"))
    }

    fn command(&self, session: &Session, command: &'static str) -> reqwest::RequestBuilder {
        self.session_request(session.url.clone()).header(COMMAND, command).header(CONTENT_LENGTH, 0)
    }
}

/// Sorts an answer to a piece that is no success (7.4).
fn sort_error(answer: &ErrorAnswer, is_final: bool) -> Result<Piece, Failure> {
    let message = answer.describe("upload");
    match answer.http {
        404 | 410 => Ok(Piece::Lost(message)),
        429 => Err(answer.failure("upload")),
        308 | 408 | 412 | 416 | 500..=599 if !is_final => Ok(Piece::Trouble(message)),
        400 if !is_final => Ok(Piece::Trouble(message)),
        300..=399 => Err(answer.failure("upload")),
        // Sessions need no key: it is the session that is refused.
        401 | 403 if !is_final => Ok(Piece::Lost(message)),
        _ if is_final => Ok(Piece::Refused(message)),
        _ => Err(answer.failure("upload")),
    }
}

fn header(response: &Response, name: &str) -> Option<String> {
    response.headers().get(name)?.to_str().ok().map(|text| text.trim().to_owned())
}

fn number(response: &Response, name: &str) -> Option<u64> {
    header(response, name)?.parse().ok()
}

const COMMAND: &str = "x-goog-upload-command";
const STATUS: &str = "x-goog-upload-status";
