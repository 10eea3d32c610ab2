//! `hooks test`: whoever is to be told is told once, with an example.
//!
//! It needs no daemon and leaves nothing behind.

use std::io::Write;

use clap::{Args, Subcommand};

use crate::clock::{Clock, SystemClock};
use crate::config::Occasion;
use crate::daemon::hooks;
use crate::telemetry::escaped;

use super::{ExitCode, Failure, Globals, print_json, runtime};

/// The verb.
#[derive(Debug, Args)]
pub struct Hooks {
    #[command(subcommand)]
    verb: HooksVerb,
}

/// What can be done with hooks.
#[derive(Debug, Subcommand)]
enum HooksVerb {
    /// Call a hook, or all that are set, with an example
    Test {
        /// Which: on_done, on_partial, on_failed, on_held, on_stuck, on_report or on_late
        #[arg(value_name = "HOOK", value_parser = occasion)]
        hook: Option<Occasion>,
    },
}

impl Hooks {
    /// Runs the verb: 0 if all were told, 1 if one was not, 4 if none is set.
    ///
    /// # Errors
    /// If the configuration is wrong, or nothing can be sent from this machine.
    pub fn run(&self, globals: &Globals, out: &mut dyn Write) -> Result<ExitCode, Failure> {
        let HooksVerb::Test { hook } = &self.verb;
        let config = globals.load()?;
        let mut calls = config.hooks.calls.clone();
        calls.retain(|occasion, _| hook.is_none_or(|wanted| wanted == *occasion));
        if calls.is_empty() {
            let message = match hook {
                Some(hook) => format!("hooks.{} is not set", hook.key()),
                None => "no hook is set in [hooks]".to_owned(),
            };
            return Err(Failure::new(ExitCode::NothingToDo, anyhow::Error::msg(message)));
        }
        let (mut code, mut told) = (ExitCode::Complete, Vec::new());
        for (occasion, call) in &calls {
            let tried = hooks::try_out(&config.hooks, *occasion, call, SystemClock.now());
            let came = runtime()?.block_on(tried);
            let (fine, text) = match came {
                Ok(output) if output.is_empty() => (true, "told".to_owned()),
                Ok(output) => (true, format!("told: {output}")),
                Err(why) => (false, why),
            };
            if !fine {
                code = ExitCode::Failed;
            }
            let (key, call) = (occasion.key(), call.to_string());
            if globals.json {
                told.push(serde_json::json!({"hook": key, "call": call, "ok": fine, "text": text}));
            } else {
                writeln!(out, "{key}: {}: {}", escaped(&call), escaped(&text))?;
            }
        }
        if globals.json {
            print_json(out, &told)?;
        }
        Ok(code)
    }
}

fn occasion(text: &str) -> Result<Occasion, String> {
    let known: Vec<&str> = Occasion::ALL.iter().map(|occasion| occasion.key()).collect();
    Occasion::of(text).ok_or_else(|| format!("known are {}", known.join(", ")))
}
