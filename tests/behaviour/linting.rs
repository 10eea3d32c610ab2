//! What the manifest says of requests that go wrong at the API.

use gemini_batchd::provider::gemini::emulator::Faults;
use serde_json::Value;

use super::rig::Rig;

fn warnings(manifest: &Value) -> Vec<&str> {
    let list = manifest["warnings"].as_array().expect("a list");
    list.iter().map(|text| text.as_str().expect("text")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn habits_that_go_wrong_are_warnings_in_the_manifest_with_place_and_mend() {
    let rig = Rig::new(Faults::default()).await;
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/features/lint/sdk-habits.jsonl");
    rig.drop_file("a.jsonl", std::fs::read(file).expect("there"));
    rig.drain().await;
    let manifest = rig.manifest("a");
    assert_eq!((&manifest["answered"], &manifest["failed"]), (&4.into(), &2.into()), "{manifest}");
    let warnings = warnings(&manifest);
    for (kind, line, place, mend) in [
        ("misplaced", 3, "request.temperature", "move it to request.generationConfig.temperature"),
        ("system_instruction", 4, "request.systemInstruction", "write {\"parts\":"),
        ("ignored", 2, "config.temperature", "move it to request.generationConfig.temperature"),
        (
            "response_json_schema",
            5,
            "request.generationConfig.responseJsonSchema",
            "`responseSchema`",
        ),
        ("max_tokens", 6, "request.generationConfig.maxOutputTokens", "thinkingBudget"),
    ] {
        let beginning = format!("{kind}: 1 request(s), line {line}: {place}: ");
        let found = warnings.iter().find(|text| text.starts_with(&beginning));
        let found = found.unwrap_or_else(|| panic!("no {beginning} in {warnings:#?}"));
        assert!(found.contains(mend), "{found}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn good_requests_have_no_warnings() {
    let rig = Rig::new(Faults::default()).await;
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/inbox/reviews/classify.jsonl");
    rig.drop_file("a.jsonl", std::fs::read(file).expect("there"));
    rig.drain().await;
    assert_eq!(warnings(&rig.manifest("a")), [""; 0]);
}
