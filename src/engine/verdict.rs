//! What one answer means.
//!
//! The facts are read out of a result line elsewhere; here they become a verdict. Which
//! doubtful answers count as answered is the queue's choice ([`Accept`]).

use super::job::Accept;

/// What is known of one row. The numbers are those of the outcome file and never change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Verdict {
    /// No outcome yet.
    Open = 0,
    /// Answered.
    Answered = 1,
    /// Answered, but cut off at the token limit.
    Truncated = 2,
    /// The prompt or the answer was blocked by a filter.
    Blocked = 3,
    /// An answer without any content.
    Empty = 4,
    /// The API reported an error that sending again will not cure.
    Failed = 5,
    /// The API reported an error that may pass.
    Retryable = 6,
    /// The row of the input is not valid; it is never sent.
    Invalid = 7,
}

impl Verdict {
    /// Reads the number of the outcome file.
    pub fn from_u8(number: u8) -> Option<Verdict> {
        let all = [
            Verdict::Open,
            Verdict::Answered,
            Verdict::Truncated,
            Verdict::Blocked,
            Verdict::Empty,
            Verdict::Failed,
            Verdict::Retryable,
            Verdict::Invalid,
        ];
        all.get(usize::from(number)).copied()
    }

    /// Whether the row is to be sent (again).
    pub fn is_open(self) -> bool {
        matches!(self, Verdict::Open | Verdict::Retryable)
    }

    /// Whether the row belongs into the results.
    pub fn is_answer(self, accept: Accept) -> bool {
        match self {
            Verdict::Answered => true,
            Verdict::Truncated => accept.truncated,
            Verdict::Blocked => accept.blocked,
            Verdict::Empty => accept.empty,
            Verdict::Open | Verdict::Failed | Verdict::Retryable | Verdict::Invalid => false,
        }
    }
}

/// What a `GenerateContentResponse` says of itself (API contract, 5.5).
#[derive(Debug, Clone, Copy, Default)]
pub struct AnswerFacts<'a> {
    /// `promptFeedback.blockReason`.
    pub block_reason: Option<&'a str>,
    /// `finishReason` of the first candidate.
    pub finish_reason: Option<&'a str>,
    /// Whether any part carries text, data or a call that is not a mere thought.
    pub has_content: bool,
}

/// What a response means.
pub fn judge_answer(facts: AnswerFacts<'_>) -> Verdict {
    if facts.block_reason.is_some() {
        return Verdict::Blocked;
    }
    match facts.finish_reason {
        Some("MAX_TOKENS" | "length") => Verdict::Truncated,
        Some(reason) if BLOCKING.contains(&reason) => Verdict::Blocked,
        Some(_) | None if facts.has_content => Verdict::Answered,
        Some(_) | None => Verdict::Empty,
    }
}

/// What a row's error means: its gRPC code (API contract, 9.4).
pub fn judge_error(code: i64) -> Verdict {
    match code {
        // Cancelled, unknown, deadline, exhausted, aborted, internal, unavailable.
        1 | 2 | 4 | 8 | 10 | 13 | 14 => Verdict::Retryable,
        _ => Verdict::Failed,
    }
}

/// Finish reasons that mean a filter stepped in.
const BLOCKING: &[&str] = &[
    "SAFETY",
    "RECITATION",
    "LANGUAGE",
    "BLOCKLIST",
    "PROHIBITED_CONTENT",
    "SPII",
    "IMAGE_SAFETY",
    "IMAGE_PROHIBITED_CONTENT",
    "IMAGE_RECITATION",
    // In the OpenAI-compatible layer.
    "content_filter",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blocked_prompt_is_blocked_even_without_candidates() {
        let facts = AnswerFacts { block_reason: Some("SAFETY"), ..AnswerFacts::default() };
        assert_eq!(judge_answer(facts), Verdict::Blocked);
    }

    #[test]
    fn an_answer_eaten_whole_by_thinking_is_truncated_not_empty() {
        let facts = AnswerFacts { finish_reason: Some("MAX_TOKENS"), ..AnswerFacts::default() };
        assert_eq!(judge_answer(facts), Verdict::Truncated);
    }

    #[test]
    fn a_stop_without_parts_is_empty() {
        let facts = AnswerFacts { finish_reason: Some("STOP"), ..AnswerFacts::default() };
        assert_eq!(judge_answer(facts), Verdict::Empty);
    }

    #[test]
    fn an_unknown_finish_reason_with_content_is_an_answer() {
        let facts = AnswerFacts {
            finish_reason: Some("SOMETHING_NEW"),
            has_content: true,
            ..AnswerFacts::default()
        };
        assert_eq!(judge_answer(facts), Verdict::Answered);
    }

    #[test]
    fn an_invalid_argument_is_final_and_an_internal_error_may_pass() {
        assert_eq!(judge_error(3), Verdict::Failed);
        assert_eq!(judge_error(13), Verdict::Retryable);
        assert_eq!(judge_error(1), Verdict::Retryable);
    }

    #[test]
    fn every_verdict_survives_its_number() {
        for number in 0..=7 {
            let verdict = Verdict::from_u8(number).expect("0 to 7 are verdicts");
            assert_eq!(verdict as u8, number);
        }
        assert_eq!(Verdict::from_u8(8), None);
    }
}
