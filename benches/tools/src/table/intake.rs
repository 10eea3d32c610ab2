//! Intake against `wc -l`: both read every byte once, from the page cache.
//!
//! `plan FILE` does what the daemon does when it has claimed a file: it checks every line, notes
//! where it stands, hashes all bytes and cuts chunks. Only syncing the index is left out.

use std::process::Command;

use super::process::measured;
use super::report::{Row, median};
use super::{Bench, daemon::Spool, process::Server};
use crate::generate::{Amount, Kind};

/// The rows.
pub fn rows(bench: &Bench) -> Result<Vec<Row>, String> {
    let bytes = bench.pick(256 << 20, 1 << 30);
    let mut rows = Vec::new();
    for (kind, what, goal) in [(Kind::Text, "text", 3.5), (Kind::Image, "1 MB image lines", 2.0)] {
        let input = bench.input(kind, Amount::Bytes(bytes))?;
        let server = Server::sink(&[])?;
        let spool = Spool::new(bench, "intake", &server)?;
        let file = input.to_str().ok_or("a path that is no text")?;
        let (mut ratios, mut seconds, mut cpu) = (Vec::new(), Vec::new(), (0.0, 0.0));
        for _ in 0..bench.rounds() + 2 {
            let counted = measured(Command::new("wc").arg("-l").arg(file))?;
            let planned = measured(&mut spool.command(&["plan", file]))?;
            ratios.push(planned.wall / counted.wall);
            seconds.push(planned.wall);
            cpu = (cpu.0 + planned.cpu, cpu.1 + counted.cpu);
        }
        // Neighbours on the machine are in the seconds, but hardly in the CPU time.
        let more = format!(
            "{:.2} s for {} MiB; by CPU {:.1}",
            median(&seconds),
            bytes >> 20,
            cpu.0 / cpu.1.max(0.01)
        );
        rows.push(Row::most(
            &format!("intake ÷ `wc -l`, {what}"),
            goal,
            median(&ratios),
            "",
            &more,
        ));
    }
    Ok(rows)
}
