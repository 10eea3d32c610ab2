//! Settings for one file, in a file beside it: `NAME.job.toml` for `NAME.jsonl`, or under the whole
//! name, `NAME.jsonl.job.toml`, which goes before the other.
//!
//! Here they are found and read as text; what they mean is the configuration's matter. A name that
//! several inputs of a folder could claim is nobody's, and those are refused. In the spool's other
//! folders a sidecar always has the whole name, so that moving both back into the inbox works.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;

use rustix::fs::Dir;

use super::free_name::split;
use super::source::{self, Ending, Opened, refusal};
use crate::engine::job::Refusal;

/// How the names of sidecars end.
pub const ENDING: &str = ".job.toml";

/// Bytes a sidecar may have.
pub const BYTES_MAX: u64 = 64 * 1024;

/// What stands beside an input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// No settings.
    Nothing,
    /// These.
    Settings {
        /// Name of the sidecar.
        name: String,
        /// What stands in it.
        text: String,
    },
    /// Settings that can not be read: the input must not be answered without them.
    Unusable {
        /// Name of the sidecar, if it is a file.
        name: Option<String>,
        /// Why.
        refusal: Refusal,
    },
    /// Settings that several inputs could claim.
    Shared {
        /// Their names.
        inputs: Vec<String>,
        /// Why.
        refusal: Refusal,
    },
}

/// The name of a sidecar that is for this input only.
pub fn full_name(input: &str) -> String {
    format!("{input}{ENDING}")
}

/// The name of a sidecar without the input's ending.
pub fn short_name(input: &str) -> String {
    format!("{}{ENDING}", split(input).0)
}

/// Looks for the settings of an input that lies in an open folder.
///
/// # Errors
/// If the folder can not be read, or what the system says of the sidecar.
pub fn find(folder: impl AsFd, input: &str) -> io::Result<Found> {
    let (full, short) = (full_name(input), short_name(input));
    match read(&folder, &full)? {
        Found::Nothing => {}
        found => return Ok(found),
    }
    let found = read(&folder, &short)?;
    if found == Found::Nothing {
        return Ok(found);
    }
    let inputs = claimants(&folder, &short)?;
    if inputs.len() < 2 {
        return Ok(found);
    }
    let named: Vec<String> = inputs.iter().map(|name| format!("`{name}`")).collect();
    let message = format!("`{short}` could be for each of {}", named.join(", "));
    let remedy = format!(
        "name it `{full}` if it is for this one, put it beside the file again, and move the files \
         back into the inbox"
    );
    let refusal = refusal("sidecar", message, &remedy);
    Ok(Found::Shared { inputs, refusal })
}

/// The refusal of a file whose settings are of no use: answering it without them would cost money
/// for something else than was asked. `sidecar` is what is moved along with it.
pub fn wrong(what: &str, sidecar: Option<&str>) -> Refusal {
    let remedy = match sidecar {
        Some(_) => {
            "Mend the settings, which lie beside it, and move both back into the inbox, the \
                    settings first."
        }
        None => "Put a file with the settings in its place, and move this one back into the inbox.",
    };
    refusal("sidecar", what.to_owned(), remedy)
}

fn read(folder: impl AsFd, name: &str) -> io::Result<Found> {
    let unusable_as = |name: Option<&str>, what: &str| Found::Unusable {
        name: name.map(str::to_owned),
        refusal: wrong(&format!("its settings can not be read: {what}"), name),
    };
    let unusable = |what: &str| unusable_as(Some(name), &format!("`{name}` {what}"));
    let file = match source::open_at(folder, name)? {
        Opened::File(file) => file,
        Opened::Missing => return Ok(Found::Nothing),
        Opened::Special(kind) => {
            return Ok(unusable_as(None, &format!("`{name}` is a {kind}")));
        }
        Opened::Unreadable => return Ok(unusable("is not for the daemon's user to read")),
    };
    let mut bytes = Vec::new();
    file.take(BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > BYTES_MAX {
        return Ok(unusable("is longer than 64 KiB"));
    }
    Ok(match String::from_utf8(bytes) {
        Ok(text) => Found::Settings { name: name.to_owned(), text },
        Err(_) => unusable("is not UTF-8 text"),
    })
}

/// The inputs in a folder that a sidecar could be for, those left out that have one of their own.
fn claimants(folder: impl AsFd, short: &str) -> io::Result<Vec<String>> {
    let (mut inputs, mut full) = (BTreeSet::new(), BTreeSet::new());
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        let Ok(name) = source::check_name(OsStr::from_bytes(entry.file_name().to_bytes())) else {
            continue;
        };
        if let Some(input) = name.strip_suffix(ENDING) {
            full.insert(input.to_owned());
        } else if source::ending(name) != Ending::Unknown && short_name(name) == short {
            inputs.insert(name.to_owned());
        }
    }
    Ok(inputs.into_iter().filter(|input| !full.contains(input)).collect())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "tests drop files as people do")]

    use std::fs::{self, File};

    use super::*;

    fn found(files: &[&str], input: &str) -> Found {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for name in files {
            fs::write(folder.path().join(name), *name).expect("written");
        }
        find(File::open(folder.path()).expect("opened"), input).expect("looked for")
    }

    fn settings(name: &str) -> Found {
        Found::Settings { name: name.to_owned(), text: name.to_owned() }
    }

    #[test]
    fn the_whole_name_goes_before_the_short_one() {
        assert_eq!(found(&["a.jsonl"], "a.jsonl"), Found::Nothing);
        assert_eq!(found(&["a.jsonl", "a.job.toml"], "a.jsonl"), settings("a.job.toml"));
        let both = ["a.jsonl", "a.job.toml", "a.jsonl.job.toml"];
        assert_eq!(found(&both, "a.jsonl"), settings("a.jsonl.job.toml"));
        assert_eq!(found(&["a.jsonl.gz", "a.job.toml"], "a.jsonl.gz"), settings("a.job.toml"));
    }

    #[test]
    fn what_two_inputs_could_claim_is_nobodys() {
        let two = ["a.jsonl", "a.json", "a.job.toml", "b.jsonl"];
        let Found::Shared { inputs, refusal } = found(&two, "a.json") else { panic!("shared") };
        assert_eq!(inputs, ["a.json", "a.jsonl"]);
        assert!(refusal.message.contains("`a.json`, `a.jsonl`"), "{refusal:?}");
        assert!(refusal.remedy.contains("`a.json.job.toml`"), "{refusal:?}");
        // One of them has its own.
        let own = ["a.jsonl", "a.json", "a.job.toml", "a.jsonl.job.toml"];
        assert_eq!(found(&own, "a.json"), settings("a.job.toml"));
        assert_eq!(found(&own, "a.jsonl"), settings("a.jsonl.job.toml"));
    }

    #[test]
    fn a_sidecar_that_can_not_be_read_is_no_sidecar_that_is_not_there() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let sidecar = folder.path().join("a.job.toml");
        let look = || {
            let folder = File::open(folder.path()).expect("opened");
            let Found::Unusable { name, refusal } = find(folder, "a.jsonl").expect("looked for")
            else {
                panic!("it is of no use")
            };
            // A link is not moved: it leads somewhere.
            assert_eq!(name.is_some(), !refusal.message.contains("link"));
            refusal.message
        };
        std::os::unix::fs::symlink("/etc/passwd", &sidecar).expect("a link");
        assert!(look().contains("symbolic link"));
        fs::remove_file(&sidecar).expect("removed");
        fs::write(&sidecar, b"model = \"\xff\"").expect("written");
        assert!(look().contains("UTF-8"));
        fs::write(&sidecar, "#".repeat(BYTES_MAX as usize + 1)).expect("written");
        assert!(look().contains("64 KiB"));
    }
}
