//! Peaks of memory: what is large in every way a file can be.

use std::path::{Path, PathBuf};

use super::daemon::Spool;
use super::process::Server;
use super::report::Row;
use super::{Bench, settle};
use crate::generate::{self, Amount, Kind};
use crate::results::Recipe;

/// The rows.
pub fn rows(bench: &Bench) -> Result<Vec<Row>, String> {
    let mut rows = Vec::new();
    let bytes = bench.pick(1 << 30, 8 << 30);
    let large = Case { bytes: Some(1200), ..Case::file(bench, Kind::Text, Amount::Bytes(bytes))? };
    rows.push(large.row(bench, &format!("{} GiB, shuffled", bytes >> 30), 40.0)?);
    let long = bench.place.join("long.jsonl");
    generate::write_long(60_000_000, 7, &long).map_err(|error| error.to_string())?;
    rows.push(Case::of(long).row(bench, "one line of 60 MB", 200.0)?);
    let count = bench.pick(2_000_000, 20_000_000);
    let tiny = Case::file(bench, Kind::Tiny, Amount::Lines(count))?;
    rows.push(tiny.row(
        bench,
        &format!("{} million tiny lines, shuffled", count / 1_000_000),
        64.0,
    )?);
    let bytes = bench.pick(256 << 20, 1 << 30);
    let mixed = Case::file(bench, Kind::Mixed, Amount::Bytes(bytes))?;
    rows.push(mixed.row(bench, &format!("{} MiB, one line in fifty broken", bytes >> 20), 64.0)?);
    let inline = Case { inline: true, ..Case::file(bench, Kind::Text, Amount::Bytes(bytes))? };
    rows.push(inline.row(bench, &format!("{} MiB, requests inline", bytes >> 20), 64.0)?);
    Ok(rows)
}

/// A file and how it goes.
struct Case {
    input: PathBuf,
    /// Bytes of an answer, if not those of its request.
    bytes: Option<usize>,
    inline: bool,
}

impl Case {
    fn of(input: PathBuf) -> Case {
        Case { input, bytes: None, inline: false }
    }

    fn file(bench: &Bench, kind: Kind, amount: Amount) -> Result<Case, String> {
        Ok(Case::of(bench.input(kind, amount)?))
    }

    /// Sends it the whole way once; it goes away afterwards if it is large.
    fn row(&self, bench: &Bench, what: &str, goal: f64) -> Result<Row, String> {
        let cuts = cuts(bench, &self.input)?;
        let recipe = Recipe { shuffle: Some(3), cuts: &cuts, bytes: self.bytes };
        let (folder, answers) = bench.results(&self.input, &recipe)?;
        let server = Server::sink(&["--results", &folder.to_string_lossy()])?;
        let transport = if self.inline { "inline" } else { "file" };
        let spool = Spool::new(bench, "memory", &server)?
            .with("QUEUE__DEFAULT__TRANSPORT", transport)
            .with("LIMITS__STORAGE_BYTES", "40GB");
        spool.drop_in(&self.input, "a.jsonl")?;
        settle();
        let taken = spool.once_or_partial()?;
        spool.check("a", answers)?;
        let name = format!("peak RSS, {what}");
        let batches = server.get("/sink/count?what=create")?;
        let more = format!("{:.1} s, batches: {batches}", taken.wall);
        // Nobody else needs the largest ones, and the disk has to hold the next.
        drop(std::fs::remove_dir_all(folder));
        if std::fs::metadata(&self.input).is_ok_and(|file| file.len() > 3 << 29) {
            drop(std::fs::remove_file(&self.input));
        }
        Ok(Row::most(&name, goal, taken.peak_kib as f64 / 1024.0, "MiB", &more))
    }
}

/// The first rows of the chunks that the program would make of a file.
pub fn cuts(bench: &Bench, input: &Path) -> Result<Vec<u64>, String> {
    let server = Server::sink(&[])?;
    let spool = Spool::new(bench, "cuts", &server)?;
    let mut command = spool.command(&["plan", "--json"]);
    let output = command.arg(input).output().map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let numbers = text.split("\"first\":").skip(1).filter_map(|rest| {
        let digits: String = rest.trim_start().chars().take_while(char::is_ascii_digit).collect();
        digits.parse().ok()
    });
    let cuts: Vec<u64> = numbers.collect();
    if cuts.is_empty() { Err(format!("no plan for {}: {text}", input.display())) } else { Ok(cuts) }
}
