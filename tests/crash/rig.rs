//! A spool in a temporary folder, an emulator, and daemons that are started and killed on them.

use std::fs::{self, File};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant, SystemTime};

use gemini_batchd::provider::gemini::emulator::{self, Emulator, Faults, Happened, Options};
use rustix::process::{Pid, Signal};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// Everything a test needs; each test has its own.
pub struct Rig {
    folder: TempDir,
    pub emulator: Emulator,
}

impl Rig {
    /// A spool with these settings, each `section.key = value`, and an emulator with these faults.
    pub fn new(faults: Faults, settings: &[&str]) -> Rig {
        let emulator = RUNTIME.block_on(emulator::start(options(faults)));
        let folder = tempfile::tempdir().expect("a temporary folder");
        Rig::around(emulator.expect("the emulator starts"), folder, settings)
    }

    /// The same around an emulator that runs, in a folder that is there.
    pub fn around(emulator: Emulator, folder: TempDir, settings: &[&str]) -> Rig {
        let rig = Rig { folder, emulator };
        rig.configure(settings);
        rig
    }

    /// Writes the configuration for daemons to come.
    pub fn configure(&self, settings: &[&str]) {
        let base = [
            format!("api.base_url = {:?}", self.emulator.url()),
            format!("spool.dir = {:?}", self.spool()),
        ];
        let more = LIMITS.iter().chain(settings).map(|line| (*line).to_owned());
        let text =
            base.into_iter().chain(more).fold(String::new(), |text, line| text + &line + "\n");
        fs::write(self.aside("gemini-batchd.toml"), text).expect("written");
    }

    /// The spool.
    pub fn spool(&self) -> PathBuf {
        self.aside("spool")
    }

    /// A path beside the spool.
    pub fn aside(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Puts a file into the inbox, complete at once.
    pub fn drop_file(&self, name: &str, content: impl AsRef<[u8]>) {
        let target = self.spool().join("inbox").join(name);
        let aside = self.aside("dropped");
        fs::create_dir_all(target.parent().expect("a folder")).expect("made");
        fs::write(&aside, content).expect("written");
        let old = SystemTime::now() - Duration::from_secs(60);
        File::open(&aside).and_then(|file| file.set_modified(old)).expect("aged");
        fs::rename(&aside, &target).expect("dropped");
    }

    /// The binary, to be run on this spool: the key in the environment, and nothing else there.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gemini-batchd"));
        command.arg("--config").arg(self.aside("gemini-batchd.toml")).args(arguments);
        self.prepare(&mut command);
        command
    }

    /// Gives a command this rig's surroundings.
    pub fn prepare(&self, command: &mut Command) {
        let log = File::options().create(true).append(true).open(self.aside("log"));
        command
            .env_clear()
            .env("HOME", self.folder.path())
            .env("GEMINI_API_KEY", KEY)
            .env(
                "RUST_LOG",
                std::env::var("CRASH_LOG")
                    .unwrap_or_else(|_| "info,gemini_batchd=debug".to_owned()),
            )
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log.expect("a log"));
    }

    /// Starts a drain that dies at the given points.
    pub fn start_once(&self, failpoints: &str) -> Daemon {
        Daemon::start(self.command(&["once"]).env("FAILPOINTS", failpoints))
    }

    /// Drains, and dies at the given points if it reaches them.
    pub fn once(&self, failpoints: &str) -> End {
        self.start_once(failpoints).end()
    }

    /// Drains to the end.
    pub fn drain(&self) {
        let end = self.once("");
        assert!(matches!(end, End::Exited(_)), "{end:?}\n{}", self.log());
    }

    /// Starts the daemon, and comes back when it says that it is ready.
    pub fn run(&self, failpoints: &str) -> (Daemon, Notices) {
        let notices = Notices::at(&self.aside("notify"));
        let mut command = self.command(&["run"]);
        command.env("FAILPOINTS", failpoints).env("NOTIFY_SOCKET", self.aside("notify"));
        let daemon = Daemon::start(&mut command);
        notices.wait_for("READY=1");
        (daemon, notices)
    }

    /// Whether an effect was begun.
    pub fn has_begun(&self, effect: &str) -> bool {
        let kind = format!("effect{{kind={effect} ");
        self.log().lines().any(|line| line.contains(&kind) && line.ends_with("begun"))
    }

    /// Display names and rows of the batches that were made, oldest first.
    pub fn created(&self) -> Vec<(String, u64)> {
        let created = |what| match what {
            Happened::Created { display_name, rows, .. } => Some((display_name, rows)),
            _ => None,
        };
        self.emulator.journal().into_iter().filter_map(|entry| created(entry.what)).collect()
    }

    /// What the daemons have logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.aside("log")).unwrap_or_default()
    }
}

/// A daemon that runs; it is killed if a test fails meanwhile.
pub struct Daemon {
    child: Child,
}

/// How a daemon ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// By itself, with this code.
    Exited(i32),
    /// By this signal.
    Killed(i32),
}

impl End {
    /// It died at a failpoint.
    pub const ABORTED: End = End::Killed(Signal::ABORT.as_raw());
    /// It was killed from outside.
    pub const KILLED: End = End::Killed(Signal::KILL.as_raw());

    fn of(status: ExitStatus) -> End {
        match (status.code(), status.signal()) {
            (Some(code), _) => End::Exited(code),
            (None, signal) => End::Killed(signal.unwrap_or_default()),
        }
    }
}

impl Daemon {
    /// Starts it.
    pub fn start(command: &mut Command) -> Daemon {
        Daemon { child: command.spawn().expect("the binary starts") }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        rustix::process::kill_process(Pid::from_child(&self.child), signal).expect("it runs");
    }

    /// Kills it as `kill -9` does; it may have ended before.
    pub fn kill(mut self) -> End {
        self.child.kill().expect("killed");
        self.end()
    }

    /// Whether it still runs.
    pub fn runs(&mut self) -> bool {
        self.child.try_wait().expect("asked").is_none()
    }

    /// Waits for its end.
    pub fn end(mut self) -> End {
        let mut status = None;
        eventually("the daemon ends", || {
            status = self.child.try_wait().expect("asked");
            status.is_some()
        });
        End::of(status.expect("it ended"))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // One that has ended does not mind.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// What a daemon tells its service manager.
pub struct Notices {
    socket: UnixDatagram,
}

impl Notices {
    fn at(path: &Path) -> Notices {
        drop(fs::remove_file(path));
        let socket = UnixDatagram::bind(path).expect("a socket");
        socket.set_read_timeout(Some(PATIENCE)).expect("set");
        Notices { socket }
    }

    /// Waits until it has said this.
    pub fn wait_for(&self, state: &str) {
        let mut said = [0; 4096];
        loop {
            let len =
                self.socket.recv(&mut said).unwrap_or_else(|error| panic!("{state}: {error}"));
            if String::from_utf8_lossy(&said[..len]).lines().any(|line| line == state) {
                return;
            }
        }
    }
}

/// Waits for a fact.
pub fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// One request in form 1.
pub fn request(key: &str, text: &str) -> String {
    let contents = serde_json::json!([{"role": "user", "parts": [{"text": text}]}]);
    format!("{}\n", serde_json::json!({"key": key, "request": {"contents": contents}}))
}

/// `count` requests keyed `k1`, `k2`, …; two lines that are none stand among them.
pub fn requests(count: usize) -> String {
    let bad = ["{\"key\": \"torn\", \"request\": {\"conte\n", "[1, 2]\n"];
    let line = |n: usize| {
        let bad = if n.is_multiple_of(13) { bad.get(n / 13 - 1).copied() } else { None };
        bad.unwrap_or_default().to_owned() + &request(&format!("k{n}"), &format!("question {n}"))
    };
    (1..=count).map(line).collect()
}

/// How emulators behave in these tests: in a hurry.
pub fn options(faults: Faults) -> Options {
    Options {
        faults,
        pending_for: Duration::from_millis(15),
        running_for: Duration::from_millis(15),
        cancel_for: Duration::from_millis(10),
        granularity: 1024,
        ..Options::default()
    }
}

/// The runtime of all emulators.
pub static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().expect("a runtime"));

/// The key that tests use; no real one looks like it.
pub const KEY: &str = "marker-key-of-the-crash-tests";

/// Longer than anything here takes, on the slowest machine.
const PATIENCE: Duration = Duration::from_secs(60);

const LIMITS: [&str; 8] = [
    "api.backoff_min = \"5ms\"",
    "api.backoff_max = \"50ms\"",
    "api.uncertain_window = \"400ms\"",
    "poll.min = \"10ms\"",
    "poll.max = \"20ms\"",
    "intake.settle = \"0s\"",
    "intake.watch = \"poll\"",
    "intake.rescan = \"50ms\"",
];
