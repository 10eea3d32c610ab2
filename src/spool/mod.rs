//! Files: the folders of the spool, and everything that reads or writes in them.
//!
//! All functions here are blocking; the daemon calls them on threads made for that.

pub mod again;
pub mod answer_lines;
pub mod answers;
pub mod archive;
pub mod aside;
pub mod body;
pub mod buffer;
pub mod cache;
pub mod canary;
pub mod canonical;
pub mod claim;
pub mod convert;
pub mod defaults;
pub mod document;
pub mod durable;
mod fault_line;
pub mod forms;
pub mod frame;
pub mod free_name;
mod gauge;
mod halves;
pub mod inbox;
pub mod index;
mod inline_data;
mod inspect;
mod joint;
pub mod judged;
mod keys;
pub mod late;
pub mod lines;
pub mod loose;
pub mod lost;
pub mod manifest;
mod marks;
pub mod media;
pub mod media_out;
pub mod merge;
pub mod mirror;
pub mod openai;
mod openapi;
pub mod outbox;
pub mod outcomes;
mod pass;
pub mod plan;
pub mod prepare;
pub mod problem;
mod quotes;
mod raise;
pub mod receiver;
pub mod register;
pub mod reports;
pub mod rescue;
pub mod response;
pub mod result_line;
pub mod reuse;
pub mod row_failure;
pub mod scan;
mod schema;
pub mod session;
mod shape;
pub mod sidecar;
pub mod sketch;
pub mod source;
pub mod steady;
pub mod usage;
pub mod usual;
pub mod watch;
mod whole_folder;
pub mod windows;

use std::path::{Path, PathBuf};

use crate::engine::ids::{Attempt, ChunkNo, JobId};
use crate::failpoint;

/// Where everything lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folders {
    /// Files are dropped here.
    pub inbox: PathBuf,
    /// One folder for each job under way.
    pub working: PathBuf,
    /// Files that wait for a person.
    pub held: PathBuf,
    /// Results.
    pub outbox: PathBuf,
    /// Files refused whole.
    pub failed: PathBuf,
    /// Inputs whose job is complete.
    pub archive: PathBuf,
    /// The store, the lock, exports.
    pub state: PathBuf,
}

impl Folders {
    /// All folders below one.
    pub fn below(spool: &Path) -> Folders {
        Folders {
            inbox: spool.join("inbox"),
            working: spool.join("working"),
            held: spool.join("held"),
            outbox: spool.join("outbox"),
            failed: spool.join("failed"),
            archive: spool.join("archive"),
            state: spool.join("state"),
        }
    }

    /// Makes every folder that is not there yet, and finds out whether it can be written to.
    ///
    /// # Errors
    /// If one of them can not be made or used.
    pub fn prepare(&self) -> Result<(), SpoolError> {
        let all = [
            &self.state,
            &self.working,
            &self.held,
            &self.outbox,
            &self.failed,
            &self.archive,
            &self.inbox,
        ];
        for folder in all {
            durable::make_lasting_folder(folder)?;
            durable::try_writing(folder)?;
        }
        Ok(())
    }

    /// The working folder of a job.
    pub fn job(&self, id: JobId) -> JobFolder {
        JobFolder { path: self.working.join(id.as_str()) }
    }
}

/// The working folder of one job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobFolder {
    /// `working/<job id>/`.
    pub path: PathBuf,
}

impl JobFolder {
    /// The claimed input, under the name it had.
    pub fn input(&self, name: &str) -> PathBuf {
        self.path.join("input").join(name)
    }

    /// The name of the claimed input: the one file in its folder.
    ///
    /// # Errors
    /// If the folder can not be read or is empty.
    pub fn input_name(&self) -> Result<String, SpoolError> {
        let path = self.path.join("input");
        // A hidden one is a copy that was never completed.
        let is_whole = |entry: &std::io::Result<std::fs::DirEntry>| {
            entry.as_ref().is_ok_and(|it| !it.file_name().as_encoded_bytes().starts_with(b"."))
        };
        let first = std::fs::read_dir(&path).and_then(|mut entries| {
            entries.find(is_whole).unwrap_or_else(|| Err(std::io::ErrorKind::NotFound.into()))
        });
        let name = first.at("find the input in", &path)?.file_name();
        name.into_string()
            .map_err(|_| std::io::Error::from(std::io::ErrorKind::InvalidFilename))
            .at("find the input in", &path)
    }

    /// The lines that were prepared of the input, if it can not be sent as it stands.
    pub fn prepared(&self) -> PathBuf {
        self.path.join("prepared.jsonl")
    }

    /// The settings that lay beside the input, under the name that is only for this one.
    pub fn sidecar(&self, name: &str) -> PathBuf {
        self.path.join(sidecar::full_name(name))
    }

    /// What the rows of a planned job are read from: its prepared lines, or the input itself.
    pub fn requests(&self, name: &str, prepared: bool) -> PathBuf {
        if prepared { self.prepared() } else { self.input(name) }
    }

    /// Where addresses have to stand in the prepared lines, if they name files.
    pub fn slots(&self) -> PathBuf {
        self.path.join("slots.idx")
    }

    /// The files that lines name, and what is known of them at the API.
    pub fn media(&self) -> PathBuf {
        self.path.join("media")
    }

    /// The line index.
    pub fn lines(&self) -> PathBuf {
        self.path.join("lines.idx")
    }

    /// The outcome index.
    pub fn outcomes(&self) -> PathBuf {
        self.path.join("outcomes.idx")
    }

    /// The result lines of one attempt, whole and synced.
    pub fn answers(&self, chunk: ChunkNo, attempt: Attempt) -> PathBuf {
        if chunk == reuse::CHUNK {
            return self.path.join("reused.jsonl");
        }
        self.path.join("answers").join(format!("c{}-a{}.jsonl", chunk.0, attempt.0))
    }

    /// Whether results of any attempt lie here.
    pub fn has_answers(&self) -> bool {
        let entries = std::fs::read_dir(self.path.join("answers"));
        let is_whole = |name: std::ffi::OsString| name.as_encoded_bytes().ends_with(b".jsonl");
        entries.into_iter().flatten().flatten().any(|entry| is_whole(entry.file_name()))
    }

    /// The same while they are being downloaded.
    pub fn download(&self, chunk: ChunkNo, attempt: Attempt) -> PathBuf {
        self.path.join("answers").join(format!("c{}-a{}.download", chunk.0, attempt.0))
    }

    /// The address of an attempt's upload while it is under way.
    pub fn session(&self, chunk: ChunkNo, attempt: Attempt) -> PathBuf {
        self.path.join(format!("c{}-a{}.session", chunk.0, attempt.0))
    }

    /// Result lines that belong to no row sent, kept for people.
    pub fn strays(&self) -> PathBuf {
        self.path.join("strays.jsonl")
    }

    /// Outputs before they are delivered.
    pub fn merged_results(&self) -> PathBuf {
        self.path.join("out").join("results.jsonl")
    }

    /// Data of answers as files, before they are delivered.
    pub fn merged_media(&self) -> PathBuf {
        self.path.join("out").join("media")
    }

    /// Errors before they are delivered.
    pub fn merged_errors(&self) -> PathBuf {
        self.path.join("out").join("errors.jsonl")
    }

    /// The answers to a table as a table, before they are delivered.
    pub fn merged_table(&self) -> PathBuf {
        self.path.join("out").join("results.csv")
    }

    /// The mirror of the job's records.
    pub fn record(&self) -> PathBuf {
        self.path.join("record.json")
    }

    /// The mirror of one chunk's record, in jobs that have very many.
    pub fn chunk_record(&self, chunk: ChunkNo) -> PathBuf {
        self.path.join("chunks").join(format!("c{}.json", chunk.0))
    }
}

/// What can go wrong with files: what was tried, on which path, and what the system said.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}: {source}", path.display())]
pub struct SpoolError {
    /// What was tried, such as `read`.
    pub action: &'static str,
    /// The file or folder.
    pub path: PathBuf,
    /// What the system said.
    #[source]
    pub source: std::io::Error,
}

impl SpoolError {
    /// Whether it is a matter of room on the disk, so that it passes when there is more.
    pub fn is_about_room(&self) -> bool {
        use std::io::ErrorKind::{QuotaExceeded, StorageFull};
        matches!(self.source.kind(), StorageFull | QuotaExceeded)
    }

    /// Whether the folder is not as it must be, so that it stays so until somebody mends it.
    pub fn is_lasting(&self) -> bool {
        use std::io::ErrorKind as Kind;
        let lasting = [
            Kind::PermissionDenied,
            Kind::ReadOnlyFilesystem,
            Kind::NotADirectory,
            Kind::AlreadyExists,
            Kind::NotFound,
            Kind::InvalidFilename,
        ];
        lasting.contains(&self.source.kind())
    }
}

/// Adds to an IO error what was tried and on which path.
pub trait At<T> {
    /// See [`At`].
    ///
    /// # Errors
    /// The same error, named.
    fn at(self, action: &'static str, path: &Path) -> Result<T, SpoolError>;
}

impl<T> At<T> for std::io::Result<T> {
    fn at(self, action: &'static str, path: &Path) -> Result<T, SpoolError> {
        self.map_err(|source| SpoolError { action, path: path.to_owned(), source })
    }
}

/// A moment between two steps that concern a path: empty, but for tests.
fn moment(name: &str, path: &Path) -> Result<(), SpoolError> {
    failpoint::at(name).at("go on with", path)
}
