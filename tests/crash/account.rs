//! After a bad night: what came out, held against what goes in and against what the emulator says
//! it has answered.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use gemini_batchd::provider::gemini::emulator::Happened;
use serde_json::Value;

use super::rig::Rig;

/// What comes out when nothing goes wrong.
pub struct Expected(Account);

/// What lies in a spool at the end, and what the API saw.
pub struct Account {
    /// Results, errors and notes, by their path in the spool.
    files: BTreeMap<String, String>,
    /// The manifests by the stem of their path.
    manifests: BTreeMap<String, Value>,
    /// Stamps of the batches that were made.
    stamps: Vec<String>,
    /// Rows with an answer, by job, as the emulator counts them.
    answered: BTreeMap<String, u64>,
    /// What else is in inbox and working folder.
    left: Vec<String>,
}

impl Expected {
    /// After an undisturbed day.
    pub fn of(rig: &Rig) -> Expected {
        let account = Account::of(rig, "undisturbed");
        assert!(account.manifests.len() > 5, "{:?}", account.files.keys());
        Expected(account)
    }
}

impl Account {
    /// Reads everything.
    pub fn of(rig: &Rig, what: &str) -> Account {
        let mut account = Account {
            files: BTreeMap::new(),
            manifests: BTreeMap::new(),
            stamps: Vec::new(),
            answered: BTreeMap::new(),
            left: Vec::new(),
        };
        for folder in ["inbox", "working", "outbox", "failed", "held", "archive"] {
            account.walk(&rig.spool(), &rig.spool().join(folder), what);
        }
        let mut stamp_of = BTreeMap::new();
        for entry in rig.emulator.journal() {
            match entry.what {
                Happened::Created { batch, display_name, .. } => {
                    account.stamps.push(display_name.clone());
                    stamp_of.insert(batch, display_name);
                }
                Happened::Ended { batch, successful, .. } => {
                    let stamp = stamp_of.get(&batch).expect("it was made before");
                    *account.answered.entry(job_in(stamp)).or_default() += successful;
                }
                _ => {}
            }
        }
        account
    }

    fn walk(&mut self, spool: &Path, folder: &Path, what: &str) {
        for entry in fs::read_dir(folder).into_iter().flatten() {
            let path = entry.expect("listed").path();
            let name = path.strip_prefix(spool).expect("below").display().to_string();
            if name.starts_with("working/") || name.starts_with("inbox/") && path.is_file() {
                self.left.push(name);
            } else if path.is_dir() {
                self.walk(spool, &path, what);
            } else {
                let text = fs::read_to_string(&path).expect("UTF-8");
                if let Some(stem) = name.strip_suffix(".manifest.json") {
                    let manifest = serde_json::from_str(&text);
                    let manifest =
                        manifest.unwrap_or_else(|error| panic!("{what}: {name}: {error}"));
                    self.manifests.insert(stem.to_owned(), manifest);
                } else {
                    let note = name.ends_with(".reason.json");
                    self.files.insert(name, if note { String::new() } else { text });
                }
            }
        }
    }

    /// Fails the test if anything was lost, doubled, or paid for twice. The outcome of `victim`
    /// depends on when it was cancelled, if it was; but it adds up like any other.
    #[track_caller]
    pub fn check(&self, expected: &Expected, victim: &str, what: &str) {
        assert_eq!(self.left, Vec::<String>::new(), "{what}: left over");
        let stamps: BTreeSet<&String> = self.stamps.iter().collect();
        assert_eq!(stamps.len(), self.stamps.len(), "{what}: made twice: {:?}", self.stamps);
        let victim = format!("outbox/{}", victim.trim_end_matches(".jsonl"));
        self.same_files(&expected.0, &victim, what);
        for (stem, manifest) in &self.manifests {
            let should = &expected.0.manifests[stem];
            assert_eq!(manifest["lines"], should["lines"], "{what}: {stem}");
            assert_eq!(manifest["input"], should["input"], "{what}: {stem}");
            if *stem != victim {
                for member in ["verdict", "answered", "failed", "truncated", "failures", "tokens"] {
                    assert_eq!(manifest[member], should[member], "{what}: {member} of {stem}");
                }
            }
            self.adds_up(stem, manifest, &expected.0, what);
        }
    }

    fn same_files(&self, expected: &Account, victim: &str, what: &str) {
        let others = |account: &Account| -> BTreeMap<String, String> {
            let is_other = |name: &String| !name.starts_with(victim);
            let files = account.files.iter().filter(|(name, _)| is_other(name));
            files.map(|(name, text)| (name.clone(), text.clone())).collect()
        };
        let (ours, theirs) = (others(self), others(expected));
        let names = |files: &BTreeMap<String, String>| files.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&ours), names(&theirs), "{what}: other files");
        for (name, text) in &ours {
            assert_eq!(text, &theirs[name], "{what}: {name} differs");
        }
        let stems = |account: &Account| account.manifests.keys().cloned().collect::<Vec<_>>();
        assert_eq!(stems(self), stems(expected), "{what}: other manifests");
    }

    /// Every line has one outcome, and every answer the emulator gave was wanted.
    fn adds_up(&self, stem: &str, manifest: &Value, expected: &Account, what: &str) {
        let lines = |account: &Account, ending: &str| -> Vec<String> {
            let text = account.files.get(&format!("{stem}.{ending}.jsonl"));
            text.into_iter().flat_map(|text| text.lines().map(key_of)).collect()
        };
        let (results, errors) = (lines(self, "results"), lines(self, "errors"));
        assert_eq!(manifest["answered"], results.len(), "{what}: results of {stem}");
        assert_eq!(manifest["failed"], errors.len(), "{what}: errors of {stem}");
        let sorted = |mut keys: Vec<String>| {
            keys.sort();
            keys
        };
        let all = sorted([results, errors].concat());
        let wanted = sorted([lines(expected, "results"), lines(expected, "errors")].concat());
        assert_eq!(all, wanted, "{what}: each line of {stem} once");
        let job = manifest["job"].as_str().expect("an id");
        let answered = self.answered.get(job).copied().unwrap_or_default();
        assert_eq!(manifest["answered"], answered, "{what}: rows of {stem} answered at the API");
    }
}

fn key_of(line: &str) -> String {
    let line: Value = serde_json::from_str(line).expect("JSON");
    line["key"].to_string()
}

/// The job in a stamp of ours.
fn job_in(stamp: &str) -> String {
    let is_id = |word: &&str| word.len() == 26;
    let id = stamp.split(|c: char| !c.is_ascii_alphanumeric()).find(is_id);
    id.unwrap_or_else(|| panic!("{stamp} names no job")).to_owned()
}
