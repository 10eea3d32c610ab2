//! Batches of the OpenAI-compatible layer: created once, found by their file, fetched whole.

use gemini_batchd::engine::event::{Failure, Polled};
use gemini_batchd::engine::ids::{BatchName, FileName, Millis};
use gemini_batchd::engine::job::{RemoteState, Task};
use gemini_batchd::provider::gemini::{CreateFailure, Created, Listed, RefusedKind};
use serde_json::{Value, json};

use crate::download::Place;
use crate::server::{MARKER, Reply, Request, Server};

fn file() -> FileName {
    FileName("files/j-1-1".to_owned())
}

fn name(id: &str) -> BatchName {
    BatchName(format!("openai/batches/{id}"))
}

fn batch(id: &str, more: Value) -> Value {
    let mut batch = json!({"id": id, "status": "in_progress", "input_file_id": "files/j-1-1",
        "created_at": 1});
    for (name, value) in more.as_object().into_iter().flatten() {
        batch[name] = value.clone();
    }
    batch
}

#[tokio::test]
async fn a_create_names_its_file_and_its_endpoint_and_carries_the_key_as_openai_does() {
    for (task, endpoint) in
        [(Task::Generate, "/v1/chat/completions"), (Task::Embed, "/v1/embeddings")]
    {
        let server =
            Server::start(|_| Reply::json(batch("batches/b", json!({})).to_string())).await;
        let made = server.client().create_in_layer(task, &file()).await.expect("created");
        assert_eq!(made, Created { batch: name("batches/b"), created: Some(Millis(1000)) });
        let seen = server.seen();
        assert_eq!((seen.len(), seen[0].target.as_str()), (1, "/v1beta/openai/batches"));
        let bearer = format!("Bearer {MARKER}");
        assert_eq!(seen[0].header("authorization"), Some(bearer.as_str()));
        let body: Value = serde_json::from_slice(&seen[0].body).expect("JSON");
        assert_eq!(
            body,
            json!({"input_file_id": "files/j-1-1", "endpoint": endpoint, "completion_window": "24h"})
        );
    }
}

#[tokio::test]
async fn what_leaves_open_whether_a_batch_of_the_layer_exists_is_ambiguous_and_sent_once() {
    let replies: [fn() -> Reply; 5] = [
        || Reply::error(503, "UNAVAILABLE", "x"),
        || Reply::Drop,
        || Reply::json("{}"),
        || Reply::json(r#"{"id":"../x"}"#),
        || Reply::json("[1"),
    ];
    for reply in replies {
        let server = Server::start(move |_| reply()).await;
        let failed = server.client().create_in_layer(Task::Generate, &file()).await;
        let Err(CreateFailure::Failure(Failure::Ambiguous(_))) = failed else {
            panic!("{failed:?}")
        };
        assert_eq!(server.seen().len(), 1);
    }
}

#[tokio::test]
async fn a_refused_create_in_the_layer_says_what_it_was_refused_for() {
    let create = |status, name: &'static str, message: &'static str| async move {
        let server = Server::start(move |_| Reply::error(status, name, message)).await;
        server.client().create_in_layer(Task::Generate, &file()).await.expect_err("refused")
    };
    let gone = create(404, "NOT_FOUND", "File j-1-1 does not exist").await;
    assert!(matches!(gone, CreateFailure::Refused { kind: RefusedKind::File, .. }), "{gone:?}");
    let whole = create(400, "INVALID_ARGUMENT", "completion_window").await;
    assert!(matches!(whole, CreateFailure::Refused { kind: RefusedKind::Whole, .. }), "{whole:?}");
    // No model was named: it is the call that is not there.
    let missing = create(404, "NOT_FOUND", "no such method or model").await;
    let CreateFailure::Failure(Failure::Rejected(message)) = missing else { panic!("{missing:?}") };
    assert!(message.contains("translate"), "{message}");
}

#[tokio::test]
async fn every_page_is_read_for_the_batches_of_a_file_and_the_oldest_comes_first() {
    let page = |request: &Request| {
        let other = batch("o", json!({"input_file_id": "files/other"}));
        let page = match request.target.contains("after=o") {
            false => {
                json!({"data": [batch("new", json!({"created_at": 9})), other], "has_more": true})
            }
            true => json!({"data": [batch("old", json!({"input_file_id": "j-1-1"}))]}),
        };
        Reply::json(page.to_string())
    };
    let server = Server::start(page).await;
    let found = server.client().find_in_layer(&file()).await.expect("listed");
    let Listed::All(found) = found else { panic!("{found:?}") };
    let names: Vec<BatchName> = found.into_iter().map(|batch| batch.name).collect();
    assert_eq!(names, [name("old"), name("new")]);
    assert_eq!(server.seen()[0].target, "/v1beta/openai/batches?limit=100");
}

#[tokio::test]
async fn a_list_that_is_not_there_or_does_not_name_files_is_no_list_in_which_nothing_is() {
    let replies: [fn() -> Reply; 4] = [
        || Reply::error(404, "NOT_FOUND", "x"),
        || Reply::status(404, "<html>"),
        || Reply::error(501, "UNIMPLEMENTED", "x"),
        || Reply::json(r#"{"data":[{"id":"b","status":"completed"}]}"#),
    ];
    for reply in replies {
        let server = Server::start(move |_| reply()).await;
        let found = server.client().find_in_layer(&file()).await.expect("told");
        assert!(matches!(found, Listed::Nowhere(_)), "{found:?}");
    }
    // A page that breaks off is neither.
    for reply in [r#"{"data":[],"has_more":true}"#, "{"] {
        let server = Server::start(move |_| Reply::json(reply)).await;
        let found = server.client().find_in_layer(&file()).await;
        assert!(matches!(found, Err(Failure::Transient(_))), "{found:?}");
    }
}

#[tokio::test]
async fn batches_of_the_layer_are_asked_for_one_by_one_and_others_as_ever() {
    let answer = |request: &Request| match request.path() {
        "/v1beta/openai/batches/batches/a" => {
            Reply::json(batch("batches/a", json!({"status": "completed"})).to_string())
        }
        "/v1beta/openai/batches/gone" => Reply::error(404, "NOT_FOUND", "x"),
        "/v1beta/batches" => Reply::json(
            r#"{"operations":[{"name":"batches/n","metadata":{"state":"BATCH_STATE_RUNNING"}}]}"#,
        ),
        other => panic!("{other}"),
    };
    let server = Server::start(answer).await;
    let names = [name("batches/a"), name("gone"), BatchName("batches/n".to_owned())];
    let polled = server.client().poll(&names).await.expect("polled");
    let state = |wanted: &BatchName| {
        polled.iter().find(|(name, _)| name == wanted).map(|(_, polled)| match polled {
            Polled::Seen(batch) => Some(batch.state.clone()),
            Polled::Gone => None,
        })
    };
    assert_eq!(state(&names[0]), Some(Some(RemoteState::Succeeded)));
    assert_eq!(state(&names[1]), Some(None));
    assert_eq!(state(&names[2]), Some(Some(RemoteState::Running)));
}

#[tokio::test]
async fn a_batch_of_the_layer_is_cancelled_there_and_never_deleted() {
    let server = Server::start(|_| Reply::error(409, "ABORTED", "it has ended")).await;
    server.client().cancel(&name("b")).await.expect("it is over");
    server.client().delete_batch(&name("b")).await.expect("there is no such call");
    let bad = Server::start(|_| Reply::error(400, "INVALID_ARGUMENT", "API key not valid.")).await;
    let denied = bad.client().cancel(&name("b")).await;
    assert!(matches!(denied, Err(Failure::Denied(_))), "{denied:?}");
    let seen = server.seen();
    assert_eq!(seen.len(), 1);
    assert_eq!(
        (seen[0].method.as_str(), seen[0].path()),
        ("POST", "/v1beta/openai/batches/b/cancel")
    );
}

#[tokio::test]
async fn failed_lines_in_a_file_of_their_own_are_fetched_behind_the_others() {
    let answer = |request: &Request| match request.path() {
        "/v1beta/openai/batches/b" => {
            let files = json!({"status": "completed", "output_file_id": "files/out",
                "error_file_id": "err"});
            Reply::json(batch("b", files).to_string())
        }
        "/download/v1beta/files/out:download" => Reply::json(r#"{"custom_id":"1"}"#),
        "/download/v1beta/files/err:download" => Reply::json("{\"custom_id\":\"2\"}\n"),
        other => panic!("{other}"),
    };
    let server = Server::start(answer).await;
    let place = Place::new();
    server.client().fetch(&name("b"), &place.kept).await.expect("fetched");
    let text = place.text();
    let lines: Vec<&str> = text.lines().filter(|line| !line.is_empty()).collect();
    assert_eq!(lines, [r#"{"custom_id":"1"}"#, r#"{"custom_id":"2"}"#]);
}

#[tokio::test]
async fn a_batch_that_is_complete_without_results_is_not_ready() {
    let complete = batch("b", json!({"status": "completed"}));
    let server = Server::start(move |_| Reply::json(complete.to_string())).await;
    let fetched = server.client().fetch(&name("b"), &Place::new().kept).await;
    assert!(matches!(fetched, Err(Failure::NotReady(_))), "{fetched:?}");
}
