//! `config explain PATH`: which queue a file belongs to, and every setting that counts for it.
//!
//! The file need not be there; if it is, or its sidecar is, that counts. Nothing is moved.

use std::fs::File;
use std::io::Write;
use std::path::{Component, Path};

use anyhow::anyhow;
use serde_json::json;

use crate::config::{Config, Explained, Shown, as_file};
use crate::spool::At;
use crate::spool::sidecar::{self, Found};
use crate::spool::source::{self, Ending};
use crate::telemetry::escaped;

use super::{ExitCode, Failure, Globals, print_json};

/// Runs the verb.
///
/// # Errors
/// If the path is none in the inbox (2), or the sidecar beside it is wrong (10).
pub fn explain(path: &Path, globals: &Globals, out: &mut dyn Write) -> Result<(), Failure> {
    let config = globals.load()?;
    let place = Place::of(path, &config)?;
    let folder = config.folders.inbox.join(&place.folder);
    let (sidecar, text) = match &place.name {
        Some(name) => settings_beside(&folder, name)?.unzip(),
        None => (None, None),
    };
    let beside = sidecar.as_ref().map(|name| folder.join(name));
    let explained = config.explain(&place.folder, beside.as_deref().zip(text.as_deref()))?;
    if globals.json {
        print_json(out, &as_json(&place, sidecar.as_deref(), &explained))?;
        return Ok(());
    }
    writeln!(out, "# {}", escaped(&place.told()))?;
    writeln!(out, "# queue: {}", escaped(&explained.queue.name))?;
    let none = || "none; one would be named ".to_owned();
    let sidecar = match (&sidecar, &place.name) {
        (Some(name), _) => name.clone(),
        (None, Some(name)) => none() + &sidecar::short_name(name),
        (None, None) => none() + "like the file, but for its ending: .job.toml",
    };
    writeln!(out, "# settings beside it: {}", escaped(&sidecar))?;
    if let Some(warning) = place.warning() {
        writeln!(out, "# {}", escaped(&warning))?;
    }
    write!(out, "\n{}", as_file(&explained.shown))?;
    Ok(())
}

/// The settings beside a file, wherever it lies: name and text.
///
/// # Errors
/// If there are some that can not be read, or that could be for another file as well.
pub fn settings_beside(folder: &Path, name: &str) -> Result<Option<(String, String)>, Failure> {
    let handle = match File::open(folder) {
        Ok(handle) => handle,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).at("open folder", folder)?,
    };
    match sidecar::find(handle, name).at("look for settings in", folder)? {
        Found::Nothing => Ok(None),
        Found::Settings { name, text } => Ok(Some((name, text))),
        Found::Unusable { refusal, .. } | Found::Shared { refusal, .. } => {
            let failure = Failure::new(ExitCode::Configuration, anyhow!("{}", refusal.message));
            Err(failure.with_remedy(refusal.remedy))
        }
    }
}

/// A place in the inbox.
struct Place {
    /// The sub-folder, `/` between its parts.
    folder: String,
    /// The file; `None` for any file in the folder.
    name: Option<String>,
}

impl Place {
    fn of(path: &Path, config: &Config) -> Result<Place, Failure> {
        let inbox = std::path::absolute(&config.folders.inbox)?;
        let whole = std::path::absolute(path)?;
        let below = match (whole.strip_prefix(&inbox), path.is_relative()) {
            (Ok(below), _) => below,
            (Err(_), true) => path,
            (Err(_), false) => {
                let message =
                    format!("{} is not in the inbox, {}", path.display(), inbox.display());
                return Err(Failure::new(ExitCode::Usage, anyhow!(message)));
            }
        };
        let mut parts = Vec::new();
        for part in below.components().filter(|part| *part != Component::CurDir) {
            let name = part.as_os_str();
            match source::check_name(name) {
                Ok(name) => parts.push(name),
                Err(what) => {
                    let message = format!("`{}` {what}", source::spoken(name));
                    return Err(Failure::new(ExitCode::Usage, anyhow!(message)));
                }
            }
        }
        let is_folder =
            path.as_os_str().as_encoded_bytes().ends_with(b"/") || inbox.join(below).is_dir();
        let name = if is_folder { None } else { parts.pop().map(str::to_owned) };
        Ok(Place { folder: parts.join("/"), name })
    }

    fn told(&self) -> String {
        let slash = if self.folder.is_empty() { "" } else { "/" };
        match &self.name {
            Some(name) => format!("inbox/{}{slash}{name}", self.folder),
            None => format!("files in inbox/{}{slash}", self.folder),
        }
    }

    /// What would become of a file of this name, if that is not a job.
    fn warning(&self) -> Option<String> {
        let name = self.name.as_ref()?;
        if name.ends_with(sidecar::ENDING) {
            return Some(
                "this is a name of settings for the file beside it, not of requests".into(),
            );
        }
        (source::ending(name) == Ending::Unknown)
            .then(|| "a file with this ending is refused: .jsonl, .ndjson or .json is taken".into())
    }
}

fn as_json(place: &Place, sidecar: Option<&str>, explained: &Explained) -> serde_json::Value {
    let one = |shown: &Shown| json!({"key": shown.key, "value": shown.value, "from": shown.origin.to_string()});
    let settings: Vec<_> = explained.shown.iter().map(one).collect();
    json!({
        "folder": place.folder,
        "name": place.name,
        "queue": explained.queue.name,
        "sidecar": sidecar,
        "settings": settings,
    })
}
