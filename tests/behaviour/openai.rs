//! Lines in the OpenAI batch format, through the API's OpenAI-compatible layer.

use std::fs;

use gemini_batchd::daemon::{Message, Until};
use gemini_batchd::engine::event::Command;
use gemini_batchd::provider::gemini::emulator::faults::{CallKind, Ending, Ends, EveryNth, OnCall};
use gemini_batchd::provider::gemini::emulator::{Budget, Faults, Happened};
use serde_json::{Value, json};

use super::rig::{Rig, request, requests};

const CHAT: &str = "/v1/chat/completions";
const EMBEDDINGS: &str = "/v1/embeddings";
const EMBED: [&str; 2] = ["queue.v.task = \"embed\"", "queue.v.model = \"gemini-embedding-001\""];

fn line(id: Value, text: &str) -> Value {
    let messages = json!([{"role": "user", "content": text}]);
    let body = json!({"model": "gemini-2.5-flash", "messages": messages});
    json!({"custom_id": id, "method": "POST", "url": CHAT, "body": body})
}

fn chats(count: usize) -> String {
    (1..=count).map(|n| format!("{}\n", line(json!(format!("c{n}")), &format!("q {n}")))).collect()
}

fn said(result: &Value) -> &str {
    result["response"]["body"]["choices"][0]["message"]["content"].as_str().unwrap_or("")
}

fn ids(lines: &[Value]) -> Vec<Value> {
    lines.iter().map(|line| line["custom_id"].clone()).collect()
}

/// The file that each batch was made from.
fn files(rig: &Rig) -> Vec<String> {
    let made = |what| match what {
        Happened::Created { file, .. } => file,
        _ => None,
    };
    rig.emulator.journal().into_iter().filter_map(|entry| made(entry.what)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn chat_lines_come_back_as_openai_results_under_the_ids_of_their_writer() {
    let rig = Rig::new(Faults::default()).await;
    // Twice the same, a number, one with signs that need care, and none at all.
    let mut input = chats(1);
    for id in [json!("c1"), json!(7), json!("\"é\u{2028}")] {
        input += &format!("{}\n", line(id, "again"));
    }
    let mut nameless = line(json!(0), "nameless");
    nameless.as_object_mut().expect("an object").remove("custom_id");
    input += &format!("\n{nameless}\n");
    rig.drop_file("a.jsonl", input);
    rig.drain().await;

    let manifest = rig.manifest("a");
    assert_eq!(manifest["verdict"], "complete", "{manifest}");
    let batch = &manifest["batches"][0];
    assert_eq!(batch["input"], "file");
    assert!(batch["name"].as_str().is_some_and(|name| name.starts_with("openai/")), "{batch}");
    let tokens = &manifest["tokens"];
    for count in ["prompt", "output", "thinking", "total"] {
        assert!(tokens[count].as_u64().is_some_and(|count| count > 0), "{tokens}");
    }
    let results = rig.lines("a.results.jsonl");
    let expected = [json!("c1"), json!("c1"), json!(7), json!("\"é\u{2028}"), json!("line-6")];
    assert_eq!(ids(&results), expected);
    assert_eq!(said(&results[0]), "Echo of request: q 1");
    assert_eq!(said(&results[4]), "Echo of request: nameless");
    for result in &results {
        assert_eq!(
            (&result["error"], &result["response"]["status_code"]),
            (&json!(null), &json!(200))
        );
        assert!(result["id"].as_str().is_some_and(|id| id.starts_with("batch_req_")), "{result}");
        let usage = &result["response"]["body"]["usage"];
        assert!(usage["prompt_tokens"].is_u64() && usage["total_tokens"].is_u64(), "{usage}");
        assert_eq!(usage["promptTokens"], json!(null), "the layer's own name");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn embedding_lines_go_through_an_embed_queue() {
    let rig = Rig::with(Faults::default(), &EMBED).await;
    let body = json!({"model": "gemini-embedding-001", "input": ["a", "b"], "dimensions": 4});
    let vector = json!({"custom_id": "v", "method": "POST", "url": EMBEDDINGS, "body": body});
    rig.drop_file("v/a.jsonl", format!("{vector}\n{}\n", line(json!("c"), "x")));
    rig.drain().await;
    let results = rig.lines("v/a.results.jsonl");
    let data = &results[0]["response"]["body"]["data"];
    assert_eq!(data[1]["embedding"].as_array().map(Vec::len), Some(4), "{results:?}");
    let errors = rig.lines("v/a.errors.jsonl");
    assert_eq!((&errors[0]["custom_id"], &errors[0]["line"]), (&json!("c"), &json!(2)));
    assert_eq!(errors[0]["error"]["reason"], "other_task", "{errors:?}");
    assert!(rig.manifest("v/a")["tokens"]["prompt"].as_u64().is_some_and(|count| count > 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_two_families_is_refused_with_its_first_odd_line() {
    let rig = Rig::new(Faults::default()).await;
    rig.drop_file("a.jsonl", requests(2) + "\n" + &chats(2));
    rig.drop_file("b.jsonl", chats(2) + &request("k", "x"));
    // Also one that could not be sent anyway.
    let mut other = line(json!("c"), "x");
    other["body"]["model"] = json!("gpt-4o");
    rig.drop_file("c.jsonl", format!("{}{other}\n", requests(1)));
    rig.drain().await;
    for (name, place) in [("a", 4), ("b", 3), ("c", 2)] {
        let reason = rig.json(&format!("failed/{name}.jsonl.reason.json"));
        assert_eq!((&reason["reason"], &reason["line"]), (&json!("mixed_forms"), &json!(place)));
        assert!(reason["remedy"].as_str().is_some_and(|text| text.contains("files of their own")));
    }
    assert!(rig.creates().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_that_fail_can_be_dropped_back_as_they_are() {
    let code_13 = EveryNth { every: 2, times: Budget::times(1) };
    let faults = Faults { code_13, ..Faults::default() };
    let rig = Rig::with(faults, &["queue.default.attempts = 1"]).await;
    let mut other = line(json!("m"), "x");
    other["body"]["model"] = json!("gpt-4o");
    let mut bad = line(json!("b"), "x");
    bad["body"]["temperature"] = json!("hot");
    let input = format!("{}{other}\n{bad}\n{{\"custom_id\": \"j\", \n", chats(2));
    rig.drop_file("a.jsonl", &input);
    rig.drain().await;
    assert_eq!(ids(&rig.lines("a.results.jsonl")), [json!("c1")]);
    let errors = rig.lines("a.errors.jsonl");
    let reasons: Vec<&str> =
        errors.iter().map(|line| line["error"]["reason"].as_str().unwrap_or("?")).collect();
    assert_eq!(reasons, ["internal", "other_model", "api_error", "invalid_json"], "{errors:?}");
    let message = errors[1]["error"]["message"].as_str().unwrap_or_default();
    assert!(message.contains("gpt-4o") && message.contains("gemini-2.5-flash"), "{message}");
    for (error, number) in errors.iter().zip([2, 3, 4]) {
        let original: Value =
            serde_json::from_str(input.lines().nth(number - 1).expect("a line")).expect("JSON");
        for member in ["custom_id", "method", "url", "body"] {
            assert_eq!(error[member], original[member], "{member} of line {number}");
        }
        assert_eq!(error["line"], number);
    }

    let again = fs::read(rig.path("outbox/a.errors.jsonl")).expect("read");
    rig.drop_file("again.jsonl", again);
    rig.drain().await;
    assert_eq!(ids(&rig.lines("again.results.jsonl")), [json!("c2")]);
    let reasons: Vec<Value> = rig
        .lines("again.errors.jsonl")
        .iter()
        .map(|line| line["error"]["reason"].clone())
        .collect();
    assert_eq!(reasons, [json!("other_model"), json!("api_error"), json!("invalid_request")]);
}

async fn answered_with_one_create(faults: Faults) -> Value {
    let rig = Rig::new(faults).await;
    rig.drop_file("a.jsonl", chats(5));
    rig.drain().await;
    let manifest = rig.manifest("a");
    assert_eq!(manifest["answered"], 5, "{manifest}");
    assert_eq!(rig.creates().len(), 1);
    manifest
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_of_the_layer_whose_reply_was_lost_is_found_by_its_file_and_paid_once() {
    let after = Faults { create_503_after: Budget::times(1), ..Faults::default() };
    assert_eq!(answered_with_one_create(after).await["batches"][0]["adopted"], true);
    let cut = Faults { create_drop_after: Budget::times(1), ..Faults::default() };
    assert_eq!(answered_with_one_create(cut).await["batches"][0]["adopted"], true);
    let late = Faults {
        create_503_after: Budget::times(1),
        list_lag_ms: 200,
        html_502: Some(OnCall { call: Some(CallKind::List), times: Budget::times(1) }),
        ..Faults::default()
    };
    assert_eq!(answered_with_one_create(late).await["batches"][0]["adopted"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_create_in_the_layer_that_never_arrived_is_sent_again_with_a_file_of_its_own() {
    let faults = Faults { create_drop_before: Budget::times(1), ..Faults::default() };
    let rig = Rig::new(faults).await;
    rig.drop_file("a.jsonl", chats(3));
    rig.drain().await;
    let manifest = rig.manifest("a");
    assert_eq!(manifest["answered"], 3);
    assert!(manifest["warnings"].to_string().contains("sent again"), "{manifest}");
    assert!(files(&rig)[0].ends_with("-1-2"), "{:?}", files(&rig));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_list_a_create_in_doubt_waits_for_a_person_and_is_not_paid_twice() {
    let faults = Faults {
        create_503_after: Budget::times(1),
        openai_list_missing: true,
        ..Faults::default()
    };
    let rig = Rig::new(faults).await;
    rig.drop_file("a.jsonl", chats(5));
    rig.drain().await;
    assert_eq!(rig.creates().len(), 1);
    let reason = rig.json("held/a.jsonl.reason.json");
    assert_eq!(reason["reason"], "uncertain");
    let message = reason["message"].as_str().unwrap_or_default();
    assert!(message.contains("no list") && message.contains("404"), "{message}");
    // A restart changes nothing about it.
    rig.drain().await;
    assert_eq!(rig.creates().len(), 1);

    // The list is there after all: the batch is found, and nothing is sent.
    rig.emulator.set_faults(Faults::default());
    let setup = rig.setup();
    let handle = setup.daemon.handle();
    let id = handle.with_engine(|engine| engine.jobs().next().expect("the job").head.id);
    let released = async {
        handle.command(Command::Release(id)).await.expect("released");
        while !rig.path("outbox/a.manifest.json").exists() {
            tokio::task::yield_now().await;
        }
        handle.tell(Message::Stop).await;
    };
    let (ended, ()) = tokio::join!(setup.daemon.run(Until::Stopped), released);
    ended.expect("it ends");
    assert_eq!(rig.manifest("a")["answered"], 5);
    assert_eq!(rig.creates().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_goes_on_with_a_batch_of_the_layer() {
    let rig = Rig::new(Faults { no_output_gets: 2, ..Faults::default() }).await;
    rig.drop_file("a.jsonl", chats(5));
    rig.run_until(|rig| rig.creates().len() == 1).await;
    rig.drain().await;
    assert_eq!(rig.manifest("a")["answered"], 5);
    assert_eq!(rig.creates().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_batch_of_the_layer_did_not_answer_is_sent_again_alone() {
    let ends = |state, fraction| Faults {
        ends: Some(Ends { state, fraction, times: Budget::times(1) }),
        code_13: EveryNth { every: 3, times: Budget::times(1) },
        shuffled: Budget::Always,
        repeated: EveryNth { every: 4, times: Budget::Always },
        foreign: EveryNth { every: 5, times: Budget::Always },
        ..Faults::default()
    };
    for (state, fraction) in
        [(Ending::Expired, 0.5), (Ending::Cancelled, 0.4), (Ending::Failed, 0.0)]
    {
        let rig = Rig::new(ends(state, fraction)).await;
        rig.drop_file("a.jsonl", chats(10));
        rig.drain().await;
        let manifest = rig.manifest("a");
        assert_eq!(manifest["answered"], 10, "{manifest}");
        let expected: Vec<Value> = (1..=10).map(|n| json!(format!("c{n}"))).collect();
        assert_eq!(ids(&rig.lines("a.results.jsonl")), expected);
        let files = files(&rig);
        let distinct: std::collections::BTreeSet<&String> = files.iter().collect();
        assert!(files.len() > 1 && distinct.len() == files.len(), "{files:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn truncated_and_blocked_chats_count_as_native_ones_do() {
    let rig = Rig::new(Faults {
        blocked: EveryNth { every: 2, times: Budget::Always },
        truncated: EveryNth { every: 3, times: Budget::Always },
        ..Faults::default()
    })
    .await;
    rig.drop_file("a.jsonl", chats(3));
    rig.drain().await;
    let manifest = rig.manifest("a");
    assert_eq!((&manifest["answered"], &manifest["truncated"]), (&json!(2), &json!(1)));
    assert_eq!(manifest["failures"], json!({"blocked": 1}));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_job_stops_its_batch_in_the_layer() {
    let rig = Rig::new(Faults { stuck_pending: Budget::times(1), ..Faults::default() }).await;
    rig.drop_file("a.jsonl", chats(3));
    rig.run_until(|rig| rig.creates().len() == 1).await;
    let setup = rig.setup();
    let handle = setup.daemon.handle();
    let id = handle.with_engine(|engine| engine.jobs().next().expect("the job").head.id);
    let cancelled = async {
        handle.command(Command::Cancel(id)).await.expect("cancelled");
        while !rig.path("outbox/a.manifest.json").exists() {
            tokio::task::yield_now().await;
        }
        handle.tell(Message::Stop).await;
    };
    let (ended, ()) = tokio::join!(setup.daemon.run(Until::Stopped), cancelled);
    ended.expect("it ends");
    assert_eq!(rig.manifest("a")["verdict"], "cancelled");
    let asked = |what: &Happened| matches!(what, Happened::CancelAsked { .. });
    assert!(rig.emulator.journal().iter().any(|entry| asked(&entry.what)));
}

const TRANSLATE: &str = "queue.default.openai = \"translate\"";

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_translates_sends_native_requests_and_brings_native_results() {
    let rig = Rig::with(Faults::default(), &[TRANSLATE]).await;
    let mut json = line(json!("j"), "shape");
    json["body"]["response_format"] = json!({"type": "json_object"});
    // Native lines may stand beside them.
    rig.drop_file("a.jsonl", format!("{}\n{json}\n{}", chats(2), request("k", "native")));
    rig.drain().await;
    let manifest = rig.manifest("a");
    assert_eq!(manifest["verdict"], "complete", "{manifest}");
    let name = manifest["batches"][0]["name"].as_str().unwrap_or_default();
    assert!(name.starts_with("batches/"), "{manifest}");
    let results = rig.lines("a.results.jsonl");
    let keys: Vec<&str> = results.iter().map(|line| line["key"].as_str().unwrap_or("?")).collect();
    assert_eq!(keys, ["c1", "c2", "j", "k"]);
    assert_eq!(super::rig::text(&results[0]), "Echo of request: q 1");
    assert_eq!(super::rig::text(&results[2]), r#"{"echo":"shape"}"#);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_be_translated_fails_with_the_name_of_the_member() {
    let rig = Rig::with(Faults::default(), &[TRANSLATE]).await;
    let mut biased = line(json!("b"), "x");
    biased["body"]["logit_bias"] = json!({"5": 1});
    let mut other = line(json!("m"), "x");
    other["body"]["model"] = json!("gpt-4o");
    rig.drop_file("a.jsonl", format!("\n{}{biased}\n{other}\n", chats(1)));
    rig.drain().await;
    assert_eq!(rig.lines("a.results.jsonl").len(), 1);
    let errors = rig.lines("a.errors.jsonl");
    let told: Vec<(Value, Value, Value)> = errors
        .iter()
        .map(|line| (line["key"].clone(), line["line"].clone(), line["error"]["reason"].clone()))
        .collect();
    let expected = [
        (json!("b"), json!(3), json!("invalid_request")),
        (json!("m"), json!(4), json!("other_model")),
    ];
    assert_eq!(told, expected, "{errors:?}");
    let message = errors[0]["error"]["message"].as_str().unwrap_or_default();
    assert!(message.contains("body.logit_bias") && message.contains("layer"), "{message}");
    assert_eq!(errors[0]["request"], biased, "what was asked");
}

#[tokio::test(flavor = "multi_thread")]
async fn embeddings_are_translated_too_and_defaults_come_on_top() {
    let settings = [
        EMBED[0],
        EMBED[1],
        "queue.v.openai = \"translate\"",
        "queue.v.defaults = '{\"outputDimensionality\": 8}'",
    ];
    let rig = Rig::with(Faults::default(), &settings).await;
    let vector = |id: &str, more: Value| {
        let mut body = json!({"model": "gemini-embedding-001", "input": id});
        body["dimensions"] = more;
        format!("{}\n", json!({"custom_id": id, "url": EMBEDDINGS, "body": body}))
    };
    rig.drop_file("v/a.jsonl", vector("own", json!(4)) + &vector("queue", json!(null)));
    rig.drain().await;
    let results = rig.lines("v/a.results.jsonl");
    let values = |line: &Value| line["response"]["embedding"]["values"].as_array().map(Vec::len);
    assert_eq!(results.iter().map(values).collect::<Vec<_>>(), [Some(4), Some(8)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn defaults_of_a_queue_leave_lines_for_the_layer_alone() {
    let defaults = "queue.default.defaults = '{\"generationConfig\": {\"temperature\": 0.5}}'";
    let rig = Rig::with(Faults::default(), &[defaults]).await;
    let mut bad = line(json!("b"), "x");
    bad["url"] = json!("/v1/responses");
    rig.drop_file("a.jsonl", format!("{}{bad}\n", chats(2)));
    rig.drain().await;
    let results = rig.lines("a.results.jsonl");
    assert_eq!(ids(&results), [json!("c1"), json!("c2")]);
    let errors = rig.lines("a.errors.jsonl");
    assert_eq!((&errors[0]["custom_id"], &errors[0]["url"]), (&json!("b"), &bad["url"]));
    assert_eq!(errors[0]["body"], bad["body"], "{errors:?}");
}
