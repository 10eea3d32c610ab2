//! The command line: one file for each verb.
//!
//! Results go to standard output, logs and errors to standard error. A reader that goes away
//! (`| head`) ends the verb quietly. How a verb ended is its exit code; see [`ExitCode`].

pub mod adopt;
pub mod completions;
pub mod config;
pub mod deadlines;
pub mod demo;
pub mod doctor;
pub mod dropping;
pub mod emulate;
pub mod events;
pub mod exit;
pub mod explain;
pub mod figures;
pub mod findings;
pub mod hooks;
pub mod jobs_told;
pub mod lint;
pub mod list;
pub mod mending;
mod money;
pub mod owner;
pub mod plan;
pub mod preview;
pub mod progress;
pub mod records;
pub mod remote;
pub mod report;
pub mod run;
pub mod schedule;
pub mod show;
pub mod status;
pub mod steer;
pub mod submit;
pub mod take_over;
pub mod waiting;
pub mod watch;

use std::io::{self, Write};
use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};

use crate::config::{Config, Environment, Flags};
use crate::telemetry::{self, LogOptions};

pub use exit::{ExitCode, Failure};

/// Drop JSONL files into a folder; get every request in them answered through Google's Gemini
/// Batch API.
#[derive(Debug, Parser)]
#[command(name = "gemini-batchd", version, max_term_width = 100)]
#[command(after_help = EXIT_CODES)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
    /// What every verb takes.
    #[command(flatten)]
    pub globals: Globals,
}

/// What every verb takes.
#[derive(Debug, Clone, Default, Args)]
pub struct Globals {
    /// The configuration file [default: the first that exists of ./gemini-batchd.toml,
    /// $XDG_CONFIG_HOME/gemini-batchd/gemini-batchd.toml, /etc/gemini-batchd/gemini-batchd.toml]
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The folder that holds inbox, outbox and the rest
    #[arg(long, global = true, value_name = "DIR")]
    pub spool: Option<PathBuf>,
    /// Print JSON instead of text
    #[arg(long, global = true)]
    pub json: bool,
    /// How log lines look
    #[arg(long, global = true, value_name = "FORMAT", default_value = "text")]
    pub log_format: LogFormat,
    /// Which log lines are written: error, warn, info, debug, trace, or a filter as in RUST_LOG
    #[arg(long, global = true, value_name = "LEVEL")]
    pub log_level: Option<String>,
    /// Write more log lines (-vv: still more)
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub verbose: u8,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people, or for the journal where it reads along
    #[default]
    Text,
    /// One JSON object a line
    Json,
}

/// What can be done.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Run the daemon: watch the inbox, answer every file, until it is stopped
    Run(run::Run),
    /// Answer what is in the inbox and under way, then end with the code of the worst job
    Once(run::Once),
    /// Put files into the inbox, whole or not at all
    Submit(submit::Submit),
    /// Show what the daemon is doing
    Status(status::Status),
    /// List jobs, all of them or some
    List(list::List),
    /// Show everything about one job: why it is not finished, what failed, what it cost
    Show(show::Show),
    /// Show what happened, and go on with what happens
    Events(events::Events),
    /// Show what comes next: windows, deadlines, the report, housekeeping
    Schedule(schedule::Schedule),
    /// Show what came of the last night: files, lines, failures, tokens, what waits for you
    Report(report::Report),
    /// Check every line of a file; send nothing
    Lint(lint::Lint),
    /// Show the batches a file would become; send nothing
    Plan(plan::Plan),
    /// Stop jobs: collect what is answered, fail the rest
    Cancel(steer::Jobs),
    /// Try again what failed: failed lines of jobs that are over, or what waits after an error
    Retry(steer::Jobs),
    /// Send nothing new of jobs until they are released
    Hold(steer::Jobs),
    /// Let jobs go on that are on hold or wait for you
    Release(steer::Jobs),
    /// Forget the records of jobs that are over; their files stay
    Delete(steer::Jobs),
    /// Take in and send nothing new, of one queue or at all; this outlives a restart
    Pause(steer::Queue),
    /// Take back a pause or a drain
    Resume(steer::Queue),
    /// Take in nothing new, finish what was taken in, then end the daemon
    Drain(steer::Drain),
    /// Check, show, or give an example of the configuration
    Config(config::ConfigVerb),
    /// Write all records of jobs as JSON Lines; the daemon must not run
    Export(records::Export),
    /// Take records back that `export` wrote; the daemon must not run
    Import(records::Import),
    /// Use a spool on this machine that came from another one; the daemon must not run
    TakeOver(take_over::TakeOver),
    /// Make jobs anew whose records are gone; the daemon must not run
    Adopt(adopt::Adopt),
    /// See and handle batches and files at the API; works without the daemon
    Remote(remote::Remote),
    /// Check configuration, keys, folders, disks and service; change nothing
    Doctor(doctor::Doctor),
    /// Try out who is told what happened
    Hooks(hooks::Hooks),
    /// See it all work on this machine, without a key or a network
    Demo(demo::Demo),
    /// Run a local Gemini Batch API, for rehearsals and tests
    Emulate(emulate::Emulate),
    /// Write the completions for a shell
    Completions(completions::Completions),
    /// Write the manual page, or that of one verb
    Man(completions::Man),
}

/// Runs the command line of this process and gives the exit code.
pub fn main() -> std::process::ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version come this way too, to standard output and with code 0.
            drop(error.print());
            return u8::try_from(error.exit_code()).unwrap_or(1).into();
        }
    };
    let mut out = io::stdout().lock();
    let code = match cli.run(&mut out).and_then(|code| Ok(out.flush().map(|()| code)?)) {
        Ok(code) => code,
        Err(failure) if failure.is_broken_pipe() => ExitCode::Complete,
        Err(failure) => {
            // When standard error is gone too, there is nobody left to tell.
            if telemetry::flush() {
                drop(writeln!(io::stderr(), "{failure}"));
            }
            failure.code
        }
    };
    telemetry::flush();
    code.into()
}

impl Cli {
    fn run(&self, out: &mut dyn Write) -> Result<ExitCode, Failure> {
        // The scheduler below the daemon is talkative; what it says is of no use to anyone here.
        let daemon = matches!(self.verb, Verb::Run(_));
        let level = if daemon { "gemini_batchd=info,warn" } else { "warn" };
        self.globals.start_logging(level)?;
        match &self.verb {
            Verb::Run(run) => run.run(&self.globals),
            Verb::Once(once) => once.run(&self.globals, out),
            Verb::Submit(submit) => submit.run(&self.globals, out),
            Verb::Status(status) => status.run(&self.globals, out),
            Verb::List(list) => list.run(&self.globals, out),
            Verb::Show(show) => show.run(&self.globals, out),
            Verb::Events(events) => events.run(&self.globals, out),
            Verb::Schedule(schedule) => schedule.run(&self.globals, out),
            Verb::Report(report) => report.run(&self.globals, out),
            Verb::Cancel(jobs) => jobs.ask("cancel", &self.globals, out),
            Verb::Retry(jobs) => jobs.ask("retry", &self.globals, out),
            Verb::Hold(jobs) => jobs.ask("hold", &self.globals, out),
            Verb::Release(jobs) => jobs.ask("release", &self.globals, out),
            Verb::Delete(jobs) => jobs.ask("delete", &self.globals, out),
            Verb::Pause(queue) => queue.ask("pause", &self.globals, out),
            Verb::Resume(queue) => queue.ask("resume", &self.globals, out),
            Verb::Drain(drain) => drain.run(&self.globals, out),
            Verb::Config(verb) => verb.run(&self.globals, out),
            Verb::Lint(lint) => lint.run(&self.globals, out),
            Verb::Plan(plan) => plan.run(&self.globals, out),
            Verb::Export(export) => export.run(&self.globals, out),
            Verb::Import(import) => import.run(&self.globals, out),
            Verb::TakeOver(verb) => verb.run(&self.globals, out),
            Verb::Adopt(adopt) => adopt.run(&self.globals, out),
            Verb::Remote(remote) => remote.run(&self.globals, out),
            Verb::Doctor(doctor) => doctor.run(&self.globals, out),
            Verb::Hooks(hooks) => hooks.run(&self.globals, out),
            Verb::Demo(demo) => demo.run(&self.globals, out),
            Verb::Emulate(emulate) => emulate.run(&self.globals, out),
            Verb::Completions(completions) => completions.run(out),
            Verb::Man(man) => man.run(out),
        }
    }
}

impl Globals {
    /// Reads the configuration with these flags.
    ///
    /// # Errors
    /// With every problem, exit code 10.
    pub fn load(&self) -> Result<Config, Failure> {
        let (flags, environment) = self.sources()?;
        Ok(Config::load(&flags, &environment)?)
    }

    /// Where the configuration comes from.
    ///
    /// # Errors
    /// If the current folder can not be told.
    pub fn sources(&self) -> Result<(Flags, Environment), Failure> {
        let environment = Environment::of_process().map_err(|error| {
            Failure::from(error).leading_to("the current folder cannot be told")
        })?;
        Ok((Flags { config: self.config.clone(), spool: self.spool.clone() }, environment))
    }

    /// Sets up logging; `default_level` is what a verb writes unasked.
    ///
    /// # Errors
    /// If the level is not understood: exit code 2.
    pub fn start_logging(&self, default_level: &'static str) -> Result<(), Failure> {
        let default_level = match self.verbose {
            0 => default_level,
            1 => "gemini_batchd=debug,warn",
            2.. => "trace",
        };
        let json = self.log_format == LogFormat::Json;
        let options = LogOptions { json, level: self.log_level.clone(), default_level };
        telemetry::init(&options).map_err(|error| Failure::usage(error.to_string()))
    }
}

/// A small runtime for verbs that only ask the daemon something.
///
/// # Errors
/// If the system refuses one.
pub fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

/// Prints a value as JSON, indented, with a newline.
///
/// # Errors
/// As the writer's.
pub fn print_json(out: &mut dyn Write, value: &impl serde::Serialize) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, value)?;
    writeln!(out)
}

const EXIT_CODES: &str = "\
Exit codes: 0 all answered, 1 failed, 2 usage, 3 partial, 4 nothing to do, 10 configuration,
11 spool locked by another daemon, 12 credentials, 13 held, 14 disk full, 130 interrupted.";

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn global_flags_go_before_and_after_the_verb() {
        for line in [
            ["gemini-batchd", "--spool", "x", "status", "--json"],
            ["gemini-batchd", "--json", "status", "--spool", "x"],
        ] {
            let cli = Cli::try_parse_from(line).expect("understood");
            assert!(cli.globals.json);
            assert_eq!(cli.globals.spool, Some(PathBuf::from("x")));
        }
    }
}
