//! `demo`: the whole road on this machine, with the emulator in place of Google.
//!
//! Needs no key and no network, costs nothing, and touches nothing but its own spool. `--all` does
//! so with an example of everything the daemon can do, and fails if one does not end as it must.

pub mod features;
mod night;
mod stage;

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Args;

use crate::config::Config;
use crate::provider::gemini::emulator::{Options, Remains};
use crate::view::JobView;

use super::preview::first_answers;
use super::{ExitCode, Failure, Globals, print_json, run};
use features::{Embedded, FEATURES, Feature, SETTINGS};
use stage::{Play, Shown};

/// The verb.
#[derive(Debug, Args)]
pub struct Demo {
    /// Show everything: an example of each thing the daemon can do
    #[arg(long)]
    pub all: bool,
    /// Show a bad night within a minute: a release window, a batch that never begins, a deadline that
    /// is kept all the same, and the report in the morning
    #[arg(long, conflicts_with = "all")]
    pub night: bool,
    /// Keep the spool in this folder, which must be empty or not there [default: a temporary
    /// folder, removed at the end]
    #[arg(long, value_name = "DIR")]
    pub keep: Option<PathBuf>,
}

impl Demo {
    /// Runs the verb.
    ///
    /// # Errors
    /// If the folder can not be used, something does not start, or an example of `--all` does not
    /// end as it must.
    pub fn run(&self, globals: &Globals, out: &mut dyn Write) -> Result<ExitCode, Failure> {
        let temporary = tempfile::Builder::new().prefix("gemini-batchd-demo-").tempdir()?;
        let spool = match &self.keep {
            None => temporary.path().to_owned(),
            Some(keep) => kept(keep)?,
        };
        // With JSON on standard output, the explanations have no place there.
        let mut nowhere = std::io::sink();
        let talk: &mut dyn Write = if globals.json { &mut nowhere } else { &mut *out };
        if self.night {
            let ended = run::runtime()?.block_on(night::play(&spool, talk))?;
            farewell(self.keep.as_deref(), talk)?;
            return Ok(ended.unwrap_or(ExitCode::Interrupted));
        }
        let play = if self.all { all() } else { usual() };
        let Some(shown) = run::runtime()?.block_on(play.show(&spool, talk))? else {
            return Ok(ExitCode::Interrupted);
        };
        let Shown { views, config, remains } = shown;
        if self.all {
            examples(&views, &config, talk)?;
        } else {
            results(&views, &config, talk)?;
        }
        tidied(&remains, talk)?;
        farewell(self.keep.as_deref(), talk)?;
        if globals.json {
            print_json(out, &views)?;
        }
        if self.all { judge(&views, &config, &remains) } else { Ok(run::worst(&views)) }
    }
}

/// A few files for a first look.
fn usual() -> Play {
    Play { files: EXAMPLES.to_vec(), settings: REVIEWS, emulator: Options::default() }
}

/// Every example there is, with batches that do not keep anybody waiting.
fn all() -> Play {
    let files = FEATURES.iter().flat_map(|feature| feature.beside.iter().chain([&feature.file]));
    let emulator =
        Options { pending_for: stage::SOON, running_for: stage::SOON, ..Options::default() };
    Play { files: files.copied().collect(), settings: SETTINGS, emulator }
}

/// The folder to keep the spool in, if nothing is in it yet.
fn kept(folder: &Path) -> Result<PathBuf, Failure> {
    let folder = std::path::absolute(folder)?;
    match std::fs::read_dir(&folder) {
        Ok(mut entries) => match entries.next() {
            None => Ok(folder),
            Some(_) => {
                let message = format!("{} is not empty", folder.display());
                Err(Failure::usage(message).with_remedy("name a folder that is not there yet"))
            }
        },
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(folder),
        Err(error) => {
            let message = format!("{} cannot be used", folder.display());
            Err(Failure::new(ExitCode::Usage, error).leading_to(message))
        }
    }
}

fn results(views: &[JobView], config: &Config, out: &mut dyn Write) -> Result<(), Failure> {
    writeln!(out, "5. The results:")?;
    for view in views {
        writeln!(out, "\n   inbox/{}: {}", view.file, counts(view))?;
        result(view, config, out)?;
    }
    Ok(())
}

fn examples(views: &[JobView], config: &Config, out: &mut dyn Write) -> Result<(), Failure> {
    writeln!(out, "5. What each of them shows, and what came of it:")?;
    for feature in FEATURES {
        writeln!(out, "\n   inbox/{}: {}", feature.file.path, feature.shows)?;
        for file in feature.beside {
            writeln!(out, "     with inbox/{}", file.path)?;
        }
        let Some(view) = views.iter().find(|view| view.file == feature.file.path) else {
            writeln!(out, "     nothing came of it")?;
            continue;
        };
        if view.output.is_some() {
            writeln!(out, "     {}", counts(view))?;
        }
        result(view, config, out)?;
        for made in feature.makes {
            writeln!(out, "   → outbox/{made}")?;
        }
    }
    Ok(())
}

fn counts(view: &JobView) -> String {
    let lines = &view.lines;
    format!("{} lines, {} answered, {} failed", lines.total, lines.answered, lines.failed)
}

/// The first answers of a job, and its files; or why there are none.
fn result(view: &JobView, config: &Config, out: &mut dyn Write) -> Result<(), Failure> {
    let Some(output) = &view.output else {
        let why = view.reason.as_deref().unwrap_or("it has no results");
        writeln!(out, "     {why}")?;
        if config.folders.failed.join(&view.file).exists() {
            writeln!(out, "   → failed/{}", view.file)?;
        }
        return Ok(());
    };
    let results = config.folders.outbox.join(format!("{output}.results.jsonl"));
    for answer in first_answers(&results, ANSWERS_SHOWN)? {
        writeln!(out, "     {}: {}", answer.key, answer.text)?;
    }
    for ending in ["results.jsonl", "errors.jsonl", "manifest.json"] {
        let file = format!("{output}.{ending}");
        if config.folders.outbox.join(&file).exists() {
            writeln!(out, "   → outbox/{file}")?;
        }
    }
    Ok(())
}

/// Whether every example ended as it must.
fn judge(views: &[JobView], config: &Config, remains: &Remains) -> Result<ExitCode, Failure> {
    let mut wrong: Vec<String> =
        FEATURES.iter().filter_map(|feature| misses(feature, views, config)).collect();
    if remains.files + remains.batches > 0 {
        wrong.push("something was left at the API that could have been removed".to_owned());
    }
    if wrong.is_empty() {
        return Ok(ExitCode::Complete);
    }
    let message = format!("not every example ended as it must: {}", wrong.join("; "));
    Err(Failure::new(ExitCode::Failed, anyhow::Error::msg(message)))
}

/// In what an example did not end as it must.
fn misses(feature: &Feature, views: &[JobView], config: &Config) -> Option<String> {
    let path = feature.file.path;
    let Some(view) = views.iter().find(|view| view.file == path) else {
        return Some(format!("{path} was not taken"));
    };
    let lines = &view.lines;
    let refused = feature.answered + feature.failed == 0;
    if refused != view.output.is_none() {
        let word = if refused { "was not refused" } else { "has no results" };
        return Some(format!("{path} {word}"));
    }
    if !refused && (lines.answered, lines.failed) != (feature.answered, feature.failed) {
        let (answered, failed) = (feature.answered, feature.failed);
        let found = counts(view);
        return Some(format!("{path} has {found}, and not {answered} answered, {failed} failed"));
    }
    let missing = feature.makes.iter().find(|made| !config.folders.outbox.join(made).exists());
    missing.map(|made| format!("{path} did not make outbox/{made}"))
}

/// What the daemon left at the API; the limits there count what lies about.
fn tidied(remains: &Remains, out: &mut dyn Write) -> std::io::Result<()> {
    let Remains { files, batches, of_layer } = remains;
    writeln!(out, "\n6. Left at the API: {files} uploaded files, {batches} batches.")?;
    if *of_layer > 0 {
        writeln!(
            out,
            "   {of_layer} more of OpenAI's format can not be deleted there; they expire."
        )?;
    }
    Ok(())
}

fn farewell(keep: Option<&Path>, out: &mut dyn Write) -> std::io::Result<()> {
    match keep {
        Some(keep) => writeln!(out, "\nEverything lies in {}.", keep.display())?,
        None => {
            writeln!(out, "\nThe spool is removed now; `demo --keep DIR` keeps one to look at.")?
        }
    }
    writeln!(out, "With a real key: put it into GEMINI_API_KEY, start `gemini-batchd run`, and")?;
    writeln!(out, "`gemini-batchd submit FILE.jsonl --wait` in another terminal.")
}

const EXAMPLES: &[Embedded] = &[
    Embedded { path: "guide.jsonl", content: include_bytes!("../../examples/inbox/guide.jsonl") },
    TRANSLATE,
    Embedded {
        path: "questions-zh.json",
        content: include_bytes!("../../examples/inbox/questions-zh.json"),
    },
    CLASSIFY,
];
const TRANSLATE: Embedded = Embedded {
    path: "translate.jsonl",
    content: include_bytes!("../../examples/inbox/translate.jsonl"),
};
const CLASSIFY: Embedded = Embedded {
    path: "reviews/classify.jsonl",
    content: include_bytes!("../../examples/inbox/reviews/classify.jsonl"),
};
const REVIEWS: &str = "[queue.\"reviews\"]\nmodel = \"gemini-2.5-flash-lite\"\n";
const ANSWERS_SHOWN: usize = 2;
