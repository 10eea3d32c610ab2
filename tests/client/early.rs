//! Uploads that begin before their file is known to the end.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::StreamExt;
use gemini_batchd::engine::event::Failure;
use gemini_batchd::engine::ids::FileName;
use gemini_batchd::provider::gemini::Payload;

use crate::server::{Reply, Server};
use crate::upload::{active, ended, missing, session, started};

fn mine() -> FileName {
    FileName("files/mine".to_owned())
}

fn bytes(text: &'static [u8]) -> futures_util::stream::BoxStream<'static, std::io::Result<Bytes>> {
    futures_util::stream::iter([Ok(Bytes::from_static(text))]).boxed()
}

#[tokio::test]
async fn pieces_go_out_in_steps_of_the_server_without_an_end_or_a_length() {
    let server = Server::start(|request| match request.command() {
        "start" => started(request, "8"),
        "upload" => active(0),
        _ => Reply::status(500, "not expected"),
    })
    .await;
    let mut upload = server.client().upload_early(&mine(), "stamp").await.expect("it begins");
    assert_eq!(upload.address(), session(&server));
    assert_eq!((upload.next_piece(7, 100), upload.next_piece(8, 100)), (0, 8));
    assert_eq!((upload.next_piece(31, 20), upload.next_piece(31, 3)), (16, 8));
    upload.send(8, bytes(b"01234567")).await.expect("sent");
    assert_eq!((upload.next_piece(8, 100), upload.next_piece(25, 100)), (0, 16));
    upload.send(8, bytes(b"89abcdef")).await.expect("sent");
    for _ in 0..3 {
        upload.send(8, bytes(b"01234567")).await.expect("sent");
    }
    assert_eq!((upload.next_piece(49, 100), upload.next_piece(50, 100)), (0, 8), "a quarter more");
    assert_eq!(upload.next_piece(49, 9), 8, "or as much as may be");
    let seen = server.seen();
    assert_eq!(seen[0].header("x-goog-upload-header-content-length"), None);
    assert_eq!(seen[0].header("x-goog-upload-header-content-type"), Some("application/jsonl"));
    let body: serde_json::Value = serde_json::from_slice(&seen[0].body).expect("JSON");
    assert_eq!(
        (&body["file"]["name"], &body["file"]["displayName"]),
        (&"files/mine".into(), &"stamp".into())
    );
    let offsets: Vec<_> = seen[1..].iter().map(|r| r.header("x-goog-upload-offset")).collect();
    assert_eq!(offsets, ["0", "8", "16", "24", "32"].map(Some));
    assert!(!format!("{upload:?}").contains("secret"));
}

#[tokio::test]
async fn whatever_becomes_of_a_piece_but_a_receipt_ends_the_early_upload() {
    type Answer = fn() -> Reply;
    let answers: [Answer; 5] = [
        || Reply::status(503, ""),
        || Reply::status(404, ""),
        || Reply::with(200, &[("x-goog-upload-status", "cancelled")], b""),
        || Reply::with(400, &[("x-goog-upload-status", "final")], b"no"),
        || Reply::Drop,
    ];
    for answer in answers {
        let server = Server::start(move |request| match request.command() {
            "start" => started(request, "8"),
            _ => answer(),
        })
        .await;
        let mut upload = server.client().upload_early(&mine(), "stamp").await.expect("it begins");
        let failure = upload.send(8, bytes(b"01234567")).await.expect_err("not received");
        assert!(matches!(failure, Failure::Transient(_)), "{failure:?}");
        assert_eq!(upload.next_piece(8, 100), 8, "it does not count as sent");
        assert_eq!(server.pieces().len(), 1, "nothing is tried again");
    }
}

#[tokio::test]
async fn nothing_begins_early_where_there_is_a_file_of_that_name() {
    let server = Server::start(|_| Reply::error(409, "ALREADY_EXISTS", "taken")).await;
    let answer = server.client().upload_early(&mine(), "stamp").await;
    assert!(matches!(answer, Err(Failure::Rejected(_))), "{answer:?}");
}

#[tokio::test]
async fn an_upload_is_given_up_by_its_address_if_that_is_the_servers() {
    let server = Server::start(|request| match request.command() {
        "cancel" => Reply::with(200, &[("x-goog-upload-status", "cancelled")], b""),
        _ => Reply::status(500, "not expected"),
    })
    .await;
    let client = server.client();
    assert_eq!(client.give_up_upload(&session(&server)).await, Ok(()));
    let seen = server.seen();
    assert_eq!((seen.len(), seen[0].header("x-goog-api-key")), (1, None));
    assert_eq!(client.give_up_upload("https://evil.example/upload?upload_id=1").await, Ok(()));
    assert_eq!(client.give_up_upload("nonsense").await, Ok(()));
    assert_eq!(server.seen().len(), 1, "nothing is sent to anybody else");
}

/// A server that wants to know the length beforehand tells so only at the end.
#[tokio::test]
async fn a_session_that_is_refused_for_good_when_it_is_taken_up_again_is_replaced_once() {
    for believes_a_length in [true, false] {
        let announced = Arc::new(Mutex::new(false));
        let server = Server::start(move |request| {
            let mut announced = announced.lock().expect("no panic holds it");
            match (request.command(), *announced) {
                ("query", _) => active(8),
                ("", _) => missing(),
                ("start", _) => {
                    *announced =
                        request.header("x-goog-upload-header-content-length") == Some("10");
                    started(request, "8")
                }
                (_, true) if believes_a_length => ended(10),
                (_, _) => Reply::with(400, &[("x-goog-upload-status", "final")], b"no"),
            }
        })
        .await;
        let payload = Payload::from_bytes(Bytes::from_static(b"0123456789"));
        let told = Mutex::new(Vec::new());
        let on_session = |url: Option<&str>| {
            told.lock().expect("no panic holds it").push(url.is_some());
        };
        let stored = Some(session(&server));
        let answer = server.client().upload(&mine(), "stamp", &payload, stored, &on_session).await;
        match believes_a_length {
            true => assert_eq!(answer, Ok(mine())),
            false => assert!(matches!(answer, Err(Failure::Rejected(_))), "{answer:?}"),
        }
        assert_eq!(*told.lock().expect("no panic holds it"), [false, true, false]);
        let offsets: Vec<_> = server
            .pieces()
            .iter()
            .map(|r| r.header("x-goog-upload-offset").map(str::to_owned))
            .collect();
        assert_eq!(offsets, [Some("8".to_owned()), Some("0".to_owned())]);
    }
}
