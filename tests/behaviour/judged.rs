//! Answers that are cut off, or do not fit the schema that was asked for.

use gemini_batchd::provider::gemini::emulator::faults::EveryNth;
use gemini_batchd::provider::gemini::emulator::{Budget, Faults};
use serde_json::{Value, json};

use super::rig::{Rig, keys, text};

const STRICT: &str = "queue.default.accept_truncated = false";
const CHECKED: &str = "queue.default.check_schema = true";

fn line(key: &str, said: &str, settings: &Value) -> String {
    let contents = json!([{"parts": [{"text": said}]}]);
    let request = json!({"contents": contents, "generationConfig": settings});
    format!("{}\n", json!({"key": key, "request": request}))
}

fn every(every: u64, times: Budget) -> EveryNth {
    EveryNth { every, times }
}

fn batches(manifest: &Value) -> Vec<u64> {
    let batches = manifest["batches"].as_array().expect("batches");
    batches.iter().map(|batch| batch["lines"].as_u64().expect("a count")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_that_was_cut_off_is_sent_again_with_twice_its_limit() {
    for transport in ["file", "inline"] {
        let transport = format!("queue.default.transport = {transport:?}");
        let rig = Rig::with(Faults::default(), &[STRICT, transport.as_str()]).await;
        // The answer takes six tokens: two, four and eight are tried.
        let short = json!({"temperature": 0.5, "maxOutputTokens": 2});
        let input = line("a", "hello", &short) + &line("b", "hello", &json!({}));
        rig.drop_file("a.jsonl", input);
        rig.drain().await;
        let manifest = rig.manifest("a");
        assert_eq!(batches(&manifest), [2, 1, 1], "{manifest}");
        assert_eq!((&manifest["verdict"], &manifest["raised"]), (&json!("complete"), &json!(1)));
        let results = rig.lines("a.results.jsonl");
        assert_eq!(keys(&results), ["a", "b"]);
        assert_eq!(text(&results[0]), "Echo of request: hello");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_is_raised_up_to_its_bound_and_no_further() {
    let rig = Rig::with(Faults::default(), &[STRICT, "queue.default.max_output_tokens = 3"]).await;
    rig.drop_file("a.jsonl", line("a", "hello", &json!({"maxOutputTokens": 2})));
    rig.drain().await;
    assert_eq!(batches(&rig.manifest("a")), [1, 1]);
    let errors = rig.lines("a.errors.jsonl");
    assert_eq!(errors[0]["error"]["reason"], "truncated", "{errors:?}");
    let sent = &errors[0]["request"]["generationConfig"]["maxOutputTokens"];
    assert_eq!(*sent, 2, "dropped back, it is as it was");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_cut_off_at_the_models_own_limit_is_not_asked_for_again() {
    let faults = Faults { truncated: every(1, Budget::Always), ..Faults::default() };
    let rig = Rig::with(faults, &[STRICT]).await;
    rig.drop_file("a.jsonl", line("a", "hello", &json!({})));
    rig.drain().await;
    let manifest = rig.manifest("a");
    assert_eq!(batches(&manifest), [1]);
    assert_eq!(manifest["failures"], json!({"truncated": 1}));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_stays_raised_when_another_fault_comes_in_between() {
    // The raised request is refused for a while, and is no other one after that.
    let faults =
        Faults { code_13: every(1, Budget::Always), code_13_first_only: true, ..Faults::default() };
    let rig = Rig::with(faults, &[STRICT, "queue.default.attempts = 6"]).await;
    rig.drop_file("a.jsonl", line("a", "hello", &json!({"maxOutputTokens": 3})));
    rig.drain().await;
    let manifest = rig.manifest("a");
    // Refused, cut off, refused, answered.
    assert_eq!((batches(&manifest).len(), &manifest["answered"]), (4, &json!(1)), "{manifest}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blocked_prompt_is_never_sent_again() {
    let faults = Faults { blocked: every(1, Budget::Always), ..Faults::default() };
    let rig = Rig::with(faults, &[STRICT, CHECKED]).await;
    rig.drop_file("a.jsonl", line("a", "hello", &json!({"maxOutputTokens": 2})));
    rig.drain().await;
    assert_eq!(rig.creates().len(), 1);
    assert_eq!(rig.manifest("a")["failures"], json!({"blocked": 1}));
}

fn schema(kind: &str) -> Value {
    match kind {
        "responseSchema" => json!({"type": "OBJECT", "required": ["word"], "properties":
            {"word": {"type": "STRING", "nullable": true}}, "propertyOrdering": ["word"]}),
        _ => json!({"type": "object", "required": ["word"], "properties":
            {"word": {"type": ["string", "null"]}}}),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_does_not_fit_its_schema_is_asked_for_again() {
    for kind in ["responseSchema", "responseJsonSchema"] {
        let faults = Faults { misfit: every(2, Budget::times(1)), ..Faults::default() };
        let rig = Rig::with(faults, &[CHECKED]).await;
        let settings = json!({"responseMimeType": "application/json", kind: schema(kind)});
        rig.drop_file("a.jsonl", line("a", "x", &settings) + &line("b", "y", &settings));
        rig.drain().await;
        let manifest = rig.manifest("a");
        assert_eq!(batches(&manifest), [2, 1], "{kind}: {manifest}");
        let results = rig.lines("a.results.jsonl");
        assert_eq!(text(&results[1]), r#"{"word":"y"}"#, "{kind}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_misfit_that_stays_one_fails_with_its_place() {
    let faults = Faults { misfit: every(2, Budget::Always), ..Faults::default() };
    let rig = Rig::with(faults, &[CHECKED, "queue.default.attempts = 1"]).await;
    let settings = json!({"responseSchema": schema("responseSchema")});
    // Answers to lines without a schema are none of our business.
    let input = line("a", "x", &json!({})) + &line("b", "y", &settings);
    rig.drop_file("a.jsonl", input);
    rig.drain().await;
    assert_eq!(rig.manifest("a")["failures"], json!({"schema_mismatch": 1}));
    let errors = rig.lines("a.errors.jsonl");
    assert_eq!((&errors[0]["key"], &errors[0]["line"]), (&json!("b"), &json!(2)));
    let message = errors[0]["error"]["message"].as_str().expect("a message");
    assert!(message.contains("at /word: "), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_setting_no_schema_is_looked_at() {
    let faults = Faults { misfit: every(1, Budget::Always), ..Faults::default() };
    let rig = Rig::new(faults).await;
    let settings = json!({"responseSchema": schema("responseSchema")});
    rig.drop_file("a.jsonl", line("a", "x", &settings));
    rig.drain().await;
    assert_eq!(rig.manifest("a")["verdict"], "complete");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_that_can_not_be_used_checks_nothing_and_is_told() {
    let rig = Rig::with(Faults::default(), &[CHECKED]).await;
    let settings = json!({"responseJsonSchema": {"$ref": "http://127.0.0.1:9/none.json"}});
    rig.drop_file("a.jsonl", line("a", "x", &settings));
    rig.drain().await;
    let manifest = rig.manifest("a");
    assert_eq!(manifest["verdict"], "complete");
    assert!(manifest["warnings"].to_string().contains("schemas can not be used"), "{manifest}");
}
