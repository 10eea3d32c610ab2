//! Every decision, and nothing else: no IO, no async, no clock, no randomness.
//!
//! Events go in, a [`Turn`] comes out: records to save, then effects to begin.

pub mod effect;
pub mod event;
pub mod ids;
pub mod job;
pub mod verdict;

pub use effect::{Change, Effect, Issued, Turn, Which};
pub use event::{Event, Failure, Outcome};
pub use ids::{Attempt, BatchName, ChunkNo, FileName, JobId, Millis, Row, Rows, Stamp, Ticket};
pub use job::{Chunk, ChunkState, Head, Job, JobState};
