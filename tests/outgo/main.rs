//! The way out: downloaded result lines, merge, delivery, archive, on real files.

#![expect(clippy::disallowed_methods, reason = "tests set up files as users and crashes do")]
#![expect(clippy::unwrap_used, reason = "a test that cannot set up its files has failed")]

mod archiving;
mod collecting;
mod delivering;
mod judging;
mod merging;
mod notes;
mod receiving;
mod world;
