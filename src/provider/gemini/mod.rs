//! Google's Gemini Batch API, and an emulator of it. Wire facts name the section of the API
//! contract they come from.

pub mod batches;
pub mod browse;
pub mod classify;
pub mod client;
pub mod create;
pub mod download;
mod early;
pub mod interactive;
pub mod key;
pub mod layer;
pub mod layer_batch;
pub mod lines;
pub mod media;
pub mod operation;
mod session;
pub mod transfer;
pub mod upload;
pub mod wire;

pub use browse::{Counts, Described, RemoteFile};
pub use client::{Client, ClientError, ClientSettings};
pub use create::{CreateFailure, CreateInput, Created, RefusedKind};
pub use download::{Fetched, Results};
pub use early::EarlyUpload;
pub use interactive::Asked;
pub use key::ApiKey;
pub use layer::Listed;
pub use media::Media;
pub use transfer::Payload;
pub mod emulator;
