//! Gathers every value that was set, and where: defaults, then the file, then the environment,
//! then flags, each over the one before.
//!
//! Here a value has the right kind or is reported; what values mean is judged in `typed.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::de::{DeTable, DeValue};

use super::queues::{self, DEFAULT};
use super::settings::{CREDENTIAL, Kind, PRICE, QUEUE, SECTIONS, SETTINGS, Setting, of_section};
use super::{Environment, Flags, credentials, file, hooks, money, object, units};

/// All values that were set, over the defaults.
#[derive(Clone, Default)]
pub(super) struct Layers {
    /// The file, if there is one.
    pub file: Option<PathBuf>,
    /// By section (`intake`, `queue.NAME`) and key.
    values: BTreeMap<(String, &'static str), Placed>,
    /// What was wrong so far.
    pub problems: Vec<Problem>,
}

/// A value and where it came from.
#[derive(Debug, Clone)]
pub(super) struct Placed {
    pub value: Value,
    pub origin: Origin,
}

/// A value of the right kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    Text(String),
    Duration(Duration),
    Size(u64),
    Integer(i64),
    Flag(bool),
    List(Vec<String>),
}

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Built in.
    Default,
    /// A line of the file.
    File {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// An environment variable.
    Environment(String),
    /// A flag on the command line.
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::File { path, line } => {
                write!(f, "{}:{line}", on_one_line(&path.display().to_string()))
            }
            Origin::Environment(name) => write!(f, "environment {}", on_one_line(name)),
            Origin::Flag(flag) => f.write_str(flag),
        }
    }
}

/// A name from outside without control characters, which would write where they like.
pub(super) fn on_one_line(name: &str) -> String {
    name.chars().map(|c| if c.is_control() { '\u{FFFD}' } else { c }).collect()
}

/// One thing that is wrong with the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where: file and line, variable or flag.
    pub place: String,
    /// What is wrong and what to do.
    pub message: String,
}

/// Everything that is wrong with the configuration; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// In the order of the places.
    pub problems: Vec<Problem>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.problems.as_slice() {
            [one] => write!(f, "configuration: {}: {}", one.place, one.message),
            many => {
                write!(f, "configuration: {} problems", many.len())?;
                many.iter().try_for_each(|one| write!(f, "\n  {}: {}", one.place, one.message))
            }
        }
    }
}

impl std::error::Error for ConfigError {}

impl fmt::Debug for Layers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A URL that was refused may hold a password.
        f.debug_set().entries(self.values.keys()).finish()
    }
}

impl Layers {
    /// Reads all places.
    pub fn gather(flags: &Flags, environment: &Environment) -> Result<Layers, ConfigError> {
        let Some(path) = file::find(flags, environment) else {
            return Layers::over(None, flags, environment);
        };
        let text = file::read(&path).map_err(|why| ConfigError {
            problems: vec![Problem { place: path.display().to_string(), message: why }],
        })?;
        Layers::over(Some((&path, &text)), flags, environment)
    }

    /// The same with a file that is read already.
    pub fn over(
        file: Option<(&Path, &str)>,
        flags: &Flags,
        environment: &Environment,
    ) -> Result<Layers, ConfigError> {
        let mut layers = Layers { file: None, values: BTreeMap::new(), problems: Vec::new() };
        layers.add_defaults();
        if let Some((path, text)) = file {
            layers.add_file(path, text)?;
            layers.file = Some(path.to_owned());
        }
        layers.add_environment(environment);
        if let Some(dir) = &flags.spool {
            let value = Value::Text(dir.to_string_lossy().into_owned());
            layers.put("spool", "dir", Placed { value, origin: Origin::Flag("--spool") });
        }
        Ok(layers)
    }

    /// The value of a setting; a queue's own, else that of the default queue.
    pub fn get(&self, section: &str, key: &'static str) -> &Placed {
        let default_queue = format!("{QUEUE}.{DEFAULT}");
        self.values
            .get(&(section.to_owned(), key))
            .or_else(|| self.values.get(&(default_queue, key)))
            .or_else(|| self.values.get(&(table_section(section).to_owned(), key)))
            .expect("every setting of the table has a default")
    }

    /// The names of all queues, the default one first.
    pub fn queues(&self) -> Vec<String> {
        let prefix = format!("{QUEUE}.");
        let mut names: Vec<String> = vec![DEFAULT.to_owned()];
        for (section, _) in self.values.keys() {
            match section.strip_prefix(&prefix) {
                Some(name) if !names.iter().any(|known| known == name) => {
                    names.push(name.to_owned());
                }
                Some(_) | None => {}
            }
        }
        names
    }

    /// The names of all credentials that have a section of their own.
    pub fn credentials(&self) -> BTreeSet<String> {
        self.named(CREDENTIAL)
    }

    /// The models that have a price.
    pub fn prices(&self) -> BTreeSet<String> {
        self.named(PRICE)
    }

    fn named(&self, kind: &str) -> BTreeSet<String> {
        let name = |section: &str| section.strip_prefix(kind)?.strip_prefix('.').map(str::to_owned);
        self.values.keys().filter_map(|(section, _)| name(section)).collect()
    }

    /// Notes something wrong.
    pub fn problem(&mut self, origin: &Origin, message: String) {
        self.problems.push(Problem { place: origin.to_string(), message });
    }

    /// Sets a value.
    pub fn put(&mut self, section: &str, key: &'static str, placed: Placed) {
        self.values.insert((section.to_owned(), key), placed);
    }

    fn add_defaults(&mut self) {
        for setting in SETTINGS {
            let parsed = DeValue::parse(setting.default).expect("defaults are TOML values");
            let value = from_toml(setting, parsed.get_ref()).expect("defaults are of their kind");
            let section = match setting.section {
                QUEUE => format!("{QUEUE}.{DEFAULT}"),
                other => other.to_owned(),
            };
            self.put(&section, setting.key, Placed { value, origin: Origin::Default });
        }
    }

    fn add_file(&mut self, path: &Path, text: &str) -> Result<(), ConfigError> {
        let at =
            |offset: usize| Origin::File { path: path.to_owned(), line: line_of(text, offset) };
        let document = DeTable::parse(text).map_err(|error| {
            let offset = error.span().map_or(0, |span| span.start);
            let place = at(offset).to_string();
            let message = format!("not valid TOML: {}", error.message());
            ConfigError { problems: vec![Problem { place, message }] }
        })?;
        for (name, content) in document.get_ref() {
            let origin = at(name.span().start);
            let known = SECTIONS.iter().any(|(section, _)| *section == name.get_ref().as_ref());
            let Some(table) = content.get_ref().as_table().filter(|_| known) else {
                self.problem(&origin, unknown_section(name.get_ref(), content.get_ref()));
                continue;
            };
            match name.get_ref().as_ref() {
                kind @ (QUEUE | CREDENTIAL | PRICE) => self.add_named(kind, table, &at),
                section => self.add_table(section, table, &at),
            }
        }
        Ok(())
    }

    /// Sections of which there can be many, each with a name.
    fn add_named(&mut self, kind: &str, table: &DeTable<'_>, at: &dyn Fn(usize) -> Origin) {
        for (name, content) in table {
            let origin = at(name.span().start);
            let name = name.get_ref();
            let checked = match kind {
                CREDENTIAL => credentials::check_name(name),
                PRICE => queues::check_model(name),
                _ => queues::check_name(name),
            };
            if let Some(table) = content.get_ref().as_table() {
                match checked {
                    Ok(()) => self.add_table(&format!("{kind}.{name}"), table, at),
                    Err(why) => self.problem(&origin, why),
                }
            } else {
                let name = name.escape_debug();
                let why = match kind {
                    CREDENTIAL => {
                        format!("`{name}` stands in no credential; put it under [credential.NAME]")
                    }
                    PRICE => {
                        format!("`{name}` is no price of a model; put it under [price.\"MODEL\"]")
                    }
                    _ => format!("`{name}` stands in no queue; put it under [queue.default]"),
                };
                self.problem(&origin, why);
            }
        }
    }

    /// Sets what stands in a table; what is wrong with it is noted.
    pub fn add_table(&mut self, section: &str, table: &DeTable<'_>, at: &dyn Fn(usize) -> Origin) {
        for (key, content) in table {
            let origin = at(key.span().start);
            let Some(setting) = find_setting(section, key.get_ref()) else {
                self.problem(&origin, unknown_key(section, key.get_ref()));
                continue;
            };
            match from_toml(setting, content.get_ref()) {
                Ok(value) => self.put(section, setting.key, Placed { value, origin }),
                Err(why) => self.problem(&origin, format!("{section}.{} {why}", setting.key)),
            }
        }
    }

    fn add_environment(&mut self, environment: &Environment) {
        for (name, text) in &environment.variables {
            let Some(rest) = name.strip_prefix(PREFIX) else { continue };
            let origin = Origin::Environment(name.clone());
            let lower = rest.to_ascii_lowercase();
            let (section, key) = match lower.split("__").collect::<Vec<_>>().as_slice() {
                [QUEUE, queue, key] => match self.queue_by_variable(queue) {
                    Some(queue) => (format!("{QUEUE}.{queue}"), (*key).to_owned()),
                    None => {
                        let queue = queue.escape_debug();
                        let why = format!("there is no queue `{queue}` in the configuration file");
                        self.problem(&origin, why);
                        continue;
                    }
                },
                [CREDENTIAL, name, key] if credentials::check_name(name).is_ok() => {
                    (format!("{CREDENTIAL}.{name}"), (*key).to_owned())
                }
                [section, key] if ![QUEUE, CREDENTIAL, PRICE].contains(section) => {
                    ((*section).to_owned(), (*key).to_owned())
                }
                _ => {
                    let why = format!(
                        "is no setting; the form is {PREFIX}SECTION__KEY, for queues \
                         {PREFIX}QUEUE__NAME__KEY"
                    );
                    self.problem(&origin, why);
                    continue;
                }
            };
            let known = SECTIONS.iter().any(|(known, _)| section.split('.').next() == Some(known));
            if !known {
                self.problem(&origin, unknown_section(&section, &DeValue::Table(DeTable::new())));
                continue;
            }
            let Some(setting) = find_setting(&section, &key) else {
                self.problem(&origin, unknown_key(&section, &key));
                continue;
            };
            match from_text(setting, text) {
                Ok(value) => self.put(&section, setting.key, Placed { value, origin }),
                Err(why) => self.problem(&origin, format!("{section}.{} {why}", setting.key)),
            }
        }
    }

    /// Variables know only letters, digits and `_`; everything else in a queue's name counts as
    /// `_`.
    fn queue_by_variable(&self, wanted: &str) -> Option<String> {
        let plain = |name: &str| {
            let plain =
                |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' };
            name.chars().map(plain).collect::<String>()
        };
        self.queues().into_iter().find(|name| plain(name) == wanted)
    }
}

fn find_setting(section: &str, key: &str) -> Option<&'static Setting> {
    of_section(table_section(section)).find(|setting| setting.key == key)
}

/// `queue.NAME` is looked up as `queue`.
fn table_section(section: &str) -> &str {
    match section.split_once('.') {
        Some((QUEUE, _)) => QUEUE,
        Some((CREDENTIAL, _)) => CREDENTIAL,
        Some((PRICE, _)) => PRICE,
        Some(_) | None => section,
    }
}

fn from_toml(setting: &Setting, value: &DeValue<'_>) -> Result<Value, String> {
    let wrong = || Err(format!("must be {}, not {}", wanted(setting.kind), value.type_str()));
    match setting.kind {
        Kind::Text | Kind::Duration | Kind::Choice(_) => match value.as_str() {
            Some(text) => from_text(setting, text),
            None => wrong(),
        },
        Kind::Decimal => match (value.as_str(), value.as_integer(), value.as_float()) {
            (Some(text), _, _) => from_text(setting, text),
            (None, Some(number), _) => from_text(setting, number.as_str()),
            (None, None, Some(number)) => from_text(setting, number.as_str()),
            (None, None, None) => wrong(),
        },
        Kind::Size => match (value.as_str(), value.as_integer()) {
            (Some(text), _) => from_text(setting, text),
            (None, Some(number)) => u64::from_str_radix(number.as_str(), number.radix())
                .map(Value::Size)
                .map_err(|_| "is a number out of range".to_owned()),
            (None, None) => wrong(),
        },
        Kind::Integer => match value.as_integer() {
            Some(number) => i64::from_str_radix(number.as_str(), number.radix())
                .map(Value::Integer)
                .map_err(|_| "is a number out of range".to_owned()),
            None => wrong(),
        },
        Kind::Object => match (value.as_str(), value.as_table()) {
            (Some(text), _) => from_text(setting, text),
            (None, Some(_)) => object::json(value).and_then(|text| from_text(setting, &text)),
            (None, None) => wrong(),
        },
        Kind::Flag => value.as_bool().map_or_else(wrong, |flag| Ok(Value::Flag(flag))),
        Kind::List => {
            let texts = value.as_array().and_then(|items| {
                items.iter().map(|item| item.get_ref().as_str().map(str::to_owned)).collect()
            });
            texts.map_or_else(wrong, |texts| Ok(Value::List(texts)))
        }
        Kind::Call => match value.as_str() {
            Some(text) => from_text(setting, text),
            None => from_toml(&Setting { kind: Kind::List, ..*setting }, value)
                .map_err(|_| format!("must be {}, not {}", wanted(setting.kind), value.type_str())),
        },
    }
}

fn from_text(setting: &Setting, text: &str) -> Result<Value, String> {
    let wrong = || format!("is {text:?}; it must be {}", wanted(setting.kind));
    match setting.kind {
        Kind::Text => Ok(Value::Text(text.to_owned())),
        Kind::Duration => units::duration(text).map(Value::Duration),
        Kind::Decimal => money::decimal_of(text),
        Kind::Size => units::bytes(text).map(Value::Size),
        Kind::Choice(words) => match words.iter().find(|word| **word == text) {
            Some(word) => Ok(Value::Text((*word).to_owned())),
            None => Err(wrong()),
        },
        Kind::Object if text.trim().is_empty() => Ok(Value::Text(String::new())),
        Kind::Object => match serde_json::from_str::<serde_json::Map<_, _>>(text) {
            Ok(members) if members.is_empty() => Ok(Value::Text(String::new())),
            Ok(_) => Ok(Value::Text(text.trim().to_owned())),
            Err(error) => Err(format!("is no JSON object: {error}")),
        },
        Kind::Integer => text.trim().parse().map(Value::Integer).map_err(|_| wrong()),
        Kind::Flag => text.trim().parse().map(Value::Flag).map_err(|_| wrong()),
        Kind::Call => hooks::call_from_text(text).map(Value::List).ok_or_else(wrong),
        Kind::List => {
            let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
            Ok(Value::List(items.map(str::to_owned).collect()))
        }
    }
}

fn wanted(kind: Kind) -> String {
    match kind {
        Kind::Text => "a text in quotes".to_owned(),
        Kind::Duration => r#"a duration in quotes, such as "5s""#.to_owned(),
        Kind::Decimal => money::WANTED.to_owned(),
        Kind::Size => r#"a size in quotes, such as "20MB""#.to_owned(),
        Kind::Integer => "a whole number".to_owned(),
        Kind::Flag => "true or false".to_owned(),
        Kind::Object => r#"a JSON object in quotes, such as '{"topK": 1}', or a table"#.to_owned(),
        Kind::Call => {
            r#"a URL, or a program and its arguments as a list, such as ["/usr/local/bin/notify", "--now"]"#.to_owned()
        }
        Kind::List => r#"a list of texts, such as ["*.bak"]"#.to_owned(),
        Kind::Choice(words) => format!("one of {}", words.join(", ")),
    }
}

fn unknown_section(name: &str, content: &DeValue<'_>) -> String {
    let mut homes = SETTINGS.iter().filter(|setting| setting.key == name);
    if let (false, Some(home)) = (content.is_table(), homes.next()) {
        return format!("`{name}` stands outside its section; put it under [{}]", home.section);
    }
    let names: Vec<&str> = SECTIONS.iter().map(|(section, _)| *section).collect();
    if names.contains(&name) {
        return format!("`{name}` is a section; write [{name}] on a line of its own");
    }
    format!("unknown section `{}`; {}", name.escape_debug(), nearest(name, &names))
}

fn unknown_key(section: &str, key: &str) -> String {
    let table = table_section(section);
    let keys: Vec<&str> = of_section(table).map(|setting| setting.key).collect();
    let start = format!("unknown key `{}` in [{section}]", key.escape_debug());
    match SETTINGS.iter().find(|setting| setting.key == key) {
        Some(home) => format!("{start}; it belongs under [{}]", home.section),
        None => format!("{start}; {}", nearest(key, &keys)),
    }
}

/// A word about a name that is not known: which one it may be meant to be, or which there are.
pub fn nearest(wrong: &str, known: &[&str]) -> String {
    let close = |name: &&&str| strsim::jaro_winkler(wrong, name);
    let best = known.iter().max_by(|a, b| close(a).total_cmp(&close(b)));
    match best {
        Some(best) if close(&best) > 0.7 => format!("did you mean `{best}`?"),
        Some(_) | None => format!("known are {}", known.join(", ")),
    }
}

/// The line, from 1, of a byte.
pub(super) fn line_of(text: &str, offset: usize) -> usize {
    text.as_bytes().iter().take(offset).filter(|byte| **byte == b'\n').count() + 1
}

const PREFIX: &str = "GEMINI_BATCHD__";
