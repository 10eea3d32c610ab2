//! `report`: what came of the last night, in the terminal, as JSON, as Markdown or as a page.

use std::io::Write;

use clap::Args;
use jiff::tz::TimeZone;

use crate::telemetry::escaped;
use crate::view::report::told::{Item, Told};
use crate::view::report::{Report as View, ReportQuery};

use super::figures::{Line, Look, Tone, number, pad, wrapped};
use super::{ExitCode, Failure, Globals, print_json, runtime, status};

/// The verb.
#[derive(Debug, Args)]
pub struct Report {
    /// Since a moment, a day, or for so long (2026-11-21T18:00:00Z, 2026-11-21, 12h)
    #[arg(long, value_name = "WHEN", default_value = "24h")]
    pub since: String,
    /// As one HTML page with a chart, for a browser or a mail
    #[arg(long, conflicts_with = "md")]
    pub html: bool,
    /// As Markdown
    #[arg(long)]
    pub md: bool,
}

impl Report {
    /// Runs the verb.
    ///
    /// # Errors
    /// If no daemon is running, or `--since` is not understood.
    pub fn run(&self, globals: &Globals, out: &mut dyn Write) -> Result<ExitCode, Failure> {
        if globals.json && (self.html || self.md) {
            return Err(Failure::usage("--json goes with neither --html nor --md".to_owned()));
        }
        let client = status::reach(&globals.load()?)?;
        let query = ReportQuery { since: Some(self.since.clone()) };
        let report = runtime()?.block_on(client.report(&query))?;
        let zone = TimeZone::system();
        match (globals.json, self.html, self.md) {
            (true, ..) => print_json(out, &report)?,
            (_, true, _) => out.write_all(report.html(&zone).as_bytes())?,
            (.., true) => out.write_all(report.markdown(&zone).as_bytes())?,
            (false, false, false) => {
                let look = Look::of_stdout();
                status::print(&lines(&report, &zone, &look), &look, out)?;
            }
        }
        Ok(ExitCode::Complete)
    }
}

/// The report as lines of a terminal.
fn lines(report: &View, zone: &TimeZone, look: &Look) -> Vec<Line> {
    let told = report.told(zone);
    let tone = if told.is_good { Tone::Good } else { Tone::Warn };
    let mut lines = vec![Line::of(Tone::Strong, told.title.clone())];
    lines.push(Line::of(tone, escaped(&told.headline)));
    for (name, fact) in &told.facts {
        let parts = wrapped(&escaped(fact), look.measure().saturating_sub(NAME_COLUMNS));
        for (at, part) in parts.into_iter().enumerate() {
            let name = if at == 0 { name } else { "" };
            lines.push(Line::of(Tone::Faint, pad(name, NAME_COLUMNS)).and(Tone::Plain, part));
        }
    }
    section("Needs you", &told.attention, look, &mut lines);
    section("Under way", &told.waiting, look, &mut lines);
    nights(&told, &mut lines);
    lines
}

fn section(name: &str, items: &[Item], look: &Look, lines: &mut Vec<Line>) {
    if items.is_empty() {
        return;
    }
    lines.extend([Line::default(), Line::of(Tone::Strong, name)]);
    for item in items {
        lines.push(Line::plain(format!("  {}", escaped(&item.what))));
        let parts = wrapped(&escaped(&item.why), look.measure().saturating_sub(4));
        lines.extend(parts.into_iter().map(|part| Line::plain(format!("    {part}"))));
    }
}

/// The nights as a table with bars.
fn nights(told: &Told, lines: &mut Vec<Line>) {
    let most = told.nights.iter().map(|night| night.answered.saturating_add(night.failed)).max();
    let most = most.unwrap_or(0).max(1);
    let cells = |count: u64| {
        usize::try_from(u128::from(count) * u128::from(BAR_CELLS) / u128::from(most)).unwrap_or(0)
    };
    let head = format!("{:<10} {:>7} {:>13} {:>11}", "TO", "FILES", "ANSWERED", "FAILED");
    lines.extend([Line::default(), Line::of(Tone::Faint, head)]);
    for night in &told.nights {
        let [files, answered, failed] = [night.files, night.answered, night.failed].map(number);
        let bad = cells(night.failed).max(usize::from(night.failed > 0));
        let text = format!("{:<10} {files:>7} {answered:>13} {failed:>11}  ", night.day);
        let bar = Line::plain(text)
            .and(Tone::Good, "█".repeat(cells(night.answered)))
            .and(Tone::Bad, "█".repeat(bad));
        lines.push(bar);
    }
}

const NAME_COLUMNS: usize = 11;
const BAR_CELLS: u64 = 30;
