//! The real binary with its real store and real files, killed: whatever the moment, a restart
//! ends with the same outbox, and nothing is paid for twice.
//!
//! The daemon is a process of its own, the emulator runs inside the test. What a daemon left
//! behind is compared byte for byte with what an undisturbed one leaves ([`spool`]); what it asked
//! for is read from the emulator's journal. Tests wait for facts, never for luck: the only sleeps
//! are the random moments at which a process is killed.

#![expect(clippy::disallowed_methods, reason = "a test plays the person who drops files")]

mod account;
mod dice;
mod hanging;
mod hooks;
mod in_parallel;
mod inotify;
mod key;
mod log;
mod memory;
mod moved;
mod order;
mod random;
mod renames;
mod resuming;
mod rig;
mod scenarios;
mod second;
mod spool;
mod states;
mod stopping;
