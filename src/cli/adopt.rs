//! `adopt`: jobs whose records are gone, made anew from what lies on the disk and at the API.

use std::collections::HashSet;
use std::io::Write;

use clap::Args;
use serde_json::{Value, json};

use crate::clock::{Clock, SystemClock};
use crate::config::Config;
use crate::daemon::clients::Clients;
use crate::daemon::rebuild::RebuildError;
use crate::daemon::rebuild::adopt::{
    Adopted, Adoption, Asked, Counts, Outcome, Stray, adopt, seen,
};
use crate::engine::JobId;
use crate::store::look::look;
use crate::store::{DaemonStore, JobStore, NOTE_QUARANTINED, instance, salt};
use crate::telemetry::escaped;
use crate::view::VERSION;

use super::remote::{refused, words};
use super::{ExitCode, Failure, Globals, owner, print_json, runtime};

/// The verb.
#[derive(Debug, Args)]
pub struct Adopt {
    /// Say what would be done; change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// The queue of inputs that nothing else tells it of
    #[arg(long, value_name = "NAME")]
    pub queue: Option<String>,
}

impl Adopt {
    /// Runs the verb.
    ///
    /// # Errors
    /// If a daemon is running (11), there is no usable key (12), or the API can not be asked: nothing
    /// is decided then.
    pub fn run(&self, globals: &Globals, out: &mut dyn Write) -> Result<ExitCode, Failure> {
        let config = globals.load()?;
        if let Some(name) = self.queue.as_deref().filter(|name| !config.queues.contains_key(*name))
        {
            let known: Vec<&str> = config.queues.keys().map(String::as_str).collect();
            let message = format!("there is no queue {name:?}; configured: {}", known.join(", "));
            return Err(Failure::usage(message));
        }
        Clients::check(&config)?;
        let adoption = if self.dry_run { self.rehearse(&config)? } else { self.act(&config)? };
        match globals.json {
            true => print_json(out, &as_json(&adoption, self.dry_run))?,
            false => tell(&adoption, self.dry_run, out)?,
        }
        Ok(code(&adoption))
    }

    fn act(&self, config: &Config) -> Result<Adoption, Failure> {
        let folders = &config.folders;
        owner::check(folders, "adopt")?;
        folders.prepare()?;
        instance::check(&folders.state)?;
        let opened = DaemonStore::open(&folders.state, DaemonStore::FREE_BYTES_MIN)?;
        let mut store = opened.store;
        let mut known = HashSet::new();
        store.each_job(&mut |job| {
            known.insert(job.head.id);
        })?;
        let clients = Clients::open(config, &salt::read_or_make(&folders.state)?)?;
        let adoption = self.adopt(config, &clients, &known, Some(&mut store))?;
        if opened.quarantined.is_some() {
            // What could be made good for has been.
            store.set_note(NOTE_QUARANTINED, "")?;
        }
        Ok(adoption)
    }

    fn rehearse(&self, config: &Config) -> Result<Adoption, Failure> {
        let state = &config.folders.state;
        let (mut known, mut known_salt) = (HashSet::new(), String::new());
        if state.is_dir() {
            instance::check(state)?;
            let whole = look(state)?.filter(|look| look.damaged.is_none());
            known = whole.map(|look| look.jobs).unwrap_or_default();
            known_salt = salt::read(state).unwrap_or_default();
        }
        let clients = Clients::open(config, &known_salt)?;
        self.adopt(config, &clients, &known, None)
    }

    fn adopt(
        &self,
        config: &Config,
        clients: &Clients,
        known: &HashSet<JobId>,
        store: Option<&mut dyn JobStore>,
    ) -> Result<Adoption, Failure> {
        let seen = runtime()?.block_on(seen::look(clients)).map_err(|failure| {
            refused(failure).leading_to("nothing was adopted: the API does not tell what it has")
        })?;
        let (keys, queue, now) = (clients.keys(), self.queue.as_deref(), SystemClock.now());
        Ok(adopt(&Asked { config, keys, queue, now }, known, &seen, store)?)
    }
}

/// What is left for a person decides; then whether there was anything at all.
fn code(adoption: &Adoption) -> ExitCode {
    let undecided = |job: &Adopted| matches!(job.outcome, Outcome::Undecided(_));
    if adoption.jobs.iter().any(undecided) {
        return ExitCode::Held;
    }
    match adoption.jobs.is_empty() && adoption.strays.is_empty() {
        true => ExitCode::NothingToDo,
        false => ExitCode::Complete,
    }
}

fn tell(adoption: &Adoption, dry_run: bool, out: &mut dyn Write) -> std::io::Result<()> {
    for job in &adoption.jobs {
        let file = job.file.as_deref().map_or_else(|| "(no input)".to_owned(), escaped);
        writeln!(out, "{}  {file}", job.id)?;
        match &job.outcome {
            Outcome::Mirrored(counts) => writeln!(out, "    as its mirror says: {}", told(counts))?,
            Outcome::Planned(counts) => writeln!(out, "    planned anew: {}", told(counts))?,
            Outcome::Plannable { found } => {
                writeln!(out, "    to be planned anew; {found} batches are at the API")?;
            }
            Outcome::Empty => writeln!(out, "    nothing was in it; removed")?,
            Outcome::Undecided(why) => {
                let told = format!("UNDECIDED, left as it is: {why}");
                words::wrapped("", 4, &told, out)?;
                let remedy = format!(
                    "try: `gemini-batchd remote list` shows its batches; its input lies in \
                     working/{}/input, to be dropped again, and paid for again, if need be",
                    job.id
                );
                words::wrapped("", 4, &remedy, out)?;
            }
        }
    }
    let (delivered, lost): (Vec<&Stray>, Vec<&Stray>) =
        adoption.strays.iter().partition(|stray| stray.manifest.is_some());
    if !delivered.is_empty() {
        writeln!(out, "{} batches are of jobs that were delivered:", delivered.len())?;
        delivered.iter().try_for_each(|stray| stray_line(stray, out))?;
    }
    if !lost.is_empty() {
        writeln!(out, "{} batches are of jobs that nothing here knows; fetch them:", lost.len())?;
        lost.iter().try_for_each(|stray| stray_line(stray, out))?;
    }
    let made = adoption.jobs.iter().filter(|job| {
        matches!(
            job.outcome,
            Outcome::Mirrored(_) | Outcome::Planned(_) | Outcome::Plannable { .. }
        )
    });
    match (made.count(), dry_run) {
        (0, _) => writeln!(out, "no job to adopt"),
        (count, true) => writeln!(out, "{count} jobs can be adopted; nothing was changed"),
        (count, false) => writeln!(out, "{count} jobs adopted; start the daemon"),
    }
}

fn told(counts: &Counts) -> String {
    format!(
        "{} chunks, {} batches under way, {} to be looked for",
        counts.chunks, counts.found, counts.doubted
    )
}

/// What can be done about a batch of nobody.
fn stray_line(stray: &Stray, out: &mut dyn Write) -> std::io::Result<()> {
    let (batch, name) = (&stray.batch, &stray.batch.remote.name.0);
    let (job, chunk, attempt) = (batch.job, batch.chunk, batch.attempt);
    writeln!(out, "  {name}")?;
    writeln!(out, "    {}", words::attempt((job, chunk, attempt)))?;
    match &stray.manifest {
        Some(path) => writeln!(out, "    {}", escaped(&path.display().to_string())),
        None => {
            let file = format!("{job}-c{}-a{}.jsonl", chunk.0, attempt.0);
            writeln!(out, "    gemini-batchd remote results {name} \\\n      -o {file}")
        }
    }
}

fn as_json(adoption: &Adoption, dry_run: bool) -> Value {
    let counts = |counts: &Counts| json!({"chunks": counts.chunks, "found": counts.found, "doubted": counts.doubted});
    let job = |job: &Adopted| {
        let (outcome, detail) = match &job.outcome {
            Outcome::Mirrored(found) => ("mirrored", counts(found)),
            Outcome::Planned(found) => ("planned", counts(found)),
            Outcome::Plannable { found } => ("plannable", json!({"found": found})),
            Outcome::Empty => ("empty", Value::Null),
            Outcome::Undecided(why) => ("undecided", json!({"why": why})),
        };
        json!({"job": job.id.to_string(), "file": job.file, "outcome": outcome, "detail": detail})
    };
    let stray = |stray: &Stray| {
        let batch = &stray.batch;
        json!({"name": batch.remote.name.0, "job": batch.job.to_string(), "chunk": batch.chunk.0,
            "attempt": batch.attempt.0, "state": batch.remote.state.as_str(),
            "manifest": stray.manifest.as_ref().map(|path| path.display().to_string())})
    };
    json!({
        "version": VERSION,
        "dry_run": dry_run,
        "jobs": adoption.jobs.iter().map(job).collect::<Vec<_>>(),
        "strays": adoption.strays.iter().map(stray).collect::<Vec<_>>(),
    })
}

impl From<RebuildError> for Failure {
    fn from(error: RebuildError) -> Failure {
        match error {
            RebuildError::Spool(error) => Failure::from(error),
            RebuildError::Store(error) => Failure::from(error),
        }
    }
}
