//! Settings for one file: those of its queue, and over them what stands in the sidecar beside it.
//!
//! A sidecar holds the keys of a queue without a section. Whatever is wrong with it is told as for
//! the configuration itself, and nothing of it counts then.

use std::path::Path;

use toml::de::DeTable;

use super::layers::{ConfigError, Layers, Problem, line_of, on_one_line};
use super::settings::{NOT_YET, QUEUE, SECTIONS, of_section};
use super::{Config, Shown, queues, shown, typed};
use crate::engine::job::Queue;

/// What is in force for one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explained {
    /// Its queue, with the settings it is answered with.
    pub queue: Queue,
    /// Each of them with its origin.
    pub shown: Vec<Shown>,
}

impl Config {
    /// The settings for a file in a sub-folder of the inbox beside which a sidecar lies: `name`
    /// stands in the errors, and `text` in it.
    ///
    /// # Errors
    /// With everything that is wrong with the sidecar.
    pub fn queue_beside(&self, folder: &str, name: &str, text: &str) -> Result<Queue, ConfigError> {
        self.explain(folder, Some((Path::new(name), text))).map(|explained| explained.queue)
    }

    /// The settings for a file in a sub-folder of the inbox, with a sidecar or without, and where
    /// each of them comes from.
    ///
    /// # Errors
    /// With everything that is wrong with the sidecar.
    pub fn explain(
        &self,
        folder: &str,
        sidecar: Option<(&Path, &str)>,
    ) -> Result<Explained, ConfigError> {
        let queue = self.queue_for(folder);
        let section = format!("{QUEUE}.{}", queue.name);
        let Some((path, text)) = sidecar else {
            let shown = shown_of(&self.layers, &section, &section);
            return Ok(Explained { queue, shown });
        };
        let mut layers = (*self.layers).clone();
        for setting in of_section(QUEUE) {
            let placed = layers.get(&section, setting.key).clone();
            layers.put(BESIDE, setting.key, placed);
        }
        layers.add_sidecar(path, text)?;
        check_media_root(&mut layers, &section);
        typed::refuse_what_is_not_there_yet(&mut layers);
        let name = queue.name.clone();
        let queue = queues::read_one(&mut layers, BESIDE, name, &section);
        if layers.problems.is_empty() {
            let shown = shown_of(&layers, BESIDE, &section);
            return Ok(Explained { queue, shown });
        }
        let plain = |problem: Problem| {
            let message = problem.message.replace(&format!(" in [{BESIDE}]"), "");
            Problem { message: message.replace(&format!("{BESIDE}."), ""), ..problem }
        };
        Err(ConfigError { problems: layers.problems.into_iter().map(plain).collect() })
    }
}

impl ConfigError {
    /// Every problem with its place, in one sentence of limited length.
    pub fn listed(&self) -> String {
        let one = |problem: &Problem| format!("{}: {}", problem.place, problem.message);
        let all = self.problems.iter().map(one).collect::<Vec<_>>().join("; ");
        match all.char_indices().nth(LISTED_CHARS_MAX) {
            None => all,
            Some((end, _)) => format!("{}…", &all[..end]),
        }
    }
}

impl Layers {
    /// Puts the keys of a sidecar over those that are there.
    fn add_sidecar(&mut self, path: &Path, text: &str) -> Result<(), ConfigError> {
        let place = |offset: usize| {
            let path = on_one_line(&path.display().to_string());
            format!("{path}:{}", line_of(text, offset))
        };
        let refuse = |offset: usize, message: String| {
            let problem = Problem { place: place(offset), message };
            Err(ConfigError { problems: vec![problem] })
        };
        let document = match DeTable::parse(text) {
            Ok(document) => document,
            Err(error) => {
                let offset = error.span().map_or(0, |span| span.start);
                return refuse(offset, format!("not valid TOML: {}", error.message()));
            }
        };
        for (key, content) in document.get_ref() {
            let known = SECTIONS.iter().any(|(section, _)| *section == key.get_ref().as_ref());
            if known && content.get_ref().is_table() {
                let why = format!(
                    "[{}] is a section of the configuration; here the keys of a queue stand \
                     alone, such as model = \"gemini-2.5-flash\"",
                    key.get_ref()
                );
                return refuse(key.span().start, why);
            }
        }
        self.add_table(BESIDE, document.get_ref(), &|offset| super::Origin::File {
            path: path.to_owned(),
            line: line_of(text, offset),
        });
        Ok(())
    }
}

/// A sidecar is written by whoever may drop files: it can open no folder that the configuration
/// does not open already.
fn check_media_root(layers: &mut Layers, queue: &str) {
    let (own, allowed) = (layers.text(BESIDE, KEY), layers.text(queue, KEY));
    let is_within = !allowed.is_empty() && Path::new(&own).starts_with(&allowed);
    if own.is_empty() || own == allowed || is_within {
        return;
    }
    let origin = layers.get(BESIDE, KEY).origin.clone();
    let why = format!(
        "{KEY} is {own:?}; a sidecar can only name a folder within the {KEY} of the queue's own \
         settings, which {}",
        if allowed.is_empty() { "have none".to_owned() } else { format!("is {allowed:?}") }
    );
    layers.problem(&origin, why);
}

/// The settings of a section, named as those of another.
fn shown_of(layers: &Layers, section: &str, named: &str) -> Vec<Shown> {
    let there = |key: &str| !NOT_YET.iter().any(|(_, not_yet, _)| *not_yet == key);
    let one = |key: &'static str| {
        let placed = layers.get(section, key);
        let value = shown::written(&placed.value);
        Shown { section: named.to_owned(), key, value, origin: placed.origin.clone() }
    };
    let keys = of_section(QUEUE).map(|setting| setting.key);
    keys.filter(|key| there(key)).map(one).collect()
}

/// The key that opens a folder.
const KEY: &str = "media_root";

/// What is listed of problems is saved with a job.
const LISTED_CHARS_MAX: usize = 2000;

/// The section of the file alone: no queue can have this name.
const BESIDE: &str = "queue./sidecar";
