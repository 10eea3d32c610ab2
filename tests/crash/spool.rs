//! What lies in a spool, in a form in which two runs can be compared.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::Value;

use super::rig::Rig;

/// Every file and folder of the spool but the daemon's own, by its path; what differs from run to run
/// (times, ids, names of batches) is taken out of manifests and notes, and nothing out of results
/// and errors.
#[derive(Debug, PartialEq, Eq)]
pub struct Contents(BTreeMap<String, String>);

impl Contents {
    /// Reads them.
    pub fn of(rig: &Rig) -> Contents {
        let mut files = BTreeMap::new();
        walk(&rig.spool(), &rig.spool(), &mut files);
        if let Some(elsewhere) = rig.elsewhere() {
            walk(elsewhere, elsewhere, &mut files);
        }
        Contents(files)
    }

    /// Fails the test if they are not the same, and says where.
    #[track_caller]
    pub fn assert_same(&self, expected: &Contents, what: &str) {
        let names = |contents: &Contents| contents.0.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(self), names(expected), "{what}: other files");
        for (name, content) in &self.0 {
            assert_eq!(content, &expected.0[name], "{what}: {name} differs");
        }
    }

    /// The names of files whose path begins like this.
    pub fn below(&self, folder: &str) -> Vec<&str> {
        self.0.keys().map(String::as_str).filter(|name| name.starts_with(folder)).collect()
    }
}

fn walk(root: &Path, folder: &Path, files: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry.expect("listed").path();
        let name = path.strip_prefix(root).expect("below").display().to_string();
        if name == "state" {
            continue;
        }
        if path.is_dir() {
            files.insert(without_ids(&name) + "/", String::new());
            walk(root, &path, files);
            continue;
        }
        if name.starts_with("working/") && !name.contains("/input/") {
            // The daemon's own; only that it is removed matters.
            continue;
        }
        let content = fs::read(&path).expect("read");
        let content = match name.ends_with(".png") {
            true => content.escape_ascii().to_string(),
            false => String::from_utf8(content).expect("UTF-8"),
        };
        let content = match name.as_str() {
            _ if name.ends_with(".manifest.json") => without_chance(&content),
            _ if name.ends_with(".reason.json") => without_ids(&content),
            _ => content,
        };
        files.insert(without_ids(&name), content);
    }
}

/// A manifest without what may differ between two runs that went equally well.
fn without_chance(manifest: &str) -> String {
    let mut manifest: Value = serde_json::from_str(manifest).expect("a manifest is JSON");
    for member in ["job", "times", "warnings"] {
        assert!(!manifest[member].take().is_null(), "the manifest has {member}");
    }
    if !manifest["deliver_by"].is_null() {
        manifest["deliver_by"].take();
        // A kill leaves some calls in doubt.
        assert!(!manifest["rescued"]["uncertain"].take().is_null(), "{manifest}");
    }
    let mut names = Vec::new();
    let batches = manifest["batches"].as_array_mut().expect("a list");
    for batch in batches.iter_mut() {
        names.push(batch["name"].take());
        for member in ["created", "ended", "adopted", "attempt"] {
            assert!(!batch[member].take().is_null(), "a batch has {member}");
        }
    }
    batches.sort_by_key(|batch| batch["chunk"].as_u64());
    let mut text = serde_json::to_string_pretty(&manifest).expect("JSON");
    for name in names {
        // The API names them in its messages too.
        let id = name.as_str().and_then(|name| name.strip_prefix("batches/")).expect("a name");
        text = text.replace(id, "BATCH");
    }
    text
}

/// A text with `JOB` in place of job ids.
fn without_ids(text: &str) -> String {
    let is_id = |word: &str| {
        let digit = |c: char| c.is_ascii_digit() || c.is_ascii_uppercase();
        word.len() == 26 && word.chars().all(digit)
    };
    let mut kept = String::new();
    for piece in text.split_inclusive(|c: char| !c.is_ascii_alphanumeric()) {
        let word = piece.trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
        kept.push_str(if is_id(word) { "JOB" } else { word });
        kept.push_str(&piece[word.len()..]);
    }
    kept
}
