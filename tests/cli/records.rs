use predicates::prelude::*;

use crate::Place;

/// Records of a released version: one job and more.
fn released() -> String {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let path = root.join("tests/fixtures/records/v1/records.jsonl");
    std::fs::read_to_string(path).expect("there")
}

#[test]
fn what_is_imported_is_exported_again() {
    let place = Place::new();
    place.write("records.jsonl", &released());
    place
        .run(&["import", "records.jsonl"])
        .assert()
        .code(0)
        .stdout(predicate::str::contains("jobs are new, 0 were there already"));
    place
        .run(&["import", "records.jsonl"])
        .assert()
        .code(0)
        .stdout(predicate::str::starts_with("0 jobs are new"));
    let first = place.run(&["export"]).output().expect("run").stdout;
    let mut lines: Vec<_> = first.split(|byte| *byte == b'\n').collect();
    let released = released();
    let mut expected: Vec<_> = released.as_bytes().split(|byte| *byte == b'\n').collect();
    lines.sort();
    expected.sort();
    assert_eq!(lines.len(), expected.len());
    place.run(&["export", "out.jsonl"]).assert().code(0);
    assert_eq!(std::fs::read(place.path("out.jsonl")).expect("there"), first);
    place.run(&["export", "out.jsonl"]).assert().code(1);
}

#[test]
fn there_is_nothing_to_export_where_no_daemon_ever_ran() {
    let place = Place::new();
    place.run(&["export"]).assert().code(4).stderr(predicate::str::contains("no records"));
    assert!(!place.path("spool").exists());
}

#[test]
fn a_spool_in_use_has_its_own_exit_code() {
    let place = Place::new();
    let state = place.path("spool/state");
    std::fs::create_dir_all(&state).expect("made");
    let _lock = gemini_batchd::store::lock::StateLock::take(&state).expect("free");
    place.run(&["export"]).assert().code(11).stderr(predicate::str::contains("is in use"));
}

#[test]
fn a_wrong_line_is_named() {
    let place = Place::new();
    place.write("records.jsonl", "{\"v\": 1}\n");
    place
        .run(&["import", "records.jsonl"])
        .assert()
        .code(1)
        .stderr(predicate::str::contains("line 1"));
}

#[test]
fn root_leaves_no_records_in_the_spool_of_another_user() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let place = Place::new();
    place.write("records.jsonl", &released());
    place.run(&["import", "records.jsonl"]).assert().code(0);
    std::os::unix::fs::chown(place.path("spool/state"), Some(4321), None).expect("given away");
    for verb in [["import", "records.jsonl"].as_slice(), &["export"], &["adopt"]] {
        place
            .run(verb)
            .env("GEMINI_API_KEY", "any")
            .assert()
            .code(2)
            .stderr(predicate::str::contains("belongs to user 4321"))
            .stderr(predicate::str::contains(format!("sudo -u '#4321' gemini-batchd {}", verb[0])));
    }
}
