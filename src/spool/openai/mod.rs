//! OpenAI's batch format: the lines that go in, and the results that come out.
//!
//! Lines for the API's OpenAI-compatible layer are judged in `line`, and their results read and
//! mended in `result` and `usage`. A line that is to go the native way instead is rewritten in
//! `translate`. All of it works on one line in memory and copies nothing that it does not change.

mod contents;
pub mod line;
mod members;
pub mod result;
mod schema;
pub mod translate;
pub mod usage;
