//! The program that is measured, with a spool of its own.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::Bench;
use super::process::{Running, Server, Taken, measured, measured_with};

/// A spool and how its daemon is set up.
pub struct Spool {
    /// Its folder.
    pub path: PathBuf,
    binary: PathBuf,
    url: String,
    settings: Vec<(String, String)>,
}

impl Spool {
    /// An empty spool for a daemon that speaks to a server. The API is polled every 100 ms.
    ///
    /// # Errors
    /// If it can not be made.
    pub fn new(bench: &Bench, name: &str, server: &Server) -> Result<Spool, String> {
        let path = bench.folder(name)?;
        fs::create_dir(path.join("inbox")).map_err(|error| error.to_string())?;
        let spool = Spool {
            path,
            binary: bench.binary.clone(),
            url: server.url.clone(),
            settings: Vec::new(),
        };
        Ok(spool
            .with("POLL__MIN", "100ms")
            .with("POLL__MAX", "1s")
            .with("INTAKE__SETTLE", "0s")
            .with("INTAKE__DUPLICATES", "process"))
    }

    /// The same with a setting, as the environment spells it.
    pub fn with(mut self, name: &str, value: &str) -> Spool {
        self.settings.retain(|(known, _)| known != name);
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }

    /// A verb on this spool.
    pub fn command(&self, verb: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        // Only what stands here counts, whoever measures.
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy().into_owned();
            if name.starts_with("GEMINI") || name.starts_with("GOOGLE") || name == "RUST_LOG" {
                command.env_remove(name);
            }
        }
        command.env("GEMINI_API_KEY", "any").env("GEMINI_BATCHD__API__BASE_URL", &self.url);
        for (name, value) in &self.settings {
            command.env(format!("GEMINI_BATCHD__{name}"), value);
        }
        command.arg("--spool").arg(&self.path).args(verb);
        command
    }

    /// Puts a file into the inbox without copying it.
    ///
    /// # Errors
    /// If it can not be linked.
    pub fn drop_in(&self, file: &Path, name: &str) -> Result<(), String> {
        fs::hard_link(file, self.path.join("inbox").join(name)).map_err(|error| error.to_string())
    }

    /// Drains the inbox and measures it.
    ///
    /// # Errors
    /// If the program fails.
    pub fn once(&self) -> Result<Taken, String> {
        measured(&mut self.command(&["once"]))
    }

    /// The same for a file with lines that can not be answered.
    ///
    /// # Errors
    /// If the program fails.
    pub fn once_or_partial(&self) -> Result<Taken, String> {
        measured_with(&mut self.command(&["once"]), &[0, PARTIAL])
    }

    /// Starts the daemon, and waits until it can be spoken to.
    ///
    /// # Errors
    /// If it does not get there within a minute.
    pub fn run(&self) -> Result<Running, String> {
        let log = fs::File::create(self.path.join("log")).map_err(|error| error.to_string())?;
        let mut command = self.command(&["run"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let spawned = command.spawn().map_err(|error| format!("{command:?}: {error}"))?;
        let mut running = Running(spawned);
        let socket = self.path.join("state/gemini-batchd.sock");
        let mut ended = false;
        let there = wait_until(Duration::from_secs(60), || {
            ended = running.0.try_wait().is_ok_and(|status| status.is_some());
            ended || UnixStream::connect(&socket).is_ok()
        });
        if there && !ended {
            return Ok(running);
        }
        let log = fs::read_to_string(self.path.join("log")).unwrap_or_default();
        Err(format!("the daemon did not start: {}", log.lines().last().unwrap_or_default()))
    }

    /// Whether the job of `STEM.jsonl` is complete, with so many answers.
    ///
    /// # Errors
    /// If it is not.
    pub fn check(&self, stem: &str, answers: u64) -> Result<(), String> {
        let path = self.path.join("outbox").join(format!("{stem}.manifest.json"));
        let manifest = fs::read_to_string(&path).map_err(|_| format!("no manifest of {stem}"))?;
        match manifest.contains(&format!("\"answered\": {answers},")) {
            true => Ok(()),
            false => Err(format!("{stem} does not have {answers} answers: {manifest}")),
        }
    }

    /// How many manifests lie in the outbox.
    pub fn manifests(&self) -> usize {
        let Ok(entries) = fs::read_dir(self.path.join("outbox")) else { return 0 };
        let names = entries.flatten().map(|entry| entry.file_name());
        names.filter(|name| name.to_string_lossy().ends_with(".manifest.json")).count()
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.path));
    }
}

/// The exit code of a job some of whose lines failed.
const PARTIAL: i32 = 3;

/// Looks every millisecond until something is so; `false` if it takes too long.
pub fn wait_until(most: Duration, mut so: impl FnMut() -> bool) -> bool {
    let began = Instant::now();
    while !so() {
        if began.elapsed() > most {
            return false;
        }
        thread::sleep(Duration::from_millis(1));
    }
    true
}
