//! The emulator and the checker that every test here and every daemon of the behaviour tests runs
//! under: what each call answers is as Google describes it, and what is not would be noticed.

use std::collections::BTreeSet;

use gemini_batchd::provider::gemini::emulator::Exchange;
use serde_json::{Value, json};

use crate::discovery::document::{self, Writer};
use crate::discovery::exchanges::complaints;
use crate::support::{path_of, world};

fn exchange(method: &str, path: &str, sent: &str, status: u16, answered: &Value) -> Exchange {
    Exchange {
        method: method.to_owned(),
        path: path.to_owned(),
        query: Vec::new(),
        command: None,
        offset: None,
        sent: Some(sent.as_bytes().to_vec()),
        status,
        media_type: "application/json".to_owned(),
        answered: Some(answered.to_string().into_bytes()),
    }
}

#[tokio::test]
async fn every_call_of_the_document_is_answered_as_it_describes_or_refused_loudly() {
    let world = world("").await;
    let batch = world.create_from_file(&["a", "b"]).await;
    let inline = world.create_inline(&["c"]).await.ok();
    world.get("/v1beta/batches?pageSize=1").await.ok();
    world.post(&format!("{}:cancel", path_of(&inline)), &json!({})).await.ok();
    world.advance(30);
    world.lines(&batch).await;
    world.batch(&inline).await;
    world.get("/v1/batches?pageSize=2&$alt=json").await.ok();
    let files = world.get("/v1/files?pageSize=1").await.ok();
    let file = files["files"][0]["name"].as_str().expect("a file").to_owned();
    world.get(&format!("/v1beta/{file}")).await.ok();
    world.delete(&format!("/v1beta/{file}")).await.ok();
    world.get("/v1beta/models/gemini-2.5-flash").await.ok();
    for operation in [&batch, &inline] {
        world.delete(&path_of(operation)).await.ok();
    }
    for (path, status) in [
        (format!("/v1beta/{file}"), 403),
        (path_of(&batch), 404),
        ("/v1beta/models/none".to_owned(), 404),
        ("/v1beta/models".to_owned(), 501),
        ("/v1beta/batches?pageSize=x".to_owned(), 400),
    ] {
        assert_eq!(world.get(&path).await.error().0, status, "{path}");
    }
    // The checker judges all of this when the world ends; here, that it heard it.
    let name = |exchange: &Exchange| {
        let path = exchange.path.trim_start_matches('/').replacen("v1/", "v1beta/", 1);
        document::method(&exchange.method, &path).map(|(name, _)| name)
    };
    let heard = world.described.recorder().exchanges();
    let heard: BTreeSet<&str> = heard.iter().filter_map(name).collect();
    let expected = [
        "batches.cancel",
        "batches.delete",
        "batches.get",
        "batches.list",
        "files.delete",
        "files.get",
        "files.list",
        "models.batchGenerateContent",
        "models.get",
        "models.list",
    ];
    assert_eq!(heard, BTreeSet::from(expected));
}

#[test]
fn what_is_not_as_described_is_noticed() {
    let operation = |member: &str, value: Value| {
        let mut operation = json!({
            "name": "batches/b",
            "metadata": {
                "@type": "type.googleapis.com/google.ai.generativelanguage.v1main.GenerateContentBatch",
                "state": "BATCH_STATE_PENDING",
                "createTime": "2026-01-01T00:00:00.5Z",
                "batchStats": {"requestCount": "3"},
            },
        });
        *operation.pointer_mut(member).expect("there") = value;
        exchange("GET", "/v1beta/batches/b", "", 200, &operation)
    };
    assert_eq!(complaints(&[operation("/name", json!("batches/b"))]), Vec::<String>::new());
    let error = |error: Value| exchange("GET", "/v1beta/batches/b", "", 404, &error);
    for (wrong, word) in [
        (operation("/metadata/state", json!("JOB_STATE_PENDING")), "names"),
        (operation("/metadata/createTime", json!("yesterday")), "datetime"),
        (operation("/metadata/batchStats", json!({"requestCount": 3})), "int64"),
        (operation("/metadata/batchStats", json!({"request_count": "3"})), "no such member"),
        (operation("/metadata/@type", json!("GenerateContentBatch")), "is a"),
        (operation("/name", json!(7)), "string"),
        (exchange("GET", "/v1beta/batches", "", 200, &json!({"batches": []})), "no such member"),
        (exchange("PUT", "/v1beta/batches/b", "", 200, &json!({})), "no such call"),
        (exchange("DELETE", "/v1beta/batches/b", "x", 200, &json!({})), "no body"),
        (exchange("DELETE", "/v1beta/batches/b", "", 200, &json!({"deleted": true})), "no such"),
        (error(json!({"error": {"code": 404, "message": "x", "status": "GONE"}})), "status"),
        (error(json!({"error": {"code": 400, "message": "x", "status": "NOT_FOUND"}})), "code"),
        (error(json!({"message": "x"})), "error"),
    ] {
        let found = complaints(std::slice::from_ref(&wrong));
        assert!(found.iter().any(|complaint| complaint.contains(word)), "{word}: {found:?}");
    }
}

#[test]
fn what_only_the_api_may_set_is_no_part_of_a_request() {
    let body = |batch: Value| json!({ "batch": batch });
    let sent =
        |value: &Value| document::complaints("BatchGenerateContentRequest", value, Writer::Client);
    let good =
        body(json!({"display_name": "d", "priority": 3, "inputConfig": {"file_name": "files/f"}}));
    assert_eq!(sent(&good), Vec::<String>::new());
    for wrong in [
        json!({"state": "BATCH_STATE_PENDING"}),
        json!({"displayname": "d"}),
        json!({"inputConfig": {"requests": [{"request": {}}]}}),
        json!({"inputConfig": {"requests": {"requests": [{"request": {"temperature": 1}}]}}}),
        json!({"priority": 1.5}),
    ] {
        assert_eq!(sent(&body(wrong.clone())).len(), 1, "{wrong}");
    }
}
