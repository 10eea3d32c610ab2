//! `config check | show | example`.

use std::io::Write;

use clap::{Args, Subcommand};
use serde_json::json;

use crate::config::{Config, Shown, as_file, example};

use super::{ExitCode, Failure, Globals, print_json};

/// The verb.
#[derive(Debug, Args)]
pub struct ConfigVerb {
    /// What to do with it.
    #[command(subcommand)]
    pub action: Action,
}

/// What to do with the configuration.
#[derive(Debug, Clone, Copy, Subcommand)]
pub enum Action {
    /// Say whether the configuration is valid and a key is there; change nothing
    Check,
    /// Print every setting with the place it comes from
    Show,
    /// Print a commented file with every setting at its default
    Example,
}

impl ConfigVerb {
    /// Runs the verb.
    ///
    /// # Errors
    /// If the configuration is wrong (10) or there is no usable key (12, `check` only).
    pub fn run(&self, globals: &Globals, out: &mut dyn Write) -> Result<ExitCode, Failure> {
        match self.action {
            Action::Check => check(&globals.load()?, globals.json, out)?,
            Action::Show if globals.json => show_json(&globals.load()?, out)?,
            Action::Show => show(&globals.load()?, out)?,
            Action::Example => write!(out, "{}", example())?,
        }
        Ok(ExitCode::Complete)
    }
}

fn check(config: &Config, json: bool, out: &mut dyn Write) -> Result<(), Failure> {
    let key = config.api.key.as_ref().map_err(Clone::clone)?;
    let file = config.file.as_ref().map(|path| path.display().to_string());
    if json {
        let inbox = config.folders.inbox.display().to_string();
        let source = key.source.to_string();
        print_json(out, &json!({"valid": true, "file": file, "key": source, "inbox": inbox}))?;
        return Ok(());
    }
    writeln!(out, "configuration: valid ({})", file.as_deref().unwrap_or("no file, all defaults"))?;
    writeln!(out, "API key:       from {}", key.source)?;
    writeln!(out, "inbox:         {}", config.folders.inbox.display())?;
    writeln!(out, "outbox:        {}", config.folders.outbox.display())?;
    Ok(())
}

fn show(config: &Config, out: &mut dyn Write) -> std::io::Result<()> {
    write!(out, "{}", as_file(&config.shown))?;
    writeln!(out, "\n# {}", key_line(config))?;
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
fn key_line(config: &Config) -> String {
    match &config.api.key {
        Ok(key) => format!("API key: from {}", key.source),
        Err(problem) => format!("API key: {problem}"),
    }
}
