//! A program that is told: started by its path with its arguments, no shell between.
//!
//! It gets the facts as environment and as JSON on its standard input. It inherits where programs
//! lie, the home folder and the language, and nothing else: no key is handed on. It leads a process
//! group of its own, which is killed when its time is over or we end, whatever it has started. Of
//! its output the beginning is kept and the rest thrown away, however much it is.

use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;
use tokio::time::timeout;

use super::message::Told;

/// How a program ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Why that was not well, if so.
    pub problem: Option<String>,
    /// It asks to be started again later, or could not be started.
    pub again: bool,
    /// The beginning of what it wrote.
    pub output: String,
}

/// Runs a program with its arguments to its end.
pub async fn run(words: &[String], told: &Told, patience: Duration) -> Ended {
    let Some((program, arguments)) = words.split_first() else {
        let problem = Some("there is no program".to_owned());
        return Ended { problem, again: false, output: String::new() };
    };
    let mut command = Command::new(program);
    command.args(arguments).env_clear().envs(inherited()).envs(told.environment());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.process_group(0).kill_on_drop(true).current_dir("/");
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => {
            let problem = Some(format!("it cannot be started: {error}"));
            return Ended { problem, again: true, output: String::new() };
        }
    };
    let group = Group::of(child.id());
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let mut json = told.json();
    json.push(b'\n');
    let feed = async move {
        if let Some(mut stdin) = stdin {
            // Whoever does not want to read it need not.
            drop(stdin.write_all(&json).await);
        }
    };
    // Both in one text, each cut on its own: neither can drown the other.
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let work = async {
        let talk = async { tokio::join!(feed, skim(stdout, &mut out), skim(stderr, &mut err)) };
        let wait = async {
            let ended = child.wait().await;
            // What it started may hold its output open.
            tokio::time::sleep(LAST_OUTPUT).await;
            ended
        };
        tokio::pin!(talk, wait);
        tokio::select! {
            ended = &mut wait => ended,
            _ = &mut talk => wait.await,
        }
    };
    let ended = timeout(patience, work).await;
    drop(group);
    let (problem, again) = match ended {
        Ok(Ok(status)) => judge(status),
        Ok(Err(error)) => (Some(format!("it was lost: {error}")), true),
        Err(_) => {
            (Some(format!("it took more than {} s and was killed", patience.as_secs_f64())), false)
        }
    };
    let output = [out, err].concat();
    Ended { problem, again, output: String::from_utf8_lossy(&output).trim().to_owned() }
}

fn judge(status: ExitStatus) -> (Option<String>, bool) {
    match status.code() {
        Some(0) => (None, false),
        Some(TRY_AGAIN) => (Some(format!("it asks to be tried again ({status})")), true),
        Some(_) | None => (Some(format!("it ended badly ({status})")), false),
    }
}

/// What programs need of our environment; the rest is nobody's business.
fn inherited() -> impl Iterator<Item = (String, String)> {
    let plain = |name: &str| INHERITED.contains(&name) || name.starts_with("LC_");
    std::env::vars().filter(move |(name, _)| plain(name))
}

/// Reads to the end and keeps the beginning.
async fn skim(from: Option<impl AsyncRead + Unpin>, kept: &mut Vec<u8>) {
    let Some(mut from) = from else { return };
    let mut block = [0; 4096];
    while let Ok(count @ 1..) = from.read(&mut block).await {
        let room = OUTPUT_BYTES_MAX.saturating_sub(kept.len());
        kept.extend_from_slice(&block[..count.min(room)]);
    }
}

/// A process group that is killed when this goes.
struct Group(Option<Pid>);

impl Group {
    fn of(leader: Option<u32>) -> Group {
        Group(leader.and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?)))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = self.0 {
            // Most of the time nobody is left in it.
            let _ = kill_process_group(leader, Signal::KILL);
        }
    }
}

/// `EX_TEMPFAIL` of sysexits.h.
const TRY_AGAIN: i32 = 75;
/// What is kept of each of the two outputs, bytes.
const OUTPUT_BYTES_MAX: usize = 512;
/// How long output is waited for after the program has ended.
const LAST_OUTPUT: Duration = Duration::from_millis(100);
/// Variables that are handed on, with those of the language.
const INHERITED: &[&str] = &["PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "TZ", "TMPDIR"];
