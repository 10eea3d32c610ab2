//! A store that is not what was saved is never taken for one that is.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use gemini_batchd::engine::{Change, ChunkNo};
use gemini_batchd::store::{JobStore, NOTE_QUARANTINED, SledStore, StoreError};

use crate::contract::Model;
use crate::dice::{Dice, id};
use crate::{open, open_whole};

/// A state folder with a store in it, closed, and what the store holds.
fn filled(seed: u64) -> (tempfile::TempDir, Model) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut store = open_whole(folder.path());
    let mut dice = Dice(seed);
    let mut model = Model::default();
    for _ in 0..30 {
        let changes = model.draw(&mut dice, 8);
        store.save(&changes).expect("saved");
    }
    (folder, model)
}

fn data_file(state: &Path) -> PathBuf {
    state.join("jobs.sled/db")
}

/// Opens a store after `damage` was done to it: it must hold all it held, or be put aside.
fn whole_or_aside(state: &Path, model: &Model, damage: &str) -> bool {
    let opened = open(state).unwrap_or_else(|error| panic!("{damage}: {error}"));
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
    let mut aside = 0;
    for tenth in 0..10 {
        let (folder, model) = filled(20 + tenth);
        let path = data_file(folder.path());
        let length = path.metadata().expect("there").len();
        let file = OpenOptions::new().write(true).open(&path).expect("opened");
        let used = used_bytes(&path);
        let kept = used * tenth / 10;
        file.set_len(kept).expect("cut");
        let damage = format!("cut to {kept} of {length} bytes, {used} used");
        aside += u32::from(whole_or_aside(folder.path(), &model, &damage));
    }
    assert!(aside >= 9, "a cut within what is used loses something: {aside} of 10 seen");
}

/// Fault 26.
#[test]
fn flipped_bytes_are_harmless_or_seen() {
    let mut aside = 0;
    for seed in 0..crate::asked("GEMINI_BATCHD_STORE_FLIPS", 12) {
        let (folder, model) = filled(40 + seed);
        let path = data_file(folder.path());
        let used = used_bytes(&path);
        let file = OpenOptions::new().read(true).write(true).open(&path).expect("opened");
        let mut dice = Dice(seed);
        for _ in 0..3 {
            let at = dice.below(used);
            let mut byte = [0];
            file.read_exact_at(&mut byte, at).expect("read");
            file.write_all_at(&[byte[0] ^ (1 << dice.below(8))], at).expect("written");
        }
        aside += u32::from(whole_or_aside(folder.path(), &model, &format!("seed {seed}")));
    }
    assert!(aside > 0, "all flipped bits went unseen");
}

/// Bytes up to the last one that is not zero.
fn used_bytes(path: &Path) -> u64 {
    let content = std::fs::read(path).expect("read");
    content.iter().rposition(|byte| *byte != 0).expect("not empty") as u64 + 1
}

#[test]
fn a_store_that_is_gone_is_missed_until_somebody_makes_good_for_it() {
    let (folder, _) = filled(60);
    std::fs::remove_dir_all(folder.path().join("jobs.sled")).expect("removed");
    let first = open(folder.path()).expect("begins anew");
    let reported = first.quarantined.clone().expect("reported");
    drop(first);
    let mut second = open(folder.path()).expect("opens");
    assert_eq!(second.quarantined, Some(reported), "nothing was rebuilt yet");
    second.store.set_note(NOTE_QUARANTINED, "").expect("saved");
    drop(second);
    open_whole(folder.path());
}

#[test]
fn a_missing_or_garbled_configuration_of_sled_is_survived() {
    for content in [None, Some(&b""[..]), Some(b"segment_size: nonsense\nxxxx")] {
        let (folder, model) = filled(61);
        let path = folder.path().join("jobs.sled/conf");
        std::fs::remove_file(&path).expect("removed");
        if let Some(content) = content {
            File::create(&path).and_then(|file| file.write_all_at(content, 0)).expect("written");
        }
        whole_or_aside(folder.path(), &model, &format!("{content:?}"));
    }
}

#[test]
fn an_older_copy_put_back_is_not_taken_for_the_store() {
    let (folder, _) = filled(62);
    let copy = std::fs::read(data_file(folder.path())).expect("read");
    let mut store = open_whole(folder.path());
    store.save(&[Change::Head(Dice(1).head(id(99)))]).expect("saved");
    drop(store);
    for entry in folder.path().join("jobs.sled").read_dir().expect("listed") {
        let path = entry.expect("listed").path();
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("snap.")) {
            std::fs::remove_file(path).expect("removed");
        }
    }
    let file = File::create(data_file(folder.path())).expect("emptied");
    file.write_all_at(&copy, 0).expect("written");
    let reason = open(folder.path()).expect("opens").quarantined.expect("seen").reason;
    assert!(reason.contains("saves"), "{reason}");
}

/// Fault 15.
#[test]
fn a_panic_that_ended_the_process_while_opening_is_remembered() {
    let (folder, _) = filled(63);
    File::create(folder.path().join("jobs.sled/panicked")).expect("marked");
    let reason = open(folder.path()).expect("opens").quarantined.expect("put aside").reason;
    assert!(reason.contains("panicked"), "{reason}");
}

/// Fault 8.
#[test]
fn a_half_written_snapshot_is_set_aside() {
    let (folder, model) = filled(64);
    let half = folder.path().join("jobs.sled/snap.FFFFFFFFFFFFFFFF.generating");
    File::create(&half).and_then(|file| file.write_all_at(b"half", 0)).expect("written");
    let store = open_whole(folder.path());
    model.check(&store, "with a half-written snapshot");
    assert!(!half.exists());
}

/// Fault 20.
#[test]
fn a_newer_schema_is_refused_and_left_as_it_is() {
    let (folder, model) = filled(65);
    let meta = edit(folder.path(), "meta", |text| text.replace("\"v\":1", "\"v\":2"));
    match open(folder.path()) {
        Err(StoreError::Newer { found: 2, known: 1, .. }) => {}
        other => panic!("{other:?}"),
    }
    edit(folder.path(), "meta", |_| meta);
    model.check(&open_whole(folder.path()), "after the newer version came back");
}

#[test]
fn an_older_schema_is_brought_up_in_a_copy_and_kept() {
    let (folder, model) = filled(69);
    edit(folder.path(), "meta", |text| text.replace("\"v\":1", "\"v\":0"));
    let mut store = open_whole(folder.path());
    model.check(&store, "brought up");
    store.set_note("and", "on").expect("saved");
    drop(store);
    let mut model = model;
    model.notes.insert("and".into(), "on".into());
    model.check(&open_whole(folder.path()), "opened again");
    let old = sled::open(folder.path().join("migration-1/jobs.sled")).expect("kept");
    let meta = old.get("meta").expect("read").expect("there");
    assert!(meta.starts_with(b"{\"v\":0"), "the old one is as it was");
    assert!(!folder.path().join("migration-2").exists(), "once is enough");
}

/// Fault 20.
#[test]
fn a_newer_witness_is_refused_before_the_store_is_touched() {
    let (folder, _) = filled(66);
    let witness = folder.path().join("jobs.sled.saves");
    let file = OpenOptions::new().write(true).open(witness).expect("opened");
    file.write_all_at(b"schema 002", 0).expect("written");
    let refused = open(folder.path());
    assert!(matches!(refused, Err(StoreError::Newer { found: 2, .. })), "{refused:?}");
    assert!(!folder.path().join("quarantine-1").exists());
}

#[test]
fn a_record_changed_behind_our_back_puts_the_store_aside() {
    let (folder, model) = filled(67);
    let key = format!("job/{}", model.jobs.keys().next().expect("a job"));
    edit(folder.path(), &key, |text| text.replace("\"claimed\":", "\"claimed\":1"));
    let reason = open(folder.path()).expect("opens").quarantined.expect("seen").reason;
    assert!(reason.contains("add up"), "{reason}");
}

/// Changes one value with sled alone; returns what it was.
fn edit(state: &Path, key: &str, change: impl FnOnce(String) -> String) -> String {
    let db = sled::open(state.join("jobs.sled")).expect("opened");
    let old = db.get(key).expect("read").expect("there");
    let old = String::from_utf8(old.to_vec()).expect("JSON");
    let new = change(old.clone());
    assert_ne!(new, old);
    db.insert(key, new.as_bytes()).expect("written");
    db.flush().expect("flushed");
    old
}

#[test]
fn the_second_owner_is_refused_and_the_first_one_undisturbed() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut first = open_whole(folder.path());
    match open(folder.path()) {
        Err(error @ StoreError::Locked { .. }) => {
            assert!(error.to_string().contains(&std::process::id().to_string()), "{error}");
        }
        other => panic!("{other:?}"),
    }
    first.save(&[Change::Head(Dice(1).head(id(1)))]).expect("saved");
}

/// Faults 23 and 24.
#[test]
fn too_little_space_is_its_own_error_and_moves_nothing() {
    let (folder, model) = filled(68);
    let refused = SledStore::open(folder.path(), u64::MAX);
    assert!(matches!(refused, Err(StoreError::NoSpace { .. })), "{refused:?}");
    model.check(&open_whole(folder.path()), "after space was made");
}

/// Fault 25.
#[test]
fn a_folder_that_can_not_be_made_is_no_damage() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("file");
    File::create(&file).expect("created");
    let refused = open(&file.join("state"));
    assert!(matches!(refused, Err(StoreError::Io { .. })), "{refused:?}");
}

#[test]
fn many_chunks_in_one_save_come_back() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut store = open_whole(folder.path());
    let mut dice = Dice(70);
    let mut changes = vec![Change::Head(dice.head(id(1)))];
    changes.extend((1..=3_000).map(|no| Change::Chunk(id(1), dice.chunk(ChunkNo(no)))));
    store.save(&changes).expect("saved");
    drop(store);
    let loaded = open_whole(folder.path()).load().expect("read");
    assert_eq!(loaded[0].chunks.len(), 3_000);
}
