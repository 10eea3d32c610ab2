//! A spool in a temporary folder, an emulator, and daemons that are started and killed on them.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixDatagram, UnixStream};
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
    /// On another file system.
    elsewhere: Option<TempDir>,
    settings: Vec<String>,
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
        let settings = settings.iter().map(|line| (*line).to_owned()).collect();
        let rig = Rig { folder, elsewhere: None, settings, emulator };
        rig.configure(&[]);
        rig
    }

    /// Moves folders of the spool to another file system, for daemons to come.
    pub fn put_elsewhere(&mut self, folders: &[&str]) {
        let elsewhere = tempfile::tempdir_in("/dev/shm").expect("memory that looks like a disk");
        let device = |path: &Path| fs::metadata(path).expect("there").dev();
        assert_ne!(device(elsewhere.path()), device(self.folder.path()), "it is another one");
        for name in folders {
            let path = elsewhere.path().join(name);
            fs::create_dir(&path).expect("made");
            self.settings.push(format!("spool.{name} = {path:?}"));
        }
        self.elsewhere = Some(elsewhere);
        self.configure(&[]);
    }

    /// The file system that folders were moved to, if any were.
    pub fn elsewhere(&self) -> Option<&Path> {
        self.elsewhere.as_ref().map(TempDir::path)
    }

    /// Writes the configuration for daemons to come, with more settings than it had at first.
    pub fn configure(&self, more: &[&str]) {
        let base = [
            format!("api.base_url = {:?}", self.emulator.url()),
            format!("spool.dir = {:?}", self.spool()),
        ];
        let always = LIMITS.iter().map(|line| (*line).to_owned());
        let own = self.settings.iter().cloned();
        let more = more.iter().map(|line| (*line).to_owned());
        let lines = base.into_iter().chain(always).chain(own).chain(more);
        let text = lines.fold(String::new(), |text, line| text + &line + "\n");
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
        let elsewhere = self.elsewhere().map(|path| path.join("inbox"));
        let inbox = elsewhere.filter(|path| path.is_dir());
        let inbox = inbox.unwrap_or_else(|| self.spool().join("inbox"));
        let target = inbox.join(name);
        fs::create_dir_all(target.parent().expect("a folder")).expect("made");
        let aside = inbox.join(".dropped.part");
        fs::write(&aside, content).expect("written");
        let old = SystemTime::now() - Duration::from_secs(60);
        File::open(&aside).and_then(|file| file.set_modified(old)).expect("aged");
        fs::rename(&aside, &target).expect("dropped");
    }

    /// The binary, to be run on this spool: the key in the environment, and nothing else there.
    pub fn command(&self, arguments: &[&str]) -> Command {
        // A long campaign takes a copy, so that another can be built meanwhile.
        let binary = std::env::var_os("CRASH_BINARY");
        let binary = binary.unwrap_or_else(|| env!("CARGO_BIN_EXE_gemini-batchd").into());
        let mut command = Command::new(binary);
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
                    .unwrap_or_else(|_| "info,gemini_batchd=debug,failpoint=trace".to_owned()),
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

    /// The jobs under way whose input has this name.
    pub fn jobs_of(&self, name: &str) -> Vec<String> {
        let jobs = fs::read_dir(self.spool().join("working")).into_iter().flatten().flatten();
        let is_it = |job: &fs::DirEntry| job.path().join("input").join(name).is_file();
        jobs.filter(is_it).map(|job| job.file_name().to_string_lossy().into_owned()).collect()
    }

    /// The jobs that wait for a person to decide about a create without an answer.
    pub fn held_jobs(&self) -> Vec<String> {
        let (mut jobs, mut folders) = (Vec::new(), vec![self.spool().join("held")]);
        let is_hidden = |entry: &fs::DirEntry| entry.file_name().as_encoded_bytes()[0] == b'.';
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                // A note may be gone as soon as it was listed.
                let text = fs::read(entry.path()).unwrap_or_default();
                let note = serde_json::from_slice(&text).unwrap_or(serde_json::Value::Null);
                if entry.path().is_dir() {
                    folders.push(entry.path());
                } else if note["reason"] == "uncertain" && !is_hidden(&entry) {
                    // One that is being replaced lies there twice for a moment.
                    jobs.push(note["job"].as_str().expect("an id").to_owned());
                }
            }
        }
        jobs
    }

    /// Whether a daemon listens to operators.
    pub fn listens(&self) -> bool {
        UnixStream::connect(self.spool().join("state/gemini-batchd.sock")).is_ok()
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
    /// It was asked to end before it listened.
    pub const TERMINATED: End = End::Killed(Signal::TERM.as_raw());

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

    /// Sends a signal to one that may have ended.
    pub fn try_signal(&self, signal: Signal) {
        let _ = rustix::process::kill_process(Pid::from_child(&self.child), signal);
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

    /// Waits so long at most; answers whether it has ended.
    pub fn ends_within(&mut self, patience: Duration) -> bool {
        let begun = Instant::now();
        while self.runs() && begun.elapsed() < patience {
            std::thread::sleep(Duration::from_millis(2));
        }
        !self.runs()
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
    /// Listens at this path.
    pub fn at(path: &Path) -> Notices {
        drop(fs::remove_file(path));
        let socket = UnixDatagram::bind(path).expect("a socket");
        socket.set_read_timeout(Some(PATIENCE)).expect("set");
        Notices { socket }
    }

    /// Whether it says nothing for so long, once everything is heard that it had said.
    pub fn are_over_for(&self, silence: Duration) -> bool {
        self.socket.set_read_timeout(Some(silence)).expect("set");
        (0..100).any(|_| self.socket.recv(&mut [0; 4096]).is_err())
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
const PATIENCE: Duration = Duration::from_secs(300);

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
