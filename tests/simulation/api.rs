//! The API: the emulator's pure server on virtual time, with its bytes in memory.
//!
//! It knows the truth that no client sees: which batches were ever made, what was paid for in
//! each, and which answers lie there to be fetched.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::Cursor;
use std::time::Duration;

use gemini_batchd::engine::ids::{JobId, Millis, Stamp};
use gemini_batchd::engine::job::Task;
use gemini_batchd::provider::gemini::emulator::clock::Moment;
use gemini_batchd::provider::gemini::emulator::create::{Create, CreateInput};
use gemini_batchd::provider::gemini::emulator::faults::Faults;
use gemini_batchd::provider::gemini::emulator::reply::{Reply, StoreId};
use gemini_batchd::provider::gemini::emulator::results;
use gemini_batchd::provider::gemini::emulator::rows::{Row, survey};
use gemini_batchd::provider::gemini::emulator::server::{ProjectNo, Rules, Server};
use gemini_batchd::provider::gemini::emulator::sessions::{Arrived, Command, UploadStart};
use serde_json::Value;

/// The service and all that it ever did.
pub struct Api {
    server: Server,
    bytes: HashMap<StoreId, Vec<u8>>,
    stores: u64,
    who: ProjectNo,
    /// Every batch that was ever made, by name.
    pub batches: BTreeMap<String, Paid>,
}

/// A batch as it really is.
#[derive(Debug, Clone)]
pub struct Paid {
    pub stamp: String,
    pub job: JobId,
    pub rows: Vec<u64>,
    /// The rows that have an answer among its results.
    pub answered: BTreeSet<u64>,
    /// When it ended.
    pub ended: Option<Millis>,
    /// What it had is not there any more, through no fault of ours.
    pub taken_away: bool,
}

/// An answer as it goes over the wire.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub body: Vec<u8>,
}

/// A batch that a create has just made.
pub struct Made {
    pub name: String,
    pub stamp: String,
    pub job: JobId,
    pub rows: Vec<u64>,
}

/// How a call on an upload session ended.
pub enum Sent {
    Active { received: u64 },
    Final,
    Refused(Answer),
}

impl Api {
    pub fn new(seed: u64, pending_ms: u64, running_ms: u64, storage_bytes: u64) -> Api {
        let rules = Rules {
            pending_for: Duration::from_millis(pending_ms),
            running_for: Duration::from_millis(running_ms),
            cancel_for: Duration::from_secs(20),
            granularity: 1,
            storage_bytes,
            bad_keys: Vec::new(),
            projects: Vec::new(),
            seed,
        };
        let mut server = Server::new(rules, Faults::default());
        let who = server.authenticate(Some("key")).expect("any key will do");
        Api { server, bytes: HashMap::new(), stores: 0, who, batches: BTreeMap::new() }
    }

    pub fn set_faults(&mut self, faults: Faults) {
        self.server.set_faults(faults);
    }

    /// Ends what has come to its end, and writes its results.
    pub fn settle(&mut self, now: Millis) {
        for work in self.server.settle(moment(now)) {
            let mut lines = Vec::new();
            let rows = self.bytes.get(&work.input).expect("rows are kept while a batch is open");
            let outcome = results::write(&work.recipe, rows.as_slice(), &mut lines);
            let outcome = outcome.expect("rows were read before");
            if let Some(seed) = work.recipe.shuffled {
                let mut shuffled = Vec::new();
                results::shuffle(seed, Cursor::new(&lines), &mut shuffled).expect("in memory");
                lines = shuffled;
            }
            let answered = answered_in(&lines);
            let (store, len) = (self.fresh(), lines.len() as u64);
            self.bytes.insert(store, lines);
            self.server.written(&work, Ok((store, len, outcome)));
            // A batch that has vanished shows nobody what it has.
            let shown = self.server.get(self.who, id_of(&work.name), moment(now));
            let (Reply::Json(batch) | Reply::Spliced { operation: batch, .. }) = shown else {
                continue;
            };
            if let Some(paid) = self.batches.get_mut(&work.name) {
                paid.answered = answered;
                paid.ended = Some(ended(&batch));
            }
        }
        for paid in self.batches.values_mut() {
            let expired = paid.ended.is_some_and(|ended| now.since(ended) >= LIFETIME_MS);
            paid.taken_away |= expired;
        }
        self.sweep();
    }

    /// A create arrives.
    pub fn create(&mut self, model: &str, body: &[u8], now: Millis) -> (Answer, Option<Made>) {
        self.settle(now);
        let at = moment(now);
        let mut create = match Create::read(body, Task::Generate) {
            Ok(create) => create,
            Err(refusal) => {
                let reply = self.server.refuse_create(self.who, refusal, at);
                return (self.answer(reply), None);
            }
        };
        let admitted = match self.server.admit_create(self.who, model, Task::Generate, &create, at)
        {
            Ok(admitted) => admitted,
            Err(reply) => return (self.answer(reply), None),
        };
        let input = match (&mut create.input, admitted.file) {
            (CreateInput::Rows(rows), _) => {
                let store = self.fresh();
                self.bytes.insert(store, std::mem::take(rows));
                store
            }
            (CreateInput::File(_), store) => store.expect("an admitted file is there"),
        };
        let texts = admitted.look_for.each_ref().map(Option::as_deref);
        let is_file = matches!(create.input, CreateInput::File(_));
        let bytes = self.bytes.get(&input).expect("rows were stored").as_slice();
        let survey = survey(bytes, is_file.then_some(Task::Generate), texts).expect("in memory");
        let rows = if survey.errors.is_empty() { keys_in(bytes) } else { Vec::new() };
        let reply =
            self.server.create(self.who, model, Task::Generate, &create, input, &survey, at);
        let made = match &reply {
            Reply::Json(operation) => Some(self.made(operation, create.display_name, rows)),
            Reply::Spliced { .. }
            | Reply::Refused(_)
            | Reply::Upload(_)
            | Reply::Answer { .. }
            | Reply::Bytes(_)
            | Reply::Html
            | Reply::Dropped => None,
        };
        self.sweep();
        (self.answer(reply), made)
    }

    fn made(&mut self, operation: &Value, stamp: String, rows: Vec<u64>) -> Made {
        let name = operation["name"].as_str().expect("a batch has a name").to_owned();
        let id = stamp.strip_prefix(Stamp::PREFIX).and_then(|rest| rest.split('/').next());
        let job = id.and_then(|id| id.parse().ok()).expect("a stamp of ours");
        Made { name, stamp, job, rows }
    }

    /// Asks for one answer; tells whether it is paid for.
    pub fn ask(&mut self, model: &str, body: &[u8], now: Millis) -> (Answer, bool) {
        self.settle(now);
        let reply = self.server.ask(self.who, model, Task::Generate, body, moment(now));
        let is_paid = matches!(reply, Reply::Answer { .. });
        (self.answer(reply), is_paid)
    }

    pub fn get(&mut self, name: &str, now: Millis) -> Answer {
        self.settle(now);
        let reply = self.server.get(self.who, id_of(name), moment(now));
        self.answer(reply)
    }

    /// Whether a batch exists, whoever may see it.
    pub fn has(&mut self, name: &str, now: Millis) -> bool {
        self.get(name, now).status == 200
    }

    pub fn list(&mut self, size: usize, token: Option<&str>, now: Millis) -> Answer {
        self.settle(now);
        let reply = self.server.list(self.who, Some(size), token, moment(now));
        self.answer(reply)
    }

    pub fn cancel(&mut self, name: &str, now: Millis) -> Answer {
        self.settle(now);
        let reply = self.server.cancel(self.who, id_of(name), moment(now));
        self.answer(reply)
    }

    pub fn delete(&mut self, name: &str, now: Millis) -> Answer {
        self.settle(now);
        let reply = self.server.delete(self.who, id_of(name), moment(now));
        self.sweep();
        self.answer(reply)
    }

    pub fn delete_file(&mut self, name: &str, now: Millis) -> Answer {
        self.settle(now);
        let reply = self.server.file_delete(self.who, id_of(name), moment(now));
        self.sweep();
        self.answer(reply)
    }

    pub fn get_file(&mut self, name: &str, now: Millis) -> Answer {
        self.settle(now);
        let reply = self.server.file_get(self.who, id_of(name), "", moment(now));
        self.answer(reply)
    }

    pub fn download(&mut self, file: &str, now: Millis) -> Answer {
        self.settle(now);
        let reply = self.server.download(self.who, id_of(file), None, moment(now));
        self.answer(reply)
    }

    /// Opens an upload session.
    pub fn upload_start(&mut self, file: &str, len: u64, now: Millis) -> Result<String, Answer> {
        self.settle(now);
        let body = serde_json::json!({"file": {"name": file, "mimeType": "application/jsonl"}});
        let body = body.to_string().into_bytes();
        let start = UploadStart { length: Some(len), mime_type: None, body };
        let store = self.fresh();
        match self.server.upload_start(self.who, &start, store, moment(now)) {
            Reply::Upload(reply) if reply.session.is_some() => {
                self.bytes.insert(store, Vec::new());
                Ok(reply.session.map(|(session, _)| session).unwrap_or_default())
            }
            reply => Err(self.answer(reply)),
        }
    }

    /// Sends a piece; `None` asks how far the upload is.
    pub fn upload(
        &mut self,
        session: &str,
        piece: Option<(u64, &[u8], bool)>,
        now: Millis,
    ) -> Sent {
        self.settle(now);
        let at = moment(now);
        let command = match piece {
            None => Command::Query,
            Some((offset, bytes, finalize)) => {
                let length = Some(bytes.len() as u64);
                Command::Piece { offset: Some(offset), length, finalize }
            }
        };
        let admission = match self.server.upload_command(session, command, "", at) {
            Ok(admission) => admission,
            Err(reply) => return self.sent(reply),
        };
        let (_, bytes, _) = piece.expect("only pieces are let in");
        let fresh = &bytes[(admission.skip as usize).min(bytes.len())..];
        let fresh = &fresh[..fresh.len().min(admission.take as usize)];
        let store = self.server.upload_store(session).expect("the session was let in just now");
        self.bytes.entry(store).or_default().extend_from_slice(fresh);
        let arrived = Arrived {
            wire: bytes.len() as u64,
            added: fresh.len() as u64,
            whole: true,
            excess: false,
            sha256_hex: String::new(),
        };
        let reply = self.server.upload_arrived(session, admission, &arrived, "", at);
        self.sent(reply)
    }

    fn sent(&mut self, reply: Reply) -> Sent {
        match reply {
            Reply::Upload(upload) if upload.status == Some("final") => Sent::Final,
            Reply::Upload(upload) => Sent::Active { received: upload.received.unwrap_or(0) },
            other => Sent::Refused(self.answer(other)),
        }
    }

    /// The answer as bytes.
    fn answer(&self, reply: Reply) -> Answer {
        match reply {
            Reply::Json(body) => Answer { status: 200, body: body.to_string().into_bytes() },
            Reply::Answer { text, .. } => Answer { status: 200, body: text.into_bytes() },
            Reply::Spliced { operation, items } => {
                let lines = self.bytes.get(&items).map(Vec::as_slice).unwrap_or_default();
                let text = String::from_utf8_lossy(lines);
                let joined = text.lines().collect::<Vec<_>>().join(",");
                let marker = Value::from(Reply::ITEMS).to_string();
                let body = operation.to_string().replace(&marker, &joined);
                Answer { status: 200, body: body.into_bytes() }
            }
            Reply::Refused(refusal) => {
                let body = refusal.body(false).to_string().into_bytes();
                Answer { status: refusal.http, body }
            }
            Reply::Upload(_) => Answer { status: 200, body: Vec::new() },
            Reply::Bytes(range) => {
                let bytes = self.bytes.get(&range.store).map(Vec::as_slice).unwrap_or_default();
                let from = range.from as usize;
                Answer { status: 200, body: bytes[from..from + range.len as usize].to_vec() }
            }
            Reply::Html => Answer { status: 502, body: b"<html>502</html>".to_vec() },
            Reply::Dropped => unreachable!("this world cuts connections by itself"),
        }
    }

    fn fresh(&mut self) -> StoreId {
        self.stores += 1;
        StoreId(self.stores)
    }

    fn sweep(&mut self) {
        for store in self.server.take_garbage() {
            self.bytes.remove(&store);
        }
    }
}

/// Result files are kept so long.
const LIFETIME_MS: u64 = 48 * 3_600_000;

fn moment(at: Millis) -> Moment {
    Moment(at.0 * 1_000_000)
}

fn id_of(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or(name)
}

/// The rows that have a response among these result lines.
fn answered_in(lines: &[u8]) -> BTreeSet<u64> {
    let text = String::from_utf8_lossy(lines);
    let row = |line: &str| {
        let value: Value = serde_json::from_str(line).ok()?;
        value.get("response")?;
        row_of(&value)
    };
    text.lines().filter_map(row).collect()
}

/// The row that a result line is for.
pub fn row_of(line: &Value) -> Option<u64> {
    let key = line.get("key").or_else(|| line.get("metadata")?.get("key"))?;
    key.as_str()?.parse().ok()
}

fn keys_in(lines: &[u8]) -> Vec<u64> {
    let key = |line: &[u8]| {
        let row = Row::read(line).ok()?;
        let metadata = || serde_json::from_str::<Value>(row.metadata?).ok();
        let key = match row.key {
            Some(key) => serde_json::from_str::<String>(key).ok()?,
            None => metadata()?["key"].as_str()?.to_owned(),
        };
        key.parse().ok()
    };
    lines.split(|byte| *byte == b'\n').filter_map(key).collect()
}

/// When a batch ended, which may be long before anybody asked for it.
fn ended(batch: &serde_json::Value) -> Millis {
    let at = batch["metadata"]["endTime"].as_str().expect("it has ended");
    let at: jiff::Timestamp = at.parse().expect("a time");
    Millis(u64::try_from(at.as_millisecond()).expect("after 1970"))
}
