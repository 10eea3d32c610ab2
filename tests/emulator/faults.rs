//! Every other fault does what it says, as often as its budget allows.

use gemini_batchd::provider::gemini::emulator::Happened;
use serde_json::{Value, json};

use crate::support::{keys, path_of, world};

#[tokio::test]
async fn creates_that_fail_before_make_no_batch() {
    let world = world("create_429 = 1").await;
    let answer = world.create_inline(&["a"]).await;
    assert_eq!(answer.error().1, "RESOURCE_EXHAUSTED");
    assert_eq!(answer.json()["error"].get("details"), None);
    world.set_faults("create_503_before = 1");
    assert_eq!(world.create_inline(&["a"]).await.error().1, "UNAVAILABLE");
    world.set_faults("create_drop_before = 1");
    assert!(world.try_create_inline(&["a"]).await.is_err());
    assert_eq!(world.created(), 0);
    let refused = |what: &&Happened| matches!(what, Happened::CreateRefused { .. });
    assert_eq!(world.happened().iter().filter(refused).count(), 3);
    world.create_inline(&["a"]).await.ok();
}

#[tokio::test]
async fn creates_that_fail_after_make_exactly_one_batch() {
    let world = world("create_503_after = 1").await;
    assert_eq!(world.create_inline(&["a"]).await.status, 503);
    assert_eq!(world.created(), 1);
    world.set_faults("create_drop_after = 1");
    assert!(world.try_create_inline(&["b"]).await.is_err());
    assert_eq!(world.created(), 2);
    assert_eq!(world.listed().await.len(), 2);
}

#[tokio::test]
async fn html_denials_and_arrays_strike_the_calls_they_are_aimed_at() {
    let world = world("html_502 = { call = \"list\", times = 1 }").await;
    let created = world.create_inline(&["a"]).await.ok();
    let html = world.get("/v1beta/batches?pageSize=100").await;
    assert_eq!(html.status, 502);
    assert!(html.text().starts_with("<!DOCTYPE html>"));
    assert_eq!(world.listed().await.len(), 1);
    world.set_faults("denied = { status = 401, times = 1 }");
    assert_eq!(world.get(&path_of(&created)).await.error().1, "UNAUTHENTICATED");
    world.set_faults("array_errors = true");
    let array = world.get("/v1beta/batches/none").await.json();
    assert_eq!(array[0]["error"]["code"], 404);
    world.set_faults("slow = { ms = 30, call = \"get\" }");
    let began = std::time::Instant::now();
    world.get(&path_of(&created)).await.ok();
    assert!(began.elapsed().as_millis() >= 30);
}

#[tokio::test]
async fn lists_lag_start_empty_and_tell_stale_counts() {
    let world = world("list_lag_ms = 60000").await;
    let created = world.create_from_file(&["a", "b"]).await;
    world.advance(59);
    assert_eq!(world.listed().await, Vec::<Value>::new());
    assert_eq!(world.batch(&created).await["done"], true, "get does not lag");
    world.advance(1);
    assert_eq!(world.listed().await.len(), 1);

    world.set_faults("list_empty_first_page = 1");
    let first = world.get("/v1beta/batches?pageSize=100").await.ok();
    let token = first["nextPageToken"].as_str().expect("a token");
    assert_eq!(first.get("operations"), None);
    let second = world.get(&format!("/v1beta/batches?pageSize=100&pageToken={token}")).await.ok();
    assert_eq!(second["operations"].as_array().map(Vec::len), Some(1));

    world.set_faults("list_stale_stats = true\nlist_needs_page_size = true");
    let listed = &world.listed().await[0];
    assert_eq!(listed["metadata"]["state"], "BATCH_STATE_SUCCEEDED");
    assert_eq!(
        listed["metadata"]["batchStats"],
        json!({"requestCount": "2", "pendingRequestCount": "2"})
    );
    assert!(listed["metadata"]["output"]["responsesFile"].is_string());
    assert_eq!(world.get("/v1beta/batches").await.ok(), json!({}));
}

#[tokio::test]
async fn results_can_be_missing_repeated_foreign_and_shuffled() {
    let world = world("missing = { every = 3, times = 1 }").await;
    let first = world.create_from_file(&["a", "b", "c", "d"]).await;
    world.advance(20);
    assert_eq!(keys(&world.lines(&first).await), ["1", "2", "4"]);
    world.set_faults("repeated = { every = 2 }\nforeign = { every = 4 }\nkeyless = { every = 3 }");
    let second = world.create_from_file(&["a", "b", "c", "d"]).await;
    world.advance(20);
    let found = keys(&world.lines(&second).await);
    assert_eq!(found, ["1", "2", "2", "-", "4", "4", "foreign-4"]);
    world.set_faults("shuffled = 1");
    let questions: Vec<String> = (0..30).map(|n| n.to_string()).collect();
    let questions: Vec<&str> = questions.iter().map(String::as_str).collect();
    let third = world.create_from_file(&questions).await;
    world.advance(20);
    let found = keys(&world.lines(&third).await);
    let mut sorted: Vec<u32> = found.iter().map(|key| key.parse().expect("a number")).collect();
    assert_ne!(sorted.first().zip(sorted.last()), Some((&1, &30)));
    sorted.sort_unstable();
    assert!(sorted.into_iter().eq(1..=30));
}

#[tokio::test]
async fn rows_can_fail_be_blocked_and_be_truncated() {
    let faults = "code_13 = { every = 2 }\ncode_13_first_only = true\n\
        blocked = { every = 3 }\ntruncated = { every = 5 }";
    let world = world(faults).await;
    let questions = ["a", "b", "c", "d", "long enough to be cut"];
    let first = world.create_from_file(&questions).await;
    world.advance(20);
    let lines = world.lines(&first).await;
    assert_eq!(lines[1]["error"]["code"], 13);
    assert_eq!(lines[2]["response"]["promptFeedback"]["blockReason"], "PROHIBITED_CONTENT");
    assert_eq!(lines[2]["response"].get("candidates"), None);
    assert_eq!(lines[4]["response"]["candidates"][0]["finishReason"], "MAX_TOKENS");
    let stats = &world.batch(&first).await["metadata"]["batchStats"];
    assert_eq!(
        stats,
        &json!({"requestCount": "5", "successfulRequestCount": "3", "failedRequestCount": "2"})
    );
    let second = world.create_from_file(&questions).await;
    world.advance(20);
    let lines = world.lines(&second).await;
    assert!(lines.iter().all(|line| line.get("error").is_none()), "struck once, spared then");
}

#[tokio::test]
async fn downloads_are_cut_or_end_short_and_ranges_are_honoured_if_asked() {
    let world = world("download_cut = { after = 100, times = 1 }").await;
    let created = world.create_from_file(&["a", "b", "c"]).await;
    world.advance(20);
    let batch = world.batch(&created).await;
    let file = batch["metadata"]["output"]["responsesFile"].as_str().expect("results");
    let path = format!("/download/v1beta/{file}:download?alt=media");
    let cut = world.try_send(reqwest::Method::GET, &path, &[], "").await;
    assert!(cut.is_err(), "{cut:?}");
    let whole = world.get(&path).await.body;
    world.set_faults("download_short = { after = 100, times = 1 }");
    assert_eq!(world.get(&path).await.body, &whole[..100]);
    let range = [("range", "bytes=100-")];
    let ignored = world.try_send(reqwest::Method::GET, &path, &range, "").await.expect("answered");
    assert_eq!((ignored.status, &ignored.body), (200, &whole));
    world.set_faults("download_ranges = true");
    let part = world.try_send(reqwest::Method::GET, &path, &range, "").await.expect("answered");
    assert_eq!((part.status, part.body.as_slice()), (206, &whole[100..]));
    let expected = format!("bytes 100-{}/{}", whole.len() - 1, whole.len());
    assert_eq!(part.header("content-range"), Some(expected.as_str()));
}

#[tokio::test]
async fn batches_end_otherwise_with_what_was_served() {
    let world = world("ends = { state = \"expired\", fraction = 0.5, times = 1 }").await;
    let first = world.create_from_file(&["a", "b", "c", "d"]).await;
    let second = world.create_inline(&["a", "b"]).await.ok();
    world.advance(20);
    let expired = world.batch(&first).await;
    assert_eq!(expired["metadata"]["state"], "BATCH_STATE_EXPIRED");
    assert!(expired["error"].is_object() && expired.get("response").is_none());
    assert_eq!(keys(&world.lines(&first).await), ["1", "2"]);
    assert_eq!(world.batch(&second).await["metadata"]["state"], "BATCH_STATE_SUCCEEDED");
    world.set_faults("ends = { state = \"cancelled\", fraction = 0.5 }");
    let third = world.create_inline(&["a", "b"]).await.ok();
    world.advance(20);
    let cancelled = world.batch(&third).await;
    assert_eq!(cancelled["metadata"]["state"], "BATCH_STATE_CANCELLED");
    let items = &cancelled["metadata"]["output"]["inlinedResponses"]["inlinedResponses"];
    assert_eq!(items.as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn a_poisoned_row_fails_its_batch_or_its_create_without_being_named() {
    let world = world("poison = { text = \"arsenic\", code = 8, message = \"quota\" }").await;
    let poisoned = world.create_from_file(&["a", "arsenic"]).await;
    let clean = world.create_from_file(&["a"]).await;
    world.advance(20);
    let failed = world.batch(&poisoned).await;
    assert_eq!(failed["metadata"]["state"], "BATCH_STATE_FAILED");
    assert_eq!(failed["error"], json!({"code": 8, "message": "quota"}));
    assert_eq!(world.batch(&clean).await["metadata"]["state"], "BATCH_STATE_SUCCEEDED");
    world.set_faults("create_opaque_400 = \"arsenic\"");
    let refused = world.create_inline(&["a", "arsenic"]).await.error();
    assert_eq!((refused.0, refused.2.as_str()), (400, "Request contains an invalid argument."));
    world.create_inline(&["a"]).await.ok();
}

#[tokio::test]
async fn batches_vanish_or_hide_their_output() {
    let world = world("vanish = 1").await;
    let gone = world.create_inline(&["a"]).await.ok();
    assert_eq!(world.batch(&gone).await["metadata"]["state"], "BATCH_STATE_PENDING");
    world.advance(10);
    assert_eq!(world.get(&path_of(&gone)).await.error().0, 404);
    assert_eq!(world.listed().await, Vec::<Value>::new());

    world.set_faults("no_output_gets = 2\nfrozen_stats = true");
    let hidden = world.create_from_file(&["a", "b"]).await;
    world.advance(15);
    let running = world.batch(&hidden).await;
    assert_eq!(running["metadata"]["batchStats"]["pendingRequestCount"], "2", "frozen");
    world.advance(5);
    for shown in [false, false, true] {
        let batch = world.batch(&hidden).await;
        assert_eq!(batch["metadata"]["state"], "BATCH_STATE_SUCCEEDED");
        assert_eq!(batch["metadata"].get("output").is_some(), shown);
        assert_eq!(batch.get("response").is_some(), shown);
    }
}

#[tokio::test]
async fn faults_are_set_over_http_and_unknown_ones_are_refused() {
    let world = world("").await;
    world.post("/emulator/faults", &json!({"create_429": 1})).await.ok();
    assert_eq!(world.get("/emulator/faults").await.ok()["create_429"], 1);
    assert_eq!(world.create_inline(&["a"]).await.status, 429);
    assert_eq!(world.get("/emulator/faults").await.ok()["create_429"], 0);
    let refused = world.post("/emulator/faults", &json!({"create_428": 1})).await;
    assert!(refused.error().2.contains("create_428"));
}
