//! The emulator over loopback: what it answers, and that each fault does what it says.

mod batches;
mod described;
#[path = "../discovery/mod.rs"]
mod discovery;
mod faults;
mod support;
mod uploads;
