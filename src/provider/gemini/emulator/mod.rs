//! Work in progress.
pub mod answers;
pub mod batch;
pub mod body;
pub mod clock;
pub mod create;
pub mod disk;
pub mod faults;
pub mod files;
pub mod journal;
pub mod line;
pub mod reply;
pub mod results;
pub mod rows;
pub mod schema;
pub mod server;
