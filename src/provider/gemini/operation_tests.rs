//! Operations as they were captured (API contract, 3.9, 4.5, 5), and as the discovery document
//! describes them.

use serde_json::{Value, json};

use super::*;
use crate::engine::ids::{FileName, Millis};

fn batch(value: &Value) -> RemoteBatch {
    let operation = Operation::from_text(&value.to_string()).expect("readable");
    operation.into_batch().expect("usable")
}

/// Every member that the discovery document gives a schema, filled.
fn fill(schemas: &Value, schema: &Value, name: &str, depth: u32) -> Value {
    if let Some(reference) = schema["$ref"].as_str() {
        let inner = &schemas[reference];
        if depth > 8 || inner.is_null() {
            return json!({"text": "content"});
        }
        return fill(schemas, inner, name, depth + 1);
    }
    if let Some(states) = schema["enum"].as_array() {
        return states[3].clone();
    }
    match schema["type"].as_str() {
        Some("object") => {
            let members = schema["properties"].as_object().into_iter().flatten();
            members
                .map(|(key, inner)| (key.clone(), fill(schemas, inner, key, depth + 1)))
                .collect()
        }
        Some("array") => json!([fill(schemas, &schema["items"], name, depth + 1)]),
        Some("boolean") => json!(true),
        Some("integer") => json!(3),
        Some("string") => match (schema["format"].as_str(), name) {
            (Some("int64"), _) => json!("7"),
            (Some("google-datetime"), _) => json!("1970-01-01T00:00:02.000000001Z"),
            (_, "name") => json!("batches/abc"),
            (_, "fileName" | "responsesFile") => json!("files/abc"),
            (_, _) => json!("text"),
        },
        other => panic!("{name}: {other:?}"),
    }
}

#[test]
fn every_member_we_read_has_the_name_of_the_discovery_document() {
    let document: Value =
        serde_json::from_str(include_str!("../../../tests/fixtures/discovery-batch.json"))
            .expect("a fixture");
    let schemas = &document["schemas"];
    for (metadata, response) in [
        ("GenerateContentBatch", "GenerateContentBatchOutput"),
        ("GenerateContentBatch", "EmbedContentBatchOutput"),
    ] {
        let mut operation = fill(schemas, &schemas["Operation"], "", 0);
        operation["metadata"] = fill(schemas, &schemas[metadata], "", 0);
        operation["response"] = fill(schemas, &schemas[response], "", 0);
        let mut items = Vec::new();
        let mut sink = |item: &str| {
            items.push(item.to_owned());
            Ok(())
        };
        let text = operation.to_string();
        let read = Operation::read(text.as_bytes(), 1 << 20, Some(&mut sink)).expect("readable");
        assert_eq!(read.request_count, Some(7));
        assert_eq!(read.items, 1);
        assert_eq!(items.len(), 1, "one of two copies");
        let batch = read.into_batch().expect("usable");
        assert_eq!(batch.name.0, "batches/abc");
        assert_eq!(batch.display_name, "text");
        assert_eq!(batch.state, RemoteState::Succeeded);
        assert!(batch.done);
        assert_eq!(batch.error.expect("there").code, 3);
        assert_eq!((batch.created, batch.ended), (Some(Millis(2000)), Some(Millis(2000))));
        assert_eq!(batch.input_file, Some(FileName("files/abc".to_owned())));
        assert_eq!(batch.output_file, Some(FileName("files/abc".to_owned())));
    }
}

#[test]
fn the_answer_to_a_create_is_a_pending_batch() {
    let batch = batch(&json!({"name": "batches/abc", "metadata": {
        "@type": "type.googleapis.com/google.ai.generativelanguage.v1main.GenerateContentBatch",
        "model": "models/gemini-2.5-flash", "displayName": "d-7f3a",
        "createTime": "2025-12-10T18:27:01.407650525Z",
        "updateTime": "2025-12-10T18:27:01.407650525Z",
        "batchStats": {"requestCount": "3", "pendingRequestCount": "3"},
        "state": "BATCH_STATE_PENDING", "name": "batches/abc"}}));
    assert_eq!(batch.state, RemoteState::Pending);
    assert!(!batch.done && !batch.is_finished());
    assert_eq!(batch.created, Some(Millis(1_765_391_221_407)));
    assert_eq!(batch.display_name, "d-7f3a");
}

#[test]
fn a_finished_file_batch_names_its_results_in_either_place() {
    let output = json!({"responsesFile": "files/batch-abc"});
    for body in [
        json!({"name": "batches/abc", "metadata": {"output": output}, "done": true}),
        json!({"name": "batches/abc", "metadata": {}, "done": true, "response": output}),
        // An embedding batch with the whole batch as its response.
        json!({"name": "batches/abc", "done": true, "response": {"output": output}}),
    ] {
        let batch = batch(&body);
        assert_eq!(batch.output_file, Some(FileName("files/batch-abc".to_owned())));
        assert_eq!(batch.state, RemoteState::Succeeded);
    }
}

#[test]
fn the_state_wins_over_the_error_of_a_cancelled_batch() {
    let batch = batch(&json!({"name": "batches/abc", "done": true,
        "metadata": {"state": "BATCH_STATE_CANCELLED",
            "batchStats": {"requestCount": "4", "pendingRequestCount": "4"}},
        "error": {"code": 13, "message": "Batch abc failed without error."}}));
    assert_eq!(batch.state, RemoteState::Cancelled);
    assert_eq!(batch.error.expect("there").code, 13);
}

/// Fault 65.
#[test]
fn nulls_unknown_members_and_states_are_borne() {
    let batch = batch(&json!({"name": "batches/abc", "done": null, "error": null, "new": [1, {}],
        "response": null, "metadata": {"state": "JOB_STATE_PAUSED", "output": null,
            "inputConfig": {"fileName": null, "requests": [[]]}, "batchStats": null}}));
    assert_eq!(batch.state, RemoteState::Unknown("PAUSED".to_owned()).clone());
    assert!(!batch.done && batch.output_file.is_none() && batch.input_file.is_none());
}

/// Fault 60.
#[test]
fn a_wrong_type_is_an_error_and_no_panic() {
    for text in [
        "null",
        "[]",
        "7",
        "",
        "{",
        "{\"metadata\":7}",
        "{\"metadata\":[]}",
        "{\"done\":\"x\"}",
        "{\"response\":{\"inlinedResponses\":{\"inlinedResponses\":{}}}}",
        "{} {}",
    ] {
        assert!(Operation::from_text(text).is_err(), "{text}");
    }
    let deep = format!("{{\"x\":{}", "[".repeat(100_000));
    assert!(Operation::from_text(&deep).is_err());
}

#[test]
fn a_result_over_the_limit_is_refused_and_many_under_it_are_not() {
    let item = format!("{{\"t\":\"{}\"}}", "x".repeat(100));
    let many = vec![item.as_str(); 50].join(",");
    let text =
        format!("{{\"response\":{{\"inlinedResponses\":{{\"inlinedResponses\":[{many}]}}}}}}");
    let mut count = 0;
    let mut sink = |read: &str| {
        assert_eq!(read, item);
        count += 1;
        Ok(())
    };
    Operation::read(text.as_bytes(), 150, Some(&mut sink)).expect("each is short enough");
    assert_eq!(count, 50);
    let mut sink = |_: &str| Ok(());
    assert!(Operation::read(text.as_bytes(), 90, Some(&mut sink)).is_err());
}

#[test]
fn a_result_that_cannot_be_written_is_told_apart_from_a_bad_answer() {
    let text = r#"{"response":{"inlinedResponses":{"inlinedResponses":[{}]}}}"#;
    let mut sink = |_: &str| Err(io::Error::other("disk full"));
    let error = Operation::read(text.as_bytes(), 1000, Some(&mut sink)).expect_err("not written");
    assert!(matches!(error, ReadError::Sink(_)));
}
