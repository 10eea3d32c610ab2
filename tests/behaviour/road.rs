//! The whole road, on the inputs of the guide.

use gemini_batchd::daemon::Ended;
use gemini_batchd::provider::gemini::emulator::Faults;

use super::rig::{Rig, keys, requests, text};

const GUIDE: &str = r#"{"key": "request-1", "request": {"contents": [{"parts": [{"text": "Describe the process of photosynthesis."}]}]}}
{"key": "request-2", "request": {"contents": [{"parts": [{"text": "What are the main ingredients in a Margherita pizza?"}]}]}}
"#;

const CHINESE: &str = r#"{"batch": {"display_name": "questions", "input_config": {"requests": {"requests": [
  {"request": {"contents": [{"parts": [{"text": "你好，你是谁？"}]}]}, "metadata": {"key": "问题一"}},
  {"request": {"contents": [{"parts": [{"text": "什么是光合作用？"}]}]}, "metadata": {"key": "问题二"}},
  {"request": {"contents": [{"parts": [{"text": "长城有多长？"}]}]}, "metadata": {"key": "问题三"}}
]}}}}
"#;

#[tokio::test(flavor = "multi_thread")]
async fn the_request_of_the_guide_comes_back_answered() {
    let rig = Rig::new(Faults::default()).await;
    rig.drop_file("guide.jsonl", GUIDE);
    rig.drop_file("guide2.json", GUIDE.replace("request-", "r"));
    rig.drain().await;
    let lines = rig.lines("guide.results.jsonl");
    assert_eq!(keys(&lines), ["request-1", "request-2"], "{}", rig.listing());
    assert!(text(&lines[0]).contains("photosynthesis"), "{}", lines[0]);
    let manifest = rig.manifest("guide");
    assert_eq!(manifest["verdict"], "complete");
    assert_eq!(manifest["version"], 1);
    assert_eq!(manifest["batches"][0]["model"], "models/gemini-2.5-flash");
    assert!(manifest["tokens"]["total"].as_u64().expect("a count") > 0);
    assert_eq!(keys(&rig.lines("guide2.results.jsonl")), ["r1", "r2"]);
    assert!(rig.path("archive/guide.jsonl").exists(), "{}", rig.listing());
    assert!(!rig.path("outbox/guide.errors.jsonl").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_inline_body_with_three_chinese_questions_comes_back_answered() {
    let rig = Rig::new(Faults::default()).await;
    rig.drop_file("fragen.json", CHINESE);
    let one_line: String = CHINESE.split('\n').collect();
    rig.drop_file("one-line.jsonl", one_line.replace("问题", "q"));
    rig.drop_file("several-lines.jsonl", CHINESE.replace("问题", "z"));
    rig.drain().await;
    let lines = rig.lines("fragen.results.jsonl");
    assert_eq!(keys(&lines), ["问题一", "问题二", "问题三"], "{}", rig.listing());
    assert!(text(&lines[2]).contains("长城有多长？"), "{}", lines[2]);
    assert_eq!(rig.manifest("fragen")["verdict"], "complete");
    assert_eq!(rig.lines("one-line.results.jsonl").len(), 3, "{}", rig.listing());
    assert_eq!(rig.lines("several-lines.results.jsonl").len(), 3, "{}", rig.listing());
}

/// Fault 46.
#[tokio::test(flavor = "multi_thread")]
async fn keys_come_back_as_written_duplicates_included() {
    let rig = Rig::new(Faults::default()).await;
    let written = [r#""same""#, r#""same""#, "42", "1e400", r#""\u00e9\n""#, r#""""#, "-0.10"];
    let mut input: String = written
        .iter()
        .map(|key| format!("{{\"key\": {key}, \"request\": {{\"contents\": [{{\"parts\": [{{\"text\": \"x\"}}]}}]}}}}\n"))
        .collect();
    input.push_str("{\"contents\": [{\"parts\": [{\"text\": \"no key\"}]}]}\n");
    rig.drop_file("keys.jsonl", &input);
    rig.drain().await;
    let text = std::fs::read_to_string(rig.path("outbox/keys.results.jsonl")).expect("results");
    let got: Vec<&str> = text
        .lines()
        .map(|line| {
            let rest = line.strip_prefix("{\"key\":").expect("the key comes first").trim_start();
            rest.split_once(",\"response\"").expect("then the response").0.trim()
        })
        .collect();
    let mut expected = written.to_vec();
    expected.push("\"line-8\"");
    assert_eq!(got, expected);
}

/// Faults 33 and 41.
#[tokio::test(flavor = "multi_thread")]
async fn sub_folders_are_mirrored_and_names_are_never_overwritten() {
    let rig = Rig::new(Faults::default()).await;
    rig.drop_file("deep/er/a.jsonl", requests(1));
    rig.drain().await;
    rig.drop_file("deep/er/a.jsonl", requests(2));
    rig.drain().await;
    assert_eq!(rig.lines("deep/er/a.results.jsonl").len(), 1);
    assert_eq!(rig.lines("deep/er/a~2.results.jsonl").len(), 2, "{}", rig.listing());
}

/// Fault 40.
#[tokio::test(flavor = "multi_thread")]
async fn the_same_content_dropped_again_waits_in_held() {
    let rig = Rig::new(Faults::default()).await;
    rig.drop_file("first.jsonl", requests(2));
    rig.drain().await;
    rig.drop_file("again.jsonl", requests(2));
    rig.drain().await;
    let reason = rig.json("held/again.jsonl.reason.json");
    assert_eq!(reason["reason"], "duplicate");
    assert!(reason["message"].as_str().expect("text").contains("first.jsonl"), "{reason}");
    assert!(rig.path("held/again.jsonl").exists());
    assert_eq!(rig.creates().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_inbox_is_nothing_to_do() {
    let rig = Rig::new(Faults::default()).await;
    let Ended::Idle(jobs) = rig.drain().await else { panic!("it ends by itself") };
    assert!(jobs.is_empty());
}
