//! The real parts over loopback: the daemon with its store and its files, against the emulator.
//!
//! Modules by behaviour. Limits are in milliseconds; nothing sleeps for luck: a daemon that runs
//! until it is idle says itself when there is nothing left to wait for.

#![expect(clippy::disallowed_methods, reason = "a test plays the person who drops files")]

mod attempts;
mod bad_input;
mod budgets;
mod cache;
mod canary;
mod chunks;
mod control;
mod converting;
mod credentials;
mod deadline;
mod embeddings;
mod hooks;
mod inbox;
mod judged;
mod linting;
mod listener;
mod lost_store;
mod media;
mod media_out;
mod openai;
mod operators;
mod paid_once;
mod quota;
mod reloading;
mod reports;
mod results;
mod rig;
mod road;
mod settings;
mod steering;
mod tidying;
mod transport;
mod wakeup;
mod windows;
