//! The whole way of one large file, against a `curl` up and a `curl` down.
//!
//! One round is: curl up, curl down to disk with a sync, the daemon with shuffled results, the
//! daemon with results in order. Upload and download of the daemon are taken from the sink's
//! journal, inside the whole way: the upload as the time in which a piece of it was under way, since
//! it begins before all of the file is known; the download from the first byte to the last.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use super::daemon::Spool;
use super::process::{Server, Taken, busy, measured, span};
use super::report::{Row, median};
use super::{Bench, settle, sync};
use crate::generate::{Amount, Kind};
use crate::results::Recipe;
use crate::sink::now_us;

/// The rows without a limit on the link.
pub fn rows(bench: &Bench) -> Result<Vec<Row>, String> {
    let measured = measure(bench, None)?;
    let Rounds { bytes, curl_up, curl_down, curl, curl_cpu, shuffled, in_order, .. } = &measured;
    let of = |ways: &[Way], part: fn(&Way) -> f64, by: &[f64]| {
        let ratios: Vec<f64> = ways.iter().zip(by).map(|(way, by)| part(way) / by).collect();
        median(&ratios)
    };
    let all: Vec<&Way> = shuffled.iter().chain(in_order).collect();
    let peak = all.iter().map(|way| way.taken.peak_kib).max().unwrap_or(0) as f64 / 1024.0;
    let size = bytes >> 20;
    let seconds = |values: &[f64]| format!("curl {:.2} s", median(values));
    let wall = |ways: &[Way]| ways.iter().map(|way| way.taken.wall).collect::<Vec<_>>();
    let whole = |ways: &[Way]| {
        format!("{:.2} s, curl {:.2} s with fsync", median(&wall(ways)), median(curl))
    };
    Ok(vec![
        Row::most(
            "upload ÷ `curl -T`",
            1.0,
            of(shuffled, |way| way.upload, curl_up),
            "",
            &seconds(curl_up),
        ),
        Row::most(
            "download ÷ `curl -o`",
            1.0,
            of(shuffled, |way| way.download, curl_down),
            "",
            &seconds(curl_down),
        ),
        Row::most(
            &format!("whole way of {size} MiB, shuffled ÷ curls"),
            2.5,
            of(shuffled, |way| way.taken.wall, curl),
            "",
            &whole(shuffled),
        ),
        Row::most(
            &format!("whole way of {size} MiB, in order ÷ curls"),
            1.8,
            of(in_order, |way| way.taken.wall, curl),
            "",
            &whole(in_order),
        ),
        Row::most(
            "CPU of the daemon ÷ CPU of the curls, shuffled",
            2.8,
            of(shuffled, |way| way.taken.cpu, curl_cpu),
            "",
            &format!("curls {:.2} s; the sink takes {:.2} s", median(curl_cpu), measured.sink_cpu),
        ),
        Row::most(&format!("peak RSS, {size} MiB"), 40.0, peak, "MiB", ""),
    ])
}

/// The same over a link of 1 Gbit/s.
pub fn link_rows(bench: &Bench) -> Result<Vec<Row>, String> {
    let measured = measure(bench, Some(GIGABIT))?;
    let ratios: Vec<f64> = measured
        .shuffled
        .iter()
        .zip(&measured.curl)
        .map(|(way, curl)| way.taken.wall / curl)
        .collect();
    let figure = format!("the same over 1 Gbit/s, {} MiB, shuffled", measured.bytes >> 20);
    let more = format!("curl {:.2} s", median(&measured.curl));
    let alone: Vec<f64> =
        measured.shuffled.iter().map(|way| 100.0 * way.intake_alone / way.taken.wall).collect();
    Ok(vec![
        Row::most(&figure, 1.10, median(&ratios), "", &more),
        Row::most(
            "intake that no upload hides ÷ whole way, 1 Gbit/s",
            3.0,
            median(&alone),
            "%",
            "from the start to the create, without the time of the upload",
        ),
    ])
}

/// All rounds.
struct Rounds {
    bytes: u64,
    curl_up: Vec<f64>,
    curl_down: Vec<f64>,
    /// Up, and down with a sync.
    curl: Vec<f64>,
    curl_cpu: Vec<f64>,
    shuffled: Vec<Way>,
    in_order: Vec<Way>,
    /// Seconds of CPU of the sink for one way, about.
    sink_cpu: f64,
}

/// One way of the daemon.
struct Way {
    taken: Taken,
    upload: f64,
    download: f64,
    /// Seconds from the start to the create in which no upload was under way.
    intake_alone: f64,
}

fn measure(bench: &Bench, rate: Option<u64>) -> Result<Rounds, String> {
    let bytes = bench.pick(256 << 20, 1 << 30);
    let input = bench.input(Kind::Text, Amount::Bytes(bytes))?;
    let recipe = |shuffle| Recipe { shuffle, cuts: &[1], bytes: None };
    let (mixed, answers) = bench.results(&input, &recipe(Some(3)))?;
    let mut rounds = Rounds {
        bytes,
        curl_up: Vec::new(),
        curl_down: Vec::new(),
        curl: Vec::new(),
        curl_cpu: Vec::new(),
        shuffled: Vec::new(),
        in_order: Vec::new(),
        sink_cpu: 0.0,
    };
    for _ in 0..bench.rounds() {
        let server = start(&mixed, rate)?;
        let curls = curls_once(bench, &server, &input)?;
        rounds.curl_up.push(curls.up);
        rounds.curl_down.push(curls.down);
        rounds.curl.push(curls.whole);
        rounds.curl_cpu.push(curls.cpu);
        let before = server.cpu();
        rounds.shuffled.push(way(bench, &server, &input, answers)?);
        rounds.sink_cpu = server.cpu() - before;
        if rate.is_none() {
            let (ordered, answers) = bench.results(&input, &recipe(None))?;
            let server = start(&ordered, rate)?;
            rounds.in_order.push(way(bench, &server, &input, answers)?);
        }
    }
    Ok(rounds)
}

fn start(results: &Path, rate: Option<u64>) -> Result<Server, String> {
    let folder = results.to_str().ok_or("a path that is no text")?;
    match rate {
        None => Server::sink(&["--results", folder]),
        Some(rate) => Server::sink(&["--results", folder, "--rate", &rate.to_string()]),
    }
}

/// A `curl` up and a `curl` down.
pub struct Curls {
    up: f64,
    down: f64,
    /// Seconds of both, and of syncing what came down.
    pub whole: f64,
    cpu: f64,
}

/// Sends a file up and its results down to the disk, and syncs them.
pub fn curls_once(bench: &Bench, server: &Server, input: &Path) -> Result<Curls, String> {
    let out = bench.place.join("curl.out");
    settle();
    let curl = || {
        let mut command = Command::new("curl");
        command.args(["-sSf", "-o"]);
        command
    };
    let up = measured(
        curl()
            .args(["/dev/null", "-H", "expect:", "-T"])
            .arg(input)
            .arg(format!("{}/sink/discard", server.url)),
    )?;
    let down = measured(curl().arg(&out).arg(format!("{}/sink/results/1.jsonl", server.url)))?;
    let began = Instant::now();
    sync(&out).map_err(|error| error.to_string())?;
    let whole = up.wall + down.wall + began.elapsed().as_secs_f64();
    drop(std::fs::remove_file(&out));
    Ok(Curls { up: up.wall, down: down.wall, whole, cpu: up.cpu + down.cpu })
}

fn way(bench: &Bench, server: &Server, input: &Path, answers: u64) -> Result<Way, String> {
    let spool = Spool::new(bench, "way", server)?;
    spool.drop_in(input, "a.jsonl")?;
    settle();
    let from = server.journal(0)?.len();
    let began_us = now_us();
    let taken = spool.once()?;
    spool.check("a", answers)?;
    let journal = server.journal(from)?;
    let upload = busy(&journal, "upload-first", "upload-last");
    let created = journal.iter().find(|noted| noted.what == "create");
    let to_create = created.map_or(0, |noted| noted.at_us.saturating_sub(began_us)) as f64 / 1e6;
    Ok(Way {
        taken,
        upload,
        intake_alone: to_create - upload,
        download: span(&journal, "download-first", "download-last"),
    })
}

/// Bytes a second of 1 Gbit/s.
const GIGABIT: u64 = 125_000_000;
