//! `list`, `show`, `events`, `status --watch`, `completions` and `man`.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::Stdio;

use gemini_batchd::provider::gemini::emulator::Faults;
use predicates::prelude::*;
use serde_json::Value;

use crate::Place;
use crate::working::Working;

#[test]
fn jobs_are_listed_filtered_and_counted() {
    let working = Working::new("[queue.\"reviews\"]\nattempts = 2", Faults::default());
    working.drop_file("first.jsonl", 3, "first");
    working.until_waiting("first.jsonl");
    working.advance();
    working.until_state("first.jsonl", "done");
    working.drop_file("reviews/second.jsonl", 1200, "second");
    working.drop_file("twice.jsonl", 3, "first");
    working.until_waiting("reviews/second.jsonl");
    working.until_state("twice.jsonl", "held");
    let all = working.say(&["list"]);
    let lines: Vec<&str> = all.lines().collect();
    assert_eq!(lines.len(), 4, "{all}");
    assert!(
        lines[0].starts_with("ID                          STATE         ANSWERED     AGE  FILE"),
        "{all}"
    );
    let column = lines[0].find("FILE").expect("a heading");
    assert!(lines.iter().all(|line| line.chars().count() <= 80), "{all}");
    let files: Vec<&str> = lines[1..].iter().map(|line| &line[column..]).collect();
    assert!(files.contains(&"reviews/second.jsonl") && files[2] == "first.jsonl", "{all}");
    assert!(lines[3].contains("done") && lines[3].contains("3/3"), "{all}");
    for (filter, found) in [
        (vec!["--state", "held,failed"], "twice.jsonl"),
        (vec!["--queue", "reviews"], "reviews/second.jsonl"),
        (vec!["--file", "IRS"], "first.jsonl"),
        (vec!["--oldest", "--limit", "1", "--since", "2h"], "first.jsonl"),
    ] {
        let said = working.say(&[vec!["list"], filter.clone()].concat());
        let fits = said.lines().count() == 2 && said.trim_end().ends_with(found);
        assert!(fits, "{filter:?}: {said}");
    }
    working
        .place
        .run(&["list", "--limit", "1"])
        .assert()
        .code(0)
        .stderr("1 of 3 jobs; --limit 0 shows all of them\n");
    working.place.run(&["list", "--file", "nothing"]).assert().stdout("no jobs like that\n");
    working
        .place
        .run(&["list", "--state", "lost"])
        .assert()
        .code(2)
        .stderr(predicate::str::contains("cancelled"));
    working
        .place
        .run(&["list", "--since", "yesterday"])
        .assert()
        .code(1)
        .stderr(predicate::str::contains("\"yesterday\" is no moment"));
    for (limit, count) in [("0", 3), ("2", 2)] {
        let said = working.say(&["list", "--json", "--limit", limit]);
        let list: Value = serde_json::from_str(&said).expect("JSON");
        assert_eq!((&list["version"], &list["total"]), (&1.into(), &3.into()));
        assert_eq!(list["jobs"].as_array().map(Vec::len), Some(count), "{said}");
    }
    let said = working.say(&["list", "--json", "--file", "nothing"]);
    let list: Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!(list["jobs"], serde_json::json!([]));
}

#[test]
fn one_job_is_shown_with_why_it_waits_what_failed_and_what_it_cost() {
    let working = Working::new("[queue.default]\nattempts = 1\n", Faults::default());
    working.drop_file("names.jsonl", 4, "name");
    working.place.write(
        "spool/inbox/odd.jsonl",
        concat!(
            "{\"key\": \"a\", \"request\": {\"contents\": [{\"parts\": [{\"text\": \"hi\"}]}]}}\n",
            "{\"key\": \"b\"}\n",
        ),
    );
    working.until_waiting("names.jsonl");
    working.until_waiting("odd.jsonl");
    let seen = working.until_state("names.jsonl", "active");
    let said = working.say(&["show", &seen.to_lowercase()]);
    assert!(said.starts_with(&format!("job      {seen}\nfile     names.jsonl, ")), "{said}");
    assert!(said.contains("state    active: waiting at Google "), "{said}");
    assert!(said.contains("lines    0 of 4 answered, 4 open"), "{said}");
    assert!(
        said.contains("  batches/") && said.contains(", attempt 1, 4 lines, created "),
        "{said}"
    );
    assert!(said.contains("\nevents\n  ") && said.contains("  batch created  "), "{said}");
    let said = working.say(&["status", &seen]);
    assert!(said.starts_with(&format!("job      {seen}\n")) && !said.contains("events"), "{said}");
    working.advance();
    let odd = working.until_state("odd.jsonl", "done");
    let said = working.say(&["show", &odd]);
    assert!(said.contains("state    partial: complete"), "{said}");
    assert!(said.contains("lines    1 of 2 answered, 1 failed"), "{said}");
    assert!(said.contains("failed   1 invalid_request; see odd.errors.jsonl"), "{said}");
    assert!(said.contains("tokens   ") && said.contains(" prompt, "), "{said}");
    assert!(said.contains("took "), "{said}");
    let json: Value = serde_json::from_str(&working.say(&["show", &odd, "--json"])).expect("JSON");
    assert_eq!((&json["version"], &json["job"]["id"]), (&1.into(), &odd.clone().into()));
    assert!(json["events"].as_array().is_some_and(|events| events.len() > 3), "{json:#}");
    working.place.run(&["show", "01ZZ"]).assert().code(1).stderr(predicate::str::contains("01ZZ"));
}

#[test]
fn what_happens_is_told_while_it_happens() {
    let working = Working::new("", Faults::default());
    let mut follower = working
        .place
        .std_command()
        .args(["events", "--follow", "--json"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("it runs");
    let mut lines = BufReader::new(follower.stdout.take().expect("piped")).lines();
    let mut next = |kind: &str| loop {
        let line = lines.next().expect("it goes on").expect("read");
        let event: Value = serde_json::from_str(&line).expect("one object a line");
        if event["kind"] == kind {
            return event;
        }
    };
    next("started");
    working.drop_file("a.jsonl", 2, "a");
    let created = next("batch_created");
    assert_eq!(created["file"], "a.jsonl");
    working.drop_file("b.jsonl", 2, "b");
    working.advance();
    next("delivered");
    follower.kill().expect("it ran");
    follower.wait().expect("ended");
    let id = created["job"].as_str().expect("its job");
    working.until_state("a.jsonl", "done");
    let said = working.say(&["events", id]);
    assert!(said.lines().all(|line| !line.contains("b.jsonl")), "{said}");
    let kinds = ["claimed", "planned", "batch created", "collected", "delivered"];
    let at = kinds.map(|kind| said.find(kind).unwrap_or_else(|| panic!("no {kind}: {said}")));
    assert!(at.is_sorted(), "{said}");
    let list: Value = serde_json::from_str(&working.say(&["events", "--json"])).expect("JSON");
    assert_eq!(list["version"], 1);
    assert!(list["next"].as_u64() >= list["events"].as_array().map(|all| all.len() as u64));
    working.place.run(&["events", "01ZZ"]).assert().code(1).stdout("");
}

#[test]
fn a_screen_is_drawn_on_a_terminal_only_and_given_back() {
    let working = Working::new("", Faults::default());
    working
        .place
        .run(&["status", "--watch"])
        .assert()
        .code(2)
        .stdout("")
        .stderr(predicate::str::contains("needs a terminal"))
        .stderr(predicate::str::contains("events --follow"));
    working.place.run(&["status", "--watch", "--json"]).assert().code(2);
    working.drop_file("a.jsonl", 2, "a");
    working.until_waiting("a.jsonl");
    for end in ["q", "\u{3}"] {
        let mut terminal = Terminal::new(&working.place, &["status", "--watch"]);
        terminal.until("a.jsonl");
        terminal.until("0 of 2 answered, 2 open");
        terminal.until("    waiting at Google");
        terminal.until("q ends");
        terminal.master.write_all(end.as_bytes()).expect("typed");
        let shown = terminal.until("\u{1b}[?1049l");
        assert!(shown.starts_with("\u{1b}[?1049h") && shown.contains("\u{1b}[?25h"), "{shown:?}");
        assert_eq!(terminal.child.wait().expect("ended").code(), Some(0));
    }
}

#[test]
fn completions_and_manual_pages_know_every_verb() {
    let place = Place::new();
    for shell in ["bash", "zsh", "fish"] {
        let assert = place.run(&["completions", shell]).assert().code(0);
        let script = String::from_utf8_lossy(&assert.get_output().stdout).into_owned();
        for word in ["take-over", "status", "watch", "completions"] {
            assert!(script.contains(word), "{shell}: {word}");
        }
    }
    place.run(&["completions", "tcsh"]).assert().code(2);
    place
        .run(&["man"])
        .assert()
        .code(0)
        .stdout(predicate::str::contains(".TH gemini-batchd 1"))
        .stdout(predicate::str::contains("gemini\\-batchd\\-status(1)"));
    place
        .run(&["man", "list"])
        .assert()
        .code(0)
        .stdout(predicate::str::contains(".TH gemini-batchd-list 1"))
        .stdout(predicate::str::contains("\\-\\-since"));
    place.run(&["man", "lsit"]).assert().code(2).stderr(predicate::str::contains("lsit"));
}

/// The program on a terminal of its own.
struct Terminal {
    master: std::fs::File,
    child: std::process::Child,
    shown: Vec<u8>,
}

impl Terminal {
    fn new(place: &Place, arguments: &[&str]) -> Terminal {
        use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
        use rustix::termios::{Winsize, tcsetwinsize};
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
        grantpt(&master).and_then(|()| unlockpt(&master)).expect("ours");
        let name = ptsname(&master, Vec::new()).expect("a name").into_string().expect("UTF-8");
        let size = Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&master, size).expect("its size");
        let slave = || std::fs::File::options().read(true).write(true).open(&name).expect("opened");
        let child = place
            .std_command()
            .args(arguments)
            .env("TERM", "xterm-256color")
            .stdin(slave())
            .stdout(slave())
            .stderr(slave())
            .spawn()
            .expect("it runs");
        Terminal { master: master.into(), child, shown: Vec::new() }
    }

    /// Reads until this was shown; answers with all that was.
    fn until(&mut self, text: &str) -> String {
        let mut piece = [0; 4096];
        loop {
            let shown = String::from_utf8_lossy(&self.shown).into_owned();
            if shown.contains(text) {
                return shown;
            }
            match self.master.read(&mut piece) {
                Ok(count) if count > 0 => self.shown.extend_from_slice(&piece[..count]),
                end => panic!("{text:?} was not shown, then {end:?}: {shown:?}"),
            }
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Most often it has ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
