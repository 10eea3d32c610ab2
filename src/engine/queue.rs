//! The settings that a queue gives to its jobs.

use std::sync::Arc;

use super::answers::Answers;
use super::canary::Canary;
use super::conversion::Conversion;
use super::deadline::Deadline;
use super::ids::Millis;
use super::job::{Family, Plan, Refusal};
use super::money::Amount;
use super::window::Window;

/// The settings a queue gives to its jobs, fixed when a job is claimed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queue {
    /// The queue's name.
    pub name: String,
    /// The model without a `models/` prefix.
    pub model: String,
    /// What its files ask for.
    pub task: Task,
    /// How requests go out.
    pub transport: Transport,
    /// At most so many lines in a batch; 0: as many as the limits allow.
    pub lines_per_batch: u64,
    /// Higher goes first; also passed to the API.
    pub priority: i64,
    /// How often a line may be sent before it fails.
    pub attempts: u16,
    /// What counts as an answer.
    pub accept: Accept,
    /// What is made of answers.
    pub answers: Answers,
    /// The credential whose API key is used; empty for the default one.
    pub credential: String,
    /// What becomes of lines in the OpenAI batch format.
    pub openai: OpenAiLines,
    /// Members that every request gets which does not have them: a JSON object, written without
    /// blanks. A planned job does without it: they stand in its prepared lines.
    pub defaults: Option<Arc<str>>,
    /// How its inputs are converted; `None`: as usual.
    pub conversion: Option<Arc<Conversion>>,
    /// An absolute folder: lines may name files below it, and not only beside the input.
    pub media_root: Option<Arc<str>>,
    /// What is done so that results are there in time, where something is asked for.
    pub deadline: Option<Arc<Deadline>>,
    /// When its files are sent; `None`: at once.
    pub window: Option<Arc<Window>>,
    /// Lines that go first, and how they must come back; `None`: all go at once.
    pub canary: Option<Canary>,
    /// Moments that hold for the file, worked out when it was claimed.
    pub moments: Moments,
    /// Answers so old are used again for the same request, milliseconds; 0: none are.
    pub cache_ms: u64,
    /// What each of its jobs may cost.
    pub budget: Option<Amount>,
    /// What is wrong with the settings that lay beside the file: it is refused once it is ours.
    pub wrong: Option<Box<Refusal>>,
}

impl Queue {
    /// How its inputs are converted.
    pub fn conversion(&self) -> &Conversion {
        self.conversion.as_deref().unwrap_or(&Conversion::USUAL)
    }

    /// Makes them those of a job with this plan.
    pub fn fit_to(&mut self, plan: &Plan) {
        // They stand in the prepared lines by now; in memory there would be one of each job.
        self.defaults = None;
        if plan.media && self.transport == Transport::Auto {
            // Uploading what its lines name takes time, and no create is begun before.
            self.transport = Transport::File;
        }
        if plan.family == Family::OpenAi {
            // The layer takes nothing else.
            self.transport = Transport::File;
        }
    }
}

/// What holds where nothing is said.
impl Default for Queue {
    fn default() -> Queue {
        Queue {
            name: "default".to_owned(),
            model: "gemini-2.5-flash".to_owned(),
            task: Task::Generate,
            transport: Transport::Auto,
            lines_per_batch: 0,
            priority: 0,
            attempts: 3,
            accept: Accept { truncated: true, blocked: false, empty: false },
            answers: Answers::default(),
            credential: String::new(),
            openai: OpenAiLines::Layer,
            defaults: None,
            conversion: None,
            media_root: None,
            deadline: None,
            window: None,
            canary: None,
            moments: Moments::default(),
            cache_ms: 0,
            budget: None,
            wrong: None,
        }
    }
}

/// Moments that hold for one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Moments {
    /// Nothing of it is sent before.
    pub opens: Option<Millis>,
    /// Its results are wanted by then.
    pub deliver_by: Option<Millis>,
}

/// What becomes of lines in the OpenAI batch format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OpenAiLines {
    /// They go through the API's OpenAI-compatible layer, and their results are OpenAI's.
    #[default]
    Layer,
    /// They become native requests before anything else is done with them.
    Translate,
}

/// What the requests of a file ask for; a batch is of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Task {
    /// Content.
    #[default]
    Generate,
    /// Embeddings.
    Embed,
}

/// How the requests of a chunk travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// Inline when the whole request stays under the inline limit, else a file.
    Auto,
    /// Always inside the create request.
    Inline,
    /// Always as an uploaded file.
    File,
}

/// Which doubtful answers count as answered; the others are failed lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accept {
    /// Cut off at the token limit.
    pub truncated: bool,
    /// Blocked by a filter.
    pub blocked: bool,
    /// Without any content.
    pub empty: bool,
}
