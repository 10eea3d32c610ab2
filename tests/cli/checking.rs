use predicates::prelude::*;

use crate::Place;

const GOOD: &str =
    "{\"key\": 1, \"request\": {\"contents\": [{\"parts\": [{\"text\": \"hi\"}]}]}}\n";

#[test]
fn a_file_of_valid_lines_passes_and_nothing_is_made() {
    let place = Place::new();
    place.write("a.jsonl", GOOD);
    place
        .run(&["lint", "a.jsonl"])
        .assert()
        .code(0)
        .stdout("a.jsonl: 1 request, 1 valid, 0 invalid\n");
    assert!(!place.path("spool").exists());
}

#[test]
fn every_bad_line_is_named_and_the_exit_code_says_partial() {
    let place = Place::new();
    place.write("a.jsonl", &format!("{GOOD}\n{{\"key\": 2\n{GOOD}{{\"key\": 3}}\n"));
    place
        .run(&["lint", "a.jsonl"])
        .assert()
        .code(3)
        .stdout(predicate::str::is_match(r"(?m)^a\.jsonl:3:\d+: ").expect("valid"))
        .stdout(predicate::str::is_match(r"(?m)^a\.jsonl:5(:\d+)?: ").expect("valid"))
        .stdout(predicate::str::ends_with("a.jsonl: 4 requests, 2 valid, 2 invalid\n"));
    place
        .run(&["lint", "a.jsonl", "--show", "1"])
        .assert()
        .code(3)
        .stdout(predicate::str::contains("… and 1 more; --show 2 shows all"));
    let output = place.run(&["lint", "a.jsonl", "--json"]).output().expect("run");
    let value: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!((&value["invalid"], &value["problems"][0]["line"]), (&2.into(), &3.into()));
}

#[test]
fn a_file_the_daemon_would_refuse_fails_with_the_remedy() {
    let place = Place::new();
    place.write("empty.jsonl", "");
    place
        .run(&["lint", "empty.jsonl"])
        .assert()
        .code(1)
        .stderr(predicate::str::contains("error: empty.jsonl: the file is empty\n  try: "));
    place.run(&["lint", "."]).assert().code(1).stderr(predicate::str::contains("not a regular"));
}

#[test]
fn a_file_without_a_valid_line_still_has_every_line_named() {
    let place = Place::new();
    place.write("a.jsonl", "nope\n\n{\"key\": 2}\n");
    place
        .run(&["lint", "a.jsonl"])
        .assert()
        .code(1)
        .stdout(predicate::str::is_match("(?m)^a\\.jsonl:1:\\d+: ").expect("valid"))
        .stdout(predicate::str::is_match("(?m)^a\\.jsonl:3(:\\d+)?: ").expect("valid"))
        .stderr(predicate::str::contains("no line is a valid request"));
    let output = place.run(&["lint", "a.jsonl", "--json"]).output().expect("run");
    let value: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(value["refused"]["reason"], "no_valid_line");
    assert_eq!((&value["valid"], &value["problems"][1]["line"]), (&0.into(), &3.into()));
}

#[test]
fn a_plan_shows_the_batches_and_how_they_travel() {
    let place = Place::new();
    place.write("a.jsonl", &GOOD.repeat(5));
    place
        .run(&["plan", "a.jsonl"])
        .env("GEMINI_BATCHD__QUEUE__DEFAULT__LINES_PER_BATCH", "2")
        .env("GEMINI_BATCHD__LIMITS__INLINE_BYTES", "1150")
        .assert()
        .code(0)
        .stdout(predicate::str::contains("5 requests, 0 of them not valid"))
        .stdout(predicate::str::contains("batch 1: requests 1 to 2, 2 to send"))
        .stdout(predicate::str::is_match("batch 1: .*, file\n").expect("valid"))
        .stdout(
            predicate::str::is_match("batch 3: requests 5 to 5, 1 .*, inline\n").expect("valid"),
        );
}

#[test]
fn a_plan_tells_tokens_and_costs_as_a_range_or_that_no_price_is_known() {
    let place = Place::new();
    place.write("a.jsonl", &GOOD.repeat(5));
    let plan = |text: &str| {
        place.write("gemini-batchd.toml", text);
        place.run(&["plan", "a.jsonl"]).assert().code(0)
    };
    plan("").stdout(predicate::str::contains(
        "cost not known: there is no [price.\"gemini-2.5-flash\"] in the configuration",
    ));
    let price = "[price.\"gemini-2.5-flash\"]\ninput = 0.3\noutput = 2.5\n";
    plan(price)
        .stdout(predicate::str::contains("2500 to 7500 tokens of answers"))
        .stdout(predicate::str::is_match("cost about 0.0032 to 0.009\\d USD\n").expect("valid"));
    plan(&format!("{price}[queue.default]\nbudget = 0.005\n")).stdout(predicate::str::contains(
        ": more than the budget of 0.005, so that it would be held",
    ));
    let output = place.run(&["plan", "a.jsonl", "--json"]).output().expect("run");
    let value: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(value["output_tokens_about"], serde_json::json!({"likely": 2500, "most": 7500}));
    assert_eq!(
        (&value["cost"]["currency"], &value["cost"]["budget"]),
        (&"USD".into(), &"0.005".into())
    );
}

#[test]
fn the_example_inputs_pass_and_the_inline_body_counts_three() {
    let place = Place::new();
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/inbox");
    for (name, requests) in [
        ("guide.jsonl", 2),
        ("translate.jsonl", 12),
        ("questions-zh.json", 3),
        ("reviews/classify.jsonl", 6),
    ] {
        let file = folder.join(name);
        let said = format!("{requests} requests, {requests} valid, 0 invalid\n");
        place
            .run(&["lint", file.to_str().expect("UTF-8")])
            .assert()
            .code(0)
            .stdout(predicate::str::ends_with(said));
    }
}
