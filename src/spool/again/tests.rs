//! Failed lines and refused inputs on their way back into the inbox.

#![expect(clippy::disallowed_methods, reason = "tests write files as people do")]

use super::*;
use crate::engine::ids::Millis;
use crate::engine::job::{JobState, Plan, Queue, Refusal, Tally};
use crate::spool::aside::{Aside, move_aside};

struct World {
    _folder: tempfile::TempDir,
    folders: Folders,
    head: Head,
    delivery: Delivery,
}

impl World {
    /// A job whose input had this name, delivered as `out` with one failed line.
    fn new(name: &str, sidecar: Option<&str>) -> World {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let folders = Folders::below(folder.path());
        let id: JobId = "01JD0000000000000000000000".parse().expect("an id");
        let source = Source {
            folder: "sub".to_owned(),
            name: name.to_owned(),
            bytes: 4,
            sidecar: sidecar.map(str::to_owned),
        };
        let plan = Plan { bytes: 4, sha256: sha256_of(b"one\n"), ..Plan::default() };
        let tally = Tally { answered: 1, failed: 1, ..Tally::default() };
        let delivery = Delivery { plan, tally, stem: "out".to_owned(), delivered: Millis(1) };
        let head = Head {
            id,
            source,
            queue: Queue::default(),
            claimed: Millis(0),
            released: false,
            on_hold: false,
            key_print: None,
            funds: None,
            state: JobState::Done(delivery.clone()),
        };
        let world = World { _folder: folder, folders, head, delivery };
        world.write("outbox/sub/out.errors.jsonl", ERRORS);
        world.write("outbox/sub/out.manifest.json", &format!("{{\"job\":\"{id}\"}}"));
        fs::create_dir_all(&world.folders.inbox).expect("made");
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self._folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs::write(path, text).expect("written");
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).expect("read")
    }

    fn inbox(&self) -> Vec<String> {
        let entries = fs::read_dir(self.path("inbox/sub")).into_iter().flatten().flatten();
        let mut names: Vec<String> =
            entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    fn lines_again(&self) -> Again {
        drop_failed_lines(&self.folders, &self.head, &self.delivery).expect("the disk works")
    }

    fn input_again(&self) -> Again {
        drop_refused_input(&self.folders, self.head.id, &self.head.source).expect("the disk works")
    }

    /// The input is refused, with its settings if it has any.
    fn refuse(&self) {
        let working = self.folders.job(self.head.id);
        let input = working.input(&self.head.source.name);
        fs::create_dir_all(input.parent().expect("a folder")).expect("made");
        fs::write(&input, "one\n").expect("written");
        if self.head.source.sidecar.is_some() {
            fs::write(working.sidecar(&self.head.source.name), SETTINGS).expect("written");
        }
        let refusal = Refusal {
            reason: "no_valid_line".to_owned(),
            message: "m".to_owned(),
            remedy: "r".to_owned(),
            line: None,
            column: None,
        };
        let (id, source) = (self.head.id, &self.head.source);
        move_aside(&self.folders, Aside::Failed, id, source, &refusal).expect("moved");
    }
}

fn sha256_of(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn dropped(name: &str) -> Again {
    Again::Dropped(name.to_owned())
}

const ERRORS: &str = "{\"key\":1,\"error\":{},\"line\":1,\"request\":{}}\n";
const SETTINGS: &str = "attempts = 1\n";

#[test]
fn failed_lines_are_copied_under_a_free_name_and_the_outbox_stays_as_it_is() {
    for (name, again) in [
        ("a.jsonl", "a~retry"),
        ("a.csv.gz", "a~retry"),
        ("a~retry.jsonl", "a~retry"),
        ("a~retry~7.jsonl", "a~retry"),
    ] {
        let world = World::new(name, None);
        assert_eq!(world.lines_again(), dropped(&format!("sub/{again}.jsonl")));
        assert_eq!(world.lines_again(), dropped(&format!("sub/{again}~2.jsonl")));
        assert_eq!(world.inbox(), [format!("{again}.jsonl"), format!("{again}~2.jsonl")]);
        assert_eq!(world.read(&format!("inbox/sub/{again}.jsonl")), ERRORS);
        assert_eq!(world.read("outbox/sub/out.errors.jsonl"), ERRORS);
    }
}

#[test]
fn a_name_of_any_length_has_room_for_the_mark() {
    let name = format!("{}.jsonl", "é".repeat(97));
    let world = World::new(&name, None);
    for _ in 0..3 {
        let Again::Dropped(name) = world.lines_again() else { panic!("it can be done") };
        let name = name.strip_prefix("sub/").expect("in its folder");
        assert!(source::check_name(name.as_ref()).is_ok() && name.contains("~retry"), "{name}");
    }
}

#[test]
fn failed_lines_of_somebody_else_are_left_alone() {
    let world = World::new("a.jsonl", None);
    world.write("outbox/sub/out.manifest.json", "{\"job\":\"01JD0000000000000000000001\"}");
    assert!(matches!(world.lines_again(), Again::Impossible(why) if why.contains("manifest")));
    fs::remove_file(world.path("outbox/sub/out.errors.jsonl")).expect("removed");
    assert!(matches!(world.lines_again(), Again::Impossible(why) if why.contains("errors.jsonl")));
    assert_eq!(world.inbox(), [""; 0]);
}

#[test]
fn settings_from_the_archive_go_with_failed_lines_and_come_before_them() {
    let world = World::new("a.jsonl", Some("a.job.toml"));
    // Of another job of this name.
    world.write("archive/sub/a.jsonl", "two\n");
    world.write("archive/sub/a.jsonl.job.toml", "attempts = 9\n");
    assert!(matches!(world.lines_again(), Again::Impossible(why) if why.contains("settings")));
    assert_eq!(world.inbox(), [""; 0]);
    world.write("archive/sub/a~2.jsonl", "one\n");
    world.write("archive/sub/a~2.jsonl.job.toml", SETTINGS);
    // A try was interrupted when only the settings were there.
    world.write("inbox/sub/a~retry.jsonl.job.toml", SETTINGS);
    assert_eq!(world.lines_again(), dropped("sub/a~retry.jsonl"));
    assert_eq!(world.read("inbox/sub/a~retry.jsonl.job.toml"), SETTINGS);
    assert_eq!(world.inbox(), ["a~retry.jsonl", "a~retry.jsonl.job.toml"]);
}

#[test]
fn settings_that_wait_for_another_file_are_not_given_to_failed_lines() {
    for beside in ["a~retry.jsonl.job.toml", "a~retry.job.toml"] {
        let world = World::new("a.jsonl", None);
        world.write(&format!("inbox/sub/{beside}"), SETTINGS);
        assert_eq!(world.lines_again(), dropped("sub/a~retry~2.jsonl"));
    }
}

#[test]
fn a_refused_input_goes_back_with_its_settings_and_its_note_goes() {
    for sidecar in [None, Some("a.job.toml")] {
        let world = World::new("a.jsonl", sidecar);
        world.refuse();
        assert!(world.path("failed/sub/a.jsonl.reason.json").exists());
        assert_eq!(world.input_again(), dropped("sub/a.jsonl"));
        assert_eq!(world.read("inbox/sub/a.jsonl"), "one\n");
        assert_eq!(world.path("inbox/sub/a.jsonl.job.toml").exists(), sidecar.is_some());
        assert_eq!(fs::read_dir(world.path("failed/sub")).expect("listed").count(), 0);
        assert!(matches!(world.input_again(), Again::Impossible(_)), "it is not there any more");
    }
}

#[test]
fn a_refused_input_takes_another_name_if_its_own_is_taken() {
    let world = World::new("a.jsonl", None);
    world.refuse();
    world.write("inbox/sub/a.jsonl", "another\n");
    assert_eq!(world.input_again(), dropped("sub/a~2.jsonl"));
    assert_eq!(world.read("inbox/sub/a.jsonl"), "another\n");
}

#[test]
fn a_refused_input_without_the_settings_it_had_is_left_where_it_is() {
    let world = World::new("a.jsonl", Some("a.job.toml"));
    world.refuse();
    fs::remove_file(world.path("failed/sub/a.jsonl.job.toml")).expect("removed");
    assert!(matches!(world.input_again(), Again::Impossible(why) if why.contains("settings")));
    assert!(world.path("failed/sub/a.jsonl").exists());
    assert_eq!(world.inbox(), [""; 0]);
}
