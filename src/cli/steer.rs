//! `cancel` and `release`: what an operator asks of a running job.

use std::io::Write;

use clap::Args;

use crate::telemetry::escaped;

use super::{ExitCode, Failure, Globals, print_json, runtime, status};

/// The verb `cancel`.
#[derive(Debug, Args)]
pub struct Cancel {
    /// The job's id, or the first characters of it (at least 4)
    pub job: String,
}

/// The verb `release`.
#[derive(Debug, Args)]
pub struct Release {
    /// The job's id, or the first characters of it (at least 4)
    pub job: String,
}

impl Cancel {
    /// Runs the verb.
    ///
    /// # Errors
    /// If no daemon is running, the job is not known, or it is over already.
    pub fn run(&self, globals: &Globals, out: &mut dyn Write) -> Result<ExitCode, Failure> {
        let says = "is being cancelled; what is answered already will be in the outbox";
        ask("cancel", &self.job, says, globals, out)
    }
}

impl Release {
    /// Runs the verb.
    ///
    /// # Errors
    /// If no daemon is running, the job is not known, or it does not wait for anybody.
    pub fn run(&self, globals: &Globals, out: &mut dyn Write) -> Result<ExitCode, Failure> {
        ask("release", &self.job, "goes on", globals, out)
    }
}

fn ask(
    verb: &str,
    job: &str,
    says: &str,
    globals: &Globals,
    out: &mut dyn Write,
) -> Result<ExitCode, Failure> {
    let client = status::connect(&globals.load()?)?;
    let view = runtime()?.block_on(client.command(verb, job))?;
    if globals.json {
        print_json(out, &serde_json::json!({"job": view.id, "file": view.file, "asked": verb}))?;
    } else {
        writeln!(out, "{} ({}) {says}", view.id, escaped(&view.file))?;
    }
    Ok(ExitCode::Complete)
}
