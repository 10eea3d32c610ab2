//! What came of the lines of a job, counted.

use std::collections::BTreeMap;

/// The lines of a job, counted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tally {
    /// Lines with an answer in the results.
    pub answered: u64,
    /// Lines in the errors.
    pub failed: u64,
    /// Answered, but cut off.
    pub truncated: u64,
    /// Answered with a higher limit than their requests set, since they were cut off before.
    pub raised: u64,
    /// Failures by reason.
    pub failures: BTreeMap<String, u64>,
    /// Tokens used by all answers.
    pub tokens: Tokens,
    /// Data that was taken out of the answers.
    pub media: MediaTally,
    /// Answers of batches that were left to themselves, to lines that had been rescued.
    pub wasted: u64,
    /// Batches that were left to themselves, and of which it is not known what they answered.
    pub unweighed: u64,
}

/// Data in answers, counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MediaTally {
    /// Files it became.
    pub files: u64,
    /// Bytes of these files.
    pub bytes: u64,
    /// Pieces that could not be read and stay in the results as they came.
    pub unreadable: u64,
}

/// Token counts as the API reported them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tokens {
    /// Tokens of the prompts.
    pub prompt: u64,
    /// Tokens of the answers.
    pub output: u64,
    /// Tokens spent on thinking.
    pub thinking: u64,
    /// Prompt tokens that came from a cache.
    pub cached: u64,
    /// All tokens.
    pub total: u64,
}

impl Tokens {
    /// Adds another count.
    pub fn add(&mut self, other: Tokens) {
        self.prompt = self.prompt.saturating_add(other.prompt);
        self.output = self.output.saturating_add(other.output);
        self.thinking = self.thinking.saturating_add(other.thinking);
        self.cached = self.cached.saturating_add(other.cached);
        self.total = self.total.saturating_add(other.total);
    }
}
