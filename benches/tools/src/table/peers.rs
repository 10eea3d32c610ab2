//! Other clients of the API, with the same file on the same server: the SDKs of Google.
//!
//! Each is a script in `benches/peers/` that uploads, creates, waits, downloads, and writes the
//! answers in input order. They are installed on demand, into the folder that `BENCH_PEERS` names.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::daemon::Spool;
use super::process::{Server, Taken, measured};
use super::report::{Row, median};
use super::way::curls_once;
use super::{Bench, settle};
use crate::generate::{Amount, Kind};
use crate::results::Recipe;

/// The rows.
pub fn rows(bench: &Bench) -> Result<Vec<Row>, String> {
    let installed = std::env::var_os("BENCH_PEERS").map(PathBuf::from);
    let installed = installed.ok_or("start it with benches/run.sh --peers")?;
    let bytes = bench.pick(128 << 20, 1 << 30);
    let input = bench.input(Kind::Plain, Amount::Bytes(bytes))?;
    let recipe = Recipe { shuffle: Some(3), cuts: &[1], bytes: None };
    let (folder, answers) = bench.results(&input, &recipe)?;
    let server = Server::sink(&["--results", &folder.to_string_lossy()])?;
    let curls = curls(bench, &server, &input)?;
    let spool = Spool::new(bench, "peers", &server)?;
    spool.drop_in(&input, "a.jsonl")?;
    settle();
    let ours = spool.once()?;
    spool.check("a", answers)?;
    drop(spool);
    let row = |name: &str, taken: Result<Taken, String>| {
        let figure = format!("whole way of {} MiB ÷ curls, {name}", bytes >> 20);
        match taken {
            Ok(Taken { wall, cpu, peak_kib }) => {
                let (ratio, peak) = (wall / curls, peak_kib / 1024);
                let more = format!("{wall:.1} s, CPU {cpu:.1} s, peak RSS {peak} MiB");
                Row::only(&figure, &format!("{ratio:.1} ({more})"))
            }
            // One that is not there, or fails with large files, is a row as well.
            Err(error) => {
                let last = error.lines().last().unwrap_or_default();
                let plain = |c: &char| *c != '|' && !c.is_control();
                let shown: String = last.chars().filter(plain).take(120).collect();
                Row::only(&figure, &format!("fails: {shown}"))
            }
        }
    };
    let mut rows = vec![row("gemini-batchd", Ok(ours))];
    for (name, program, script) in [
        ("Python SDK, careful", installed.join("venv/bin/python"), "careful.py"),
        ("Python SDK, as in its guide", installed.join("venv/bin/python"), "guide.py"),
        ("Node SDK", PathBuf::from("node"), "node.mjs"),
    ] {
        let out = bench.place.join("peer.out");
        settle();
        let mut command = Command::new(program);
        // The Node SDK is found beside the script, so both scripts lie where they are installed.
        command.arg(installed.join(script)).arg(&server.url).arg(&input).arg(&out);
        let taken = measured(&mut command);
        rows.push(row(name, taken.and_then(|taken| check(&out, answers).map(|()| taken))));
        drop(std::fs::remove_file(&out));
    }
    Ok(rows)
}

/// Seconds of a `curl` up and a `curl` down with a sync, as in the rows of the whole way.
fn curls(bench: &Bench, server: &Server, input: &Path) -> Result<f64, String> {
    let mut walls = Vec::new();
    for _ in 0..bench.rounds() {
        walls.push(curls_once(bench, server, input)?.whole);
    }
    Ok(median(&walls))
}

fn check(out: &Path, answers: u64) -> Result<(), String> {
    let counted = Command::new("wc").arg("-l").arg(out).output();
    let counted = counted.map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&counted.stdout).into_owned();
    let lines: u64 = text.split_whitespace().next().unwrap_or_default().parse().unwrap_or(0);
    match lines == answers {
        true => Ok(()),
        false => Err(format!("{lines} lines came out instead of {answers}")),
    }
}
