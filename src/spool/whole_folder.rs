//! A folder of plain files that moves as one: to its place on another file system, or not at all.
//!
//! On one file system a rename does it. Across, the files are copied and synced within a hidden
//! folder beside the target, which then gets its name; the source goes after that.

use std::ffi::OsString;
use std::fs;
use std::path::Path;

use super::durable::{self, Moved};
use super::{At, SpoolError, moment};

/// Copies a folder to another file system and removes the source, without ever overwriting.
///
/// # Errors
/// If something can not be copied, synced or removed.
pub fn copy_across(source: &Path, target: &Path) -> Result<Moved, SpoolError> {
    let aside = durable::aside(target);
    if aside.is_dir() {
        // What is left of an earlier try.
        fs::remove_dir_all(&aside).at("remove", &aside)?;
    }
    let copied = fs::create_dir(&aside).at("create folder", &aside).and_then(|()| {
        for name in names(source)? {
            durable::copy_synced(&source.join(&name), &aside.join(&name))?;
        }
        durable::sync_folder(&aside)
    });
    let moved = copied.and_then(|()| {
        moment("copy:folder", &aside)?;
        durable::move_file(&aside, target)
    });
    match &moved {
        Ok(Moved::Now) => fs::remove_dir_all(source).at("remove", source)?,
        Ok(Moved::NoSource | Moved::Taken) | Err(_) => drop(fs::remove_dir_all(&aside)),
    }
    moved
}

/// Whether two folders hold the same files.
///
/// # Errors
/// If they can not be compared.
pub fn same_content(one: &Path, other: &Path) -> Result<bool, SpoolError> {
    if !other.is_dir() || names(one)? != names(other)? {
        return Ok(false);
    }
    for name in names(one)? {
        if !durable::same_content(&one.join(&name), &other.join(&name))? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn names(folder: &Path) -> Result<Vec<OsString>, SpoolError> {
    let entries = fs::read_dir(folder).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let mut names: Vec<_> =
        entries.at("list", folder)?.into_iter().map(|entry| entry.file_name()).collect();
    names.sort_unstable();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder_of(path: &Path, files: &[(&str, &str)]) {
        fs::create_dir(path).expect("made");
        for (name, content) in files {
            durable::create(&path.join(name), content.as_bytes()).expect("written");
        }
    }

    #[test]
    fn a_copied_folder_takes_the_place_of_its_source_and_of_nothing_else() {
        let temp = tempfile::tempdir().expect("a temporary folder");
        let (a, b, c) = (temp.path().join("a"), temp.path().join("b"), temp.path().join("c"));
        let files = [("1.png", "one"), ("2.png", "two")];
        folder_of(&a, &files);
        folder_of(&c, &[]);
        assert_eq!(copy_across(&a, &c).expect("asked"), Moved::Taken);
        assert!(a.join("1.png").exists() && !same_content(&a, &c).expect("compared"));
        // A copy that was interrupted is no obstacle.
        folder_of(&durable::aside(&b), &[("3.png", "torn")]);
        assert_eq!(copy_across(&a, &b).expect("asked"), Moved::Now);
        folder_of(&a, &files);
        assert!(same_content(&a, &b).expect("compared"));
        fs::remove_dir_all(&a).expect("removed");
        let mut left = names(temp.path()).expect("listed");
        left.retain(|name| name != "c");
        assert_eq!(left, ["b"]);
    }
}
