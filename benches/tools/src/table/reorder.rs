//! Results that have left the page cache, against results that are still in it.
//!
//! The daemon is killed when it has begun to merge, its spool is kept, and `once` takes it up
//! from there: once with the pages of input and answers in memory, once without. `dd` drops the
//! pages of a file without being root.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::daemon::{Spool, wait_until};
use super::process::{Running, Server, disk_usage};
use super::report::{Row, median};
use super::{Bench, settle};
use crate::generate::{Amount, Kind};
use crate::results::Recipe;

/// The rows.
pub fn rows(bench: &Bench) -> Result<Vec<Row>, String> {
    let bytes = bench.pick(256 << 20, 1 << 30);
    let input = bench.input(Kind::Text, Amount::Bytes(bytes))?;
    let (folder, answers) =
        bench.results(&input, &Recipe { shuffle: Some(3), cuts: &[1], bytes: None })?;
    let server = Server::sink(&["--results", &folder.to_string_lossy()])?;
    let spool = Spool::new(bench, "reorder", &server)?;
    spool.drop_in(&input, "a.jsonl")?;
    let mut command = spool.command(&["once"]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let daemon = Running(command.spawn().map_err(|error| error.to_string())?);
    if !wait_until(Duration::from_secs(300), || merging(&spool.path)) {
        return Err("no merge was begun within five minutes".to_owned());
    }
    daemon.kill();
    settle();
    let kept = bench.place.join("reorder-kept");
    drop(fs::remove_dir_all(&kept));
    fs::rename(&spool.path, &kept).map_err(|error| error.to_string())?;
    let (mut ratios, mut warm, mut cold) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..bench.rounds() {
        for (cached, seconds) in [(true, &mut warm), (false, &mut cold)] {
            drop(fs::remove_dir_all(&spool.path));
            copy(&kept, &spool.path).map_err(|error| error.to_string())?;
            settle();
            for file in large_files(&spool.path) {
                cache(&file, cached)?;
            }
            seconds.push(spool.once()?.wall);
            spool.check("a", answers)?;
        }
        ratios.push(cold[cold.len() - 1] / warm[warm.len() - 1]);
    }
    drop(fs::remove_dir_all(&kept));
    let more = format!("{:.2} s warm, {:.2} s cold", median(&warm), median(&cold));
    let figure = format!("reorder of {} MiB shuffled, cold ÷ warm", bytes >> 20);
    Ok(vec![Row::most(&figure, 1.5, median(&ratios), "", &more)])
}

/// Whether the outputs have been begun.
fn merging(spool: &Path) -> bool {
    let Ok(mut jobs) = fs::read_dir(spool.join("working")) else { return false };
    let Some(Ok(job)) = jobs.next() else { return false };
    fs::read_dir(job.path().join("out")).is_ok_and(|mut entries| entries.next().is_some())
}

/// A copy; what is large and only read is shared.
fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let parent = from.file_name().unwrap_or_default();
        if source.is_dir() {
            copy(&source, &target)?;
        } else if parent == "input" || parent == "answers" {
            fs::hard_link(&source, &target)?;
        } else if source.is_file() {
            fs::copy(&source, &target)?;
        }
    }
    Ok(())
}

fn large_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    disk_usage(folder, &mut |path, bytes| {
        if bytes > 1 << 20 {
            files.push(path.to_owned());
        }
    });
    files
}

/// Reads a file into the page cache, or drops it from there.
fn cache(file: &Path, into: bool) -> Result<(), String> {
    let mut command = Command::new("dd");
    command.arg(format!("if={}", file.display())).arg("of=/dev/null").arg("status=none");
    match into {
        true => command.arg("bs=1M"),
        false => command.args(["iflag=nocache", "count=0"]),
    };
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(_) | Err(_) => Err(format!("{command:?} failed")),
    }
}
