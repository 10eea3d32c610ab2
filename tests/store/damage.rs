//! A store that is not what was saved is never taken for one that is.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

use gemini_batchd::engine::{Change, ChunkNo};
use gemini_batchd::store::backend::Backend;
use gemini_batchd::store::record;
use gemini_batchd::store::{CheckedStore, JobStore, NOTE_QUARANTINED, StoreError};

use crate::contract::Model;
use crate::dice::{Dice, id};
use crate::{Sled, data_file, for_every_backend, open, open_whole};

/// A state folder with a store in it, closed, and what the store holds.
pub fn filled<B: Backend>(seed: u64) -> (tempfile::TempDir, Model) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut store = open_whole::<B>(folder.path());
    let mut dice = Dice(seed);
    let mut model = Model::default();
    for _ in 0..30 {
        let changes = model.draw(&mut dice, 8);
        store.save(&changes).expect("saved");
    }
    (folder, model)
}

/// Changes one value behind the store's back; returns what it was.
pub fn edit<B: Backend>(state: &Path, key: &str, change: impl FnOnce(String) -> String) -> String {
    let mut backend = B::open(&state.join(B::FOLDER)).expect("opened");
    let old = backend.get(key).expect("read").expect("there");
    let old = String::from_utf8(old.as_ref().to_vec()).expect("JSON");
    let new = change(old.clone());
    assert_ne!(new, old);
    backend.write(&[(key, Some(new.as_bytes()))]).expect("written");
    old
}

/// The same, and the sum over all records is put right, as if the store had saved it so.
pub fn edit_and_sum<B: Backend>(
    state: &Path,
    key: &str,
    change: impl FnOnce(String) -> String,
) -> String {
    use sha2::{Digest, Sha256};
    let digest = |value: &str| {
        let mut hash = Sha256::new();
        hash.update((key.len() as u64).to_le_bytes());
        hash.update(key);
        hash.update(value);
        u64::from_le_bytes(hash.finalize()[..8].try_into().expect("8 bytes"))
    };
    let mut new = String::new();
    let old = edit::<B>(state, key, |text| {
        new = change(text);
        new.clone()
    });
    edit::<B>(state, "meta", |meta| {
        let mut meta: serde_json::Value = serde_json::from_str(&meta).expect("JSON");
        let before = meta["digest"].as_str().expect("text");
        let before = u64::from_str_radix(before, 16).expect("hexadecimal");
        meta["digest"] = format!("{:016x}", before ^ digest(&old) ^ digest(&new)).into();
        meta.to_string()
    });
    old
}

/// Opens a store after `damage` was done to it: it must hold all it held, or be put aside.
fn whole_or_aside<B: Backend>(state: &Path, model: &Model, damage: &str) -> bool {
    let opened = open::<B>(state).unwrap_or_else(|error| panic!("{damage}: {error}"));
    let Some(quarantine) = opened.quarantined else {
        model.check(&opened.store, damage);
        return false;
    };
    assert_eq!(opened.store.load().expect("read"), [], "{damage}");
    assert!(quarantine.folder.is_dir(), "{damage}: {quarantine:?}");
    assert!(!quarantine.reason.is_empty(), "{damage}");
    true
}

/// Faults 11 and 26.
#[test]
fn a_store_cut_short_anywhere_is_whole_or_put_aside() {
    fn check<B: Backend>() {
        let mut aside = 0;
        for tenth in 0..10 {
            let (folder, model) = filled::<B>(20 + tenth);
            let path = data_file::<B>(folder.path());
            let length = path.metadata().expect("there").len();
            let file = OpenOptions::new().write(true).open(&path).expect("opened");
            let used = used_bytes(&path);
            let kept = used * tenth / 10;
            file.set_len(kept).expect("cut");
            let damage = format!("{} cut to {kept} of {length} bytes, {used} used", B::FOLDER);
            aside += u32::from(whole_or_aside::<B>(folder.path(), &model, &damage));
        }
        assert!(aside >= 9, "a cut within what is used loses something: {aside} of 10 seen");
    }
    for_every_backend!(check);
}

/// Fault 26.
#[test]
fn flipped_bytes_are_harmless_or_seen() {
    fn check<B: Backend>() {
        let (mut aside, stores) = (0, crate::asked("GEMINI_BATCHD_STORE_FLIPS", 12));
        for seed in 0..stores {
            let (folder, model) = filled::<B>(40 + seed);
            let path = data_file::<B>(folder.path());
            let used = used_bytes(&path);
            let file = OpenOptions::new().read(true).write(true).open(&path).expect("opened");
            let mut dice = Dice(seed);
            // A backend may leave much of its file unused.
            for _ in 0..1 + dice.below(24) {
                let at = dice.below(used);
                let mut byte = [0];
                file.read_exact_at(&mut byte, at).expect("read");
                file.write_all_at(&[byte[0] ^ (1 << dice.below(8))], at).expect("written");
            }
            let damage = format!("{} with seed {seed}", B::FOLDER);
            aside += u32::from(whole_or_aside::<B>(folder.path(), &model, &damage));
        }
        assert!(aside > 0, "all flipped bits went unseen");
    }
    for_every_backend!(check);
}

/// Bytes up to the last one that is not zero.
fn used_bytes(path: &Path) -> u64 {
    let content = std::fs::read(path).expect("read");
    content.iter().rposition(|byte| *byte != 0).expect("not empty") as u64 + 1
}

/// Fault 26.
#[test]
fn a_store_that_is_gone_is_missed_until_somebody_makes_good_for_it() {
    fn check<B: Backend>() {
        let (folder, _) = filled::<B>(60);
        std::fs::remove_dir_all(folder.path().join(B::FOLDER)).expect("removed");
        let first = open::<B>(folder.path()).expect("begins anew");
        let reported = first.quarantined.clone().expect("reported");
        drop(first);
        let mut second = open::<B>(folder.path()).expect("opens");
        assert_eq!(second.quarantined, Some(reported), "nothing was rebuilt yet");
        second.store.set_note(NOTE_QUARANTINED, "").expect("saved");
        drop(second);
        open_whole::<B>(folder.path());
    }
    for_every_backend!(check);
}

/// Fault 26.
#[test]
fn a_missing_or_garbled_configuration_of_sled_is_survived() {
    for content in [None, Some(&b""[..]), Some(b"segment_size: nonsense\nxxxx")] {
        let (folder, model) = filled::<Sled>(61);
        let path = folder.path().join("jobs.sled/conf");
        std::fs::remove_file(&path).expect("removed");
        if let Some(content) = content {
            File::create(&path).and_then(|file| file.write_all_at(content, 0)).expect("written");
        }
        whole_or_aside::<Sled>(folder.path(), &model, &format!("{content:?}"));
    }
}

/// Fault 26.
#[test]
fn an_older_copy_put_back_is_not_taken_for_the_store() {
    fn check<B: Backend>() {
        let (folder, _) = filled::<B>(62);
        let copy = std::fs::read(data_file::<B>(folder.path())).expect("read");
        let mut store = open_whole::<B>(folder.path());
        store.save(&[Change::Head(Box::new(Dice(1).head(id(99))))]).expect("saved");
        drop(store);
        for entry in folder.path().join(B::FOLDER).read_dir().expect("listed") {
            let path = entry.expect("listed").path();
            if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("snap.")) {
                std::fs::remove_file(path).expect("removed");
            }
        }
        let file = File::create(data_file::<B>(folder.path())).expect("emptied");
        file.write_all_at(&copy, 0).expect("written");
        let reason = open::<B>(folder.path()).expect("opens").quarantined.expect("seen").reason;
        assert!(reason.contains("saves"), "{reason}");
    }
    for_every_backend!(check);
}

/// Fault 15.
#[test]
fn a_panic_that_ended_the_process_while_opening_is_remembered() {
    fn check<B: Backend>() {
        let (folder, _) = filled::<B>(63);
        File::create(folder.path().join(B::FOLDER).join("panicked")).expect("marked");
        let aside = open::<B>(folder.path()).expect("opens").quarantined.expect("put aside");
        assert!(aside.reason.contains("panicked"), "{}", aside.reason);
    }
    for_every_backend!(check);
}

/// Fault 8.
#[test]
fn a_half_written_snapshot_is_set_aside() {
    let (folder, model) = filled::<Sled>(64);
    let half = folder.path().join("jobs.sled/snap.FFFFFFFFFFFFFFFF.generating");
    File::create(&half).and_then(|file| file.write_all_at(b"half", 0)).expect("written");
    let store = open_whole::<Sled>(folder.path());
    model.check(&store, "with a half-written snapshot");
    assert!(!half.exists());
    assert!(folder.path().join("jobs.sled/half-written-snapshot").exists(), "kept to look at");
}

/// Fault 26.
#[test]
fn a_record_changed_behind_our_back_puts_the_store_aside() {
    fn check<B: Backend>() {
        let (folder, model) = filled::<B>(67);
        let key = format!("job/{}", model.jobs.keys().next().expect("a job"));
        edit::<B>(folder.path(), &key, |text| text.replace("\"claimed\":", "\"claimed\":1"));
        let reason = open::<B>(folder.path()).expect("opens").quarantined.expect("seen").reason;
        assert!(reason.contains("add up"), "{reason}");
    }
    for_every_backend!(check);
}

/// Faults 23 and 24.
#[test]
fn too_little_space_is_its_own_error_and_moves_nothing() {
    fn check<B: Backend>() {
        let (folder, model) = filled::<B>(68);
        let refused = CheckedStore::<B>::open(folder.path(), u64::MAX);
        let refused = refused.map(|opened| opened.quarantined);
        assert!(matches!(refused, Err(StoreError::NoSpace { .. })), "{refused:?}");
        model.check(&open_whole::<B>(folder.path()), "after space was made");
    }
    for_every_backend!(check);
}

#[test]
fn what_is_saved_as_it_is_already_is_not_written_again() {
    fn check<B: Backend>() {
        let (folder, _) = filled::<B>(69);
        let count = folder.path().join(format!("{}.saves", B::FOLDER));
        let mut store = open_whole::<B>(folder.path());
        let before = std::fs::read(&count).expect("a count");
        let mut head = store.load().expect("jobs").swap_remove(0).head;
        store.save(&[Change::Head(Box::new(head.clone()))]).expect("saved");
        assert_eq!(std::fs::read(&count).expect("a count"), before);
        head.claimed.0 ^= 1;
        store.save(&[Change::Head(Box::new(head))]).expect("saved");
        assert_ne!(std::fs::read(&count).expect("a count"), before);
    }
    for_every_backend!(check);
}

#[test]
fn what_is_kept_free_is_more_than_the_largest_records_take() {
    fn check<B: Backend>() {
        let (room, record) = (CheckedStore::<B>::FREE_BYTES_MIN, record::BYTES_MAX as u64);
        assert!(room >= 32 * record, "{room} bytes");
    }
    for_every_backend!(check);
}

/// Fault 25.
#[test]
fn a_folder_that_can_not_be_made_is_no_damage() {
    fn check<B: Backend>() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("file");
        File::create(&file).expect("created");
        let refused = open::<B>(&file.join("state")).map(|opened| opened.quarantined);
        assert!(matches!(refused, Err(StoreError::Io { .. })), "{refused:?}");
    }
    for_every_backend!(check);
}

#[test]
fn many_chunks_in_one_save_come_back() {
    fn check<B: Backend>() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut store = open_whole::<B>(folder.path());
        let mut dice = Dice(70);
        let mut changes = vec![Change::Head(Box::new(dice.head(id(1))))];
        changes
            .extend((1..=3_000).map(|no| Change::Chunk(id(1), Box::new(dice.chunk(ChunkNo(no))))));
        store.save(&changes).expect("saved");
        drop(store);
        let loaded = open_whole::<B>(folder.path()).load().expect("read");
        assert_eq!(loaded[0].chunks.len(), 3_000);
    }
    for_every_backend!(check);
}
