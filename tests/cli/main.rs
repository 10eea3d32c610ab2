//! The binary as a user runs it: what it prints, and its exit codes.

#![expect(clippy::disallowed_methods, reason = "tests write plain files")]

mod adopting;
mod checking;
mod configuration;
mod day_to_day;
mod demo;
mod doctor;
mod emulating;
mod examples;
mod hooks;
mod interface;
mod linting;
mod looking;
mod nightly;
mod records;
mod remote;
mod report;
mod schedule;
mod service;
mod status;
mod steering;
mod submitting;
mod working;
mod world;

use std::path::{Path, PathBuf};

use assert_cmd::Command;

/// A folder to run in, with a spool of its own and nothing of the environment around.
struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    /// An empty one.
    fn new() -> Place {
        Place { folder: tempfile::tempdir().expect("a temporary folder") }
    }

    /// A path in it.
    fn path(&self, part: &str) -> PathBuf {
        self.folder.path().join(part)
    }

    /// Puts a file into it, whole at once.
    fn write(&self, part: &str, text: &str) {
        let path = self.path(part);
        std::fs::create_dir_all(path.parent().expect("below the folder")).expect("made");
        let aside = self.path("aside");
        std::fs::write(&aside, text).expect("written");
        std::fs::rename(aside, path).expect("renamed");
    }

    /// The binary, run in this place with the spool in `spool/`.
    fn run(&self, arguments: &[&str]) -> Command {
        let mut command = Command::from_std(self.std_command());
        command.args(arguments);
        command
    }

    /// The same, for a test that needs the process itself.
    fn std_command(&self) -> std::process::Command {
        let mut command = std::process::Command::new(binary());
        command
            .env_clear()
            .env("HOME", self.folder.path())
            .env("XDG_CONFIG_HOME", self.path("none"))
            .env("GEMINI_BATCHD__SPOOL__DIR", self.path("spool"))
            .current_dir(self.folder.path());
        command
    }
}

fn binary() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_gemini-batchd"))
}
