//! Deliveries, interrupted and disputed.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use gemini_batchd::engine::job::{Delivery, Head, Source, Tally};
use gemini_batchd::spool::manifest::manifest;
use gemini_batchd::spool::outbox::{DeliverOutcome, deliver, free_stem};

use crate::world::{World, answer, error, id, lines, tree};

/// A job merged and ready: one line answered, one failed.
fn merged() -> (World, Delivery, Vec<u8>) {
    let world = World::new(&lines(2));
    let tally = collected(&world);
    let delivery = world.delivery(tally, "a");
    let manifest = manifest(&world.job, &delivery, "0.1.0");
    (world, delivery, manifest)
}

fn collected(world: &World) -> Tally {
    world.download(1, [answer(1), error(2, 3)].concat());
    world.collect(1).unwrap();
    world.merge()
}

fn done(world: &World, delivery: &Delivery, manifest: &[u8]) {
    let outcome = deliver(&world.folders, &world.job, delivery, manifest).unwrap();
    assert_eq!(outcome, DeliverOutcome::Done);
}

fn taken(world: &World, delivery: &Delivery, manifest: &[u8]) {
    let outcome = deliver(&world.folders, &world.job, delivery, manifest).unwrap();
    assert_eq!(outcome, DeliverOutcome::NameTaken);
}

fn outbox(world: &World) -> BTreeMap<String, Vec<u8>> {
    tree(&world.folders.outbox)
}

fn at(world: &World, name: &str) -> PathBuf {
    world.folders.outbox.join("sub").join(name)
}

fn source(name: &str) -> Source {
    Source { folder: "sub".to_owned(), name: name.to_owned(), bytes: 0, sidecar: None }
}

#[test]
fn all_outputs_arrive_for_the_group_and_nothing_else_is_left() {
    let (world, delivery, manifest) = merged();
    let (results, errors) = (world.results(), world.errors());
    done(&world, &delivery, &manifest);
    let found = outbox(&world);
    let names: Vec<_> = found.keys().map(String::as_str).collect();
    assert_eq!(names, ["sub/a.errors.jsonl", "sub/a.manifest.json", "sub/a.results.jsonl"]);
    assert_eq!(found["sub/a.results.jsonl"], results.as_bytes());
    assert_eq!(found["sub/a.errors.jsonl"], errors.as_bytes());
    assert_eq!(found["sub/a.manifest.json"], manifest);
    for name in ["a.results.jsonl", "a.errors.jsonl", "a.manifest.json"] {
        let mode = fs::metadata(at(&world, name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o640, "{name}");
    }
}

/// Fault 6.
#[test]
fn a_delivery_goes_on_after_each_step_it_may_have_died_at() {
    let (reference, delivery, bytes) = merged();
    done(&reference, &delivery, &bytes);
    let expected = outbox(&reference);
    for step in 0..6 {
        let (world, delivery, manifest) = merged();
        let folder = world.folders.outbox.join("sub");
        fs::create_dir(&folder).unwrap();
        let claim = folder.join(".a.manifest.json.aside");
        let own = folder.join(format!(".{}.manifest.aside", world.job.head.id));
        // What each step leaves behind.
        let torn = &manifest[..manifest.len() / 2];
        match step {
            0 => fs::write(&own, torn).unwrap(),
            _ => fs::write(&claim, &manifest).unwrap(),
        }
        if step >= 2 {
            fs::rename(world.folder().merged_results(), at(&world, "a.results.jsonl")).unwrap();
        }
        if step >= 3 {
            fs::rename(world.folder().merged_errors(), at(&world, "a.errors.jsonl")).unwrap();
        }
        if step >= 4 {
            fs::rename(&claim, at(&world, "a.manifest.json")).unwrap();
        }
        if step >= 5 {
            done(&world, &delivery, &manifest);
        }
        done(&world, &delivery, &manifest);
        let found = outbox(&world);
        assert_eq!(found, expected, "step {step}");
    }
}

#[test]
fn a_copy_that_was_interrupted_before_its_source_went_away_is_ours() {
    let (world, delivery, manifest) = merged();
    fs::create_dir(world.folders.outbox.join("sub")).unwrap();
    fs::write(at(&world, ".a.manifest.json.aside"), &manifest).unwrap();
    fs::copy(world.folder().merged_results(), at(&world, "a.results.jsonl")).unwrap();
    done(&world, &delivery, &manifest);
    assert!(!world.folder().merged_results().exists());
}

#[test]
fn a_power_cut_may_keep_any_of_the_names_given() {
    let (reference, delivery, bytes) = merged();
    done(&reference, &delivery, &bytes);
    let expected = outbox(&reference);
    let names = ["a.results.jsonl", "a.errors.jsonl"];
    // Of each file, the disk may know the new name, or the old one too; the claim may be lost.
    for kept in 0..16 {
        let (world, delivery, manifest) = merged();
        fs::create_dir(world.folders.outbox.join("sub")).unwrap();
        let sources = [world.folder().merged_results(), world.folder().merged_errors()];
        for (bit, (source, name)) in [1, 4].into_iter().zip(sources.iter().zip(names)) {
            if kept & bit > 0 {
                fs::hard_link(source, at(&world, name)).unwrap();
            }
            if kept & bit > 0 && kept & (bit << 1) > 0 {
                fs::remove_file(source).unwrap();
            }
        }
        done(&world, &delivery, &manifest);
        assert_eq!(outbox(&world), expected, "{kept:b}");
        assert!(sources.iter().all(|source| !source.exists()), "{kept:b}");
    }
}

#[test]
fn a_manifest_of_this_job_means_done_even_from_another_version() {
    let (world, delivery, bytes) = merged();
    done(&world, &delivery, &bytes);
    let before = outbox(&world);
    done(&world, &delivery, &manifest(&world.job, &delivery, "0.2.0"));
    assert_eq!(outbox(&world), before);
}

#[test]
fn files_taken_away_right_after_the_manifest_appeared_were_delivered() {
    let (world, delivery, manifest) = merged();
    done(&world, &delivery, &manifest);
    let folder = world.folders.outbox.join("sub");
    fs::read_dir(&folder)
        .unwrap()
        .for_each(|entry| fs::remove_file(entry.unwrap().path()).unwrap());
    done(&world, &delivery, &manifest);
    assert!(outbox(&world).is_empty());
    // But another folder in its place is a disk that is not mounted.
    fs::rename(&folder, world.folders.outbox.join("moved")).unwrap();
    assert!(deliver(&world.folders, &world.job, &delivery, &manifest).is_err());
}

/// Fault 33.
#[test]
fn a_name_taken_by_somebody_is_never_overwritten_and_nothing_is_left_behind() {
    for name in ["a.results.jsonl", "a.errors.jsonl", "a.manifest.json"] {
        let (world, delivery, manifest) = merged();
        let working = tree(&world.folder().path);
        fs::create_dir(world.folders.outbox.join("sub")).unwrap();
        fs::write(at(&world, name), "theirs").unwrap();
        taken(&world, &delivery, &manifest);
        assert_eq!(outbox(&world), BTreeMap::from([(format!("sub/{name}"), b"theirs".to_vec())]));
        assert_eq!(tree(&world.folder().path), working);
        let stem = free_stem(&world.folders, &world.job.head).unwrap();
        assert_eq!(stem, "a~2");
        done(&world, &Delivery { stem, ..delivery }, &manifest);
        assert_eq!(outbox(&world).len(), 4);
    }
}

#[test]
fn a_name_taken_half_way_brings_everything_back() {
    for name in ["a.errors.jsonl", "a.manifest.json"] {
        let (world, delivery, manifest) = merged();
        let out = tree(&world.folder().path.join("out"));
        fs::create_dir(world.folders.outbox.join("sub")).unwrap();
        fs::write(at(&world, ".a.manifest.json.aside"), &manifest).unwrap();
        fs::rename(world.folder().merged_results(), at(&world, "a.results.jsonl")).unwrap();
        fs::write(at(&world, name), "theirs").unwrap();
        taken(&world, &delivery, &manifest);
        assert_eq!(outbox(&world), BTreeMap::from([(format!("sub/{name}"), b"theirs".to_vec())]));
        assert_eq!(tree(&world.folder().path.join("out")), out);
    }
}

#[test]
fn two_jobs_with_equal_outputs_never_share_a_stem() {
    let (first, delivery, manifest_a) = merged();
    let World { temp, folders, .. } = first;
    let second = World::within(temp, folders, id('B'), &lines(2));
    let tally = collected(&second);
    let first_job = {
        let mut job = second.job.clone();
        job.head.id = id('A');
        job
    };
    let manifest_b = manifest(&second.job, &second.delivery(tally, "a"), "0.1.0");
    assert_eq!(
        deliver(&second.folders, &first_job, &delivery, &manifest_a).unwrap(),
        DeliverOutcome::Done
    );
    let before = outbox(&second);
    taken(&second, &delivery, &manifest_b);
    // Even with the claim of a race that it lost.
    fs::write(at(&second, ".a.manifest.json.aside"), &manifest_b).unwrap();
    taken(&second, &delivery, &manifest_b);
    assert_eq!(outbox(&second), before);
    assert!(second.folder().merged_results().exists());
}

/// The head of the world's job, had its input another name.
fn named(world: &World, name: &str) -> Head {
    Head { source: source(name), ..world.job.head.clone() }
}

#[test]
fn a_stem_claimed_by_a_delivery_under_way_is_not_free() {
    let (world, _, manifest) = merged();
    fs::create_dir(world.folders.outbox.join("sub")).unwrap();
    fs::write(at(&world, ".a.manifest.json.aside"), manifest).unwrap();
    assert_eq!(free_stem(&world.folders, &named(&world, "a.ndjson")).unwrap(), "a~2");
}

#[test]
fn stems_count_up_and_fit_into_a_file_name() {
    let (world, delivery, bytes) = merged();
    assert_eq!(free_stem(&world.folders, &named(&world, "a.jsonl.gz")).unwrap(), "a");
    fs::create_dir(world.folders.outbox.join("sub")).unwrap();
    fs::write(at(&world, "a.errors.jsonl"), "").unwrap();
    fs::write(at(&world, "a~2.manifest.json"), "").unwrap();
    assert_eq!(free_stem(&world.folders, &named(&world, "a.json")).unwrap(), "a~3");
    let stem =
        free_stem(&world.folders, &named(&world, &format!("{}.jsonl", "é".repeat(124)))).unwrap();
    done(&world, &Delivery { stem, ..delivery }, &bytes);
    let mut outside = named(&world, "a.jsonl");
    outside.source.folder = "../..".to_owned();
    assert!(free_stem(&world.folders, &outside).is_err());
}

/// Fault 30.
#[test]
fn an_outbox_that_is_not_there_is_an_error_and_not_made() {
    let (world, delivery, manifest) = merged();
    fs::remove_dir(&world.folders.outbox).unwrap();
    assert!(deliver(&world.folders, &world.job, &delivery, &manifest).is_err());
    assert!(!world.folders.outbox.exists());
    fs::create_dir(&world.folders.outbox).unwrap();
    done(&world, &delivery, &manifest);
}

#[test]
fn outputs_in_neither_place_are_an_error() {
    let (world, delivery, manifest) = merged();
    fs::remove_file(world.folder().merged_results()).unwrap();
    let error = deliver(&world.folders, &world.job, &delivery, &manifest).unwrap_err();
    assert!(error.to_string().contains("neither"), "{error}");
}

/// Fault 30.
#[test]
fn an_outbox_on_another_file_system_gets_the_same_files() {
    // Only where the machine has a second file system to write to.
    let Ok(other) = tempfile::tempdir_in("/dev/shm") else {
        return;
    };
    let (mut world, delivery, manifest) = merged();
    let (results, errors) = (world.results(), world.errors());
    world.folders.outbox = other.path().to_owned();
    done(&world, &delivery, &manifest);
    let found = outbox(&world);
    assert_eq!(found.len(), 3);
    assert_eq!(found["sub/a.results.jsonl"], results.as_bytes());
    assert_eq!(found["sub/a.errors.jsonl"], errors.as_bytes());
    assert!(!world.folder().merged_results().exists());
}

/// Fault 30.
#[test]
fn a_delivery_to_another_file_system_goes_on_after_any_of_its_moves() {
    let Ok(other) = tempfile::tempdir_in("/dev/shm") else {
        return;
    };
    for moved in 1..=2 {
        let (mut world, delivery, manifest) = merged();
        let outbox = other.path().join(moved.to_string());
        fs::create_dir_all(outbox.join("sub")).unwrap();
        world.folders.outbox = outbox;
        let (results, errors) = (world.results(), world.errors());
        // What a process did that was killed then.
        fs::write(world.folders.outbox.join("sub/.a.manifest.json.aside"), &manifest).unwrap();
        let moves = [
            (world.folder().merged_results(), "sub/a.results.jsonl"),
            (world.folder().merged_errors(), "sub/a.errors.jsonl"),
        ];
        for (source, target) in &moves[..moved] {
            fs::copy(source, world.folders.outbox.join(target)).unwrap();
            fs::remove_file(source).unwrap();
        }
        done(&world, &delivery, &manifest);
        let found = self::outbox(&world);
        assert_eq!(found.len(), 3, "{found:?}");
        assert_eq!(found["sub/a.results.jsonl"], results.as_bytes());
        assert_eq!(found["sub/a.errors.jsonl"], errors.as_bytes());
    }
}
