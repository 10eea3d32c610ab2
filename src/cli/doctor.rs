//! `doctor`: whether everything is as it must be, and what to do where it is not.
//!
//! Every check is a small function from what is known to findings; none of them changes anything
//! but files of its own, which it removes again, and none needs a daemon. What asks the API has a
//! time limit and can be left out.

pub mod api;
pub mod disk;
pub mod folders;
pub mod hooks;
pub mod service;

use std::io::{self, Write};
use std::time::Duration;

use clap::Args;
use serde_json::json;
use tokio::runtime::Runtime;

use crate::config::Config;
use crate::engine::event;
use crate::provider::gemini::Client;
use crate::view::VERSION;

use super::figures::{Line, Look, Tone};
use super::remote::{self, words};
use super::{ExitCode, Failure, Globals, print_json, runtime};

/// The verb.
#[derive(Debug, Args)]
pub struct Doctor {
    /// Leave out what asks the API
    #[arg(long)]
    pub offline: bool,
}

/// How good something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// As it should be.
    Ok,
    /// It works, but somebody should know.
    Warn,
    /// It does not work.
    Fail,
}

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What was checked, in a word.
    pub check: &'static str,
    /// How good it is.
    pub level: Level,
    /// What was found.
    pub text: String,
    /// What to do about it.
    pub remedy: Option<String>,
    /// The exit code that a failure leads to.
    pub code: ExitCode,
}

/// A check.
pub type Check = fn(&Context) -> Vec<Finding>;

/// What the checks know.
pub struct Context {
    /// The configuration.
    pub config: Config,
    /// Nobody is to ask the API.
    pub offline: bool,
    /// A client for each usable key, by the name of its credential.
    pub clients: Vec<(String, Client)>,
    runtime: Runtime,
}

impl Doctor {
    /// Runs the verb.
    ///
    /// # Errors
    /// If nothing can be printed. What is found wrong is no error but the exit code: 10 if it is
    /// the configuration, 12 if it is a key, else 1.
    pub fn run(&self, globals: &Globals, out: &mut dyn Write) -> Result<ExitCode, Failure> {
        let look = Look::of_stdout();
        let mut report = Report { json: globals.json, look, findings: Vec::new(), out };
        match globals.load() {
            Ok(config) => {
                let context = Context::new(config, self.offline)?;
                for check in CHECKS {
                    check(&context).into_iter().try_for_each(|finding| report.take(finding))?;
                }
            }
            Err(failure) => {
                let text = format!("{:#}", failure.error);
                let found = Finding::fail("configuration", text, failure.remedy);
                report.take(Finding { code: failure.code, ..found })?;
            }
        }
        Ok(report.end()?)
    }
}

impl Context {
    fn new(config: Config, offline: bool) -> Result<Context, Failure> {
        let with = |name: &str| Some((name.to_owned(), remote::client(&config, name).ok()?));
        let mut clients: Vec<(String, Client)> = Vec::new();
        if !offline {
            clients.extend(with(""));
            clients.extend(config.credentials.keys().filter_map(|name| with(name)));
        }
        Ok(Context { config, offline, clients, runtime: runtime()? })
    }

    /// The client for a credential, if its key can be used and the API may be asked.
    pub fn client(&self, credential: &str) -> Option<&Client> {
        self.clients.iter().find(|(name, _)| name == credential).map(|(_, client)| client)
    }

    /// Waits for an answer of the API, but not for long.
    ///
    /// # Errors
    /// As the call, or if the time is over.
    pub fn ask<T>(
        &self,
        call: impl Future<Output = Result<T, event::Failure>>,
    ) -> Result<T, event::Failure> {
        let answer = self.runtime.block_on(async { tokio::time::timeout(PATIENCE, call).await });
        answer.unwrap_or_else(|_| {
            let seconds = PATIENCE.as_secs();
            Err(event::Failure::Transient(format!("no answer within {seconds} s")))
        })
    }

    /// Waits for an answer of the daemon.
    pub fn block_on<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }
}

impl Finding {
    /// It is as it should be.
    pub fn ok(check: &'static str, text: impl Into<String>) -> Finding {
        let text = text.into();
        Finding { check, level: Level::Ok, text, remedy: None, code: ExitCode::Failed }
    }

    /// Somebody should know.
    pub fn warn(
        check: &'static str,
        text: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Finding {
        let remedy = Some(remedy.into());
        Finding { level: Level::Warn, remedy, ..Finding::ok(check, text) }
    }

    /// It does not work.
    pub fn fail(check: &'static str, text: impl Into<String>, remedy: Option<String>) -> Finding {
        Finding { level: Level::Fail, remedy, ..Finding::ok(check, text) }
    }
}

impl Level {
    fn tone(self) -> Tone {
        match self {
            Level::Ok => Tone::Good,
            Level::Warn => Tone::Warn,
            Level::Fail => Tone::Bad,
        }
    }

    /// As it is told.
    pub fn as_str(self) -> &'static str {
        match self {
            Level::Ok => "ok",
            Level::Warn => "warn",
            Level::Fail => "fail",
        }
    }
}

/// Findings that are told as they come.
struct Report<'a> {
    json: bool,
    look: Look,
    findings: Vec<Finding>,
    out: &'a mut dyn Write,
}

impl Report<'_> {
    fn take(&mut self, finding: Finding) -> io::Result<()> {
        if !self.json {
            let head = format!("{:<5} {:<14}", finding.level.as_str(), finding.check);
            let mut text = Vec::new();
            words::wrapped(&head, HEAD, &finding.text, &mut text)?;
            let (level, rest) = text.split_at(finding.level.as_str().len());
            let level = Line::of(finding.level.tone(), String::from_utf8_lossy(level));
            self.out.write_all(level.shown(&self.look).as_bytes())?;
            self.out.write_all(rest)?;
            if let Some(remedy) = &finding.remedy {
                words::wrapped("", HEAD, &format!("try: {remedy}"), self.out)?;
            }
            self.out.flush()?;
        }
        self.findings.push(finding);
        Ok(())
    }

    fn end(self) -> io::Result<ExitCode> {
        let count = |level| self.findings.iter().filter(|found| found.level == level).count();
        let (warnings, failures) = (count(Level::Warn), count(Level::Fail));
        let worst = self.findings.iter().map(|found| found.level).max().unwrap_or(Level::Ok);
        if self.json {
            let one = |found: &Finding| {
                json!({"check": found.check, "level": found.level.as_str(), "text": found.text,
                    "remedy": found.remedy})
            };
            let all: Vec<_> = self.findings.iter().map(one).collect();
            let said = json!({"version": VERSION, "worst": worst.as_str(), "findings": all});
            print_json(self.out, &said)?;
        } else {
            let told = |count, word| match count {
                1 => format!("1 {word}"),
                count => format!("{count} {word}s"),
            };
            match worst {
                Level::Ok => writeln!(self.out, "all is well")?,
                Level::Warn => writeln!(self.out, "it works, with {}", told(warnings, "warning"))?,
                Level::Fail => writeln!(
                    self.out,
                    "{}, {}",
                    told(failures, "failure"),
                    told(warnings, "warning")
                )?,
            }
        }
        let failed = self.findings.iter().filter(|found| found.level == Level::Fail);
        let codes = failed.map(|found| found.code);
        Ok(codes.reduce(ExitCode::worst).unwrap_or(ExitCode::Complete))
    }
}

/// All checks, in the order in which they are told.
const CHECKS: &[Check] = &[
    api::configuration,
    api::keys,
    api::clock,
    api::models,
    folders::places,
    folders::disks,
    folders::renames,
    folders::syncs,
    disk::room,
    disk::watching,
    disk::kinds,
    service::daemon,
    service::unit,
    service::records,
    service::left,
    hooks::hooks,
];

/// So long the API is waited for.
const PATIENCE: Duration = Duration::from_secs(20);
/// Where the texts begin.
const HEAD: usize = 21;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_shows_the_level_in_colour_and_nothing_else_changes() {
        let told = |colour| {
            let mut out = Vec::new();
            let look = Look { columns: None, colour };
            let mut report = Report { json: false, look, findings: Vec::new(), out: &mut out };
            report.take(Finding::warn("clock", "two minutes slow", "set it")).expect("written");
            String::from_utf8(out).expect("UTF-8")
        };
        let (plain, coloured) = (told(false), told(true));
        assert!(plain.starts_with("warn  clock          two minutes slow"), "{plain}");
        assert_eq!(coloured, plain.replacen("warn", "\u{1b}[33mwarn\u{1b}[0m", 1));
    }

    #[test]
    fn the_exit_code_is_that_of_the_worst_failure() {
        let end = |findings: Vec<Finding>| {
            let mut out = Vec::new();
            let look = Look { columns: None, colour: false };
            let report = Report { json: false, look, findings, out: &mut out };
            report.end().expect("written")
        };
        let fail = |code| Finding { code, ..Finding::fail("x", "y", None) };
        assert_eq!(end(vec![Finding::warn("x", "y", "z")]), ExitCode::Complete);
        assert_eq!(end(vec![fail(ExitCode::Failed)]), ExitCode::Failed);
        let both = vec![fail(ExitCode::Configuration), fail(ExitCode::Credentials)];
        assert_eq!(end(both), ExitCode::Configuration);
    }
}
