//! Many files at once.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::Bench;
use super::daemon::{Spool, wait_until};
use super::latency::stage;
use super::process::{Server, cpu_seconds, peak_kib};
use super::report::Row;
use crate::generate::{Amount, Kind};
use crate::results::Recipe;

/// Small files through the emulator and the sink, and beside a large one.
pub fn rows(bench: &Bench) -> Result<Vec<Row>, String> {
    let mut emulator = Command::new(&bench.binary);
    let emulator = Server::start(emulator.args(["emulate", "--speed", "1000"]))?;
    let mut rows = throughput(bench, &emulator, "emulator")?;
    rows.extend(throughput(bench, &Server::sink(&[])?, "sink")?);
    rows.push(beside_large(bench)?);
    Ok(rows)
}

/// Files that are dropped all at once, while the status is asked for every second.
fn throughput(bench: &Bench, server: &Server, name: &str) -> Result<Vec<Row>, String> {
    let files: usize = 2_000;
    let spool = Spool::new(bench, "many", server)?;
    let stage = stage(&spool, files as u64, 100)?;
    let daemon = spool.run()?;
    let asking = AtomicBool::new(true);
    let (done, seconds, slowest) = thread::scope(|scope| {
        let asker = scope.spawn(|| {
            let mut slowest = Duration::ZERO;
            while asking.load(Ordering::Relaxed) {
                let began = Instant::now();
                // Only the time counts; that it answers is for the tests.
                drop(spool.command(&["status", "--json"]).output());
                slowest = slowest.max(began.elapsed());
                thread::sleep(Duration::from_secs(1));
            }
            slowest
        });
        let began = Instant::now();
        let moved = move_all(&stage, &spool.path.join("inbox"));
        wait_until(bench.pick(PATIENCE / 4, PATIENCE), || {
            // To list thousands of names at every turn would take half a core from what is measured.
            thread::sleep(Duration::from_millis(20));
            spool.manifests() == files
        });
        let seconds = began.elapsed().as_secs_f64();
        asking.store(false, Ordering::Relaxed);
        let slowest = asker.join().unwrap_or_default();
        moved.map(|()| (spool.manifests(), seconds, slowest))
    })?;
    let peak = peak_kib(daemon.0.id()).unwrap_or(0) as f64 / 1024.0;
    let more =
        format!("{done} of {files} in {seconds:.1} s, slowest status {} ms", slowest.as_millis());
    let figure = format!("files of 100 lines dropped at once, {name}");
    Ok(vec![
        Row::least(&figure, 200.0, done as f64 / seconds, "files/s", &more),
        Row::most(&format!("peak RSS of that, {name}"), 256.0, peak, "MiB", ""),
    ])
}

/// Small files that come while a large one is under way, against the same alone.
fn beside_large(bench: &Bench) -> Result<Row, String> {
    let files: usize = 200;
    let bytes = bench.pick(256 << 20, 1 << 30);
    let input = bench.input(Kind::Text, Amount::Bytes(bytes))?;
    let recipe = Recipe { shuffle: Some(3), cuts: &[1], bytes: None };
    let (folder, _) = bench.results(&input, &recipe)?;
    let server = Server::sink(&["--results", &folder.to_string_lossy()])?;
    let mut alone = 0.0;
    for with_large in [false, true] {
        let spool = Spool::new(bench, "many", &server)?;
        let stage = stage(&spool, files as u64, 100)?;
        let _daemon = spool.run()?;
        let inbox = spool.path.join("inbox");
        let large = spool.path.join("outbox/large.manifest.json");
        let began = Instant::now();
        if with_large {
            spool.drop_in(&input, "large.jsonl")?;
            wait_until(PATIENCE, || !inbox.join("large.jsonl").exists());
        }
        let small_began = Instant::now();
        move_all(&stage, &inbox)?;
        let small_done = || spool.manifests() >= files + usize::from(large.exists());
        if !wait_until(PATIENCE, small_done) {
            return Err(format!("{} of {files} small files are done", spool.manifests()));
        }
        let seconds = small_began.elapsed().as_secs_f64();
        if !with_large {
            alone = seconds;
            continue;
        }
        let waited = large.exists();
        if !wait_until(PATIENCE, || large.exists()) {
            return Err("the large file is not done".to_owned());
        }
        let more = format!(
            "{seconds:.2} s beside, {alone:.2} s alone; the large one took {:.1} s",
            began.elapsed().as_secs_f64()
        );
        let mut row = Row::only(
            &format!("{files} small files beside one of {} MiB ÷ alone", bytes >> 20),
            &format!("{:.2} ({more})", seconds / alone),
        );
        "none waits for the large one".clone_into(&mut row.goal);
        row.enough = Some(!waited);
        return Ok(row);
    }
    Err("no round was measured".to_owned())
}

/// A storm of renames: not one may be lost.
pub fn storm_rows(bench: &Bench) -> Result<Vec<Row>, String> {
    let files: usize = bench.pick(10_000, 40_000);
    let server = Server::sink(&["--done-after", "3600000"])?;
    let spool = Spool::new(bench, "storm", &server)?.with("LIMITS__OPEN_BATCHES", "1");
    let stage = stage(&spool, files as u64, 1)?;
    let daemon = spool.run()?;
    let inbox = spool.path.join("inbox");
    let began = Instant::now();
    move_all(&stage, &inbox)?;
    let storm = began.elapsed().as_secs_f64();
    let taken_in = wait_until(bench.pick(PATIENCE / 2, 3 * PATIENCE), || count(&inbox) == 0);
    let seconds = began.elapsed().as_secs_f64();
    let (left, jobs) = (count(&inbox), count(&spool.path.join("working")));
    let peak = peak_kib(daemon.0.id()).unwrap_or(0) / 1024;
    let lost = files.saturating_sub(left + jobs + spool.manifests());
    let left = if taken_in { String::new() } else { format!(", {left} still wait") };
    let more = format!(
        "renamed in {storm:.2} s; {jobs} taken in within {seconds:.0} s{left}, peak RSS {peak} MiB"
    );
    let figure = format!("{files} renames at once: lost");
    Ok(vec![Row::most(&figure, 0.0, lost as f64, "", &more)])
}

/// What a look at a full inbox costs: the CPU of a daemon that looks every second at files that
/// have not been still for long enough.
pub fn scan_rows(bench: &Bench) -> Result<Vec<Row>, String> {
    let files: usize = 100_000;
    let server = Server::sink(&[])?;
    let spool = Spool::new(bench, "scan", &server)?
        .with("INTAKE__SETTLE", "1h")
        .with("INTAKE__RESCAN", "1s");
    let stage = stage(&spool, (files / NAMES_A_FILE) as u64, 1)?;
    let inbox = spool.path.join("inbox");
    // To a look each name is a file; as links they are made and removed in seconds.
    for (at, entry) in fs::read_dir(&stage).map_err(|error| error.to_string())?.enumerate() {
        let file = entry.map_err(|error| error.to_string())?.path();
        for name in 0..NAMES_A_FILE {
            let name = inbox.join(format!("f{:06}.jsonl", at * NAMES_A_FILE + name));
            fs::hard_link(&file, name).map_err(|error| error.to_string())?;
        }
    }
    let daemon = spool.run()?;
    thread::sleep(Duration::from_secs(3));
    let (before, seconds) = (cpu_seconds(daemon.0.id()), bench.pick(15, 30));
    thread::sleep(Duration::from_secs(seconds));
    let each = (cpu_seconds(daemon.0.id()) - before) / seconds as f64;
    let more = format!("CPU of {seconds} s with a look every second, divided");
    Ok(vec![Row::most("a scan of 100,000 files", 100.0, each * 1000.0, "ms", &more)])
}

fn move_all(from: &Path, to: &Path) -> Result<(), String> {
    let mut names: Vec<_> = fs::read_dir(from)
        .map_err(|error| error.to_string())?
        .flatten()
        .map(|entry| entry.file_name())
        .collect();
    names.sort();
    for name in names {
        fs::rename(from.join(&name), to.join(&name)).map_err(|error| error.to_string())?;
    }
    Ok(())
}

fn count(folder: &Path) -> usize {
    fs::read_dir(folder).map_or(0, Iterator::count)
}

/// Names that a file has in the inbox that is looked at.
const NAMES_A_FILE: usize = 1000;
/// After so long it is not waited for any more.
const PATIENCE: Duration = Duration::from_secs(200);
