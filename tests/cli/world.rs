//! The emulated API beside a place: its clock moves by hand only.

use std::time::Duration;

use assert_cmd::Command;
use bytes::Bytes;
use gemini_batchd::engine::ids::{BatchName, FileName, Stamp};
use gemini_batchd::engine::job::Task;
use gemini_batchd::provider::gemini::emulator::{self, Emulator, Faults, Happened, Options};
use gemini_batchd::provider::gemini::{ApiKey, Client, ClientSettings, CreateInput, Payload};
use tokio::runtime::Runtime;

use crate::Place;

/// The key of the tests; no real one looks like it.
pub const KEY: &str = "marker-key-of-the-tests";
/// A key that the emulated API refuses.
pub const BAD_KEY: &str = "marker-bad-key";
pub const JOB: &str = "01JD0000000000000000000001";

/// The API, and somebody who speaks to it already.
pub struct World {
    runtime: Runtime,
    pub emulator: Emulator,
    client: Client,
}

impl World {
    /// One whose batches wait for 10 s and run for 10 s.
    pub fn new() -> World {
        World::with(Faults::default())
    }

    pub fn with(faults: Faults) -> World {
        let runtime = Runtime::new().expect("a runtime");
        let options = Options {
            speed: 0.0,
            pending_for: Duration::from_secs(10),
            running_for: Duration::from_secs(10),
            bad_keys: vec![BAD_KEY.to_owned()],
            faults,
            ..Options::default()
        };
        let emulator = runtime.block_on(emulator::start(options)).expect("started");
        let url = emulator.url().parse().expect("a URL");
        let key = ApiKey::new(KEY).expect("a key");
        let client = Client::new(ClientSettings::new(url, key)).expect("a client");
        World { runtime, emulator, client }
    }

    /// The program, run in the place against this API.
    pub fn run(&self, place: &Place, arguments: &[&str]) -> Command {
        let mut command = place.run(arguments);
        command.env("GEMINI_API_KEY", KEY).env("GEMINI_BATCHD__API__BASE_URL", self.emulator.url());
        command
    }

    /// What a run that ends well printed.
    pub fn said(&self, place: &Place, arguments: &[&str]) -> String {
        let output = self.run(place, arguments).output().expect("run");
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {error}");
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    /// The same as JSON.
    pub fn json(&self, place: &Place, arguments: &[&str]) -> serde_json::Value {
        let arguments: Vec<&str> = arguments.iter().copied().chain(["--json"]).collect();
        serde_json::from_str(&self.said(place, &arguments)).expect("JSON")
    }

    pub fn advance(&self, seconds: u64) {
        self.emulator.advance(Duration::from_secs(seconds));
    }

    /// A batch of so many requests, sent inline; its name.
    pub fn inline(&self, called: &str, rows: usize) -> String {
        let items: Vec<String> = (1..=rows).map(|n| item(&n.to_string())).collect();
        let input = CreateInput::Inline(Payload::from_bytes(Bytes::from(items.join(","))));
        self.create(called, "gemini-2.5-flash", Task::Generate, input)
    }

    /// The same from a file of this name.
    pub fn of_file(&self, called: &str, file: &str, rows: usize) -> String {
        let line = |n: usize| format!("{{\"key\":\"{n}\",{}}}\n", request());
        let file = self.upload(file, called, (1..=rows).map(line).collect());
        self.create(called, "gemini-2.5-flash", Task::Generate, CreateInput::File(file))
    }

    /// Embeddings from a file.
    pub fn embeddings(&self, called: &str, rows: usize) -> String {
        let request = r#""request":{"content":{"parts":[{"text":"hi"}]}}"#;
        let line = |n: usize| format!("{{\"key\":\"{n}\",{request}}}\n");
        let file = self.upload("files/embed", called, (1..=rows).map(line).collect());
        self.create(called, "gemini-embedding-001", Task::Embed, CreateInput::File(file))
    }

    /// A batch of the OpenAI-compatible layer, from a file of this name; its full name.
    pub fn of_layer(&self, file: &str, rows: usize) -> String {
        let body = r#"{"model":"gemini-2.5-flash","messages":[{"role":"user","content":"hi"}]}"#;
        let line = |n: usize| {
            format!(
                "{{\"custom_id\":\"{n}\",\"method\":\"POST\",\"url\":\"/v1/chat/completions\",\
                 \"body\":{body}}}\n"
            )
        };
        let file = self.upload(file, "a file", (1..=rows).map(line).collect());
        let made = self.runtime.block_on(self.client.create_in_layer(Task::Generate, &file));
        made.expect("created").batch.0
    }

    pub fn upload(&self, name: &str, called: &str, text: String) -> FileName {
        let payload = Payload::from_bytes(Bytes::from(text));
        let name = FileName(name.to_owned());
        let done = self.client.upload(&name, called, &payload, None, &|_| {});
        self.runtime.block_on(done).expect("uploaded")
    }

    fn create(&self, called: &str, model: &str, task: Task, input: CreateInput) -> String {
        let stamp = Stamp(called.to_owned());
        let made = self.runtime.block_on(self.client.create(model, task, &stamp, 0, input));
        let BatchName(name) = made.expect("created").batch;
        name
    }

    /// What happened at the API.
    pub fn happened(&self) -> Vec<Happened> {
        self.emulator.journal().into_iter().map(|entry| entry.what).collect()
    }
}

fn request() -> &'static str {
    r#""request":{"contents":[{"role":"user","parts":[{"text":"hi"}]}]}"#
}

fn item(key: &str) -> String {
    format!("{{{},\"metadata\":{{\"key\":\"{key}\"}}}}", request())
}

/// The stamp of an attempt of [`JOB`].
pub fn stamp(chunk: u32, attempt: u16) -> String {
    format!("gemini-batchd/{JOB}/c{chunk}/a{attempt}")
}
