//! The configuration: file, environment and flags become one checked [`Config`].
//!
//! Promises: every key has a default; a key nobody knows is an error that names the nearest one;
//! where each value came from is kept. A setting of a later version is refused, never ignored.
//! All problems are reported at once, each with its place. The API key is read here and nowhere
//! else; it is never part of what is shown. Nothing is created or changed on disk.

mod beside;
mod credentials;
mod deadlines;
mod example;
mod file;
mod hooks;
mod key;
mod layers;
mod money;
mod object;
mod queues;
mod settings;
mod shown;
mod typed;
mod units;
mod window;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use url::Url;

use crate::engine::job::Queue;
use crate::engine::money::Means;
use crate::spool::Folders;

pub use beside::Explained;
pub use example::example;
pub use hooks::{Call, Hooks, Occasion, Wakeup, parse_call};
pub use key::{Key, KeyProblem, KeySource};
pub use layers::{ConfigError, Origin, Problem, nearest};
pub use shown::{Shown, as_file};
pub use units::{bytes_text, duration_text};

/// Everything the program can be told.
#[derive(Debug, Clone)]
pub struct Config {
    /// The file it was read from; `None` if there is none.
    pub file: Option<PathBuf>,
    /// Where files live.
    pub folders: Folders,
    /// How the inbox is watched.
    pub intake: Intake,
    /// How the API is reached.
    pub api: Api,
    /// More API keys by the names of their credentials, or why one can not be had.
    pub credentials: BTreeMap<String, Result<Key, KeyProblem>>,
    /// What is never exceeded.
    pub limits: Limits,
    /// Prices, budgets, and tokens that may be enqueued.
    pub means: Means,
    /// How often batches are asked for.
    pub poll: Poll,
    /// Queues by the sub-folder of the inbox that they are for; `default` is always there.
    pub queues: BTreeMap<String, Queue>,
    /// Bytes on disk for answers that can be used again.
    pub cache_bytes: u64,
    /// Where operators reach the daemon.
    pub control: Control,
    /// Who is told what has happened.
    pub hooks: Arc<Hooks>,
    /// Where the API says that batches have ended, if it can.
    pub wakeup: Option<Wakeup>,
    /// What is tidied up, and when.
    pub housekeeping: Housekeeping,
    /// The morning report.
    pub report: Report,
    /// Every value with its origin, in the order of the example.
    pub shown: Vec<Shown>,
    /// What was set where, for files with settings of their own.
    layers: Arc<layers::Layers>,
}

/// How the inbox is watched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Intake {
    /// By events, by polling, or by what works.
    pub watch: Watch,
    /// How long a file that is not renamed in must be still.
    pub settle: Duration,
    /// The time between two full scans.
    pub rescan: Duration,
    /// More name patterns that are never touched.
    pub ignore: Vec<String>,
    /// What happens to a file whose content is known already.
    pub duplicates: Duplicates,
    /// How long the content of a finished job is remembered.
    pub duplicate_window: Duration,
}

/// How new files are noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Watch {
    /// Events where they work, else polling.
    Auto,
    /// Events, and the regular scan.
    Events,
    /// Polling only.
    Poll,
}

/// What happens to a file whose content is known already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Duplicates {
    /// It waits in `held/`.
    Hold,
    /// It is a job like any other.
    Process,
}

/// How the API is reached.
#[derive(Debug, Clone)]
pub struct Api {
    /// Scheme, host and port; `http` only on this machine.
    pub base_url: Url,
    /// The version in the path, such as `v1beta`.
    pub version: String,
    /// The key, or why there is none; only verbs that speak to the API mind.
    pub key: Result<Key, KeyProblem>,
    /// At most so long until a connection stands.
    pub connect_timeout: Duration,
    /// At most so long without a byte moved.
    pub idle_timeout: Duration,
    /// The first pause after a failure.
    pub backoff_min: Duration,
    /// The longest pause after a failure.
    pub backoff_max: Duration,
    /// What follows a create nobody knows the outcome of.
    pub uncertain: Uncertain,
    /// How long such a batch is looked for.
    pub uncertain_window: Duration,
}

/// What follows a create whose batch was not found within the window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Uncertain {
    /// It is sent again.
    Resubmit,
    /// A person is asked.
    Hold,
}

/// What is never exceeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of an uploaded input file.
    pub file_bytes: u64,
    /// Bytes of a create request that carries its lines inline.
    pub inline_bytes: u64,
    /// Batches open at the API at the same time.
    pub open_batches: u32,
    /// Bytes of our files at the API.
    pub storage_bytes: u64,
    /// Uploads at the same time.
    pub uploads: u32,
    /// Calls for single lines at the same time.
    pub rescue_parallel: u32,
    /// With fewer bytes free on the spool's disk, nothing new is begun.
    pub free_bytes: u64,
}

/// How often batches are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Poll {
    /// Soon after a change.
    pub min: Duration,
    /// When nothing changes for long.
    pub max: Duration,
}

/// Where operators reach the daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Control {
    /// The Unix socket.
    pub socket: PathBuf,
    /// Whether the settings name it; if not, other usual places may be tried.
    pub socket_was_set: bool,
    /// A TCP address beside it.
    pub listen: Option<SocketAddr>,
    /// More names that requests to that address may be meant for.
    pub hosts: Vec<String>,
    /// The file with the token that changes over it need.
    pub token_file: PathBuf,
}

/// What is tidied up, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Housekeeping {
    /// Cron with seconds, local time.
    pub schedule: String,
    /// How long inputs stay in the archive.
    pub archive_keep: Duration,
    /// How long records of finished jobs are kept.
    pub records_keep: Duration,
    /// Whether files and batches at the API are removed when a job is done.
    pub remote_cleanup: bool,
}

/// The morning report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Cron, local time; empty: there is none.
    pub schedule: String,
    /// How long reports are kept.
    pub keep: Duration,
}

/// What the command line says about the configuration.
#[derive(Debug, Clone, Default)]
pub struct Flags {
    /// `--config`
    pub config: Option<PathBuf>,
    /// `--spool`
    pub spool: Option<PathBuf>,
}

/// The environment as an argument, so that nothing else is read behind anyone's back.
#[derive(Clone)]
pub struct Environment {
    variables: BTreeMap<String, String>,
    folder: PathBuf,
}

impl Config {
    /// Reads file, environment and flags.
    ///
    /// # Errors
    /// With every problem found, each with its place and what to do. A missing API key is no
    /// error here; it is kept in [`Api::key`].
    pub fn load(flags: &Flags, environment: &Environment) -> Result<Config, ConfigError> {
        let layers = layers::Layers::gather(flags, environment)?;
        typed::read(layers, environment)
    }

    /// The same with the text of a file that lies at `path`, or might lie there.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn read(path: &Path, text: &str, environment: &Environment) -> Result<Config, ConfigError> {
        let layers = layers::Layers::over(Some((path, text)), &Flags::default(), environment)?;
        typed::read(layers, environment)
    }

    /// The API keys to be used, by the names of their credentials; the name of the default one is
    /// empty. It may be missing if every queue has another.
    ///
    /// # Errors
    /// If one can not be had that a queue needs, or that has a section.
    pub fn keys_needed(&self) -> Result<Vec<(String, &Key)>, KeyProblem> {
        let mut needed = Vec::new();
        let is_needed = self.queues.values().any(|queue| queue.credential.is_empty());
        match &self.api.key {
            Ok(key) => needed.push((String::new(), key)),
            Err(KeyProblem::Missing) if !is_needed => {}
            Err(problem) => return Err(problem.clone()),
        }
        for (name, key) in &self.credentials {
            needed.push((name.clone(), key.as_ref().map_err(Clone::clone)?));
        }
        Ok(needed)
    }

    /// The settings for files in a sub-folder of the inbox: `folder` is relative, with `/`
    /// between the parts, empty for the inbox itself. The longest leading part that has a queue
    /// of its own counts; else `default`.
    pub fn queue_for(&self, folder: &str) -> Queue {
        let mut part = folder;
        loop {
            if let Some(queue) = self.queues.get(part).filter(|_| !part.is_empty()) {
                return queue.clone();
            }
            match part.rfind('/') {
                Some(at) => part = &part[..at],
                None => break,
            }
        }
        self.queues.get(queues::DEFAULT).expect("the default queue always exists").clone()
    }
}

impl Environment {
    /// The environment of this process.
    ///
    /// # Errors
    /// If the current folder can not be told.
    pub fn of_process() -> std::io::Result<Environment> {
        let text = |os: OsString| os.to_string_lossy().into_owned();
        let variables = std::env::vars_os().map(|(name, value)| (text(name), text(value)));
        Ok(Environment { variables: variables.collect(), folder: std::env::current_dir()? })
    }

    /// An environment made up for a test or a demonstration; `folder` is the current folder.
    pub fn made_up<'a>(
        folder: &Path,
        variables: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Environment {
        let owned = variables.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
        Environment { variables: owned.collect(), folder: folder.to_owned() }
    }

    /// A variable, if it is there and not empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// The current folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

impl std::fmt::Debug for Environment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Values may be secrets.
        f.debug_set().entries(self.variables.keys()).finish()
    }
}

#[cfg(test)]
mod tests;
