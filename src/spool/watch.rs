//! Hints that something happened in the inbox.
//!
//! An event only asks for a look; the scan is the truth. The one thing that an event knows better
//! is that a file was renamed in, and therefore is whole. Where events can not work, nothing is
//! watched and the reason is told, so that the caller can look again and again by itself, which
//! it does in any case, only more seldom.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use notify::event::{AccessKind, AccessMode, EventKind, ModifyKind, RemoveKind, RenameMode};
use notify::{RecommendedWatcher, RecursiveMode, Watcher};

/// How changes in the inbox are noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WatchMode {
    /// By events where they work, else by looking.
    Auto,
    /// By events, or not at all.
    Events,
    /// By looking.
    Poll,
}

/// What an event says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hint {
    /// Something may have changed.
    Look,
    /// This file or folder was renamed into the inbox, so it is whole.
    RenamedIn(PathBuf),
}

/// Why the inbox can not be watched.
#[derive(Debug, thiserror::Error)]
#[error("cannot watch {}: {source}; set watch = \"poll\" to go without events", path.display())]
pub struct WatchError {
    /// The inbox.
    pub path: PathBuf,
    /// What the system said.
    #[source]
    pub source: notify::Error,
}

/// Hints are given as long as this lives.
#[derive(Debug)]
pub struct Watching {
    /// Why there are no events; `None` if there are.
    pub polling: Option<String>,
    limited: bool,
    inbox: PathBuf,
    identity: Option<(u64, u64)>,
    /// Held for its drop, which ends the events.
    _watcher: Option<RecommendedWatcher>,
}

impl Watching {
    /// There are no events for now, for this reason.
    pub fn limited(inbox: &Path, why: String) -> Watching {
        let inbox = inbox.to_owned();
        Watching { polling: Some(why), limited: true, inbox, identity: None, _watcher: None }
    }

    /// Whether the inbox is another folder than the one that is watched: it was moved away,
    /// made anew, or something was mounted over it. Then it should be watched anew.
    pub fn is_stale(&self) -> bool {
        let now = std::fs::metadata(&self.inbox).ok().map(|now| identity(&now));
        self.polling.is_none() && now.is_some() && now != self.identity
    }

    /// Whether there are no events only because others have used up what there is of them, so
    /// that there may be some later.
    pub fn is_limited(&self) -> bool {
        self.limited
    }
}

/// Watches the inbox and its sub-folders. `hint` is called on a thread of the watcher, often
/// and with many hints that mean the same.
///
/// # Errors
/// If the inbox is not there, or if events were asked for and do not work.
pub fn watch(
    inbox: &Path,
    mode: WatchMode,
    hint: impl Fn(Hint) + Send + 'static,
) -> Result<Watching, WatchError> {
    let failed = |source: notify::Error| WatchError { path: inbox.to_owned(), source };
    let found = std::fs::metadata(inbox).map_err(|error| failed(notify::Error::io(error)))?;
    let watching = |polling, watcher| Watching {
        polling,
        limited: false,
        inbox: inbox.to_owned(),
        identity: Some(identity(&found)),
        _watcher: watcher,
    };
    match mode {
        WatchMode::Poll => return Ok(watching(Some("so configured".to_owned()), None)),
        WatchMode::Auto => {
            if let Some(name) = eventless(inbox) {
                let why = format!("changes made elsewhere cause no events on {name}");
                return Ok(watching(Some(why), None));
            }
        }
        WatchMode::Events => {}
    }
    match start(inbox, hint) {
        Ok(watcher) => Ok(watching(None, Some(watcher))),
        Err(error) if mode == WatchMode::Auto && is_limit(&error) => {
            let why =
                format!("{error}; fs.inotify.max_user_watches or max_user_instances is used up");
            Ok(Watching::limited(inbox, why))
        }
        Err(error) => Err(failed(error)),
    }
}

fn start(
    inbox: &Path,
    hint: impl Fn(Hint) + Send + 'static,
) -> Result<RecommendedWatcher, notify::Error> {
    // Events name absolute paths; hints name them as the caller does.
    let named = inbox.to_owned();
    let absolute = std::path::absolute(inbox).map_err(notify::Error::io)?;
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        match event.map(|event| read(&event)) {
            Ok(None) => {}
            Ok(Some(Hint::RenamedIn(path))) => {
                let path = path.strip_prefix(&absolute).map_or(path.clone(), |p| named.join(p));
                hint(Hint::RenamedIn(path));
            }
            // After an error nobody knows what was missed.
            Ok(Some(Hint::Look)) | Err(_) => hint(Hint::Look),
        }
    })?;
    watcher.watch(inbox, RecursiveMode::Recursive)?;
    Ok(watcher)
}

/// What an event means for the inbox; `None` if nothing.
fn read(event: &notify::Event) -> Option<Hint> {
    if event.need_rescan() {
        return Some(Hint::Look);
    }
    match event.kind {
        EventKind::Modify(ModifyKind::Name(RenameMode::To | RenameMode::Both)) => {
            Some(event.paths.last().cloned().map_or(Hint::Look, Hint::RenamedIn))
        }
        // Our own claims, and our own looks: reacting to them would never end.
        EventKind::Modify(ModifyKind::Name(RenameMode::From))
        | EventKind::Remove(RemoveKind::File)
        | EventKind::Access(
            AccessKind::Any
            | AccessKind::Read
            | AccessKind::Open(_)
            | AccessKind::Close(
                AccessMode::Any | AccessMode::Execute | AccessMode::Read | AccessMode::Other,
            )
            | AccessKind::Other,
        ) => None,
        // A file that grows was seen when it was made, and is waited for since.
        EventKind::Modify(ModifyKind::Data(_)) => None,
        EventKind::Access(AccessKind::Close(AccessMode::Write))
        | EventKind::Modify(
            ModifyKind::Name(RenameMode::Any | RenameMode::Other)
            | ModifyKind::Any
            | ModifyKind::Metadata(_)
            | ModifyKind::Other,
        )
        | EventKind::Create(_)
        | EventKind::Remove(RemoveKind::Any | RemoveKind::Folder | RemoveKind::Other)
        | EventKind::Any
        | EventKind::Other => Some(Hint::Look),
    }
}

/// The name of the file system, if changes made elsewhere cause no events on it.
pub fn eventless(path: &Path) -> Option<&'static str> {
    let magic = rustix::fs::statfs(path).ok()?.f_type;
    // The field has another width and sign on other machines; the number has 32 bits.
    eventless_magic(magic as u32)
}

fn eventless_magic(magic: u32) -> Option<&'static str> {
    EVENTLESS.iter().find(|(number, _)| *number == magic).map(|(_, name)| *name)
}

/// File systems that other machines or layers can change unseen, by the magic numbers of statfs(2).
const EVENTLESS: &[(u32, &str)] = &[
    (0x0000_6969, "NFS"),
    (0x0000_517b, "SMB"),
    (0xff53_4d42, "CIFS"),
    (0xfe53_4d42, "SMB"),
    (0x6573_5546, "FUSE"),
    (0x0102_1997, "9p"),
    (0x794c_7630, "overlay"),
    (0x00c3_6400, "Ceph"),
    (0x5346_414f, "AFS"),
    (0x0bd0_0bd0, "Lustre"),
    (0x786f_4256, "a shared folder of VirtualBox"),
];

fn is_limit(error: &notify::Error) -> bool {
    match &error.kind {
        notify::ErrorKind::MaxFilesWatch => true,
        notify::ErrorKind::Io(error) => matches!(
            rustix::io::Errno::from_io_error(error),
            Some(rustix::io::Errno::MFILE | rustix::io::Errno::NFILE | rustix::io::Errno::NOSPC)
        ),
        notify::ErrorKind::Generic(_)
        | notify::ErrorKind::PathNotFound
        | notify::ErrorKind::WatchNotFound
        | notify::ErrorKind::InvalidConfig(_) => false,
    }
}

fn identity(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "tests drop files as people do")]

    use std::collections::HashSet;
    use std::fs;
    use std::sync::mpsc;
    use std::time::Duration;

    use notify::event::{CreateKind, DataChange, Event, Flag};

    use super::*;
    use crate::engine::ids::Millis;
    use crate::spool::Folders;
    use crate::spool::inbox::{IntakeRules, Scanner};

    #[test]
    fn only_what_may_bring_a_new_file_is_a_hint() {
        let path = PathBuf::from("/in/a.jsonl");
        let table = [
            (EventKind::Create(CreateKind::File), Some(Hint::Look)),
            (EventKind::Access(AccessKind::Close(AccessMode::Write)), Some(Hint::Look)),
            (
                EventKind::Modify(ModifyKind::Name(RenameMode::To)),
                Some(Hint::RenamedIn(path.clone())),
            ),
            (EventKind::Modify(ModifyKind::Name(RenameMode::From)), None),
            (EventKind::Modify(ModifyKind::Data(DataChange::Any)), None),
            (EventKind::Access(AccessKind::Open(AccessMode::Any)), None),
            (EventKind::Access(AccessKind::Close(AccessMode::Read)), None),
            (EventKind::Remove(RemoveKind::File), None),
            (EventKind::Remove(RemoveKind::Folder), Some(Hint::Look)),
        ];
        for (kind, expected) in table {
            assert_eq!(read(&Event::new(kind).add_path(path.clone())), expected, "{kind:?}");
        }
        let overflow = Event::new(EventKind::Other).set_flag(Flag::Rescan);
        assert_eq!(read(&overflow), Some(Hint::Look));
    }

    #[test]
    fn file_systems_without_events_are_known_by_their_number() {
        assert_eq!(eventless_magic(0x6969), Some("NFS"));
        assert_eq!(eventless_magic(0xff53_4d42), Some("CIFS"));
        assert_eq!(eventless_magic(0xef53), None, "ext4");
    }

    #[test]
    fn a_file_renamed_in_is_named_as_the_caller_names_the_inbox() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let inbox = folder.path().join("inbox");
        fs::create_dir(&inbox).expect("an inbox");
        let (send, hints) = mpsc::channel();
        let watching = watch(&inbox, WatchMode::Events, move |hint| {
            // After the test nobody listens.
            let _ = send.send(hint);
        })
        .expect("watched");
        assert_eq!(watching.polling, None);
        let outside = folder.path().join("a.jsonl");
        fs::write(&outside, "x").expect("written");
        fs::rename(&outside, inbox.join("a.jsonl")).expect("renamed");
        let expected = Hint::RenamedIn(inbox.join("a.jsonl"));
        let within = Duration::from_secs(60);
        while hints.recv_timeout(within).expect("a hint in time") != expected {}
    }

    /// Fault 35.
    #[test]
    fn when_more_comes_than_the_event_queue_holds_a_look_is_asked_for_and_finds_all() {
        const FILES: usize = 20_000;
        let folder = tempfile::tempdir().expect("a temporary folder");
        let folders = Folders::below(folder.path());
        let outside = folder.path().join("outside");
        fs::create_dir(&folders.inbox).expect("an inbox");
        fs::create_dir(&outside).expect("a folder");
        // The first hint is not taken before all files are there: the consumer stalls.
        let (send, hints) = mpsc::sync_channel(0);
        let watching = watch(&folders.inbox, WatchMode::Events, move |hint| {
            // After the test nobody listens.
            let _ = send.send(hint);
        })
        .expect("watched");
        for n in 0..FILES {
            let (new, name) = (outside.join("new"), format!("{n}.jsonl"));
            fs::File::create(&new).expect("made");
            fs::rename(&new, folders.inbox.join(name)).expect("renamed");
        }
        let (mut named, mut told) = (0, false);
        while named < FILES && !told {
            match hints.recv_timeout(Duration::from_secs(60)).expect("a hint in time") {
                Hint::RenamedIn(_) => named += 1,
                Hint::Look => told = true,
            }
        }
        if !told {
            eprintln!("the event queue of this machine holds them all");
        }
        let mut scanner = Scanner::new(IntakeRules { settle_ms: 0, ignore: Vec::new() });
        let later = Millis(u64::MAX / 4);
        let scan = scanner.scan(&folders, later, &HashSet::new(), usize::MAX).expect("scanned");
        assert_eq!(scan.ready.len(), FILES);
        drop(watching);
    }

    /// Fault 48.
    #[test]
    fn an_inbox_that_was_made_anew_is_noticed() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let inbox = folder.path().join("inbox");
        fs::create_dir(&inbox).expect("an inbox");
        let watching = watch(&inbox, WatchMode::Events, |_| {}).expect("watched");
        assert!(!watching.is_stale());
        fs::rename(&inbox, folder.path().join("old")).expect("moved");
        assert!(!watching.is_stale(), "nothing is there to be watched");
        fs::create_dir(&inbox).expect("an inbox");
        assert!(watching.is_stale());
    }

    /// Fault 36.
    #[test]
    fn polling_watches_nothing_and_says_so_and_a_missing_inbox_is_an_error() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let watching = watch(folder.path(), WatchMode::Poll, |_| {}).expect("asked");
        assert!(watching.polling.is_some());
        assert!(watch(&folder.path().join("no"), WatchMode::Auto, |_| {}).is_err());
    }
}
