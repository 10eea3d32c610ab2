use predicates::prelude::*;
use serde_json::{Value, json};

use crate::Place;

/// A line in the file form, with these members beside the contents.
fn line(key: u32, more: &str) -> String {
    let contents = r#""contents": [{"parts": [{"text": "hi"}]}]"#;
    let more = if more.is_empty() { String::new() } else { format!(", {more}") };
    format!("{{\"key\": {key}, \"request\": {{{contents}{more}}}}}\n")
}

fn json_of(place: &Place, arguments: &[&str]) -> Value {
    let output = place.run(arguments).output().expect("run");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// One setting in the wrong place, a good line, one that is no JSON, and one that only warns.
fn mixed() -> String {
    line(1, "\"temperature\": 0.50")
        + &line(2, "")
        + "\n{\"key\": 3\n"
        + &line(4, "\"generationConfig\": {\"maxOutputTokens\": 9}")
        + &line(5, "\"temperature\": 1")
}

#[test]
fn each_kind_of_finding_is_one_line_with_place_effect_and_mend() {
    let place = Place::new();
    place.write("a.jsonl", &mixed());
    place
        .run(&["lint", "a.jsonl"])
        .assert()
        .code(3)
        .stdout(predicate::str::contains(
            "a.jsonl:1: error: request.temperature: the API has no such field here and refuses \
             the line; move it to request.generationConfig.temperature [misplaced, lines 1, 6]\n",
        ))
        .stdout(predicate::str::contains(
            "a.jsonl:5: warning: request.generationConfig.maxOutputTokens: gemini-2.5-flash \
             thinks before it answers",
        ))
        .stdout(predicate::str::ends_with(
            "a.jsonl: 5 requests, 2 valid, 3 invalid, 1 with warnings\n\
             2 lines can be mended: --fix writes a mended copy\n",
        ));
    let value = json_of(&place, &["lint", "a.jsonl", "--json"]);
    assert_eq!((&value["valid"], &value["invalid"]), (&2.into(), &3.into()));
    assert_eq!(
        (&value["with_warnings"], &value["reasons"]),
        (&1.into(), &json!({"invalid_json": 1}))
    );
    let finding = &value["findings"][0];
    assert_eq!(finding["kind"], "misplaced");
    assert_eq!(finding["severity"], "error");
    assert_eq!(finding["path"], "request.temperature");
    assert_eq!((&finding["lines"], &finding["mendable"]), (&2.into(), &2.into()));
    assert_eq!(finding["first_lines"], json!([1, 6]));
    assert_eq!(value["findings"][1]["kind"], "max_tokens");
    assert_eq!(value["mended"], Value::Null);
}

#[test]
fn warnings_alone_leave_the_exit_code_at_zero() {
    let place = Place::new();
    place.write("a.jsonl", &line(1, "\"generationConfig\": {\"maxOutputTokens\": 9}"));
    place
        .run(&["lint", "a.jsonl"])
        .assert()
        .code(0)
        .stdout(predicate::str::ends_with("1 request, 1 valid, 0 invalid, 1 with warnings\n"));
}

#[test]
fn ten_thousand_lines_with_one_mistake_are_told_in_one_line() {
    let place = Place::new();
    let text: String = (1..=10_000).map(|key| line(key, "\"temperature\": 1")).collect();
    place.write("a.jsonl", &text);
    let output = place.run(&["lint", "a.jsonl"]).output().expect("run");
    let said = String::from_utf8(output.stdout).expect("UTF-8");
    assert_eq!(said.lines().count(), 3, "{said}");
    assert!(said.contains("[misplaced, lines 1, 2, 3, 4, 5 and 9995 more]"), "{said}");
}

#[test]
fn bad_lines_that_are_not_shown_are_counted_by_their_reasons() {
    let place = Place::new();
    let other = r#""model": "gemini-3-pro-preview""#;
    let text: String = (1..=30).map(|key| line(key, other)).collect();
    place.write("a.jsonl", &(line(31, "") + &text + "nope\n"));
    place
        .run(&["lint", "a.jsonl"])
        .assert()
        .code(3)
        .stdout(predicate::str::contains("… and 11 more; --show 31 shows all\n"))
        .stdout(predicate::str::contains("invalid by reason: 1 invalid_json, 30 other_model\n"));
}

#[test]
fn a_mended_copy_lies_beside_the_file_and_is_clean() {
    let place = Place::new();
    let text = line(1, "\"temperature\": 0.50") + "\n" + &line(2, "") + &line(3, "\"topK\": 3");
    place.write("in/a.jsonl", &text);
    place
        .run(&["lint", "--fix", "in/a.jsonl"])
        .assert()
        .code(0)
        .stdout(predicate::str::ends_with("in/a.mended.jsonl: 2 lines mended, 0 still invalid\n"));
    let copy = std::fs::read_to_string(place.path("in/a.mended.jsonl")).expect("there");
    let lines: Vec<&str> = copy.lines().collect();
    assert_eq!(lines.len(), 4);
    assert!(lines[0].contains("\"generationConfig\": {\"temperature\": 0.50}"), "{copy}");
    assert_eq!((lines[1], lines[2]), ("", line(2, "").trim_end()));
    assert_eq!(std::fs::read_to_string(place.path("in/a.jsonl")).expect("there"), text);
    place
        .run(&["lint", "in/a.mended.jsonl"])
        .assert()
        .code(0)
        .stdout("in/a.mended.jsonl: 3 requests, 3 valid, 0 invalid\n");
    let left = std::fs::read_dir(place.path("in")).expect("listed").count();
    assert_eq!(left, 2, "nothing else is left there");
}

#[test]
fn a_copy_is_never_written_over_another_file() {
    let place = Place::new();
    place.write("a.jsonl", &line(1, "\"temperature\": 1"));
    place.write("a.mended.jsonl", "mine\n");
    let value = json_of(&place, &["lint", "--fix", "--json", "a.jsonl"]);
    assert_eq!(value["mended"]["file"], "a.mended~2.jsonl");
    assert_eq!(value["mended"]["lines"], 1);
    assert_eq!(std::fs::read_to_string(place.path("a.mended.jsonl")).expect("there"), "mine\n");
}

#[test]
fn what_can_not_be_mended_stays_as_it_was_and_is_told() {
    let place = Place::new();
    place.write("a.jsonl", &(mixed() + &line(7, "\"nonsense\": 1")));
    place
        .run(&["lint", "--fix", "a.jsonl"])
        .assert()
        .code(3)
        .stdout(predicate::str::contains("a.mended.jsonl: 2 lines mended, 2 still invalid\n"))
        .stdout(predicate::str::contains("a.mended.jsonl:7: error: request.nonsense: "));
    let copy = std::fs::read_to_string(place.path("a.mended.jsonl")).expect("there");
    assert_eq!(copy.lines().nth(3), Some("{\"key\": 3"), "{copy}");
    assert_eq!(copy.lines().nth(6), Some(line(7, "\"nonsense\": 1").trim_end()), "{copy}");
}

#[test]
fn where_nothing_can_be_mended_there_is_no_copy() {
    let place = Place::new();
    place.write("good.jsonl", &line(1, ""));
    place.write("bad.jsonl", "nope\n");
    place
        .run(&["lint", "--fix", "good.jsonl"])
        .assert()
        .code(0)
        .stdout(predicate::str::ends_with("nothing could be mended, so there is no copy\n"));
    place
        .run(&["lint", "--fix", "bad.jsonl"])
        .assert()
        .code(1)
        .stderr(predicate::str::contains("no line is a valid request"));
    assert_eq!(std::fs::read_dir(place.path("")).expect("listed").count(), 2);
}

#[test]
fn a_file_that_would_be_refused_whole_can_be_mended_whole() {
    let place = Place::new();
    place.write(
        "a.jsonl",
        "{\"key\": 1, \"contents\": \"hi\"}\n{\"key\": 2, \"contents\": \"ho\"}\n",
    );
    place.run(&["lint", "a.jsonl"]).assert().code(1);
    place
        .run(&["lint", "--fix", "a.jsonl"])
        .assert()
        .code(0)
        .stdout(predicate::str::contains("a.mended.jsonl: 2 lines mended, 0 still invalid\n"));
    place.run(&["lint", "a.mended.jsonl"]).assert().code(0);
}

#[test]
fn a_document_is_mended_into_lines() {
    let place = Place::new();
    let requests = "[\n  {\"contents\": [{\"parts\": [{\"text\": \"a\"}]}],\n   \"topK\": 1},\n  \
                    {\"contents\": [{\"parts\":\n [{\"text\": \"b\"}]}]}\n]\n";
    place.write("a.json", requests);
    place.run(&["lint", "--fix", "a.json"]).assert().code(0);
    let copy = std::fs::read_to_string(place.path("a.mended.jsonl")).expect("there");
    assert_eq!(copy.lines().count(), 2, "{copy}");
    place.run(&["lint", "a.mended.jsonl"]).assert().code(0);
}

#[test]
fn what_is_not_json_can_not_be_mended() {
    let place = Place::new();
    place.write("a.csv", "prompt\nhi\n");
    place.run(&["lint", "--fix", "a.csv"]).assert().code(2).stderr(predicate::str::contains(
        "--fix mends .jsonl, .ndjson and .json files; a.csv is none",
    ));
}
