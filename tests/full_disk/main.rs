//! The real binary on disks that are full, fail, are slow, or go away: nothing is lost, nothing is
//! paid for twice, the daemon says what is wrong, and goes on when it is mended.
//!
//! Each test has a small disk of its own ([`disk`]), the emulator runs inside the test, and daemons
//! that end are started again, as a service manager does it. What comes out is compared byte for
//! byte with what comes out undisturbed.

#![expect(clippy::disallowed_methods, reason = "a test plays the person who drops files")]

mod disk;
mod episodes;
mod failing;
mod gone;
mod outbox;
mod rig;
mod slow;
#[path = "../crash/spool.rs"]
mod spool;
mod starting;
