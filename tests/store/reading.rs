//! Jobs that are read in the same walk in which the store is checked: they are what it holds, and
//! nothing else is believed before the check has passed.

use std::path::Path;

use gemini_batchd::engine::Job;
use gemini_batchd::store::backend::Backend;
use gemini_batchd::store::{CheckedStore, JobStore, Opened, StoreError};

use crate::damage::{edit, edit_and_sum, filled};
use crate::for_every_backend;

fn open_and_read<B: Backend>(state: &Path) -> Result<(Opened<B>, Vec<Job>), StoreError> {
    CheckedStore::open_and_read(state, 1, Vec::push)
}

#[test]
fn jobs_read_while_the_store_is_opened_are_those_that_it_holds() {
    fn check<B: Backend>() {
        let (folder, model) = filled::<B>(81);
        let (opened, jobs) = open_and_read::<B>(folder.path()).expect("opened");
        assert_eq!(opened.quarantined, None);
        assert_eq!(jobs.len(), model.jobs.len());
        assert_eq!(jobs, opened.store.load().expect("read again"));
    }
    for_every_backend!(check);
}

/// Fault 20.
#[test]
fn jobs_of_an_older_schema_are_read_from_the_copy() {
    fn check<B: Backend>() {
        let (folder, model) = filled::<B>(82);
        edit::<B>(folder.path(), "meta", |text| text.replace("\"v\":1", "\"v\":0"));
        let (opened, jobs) = open_and_read::<B>(folder.path()).expect("opened");
        assert_eq!(jobs.len(), model.jobs.len());
        assert_eq!(jobs, opened.store.load().expect("read again"));
    }
    for_every_backend!(check);
}

/// Fault 20.
#[test]
fn a_newer_schema_is_refused_even_if_its_records_can_not_be_understood() {
    fn check<B: Backend>() {
        let (folder, model) = filled::<B>(83);
        let key = format!("job/{}", model.jobs.keys().next().expect("a job"));
        edit_and_sum::<B>(folder.path(), &key, |text| text.replace("\"v\":1", "\"v\":9"));
        edit::<B>(folder.path(), "meta", |text| text.replace("\"v\":1", "\"v\":2"));
        let refused = open_and_read::<B>(folder.path()).map(|(_, jobs)| jobs);
        assert!(matches!(refused, Err(StoreError::Newer { found: 2, .. })), "{refused:?}");
        assert!(!folder.path().join("quarantine-1").exists());
    }
    for_every_backend!(check);
}

/// Fault 26. One record is not as it was saved, whether it can still be understood or not.
#[test]
fn nothing_is_believed_of_a_store_that_does_not_add_up() {
    fn check<B: Backend>() {
        for to in ["\"v\": 1", "\"v\":9"] {
            let (folder, model) = filled::<B>(84);
            let key = format!("job/{}", model.jobs.keys().next().expect("a job"));
            edit::<B>(folder.path(), &key, |text| text.replace("\"v\":1", to));
            let (opened, jobs) = open_and_read::<B>(folder.path()).expect("opened");
            assert!(opened.quarantined.is_some(), "{to}");
            assert_eq!(jobs, [], "{to}");
        }
    }
    for_every_backend!(check);
}

/// Fault 28.
#[test]
fn a_record_that_can_not_be_understood_is_named_when_the_store_is_whole() {
    fn check<B: Backend>() {
        let (folder, model) = filled::<B>(85);
        let key = format!("job/{}", model.jobs.keys().next().expect("a job"));
        edit_and_sum::<B>(folder.path(), &key, |text| text.replace("\"v\":1", "\"v\":9"));
        match open_and_read::<B>(folder.path()) {
            Err(StoreError::Unreadable { key: named, .. }) => assert_eq!(named, key),
            other => panic!("{:?}", other.map(|(opened, _)| opened.quarantined)),
        }
        assert!(!folder.path().join("quarantine-1").exists());
    }
    for_every_backend!(check);
}
