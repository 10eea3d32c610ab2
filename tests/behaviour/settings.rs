//! Settings of queues and of single files: defaults under each request, and sidecars.

use std::fs;

use gemini_batchd::daemon::{Message, Until};
use gemini_batchd::engine::event::Command;
use gemini_batchd::provider::gemini::emulator::{Faults, Happened};
use serde_json::{Value, json};

use super::rig::{Rig, keys, request, requests, text};

const BRIEF: &str = r#"queue.default.defaults = '{"generationConfig": {"maxOutputTokens": 2, "temperature": 0.10}}'"#;

fn model(line: &Value) -> &str {
    line["response"]["modelVersion"].as_str().unwrap_or("")
}

fn is_cut_off(line: &Value) -> bool {
    line["response"]["candidates"][0]["finishReason"] == "MAX_TOKENS"
}

/// Three requests, of which the second says itself how long its answer may be, and the third is
/// none.
fn three() -> String {
    let own = json!({"key": "own", "request": {
        "contents": [{"role": "user", "parts": [{"text": "a question of some length"}]}],
        "generation_config": {"max_output_tokens": 500}}});
    request("bare", "a question of some length") + "\n" + &format!("{own}\n") + "no JSON\n"
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queues_defaults_count_for_requests_that_do_not_say_otherwise() {
    for transport in ["file", "inline"] {
        let transport = format!("queue.default.transport = \"{transport}\"");
        let rig = Rig::with(Faults::default(), &[BRIEF, &transport]).await;
        rig.drop_file("a.jsonl", three());
        rig.drain().await;
        let results = rig.lines("a.results.jsonl");
        assert_eq!(keys(&results), ["bare", "own"]);
        assert_eq!([is_cut_off(&results[0]), is_cut_off(&results[1])], [true, false]);
        let errors = rig.lines("a.errors.jsonl");
        assert_eq!(errors[0]["line"], 4, "{errors:?}");
        assert_eq!(errors[0]["error"]["reason"], "invalid_json");
        let manifest = rig.manifest("a");
        assert_eq!(manifest["input"]["bytes"], three().len(), "the input's own: {manifest}");
        let archived = fs::read_to_string(rig.path("archive/a.jsonl")).expect("archived");
        assert_eq!(archived, three(), "and it is kept as it was");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn defaults_reach_every_form_of_a_request() {
    let contents = json!([{"parts": [{"text": "a question of some length"}]}]);
    let forms = json!([
        {"key": "1", "request": {"contents": contents}},
        {"request": {"contents": contents}, "metadata": {"key": "2"}},
        {"contents": contents},
    ]);
    let lines: String =
        forms.as_array().expect("a list").iter().map(|form| format!("{form}\n")).collect();
    let body = json!({"batch": {"inputConfig": {"requests": {"requests": forms}}}});
    let rig = Rig::with(Faults::default(), &[BRIEF]).await;
    for (name, content) in [
        ("lines.jsonl", lines),
        ("list.json", serde_json::to_string_pretty(&forms).expect("JSON")),
        ("body.json", body.to_string()),
    ] {
        rig.drop_file(name, content);
    }
    rig.drain().await;
    for stem in ["lines", "list", "body"] {
        let results = rig.lines(&format!("{stem}.results.jsonl"));
        assert_eq!(keys(&results), ["1", "2", "line-3"], "{stem}");
        assert!(results.iter().all(is_cut_off), "{stem}: {results:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn defaults_of_an_embed_queue_set_the_dimension() {
    let settings = [
        "queue.e.task = \"embed\"",
        "queue.e.model = \"gemini-embedding-001\"",
        "queue.e.defaults.outputDimensionality = 5",
    ];
    let rig = Rig::with(Faults::default(), &settings).await;
    let line = json!({"content": {"parts": [{"text": "x"}]}});
    let own = json!({"content": {"parts": [{"text": "y"}]}, "output_dimensionality": 3});
    rig.drop_file("e/a.jsonl", format!("{line}\n{own}\n"));
    rig.drain().await;
    let lengths: Vec<usize> = (rig.lines("e/a.results.jsonl").iter())
        .map(|line| line["response"]["embedding"]["values"].as_array().map_or(0, Vec::len))
        .collect();
    assert_eq!(lengths, [5, 3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_input_is_prepared_before_its_upload_begins_early() {
    let settings = [BRIEF, "queue.default.transport = \"file\""];
    let rig = Rig::with(Faults::default(), &settings).await;
    // More than is planned on the spot.
    let long = request("k", &"a question of some length ".repeat(1000));
    rig.drop_file("a.jsonl", long.repeat(400));
    rig.drain().await;
    let results = rig.lines("a.results.jsonl");
    assert_eq!(results.len(), 400, "{:?}", rig.manifest("a"));
    assert!(results.iter().all(is_cut_off));
    assert_eq!(rig.creates().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_of_too_many_bytes_fails_alone_where_lines_are_prepared_too() {
    let rig = Rig::with(Faults::default(), &[BRIEF]).await;
    let huge = request("huge", &"x".repeat(65_000_000));
    rig.drop_file("a.jsonl", request("first", "small") + &huge + &request("last", "small"));
    rig.drain().await;
    assert_eq!(keys(&rig.lines("a.results.jsonl")), ["first", "last"]);
    let errors = rig.lines("a.errors.jsonl");
    assert_eq!(
        (&errors[0]["error"]["reason"], &errors[0]["line"]),
        (&json!("line_too_long"), &json!(2))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sidecar_counts_for_its_file_alone_and_goes_where_it_goes() {
    let settings = ["queue.sub.model = \"gemini-2.5-flash-lite\"", "queue.sub.priority = 7"];
    let rig = Rig::with(Faults::default(), &settings).await;
    let sidecar = "model = \"gemini-2.5-pro\"\nlines_per_batch = 1\ntransport = \"file\"\n\
                   [defaults.generationConfig]\nmaxOutputTokens = 2\n";
    rig.drop_file("sub/deep/a.job.toml", sidecar);
    rig.drop_file("sub/deep/a.jsonl", requests(2));
    rig.drop_file("sub/deep/b.jsonl", request("b", "a question of some length"));
    rig.drain().await;
    let results = rig.lines("sub/deep/a.results.jsonl");
    assert!(results.iter().all(|line| model(line) == "gemini-2.5-pro" && is_cut_off(line)));
    assert_eq!(rig.manifest("sub/deep/a")["batches"].as_array().map(Vec::len), Some(2));
    let other = rig.lines("sub/deep/b.results.jsonl");
    assert_eq!(model(&other[0]), "gemini-2.5-flash-lite");
    assert!(!is_cut_off(&other[0]));
    assert!(rig.path("archive/sub/deep/a.jsonl").exists());
    let kept = fs::read_to_string(rig.path("archive/sub/deep/a.jsonl.job.toml"));
    assert_eq!(kept.expect("archived"), sidecar, "{}", rig.listing());
    assert!(!rig.path("inbox/sub/deep/a.job.toml").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sidecar_can_set_every_key_of_a_queue() {
    let mut faults = Faults::default();
    faults.blocked.every = 2;
    let rig = Rig::new(faults).await;
    rig.drop_file(
        "a.jsonl.job.toml",
        "task = \"generate\"\ntransport = \"inline\"\nlines_per_batch = 2\npriority = -3\n\
         attempts = 1\naccept_truncated = false\naccept_blocked = true\naccept_empty = true\n\
         defaults = '{\"generationConfig\": {\"maxOutputTokens\": 2}}'\n",
    );
    rig.drop_file("a.jsonl", requests(4));
    rig.drain().await;
    assert_eq!(keys(&rig.lines("a.results.jsonl")), ["k2", "k4"], "{:?}", rig.manifest("a"));
    let errors = rig.lines("a.errors.jsonl");
    assert!(errors.iter().all(|line| line["error"]["reason"] == "truncated"), "{errors:?}");
    assert_eq!(rig.creates().len(), 2, "one attempt for each two lines");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_sidecar_refuses_its_file_and_both_can_be_mended_and_moved_back() {
    let rig = Rig::new(Faults::default()).await;
    rig.drop_file("a.job.toml", "attempts = 2\n\nmodle = \"gemini-2.5-pro\"\n");
    rig.drop_file("a.jsonl", requests(1));
    rig.drain().await;
    let note = rig.json("failed/a.jsonl.reason.json");
    assert_eq!(note["reason"], "sidecar", "{}", rig.listing());
    let message = note["message"].as_str().expect("a text");
    assert!(message.contains("a.job.toml:3: unknown key `modle`; did you mean `model`?"), "{note}");
    assert!(rig.creates().is_empty());
    assert!(!rig.path("inbox/a.job.toml").exists(), "{}", rig.listing());
    fs::remove_file(rig.path("failed/a.jsonl.job.toml")).expect("it lies beside the file");
    rig.drop_file("a.jsonl.job.toml", "model = \"gemini-2.5-pro\"\n");
    fs::rename(rig.path("failed/a.jsonl"), rig.path("inbox/a.jsonl")).expect("moved back");
    rig.drain().await;
    assert_eq!(model(&rig.lines("a.results.jsonl")[0]), "gemini-2.5-pro");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sidecar_that_is_a_link_is_neither_followed_nor_passed_over() {
    let rig = Rig::new(Faults::default()).await;
    fs::write(rig.path("elsewhere"), "model = \"gemini-2.5-pro\"\n").expect("written");
    fs::create_dir_all(rig.path("inbox")).expect("made");
    let link = rig.path("inbox/a.job.toml");
    std::os::unix::fs::symlink(rig.path("elsewhere"), &link).expect("a link");
    rig.drop_file("a.jsonl", requests(1));
    rig.drain().await;
    let note = rig.json("failed/a.jsonl.reason.json");
    assert_eq!(note["reason"], "sidecar", "{note}");
    assert!(note["message"].as_str().expect("a text").contains("`a.job.toml` is a symbolic link"));
    assert!(link.is_symlink(), "it stays: {}", rig.listing());
    assert!(!rig.path("failed/a.jsonl.job.toml").exists());
    assert!(rig.creates().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_two_files_could_claim_refuse_both_and_stay() {
    let rig = Rig::new(Faults::default()).await;
    rig.drop_file("a.job.toml", "model = \"gemini-2.5-pro\"\n");
    rig.drop_file("a.jsonl", requests(1));
    rig.drop_file("a.json", requests(2));
    rig.drain().await;
    for name in ["a.jsonl", "a.json"] {
        let note = rig.json(&format!("failed/{name}.reason.json"));
        let message = note["message"].as_str().expect("a text");
        assert!(
            message.contains("`a.job.toml` could be for each of `a.json`, `a.jsonl`"),
            "{note}"
        );
    }
    assert!(rig.path("inbox/a.job.toml").exists());
    assert!(rig.creates().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sidecar_alone_is_left_where_it_is() {
    let rig = Rig::new(Faults::default()).await;
    rig.drop_file("a.job.toml", "this is not even TOML");
    rig.drop_file("b.jsonl", requests(1));
    rig.drain().await;
    assert!(rig.path("inbox/a.job.toml").exists());
    assert_eq!(rig.manifest("b")["answered"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_refused_for_its_lines_takes_its_settings_along() {
    let rig = Rig::new(Faults::default()).await;
    rig.drop_file("a.job.toml", "attempts = 2\n");
    rig.drop_file("a.jsonl", "no request\n");
    rig.drain().await;
    assert_eq!(rig.json("failed/a.jsonl.reason.json")["reason"], "no_valid_line");
    let kept = fs::read_to_string(rig.path("failed/a.jsonl.job.toml")).expect("beside it");
    assert_eq!(kept, "attempts = 2\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_held_file_is_answered_with_its_settings_when_it_is_released() {
    let rig = Rig::new(Faults::default()).await;
    let sidecar = "[defaults.generationConfig]\nmaxOutputTokens = 2\n";
    rig.drop_file("first.job.toml", sidecar);
    rig.drop_file("first.jsonl", requests(2));
    rig.drain().await;
    rig.drop_file("again.job.toml", sidecar);
    rig.drop_file("again.jsonl", requests(2));
    rig.drain().await;
    let note = rig.json("held/again.jsonl.reason.json");
    assert!(rig.path("held/again.jsonl.job.toml").exists(), "{}", rig.listing());
    let id = note["job"].as_str().and_then(|id| id.parse().ok()).expect("an id");
    let setup = rig.setup();
    let handle = setup.daemon.handle();
    // A daemon that is only to drain what it finds may have ended before it is told.
    let release = async {
        handle.command(Command::Release(id)).await.expect("released");
        while !rig.path("archive/again.jsonl.job.toml").exists() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        handle.tell(Message::Stop).await;
    };
    let (ended, ()) = tokio::join!(setup.daemon.run(Until::Stopped), release);
    ended.expect("its store works");
    assert!(rig.lines("again.results.jsonl").iter().all(is_cut_off), "{}", rig.listing());
    let kept = fs::read_to_string(rig.path("archive/again.jsonl.job.toml"));
    assert_eq!(kept.expect("archived"), sidecar);
    assert!(!rig.path("held/again.jsonl.job.toml").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_bytes_asked_in_another_way_are_no_duplicate() {
    let rig = Rig::with(Faults::default(), &["queue.pro.model = \"gemini-2.5-pro\""]).await;
    for (name, sidecar) in [
        ("a.jsonl", None),
        ("pro/a.jsonl", None),
        ("b.jsonl", Some("[defaults.generationConfig]\nmaxOutputTokens = 2\n")),
        // These ask for nothing else than one before.
        ("c.jsonl", Some("priority = 2\n")),
        ("pro/deep/a.jsonl", None),
    ] {
        if let Some(sidecar) = sidecar {
            rig.drop_file(&format!("{name}.job.toml"), sidecar);
        }
        rig.drop_file(name, requests(2));
        rig.drain().await;
    }
    for stem in ["a", "pro/a", "b"] {
        assert_eq!(rig.manifest(stem)["answered"], 2, "{}", rig.listing());
    }
    for name in ["c.jsonl", "pro/deep/a.jsonl"] {
        let note = rig.json(&format!("held/{name}.reason.json"));
        assert_eq!(note["reason"], "duplicate", "{}", rig.listing());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_job_goes_on_with_the_lines_that_were_prepared() {
    let settings =
        [BRIEF, "queue.default.transport = \"file\"", "queue.default.lines_per_batch = 1"];
    let rig = Rig::with(Faults::default(), &settings).await;
    rig.drop_file("a.jsonl", requests(3));
    rig.run_until(|rig| !rig.creates().is_empty()).await;
    let working = fs::read_dir(rig.path("working")).expect("listed").next().expect("a job");
    let prepared = working.expect("listed").path().join("prepared.jsonl");
    assert_eq!(fs::read_to_string(prepared).expect("there").lines().count(), 3);
    rig.drain().await;
    assert!(rig.lines("a.results.jsonl").iter().all(is_cut_off));
    assert_eq!(rig.creates().len(), 3, "nothing is paid twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn prepared_lines_that_somebody_takes_away_are_never_made_up_for() {
    let rig = Rig::with(Faults::default(), &[BRIEF]).await;
    rig.drop_file("a.jsonl", requests(2));
    rig.run_until(|rig| !rig.creates().is_empty()).await;
    let working = fs::read_dir(rig.path("working")).expect("listed").next().expect("a job");
    fs::remove_file(working.expect("listed").path().join("prepared.jsonl")).expect("removed");
    rig.drain().await;
    let note = rig.json("failed/a.jsonl.reason.json");
    assert_eq!(note["reason"], "removed", "{note}");
    assert!(note["message"].as_str().expect("a text").contains("prepared.jsonl"), "{note}");
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_that_come_late_are_answered_with_the_settings_of_their_file() {
    let rig = Rig::new(Faults::default()).await;
    rig.drop_file("a.job.toml", "[defaults.generationConfig]\nmaxOutputTokens = 2\n");
    rig.drop_file("a.jsonl", request("first", "a question of some length"));
    let path = rig.path("inbox/a.jsonl");
    let mut writer = fs::File::options().append(true).open(path).expect("opened");
    let late = async {
        while rig.creates().is_empty() {
            tokio::task::yield_now().await;
        }
        let line = request("late", "a question of some length");
        std::io::Write::write_all(&mut writer, line.as_bytes()).expect("written");
    };
    tokio::join!(rig.drain(), late);
    let late = rig.lines("a.late.results.jsonl");
    assert_eq!(keys(&late), ["late"], "{}", rig.listing());
    assert!(is_cut_off(&late[0]), "{}", text(&late[0]));
    let rows = rig.emulator.journal().into_iter().filter_map(|entry| match entry.what {
        Happened::Created { rows, .. } => Some(rows),
        _ => None,
    });
    assert_eq!(rows.sum::<u64>(), 2, "no line is sent twice");
}
