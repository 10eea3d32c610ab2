//! `config show`: every value and where it came from.

use super::layers::{Layers, Origin, Value};
use super::settings::{CREDENTIAL, PRICE, QUEUE, SECTIONS, of_section};
use super::units::{bytes_text, duration_text};

/// One setting as it is in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// The section, such as `intake` or `queue.default`.
    pub section: String,
    /// The key.
    pub key: &'static str,
    /// The value as it would stand in the file.
    pub value: String,
    /// Where it came from.
    pub origin: Origin,
}

/// All settings in force, in the order of the example.
pub(super) fn all(layers: &Layers) -> Vec<Shown> {
    let mut shown = Vec::new();
    for (section, _) in SECTIONS {
        let sections = match *section {
            QUEUE => layers.queues().into_iter().map(|name| format!("{QUEUE}.{name}")).collect(),
            CREDENTIAL => {
                let names = layers.credentials().into_iter();
                names.map(|name| format!("{CREDENTIAL}.{name}")).collect()
            }
            PRICE => {
                let names = layers.prices().into_iter();
                names.map(|name| format!("{PRICE}.{name}")).collect()
            }
            other => vec![other.to_owned()],
        };
        for full in sections {
            for setting in of_section(section) {
                let placed = layers.get(&full, setting.key);
                shown.push(Shown {
                    section: full.clone(),
                    key: setting.key,
                    value: written(&placed.value),
                    origin: placed.origin.clone(),
                });
            }
        }
    }
    shown
}

/// All settings as a file that says the same, with the origin of each beside it.
pub fn as_file(shown: &[Shown]) -> String {
    let (mut text, mut section) = (String::new(), "");
    for shown in shown {
        if shown.section != section {
            let gap = if section.is_empty() { "" } else { "\n" };
            text.push_str(&format!("{gap}[{}]\n", heading(&shown.section)));
            section = &shown.section;
        }
        let assignment = format!("{} = {}", shown.key, shown.value);
        text.push_str(&format!("{assignment:<44} # {}\n", shown.origin));
    }
    text
}

/// The name of a queue or a model in quotes, so that what is shown can be used as a file.
fn heading(section: &str) -> String {
    match section.split_once('.') {
        // A name has no control characters, so that TOML reads it as JSON does; unlike a value it
        // can not stand between three quotes.
        Some((kind @ (QUEUE | PRICE), name)) => format!("{kind}.{}", serde_json::Value::from(name)),
        Some(_) | None => section.to_owned(),
    }
}

/// A value as it would stand in the file.
pub(super) fn written(value: &Value) -> String {
    let quoted = |text: &str| toml::Value::String(text.to_owned()).to_string();
    match value {
        Value::Text(text) => quoted(text),
        Value::Duration(duration) => quoted(&duration_text(*duration)),
        Value::Size(size) => quoted(&bytes_text(*size)),
        Value::Integer(number) => number.to_string(),
        Value::Flag(flag) => flag.to_string(),
        Value::List(texts) => {
            let texts: Vec<String> = texts.iter().map(|text| quoted(text)).collect();
            format!("[{}]", texts.join(", "))
        }
    }
}
