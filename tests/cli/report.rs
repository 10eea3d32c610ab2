//! `report`, in every form.

use gemini_batchd::provider::gemini::emulator::Faults;
use predicates::prelude::*;
use serde_json::Value;

use crate::Place;
use crate::working::Working;

#[test]
fn a_night_is_told_as_text_as_json_as_markdown_and_as_a_page() {
    let working = Working::new("", Faults::default());
    working.drop_file("first.jsonl", 3, "first");
    working.until_waiting("first.jsonl");
    working.advance();
    working.until_state("first.jsonl", "done");
    let said = working.say(&["report"]);
    assert!(said.starts_with("Report from 20"), "{said}");
    assert!(said.contains("All is well: every line is answered"), "{said}");
    assert!(said.contains("files      1 came, 1 delivered (1 complete)"), "{said}");
    assert!(said.lines().all(|line| line.chars().count() <= 80), "{said}");
    working.drop_file("twice.jsonl", 3, "first");
    let held = working.until_state("twice.jsonl", "held");
    let said = working.say(&["report", "--since", "1h"]);
    assert!(said.contains("1 file needs you."), "{said}");
    assert!(said.contains(&format!("gemini-batchd release {held}")), "{said}");
    let seen: Value = serde_json::from_str(&working.say(&["report", "--json"])).expect("JSON");
    assert_eq!(
        seen["lines"],
        serde_json::json!({"total": 3, "answered": 3, "failed": 0, "truncated": 0})
    );
    assert_eq!(seen["attention"][0]["file"], "twice.jsonl");
    assert_eq!(seen["nights"].as_array().map(Vec::len), Some(7));
    let text = working.say(&["report", "--md"]);
    assert!(text.starts_with("# Report from") && text.contains("\n## Needs you\n"), "{text}");
    let page = working.say(&["report", "--html"]);
    assert!(page.starts_with("<!doctype html>") && page.contains("<svg "), "{page}");
    assert!(!page.contains("<script") && page.contains("default-src 'none'"), "{page}");
    working
        .place
        .run(&["report", "--since", "yesterday"])
        .assert()
        .code(1)
        .stderr(predicate::str::contains("is no moment"));
    working.place.run(&["report", "--json", "--md"]).assert().code(2);
}

#[test]
fn without_a_daemon_it_is_said_how_to_start_one() {
    let place = Place::new();
    let started = predicate::str::contains("gemini-batchd run");
    place.run(&["report"]).assert().code(1).stderr(started);
}
