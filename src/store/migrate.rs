//! From an older schema to ours: always through a copy, never in place.
//!
//! The copy is made in a new folder `migration-N` and takes the store's place in one step, when
//! every record is in it and synced; the old store then lies where the copy was made, for people.
//! A crash before that step leaves the old store untouched, and the next start makes a new copy.

use std::path::Path;

use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::open::{
    Found, SCHEMA, Trouble, check_space, folder_bytes, io_error, new_folder, sync, sync_all,
    try_sled,
};
use super::record;
use super::sled::{Meta, SledStore, broken};
use super::{StoreError, layout};

/// Puts a store with the same records, in the newest form, in the place of an older one.
pub(super) fn migrate(state: &Path, old: Found) -> Result<Found, StoreError> {
    let folder = state.join(SledStore::FOLDER);
    check_space(state, folder_bytes(&folder)?.saturating_mul(2))?;
    let aside = state.join(new_folder(state, "migration")?);
    let copy = aside.join(SledStore::FOLDER);
    let new = try_sled(&copy).map_err(Trouble::of_a_new_store)?;
    fill(&old, &new)?;
    // Both are closed before they change places.
    drop((old, new));
    sync_all(&copy)?;
    renameat_with(CWD, &copy, CWD, &folder, RenameFlags::EXCHANGE)
        .map_err(|errno| io_error("change places with", &folder)(errno.into()))?;
    sync(&aside)?;
    sync(state)?;
    let db = try_sled(&folder).map_err(Trouble::of_a_new_store)?;
    let meta = db.get(Meta::KEY).map_err(broken("read"))?.unwrap_or_default();
    let meta = Meta::read(&meta).map_err(|reason| layout::unreadable("meta", &reason))?;
    Ok(Found { db, meta, schema: SCHEMA })
}

fn fill(old: &Found, new: &sled::Db) -> Result<(), StoreError> {
    let mut meta = Meta { saves: old.meta.saves, ..Meta::default() };
    for entry in old.db.iter() {
        let (key, value) = entry.map_err(broken("read"))?;
        if key == Meta::KEY {
            continue;
        }
        let value = record::read(&value)
            .map_err(|reason| layout::unreadable(&String::from_utf8_lossy(&key), &reason))?
            .write();
        meta.sum.put_in(&key, &value);
        new.insert(&key, value).map_err(broken("write"))?;
    }
    new.insert(Meta::KEY, meta.write()).map_err(broken("write"))?;
    new.flush().map_err(broken("flush"))?;
    Ok(())
}
