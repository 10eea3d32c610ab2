//! The tools of `benches/run.sh`; see `benches/README.md`.

mod dice;
mod generate;
mod pool;
mod results;
mod sink;
mod table;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use generate::{Amount, Kind};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match run(&words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::from(2)
        }
    }
}

fn run(words: &[&str]) -> Result<(), String> {
    match words {
        ["generate", "files", count, lines, folder, rest @ ..] => {
            let (count, lines) = (number(count)?, number(lines)?);
            generate::write_files(count, lines, seed(rest)?, Path::new(folder)).map_err(told)
        }
        ["generate", "long", bytes, path, rest @ ..] => {
            generate::write_long(number(bytes)?, seed(rest)?, Path::new(path)).map_err(told)
        }
        ["generate", kind, amount, path, rest @ ..] => {
            let kind = Kind::named(kind).ok_or(USAGE)?;
            let amount = match amount.strip_suffix("lines") {
                Some(lines) => Amount::Lines(number(lines)?),
                None => Amount::Bytes(number(amount)?),
            };
            generate::write(kind, amount, seed(rest)?, Path::new(path)).map_err(told)
        }
        ["results", input, folder, rest @ ..] => {
            let list = flag(rest, "--cuts").unwrap_or("1");
            let cuts: Vec<u64> = list.split(',').map(number).collect::<Result<_, _>>()?;
            let recipe = results::Recipe {
                shuffle: flag(rest, "--shuffle").map(number).transpose()?,
                cuts: &cuts,
                bytes: flag(rest, "--bytes").map(number).transpose()?.map(|bytes| bytes as usize),
            };
            let answers = results::write(Path::new(input), Path::new(folder), &recipe);
            println!("{}", answers.map_err(told)?);
            Ok(())
        }
        ["sink", rest @ ..] => sink::run(sink::Options {
            listen: flag(rest, "--listen")
                .unwrap_or("127.0.0.1:0")
                .parse()
                .map_err(|error| format!("--listen: {error}"))?,
            results: flag(rest, "--results").map(PathBuf::from),
            keep: flag(rest, "--keep").map(PathBuf::from),
            rate: flag(rest, "--rate").map(number).transpose()?,
            done_after_ms: flag(rest, "--done-after").map(number).transpose()?.unwrap_or(0),
            preload: flag(rest, "--preload").map(number).transpose()?.unwrap_or(0),
        })
        .map_err(told),
        ["table", _, "--list"] => {
            println!("{}", table::groups());
            Ok(())
        }
        ["table", binary, rest @ ..] => {
            let groups = rest.iter().filter(|word| !word.starts_with("--"));
            table::run(&table::Options {
                quick: rest.contains(&"--quick"),
                peers: rest.contains(&"--peers"),
                binary: PathBuf::from(binary),
                groups: groups.map(|word| (*word).to_owned()).collect(),
            })
        }
        _ => Err(format!("{USAGE}\n{}", table::groups())),
    }
}

fn flag<'a>(words: &[&'a str], name: &str) -> Option<&'a str> {
    let at = words.iter().position(|word| *word == name)?;
    words.get(at + 1).copied()
}

fn seed(words: &[&str]) -> Result<u64, String> {
    flag(words, "--seed").map_or(Ok(7), number)
}

/// A number with an optional unit: `300MB`, `1GiB`.
fn number(text: &str) -> Result<u64, String> {
    let end = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    let factor = match unit {
        "" => 1,
        "kB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err(format!("{text:?} is no number; write 300MB or 1GiB")),
    };
    let digits: u64 = digits.parse().map_err(|_| format!("{text:?} is no number"))?;
    Ok(digits * factor)
}

fn told(error: std::io::Error) -> String {
    error.to_string()
}

const USAGE: &str = "\
bench generate text|mixed|plain|image|tiny AMOUNT FILE [--seed N]   AMOUNT: 1GiB, 300MB, 20000lines
bench generate long BYTES FILE [--seed N]
bench generate files COUNT LINES FOLDER [--seed N]
bench results INPUT FOLDER [--shuffle SEED] [--cuts 1,450000] [--bytes N]
bench sink [--listen ADDR:PORT] [--results FOLDER] [--keep FOLDER] [--rate BYTES]
           [--done-after MS] [--preload N]
bench table BINARY [--quick] [--peers] [GROUP…]
groups of the table:";
