//! A daemon with a spool in a temporary folder, and an emulator for it to speak to.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use gemini_batchd::clock::SystemClock;
use gemini_batchd::config::{Config, Environment, Flags};
use gemini_batchd::daemon::{Ended, Setup, Until};
use gemini_batchd::provider::gemini::emulator::{self, Emulator, Faults, Happened, Options};
use gemini_batchd::telemetry::LogOptions;
use serde_json::Value;
use tempfile::TempDir;

#[path = "../discovery/mod.rs"]
mod discovery;

use discovery::Checker;

/// Everything a test needs.
pub struct Rig {
    pub folder: TempDir,
    pub emulator: Emulator,
    settings: Vec<String>,
    /// Judges in the end what was sent and answered.
    _described: Checker,
}

impl Rig {
    /// A rig whose emulator has these faults.
    pub async fn new(faults: Faults) -> Rig {
        Rig::with(faults, &[]).await
    }

    /// A rig with more settings, each `section.key = value`.
    pub async fn with(faults: Faults, settings: &[&str]) -> Rig {
        Rig::over(Rig::options(faults), settings).await
    }

    /// How the emulators of rigs behave.
    pub fn options(faults: Faults) -> Options {
        Options {
            faults,
            pending_for: Duration::from_millis(20),
            running_for: Duration::from_millis(20),
            cancel_for: Duration::from_millis(10),
            granularity: 4096,
            ..Options::default()
        }
    }

    /// A rig with another emulator.
    pub async fn over(options: Options, settings: &[&str]) -> Rig {
        let described = Checker::default();
        let options = Options { recorder: Some(described.recorder()), ..options };
        // RUST_LOG=debug shows what the daemon does; nothing is printed without it.
        let _ = gemini_batchd::telemetry::init(&LogOptions {
            default_level: "off",
            ..LogOptions::default()
        });
        let emulator = emulator::start(options).await.expect("the emulator starts");
        let settings = settings.iter().map(|text| (*text).to_owned()).collect();
        let folder = tempfile::tempdir().expect("a temporary folder");
        Rig { folder, emulator, settings, _described: described }
    }

    /// The same rig with other settings.
    pub fn saying(self, settings: &[&str]) -> Rig {
        Rig { settings: settings.iter().map(|text| (*text).to_owned()).collect(), ..self }
    }

    /// A folder or file of the spool.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Puts a file into the inbox, complete at once.
    pub fn drop_file(&self, name: &str, content: impl AsRef<[u8]>) {
        let target = self.path("inbox").join(name);
        let aside = self.path(".dropped");
        fs::create_dir_all(target.parent().expect("a folder")).expect("made");
        fs::write(&aside, content).expect("written");
        let old = std::time::SystemTime::now() - Duration::from_secs(60);
        fs::File::open(&aside).and_then(|file| file.set_modified(old)).expect("aged");
        fs::rename(&aside, &target).expect("dropped");
    }

    /// The configuration of this rig.
    pub fn config(&self) -> Config {
        let base = [
            format!("api.base_url = {:?}", self.emulator.url()),
            "api.backoff_min = \"5ms\"".to_owned(),
            "api.backoff_max = \"50ms\"".to_owned(),
            "api.uncertain_window = \"400ms\"".to_owned(),
            "poll.min = \"10ms\"".to_owned(),
            "poll.max = \"20ms\"".to_owned(),
            "intake.settle = \"0s\"".to_owned(),
            "intake.watch = \"poll\"".to_owned(),
        ];
        let key = |line: &String| line.split(" =").next().unwrap_or_default().to_owned();
        let is_set = |line: &&String| self.settings.iter().any(|set| key(set) == key(line));
        let base = base.iter().filter(|line| !is_set(line));
        let text = base.chain(&self.settings).fold(String::new(), |text, line| text + line + "\n");
        let file = self.path("gemini-batchd.toml");
        fs::write(&file, text).expect("written");
        let environment = Environment::made_up(self.folder.path(), [("GEMINI_API_KEY", KEY)]);
        let flags = Flags { config: Some(file), spool: Some(self.folder.path().to_owned()) };
        Config::load(&flags, &environment).expect("the configuration is right")
    }

    /// A new daemon, ready to run.
    pub fn setup(&self) -> Setup {
        Setup::open(Arc::new(self.config()), Arc::new(SystemClock)).expect("it starts")
    }

    /// A new daemon drains everything there is.
    pub async fn drain(&self) -> Ended {
        let run = self.setup().daemon.run(Until::Idle);
        tokio::time::timeout(PATIENCE, run).await.expect("it ends").expect("its store works")
    }

    /// Runs a daemon until something is seen to have happened, and drops it there as a crash would.
    pub async fn run_until(&self, happened: impl Fn(&Rig) -> bool) {
        let run = self.setup().daemon.run(Until::Stopped);
        let seen = async {
            while !happened(self) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::select! {
            ended = run => panic!("it ended: {ended:?}"),
            waited = tokio::time::timeout(PATIENCE, seen) => {
                waited.unwrap_or_else(|_| panic!("it did not happen:\n{}", self.listing()));
            }
        }
    }

    /// The lines of a JSON Lines file in the outbox; none if it is not there.
    pub fn lines(&self, name: &str) -> Vec<Value> {
        let text = fs::read_to_string(self.path("outbox").join(name)).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).expect("a line is JSON")).collect()
    }

    /// A JSON file of the spool.
    pub fn json(&self, name: &str) -> Value {
        let path = self.path(name);
        let text = fs::read_to_string(&path)
            .unwrap_or_else(|error| panic!("{}: {error}\n{}", path.display(), self.listing()));
        serde_json::from_str(&text).expect("the file is JSON")
    }

    /// How many creates made a batch, by display name.
    pub fn creates(&self) -> Vec<String> {
        let created = |entry: emulator::JournalEntry| match entry.what {
            Happened::Created { display_name, .. } => Some(display_name),
            _ => None,
        };
        self.emulator.journal().into_iter().filter_map(created).collect()
    }

    /// Every file of the spool, for messages.
    pub fn listing(&self) -> String {
        fn walk(folder: &Path, found: &mut String) {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                let path = entry.path();
                if path.is_dir() && !path.ends_with("state") {
                    walk(&path, found);
                } else {
                    found.push_str(&format!("{}\n", path.display()));
                }
            }
        }
        let mut found = String::new();
        walk(self.folder.path(), &mut found);
        found
    }

    /// Checks what holds for every job: the manifest adds up with the files beside it.
    pub fn manifest(&self, stem: &str) -> Value {
        let manifest = self.json(&format!("outbox/{stem}.manifest.json"));
        let results = self.lines(&format!("{stem}.results.jsonl")).len();
        let errors = self.lines(&format!("{stem}.errors.jsonl")).len();
        assert_eq!(manifest["answered"], results, "{manifest}");
        assert_eq!(manifest["failed"], errors, "{manifest}");
        assert_eq!(manifest["lines"], results + errors, "{manifest}");
        manifest
    }
}

/// `count` requests in form 1, keyed `k1`, `k2`, ….
pub fn requests(count: usize) -> String {
    (1..=count).map(|n| request(&format!("k{n}"), &format!("question {n}"))).collect()
}

/// One request in form 1.
pub fn request(key: &str, text: &str) -> String {
    let contents = serde_json::json!([{"role": "user", "parts": [{"text": text}]}]);
    format!("{}\n", serde_json::json!({"key": key, "request": {"contents": contents}}))
}

/// The keys of some lines.
pub fn keys(lines: &[Value]) -> Vec<String> {
    lines.iter().map(|line| line["key"].as_str().unwrap_or("?").to_owned()).collect()
}

/// The text of an answer.
pub fn text(line: &Value) -> &str {
    line["response"]["candidates"][0]["content"]["parts"][0]["text"].as_str().unwrap_or("")
}

/// The key that tests use; no real one looks like it.
pub const KEY: &str = "marker-key-of-the-tests";

/// What takes longer than this hangs; machines that run tests can be slow.
const PATIENCE: Duration = Duration::from_secs(240);
