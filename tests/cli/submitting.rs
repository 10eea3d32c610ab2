use std::io::{BufRead, BufReader};
use std::process::Stdio;

use predicates::prelude::*;

use crate::Place;

const LINE: &str =
    "{\"key\": 1, \"request\": {\"contents\": [{\"parts\": [{\"text\": \"hi\"}]}]}}\n";

/// As `sha256sum` tells it.
pub fn sha256(text: &str) -> String {
    use sha2::{Digest, Sha256};
    Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_file_is_dropped_whole_and_never_over_another() {
    let place = Place::new();
    place.write("a.jsonl", LINE);
    for name in ["a.jsonl", "a~2.jsonl"] {
        let said = format!("submitted {name} ({} bytes)\n", LINE.len());
        place.run(&["submit", "a.jsonl"]).assert().code(0).stdout(said);
        let dropped = place.path("spool/inbox").join(name);
        assert_eq!(std::fs::read_to_string(dropped).expect("there"), LINE);
    }
    let left = std::fs::read_dir(place.path("spool/inbox")).expect("listed").count();
    assert_eq!(left, 2, "nothing else is left behind");
}

#[test]
fn standard_input_needs_a_name() {
    let place = Place::new();
    place
        .run(&["submit", "-"])
        .write_stdin(LINE)
        .assert()
        .code(2)
        .stderr(predicate::str::contains("--name NAME.jsonl"));
    place.run(&["submit", "-", "--name", "n.jsonl"]).write_stdin(LINE).assert().code(0);
    let dropped = place.path("spool/inbox/n.jsonl");
    assert_eq!(std::fs::read_to_string(dropped).expect("there"), LINE);
}

#[test]
fn a_name_that_the_daemon_would_refuse_is_refused_before_the_drop() {
    let place = Place::new();
    place.write("a.jsonl", LINE);
    let long = format!("{}.jsonl", "n".repeat(200));
    for (name, why) in [
        (long.as_str(), "longer than 200 bytes"),
        ("a.jsonl.bz2", "another ending"),
        ("a.pdf", "another ending"),
        (".a.jsonl", "begins with a dot"),
        ("../a.jsonl", "not the name of one file"),
    ] {
        place
            .run(&["submit", "a.jsonl", "--name", name])
            .assert()
            .code(2)
            .stderr(predicate::str::contains(why));
    }
    assert!(!place.path("spool/inbox").exists());
}

#[test]
fn a_queue_that_is_not_configured_is_refused() {
    let place = Place::new();
    place.write("a.jsonl", LINE);
    place.write("gemini-batchd.toml", "[queue.reviews]\nattempts = 2\n");
    place
        .run(&["submit", "a.jsonl", "--queue", "reveiws"])
        .assert()
        .code(2)
        .stderr(predicate::str::contains("configured are default, reviews"));
    place.run(&["submit", "a.jsonl", "--queue", "reviews/german"]).assert().code(0);
    assert!(place.path("spool/inbox/reviews/german/a.jsonl").exists());
    place.run(&["submit", "a.jsonl", "--queue", "reviews/../.."]).assert().code(2);
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let place = Place::new();
    place
        .run(&["submit", "no.jsonl"])
        .assert()
        .code(1)
        .stderr(predicate::str::contains("error: no.jsonl cannot be submitted\n  because: "));
}

#[test]
fn a_pipe_in_place_of_a_file_does_not_hang() {
    let place = Place::new();
    let fifo = place.path("a.jsonl");
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, mode, 0).expect("made");
    place
        .run(&["submit", "a.jsonl"])
        .timeout(std::time::Duration::from_secs(20))
        .assert()
        .code(1)
        .stderr(predicate::str::contains("not a regular file"));
}

/// Starts `submit --wait`, lets `act` play the daemon once the wait has begun, and gives the
/// exit code and standard output.
fn waited(place: &Place, act: impl FnOnce(u32)) -> (Option<i32>, String) {
    place.write("a.jsonl", LINE);
    let mut child = place
        .std_command()
        .args(["submit", "--wait", "a.jsonl"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("started");
    let mut stderr = BufReader::new(child.stderr.take().expect("piped"));
    let mut line = String::new();
    stderr.read_line(&mut line).expect("read");
    assert!(line.starts_with("no daemon is running here"), "{line}");
    act(child.id());
    let output = child.wait_with_output().expect("ended");
    (output.status.code(), String::from_utf8(output.stdout).expect("UTF-8"))
}

#[test]
fn waiting_ends_with_the_manifest_and_the_code_of_the_job() {
    for (answered, failed, verdict, code) in
        [(1, 0, "complete", 0), (2, 1, "partial", 3), (0, 1, "failed", 1)]
    {
        let place = Place::new();
        let manifest = serde_json::json!({"input": {"sha256": sha256(LINE)}, "verdict": verdict,
            "answered": answered, "failed": failed});
        let (ended, said) =
            waited(&place, |_| place.write("spool/outbox/a.manifest.json", &manifest.to_string()));
        assert_eq!(ended, Some(code), "{said}");
        let told = format!("a.jsonl: {verdict}: {answered} answered, {failed} failed; see ");
        assert!(said.contains(&told), "{said}");
    }
}

#[test]
fn waiting_ends_when_the_file_is_held() {
    let place = Place::new();
    let reason = r#"{"reason": "duplicate", "message": "seen before", "remedy": "wait for it"}"#;
    let (ended, said) = waited(&place, |_| place.write("spool/held/a.jsonl.reason.json", reason));
    assert_eq!(ended, Some(13));
    assert!(said.contains("a.jsonl: held: seen before. Wait for it"), "{said}");
}

#[test]
fn an_interrupted_wait_leaves_the_file_submitted() {
    let place = Place::new();
    let (ended, _) = waited(&place, |id| {
        let id = i32::try_from(id).ok().and_then(rustix::process::Pid::from_raw).expect("an id");
        rustix::process::kill_process(id, rustix::process::Signal::INT).expect("sent");
    });
    assert_eq!(ended, Some(130));
    assert!(place.path("spool/inbox/a.jsonl").exists());
}

#[test]
fn settings_beside_a_file_are_dropped_with_it_and_wrong_ones_before_nothing_is() {
    let place = Place::new();
    place.write("a.jsonl", LINE);
    place.write("a.job.toml", "attempts = 2\n");
    place.run(&["submit", "a.jsonl"]).assert().code(0);
    let dropped = || std::fs::read_to_string(place.path("spool/inbox/a.jsonl.job.toml"));
    assert_eq!(dropped().expect("there"), "attempts = 2\n");
    place.write("b.toml", "prority = 2\n");
    for verb in [&["submit", "a.jsonl", "--job-file", "b.toml"][..], &["submit", "b.jsonl"]] {
        place.write("b.jsonl", LINE);
        place.write("b.job.toml", "prority = 2\n");
        place.run(verb).assert().code(10).stderr(predicate::str::contains(
            ":1: unknown key `prority`; did you mean `priority`?",
        ));
    }
    let left = std::fs::read_dir(place.path("spool/inbox")).expect("listed").count();
    assert_eq!(left, 2, "the first one and its settings");
    place.write("b.toml", "priority = 2\n");
    place.run(&["submit", "a.jsonl", "--job-file", "b.toml"]).assert().code(0);
    let dropped = std::fs::read_to_string(place.path("spool/inbox/a~2.jsonl.job.toml"));
    assert_eq!(dropped.expect("there"), "priority = 2\n");
}

#[test]
fn lint_and_plan_heed_the_settings_beside_a_file() {
    let place = Place::new();
    let line = r#"{"key": 1, "request": {"model": "gemini-2.5-pro", "contents": [{}]}}"#;
    place.write("a.jsonl", &format!("{line}\n{line}\n"));
    place.run(&["lint", "a.jsonl"]).assert().code(1);
    place.write(
        "a.job.toml",
        "model = \"gemini-2.5-pro\"\nlines_per_batch = 1\ndefaults = { store = true }\n",
    );
    place.run(&["lint", "a.jsonl"]).assert().code(0);
    place
        .run(&["plan", "a.jsonl"])
        .assert()
        .code(0)
        .stdout(predicate::str::contains("model gemini-2.5-pro"))
        .stdout(predicate::str::contains("batch 2: requests 2 to 2"));
    place.write("a.job.toml", "model = 5\n");
    place
        .run(&["plan", "a.jsonl"])
        .assert()
        .code(10)
        .stderr(predicate::str::contains("a.job.toml:1: model must be a text in quotes"));
}
