use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;

use gemini_batchd::store::DaemonStore;
use gemini_batchd::store::lock::StateLock;
use serde_json::Value;

use crate::Place;
use crate::world::{BAD_KEY, JOB, World};

/// What the doctor finds, with the exit code.
fn found(world: &World, place: &Place, more: &[(&str, &str)]) -> (i32, Vec<Value>) {
    let mut command = world.run(place, &["doctor", "--json"]);
    let output = command.envs(more.iter().copied()).output().expect("run");
    let said: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
        panic!("{error}: {}", String::from_utf8_lossy(&output.stderr));
    });
    assert_eq!(said["version"], 1);
    let findings = said["findings"].as_array().expect("a list").clone();
    (output.status.code().expect("it ended"), findings)
}

/// Level and text of the worst finding of a check.
fn of<'a>(findings: &'a [Value], check: &str) -> (&'a str, &'a str) {
    let weight = |level: &str| ["ok", "warn", "fail"].iter().position(|known| *known == level);
    let of_check = findings.iter().filter(|found| found["check"] == check);
    let told = of_check.map(|found| {
        (found["level"].as_str().expect("a level"), found["text"].as_str().expect("a text"))
    });
    told.max_by_key(|(level, _)| weight(level)).unwrap_or_else(|| panic!("{check}: {findings:?}"))
}

#[test]
fn a_fresh_place_is_well_and_nothing_is_made_by_looking() {
    let (place, world) = (Place::new(), World::new());
    let (code, findings) = found(&world, &place, &[]);
    assert_eq!(code, 0, "{findings:?}");
    for check in ["configuration", "key", "model", "clock", "folders", "renames", "syncs", "room"] {
        assert_eq!(of(&findings, check).0, "ok", "{findings:?}");
    }
    assert_eq!(of(&findings, "daemon").0, "warn", "none is running");
    assert!(!place.path("spool").exists(), "nothing is made");
    let output = world.run(&place, &["doctor"]).output().expect("run");
    let said = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(said.contains("ok    key"), "{said}");
    assert!(said.contains("try: start it with `gemini-batchd run`"), "{said}");
    assert!(said.trim_end().ends_with(|c: char| c.is_alphanumeric()), "{said}");
    let has_long_word = |line: &str| line.split_whitespace().any(|word| word.len() > 55);
    for line in said.lines() {
        assert!(line.chars().count() <= 80 || has_long_word(line), "{line}");
    }
}

#[test]
fn a_configuration_that_does_not_load_is_the_only_finding_and_has_its_exit_code() {
    let (place, world) = (Place::new(), World::new());
    place.write("gemini-batchd.toml", "poll.max = \"a while\"\n");
    let (code, findings) = found(&world, &place, &[]);
    assert_eq!((code, findings.len()), (10, 1));
    let (level, text) = of(&findings, "configuration");
    assert!(level == "fail" && text.contains("gemini-batchd.toml:1"), "{text}");
}

#[test]
fn a_key_that_is_refused_or_missing_has_its_exit_code_and_is_never_shown() {
    let (place, world) = (Place::new(), World::new());
    let (code, findings) = found(&world, &place, &[("GEMINI_API_KEY", BAD_KEY)]);
    assert_eq!((code, of(&findings, "key").0), (12, "fail"));
    assert!(!format!("{findings:?}").contains(BAD_KEY));
    let (code, findings) = found(&world, &place, &[("GEMINI_API_KEY", "")]);
    assert_eq!((code, of(&findings, "key").0), (12, "fail"));
}

#[test]
fn an_api_that_can_not_be_reached_fails_unless_it_is_left_out() {
    let (place, world) = (Place::new(), World::new());
    let nowhere = ("GEMINI_BATCHD__API__BASE_URL", "http://127.0.0.1:9");
    let (code, findings) = found(&world, &place, &[nowhere]);
    assert_eq!((code, of(&findings, "key").0), (1, "fail"));
    let mut offline = world.run(&place, &["doctor", "--offline"]);
    let output = offline.env(nowhere.0, nowhere.1).output().expect("run");
    let said = String::from_utf8(output.stdout).expect("UTF-8");
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("not tried"), "{said}");
}

#[test]
fn a_model_that_is_not_there_or_can_not_be_batched_is_named_with_its_queue() {
    let (place, world) = (Place::new(), World::new());
    place.write(
        "gemini-batchd.toml",
        "[queue.default]\nmodel = \"gemini-99\"\n[queue.emb]\nmodel = \"gemini-2.5-flash\"\n\
         task = \"embed\"\n",
    );
    let (code, findings) = found(&world, &place, &[]);
    assert_eq!(code, 1);
    let texts: Vec<&str> = findings
        .iter()
        .filter(|found| found["check"] == "model" && found["level"] == "fail")
        .map(|found| found["text"].as_str().expect("a text"))
        .collect();
    assert_eq!(texts.len(), 2, "{findings:?}");
    assert!(texts.iter().any(|text| text.contains("there is no model gemini-99")), "{texts:?}");
    assert!(texts.iter().any(|text| text.contains("knows no asyncBatchEmbedContent")), "{texts:?}");
}

/// The address of a server that answers everything with this header and an empty object. It ends
/// with the process.
fn answering(header: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            let mut lines = BufReader::new(stream.try_clone().expect("a handle")).lines();
            while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
            let head = format!("HTTP/1.1 200 OK\r\n{header}\r\nConnection: close\r\n");
            let sent = write!(stream, "{head}Content-Length: 2\r\n\r\n{{}}");
            sent.expect("sent");
        }
    });
    format!("http://{address}")
}

#[test]
fn a_clock_that_is_wrong_is_told() {
    let (place, world) = (Place::new(), World::new());
    let address = answering("Date: Tue, 01 Jan 2019 00:00:00 GMT");
    let elsewhere = [("GEMINI_BATCHD__API__BASE_URL", address.as_str())];
    let (_, findings) = found(&world, &place, &elsewhere);
    let (level, text) = of(&findings, "clock");
    assert!(level == "warn" && text.contains(" d ahead of the API's"), "{text}");
}

#[test]
fn a_spool_that_can_not_be_written_is_a_failure_of_the_configuration() {
    let (place, world) = (Place::new(), World::new());
    // A file where the spool should be: not even root can write below it.
    place.write("spool", "in the way");
    let (code, findings) = found(&world, &place, &[]);
    // What lies above can be written, but no folder can be made through a file.
    let (level, text) = of(&findings, "folders");
    assert_eq!((code, level), (10, "fail"), "{text}");
}

#[test]
fn too_little_room_is_told_before_anything_is_begun() {
    let (place, world) = (Place::new(), World::new());
    let more = [("GEMINI_BATCHD__LIMITS__FREE_BYTES", "900TB")];
    let (code, findings) = found(&world, &place, &more);
    assert_eq!((code, of(&findings, "room").0), (14, "fail"));
}

#[test]
fn records_are_checked_without_being_touched() {
    let (place, world) = (Place::new(), World::new());
    let state = place.path("spool/state");
    drop(DaemonStore::open(&state, 0).expect("made"));
    let (code, findings) = found(&world, &place, &[]);
    assert_eq!((code, of(&findings, "records").0), (0, "ok"), "{findings:?}");
    let lock = StateLock::take(&state).expect("free");
    let (_, findings) = found(&world, &place, &[]);
    assert!(of(&findings, "records").1.contains("in use by the daemon"), "{findings:?}");
    drop(lock);
    std::fs::remove_dir_all(state.join(DaemonStore::FOLDER)).expect("removed");
    let (code, findings) = found(&world, &place, &[]);
    assert_eq!((code, of(&findings, "records").0), (0, "warn"), "{findings:?}");
    assert!(!state.join("quarantine-1").exists() && !state.join(DaemonStore::FOLDER).exists());
}

#[test]
fn what_waits_for_a_person_is_counted() {
    let (place, world) = (Place::new(), World::new());
    place.write("spool/held/a.jsonl", "x");
    place.write("spool/held/a.jsonl.reason.json", "{}");
    place.write("spool/failed/queue/b.jsonl", "x");
    std::fs::create_dir_all(place.path("spool/working").join(JOB)).expect("made");
    let (code, findings) = found(&world, &place, &[]);
    assert_eq!(code, 0, "{findings:?}");
    assert!(of(&findings, "held").1.starts_with("1 file waits"), "{findings:?}");
    assert!(of(&findings, "failed").1.starts_with("1 file was refused"), "{findings:?}");
    assert!(of(&findings, "records").1.contains(JOB), "{findings:?}");
}

#[test]
fn a_key_file_open_to_others_is_told() {
    let (place, world) = (Place::new(), World::new());
    place.write("key", "marker-key");
    let open = std::fs::Permissions::from_mode(0o644);
    std::fs::set_permissions(place.path("key"), open).expect("set");
    place.write("gemini-batchd.toml", "api.key_file = \"key\"\n");
    let (code, findings) = found(&world, &place, &[]);
    let (level, text) = of(&findings, "key");
    assert_eq!((code, level), (12, "fail"));
    assert!(text.contains("can be read or written by others"), "{text}");
}
