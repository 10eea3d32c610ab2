//! Several API keys: each job is bound to the one it was sent with.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;

use gemini_batchd::clock::SystemClock;
use gemini_batchd::config::{Config, Environment, Flags};
use gemini_batchd::control::Look;
use gemini_batchd::daemon::operators::{self, Identity};
use gemini_batchd::daemon::{Ended, Handle, Message, Setup, Until};
use gemini_batchd::engine::Millis;
use gemini_batchd::engine::event::Command;
use gemini_batchd::provider::gemini::emulator::{Budget, Faults, Happened, JournalEntry, Options};

use super::rig::{Rig, requests};

/// A rig whose configuration is this text and nothing of its own but pauses that suit a test.
struct Keyed {
    rig: Rig,
    flags: Flags,
}

impl Keyed {
    /// `projects` are the keys that belong together.
    async fn new(faults: Faults, projects: &[&[&str]]) -> Keyed {
        let owned = |keys: &&[&str]| keys.iter().map(|key| (*key).to_owned()).collect();
        let projects = projects.iter().map(owned).collect();
        let rig = Rig::over(Options { projects, ..Rig::options(faults) }, &[]).await;
        drop(rig.config());
        let spool = Some(rig.folder.path().to_owned());
        let flags = Flags { config: Some(rig.path("keyed.toml")), spool };
        Keyed { rig, flags }
    }

    /// The configuration from now on: the keys of the credentials (`""` is the default one), and
    /// queues with the credential of each.
    fn configure(&self, keys: &[(&str, &str)], queues: &[(&str, &str)]) {
        let mut text = fs::read_to_string(self.rig.path("gemini-batchd.toml")).expect("there");
        text.push_str("intake.rescan = \"20ms\"\n");
        for (name, key) in keys {
            let path = self.rig.path(&format!("key-{name}"));
            fs::write(&path, key).expect("written");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("set");
            match *name {
                "" => text.push_str(&format!("api.key_file = {path:?}\n")),
                name => text.push_str(&format!("credential.{name}.key_file = {path:?}\n")),
            }
        }
        for (queue, credential) in queues {
            text.push_str(&format!("queue.{queue}.credential = {credential:?}\n"));
        }
        fs::write(self.rig.path("keyed.toml"), text).expect("written");
    }

    fn load(&self) -> Config {
        let environment = Environment::made_up(self.rig.folder.path(), []);
        Config::load(&self.flags, &environment).expect("the configuration is right")
    }

    fn setup(&self) -> Setup {
        let mut setup =
            Setup::open(Arc::new(self.load()), Arc::new(SystemClock)).expect("it starts");
        let flags = self.flags.clone();
        let environment = Environment::made_up(self.rig.folder.path(), []);
        setup.daemon.reload_from(move || Config::load(&flags, &environment));
        setup
    }

    /// Runs a daemon, and stops it after `story`.
    async fn run(&self, story: impl AsyncFnOnce(&Handle)) {
        let setup = self.setup();
        let handle = setup.daemon.handle();
        let told = async {
            story(&handle).await;
            handle.tell(Message::Stop).await;
        };
        let both = async { tokio::join!(setup.daemon.run(Until::Stopped), told) };
        let (ended, ()) = tokio::time::timeout(PATIENCE, both).await.expect("in time");
        ended.expect("its store works");
    }

    async fn reload(&self, handle: &Handle) {
        handle.tell(Message::Reload).await;
        // What comes after it in the queue is answered after it.
        drop(handle.command(Command::Cancel("0".repeat(26).parse().expect("an id"))).await);
        assert_eq!(handle.notices().not_reloaded, None);
    }

    async fn until(&self, what: &str, is_so: impl Fn() -> bool) {
        let wait = async {
            while !is_so() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let waited = tokio::time::timeout(PATIENCE, wait).await;
        waited.unwrap_or_else(|_| panic!("in vain: {what}\n{}", self.rig.listing()));
    }

    fn is_delivered(&self, stem: &str) -> bool {
        self.rig.path("outbox").join(format!("{stem}.manifest.json")).exists()
    }

    /// The projects in which batches were made, as the emulator numbers them.
    fn projects(&self) -> Vec<usize> {
        let created = |entry: &JournalEntry| {
            matches!(entry.what, Happened::Created { .. }).then_some(entry.project)
        };
        self.rig.emulator.journal().iter().filter_map(created).collect()
    }

    /// Why the job of a file waits, as `status` tells it.
    fn reason(&self, handle: &Handle, file: &str) -> Option<String> {
        let identity = Identity { inbox: String::new(), started: Millis(0) };
        let handle = handle.clone();
        let looks = operators::Looks { identity, handle, clock: Arc::new(SystemClock) };
        let snapshot = looks.snapshot();
        snapshot.jobs.into_iter().find(|job| job.file == file)?.reason
    }
}

fn stuck() -> Faults {
    Faults { stuck_pending: Budget::Always, ..Faults::default() }
}

/// What is stuck comes to its end: it expires, and is sent again.
fn go_on(keyed: &Keyed) {
    keyed.rig.emulator.set_faults(Faults::default());
    keyed.rig.emulator.advance(Duration::from_secs(49 * 3600));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_queues_with_two_keys_are_answered_in_two_projects() {
    let keyed = Keyed::new(Faults::default(), &[]).await;
    keyed.configure(&[("", "key-a"), ("team", "key-b")], &[("team", "team")]);
    keyed.rig.drop_file("a.jsonl", requests(3));
    keyed.rig.drop_file("team/b.jsonl", requests(4));
    let run = keyed.setup().daemon.run(Until::Idle);
    let ended = tokio::time::timeout(PATIENCE, run).await.expect("in time").expect("it works");
    assert!(matches!(ended, Ended::Idle(jobs) if jobs.len() == 2));
    assert_eq!(keyed.rig.manifest("a")["answered"], 3);
    assert_eq!(keyed.rig.manifest("team/b")["answered"], 4);
    let mut projects = keyed.projects();
    projects.sort_unstable();
    assert_eq!(projects, [0, 1]);
    let state = fs::read_dir(keyed.rig.path("state/jobs.sled")).expect("listed").flatten();
    for file in state.filter(|entry| entry.path().is_file()) {
        let bytes = fs::read(file.path()).expect("read");
        let text = String::from_utf8_lossy(&bytes);
        assert!(!text.contains("key-a") && !text.contains("key-b"), "{:?}", file.path());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_key_pauses_its_own_queue_alone() {
    let options = Options { bad_keys: vec!["bad".to_owned()], ..Rig::options(Faults::default()) };
    let rig = Rig::over(options, &[]).await;
    drop(rig.config());
    let flags =
        Flags { config: Some(rig.path("keyed.toml")), spool: Some(rig.folder.path().to_owned()) };
    let keyed = Keyed { rig, flags };
    keyed.configure(&[("", "bad"), ("team", "good")], &[("team", "team")]);
    keyed
        .run(async |handle| {
            keyed.rig.drop_file("a.jsonl", requests(3));
            let is_shut = || handle.with_engine(|engine| engine.gate().is_some());
            keyed.until("a pause", is_shut).await;
            keyed.rig.drop_file("team/b.jsonl", requests(4));
            keyed.until("answers", || keyed.is_delivered("team/b")).await;
            assert!(!keyed.is_delivered("a"));
            let told = handle.with_engine(|engine| engine.gate().expect("shut").message.clone());
            assert!(told.contains("the default API key") && !told.contains("bad"), "{told}");
            keyed.configure(&[("", "mended"), ("team", "good")], &[("team", "team")]);
            keyed.reload(handle).await;
            keyed.until("answers", || keyed.is_delivered("a")).await;
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_exchanged_within_its_project_needs_no_person() {
    let keyed = Keyed::new(stuck(), &[&["old", "new"]]).await;
    keyed.configure(&[("", "old")], &[]);
    keyed.rig.drop_file("a.jsonl", requests(3));
    keyed
        .run(async |handle| {
            keyed.until("a batch", || keyed.projects().len() == 1).await;
            keyed.configure(&[("", "new")], &[]);
            keyed.reload(handle).await;
            go_on(&keyed);
            keyed.until("answers", || keyed.is_delivered("a")).await;
        })
        .await;
    assert_eq!(keyed.rig.manifest("a")["answered"], 3);
    assert_eq!(keyed.projects(), [0, 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_a_foreign_project_leaves_jobs_waiting_and_others_go_on() {
    let keyed = Keyed::new(stuck(), &[]).await;
    keyed.configure(&[("", "old")], &[]);
    keyed.rig.drop_file("a.jsonl", requests(3));
    keyed
        .run(async |handle| {
            keyed.until("a batch", || keyed.projects().len() == 1).await;
            keyed.configure(&[("", "foreign")], &[]);
            keyed.reload(handle).await;
            keyed.rig.emulator.set_faults(Faults::default());
            keyed.rig.drop_file("b.jsonl", requests(4));
            keyed.until("answers", || keyed.is_delivered("b")).await;
            let waits = || {
                keyed.reason(handle, "a.jsonl").is_some_and(|why| why.contains("another API key"))
            };
            keyed.until("word of it", waits).await;
            let why = keyed.reason(handle, "a.jsonl").expect("told");
            assert!(why.contains("put the former key back") && why.contains("cancel"), "{why}");
        })
        .await;
    assert_eq!(keyed.projects(), [0, 1], "nothing of the first was sent again");
    // A run that ends by itself does not wait for a key.
    let run = keyed.setup().daemon.run(Until::Idle);
    let ended = tokio::time::timeout(PATIENCE, run).await.expect("in time").expect("it works");
    assert!(matches!(ended, Ended::Idle(_)), "{ended:?}");
    // The former key comes back under a name of its own.
    keyed.configure(&[("", "foreign"), ("former", "old")], &[]);
    keyed
        .run(async |_| {
            go_on(&keyed);
            keyed.until("answers", || keyed.is_delivered("a")).await;
        })
        .await;
    assert_eq!(keyed.rig.manifest("a")["answered"], 3);
    assert_eq!(keyed.projects(), [0, 1, 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_whose_credential_is_removed_waits_until_it_is_back_or_given_up() {
    let keyed = Keyed::new(stuck(), &[]).await;
    let both = [("", "key-a"), ("team", "key-b")];
    keyed.configure(&both, &[("team", "team")]);
    keyed.rig.drop_file("team/a.jsonl", requests(3));
    keyed.rig.drop_file("team/b.jsonl", requests(4));
    keyed
        .run(async |handle| {
            keyed.until("batches", || keyed.projects().len() == 2).await;
            keyed.configure(&both[..1], &[]);
            keyed.reload(handle).await;
            let why = keyed.reason(handle, "team/a.jsonl").expect("told");
            assert!(why.contains("[credential.team]") && why.contains("cancel"), "{why}");
            let job = handle.with_engine(|engine| {
                let is_b = |job: &&gemini_batchd::engine::Job| job.head.source.name == "b.jsonl";
                engine.jobs().find(is_b).map(|job| job.head.id).expect("there")
            });
            handle.command(Command::Release(job)).await.expect_err("no release helps");
            handle.command(Command::Cancel(job)).await.expect("given up");
            keyed.until("the end of b", || keyed.is_delivered("team/b")).await;
            let manifest = keyed.rig.manifest("team/b");
            assert_eq!((&manifest["answered"], &manifest["failed"]), (&0.into(), &4.into()));
            assert!(manifest["warnings"].to_string().contains("not configured"), "{manifest}");
            keyed.configure(&both, &[]);
            keyed.reload(handle).await;
            go_on(&keyed);
            keyed.until("answers", || keyed.is_delivered("team/a")).await;
        })
        .await;
    assert_eq!(keyed.rig.manifest("team/a")["answered"], 3);
    assert_eq!(keyed.projects(), [0, 0, 0], "all in the project of its key");
}

/// What takes longer than this hangs; machines that run tests can be slow.
const PATIENCE: Duration = Duration::from_secs(120);
