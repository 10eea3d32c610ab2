use std::process::Stdio;

use predicates::prelude::*;

use crate::Place;

#[test]
fn a_valid_configuration_with_a_key_passes_the_check() {
    let place = Place::new();
    place
        .run(&["config", "check"])
        .env("GEMINI_API_KEY", "marker-key")
        .assert()
        .code(0)
        .stdout(predicate::str::contains("from environment GEMINI_API_KEY"))
        .stdout(predicate::str::contains("marker-key").not());
}

#[test]
fn a_missing_key_has_its_own_exit_code_and_says_where_to_get_one() {
    let place = Place::new();
    place
        .run(&["config", "check"])
        .assert()
        .code(12)
        .stderr(predicate::str::starts_with("error: no API key"))
        .stderr(predicate::str::contains("https://aistudio.google.com/apikey"));
}

#[test]
fn an_unknown_key_is_told_with_file_line_and_the_nearest_key() {
    let place = Place::new();
    place.write("gemini-batchd.toml", "[intake]\n\nsetle = \"5s\"\n");
    place
        .run(&["config", "check"])
        .assert()
        .code(10)
        .stdout("")
        .stderr(predicate::str::contains("gemini-batchd.toml:3: unknown key `setle`"))
        .stderr(predicate::str::contains("did you mean `settle`?"))
        .stderr(predicate::str::contains("\n  try: "));
}

#[test]
fn every_setting_is_shown_with_its_origin_and_never_the_key() {
    let place = Place::new();
    place.write("gemini-batchd.toml", "[poll]\nmin = \"20s\"\n");
    place
        .run(&["config", "show"])
        .env("GEMINI_BATCHD__POLL__MAX", "1h")
        .env("GOOGLE_API_KEY", "marker-key")
        .assert()
        .code(0)
        .stdout(
            predicate::str::is_match(r#"min = "20s" +# .*gemini-batchd.toml:2"#).expect("valid"),
        )
        .stdout(predicate::str::is_match(r#"max = "1h" +# environment GEMINI"#).expect("valid"))
        .stdout(predicate::str::is_match(r#"settle = "2s" +# default"#).expect("valid"))
        .stdout(predicate::str::contains("from environment GOOGLE_API_KEY"))
        .stdout(predicate::str::contains("marker-key").not());
}

#[test]
fn what_is_shown_can_be_used_as_a_file() {
    let place = Place::new();
    place.write(
        "gemini-batchd.toml",
        "[queue.\"a/b\"]\nattempts = 5\n[intake]\nignore = [\"*.x\"]\n",
    );
    let shown = place.run(&["config", "show"]).output().expect("run").stdout;
    place.write("second.toml", &String::from_utf8(shown).expect("UTF-8"));
    place
        .run(&["config", "show", "--config", "second.toml"])
        .assert()
        .code(0)
        .stdout(predicate::str::contains("[queue.\"a/b\"]"))
        .stdout(predicate::str::contains("attempts = 5"));
}

#[test]
fn show_speaks_json_on_demand() {
    let place = Place::new();
    let output = place.run(&["config", "show", "--json"]).output().expect("run");
    let value: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert!(value["settings"].as_array().expect("a list").len() > 40);
    assert_eq!(value["api_key_from"], serde_json::Value::Null);
}

#[test]
fn a_misspelled_verb_is_a_usage_error_with_a_suggestion() {
    let place = Place::new();
    place.run(&["sumbit", "x.jsonl"]).assert().code(2).stderr(predicate::str::contains("'submit'"));
}

#[test]
fn a_misspelled_log_level_is_a_usage_error() {
    let place = Place::new();
    place
        .run(&["config", "show", "--log-level", "loud"])
        .assert()
        .code(2)
        .stderr(predicate::str::contains("\"loud\" is not understood"));
}

#[test]
fn a_reader_that_goes_away_ends_the_verb_quietly() {
    let place = Place::new();
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let output = place
        .std_command()
        .args(["config", "example"])
        .stdout(writer)
        .stderr(Stdio::piped())
        .output()
        .expect("run");
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

/// Fault 25.
#[test]
fn a_spool_that_can_not_be_made_is_told_with_a_remedy() {
    let place = Place::new();
    place.write("spool", "a file, where the folder should be");
    place
        .run(&["once"])
        .env("GEMINI_API_KEY", "made-up")
        .assert()
        .code(10)
        .stderr(predicate::str::contains("error: cannot create folder "))
        .stderr(predicate::str::contains("try: the spool must be a folder"));
}

#[test]
fn a_drain_says_why_a_file_was_refused() {
    let place = Place::new();
    place.write("spool/inbox/a.jsonl", "");
    place
        .run(&["once"])
        .env("GEMINI_API_KEY", "made-up")
        .env("GEMINI_BATCHD__INTAKE__SETTLE", "0s")
        .assert()
        .code(1)
        .stdout(predicate::str::contains("a.jsonl  refused\n    the file is empty. Write one"));
}
