//! What has happened, one event each: for `events`, for the dashboard, for whoever follows.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Event {
    /// Its number: each is higher than the one before.
    pub seq: u64,
    /// When, RFC 3339.
    pub time: String,
    /// The job it happened to.
    pub job: Option<String>,
    /// The input of that job, with the sub-folder it lay in.
    pub file: Option<String>,
    /// What: one of the words of [`Kind`].
    pub kind: String,
    /// The same in words, with names and numbers.
    pub text: String,
}

/// Events, oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EventList {
    /// The version of this interface: [`super::VERSION`].
    pub version: u32,
    /// The events.
    pub events: Vec<Event>,
    /// The number of the last one looked at: what comes later is asked for with `after`.
    pub next: u64,
}

/// Which events are asked for, as it stands in a URL.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EventQuery {
    /// Those with higher numbers than this; without it the newest ones.
    pub after: Option<u64>,
    /// Those of the jobs whose id begins so.
    pub job: Option<String>,
    /// At most so many.
    pub limit: Option<usize>,
}

/// Which events are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventFilter {
    /// Those with higher numbers than this; the newest ones if `None`.
    pub after: Option<u64>,
    /// Those of the jobs whose id begins so, in capital letters.
    pub job: Option<String>,
    /// At most so many.
    pub limit: usize,
}

/// What can happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The daemon started.
    Started,
    /// It was told to stop.
    Stopping,
    /// A file is being taken out of the inbox.
    Claimed,
    /// It was read, checked, and cut into batches.
    Planned,
    /// The requests of a batch are being uploaded.
    Uploading,
    /// A batch was created.
    BatchCreated,
    /// A batch has another state at the API.
    BatchState,
    /// The results of a batch came in.
    Collected,
    /// The results of a job are being written.
    Merging,
    /// They lie in the outbox.
    Delivered,
    /// The job is complete.
    Done,
    /// It waits for a person.
    Held,
    /// The file was refused whole.
    Failed,
    /// The job was stopped by a person, and is over.
    Cancelled,
    /// Nobody knows whether a batch was created; it is looked for.
    Uncertain,
    /// Lines without an answer are sent again.
    Retried,
    /// Lines are asked one by one, since their deadline is near.
    Rescuing,
    /// A deadline is in danger, or has passed.
    Deadline,
    /// A batch does not begin.
    Stuck,
    /// The morning report was written.
    Report,
    /// An operator asked for something.
    Command,
    /// Nothing new is sent any more.
    Paused,
    /// Work goes on.
    Resumed,
    /// Nothing new is taken; the daemon ends when all is done.
    Draining,
    /// Something goes wrong and is tried again.
    Trouble,
    /// It does not any more.
    TroubleOver,
    /// A hook was called, or could not be.
    Hook,
}

impl Kind {
    /// Its word.
    pub fn word(self) -> &'static str {
        match self {
            Kind::Started => "started",
            Kind::Stopping => "stopping",
            Kind::Claimed => "claimed",
            Kind::Planned => "planned",
            Kind::Uploading => "uploading",
            Kind::BatchCreated => "batch_created",
            Kind::BatchState => "batch_state",
            Kind::Collected => "collected",
            Kind::Merging => "merging",
            Kind::Delivered => "delivered",
            Kind::Done => "done",
            Kind::Held => "held",
            Kind::Failed => "failed",
            Kind::Cancelled => "cancelled",
            Kind::Uncertain => "uncertain",
            Kind::Retried => "retried",
            Kind::Rescuing => "rescuing",
            Kind::Deadline => "deadline",
            Kind::Stuck => "stuck",
            Kind::Report => "report",
            Kind::Command => "command",
            Kind::Paused => "paused",
            Kind::Resumed => "resumed",
            Kind::Draining => "draining",
            Kind::Trouble => "trouble",
            Kind::TroubleOver => "trouble_over",
            Kind::Hook => "hook",
        }
    }
}
