//! What happens in a demo: an emulator, a spool with its settings, files dropped, a daemon that runs
//! until all of them are done.

use std::collections::HashMap;
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use crate::cli::dropping::drop_into;
use crate::cli::progress::Bars;
use crate::cli::{Failure, run};
use crate::clock::SystemClock;
use crate::config::{Config, Environment, Flags};
use crate::daemon::{Ended, Handle, Setup, Until};
use crate::provider::gemini::emulator::{self, Options, Remains};
use crate::spool::durable;
use crate::view::JobView;

use super::features::Embedded;

/// What is shown.
#[derive(Debug)]
pub struct Play {
    /// Files that are dropped, in this order.
    pub files: Vec<Embedded>,
    /// Settings for them, as TOML.
    pub settings: &'static str,
    /// How the emulator behaves.
    pub emulator: Options,
}

/// What came of it.
#[derive(Debug)]
pub struct Shown {
    /// All jobs.
    pub views: Vec<JobView>,
    /// Where their files are.
    pub config: Arc<Config>,
    /// What is left at the API.
    pub remains: Remains,
}

impl Play {
    /// Starts the emulator, drops the files, and runs the daemon until all are done; `None` after
    /// Ctrl-C. What happens is told to `talk`.
    ///
    /// # Errors
    /// If something does not start, or the disk is full.
    pub async fn show(self, spool: &Path, talk: &mut dyn Write) -> Result<Option<Shown>, Failure> {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let emulator = emulator::start(self.emulator).await?;
        let config = Arc::new(configure(spool, &emulator.url(), self.settings)?);
        introduce(spool, &emulator.url(), &self.files, talk)?;
        for file in &self.files {
            let (folder, name) = file.path.rsplit_once('/').unwrap_or(("", file.path));
            let mut content = file.content;
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
        let remains = emulator.remains();
        emulator.stop().await;
        Ok(views.map(|views| Shown { views, config, remains }))
    }
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
///
/// # Errors
/// If it can not be written.
pub fn configure(spool: &Path, url: &str, settings: &str) -> Result<Config, Failure> {
    durable::make_folder(spool)?;
    let file = spool.join("gemini-batchd.toml");
    let text = format!(
        "# Made by `gemini-batchd demo`.\n\n[spool]\ndir = \".\"\n\n[api]\nbase_url = {url:?}\n\n\
         [intake]\nsettle = \"0s\"\nrescan = \"1s\"\n\n[poll]\nmin = \"300ms\"\nmax = \"1s\"\n\n\
         {settings}"
    );
    durable::create(&file, text.as_bytes())?;
    let keys = [("GEMINI_API_KEY", "demo"), ("GEMINI_API_KEY_TEAM", "demo-of-another-project")];
    let environment = Environment::made_up(spool, keys);
    Ok(Config::load(&Flags { config: Some(file), spool: None }, &environment)?)
}

fn introduce(
    spool: &Path,
    url: &str,
    files: &[Embedded],
    out: &mut dyn Write,
) -> std::io::Result<()> {
    writeln!(out, "gemini-batchd demo: all on this machine, without a key, a network, or cost.\n")?;
    writeln!(out, "1. A stand-in for Google's Batch API listens on {url};")?;
    writeln!(out, "   it answers every request with an echo of it, or a vector.")?;
    writeln!(out, "2. The spool is {}:", spool.display())?;
    writeln!(out, "   files are dropped into its inbox/, results appear in its outbox/.")?;
    writeln!(out, "3. These files are dropped now:")?;
    for file in files {
        writeln!(out, "   inbox/{} ({} bytes)", file.path, file.content.len())?;
    }
    writeln!(
        out,
        "4. The daemon takes each file, checks every line, sends them as batches, waits,"
    )?;
    writeln!(out, "   fetches the answers and puts them into the order of the file:")?;
    out.flush()
}

/// How long a batch of `demo --all` waits, and how long it runs.
pub const SOON: Duration = Duration::from_millis(400);
const LOOK_EVERY: Duration = Duration::from_millis(100);
