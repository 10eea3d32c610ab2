//! Who may open a store: one process, the program that knows its schema, the build that knows its
//! backend.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

use gemini_batchd::engine::Change;
use gemini_batchd::store::backend::{Backend, FOLDERS};
use gemini_batchd::store::{CheckedStore, JobStore, StoreError};

use crate::damage::{edit, edit_and_sum, filled};
use crate::dice::{Dice, id};
use crate::{for_every_backend, open, open_whole};

/// Fault 18.
#[test]
fn the_second_owner_is_refused_and_the_first_one_undisturbed() {
    fn check<B: Backend>() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut first = open_whole::<B>(folder.path());
        match open::<B>(folder.path()) {
            Err(error @ StoreError::Locked { .. }) => {
                assert!(error.to_string().contains(&std::process::id().to_string()), "{error}");
            }
            other => panic!("{:?}", other.map(|opened| opened.quarantined)),
        }
        first.save(&[Change::Head(Box::new(Dice(1).head(id(1))))]).expect("saved");
    }
    for_every_backend!(check);
}

/// Fault 18, where the two were built with different backends.
#[cfg(feature = "redb")]
#[test]
fn an_owner_with_another_backend_is_refused_all_the_same() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let first = open_whole::<crate::Sled>(folder.path());
    let second = open::<crate::Redb>(folder.path());
    assert!(matches!(second, Err(StoreError::Locked { .. })));
    drop(first);
    let second = open::<crate::Redb>(folder.path());
    assert!(matches!(second, Err(StoreError::OtherBackend { .. })));
}

/// Fault 19.
#[test]
fn a_lock_left_by_a_dead_owner_locks_nothing() {
    fn check<B: Backend>() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let lock = File::create(folder.path().join("lock")).expect("created");
        lock.write_all_at(b"4194304\n", 0).expect("written");
        open_whole::<B>(folder.path());
    }
    for_every_backend!(check);
}

/// Fault 20.
#[test]
fn a_newer_schema_is_refused_and_left_as_it_is() {
    fn check<B: Backend>() {
        let (folder, model) = filled::<B>(65);
        let meta = edit::<B>(folder.path(), "meta", |text| text.replace("\"v\":1", "\"v\":2"));
        match open::<B>(folder.path()) {
            Err(StoreError::Newer { found: 2, known: 1, .. }) => {}
            other => panic!("{:?}", other.map(|opened| opened.quarantined)),
        }
        assert!(!folder.path().join("quarantine-1").exists());
        edit::<B>(folder.path(), "meta", |_| meta);
        model.check(&open_whole::<B>(folder.path()), "after the newer version came back");
    }
    for_every_backend!(check);
}

/// Fault 20.
#[test]
fn a_newer_witness_is_refused_before_the_store_is_touched() {
    fn check<B: Backend>() {
        let (folder, _) = filled::<B>(66);
        let witness = folder.path().join(format!("{}.saves", B::FOLDER));
        let file = OpenOptions::new().write(true).open(witness).expect("opened");
        file.write_all_at(b"schema 002", 0).expect("written");
        let refused = open::<B>(folder.path()).map(|opened| opened.quarantined);
        assert!(matches!(refused, Err(StoreError::Newer { found: 2, .. })), "{refused:?}");
        assert!(!folder.path().join("quarantine-1").exists());
    }
    for_every_backend!(check);
}

/// Fault 20, the other way round.
#[test]
fn an_older_schema_is_brought_up_in_a_copy_and_kept() {
    fn check<B: Backend>() {
        let (folder, mut model) = filled::<B>(69);
        edit::<B>(folder.path(), "meta", |text| text.replace("\"v\":1", "\"v\":0"));
        let mut store = open_whole::<B>(folder.path());
        model.check(&store, "brought up");
        store.set_note("and", "on").expect("saved");
        drop(store);
        model.notes.insert("and".into(), "on".into());
        model.check(&open_whole::<B>(folder.path()), "opened again");
        let old = B::open(&folder.path().join("migration-1").join(B::FOLDER)).expect("kept");
        let meta = old.get("meta").expect("read").expect("there");
        assert!(meta.as_ref().starts_with(b"{\"v\":0"), "the old one is as it was");
        assert!(!folder.path().join("migration-2").exists(), "once is enough");
    }
    for_every_backend!(check);
}

/// Jobs in a store that this build can not read are not taken for lost.
#[test]
fn a_spool_whose_jobs_lie_in_another_backend_is_refused_and_left_as_it_is() {
    fn check<B: Backend>() {
        let other = FOLDERS.into_iter().find(|folder| *folder != B::FOLDER).expect("another");
        for left in [other.to_owned(), format!("{other}.saves")] {
            let folder = tempfile::tempdir().expect("a temporary folder");
            File::create(folder.path().join(&left)).expect("created");
            let refused = CheckedStore::<B>::open(folder.path(), 1);
            let refused = refused.map(|opened| opened.quarantined);
            let Err(error @ StoreError::OtherBackend { .. }) = refused else {
                panic!("{left}: {refused:?}")
            };
            assert!(error.to_string().contains(other), "{error}");
            assert_eq!(names(folder.path()), [&left, "lock"].map(str::to_owned), "{left}");
        }
    }
    for_every_backend!(check);
}

/// What lies in a folder, in order.
fn names(folder: &Path) -> Vec<String> {
    let entries = folder.read_dir().expect("listed");
    let name = |entry: std::io::Result<std::fs::DirEntry>| {
        entry.expect("listed").file_name().to_string_lossy().into_owned()
    };
    let mut names: Vec<String> = entries.map(name).collect();
    names.sort();
    names
}

/// Fault 28. The record is as it was saved, so the store is whole; what it means is not known here.
#[test]
fn a_record_that_can_not_be_understood_stops_the_start_with_its_key() {
    fn check<B: Backend>() {
        let (folder, model) = filled::<B>(71);
        let key = format!("job/{}", model.jobs.keys().next().expect("a job"));
        for (what, from, to) in
            [("version", "\"v\":1", "\"v\":9"), ("field", "\"v\":1", "\"v\":1,\"w\":2")]
        {
            let old = edit_and_sum::<B>(folder.path(), &key, |text| text.replace(from, to));
            let store = open_whole::<B>(folder.path());
            let Err(StoreError::Unreadable { key: named, reason }) = store.load() else {
                panic!("{what}: it was passed over")
            };
            assert_eq!(named, key);
            assert!(
                reason.contains(if what == "version" { "version 9" } else { "`w`" }),
                "{reason}"
            );
            drop(store);
            edit_and_sum::<B>(folder.path(), &key, |_| old);
        }
        model.check(&open_whole::<B>(folder.path()), "as it was");
    }
    for_every_backend!(check);
}
