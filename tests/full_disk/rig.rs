//! A spool on a small disk, an emulator, and a daemon that is started again whenever it ends, as a
//! service manager does it.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant, SystemTime};

use gemini_batchd::provider::gemini::emulator::{self, Emulator, Faults, Happened, Options};
use rustix::process::{Pid, Signal};
use serde_json::Value;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::disk::Disk;

/// Everything a test needs; each test has its own.
pub struct Rig {
    folder: TempDir,
    pub disk: Disk,
    pub emulator: Emulator,
}

impl Rig {
    /// A spool on a disk that is mounted like this; `None`, said aloud, where none can be had.
    pub fn on(how: &str, faults: Faults, settings: &[&str]) -> Option<Rig> {
        match Rig::try_on(how, faults, settings) {
            Ok(rig) => Some(rig),
            Err(why) => {
                assert!(std::env::var_os("CI").is_none(), "no disk can be mounted: {why}");
                eprintln!("SKIPPED: no disk can be mounted: {why}");
                None
            }
        }
    }

    /// The same, for a disk that need not be there.
    pub fn try_on(how: &str, faults: Faults, settings: &[&str]) -> Result<Rig, String> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let place = folder.path().join("disk");
        fs::create_dir(&place).expect("made");
        let disk = Disk::mount(&place, how)?;
        let options = Options {
            faults,
            pending_for: Duration::from_millis(15),
            running_for: Duration::from_millis(15),
            cancel_for: Duration::from_millis(10),
            granularity: 1024,
            ..Options::default()
        };
        let emulator = RUNTIME.block_on(emulator::start(options)).expect("the emulator starts");
        let rig = Rig { folder, disk, emulator };
        let base = [
            format!("api.base_url = {:?}", rig.emulator.url()),
            format!("spool.dir = {:?}", rig.disk.inside.join("spool")),
            format!("control.socket = {:?}", rig.aside("socket")),
        ];
        let more = LIMITS.iter().chain(settings).map(|line| (*line).to_owned());
        let text =
            base.into_iter().chain(more).fold(String::new(), |text, line| text + &line + "\n");
        fs::write(rig.aside("gemini-batchd.toml"), text).expect("written");
        Ok(rig)
    }

    /// The spool as the test sees it.
    pub fn spool(&self) -> PathBuf {
        self.disk.outside().join("spool")
    }

    /// Nothing of the spool lies on another disk.
    pub fn elsewhere(&self) -> Option<&Path> {
        None
    }

    /// A path that is not on the disk.
    pub fn aside(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Puts a file on the disk, but not yet into the inbox.
    pub fn bring(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.disk.outside().join(name);
        fs::write(&path, content).expect("written");
        let old = SystemTime::now() - Duration::from_secs(60);
        File::open(&path).and_then(|file| file.set_modified(old)).expect("aged");
        fs::create_dir_all(self.spool().join("inbox")).expect("made");
    }

    /// Drops what was brought.
    pub fn drop_file(&self, name: &str) {
        let target = self.spool().join("inbox").join(name);
        fs::rename(self.disk.outside().join(name), target).expect("dropped");
    }

    /// The binary, to be run on this spool: the key in the environment, and nothing else there.
    pub fn command(&self, arguments: &[&str]) -> Command {
        self.through(&[], arguments)
    }

    /// The same through another program, such as `strace`.
    pub fn through(&self, program: &[&str], arguments: &[&str]) -> Command {
        let binary = env!("CARGO_BIN_EXE_gemini-batchd");
        let mut words = program.iter().copied().chain([binary]);
        let mut command = self.disk.command(words.next().expect("the binary").as_ref());
        command.args(words);
        command.arg("--config").arg(self.aside("gemini-batchd.toml")).args(arguments);
        let log = File::options().create(true).append(true).open(self.aside("log"));
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.folder.path())
            .env("GEMINI_API_KEY", "marker-key-of-the-disk-tests")
            .env("RUST_LOG", "info,gemini_batchd=debug")
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log.expect("a log"));
        command
    }

    /// Starts the daemon; it dawdles where the failpoints say.
    pub fn serve(&self, failpoints: &str) -> Service<'_> {
        let mut service = Service { rig: self, daemon: None, ends: Vec::new() };
        service.start(self.command(&["run"]).env("FAILPOINTS", failpoints));
        service
    }

    /// Drains undisturbed; the exit code.
    pub fn drain(&self) -> i32 {
        let status = self.command(&["once"]).status().expect("it starts");
        status.code().unwrap_or_else(|| panic!("{status}\n{}", self.log()))
    }

    /// What `status --json` says of the daemon itself, if one is running.
    pub fn health(&self) -> Option<Value> {
        let output = self.command(&["status", "--json"]).stdout(Stdio::piped()).output();
        let output = output.expect("it starts");
        let snapshot: Value = serde_json::from_slice(&output.stdout).ok()?;
        output.status.success().then(|| snapshot["health"].clone())
    }

    /// What `status` tells people, errors included.
    ///
    /// Without its line breaks, since those depend on how long the paths are.
    pub fn status(&self) -> String {
        let mut command = self.command(&["status"]);
        let output = command.stdout(Stdio::piped()).stderr(Stdio::piped()).output();
        let output = output.expect("it starts");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let said = text(&output.stdout) + &text(&output.stderr);
        said.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    /// The text of the first `record.json` there is.
    pub fn record(&self) -> String {
        let jobs = fs::read_dir(self.spool().join("working"));
        let mut records = jobs.into_iter().flatten().flatten().map(|job| job.path());
        let read = |job: PathBuf| fs::read_to_string(job.join("record.json")).ok();
        records.find_map(read).unwrap_or_default()
    }

    /// Whether these files and no others are complete, and nothing is left to do for them.
    pub fn has_done(&self, names: &[&str]) -> bool {
        let manifest = |name: &&str| {
            let stem = Path::new(name).file_stem().expect("a name").display().to_string();
            self.spool().join("outbox").join(stem + ".manifest.json").is_file()
        };
        let working = fs::read_dir(self.spool().join("working"));
        names.iter().all(manifest) && working.is_ok_and(|mut jobs| jobs.next().is_none())
    }

    /// Rows in all batches that were made. No stamp may have made two of them.
    #[track_caller]
    pub fn rows_paid(&self) -> u64 {
        let created = |what| match what {
            Happened::Created { display_name, rows, .. } => Some((display_name, rows)),
            _ => None,
        };
        let journal = self.emulator.journal().into_iter();
        let created: Vec<_> = journal.filter_map(|entry| created(entry.what)).collect();
        let stamps: BTreeSet<_> = created.iter().map(|(stamp, _)| stamp).collect();
        assert_eq!(stamps.len(), created.len(), "a batch was made twice: {created:?}");
        created.iter().map(|(_, rows)| rows).sum()
    }

    /// What the daemons have logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.aside("log")).unwrap_or_default()
    }

    /// How often they have logged this.
    pub fn logged(&self, text: &str) -> usize {
        self.log().matches(text).count()
    }
}

/// A daemon that is started again whenever it ends.
pub struct Service<'a> {
    rig: &'a Rig,
    daemon: Option<Child>,
    /// The exit codes so far.
    pub ends: Vec<i32>,
}

impl Service<'_> {
    fn start(&mut self, command: &mut Command) {
        self.daemon = Some(command.spawn().expect("it starts"));
    }

    /// Starts it again if it has ended.
    #[track_caller]
    pub fn tend(&mut self) {
        let daemon = self.daemon.as_mut().expect("it was started");
        if let Some(status) = daemon.try_wait().expect("asked") {
            let code = status.code();
            self.ends.push(code.unwrap_or_else(|| panic!("{status}\n{}", self.rig.log())));
            self.start(&mut self.rig.command(&["run"]));
        }
    }

    /// Tends it until something is so.
    #[track_caller]
    pub fn until(&mut self, what: &str, is_so: impl FnMut() -> bool) {
        self.until_or_ended(usize::MAX, what, is_so);
    }

    /// Tends it until something is so, or it has ended so often.
    #[track_caller]
    pub fn until_or_ended(&mut self, ends: usize, what: &str, mut is_so: impl FnMut() -> bool) {
        let begun = Instant::now();
        while self.ends.len() < ends && !is_so() {
            self.tend();
            let waited = begun.elapsed();
            assert!(waited < PATIENCE, "waited in vain: {what}\n{}", self.rig.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Stops it; it must end well.
    #[track_caller]
    pub fn stop(mut self) -> Vec<i32> {
        self.tend();
        let mut daemon = self.daemon.take().expect("it was started");
        let term = rustix::process::kill_process(Pid::from_child(&daemon), Signal::TERM);
        term.expect("it runs");
        let status = daemon.wait().expect("waited");
        // One that was only just started may not know the signal yet.
        assert!(status.success() || status.code().is_none(), "{status}\n{}", self.rig.log());
        std::mem::take(&mut self.ends)
    }
}

impl Drop for Service<'_> {
    fn drop(&mut self) {
        if let Some(daemon) = &mut self.daemon {
            drop(daemon.kill());
            drop(daemon.wait());
        }
    }
}

/// Waits for a fact.
#[track_caller]
pub fn eventually(rig: &Rig, what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "waited in vain: {what}\n{}", rig.log());
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// `count` requests keyed `k1`, `k2`, … with texts of so many bytes; a line that is none is among
/// them.
pub fn requests(count: usize, bytes: usize) -> String {
    let line = |n: usize| {
        let text = format!("question {n} {}", "x".repeat(bytes));
        let contents = serde_json::json!([{"role": "user", "parts": [{"text": text}]}]);
        let key = format!("k{n}");
        format!("{}\n", serde_json::json!({"key": key, "request": {"contents": contents}}))
    };
    (1..=count).map(line).collect::<String>() + "[1, 2]\n"
}

/// Whether a store was set aside as damaged.
pub fn has_quarantine(spool: &Path) -> bool {
    let entries = fs::read_dir(spool.join("state")).expect("listed").flatten();
    entries.into_iter().any(|entry| entry.file_name().to_string_lossy().starts_with("quarantine"))
}

/// The runtime of all emulators.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().expect("a runtime"));

/// A disk that is filled only where a test does so.
pub const DISK: &str = "mount -t tmpfs -o size=90m none PLACE";

/// Longer than anything here takes, on the slowest machine.
const PATIENCE: Duration = Duration::from_secs(60);

const LIMITS: [&str; 8] = [
    "api.backoff_min = \"5ms\"",
    "api.backoff_max = \"100ms\"",
    "api.uncertain_window = \"400ms\"",
    "poll.min = \"10ms\"",
    "poll.max = \"20ms\"",
    "intake.settle = \"0s\"",
    "intake.watch = \"poll\"",
    "intake.rescan = \"50ms\"",
];
