//! The calls on an upload session, and the bodies that come with calls.
//!
//! Pieces are streamed to disk as they come. Calls on one session wait for one another, so that a
//! query after a broken piece tells how much of it really arrived.

use axum::body::Body;
use axum::http::{HeaderMap, header};
use futures_util::StreamExt;

use super::call::Query;
use super::reply::{Refusal, Reply};
use super::routes::App;
use super::sessions::{Admission, Arrived, Command};

/// Why a body was not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unread {
    /// It is larger than allowed.
    TooLarge,
    /// The connection broke.
    Broken,
}

/// Reads a body of at most `max` bytes. What is beyond is read and forgotten, so that the client
/// gets to read its answer.
///
/// # Errors
/// See [`Unread`].
pub async fn read_body(body: Body, max: usize) -> Result<Vec<u8>, Unread> {
    let mut stream = body.into_data_stream();
    let (mut bytes, mut forgotten) = (Vec::new(), 0);
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(|_| Unread::Broken)?;
        if forgotten > 0 || bytes.len() + chunk.len() > max {
            forgotten += bytes.len() + chunk.len();
            bytes = Vec::new();
            if forgotten > FORGOTTEN_MAX {
                break;
            }
        } else {
            bytes.extend_from_slice(&chunk);
        }
    }
    if forgotten > 0 { Err(Unread::TooLarge) } else { Ok(bytes) }
}

/// Answers a call on a session. No key is needed (API contract, 7.3).
pub async fn session(
    app: &App,
    headers: &HeaderMap,
    query: &Query,
    body: Body,
    base: &str,
) -> Reply {
    let command = match command(headers) {
        Ok(command) => command,
        Err(message) => {
            let refusal = Refusal::new(400, message);
            return Reply::Refused(Refusal { upload_status: Some("active"), ..refusal });
        }
    };
    let session = query.get("upload_id").unwrap_or_default();
    let store = app.server().upload_store(session);
    let growing = match store.map(|store| app.source.disk.growing(store)).transpose() {
        Ok(growing) => growing,
        Err(error) => return Reply::refused(500, format!("The emulator has no disk: {error}")),
    };
    let mut growing = match &growing {
        Some(growing) => Some(growing.lock().await),
        None => None,
    };
    let now = app.clock.now();
    let admitted = app.server().upload_command(session, command, base, now);
    let reply = match (admitted, &mut growing) {
        (Ok(admission), Some(growing)) => {
            let arrived = match receive(body, admission, growing).await {
                Ok(arrived) => arrived,
                Err(error) => {
                    return Reply::refused(500, format!("The emulator can not write: {error}"));
                }
            };
            let now = app.clock.now();
            app.server().upload_arrived(session, admission, &arrived, base, now)
        }
        (Ok(_), None) => Reply::refused(404, "Upload session not found."),
        (Err(reply), _) => {
            drop(read_body(body, 0).await);
            reply
        }
    };
    app.sweep();
    reply
}

/// Streams a piece to its place.
async fn receive(
    body: Body,
    admission: Admission,
    growing: &mut super::disk::Growing,
) -> std::io::Result<Arrived> {
    let mut stream = body.into_data_stream();
    let (mut wire, mut added) = (0_u64, 0_u64);
    let (mut whole, mut excess) = (true, false);
    let limit = admission.cut_after.unwrap_or(u64::MAX).min(admission.take);
    while let Some(chunk) = stream.next().await {
        let Ok(chunk) = chunk else {
            whole = false;
            break;
        };
        let known = admission.skip.saturating_sub(wire).min(chunk.len() as u64) as usize;
        wire += chunk.len() as u64;
        let fresh = &chunk[known..];
        let room = usize::try_from(limit - added).unwrap_or(usize::MAX).min(fresh.len());
        growing.add(&fresh[..room]).await?;
        added += room as u64;
        excess |= room < fresh.len();
        if admission.cut_after.is_some_and(|cut| added >= cut) {
            whole = false;
            break;
        }
    }
    let sha256_hex = growing.flush().await?;
    Ok(Arrived { wire, added, whole, excess, sha256_hex })
}

fn command(headers: &HeaderMap) -> Result<Command, &'static str> {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let words = header("x-goog-upload-command").unwrap_or_default().to_ascii_lowercase();
    let words: Vec<&str> = words.split(',').map(str::trim).collect();
    let (sends, finalize) = match words.as_slice() {
        ["upload"] => (true, false),
        ["upload", "finalize"] => (true, true),
        ["finalize"] => (false, true),
        ["query"] => return Ok(Command::Query),
        ["cancel"] => return Ok(Command::Cancel),
        _ => return Err("X-Goog-Upload-Command must be upload, finalize, query or cancel."),
    };
    let offset = match header("x-goog-upload-offset").map(str::parse::<u64>) {
        Some(Ok(offset)) => Some(offset),
        Some(Err(_)) => return Err("X-Goog-Upload-Offset must be a number."),
        None if sends => return Err("X-Goog-Upload-Offset is missing."),
        None => None,
    };
    let length = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    let length = length.and_then(|length| length.parse().ok());
    Ok(Command::Piece { offset, length, finalize })
}

/// Bytes of an unwanted body that are read before the connection is given up.
const FORGOTTEN_MAX: usize = 256 << 20;
