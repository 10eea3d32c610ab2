//! What lies on the disk beyond input, downloads and outputs, at its most.
//!
//! While the daemon works, the blocks of all files of its spool are counted every 20 ms.

use std::path::Path;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use super::daemon::Spool;
use super::process::{Running, Server, disk_usage};
use super::report::Row;
use super::{Bench, settle};
use crate::generate::{Amount, Kind};
use crate::results::Recipe;

/// The rows.
pub fn rows(bench: &Bench) -> Result<Vec<Row>, String> {
    let lines: u64 = bench.pick(500_000, 5_000_000);
    let mut rows = Vec::new();
    for (shuffle, order) in [(None, "in order"), (Some(3), "shuffled")] {
        let input = bench.input(Kind::Tiny, Amount::Lines(lines))?;
        let recipe = Recipe { shuffle, cuts: &[1], bytes: None };
        let (folder, answers) = bench.results(&input, &recipe)?;
        let server = Server::sink(&["--results", &folder.to_string_lossy()])?;
        let spool = Spool::new(bench, "disk", &server)?;
        spool.drop_in(&input, "a.jsonl")?;
        settle();
        let mut command = spool.command(&["once"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut daemon = Running(command.spawn().map_err(|error| error.to_string())?);
        let (mut most, mut what) = (0, Vec::new());
        while daemon.0.try_wait().map_err(|error| error.to_string())?.is_none() {
            let (mut bytes, mut files) = (0, Vec::new());
            disk_usage(&spool.path, &mut |path, taken| {
                if !is_payload(&spool.path, path) {
                    bytes += taken;
                    files.push((taken, path.file_name().unwrap_or_default().to_owned()));
                }
            });
            if bytes > most {
                (most, what) = (bytes, files);
            }
            thread::sleep(Duration::from_millis(20));
        }
        spool.check("a", answers)?;
        what.sort();
        let largest: Vec<String> = what
            .iter()
            .rev()
            .take(3)
            .map(|(taken, name)| {
                format!("{} {:.1}", name.to_string_lossy(), *taken as f64 / lines as f64)
            })
            .collect();
        rows.push(Row::most(
            &format!("extra disk of {lines} tiny lines, {order}"),
            40.0,
            most as f64 / lines as f64,
            "bytes a line",
            &largest.join(", "),
        ));
    }
    Ok(rows)
}

/// Whether a file is input, download or output, or what every spool keeps for a full disk.
fn is_payload(spool: &Path, path: &Path) -> bool {
    let Ok(inside) = path.strip_prefix(spool) else { return false };
    let parts: Vec<_> = inside.iter().map(|part| part.to_string_lossy()).collect();
    let parts: Vec<&str> = parts.iter().map(AsRef::as_ref).collect();
    match parts.as_slice() {
        ["inbox" | "outbox" | "archive", ..] | ["state", "reserve"] => true,
        ["working", _, folder, name, ..] => {
            // Beside the answers may lie what was sorted out of them.
            *folder == "input"
                || *folder == "out"
                || (*folder == "answers"
                    && (name.ends_with(".jsonl") || name.ends_with(".download")))
        }
        _ => false,
    }
}
