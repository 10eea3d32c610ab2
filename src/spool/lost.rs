//! Files that somebody took out of a job's working folder.
//!
//! Only looks, and tells a file that is gone from a disk that is: where the folder for all jobs is
//! missing it may just not be mounted, and a file that can not be looked at may well be there.

use std::fs;
use std::io::ErrorKind::NotFound;
use std::path::{Path, PathBuf};

use super::JobFolder;
use crate::engine::job::Job;

/// What some work needs of what planning and collecting left in the folder.
#[derive(Debug, Clone, Copy)]
pub enum Needed<'a> {
    /// The two indexes.
    Indexes,
    /// The indexes and the input.
    Input,
    /// The indexes and the lines that were prepared of the input.
    Prepared,
    /// All that and every answer that was collected.
    Everything(&'a Job),
}

/// The first thing needed that is not there any more.
pub fn lost(folder: &JobFolder, needed: Needed<'_>) -> Option<PathBuf> {
    let mut wanted = vec![folder.lines(), folder.outcomes()];
    match needed {
        Needed::Indexes => {}
        Needed::Input => wanted.extend(without_input(folder)),
        Needed::Prepared => wanted.push(folder.prepared()),
        Needed::Everything(job) => {
            wanted.push(folder.input(&job.head.source.name));
            if job.head.state.plan().is_some_and(|plan| plan.prepared) {
                wanted.push(folder.prepared());
            }
            wanted.extend(job.chunks.values().flat_map(|chunk| {
                let answered = chunk.batches.iter().filter(|batch| batch.answered > 0);
                answered.map(|batch| folder.answers(chunk.no, batch.attempt))
            }));
        }
    }
    let lost = wanted.into_iter().find(|path| is_gone(path))?;
    folder.path.parent().is_some_and(Path::is_dir).then_some(lost)
}

/// The place of an input that is not there, whatever its name was.
fn without_input(folder: &JobFolder) -> Option<PathBuf> {
    let place = folder.path.join("input");
    match fs::read_dir(&place) {
        Ok(mut entries) => entries.next().is_none().then(|| place.join("*")),
        Err(error) => (error.kind() == NotFound).then_some(place),
    }
}

fn is_gone(path: &Path) -> bool {
    fs::symlink_metadata(path).is_err_and(|error| error.kind() == NotFound)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "tests make files of their own")]

    use super::*;

    fn planned() -> (tempfile::TempDir, JobFolder) {
        let temp = tempfile::tempdir().expect("a temporary folder");
        let folder = JobFolder { path: temp.path().join("working/job") };
        fs::create_dir_all(folder.path.join("input")).expect("made");
        for path in [folder.lines(), folder.outcomes(), folder.input("a.jsonl")] {
            fs::write(path, "x").expect("written");
        }
        (temp, folder)
    }

    #[test]
    fn what_is_needed_and_gone_is_named() {
        let (_temp, folder) = planned();
        assert_eq!(lost(&folder, Needed::Input), None);
        fs::remove_file(folder.input("a.jsonl")).expect("removed");
        assert_eq!(lost(&folder, Needed::Indexes), None);
        assert_eq!(lost(&folder, Needed::Input), Some(folder.path.join("input/*")));
        assert_eq!(lost(&folder, Needed::Prepared), Some(folder.prepared()));
        fs::remove_file(folder.outcomes()).expect("removed");
        assert_eq!(lost(&folder, Needed::Indexes), Some(folder.outcomes()));
        fs::remove_dir_all(&folder.path).expect("removed");
        assert_eq!(lost(&folder, Needed::Input), Some(folder.lines()));
    }

    #[test]
    fn a_disk_that_is_not_mounted_has_lost_nothing() {
        let (temp, folder) = planned();
        fs::remove_dir_all(temp.path().join("working")).expect("removed");
        assert_eq!(lost(&folder, Needed::Input), None);
    }
}
