//! What a queue makes of answers, beyond which doubtful ones it takes for answers.

use super::job::Queue;

/// What a queue makes of answers, beyond [`super::job::Accept`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answers {
    /// An answer that does not fit the schema its own request asks for is sent again, and in the
    /// end fails.
    pub check_schema: bool,
    /// Where an answer that was cut off is not accepted, the limit of its request is doubled up to
    /// so many tokens.
    pub tokens_max: u32,
    /// Where data in answers, such as images, ends up.
    pub media: Media,
}

impl Default for Answers {
    fn default() -> Answers {
        Answers { check_schema: false, tokens_max: TOKENS_MAX, media: Media::Auto }
    }
}

/// Where data in answers ends up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Media {
    /// In files, if the model is one that makes images by its name.
    #[default]
    Auto,
    /// In files beside the results.
    Files,
    /// In the results, as base64.
    Inline,
}

/// What the answers of an attempt are held to; the same for all attempts of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// An answer that was cut off counts as one.
    pub accepts_truncated: bool,
    /// See [`Answers::check_schema`].
    pub check_schema: bool,
    /// A limit is doubled up to so many tokens: the queue's word, or what the model can do.
    pub tokens_max: u32,
    /// The tokens of its answers are counted as they come.
    pub counts: bool,
}

impl Queue {
    /// What its answers are held to.
    pub fn terms(&self) -> Terms {
        Terms {
            accepts_truncated: self.accept.truncated,
            check_schema: self.answers.check_schema,
            tokens_max: self.answers.tokens_max.min(tokens_limit(&self.model)),
            counts: false,
        }
    }

    /// Whether data in answers becomes files.
    pub fn wants_media_files(&self) -> bool {
        match self.answers.media {
            Media::Auto => self.model.contains("image"),
            Media::Files => true,
            Media::Inline => false,
        }
    }
}

/// The tokens that a model can answer with, as far as that is known.
fn tokens_limit(model: &str) -> u32 {
    let older = ["gemini-1.", "gemini-2.0"].iter().any(|family| model.starts_with(family));
    match older {
        true => 8_192,
        false if model.contains("image") => 32_768,
        false if model.starts_with("gemini-") => TOKENS_MAX,
        false => u32::MAX,
    }
}

/// What the models of today can answer with, tokens.
pub const TOKENS_MAX: u32 = 65_536;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_model_is_asked_for_more_tokens_than_it_has() {
        for (model, limit) in [
            ("gemini-2.5-flash", 65_536),
            ("gemini-2.0-flash-lite", 8_192),
            ("gemini-2.5-flash-image", 32_768),
            ("tuned-by-us", u32::MAX),
        ] {
            assert_eq!(tokens_limit(model), limit, "{model}");
        }
    }
}
