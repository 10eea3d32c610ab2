//! What the other figures stand on: whether the sink is in the way, and how cost grows with size.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use super::daemon::Spool;
use super::memory::cuts;
use super::process::{Running, Server, measured};
use super::report::{Row, median};
use super::{Bench, settle};
use crate::generate::{Amount, Kind};
use crate::results::Recipe;

/// `curl` against the sink, one stream and two.
pub fn sink_rows(bench: &Bench) -> Result<Vec<Row>, String> {
    let bytes = bench.pick(256 << 20, 1 << 30);
    let input = bench.input(Kind::Text, Amount::Bytes(bytes))?;
    let recipe = Recipe { shuffle: Some(3), cuts: &[1], bytes: None };
    let (folder, _) = bench.results(&input, &recipe)?;
    let server = Server::sink(&["--results", &folder.to_string_lossy()])?;
    let up = |to: &mut Command| {
        to.args(["-H", "expect:", "-T"]).arg(&input).arg(format!("{}/sink/discard", server.url));
    };
    let down = |to: &mut Command| {
        to.arg(format!("{}/sink/results/1.jsonl", server.url));
    };
    let mut rows = Vec::new();
    for (name, dress) in [("up", &up as &dyn Fn(&mut Command)), ("down to /dev/null", &down)] {
        for streams in [1, 2] {
            let (mut speeds, before) = (Vec::new(), server.cpu());
            for _ in 0..bench.rounds() {
                let seconds = at_once(streams, dress)?;
                speeds.push((streams as u64 * bytes) as f64 / seconds / 1e9);
            }
            let moved = (bench.rounds() * streams) as f64 * bytes as f64 / f64::from(1 << 30);
            let cpu = (server.cpu() - before) / moved;
            let text =
                format!("{:.2} GB/s; the sink takes {cpu:.2} s of CPU a GiB", median(&speeds));
            let streams = if streams == 1 { "one stream" } else { "two streams" };
            rows.push(Row::only(&format!("sink: `curl` {name}, {streams}"), &text));
        }
    }
    Ok(rows)
}

/// Seconds that so many `curl`s take together.
fn at_once(streams: usize, dress: &dyn Fn(&mut Command)) -> Result<f64, String> {
    let began = Instant::now();
    let mut running = Vec::new();
    for _ in 0..streams {
        let mut command = Command::new("curl");
        command.args(["-sSf", "-o", "/dev/null"]).stdin(Stdio::null());
        dress(&mut command);
        running.push(Running(command.spawn().map_err(|error| format!("{command:?}: {error}"))?));
    }
    for running in &mut running {
        let status = running.0.wait().map_err(|error| error.to_string())?;
        if !status.success() {
            return Err(format!("curl: {status}"));
        }
    }
    Ok(began.elapsed().as_secs_f64())
}

/// The whole way of files of growing size, with answers of 1,200 bytes.
pub fn growth_rows(bench: &Bench) -> Result<Vec<Row>, String> {
    let sizes: &[(u64, &str)] = &[
        (10_000_000, "10 MB"),
        (100_000_000, "100 MB"),
        (1_000_000_000, "1 GB"),
        (8_000_000_000, "8 GB"),
    ];
    let mut rows = Vec::new();
    for (bytes, name) in &sizes[..bench.pick(2, 4)] {
        let input = bench.input(Kind::Text, Amount::Bytes(*bytes))?;
        let cuts = cuts(bench, &input)?;
        let recipe = Recipe { shuffle: Some(3), cuts: &cuts, bytes: Some(1200) };
        let (folder, answers) = bench.results(&input, &recipe)?;
        let counted = measured(Command::new("wc").arg("-l").arg(&input))?.wall;
        let row = grown(bench, &input, &folder, answers, *bytes)?;
        let text = format!("{row}; `wc -l` {counted:.2} s");
        rows.push(Row::only(&format!("whole way of {name}, answers of 1.2 KB"), &text));
        drop(std::fs::remove_dir_all(&folder));
        if *bytes > 2_000_000_000 {
            drop(std::fs::remove_file(&input));
        }
    }
    Ok(rows)
}

fn grown(
    bench: &Bench,
    input: &Path,
    results: &Path,
    answers: u64,
    bytes: u64,
) -> Result<String, String> {
    let server = Server::sink(&["--results", &results.to_string_lossy()])?;
    let rounds = if bytes > 2_000_000_000 { 1 } else { bench.rounds() };
    let (mut walls, mut cpus, mut peak) = (Vec::new(), Vec::new(), 0);
    for _ in 0..rounds {
        let spool = Spool::new(bench, "growth", &server)?.with("LIMITS__STORAGE_BYTES", "40GB");
        spool.drop_in(input, "a.jsonl")?;
        settle();
        let taken = spool.once()?;
        spool.check("a", answers)?;
        walls.push(taken.wall);
        cpus.push(taken.cpu);
        peak = peak.max(taken.peak_kib);
    }
    let gigabytes = bytes as f64 / 1e9;
    let (wall, cpu) = (median(&walls), median(&cpus));
    Ok(format!(
        "{wall:.2} s, {:.1} s a GB; CPU {:.1} s a GB; peak RSS {:.1} MiB",
        wall / gigabytes,
        cpu / gigabytes,
        peak as f64 / 1024.0
    ))
}
