//! Lines that name files of this machine.

use std::fs;
use std::os::unix::fs::symlink;
use std::sync::Arc;
use std::time::Duration;

use gemini_batchd::clock::{Clock, SystemClock};
use gemini_batchd::daemon::{Message, Setup, Until};
use gemini_batchd::engine::Millis;
use gemini_batchd::provider::gemini::emulator::faults::{AfterBytes, CallKind, OnCall};
use gemini_batchd::provider::gemini::emulator::{Budget, Faults, Happened, Options};
use serde_json::{Value, json};

use super::rig::{Rig, keys, text};
use super::tidying::{LONG, long_ago};

/// A picture beside the inputs of a folder.
fn picture(rig: &Rig, name: &str, content: &str) {
    let path = rig.path("inbox").join(name);
    fs::create_dir_all(path.parent().expect("a folder")).expect("made");
    fs::write(path, content).expect("written");
}

fn line(key: &str, path: &str) -> String {
    let parts = json!([{"text": key}, {"fileData": {"fileUri": format!("file:{path}")}}]);
    format!("{}\n", json!({"key": key, "request": {"contents": [{"parts": parts}]}}))
}

/// Files uploaded for lines, by their sizes; those with lines are larger.
fn uploads(rig: &Rig) -> Vec<u64> {
    let uploaded = |what: Happened| match what {
        Happened::Uploaded { bytes, .. } => Some(bytes).filter(|bytes| *bytes < 100),
        _ => None,
    };
    rig.emulator.journal().into_iter().filter_map(|entry| uploaded(entry.what)).collect()
}

fn count(rig: &Rig, is: impl Fn(&Happened) -> bool) -> usize {
    rig.emulator.journal().iter().filter(|entry| is(&entry.what)).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_named_by_its_path_is_uploaded_once_and_every_line_that_names_it_sees_it() {
    for transport in ["auto", "inline"] {
        let setting = format!("queue.default.transport = \"{transport}\"");
        let rig = Rig::with(Faults::default(), &[&setting]).await;
        picture(&rig, "zoo/pictures/cat.png", "a cat");
        picture(&rig, "zoo/dog.jpg", "a large dog");
        let input = line("a", "pictures/cat.png")
            + &line("b", "dog.jpg")
            + "\n"
            + &line("c", "./pictures/cat.png");
        rig.drop_file("zoo/a.jsonl", &input);
        rig.drain().await;
        let results = rig.lines("zoo/a.results.jsonl");
        let said: Vec<&str> = results.iter().map(text).collect();
        assert_eq!(keys(&results), ["a", "b", "c"], "{}", rig.listing());
        let cat = |key: &str| format!("Echo of request: {key} [image/png, 5 bytes, sha256 ");
        assert!(said[0].starts_with(&cat("a")) && said[2].starts_with(&cat("c")), "{said:?}");
        assert!(said[1].contains("b [image/jpeg, 11 bytes, sha256 "), "{said:?}");
        let mut sizes = uploads(&rig);
        sizes.sort_unstable();
        assert_eq!(sizes, [5, 11], "{transport}");
        // What is done is removed at the API; here everything stays where it was.
        let deleted = count(&rig, |what| matches!(what, Happened::FileDeleted { .. }));
        assert_eq!(deleted, if transport == "auto" { 3 } else { 2 });
        assert!(rig.path("inbox/zoo/pictures/cat.png").exists(), "{}", rig.listing());
        assert_eq!(fs::read_to_string(rig.path("archive/zoo/a.jsonl")).expect("read"), input);
        assert_eq!(rig.manifest("zoo/a")["input"]["bytes"], input.len());
        assert!(!rig.path("failed").join("zoo").exists(), "{}", rig.listing());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_can_not_be_taken_fails_its_line_and_says_why() {
    let rig = Rig::new(Faults::default()).await;
    picture(&rig, "cat.png", "a cat");
    picture(&rig, "empty.png", "");
    picture(&rig, "sub/far.png", "far");
    fs::write(rig.path("secret.png"), "a secret").expect("written");
    symlink(rig.path("secret.png"), rig.path("inbox/.link.png")).expect("linked");
    let secret = rig.path("secret.png");
    let bad = [
        ("missing", "no.png".to_owned(), "media_missing", "is not there"),
        ("up", "../secret.png".to_owned(), "media_outside", "`..`"),
        ("absolute", secret.display().to_string(), "media_outside", "media_root"),
        ("link", ".link.png".to_owned(), "media_outside", "symbolic link"),
        ("type", "what.xyz".to_owned(), "media_unusable", "mimeType"),
        ("empty", "empty.png".to_owned(), "media_unusable", "is empty"),
        ("folder", "sub".to_owned(), "media_unusable", "mimeType"),
    ];
    let input: String = [line("good", "cat.png")]
        .into_iter()
        .chain(bad.iter().map(|(key, path, ..)| line(key, path)))
        .collect();
    rig.drop_file("a.jsonl", input);
    rig.drain().await;
    assert_eq!(keys(&rig.lines("a.results.jsonl")), ["good"]);
    let errors = rig.lines("a.errors.jsonl");
    assert_eq!(errors.len(), bad.len(), "{errors:#?}");
    for (number, (error, (key, path, reason, hint))) in (2..).zip(errors.iter().zip(&bad)) {
        assert_eq!((&error["key"], &error["line"]), (&json!(key), &json!(number)));
        assert_eq!(error["error"]["reason"], *reason, "{error}");
        let message = error["error"]["message"].as_str().unwrap_or_default();
        assert!(message.contains(hint), "{key}: {message}");
        let part = &error["request"]["contents"][0]["parts"][1];
        assert_eq!(part["fileData"]["fileUri"], format!("file:{path}"));
    }
    assert_eq!(rig.manifest("a")["failures"]["media_outside"], 3);
    // The errors go back into the inbox as they are, once the file is there.
    let missing = fs::read_to_string(rig.path("outbox/a.errors.jsonl")).expect("read");
    picture(&rig, "no.png", "there now");
    rig.drop_file("again.jsonl", missing);
    rig.drain().await;
    assert_eq!(keys(&rig.lines("again.results.jsonl")), ["missing"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn media_root_opens_another_folder() {
    let elsewhere = tempfile::tempdir().expect("a temporary folder");
    fs::write(elsewhere.path().join("far.png"), "far away").expect("written");
    let root = format!("queue.zoo.media_root = {:?}", elsewhere.path());
    let rig = Rig::with(Faults::default(), &[&root, "queue.zoo.transport = \"file\""]).await;
    let path = elsewhere.path().join("far.png");
    let url = format!("//{}", path.display());
    let input = line("a", "far.png") + &line("b", path.to_str().expect("UTF-8")) + &line("c", &url);
    rig.drop_file("zoo/a.jsonl", &input);
    rig.drop_file("b.jsonl", line("d", "far.png") + &line("e", "no.png") + &requests());
    rig.drain().await;
    assert_eq!(rig.manifest("zoo/a")["answered"], 3);
    assert_eq!(uploads(&rig), [8]);
    assert_eq!(rig.manifest("b")["failures"]["media_missing"], 2);
}

fn requests() -> String {
    super::rig::requests(1)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_film_is_waited_for_until_it_is_ready() {
    let faults = Faults { processing_ms: 1200, ..Faults::default() };
    let rig = Rig::new(faults).await;
    picture(&rig, "film.mp4", "a film");
    rig.drop_file("a.jsonl", line("a", "film.mp4"));
    rig.drain().await;
    assert!(text(&rig.lines("a.results.jsonl")[0]).contains("[video/mp4, 6 bytes"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_film_that_the_api_can_not_process_fails_the_lines_that_name_it() {
    for transport in ["auto", "inline"] {
        let faults = Faults { processing_failed: Budget::Always, ..Faults::default() };
        let setting = format!("queue.default.transport = \"{transport}\"");
        let rig = Rig::with(faults, &[&setting]).await;
        picture(&rig, "film.mp4", "a film");
        picture(&rig, "cat.png", "a cat");
        let input = line("a", "film.mp4") + &line("b", "cat.png") + &line("c", "film.mp4");
        rig.drop_file("a.jsonl", input);
        rig.drain().await;
        assert_eq!(keys(&rig.lines("a.results.jsonl")), ["b"], "{transport}");
        let errors = rig.lines("a.errors.jsonl");
        assert_eq!(keys(&errors), ["a", "c"], "{transport}");
        let message = errors[0]["error"]["message"].as_str().unwrap_or_default();
        assert!(message.contains("could not process the file"), "{message}");
        assert_eq!(rig.creates().len(), 1, "what was refused before it was sent costs nothing");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_goes_on_with_the_lines_and_the_addresses_in_them() {
    // Cut in the middle of a line, perhaps of an address.
    let cut = AfterBytes { after: 9000, times: Budget::Always };
    let rig = Rig::new(Faults { upload_cut: Some(cut), ..Faults::default() }).await;
    picture(&rig, "cat.png", "a cat");
    let input: String = (0..200).map(|n| line(&format!("k{n}"), "cat.png")).collect();
    rig.drop_file("a.jsonl", input);
    let is_piece = |what: &Happened| matches!(what, Happened::UploadPiece { received, .. } if *received > 1000);
    rig.run_until(|rig| count(rig, is_piece) > 0).await;
    rig.emulator.set_faults(Faults::default());
    rig.drain().await;
    assert_eq!(rig.manifest("a")["answered"], 200);
    assert_eq!(uploads(&rig), [5]);
    let started = count(&rig, |what| matches!(what, Happened::UploadStarted { .. }));
    assert_eq!(started, 2, "one for the file, one for the lines");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_to_the_upload_of_a_file_finds_it_again() {
    let faults = Faults { upload_finalize_lost: Budget::times(1), ..Faults::default() };
    let rig = Rig::new(faults).await;
    picture(&rig, "cat.png", "a cat");
    rig.drop_file("a.jsonl", line("a", "cat.png"));
    rig.drain().await;
    assert_eq!(rig.manifest("a")["answered"], 1);
    assert_eq!(uploads(&rig), [5]);
}

/// A clock that is ahead.
struct Ahead(Duration);

impl Clock for Ahead {
    fn now(&self) -> Millis {
        SystemClock.now().plus(u64::try_from(self.0.as_millis()).expect("not too far"))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_uploaded_again_before_its_end_for_an_attempt_that_still_waits() {
    let wait = Faults { create_429: Budget::Always, ..Faults::default() };
    let rig = Rig::with(wait, &["poll.max = \"20ms\""]).await;
    picture(&rig, "cat.png", "a cat");
    rig.drop_file("a.jsonl", line("a", "cat.png") + &line("b", "cat.png"));
    let is_refused = |what: &Happened| matches!(what, Happened::CreateRefused { .. });
    rig.run_until(|rig| count(rig, is_refused) > 0).await;
    assert_eq!(uploads(&rig), [5]);

    // After thirty hours it would not live long enough.
    rig.emulator.advance(30 * HOUR);
    let clock = Arc::new(Ahead(30 * HOUR));
    let run = Setup::open(Arc::new(rig.config()), clock.clone()).expect("it starts");
    let before = count(&rig, is_refused);
    let again = async {
        while uploads(&rig).len() < 2 || count(&rig, is_refused) <= before {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::select! {
        ended = run.daemon.run(Until::Stopped) => panic!("it ended: {ended:?}"),
        waited = tokio::time::timeout(PATIENCE, again) => {
            waited.unwrap_or_else(|_| panic!("not uploaded again: {:?}", uploads(&rig)));
        }
    }

    // By now the first one is gone, and only the second can be seen.
    rig.emulator.advance(19 * HOUR);
    rig.emulator.set_faults(Faults::default());
    let run = Setup::open(Arc::new(rig.config()), clock).expect("it starts");
    let ended = tokio::time::timeout(PATIENCE, run.daemon.run(Until::Idle)).await;
    ended.expect("it ends").expect("its store works");
    let results = rig.lines("a.results.jsonl");
    assert_eq!(keys(&results), ["a", "b"], "{:?}", rig.lines("a.errors.jsonl"));
    assert!(results.iter().all(|line| text(line).contains("[image/png, 5 bytes")), "{results:?}");
    assert_eq!(uploads(&rig), [5, 5]);
}

#[tokio::test(flavor = "multi_thread")]
async fn files_left_at_the_api_are_swept_by_their_mark() {
    let refuse = OnCall { call: Some(CallKind::FileDelete), times: Budget::Always };
    let faults = Faults { html_502: Some(refuse), ..Faults::default() };
    let options = Options { start: long_ago(), ..Rig::options(faults) };
    let rig = Rig::over(options, &["housekeeping.schedule = \"* * * * * *\""]).await;
    picture(&rig, "cat.png", "a cat");
    rig.drop_file("a.jsonl", line("a", "cat.png"));
    rig.drain().await;
    let deleted = |rig: &Rig| count(rig, |what| matches!(what, Happened::FileDeleted { .. }));
    assert_eq!(deleted(&rig), 0);
    rig.emulator.set_faults(Faults::default());
    // What is young may still be needed by something.
    rig.emulator.advance(LONG);
    let setup = rig.setup();
    let handle = setup.daemon.handle();
    let swept = async {
        while deleted(&rig) < 2 {
            handle.tell(Message::HousekeepingDue).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        ended = setup.daemon.run(Until::Stopped) => panic!("it ended: {ended:?}"),
        waited = tokio::time::timeout(PATIENCE, swept) => {
            waited.unwrap_or_else(|_| panic!("{} deleted", deleted(&rig)));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_that_a_user_wrote_go_out_as_they_are_and_fail_alone() {
    let rig = Rig::new(Faults::default()).await;
    picture(&rig, "cat.png", "a cat");
    let own = |key: &str, uri: &str| {
        let parts = json!([{"text": key}, {"fileData": {"fileUri": uri, "mimeType": "image/png"}}]);
        format!("{}\n", json!({"key": key, "request": {"contents": [{"parts": parts}]}}))
    };
    let foreign = "https://generativelanguage.googleapis.com/v1beta/files/not-ours";
    let input = own("web", "https://example.org/cat.png")
        + &own("foreign", foreign)
        + &line("own", "cat.png");
    rig.drop_file("a.jsonl", input);
    rig.drain().await;
    assert_eq!(keys(&rig.lines("a.results.jsonl")), ["web", "own"]);
    let errors: Vec<Value> = rig.lines("a.errors.jsonl");
    assert_eq!(errors[0]["error"]["code"], 7, "{errors:?}");
}

const HOUR: Duration = Duration::from_secs(3600);
const PATIENCE: Duration = Duration::from_secs(120);
