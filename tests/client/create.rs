//! Creating a batch: sent once, sorted exactly.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use gemini_batchd::engine::event::Failure;
use gemini_batchd::engine::ids::{BatchName, FileName, Millis, Stamp};
use gemini_batchd::engine::job::Task;
use gemini_batchd::provider::gemini::{
    Client, CreateFailure, CreateInput, Created, Payload, RefusedKind,
};

use crate::server::{MARKER, Reply, Server};

const ITEMS: &str =
    r#"{"request":{},"metadata":{"key":"1"}},{"request":{},"metadata":{"key":"2"}}"#;

fn inline() -> CreateInput {
    CreateInput::Inline(Payload::from_bytes(Bytes::from_static(ITEMS.as_bytes())))
}

async fn create(client: &Client, input: CreateInput) -> Result<Created, CreateFailure> {
    client
        .create(
            "gemini-2.5-flash",
            Task::Generate,
            &Stamp("gemini-batchd/J/c1/a1".to_owned()),
            0,
            input,
        )
        .await
}

fn created() -> Reply {
    Reply::json(
        r#"{"name":"batches/abc","metadata":{"createTime":"1970-01-01T00:00:01Z",
            "state":"BATCH_STATE_PENDING","name":"batches/abc"}}"#,
    )
}

#[tokio::test]
async fn an_inline_create_streams_its_items_with_a_length() {
    let server = Server::start(|_| created()).await;
    let answer = create(&server.client(), inline()).await.expect("created");
    let batch = BatchName("batches/abc".to_owned());
    assert_eq!(answer, Created { batch, created: Some(Millis(1000)) });
    let seen = server.seen();
    assert_eq!(seen[0].target, "/v1beta/models/gemini-2.5-flash:batchGenerateContent");
    assert_eq!(
        seen[0].text(),
        format!(
            r#"{{"batch":{{"displayName":"gemini-batchd/J/c1/a1","inputConfig":{{"requests":{{"requests":[{ITEMS}]}}}}}}}}"#
        )
    );
    assert_eq!(seen[0].header("transfer-encoding"), None);
    assert_eq!(seen[0].header("x-goog-api-key"), Some(MARKER));
}

#[tokio::test]
async fn a_create_from_a_file_names_it_and_passes_the_priority() {
    let server = Server::start(|_| created()).await;
    let input = CreateInput::File(FileName("files/j-1-1".to_owned()));
    let stamp = Stamp("s\"x".to_owned());
    server.client().create("models/m", Task::Generate, &stamp, -2, input).await.expect("created");
    let body: serde_json::Value = serde_json::from_slice(&server.seen()[0].body).expect("JSON");
    assert_eq!(
        body,
        serde_json::json!({"batch": {"displayName": "s\"x", "priority": "-2",
            "inputConfig": {"fileName": "files/j-1-1"}}})
    );
}

/// Faults 58 and 60.
#[tokio::test]
async fn what_leaves_open_whether_it_exists_is_ambiguous_and_sent_once() {
    let replies: [fn() -> Reply; 8] = [
        || Reply::status(503, "<html>"),
        || Reply::error(500, "INTERNAL", "x"),
        || Reply::status(408, ""),
        || Reply::error(409, "ABORTED", "x"),
        || Reply::Drop,
        || Reply::json("{\"name\":"),
        || Reply::json("{\"name\":\"../batches/x\"}"),
        || Reply::promising(200, &[], b"{\"name\":\"batches/a\"}", 500),
    ];
    for (n, reply) in replies.into_iter().enumerate() {
        let server = Server::start(move |_| reply()).await;
        let failure = create(&server.client(), inline()).await.expect_err("unknown");
        let ambiguous = matches!(failure, CreateFailure::Failure(Failure::Ambiguous(_)));
        assert!(ambiguous, "{n}: {failure:?}");
        assert_eq!(server.seen().len(), 1, "{n}: sent once, no more");
    }
}

/// Fault 64.
#[tokio::test]
async fn a_create_without_an_answer_is_ambiguous() {
    let server = Server::start(|_| Reply::Hang).await;
    let mut settings = server.settings();
    settings.reply_timeout = Duration::from_millis(50);
    let client = Client::new(settings).expect("a client");
    let failure = create(&client, inline()).await.expect_err("unknown");
    assert!(matches!(failure, CreateFailure::Failure(Failure::Ambiguous(_))), "{failure:?}");
}

/// Fault 63.
#[tokio::test]
async fn a_create_that_never_left_is_transient() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let server = Server::start(|_| created()).await;
    let mut settings = server.settings();
    settings.base_url =
        format!("http://{}", free.local_addr().expect("bound")).parse().expect("a URL");
    drop(free);
    let client = Client::new(settings).expect("a client");
    let failure = create(&client, inline()).await.expect_err("nobody there");
    assert!(matches!(failure, CreateFailure::Failure(Failure::Transient(_))), "{failure:?}");
}

#[tokio::test]
async fn a_payload_that_fails_here_is_local() {
    let server = Server::start(|_| created()).await;
    for (len, error) in [(10, true), (10, false), (1, false)] {
        let open = move |_, _| {
            let bad = error.then(|| Err(io::Error::other("disk gone")));
            futures_util::stream::iter([Ok(Bytes::from_static(b"abc"))].into_iter().chain(bad))
                .boxed()
        };
        let payload = Payload { len, open: Arc::new(open) };
        let failure = create(&server.client(), CreateInput::Inline(payload)).await;
        let local = matches!(&failure, Err(CreateFailure::Failure(Failure::Local(_))));
        assert!(local, "{len} {error}: {failure:?}");
    }
}

/// Fault 57.
#[tokio::test]
async fn a_refusal_says_what_it_objects_to() {
    let cases: [(fn() -> Reply, RefusedKind); 4] = [
        (|| Reply::error(400, "INVALID_ARGUMENT", "no"), RefusedKind::Whole),
        (
            || Reply::error(404, "NOT_FOUND", "models/x is not found for API version v1beta"),
            RefusedKind::Model,
        ),
        (|| Reply::error(404, "NOT_FOUND", "Requested entity was not found."), RefusedKind::File),
        (
            || Reply::error(400, "INVALID_ARGUMENT", "Error on line 2: bad\nError on line 5: x"),
            RefusedKind::Lines(vec![
                (2, "Error on line 2: bad".to_owned()),
                (5, "Error on line 5: x".to_owned()),
            ]),
        ),
    ];
    for (reply, expected) in cases {
        let server = Server::start(move |_| reply()).await;
        let input = CreateInput::File(FileName("files/f".to_owned()));
        match create(&server.client(), input).await {
            Err(CreateFailure::Refused { kind, .. }) => assert_eq!(kind, expected),
            other => panic!("{expected:?}: {other:?}"),
        }
    }
}

/// Faults 55, 56 and 61.
#[tokio::test]
async fn too_many_and_a_bad_key_and_a_redirect_are_no_refusals() {
    let other = Server::start(|_| created()).await;
    let target = other.base.clone();
    let server = Server::start(move |request| match request.path() {
        "/v1beta/models/many:batchGenerateContent" => {
            Reply::error(429, "RESOURCE_EXHAUSTED", "slow down")
        }
        "/v1beta/models/key:batchGenerateContent" => {
            Reply::error(400, "INVALID_ARGUMENT", "API key not valid. Please pass a valid one.")
        }
        _ => Reply::with(308, &[("location", &target)], b""),
    })
    .await;
    let client = server.client();
    let stamp = Stamp("s".to_owned());
    let many = client.create("many", Task::Generate, &stamp, 0, inline()).await;
    assert!(matches!(many, Err(CreateFailure::Failure(Failure::RateLimited { .. }))), "{many:?}");
    let key = client.create("key", Task::Generate, &stamp, 0, inline()).await;
    assert!(matches!(key, Err(CreateFailure::Failure(Failure::Denied(_)))), "{key:?}");
    let moved = client.create("moved", Task::Generate, &stamp, 0, inline()).await;
    assert!(matches!(moved, Err(CreateFailure::Failure(Failure::Barred(_)))), "{moved:?}");
    assert!(other.seen().is_empty());
    let bad = client.create("a/b/c", Task::Generate, &stamp, 0, inline()).await;
    assert!(matches!(bad, Err(CreateFailure::Refused { kind: RefusedKind::Model, .. })));
    assert_eq!(server.seen().len(), 3);
}
