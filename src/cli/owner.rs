//! Whose spool it is: root must not leave records in it that its daemon could not open.

use std::os::unix::fs::MetadataExt;

use rustix::process::geteuid;

use crate::spool::Folders;

use super::Failure;

/// Refuses to go on as root in the spool of another user.
///
/// # Errors
/// If that is so; the remedy is the command that does it right.
pub fn check(folders: &Folders, verb: &str) -> Result<(), Failure> {
    if !geteuid().is_root() {
        return Ok(());
    }
    let places = [&folders.state, &folders.working, &folders.inbox];
    let found = places.into_iter().find_map(|place| Some((place, place.metadata().ok()?.uid())));
    match found {
        Some((place, user)) if user != 0 => {
            let message = format!(
                "{} belongs to user {user}, whose daemon could not open what root writes there",
                place.display()
            );
            let remedy = format!("run it as that user: sudo -u '#{user}' gemini-batchd {verb}");
            Err(Failure::usage(message).with_remedy(remedy))
        }
        Some(_) | None => Ok(()),
    }
}
