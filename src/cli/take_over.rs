//! `take-over`: a state that came from another machine is to be used on this one.
//!
//! It is said by a person, who alone knows that the other machine does not go on with it. Nothing
//! else is changed; the next start looks for whatever may have been sent meanwhile.

use std::io::Write;

use clap::Args;

use crate::store::instance;
use crate::store::lock::StateLock;

use super::{ExitCode, Failure, Globals};

/// The verb.
#[derive(Debug, Args)]
pub struct TakeOver {}

impl TakeOver {
    /// Runs the verb.
    ///
    /// # Errors
    /// If there is no state, a daemon is running on it, or it can not be written.
    pub fn run(&self, globals: &Globals, out: &mut dyn Write) -> Result<ExitCode, Failure> {
        let state = globals.load()?.folders.state;
        if !state.is_dir() {
            let message = format!("there is no state in {}", state.display());
            return Err(Failure::new(ExitCode::NothingToDo, anyhow::Error::msg(message)));
        }
        let _lock = StateLock::take(&state)?;
        instance::take_over(&state)?;
        writeln!(out, "{} belongs to this machine now; start the daemon", state.display())?;
        Ok(ExitCode::Complete)
    }
}
