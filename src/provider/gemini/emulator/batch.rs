//! One batch: its life, and how it is shown (API contract, section 4).

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::clock::Moment;
use super::faults::{Ending, Ends, Poison};
use super::journal::InputKind;
use super::layer::Layer;
use super::reply::{Reply, StoreId};
use crate::engine::job::Task;

/// A batch.
#[derive(Debug, Clone)]
pub struct Batch {
    /// 36 characters.
    pub id: String,
    /// `models/…`.
    pub model: String,
    /// What its requests ask for.
    pub task: Task,
    /// As the client gave it.
    pub display_name: String,
    /// As the client gave it.
    pub priority: i64,
    /// How the requests came.
    pub kind: InputKind,
    /// `files/…`, if they came in a file.
    pub file: Option<String>,
    /// The requests.
    pub input: StoreId,
    /// How many there are.
    pub rows: u64,
    /// Tokens of their prompts, about.
    pub tokens: u64,
    /// When it was made.
    pub created: Moment,
    /// When it starts to run.
    pub starts: Moment,
    /// When it has run.
    pub ends: Moment,
    /// When it is gone without anybody having deleted it.
    pub vanishes: Moment,
    /// When somebody asked for it to be cancelled.
    pub cancel_asked: Option<Moment>,
    /// The fault that lets it fail.
    pub poison: Option<Poison>,
    /// The fault that ends it otherwise.
    pub ends_as: Option<Ends>,
    /// Whether its results are there.
    pub stage: Stage,
    /// How often it was asked for since it ended.
    pub gets: u32,
    /// What it has more if it was made through the OpenAI-compatible layer.
    pub layer: Option<Layer>,
}

/// How far a batch is.
#[derive(Debug, Clone)]
pub enum Stage {
    /// Waits or runs; time tells which.
    Open,
    /// Its results are being written.
    Writing(Finale),
    /// Has ended.
    Ended {
        /// How.
        finale: Finale,
        /// The results.
        output: Option<Output>,
    },
}

/// How a batch ends.
#[derive(Debug, Clone, PartialEq)]
pub struct Finale {
    /// When.
    pub at: Moment,
    /// `BATCH_STATE_…`.
    pub state: &'static str,
    /// Code and message of the operation's error.
    pub error: Option<(i32, String)>,
    /// Rows served, counted from the first; `None`: nothing is put out at all.
    pub served: Option<u64>,
    /// Whether the rows not served come back as cancelled.
    pub rest_cancelled: bool,
}

/// The results of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Output {
    /// The result lines.
    pub store: StoreId,
    /// Their bytes.
    pub bytes: u64,
    /// Rows with a response.
    pub successful: u64,
    /// Rows with an error.
    pub failed: u64,
}

/// How much of a batch is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shown {
    /// Results that came inline.
    pub inline_results: bool,
    /// Any results.
    pub output: bool,
    /// Every row as pending.
    pub stale: bool,
    /// No progress while it runs.
    pub frozen: bool,
}

impl Batch {
    /// Its resource name.
    pub fn name(&self) -> String {
        format!("batches/{}", self.id)
    }

    fn type_name(&self) -> &'static str {
        match self.task {
            Task::Generate => "GenerateContentBatch",
            Task::Embed => "EmbedContentBatch",
        }
    }

    /// The id of its result file.
    pub fn result_id(&self) -> String {
        format!("batch-{}", self.id)
    }

    /// How it ends, if that moment has come and nothing was done about it yet.
    /// `cancel_for` is how long a cancel takes.
    pub fn due(&self, now: Moment, cancel_for: Duration) -> Option<Finale> {
        if !matches!(self.stage, Stage::Open) {
            return None;
        }
        let expires = self.created.after(LIFETIME);
        let cancelled = self.cancel_asked.map(|asked| (asked, asked.after(cancel_for)));
        let natural = self.ends.min(expires);
        let finale = match cancelled {
            Some((asked, at)) if at < natural => self.cancelled(asked, at),
            Some(_) | None if self.ends > expires => self.expired(expires),
            Some(_) | None => self.finished(),
        };
        (finale.at <= now).then_some(finale)
    }

    fn cancelled(&self, asked: Moment, at: Moment) -> Finale {
        if asked < self.starts {
            return self.cancelled_before_start(at);
        }
        let served = Some(self.progress(asked));
        Finale { at, state: SUCCEEDED, error: None, served, rest_cancelled: true }
    }

    fn cancelled_before_start(&self, at: Moment) -> Finale {
        let error = Some((13, format!("Batch {} failed without error.", self.id)));
        Finale { at, state: CANCELLED, error, served: None, rest_cancelled: false }
    }

    fn expired(&self, at: Moment) -> Finale {
        let error = Some((4, format!("Batch {} expired before it was complete.", self.id)));
        Finale { at, state: EXPIRED, error, served: None, rest_cancelled: false }
    }

    fn finished(&self) -> Finale {
        let at = self.ends;
        if let Some(invalid) = self.invalid() {
            return invalid;
        }
        if let Some(poison) = &self.poison {
            let error = Some((poison.code, poison.message.clone()));
            return Finale { at, state: FAILED, error, served: None, rest_cancelled: false };
        }
        let Some(ends) = &self.ends_as else {
            let served = Some(self.rows);
            return Finale { at, state: SUCCEEDED, error: None, served, rest_cancelled: false };
        };
        let mut finale = match ends.state {
            Ending::Cancelled => self.cancelled_before_start(at),
            Ending::Expired => self.expired(at),
            Ending::Failed => Finale { state: FAILED, ..self.cancelled_before_start(at) },
        };
        let served = (self.rows as f64 * ends.fraction.clamp(0.0, 1.0)) as u64;
        finale.served = (served > 0).then_some(served);
        finale
    }

    /// Rows served at a moment while it runs; never all of them.
    fn progress(&self, now: Moment) -> u64 {
        let total = self.ends.0.saturating_sub(self.starts.0).max(1);
        let ran = now.0.saturating_sub(self.starts.0).min(total);
        let served = u128::from(self.rows) * u128::from(ran) / u128::from(total);
        u64::try_from(served).unwrap_or(u64::MAX).min(self.rows.saturating_sub(1))
    }

    /// The operation, and the results to be spliced into it.
    pub fn operation(&self, now: Moment, shown: Shown) -> (Value, Option<StoreId>) {
        let mut operation = Map::new();
        operation.insert("name".into(), self.name().into());
        let mut metadata = Map::new();
        metadata.insert("@type".into(), format!("{TYPE}{}", self.type_name()).into());
        metadata.insert("model".into(), self.model.clone().into());
        if !self.display_name.is_empty() {
            metadata.insert("displayName".into(), self.display_name.clone().into());
        }
        if let Some(file) = &self.file {
            metadata.insert("inputConfig".into(), json!({ "fileName": file }));
        }
        if self.priority != 0 {
            metadata.insert("priority".into(), self.priority.to_string().into());
        }
        metadata.insert("createTime".into(), self.created.to_string().into());
        metadata.insert("batchStats".into(), self.stats(now, shown));
        metadata.insert("name".into(), self.name().into());

        let mut items = None;
        let (state, updated) = match &self.stage {
            // The answer to a create says PENDING however soon the batch starts.
            Stage::Open if now < self.starts || now == self.created => {
                ("BATCH_STATE_PENDING", self.created)
            }
            Stage::Open | Stage::Writing(_) => ("BATCH_STATE_RUNNING", self.starts),
            Stage::Ended { finale, output } => {
                operation.insert("done".into(), true.into());
                metadata.insert("endTime".into(), finale.at.to_string().into());
                if let Some(output) = output.filter(|_| shown.output) {
                    items = self.show_output(output, shown, &mut metadata, &mut operation);
                }
                if let Some((code, message)) = &finale.error {
                    operation.insert("error".into(), json!({"code": code, "message": message}));
                    operation.remove("response");
                }
                (finale.state, finale.at)
            }
        };
        metadata.insert("updateTime".into(), updated.to_string().into());
        metadata.insert("state".into(), state.into());
        operation.insert("metadata".into(), metadata.into());
        (operation.into(), items)
    }

    /// Puts the results where they belong: twice, in `metadata.output` and in `response`.
    fn show_output(
        &self,
        output: Output,
        shown: Shown,
        metadata: &mut Map<String, Value>,
        operation: &mut Map<String, Value>,
    ) -> Option<StoreId> {
        let (mut body, items) = match self.kind {
            InputKind::File => {
                (json!({ "responsesFile": format!("files/{}", self.result_id()) }), None)
            }
            InputKind::Inline if !shown.inline_results => return None,
            InputKind::Inline => (
                json!({ "inlinedResponses": { "inlinedResponses": [Reply::ITEMS] } }),
                Some(output.store),
            ),
        };
        metadata.insert("output".into(), body.clone());
        body["@type"] = format!("{TYPE}{}Output", self.type_name()).into();
        // A list shows the file in the metadata, and no response.
        if shown.inline_results {
            operation.insert("response".into(), body);
        }
        items
    }

    fn stats(&self, now: Moment, shown: Shown) -> Value {
        let (successful, failed) = match &self.stage {
            _ if shown.stale => (0, 0),
            Stage::Open | Stage::Writing(_) if shown.frozen || now < self.starts => (0, 0),
            Stage::Open | Stage::Writing(_) => (self.progress(now), 0),
            Stage::Ended { output: Some(output), .. } => (output.successful, output.failed),
            Stage::Ended { output: None, .. } => (0, 0),
        };
        let mut stats = Map::new();
        let pending = self.rows.saturating_sub(successful + failed);
        for (name, count) in [
            ("requestCount", self.rows),
            ("successfulRequestCount", successful),
            ("failedRequestCount", failed),
            ("pendingRequestCount", pending),
        ] {
            if count > 0 {
                stats.insert(name.into(), count.to_string().into());
            }
        }
        stats.into()
    }
}

/// How long files live, and batches wait and run at most.
pub const LIFETIME: Duration = Duration::from_secs(48 * 3600);

const TYPE: &str = "type.googleapis.com/google.ai.generativelanguage.v1main.";
const SUCCEEDED: &str = "BATCH_STATE_SUCCEEDED";
const FAILED: &str = "BATCH_STATE_FAILED";
const CANCELLED: &str = "BATCH_STATE_CANCELLED";
const EXPIRED: &str = "BATCH_STATE_EXPIRED";
