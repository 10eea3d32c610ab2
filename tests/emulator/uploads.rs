//! Files and uploads, with their faults.

use std::io::Write;
use std::net::TcpStream;

use gemini_batchd::provider::gemini::emulator::{Happened, Options};
use serde_json::{Value, json};

use crate::support::{World, assert_fits, world, world_with};

/// A world with pieces of 8 bytes and room for 100.
async fn small(faults: &str) -> World {
    world_with(faults, Options { granularity: 8, storage_bytes: 100, ..Options::default() }).await
}

async fn session(world: &World, len: usize, file: Value) -> String {
    let started = world.upload_start(len, &json!({ "file": file })).await;
    assert_eq!((started.status, started.header("x-goog-upload-status")), (200, Some("active")));
    started.header("x-goog-upload-url").expect("a session").to_owned()
}

async fn received(world: &World, session: &str) -> usize {
    let answer = world.command(session, "query", 0, b"").await;
    let received = answer.header("x-goog-upload-size-received").expect("a size");
    received.parse().expect("a number")
}

#[tokio::test]
async fn a_file_is_uploaded_in_pieces_and_described() {
    let world = small("").await;
    let started = world.upload_start(12, &json!({"file": {"display_name": "d"}})).await;
    assert_eq!(started.header("x-goog-upload-chunk-granularity"), Some("8"));
    let session = started.header("x-goog-upload-url").expect("a session").to_owned();
    assert!(session.starts_with(&world.emulator.url()), "{session}");
    let piece = world.command(&session, "upload", 0, b"12345678").await;
    assert_eq!((piece.status, piece.header("x-goog-upload-status")), (200, Some("active")));
    assert_eq!(received(&world, &session).await, 8);
    let done = world.command(&session, "upload, finalize", 8, b"9abc").await;
    assert_eq!(done.header("x-goog-upload-status"), Some("final"));
    let file = done.ok()["file"].clone();
    assert_fits("File", &file);
    assert_eq!(file["sizeBytes"], "12");
    assert_eq!((&file["state"], &file["source"]), (&json!("ACTIVE"), &json!("UPLOADED")));
    assert_eq!(
        (&file["mimeType"], &file["displayName"]),
        (&json!("application/jsonl"), &json!("d"))
    );
    assert_eq!(file["expirationTime"], "2026-09-23T14:13:20.123456789Z");
    // Base64 of the hex text of the SHA-256 of "123456789abc".
    assert_eq!(
        file["sha256Hash"],
        "NDM5MDg3NDgyZDIxZDU3NTg0YjZkMWEyNmNjOWUzODQ0ZWQ3NWMzNmYzM2MwZjc5NTIwNDJhYjA0MTJiMjQwNQ=="
    );
    let path = format!("/v1beta/{}", file["name"].as_str().expect("a name"));
    assert_eq!(world.get(&path).await.ok(), file);
    let list = world.get("/v1beta/files").await.ok();
    assert_eq!(list, json!({ "files": [file] }));
    // A query after the end tells the file again.
    let again = world.command(&session, "query", 0, b"").await;
    assert_eq!(again.header("x-goog-upload-status"), Some("final"));
    assert_eq!(again.ok()["file"], file);
    assert_eq!(world.get(&format!("{path}:download?alt=media")).await.error().0, 400);
    assert_eq!(world.delete(&path).await.ok(), json!({}));
    let (status, _, message) = world.get(&path).await.error();
    assert_eq!(status, 403);
    assert!(message.starts_with("You do not have permission to access the File "), "{message}");
    assert_eq!(world.get("/v1beta/files").await.ok(), json!({}));
}

#[tokio::test]
async fn a_repeated_piece_is_tolerated_and_a_gap_is_not() {
    let world = small("").await;
    let session = session(&world, 24, json!({})).await;
    world.command(&session, "upload", 0, b"12345678").await;
    let repeated = world.command(&session, "upload", 0, b"12345678").await;
    assert_eq!((repeated.status, repeated.header("x-goog-upload-status")), (200, Some("active")));
    assert_eq!(received(&world, &session).await, 8);
    let gap = world.command(&session, "upload", 16, b"12345678").await;
    assert_eq!((gap.status, gap.header("x-goog-upload-status")), (400, Some("active")));
    let odd = world.command(&session, "upload", 8, b"123").await;
    assert_eq!(odd.status, 400);
    let overlapping = world.command(&session, "upload", 0, b"12345678abcdefgh").await;
    assert_eq!(overlapping.status, 200);
    assert_eq!(received(&world, &session).await, 16);
    let short = world.command(&session, "finalize", 16, b"").await;
    assert_eq!(short.status, 400, "8 bytes are missing");
    world.command(&session, "upload", 16, b"ABCDEFGH").await;
    let done = world.command(&session, "finalize", 24, b"").await;
    assert_eq!(done.ok()["file"]["sizeBytes"], "24");
}

#[tokio::test]
async fn a_broken_piece_leaves_what_arrived_and_is_resumed() {
    let world = small("upload_cut = { after = 11, times = 1 }").await;
    let session = session(&world, 24, json!({})).await;
    world.command(&session, "upload", 0, b"12345678").await;
    let broken = world.try_command(&session, "upload, finalize", 8, b"9abcdefghijklmno").await;
    assert!(broken.is_err(), "{broken:?}");
    assert_eq!(received(&world, &session).await, 11);
    let done = world.command(&session, "upload, finalize", 11, b"cdefghijklmno").await;
    assert_eq!(done.ok()["file"]["sizeBytes"], "24");
    let pieces: Vec<u64> = world
        .happened()
        .iter()
        .filter_map(|what| {
            if let Happened::UploadPiece { offset, .. } = what { Some(*offset) } else { None }
        })
        .collect();
    assert_eq!(pieces, [0, 8, 11]);
}

#[tokio::test]
async fn a_chosen_name_is_kept_and_taken_only_once() {
    let world = small("").await;
    let name = json!({"name": "files/my-own-1"});
    let first = session(&world, 2, name.clone()).await;
    let second = session(&world, 2, name.clone()).await;
    let done = world.command(&first, "upload, finalize", 0, b"hi").await;
    assert_eq!(done.ok()["file"]["name"], "files/my-own-1");
    let late = world.command(&second, "upload, finalize", 0, b"ho").await;
    assert_eq!((late.error().0, late.header("x-goog-upload-status")), (409, Some("final")));
    let refused = world.upload_start(2, &json!({ "file": name })).await;
    assert_eq!(refused.error().1, "ALREADY_EXISTS");
    for bad in
        ["files/Upper", "files/-a", "files/a-", "files/a.b", &format!("files/{}", "a".repeat(41))]
    {
        let refused = world.upload_start(2, &json!({"file": {"name": bad}})).await;
        assert_eq!(refused.error().0, 400, "{bad}");
    }
}

#[tokio::test]
async fn a_cancelled_or_unknown_session_takes_nothing() {
    let world = small("").await;
    let session = session(&world, 8, json!({})).await;
    let cancelled = world.command(&session, "cancel", 0, b"").await;
    assert_eq!(
        (cancelled.status, cancelled.header("x-goog-upload-status")),
        (200, Some("cancelled"))
    );
    assert_eq!(world.command(&session, "upload, finalize", 0, b"12345678").await.status, 400);
    let unknown = format!("{}/upload/v1beta/files?upload_id=none", world.emulator.url());
    assert_eq!(world.command(&unknown, "query", 0, b"").await.status, 404);
}

#[tokio::test]
async fn files_expire_after_two_days_and_count_until_then() {
    let world = small("").await;
    let file = world.upload(&[b'x'; 60]).await;
    let full = world.upload_start(41, &json!({})).await;
    let (status, name, message) = full.error();
    assert_eq!((status, name.as_str()), (429, "RESOURCE_EXHAUSTED"));
    assert!(message.contains("file_storage_bytes"), "{message}");
    assert_eq!(world.upload_start(40, &json!({})).await.status, 200);
    world.advance(48 * 3600);
    let path = format!("/v1beta/{}", file["name"].as_str().expect("a name"));
    assert_eq!(world.get(&path).await.error().0, 403);
    assert_eq!(world.upload_start(100, &json!({})).await.status, 200);
}

#[tokio::test]
async fn upload_faults_do_what_they_say() {
    let world = small("upload_start_429 = 1").await;
    assert_eq!(world.upload_start(1, &json!({})).await.error().0, 429);
    world.set_faults("upload_start_no_url = 1");
    let no_url = world.upload_start(1, &json!({})).await;
    assert_eq!((no_url.status, no_url.header("x-goog-upload-url")), (200, None));
    assert!(no_url.json()["error"].is_object());

    let lost = session(&world, 8, json!({})).await;
    world.set_faults("upload_refused = 1");
    let refused = world.command(&lost, "upload", 0, b"12345678").await;
    assert_eq!((refused.status, refused.header("x-goog-upload-status")), (503, Some("active")));
    assert_eq!(received(&world, &lost).await, 0);
    world.set_faults("upload_session_lost = 1");
    assert_eq!(world.command(&lost, "query", 0, b"").await.status, 404);
    assert_eq!(world.command(&lost, "query", 0, b"").await.status, 404, "lost for good");

    let named = session(&world, 2, json!({"name": "files/kept"})).await;
    world.set_faults("upload_finalize_lost = 1");
    assert!(world.try_command(&named, "upload, finalize", 0, b"hi").await.is_err());
    assert_eq!(world.get("/v1beta/files/kept").await.ok()["sizeBytes"], "2");
    assert_eq!(world.command(&named, "query", 0, b"").await.ok()["file"]["name"], "files/kept");
}

#[tokio::test]
async fn an_input_file_may_be_deleted_once_its_batch_exists() {
    let world = world("").await;
    let rows = crate::support::file_of(&["a", "b"]);
    let file = world.upload(rows.as_bytes()).await;
    let created = world.create_of(&file["name"]).await.ok();
    world.delete(&format!("/v1beta/{}", file["name"].as_str().expect("a name"))).await.ok();
    world.advance(20);
    assert_eq!(world.lines(&created).await.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_dies_in_the_middle_of_a_piece_loses_nothing_that_arrived() {
    let world = small("").await;
    let session = session(&world, 24, json!({})).await;
    let path = session.strip_prefix(&world.emulator.url()).expect("its own host");
    let mut line = TcpStream::connect(world.emulator.addr()).expect("connected");
    write!(
        line,
        "POST {path} HTTP/1.1\r\nHost: x\r\nX-Goog-Upload-Command: upload, finalize\r\n\
         X-Goog-Upload-Offset: 0\r\nContent-Length: 24\r\n\r\n123456789"
    )
    .expect("sent");
    drop(line);
    // A query waits for the piece only once that has begun.
    while received(&world, &session).await == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(received(&world, &session).await, 9);
    let done = world.command(&session, "upload, finalize", 9, b"abcdefghijklmno").await;
    assert_eq!(done.ok()["file"]["sizeBytes"], "24");
}
