//! Resumable uploads through breaks, restarts, lies and lost ends.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use gemini_batchd::engine::event::Failure;
use gemini_batchd::engine::ids::FileName;
use gemini_batchd::provider::gemini::{Client, Payload};

use crate::server::{MARKER, Reply, Request, Server};

const CONTENT: &[u8] = b"0123456789abcdefghijklmnopqrstuvwxyz----"; // 40 bytes
const PATH: &str = "/upload/v1beta/files";

pub fn active(received: usize) -> Reply {
    let received = received.to_string();
    let headers =
        [("x-goog-upload-status", "active"), ("x-goog-upload-size-received", received.as_str())];
    Reply::with(200, &headers, b"")
}

pub fn ended(size: usize) -> Reply {
    let body = format!(r#"{{"file":{{"name":"files/mine","sizeBytes":"{size}"}}}}"#);
    Reply::with(200, &[("x-goog-upload-status", "final")], body.as_bytes())
}

pub fn started(request: &Request, granularity: &str) -> Reply {
    let host = request.header("host").unwrap_or_default();
    let url = format!("http://{host}{PATH}?upload_id=secret");
    let headers = [
        ("x-goog-upload-status", "active"),
        ("x-goog-upload-url", url.as_str()),
        ("x-goog-upload-chunk-granularity", granularity),
    ];
    Reply::with(200, &headers, b"{}")
}

fn file(size: usize) -> Reply {
    Reply::json(format!(r#"{{"name":"files/mine","sizeBytes":"{size}","state":"ACTIVE"}}"#))
}

pub fn missing() -> Reply {
    Reply::error(403, "PERMISSION_DENIED", "access the File mine or it may not exist.")
}

/// What the caller was told about sessions.
type Told = Arc<Mutex<Vec<Option<String>>>>;

async fn upload(
    client: &Client,
    session: Option<String>,
) -> (Result<FileName, Failure>, Vec<Option<String>>) {
    let payload = Payload::from_bytes(Bytes::from_static(CONTENT));
    let told: Told = Told::default();
    let on_session = |url: Option<&str>| {
        told.lock().expect("no panic holds it").push(url.map(str::to_owned));
    };
    let name = FileName("files/mine".to_owned());
    let answer = client.upload(&name, "gemini-batchd/J", &payload, session, &on_session).await;
    let told = told.lock().expect("no panic holds it").clone();
    (answer, told)
}

/// A client that sends pieces of at most 20 bytes.
fn client(server: &Server) -> Client {
    let mut settings = server.settings();
    settings.piece_bytes = 20;
    Client::new(settings).expect("a client")
}

pub fn session(server: &Server) -> String {
    format!("{}{PATH}?upload_id=secret", server.base)
}

fn offsets(server: &Server) -> Vec<(String, usize)> {
    let pieces = server.pieces().into_iter();
    let offset = |r: &Request| r.header("x-goog-upload-offset").unwrap_or_default().to_owned();
    pieces.map(|request| (offset(&request), request.body.len())).collect()
}

/// A server that takes pieces where they belong and counts what it has. `cut` names the pieces,
/// from 0, whose connection breaks after so many bytes, which are kept.
async fn honest(cut: &'static [(usize, usize)], lose_end: bool) -> Server {
    let received = Arc::new(Mutex::new((Vec::<u8>::new(), 0_usize)));
    let at_head = Arc::clone(&received);
    let cutting = move |request: &Request| {
        if !request.command().starts_with("upload") {
            return None;
        }
        let mut state = at_head.lock().expect("no panic holds it");
        let piece = state.1;
        state.1 += 1;
        let (_, bytes) = cut.iter().find(|(n, _)| *n == piece)?;
        let from = state.0.len();
        state.0.extend_from_slice(&CONTENT[from..from + bytes]);
        Some(*bytes)
    };
    Server::cutting(cutting, move |request| {
        let mut state = received.lock().expect("no panic holds it");
        match (request.command(), request.path()) {
            ("start", _) => started(request, "8"),
            ("query", _) if state.0.len() == CONTENT.len() => ended(CONTENT.len()),
            ("query", _) => active(state.0.len()),
            ("", "/v1beta/files/mine") if state.0.len() == CONTENT.len() => file(state.0.len()),
            ("", _) => missing(),
            (command, _) => {
                let offset = request.header("x-goog-upload-offset");
                if offset != Some(state.0.len().to_string().as_str()) {
                    return Reply::status(400, "wrong offset");
                }
                state.0.extend_from_slice(&request.body);
                assert!(CONTENT.starts_with(&state.0), "bytes out of place");
                match (command.contains("finalize"), lose_end) {
                    (true, true) => Reply::Drop,
                    (true, false) => ended(state.0.len()),
                    (false, _) => active(state.0.len()),
                }
            }
        }
    })
    .await
}

#[tokio::test]
async fn pieces_are_multiples_of_the_granularity_and_carry_no_key() {
    let server = honest(&[], false).await;
    let (answer, told) = upload(&client(&server), None).await;
    assert_eq!(answer, Ok(FileName("files/mine".to_owned())));
    let expected = [("0".to_owned(), 16), ("16".to_owned(), 16), ("32".to_owned(), 8)];
    assert_eq!(offsets(&server), expected);
    assert_eq!(told, [Some(session(&server)), None]);
    let seen = server.seen();
    assert_eq!(seen[0].header("x-goog-upload-header-content-length"), Some("40"));
    assert_eq!(seen[0].header("x-goog-upload-header-content-type"), Some("application/jsonl"));
    let body: serde_json::Value = serde_json::from_slice(&seen[0].body).expect("JSON");
    assert_eq!(body["file"]["name"], "files/mine");
    assert_eq!(body["file"]["displayName"], "gemini-batchd/J");
    for request in seen {
        let keyed = request.header("x-goog-api-key").is_some();
        assert_eq!(keyed, request.command() == "start", "{request:?}");
    }
    let commands: Vec<_> = server.pieces().iter().map(|r| r.command().to_owned()).collect();
    assert_eq!(commands, ["upload", "upload", "upload, finalize"]);
}

/// Fault 50.
#[tokio::test]
async fn after_a_cut_only_the_rest_is_sent() {
    let server = honest(&[(1, 5)], false).await;
    let (answer, _) = upload(&client(&server), None).await;
    assert_eq!(answer, Ok(FileName("files/mine".to_owned())));
    let expected = [(0, 16), (16, 5), (21, 16), (37, 3)];
    assert_eq!(offsets(&server), expected.map(|(offset, len)| (offset.to_string(), len)));
}

#[tokio::test]
async fn breaks_with_progress_are_borne_without_end_and_without_progress_three_times() {
    let server = honest(&[(0, 1), (1, 1), (2, 1), (3, 1), (4, 1), (5, 1)], false).await;
    let (answer, _) = upload(&client(&server), None).await;
    assert!(answer.is_ok(), "{answer:?}");

    let server = honest(&[(0, 0), (1, 0), (2, 0), (3, 0), (4, 0)], false).await;
    let (answer, told) = upload(&client(&server), None).await;
    assert!(matches!(&answer, Err(Failure::Transient(m)) if m.contains("no progress")));
    assert_eq!(told, [Some(session(&server))], "the session stays for the next try");
    assert!(!format!("{answer:?}").contains("secret"));
}

#[tokio::test]
async fn a_lost_end_is_found_again() {
    let server = honest(&[], true).await;
    let (answer, told) = upload(&client(&server), None).await;
    assert_eq!(answer, Ok(FileName("files/mine".to_owned())));
    assert_eq!(server.pieces().len(), 3, "nothing was sent twice");
    assert_eq!(told.last(), Some(&None));
}

#[tokio::test]
async fn a_lost_end_whose_session_is_gone_is_found_again() {
    let server = Server::start(|request| match (request.command(), request.path()) {
        ("start", _) => started(request, "64"),
        ("query", _) => Reply::status(404, ""),
        ("", "/v1beta/files/mine") => file(CONTENT.len()),
        _ => Reply::Drop,
    })
    .await;
    let (answer, _) = upload(&client(&server), None).await;
    assert_eq!(answer, Ok(FileName("files/mine".to_owned())));
    assert_eq!(server.pieces().len(), 1);
}

#[tokio::test]
async fn after_a_restart_the_session_goes_on_where_the_server_is() {
    let server = Server::start(|request| match request.command() {
        "query" => active(24),
        "upload, finalize" => ended(CONTENT.len()),
        _ => Reply::status(500, "not expected"),
    })
    .await;
    let (answer, told) = upload(&server.client(), Some(session(&server))).await;
    assert!(answer.is_ok(), "{answer:?}");
    assert_eq!(offsets(&server), [("24".to_owned(), 16)]);
    assert_eq!(told, [None]);
}

#[tokio::test]
async fn a_session_that_received_everything_is_only_finalized() {
    let server = Server::start(|request| match request.command() {
        "query" => active(CONTENT.len()),
        "finalize" if request.body.is_empty() => ended(CONTENT.len()),
        _ => Reply::status(500, "not expected"),
    })
    .await;
    let (answer, _) = upload(&server.client(), Some(session(&server))).await;
    assert!(answer.is_ok(), "{answer:?}");
}

/// Fault 52.
#[tokio::test]
async fn a_session_that_is_gone_or_foreign_is_replaced() {
    for stored in ["", "https://evil.example/upload?upload_id=1"] {
        let first = Arc::new(Mutex::new(true));
        let server = Server::start(move |request| match (request.command(), request.path()) {
            ("query", _) => Reply::status(410, ""),
            ("start", _) => started(request, "64"),
            ("", _) => missing(),
            _ => {
                *first.lock().expect("no panic holds it") = false;
                ended(request.body.len())
            }
        })
        .await;
        let stored = if stored.is_empty() { session(&server) } else { stored.to_owned() };
        let (answer, told) = upload(&server.client(), Some(stored)).await;
        assert!(answer.is_ok(), "{answer:?}");
        assert_eq!(told, [None, Some(session(&server)), None]);
        assert_eq!(offsets(&server), [("0".to_owned(), 40)]);
    }
}

#[tokio::test]
async fn a_taken_name_with_the_same_size_is_our_own_file() {
    let server = Server::start(|request| match (request.command(), request.path()) {
        ("start", _) => Reply::error(409, "ALREADY_EXISTS", "taken"),
        ("", "/v1beta/files/mine") => file(CONTENT.len()),
        _ => Reply::status(500, "not expected"),
    })
    .await;
    let (answer, _) = upload(&server.client(), None).await;
    assert_eq!(answer, Ok(FileName("files/mine".to_owned())));
    assert!(server.pieces().is_empty());
}

#[tokio::test]
async fn a_taken_name_with_another_size_is_removed_first() {
    let there = Arc::new(Mutex::new(true));
    let server = Server::start(move |request| {
        let mut there = there.lock().expect("no panic holds it");
        match (request.command(), request.method.as_str()) {
            ("start", _) if *there => Reply::error(409, "ALREADY_EXISTS", "taken"),
            ("start", _) => started(request, "64"),
            ("", "DELETE") => {
                *there = false;
                Reply::json("{}")
            }
            ("", _) => file(7),
            _ => ended(request.body.len()),
        }
    })
    .await;
    let (answer, _) = upload(&server.client(), None).await;
    assert!(answer.is_ok(), "{answer:?}");
    assert_eq!(offsets(&server), [("0".to_owned(), 40)]);
}

/// Fault 53.
#[tokio::test]
async fn a_server_that_claims_more_than_was_sent_is_not_believed() {
    let sessions = Arc::new(Mutex::new(0));
    let server = Server::start(move |request| {
        let mut sessions = sessions.lock().expect("no panic holds it");
        match (request.command(), *sessions) {
            ("start", _) => {
                *sessions += 1;
                started(request, "8")
            }
            ("query", _) => active(33),
            ("", _) => missing(),
            (_, 1) => Reply::status(503, ""),
            ("upload", _) => active(0),
            (_, _) => ended(CONTENT.len()),
        }
    })
    .await;
    let (answer, told) = upload(&client(&server), None).await;
    assert!(answer.is_ok(), "{answer:?}");
    let url = Some(session(&server));
    assert_eq!(told, [url.clone(), None, url, None]);
    let expected = [(0, 16), (0, 16), (16, 16), (32, 8)];
    assert_eq!(offsets(&server), expected.map(|(offset, len)| (offset.to_string(), len)));
}

/// Fault 62.
#[tokio::test]
async fn a_session_on_a_foreign_host_is_never_sent_anything() {
    let other = Server::start(|_| active(0)).await;
    for url in [format!("{}{PATH}", other.base), "https://storage.example/x".to_owned()] {
        let server =
            Server::start(move |_| Reply::with(200, &[("x-goog-upload-url", &url)], b"")).await;
        let (answer, told) = upload(&server.client(), None).await;
        assert!(matches!(answer, Err(Failure::Barred(_))), "{answer:?}");
        assert!(told.is_empty());
    }
    assert!(other.seen().is_empty());
}

#[tokio::test]
async fn a_start_without_a_session_tells_what_the_body_says() {
    let server = Server::start(|_| {
        Reply::json(format!(r#"{{"error":{{"message":"Unsupported MIME type {MARKER}"}}}}"#))
    })
    .await;
    let (answer, _) = upload(&server.client(), None).await;
    let Err(Failure::Transient(message)) = answer else { panic!("{answer:?}") };
    assert!(message.contains("Unsupported MIME type") && !message.contains(MARKER), "{message}");
}

#[tokio::test]
async fn a_full_storage_is_a_rate_limit_and_a_final_error_is_for_good() {
    let full = Server::start(|_| Reply::error(429, "RESOURCE_EXHAUSTED", "storage bytes")).await;
    let (answer, _) = upload(&full.client(), None).await;
    assert!(matches!(answer, Err(Failure::RateLimited { .. })), "{answer:?}");

    let server = Server::start(|request| match request.command() {
        "start" => started(request, "64"),
        _ => Reply::with(400, &[("x-goog-upload-status", "final")], b"no"),
    })
    .await;
    let (answer, told) = upload(&server.client(), None).await;
    assert!(matches!(answer, Err(Failure::Rejected(_))), "{answer:?}");
    assert_eq!(told.last(), Some(&None));
}

/// Fault 53.
#[tokio::test]
async fn a_server_that_lost_the_last_bytes_is_sent_them_again() {
    let pieces = Arc::new(Mutex::new(0));
    let server = Server::start(move |request| {
        let mut pieces = pieces.lock().expect("no panic holds it");
        match request.command() {
            "start" => started(request, "8"),
            // It has had 16 bytes, and 32 were sent; now it says that it has 8.
            "query" => active(8),
            "upload" => {
                *pieces += 1;
                if *pieces == 2 { Reply::status(503, "") } else { active(16) }
            }
            _ => ended(CONTENT.len()),
        }
    })
    .await;
    let (answer, _) = upload(&client(&server), None).await;
    assert!(answer.is_ok(), "{answer:?}");
    let expected = [(0, 16), (16, 16), (8, 16), (24, 16)];
    assert_eq!(offsets(&server), expected.map(|(offset, len)| (offset.to_string(), len)));
    let sent = server.pieces();
    assert_eq!(sent[2].body, &CONTENT[8..24]);
    assert_eq!(sent[3].body, &CONTENT[24..]);
}

/// Fault 53.
#[tokio::test]
async fn a_server_that_forgets_again_and_again_does_not_keep_us_for_ever() {
    let server = Server::start(|request| match request.command() {
        "start" => started(request, "8"),
        "query" => active(0),
        "upload" => active(0),
        _ => Reply::status(503, ""),
    })
    .await;
    let (answer, _) = upload(&client(&server), None).await;
    assert!(matches!(answer, Err(Failure::Transient(_))), "{answer:?}");
    assert_eq!(offsets(&server).iter().filter(|(offset, _)| offset == "32").count(), 4);
}
