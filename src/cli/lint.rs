//! `lint`: checks every line of a file and sends nothing.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use crate::config::Config;
use crate::daemon::perform::cut_rules;
use crate::engine::Row;
use crate::engine::job::{Queue, Refusal};
use crate::spool::index::{IndexReader, LineEntry, LineFate};
use crate::spool::plan::{self, CutRules, PlanError, Planned};
use crate::spool::prepare::{self, Recipe};
use crate::spool::problem::{self, Problem};
use crate::spool::{At, SpoolError};
use crate::telemetry::escaped;

use super::explain::settings_beside;
use super::{ExitCode, Failure, Globals, print_json};

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
    /// Runs the verb: 0 if every line is valid, 3 if some are not, 1 if the file can not be used.
    ///
    /// # Errors
    /// If the file can not be read, or not be used at all.
    pub fn run(&self, globals: &Globals, out: &mut dyn Write) -> Result<ExitCode, Failure> {
        let config = globals.load()?;
        let reading = Reading::of(&self.file, &config, &self.queue)?;
        let problems = reading.problems(self.show)?;
        let planned = match reading.planned(&self.file) {
            Ok(planned) => planned,
            Err(failure) => {
                if globals.json {
                    print_json(out, &as_json(&self.file, &reading.read, &problems))?;
                } else {
                    self.name(&problems, out)?;
                }
                return Err(failure);
            }
        };
        if globals.json {
            print_json(out, &as_json(&self.file, &reading.read, &problems))?;
        } else {
            self.tell(planned, &problems, out)?;
        }
        Ok(if planned.invalid == 0 { ExitCode::Complete } else { ExitCode::Partial })
    }

    /// Every problem in one line, in the form that editors jump to.
    fn name(&self, problems: &[Problem], out: &mut dyn Write) -> std::io::Result<()> {
        let file = escaped(&self.file.display().to_string());
        for problem in problems {
            let column = problem.column.map(|column| format!(":{column}")).unwrap_or_default();
            let (line, message) = (problem.line, escaped(&problem.message));
            writeln!(out, "{file}:{line}{column}: {message}")?;
        }
        Ok(())
    }

    fn tell(
        &self,
        planned: &Planned,
        problems: &[Problem],
        out: &mut dyn Write,
    ) -> std::io::Result<()> {
        let file = escaped(&self.file.display().to_string());
        self.name(problems, out)?;
        let hidden = planned.invalid - problems.len() as u64;
        if hidden > 0 {
            writeln!(out, "… and {hidden} more; --show {} shows all", planned.invalid)?;
        }
        for warning in &planned.warnings {
            writeln!(out, "warning: {}", escaped(warning))?;
        }
        let valid = planned.rows - planned.invalid;
        let plural = if planned.rows == 1 { "" } else { "s" };
        let (rows, invalid) = (planned.rows, planned.invalid);
        writeln!(out, "{file}: {rows} request{plural}, {valid} valid, {invalid} invalid")
    }
}

impl Reading {
    /// Reads a file whole, with the settings of a queue and those that lie beside it.
    ///
    /// # Errors
    /// If it can not be read, or the settings beside it are wrong.
    pub fn of(file: &Path, config: &Config, queue: &str) -> Result<Reading, Failure> {
        if !std::fs::metadata(file).at("read", file)?.is_file() {
            let message = format!("{} is not a regular file", file.display());
            return Err(Failure::new(ExitCode::Failed, anyhow::Error::msg(message)));
        }
        let indexes = tempfile::tempdir()?;
        let limits = &config.limits;
        let name = file.file_name().map(OsStr::to_string_lossy).unwrap_or_default();
        let queue = queue_of(file, &name, config, queue)?;
        let rules = cut_rules(&queue, limits.file_bytes, limits.inline_bytes);
        let lines = indexes.path().join(LINES);
        let outcomes = indexes.path().join("outcomes.idx");
        let mut requests = file.to_owned();
        let read = match Recipe::of(&name, &queue) {
            None => plan::plan_file(file, &lines, &outcomes, &rules, &|_| {}),
            Some(recipe) => {
                requests = indexes.path().join("prepared.jsonl");
                prepare::prepare_file(file, &requests, &recipe, &rules).and_then(|prepared| {
                    plan::plan_prepared_file(&prepared, &lines, &outcomes, &rules)
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
            if entry.fate != LineFate::Valid {
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

fn as_json(
    file: &Path,
    read: &Result<Planned, Refusal>,
    problems: &[Problem],
) -> serde_json::Value {
    let problem = |problem: &Problem| {
        json!({"line": problem.line, "column": problem.column, "reason": problem.reason,
            "message": problem.message})
    };
    let problems: Vec<_> = problems.iter().map(problem).collect();
    let file = file.display().to_string();
    match read {
        Ok(planned) => json!({
            "file": file,
            "requests": planned.rows,
            "valid": planned.rows - planned.invalid,
            "invalid": planned.invalid,
            "bytes": planned.bytes,
            "sha256": planned.sha256,
            "warnings": planned.warnings,
            "problems": problems,
        }),
        Err(refusal) => json!({
            "file": file,
            "valid": 0,
            "refused": {"reason": refusal.reason, "message": refusal.message,
                "line": refusal.line, "column": refusal.column, "remedy": refusal.remedy},
            "problems": problems,
        }),
    }
}

const LINES: &str = "lines.idx";
