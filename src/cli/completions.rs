//! `completions` and `man`: what a shell and a reader want to know of the command line.

use std::io::Write;

use clap::{Args, CommandFactory, ValueEnum};

use super::{Cli, ExitCode, Failure};

/// The verb `completions`.
#[derive(Debug, Args)]
pub struct Completions {
    /// The shell they are for
    pub shell: Shell,
}

/// The shells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Shell {
    /// Put into ~/.local/share/bash-completion/completions/gemini-batchd
    Bash,
    /// Put into a folder of $fpath, as _gemini-batchd
    Zsh,
    /// Put into ~/.config/fish/completions/gemini-batchd.fish
    Fish,
}

/// The verb `man`.
#[derive(Debug, Args)]
pub struct Man {
    /// The page of this verb [default: that of the program]
    pub verb: Option<String>,
}

impl Completions {
    /// Runs the verb.
    ///
    /// # Errors
    /// If they can not be written.
    pub fn run(&self, out: &mut dyn Write) -> Result<ExitCode, Failure> {
        let shell = match self.shell {
            Shell::Bash => clap_complete::Shell::Bash,
            Shell::Zsh => clap_complete::Shell::Zsh,
            Shell::Fish => clap_complete::Shell::Fish,
        };
        // The generator panics where it can not write; so it writes into memory.
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut Cli::command(), NAME, &mut script);
        out.write_all(&script)?;
        Ok(ExitCode::Complete)
    }
}

impl Man {
    /// Runs the verb.
    ///
    /// # Errors
    /// If there is no such verb, or the page can not be written.
    pub fn run(&self, out: &mut dyn Write) -> Result<ExitCode, Failure> {
        let mut program = Cli::command();
        program.build();
        let Some(verb) = &self.verb else {
            clap_mangen::Man::new(program).render(out)?;
            return Ok(ExitCode::Complete);
        };
        let Some(found) = program.find_subcommand(verb) else {
            return Err(Failure::usage(format!("there is no verb {verb:?}"))
                .with_remedy("`gemini-batchd --help` lists them"));
        };
        clap_mangen::Man::new(found.clone()).render(out)?;
        Ok(ExitCode::Complete)
    }
}

const NAME: &str = "gemini-batchd";
