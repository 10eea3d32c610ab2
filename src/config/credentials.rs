//! Credentials: API keys with names, for queues that do not use the default one.
//!
//! One may have a section of its own, or only be named by a queue: its key may come from systemd or
//! the environment. One that no queue names any more is kept as long as it has a section, for the
//! jobs that are bound to its key.

use std::collections::{BTreeMap, BTreeSet};

use super::Environment;
use super::key::{self, Key, KeyProblem};
use super::layers::Layers;
use super::settings::{CREDENTIAL, QUEUE};

/// Finds the keys of all credentials that have a name.
pub(super) fn read(
    layers: &Layers,
    environment: &Environment,
) -> BTreeMap<String, Result<Key, KeyProblem>> {
    let mut names: BTreeSet<String> = layers.credentials();
    let of_queues = layers.queues().into_iter().map(|queue| format!("{QUEUE}.{queue}"));
    names.extend(of_queues.map(|section| layers.text(&section, "credential")));
    names.retain(|name| check_name(name).is_ok());
    let find = |name: &String| {
        let file = layers.path(&format!("{CREDENTIAL}.{name}"), "key_file", environment);
        key::find_named(name, file.as_deref(), environment)
    };
    names.into_iter().map(|name| (name.clone(), find(&name))).collect()
}

/// The credential a queue names; empty for the default one.
pub(super) fn of_queue(layers: &mut Layers, section: &str) -> String {
    let name = layers.text(section, "credential");
    if let (false, Err(why)) = (name.is_empty(), check_name(&name)) {
        let origin = layers.get(section, "credential").origin.clone();
        // A queue that inherits it would repeat the complaint.
        if !layers.problems.iter().any(|seen| seen.place == origin.to_string()) {
            layers.problem(&origin, format!("{section}.credential: {why}"));
        }
    }
    name
}

/// Whether a name can be that of a credential: part of a file's name and of a variable's.
pub(super) fn check_name(name: &str) -> Result<(), String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if (1..=NAME_MAX).contains(&name.len()) && name.chars().all(plain) {
        return Ok(());
    }
    Err(format!(
        "`{}` can name no credential; write up to {NAME_MAX} letters, digits, `-` and `_`, like \
         \"team\"",
        name.escape_debug()
    ))
}

/// Characters of a credential's name.
const NAME_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use std::path::Path;

    use secrecy::ExposeSecret;

    use crate::config::{Config, Environment, KeyProblem};

    fn environment() -> Environment {
        let variables =
            [("GEMINI_API_KEY", "marker-default"), ("GEMINI_API_KEY_TEAM_A", "marker-a")];
        Environment::made_up(Path::new("/spool"), variables.into_iter().chain([("HOME", "/home")]))
    }

    fn read(text: &str) -> Result<Config, String> {
        let path = Path::new("/etc/gemini-batchd.toml");
        Config::read(path, text, &environment()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_queue_may_name_a_credential_that_has_no_section() {
        let config = read("queue.one.credential = \"team-a\"\n").expect("right");
        assert_eq!(config.queue_for("one").credential, "team-a");
        assert_eq!(config.queue_for("").credential, "");
        let keys = config.keys_needed().expect("both are there");
        let keys: Vec<_> =
            keys.iter().map(|(name, key)| (name.as_str(), key.secret.expose_secret())).collect();
        assert_eq!(keys, [("", "marker-default"), ("team-a", "marker-a")]);
    }

    #[test]
    fn a_credential_without_a_key_is_told_with_the_places_it_was_looked_for() {
        let config =
            read("[credential.other]\n[queue.one]\ncredential = \"other\"\n").expect("right");
        let problem = config.keys_needed().expect_err("there is none");
        assert!(matches!(problem, KeyProblem::MissingNamed { .. }));
        let told = problem.to_string();
        for place in ["credential.other.key_file", "gemini-api-key.other", "GEMINI_API_KEY_OTHER"] {
            assert!(told.contains(place), "{told}");
        }
    }

    #[test]
    fn the_default_key_may_be_missing_when_no_queue_needs_it() {
        let nothing = Environment::made_up(
            Path::new("/spool"),
            [("GEMINI_API_KEY_TEAM_A", "marker-a"), ("HOME", "/home")],
        );
        let read =
            |text: &str| Config::read(Path::new("/etc/c.toml"), text, &nothing).expect("right");
        let all = read("queue.default.credential = \"team-a\"\n");
        assert_eq!(all.keys_needed().expect("one").len(), 1);
        let some = read("queue.one.credential = \"team-a\"\n");
        assert_eq!(some.keys_needed().expect_err("none"), KeyProblem::Missing);
    }

    #[test]
    fn names_that_no_file_or_variable_could_bear_are_refused_with_their_lines() {
        for (text, line) in [
            ("[credential.\"a/b\"]\nkey_file = \"x\"\n", 1),
            ("[queue.default]\ncredential = \"../b\"\n", 2),
            ("[credential]\nkey_file = \"x\"\n", 2),
        ] {
            let told = read(text).expect_err("wrong");
            assert!(told.contains(&format!("gemini-batchd.toml:{line}")), "{told}");
            assert_eq!(told.matches("gemini-batchd.toml").count(), 1, "{told}");
        }
        let told = read("[credential.team]\nkey_fiel = \"x\"\n").expect_err("wrong");
        assert!(told.contains("did you mean `key_file`?"), "{told}");
    }

    #[test]
    fn a_sidecar_may_choose_among_the_credentials_of_the_configuration_only() {
        let config = read("queue.one.credential = \"team-a\"\n").expect("right");
        let beside = |text| config.queue_beside("", "a.job.toml", text);
        assert_eq!(beside("credential = \"team-a\"\n").expect("there").credential, "team-a");
        let told = beside("\ncredential = \"team-b\"\n").expect_err("not there").to_string();
        assert!(told.contains("a.job.toml:2") && told.contains("team-a"), "{told}");
    }
}
