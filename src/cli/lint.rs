//! `lint`: checks every line of a file and sends nothing.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Args;

use crate::config::Config;
use crate::daemon::perform::cut_rules;
use crate::engine::Row;
use crate::engine::job::{Queue, Refusal};
use crate::lint;
use crate::spool::index::{IndexReader, LineEntry, LineFate};
use crate::spool::lines::Piece;
use crate::spool::plan::{self, CutRules, PlanError, Planned, Told};
use crate::spool::prepare::{self, Recipe};
use crate::spool::problem::{self, Problem};
use crate::spool::source;
use crate::spool::{At, SpoolError};
use crate::telemetry::escaped;

use super::explain::settings_beside;
use super::findings::Report;
use super::{ExitCode, Failure, Globals, mending, print_json, progress};

/// The verb.
#[derive(Debug, Args)]
pub struct Lint {
    /// The file
    pub file: PathBuf,
    /// The queue whose settings count: a sub-folder of the inbox
    #[arg(long, value_name = "Q", default_value = "default")]
    pub queue: String,
    /// Show so many invalid lines at most
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub show: usize,
    /// Write a mended copy beside the file: NAME.mended.jsonl
    #[arg(long)]
    pub fix: bool,
}

/// A file that was read as the daemon would read it. Its indexes lie in a temporary folder.
pub struct Reading {
    read: Result<Planned, Refusal>,
    queue: Queue,
    rules: CutRules,
    /// What the indexes are about: the file, or what was prepared of it.
    requests: PathBuf,
    indexes: tempfile::TempDir,
}

impl Lint {
    /// Runs the verb: 0 if every line can be sent, 3 if some can not, 1 if the file can not be
    /// used. With `--fix` that is said of the mended copy, if there is one.
    ///
    /// # Errors
    /// If the file can not be read, or not be used at all.
    pub fn run(&self, globals: &Globals, out: &mut dyn Write) -> Result<ExitCode, Failure> {
        self.check_fix()?;
        let config = globals.load()?;
        let findings = RefCell::new(Findings::default());
        let (queue, rules) = settings(&self.file, &config, &self.queue)?;
        let on_row = |piece: &Piece<'_>, fate| findings.borrow_mut().row(piece, fate, &rules);
        let bar = progress::of_file(&self.file);
        let seen = |bytes| bar.set_position(bytes);
        let told = Told { progress: &seen, on_known: None, on_row: &on_row };
        let reading = Reading::told(&self.file, queue, rules.clone(), told)?;
        let mending = self.fix.then(|| mending::mend_file(&self.file, &rules, &seen)).transpose();
        bar.finish_and_clear();
        let Findings { report, reasons } = findings.into_inner();
        let told = Report {
            file: &self.file,
            fix: self.fix,
            read: &reading.read,
            problems: reading.problems(self.show)?,
            found: report,
            reasons,
            mending: match mending {
                Ok(mending) => mending,
                // Lint takes no files, and so plans in spite of those that lines name.
                Err(PlanError::Unusable(_) | PlanError::NamesFiles) => None,
                Err(PlanError::Spool(error)) => return Err(error.into()),
            },
        };
        match globals.json {
            true => print_json(out, &told.to_json())?,
            false => told.tell(out)?,
        }
        let invalid = match &told.mending {
            Some(mending) if mending.copy.is_some() => mending.invalid(),
            Some(_) | None => {
                reading.planned(&self.file)?;
                told.invalid()
            }
        };
        Ok(if invalid == 0 { ExitCode::Complete } else { ExitCode::Partial })
    }

    /// What can be mended is JSON; other inputs become it only on their way.
    fn check_fix(&self) -> Result<(), Failure> {
        let name = self.file.file_name().map(OsStr::to_string_lossy).unwrap_or_default();
        let (_, ending) = source::split(&name);
        if !self.fix || [".jsonl", ".ndjson", ".json"].contains(&&*ending.to_ascii_lowercase()) {
            return Ok(());
        }
        let message = format!("--fix mends .jsonl, .ndjson and .json files; {name} is none");
        Err(Failure::usage(message))
    }
}

/// What the lines of a file are, as they are read.
#[derive(Default)]
struct Findings {
    report: lint::report::Report,
    /// How many lines are invalid, by their reasons.
    reasons: BTreeMap<&'static str, u64>,
}

impl Findings {
    fn row(&mut self, piece: &Piece<'_>, fate: LineFate, rules: &CutRules) {
        if !fate.is_sent() {
            *self.reasons.entry(fate.reason()).or_default() += 1;
        } else if fate != LineFate::Valid {
            // A line of the OpenAI batch format is of another API, with habits of its own.
        } else if let Some(line) = piece.bytes.and_then(|line| std::str::from_utf8(line).ok()) {
            self.report.note(piece.number, &lint::check(line, rules.asked()));
        }
    }
}

/// The settings for a file, and what they make of its lines.
fn settings(file: &Path, config: &Config, queue: &str) -> Result<(Queue, CutRules), Failure> {
    if !std::fs::metadata(file).at("read", file)?.is_file() {
        let message = format!("{} is not a regular file", file.display());
        return Err(Failure::new(ExitCode::Failed, anyhow::Error::msg(message)));
    }
    let name = file.file_name().map(OsStr::to_string_lossy).unwrap_or_default();
    let queue = queue_of(file, &name, config, queue)?;
    let rules = cut_rules(&queue, config.limits.file_bytes, config.limits.inline_bytes);
    Ok((queue, rules))
}

impl Reading {
    /// Reads a file whole, with the settings of a queue and those that lie beside it.
    ///
    /// # Errors
    /// If it can not be read, or the settings beside it are wrong.
    pub fn of(file: &Path, config: &Config, queue: &str) -> Result<Reading, Failure> {
        let (queue, rules) = settings(file, config, queue)?;
        Reading::told(file, queue, rules, Told::nobody())
    }

    /// Where the requests lie, and the index of them.
    pub fn requests_and_lines(&self) -> (&Path, PathBuf) {
        (&self.requests, self.indexes.path().join(LINES))
    }

    /// The same with these settings; `told` hears of every row.
    fn told(
        file: &Path,
        queue: Queue,
        rules: CutRules,
        told: Told<'_>,
    ) -> Result<Reading, Failure> {
        let indexes = tempfile::tempdir()?;
        let name = file.file_name().map(OsStr::to_string_lossy).unwrap_or_default();
        let lines = indexes.path().join(LINES);
        let outcomes = indexes.path().join("outcomes.idx");
        let mut requests = file.to_owned();
        let read = match Recipe::of(&name, &queue) {
            None => plan::plan_file(file, &lines, &outcomes, &rules, told),
            Some(recipe) => {
                requests = indexes.path().join("prepared.jsonl");
                prepare::prepare_file(file, &requests, &recipe, &rules).and_then(|prepared| {
                    plan::plan_prepared_file(&prepared, &lines, &outcomes, &rules, told)
                })
            }
        };
        let read = match read {
            Ok(planned) => Ok(planned),
            Err(PlanError::Unusable(refusal)) => Err(refusal),
            Err(PlanError::Spool(error)) => return Err(error.into()),
            Err(error @ PlanError::NamesFiles) => {
                return Err(Failure::new(ExitCode::Failed, error));
            }
        };
        Ok(Reading { read, queue, rules, requests, indexes })
    }

    /// The settings that counted.
    pub fn queue(&self) -> &Queue {
        &self.queue
    }

    /// What reading told.
    ///
    /// # Errors
    /// If the daemon would refuse the file.
    pub fn planned(&self, file: &Path) -> Result<&Planned, Failure> {
        self.read.as_ref().map_err(|refusal| refused(file, refusal))
    }

    /// The first invalid rows, at most `count`; none of a file that was refused before its lines
    /// were looked at.
    ///
    /// # Errors
    /// If the file or the index can not be read.
    fn problems(&self, count: usize) -> Result<Vec<Problem>, SpoolError> {
        let index = self.indexes.path().join(LINES);
        if !index.exists() {
            return Ok(Vec::new());
        }
        let opened = File::open(&index).and_then(IndexReader::<LineEntry>::new);
        let mut index_reader = opened.at("read", &index)?;
        let invalid = self.read.as_ref().map_or(u64::MAX, |planned| planned.invalid);
        let wanted = usize::try_from(invalid).unwrap_or(usize::MAX).min(count);
        let mut problems = Vec::new();
        for row in 1..=index_reader.rows() {
            if problems.len() >= wanted {
                break;
            }
            let entry = index_reader.get(Row(row)).at("read", &index)?;
            if !entry.fate.is_sent() {
                problems.push(problem::explain(&self.requests, &entry, &self.rules)?);
            }
        }
        Ok(problems)
    }
}

/// The settings for a file, wherever it lies.
fn queue_of(file: &Path, name: &str, config: &Config, queue: &str) -> Result<Queue, Failure> {
    let folder = file.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."));
    Ok(match settings_beside(folder, name)? {
        Some((sidecar, text)) => config.explain(queue, Some((&folder.join(sidecar), &text)))?.queue,
        None => config.queue_for(queue),
    })
}

fn refused(file: &Path, refusal: &Refusal) -> Failure {
    let line = refusal.line.map(|line| format!(":{line}")).unwrap_or_default();
    let column = refusal.column.map(|column| format!(":{column}")).unwrap_or_default();
    let message = format!("{}{line}{column}: {}", file.display(), escaped(&refusal.message));
    Failure::new(ExitCode::Failed, anyhow::Error::msg(message)).with_remedy(refusal.remedy.clone())
}

const LINES: &str = "lines.idx";
