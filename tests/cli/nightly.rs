use std::path::Path;
use std::process::Command;

use crate::{Place, binary};

/// Whether the tools of the example are on this machine.
fn has(tool: &str) -> bool {
    let found = Command::new(tool).arg("--version").output().is_ok_and(|o| o.status.success());
    if !found {
        println!("skipped: {tool} is not installed");
    }
    found
}

/// Runs Python on the place's database.
fn python(place: &Place, code: &str) -> String {
    let code = format!("import sqlite3\ndb = sqlite3.connect('t.db')\n{code}\ndb.commit()");
    let output = Command::new("python3")
        .args(["-c", &code])
        .current_dir(place.path(""))
        .output()
        .expect("run");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8").trim().to_owned()
}

/// Plays the daemon: waits for the file in the inbox and answers every line but `failing`.
fn answer(place: &Place, failing: Option<i64>) {
    let inbox = place.path("spool/inbox");
    let input = loop {
        let entries = std::fs::read_dir(&inbox).into_iter().flatten().flatten();
        let mut files = entries.map(|entry| entry.path());
        match files.find(|path| path.extension().is_some_and(|ending| ending == "jsonl")) {
            Some(path) => break path,
            None => std::thread::sleep(std::time::Duration::from_millis(20)),
        }
    };
    let text = std::fs::read_to_string(&input).expect("whole");
    let stem = input.file_stem().and_then(|stem| stem.to_str()).expect("a name").to_owned();
    let mut results = String::new();
    let (mut answered, mut failed) = (0, 0);
    for line in text.lines() {
        let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
        if line["key"].as_i64() == failing {
            failed += 1;
            continue;
        }
        answered += 1;
        let part = serde_json::json!({"text": format!("short {}", line["key"])});
        let content = serde_json::json!({"parts": [{"text": "hm", "thought": true}, part]});
        let response = serde_json::json!({"candidates": [{"content": content}]});
        let line = serde_json::json!({"key": line["key"], "response": response});
        results.push_str(&format!("{line}\n"));
    }
    place.write(&format!("spool/outbox/{stem}.results.jsonl"), &results);
    let manifest = serde_json::json!({"input": {"sha256": crate::submitting::sha256(&text)},
        "verdict": "whatever", "answered": answered, "failed": failed});
    place.write(&format!("spool/outbox/{stem}.manifest.json"), &manifest.to_string());
    std::fs::remove_file(input).expect("taken");
}

fn nightly(place: &Place) -> Command {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/nightly/nightly.sh");
    let mut command = Command::new(script);
    command
        .arg("t.db")
        .current_dir(place.path(""))
        .env("GEMINI_BATCHD", binary())
        .env("XDG_CONFIG_HOME", place.path("none"))
        .env("GEMINI_BATCHD__SPOOL__DIR", place.path("spool"));
    command
}

#[test]
fn the_nightly_script_brings_every_answer_back_to_its_row() {
    if !has("python3") || !has("flock") || !has("bash") {
        return;
    }
    let place = Place::new();
    python(
        &place,
        "db.execute('CREATE TABLE tickets(id INTEGER PRIMARY KEY, body TEXT, summary TEXT)')\n\
         db.executemany('INSERT INTO tickets(body) VALUES (?)', [('a \"b\"\\n c',), ('日本',), ('d',)])",
    );
    let code = std::thread::scope(|scope| {
        scope.spawn(|| answer(&place, Some(2)));
        nightly(&place).status().expect("run").code()
    });
    assert_eq!(code, Some(3), "one line failed");
    let rows = "print(db.execute('SELECT id, summary FROM tickets ORDER BY id').fetchall())";
    assert_eq!(python(&place, rows), "[(1, 'short 1'), (2, None), (3, 'short 3')]");
    // The next night only what is left goes out.
    let code = std::thread::scope(|scope| {
        scope.spawn(|| answer(&place, None));
        nightly(&place).status().expect("run").code()
    });
    assert_eq!(code, Some(0));
    assert_eq!(python(&place, rows), "[(1, 'short 1'), (2, 'short 2'), (3, 'short 3')]");
    assert_eq!(nightly(&place).status().expect("run").code(), Some(4), "nothing is left to do");
}

/// Runs the hook with a sendmail that keeps what it is given; gives that.
fn mailed(place: &Place, facts: &[(&str, &str)]) -> String {
    place.write("sendmail", "#!/bin/sh\ncat > mail\n");
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(place.path("sendmail"), executable).expect("set");
    let hook = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/nightly/mail-report.sh");
    let mut command = Command::new("bash");
    command.arg(hook).arg("team@example.org").current_dir(place.path(""));
    command.env("SENDMAIL", "./sendmail").envs(facts.iter().copied());
    let output = command.output().expect("run");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    std::fs::read_to_string(place.path("mail")).expect("mailed")
}

#[test]
fn the_hook_mails_a_report_and_what_is_held() {
    let place = Place::new();
    place.write("2026-11-21.md", "# The night\n\nAll 12 lines are answered.\n");
    let report = place.path("2026-11-21.json").display().to_string();
    let mail = mailed(
        &place,
        &[
            ("GEMINI_BATCHD_EVENT", "report"),
            ("GEMINI_BATCHD_TEXT", "the report of the night"),
            ("GEMINI_BATCHD_OUTBOX_MANIFEST", &report),
        ],
    );
    assert!(mail.starts_with("To: team@example.org\nSubject: gemini-batchd: report\n"), "{mail}");
    assert!(mail.ends_with("\n\n# The night\n\nAll 12 lines are answered.\n"), "{mail}");
    let mail = mailed(
        &place,
        &[
            ("GEMINI_BATCHD_EVENT", "held"),
            ("GEMINI_BATCHD_TEXT", "over budget; gemini-batchd release 01JD"),
            ("GEMINI_BATCHD_FILE", "a.jsonl\nBcc: everybody@example.org"),
        ],
    );
    assert!(mail.contains("\nSubject: gemini-batchd: held: a.jsonl Bcc: everybody@"), "{mail}");
    assert!(mail.ends_with("\n\nover budget; gemini-batchd release 01JD\n"), "{mail}");
}
