//! What the emulator saw: the evidence that tests and rehearsals judge a client by.
//!
//! It holds no key and no content of a request or an answer.

use std::collections::VecDeque;

use serde::Serialize;

use super::clock::Moment;

/// One thing that happened at the emulator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct JournalEntry {
    /// When, virtual ms since 1970.
    pub at_ms: u64,
    /// Whose: keys are numbered from 0 as they come.
    pub project: usize,
    /// What.
    #[serde(flatten)]
    pub what: Happened,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum Happened {
    /// A batch was made, whether its client was told so or not.
    Created {
        /// `batches/…`.
        batch: String,
        /// As the client gave it.
        display_name: String,
        /// `models/…`.
        model: String,
        /// Requests in it.
        rows: u64,
        /// How they came.
        input: InputKind,
        /// `files/…`, if they came in a file.
        file: Option<String>,
    },
    /// A create was refused or lost; no batch was made.
    CreateRefused {
        /// As the client gave it; empty if it could not be read.
        display_name: String,
        /// HTTP status of the answer; 0 if the connection was cut.
        status: u16,
        /// Its message.
        message: String,
    },
    /// Somebody asked for a batch to be cancelled.
    CancelAsked {
        /// `batches/…`.
        batch: String,
    },
    /// A batch ended.
    Ended {
        /// `batches/…`.
        batch: String,
        /// `BATCH_STATE_…`.
        state: String,
        /// Rows with a response in the output.
        successful: u64,
        /// Rows with an error in the output.
        failed: u64,
    },
    /// A batch was deleted.
    BatchDeleted {
        /// `batches/…`.
        batch: String,
    },
    /// The results of an inline batch were sent.
    ResultsRead {
        /// `batches/…`.
        batch: String,
    },
    /// An upload session was opened.
    UploadStarted {
        /// Uploads are numbered from 1.
        upload: u64,
        /// Bytes announced.
        announced: Option<u64>,
    },
    /// A piece of an upload came, or what came of it before the connection broke.
    UploadPiece {
        /// Of this upload.
        upload: u64,
        /// Where in the file it stands.
        offset: u64,
        /// Bytes taken off the wire, whether kept or not.
        received: u64,
    },
    /// A file is complete, whether its client was told so or not.
    Uploaded {
        /// Of this upload.
        upload: u64,
        /// `files/…`.
        file: String,
        /// Its size.
        bytes: u64,
    },
    /// An upload was given up by its client.
    UploadCancelled {
        /// This one.
        upload: u64,
    },
    /// A file was deleted.
    FileDeleted {
        /// `files/…`.
        file: String,
    },
    /// Somebody asked for the answer to a single request.
    Asked {
        /// `models/…`.
        model: String,
        /// `flex`, `standard` or `priority`.
        tier: String,
        /// The same for equal requests, whatever their tier.
        request: String,
        /// HTTP status of the answer; 0 if the connection was cut.
        status: u16,
        /// Whether it was answered, and so is paid for, whether its client was told so or not.
        is_paid: bool,
    },
    /// A download was begun.
    Downloaded {
        /// `files/…`.
        file: String,
        /// Byte it starts at.
        from: u64,
        /// Bytes the answer is to have; fewer than the file has if it is cut.
        bytes: u64,
    },
}

/// How the requests of a batch came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum InputKind {
    /// In the create itself.
    Inline,
    /// In a file.
    File,
}

/// The entries in order; the oldest are dropped beyond 100,000.
#[derive(Debug, Clone, Default)]
pub struct Journal {
    entries: VecDeque<JournalEntry>,
}

impl Journal {
    /// Adds an entry.
    pub fn note(&mut self, now: Moment, project: usize, what: Happened) {
        if self.entries.len() == ENTRIES_MAX {
            self.entries.pop_front();
        }
        self.entries.push_back(JournalEntry { at_ms: now.as_millis(), project, what });
    }

    /// All entries, oldest first.
    pub fn entries(&self) -> Vec<JournalEntry> {
        self.entries.iter().cloned().collect()
    }
}

const ENTRIES_MAX: usize = 100_000;
