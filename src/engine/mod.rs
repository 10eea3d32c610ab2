//! Every decision, and nothing else: no IO, no async, no clock, no randomness.
//!
//! Events go in, a [`Turn`] comes out: records to save, then effects to begin.

#![warn(clippy::wildcard_enum_match_arm)]

pub mod batch;
mod collecting;
pub mod conversion;
mod creating;
mod dispatch;
mod doubt;
pub mod effect;
pub mod event;
pub mod ids;
pub mod job;
pub mod lanes;
pub mod machine;
pub mod past;
pub mod policy;
mod records;
mod steps;
mod trouble;
pub mod verdict;

pub use effect::{Change, Effect, Issued, Turn, Which};
pub use event::{Event, Failure, Outcome};
pub use ids::{Attempt, BatchName, ChunkNo, FileName, JobId, Millis, Row, Rows, Stamp, Ticket};
pub use job::{Chunk, ChunkState, Head, Job, JobState};
pub use machine::{Engine, Gate, Mend, Recollection};
pub use policy::Policy;
pub use records::Usage;
pub use trouble::Trouble;
