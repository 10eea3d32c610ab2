//! What an operator asks of a running daemon: `cancel`, `release`, `hold`, `retry` and `delete` for
//! jobs, `pause` and `resume` for queues or for all of them, and `drain`.
//!
//! Of several jobs each is asked for by itself. What is refused is told on standard error, the
//! others are done all the same, and the exit code is 1.

use std::io::Write;

use clap::Args;
use serde_json::json;

use crate::control::{Client, ClientError};
use crate::telemetry::escaped;

use super::{ExitCode, Failure, Globals, print_json, runtime, status};

/// Jobs that something is to be done with.
#[derive(Debug, Args)]
pub struct Jobs {
    /// The jobs' ids, or the first characters of them (at least 4)
    #[arg(required = true, value_name = "JOB")]
    pub jobs: Vec<String>,
}

/// A queue, or the whole daemon.
#[derive(Debug, Args)]
pub struct Queue {
    /// The queue; all of them if none is given
    #[arg(value_name = "QUEUE")]
    pub queue: Option<String>,
}

/// The verb `drain`.
#[derive(Debug, Args)]
pub struct Drain {}

impl Jobs {
    /// Asks the same for all of them; `verb` is one that the daemon knows for jobs.
    ///
    /// # Errors
    /// If no daemon is running, or something is refused for one of them: it is told last.
    pub fn ask(
        &self,
        verb: &str,
        globals: &Globals,
        out: &mut dyn Write,
    ) -> Result<ExitCode, Failure> {
        let client = status::connect(&globals.load()?)?;
        let runtime = runtime()?;
        let (mut done, mut refused) = (Vec::new(), Vec::new());
        for job in &self.jobs {
            match runtime.block_on(client.command(verb, job)) {
                Ok(told) if globals.json => {
                    let (id, file, said) = (told.job.id, told.job.file, told.said);
                    done.push(json!({"job": id, "file": file, "said": said}));
                }
                Ok(told) => {
                    writeln!(
                        out,
                        "{} ({}) {}",
                        told.job.id,
                        escaped(&told.job.file),
                        escaped(&told.said)
                    )?;
                }
                Err(ClientError::Refused(why)) => refused.push((job, why)),
                Err(error) => return Err(error.into()),
            }
        }
        if globals.json {
            let refused: Vec<_> =
                refused.iter().map(|(job, why)| json!({"job": job, "message": why})).collect();
            print_json(
                out,
                &json!({"version": 1, "asked": verb, "done": done, "refused": refused}),
            )?;
        }
        all_or_failure(refused.into_iter().map(|(_, why)| why).collect())
    }
}

impl Queue {
    /// Pauses or resumes: `verb` is the one or the other.
    ///
    /// # Errors
    /// If no daemon is running, there is no such queue, or it makes no sense.
    pub fn ask(
        &self,
        verb: &str,
        globals: &Globals,
        out: &mut dyn Write,
    ) -> Result<ExitCode, Failure> {
        steer(verb, self.queue.as_deref(), globals, out)
    }
}

impl Drain {
    /// Runs the verb.
    ///
    /// # Errors
    /// If no daemon is running.
    pub fn run(&self, globals: &Globals, out: &mut dyn Write) -> Result<ExitCode, Failure> {
        steer("drain", None, globals, out)
    }
}

fn steer(
    verb: &str,
    queue: Option<&str>,
    globals: &Globals,
    out: &mut dyn Write,
) -> Result<ExitCode, Failure> {
    let client: Client = status::connect(&globals.load()?)?;
    let told = runtime()?.block_on(client.steer(verb, queue))?;
    if globals.json {
        let told = json!({"version": 1, "asked": verb, "queue": queue, "said": told.said});
        print_json(out, &told)?;
    } else {
        writeln!(out, "{}", escaped(&told.said))?;
    }
    Ok(ExitCode::Complete)
}

/// What was refused, one after the other, as one failure.
fn all_or_failure(refused: Vec<String>) -> Result<ExitCode, Failure> {
    if refused.is_empty() {
        return Ok(ExitCode::Complete);
    }
    let told: Vec<String> = refused.iter().map(|why| escaped(why)).collect();
    Err(Failure::new(ExitCode::Failed, anyhow::Error::msg(told.join("\nerror: "))))
}
