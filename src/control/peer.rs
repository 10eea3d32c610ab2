//! Who is at the other end of the control socket.
//!
//! The system lets nobody open the socket but root, its owner and its group, since its mode is 0660.
//! Should somebody open it up, those who are known to be none of these are turned away here. The
//! system does not always tell: inside a namespace of users (systemd's `PrivateUsers=`), others look
//! like nobody. Then the socket's own mode decides, as long as it is closed to others.

use std::collections::BTreeSet;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use axum::extract::connect_info::Connected;
use axum::serve::IncomingStream;
use tokio::net::UnixListener;

use super::connections::Bounded;

/// The one at the other end, as the system tells it when the connection is made.
#[derive(Debug, Clone, Copy)]
pub struct Caller(Option<Credentials>);

#[derive(Debug, Clone, Copy)]
struct Credentials {
    user: u32,
    group: u32,
    process: Option<i32>,
}

/// The socket, and whose it is.
#[derive(Debug, Clone)]
pub struct Place {
    path: PathBuf,
    owner: u32,
    group: u32,
}

impl Connected<IncomingStream<'_, Bounded<UnixListener>>> for Caller {
    fn connect_info(stream: IncomingStream<'_, Bounded<UnixListener>>) -> Caller {
        let found = stream.io().stream().peer_cred().ok();
        Caller(found.map(|found| Credentials {
            user: found.uid(),
            group: found.gid(),
            process: found.pid(),
        }))
    }
}

impl Place {
    /// The socket at this path, which is ours.
    ///
    /// # Errors
    /// If it can not be looked at.
    pub fn of(path: &Path) -> io::Result<Place> {
        let found = std::fs::symlink_metadata(path)?;
        Ok(Place { path: path.to_owned(), owner: found.uid(), group: found.gid() })
    }

    /// Whether this one may ask and command.
    pub fn admits(&self, caller: Caller) -> bool {
        let Some(known) = caller.0 else { return self.is_closed_to_others() };
        if known.user == 0 || known.user == self.owner || known.group == self.group {
            return true;
        }
        match self.is_member(known) {
            Some(member) => member,
            None => self.is_closed_to_others(),
        }
    }

    /// Whether this user is a member of the socket's group; `None` if that can not be told.
    fn is_member(&self, caller: Credentials) -> Option<bool> {
        if caller.user == NOBODY && !sees_every_user() {
            return None;
        }
        let status = format!("/proc/{}/status", caller.process?);
        let status = std::fs::read_to_string(status).ok()?;
        let groups = status.lines().find_map(|line| line.strip_prefix("Groups:"))?;
        let groups: BTreeSet<u32> =
            groups.split_whitespace().filter_map(|group| group.parse().ok()).collect();
        Some(groups.contains(&self.group))
    }

    fn is_closed_to_others(&self) -> bool {
        std::fs::symlink_metadata(&self.path).is_ok_and(|found| {
            found.mode() & 0o007 == 0 && found.uid() == self.owner && found.gid() == self.group
        })
    }
}

/// Whether every user of this machine has a number here.
fn sees_every_user() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let counts = map.lines().filter_map(|line| line.split_whitespace().nth(2)?.parse::<u64>().ok());
    counts.sum::<u64>() >= u64::from(u32::MAX)
}

/// What users look like that have no number here.
const NOBODY: u32 = 65_534;

#[cfg(test)]
mod tests {
    use super::*;

    /// Fault 85.
    #[test]
    fn only_root_the_owner_and_the_group_are_admitted_where_the_socket_was_opened_up() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("s");
        let _listener = std::os::unix::net::UnixListener::bind(&path).expect("bound");
        let open = |mode| {
            let mode = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(&path, mode).expect("set");
        };
        open(0o666);
        let mut place = Place::of(&path).expect("there");
        // Numbers that nobody has.
        (place.owner, place.group) = (3_999_999_001, 3_999_999_002);
        let this = i32::try_from(std::process::id()).ok();
        let caller = |user, group, process| Caller(Some(Credentials { user, group, process }));
        assert!(place.admits(caller(0, 9, None)), "root");
        assert!(place.admits(caller(3_999_999_001, 9, None)), "the owner");
        assert!(place.admits(caller(7, 3_999_999_002, None)), "the group");
        assert!(!place.admits(caller(7, 9, this)), "one who is none of these");
        assert!(!place.admits(caller(7, 9, None)), "one who can not be told");
        assert!(!place.admits(Caller(None)));
        open(0o660);
        let found = std::fs::symlink_metadata(&path).expect("there");
        (place.owner, place.group) = (found.uid(), found.gid());
        assert!(place.admits(Caller(None)), "the system has judged");
    }
}
