//! Every decision, and nothing else: no IO, no async, no clock, no randomness.
//!
//! Events go in, a [`Turn`] comes out: records to save, then effects to begin.

#![warn(clippy::wildcard_enum_match_arm)]

pub mod answers;
pub mod batch;
pub mod budget;
pub mod canary;
mod collecting;
pub mod conversion;
mod creating;
pub mod deadline;
mod dispatch;
mod doubt;
pub mod effect;
pub mod estimate;
pub mod event;
mod gates;
pub mod history;
pub mod ids;
pub mod job;
pub mod keys;
pub mod lanes;
mod ledger;
pub mod machine;
pub mod money;
mod notice;
pub mod past;
pub mod policy;
pub mod queue;
pub mod quota;
mod recollection;
mod records;
pub mod rescue;
mod spending;
mod stalled;
pub mod steering;
mod steps;
pub mod stuck;
pub mod tally;
mod trouble;
pub mod verdict;
pub mod window;

pub use effect::{Change, Effect, Issued, Turn, Which};
pub use event::{Event, Failure, Outcome};
pub use gates::{Gate, Mend};
pub use history::History;
pub use ids::{Attempt, BatchName, ChunkNo, FileName, JobId, Millis, Row, Rows, Stamp, Ticket};
pub use job::{Chunk, ChunkState, Head, Job, JobState};
pub use keys::{Credential, KeyNo, Keys};
pub use ledger::Usage;
pub use machine::Engine;
pub use policy::Policy;
pub use recollection::Recollection;
pub use steering::{Pauses, Retry};
pub use trouble::Trouble;
pub use window::Window;
