//! Batches: create, get, list, cancel, delete; what is refused; the journal.

use gemini_batchd::provider::gemini::emulator::{Happened, InputKind, Options};
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{MODEL, assert_fits, file_of, keys, path_of, request, world, world_with};

#[tokio::test]
async fn a_create_answers_with_a_pending_operation() {
    let world = world("").await;
    let operation = world.create_inline(&["a", "b", "c"]).await.ok();
    let name = operation["name"].as_str().expect("a name");
    assert_eq!(name.len(), "batches/".len() + 36);
    let time = "2026-09-21T14:13:20.123456789Z";
    let expected = json!({
        "name": name,
        "metadata": {
            "@type": "type.googleapis.com/google.ai.generativelanguage.v1main.GenerateContentBatch",
            "model": "models/gemini-2.5-flash",
            "displayName": "d-2",
            "createTime": time,
            "updateTime": time,
            "batchStats": {"requestCount": "3", "pendingRequestCount": "3"},
            "state": "BATCH_STATE_PENDING",
            "name": name,
        }
    });
    assert_eq!(operation, expected);
    assert_fits("Operation", &operation);
    assert_fits("GenerateContentBatch", &operation["metadata"]);
}

#[tokio::test]
async fn a_file_batch_runs_and_its_results_are_downloaded_on_both_paths() {
    let world = world("").await;
    let created = world.create_from_file(&["一", "two", "three", "four"]).await;
    assert!(created["metadata"]["inputConfig"]["fileName"].as_str().is_some());
    world.advance(15);
    let running = world.batch(&created).await;
    assert_eq!(running["metadata"]["state"], "BATCH_STATE_RUNNING");
    assert_eq!(running["metadata"]["batchStats"]["successfulRequestCount"], "2");
    assert_eq!(running.get("done"), None);
    world.advance(5);
    let done = world.batch(&created).await;
    assert_eq!(done["done"], true);
    assert_eq!(done["metadata"]["state"], "BATCH_STATE_SUCCEEDED");
    assert_eq!(
        done["metadata"]["batchStats"],
        json!({"requestCount": "4", "successfulRequestCount": "4"})
    );
    let file = done["metadata"]["output"]["responsesFile"].as_str().expect("results").to_owned();
    assert_eq!(file, format!("files/batch-{}", &done["name"].as_str().expect("a name")[8..]));
    assert_eq!(done["response"]["responsesFile"], file);
    assert_fits("GenerateContentBatch", &done["metadata"]);
    assert_fits("GenerateContentBatchOutput", &done["response"]);

    let lines = world.lines(&created).await;
    assert_eq!(keys(&lines), ["1", "2", "3", "4"]);
    assert_eq!(
        lines[0]["response"]["candidates"][0]["content"]["parts"][0]["text"],
        "Echo of request: 一"
    );
    for line in &lines {
        assert_fits("GenerateContentResponse", &line["response"]);
    }
    let one = world.get(&format!("/v1beta/{file}:download?alt=media")).await;
    let other = world.get(&format!("/download/v1/{file}:download?alt=media")).await;
    assert_eq!(one.body, other.body);
    assert!(one.text().contains("一"), "non-ASCII text is raw");
    let deleted = world.delete(&format!("/v1beta/{file}")).await;
    assert_eq!(deleted.error().0, 400, "only its batch frees a result file");
    world.delete(&path_of(&created)).await.ok();
    let gone = world.get(&format!("/v1beta/{file}:download?alt=media")).await;
    assert_eq!(gone.error().0, 403);
}

#[tokio::test]
async fn inline_results_stand_in_both_places_of_get_and_in_none_of_list() {
    let world = world("").await;
    let created = world.create_inline(&["first", "第二"]).await.ok();
    world.advance(20);
    let done = world.batch(&created).await;
    let items = &done["metadata"]["output"]["inlinedResponses"]["inlinedResponses"];
    assert_eq!(items, &done["response"]["inlinedResponses"]["inlinedResponses"]);
    assert_eq!(items[1]["metadata"], json!({"key": "2"}));
    assert_eq!(
        items[1]["response"]["candidates"][0]["content"]["parts"][0]["text"],
        "Echo of request: 第二"
    );
    assert_fits("GenerateContentBatch", &done["metadata"]);
    assert_eq!(done["metadata"].get("inputConfig"), None);
    let listed = &world.listed().await[0];
    assert_eq!(listed["done"], true);
    assert_eq!((listed.get("response"), listed["metadata"].get("output")), (None, None));
    let compact = world.get(&format!("{}?prettyPrint=false", path_of(&created))).await;
    assert_eq!(compact.text().lines().count(), 1);
    assert_eq!(compact.json(), done);
    let some = world.get(&format!("{}?fields=name,done", path_of(&created))).await.ok();
    assert_eq!(some, json!({"name": done["name"], "done": true}));
}

#[tokio::test]
async fn a_list_is_newest_first_and_paged() {
    let world = world("").await;
    assert_eq!(world.get("/v1/batches?pageSize=2").await.ok(), json!({}));
    let mut names = Vec::new();
    for question in ["a", "b", "c", "d", "e"] {
        names.insert(0, world.create_inline(&[question]).await.ok()["name"].clone());
    }
    let (mut seen, mut token) = (Vec::new(), String::new());
    loop {
        let page = world.get(&format!("/v1/batches?pageSize=2&pageToken={token}")).await.ok();
        assert_fits("ListOperationsResponse", &page);
        let operations = page["operations"].as_array().expect("a list");
        seen.extend(operations.iter().map(|operation| operation["name"].clone()));
        match page["nextPageToken"].as_str() {
            Some(next) => token = next.to_owned(),
            None => break,
        }
    }
    assert_eq!(seen, names);
    assert_eq!(world.get("/v1beta/batches?pageToken=nonsense").await.error().0, 400);
    assert_eq!(world.get("/v1beta/batches?filter=x").await.error().1, "UNIMPLEMENTED");
    assert_eq!(world.get("/v1beta/batches?page=2").await.error().0, 400);
}

#[tokio::test]
async fn a_cancel_before_the_start_ends_cancelled_and_while_running_ends_succeeded() {
    let world = world("").await;
    let early = world.create_from_file(&["a", "b"]).await;
    let late = world.create_from_file(&["a", "b", "c", "d"]).await;
    assert_eq!(
        world.post(&format!("{}:cancel", path_of(&early)), &json!({})).await.ok(),
        json!({})
    );
    world.advance(15);
    let ended = world.batch(&early).await;
    let id = ended["name"].as_str().expect("a name")[8..].to_owned();
    assert_eq!(ended["metadata"]["state"], "BATCH_STATE_CANCELLED");
    assert_eq!(
        ended["error"],
        json!({"code": 13, "message": format!("Batch {id} failed without error.")})
    );
    assert_eq!(
        ended["metadata"]["batchStats"],
        json!({"requestCount": "2", "pendingRequestCount": "2"})
    );
    assert_eq!((ended.get("response"), ended["metadata"].get("output")), (None, None));

    world.post(&format!("{}:cancel", path_of(&late)), &json!({})).await.ok();
    world.advance(1);
    assert_eq!(world.batch(&late).await["metadata"]["state"], "BATCH_STATE_RUNNING");
    world.advance(1);
    let ended = world.batch(&late).await;
    assert_eq!(ended["metadata"]["state"], "BATCH_STATE_SUCCEEDED");
    assert_eq!(ended["metadata"]["batchStats"]["failedRequestCount"], "2");
    let lines = world.lines(&late).await;
    let codes: Vec<&Value> = lines.iter().map(|line| &line["error"]["code"]).collect();
    assert_eq!(codes, [&Value::Null, &Value::Null, &json!(1), &json!(1)]);
    let refused = world.get(&format!("{}:cancel", path_of(&late))).await;
    assert_eq!(refused.status, 404, "a GET does not cancel");
}

#[tokio::test]
async fn a_batch_that_takes_two_days_expires() {
    let world = world("stuck_pending = 1").await;
    let stuck = world.create_inline(&["a"]).await.ok();
    world.advance(48 * 3600 - 1);
    assert_eq!(world.batch(&stuck).await["metadata"]["state"], "BATCH_STATE_PENDING");
    world.advance(1);
    let expired = world.batch(&stuck).await;
    assert_eq!(expired["metadata"]["state"], "BATCH_STATE_EXPIRED");
    assert_eq!((&expired["done"], expired.get("response")), (&json!(true), None));
}

#[tokio::test]
async fn a_deleted_or_foreign_batch_is_not_found() {
    let mut world = world("").await;
    let created = world.create_inline(&["a"]).await.ok();
    world.key = "another-key";
    assert_eq!(world.get(&path_of(&created)).await.error().0, 404);
    assert_eq!(world.listed().await, Vec::<Value>::new());
    world.key = "key-of-a-test";
    assert_eq!(world.delete(&path_of(&created)).await.ok(), json!({}));
    assert_eq!(world.get(&path_of(&created)).await.error().1, "NOT_FOUND");
    assert_eq!(world.delete(&path_of(&created)).await.status, 404);
}

#[tokio::test]
async fn keys_are_asked_for_and_judged() {
    let options = Options { bad_keys: vec!["bad".to_owned()], ..Options::default() };
    let world = world_with("", options).await;
    let url = format!("{}/v1beta/batches", world.emulator.url());
    let status = |query: &str| {
        let request = world.client.get(format!("{url}{query}"));
        async { request.send().await.expect("an answer").status().as_u16() }
    };
    assert_eq!(status("").await, 403);
    assert_eq!(status("?key=good").await, 200);
    assert_eq!(status("?key=bad").await, 400);
    let answer = world.client.get(&url).header("x-goog-api-key", "bad").send().await;
    let body: Value = serde_json::from_str(&answer.expect("an answer").text().await.expect("text"))
        .expect("JSON");
    assert_eq!(body["error"]["details"][0]["reason"], "API_KEY_INVALID");
}

#[tokio::test]
async fn bad_creates_are_refused_and_make_no_batch() {
    let world = world("").await;
    let path = format!("/v1beta/models/{MODEL}:batchGenerateContent");
    let row = |request: Value| json!({"batch": {"inputConfig": {"requests": {"requests": [{"request": request}]}}}});
    let answer = world
        .post(&path, &row(json!({"contents": [], "generation_config": {"thinkingBudget": 1}})))
        .await;
    let (status, name, message) = answer.error();
    assert_eq!((status, name.as_str()), (400, "INVALID_ARGUMENT"));
    assert_eq!(
        message,
        "Invalid JSON payload received. Unknown name \"thinkingBudget\" at \
         'batch.input_config.requests.requests[0].request.generation_config': Cannot find field."
    );
    let details = &answer.json()["error"]["details"][0];
    assert_eq!(details["fieldViolations"].as_array().map(Vec::len), Some(1));

    let unknown = world.post("/v1beta/models/gpt:batchGenerateContent", &row(request("x"))).await;
    assert_eq!(unknown.error().1, "NOT_FOUND");
    assert_eq!(world.create_of(&json!("files/none")).await.error().0, 404);
    let large = vec![b' '; 20_971_521];
    let large = world.try_send(Method::POST, &path, &[], large).await.expect("an answer");
    let (status, _, message) = large.error();
    assert_eq!(
        (status, message.as_str()),
        (400, "Request payload size exceeds the limit: 20971520 bytes.")
    );

    let bad = format!("{}{}", file_of(&["good"]), "{\"key\":\"2\",\"request\":{\"foo\":1}}\n[]\n");
    let file = world.upload(bad.as_bytes()).await;
    let (status, _, message) = world.create_of(&file["name"]).await.error();
    assert_eq!(status, 400);
    let errors: Vec<&str> = message.lines().collect();
    assert_eq!(errors.len(), 2);
    assert!(errors[0].starts_with("Error on line 2: invalid JSON, near column "), "{message}");
    assert!(errors[0].ends_with(": no such field: 'foo'"), "{message}");
    assert!(errors[1].starts_with("Error on line 3: "), "{message}");
    assert_eq!(world.created(), 0);
    assert_eq!(world.listed().await, Vec::<Value>::new());
}

#[tokio::test]
async fn the_journal_tells_who_did_what_without_a_key() {
    let world = world("").await;
    let created = world.create_from_file(&["a", "b"]).await;
    world.post(&format!("{}:cancel", path_of(&created)), &json!({})).await.ok();
    world.delete(&path_of(&created)).await.ok();
    let happened = world.happened();
    let batch = created["name"].as_str().expect("a name").to_owned();
    let made = happened.iter().find_map(|what| {
        if let Happened::Created { batch, display_name, rows, input, .. } = what {
            Some((batch.clone(), display_name.clone(), *rows, *input))
        } else {
            None
        }
    });
    assert_eq!(made, Some((batch.clone(), "d-1".to_owned(), 2, InputKind::File)));
    assert!(happened.contains(&Happened::CancelAsked { batch: batch.clone() }));
    assert!(happened.contains(&Happened::BatchDeleted { batch }));
    let shown = world.get("/emulator/journal").await.text();
    assert!(shown.contains("\"what\": \"created\"") && !shown.contains(world.key), "{shown}");
}

#[tokio::test]
async fn what_is_not_emulated_is_refused_with_501() {
    let world = world("").await;
    for path in [
        "/v1beta/models/gemini-embedding-001:batchEmbedContents",
        "/v1beta/openai/chat/completions",
        "/v1beta/models/gemini-2.5-flash:streamGenerateContent",
    ] {
        assert_eq!(world.post(path, &json!({})).await.error().1, "UNIMPLEMENTED", "{path}");
    }
    assert_eq!(world.get("/v3/batches").await.status, 404);
    let model = world.get("/v1beta/models/gemini-2.5-pro").await.ok();
    assert_fits("Model", &model);
}

#[tokio::test]
async fn a_create_is_pending_however_soon_it_ends_and_ids_repeat_with_the_seed() {
    let mut names = Vec::new();
    for _ in 0..2 {
        let world = world("").await;
        names.push(world.create_inline(&["a"]).await.ok()["name"].clone());
        world.emulator.stop().await;
    }
    assert_eq!(names[0], names[1]);
    let options = Options {
        pending_for: std::time::Duration::ZERO,
        running_for: std::time::Duration::ZERO,
        ..Options::default()
    };
    let emulator =
        gemini_batchd::provider::gemini::emulator::start(options).await.expect("started");
    let mut world = world("").await;
    world.emulator = emulator;
    let created = world.create_inline(&["a"]).await.ok();
    assert_eq!(created["metadata"]["state"], "BATCH_STATE_PENDING");
    assert_eq!(world.batch(&created).await["metadata"]["state"], "BATCH_STATE_SUCCEEDED");
}
