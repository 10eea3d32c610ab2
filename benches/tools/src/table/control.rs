//! What it costs to look at a daemon: with 10,000 jobs that are done and 1,000 under way.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use super::Bench;
use super::daemon::{Spool, wait_until};
use super::latency::stage;
use super::process::{Server, measured, peak_kib};
use super::records::filled_with;
use super::report::{Row, median, percentile};

/// The rows.
pub fn rows(bench: &Bench) -> Result<Vec<Row>, String> {
    let mut rows = looks(bench)?;
    rows.extend(beside_questions(bench)?);
    Ok(rows)
}

/// One status at a time, all jobs as a list, and what the daemon needs for it.
fn looks(bench: &Bench) -> Result<Vec<Row>, String> {
    let (done, waiting) = (10_000, 1_000);
    let server = Server::sink(&["--preload", &waiting.to_string()])?;
    let spool = filled_with(bench, &server, done, waiting)?
        .with("LIMITS__OPEN_BATCHES", "10000")
        .with("POLL__MIN", "10s")
        .with("POLL__MAX", "5m");
    let daemon = spool.run()?;
    thread::sleep(Duration::from_secs(2));
    let (mut commands, mut answers) = (Vec::new(), Vec::new());
    for _ in 0..bench.pick(20, 50) {
        let began = Instant::now();
        let output = spool.command(&["status"]).output().map_err(|error| error.to_string())?;
        commands.push(began.elapsed().as_secs_f64() * 1000.0);
        if !output.status.success() {
            return Err(format!("status: {}", String::from_utf8_lossy(&output.stderr)));
        }
        let began = Instant::now();
        Asker::connect(&spool.path)?.ask("/v1/status")?;
        answers.push(began.elapsed().as_secs_f64() * 1000.0);
    }
    let list = measured(&mut spool.command(&["list", "--json", "--limit", "11000"]))?;
    let peak = peak_kib(daemon.0.id()).unwrap_or(0) as f64 / 1024.0;
    let answer = format!("the answer alone {:.1} ms", median(&answers));
    let seconds = format!("{:.2} s", list.wall);
    Ok(vec![
        Row::most(
            "`status` with 11,000 jobs, the whole command",
            20.0,
            median(&commands),
            "ms",
            &answer,
        ),
        Row::most(
            "peak RSS of `list --json` with these",
            48.0,
            list.peak_kib as f64 / 1024.0,
            "MiB",
            &seconds,
        ),
        Row::most(
            "peak RSS of the daemon after that",
            128.0,
            peak,
            "MiB",
            "10,000 done, 1,000 under way",
        ),
    ])
}

/// Files that are answered while 1,000 questions a second are asked, against the same unasked: one
/// after the other, and all at once.
fn beside_questions(bench: &Bench) -> Result<Vec<Row>, String> {
    let server = Server::sink(&[])?;
    let paced = pairs(bench, &server, bench.pick(60, 500), Some(PACE))?;
    let at_once = pairs(bench, &server, 1_000, None)?;
    let waits = |pairs: &[Pair]| -> Vec<f64> { pairs.iter().map(|pair| pair.wait).collect() };
    let figure =
        "a small file beside 1,000 status requests a second: its time to the outbox ÷ alone";
    let more = format!("{}; 20 files a second", told(&paced));
    let mut rows = vec![Row::most(figure, 1.2, median(&waits(&paced)), "", &more)];
    let whole: Vec<f64> = at_once.iter().map(|pair| pair.whole).collect();
    let measured = format!("{:.2} × as long ({})", median(&whole), told(&at_once));
    let figure = "1,000 files at once, which need all of the machine, beside as many askers on it";
    rows.push(Row::only(figure, &measured));
    Ok(rows)
}

/// The same files with and without questions.
struct Pair {
    /// Seconds for all of them, with ÷ without.
    whole: f64,
    /// The median of the times to the outbox, with ÷ without.
    wait: f64,
    with: Taken,
    without: Taken,
}

/// What some files took.
struct Taken {
    /// Seconds for all of them.
    seconds: f64,
    /// From the rename into the inbox to the manifest, the median, milliseconds.
    wait: f64,
    /// Questions answered a second.
    rate: f64,
    /// How long the slowest hundredth of them took, milliseconds.
    slowest: f64,
}

fn told(pairs: &[Pair]) -> String {
    let of = |of: fn(&Pair) -> f64| median(&pairs.iter().map(of).collect::<Vec<f64>>());
    format!(
        "{:.0} questions a second, p99 {:.0} ms; a file {:.1} ms, alone {:.1}; median of {} pairs",
        of(|pair| pair.with.rate),
        of(|pair| pair.with.slowest),
        of(|pair| pair.with.wait),
        of(|pair| pair.without.wait),
        pairs.len()
    )
}

fn pairs(
    bench: &Bench,
    server: &Server,
    files: usize,
    pace: Option<Duration>,
) -> Result<Vec<Pair>, String> {
    let pair = |round: usize| {
        // What was removed before slows a file system down: each goes first every other time.
        let first = take(bench, server, files, pace, round.is_multiple_of(2))?;
        let second = take(bench, server, files, pace, !round.is_multiple_of(2))?;
        let (with, without) =
            if round.is_multiple_of(2) { (first, second) } else { (second, first) };
        let (whole, wait) = (with.seconds / without.seconds, with.wait / without.wait);
        Ok(Pair { whole, wait, with, without })
    };
    (0..bench.pick(2, 4)).map(pair).collect()
}

fn take(
    bench: &Bench,
    server: &Server,
    files: usize,
    pace: Option<Duration>,
    with_questions: bool,
) -> Result<Taken, String> {
    let spool = Spool::new(bench, "asked", server)?;
    let stage = stage(&spool, files as u64, 100)?;
    let _daemon = spool.run()?;
    let (asking, answered) = (AtomicBool::new(with_questions), AtomicU64::new(0));
    thread::scope(|scope| {
        let mut askers = Vec::new();
        for _ in 0..if with_questions { ASKERS } else { 0 } {
            askers.push(scope.spawn(|| ask_on(&spool.path, &asking, &answered)));
        }
        let began = Instant::now();
        let moved = move_all(&stage, &spool.path.join("inbox"), pace);
        let all = wait_until(PATIENCE, || {
            thread::sleep(Duration::from_millis(20));
            spool.manifests() == files
        });
        let seconds = began.elapsed().as_secs_f64();
        asking.store(false, Ordering::Relaxed);
        let times: Vec<Vec<f64>> =
            askers.into_iter().filter_map(|asker| asker.join().ok()).collect();
        let times = times.concat();
        let moved = moved?;
        if !all {
            return Err(format!("{} of {files} files are done", spool.manifests()));
        }
        let slowest = if times.is_empty() { 0.0 } else { percentile(&times, 99.0) };
        let rate = answered.load(Ordering::Relaxed) as f64 / seconds;
        Ok(Taken { seconds, wait: median(&waits(&spool.path, &moved)?), rate, slowest })
    })
}

/// From each rename into the inbox to the file's manifest, milliseconds.
fn waits(spool: &Path, moved: &[(String, SystemTime)]) -> Result<Vec<f64>, String> {
    let wait = |(name, at): &(String, SystemTime)| {
        let stem = name.trim_end_matches(".jsonl");
        let manifest = spool.join("outbox").join(format!("{stem}.manifest.json"));
        let written = std::fs::metadata(manifest).and_then(|found| found.modified());
        let written = written.map_err(|error| format!("{name}: {error}"))?;
        Ok(written.duration_since(*at).unwrap_or_default().as_secs_f64() * 1000.0)
    };
    moved.iter().map(wait).collect()
}

/// Asks at an even pace until it is over; gives how long the answers took, milliseconds.
fn ask_on(spool: &Path, asking: &AtomicBool, answered: &AtomicU64) -> Vec<f64> {
    let mut times = Vec::new();
    let Ok(mut asker) = Asker::connect(spool) else { return times };
    let mut due = Instant::now();
    while asking.load(Ordering::Relaxed) {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let began = Instant::now();
        if asker.ask("/v1/status").is_err() {
            return times;
        }
        times.push(began.elapsed().as_secs_f64() * 1000.0);
        answered.fetch_add(1, Ordering::Relaxed);
        // One who was answered late does not ask faster afterwards.
        due = began.max(due) + Duration::from_secs(ASKERS as u64) / QUESTIONS_A_SECOND;
    }
    times
}

/// A connection to the control socket that is kept.
struct Asker {
    reader: BufReader<UnixStream>,
}

impl Asker {
    fn connect(spool: &Path) -> Result<Asker, String> {
        let socket = spool.join("state/gemini-batchd.sock");
        let stream = UnixStream::connect(socket).map_err(|error| error.to_string())?;
        Ok(Asker { reader: BufReader::new(stream) })
    }

    fn ask(&mut self, path: &str) -> Result<usize, String> {
        self.try_ask(path).map_err(|error| format!("{path}: {error}"))
    }

    fn try_ask(&mut self, path: &str) -> std::io::Result<usize> {
        let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n");
        self.reader.get_mut().write_all(request.as_bytes())?;
        let (mut line, mut length) = (String::new(), 0);
        while line != "\r\n" {
            line.clear();
            if self.reader.read_line(&mut line)? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap_or(0);
            }
        }
        let mut body = vec![0; length];
        self.reader.read_exact(&mut body)?;
        Ok(length)
    }
}

/// Moves all files, at a pace if there is one; says when each was.
fn move_all(
    from: &Path,
    to: &Path,
    pace: Option<Duration>,
) -> Result<Vec<(String, SystemTime)>, String> {
    let entries = std::fs::read_dir(from).map_err(|error| error.to_string())?;
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    files.sort();
    let mut moved = Vec::new();
    for file in files {
        let name =
            file.file_name().and_then(|name| name.to_str()).ok_or("a file without a name")?;
        moved.push((name.to_owned(), SystemTime::now()));
        std::fs::rename(&file, to.join(name)).map_err(|error| error.to_string())?;
        thread::sleep(pace.unwrap_or_default());
    }
    Ok(moved)
}

/// Programs that ask at once.
const ASKERS: usize = 50;
const QUESTIONS_A_SECOND: u32 = 1_000;
/// Between two files that come one after the other.
const PACE: Duration = Duration::from_millis(50);
/// After so long it is not waited for any more.
const PATIENCE: Duration = Duration::from_secs(200);
