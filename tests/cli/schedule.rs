//! `schedule`: with a daemon, and without one.

use gemini_batchd::provider::gemini::emulator::Faults;
use predicates::prelude::*;
use serde_json::Value;

use crate::Place;
use crate::working::Working;

#[test]
fn what_comes_next_is_told_with_the_files_that_wait_for_it() {
    let settings = "[queue.\"nightly\"]\nrelease = \"0 0 1 1 *\"\ntime_zone = \"Asia/Kathmandu\"\n\
                    [queue.\"idle\"]\nrelease = \"0 0 2 1 *\"\n";
    let working = Working::new(settings, Faults::default());
    working.drop_file("nightly/a.jsonl", 3, "one");
    working.drop_file("nightly/b.jsonl", 2, "two");
    let id = working.until_state("nightly/a.jsonl", "planned");
    working.until_state("nightly/b.jsonl", "planned");
    let said = working.say(&["schedule"]);
    assert!(said.contains("the window of queue nightly opens ("), "{said}");
    assert!(said.contains("Asia/Kathmandu): 2 files wait"), "{said}");
    assert!(said.contains("the window of queue idle opens: no file waits"), "{said}");
    assert!(said.contains("the morning report is written"), "{said}");
    assert!(said.contains("what is old is tidied up"), "{said}");
    let short = |line: &&str| !line.contains("Kathmandu");
    assert!(said.lines().filter(short).all(|line| line.chars().count() <= 80), "{said}");
    let status = working.say(&["status"]);
    assert!(status.contains("waiting until") && status.contains("Asia/Kathmandu"), "{status}");
    let seen: Value = serde_json::from_str(&working.say(&["schedule", "--json"])).expect("JSON");
    let entries = seen["entries"].as_array().expect("entries");
    let nightly = entries.iter().find(|entry| entry["queue"] == "nightly").expect("one");
    assert_eq!((&nightly["kind"], &nightly["files"]), (&"window".into(), &2.into()));
    let times: Vec<&str> = entries.iter().filter_map(|entry| entry["at"].as_str()).collect();
    assert!(times.is_sorted(), "{times:?}");
    let released = working.say(&["release", &id]);
    assert!(released.contains("goes on"), "{released}");
    working.until_waiting("nightly/a.jsonl");
}

#[test]
fn without_a_daemon_the_configuration_is_told_and_that_none_runs() {
    let place = Place::new();
    place.write("gemini-batchd.toml", "[queue.\"nightly\"]\nrelease = \"0 22 * * *\"\n");
    place
        .run(&["schedule"])
        .assert()
        .code(0)
        .stdout(predicate::str::contains("the window of queue nightly opens\n"))
        .stdout(predicate::str::contains("the morning report is written"))
        .stderr(predicate::str::contains("no daemon is running"));
    let output = place.run(&["schedule", "--json"]).output().expect("it runs");
    let seen: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(seen["entries"].as_array().map(Vec::len), Some(3));
}

#[test]
fn an_impossible_window_is_refused_with_its_line() {
    let place = Place::new();
    place.write("gemini-batchd.toml", "[queue.default]\n\nrelease = \"22:00\"\n");
    place
        .run(&["config", "check"])
        .assert()
        .code(10)
        .stderr(predicate::str::contains("gemini-batchd.toml:3"))
        .stderr(predicate::str::contains("\"0 22 * * *\" for every day at 22:00"));
}
