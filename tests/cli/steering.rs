//! The verbs that steer a running daemon: what they print, and their exit codes.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Stdio};
use std::time::{Duration, Instant};

use predicates::prelude::*;
use serde_json::{Value, json};

use crate::Place;

/// A daemon and an API for it, until the test ends.
struct Running {
    emulator: Child,
    /// It ends when nobody can read what it says.
    _said: BufReader<ChildStdout>,
    daemon: Child,
}

impl Running {
    fn at(place: &Place) -> Running {
        place.write("faults.toml", "blocked = { every = 2, times = 1 }\n");
        let mut emulator = place
            .std_command()
            .args(["emulate", "--speed", "200", "--faults", "faults.toml"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("started");
        let mut line = String::new();
        let mut said = BufReader::new(emulator.stdout.take().expect("piped"));
        said.read_line(&mut line).expect("read");
        let address = line.trim().strip_prefix("listening on ").expect("an address");
        place.write(
            "gemini-batchd.toml",
            &format!(
                "api.base_url = {address:?}\npoll.min = \"10ms\"\npoll.max = \"20ms\"\n\
                 intake.settle = \"0s\"\nintake.rescan = \"50ms\"\nintake.watch = \"poll\"\n\
                 queue.slow.attempts = 1\nqueue.\"two words\".attempts = 1\n"
            ),
        );
        let daemon = place
            .std_command()
            .arg("run")
            .env("GEMINI_API_KEY", "a-key-of-the-tests")
            .stderr(Stdio::null())
            .spawn()
            .expect("started");
        let running = Running { emulator, _said: said, daemon };
        wait_for(|| place.run(&["status"]).output().is_ok_and(|output| output.status.success()));
        running
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        for child in [&mut self.daemon, &mut self.emulator] {
            // One that has ended needs no end.
            drop(child.kill());
            drop(child.wait());
        }
    }
}

/// What takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(120);

fn wait_for(is_so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "it did not come to that");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn manifest(place: &Place, stem: &str) -> Value {
    let path = place.path(&format!("spool/outbox/{stem}.manifest.json"));
    wait_for(|| path.exists());
    serde_json::from_slice(&std::fs::read(path).expect("read")).expect("JSON")
}

fn lines(count: usize) -> String {
    let line = |n| json!({"key": n, "request": {"contents": [{"parts": [{"text": "hi"}]}]}});
    (0..count).map(|n| format!("{}\n", line(n))).collect()
}

/// What a verb prints as JSON, and its exit code.
fn asked(place: &Place, arguments: &[&str]) -> (Value, Option<i32>) {
    let output = place.run(arguments).arg("--json").output().expect("it runs");
    (serde_json::from_slice(&output.stdout).unwrap_or_default(), output.status.code())
}

#[test]
fn jobs_are_steered_one_by_one_and_what_is_refused_is_told_last() {
    let place = Place::new();
    let _running = Running::at(&place);
    place.write("spool/inbox/a.jsonl", &lines(4));
    let id = manifest(&place, "a")["job"].as_str().expect("an id").to_owned();
    // Its record says that it is over a moment after its manifest does.
    wait_for(|| asked(&place, &["status", &id]).0["state"] == "done");
    let said = format!(
        "{id} (a.jsonl) is tried again: its 2 failed lines lie in the inbox, as a~retry.jsonl\n"
    );
    place.run(&["retry", &id]).assert().code(0).stdout(said);
    let retried = manifest(&place, "a~retry");
    let again = retried["job"].as_str().expect("an id");
    assert_eq!(retried["answered"], 2);
    for (verb, why) in [
        ("cancel", "has nothing left to cancel"),
        ("hold", "has nothing left to send"),
        ("retry", "has no failed lines: all of them are answered"),
    ] {
        let said = format!("error: job {again} {why}\n");
        // Its record says that it is over a moment after its manifest does.
        wait_for(|| {
            let output = place.run(&[verb, again]).output().expect("it runs");
            output.stderr == said.as_bytes()
        });
        place.run(&[verb, again]).assert().code(1).stdout("").stderr(said);
    }
    place
        .run(&["delete", &id, "01ZZ", again])
        .assert()
        .code(1)
        .stdout(format!(
            "{id} (a.jsonl) is forgotten; its results stay in the outbox, and its input in the \
             archive\n{again} (a~retry.jsonl) is forgotten; its results stay in the outbox, and \
             its input in the archive\n"
        ))
        .stderr("error: no job's id begins with \"01ZZ\"; `gemini-batchd status` lists them\n");
    assert!(place.path("spool/outbox/a.results.jsonl").exists());
    place.run(&["hold"]).assert().code(2);
}

#[test]
fn what_is_steered_is_told_in_one_form_of_json() {
    let place = Place::new();
    let _running = Running::at(&place);
    place.write("spool/inbox/a.jsonl", &lines(1));
    let id = manifest(&place, "a")["job"].as_str().expect("an id").to_owned();
    wait_for(|| place.path("spool/archive/a.jsonl").exists());
    wait_for(|| {
        let output = place.run(&["hold", &id]).output().expect("it runs");
        String::from_utf8_lossy(&output.stderr).contains("nothing left to send")
    });
    let (told, code) = asked(&place, &["delete", "01ZZ", &id]);
    assert_eq!(code, Some(1), "{told}");
    let said = "is forgotten; its results stay in the outbox, and its input in the archive";
    let expected = json!({
        "version": 1, "asked": "delete",
        "done": [{"job": id, "file": "a.jsonl", "said": said}],
        "refused": [{
            "job": "01ZZ",
            "message": "no job's id begins with \"01ZZ\"; `gemini-batchd status` lists them",
        }],
    });
    assert_eq!(told, expected);
    let (told, code) = asked(&place, &["pause", "slow"]);
    assert_eq!(code, Some(0), "{told}");
    assert_eq!(
        (&told["version"], &told["asked"], &told["queue"]),
        (&1.into(), &"pause".into(), &"slow".into())
    );
    assert!(told["said"].as_str().is_some_and(|said| said.contains("slow is paused")), "{told}");
    let (told, code) = asked(&place, &["drain"]);
    assert_eq!((code, &told["queue"]), (Some(0), &Value::Null), "{told}");
}

#[test]
fn a_queue_or_the_daemon_is_paused_and_resumed_by_its_name() {
    let place = Place::new();
    let _running = Running::at(&place);
    let what = "nothing new is taken in or sent, and what is at the API is collected";
    let said = |verb: &str, queue: &[&str]| {
        let output = place.run(&[verb]).args(queue).output().expect("it runs");
        let (out, err) = (output.stdout, output.stderr);
        let text = String::from_utf8([out, err].concat()).expect("UTF-8");
        format!("{} {text}", output.status.code().unwrap_or(-1))
    };
    for (verb, queue, expected) in [
        ("resume", None, "1 error: the daemon is not paused\n".to_owned()),
        (
            "pause",
            Some("two words"),
            format!(
                "0 the queue 'two words' is paused: {what}; `gemini-batchd resume 'two words'` \
                 lets it go on\n"
            ),
        ),
        (
            "resume",
            None,
            "1 error: the daemon is not paused as a whole; the queue 'two words' is paused: \
             `gemini-batchd resume 'two words'`\n"
                .to_owned(),
        ),
        (
            "pause",
            None,
            format!("0 the daemon is paused: {what}; `gemini-batchd resume` lets it go on\n"),
        ),
        (
            "resume",
            Some("slow"),
            "1 error: the queue slow is not paused by itself, but the daemon as a whole is: \
             `gemini-batchd resume`\n"
                .to_owned(),
        ),
        (
            "resume",
            None,
            "0 the daemon goes on; the queue 'two words' is paused: `gemini-batchd resume 'two \
             words'`\n"
                .to_owned(),
        ),
        ("resume", Some("two words"), "0 the queue 'two words' goes on\n".to_owned()),
        ("resume", Some("slow"), "1 error: the queue slow is not paused\n".to_owned()),
        (
            "pause",
            Some("slwo"),
            "1 error: there is no queue `slwo`; did you mean `slow`?\n".to_owned(),
        ),
    ] {
        let queue: Vec<&str> = queue.into_iter().collect();
        assert_eq!(said(verb, &queue), expected, "{verb} {queue:?}");
        if (verb, queue.len()) == ("pause", 0) {
            // Where nothing goes on, a queue that is resumed would not either.
            let status = said("status", &[]);
            assert!(status.contains("paused by an operator"), "{status}");
            assert!(!status.contains("resume slow"), "{status}");
        }
    }
}

#[test]
fn a_drained_daemon_ends_with_0_and_leaves_what_came_after() {
    let place = Place::new();
    let mut running = Running::at(&place);
    let said = "the daemon takes in nothing new, finishes what it has, and ends then; \
                `gemini-batchd resume` takes that back\n";
    place.run(&["drain"]).assert().code(0).stdout(said);
    place.write("spool/inbox/a.jsonl", &lines(1));
    let ended = running.daemon.wait().expect("it ends by itself");
    assert_eq!(ended.code(), Some(0), "systemd does not start it again");
    assert!(place.path("spool/inbox/a.jsonl").exists());
    for arguments in [
        ["retry", "01JD"].as_slice(),
        &["hold", "01JD"],
        &["delete", "01JD"],
        &["pause"],
        &["resume", "slow"],
        &["drain"],
    ] {
        place
            .run(arguments)
            .assert()
            .code(1)
            .stdout("")
            .stderr(predicate::str::starts_with("error: no daemon is running"))
            .stderr(predicate::str::contains("gemini-batchd run"));
    }
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd/gemini-batchd.service");
    let unit = std::fs::read_to_string(unit).expect("the unit");
    assert!(unit.lines().any(|line| line == "Restart=on-failure"));
}
