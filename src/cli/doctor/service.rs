//! The daemon, the service it runs as, its records, and what waits for a person.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::control::ClientError;
use crate::spool::archive;
use crate::store::StoreError;
use crate::store::instance::{self, Standing};
use crate::store::look::{Look, look};

use super::super::{ExitCode, remote::words, status};
use super::{Context, Finding};

/// Whether a daemon runs, and is of this version.
pub fn daemon(context: &Context) -> Vec<Finding> {
    let start = "start it with `gemini-batchd run`, or `systemctl start gemini-batchd`";
    let client = match status::connect(&context.config) {
        Ok(client) => client,
        Err(ClientError::NotRunning { .. }) => {
            return vec![Finding::warn("daemon", "none is running for this spool", start)];
        }
        Err(error) => {
            let remedy = "run this as the daemon's user, or as a member of its group";
            return vec![Finding::warn("daemon", error.to_string(), remedy)];
        }
    };
    let health = match context.block_on(client.status()) {
        Ok(snapshot) => snapshot.health,
        Err(error) => {
            let remedy = Some("look into its log; restart it".to_owned());
            return vec![Finding::fail("daemon", error.to_string(), remedy)];
        }
    };
    let mut findings = Vec::new();
    let own = env!("CARGO_PKG_VERSION");
    if health.daemon == own {
        let text = format!("{own} is running, process {}", health.pid);
        findings.push(Finding::ok("daemon", text));
    } else {
        let text = format!("version {} is running, this program is {own}", health.daemon);
        findings.push(Finding::warn("daemon", text, "restart the daemon"));
    }
    if let Some(why) = health.paused.or(health.trouble) {
        findings.push(Finding::warn("daemon", format!("it says: {why}"), "do what it says"));
    }
    findings
}

/// Whether the service is installed where systemd runs, with the key it names.
pub fn unit(context: &Context) -> Vec<Finding> {
    unit_below(Path::new("/"), &context.config.folders.state).into_iter().collect()
}

/// Whether the service is installed here.
pub fn is_installed() -> bool {
    installed_below(Path::new("/")).is_some()
}

fn installed_below(root: &Path) -> Option<PathBuf> {
    let folders = ["etc/systemd/system", "usr/local/lib/systemd/system", "usr/lib/systemd/system"];
    let mut paths = folders.iter().map(|folder| root.join(folder).join(UNIT));
    paths.find(|path| path.is_file())
}

fn unit_below(root: &Path, state: &Path) -> Option<Finding> {
    if !root.join("run/systemd/system").is_dir() {
        return None;
    }
    let Some(path) = installed_below(root) else {
        let text = format!("{UNIT} is not installed");
        return Some(Finding::warn("service", text, "see systemd/README.md; or start it by hand"));
    };
    let shown = path.display();
    let Ok(text) = fs::read_to_string(&path) else {
        return Some(Finding::warn(
            "service",
            format!("{shown} can not be read"),
            "run this as root",
        ));
    };
    let missing = credentials(&text).into_iter().find(|credential| !may_be_there(root, credential));
    if let Some(credential) = missing {
        let text =
            format!("{shown} takes the key from {}, which is not there", credential.display());
        let remedy = "put the key there: install -m 600 /dev/stdin FILE, then paste it";
        let found = Finding::fail("service", text, Some(remedy.to_owned()));
        return Some(Finding { code: ExitCode::Credentials, ..found });
    }
    let of_unit = state.starts_with("/var/lib/gemini-batchd");
    let other = if of_unit { "" } else { "; it has another spool than this configuration" };
    Some(Finding::ok("service", format!("{shown} is installed{other}")))
}

/// The files of `LoadCredential=NAME:PATH` lines.
fn credentials(unit: &str) -> Vec<PathBuf> {
    let values = unit.lines().filter_map(|line| line.trim().strip_prefix("LoadCredential="));
    let paths = values.filter_map(|value| value.split_once(':')).map(|(_, path)| path.trim());
    paths.filter(|path| path.starts_with('/')).map(PathBuf::from).collect()
}

/// Whether a file is there, as far as we may look.
fn may_be_there(root: &Path, path: &Path) -> bool {
    let below = root.join(path.strip_prefix("/").unwrap_or(path));
    match below.metadata() {
        Ok(_) => true,
        Err(error) => error.kind() != std::io::ErrorKind::NotFound,
    }
}

/// Whether the records are whole, of a known version, and those of this machine.
pub fn records(context: &Context) -> Vec<Finding> {
    let state = &context.config.folders.state;
    let looked = if state.is_dir() { look(state) } else { Ok(None) };
    let mut findings = Vec::new();
    match instance::check(state) {
        _ if !state.is_dir() => {}
        Ok(Standing::Own) => {}
        Ok(Standing::Restored) => findings.push(Finding::warn(
            "records",
            "they are a copy or were restored",
            "nothing: the daemon looks for whatever was sent since before it sends anything",
        )),
        Err(error) => {
            let elsewhere = matches!(error, StoreError::Elsewhere { .. });
            let found = Finding::fail("records", error.to_string(), None);
            let code = if elsewhere { ExitCode::Locked } else { ExitCode::Failed };
            findings.push(Finding { code, ..found });
        }
    }
    findings.push(match &looked {
        Ok(None) => Finding::ok("records", "none yet"),
        Ok(Some(look)) => match &look.damaged {
            None => Finding::ok(
                "records",
                format!("{} jobs, {}, all whole", look.jobs.len(), words::size(look.bytes)),
            ),
            Some(why) => Finding::warn(
                "records",
                format!("the job store is damaged: {why}"),
                "start the daemon: it sets the store aside and rebuilds the jobs",
            ),
        },
        Err(StoreError::Locked { .. }) => {
            Finding::ok("records", "in use by the daemon, which checked them at its start")
        }
        Err(error) => Finding::fail("records", error.to_string(), None),
    });
    findings.extend(looked.ok().and_then(|looked| orphans(context, looked)));
    findings
}

/// Working folders that no record knows, if that can be told.
fn orphans(context: &Context, looked: Option<Look>) -> Option<Finding> {
    let folders = &context.config.folders;
    let known = match looked {
        // The daemon rebuilds what it can by itself.
        Some(Look { damaged: Some(_), .. }) => return None,
        Some(look) => look.jobs,
        None => HashSet::new(),
    };
    let orphans = archive::orphans(folders, &known).ok()?;
    let orphan = orphans.first()?;
    let text = format!("{} working folders belong to no job, such as {}", orphans.len(), orphan.id);
    Some(Finding::warn("records", text, "`gemini-batchd adopt --dry-run` says what can be done"))
}

/// Files that wait for a person.
pub fn left(context: &Context) -> Vec<Finding> {
    let folders = &context.config.folders;
    let (held, failed) = (inputs_in(&folders.held), inputs_in(&folders.failed));
    let mut findings = Vec::new();
    if held > 0 {
        findings.push(Finding::warn(
            "held",
            counted(held, "file waits", "files wait") + " in held/ for a decision",
            "`gemini-batchd status` says why; `release JOB` lets one go on",
        ));
    }
    if failed > 0 {
        findings.push(Finding::warn(
            "failed",
            counted(failed, "file was refused and lies", "files were refused and lie")
                + " in failed/",
            "the .reason.json beside each says why; mend it and drop it again, or remove both",
        ));
    }
    if findings.is_empty() {
        findings.push(Finding::ok("held", "nothing lies in held/ or failed/"));
    }
    findings
}

fn counted(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

/// Files in a folder and those below it that are no notes beside others.
fn inputs_in(folder: &Path) -> u64 {
    let mut count = 0;
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let is_note = name.starts_with('.')
            || name.ends_with(".reason.json")
            || name.ends_with(crate::spool::sidecar::ENDING);
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => count += inputs_in(&entry.path()),
            Ok(_) if !is_note => count += 1,
            Ok(_) | Err(_) => {}
        }
    }
    count
}

const UNIT: &str = "gemini-batchd.service";

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "tests write plain files")]

    use super::super::Level;
    use super::*;

    #[test]
    fn a_unit_without_its_key_is_a_failure_and_none_at_all_a_warning() {
        let root = tempfile::tempdir().expect("a temporary folder");
        let look = || unit_below(root.path(), Path::new("/var/lib/gemini-batchd/state"));
        assert_eq!(look(), None, "there is no systemd");
        fs::create_dir_all(root.path().join("run/systemd/system")).expect("made");
        assert_eq!(look().map(|found| found.level), Some(Level::Warn));
        let folder = root.path().join("etc/systemd/system");
        fs::create_dir_all(&folder).expect("made");
        let unit = "[Service]\nLoadCredential=gemini-api-key:/etc/gemini-batchd/api-key\n";
        fs::write(folder.join(UNIT), unit).expect("written");
        let found = look().expect("found");
        assert_eq!((found.level, found.code), (Level::Fail, ExitCode::Credentials));
        let key = root.path().join("etc/gemini-batchd");
        fs::create_dir_all(&key).expect("made");
        fs::write(key.join("api-key"), "marker").expect("written");
        assert_eq!(look().map(|found| found.level), Some(Level::Ok));
    }

    #[test]
    fn notes_beside_a_file_are_not_counted() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        fs::create_dir(folder.path().join("queue")).expect("made");
        for name in ["a.jsonl", "a.jsonl.reason.json", "queue/b.jsonl", "queue/.b.aside"] {
            fs::write(folder.path().join(name), "x").expect("written");
        }
        assert_eq!(inputs_in(folder.path()), 2);
    }
}
