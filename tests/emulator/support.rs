//! A plain client for the emulator, and an emulator whose clock moves only by hand.

use std::time::{Duration, SystemTime};

use gemini_batchd::provider::gemini::emulator::{
    Emulator, Faults, Happened, Options, schema, start,
};
use reqwest::{Client, Method};
use serde_json::{Value, json};

use crate::discovery::Checker;

pub const MODEL: &str = "gemini-2.5-flash";

/// An emulator and one client of it.
pub struct World {
    pub emulator: Emulator,
    pub client: Client,
    pub key: &'static str,
    /// Judges in the end what was sent and answered.
    pub described: Checker,
}

/// An answer with its status.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    pub status: u16,
    pub headers: reqwest::header::HeaderMap,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).expect("UTF-8")
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The JSON of a success.
    pub fn ok(&self) -> Value {
        assert_eq!(self.status, 200, "{}", String::from_utf8_lossy(&self.body));
        self.json()
    }

    /// Status, name of the status and message of an error.
    pub fn error(&self) -> (u16, String, String) {
        let body = self.json();
        let error = &body["error"];
        assert_eq!(error["code"], self.status, "{body}");
        let text = |name: &str| error[name].as_str().expect("a text").to_owned();
        (self.status, text("status"), text("message"))
    }
}

/// PENDING for 10 s and RUNNING for 10 s of a clock that stands still unless moved.
pub async fn world(faults: &str) -> World {
    world_with(faults, Options::default()).await
}

pub async fn world_with(faults: &str, options: Options) -> World {
    let faults: Faults = toml::from_str(faults).expect("faults");
    let described = Checker::default();
    let emulator = start(Options {
        speed: 0.0,
        start: Some(SystemTime::UNIX_EPOCH + Duration::from_nanos(1_790_000_000_123_456_789)),
        pending_for: Duration::from_secs(10),
        running_for: Duration::from_secs(10),
        cancel_for: Duration::from_secs(2),
        faults,
        recorder: Some(described.recorder()),
        ..options
    })
    .await
    .expect("started");
    // An error says that another test was first.
    drop(rustls::crypto::ring::default_provider().install_default());
    let client = Client::builder().no_proxy().build().expect("a client");
    World { emulator, client, key: "key-of-a-test", described }
}

impl World {
    pub fn advance(&self, seconds: u64) {
        self.emulator.advance(Duration::from_secs(seconds));
    }

    pub fn set_faults(&self, faults: &str) {
        self.emulator.set_faults(toml::from_str(faults).expect("faults"));
    }

    /// Sends a request; an error if the connection broke.
    pub async fn try_send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<reqwest::Body>,
    ) -> Result<Answer, reqwest::Error> {
        let url =
            if path.starts_with("http") { path.to_owned() } else { self.emulator.url() + path };
        let mut request = self.client.request(method, url).body(body);
        if !path.contains("upload_id") {
            request = request.header("x-goog-api-key", self.key);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = request.send().await?;
        Ok(Answer {
            status: response.status().as_u16(),
            headers: response.headers().clone(),
            body: response.bytes().await?.to_vec(),
        })
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.try_send(Method::GET, path, &[], "").await.expect("an answer")
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.try_send(Method::POST, path, &[], body.to_string()).await.expect("an answer")
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.try_send(Method::DELETE, path, &[], "").await.expect("an answer")
    }

    /// Opens an upload session; its URL.
    pub async fn upload_start(&self, len: usize, body: &Value) -> Answer {
        let headers = [
            ("x-goog-upload-protocol", "resumable"),
            ("x-goog-upload-command", "start"),
            ("x-goog-upload-header-content-length", &len.to_string()),
            ("x-goog-upload-header-content-type", "application/jsonl"),
        ];
        let path = "/upload/v1beta/files";
        self.try_send(Method::POST, path, &headers, body.to_string()).await.expect("an answer")
    }

    pub async fn try_command(
        &self,
        session: &str,
        command: &str,
        offset: usize,
        bytes: &[u8],
    ) -> Result<Answer, reqwest::Error> {
        let offset = offset.to_string();
        let headers =
            [("x-goog-upload-command", command), ("x-goog-upload-offset", offset.as_str())];
        self.try_send(Method::POST, session, &headers, bytes.to_vec()).await
    }

    pub async fn command(
        &self,
        session: &str,
        command: &str,
        offset: usize,
        bytes: &[u8],
    ) -> Answer {
        self.try_command(session, command, offset, bytes).await.expect("an answer")
    }

    /// Uploads a file; its resource.
    pub async fn upload(&self, bytes: &[u8]) -> Value {
        let started =
            self.upload_start(bytes.len(), &json!({"file": {"displayName": "rows"}})).await;
        let session = started.header("x-goog-upload-url").expect("a session").to_owned();
        let done = self.command(&session, "upload, finalize", 0, bytes).await;
        assert_eq!(done.header("x-goog-upload-status"), Some("final"), "{done:?}");
        done.ok()["file"].clone()
    }

    /// Creates a batch of these questions from a file.
    pub async fn create_from_file(&self, questions: &[&str]) -> Value {
        let file = self.upload(file_of(questions).as_bytes()).await;
        self.create_of(&file["name"]).await.ok()
    }

    pub async fn create_of(&self, file: &Value) -> Answer {
        let body = json!({"batch": {"displayName": "d-1", "inputConfig": {"fileName": file}}});
        self.post(&format!("/v1beta/models/{MODEL}:batchGenerateContent"), &body).await
    }

    pub async fn try_create_inline(&self, questions: &[&str]) -> Result<Answer, reqwest::Error> {
        let rows: Vec<Value> = (1..)
            .zip(questions)
            .map(|(n, question)| {
                json!({"request": request(question), "metadata": {"key": n.to_string()}})
            })
            .collect();
        let body = json!({"batch": {"display_name": "d-2",
            "input_config": {"requests": {"requests": rows}}}});
        let path = format!("/v1beta/models/{MODEL}:batchGenerateContent");
        self.try_send(Method::POST, &path, &[], body.to_string()).await
    }

    pub async fn create_inline(&self, questions: &[&str]) -> Answer {
        self.try_create_inline(questions).await.expect("an answer")
    }

    /// A batch, by the name in an operation.
    pub async fn batch(&self, operation: &Value) -> Value {
        self.get(&path_of(operation)).await.ok()
    }

    /// The result lines of a batch that came from a file.
    pub async fn lines(&self, operation: &Value) -> Vec<Value> {
        let batch = self.batch(operation).await;
        let file = batch["metadata"]["output"]["responsesFile"].as_str().expect("results");
        let answer = self.get(&format!("/v1beta/{file}:download?alt=media")).await;
        assert_eq!(answer.status, 200);
        answer.text().lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    pub async fn listed(&self) -> Vec<Value> {
        let list = self.get("/v1beta/batches?pageSize=100").await.ok();
        list["operations"].as_array().cloned().unwrap_or_default()
    }

    pub fn happened(&self) -> Vec<Happened> {
        self.emulator.journal().into_iter().map(|entry| entry.what).collect()
    }

    pub fn created(&self) -> usize {
        let created = |what: &&Happened| matches!(what, Happened::Created { .. });
        self.happened().iter().filter(created).count()
    }
}

pub fn request(question: &str) -> Value {
    json!({"contents": [{"role": "user", "parts": [{"text": question}]}]})
}

/// A file with one row for each question, keys from 1.
pub fn file_of(questions: &[&str]) -> String {
    let row = |(n, question): (usize, &&str)| {
        format!("{}\n", json!({"key": n.to_string(), "request": request(question)}))
    };
    (1..).zip(questions).map(row).collect()
}

pub fn path_of(operation: &Value) -> String {
    format!("/v1beta/{}", operation["name"].as_str().expect("a name"))
}

/// Checks a value against a type of the discovery document.
pub fn assert_fits(message: &str, value: &Value) {
    let mut value = value.clone();
    if let Some(members) = value.as_object_mut() {
        members.remove("@type");
    }
    let found = schema::offences(message, value.to_string().as_bytes()).expect("JSON");
    assert_eq!(found, [], "{value:#}");
}

pub fn keys(lines: &[Value]) -> Vec<String> {
    let key = |line: &Value| line["key"].as_str().unwrap_or("-").to_owned();
    lines.iter().map(key).collect()
}
