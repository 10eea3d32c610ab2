//! Answers to single requests: `generateContent` with its tiers, and `embedContent` (API contract,
//! section 16).
//!
//! Flex turns calls away when it is told to; a limit of calls a minute holds for all tiers. Every
//! call that is answered is paid for, whether its client hears of it or not, and is in the journal.

use std::collections::VecDeque;

use serde_json::{Value, json};

use super::answers::{self, Spoiled, mark};
use super::batches::models_for;
use super::clock::Moment;
use super::create;
use super::embeddings;
use super::journal::Happened;
use super::reply::{Refusal, Reply};
use super::server::{ProjectNo, Server};
use super::shelf::Shelf;
use crate::engine::job::Task;

/// When calls were answered lately.
#[derive(Debug, Clone, Default)]
pub struct Rate(VecDeque<Moment>);

impl Rate {
    /// Counts a call, or says how many seconds to wait: no more than `limit` in a minute.
    fn take(&mut self, limit: u32, now: Moment) -> Result<(), u64> {
        let ago = |at: &Moment| now.as_millis().saturating_sub(at.as_millis());
        while self.0.front().is_some_and(|at| ago(at) >= MINUTE_MS) {
            self.0.pop_front();
        }
        if limit > 0 && self.0.len() >= limit as usize {
            let oldest = self.0.front().map_or(0, ago);
            return Err((MINUTE_MS - oldest).div_ceil(1000));
        }
        self.0.push_back(now);
        Ok(())
    }
}

impl Server {
    /// Answers one request.
    pub fn ask(
        &mut self,
        who: ProjectNo,
        model: &str,
        task: Task,
        body: &[u8],
        now: Moment,
    ) -> Reply {
        let (tier, request) = match self.admit_one(model, task, body) {
            Ok(admitted) => admitted,
            Err(refusal) => return Reply::Refused(refusal),
        };
        let request_mark = format!("{:016x}", mark(request.as_bytes()));
        let (reply, is_paid) = self.answer_one(who, model, task, &tier, &request, now);
        let status = match &reply {
            Reply::Answer { .. } => 200,
            Reply::Refused(refusal) => refusal.http,
            _ => 0,
        };
        let model = format!("models/{model}");
        let request = request_mark;
        self.journal.note(now, who.0, Happened::Asked { model, tier, request, status, is_paid });
        reply
    }

    /// The tier of a call that can be made, and its request without it.
    fn admit_one(&self, model: &str, task: Task, body: &[u8]) -> Result<(String, String), Refusal> {
        let method = match task {
            Task::Generate => "generateContent",
            Task::Embed => "embedContent",
        };
        if !models_for(task).contains(&model) {
            let model: String = model.chars().take(100).collect();
            let message = format!(
                "models/{model} is not found for API version v1beta, or is not supported for \
                 {method}. Call ListModels to see the list of available models and their supported \
                 methods."
            );
            return Err(Refusal::new(404, message));
        }
        let form = match task {
            Task::Generate => "GenerateContentRequest",
            Task::Embed => "EmbedContentRequest",
        };
        create::check(form, body)?;
        let text = String::from_utf8_lossy(body);
        let mut request: Value = serde_json::from_str(&text).map_err(|error| {
            Refusal::new(400, format!("Invalid JSON payload received. {error}"))
        })?;
        let tiers = request.as_object_mut().map(|members| {
            let named = ["serviceTier", "service_tier"].map(|name| members.remove(name));
            named.into_iter().flatten().next()
        });
        let tier = tiers.flatten().and_then(|tier| tier.as_str().map(str::to_ascii_lowercase));
        let tier =
            tier.filter(|tier| tier != "unspecified").unwrap_or_else(|| "standard".to_owned());
        if tier == "flex" && self.faults.flex_refused {
            let message = "Service tier flex is not supported for this model.";
            return Err(Refusal::new(400, message));
        }
        Ok((tier, request.to_string()))
    }

    /// The answer, and whether it is paid for.
    fn answer_one(
        &mut self,
        who: ProjectNo,
        model: &str,
        task: Task,
        tier: &str,
        request: &str,
        now: Moment,
    ) -> (Reply, bool) {
        let faults = &mut self.faults;
        if tier == "flex" && faults.flex_shed_503.take() {
            let message = "The model is overloaded. Please try again later.";
            return (Reply::refused(503, message), false);
        }
        if tier == "flex" && faults.flex_shed_429.take() {
            return (Reply::refused(429, "Resource has been exhausted (e.g. check quota)."), false);
        }
        if faults.ask_drop_before.take() {
            return (Reply::Dropped, false);
        }
        if let Err(seconds) = self.asked.take(faults.asks_per_minute, now) {
            return (Reply::Refused(too_many(seconds)), false);
        }
        let shelf = Shelf::of(&self.projects[who.0], now);
        let mark = mark(request.as_bytes());
        let answered = match (task, shelf.look(request)) {
            (_, Err((_, message))) => Err(message),
            (Task::Generate, Ok(seen)) => {
                let model = format!("models/{model}");
                answers::answer(&model, request, &seen, mark, Spoiled::No).map_err(|it| it.0)
            }
            (Task::Embed, Ok(_)) => embeddings::answer(request, mark).map_err(|it| it.0),
        };
        let text = match answered {
            Ok(text) => text,
            Err(message) => return (Reply::refused(400, message), false),
        };
        if self.faults.ask_drop_after.take() {
            return (Reply::Dropped, true);
        }
        if self.faults.ask_500_after.take() {
            return (Reply::refused(500, "Internal error encountered."), true);
        }
        let text = match task {
            // No text of a user has these bytes: its quotes are escaped.
            Task::Generate => text.replacen(
                "\"usageMetadata\":{",
                &format!("\"usageMetadata\":{{\"serviceTier\":\"{tier}\","),
                1,
            ),
            Task::Embed => text,
        };
        (Reply::Answer { text, tier: tier.to_owned() }, true)
    }
}

fn too_many(seconds: u64) -> Refusal {
    let message = format!(
        "You exceeded your current quota, please check your plan and billing details. Please retry \
         in {seconds}s."
    );
    let mut refusal = Refusal::new(429, message);
    refusal.details = Some(json!([{
        "@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": format!("{seconds}s"),
    }]));
    refusal
}

const MINUTE_MS: u64 = 60_000;
