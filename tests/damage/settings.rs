//! Any text as a configuration file, with any variables: it is right or it is refused in words,
//! and what is shown of it says the same again. The fuzz target includes this file too.

use std::path::Path;

use gemini_batchd::config::{Config, Environment, as_file};

/// Checks a file; what follows a NUL byte are variables. Tells whether it was right.
///
/// # Panics
/// If anything is not as it must be.
pub fn check(data: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(data) else { return false };
    let mut parts = text.split('\0');
    let file = parts.next().unwrap_or_default();
    let variables: Vec<(String, &str)> = parts
        .filter_map(|part| part.split_once('='))
        .map(|(name, value)| (format!("GEMINI_BATCHD__{name}"), value))
        .collect();
    let set = variables.iter().map(|(name, value)| (name.as_str(), *value));
    let config = match Config::read(Path::new(PATH), file, &around(set)) {
        Ok(config) => config,
        Err(error) => {
            assert!(!error.problems.is_empty(), "{text:?}");
            for problem in &error.problems {
                assert!(!problem.message.is_empty() && !problem.place.is_empty(), "{text:?}");
                // On a terminal, nobody's file writes but in words.
                let shown = format!("{}{}", problem.place, problem.message);
                assert!(!shown.contains(char::is_control), "{shown:?}");
            }
            return false;
        }
    };
    if variables.is_empty() {
        plain_numbers(file, &config);
    }
    let shown = as_file(&config.shown);
    let again = Config::read(Path::new(PATH), &shown, &around([]))
        .unwrap_or_else(|error| panic!("{error}\n{shown}"));
    assert_eq!(values(&config), values(&again), "{shown}");
    assert_eq!(facts(&config), facts(&again), "{shown}");
    true
}

/// A number of bytes without a unit is that number, in whatever way TOML lets it be written.
fn plain_numbers(file: &str, config: &Config) {
    let table: toml::Table = file.parse().expect("it was read before");
    let limits = config.limits;
    for (key, read) in [
        ("file_bytes", limits.file_bytes),
        ("inline_bytes", limits.inline_bytes),
        ("storage_bytes", limits.storage_bytes),
    ] {
        let written = table.get("limits").and_then(|limits| limits.get(key)?.as_integer());
        assert!(written.is_none_or(|bytes| u64::try_from(bytes) == Ok(read)), "{key}: {file:?}");
    }
}

fn around<'a>(set: impl IntoIterator<Item = (&'a str, &'a str)>) -> Environment {
    let home = [("HOME", "/home/nobody"), ("GEMINI_API_KEY", "AIza-marker")];
    Environment::made_up(Path::new("/etc/gemini-batchd"), home.into_iter().chain(set))
}

fn values(config: &Config) -> Vec<(&str, &str, &str)> {
    let all = config.shown.iter();
    all.map(|one| (one.section.as_str(), one.key, one.value.as_str())).collect()
}

/// Everything but where it came from.
fn facts(config: &Config) -> String {
    let Config { folders, intake, api, limits, poll, queues, control, housekeeping, .. } = config;
    format!("{folders:?}{intake:?}{api:?}{limits:?}{poll:?}{queues:?}{control:?}{housekeeping:?}")
}

/// Where the file might lie. It does not.
const PATH: &str = "/etc/gemini-batchd/of-a-test.toml";
