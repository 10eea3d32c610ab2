//! Work in progress.
pub mod answers;
pub mod batch;
pub mod clock;
pub mod create;
pub mod faults;
pub mod journal;
pub mod reply;
pub mod results;
pub mod rows;
pub mod schema;
