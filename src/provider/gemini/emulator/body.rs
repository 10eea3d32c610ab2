//! Bodies: replies as HTTP responses, streamed where they may be large.

use std::io::{self, BufRead, Read};
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::http::header::{CONTENT_RANGE, CONTENT_TYPE, HeaderName};
use axum::http::{HeaderValue, Response, StatusCode};
use futures_util::StreamExt;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

use super::disk::{BUFFER_BYTES, Disk};
use super::line::Cut;
use super::reply::{Download, Refusal, Reply, StoreId, UploadReply};

/// How a reply is to be written.
#[derive(Debug, Clone, Default)]
pub struct Manner {
    /// Without indentation.
    pub compact: bool,
    /// Only these members of the top level.
    pub fields: Option<Vec<String>>,
    /// Errors come as an array of one.
    pub array_errors: bool,
    /// Own address, such as `http://127.0.0.1:8080`.
    pub base: String,
    /// Version in the path, such as `v1beta`.
    pub version: String,
}

/// What bodies are streamed from and with.
#[derive(Debug, Clone)]
pub struct Source {
    /// The bytes.
    pub disk: Arc<Disk>,
    /// Runs the threads that read them.
    pub tasks: TaskTracker,
}

/// The HTTP response of a reply.
pub fn response(reply: Reply, manner: &Manner, source: &Source, cut: &Cut) -> Response<Body> {
    match reply {
        Reply::Json(value) => json(StatusCode::OK, &select(value, manner), manner),
        Reply::Spliced { operation, items } => {
            spliced(select(operation, manner), items, manner, source)
        }
        Reply::Answer { text, tier } => {
            let value = serde_json::from_str(&text).unwrap_or_default();
            let mut response = json(StatusCode::OK, &select(value, manner), manner);
            set(&mut response, SERVICE_TIER, &tier);
            response
        }
        Reply::Refused(refusal) => refused(&refusal, manner),
        Reply::Upload(reply) => upload(&reply, manner),
        Reply::Bytes(download) => bytes(download, source),
        Reply::Html => {
            let mut response = Response::new(Body::from(HTML));
            *response.status_mut() = StatusCode::BAD_GATEWAY;
            set(&mut response, CONTENT_TYPE, "text/html; charset=UTF-8");
            response
        }
        Reply::Dropped => {
            // The connection takes no byte from here on, so this response is never seen.
            cut.now();
            Response::new(Body::empty())
        }
    }
}

fn select(value: Value, manner: &Manner) -> Value {
    match (value, &manner.fields) {
        (Value::Object(members), Some(fields)) => {
            members.into_iter().filter(|(name, _)| fields.contains(name)).collect()
        }
        (value, _) => value,
    }
}

fn text(value: &Value, manner: &Manner) -> String {
    if manner.compact { value.to_string() } else { format!("{value:#}\n") }
}

fn json(status: StatusCode, value: &Value, manner: &Manner) -> Response<Body> {
    let mut response = Response::new(Body::from(text(value, manner)));
    *response.status_mut() = status;
    set(&mut response, CONTENT_TYPE, JSON);
    response
}

fn refused(refusal: &Refusal, manner: &Manner) -> Response<Body> {
    let status = StatusCode::from_u16(refusal.http).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = json(status, &refusal.body(manner.array_errors), manner);
    if let Some(status) = refusal.upload_status {
        set(&mut response, UPLOAD_STATUS, status);
    }
    response
}

fn upload(reply: &UploadReply, manner: &Manner) -> Response<Body> {
    let mut response = match &reply.body {
        Some(body) => json(StatusCode::OK, body, manner),
        None => Response::new(Body::empty()),
    };
    if let Some(status) = reply.status {
        set(&mut response, UPLOAD_STATUS, status);
    }
    if let Some((session, granularity)) = &reply.session {
        let url = format!(
            "{}/upload/{}/files?upload_id={session}&upload_protocol=resumable",
            manner.base, manner.version
        );
        set(&mut response, UPLOAD_URL, &url);
        set(&mut response, UPLOAD_CONTROL_URL, &url);
        set(&mut response, UPLOAD_GRANULARITY, &granularity.to_string());
    }
    if let Some(received) = reply.received {
        set(&mut response, UPLOAD_RECEIVED, &received.to_string());
    }
    response
}

fn bytes(download: Download, source: &Source) -> Response<Body> {
    let disk = Arc::clone(&source.disk);
    let mut response = stream(source, move |out| {
        let mut part = disk.part(download.store, download.from, download.len)?;
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            let read = part.read(&mut buffer)?;
            if read == 0 {
                break;
            }
            if !out.send(Bytes::copy_from_slice(&buffer[..read])) {
                return Ok(());
            }
        }
        if download.cut { Err(io::Error::other("cut by a fault")) } else { Ok(()) }
    });
    if let Some(whole) = download.range_of {
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        let last = (download.from + download.len).saturating_sub(1);
        set(&mut response, CONTENT_RANGE, &format!("bytes {}-{last}/{whole}", download.from));
    }
    set(&mut response, CONTENT_TYPE, "application/octet-stream");
    response
}

/// An operation with its results in their places, streamed.
fn spliced(operation: Value, items: StoreId, manner: &Manner, source: &Source) -> Response<Body> {
    let text = text(&operation, manner);
    let (disk, compact) = (Arc::clone(&source.disk), manner.compact);
    let mut response = stream(source, move |out| {
        let place = Value::from(Reply::ITEMS).to_string();
        for (n, piece) in text.split(place.as_str()).enumerate() {
            if n > 0 && !send_items(&disk, items, compact, out)? {
                return Ok(());
            }
            if !out.send(Bytes::copy_from_slice(piece.as_bytes())) {
                return Ok(());
            }
        }
        Ok(())
    });
    set(&mut response, CONTENT_TYPE, JSON);
    response
}

fn send_items(disk: &Disk, items: StoreId, compact: bool, out: &Sender) -> io::Result<bool> {
    let mut pending = Vec::new();
    for (n, line) in disk.reader(items)?.split(b'\n').enumerate() {
        let line = line?;
        if n > 0 {
            pending.extend_from_slice(b",");
        }
        if compact {
            pending.extend_from_slice(&line);
        } else {
            indent(&line, &mut pending);
        }
        if pending.len() >= BUFFER_BYTES && !out.send(std::mem::take(&mut pending).into()) {
            return Ok(false);
        }
    }
    Ok(out.send(pending.into()))
}

/// Writes compact JSON over several lines, as the service does, without touching its tokens.
fn indent(json: &[u8], out: &mut Vec<u8>) {
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    let line = |out: &mut Vec<u8>, depth: usize| {
        out.push(b'\n');
        out.resize(out.len() + 2 * depth, b' ');
    };
    for &b in json {
        if in_string {
            out.push(b);
            in_string = escaped || b != b'"';
            escaped = !escaped && b == b'\\';
            continue;
        }
        match b {
            b'{' | b'[' => {
                out.push(b);
                depth += 1;
                line(out, depth);
            }
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                line(out, depth);
                out.push(b);
            }
            b',' => {
                out.push(b);
                line(out, depth);
            }
            b':' => out.extend_from_slice(b": "),
            _ => {
                in_string = b == b'"';
                out.push(b);
            }
        }
    }
}

/// Sends pieces of a body from a blocking thread.
struct Sender(mpsc::Sender<io::Result<Bytes>>);

impl Sender {
    /// `false` if nobody reads any more.
    fn send(&self, bytes: Bytes) -> bool {
        bytes.is_empty() || self.0.blocking_send(Ok(bytes)).is_ok()
    }
}

/// A body that a blocking thread writes. An error of its breaks the connection off.
fn stream(
    source: &Source,
    write: impl FnOnce(&Sender) -> io::Result<()> + Send + 'static,
) -> Response<Body> {
    let (sender, receiver) = mpsc::channel(4);
    source.tasks.spawn_blocking(move || {
        let sender = Sender(sender);
        if let Err(error) = write(&sender) {
            // Nobody reading any more is no concern of ours.
            drop(sender.0.blocking_send(Err(error)));
        }
    });
    let pieces = futures_util::stream::unfold(receiver, async |mut receiver| {
        receiver.recv().await.map(|piece| (piece, receiver))
    });
    Response::new(Body::from_stream(pieces.boxed()))
}

fn set(response: &mut Response<Body>, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}

const JSON: &str = "application/json; charset=UTF-8";
const UPLOAD_STATUS: HeaderName = HeaderName::from_static("x-goog-upload-status");
const UPLOAD_URL: HeaderName = HeaderName::from_static("x-goog-upload-url");
const UPLOAD_CONTROL_URL: HeaderName = HeaderName::from_static("x-goog-upload-control-url");
const UPLOAD_GRANULARITY: HeaderName = HeaderName::from_static("x-goog-upload-chunk-granularity");
const UPLOAD_RECEIVED: HeaderName = HeaderName::from_static("x-goog-upload-size-received");
/// Which tier served a single request.
const SERVICE_TIER: HeaderName = HeaderName::from_static("x-gemini-service-tier");
const HTML: &str = "<!DOCTYPE html>\n<html lang=en>\n<title>Error 502 (Server Error)!!1</title>\n\
    <p><b>502.</b> <ins>That's an error.</ins>\n<p>The server encountered a temporary error and \
    could not complete your request.\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indenting_leaves_the_tokens_alone() {
        let json = br#"{"a":"x,{\"y\":[\\","b":[1,{"c":"\u00e9:"}],"d":{}}"#;
        let mut out = Vec::new();
        indent(json, &mut out);
        assert!(out.contains(&b'\n'));
        let before: Value = serde_json::from_slice(json).expect("JSON");
        assert_eq!(serde_json::from_slice::<Value>(&out).expect("JSON"), before);
    }
}
