//! gemini-batchd: drop JSONL files into a folder, get every request in them answered through
//! Google's Gemini Batch API.

pub mod cli;
pub mod clock;
pub mod config;
pub mod control;
pub mod daemon;
pub mod engine;
pub mod failpoint;
pub mod lint;
pub mod provider;
pub mod schema;
pub mod signature;
pub mod slots;
pub mod spool;
pub mod store;
pub mod telemetry;
pub mod view;
