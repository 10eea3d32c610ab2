//! The dashboard in a headless Chromium: before a real daemon, and before ten thousand jobs.
//!
//! playwright-core is installed below `target/` when it is not there yet. Where Node, Chromium or
//! the package registry cannot be had a test says so and passes, unless
//! `GEMINI_BATCHD_REQUIRE_BROWSER=1` is set. Pictures of the page come into `target/browser/`.

#![expect(clippy::disallowed_methods, reason = "tests write plain files")]

mod install;

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use gemini_batchd::provider::gemini::emulator::{Options, start};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};

use install::own_path;

/// The row in README.md's table.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_shows_a_daemons_jobs_and_steers_them() {
    let Some(tools) = install::tools_or_skip() else { return };
    // Its clock stands still but when the script says so.
    let emulator = start(Options { speed: 0.0, ..Options::default() }).await.expect("started");
    let place = Place::new(&emulator.url());
    let mut daemon = Some(place.daemon().await);
    let mut script = tools.script("daemon.mjs");
    script.args([&tools.chromium, &PathBuf::from(place.url()), &place.spool(), &pictures()]);
    let mut node = script.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it runs");
    let mut answers = node.stdin.take().expect("piped");
    let mut lines = BufReader::new(node.stdout.take().expect("piped")).lines();
    let mut said = Vec::new();
    while let Some(line) = lines.next_line().await.expect("read") {
        match line.as_str() {
            "do: advance" => emulator.advance(Duration::from_secs(3600)),
            "do: stop" => stop(daemon.take().expect("it runs")).await,
            "do: start" => daemon = Some(place.daemon().await),
            _ => {
                said.push(line);
                continue;
            }
        }
        answers.write_all(b"done\n").await.expect("it listens");
    }
    let ended = node.wait().await.expect("ended");
    assert!(ended.success() && said.iter().any(|line| line == "all well"), "{said:?}");
    stop(daemon.take().expect("it runs")).await;
    emulator.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_jobs_are_paged_filtered_and_reached_by_keyboard() {
    let Some(tools) = install::tools_or_skip() else { return };
    let mut script = tools.script("many.mjs");
    script.args([&tools.chromium, &own_path("src/dashboard"), &pictures()]);
    let output = script.output().await.expect("it runs");
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    let (said, errors) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success() && said.contains("all well"), "{said}\n{errors}");
}

/// A spool, and the settings of a daemon with a page.
struct Place {
    folder: tempfile::TempDir,
    port: u16,
}

impl Place {
    fn new(emulator: &str) -> Place {
        let folder = tempfile::tempdir().expect("a temporary folder");
        // Nobody else takes a port so soon after the system has given it away.
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let settings = format!(
            "[spool]\ndir = {:?}\n[api]\nbase_url = {emulator:?}\nuncertain_window = \"1s\"\nbackoff_max = \"1s\"\n[control]\nlisten = \
             \"127.0.0.1:{port}\"\n[intake]\nsettle = \"0s\"\nrescan = \"200ms\"\n[poll]\nmin = \
             \"100ms\"\nmax = \"200ms\"\n[queue.default]\ndeliver_by = \"48h\"\n[price.\"gemini-2.5-flash\"]\noutput = 2.5\ninput = 0.3\n",
            folder.path().join("spool")
        );
        std::fs::write(folder.path().join("gemini-batchd.toml"), settings).expect("written");
        Place { folder, port }
    }

    fn spool(&self) -> PathBuf {
        self.folder.path().join("spool")
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}/", self.port)
    }

    /// One that answers.
    async fn daemon(&self) -> Child {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gemini-batchd"));
        command.env_clear().env("HOME", self.folder.path()).env("GEMINI_API_KEY", "any");
        command.current_dir(self.folder.path()).args(["run", "--log-level", "warn"]);
        let mut daemon = command.kill_on_drop(true).spawn().expect("it runs");
        while tokio::net::TcpStream::connect(("127.0.0.1", self.port)).await.is_err() {
            assert!(daemon.try_wait().expect("asked").is_none(), "the daemon ended");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        daemon
    }
}

async fn stop(mut daemon: Child) {
    let id = daemon.id().and_then(|id| i32::try_from(id).ok());
    let id = id.and_then(rustix::process::Pid::from_raw).expect("it runs");
    rustix::process::kill_process(id, rustix::process::Signal::TERM).expect("sent");
    assert!(daemon.wait().await.expect("ended").success());
}

/// Where pictures go.
fn pictures() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("../browser")
}
