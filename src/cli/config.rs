//! `config check | show | explain | example`.

use std::io::Write;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::json;

use crate::config::{Config, Key, KeyProblem, Shown, as_file, example};
use crate::engine::job::{Queue, Task};
use crate::telemetry::escaped;

use super::{ExitCode, Failure, Globals, explain, print_json};

/// The verb.
#[derive(Debug, Args)]
pub struct ConfigVerb {
    /// What to do with it.
    #[command(subcommand)]
    pub action: Action,
}

/// What to do with the configuration.
#[derive(Debug, Clone, Subcommand)]
pub enum Action {
    /// Say whether the configuration is valid and a key is there; change nothing
    Check,
    /// Print every setting with the place it comes from
    Show,
    /// Print which queue a file in the inbox belongs to, and every setting that counts for it
    Explain {
        /// The file, there or not yet; a path in the inbox, or one counted from there
        path: PathBuf,
    },
    /// Print a commented file with every setting at its default
    Example,
}

impl ConfigVerb {
    /// Runs the verb.
    ///
    /// # Errors
    /// If the configuration, or the settings beside a file, are wrong (10) or there is no usable key (12, `check` only).
    pub fn run(&self, globals: &Globals, out: &mut dyn Write) -> Result<ExitCode, Failure> {
        match &self.action {
            Action::Check => check(&globals.load()?, globals.json, out)?,
            Action::Show if globals.json => show_json(&globals.load()?, out)?,
            Action::Show => show(&globals.load()?, out)?,
            Action::Explain { path } => explain::explain(path, globals, out)?,
            Action::Example => write!(out, "{}", example())?,
        }
        Ok(ExitCode::Complete)
    }
}

fn check(config: &Config, json: bool, out: &mut dyn Write) -> Result<(), Failure> {
    let keys = config.keys_needed()?;
    let file = config.file.as_ref().map(|path| path.display().to_string());
    if json {
        let inbox = config.folders.inbox.display().to_string();
        let of = |name: &str| {
            keys.iter().find(|(of, _)| of == name).map(|(_, key)| key.source.to_string())
        };
        let named: serde_json::Map<String, serde_json::Value> = keys
            .iter()
            .filter(|(name, _)| !name.is_empty())
            .map(|(name, key)| (name.clone(), key.source.to_string().into()))
            .collect();
        let queue = |queue: &Queue| json!({"name": queue.name, "model": queue.model, "task": word(queue.task)});
        let queues: Vec<_> = config.queues.values().map(queue).collect();
        let mut said = json!({
            "valid": true, "file": file, "key": of(""), "inbox": inbox, "queues": queues,
        });
        if !named.is_empty() {
            said["credentials"] = named.into();
        }
        print_json(out, &said)?;
        return Ok(());
    }
    writeln!(out, "configuration: valid ({})", file.as_deref().unwrap_or("no file, all defaults"))?;
    for (name, key) in keys {
        match name.as_str() {
            "" => writeln!(out, "API key:       from {}", key.source)?,
            name => writeln!(out, "credential:    {name}, from {}", key.source)?,
        }
    }
    writeln!(out, "inbox:         {}", config.folders.inbox.display())?;
    writeln!(out, "outbox:        {}", config.folders.outbox.display())?;
    for queue in config.queues.values() {
        let (name, model, task) = (escaped(&queue.name), &queue.model, word(queue.task));
        let defaults = if queue.defaults.is_some() { ", with defaults" } else { "" };
        writeln!(out, "queue:         {name}: {task}, {model}{defaults}")?;
    }
    Ok(())
}

fn word(task: Task) -> &'static str {
    match task {
        Task::Generate => "generate",
        Task::Embed => "embed",
    }
}

fn show(config: &Config, out: &mut dyn Write) -> std::io::Result<()> {
    write!(out, "{}", as_file(&config.shown))?;
    writeln!(out, "\n# {}", key_line("API key", &config.api.key))?;
    for (name, key) in &config.credentials {
        writeln!(out, "# {}", key_line(&format!("credential {name}"), key))?;
    }
    writeln!(out, "# inbox: {}", config.folders.inbox.display())?;
    writeln!(out, "# control socket: {}", config.control.socket.display())
}

fn show_json(config: &Config, out: &mut dyn Write) -> std::io::Result<()> {
    let one = |shown: &Shown| {
        let origin = shown.origin.to_string();
        json!({"section": shown.section, "key": shown.key, "value": shown.value, "from": origin})
    };
    let settings: Vec<serde_json::Value> = config.shown.iter().map(one).collect();
    let key = config.api.key.as_ref().ok().map(|key| key.source.to_string());
    print_json(out, &json!({"settings": settings, "api_key_from": key}))
}

/// Where the key comes from; never the key.
fn key_line(what: &str, key: &Result<Key, KeyProblem>) -> String {
    match key {
        Ok(key) => format!("{what}: from {}", key.source),
        Err(problem) => format!("{what}: {problem}"),
    }
}
