//! A moment at which a test can make the program die, fail or wait, by name.
//!
//! Built into test builds only: without the feature of the `fail` crate [`at`] does nothing. The
//! environment variable `FAILPOINTS` says what happens where: `deliver:placed=1*off->return(kill)`
//! kills the process when it comes there for the second time, `1*return(error)` makes the step
//! fail once as if the system had refused it, `sleep(50)` makes it wait, `panic` makes it panic.

use std::io;

/// The program comes to this moment.
///
/// # Errors
/// Only in a test that asks for one.
#[inline]
pub fn at(moment: &str) -> io::Result<()> {
    if fail::has_failpoints() {
        // By these lines tests find out which moments there are on a road.
        tracing::trace!(target: "failpoint", moment);
    }
    fail::fail_point!(moment, |action| match action.as_deref() {
        Some("error") => Err(io::Error::from_raw_os_error(rustix::io::Errno::IO.raw_os_error())),
        Some(_) | None => std::process::abort(),
    });
    Ok(())
}
