//! Power cuts: whatever a disk may have kept, what was acknowledged is there, and nothing is paid
//! for twice.
//!
//! A process runs once under strace, and what it did to its files is read from the words
//! ([`trace`]). From that, the disk is built as it may be after a power cut behind any of its calls
//! ([`disk`], [`models`]), and the real code is started on it: the store alone ([`store`]), and the
//! whole daemon together with an emulator that knows what it knew at that moment ([`daemon`]).
//!
//! `GEMINI_BATCHD_IMAGES` says how many disks are built in all, `SEED` repeats the same draw; the
//! calls of two recordings are never quite the same, so a disk that fails is kept too, as it was
//! before anything was started on it.

#![expect(clippy::disallowed_methods, reason = "a test plays the person who drops files")]

mod campaign;
mod daemon;
#[expect(dead_code, reason = "the store's tests, which it belongs to, use all of it")]
#[path = "../store/dice.rs"]
mod dice;
mod disk;
mod mirror;
mod models;
#[expect(dead_code, reason = "the crash tests, which it belongs to, use all of it")]
#[path = "../crash/rig.rs"]
mod rig;
#[expect(dead_code, reason = "the crash tests, which it belongs to, use all of it")]
#[path = "../crash/spool.rs"]
mod spool;
mod store;
mod trace;
