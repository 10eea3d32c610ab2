//! Many records: polling 10,000 batches, starting with 100,000 jobs, waiting for 100 batches.
//!
//! The records of one real job are exported, copied under other ids, and imported.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use super::Bench;
use super::daemon::{Spool, wait_until};
use super::latency::stage;
use super::process::{Server, cpu_seconds, peak_kib};
use super::report::{Row, median};

/// Requests of a round of polls.
pub fn poll_rows(bench: &Bench) -> Result<Vec<Row>, String> {
    let (batches, interval, rounds) = (10_000, 4, bench.pick(5, 10));
    let server = Server::sink(&["--preload", &batches.to_string()])?;
    let spool = filled(bench, &server, batches, true)?
        .with("LIMITS__OPEN_BATCHES", "10000")
        .with("POLL__MIN", &format!("{interval}s"))
        .with("POLL__MAX", &format!("{interval}s"));
    let daemon = spool.run()?;
    thread::sleep(Duration::from_secs(2 * interval));
    let asked = |what: &str| -> Result<f64, String> {
        let count = server.get(&format!("/sink/count?what={what}"))?;
        count.parse().map_err(|_| format!("{count:?} is no number"))
    };
    let (lists, gets, cpu) = (asked("list")?, asked("get")?, cpu_seconds(daemon.0.id()));
    thread::sleep(Duration::from_secs(interval * rounds));
    let (lists, gets) = (asked("list")? - lists, asked("get")? - gets);
    let cpu = (cpu_seconds(daemon.0.id()) - cpu) / rounds as f64;
    let each = (lists + gets) / rounds as f64;
    let more = format!(
        "{lists} lists and {gets} gets in {rounds} intervals of {interval} s, {cpu:.2} s of CPU each"
    );
    Ok(vec![Row::most("10,000 batches under way: requests a round", 101.0, each, "", &more)])
}

/// A start with very many jobs that are done.
pub fn start_rows(bench: &Bench) -> Result<Vec<Row>, String> {
    let jobs = 100_000;
    let server = Server::sink(&[])?;
    let spool = filled(bench, &server, jobs, false)?;
    let (mut seconds, mut peaks) = (Vec::new(), Vec::new());
    for _ in 0..bench.rounds() {
        let began = Instant::now();
        let daemon = spool.run()?;
        seconds.push(began.elapsed().as_secs_f64());
        // What the first housekeeping takes counts as well.
        thread::sleep(Duration::from_secs(1));
        peaks.push(peak_kib(daemon.0.id()).unwrap_or(0) as f64 / 1024.0);
    }
    Ok(vec![
        Row::most("start with 100,000 job records", 1.0, median(&seconds), "s", "until it answers"),
        Row::most("peak RSS of that", 128.0, median(&peaks), "MiB", ""),
    ])
}

/// What it costs to wait.
pub fn idle_rows(bench: &Bench) -> Result<Vec<Row>, String> {
    let seconds = bench.pick(30, 60);
    let server = Server::sink(&["--preload", "100"])?;
    let spool = filled(bench, &server, 100, true)?.with("POLL__MIN", "10s").with("POLL__MAX", "5m");
    let daemon = spool.run()?;
    thread::sleep(Duration::from_secs(5));
    let before = cpu_seconds(daemon.0.id());
    thread::sleep(Duration::from_secs(seconds));
    let used = cpu_seconds(daemon.0.id()) - before;
    let asked = server.get("/sink/count?what=list")?;
    let more = format!("{used:.2} s of CPU in {seconds} s, {asked} lists");
    let percent = used / seconds as f64 * 100.0;
    Ok(vec![Row::most("idle CPU with 100 batches waiting", 0.2, percent, "%", &more)])
}

/// A spool with so many jobs, done or with a batch under way.
fn filled(bench: &Bench, server: &Server, jobs: u64, waiting: bool) -> Result<Spool, String> {
    if waiting { filled_with(bench, server, 0, jobs) } else { filled_with(bench, server, jobs, 0) }
}

/// A spool with so many jobs that are done, and so many with a batch under way: the first ones
/// that the sink was started with.
pub fn filled_with(
    bench: &Bench,
    server: &Server,
    done: u64,
    waiting: u64,
) -> Result<Spool, String> {
    let records = bench.place.join("records.jsonl");
    let mut out = BufWriter::new(File::create(&records).map_err(|error| error.to_string())?);
    if done > 0 {
        let template = template(bench, false)?;
        // Of complete jobs, the daemon keeps the records of the chunks for the newest thousand.
        let bare = done.saturating_sub(1000);
        let numbers = waiting + 1..=waiting + done;
        let written = multiply(&template, numbers, bare, &mut out);
        written.map_err(|error| error.to_string())?;
    }
    if waiting > 0 {
        let template = template(bench, true)?;
        multiply(&template, 1..=waiting, 0, &mut out).map_err(|error| error.to_string())?;
    }
    out.flush().map_err(|error| error.to_string())?;
    let spool = Spool::new(bench, "filled", server)?;
    let import = spool.command(&["import"]).arg(&records).output();
    let import = import.map_err(|error| error.to_string())?;
    drop(fs::remove_file(&records));
    match import.status.success() {
        true => Ok(spool),
        false => Err(format!("import: {}", String::from_utf8_lossy(&import.stderr))),
    }
}

/// The records of one job of one line.
fn template(bench: &Bench, waiting: bool) -> Result<String, String> {
    let server = Server::sink(&["--done-after", if waiting { "86400000" } else { "0" }])?;
    let spool = Spool::new(bench, "template", &server)?;
    let stage = stage(&spool, 1, 1)?;
    let name = "f000001.jsonl";
    let daemon = spool.run()?;
    fs::rename(stage.join(name), spool.path.join("inbox").join(name))
        .map_err(|error| error.to_string())?;
    let there = |spool: &Spool| match waiting {
        // Its state is saved right after the answer to the create.
        true => server.get("/sink/count?what=list").is_ok_and(|lists| lists != "0"),
        false => spool.manifests() == 1 && archived(&spool.path),
    };
    if !wait_until(Duration::from_secs(30), || there(&spool)) {
        return Err("the one job that is to be copied does not get on".to_owned());
    }
    thread::sleep(Duration::from_millis(300));
    daemon.kill();
    let export = spool.command(&["export"]).output().map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&export.stdout);
    let lines: Vec<&str> = text.lines().filter(|line| !line.contains("\"note\":")).collect();
    match lines.is_empty() {
        true => Err(format!("export: {}", String::from_utf8_lossy(&export.stderr))),
        false => Ok(lines.join("\n")),
    }
}

fn archived(spool: &Path) -> bool {
    let archive: PathBuf = spool.join("archive");
    fs::read_dir(archive).is_ok_and(|mut entries| entries.next().is_some())
}

/// Writes copies of a job's records, each with its own id, batch and content; of the first `bare`
/// jobs only the record of the job itself.
fn multiply(
    template: &str,
    numbers: RangeInclusive<u64>,
    bare: u64,
    out: &mut impl Write,
) -> std::io::Result<()> {
    let after = |mark: &str, len: usize| {
        let at = template.find(mark).map_or(0, |at| at + mark.len());
        template.get(at..at + len).unwrap_or_default().to_owned()
    };
    let (id, sha256) = (after("\"id\":\"", 26), after("\"sha256\":\"", 64));
    let batch = after("\"name\":\"batches/", 12);
    for (at, number) in (1..).zip(numbers) {
        let head = template.lines().next().unwrap_or_default();
        let copy = if at <= bare { head } else { template }
            .replace(&id, &format!("{}{}", &id[..16], base32(number)))
            .replace(&sha256, &format!("{number:064x}"))
            .replace(&batch, &format!("sink{number:08}"));
        writeln!(out, "{copy}")?;
    }
    Ok(())
}

/// The end of a ULID: ten digits.
fn base32(mut number: u64) -> String {
    const DIGITS: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
    let mut text = [b'0'; 10];
    for place in text.iter_mut().rev() {
        *place = DIGITS[(number % 32) as usize];
        number /= 32;
    }
    String::from_utf8_lossy(&text).into_owned()
}
