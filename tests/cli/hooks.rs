//! Who is told what happened, and what is used again, on the command line.

use std::os::unix::fs::PermissionsExt;

use predicates::prelude::*;

use crate::Place;

const LINE: &str =
    "{\"key\": 1, \"request\": {\"contents\": [{\"parts\": [{\"text\": \"hi\"}]}]}}\n";

#[test]
fn hooks_are_tried_out_without_a_daemon() {
    let place = Place::new();
    place
        .run(&["hooks", "test"])
        .assert()
        .code(4)
        .stderr(predicate::str::contains("no hook is set"));
    let told = place.path("told");
    let script = format!("cat > {}; echo heard $GEMINI_BATCHD_EVENT", told.display());
    let text = format!(
        "[hooks]\non_done = [\"/bin/sh\", \"-c\", {script:?}]\non_failed = [\"/bin/false\"]\n"
    );
    place.write("gemini-batchd.toml", &text);
    place
        .run(&["hooks", "test", "on_done"])
        .assert()
        .code(0)
        .stdout("on_done: /bin/sh: told: heard done\n");
    let told: serde_json::Value =
        serde_json::from_slice(&std::fs::read(told).expect("told")).expect("JSON");
    assert_eq!((&told["version"], &told["event"]), (&1.into(), &"done".into()));
    place
        .run(&["hooks", "test"])
        .assert()
        .code(1)
        .stdout(predicate::str::contains("on_failed: /bin/false: it ended badly"));
    place.run(&["hooks", "test", "on_held"]).assert().code(4);
    place
        .run(&["hooks", "test", "on_fire"])
        .assert()
        .code(2)
        .stderr(predicate::str::contains("on_report"));
    assert!(!place.path("spool").exists(), "nothing is left behind");
}

#[test]
fn hooks_that_can_not_be_called_are_found_by_check_and_doctor() {
    let place = Place::new();
    place.write("gemini-batchd.toml", "[hooks]\non_done = [\"notify\", \"--now\"]\n");
    place
        .run(&["config", "check"])
        .assert()
        .code(10)
        .stderr(predicate::str::contains("gemini-batchd.toml:2: hooks.on_done names the program"));
    let script = place.path("notify");
    place.write("notify", "#!/bin/sh\n");
    let text =
        format!("[hooks]\non_done = [{script:?}]\non_late = \"https://example.org/x?marker\"\n");
    place.write("gemini-batchd.toml", &text);
    let doctor = || {
        let output = place.run(&["doctor", "--offline"]).output().expect("run");
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    let said = doctor();
    assert!(said.contains("FAIL  hooks") || said.contains("fail  hooks"), "{said}");
    assert!(said.contains("without a signature") && !said.contains("marker"), "{said}");
    let mode = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(&script, mode).expect("set");
    assert!(doctor().contains("ok    hooks"), "{}", doctor());
}

#[test]
fn a_file_can_be_submitted_past_the_cache() {
    let place = Place::new();
    place.write("a.jsonl", LINE);
    place.write("a.job.toml", "attempts = 2\ncache = \"1d\"\n");
    place.run(&["submit", "a.jsonl", "--no-cache"]).assert().code(0);
    let beside = std::fs::read_dir(place.path("spool/inbox"))
        .expect("listed")
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|ending| ending == "toml"))
        .expect("settings of its own");
    let text = std::fs::read_to_string(beside).expect("read");
    let settings: toml::Table = text.parse().expect("TOML");
    assert_eq!(settings["cache"].as_str(), Some("off"), "{text}");
    assert_eq!(settings["attempts"].as_integer(), Some(2), "{text}");
}

#[test]
fn a_cache_that_is_neither_off_nor_a_time_is_refused_with_its_line() {
    let place = Place::new();
    place.write("gemini-batchd.toml", "[queue.default]\ncache = \"yes\"\n");
    place
        .run(&["config", "check"])
        .assert()
        .code(10)
        .stderr(predicate::str::contains("gemini-batchd.toml:2: queue.default.cache"))
        .stderr(predicate::str::contains("\"off\""));
}
