//! What the emulator knew at each moment, so that another one can go on from there.
//!
//! Whoever asks what happens after a crash needs the service as it was at the crash, and more than
//! once. So the whole state is remembered right before each answer leaves: a client that has got
//! an answer finds in the memory of that moment whatever the answer told.

use std::sync::Arc;
use std::time::SystemTime;

use super::clock::system_now;
use super::disk::Disk;
use super::server::Server;

/// The state of an emulator at a moment.
#[derive(Debug, Clone)]
pub struct Memory {
    /// When it was so, by the system's clock.
    pub at: SystemTime,
    pub(super) server: Server,
    /// Shared with the emulator it comes from, and with all that go on from it.
    pub(super) disk: Arc<Disk>,
}

impl Memory {
    /// The present.
    pub(super) fn of(server: &Server, disk: &Arc<Disk>) -> Memory {
        Memory { at: system_now(), server: server.clone(), disk: Arc::clone(disk) }
    }
}
