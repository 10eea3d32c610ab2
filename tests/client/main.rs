//! The Gemini client against scripted servers on loopback that answer, lie, stall and break off.
#![expect(clippy::disallowed_methods, reason = "a test server runs its connections as tasks")]

mod barred;
mod browse;
mod calls;
mod connections;
mod create;
mod download;
mod early;
mod layer;
mod names;
mod server;
mod upload;
