//! The client's side of the API, with everything that can happen on the way.
//!
//! Requests get lost, or arrive although nobody waits any more; replies get lost or torn; lists
//! come in small pages and another order. What answers mean is decided by the same code as in the
//! daemon: `classify`, `operation` and `wire`.

use std::collections::{BTreeMap, HashSet};

use gemini_batchd::engine::effect::Which;
use gemini_batchd::engine::event::{Failure, Objection, Outcome, Polled, RemoteBatch};
use gemini_batchd::engine::ids::{BatchName, FileName, Millis};
use gemini_batchd::engine::job::{Input, RemoteState};
use gemini_batchd::provider::gemini::classify::{ErrorAnswer, ErrorHead, Verdict};
use gemini_batchd::provider::gemini::operation::Operation;
use gemini_batchd::provider::gemini::wire::BatchPage;
use gemini_batchd::provider::gemini::{ApiKey, RefusedKind};

use super::api::{Answer, Api};
use super::world::{Step, World};

/// A create that is under way although nobody waits for it any more.
pub struct Late {
    pub at: Millis,
    pub model: String,
    pub body: Vec<u8>,
}

/// What became of a call that got no answer.
enum Lost {
    /// It never arrived.
    Request,
    /// It arrived; its answer did not.
    Reply,
}

impl World {
    /// The paid call.
    pub fn create(
        &mut self,
        which: Which,
        input: &Input,
        model: &str,
    ) -> Step<Result<Outcome, Failure>> {
        if !self.has_input(which.job) {
            return Ok(Err(Failure::Transient("the working folder is not there".to_owned())));
        }
        let body = self.create_body(which, input);
        if let Err(halt) = self.step() {
            // It may have left before the process died.
            self.send_late(model, body);
            return Err(halt);
        }
        if let Some(answer) = self.turned_away() {
            return self.create_answered(which, input, &answer);
        }
        if self.unlucky() {
            return Ok(Err(match self.random.below(3) {
                0 => Failure::Transient("create batch: not sent".to_owned()),
                1 => Failure::Ambiguous("create batch: the connection broke".to_owned()),
                _ => {
                    self.send_late(model, body);
                    Failure::Ambiguous("create batch: no answer in time".to_owned())
                }
            }));
        }
        let answer = self.create_arrives(model, &body)?;
        self.step()?;
        if self.unlucky() {
            return Ok(Err(Failure::Ambiguous("create batch: the answer broke off".to_owned())));
        }
        self.create_answered(which, input, &answer)
    }

    /// A create reaches the API. What it would be paid for is checked here.
    pub fn create_arrives(&mut self, model: &str, body: &[u8]) -> Step<Answer> {
        let (answer, made) = self.api.create(model, body, self.now);
        if let Some(made) = made {
            self.note(format!("{} is made for {}", made.name, made.stamp));
            self.check_paid(made)?;
        }
        Ok(answer)
    }

    fn send_late(&mut self, model: &str, body: Vec<u8>) {
        let at = self.now.plus(self.random.below(LATE_MS));
        self.late.push(Late { at, model: model.to_owned(), body });
    }

    fn create_body(&mut self, which: Which, input: &Input) -> Vec<u8> {
        let source = match input {
            Input::File(file) => format!("\"fileName\":\"{}\"", file.0),
            Input::Inline => {
                let items = self.rows_to_send(which).into_iter().map(|(row, request)| {
                    format!("{{\"request\":{request},\"metadata\":{{\"key\":\"{row}\"}}}}")
                });
                let items = items.collect::<Vec<_>>().join(",");
                format!("\"requests\":{{\"requests\":[{items}]}}")
            }
        };
        let stamp = which.stamp().0;
        format!("{{\"batch\":{{\"displayName\":\"{stamp}\",\"inputConfig\":{{{source}}}}}}}")
            .into_bytes()
    }

    fn create_answered(
        &mut self,
        which: Which,
        input: &Input,
        answer: &Answer,
    ) -> Step<Result<Outcome, Failure>> {
        if answer.status == 200 {
            let text = String::from_utf8_lossy(&answer.body);
            let operation = Operation::from_text(&text).expect("the API's own answer");
            let batch = operation.into_batch().expect("the API's own answer");
            return Ok(Ok(Outcome::Created { batch: batch.name, created: batch.created }));
        }
        let file = match input {
            Input::Inline => None,
            Input::File(file) => Some(file.0.as_str()),
        };
        let (error, kind) = match self.error(answer).refusal(file) {
            Verdict::Failure(failure) => return Ok(Err(failure)),
            Verdict::Refused(error, kind) => (error, kind),
        };
        let to = match kind {
            RefusedKind::Model => Objection::Model,
            RefusedKind::File => Objection::File,
            RefusedKind::Whole => Objection::Whole { rest: self.rest(which.job, which.rows) },
            RefusedKind::Lines(lines) => {
                self.step()?;
                let rows = self.rows_to_send(which);
                let row = |position: &u64| rows.get(*position as usize - 1).map(|(row, _)| *row);
                let named: Vec<u64> = lines.iter().filter_map(|(at, _)| row(at)).collect();
                self.reject(which, &named);
                self.step()?;
                let (named, rest) = (named.len() as u64, self.rest(which.job, which.rows));
                Objection::Lines { named, rest }
            }
        };
        Ok(Ok(Outcome::Refused { error, to }))
    }

    /// All batches with a stamp, as `Client::find` looks for them.
    pub fn find(&mut self, which: Which) -> Step<Result<Outcome, Failure>> {
        let stamp = which.stamp().0;
        let mut found = match self.all_pages()? {
            Ok(all) => all,
            Err(failure) => return Ok(Err(failure)),
        };
        found.retain(|batch| batch.display_name == stamp);
        found.sort_by_key(|batch| (batch.created, batch.name.clone()));
        Ok(Ok(Outcome::Found(found)))
    }

    /// The states of some batches, by list and then by name, as `Client::poll` asks for them.
    pub fn poll(&mut self, names: &[BatchName]) -> Step<Result<Outcome, Failure>> {
        let mut missing: HashSet<&BatchName> = names.iter().collect();
        let mut seen = BTreeMap::new();
        if self.random.chance(300) {
            let all = match self.all_pages()? {
                Ok(all) => all,
                Err(failure) => return Ok(Err(failure)),
            };
            for batch in all {
                if missing.remove(&batch.name) {
                    seen.insert(batch.name.clone(), Polled::Seen(batch));
                }
            }
        }
        for name in names.iter().filter(|name| missing.contains(name)) {
            let polled = match self.call(|api, now| api.get(&name.0, now))? {
                Ok(answer) => Polled::Seen(read_batch(&answer)),
                Err(Failure::Gone(_)) => Polled::Gone,
                Err(failure) => return Ok(Err(failure)),
            };
            seen.insert(name.clone(), polled);
        }
        Ok(Ok(Outcome::Polled(seen.into_iter().collect())))
    }

    /// The list from the first page to the last; the entries of a page may be in any order.
    fn all_pages(&mut self) -> Step<Result<Vec<RemoteBatch>, Failure>> {
        let size = self.random.pick(&[2, 7, 100, 100]);
        let (mut all, mut token): (Vec<RemoteBatch>, Option<String>) = (Vec::new(), None);
        loop {
            let answer = match self.call(|api, now| api.list(size, token.as_deref(), now))? {
                Ok(answer) => answer,
                Err(failure) => return Ok(Err(failure)),
            };
            let page: BatchPage = serde_json::from_slice(&answer.body).expect("the API's page");
            let mut entries = page.operations.unwrap_or_default();
            if self.is_faulty() {
                self.random.shuffle(&mut entries);
            }
            all.extend(entries.iter().map(|entry| read_text(entry.get())));
            token = page.next_page_token.filter(|token| !token.is_empty());
            if token.is_none() {
                return Ok(Ok(all));
            }
        }
    }

    /// The result lines of a batch, as `Client::fetch` gets them.
    pub fn fetch(&mut self, batch: &BatchName) -> Step<Result<Vec<String>, Failure>> {
        let answer = match self.call(|api, now| api.get(&batch.0, now))? {
            Ok(answer) => answer,
            Err(failure) => return Ok(Err(failure)),
        };
        let mut lines = Vec::new();
        let mut sink = |item: &str| {
            lines.push(item.to_owned());
            Ok(())
        };
        let read = Operation::read(answer.body.as_slice(), u64::MAX, Some(&mut sink));
        let remote = read.expect("the API's answer").into_batch().expect("the API's answer");
        if !remote.is_finished() {
            return Ok(Err(Failure::NotReady("it has not ended".to_owned())));
        }
        if !lines.is_empty() {
            return Ok(Ok(lines));
        }
        let Some(file) = &remote.output_file else {
            return Ok(match remote.state {
                RemoteState::Succeeded => Err(Failure::NotReady("no results yet".to_owned())),
                RemoteState::Pending
                | RemoteState::Running
                | RemoteState::Failed
                | RemoteState::Cancelled
                | RemoteState::Expired
                | RemoteState::Unknown(_) => Ok(lines),
            });
        };
        self.step()?;
        let answer = match self.call(|api, now| api.download(&file.0, now))? {
            // A file that is not there is refused like one of somebody else.
            Err(Failure::Denied(why)) => return Ok(Err(Failure::Gone(why))),
            Err(failure) => return Ok(Err(failure)),
            Ok(answer) => answer,
        };
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        Ok(Ok(text.lines().map(str::to_owned).collect()))
    }

    /// Removes a batch and its input, as `Performer::discard` does.
    pub fn discard(&mut self, batch: &BatchName, input: &Input) -> Step<Result<(), Failure>> {
        self.check_discard(batch)?;
        match self.call(|api, now| api.delete(&batch.0, now))? {
            Ok(_) | Err(Failure::Gone(_)) => {}
            Err(failure) => return Ok(Err(failure)),
        }
        self.step()?;
        let Input::File(file) = input else { return Ok(Ok(())) };
        match self.call(|api, now| api.delete_file(&file.0, now))? {
            Ok(_) | Err(Failure::Gone(_) | Failure::Denied(_)) => Ok(Ok(())),
            Err(failure) => Ok(Err(failure)),
        }
    }

    pub fn drop_input(&mut self, file: &FileName) -> Step<Result<(), Failure>> {
        match self.call(|api, now| api.delete_file(&file.0, now))? {
            Ok(_) | Err(Failure::Gone(_) | Failure::Denied(_)) => Ok(Ok(())),
            Err(failure) => Ok(Err(failure)),
        }
    }

    pub fn cancel_batch(&mut self, batch: &BatchName) -> Step<Result<Outcome, Failure>> {
        Ok(match self.call(|api, now| api.cancel(&batch.0, now))? {
            Ok(_) | Err(Failure::Gone(_)) => Ok(Outcome::Cancelled),
            Err(failure) => Err(failure),
        })
    }

    /// Any call but a create.
    pub fn call(
        &mut self,
        act: impl FnOnce(&mut Api, Millis) -> Answer,
    ) -> Step<Result<Answer, Failure>> {
        self.step()?;
        if let Some(answer) = self.turned_away() {
            return Ok(Err(self.error(&answer).failure("call")));
        }
        let lost = self.unlucky().then(|| match self.random.chance(500) {
            true => Lost::Request,
            false => Lost::Reply,
        });
        if let Some(Lost::Request) = lost {
            return Ok(Err(Failure::Transient("call: the connection broke".to_owned())));
        }
        let now = self.now;
        let answer = act(&mut self.api, now);
        self.step()?;
        if let Some(Lost::Reply) = lost {
            return Ok(Err(Failure::Transient("call: the answer broke off".to_owned())));
        }
        Ok(match answer.status {
            200 => Ok(answer),
            _ => Err(self.error(&answer).failure("call")),
        })
    }

    /// The answer of a front end that lets nothing through, if it does so now.
    pub fn turned_away(&mut self) -> Option<Answer> {
        let refused = |status: u16, name: &str, details: &str| {
            let body = format!(
                "{{\"error\":{{\"code\":{status},\"message\":\"m\",\"status\":\"{name}\"{details}}}}}"
            );
            Some(Answer { status, body: body.into_bytes() })
        };
        let (denied, out) = (self.weather.denied, self.weather.out);
        if self.random.chance(denied) {
            return refused(403, "PERMISSION_DENIED", "");
        }
        if self.random.chance(out) {
            return match self.random.below(3) {
                0 => Some(Answer { status: 502, body: b"<html>Bad Gateway</html>".to_vec() }),
                _ => refused(503, "UNAVAILABLE", ""),
            };
        }
        let (limited, pause) = (self.weather.limited, self.random.below(4000));
        if self.random.chance(limited) {
            let details = format!(
                ",\"details\":[{{\"@type\":\"type.googleapis.com/google.rpc.RetryInfo\",\
                 \"retryDelay\":\"{pause}s\"}}]"
            );
            let details = if pause < 2000 { details.as_str() } else { "" };
            return refused(429, "RESOURCE_EXHAUSTED", details);
        }
        None
    }

    pub fn unlucky(&mut self) -> bool {
        let lossy = self.weather.lossy;
        self.random.chance(lossy)
    }

    fn error(&self, answer: &Answer) -> ErrorAnswer {
        let key = ApiKey::new("key").expect("a key");
        let head = ErrorHead { http: answer.status, ..ErrorHead::default() };
        ErrorAnswer::read(&head, &answer.body, false, &key)
    }
}

fn read_batch(answer: &Answer) -> RemoteBatch {
    read_text(&String::from_utf8_lossy(&answer.body))
}

fn read_text(text: &str) -> RemoteBatch {
    Operation::from_text(text).expect("the API's text").into_batch().expect("the API's batch")
}

/// A request that nobody waits for arrives within so many milliseconds.
pub const LATE_MS: u64 = 100_000;
