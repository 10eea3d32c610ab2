//! People and programs are told what has happened.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use gemini_batchd::clock::{Clock, SystemClock};
use gemini_batchd::daemon::{Message, Setup, Until};
use gemini_batchd::engine::Millis;
use gemini_batchd::provider::gemini::emulator::faults::EveryNth;
use gemini_batchd::provider::gemini::emulator::{Budget, Faults, Options};
use gemini_batchd::signature::{self, Secret};
use serde_json::Value;

use super::listener::{Heard, Listener};
use super::rig::{KEY, Rig, requests};

/// A program that writes down what it is told into a folder.
fn scribe(folder: &Path) -> String {
    let folder = folder.display().to_string();
    let script = "cat >> \"$0/told\"; env > \"$0/env\"; echo heard $GEMINI_BATCHD_VERDICT";
    serde_json::json!(["/bin/sh", "-c", script, folder]).to_string()
}

fn told(folder: &Path) -> Vec<Value> {
    let text = fs::read_to_string(folder.join("told")).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).expect("a line is JSON")).collect()
}

fn events(rig: &Rig) -> String {
    fs::read_to_string(rig.path("state/events.jsonl")).unwrap_or_default()
}

fn pending(rig: &Rig) -> usize {
    fs::read_dir(rig.path("state/hooks")).into_iter().flatten().count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_is_told_of_each_end_with_the_facts_and_without_the_key() {
    let heard = tempfile::tempdir().expect("a temporary folder");
    let program = scribe(heard.path());
    let hook = |on: &str| format!("hooks.{on} = {program}");
    let settings = ["on_done", "on_partial", "on_failed", "on_held"].map(hook).to_vec();
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    let faults =
        Faults { blocked: EveryNth { every: 3, times: Budget::times(1) }, ..Faults::default() };
    let rig = Rig::with(faults, &settings).await;
    rig.drop_file("sub/some.jsonl", requests(3));
    rig.drain().await;
    rig.drop_file("all.jsonl", requests(4));
    rig.drop_file("none.jsonl", "not a request\n");
    rig.drain().await;
    rig.drop_file("again.jsonl", requests(4));
    rig.drain().await;
    let told = told(heard.path());
    let what: Vec<_> = told
        .iter()
        .map(|told| (told["event"].as_str().expect("a word"), told["job"]["file"].as_str()))
        .collect();
    assert_eq!(what[0], ("partial", Some("sub/some.jsonl")));
    assert!(what[1..3].contains(&("done", Some("all.jsonl"))), "{what:?}");
    assert!(what[1..3].contains(&("failed", Some("none.jsonl"))), "{what:?}");
    assert_eq!(what[3..], [("held", Some("again.jsonl"))]);
    let partial = &told[0];
    assert_eq!(partial["version"], 1);
    assert_eq!(partial["job"]["verdict"], "partial");
    assert_eq!((&partial["job"]["answered"], &partial["job"]["failed"]), (&2.into(), &1.into()));
    for output in ["results", "errors", "manifest"] {
        let path = partial["outbox"][output].as_str().expect("a path");
        assert!(Path::new(path).starts_with(rig.path("outbox/sub")) && Path::new(path).exists());
    }
    assert_eq!(told[3]["job"]["reason"], "duplicate");
    let environment = fs::read_to_string(heard.path().join("env")).expect("written");
    assert!(environment.contains("GEMINI_BATCHD_EVENT=held\n"), "{environment}");
    assert!(!environment.contains(KEY) && !environment.contains("API_KEY"), "{environment}");
    assert!(events(&rig).contains("on_partial: /bin/sh: told: heard partial"), "{}", events(&rig));
    assert_eq!(pending(&rig), 0, "what was told stays nowhere");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_is_signed_and_sent_again_under_its_id_until_it_is_taken() {
    let listener = Listener::answering(&[500, 302, 429]).await;
    let rig = Rig::with(
        Faults::default(),
        &[
            &format!("hooks.on_done = \"{}/hook?token=marker\"", listener.url),
            "hooks.secret_file = \"secret\"",
        ],
    )
    .await;
    let text = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    fs::write(rig.path("secret"), text).expect("written");
    fs::set_permissions(rig.path("secret"), fs::Permissions::from_mode(0o600)).expect("set");
    rig.drop_file("a.jsonl", requests(2));
    rig.run_until(|rig| listener.heard().len() == 4 && pending(rig) == 0).await;
    let heard = listener.heard();
    let secret = Secret::parse(text).expect("a secret");
    for each in &heard {
        assert_eq!(each.what, "POST /hook?token=marker");
        assert_eq!(each.headers["content-type"], "application/json");
        assert_eq!(each.json()["id"], each.headers[signature::ID]);
        assert_eq!(each.body, heard[0].body);
        let message = signature::Message {
            id: &each.headers[signature::ID],
            timestamp: &each.headers[signature::TIMESTAMP],
            body: &each.body,
        };
        assert!(secret.verifies(message, &each.headers[signature::SIGNATURE]));
    }
    assert_eq!(heard[0].json()["job"]["verdict"], "complete");
    let events = events(&rig);
    assert!(events.contains("it answered 500") && events.contains(": told"), "{events}");
    assert!(!events.contains("marker") && !events.contains("MfKQ"), "{events}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_took_is_told_after_a_crash() {
    let settings = ["hooks.on_done = \"http://127.0.0.1:9/nobody\"".to_owned()];
    let rig = Rig::with(Faults::default(), &[&settings[0]]).await;
    rig.drop_file("a.jsonl", requests(2));
    rig.run_until(|rig| rig.path("outbox/a.manifest.json").exists() && pending(rig) == 1).await;
    let listener = Listener::answering(&[]).await;
    let rig = rig.saying(&[&format!("hooks.on_done = \"{}\"", listener.url)]);
    rig.drain().await;
    let heard = listener.heard();
    assert_eq!(heard.len(), 1);
    assert_eq!(heard[0].json()["job"]["file"], "a.jsonl");
    assert_eq!(pending(&rig), 0);
    // Signed by nobody, as there is no secret.
    assert!(!heard[0].headers.contains_key(signature::SIGNATURE));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_hangs_and_floods_is_killed_with_all_it_started_and_holds_up_nothing() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let script = "sleep 1000 & echo $! >> \"$0/pid\"; exec yes";
    let program = serde_json::json!(["/bin/sh", "-c", script, folder.path().display().to_string()]);
    let settings = [format!("hooks.on_done = {program}"), "hooks.timeout = \"700ms\"".to_owned()];
    let settings = [&settings[0], &settings[1], "intake.rescan = \"20ms\""];
    let rig = Rig::with(Faults::default(), &settings).await;
    rig.drop_file("a.jsonl", requests(2));
    rig.run_until(|rig| {
        // It works on while the program hangs.
        if folder.path().join("pid").exists() && !rig.path("inbox/b.jsonl").exists() {
            rig.drop_file("b.jsonl", requests(3));
        }
        rig.path("outbox/b.manifest.json").exists() && events(rig).contains("was killed")
    })
    .await;
    let pid = fs::read_to_string(folder.path().join("pid")).expect("written");
    let path = format!("/proc/{}/stat", pid.lines().next().expect("a number"));
    // It was killed before that was told; the system may take its time.
    while fs::read_to_string(&path).is_ok_and(|stat| !stat.contains(") Z ")) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let longest = events(&rig).lines().map(str::len).max().expect("some");
    assert!(longest < 4096, "{longest} bytes of a flood");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_is_not_there_or_fails_is_told_and_costs_nothing_else() {
    let settings = ["hooks.on_done = [\"/bin/false\"]", "hooks.on_failed = [\"/no/such/program\"]"];
    let rig = Rig::with(Faults::default(), &settings).await;
    rig.drop_file("a.jsonl", requests(2));
    rig.drop_file("b.jsonl", "nothing\n");
    rig.drain().await;
    let events = events(&rig);
    assert!(events.contains("on_done: /bin/false: it ended badly"), "{events}");
    assert!(events.contains("on_failed: /no/such/program: it cannot be started"), "{events}");
    // Only what could not be started is tried again.
    assert_eq!(pending(&rig), 1);
}

/// A clock that is so far ahead of that of the machine, milliseconds.
struct Ahead(AtomicU64);

impl Clock for Ahead {
    fn now(&self) -> Millis {
        SystemClock.now().plus(self.0.load(Ordering::Relaxed))
    }
}

/// A daemon lives at the moment so many hours from now, until something is so.
async fn live(rig: &Rig, hours: u64, is_so: impl Fn() -> bool) {
    let clock = Arc::new(Ahead(AtomicU64::new(hours * 3_600_000)));
    let setup = Setup::open(Arc::new(rig.config()), clock).expect("it starts");
    let handle = setup.daemon.handle();
    let story = async {
        handle.tell(Message::HousekeepingDue).await;
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        handle.tell(Message::Stop).await;
    };
    let both = async { tokio::join!(setup.daemon.run(Until::Stopped), story) };
    let (ended, ()) = tokio::time::timeout(Duration::from_secs(60), both).await.expect("in time");
    ended.expect("its store works");
}

fn reports(rig: &Rig) -> usize {
    fs::read_dir(rig.path("outbox/reports")).into_iter().flatten().count()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_report_is_told_and_the_ping_sent_only_after_a_night_in_which_nothing_failed() {
    let listener = Listener::answering(&[]).await;
    let settings = [
        format!("hooks.ping = \"{}/alive\"", listener.url),
        format!("hooks.on_report = \"{}/report\"", listener.url),
        "report.schedule = \"0 * * * *\"".to_owned(),
    ];
    let rig = Rig::with(Faults::default(), &settings.each_ref().map(String::as_str)).await;
    let heard = |what: &str| listener.heard().iter().filter(|heard| heard.what == what).count();
    rig.drop_file("good.jsonl", requests(2));
    rig.drain().await;
    live(&rig, 0, || true).await;
    live(&rig, 1, || heard("GET /alive") == 1 && heard("POST /report") == 1).await;
    let told = listener.heard().iter().find(|heard| heard.what == "POST /report").map(Heard::json);
    let report = told.expect("told")["outbox"]["results"].as_str().expect("a path").to_owned();
    assert!(report.ends_with(".md") && Path::new(&report).exists(), "{report}");
    let blocked = EveryNth { every: 2, times: Budget::Always };
    rig.emulator.set_faults(Faults { blocked, ..Faults::default() });
    rig.drop_file("bad.jsonl", requests(3));
    live(&rig, 1, || rig.path("outbox/bad.manifest.json").exists()).await;
    assert_eq!(rig.manifest("bad")["verdict"], "partial");
    live(&rig, 2, || heard("POST /report") == 2 && reports(&rig) == 4).await;
    live(&rig, 3, || heard("POST /report") == 3 && heard("GET /alive") == 2).await;
    assert_eq!(heard("GET /alive"), 2, "none came of the second night");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_is_delivered_too_late_is_told_so_beside_its_end() {
    let heard = tempfile::tempdir().expect("a temporary folder");
    let program = scribe(heard.path());
    let settings = [
        format!("hooks.on_late = {program}"),
        format!("hooks.on_done = {program}"),
        "queue.default.deliver_by = \"1m\"".to_owned(),
    ];
    let options =
        Options { pending_for: Duration::from_secs(1), ..Rig::options(Faults::default()) };
    let rig = Rig::over(options, &settings.each_ref().map(String::as_str)).await;
    rig.drop_file("a.jsonl", requests(2));
    let clock = Arc::new(Ahead(AtomicU64::new(0)));
    let setup = Setup::open(Arc::new(rig.config()), clock.clone()).expect("it starts");
    let story = async {
        while rig.creates().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        clock.0.store(120_000, Ordering::Relaxed);
    };
    let both = async { tokio::join!(setup.daemon.run(Until::Idle), story) };
    let (ended, ()) = tokio::time::timeout(Duration::from_secs(60), both).await.expect("in time");
    ended.expect("its store works");
    let told = told(heard.path());
    let mut events: Vec<&str> = told.iter().filter_map(|told| told["event"].as_str()).collect();
    events.sort_unstable();
    assert_eq!(events, ["done", "late"], "{told:?}");
}
