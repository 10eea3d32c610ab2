//! Moves to `failed/` and `held/` and back, interrupted and repeated.

#![expect(clippy::disallowed_methods, reason = "tests drop and move files as people do")]

use super::*;
use crate::spool::claim::claim;

fn spool() -> (tempfile::TempDir, Folders) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let folders = Folders::below(folder.path());
    fs::create_dir_all(folders.inbox.join("sub")).expect("an inbox");
    (folder, folders)
}

fn job(n: u8) -> JobId {
    format!("01JD00000000000000000000{n:02}").parse().expect("an id")
}

fn refusal(message: &str) -> Refusal {
    Refusal {
        reason: "no_valid_line".to_owned(),
        message: message.to_owned(),
        remedy: "Mend it.".to_owned(),
        line: Some(3),
        column: Some(17),
    }
}

fn claimed(folders: &Folders, job: JobId, content: &str) -> Source {
    let source =
        Source { folder: "sub".to_owned(), name: "a.jsonl".to_owned(), bytes: 3, sidecar: None };
    fs::write(folders.inbox.join("sub/a.jsonl"), content).expect("written");
    assert_eq!(claim(folders, job, &source).expect("claimed"), Claimed::Now);
    source
}

fn listed(path: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(path)
        .expect("listed")
        .map(|entry| entry.expect("listed").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

#[test]
fn a_refused_input_lies_beside_its_note_and_a_second_one_gets_a_number() {
    let (_folder, folders) = spool();
    for (n, name) in [(1, "sub/a.jsonl"), (2, "sub/a~2.jsonl"), (3, "sub/a~3.jsonl")] {
        let source = claimed(&folders, job(n), &format!("{n}"));
        let got = move_aside(&folders, Aside::Failed, job(n), &source, &refusal("bad"));
        assert_eq!(got.expect("moved"), name);
        assert_eq!(fs::read_to_string(folders.failed.join(name)).expect("there"), n.to_string());
    }
    let note = fs::read(folders.failed.join("sub/a~2.jsonl.reason.json")).expect("there");
    let note: serde_json::Value = serde_json::from_slice(&note).expect("JSON");
    assert_eq!(
        note,
        serde_json::json!({
            "version": 1, "file": "a.jsonl", "reason": "no_valid_line", "message": "bad",
            "line": 3, "column": 17, "remedy": "Mend it.", "job": job(2).as_str(),
        })
    );
    assert_eq!(listed(&folders.failed.join("sub")).len(), 6);
}

#[test]
fn moving_aside_again_after_any_step_ends_in_the_same_place() {
    let (_folder, folders) = spool();
    let source = claimed(&folders, job(1), "x");
    let refusal = refusal("bad");
    fs::create_dir_all(folders.held.join("sub")).expect("a folder");
    fs::write(folders.held.join("sub/a.jsonl"), "of somebody else").expect("written");
    // Only the note was written before the crash.
    notice(&folders, job(1), &source, &refusal).expect("noted");
    for _ in 0..2 {
        let got = move_aside(&folders, Aside::Held, job(1), &source, &refusal);
        assert_eq!(got.expect("moved"), "sub/a~2.jsonl");
    }
    let expected = ["a.jsonl", "a~2.jsonl", "a~2.jsonl.reason.json"];
    assert_eq!(listed(&folders.held.join("sub")), expected);
}

#[test]
fn a_second_notice_for_the_same_job_replaces_the_first() {
    let (_folder, folders) = spool();
    let source = claimed(&folders, job(1), "x");
    notice(&folders, job(1), &source, &refusal("one")).expect("noted");
    notice(&folders, job(1), &source, &refusal("two")).expect("noted");
    assert_eq!(listed(&folders.held.join("sub")), ["a.jsonl.reason.json"]);
    let note = fs::read_to_string(folders.held.join("sub/a.jsonl.reason.json")).expect("there");
    assert!(note.contains("two"));
    assert!(folders.job(job(1)).input("a.jsonl").exists());
}

#[test]
fn a_note_is_found_though_those_before_it_are_gone() {
    let (_folder, folders) = spool();
    let source = claimed(&folders, job(1), "x");
    fs::create_dir_all(folders.held.join("sub")).expect("a folder");
    fs::write(folders.held.join("sub/a.jsonl"), "of somebody else").expect("written");
    notice(&folders, job(1), &source, &refusal("one")).expect("noted");
    fs::remove_file(folders.held.join("sub/a.jsonl")).expect("removed");
    assert_eq!(listed(&folders.held.join("sub")), ["a~2.jsonl.reason.json"]);
    withdraw_notice(&folders, job(1), &source).expect("withdrawn");
    assert!(listed(&folders.held.join("sub")).is_empty());
}

/// Fault 40.
#[test]
fn a_held_input_is_taken_back_whole_and_once() {
    let (_folder, folders) = spool();
    let source = claimed(&folders, job(1), "x");
    fs::create_dir_all(folders.held.join("sub")).expect("a folder");
    fs::write(folders.held.join("sub/a.jsonl"), "of somebody else").expect("written");
    move_aside(&folders, Aside::Held, job(1), &source, &refusal("bad")).expect("moved");
    assert_eq!(take_back(&folders, job(1), &source).expect("asked"), Claimed::Now);
    assert_eq!(take_back(&folders, job(1), &source).expect("asked"), Claimed::Already);
    assert_eq!(fs::read(folders.job(job(1)).input("a.jsonl")).expect("there"), b"x");
    assert_eq!(listed(&folders.held.join("sub")), ["a.jsonl"]);
    assert_eq!(take_back(&folders, job(2), &source).expect("asked"), Claimed::Vanished);
}

#[test]
fn links_fifos_folders_and_odd_names_are_moved_without_being_opened() {
    let (_folder, folders) = spool();
    let link = folders.inbox.join("sub/link.jsonl");
    std::os::unix::fs::symlink("/etc/passwd", &link).expect("a link");
    let fifo = folders.inbox.join("fifo.jsonl");
    let mode = rustix::fs::Mode::RUSR;
    let kind = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, kind, mode, 0).expect("a fifo");
    let odd = folders.inbox.join("a\nb.jsonl");
    fs::write(&odd, "x").expect("written");
    let tree = folders.inbox.join("tree.jsonl");
    fs::create_dir_all(tree.join("inside")).expect("a folder");
    let moved = |path: &Path| refuse_in_place(&folders, path, &refusal("no")).expect("refused");
    assert_eq!(moved(&link), RefusedEntry::Moved("sub/link.jsonl".to_owned()));
    assert_eq!(moved(&fifo), RefusedEntry::Moved("fifo.jsonl".to_owned()));
    assert_eq!(moved(&odd), RefusedEntry::Moved("a_b.jsonl".to_owned()));
    assert_eq!(moved(&tree), RefusedEntry::Moved("tree.jsonl".to_owned()));
    assert_eq!(moved(&link), RefusedEntry::Gone);
    assert!(folders.failed.join("sub/link.jsonl").symlink_metadata().expect("there").is_symlink());
    let note = fs::read_to_string(folders.failed.join("a_b.jsonl.reason.json")).expect("there");
    assert!(note.contains(r"a\\u{a}b.jsonl"), "{note}");
    assert_eq!(listed(&folders.inbox), ["sub"]);
}

#[test]
fn the_same_entry_dropped_again_gets_a_number_and_a_note_of_its_own() {
    let (_folder, folders) = spool();
    let link = folders.inbox.join("link.jsonl");
    for name in ["link.jsonl", "link~2.jsonl"] {
        std::os::unix::fs::symlink("/etc/passwd", &link).expect("a link");
        let moved = refuse_in_place(&folders, &link, &refusal("no")).expect("refused");
        assert_eq!(moved, RefusedEntry::Moved(name.to_owned()));
    }
    assert_eq!(listed(&folders.failed).len(), 4);
}

#[test]
fn nothing_outside_of_the_inbox_is_refused() {
    let (_folder, folders) = spool();
    for path in [folders.inbox.clone(), folders.working.join("x"), PathBuf::from("/etc/passwd")] {
        assert!(refuse_in_place(&folders, &path, &refusal("no")).is_err(), "{path:?}");
    }
    let path = folders.inbox.join("sub/../../working");
    assert!(!matches!(
        refuse_in_place(&folders, &path, &refusal("no")),
        Ok(RefusedEntry::Moved(_))
    ));
}

#[test]
fn settings_go_along_to_a_name_that_is_free_for_both_and_come_back() {
    let (_folder, folders) = spool();
    let source =
        Source { sidecar: Some("a.job.toml".to_owned()), ..claimed(&folders, job(1), "x") };
    let kept = folders.job(job(1)).sidecar("a.jsonl");
    fs::write(&kept, "attempts = 2").expect("written");
    fs::create_dir_all(folders.held.join("sub")).expect("a folder");
    fs::write(folders.held.join("sub/a.jsonl.job.toml"), "of somebody else").expect("written");
    let moved = || move_aside(&folders, Aside::Held, job(1), &source, &refusal("bad"));
    assert_eq!(moved().expect("moved"), "sub/a~2.jsonl");
    // Again after any step: the settings are moved first.
    fs::rename(folders.held.join("sub/a~2.jsonl"), folders.job(job(1)).input("a.jsonl"))
        .expect("not moved yet");
    assert_eq!(moved().expect("moved"), "sub/a~2.jsonl");
    let all = ["a.jsonl.job.toml", "a~2.jsonl", "a~2.jsonl.job.toml", "a~2.jsonl.reason.json"];
    assert_eq!(listed(&folders.held.join("sub")), all);
    // Back, and once more after a crash between the two.
    assert_eq!(take_back(&folders, job(1), &source).expect("asked"), Claimed::Now);
    assert_eq!(fs::read(&kept).expect("there"), b"attempts = 2");
    assert_eq!(listed(&folders.held.join("sub")), ["a.jsonl.job.toml"]);
    let place = Place::make(&folders, Aside::Held, "sub").expect("made");
    let note = Note::new("a.jsonl", Some(job(1)), &refusal("bad"));
    assert_eq!(place.note("a.jsonl", &note).expect("noted"), "a~2.jsonl");
    fs::rename(&kept, folders.held.join("sub/a~2.jsonl.job.toml")).expect("not moved yet");
    assert_eq!(take_back(&folders, job(1), &source).expect("asked"), Claimed::Already);
    assert_eq!(fs::read(&kept).expect("there"), b"attempts = 2");
    assert_eq!(listed(&folders.held.join("sub")), ["a.jsonl.job.toml"]);
}
