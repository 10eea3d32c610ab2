//! Holds what passed between a client and the emulator against Google's own description of the API.
//!
//! Every call that was accepted must be one that the document describes, with a body and a query as
//! it describes them, down to the rows of files; every answer, accepted or refused, must have the
//! form that it gives them, down to the lines of result files. What the document does not know (the
//! sessions of uploads, downloads) is checked by what they carry.

pub mod document;
pub mod exchanges;

use gemini_batchd::provider::gemini::emulator::Recorder;

/// Judges, when it is dropped, what a recorder recorded.
#[derive(Default)]
pub struct Checker(Recorder);

impl Checker {
    /// What an emulator is to be started with.
    pub fn recorder(&self) -> Recorder {
        self.0.clone()
    }
}

impl Drop for Checker {
    fn drop(&mut self) {
        // A test that failed has said why.
        if !std::thread::panicking() {
            let found = exchanges::complaints(&self.0.exchanges());
            assert!(found.is_empty(), "not as the API is described:\n{}", found.join("\n"));
        }
    }
}
