//! Waits until a dropped file has come to its end.
//!
//! The files tell: a new manifest in the outbox that names this very content, or a new reason
//! file in `failed/` or `held/`. So waiting also works while the daemon restarts. The control
//! socket is asked only for the progress shown meanwhile.

use std::collections::BTreeSet;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Deserialize;
use tokio::signal::unix::{SignalKind, signal};

use crate::config::Config;
use crate::control::ClientError;
use crate::spool::{Folders, source};
use crate::telemetry::escaped;
use crate::view::{JobQuery, JobView, Snapshot, told};

use super::dropping::Dropped;
use super::progress::Bars;
use super::{ExitCode, Failure, status};

/// A file that was dropped and is waited for.
#[derive(Debug)]
pub struct Awaited {
    /// The sub-folder of the inbox.
    pub sub: String,
    /// The file.
    pub dropped: Dropped,
    /// What lay there before it was dropped.
    pub baseline: Baseline,
}

/// The manifests and reason files that were there before, so that they are not taken for new.
#[derive(Debug, Clone, Default)]
pub struct Baseline {
    seen: BTreeSet<PathBuf>,
}

/// How a file ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// There is a manifest.
    Delivered {
        /// `complete`, `partial`, `failed` or `cancelled`.
        verdict: String,
        /// Answered lines.
        answered: u64,
        /// Failed lines.
        failed: u64,
        /// The manifest.
        manifest: PathBuf,
    },
    /// Refused whole.
    Refused {
        /// Why, and what to do.
        reason: String,
        /// The reason file.
        file: PathBuf,
    },
    /// Waits for a person.
    Held {
        /// Why, and what to do.
        reason: String,
        /// The reason file.
        file: PathBuf,
    },
}

#[derive(Deserialize)]
struct Manifest {
    input: ManifestInput,
    verdict: String,
    answered: u64,
    failed: u64,
}

#[derive(Deserialize)]
struct ManifestInput {
    sha256: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Reason {
    file: String,
    message: String,
    remedy: String,
}

/// Waits for all files, with progress bars on a terminal; `None` after Ctrl-C. Where no daemon
/// takes the files for as long as `patience`, there is nothing to wait for.
///
/// # Errors
/// If no daemon takes the files, or the handler for Ctrl-C can not be set.
pub async fn wait_for_all(
    config: &Config,
    awaited: &[Awaited],
    patience: Duration,
) -> Result<Option<Vec<Ending>>, Failure> {
    // From here on Ctrl-C is ours.
    let mut interrupts = signal(SignalKind::interrupt())?;
    let bars = Bars::new();
    let mut endings: Vec<Option<Ending>> = vec![None; awaited.len()];
    let (mut told, mut told_pause) = (false, false);
    let mut alone_since = None;
    loop {
        for (one, ending) in awaited.iter().zip(&mut endings) {
            if ending.is_none() {
                *ending = look(&config.folders, one);
            }
        }
        if endings.iter().all(Option::is_some) {
            bars.clear();
            return Ok(Some(endings.into_iter().flatten().collect()));
        }
        let seen = snapshot(config, awaited).await;
        // A daemon of another user, or one that is restarting, takes the files all the same.
        let taken = || !awaited.iter().any(|one| one.dropped.path.exists());
        if matches!(seen, Seen::Nobody) && !taken() {
            if alone_since.get_or_insert_with(Instant::now).elapsed() >= patience {
                bars.clear();
                return Err(nobody_came(config));
            }
        } else {
            alone_since = None;
        }
        match seen {
            Seen::Snapshot(snapshot) => {
                show(&bars, &snapshot, awaited, &endings);
                if let Some(why) = snapshot.health.paused.filter(|_| !told_pause) {
                    told_pause = true;
                    bars.say(&format!("the daemon waits: {}", escaped(&why)));
                }
            }
            Seen::Nobody if !told => {
                told = true;
                bars.say(&format!(
                    "no daemon is running here; start one within {} seconds (`gemini-batchd run`)",
                    patience.as_secs()
                ));
            }
            Seen::Nobody | Seen::Somebody => {}
        }
        tokio::select! {
            _ = interrupts.recv() => {
                bars.clear();
                return Ok(None);
            }
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}

impl Baseline {
    /// What lies there now for a file of this name.
    pub fn of(folders: &Folders, sub: &str, name: &str) -> Baseline {
        let (stem, _) = source::split(name);
        let manifests = candidates(&folders.outbox, sub, stem, MANIFEST);
        let reasons = [&folders.failed, &folders.held]
            .into_iter()
            .flat_map(|folder| candidates(folder, sub, stem, REASON));
        Baseline { seen: manifests.into_iter().chain(reasons).collect() }
    }
}

impl Ending {
    /// The exit code for it.
    pub fn code(&self) -> ExitCode {
        match self {
            Ending::Delivered { answered, failed, .. } => ExitCode::of_lines(*answered, *failed),
            Ending::Refused { .. } => ExitCode::Failed,
            Ending::Held { .. } => ExitCode::Held,
        }
    }

    /// For `--json`.
    pub fn to_json(&self) -> serde_json::Value {
        match self {
            Ending::Delivered { verdict, answered, failed, manifest } => serde_json::json!({
                "verdict": verdict, "answered": answered, "failed": failed,
                "manifest": manifest.display().to_string(),
            }),
            Ending::Refused { reason, file } => serde_json::json!({
                "verdict": "refused", "reason": reason, "file": file.display().to_string(),
            }),
            Ending::Held { reason, file } => serde_json::json!({
                "verdict": "held", "reason": reason, "file": file.display().to_string(),
            }),
        }
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ending::Delivered { verdict, answered, failed, manifest } => {
                let manifest = manifest.display().to_string();
                let manifest = escaped(&manifest);
                let verdict = escaped(verdict);
                write!(f, "{verdict}: {answered} answered, {failed} failed; see {manifest}")
            }
            Ending::Refused { reason, file } => {
                write!(
                    f,
                    "refused: {}; see {}",
                    escaped(reason),
                    escaped(&file.display().to_string())
                )
            }
            Ending::Held { reason, file } => {
                write!(f, "held: {}; see {}", escaped(reason), escaped(&file.display().to_string()))
            }
        }
    }
}

/// Looks once whether the file has come to its end.
fn look(folders: &Folders, one: &Awaited) -> Option<Ending> {
    let (stem, _) = source::split(&one.dropped.name);
    let fresh = |folder: &Path, ending: &str| {
        let found = candidates(folder, &one.sub, stem, ending);
        found.into_iter().filter(|path| !one.baseline.seen.contains(path)).collect::<Vec<_>>()
    };
    for path in fresh(&folders.outbox, MANIFEST) {
        // A manifest is there whole or not at all, so one that does not parse is not ours.
        let Some(manifest) = read_json::<Manifest>(&path) else { continue };
        if manifest.input.sha256 == one.dropped.sha256 {
            return Some(Ending::Delivered {
                verdict: manifest.verdict,
                answered: manifest.answered,
                failed: manifest.failed,
                manifest: path,
            });
        }
    }
    let told_in = |folder: &Path| {
        fresh(folder, REASON).into_iter().find_map(|path| {
            let Some(reason) = read_json::<Reason>(&path) else {
                return Some(("the reason can not be read".to_owned(), path));
            };
            // Another file of the same stem may have been dropped meanwhile.
            let ours = reason.file.is_empty() || reason.file == one.dropped.name;
            ours.then(|| (told(&reason.message, &reason.remedy), path))
        })
    };
    if let Some((reason, file)) = told_in(&folders.failed) {
        return Some(Ending::Refused { reason, file });
    }
    let (reason, file) = told_in(&folders.held)?;
    Some(Ending::Held { reason, file })
}

/// Files in the folder, and in its sub-folder, that can belong to an input with this stem.
fn candidates(folder: &Path, sub: &str, stem: &str, ending: &str) -> Vec<PathBuf> {
    let places = if sub.is_empty() {
        vec![folder.to_owned()]
    } else {
        vec![folder.join(sub), folder.to_owned()]
    };
    let mut found = Vec::new();
    for entry in places.iter().filter_map(|place| std::fs::read_dir(place).ok()).flatten().flatten()
    {
        let name = entry.file_name();
        let belongs = name
            .to_str()
            .and_then(|name| name.strip_suffix(ending))
            .is_some_and(|name| belongs_to(name, stem));
        if belongs {
            found.push(entry.path());
        }
    }
    found
}

/// Whether a name without its last ending is the stem's: `a`, `a~2`, `a.jsonl`, `a~2.jsonl`,
/// `a.jsonl~2`.
fn belongs_to(name: &str, stem: &str) -> bool {
    let unnumbered = |name: &str| match name.rsplit_once('~') {
        Some((front, digits)) if digits.bytes().all(|b| b.is_ascii_digit()) => front.to_owned(),
        Some(_) | None => name.to_owned(),
    };
    let name = unnumbered(name);
    let (front, _) = source::split(&name);
    name == stem || front == stem || unnumbered(front) == stem
}

fn read_json<T: for<'de> Deserialize<'de>>(path: &Path) -> Option<T> {
    let mut text = Vec::new();
    File::open(path).ok()?.take(REPORT_BYTES_MAX).read_to_end(&mut text).ok()?;
    serde_json::from_slice(&text).ok()
}

/// What the control socket says.
enum Seen {
    /// All there is to see.
    Snapshot(Box<Snapshot>),
    /// A daemon is there, but says nothing to us.
    Somebody,
    /// Nothing listens.
    Nobody,
}

/// What there is to see, with the jobs of what is waited for.
async fn snapshot(config: &Config, awaited: &[Awaited]) -> Seen {
    let client = match status::connect(config) {
        Ok(client) => client,
        Err(ClientError::NotRunning { .. }) => return Seen::Nobody,
        Err(_) => return Seen::Somebody,
    };
    let Ok(mut seen) = client.status().await else { return Seen::Somebody };
    // Of very many jobs a snapshot has some only.
    for file in awaited.iter().map(file_of).take(ASKED_FOR_MAX) {
        if seen.jobs_total > seen.jobs.len() as u64 && seen.jobs.iter().all(|job| job.file != file)
        {
            let query = JobQuery { file: Some(file.clone()), ..JobQuery::default() };
            let found = client.jobs(&query).await.map_or_else(|_| Vec::new(), |list| list.jobs);
            seen.jobs.extend(found.into_iter().filter(|job| job.file == file));
        }
    }
    Seen::Snapshot(seen.into())
}

/// The input's path below the inbox.
fn file_of(one: &Awaited) -> String {
    match one.sub.as_str() {
        "" => one.dropped.name.clone(),
        sub => format!("{sub}/{}", one.dropped.name),
    }
}

fn nobody_came(config: &Config) -> Failure {
    let inbox = escaped(&config.folders.inbox.display().to_string());
    let message = format!("no daemon is running; what was submitted waits in {inbox}");
    Failure::new(ExitCode::Failed, anyhow::Error::msg(message)).with_remedy(
        "start one with `gemini-batchd run`: it takes the files up, and nothing is lost; or answer \
         them now with `gemini-batchd once`",
    )
}

/// Shows the newest job of each file that has not ended.
fn show(bars: &Bars, snapshot: &Snapshot, awaited: &[Awaited], endings: &[Option<Ending>]) {
    for (one, ending) in awaited.iter().zip(endings) {
        match (ending, newest(&snapshot.jobs, &file_of(one))) {
            (None, Some(job)) => bars.show(job),
            (Some(_), Some(job)) => bars.finish(&job.id),
            (_, None) => {}
        }
    }
}

/// The newest job of a file: older ones had the same name.
fn newest<'a>(jobs: &'a [JobView], file: &str) -> Option<&'a JobView> {
    jobs.iter().filter(|job| job.file == file).max_by(|one, other| one.id.cmp(&other.id))
}

const MANIFEST: &str = ".manifest.json";
const REASON: &str = ".reason.json";
/// Files asked for one by one, where a snapshot lacks them.
const ASKED_FOR_MAX: usize = 20;
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// So long a daemon may be away; systemd starts one that failed again after 30 s.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// A manifest names every batch of the job.
const REPORT_BYTES_MAX: u64 = 64 << 20;

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "tests write plain files")]

    use super::*;
    use crate::config::{Environment, Flags};

    struct World {
        _folder: tempfile::TempDir,
        folders: Folders,
    }

    impl World {
        fn new() -> World {
            let folder = tempfile::tempdir().expect("a temporary folder");
            let folders = Folders::below(folder.path());
            for part in [&folders.outbox, &folders.failed, &folders.held] {
                std::fs::create_dir_all(part.join("sub")).expect("made");
            }
            World { folders, _folder: folder }
        }

        fn awaited(&self, sub: &str) -> Awaited {
            let dropped = Dropped {
                path: "a.jsonl".into(),
                name: "a.jsonl".to_owned(),
                sha256: "abc".to_owned(),
                bytes: 1,
            };
            let baseline = Baseline::of(&self.folders, sub, "a.jsonl");
            Awaited { sub: sub.to_owned(), dropped, baseline }
        }
    }

    fn manifest(sha256: &str, answered: u64, failed: u64) -> String {
        let input = serde_json::json!({"name": "a.jsonl", "sha256": sha256});
        let all = serde_json::json!({"input": input, "verdict": "partial", "answered": answered,
            "failed": failed, "lines": answered + failed});
        all.to_string()
    }

    #[tokio::test]
    async fn where_no_daemon_takes_the_file_the_wait_ends_and_says_what_to_do() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let environment = Environment::made_up(folder.path(), []);
        let flags = Flags { config: None, spool: Some(folder.path().to_owned()) };
        let config = Config::load(&flags, &environment).expect("a configuration");
        let path = config.folders.inbox.join("a.jsonl");
        std::fs::create_dir_all(&config.folders.inbox).expect("made");
        std::fs::write(&path, "x").expect("written");
        let dropped =
            Dropped { path, name: "a.jsonl".to_owned(), sha256: "abc".to_owned(), bytes: 1 };
        let baseline = Baseline::of(&config.folders, "", "a.jsonl");
        let awaited = [Awaited { sub: String::new(), dropped, baseline }];
        let ended = wait_for_all(&config, &awaited, Duration::ZERO).await;
        let failure = ended.expect_err("nobody is there");
        assert_eq!(failure.code, ExitCode::Failed);
        let remedy = failure.remedy.unwrap_or_default();
        assert!(remedy.contains("gemini-batchd run"), "{remedy}");
        assert!(config.folders.inbox.join("a.jsonl").exists(), "it stays submitted");
    }

    #[test]
    fn only_a_new_manifest_of_this_very_content_ends_the_wait() {
        let world = World::new();
        let put = |name: &str, text: String| {
            std::fs::write(world.folders.outbox.join("sub").join(name), text).expect("written");
        };
        put("a.manifest.json", manifest("abc", 1, 0));
        let one = world.awaited("sub");
        assert_eq!(look(&world.folders, &one), None, "it was there before");
        put("a~2.manifest.json", manifest("other", 1, 0));
        put("ab.manifest.json", manifest("abc", 1, 0));
        assert_eq!(look(&world.folders, &one), None, "other content, other name");
        put("a~3.manifest.json", manifest("abc", 2, 1));
        let ending = look(&world.folders, &one).expect("ended");
        assert_eq!(ending.code(), ExitCode::Partial);
        assert!(ending.to_string().starts_with("partial: 2 answered, 1 failed; see "), "{ending}");
    }

    #[test]
    fn a_reason_file_ends_the_wait_with_its_words() {
        for (place, code) in [("failed", ExitCode::Failed), ("held", ExitCode::Held)] {
            let world = World::new();
            let one = world.awaited("");
            let folder = if place == "held" { &world.folders.held } else { &world.folders.failed };
            let text = r#"{"reason": "r", "message": "no line is valid", "remedy": "mend it"}"#;
            std::fs::write(folder.join("a.jsonl.reason.json"), text).expect("written");
            let ending = look(&world.folders, &one).expect("ended");
            assert_eq!(ending.code(), code);
            assert!(ending.to_string().contains("no line is valid. Mend it"), "{ending}");
        }
    }

    #[test]
    fn the_reason_file_of_another_drop_of_the_same_name_is_not_ours() {
        let world = World::new();
        let one = world.awaited("");
        let put = |name: &str| {
            let text = serde_json::json!({"file": name, "message": "m", "remedy": "r"});
            let path = world.folders.failed.join(format!("{name}.reason.json"));
            std::fs::write(path, text.to_string()).expect("written");
        };
        put("a~2.jsonl");
        assert_eq!(look(&world.folders, &one), None);
        put("a.jsonl");
        assert_eq!(look(&world.folders, &one).expect("ended").code(), ExitCode::Failed);
    }

    #[test]
    fn numbered_names_belong_to_their_stem_and_longer_ones_do_not() {
        for name in ["a", "a~2", "a.jsonl", "a~2.jsonl", "a.jsonl~2"] {
            assert!(belongs_to(name, "a"), "{name}");
        }
        for name in ["ab", "a~x", "b~2", "a.b.jsonl"] {
            assert!(!belongs_to(name, "a"), "{name}");
        }
    }
}
