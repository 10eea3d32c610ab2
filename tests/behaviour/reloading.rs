//! A configuration that changes while the daemon runs.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use gemini_batchd::config::{Config, Environment, Flags};
use gemini_batchd::daemon::{Handle, Message, Setup, Until};
use gemini_batchd::engine::Mend;
use gemini_batchd::provider::gemini::emulator::faults::Denied;
use gemini_batchd::provider::gemini::emulator::{Budget, Faults};

use super::rig::{Rig, requests};

/// Runs a daemon whose configuration is reloaded from its file, and stops it after `story`.
async fn run(rig: &Rig, story: impl AsyncFnOnce(&Handle)) {
    let mut setup: Setup = rig.setup();
    let flags = Flags {
        config: Some(rig.path("gemini-batchd.toml")),
        spool: Some(rig.folder.path().to_owned()),
    };
    let environment = Environment::made_up(rig.folder.path(), []);
    setup.daemon.reload_from(move || Config::load(&flags, &environment));
    let handle = setup.daemon.handle();
    let told = async {
        story(&handle).await;
        handle.tell(Message::Stop).await;
    };
    let both = async { tokio::join!(setup.daemon.run(Until::Stopped), told) };
    let (ended, ()) = tokio::time::timeout(PATIENCE, both).await.expect("in time");
    ended.expect("its store works");
}

async fn until(what: &str, is_so: impl Fn() -> bool) {
    let wait = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("in vain: {what}"));
}

/// Writes the configuration file with these lines more.
fn configure(rig: &Rig, more: &str) {
    // The rig writes its own file; the key comes from a file, which can change.
    drop(rig.config());
    let path = rig.path("gemini-batchd.toml");
    let text = fs::read_to_string(&path).expect("there");
    let key = format!("api.key_file = {:?}\n", rig.path("key"));
    fs::write(path, format!("{key}{text}{more}")).expect("written");
}

fn write_key(rig: &Rig, key: &str) {
    fs::write(rig.path("key"), key).expect("written");
    let private = fs::Permissions::from_mode(0o600);
    fs::set_permissions(rig.path("key"), private).expect("set");
}

/// Fault 14.
#[tokio::test(flavor = "multi_thread")]
async fn a_changed_configuration_is_taken_over_and_a_wrong_one_changes_nothing() {
    let rig = Rig::with(Faults::default(), &["intake.rescan = \"20ms\""]).await;
    let model = |stem: &str| rig.manifest(stem)["batches"][0]["model"].clone();
    run(&rig, async |handle| {
        let answered = async |stem: &str| {
            rig.drop_file(&format!("{stem}.jsonl"), requests(2).replace("question", stem));
            let manifest = rig.path("outbox").join(format!("{stem}.manifest.json"));
            until("answers", || manifest.exists()).await;
        };
        write_key(&rig, "a-key");
        configure(&rig, "queue.default.model = \"gemini-2.5-flash-lite\"\n");
        handle.tell(Message::Reload).await;
        answered("lite").await;
        assert_eq!(model("lite"), "models/gemini-2.5-flash-lite");
        assert_eq!(handle.notices().not_reloaded, None);

        configure(&rig, "queue.default.model = \"gemini-2.5-pro\"\npoll.mim = \"1s\"\n");
        handle.tell(Message::Reload).await;
        until("a complaint", || handle.notices().not_reloaded.is_some()).await;
        let why = handle.notices().not_reloaded.clone().unwrap_or_default();
        assert!(why.contains("mim") && why.contains("gemini-batchd.toml:"), "{why}");
        answered("still").await;
        assert_eq!(model("still"), "models/gemini-2.5-flash-lite");

        configure(&rig, "queue.default.model = \"gemini-2.5-pro\"\n");
        fs::remove_file(rig.path("key")).expect("removed");
        handle.tell(Message::Reload).await;
        until("another", || {
            let why = handle.notices().not_reloaded.clone();
            why.is_some_and(|why| why.contains("key file"))
        })
        .await;

        // What can not be changed while it runs stays, and the rest is taken over.
        write_key(&rig, "a-key");
        let moved = "spool.outbox = \"elsewhere\"\napi.base_url = \"http://127.0.0.1:9\"\n";
        let text = fs::read_to_string(rig.path("gemini-batchd.toml")).expect("there");
        let old_url = text.lines().find(|line| line.starts_with("api.base_url")).expect("a line");
        let text = text.replace(&format!("{old_url}\n"), moved);
        fs::write(rig.path("gemini-batchd.toml"), text).expect("written");
        handle.tell(Message::Reload).await;
        until("peace", || handle.notices().not_reloaded.is_none()).await;
        answered("pro").await;
        assert_eq!(model("pro"), "models/gemini-2.5-pro");
    })
    .await;
    assert!(!rig.path("elsewhere").exists());
}

/// Fault 56.
#[tokio::test(flavor = "multi_thread")]
async fn a_refused_key_pauses_everything_until_a_new_one_is_reloaded() {
    // Nobody asks again by himself within the test.
    let settings =
        ["api.backoff_min = \"1h\"", "api.backoff_max = \"2h\"", "intake.rescan = \"20ms\""];
    let denied = Denied { status: 401, call: None, times: Budget::Always };
    let rig = Rig::with(Faults { denied: Some(denied), ..Faults::default() }, &settings).await;
    rig.drop_file("a.jsonl", requests(3));
    rig.drop_file("b.jsonl", requests(4));
    run(&rig, async |handle| {
        until("a pause", || {
            handle.with_engine(|engine| {
                // What is still under way could make a batch with the old key.
                let is_shut = engine.gate().is_some_and(|gate| gate.mend == Some(Mend::Key));
                is_shut && !engine.is_busy()
            })
        })
        .await;
        rig.emulator.set_faults(Faults::default());
        write_key(&rig, "a-new-key");
        configure(&rig, "");
        handle.tell(Message::Reload).await;
        for name in ["a", "b"] {
            let manifest = rig.path("outbox").join(format!("{name}.manifest.json"));
            until("answers", || manifest.exists()).await;
        }
    })
    .await;
    assert_eq!(rig.manifest("a")["answered"], 3);
    assert_eq!(rig.manifest("b")["answered"], 4);
    assert_eq!(rig.creates().len(), 2, "{:?}", rig.creates());
}

/// What takes longer than this hangs; machines that run tests can be slow.
const PATIENCE: Duration = Duration::from_secs(120);
