use std::process::Stdio;
use std::time::{Duration, Instant};

use gemini_batchd::provider::gemini::emulator::{Budget, Faults, Happened};
use predicates::prelude::*;

use crate::Place;
use crate::world::{BAD_KEY, JOB, KEY, World, stamp};

#[test]
fn the_list_shows_our_batches_marks_them_among_others_and_fits_a_terminal() {
    let (place, world) = (Place::new(), World::new());
    let mine = world.inline(&stamp(3, 1), 2);
    let other = world.inline("someone else's\u{1b}[31m", 1);
    world.advance(15);
    let said = world.said(&place, &["remote", "list"]);
    assert!(said.contains(&format!("* {mine}")), "{said}");
    assert!(said.contains(&format!("    job {JOB}, chunk 3, attempt 1\n")), "{said}");
    assert!(said.contains("RUNNING") && said.contains(" s 1/2"), "{said}");
    assert!(!said.contains(&other), "{said}");
    assert!(said.contains("1 of others are not shown; --all shows them"), "{said}");
    let said = world.said(&place, &["remote", "list", "--all"]);
    assert!(said.contains(&format!("  {other}")) && said.contains("someone else's"), "{said}");
    assert!(!said.contains('\u{1b}'), "{said}");
    assert!(said.lines().all(|line| line.chars().count() <= 80), "{said}");
}

#[test]
fn the_list_reads_all_pages_and_its_json_has_a_version() {
    let faults = Faults { list_empty_first_page: Budget::Always, ..Faults::default() };
    let (place, world) = (Place::new(), World::with(faults));
    for chunk in 1..=120 {
        world.inline(&stamp(chunk, 2), 1);
    }
    let listed = world.json(&place, &["remote", "list"]);
    assert_eq!((listed["version"].as_u64(), listed["others"].as_u64()), (Some(1), Some(0)));
    let batches = listed["batches"].as_array().expect("a list");
    assert_eq!(batches.len(), 120);
    let newest = &batches[0];
    assert_eq!(newest["job"], JOB);
    assert_eq!((newest["chunk"].as_u64(), newest["attempt"].as_u64()), (Some(120), Some(2)));
    assert_eq!(
        (newest["state"].as_str(), newest["over"].as_bool()),
        (Some("PENDING"), Some(false))
    );
    assert_eq!(newest["lines"]["total"], 1);
}

#[test]
fn batches_of_the_openai_layer_have_a_list_of_their_own() {
    let (place, world) = (Place::new(), World::new());
    let file = format!("files/{}-1-1", JOB.to_lowercase());
    let name = world.of_layer(&file, 2);
    assert!(name.starts_with("openai/batches/"), "{name}");
    let listed = world.json(&place, &["remote", "list", "--openai"]);
    assert_eq!(listed["batches"][0]["name"], name.as_str());
    assert_eq!(listed["batches"][0]["job"], JOB, "known by the name of its file");
    world.advance(60);
    let said = world.said(&place, &["remote", "get", &name]);
    assert!(said.contains("SUCCEEDED") && said.contains("chunk 1, attempt 1"), "{said}");
    let results = world.said(&place, &["remote", "results", &name]);
    assert_eq!(results.matches("custom_id").count(), 2, "{results}");
    world
        .run(&place, &["remote", "delete", &name, "--yes"])
        .assert()
        .code(2)
        .stderr(predicate::str::contains("has no call that removes a batch"));
    let faults = Faults { openai_list_missing: true, ..Faults::default() };
    world.emulator.set_faults(faults);
    world
        .run(&place, &["remote", "list", "--openai"])
        .assert()
        .code(1)
        .stderr(predicate::str::contains("shows no list of these batches"));
}

#[test]
fn one_batch_is_shown_with_all_there_is_and_what_is_not_there_is_told_so() {
    let (place, world) = (Place::new(), World::new());
    let name = world.of_file(&stamp(1, 1), "files/rows-1", 3);
    let bare = name.strip_prefix("batches/").expect("its prefix");
    let said = world.said(&place, &["remote", "get", bare]);
    for part in [&name, "PENDING", "gemini-2.5-flash", "3: 0 answered", "files/rows-1", " ago)"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let shown = world.json(&place, &["remote", "get", &name]);
    assert_eq!((shown["version"].as_u64(), &shown["batch"]["name"]), (Some(1), &name.into()));
    world
        .run(&place, &["remote", "get", "batches/nothing"])
        .assert()
        .code(1)
        .stderr(predicate::str::contains("batches/nothing is not there for this key"))
        .stderr(predicate::str::contains("try: `gemini-batchd remote list --all`"));
    world
        .run(&place, &["remote", "get", "files/x"])
        .assert()
        .code(2)
        .stderr(predicate::str::contains("one looks like batches/x"));
}

#[test]
fn results_of_every_kind_come_whole_and_never_over_another_file() {
    let (place, world) = (Place::new(), World::new());
    let inline = world.inline(&stamp(1, 1), 3);
    let file = world.of_file(&stamp(2, 1), "files/rows-2", 5);
    let embed = world.embeddings(&stamp(3, 1), 2);
    world
        .run(&place, &["remote", "results", &inline])
        .assert()
        .code(1)
        .stdout("")
        .stderr(predicate::str::contains("has not ended yet"));
    world.advance(60);
    for (name, rows) in [(&inline, 3), (&file, 5), (&embed, 2)] {
        let said = world.said(&place, &["remote", "results", name]);
        assert_eq!(said.lines().count(), rows, "{said}");
        for line in said.lines() {
            let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
            assert!(line["response"].is_object(), "{line}");
        }
        let told = world.said(&place, &["remote", "results", name, "-o", "out.jsonl"]);
        assert!(told.starts_with(&format!("{rows} results (")), "{told}");
        let written = std::fs::read_to_string(place.path("out.jsonl")).expect("there");
        assert_eq!(written, said);
        world
            .run(&place, &["remote", "results", name, "-o", "out.jsonl"])
            .assert()
            .code(1)
            .stderr(predicate::str::contains("out.jsonl is there already"));
        std::fs::remove_file(place.path("out.jsonl")).expect("removed");
    }
    let left = std::fs::read_dir(place.path("")).expect("listed").count();
    assert_eq!(left, 0, "nothing is left aside");
}

#[test]
fn a_download_that_breaks_goes_on_where_it_broke() {
    let (place, world) = (Place::new(), World::new());
    let name = world.of_file(&stamp(1, 1), "files/rows-1", 200);
    world.advance(60);
    let whole = world.said(&place, &["remote", "results", &name]);
    let faults = "download_ranges = true\ndownload_cut = { after = 5000, times = 2 }\n";
    let faults: Faults = toml::from_str(faults).expect("faults");
    world.emulator.set_faults(faults);
    let mut command = world.run(&place, &["remote", "results", &name]);
    let output = command.env("GEMINI_BATCHD__API__BACKOFF_MIN", "10ms").output().expect("run");
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8(output.stdout).expect("UTF-8"), whole);
}

#[test]
fn a_batch_is_stopped_once_and_removed_only_when_somebody_says_so() {
    let (place, world) = (Place::new(), World::new());
    let name = world.inline(&stamp(1, 1), 2);
    let delete = ["remote", "delete", name.as_str(), "--yes"];
    world
        .run(&place, &delete)
        .assert()
        .code(1)
        .stderr(predicate::str::contains("is not over"))
        .stderr(predicate::str::contains(format!("remote cancel {name}")));
    let said = world.said(&place, &["remote", "cancel", &name]);
    assert!(said.contains("is asked to stop"), "{said}");
    world.advance(60);
    world
        .run(&place, &["remote", "cancel", &name])
        .assert()
        .code(4)
        .stderr(predicate::str::contains("is over already"));
    world
        .run(&place, &delete[..3])
        .write_stdin("")
        .assert()
        .code(2)
        .stderr(predicate::str::contains("--yes"));
    let removed = |what: &Happened| matches!(what, Happened::BatchDeleted { .. });
    assert!(!world.happened().iter().any(removed));
    assert!(world.said(&place, &delete).contains("is removed"));
    assert!(world.happened().iter().any(removed));
    world.run(&place, &delete).assert().code(1);
}

#[test]
fn what_a_job_of_this_spool_waits_for_is_left_alone_unless_forced() {
    let (place, world) = (Place::new(), World::new());
    let name = world.of_file(&stamp(1, 1), &format!("files/{}-1-1", JOB.to_lowercase()), 2);
    let file = format!("{}-1-1", JOB.to_lowercase());
    std::fs::create_dir_all(place.path("spool/working").join(JOB)).expect("made");
    let refused = |verb: &[&str]| {
        let run = world.run(&place, verb).assert().code(1);
        run.stderr(predicate::str::contains(format!("gemini-batchd cancel {JOB}")));
    };
    refused(&["remote", "cancel", &name]);
    refused(&["remote", "files", "delete", &file, "--yes"]);
    world.said(&place, &["remote", "cancel", &name, "--force"]);
    let asked = |what: &&Happened| matches!(what, Happened::CancelAsked { .. });
    assert_eq!(world.happened().iter().filter(asked).count(), 1);
    world.advance(60);
    refused(&["remote", "delete", &name, "--yes"]);
    world.said(&place, &["remote", "delete", &name, "--yes", "--force"]);
    world.said(&place, &["remote", "files", "delete", &file, "--yes", "--force"]);
}

#[test]
fn files_are_listed_shown_and_removed() {
    let (place, world) = (Place::new(), World::new());
    world.upload(&format!("files/{}-2-1", JOB.to_lowercase()), &stamp(2, 1), "{}\n".repeat(700));
    world.upload("files/holiday", "a photo", "x".to_owned());
    let said = world.said(&place, &["remote", "files", "list"]);
    assert!(said.contains("chunk 2, attempt 1") && said.contains("2.1 kB"), "{said}");
    assert!(!said.contains("holiday") && said.contains("--all"), "{said}");
    let all = world.json(&place, &["remote", "files", "list", "--all"]);
    assert_eq!(all["files"].as_array().map(Vec::len), Some(2), "{all}");
    let said = world.said(&place, &["remote", "files", "get", "holiday"]);
    assert!(said.contains("a photo") && said.contains("1 B (1 bytes)"), "{said}");
    world.said(&place, &["remote", "files", "delete", "holiday", "--yes"]);
    let gone = ["remote", "files", "get", "holiday"];
    world.run(&place, &gone).assert().code(1).stderr(predicate::str::contains("is not there"));
}

#[test]
fn a_key_that_is_missing_unknown_or_refused_has_its_exit_code() {
    let (place, world) = (Place::new(), World::new());
    let list = ["remote", "list"];
    let mut none = world.run(&place, &list);
    none.env_remove("GEMINI_API_KEY").assert().code(12);
    let mut bad = world.run(&place, &list);
    bad.env("GEMINI_API_KEY", BAD_KEY)
        .assert()
        .code(12)
        .stderr(predicate::str::contains("check the API key"))
        .stderr(predicate::str::contains(BAD_KEY).not());
    world
        .run(&place, &["remote", "list", "--credential", "team"])
        .assert()
        .code(2)
        .stderr(predicate::str::contains("there is no credential \"team\""));
    place.write("gemini-batchd.toml", "queue.team.credential = \"team\"\n");
    let mut named = world.run(&place, &["remote", "--credential", "team", "list"]);
    named
        .env("GEMINI_API_KEY_TEAM", "marker-other")
        .assert()
        .code(0)
        .stdout(predicate::str::contains("no batches of this program"));
    let mut nowhere = world.run(&place, &list);
    nowhere
        .env("GEMINI_BATCHD__API__BASE_URL", "http://127.0.0.1:9")
        .assert()
        .code(1)
        .stderr(predicate::str::contains("try again"));
    let denied: Faults = toml::from_str("denied = { status = 403 }\n").expect("faults");
    world.emulator.set_faults(denied);
    world.run(&place, &list).assert().code(12);
}

#[test]
fn a_batch_that_the_daemon_waits_for_is_left_to_it_and_the_doctor_finds_the_daemon() {
    let (place, world) = (Place::new(), World::new());
    place.write("gemini-batchd.toml", "intake.settle = \"0s\"\nintake.watch = \"poll\"\n");
    let line = r#"{"key": 1, "request": {"contents": [{"parts": [{"text": "hi"}]}]}}"#;
    place.write("spool/inbox/a.jsonl", line);
    let mut daemon = place
        .std_command()
        .arg("run")
        .env("GEMINI_API_KEY", KEY)
        .env("GEMINI_BATCHD__API__BASE_URL", world.emulator.url())
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts");
    let created = |what: Happened| match what {
        Happened::Created { batch, .. } => Some(batch),
        _ => None,
    };
    let begun = Instant::now();
    let name = loop {
        if let Some(name) = world.happened().into_iter().find_map(created) {
            break name;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "it never sent anything");
        std::thread::sleep(Duration::from_millis(5));
    };
    world
        .run(&place, &["remote", "cancel", &name])
        .assert()
        .code(1)
        .stderr(predicate::str::contains("which is under way"))
        .stderr(predicate::str::contains("try: `gemini-batchd cancel "));
    let findings = world.json(&place, &["doctor"])["findings"].clone();
    let found = |check: &str, text: &str| {
        findings.as_array().expect("a list").iter().any(|found| {
            let told = found["text"].as_str().expect("a text");
            found["check"] == check && found["level"] == "ok" && told.contains(text)
        })
    };
    assert!(found("daemon", "is running, process"), "{findings}");
    assert!(found("records", "in use by the daemon"), "{findings}");
    daemon.kill().expect("killed");
    daemon.wait().expect("ended");
}
