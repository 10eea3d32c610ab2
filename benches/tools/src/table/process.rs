//! Programs that are measured, and the servers they speak to.

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// What a program took.
#[derive(Debug, Clone, Copy, Default)]
pub struct Taken {
    /// Seconds.
    pub wall: f64,
    /// Seconds of CPU, in the program and in the kernel for it.
    pub cpu: f64,
    /// The most memory it had, KiB.
    pub peak_kib: u64,
}

/// Runs a program to its end and measures it.
///
/// # Errors
/// If it can not be started, or fails; with the end of what it said.
pub fn measured(command: &mut Command) -> Result<Taken, String> {
    measured_with(command, &[0])
}

/// The same for a program whose success has several exit codes.
///
/// # Errors
/// As [`measured`].
pub fn measured_with(command: &mut Command, fine: &[i32]) -> Result<Taken, String> {
    let said = tempfile()?;
    let errors = fs::File::create(&said).map_err(|error| error.to_string())?;
    let began = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(errors)
        .spawn()
        .map_err(|error| format!("{command:?} cannot be started: {error}"))?;
    let mut taken = Taken::default();
    let pid = child.id();
    // The kernel keeps the CPU time until the process is waited for, but not its memory.
    while let Some(state) = state_of(pid) {
        if let Some(peak) = peak_kib(pid) {
            taken.peak_kib = taken.peak_kib.max(peak);
        }
        if state == 'Z' {
            taken.wall = began.elapsed().as_secs_f64();
            taken.cpu = cpu_seconds(pid);
            break;
        }
        // Short runs are looked at often, and long ones cheaply.
        let pause = (began.elapsed() / 100).clamp(Duration::from_micros(300), LOOK_EVERY);
        thread::sleep(pause);
    }
    let status = child.wait().map_err(|error| error.to_string())?;
    let text = fs::read_to_string(&said).unwrap_or_default();
    drop(fs::remove_file(&said));
    if status.code().is_some_and(|code| fine.contains(&code)) {
        return Ok(taken);
    }
    let tail: Vec<&str> = text.lines().rev().take(5).collect();
    let tail: Vec<&str> = tail.into_iter().rev().collect();
    Err(format!("{command:?}: {status}\n{}", tail.join("\n")))
}

/// Seconds of CPU that a process has used, with all its threads.
pub fn cpu_seconds(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks: Vec<f64> =
        fields.split_whitespace().skip(11).take(2).filter_map(|field| field.parse().ok()).collect();
    ticks.iter().sum::<f64>() / TICKS_A_SECOND
}

/// The most memory that a process has had, KiB.
pub fn peak_kib(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

fn state_of(pid: u32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

fn tempfile() -> Result<PathBuf, String> {
    static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    Ok(std::env::temp_dir().join(format!("bench-said-{}-{number}", std::process::id())))
}

/// A process that is ended with its owner.
pub struct Running(pub Child);

impl Running {
    /// Ends it at once, as a power cut would.
    pub fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        // It may have ended by itself.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}

/// A server for daemons to speak to.
pub struct Server {
    /// Where it is.
    pub url: String,
    process: Running,
    /// Kept open: a server may say more than where it is.
    _out: BufReader<ChildStdout>,
}

impl Server {
    /// Starts a server whose first line is `listening on URL`.
    ///
    /// # Errors
    /// If it can not be started.
    pub fn start(command: &mut Command) -> Result<Server, String> {
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
        let mut child = child.map_err(|error| format!("{command:?}: {error}"))?;
        let out = child.stdout.take().ok_or("it has no output")?;
        let process = Running(child);
        let (mut line, mut out) = (String::new(), BufReader::new(out));
        out.read_line(&mut line).map_err(|error| error.to_string())?;
        let url =
            line.trim().strip_prefix("listening on ").ok_or(format!("{command:?}: {line}"))?;
        Ok(Server { url: url.to_owned(), process, _out: out })
    }

    /// The sink of this program.
    ///
    /// # Errors
    /// If it can not be started.
    pub fn sink(arguments: &[&str]) -> Result<Server, String> {
        let this = std::env::current_exe().map_err(|error| error.to_string())?;
        Server::start(Command::new(this).arg("sink").args(arguments))
    }

    /// Seconds of CPU it has used.
    pub fn cpu(&self) -> f64 {
        cpu_seconds(self.process.0.id())
    }

    /// Asks it something small.
    ///
    /// # Errors
    /// If it does not answer.
    pub fn get(&self, path: &str) -> Result<String, String> {
        self.ask(path).map_err(|error| format!("{path}: {error}"))
    }

    fn ask(&self, path: &str) -> io::Result<String> {
        let address = self.url.trim_start_matches("http://");
        let mut stream = TcpStream::connect(address)?;
        stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes())?;
        let mut reader = BufReader::new(stream);
        let (mut line, mut length) = (String::new(), 0);
        while line != "\r\n" {
            line.clear();
            if reader.read_line(&mut line)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap_or(0);
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        Ok(String::from_utf8_lossy(&body).into_owned())
    }

    /// What it noted so far, from an entry on.
    ///
    /// # Errors
    /// If it does not answer.
    pub fn journal(&self, from: usize) -> Result<Vec<Noted>, String> {
        let text = self.get(&format!("/sink/journal?from={from}"))?;
        Ok(text.lines().filter_map(Noted::read).collect())
    }
}

/// An entry of the sink's journal.
#[derive(Debug, Clone)]
pub struct Noted {
    /// Microseconds since 1970.
    pub at_us: u64,
    /// What happened.
    pub what: String,
}

impl Noted {
    fn read(line: &str) -> Option<Noted> {
        let mut fields = line.split('\t');
        let at_us = fields.next()?.parse().ok()?;
        Some(Noted { at_us, what: fields.next()?.to_owned() })
    }
}

/// Seconds from the first entry of one kind to the last of another; 0 if there are none.
pub fn span(journal: &[Noted], first: &str, last: &str) -> f64 {
    let first = journal.iter().find(|noted| noted.what == first);
    let last = journal.iter().rfind(|noted| noted.what == last);
    match (first, last) {
        (Some(first), Some(last)) => last.at_us.saturating_sub(first.at_us) as f64 / 1e6,
        _ => 0.0,
    }
}

/// Seconds between each entry of one kind and the next of another, together.
pub fn busy(journal: &[Noted], first: &str, last: &str) -> f64 {
    let (mut began, mut busy_us) = (None, 0);
    for noted in journal {
        if noted.what == first {
            began = Some(noted.at_us);
        } else if noted.what == last {
            busy_us += began.take().map_or(0, |began| noted.at_us.saturating_sub(began));
        }
    }
    busy_us as f64 / 1e6
}

/// Files and folders below one, with the bytes they take on disk; each inode once.
pub fn disk_usage(folder: &Path, counts: &mut dyn FnMut(&Path, u64)) {
    use std::os::unix::fs::MetadataExt;
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        // What has gone meanwhile takes no room.
        let Ok(metadata) = entry.path().symlink_metadata() else { continue };
        if metadata.is_dir() {
            disk_usage(&entry.path(), counts);
        } else {
            counts(&entry.path(), metadata.blocks() * 512);
        }
    }
}

/// `USER_HZ`, which is the same on all Linux machines.
const TICKS_A_SECOND: f64 = 100.0;
/// How often a long run's memory is looked at, at least.
const LOOK_EVERY: Duration = Duration::from_millis(5);
