//! Who is told what has happened: programs, webhooks, a ping; and where the API tells us.
//!
//! A call is a URL, or a program with its arguments, never a line for a shell. What may be secret in
//! a URL, its path and what follows, is told to nobody. Secrets are read here and nowhere else.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use url::Url;

use crate::signature::Secret;

use super::layers::{Layers, Value};
use super::{Environment, key, typed};

/// Who is told what has happened.
#[derive(Debug, Clone)]
pub struct Hooks {
    /// Who is called on which occasion.
    pub calls: BTreeMap<Occasion, Call>,
    /// How long a program, or a webhook's answer, may take.
    pub timeout: Duration,
    /// What signs webhooks.
    pub secret: Option<Secret>,
    /// Fetched after every night in which nothing failed.
    pub ping: Option<Call>,
}

/// When somebody is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Occasion {
    /// Every line of a job was answered.
    Done,
    /// Some lines failed, or the job was cancelled.
    Partial,
    /// No line was answered, or the file was refused whole.
    Failed,
    /// A file waits for a person.
    Held,
    /// Part of a job waits for a person, or for longer than is usual.
    Stuck,
    /// The morning report is there.
    Report,
    /// A job was delivered after its deadline.
    Late,
}

impl Occasion {
    /// Every occasion.
    pub const ALL: [Occasion; 7] = [
        Occasion::Done,
        Occasion::Partial,
        Occasion::Failed,
        Occasion::Held,
        Occasion::Stuck,
        Occasion::Report,
        Occasion::Late,
    ];

    /// Its word.
    pub fn word(self) -> &'static str {
        // The word is the key without its first part.
        &self.key()["on_".len()..]
    }

    /// The key of the configuration.
    pub fn key(self) -> &'static str {
        match self {
            Occasion::Done => "on_done",
            Occasion::Partial => "on_partial",
            Occasion::Failed => "on_failed",
            Occasion::Held => "on_held",
            Occasion::Stuck => "on_stuck",
            Occasion::Report => "on_report",
            Occasion::Late => "on_late",
        }
    }

    /// The occasion of a word, or of a key.
    pub fn of(word: &str) -> Option<Occasion> {
        Occasion::ALL.into_iter().find(|it| it.word() == word || it.key() == word)
    }
}

/// Whom to call.
#[derive(Clone, PartialEq, Eq)]
pub enum Call {
    /// A program by its whole path, and its arguments.
    Program(Vec<String>),
    /// A URL: `https`, or `http` on this machine.
    Url(Url),
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Call::Program(words) => f.write_str(words.first().map_or("", String::as_str)),
            Call::Url(url) => {
                write!(f, "{}://{}", url.scheme(), url.host_str().unwrap_or_default())?;
                url.port().map_or(Ok(()), |port| write!(f, ":{port}"))
            }
        }
    }
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Whoever knows the whole URL may send there too.
        fmt::Display::fmt(self, f)
    }
}

/// Where the API says that batches have ended.
#[derive(Debug, Clone)]
pub struct Wakeup {
    /// Where we listen.
    pub listen: SocketAddr,
    /// What the API signs with.
    pub secret: Secret,
}

/// Reads `[hooks]`, noting what is wrong.
pub(super) fn read(layers: &mut Layers, environment: &Environment) -> Hooks {
    let mut calls = BTreeMap::new();
    for occasion in Occasion::ALL {
        let placed = layers.get(SECTION, occasion.key()).clone();
        let Value::List(words) = placed.value else {
            unreachable!("hooks.{} is a call by the table", occasion.key())
        };
        match parse_call(&words) {
            Ok(Some(call)) => drop(calls.insert(occasion, call)),
            Ok(None) => {}
            Err(why) => {
                layers.problem(&placed.origin, format!("{SECTION}.{} {why}", occasion.key()));
            }
        }
    }
    Hooks {
        calls,
        timeout: layers.duration_above_zero(SECTION, "timeout"),
        secret: secret(layers, SECTION, "hooks-secret", environment),
        ping: ping(layers),
    }
}

/// Reads `[webhook]`, noting what is wrong.
pub(super) fn read_wakeup(layers: &mut Layers, environment: &Environment) -> Option<Wakeup> {
    let listen = layers.address("webhook", "listen")?;
    let before = layers.problems.len();
    let secret = secret(layers, "webhook", "webhook-secret", environment);
    if secret.is_none() && layers.problems.len() == before {
        let origin = layers.get("webhook", "listen").origin.clone();
        let why = "webhook.listen is set, but no secret: without one, nobody can be told from the \
                   API; put the webhook's new_signing_secret into a file with mode 0600 and name \
                   it by webhook.secret_file";
        layers.problem(&origin, why.to_owned());
    }
    secret.map(|secret| Wakeup { listen, secret })
}

fn ping(layers: &mut Layers) -> Option<Call> {
    let text = layers.text(SECTION, "ping");
    let words = if text.is_empty() { Vec::new() } else { vec![text] };
    let why = match parse_call(&words) {
        Ok(Some(Call::Url(_))) if layers.text("report", "schedule").is_empty() => {
            "is fetched when the morning report is written, and report.schedule is empty".to_owned()
        }
        Ok(call @ (None | Some(Call::Url(_)))) => return call,
        Ok(Some(Call::Program(_))) => "must be a URL".to_owned(),
        Err(why) => why,
    };
    let origin = layers.get(SECTION, "ping").origin.clone();
    layers.problem(&origin, format!("{SECTION}.ping {why}"));
    None
}

/// The words of a call as text: a URL, or a list in JSON. `None` for anything else, above all for
/// a line for a shell.
pub(super) fn call_from_text(text: &str) -> Option<Vec<String>> {
    let text = text.trim();
    match text {
        "" => Some(Vec::new()),
        list if list.starts_with('[') => serde_json::from_str(list).ok(),
        url if url.contains("://") => Some(vec![url.to_owned()]),
        _ => None,
    }
}

/// What the words of a call mean; `None` if there are none.
///
/// # Errors
/// What is wrong with them, and what to write; nothing of a URL beyond its host is in it.
pub fn parse_call(words: &[String]) -> Result<Option<Call>, String> {
    match words {
        [] => Ok(None),
        [url] if url.contains("://") => checked_url(url).map(Some),
        [program, rest @ ..] => {
            if !program.starts_with('/') {
                return Err(format!(
                    "names the program {program:?}; write its whole path, such as \
                     [\"/usr/local/bin/notify\", \"--now\"]: nothing is looked for, and no shell \
                     is asked"
                ));
            }
            if [program].into_iter().chain(rest).any(|word| word.contains('\0')) {
                return Err("has an argument that no program can be given".to_owned());
            }
            Ok(Some(Call::Program(words.to_vec())))
        }
    }
}

fn checked_url(text: &str) -> Result<Call, String> {
    let url = Url::parse(text).ok().filter(|url| url.host_str().is_some_and(|it| !it.is_empty()));
    let Some(url) = url else {
        return Err("is no URL; write one like \"https://example.org/hook\"".to_owned());
    };
    match url.scheme() {
        "https" => {}
        "http" if typed::is_here(&url) => {}
        "http" => {
            return Err("begins with http://, which is taken for this machine only; write \
                        https://"
                .to_owned());
        }
        _ => return Err("must begin with https://".to_owned()),
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("has a user or a password in it, which would be told to whoever asks; put \
                    secrets into the path, or use hooks.secret_file"
            .to_owned());
    }
    if url.fragment().is_some() {
        return Err("has a part after #, which is never sent".to_owned());
    }
    Ok(Call::Url(url))
}

/// The secret of a section: the file it names, else the systemd credential.
fn secret(
    layers: &mut Layers,
    section: &str,
    credential: &str,
    environment: &Environment,
) -> Option<Secret> {
    let file = layers.path(section, "secret_file", environment);
    let found = key::find_text(file.as_deref(), credential, environment);
    let why = match found.map(|text| text.map(|text| Secret::parse(&text))) {
        Ok(None) => return None,
        Ok(Some(Some(secret))) => return Some(secret),
        Ok(Some(None)) => "what it holds is no secret; write whsec_ and 24 to 64 bytes in base64, \
                           such as from: echo \"whsec_$(head -c 32 /dev/urandom | base64)\""
            .to_owned(),
        Err(why) => why,
    };
    let origin = layers.get(section, "secret_file").origin.clone();
    layers.problem(&origin, format!("{section}.secret_file: {why}"));
    None
}

const SECTION: &str = "hooks";

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "tests write plain files")]

    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    use super::*;
    use crate::config::Config;

    fn read(text: &str) -> Result<Config, String> {
        let environment = Environment::made_up(Path::new("/spool"), [("HOME", "/home")]);
        let path = Path::new("/etc/gemini-batchd.toml");
        Config::read(path, text, &environment).map_err(|error| error.to_string())
    }

    #[test]
    fn a_call_is_a_url_or_a_program_with_its_arguments() {
        let config = read(
            "[hooks]\non_done = \"https://example.org/hook?token=marker\"\n\
             on_failed = [\"/usr/bin/notify\", \"--now\", \"a b\"]\non_held = []\n\
             on_late = [\"http://127.0.0.1:9/x\"]\n",
        );
        let calls = &config.expect("right").hooks.calls;
        let words = ["/usr/bin/notify", "--now", "a b"].map(str::to_owned).to_vec();
        assert_eq!(calls[&Occasion::Failed], Call::Program(words));
        assert_eq!(calls[&Occasion::Done].to_string(), "https://example.org");
        assert_eq!(calls[&Occasion::Late].to_string(), "http://127.0.0.1:9");
        assert!(!format!("{calls:?}").contains("marker"));
        assert_eq!(calls.len(), 3);
    }

    #[test]
    fn what_can_not_be_called_is_refused_with_its_line_and_without_its_secrets() {
        for (value, told) in [
            (r#""/usr/bin/notify --now""#, "a program and its arguments as a list"),
            (r#""notify""#, "a program and its arguments as a list"),
            (r#"["notify", "--now"]"#, "whole path"),
            (r#"["sh", "-c", "echo"]"#, "whole path"),
            (r#""http://example.org/marker""#, "this machine only"),
            (r#""https://user:marker@example.org/""#, "a password"),
            (r#""ftp://example.org/marker""#, "https://"),
            (r#""https://""#, "no URL"),
            (r#""https://example.org/#marker""#, "never sent"),
            ("3", "a URL, or a program"),
            ("[1]", "a URL, or a program"),
        ] {
            let error = read(&format!("[hooks]\n\non_done = {value}\n")).expect_err(value);
            assert!(error.contains("gemini-batchd.toml:3: hooks.on_done"), "{error}");
            assert!(error.contains(told), "{value}: {error}");
            assert!(!error.contains("marker"), "{error}");
        }
        let error = read("[hooks]\nping = \"/bin/true\"\n").expect_err("no URL");
        assert!(error.contains("gemini-batchd.toml:2: hooks.ping must be a URL"), "{error}");
    }

    #[test]
    fn the_environment_names_a_call_as_json() {
        let variables = [("GEMINI_BATCHD__HOOKS__ON_DONE", r#"["/bin/x", "a,b"]"#), ("HOME", "/")];
        let environment = Environment::made_up(Path::new("/spool"), variables);
        let config = Config::read(Path::new("/c.toml"), "", &environment).expect("right");
        let words = ["/bin/x", "a,b"].map(str::to_owned).to_vec();
        assert_eq!(config.hooks.calls[&Occasion::Done], Call::Program(words));
    }

    #[test]
    fn a_secret_must_be_one_and_for_its_owner_alone() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("secret");
        let write = |text: &str, mode| {
            std::fs::write(&path, text).expect("written");
            let mode = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(&path, mode).expect("set");
        };
        let text = format!("[hooks]\nsecret_file = {:?}\n", path.display().to_string());
        write("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n", 0o600);
        let config = read(&text).expect("right");
        assert!(config.hooks.secret.is_some());
        assert!(!format!("{config:?}").contains("MfKQ"));
        write("marker", 0o600);
        let error = read(&text).expect_err("no secret");
        assert!(error.contains(":2: hooks.secret_file: what it holds"), "{error}");
        assert!(!error.contains("marker"), "{error}");
        write("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n", 0o644);
        assert!(read(&text).expect_err("open to others").contains("chmod 600"));
        let none = read("[webhook]\nlisten = \"127.0.0.1:8788\"\n").expect_err("no secret");
        assert!(none.contains("gemini-batchd.toml:2: webhook.listen is set"), "{none}");
    }
}
