//! README.md's chapter *Day to day*: its commands are run, and must say what stands there.
//!
//! Ids, times and names of batches differ each time; they are compared by where they occur.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use gemini_batchd::provider::gemini::emulator::Faults;

use crate::working::Working;

#[test]
fn the_commands_of_day_to_day_say_what_the_readme_shows() {
    let told = commands(&chapter());
    let names: Vec<&str> = told.iter().map(|(command, _)| command.as_str()).collect();
    assert_eq!(names.len(), 6, "{names:?}");
    let working = Working::new("[queue.\"reviews\"]\nattempts = 1\n", Faults::default());
    working.drop_file("reviews/yesterday.jsonl", 25, "review");
    working.until_waiting("reviews/yesterday.jsonl");
    working.advance();
    working.until_state("reviews/yesterday.jsonl", "done");
    working.place.write("today.jsonl", &today());
    working.place.write("again.jsonl", &today());
    let (mut theirs, mut ours) = (Stand::default(), Stand::default());
    for (at, (command, shown)) in told.iter().enumerate() {
        let mut arguments: Vec<String> =
            command.split_whitespace().skip(1).map(str::to_owned).collect();
        for argument in &mut arguments {
            if let Some(number) = theirs.number_of(argument) {
                *argument = ours.ids[number].clone();
            }
        }
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let said = working.say(&arguments);
        let folder = working.place.path("").display().to_string();
        let said = said.replace(folder.trim_end_matches('/'), "/data");
        let (wanted, found) = (theirs.plain(shown), ours.plain(&said));
        assert_eq!(found, wanted, "\nREADME.md, `{command}`; it says now:\n{said}");
        match at {
            0 => working.until_waiting("reviews/today.jsonl"),
            1 => {
                working.emulator.advance(Duration::from_millis(2500));
                working.until("it runs", |seen| seen.to_string().contains("\"RUNNING\""));
                working.advance();
                working.until_state("reviews/today.jsonl", "done");
            }
            2 => drop(working.until_state("reviews/again.jsonl", "held")),
            _ => {}
        }
    }
}

/// Forty reviews, of which one can not be sent.
fn today() -> String {
    let line = |n: u32| match n {
        17 => "{\"key\": \"r17\", \"text\": \"The request is missing.\"}\n".to_owned(),
        n => format!(
            "{{\"key\": \"r{n}\", \"request\": {{\"contents\": [{{\"parts\": [{{\"text\": \"Is this \
             review positive? No. {n}: It broke on the second day.\"}}]}}]}}}}\n"
        ),
    };
    (1..=40).map(line).collect()
}

fn chapter() -> String {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let page = std::fs::read_to_string(readme).expect("there");
    let rest = page.split("\n## Day to day\n").nth(1).expect("the chapter");
    rest.split("\n## ").next().expect("split gives one part at least").to_owned()
}

/// The commands after `$ `, each with what it prints.
fn commands(chapter: &str) -> Vec<(String, String)> {
    let blocks = chapter.split("```console\n").skip(1);
    let blocks = blocks.filter_map(|block| block.split("```").next());
    let mut all: Vec<(String, String)> = Vec::new();
    for line in blocks.flat_map(str::lines) {
        match (line.strip_prefix("$ "), all.last_mut()) {
            (Some(command), _) => all.push((command.to_owned(), String::new())),
            (None, Some((_, shown))) => shown.extend([line, "\n"]),
            (None, None) => panic!("{line:?} comes before a command"),
        }
    }
    all
}

/// What differs each time, by where it occurred first.
#[derive(Default)]
struct Stand {
    ids: Vec<String>,
    batches: BTreeMap<String, usize>,
}

impl Stand {
    /// The number of an id that was seen.
    fn number_of(&self, word: &str) -> Option<usize> {
        self.ids.iter().position(|id| id == word)
    }

    /// The text with signs for times, ids, batches and processes, and without columns.
    fn plain(&mut self, text: &str) -> String {
        let lines = text.lines().map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let mut signs: Vec<String> = Vec::new();
            for (at, word) in words.iter().enumerate() {
                let before = at.checked_sub(1).map_or("", |at| words[at]);
                let unit = words.get(at + 1).map_or("", |unit| bare(unit));
                let is_number = |word: &str| bare(word).bytes().all(|b| b.is_ascii_digit());
                if is_number(word) && SPANS.contains(&unit) {
                    signs.push("SPAN".to_owned());
                } else if SPANS.contains(&bare(word)) && is_number(before) {
                    signs.push(word.replace(bare(word), ""));
                } else if before == "process" {
                    signs.push("PID,".to_owned());
                } else {
                    signs.push(self.sign(word));
                }
            }
            signs.retain(|sign| !sign.is_empty());
            // `2 h 10 min` is one time, as `35 s` is.
            signs.dedup_by(|one, other| one == "SPAN" && one == other);
            signs.join(" ").replace(" ,", ",")
        });
        lines.collect::<Vec<_>>().join("\n")
    }

    fn sign(&mut self, word: &str) -> String {
        let text = bare(word);
        let capital = |b: u8| b.is_ascii_digit() || b.is_ascii_uppercase();
        if text.len() == 26 && text.starts_with("01") && text.bytes().all(capital) {
            let number = self.number_of(text).unwrap_or_else(|| {
                self.ids.push(text.to_owned());
                self.ids.len() - 1
            });
            return word.replace(text, &format!("ID{number}"));
        }
        if let Some(name) = text.strip_prefix("batches/") {
            let next = self.batches.len();
            let number = *self.batches.entry(name.to_owned()).or_insert(next);
            return word.replace(name, &number.to_string());
        }
        let is_time = |c: char| c.is_ascii_digit() || "-:".contains(c);
        if text.len() >= 8 && text.chars().all(is_time) {
            return word.replace(text, "WHEN");
        }
        word.to_owned()
    }
}

/// A word without the signs around it.
fn bare(word: &str) -> &str {
    word.trim_matches(|c: char| !c.is_ascii_alphanumeric())
}

const SPANS: [&str; 4] = ["s", "min", "h", "d"];
