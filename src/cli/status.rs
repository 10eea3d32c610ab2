//! `status`: what the daemon is doing, as it says itself.

use std::io::{self, Write};

use clap::Args;
use rustix::fs::statvfs;

use crate::config::Config;
use crate::control::{Client, ClientError};
use crate::store::DaemonStore;
use crate::telemetry::escaped;
use crate::view::{JobView, Snapshot};

use super::{ExitCode, Failure, Globals, print_json, runtime};

/// The verb.
#[derive(Debug, Args)]
pub struct Status {
    /// One job: its id, or the first characters of it (at least 4)
    pub job: Option<String>,
}

impl Status {
    /// Runs the verb.
    ///
    /// # Errors
    /// If no daemon is running, or the job is not known.
    pub fn run(&self, globals: &Globals, out: &mut dyn Write) -> Result<ExitCode, Failure> {
        let config = globals.load()?;
        let client = connect(&config).map_err(|error| explain(error, &config))?;
        let runtime = runtime()?;
        match &self.job {
            None => {
                let snapshot = runtime.block_on(client.status())?;
                if globals.json {
                    print_json(out, &snapshot)?;
                } else {
                    overview(&snapshot, out)?;
                }
            }
            Some(prefix) => {
                let job = runtime.block_on(client.job(prefix))?;
                if globals.json {
                    print_json(out, &job)?;
                } else {
                    details(&job, out)?;
                }
            }
        }
        Ok(ExitCode::Complete)
    }
}

/// A daemon that is not running may have ended for want of room.
fn explain(error: ClientError, config: &Config) -> Failure {
    let state = &config.folders.state;
    let free = statvfs(state).map(|found| found.f_bavail.saturating_mul(found.f_frsize));
    let failure = Failure::from(error);
    match free {
        Ok(free) if free < DaemonStore::FREE_BYTES_MIN => failure.with_remedy(format!(
            "{} has only {free} bytes free, too little for a daemon: make room there; systemd then \
             starts it again, or start it with `gemini-batchd run`. Nothing is lost meanwhile",
            state.display()
        )),
        Ok(_) | Err(_) => failure,
    }
}

/// The daemon of this configuration. Where no socket is configured, one started by systemd is
/// looked for as well.
///
/// # Errors
/// If none is running, or its socket may not be opened.
pub fn connect(config: &Config) -> Result<Client, ClientError> {
    let control = &config.control;
    match Client::connect(&control.socket) {
        Err(ClientError::NotRunning { socket }) if !control.socket_was_set => {
            match Client::connect(SYSTEM_SOCKET.as_ref()) {
                Err(ClientError::NotRunning { .. }) => Err(ClientError::NotRunning { socket }),
                other => other,
            }
        }
        other => other,
    }
}

fn overview(snapshot: &Snapshot, out: &mut dyn Write) -> io::Result<()> {
    let health = &snapshot.health;
    writeln!(
        out,
        "gemini-batchd {}, process {}, since {}, watching by {}",
        health.daemon, health.pid, health.started, health.watching
    )?;
    writeln!(out, "inbox {}", escaped(&health.inbox))?;
    if let Some(why) = &health.paused {
        writeln!(out, "PAUSED: {}", escaped(why))?;
    }
    if let Some(why) = health.trouble.as_ref().filter(|why| health.paused.as_ref() != Some(why)) {
        writeln!(out, "TROUBLE: {}", escaped(why))?;
    }
    if snapshot.jobs.is_empty() {
        return writeln!(out, "no jobs; drop a .jsonl file into the inbox");
    }
    let counts: Vec<String> =
        snapshot.counts.iter().map(|(state, count)| format!("{count} {state}")).collect();
    writeln!(out, "jobs: {}\n", counts.join(", "))?;
    for job in &snapshot.jobs {
        line(job, out)?;
    }
    Ok(())
}

/// A job in one line, and in a second one why it failed or is held.
///
/// # Errors
/// If it can not be written.
pub fn line(job: &JobView, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "{}  {:<9}  {}  {}", job.id, job.state, escaped(&job.file), summary(job))?;
    match &job.reason {
        Some(reason) => writeln!(out, "    {}", escaped(reason)),
        None => Ok(()),
    }
}

/// Phase and lines of a job in a few words.
pub fn summary(job: &JobView) -> String {
    let lines = &job.lines;
    match (lines.total, lines.open) {
        (0, _) => job.phase.clone(),
        (total, 0) => {
            format!(
                "{}: {} of {total} answered, {} failed",
                job.phase, lines.answered, lines.failed
            )
        }
        (total, open) => format!(
            "{}: {} of {total} answered, {} failed, {open} open",
            job.phase, lines.answered, lines.failed
        ),
    }
}

fn details(job: &JobView, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "job      {}", job.id)?;
    writeln!(out, "file     {}", escaped(&job.file))?;
    writeln!(out, "queue    {}, model {}", escaped(&job.queue), job.model)?;
    writeln!(out, "state    {}: {}", job.state, summary(job))?;
    if let Some(reason) = &job.reason {
        writeln!(out, "reason   {}", escaped(reason))?;
    }
    if let Some(output) = &job.output {
        writeln!(out, "output   {}.results.jsonl in the outbox", escaped(output))?;
    }
    let times = &job.times;
    writeln!(out, "claimed  {}", times.claimed)?;
    for (word, time) in [
        ("planned ", &times.planned),
        ("created ", &times.first_create),
        ("results ", &times.last_result),
        ("done    ", &times.delivered),
    ] {
        if let Some(time) = time {
            writeln!(out, "{word} {time}")?;
        }
    }
    if job.batches_total > 0 {
        writeln!(out, "batches  {}", job.batches_total)?;
    }
    for batch in &job.batches {
        writeln!(
            out,
            "  {}  {}  {} lines  (chunk {}, attempt {})",
            escaped(&batch.name),
            escaped(&batch.state),
            batch.lines,
            batch.chunk,
            batch.attempt
        )?;
    }
    Ok(())
}

/// Where the unit that comes with this program has its socket.
const SYSTEM_SOCKET: &str = "/run/gemini-batchd/gemini-batchd.sock";
