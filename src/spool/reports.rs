//! Morning reports in `reports/` of the outbox: `2026-11-21.md` and `2026-11-21.json`.
//!
//! The JSON file comes first and counts: whoever finds it after a crash knows that this report was
//! made, and makes only the other one anew. Nothing is overwritten; a name that is taken gets `~2`.

use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use super::durable::{self, Moved};
use super::free_name::{NAME_MAX, first_free, is_free};
use super::source::{self, Opened};
use super::{At, Folders, SpoolError};
use crate::engine::ids::Millis;

/// Writes a report of this day, unless it is there already: `is_same` judges a JSON file of that
/// day. `told` makes the Markdown of the JSON that stands. Answers with the name that both have
/// without their endings.
///
/// # Errors
/// If the folder can not be read or written. What is there then is found again the next time.
pub fn write(
    folders: &Folders,
    day: &str,
    json: &[u8],
    is_same: &dyn Fn(&[u8]) -> bool,
    told: &dyn Fn(&[u8]) -> String,
) -> Result<String, SpoolError> {
    let folder = folder(folders);
    durable::make_lasting_folder(&folder)?;
    if let Some((stem, json)) = find(folders, day, is_same)? {
        durable::create(&folder.join(format!("{stem}.md")), told(&json).as_bytes())?;
        return Ok(stem);
    }
    loop {
        let both_free = |stem: &str| {
            let is_free = |ending| is_free(&folder.join(format!("{stem}.{ending}")));
            Ok(is_free("json")? && is_free("md")?)
        };
        let stem = first_free(day, NAME_MAX / 2, &folder, both_free)?;
        match durable::create(&folder.join(format!("{stem}.json")), json)? {
            Moved::Now => {
                let path = folder.join(format!("{stem}.md"));
                durable::create(&path, told(json).as_bytes())?;
                return Ok(stem);
            }
            // Somebody was faster; the next name is looked for.
            Moved::Taken | Moved::NoSource => {}
        }
    }
}

/// Removes reports that were written before a moment; tells how many files.
///
/// # Errors
/// If the folder can not be read, or a file not be removed.
pub fn sweep(folders: &Folders, older_than: Millis) -> Result<u64, SpoolError> {
    let folder = folder(folders);
    let mut removed = 0;
    for name in names(folders)? {
        let path = folder.join(&name);
        let Ok(found) = fs::symlink_metadata(&path) else { continue };
        let written = u64::try_from(found.mtime()).unwrap_or(0).saturating_mul(1000);
        if is_report(&name) && found.is_file() && written < older_than.0 {
            fs::remove_file(&path).at("remove", &path)?;
            removed += 1;
        }
    }
    Ok(removed)
}

/// The report of a day that `is_same` takes for the one that is to be written.
fn find(
    folders: &Folders,
    day: &str,
    is_same: &dyn Fn(&[u8]) -> bool,
) -> Result<Option<(String, Vec<u8>)>, SpoolError> {
    let folder = folder(folders);
    for name in names(folders)?.iter().filter(|name| is_report(name)) {
        let Some(stem) = name.strip_suffix(".json").filter(|stem| stem.starts_with(day)) else {
            continue;
        };
        let path = folder.join(name);
        let Opened::File(file) = source::open(&path).at("read", &path)? else { continue };
        let mut json = Vec::new();
        file.take(BYTES_MAX).read_to_end(&mut json).at("read", &path)?;
        if is_same(&json) {
            return Ok(Some((stem.to_owned(), json)));
        }
    }
    Ok(None)
}

fn folder(folders: &Folders) -> PathBuf {
    folders.outbox.join("reports")
}

fn names(folders: &Folders) -> Result<Vec<String>, SpoolError> {
    let folder = folder(folders);
    let entries = match fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).at("list", &folder),
    };
    let mut names = Vec::new();
    for entry in entries {
        names.extend(entry.at("list", &folder)?.file_name().into_string());
    }
    names.sort();
    Ok(names)
}

/// Whether a name is one that reports get: `2026-11-21.md`, `2026-11-21~2.json`. The results of a
/// queue called `reports` have others.
fn is_report(name: &str) -> bool {
    let Some((stem, ending)) = name.rsplit_once('.') else { return false };
    let (day, number) = stem.split_once('~').unwrap_or((stem, "2"));
    let is_day = day.len() == 10 && day.parse::<jiff::civil::Date>().is_ok();
    is_day && matches!(ending, "md" | "json") && number.bytes().all(|byte| byte.is_ascii_digit())
}

/// A longer file is no report.
const BYTES_MAX: u64 = 8 << 20;

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "tests write plain files")]

    use super::*;

    fn spool() -> (tempfile::TempDir, Folders) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let folders = Folders::below(folder.path());
        fs::create_dir_all(&folders.outbox).expect("an outbox");
        (folder, folders)
    }

    /// A report is told by its own text here, and is the same as one that begins alike.
    fn put(folders: &Folders, json: &str) -> String {
        let is_same = |found: &[u8]| found[..4] == json.as_bytes()[..4];
        let told = |json: &[u8]| format!("# {}", String::from_utf8_lossy(json));
        write(folders, "2026-11-21", json.as_bytes(), &is_same, &told).expect("written")
    }

    fn text(folders: &Folders, name: &str) -> String {
        fs::read_to_string(folder(folders).join(name)).unwrap_or_default()
    }

    #[test]
    fn a_report_is_written_once_and_never_over_another_file() {
        let (_folder, folders) = spool();
        fs::create_dir(folder(&folders)).expect("made");
        fs::write(folder(&folders).join("2026-11-21.md"), "a note of mine").expect("written");
        assert_eq!(put(&folders, "from one"), "2026-11-21~2");
        assert_eq!(put(&folders, "from one, later"), "2026-11-21~2", "it is there already");
        assert_eq!(text(&folders, "2026-11-21~2.json"), "from one");
        assert_eq!(text(&folders, "2026-11-21.md"), "a note of mine");
        assert_eq!(put(&folders, "FROM two"), "2026-11-21~3");
    }

    #[test]
    fn a_crash_between_both_files_is_made_good_for() {
        let (_folder, folders) = spool();
        fs::create_dir(folder(&folders)).expect("made");
        fs::write(folder(&folders).join("2026-11-21.json"), "from one").expect("written");
        assert_eq!(put(&folders, "from one, later"), "2026-11-21");
        assert_eq!(text(&folders, "2026-11-21.md"), "# from one", "it is of the one that stands");
    }

    #[test]
    fn only_old_reports_are_removed_and_nothing_else() {
        let (_folder, folders) = spool();
        put(&folders, "from one");
        for name in ["2026-11-21.results.jsonl", "a.json", "2026-13-41.md", "2026-11-21~x.md"] {
            fs::write(folder(&folders).join(name), "x").expect("written");
        }
        assert_eq!(sweep(&folders, Millis(1000)).expect("swept"), 0);
        assert_eq!(sweep(&folders, Millis(u64::MAX)).expect("swept"), 2);
        assert_eq!(names(&folders).expect("listed").len(), 4);
    }
}
