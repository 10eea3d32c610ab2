//! `status`: what the daemon is doing, as it says itself.

use std::io::{self, Write};

use clap::Args;
use rustix::fs::statvfs;

use crate::config::Config;
use crate::control::{Client, ClientError};
use crate::store::DaemonStore;
use crate::telemetry::escaped;
use crate::view::JobView;

use super::figures::{Line, Look};
use super::jobs_told::{details, overview};
use super::{ExitCode, Failure, Globals, print_json, runtime, watch};

/// The verb.
#[derive(Debug, Args)]
pub struct Status {
    /// One job: its id, or the first characters of it (at least 4)
    pub job: Option<String>,
    /// Keep showing it on this terminal until q or Ctrl-C
    #[arg(long)]
    pub watch: bool,
}

impl Status {
    /// Runs the verb.
    ///
    /// # Errors
    /// If no daemon is running, the job is not known, or there is no terminal to watch it on.
    pub fn run(&self, globals: &Globals, out: &mut dyn Write) -> Result<ExitCode, Failure> {
        let config = globals.load()?;
        if self.watch {
            return watch::watch(&config, self.job.as_deref(), globals.json);
        }
        let client = reach(&config)?;
        let runtime = runtime()?;
        let look = Look::of_stdout();
        match &self.job {
            None => {
                let snapshot = runtime.block_on(client.status())?;
                if globals.json {
                    print_json(out, &snapshot)?;
                } else {
                    print(&overview(&snapshot, &look), &look, out)?;
                }
            }
            Some(prefix) => {
                let job = runtime.block_on(client.job(prefix))?;
                if globals.json {
                    print_json(out, &job)?;
                } else {
                    print(&details(&job, &look), &look, out)?;
                }
            }
        }
        Ok(ExitCode::Complete)
    }
}

/// Writes lines as they fit.
///
/// # Errors
/// As the writer's.
pub fn print(lines: &[Line], look: &Look, out: &mut dyn Write) -> io::Result<()> {
    lines.iter().try_for_each(|line| writeln!(out, "{}", line.shown(look)))
}

/// The daemon of this configuration, for a verb that can not do without it.
///
/// # Errors
/// If none is running, or its socket may not be opened; with what to do.
pub fn reach(config: &Config) -> Result<Client, Failure> {
    connect(config).map_err(|error| explain(error, config))
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

/// Where the unit that comes with this program has its socket.
const SYSTEM_SOCKET: &str = "/run/gemini-batchd/gemini-batchd.sock";
