//! `demo`: the whole road on this machine, with the emulator in place of Google.
//!
//! Needs no key and no network, costs nothing, and touches nothing but its own spool.

use std::collections::HashMap;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use crate::clock::SystemClock;
use crate::config::{Config, Environment, Flags};
use crate::daemon::{Ended, Handle, Setup, Until};
use crate::provider::gemini::emulator::{self, Options};
use crate::spool::durable;
use crate::view::JobView;

use super::dropping::drop_into;
use super::preview::first_answers;
use super::progress::Bars;
use super::{ExitCode, Failure, Globals, print_json, run};

/// The verb.
#[derive(Debug, Args)]
pub struct Demo {
    /// Keep the spool in this folder, which must be empty or not there [default: a temporary
    /// folder, removed at the end]
    #[arg(long, value_name = "DIR")]
    pub keep: Option<PathBuf>,
}

impl Demo {
    /// Runs the verb.
    ///
    /// # Errors
    /// If the folder can not be used, or something does not start.
    pub fn run(&self, globals: &Globals, out: &mut dyn Write) -> Result<ExitCode, Failure> {
        let temporary = tempfile::Builder::new().prefix("gemini-batchd-demo-").tempdir()?;
        let spool = match &self.keep {
            None => temporary.path().to_owned(),
            Some(keep) => kept(keep)?,
        };
        // With JSON on standard output, the explanations have no place there.
        let mut nowhere = std::io::sink();
        let talk: &mut dyn Write = if globals.json { &mut nowhere } else { &mut *out };
        let runtime = run::runtime()?;
        let Some((views, config)) = runtime.block_on(show(&spool, talk))? else {
            return Ok(ExitCode::Interrupted);
        };
        if globals.json {
            print_json(out, &views)?;
        } else {
            results(&views, &config, out)?;
            farewell(self.keep.as_deref(), out)?;
        }
        Ok(run::worst(&views))
    }
}

/// Starts the emulator, drops the examples, and runs the daemon until all are answered; `None`
/// after Ctrl-C.
async fn show(
    spool: &Path,
    talk: &mut dyn Write,
) -> Result<Option<(Vec<JobView>, Arc<Config>)>, Failure> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let emulator = emulator::start(Options::default()).await?;
    let config = Arc::new(configure(spool, &emulator.url())?);
    introduce(spool, &emulator.url(), talk)?;
    for (folder, name, content) in EXAMPLES {
        let mut content = *content;
        drop_into(&config.folders.inbox.join(folder), name, &mut content)?;
    }
    let setup = Setup::open(Arc::clone(&config), Arc::new(SystemClock))?;
    let handle = setup.daemon.handle();
    let bars = Bars::new();
    let ended = tokio::select! {
        ended = setup.daemon.run(Until::Idle) => Some(ended?),
        () = watch(&handle, &bars) => None,
        _ = interrupt.recv() => None,
    };
    let views = match ended {
        Some(Ended::Idle(jobs)) => {
            let views = run::views(&handle, &jobs);
            views.iter().for_each(|view| bars.show(view));
            Some(views)
        }
        Some(Ended::Full(why)) => return Err(run::full(why)),
        Some(Ended::Stopped | Ended::Denied(_) | Ended::Barred(_)) | None => None,
    };
    emulator.stop().await;
    Ok(views.map(|views| (views, config)))
}

/// Shows what the jobs do, until it is dropped.
async fn watch(handle: &Handle, bars: &Bars) {
    let terminal = std::io::stderr().is_terminal();
    let mut told: HashMap<String, String> = HashMap::new();
    loop {
        let views: Vec<JobView> =
            handle.with_engine(|engine| engine.jobs().map(JobView::new).collect());
        for view in &views {
            if terminal {
                bars.show(view);
            } else if told.get(&view.id) != Some(&view.phase) {
                told.insert(view.id.clone(), view.phase.clone());
                bars.say(&format!("   {}: {}", view.file, view.phase));
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Writes a configuration file into the spool and reads it, and nothing else.
fn configure(spool: &Path, url: &str) -> Result<Config, Failure> {
    durable::make_folder(spool)?;
    let file = spool.join("gemini-batchd.toml");
    let text = format!(
        "# Made by `gemini-batchd demo`.\n\n[spool]\ndir = \".\"\n\n[api]\nbase_url = {url:?}\n\n\
         [intake]\nsettle = \"0s\"\nrescan = \"1s\"\n\n[poll]\nmin = \"300ms\"\nmax = \"1s\"\n\n\
         [queue.\"reviews\"]\nmodel = \"gemini-2.5-flash-lite\"\n\n\
         [queue.\"embeddings\"]\ntask = \"embed\"\nmodel = \"gemini-embedding-001\"\n"
    );
    durable::create(&file, text.as_bytes())?;
    let environment = Environment::made_up(spool, [("GEMINI_API_KEY", "demo")]);
    Ok(Config::load(&Flags { config: Some(file), spool: None }, &environment)?)
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

fn introduce(spool: &Path, url: &str, out: &mut dyn Write) -> std::io::Result<()> {
    writeln!(out, "gemini-batchd demo: all on this machine, without a key, a network, or cost.\n")?;
    writeln!(out, "1. A stand-in for Google's Batch API listens on {url};")?;
    writeln!(out, "   it answers every request with an echo of it, or a vector.")?;
    writeln!(out, "2. The spool is {}:", spool.display())?;
    writeln!(out, "   files are dropped into its inbox/, results appear in its outbox/.")?;
    writeln!(out, "3. These files are dropped now:")?;
    for (folder, name, content) in EXAMPLES {
        writeln!(out, "   inbox/{folder}{name} ({} bytes)", content.len())?;
    }
    writeln!(
        out,
        "4. The daemon takes each file, checks every line, sends them as batches, waits,"
    )?;
    writeln!(out, "   fetches the answers and puts them into the order of the file:")?;
    out.flush()
}

fn results(views: &[JobView], config: &Config, out: &mut dyn Write) -> Result<(), Failure> {
    writeln!(out, "5. The results:")?;
    for view in views {
        let lines = &view.lines;
        writeln!(
            out,
            "\n   inbox/{}: {} lines, {} answered, {} failed",
            view.file, lines.total, lines.answered, lines.failed
        )?;
        let Some(output) = &view.output else {
            let why = view.reason.as_deref().unwrap_or("it has no results");
            writeln!(out, "   {why}")?;
            continue;
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

/// Sub-folder of the inbox (with a slash), name, content.
const EXAMPLES: &[(&str, &str, &[u8])] = &[
    ("", "guide.jsonl", include_bytes!("../../examples/inbox/guide.jsonl")),
    ("", "translate.jsonl", include_bytes!("../../examples/inbox/translate.jsonl")),
    ("", "questions-zh.json", include_bytes!("../../examples/inbox/questions-zh.json")),
    ("reviews/", "classify.jsonl", include_bytes!("../../examples/inbox/reviews/classify.jsonl")),
    (
        "embeddings/",
        "passages.jsonl",
        include_bytes!("../../examples/inbox/embeddings/passages.jsonl"),
    ),
];
const ANSWERS_SHOWN: usize = 2;
const LOOK_EVERY: Duration = Duration::from_millis(100);
