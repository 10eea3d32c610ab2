//! From an older schema to ours: always through a copy, never in place.
//!
//! The copy is made in a new folder `migration-N` and takes the store's place in one step, when
//! every record is in it and synced; the old store then lies where the copy was made, for people.
//! A crash before that step leaves the old store untouched, and the next start makes a new copy.

use std::path::Path;

use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::backend::{Backend, Write};
use super::meta::Meta;
use super::open::{Found, SCHEMA, check_space, folder_bytes, io_error, new_folder, sync, sync_all};
use super::record;
use super::{StoreError, layout};

/// Puts a store with the same records, in the newest form, in the place of an older one.
pub(super) fn migrate<B: Backend>(state: &Path, old: Found<B>) -> Result<Found<B>, StoreError> {
    let folder = state.join(B::FOLDER);
    check_space(state, folder_bytes(&folder)?.saturating_mul(2))?;
    let aside = state.join(new_folder(state, "migration")?);
    let copy = aside.join(B::FOLDER);
    let mut new = B::open(&copy).map_err(|trouble| trouble.during("copy"))?;
    let meta = fill(&old, &mut new)?;
    // Both are closed before they change places.
    drop((old, new));
    sync_all(&copy)?;
    renameat_with(CWD, &copy, CWD, &folder, RenameFlags::EXCHANGE)
        .map_err(|errno| io_error("change places with", &folder)(errno.into()))?;
    sync(&aside)?;
    sync(state)?;
    let backend = B::open(&folder).map_err(|trouble| trouble.during("open the copy"))?;
    Ok(Found { backend, meta, schema: SCHEMA, read: None })
}

/// Copies every record; what the new store says of itself comes last.
fn fill<B: Backend>(old: &Found<B>, new: &mut B) -> Result<Meta, StoreError> {
    let mut meta = Meta { saves: old.meta.saves, ..Meta::default() };
    let mut some: Vec<(String, Vec<u8>)> = Vec::new();
    for entry in old.backend.starting_with("") {
        let (key, value) = entry.map_err(|trouble| trouble.during("read"))?;
        let key = layout::text_key(key)?;
        if key == Meta::KEY {
            continue;
        }
        let value = record::read(value.as_ref())
            .map_err(|reason| layout::unreadable(&key, &reason))?
            .write();
        meta.sum.put_in(key.as_bytes(), &value);
        some.push((key, value));
        if some.len() == RECORDS_AT_ONCE {
            put(new, &some)?;
            some.clear();
        }
    }
    some.push((Meta::KEY.to_owned(), meta.write()));
    put(new, &some)?;
    Ok(meta)
}

fn put<B: Backend>(store: &mut B, records: &[(String, Vec<u8>)]) -> Result<(), StoreError> {
    let writes: Vec<Write<'_>> =
        records.iter().map(|(key, value)| (key.as_str(), Some(value.as_slice()))).collect();
    store.write(&writes)
}

/// Enough to be quick, few enough for memory.
const RECORDS_AT_ONCE: usize = 1000;
