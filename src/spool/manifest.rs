//! The manifest of a delivered job: its presence in the outbox means complete.
//!
//! Fields and their order are part of the contract with users. It is made from the job's record
//! alone, so the same record gives the same bytes.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::engine::budget::spent_for;
use crate::engine::ids::Millis;
use crate::engine::job::{BatchRecord, Chunk, Delivery, Input, Job, MediaTally};
use crate::engine::rescue;

/// How a job ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum JobVerdict {
    /// Every line is answered.
    Complete,
    /// Some lines failed.
    Partial,
    /// No line is answered.
    Failed,
    /// Stopped by an operator with lines unanswered.
    Cancelled,
}

impl JobVerdict {
    /// The word in the manifest.
    pub fn as_str(self) -> &'static str {
        match self {
            JobVerdict::Complete => "complete",
            JobVerdict::Partial => "partial",
            JobVerdict::Failed => "failed",
            JobVerdict::Cancelled => "cancelled",
        }
    }
}

/// How the job of a delivery ended.
pub fn verdict(delivery: &Delivery) -> JobVerdict {
    match (delivery.tally.failed, delivery.tally.answered) {
        (0, _) => JobVerdict::Complete,
        (_, _) if delivery.plan.cancelled => JobVerdict::Cancelled,
        (_, 0) => JobVerdict::Failed,
        (_, _) => JobVerdict::Partial,
    }
}

/// The manifest's bytes: indented JSON and a newline.
pub fn manifest(job: &Job, delivery: &Delivery, daemon_version: &str) -> Vec<u8> {
    let Delivery { plan, tally, .. } = delivery;
    let mut batches: Vec<(&Chunk, &BatchRecord)> = job
        .chunks
        .values()
        .flat_map(|chunk| chunk.batches.iter().map(move |batch| (chunk, batch)))
        .collect();
    batches.sort_by_key(|(chunk, batch)| (batch.created, chunk.no, batch.attempt));
    let model = format!("models/{}", job.head.queue.model);
    let mut warnings = plan.warnings.clone();
    let wanted = job.head.queue.moments.deliver_by;
    let promise = plan.promise.as_deref().cloned().unwrap_or_default();
    if tally.media.unreadable > 0 {
        warnings.push(format!(
            "inline data in {} places could not be read and stays in the results as it came",
            tally.media.unreadable
        ));
    }
    if tally.unweighed > 0 {
        warnings.push(format!(
            "{} batches were asked to stop, did not end, and were left to themselves; what they \
             answer after all is paid for, too",
            tally.unweighed
        ));
    }
    if let Some(why) = rescue::not_for(&job.head).filter(|_| wanted.is_some()) {
        warnings.push(why.to_owned());
    }
    let manifest = Manifest {
        version: 1,
        job: job.head.id.as_str(),
        input: InputFile {
            name: &job.head.source.name,
            queue: &job.head.queue.name,
            bytes: plan.bytes,
            sha256: &plan.sha256,
        },
        verdict: verdict(delivery),
        lines: tally.answered + tally.failed,
        answered: tally.answered,
        failed: tally.failed,
        truncated: tally.truncated,
        raised: tally.raised,
        reused: plan.reused,
        failures: &tally.failures,
        tokens: TokenCounts {
            prompt: tally.tokens.prompt,
            output: tally.tokens.output,
            thinking: tally.tokens.thinking,
            cached: tally.tokens.cached,
            total: tally.tokens.total,
        },
        media: (tally.media != MediaTally::default())
            .then_some(MediaCounts { files: tally.media.files, bytes: tally.media.bytes }),
        canary: plan.canary.as_ref().map(|canary| Canary { lines: canary.lines, bad: canary.bad }),
        cost: job.head.funds.as_ref().map(|funds| Cost {
            currency: &funds.currency,
            amount: spent_for(job).0.to_string(),
            estimated: funds.likely.told(),
        }),
        deliver_by: wanted.map(time),
        in_time: wanted.map(|by| delivery.delivered <= by),
        rescued: (promise.rescue.is_some()).then_some(RescuedCounts {
            flex: promise.flex,
            standard: promise.standard,
            uncertain: promise.uncertain,
        }),
        wasted: promise.wasted + tally.wasted,
        batches: batches.into_iter().map(|(chunk, batch)| entry(chunk, batch, &model)).collect(),
        warnings,
        times: Times {
            claimed: time(job.head.claimed),
            planned: time(plan.planned),
            first_create: plan.first_create.map(time),
            last_result: plan.last_result.map(time),
            delivered: time(delivery.delivered),
        },
        daemon: daemon_version,
    };
    let mut bytes = serde_json::to_vec_pretty(&manifest)
        .expect("strings, numbers and maps with string keys always make JSON");
    bytes.push(b'\n');
    bytes
}

fn entry<'a>(chunk: &Chunk, batch: &'a BatchRecord, model: &'a str) -> Batch<'a> {
    Batch {
        name: &batch.name.0,
        chunk: chunk.no.0,
        attempt: batch.attempt.0,
        model,
        state: format!("BATCH_STATE_{}", batch.state.as_str()),
        lines: batch.lines,
        answered: batch.answered,
        created: time(batch.created),
        ended: time(batch.ended),
        adopted: batch.adopted,
        input: match batch.input {
            Input::Inline => "inline",
            Input::File(_) => "file",
        },
        error: batch
            .error
            .as_ref()
            .map(|error| BatchError { code: error.code, message: &error.message }),
    }
}

/// RFC 3339 in UTC.
fn time(at: Millis) -> String {
    let at = i64::try_from(at.0).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    at.unwrap_or(jiff::Timestamp::MAX).to_string()
}

#[derive(Serialize)]
struct Manifest<'a> {
    version: u32,
    job: &'a str,
    input: InputFile<'a>,
    verdict: JobVerdict,
    lines: u64,
    answered: u64,
    failed: u64,
    truncated: u64,
    #[serde(skip_serializing_if = "is_none")]
    raised: u64,
    #[serde(skip_serializing_if = "is_none")]
    reused: u64,
    failures: &'a BTreeMap<String, u64>,
    tokens: TokenCounts,
    #[serde(skip_serializing_if = "Option::is_none")]
    media: Option<MediaCounts>,
    #[serde(skip_serializing_if = "Option::is_none")]
    canary: Option<Canary>,
    /// `null` unless the model had a price.
    cost: Option<Cost<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deliver_by: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    in_time: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rescued: Option<RescuedCounts>,
    #[serde(skip_serializing_if = "is_none")]
    wasted: u64,
    batches: Vec<Batch<'a>>,
    warnings: Vec<String>,
    times: Times,
    daemon: &'a str,
}

#[derive(Serialize)]
struct InputFile<'a> {
    name: &'a str,
    queue: &'a str,
    bytes: u64,
    sha256: &'a str,
}

#[derive(Serialize)]
struct Canary {
    lines: u64,
    /// `null` if the job was given up before it was judged.
    bad: Option<u64>,
}

#[derive(Serialize)]
struct TokenCounts {
    prompt: u64,
    output: u64,
    thinking: u64,
    cached: u64,
    total: u64,
}

/// Lines that were asked one by one.
#[derive(Serialize)]
struct RescuedCounts {
    flex: u64,
    standard: u64,
    uncertain: u64,
}

/// Amounts as decimals in text, so that nobody rounds them.
#[derive(Serialize)]
struct Cost<'a> {
    currency: &'a str,
    amount: String,
    estimated: String,
}

#[derive(Serialize)]
struct MediaCounts {
    files: u64,
    bytes: u64,
}

fn is_none(count: &u64) -> bool {
    *count == 0
}

#[derive(Serialize)]
struct Batch<'a> {
    name: &'a str,
    chunk: u32,
    attempt: u16,
    model: &'a str,
    state: String,
    lines: u64,
    answered: u64,
    created: String,
    ended: String,
    adopted: bool,
    input: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<BatchError<'a>>,
}

#[derive(Serialize)]
struct BatchError<'a> {
    code: i32,
    message: &'a str,
}

#[derive(Serialize)]
struct Times {
    claimed: String,
    planned: String,
    first_create: Option<String>,
    last_result: Option<String>,
    delivered: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::job::{Plan, Tally};

    fn delivery(answered: u64, failed: u64, cancelled: bool) -> Delivery {
        Delivery {
            plan: Plan {
                rows: answered + failed,
                invalid: 0,
                bytes: 0,
                sha256: String::new(),
                planned: Millis(0),
                first_create: None,
                last_result: None,
                cancelled,
                family: Default::default(),
                warnings: Vec::new(),
                ..Plan::default()
            },
            tally: Tally { answered, failed, ..Tally::default() },
            stem: "a".to_owned(),
            delivered: Millis(0),
        }
    }

    #[test]
    fn the_verdict_follows_the_lines_and_the_operator() {
        assert_eq!(verdict(&delivery(3, 0, false)), JobVerdict::Complete);
        assert_eq!(verdict(&delivery(3, 0, true)), JobVerdict::Complete);
        assert_eq!(verdict(&delivery(2, 1, false)), JobVerdict::Partial);
        assert_eq!(verdict(&delivery(0, 3, false)), JobVerdict::Failed);
        assert_eq!(verdict(&delivery(0, 3, true)), JobVerdict::Cancelled);
        assert_eq!(verdict(&delivery(2, 1, true)), JobVerdict::Cancelled);
    }

    #[test]
    fn times_are_rfc_3339_in_utc_whatever_the_record_says() {
        assert_eq!(time(Millis(1_795_226_401_000)), "2026-11-21T02:00:01Z");
        assert_eq!(time(Millis(1_795_226_401_250)), "2026-11-21T02:00:01.25Z");
        assert!(time(Millis(u64::MAX)).starts_with("9999-"));
    }
}
