//! A real daemon before an emulator, whose clock stands still until a test moves it.

use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use gemini_batchd::provider::gemini::emulator::{self, Emulator, Faults, Options};
use serde_json::Value;

use crate::Place;

/// A daemon that works in a place.
pub struct Working {
    pub place: Place,
    pub emulator: Emulator,
    daemon: Child,
    _runtime: tokio::runtime::Runtime,
}

impl Working {
    /// One with these settings, and these faults at the API.
    pub fn new(settings: &str, faults: Faults) -> Working {
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(1).enable_all().build().expect("a runtime");
        let options = Options { speed: 0.0, faults, ..Options::default() };
        let emulator = runtime.block_on(emulator::start(options)).expect("started");
        let place = Place::new();
        let text = format!(
            "{settings}\n[api]\nbase_url = {:?}\n[intake]\nsettle = \"0s\"\nrescan = \"200ms\"\n\
             [poll]\nmin = \"100ms\"\nmax = \"200ms\"\n",
            emulator.url()
        );
        place.write("gemini-batchd.toml", &text);
        let mut daemon = place.std_command();
        daemon.env("GEMINI_API_KEY", "any").arg("run").stderr(Stdio::null());
        let daemon = daemon.spawn().expect("started");
        let working = Working { place, emulator, daemon, _runtime: runtime };
        working.until("it answers", |_| true);
        working
    }

    /// Puts a file of so many questions into the inbox.
    pub fn drop_file(&self, name: &str, questions: u32, word: &str) {
        let line = |n| {
            serde_json::json!({"key": format!("q{n}"),
                "request": {"contents": [{"parts": [{"text": format!("{word} {n}")}]}]}})
        };
        let text: String = (1..=questions).map(|n| format!("{}\n", line(n))).collect();
        self.place.write(&format!("spool/inbox/{name}"), &text);
    }

    /// Lets the API get on with its batches.
    pub fn advance(&self) {
        self.emulator.advance(Duration::from_secs(3600));
    }

    /// Waits until what `status --json` shows is so.
    pub fn until(&self, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        let began = Instant::now();
        loop {
            let output = self.place.run(&["status", "--json"]).output().expect("it runs");
            let seen = serde_json::from_slice::<Value>(&output.stdout).unwrap_or_default();
            if output.status.success() && is_so(&seen) {
                return seen;
            }
            assert!(began.elapsed() < PATIENCE, "not so: {what}\n{seen:#}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits until the job of a file is in this state; answers with its id.
    pub fn until_state(&self, file: &str, state: &str) -> String {
        let ours = |seen: &Value| {
            let jobs = seen["jobs"].as_array().cloned().unwrap_or_default();
            jobs.into_iter().find(|job| job["file"] == file && job["state"] == state)
        };
        let seen = self.until(&format!("{file} is {state}"), |seen| ours(seen).is_some());
        ours(&seen).and_then(|job| Some(job["id"].as_str()?.to_owned())).expect("just seen")
    }

    /// Waits until the job of a file has a batch that nobody has answered yet.
    pub fn until_waiting(&self, file: &str) {
        self.until(&format!("{file} waits"), |seen| {
            let jobs = seen["jobs"].as_array().map(Vec::as_slice).unwrap_or_default();
            jobs.iter().any(|job| job["file"] == file && job["phase"] == "waiting at Google")
        });
    }

    /// Runs a verb that must succeed; answers with what it prints.
    pub fn say(&self, arguments: &[&str]) -> String {
        let output = self.place.run(arguments).output().expect("it runs");
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        let (said, errors) = (text(output.stdout), text(output.stderr));
        assert!(output.status.success(), "{arguments:?}: {said}{errors}");
        said
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.daemon.kill());
        drop(self.daemon.wait());
    }
}

const PATIENCE: Duration = Duration::from_secs(120);
