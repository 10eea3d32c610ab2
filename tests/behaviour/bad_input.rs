//! Inputs that are wrong, each with an error that names the place, and nothing else suffers.

use gemini_batchd::provider::gemini::emulator::Faults;

use super::rig::{Rig, keys, request, requests};

/// Drops one bad file beside a good one; the good one must come through.
async fn refused(name: &str, content: &[u8]) -> serde_json::Value {
    let rig = Rig::new(Faults::default()).await;
    rig.drop_file(name, content);
    rig.drop_file("good.jsonl", requests(1));
    rig.drain().await;
    assert_eq!(rig.manifest("good")["verdict"], "complete");
    assert!(rig.path("failed").join(name).exists(), "{}", rig.listing());
    let reason = rig.json(&format!("failed/{name}.reason.json"));
    for field in ["message", "remedy"] {
        assert!(!reason[field].as_str().unwrap_or_default().is_empty(), "{field} of {reason}");
    }
    reason
}

#[tokio::test(flavor = "multi_thread")]
async fn files_without_a_single_valid_line_are_refused_with_the_place() {
    refused("empty.jsonl", b"").await;
    refused("blank.jsonl", b"\n\r\n  \n").await;
    let reason = refused("text.jsonl", b"\nhello, please answer this\n").await;
    assert_eq!(reason["line"], 2, "{reason}");
    refused("list.json", b"[1, 2").await;
    refused("program.exe", b"MZ").await;
    let reason = refused("bare.jsonl", b"{\"prompt\": \"hello\"}\n").await;
    assert_eq!(reason["line"], 1, "{reason}");
}

/// Fault 45.
#[tokio::test(flavor = "multi_thread")]
async fn bad_lines_fail_alone_with_their_number_and_reason() {
    let rig = Rig::new(Faults::default()).await;
    let mut input = b"\xef\xbb\xbf".to_vec();
    input.extend(request("first", "after a byte order mark").trim_end().bytes());
    input.extend(b"\r\n\n{\"key\": \"cut\", \"request\": {\"contents\"\n");
    input.extend(b"\xff\xfe not utf-8\n");
    input.extend(b"{\"key\": \"nul\0\"}\n");
    input.extend(
        b"{\"key\": {\"a\": 1}, \"request\": {\"contents\": [{\"parts\": [{\"text\": \"x\"}]}]}}\n",
    );
    input.extend(b"{\"key\": \"none\"}\n[]\n17\n");
    input.extend(b"{\"key\": \"m\", \"request\": {\"model\": \"gemini-9\", \"contents\": [{\"parts\": [{\"text\": \"x\"}]}]}}\n");
    input.extend(request("last", "no newline at the end").trim_end().bytes());
    rig.drop_file("a.jsonl", input);
    rig.drain().await;
    let manifest = rig.manifest("a");
    assert_eq!(keys(&rig.lines("a.results.jsonl")), ["first", "last"], "{manifest}");
    let errors = rig.lines("a.errors.jsonl");
    let lines: Vec<u64> = errors.iter().map(|error| error["line"].as_u64().expect("n")).collect();
    assert_eq!(lines, [3, 4, 5, 6, 7, 8, 9, 10]);
    let reasons: Vec<&str> =
        errors.iter().map(|error| error["error"]["reason"].as_str().expect("a word")).collect();
    assert_eq!(reasons[0], "invalid_json");
    assert_eq!(reasons[1], "invalid_utf8");
    assert_eq!(reasons[3], "invalid_key");
    assert_eq!(reasons[7], "other_model");
    for error in &errors {
        assert!(!error["error"]["message"].as_str().unwrap_or_default().is_empty(), "{error}");
    }
}

/// Fault 43.
#[tokio::test(flavor = "multi_thread")]
async fn links_and_pipes_are_refused_without_being_opened() {
    let rig = Rig::new(Faults::default()).await;
    rig.drop_file("good.jsonl", requests(1));
    std::os::unix::fs::symlink("/etc/passwd", rig.path("inbox/link.jsonl")).expect("linked");
    let pipe = rig.path("inbox/pipe.jsonl");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status().expect("mkfifo runs");
    assert!(made.success());
    rig.drain().await;
    assert_eq!(rig.manifest("good")["verdict"], "complete");
    assert!(rig.path("failed/link.jsonl.reason.json").exists(), "{}", rig.listing());
    assert!(rig.path("failed/pipe.jsonl.reason.json").exists(), "{}", rig.listing());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_does_not_exist_refuses_the_file_and_names_the_setting() {
    let rig = Rig::with(Faults::default(), &["queue.default.model = \"gemini-99\""]).await;
    rig.drop_file("a.jsonl", requests(3));
    rig.drain().await;
    let reason = rig.json("failed/a.jsonl.reason.json");
    assert_eq!(reason["reason"], "unknown_model", "{reason}");
    assert!(reason["remedy"].as_str().expect("text").contains("[queue.default]"), "{reason}");
    assert!(rig.path("failed/a.jsonl").exists());
}

/// Fault 47.
#[tokio::test(flavor = "multi_thread")]
async fn a_line_of_a_hundred_megabytes_fails_alone() {
    let rig = Rig::new(Faults::default()).await;
    let mut input = request("first", "small").into_bytes();
    input.extend(request("huge", &"x".repeat(100_000_000)).into_bytes());
    input.extend(request("last", "small").into_bytes());
    rig.drop_file("a.jsonl", input);
    rig.drain().await;
    assert_eq!(keys(&rig.lines("a.results.jsonl")), ["first", "last"]);
    let errors = rig.lines("a.errors.jsonl");
    assert_eq!(errors[0]["error"]["reason"], "line_too_long");
    assert_eq!(errors[0]["line"], 2);
}
