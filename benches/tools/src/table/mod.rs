//! The table of figures: what is measured, one file for each group of rows.

mod bounds;
mod control;
mod daemon;
mod disk;
mod intake;
mod latency;
mod many;
mod memory;
mod page;
mod peers;
mod process;
mod records;
mod reorder;
mod report;
mod way;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::generate::{self, Amount, Kind};
use crate::results;
use report::Row;

/// How to measure.
pub struct Options {
    /// Smaller inputs, fewer rounds.
    pub quick: bool,
    /// The program that is measured.
    pub binary: PathBuf,
    /// Other clients of the API as well.
    pub peers: bool,
    /// Groups of rows; all without.
    pub groups: Vec<String>,
}

impl Options {
    fn wants(&self, group: &str) -> bool {
        if !self.groups.is_empty() {
            return self.groups.iter().any(|wanted| wanted == group);
        }
        match group {
            "peers" => self.peers,
            "growth" => !self.quick,
            _ => true,
        }
    }
}

/// Everything a group of rows needs.
pub struct Bench {
    quick: bool,
    binary: PathBuf,
    /// A folder that goes with us.
    place: PathBuf,
}

type Group = fn(&Bench) -> Result<Vec<Row>, String>;

/// The groups in the order of the table.
const GROUPS: [(&str, &str, Group); 18] = [
    ("intake", "lines checked, indexed and hashed, against wc -l", intake::rows),
    ("way", "upload, download, and the whole way, against curl", way::rows),
    ("link", "the whole way over 1 Gbit/s, against curl", way::link_rows),
    ("memory", "peaks of memory", memory::rows),
    ("reorder", "results that have left the page cache", reorder::rows),
    ("disk", "what lies on the disk beside payloads", disk::rows),
    ("latency", "a small file before its create, and after its batch", latency::rows),
    ("polls", "10,000 batches under way", records::poll_rows),
    ("start", "a start with 100,000 records", records::start_rows),
    ("control", "status, lists and memory with 11,000 jobs", control::rows),
    ("page", "the dashboard in a browser; only with chromium, Node and npm", page::rows),
    ("many", "2,000 files at once, and beside a large one", many::rows),
    ("idle", "waiting for 100 batches", records::idle_rows),
    ("storm", "renames that come all at once", many::storm_rows),
    ("scan", "100,000 files in the inbox", many::scan_rows),
    ("sink", "whether the sink is in the way", bounds::sink_rows),
    ("growth", "how cost grows with size; not part of a quick run", bounds::growth_rows),
    ("peers", "other clients of the API; only with --peers or by name", peers::rows),
];

/// The names of all groups and what they are.
pub fn groups() -> String {
    let lines = GROUPS.map(|(name, what, _)| format!("  {name:<10} {what}"));
    lines.join("\n")
}

/// Measures and prints the table as it comes.
///
/// # Errors
/// If a group is unknown, or one could not be measured; the others are printed.
pub fn run(options: &Options) -> Result<(), String> {
    let known = |name: &String| GROUPS.iter().any(|(group, _, _)| group == name);
    if let Some(name) = options.groups.iter().find(|name| !known(name)) {
        return Err(format!("no group {name}; there are\n{}", groups()));
    }
    let bench = Bench::new(options).map_err(|error| error.to_string())?;
    println!("{}", report::HEAD);
    let (mut failed, mut short) = (Vec::new(), 0);
    for (name, _, group) in GROUPS {
        if !options.wants(name) {
            continue;
        }
        let began = std::time::Instant::now();
        match group(&bench) {
            Ok(rows) => {
                for row in rows {
                    short += usize::from(row.enough == Some(false));
                    row.print(&mut io::stdout()).map_err(|error| error.to_string())?;
                }
            }
            Err(error) => failed.push(format!("{name}: {error}")),
        }
        eprintln!("{name}: {:.0} s", began.elapsed().as_secs_f64());
    }
    eprintln!("{short} figures fall short");
    if failed.is_empty() { Ok(()) } else { Err(failed.join("\n")) }
}

impl Bench {
    fn new(options: &Options) -> io::Result<Bench> {
        let name = format!("gemini-batchd-bench.{}", std::process::id());
        let place = std::env::temp_dir().join(name);
        fs::create_dir(&place)?;
        Ok(Bench { quick: options.quick, binary: options.binary.clone(), place })
    }

    /// The one for a quick run, or the other.
    fn pick<T>(&self, quick: T, full: T) -> T {
        if self.quick { quick } else { full }
    }

    /// How often a figure is measured.
    fn rounds(&self) -> usize {
        self.pick(3, 5)
    }

    /// An input of a kind, made when it is first asked for.
    fn input(&self, kind: Kind, amount: Amount) -> Result<PathBuf, String> {
        let path = self.place.join(format!("{kind:?}-{amount:?}.jsonl"));
        if !path.exists() {
            let made = generate::write(kind, amount, 7, &path).and_then(|()| sync(&path));
            made.map_err(|error| format!("{}: {error}", path.display()))?;
        }
        Ok(path)
    }

    /// Its results, in the folder that the sink is given; and how many.
    fn results(
        &self,
        input: &Path,
        recipe: &results::Recipe<'_>,
    ) -> Result<(PathBuf, u64), String> {
        let order = if recipe.shuffle.is_some() { "shuffled" } else { "in-order" };
        let folder = input.with_extension(order);
        let count = folder.join("count");
        if let Ok(text) = fs::read_to_string(&count) {
            return Ok((folder, text.parse().unwrap_or(0)));
        }
        let lines = results::write(input, &folder, recipe).map_err(|error| error.to_string())?;
        fs::write(&count, lines.to_string()).map_err(|error| error.to_string())?;
        settle();
        Ok((folder, lines))
    }

    /// An empty folder of this name.
    fn folder(&self, name: &str) -> Result<PathBuf, String> {
        let path = self.place.join(name);
        drop(fs::remove_dir_all(&path));
        fs::create_dir_all(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(path)
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.place));
    }
}

/// Lets the disk come to rest, so that nobody pays for what was written before.
fn settle() {
    drop(std::process::Command::new("sync").status());
}

fn sync(path: &Path) -> io::Result<()> {
    fs::File::open(path)?.sync_all()
}
