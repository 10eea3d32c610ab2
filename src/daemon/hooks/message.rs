//! What somebody is told: one event with the facts of its job, as JSON and as an environment.
//!
//! The form is public, version 1: members are added, never changed. It holds names, counts and
//! places, no prompt and no answer.

use serde::{Deserialize, Serialize};

use crate::config::Occasion;
use crate::engine::ids::Millis;
use crate::engine::job::{Delivery, Head, JobState, Refusal};
use crate::spool::{Folders, manifest, outbox};
use crate::view::{self, moment};

/// One event, as it is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// The version of this form: 1.
    pub version: u32,
    /// The same each time that this event is told: whoever has seen it can pass it over.
    pub id: String,
    /// What happened: a word of [`Occasion`].
    pub event: String,
    /// When it happened, RFC 3339.
    pub time: String,
    /// The same in words.
    pub text: String,
    /// The job it happened to.
    pub job: Option<JobFacts>,
    /// Where its results lie.
    pub outbox: Option<Outputs>,
    /// The version of the daemon.
    pub daemon: String,
}

/// What is to be known of a job.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobFacts {
    /// Its id.
    pub id: String,
    /// Its input, with the sub-folder it lay in.
    pub file: String,
    /// Its queue.
    pub queue: String,
    /// How it ended, as in the manifest; `null` while it has not.
    pub verdict: Option<String>,
    /// Its lines.
    pub lines: Option<u64>,
    /// Those with an answer.
    pub answered: Option<u64>,
    /// Those without.
    pub failed: Option<u64>,
    /// Of the answered ones, those answered from the cache.
    pub reused: Option<u64>,
    /// Tokens that were paid for.
    pub tokens: Option<u64>,
    /// A word for why it failed or is held.
    pub reason: Option<String>,
    /// What to do about it.
    pub remedy: Option<String>,
}

/// Where the results of a job lie, whole paths.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outputs {
    /// The answered lines, or the report for people.
    pub results: Option<String>,
    /// The failed lines.
    pub errors: Option<String>,
    /// The manifest, or the report as JSON.
    pub manifest: Option<String>,
}

impl Told {
    /// An event of the daemon as a whole.
    pub fn new(occasion: Occasion, id: String, now: Millis, text: String) -> Told {
        Told {
            version: 1,
            id,
            event: occasion.word().to_owned(),
            time: moment(now),
            text,
            job: None,
            outbox: None,
            daemon: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }

    /// The same, of a job.
    pub fn of(self, head: &Head) -> Told {
        let mut facts = JobFacts {
            id: head.id.to_string(),
            file: view::file_of(&head.source),
            queue: head.queue.name.clone(),
            ..JobFacts::default()
        };
        match &head.state {
            JobState::Delivering(delivery)
            | JobState::Cleaning(delivery)
            | JobState::Done(delivery) => facts.add_delivery(delivery),
            JobState::Refusing(why)
            | JobState::Failed(why)
            | JobState::Holding(why)
            | JobState::Held(why) => facts.add_refusal(why),
            JobState::Claiming
            | JobState::Planning
            | JobState::Active(_)
            | JobState::Merging(_) => {}
        }
        Told { job: Some(facts), ..self }
    }

    /// The same, with where the results of a delivered job lie.
    pub fn with_outputs(self, folders: &Folders, head: &Head, delivery: &Delivery) -> Told {
        let mut folder = folders.outbox.clone();
        folder.extend(head.source.folder.split('/').filter(|part| !part.is_empty()));
        let (errors, manifest) = outbox::errors_and_manifest(&folder, &delivery.stem);
        let results = folder.join(format!("{}.results.jsonl", delivery.stem));
        let path = |path: std::path::PathBuf| Some(path.display().to_string());
        let outputs = Outputs {
            results: path(results),
            errors: path(errors).filter(|_| delivery.tally.failed > 0),
            manifest: path(manifest),
        };
        Told { outbox: Some(outputs), ..self }
    }

    /// The same, with where a report lies: for people, and as JSON.
    pub fn with_report(self, folders: &Folders, stem: &str) -> Told {
        let path = |ending: &str| {
            let path = folders.outbox.join("reports").join(format!("{stem}.{ending}"));
            Some(path.display().to_string())
        };
        let outputs = Outputs { results: path("md"), errors: None, manifest: path("json") };
        Told { outbox: Some(outputs), ..self }
    }

    /// The event as JSON, on one line.
    pub fn json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("texts and numbers always make JSON")
    }

    /// The facts as environment variables; those that nothing is known of are left out.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        let mut all = vec![
            ("GEMINI_BATCHD_EVENT", Some(self.event.clone())),
            ("GEMINI_BATCHD_ID", Some(self.id.clone())),
            ("GEMINI_BATCHD_TIME", Some(self.time.clone())),
            ("GEMINI_BATCHD_TEXT", Some(self.text.clone())),
        ];
        if let Some(job) = self.job.clone() {
            let number = |count: Option<u64>| count.map(|count| count.to_string());
            all.extend([
                ("GEMINI_BATCHD_JOB", Some(job.id)),
                ("GEMINI_BATCHD_FILE", Some(job.file)),
                ("GEMINI_BATCHD_QUEUE", Some(job.queue)),
                ("GEMINI_BATCHD_VERDICT", job.verdict),
                ("GEMINI_BATCHD_LINES", number(job.lines)),
                ("GEMINI_BATCHD_ANSWERED", number(job.answered)),
                ("GEMINI_BATCHD_FAILED", number(job.failed)),
                ("GEMINI_BATCHD_REASON", job.reason),
            ]);
        }
        if let Some(outputs) = self.outbox.clone() {
            all.extend([
                ("GEMINI_BATCHD_OUTBOX_RESULTS", outputs.results),
                ("GEMINI_BATCHD_OUTBOX_ERRORS", outputs.errors),
                ("GEMINI_BATCHD_OUTBOX_MANIFEST", outputs.manifest),
            ]);
        }
        // Texts of others can hold what no variable can.
        let plain = |text: String| text.replace('\0', "\u{FFFD}");
        all.into_iter().filter_map(|(name, value)| Some((name, plain(value?)))).collect()
    }
}

impl JobFacts {
    /// Of a job that never was.
    pub fn example() -> JobFacts {
        JobFacts {
            id: "01JD0000000000000000000000".to_owned(),
            file: "example.jsonl".to_owned(),
            queue: "default".to_owned(),
            verdict: Some("partial".to_owned()),
            lines: Some(1000),
            answered: Some(997),
            failed: Some(3),
            reused: Some(0),
            tokens: Some(48_120),
            ..JobFacts::default()
        }
    }

    fn add_delivery(&mut self, delivery: &Delivery) {
        let tally = &delivery.tally;
        self.verdict = Some(manifest::verdict(delivery).as_str().to_owned());
        self.lines = Some(tally.answered + tally.failed);
        self.answered = Some(tally.answered);
        self.failed = Some(tally.failed);
        self.reused = Some(delivery.plan.reused);
        self.tokens = Some(tally.tokens.total);
    }

    fn add_refusal(&mut self, refusal: &Refusal) {
        self.reason = Some(refusal.reason.clone());
        self.remedy = Some(refusal.remedy.clone());
    }
}
