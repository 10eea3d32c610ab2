//! `remote`: batches and files at the API, seen and handled without a daemon.
//!
//! Everything is asked of the API itself, with one key. What belongs to a job of this spool that is
//! still under way is neither stopped nor removed unasked: the daemon would take that for a failure.
//! Nothing is ever created here, so nothing here costs money.

pub mod files;
pub mod list;
pub mod one;
pub mod results;
pub mod words;

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;

use clap::{Args, Subcommand};
use tokio::runtime::Runtime;

use crate::clock::{Clock, SystemClock};
use crate::config::Config;
use crate::control::ClientError;
use crate::daemon::clients;
use crate::engine::event;
use crate::engine::ids::{BatchName, FileName, JobId, Millis};
use crate::provider::gemini::layer_batch::{self, layer_name};
use crate::provider::gemini::{Client, wire};

use super::{ExitCode, Failure, Globals, run, runtime, status};

/// The verb.
#[derive(Debug, Args)]
pub struct Remote {
    /// What to do.
    #[command(subcommand)]
    pub action: Action,
    /// The credential whose API key is used [default: the default key]
    #[arg(long, global = true, value_name = "NAME")]
    pub credential: Option<String>,
}

/// What to do with batches at the API.
#[derive(Debug, Clone, Subcommand)]
pub enum Action {
    /// List the batches of this program, newest first; `*` marks them among others
    List {
        /// Also batches that others made with the same project
        #[arg(long)]
        all: bool,
        /// Batches of the OpenAI-compatible layer instead
        #[arg(long)]
        openai: bool,
    },
    /// Show one batch
    Get {
        /// `batches/x`, or only `x`
        name: String,
    },
    /// Ask the API to stop a batch; what is answered already can be fetched
    Cancel {
        /// `batches/x`, or only `x`
        name: String,
        /// Even if a job of this spool waits for it
        #[arg(long)]
        force: bool,
    },
    /// Remove a batch and its results at the API
    Delete {
        /// `batches/x`, or only `x`
        name: String,
        /// Do not ask first
        #[arg(long)]
        yes: bool,
        /// Even if it is not over, or a job of this spool waits for it
        #[arg(long)]
        force: bool,
    },
    /// Download the results of a batch that is over, one JSON object a line, as the API has them
    ///
    /// In a batch of this program the key of a result is the number of the request in its input,
    /// counted from 1.
    Results {
        /// `batches/x`, or only `x`
        name: String,
        /// The file to write; it must not be there yet [default: standard output]
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Uploaded files
    Files {
        /// What to do with them.
        #[command(subcommand)]
        action: FilesAction,
    },
}

/// What to do with files at the API.
#[derive(Debug, Clone, Subcommand)]
pub enum FilesAction {
    /// List the files of this program; `*` marks them among others
    List {
        /// Also files that others uploaded to the same project
        #[arg(long)]
        all: bool,
    },
    /// Show one file
    Get {
        /// `files/x`, or only `x`
        name: String,
    },
    /// Remove a file at the API
    Delete {
        /// `files/x`, or only `x`
        name: String,
        /// Do not ask first
        #[arg(long)]
        yes: bool,
        /// Even if a job of this spool may need it
        #[arg(long)]
        force: bool,
    },
}

impl Remote {
    /// Runs the verb.
    ///
    /// # Errors
    /// If there is no usable key (12), the API can not be asked, or it refuses.
    pub fn run(&self, globals: &Globals, out: &mut dyn Write) -> Result<ExitCode, Failure> {
        let credential = self.credential.as_deref().unwrap_or_default();
        let api = Api::open(globals, credential)?;
        match &self.action {
            Action::List { all, openai } => list::list(&api, *all, *openai, out)?,
            Action::Get { name } => one::get(&api, &batch_name(name)?, out)?,
            Action::Cancel { name, force } => one::cancel(&api, &batch_name(name)?, *force, out)?,
            Action::Delete { name, yes, force } => {
                one::delete(&api, &batch_name(name)?, Asked { yes: *yes, force: *force }, out)?;
            }
            Action::Results { name, output } => {
                results::fetch(&api, &batch_name(name)?, output.as_deref(), out)?;
            }
            Action::Files { action } => match action {
                FilesAction::List { all } => files::list(&api, *all, out)?,
                FilesAction::Get { name } => files::get(&api, &file_name(name)?, out)?,
                FilesAction::Delete { name, yes, force } => {
                    let asked = Asked { yes: *yes, force: *force };
                    files::delete(&api, &file_name(name)?, asked, out)?;
                }
            },
        }
        Ok(ExitCode::Complete)
    }
}

/// The API, reached with one key.
pub struct Api {
    /// The configuration.
    pub config: Config,
    /// The way to it.
    pub client: Client,
    /// Whether JSON is printed instead of text.
    pub json: bool,
    runtime: Runtime,
}

/// What was said beforehand to a removal.
#[derive(Debug, Clone, Copy)]
pub struct Asked {
    /// It need not be confirmed.
    pub yes: bool,
    /// It may hurt a job under way.
    pub force: bool,
}

impl Api {
    fn open(globals: &Globals, credential: &str) -> Result<Api, Failure> {
        let config = globals.load()?;
        let client = client(&config, credential)?;
        Ok(Api { config, client, json: globals.json, runtime: runtime()? })
    }

    /// Waits for a call.
    ///
    /// # Errors
    /// If it fails, with what to do about it.
    pub fn wait<T>(
        &self,
        call: impl Future<Output = Result<T, event::Failure>>,
    ) -> Result<T, Failure> {
        self.runtime.block_on(call).map_err(refused)
    }

    /// Waits for anything else.
    pub fn block_on<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    /// What the API's clock shows, as far as it has told; else ours.
    pub fn now(&self) -> Millis {
        let now = SystemClock.now();
        let skew_ms = self.client.server_time_skew(now).unwrap_or(0);
        Millis(now.0.saturating_add_signed(skew_ms))
    }

    /// Refuses what would take something away that a job of this spool waits for, or may.
    ///
    /// # Errors
    /// If it does, with what to do instead.
    pub fn guard(&self, job: JobId, what: &str) -> Result<(), Failure> {
        let refuse = |of: String, remedy: String| {
            let message = format!("{what} belongs to {of}");
            Err(Failure::new(ExitCode::Failed, anyhow::Error::msg(message)).with_remedy(remedy))
        };
        let view = status::connect(&self.config)
            .and_then(|client| self.runtime.block_on(client.job(job.as_str())));
        match view {
            Ok(view) if view.is_over() => return Ok(()),
            Ok(_) => {
                return refuse(
                    format!("job {job}, which is under way"),
                    format!(
                        "`gemini-batchd cancel {job}` stops the job in order; --force does this \
                         all the same"
                    ),
                );
            }
            Err(
                ClientError::NotRunning { .. }
                | ClientError::NoAccess { .. }
                | ClientError::Broken { .. }
                | ClientError::Refused(_),
            ) => {}
        }
        if !self.config.folders.job(job).path.is_dir() {
            return Ok(());
        }
        refuse(
            format!("job {job}, whose files lie in working/{job}"),
            format!(
                "start the daemon, then `gemini-batchd cancel {job}`; if the daemon does not know \
                 the job: `gemini-batchd adopt`; --force does this all the same"
            ),
        )
    }

    /// Asks a person whether to go on.
    ///
    /// # Errors
    /// If nobody can be asked, or the answer is no.
    pub fn confirm(&self, question: &str, asked: Asked) -> Result<(), Failure> {
        if asked.yes {
            return Ok(());
        }
        if !io::stdin().is_terminal() {
            let message = format!("{question} Nobody is there to be asked");
            return Err(Failure::usage(message).with_remedy("add --yes"));
        }
        write!(io::stderr(), "{question} [y/N] ")?;
        io::stderr().flush()?;
        let mut answer = String::new();
        io::stdin().read_line(&mut answer)?;
        if matches!(answer.trim(), "y" | "Y" | "yes") {
            return Ok(());
        }
        Err(Failure::new(ExitCode::NothingToDo, anyhow::Error::msg("nothing was removed")))
    }
}

/// A client with the key of a credential; the name of the default one is empty.
///
/// # Errors
/// If there is no such credential, or its key can not be had or used.
pub fn client(config: &Config, credential: &str) -> Result<Client, Failure> {
    let key = match credential {
        "" => &config.api.key,
        name => config.credentials.get(name).ok_or_else(|| {
            let known: Vec<&str> = config.credentials.keys().map(String::as_str).collect();
            let message = match known.is_empty() {
                true => {
                    format!("there is no credential {name:?}; only the default key is configured")
                }
                false => {
                    format!("there is no credential {name:?}; configured: {}", known.join(", "))
                }
            };
            Failure::usage(message)
        })?,
    };
    let key = key.as_ref().map_err(|problem| Failure::from(problem.clone()))?;
    Ok(clients::client_with(config, key)?)
}

/// What the API refused or could not be asked, with what to do about it.
pub fn refused(failure: event::Failure) -> Failure {
    use event::Failure as Kind;
    let remedy = match failure {
        Kind::Denied(message) => return run::denied(message),
        Kind::Barred(message) => return run::barred(message),
        Kind::Gone(_) => {
            "`gemini-batchd remote list --all` shows what is there for this key; --credential \
             chooses another one"
                .to_owned()
        }
        Kind::RateLimited { retry_after_ms: Some(pause_ms), .. } => {
            format!("wait for {} and try again", words::span(pause_ms))
        }
        Kind::RateLimited { .. } => "wait for a minute and try again".to_owned(),
        Kind::NotReady(_) => "try again when it is over: `gemini-batchd remote get NAME` shows \
                              how far it is"
            .to_owned(),
        Kind::Transient(_) | Kind::Ambiguous(_) | Kind::Damaged { .. } => {
            "try again; `gemini-batchd doctor` checks the way to the API".to_owned()
        }
        Kind::Rejected(_) => "check the name; the API never accepts this call as it is".to_owned(),
        Kind::Local(_) | Kind::Removed(_) => "check the disk, then try again".to_owned(),
    };
    Failure::new(ExitCode::Failed, anyhow::Error::msg(failure.message().to_owned()))
        .with_remedy(remedy)
}

/// What is not there for this key.
fn gone(name: &str) -> Failure {
    refused(event::Failure::Gone(format!("{name} is not there for this key")))
}

/// The batch a person names: `batches/x`, `x`, or `openai/batches/x`.
fn batch_name(text: &str) -> Result<BatchName, Failure> {
    let of_layer = text.strip_prefix(layer_batch::BATCHES).and_then(|id| id.strip_prefix('/'));
    let name = match of_layer {
        Some(id) => layer_name(id),
        None if text.contains('/') => wire::batch_name(text),
        None => wire::batch_name(&format!("batches/{text}")),
    };
    name.map_err(|_| not_a_name(text, "batch", "batches/x"))
}

/// The file a person names: `files/x` or `x`.
fn file_name(text: &str) -> Result<FileName, Failure> {
    let name = match text.contains('/') {
        true => wire::file_name(text),
        false => wire::file_name(&format!("files/{text}")),
    };
    name.map_err(|_| not_a_name(text, "file", "files/x"))
}

fn not_a_name(text: &str, kind: &str, like: &str) -> Failure {
    let text = wire::plain(text, 80);
    Failure::usage(format!("{text:?} is no name of a {kind}; one looks like {like}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_named_with_and_without_its_prefix_and_nothing_leads_elsewhere() {
        let name = |text| batch_name(text).ok().map(|name| name.0);
        assert_eq!(name("x-1").as_deref(), Some("batches/x-1"));
        assert_eq!(name("batches/x-1").as_deref(), Some("batches/x-1"));
        assert_eq!(name("openai/batches/b_1").as_deref(), Some("openai/batches/b_1"));
        for text in ["", "files/x", "batches/../files/x", "x?key=1", "openai/batches/a/b/c", ".."] {
            assert_eq!(name(text), None, "{text}");
        }
        assert_eq!(file_name("x").ok().map(|name| name.0).as_deref(), Some("files/x"));
        assert!(file_name("batches/x").is_err());
    }

    #[test]
    fn what_the_api_refuses_has_its_exit_code_and_a_remedy() {
        let code = |failure| {
            let failure = refused(failure);
            assert!(failure.remedy.is_some(), "{failure}");
            failure.code
        };
        let text = || "said".to_owned();
        assert_eq!(code(event::Failure::Denied(text())), ExitCode::Credentials);
        assert_eq!(code(event::Failure::Barred(text())), ExitCode::Configuration);
        assert_eq!(code(event::Failure::Gone(text())), ExitCode::Failed);
        let limited = event::Failure::RateLimited { retry_after_ms: Some(61_000), message: text() };
        assert!(refused(limited).to_string().contains("wait for 1 min"));
    }
}
