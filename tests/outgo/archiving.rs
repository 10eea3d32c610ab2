//! What remains of a job when it is over.

use std::collections::HashSet;
use std::fs;
use std::time::{Duration, UNIX_EPOCH};

use gemini_batchd::engine::ids::Millis;
use gemini_batchd::spool::archive::{
    Orphan, archive_input, orphans, remove_working, sweep_archive,
};

use crate::world::{World, id, lines, tree};

#[test]
fn an_input_goes_to_the_archive_once_and_never_over_another() {
    let world = World::new(&lines(1));
    let input = world.folder().input("a.jsonl");
    let content = fs::read(&input).unwrap();
    fs::create_dir(world.folders.archive.join("sub")).unwrap();
    fs::write(world.folders.archive.join("sub/a.jsonl"), "older").unwrap();
    archive_input(&world.folders, &world.job).unwrap();
    archive_input(&world.folders, &world.job).unwrap();
    let found = tree(&world.folders.archive);
    assert_eq!(found.len(), 2);
    assert_eq!(found["sub/a.jsonl"], b"older");
    assert_eq!(found["sub/a~2.jsonl"], content);
    assert!(!input.exists());
}

#[test]
fn an_input_that_a_power_cut_left_under_both_names_is_archived_once() {
    let world = World::new(&lines(1));
    let input = world.folder().input("a.jsonl");
    fs::create_dir(world.folders.archive.join("sub")).unwrap();
    fs::hard_link(&input, world.folders.archive.join("sub/a.jsonl")).unwrap();
    archive_input(&world.folders, &world.job).unwrap();
    assert_eq!(tree(&world.folders.archive).len(), 1);
    assert!(!input.exists());
}

#[test]
fn retention_counts_from_the_move_not_from_the_age_of_the_input() {
    let world = World::new(&lines(1));
    let input = fs::File::options().append(true).open(world.folder().input("a.jsonl")).unwrap();
    input.set_modified(UNIX_EPOCH + Duration::from_secs(1000)).unwrap();
    archive_input(&world.folders, &world.job).unwrap();
    let old = world.folders.archive.join("sub/old.jsonl");
    fs::File::create(&old).unwrap().set_modified(UNIX_EPOCH + Duration::from_secs(1000)).unwrap();
    assert_eq!(sweep_archive(&world.folders, Millis(1_000_000)).unwrap(), 0);
    assert_eq!(sweep_archive(&world.folders, Millis(1_000_001)).unwrap(), 1);
    assert!(!old.exists() && world.folders.archive.join("sub/a.jsonl").exists());
    // The emptied folders stay: somebody may be about to move a file there.
    assert_eq!(sweep_archive(&world.folders, Millis(u64::MAX)).unwrap(), 1);
    assert!(world.folders.archive.join("sub").exists());
}

#[test]
fn a_link_in_the_archive_is_neither_followed_nor_removed() {
    let world = World::new(&lines(1));
    let elsewhere = world.temp.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    fs::write(elsewhere.join("mine"), "").unwrap();
    std::os::unix::fs::symlink(&elsewhere, world.folders.archive.join("link")).unwrap();
    assert_eq!(sweep_archive(&world.folders, Millis(u64::MAX)).unwrap(), 0);
    assert!(elsewhere.join("mine").exists());
}

#[test]
fn a_working_folder_goes_only_when_its_input_has_gone() {
    let world = World::new(&lines(1));
    let error = remove_working(&world.folders, world.job.head.id).unwrap_err();
    assert!(error.to_string().contains("a.jsonl"), "{error}");
    archive_input(&world.folders, &world.job).unwrap();
    remove_working(&world.folders, world.job.head.id).unwrap();
    remove_working(&world.folders, world.job.head.id).unwrap();
    assert!(!world.folder().path.exists());
}

#[test]
fn a_working_folder_without_a_record_is_reported_with_its_input() {
    let world = World::new(&lines(1));
    fs::create_dir(world.folders.working.join(id('B').as_str())).unwrap();
    fs::create_dir(world.folders.working.join("lost+found")).unwrap();
    fs::create_dir(world.folders.working.join(id('C').as_str())).unwrap();
    let found = orphans(&world.folders, &HashSet::from([id('C')])).unwrap();
    let input = Some(world.folder().input("a.jsonl"));
    assert_eq!(found, [Orphan { id: id('A'), input }, Orphan { id: id('B'), input: None }]);
}
