use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use predicates::prelude::*;

use crate::Place;

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples")
}

fn lines(name: &str) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(examples().join("inbox").join(name)).expect("there");
    text.lines().map(|line| serde_json::from_str(line).expect("one JSON value a line")).collect()
}

#[test]
fn the_example_file_is_what_the_program_prints() {
    let place = Place::new();
    let file = std::fs::read_to_string(examples().join("gemini-batchd.toml")).expect("there");
    place.run(&["config", "example"]).assert().code(0).stdout(file);
}

#[test]
fn the_example_files_are_valid() {
    for name in ["gemini-batchd.toml", "nightly/gemini-batchd.toml", "features.toml"] {
        let place = Place::new();
        let file = examples().join(name);
        place
            .run(&["config", "check", "--config", file.to_str().expect("UTF-8")])
            .env("GEMINI_API_KEY", "k")
            .env("GEMINI_API_KEY_TEAM", "k")
            .assert()
            .code(0)
            .stdout(predicate::str::contains("configuration: valid"));
    }
}

#[test]
fn the_example_inputs_are_requests_with_keys_of_their_own() {
    for name in ["translate.jsonl", "reviews/classify.jsonl", "guide.jsonl"] {
        let mut keys = BTreeMap::new();
        for line in lines(name) {
            assert!(line["request"]["contents"].is_array(), "{name}: {line}");
            *keys.entry(line["key"].to_string()).or_insert(0) += 1;
        }
        assert!(keys.values().all(|count| *count == 1), "{name}: {keys:?}");
    }
    assert_eq!(lines("guide.jsonl").len(), 2);
    assert_eq!(lines("translate.jsonl").len(), 12);
}

#[test]
fn the_classification_asks_for_one_of_a_few_words() {
    for line in lines("reviews/classify.jsonl") {
        let config = &line["request"]["generationConfig"];
        assert_eq!(config["responseMimeType"], "application/json");
        let sentiment = &config["responseSchema"]["properties"]["sentiment"];
        assert!(sentiment["enum"].as_array().is_some_and(|words| words.len() == 3), "{line}");
    }
}

#[test]
fn the_inline_body_holds_three_questions() {
    let path = examples().join("inbox/questions-zh.json");
    let text = std::fs::read_to_string(path).expect("there");
    let body: serde_json::Value = serde_json::from_str(&text).expect("one JSON value");
    let requests = &body["batch"]["input_config"]["requests"]["requests"];
    assert_eq!(requests.as_array().expect("a list").len(), 3);
}
