//! The jobs of a store, read on a second thread while the first one checks their records.
//!
//! What comes of it is only to be believed when the check has passed: here nobody knows.

use std::sync::mpsc::sync_channel;
use std::thread;

use super::StoreError;
use super::backend::Trouble;
use super::layout;
use crate::engine::Job;

/// Who is given the jobs.
pub(super) type Take<'a> = &'a mut (dyn FnMut(Job) + Send);

/// Notes every entry, and hands over the jobs that the records among them make. The inner result is
/// that of the reading, which an entry that it does not understand ends, but not the noting.
///
/// # Errors
/// If an entry can not be had, or the system gives us no thread.
pub(super) fn beside<V: AsRef<[u8]> + Send>(
    entries: impl Iterator<Item = Result<(Vec<u8>, V), Trouble>>,
    mut note: impl FnMut(&[u8], &V),
    take: Take<'_>,
) -> Result<Result<(), StoreError>, Trouble> {
    thread::scope(|scope| {
        let (hand_on, handed_on) = sync_channel::<Vec<(Vec<u8>, V)>>(PARCELS_WAITING);
        let read = move || {
            let records = handed_on.into_iter().flatten();
            let records = records.map(|(key, value)| Ok((layout::text_key(key)?, value)));
            layout::assemble(records, take)
        };
        let reader = thread::Builder::new().name("store reader".to_owned());
        let reader = reader.spawn_scoped(scope, read).map_err(no_thread)?;
        let mut parcel = Vec::with_capacity(PARCEL_RECORDS);
        for entry in entries {
            let (key, value) = entry?;
            note(&key, &value);
            if key.starts_with(layout::JOBS.as_bytes()) {
                parcel.push((key, value));
            }
            if parcel.len() == PARCEL_RECORDS {
                let full = std::mem::replace(&mut parcel, Vec::with_capacity(PARCEL_RECORDS));
                // Whoever reads has met something it does not understand, and says so below.
                drop(hand_on.send(full));
            }
        }
        drop(hand_on.send(parcel));
        drop(hand_on);
        Ok(reader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}

fn no_thread(error: std::io::Error) -> Trouble {
    let reason = error.to_string();
    Trouble::Fatal(StoreError::Broken { action: "begin to read", reason })
}

/// Records handed on at once: so many that handing on costs nothing.
const PARCEL_RECORDS: usize = 64;

/// Parcels that may wait, so that neither thread waits for the other at every turn.
const PARCELS_WAITING: usize = 4;
