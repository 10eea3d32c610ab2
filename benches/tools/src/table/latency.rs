//! How long a small file waits for us: before its create request, and after its batch has ended.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::Bench;
use super::daemon::{Spool, wait_until};
use super::process::Server;
use super::report::{Row, median, percentile};
use crate::generate;

/// The rows.
pub fn rows(bench: &Bench) -> Result<Vec<Row>, String> {
    Ok(vec![before_create(bench)?, after_done(bench)?])
}

fn before_create(bench: &Bench) -> Result<Row, String> {
    let rounds = bench.pick(60, 200);
    let server = Server::sink(&[])?;
    let spool = Spool::new(bench, "latency", &server)?;
    let stage = stage(&spool, rounds as u64, 10)?;
    let daemon = spool.run()?;
    let mut renamed = Vec::new();
    for number in 1..=rounds {
        renamed.push(now_us());
        send(&spool, &stage, number)?;
    }
    drop(daemon);
    let journal = server.journal(0)?;
    let created: Vec<u64> =
        journal.iter().filter(|noted| noted.what == "create").map(|noted| noted.at_us).collect();
    if created.len() != rounds {
        return Err(format!("{} create requests for {rounds} files", created.len()));
    }
    let waits: Vec<f64> = renamed
        .iter()
        .zip(&created)
        .map(|(renamed, created)| created.saturating_sub(*renamed) as f64 / 1000.0)
        .collect();
    let more = format!("p50 {:.1} ms, {rounds} files", median(&waits));
    let p99 = percentile(&waits, 99.0);
    Ok(Row::most("rename into inbox → create request, p99", 50.0, p99, "ms", &more))
}

fn after_done(bench: &Bench) -> Result<Row, String> {
    let rounds = bench.pick(25, 100);
    let server = Server::sink(&[])?;
    let spool = Spool::new(bench, "latency", &server)?.with("POLL__MIN", "1s");
    let stage = stage(&spool, rounds as u64, 10)?;
    let daemon = spool.run()?;
    let mut delivered = Vec::new();
    for number in 1..=rounds {
        // The batch ends at any moment between two polls.
        server.get(&format!("/sink/done-after?ms={}", 200 + number * 773 % 1000))?;
        send(&spool, &stage, number)?;
        delivered.push(now_us());
    }
    drop(daemon);
    let journal = server.journal(0)?;
    let times = |what: &str| -> Vec<u64> {
        journal.iter().filter(|noted| noted.what == what).map(|noted| noted.at_us).collect()
    };
    let since = |from: &[u64]| -> Vec<f64> {
        let pairs = delivered.iter().zip(from);
        pairs.map(|(to, from)| to.saturating_sub(*from) as f64 / 1000.0).collect()
    };
    let (told, done) = (since(&times("told")), since(&times("done")));
    let more = format!(
        "p50 {:.1} ms; from the end of the batch p50 {:.0}, p99 {:.0} ms when polled every 1 to 1.25 s",
        median(&told),
        median(&done),
        percentile(&done, 99.0)
    );
    let p99 = percentile(&told, 99.0);
    Ok(Row::most("poll says done → manifest, p99", 50.0, p99, "ms", &more))
}

/// Files on the same disk as the inbox, to be renamed into it.
pub fn stage(spool: &Spool, files: u64, lines: u64) -> Result<std::path::PathBuf, String> {
    let stage = spool.path.join("stage");
    generate::write_files(files, lines, 7, &stage).map_err(|error| error.to_string())?;
    super::settle();
    Ok(stage)
}

/// Renames a staged file into the inbox and waits for its manifest.
fn send(spool: &Spool, stage: &Path, number: usize) -> Result<(), String> {
    let name = format!("f{number:06}");
    let file = format!("{name}.jsonl");
    let manifest = spool.path.join("outbox").join(format!("{name}.manifest.json"));
    fs::rename(stage.join(&file), spool.path.join("inbox").join(&file))
        .map_err(|error| error.to_string())?;
    if !wait_until(Duration::from_secs(30), || manifest.exists()) {
        return Err(format!("{file} is not done after 30 s"));
    }
    // What follows a delivery is not to be in the way of the next file.
    thread::sleep(Duration::from_millis(30));
    Ok(())
}

fn now_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}
