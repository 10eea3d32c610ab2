//! Tests of the module above.

#![expect(clippy::disallowed_methods, reason = "tests make files as people do")]

use std::os::unix::fs::symlink as link;

use super::*;

struct World {
    temp: tempfile::TempDir,
    taker: Taker,
}

impl World {
    fn new(root: bool) -> World {
        let temp = tempfile::tempdir().expect("a temporary folder");
        let (inbox, shared) = (temp.path().join("inbox/a"), temp.path().join("shared"));
        for folder in [&inbox, &shared, &inbox.join("pictures")] {
            fs::create_dir_all(folder).expect("made");
        }
        fs::write(inbox.join("pictures/cat.png"), "a cat").expect("written");
        fs::write(temp.path().join("inbox/dog.png"), "a dog").expect("written");
        fs::write(shared.join("far.jpg"), "far away").expect("written");
        let folder = JobFolder { path: temp.path().join("job") };
        let places = Places {
            inbox: temp.path().join("inbox"),
            folder: "a".to_owned(),
            root: root.then_some(shared),
        };
        let taker = Taker::new(&folder, places);
        World { temp, taker }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.temp.path().join(name)
    }

    fn take(&mut self, part: &str) -> Result<(String, Vec<Slot>), (LineFate, String)> {
        let line = format!(r#"{{"contents":[{{"parts":[{{"fileData":{part}}}]}}]}}"#);
        let (mut out, mut slots) = (b"before".to_vec(), Vec::new());
        match self.taker.line(line.as_bytes(), 1000, &mut out, &mut slots) {
            Ok(()) => Ok((String::from_utf8(out.split_off(6)).expect("text"), slots)),
            Err(TakeError::Line { fate, message }) => {
                assert_eq!((out.as_slice(), slots.len()), (b"before".as_slice(), 0));
                Err((fate, message))
            }
            Err(TakeError::Spool(error)) => panic!("{error}"),
        }
    }

    fn take_path(&mut self, path: &str) -> Result<[u8; 32], (LineFate, String)> {
        let part = serde_json::json!({ "fileUri": format!("file:{path}") });
        self.take(&part.to_string()).map(|(_, slots)| slots[0].media.sha256)
    }
}

#[test]
fn a_file_is_taken_under_its_content_and_its_line_gets_room_for_the_address() {
    let mut world = World::new(false);
    let part = r#"{"fileUri": "file:pictures/cat.png"}"#;
    let (line, slots) = world.take(part).expect("taken");
    let [slot] = slots[..] else { panic!("{slots:?}") };
    assert_eq!((slot.len as usize, slot.media.kind.mime()), (SLOT_BYTES, "image/png"));
    let at = (slot.start - 1000) as usize;
    let room = &line[at..at + SLOT_BYTES];
    assert_eq!(room.trim_end(), "\"file:pictures/cat.png\"");
    let request: serde_json::Value = serde_json::from_str(&line).expect("JSON");
    let data = &request["contents"][0]["parts"][0]["fileData"];
    assert_eq!(data["fileUri"], "file:pictures/cat.png");
    assert_eq!(data["mimeType"], "image/png");
    let copy = world.path("job/media").join(slot.media.hex());
    assert_eq!(fs::read(&copy).expect("read"), b"a cat");
    // What becomes of the original does not matter.
    fs::write(world.path("inbox/a/pictures/cat.png"), "another").expect("written");
    assert_eq!(fs::read(&copy).expect("read"), b"a cat");
    assert_eq!(world.take_path("pictures/cat.png"), Ok(slot.media.sha256));
    let names = fs::read_dir(world.path("job/media")).expect("listed").count();
    assert_eq!(names, 1, "nothing else is left there");
}

#[test]
fn the_same_content_is_there_once_and_a_type_that_is_told_counts() {
    let mut world = World::new(false);
    fs::write(world.path("inbox/a/tom"), "a cat").expect("written");
    let (line, tom) =
        world.take(r#"{"mime_type":"image/JPG","file_uri":"file:./tom"}"#).expect("taken");
    assert!(!line.contains("mimeType"), "{line}");
    assert_eq!(tom[0].media.kind.mime(), "image/jpeg");
    assert_eq!(world.take_path("pictures//cat.png"), Ok(tom[0].media.sha256));
    assert_eq!(fs::read_dir(world.path("job/media")).expect("listed").count(), 1);
}

#[test]
fn what_is_not_there_says_where_it_was_looked_for() {
    let mut world = World::new(true);
    for path in ["no.png", "pictures/no.png", "no/cat.png", &"x".repeat(300)] {
        let path = format!("{path}.png");
        let (fate, message) = world.take_path(&path).expect_err("missing");
        assert_eq!(fate, LineFate::MediaMissing, "{message}");
        assert!(message.contains("inbox/a and in "), "{message}");
    }
    let (fate, message) = world.take_path("pictures/cat.png/x.png").expect_err("no folder");
    assert_eq!(fate, LineFate::MediaMissing);
    assert!(message.contains("`cat.png` is no folder"), "{message}");
}

#[test]
fn nothing_leads_out_of_the_allowed_folders() {
    let mut world = World::new(true);
    let outside = world.path("inbox/dog.png");
    link(&outside, world.path("inbox/a/dog.png")).expect("linked");
    link(world.path("inbox"), world.path("inbox/a/up")).expect("linked");
    let url = format!("//{}", outside.display());
    for path in [
        "../dog.png",
        "pictures/../../dog.png",
        "dog.png",
        "up/dog.png",
        outside.to_str().expect("UTF-8"),
        &url,
        "//elsewhere/dog.png",
        "///%zz.png",
    ] {
        let (fate, message) = world.take_path(path).expect_err("refused");
        assert_eq!(fate, LineFate::MediaOutside, "{path}: {message}");
    }
    assert!(!world.path("job/media").exists());
}

#[test]
fn a_folder_of_the_inbox_that_became_a_link_leads_nowhere() {
    let mut world = World::new(false);
    fs::rename(world.path("inbox/a"), world.path("inbox/b")).expect("moved");
    link(world.path("shared"), world.path("inbox/a")).expect("linked");
    let (fate, message) = world.take_path("far.jpg").expect_err("refused");
    assert_eq!(fate, LineFate::MediaOutside, "{message}");
}

#[test]
fn media_root_opens_one_more_folder_and_only_that() {
    let mut closed = World::new(false);
    let far = closed.path("shared/far.jpg");
    let (fate, message) = closed.take_path(far.to_str().expect("UTF-8")).expect_err("closed");
    assert_eq!(fate, LineFate::MediaOutside);
    assert!(message.contains("media_root"), "{message}");
    let mut open = World::new(true);
    let far = open.path("shared/far.jpg");
    let one = open.take_path(far.to_str().expect("UTF-8")).expect("taken");
    assert_eq!(open.take_path(&format!("//{}", far.display())), Ok(one));
    assert_eq!(open.take_path(&format!("//localhost{}", far.display())), Ok(one));
    assert_eq!(open.take_path("far.jpg"), Ok(one));
    let (fate, _) =
        open.take_path(&format!("{}/../inbox/dog.png", far.display())).expect_err("refused");
    assert_eq!(fate, LineFate::MediaOutside);
}

#[test]
fn only_regular_files_of_known_types_and_sizes_are_taken() {
    let mut world = World::new(false);
    let here = |name: &str| world.temp.path().join("inbox/a").join(name);
    fs::write(here("empty.png"), "").expect("written");
    fs::write(here("what.xyz"), "x").expect("written");
    fs::create_dir(here("folder.png")).expect("made");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        here("pipe.png"),
        FileType::Fifo,
        Mode::from_raw_mode(0o600),
        0,
    )
    .expect("made");
    let large = File::create(here("large.mp4")).expect("made");
    large.set_len(MEDIA_BYTES_MAX + 1).expect("grown");
    for (path, what) in [
        ("empty.png", "is empty"),
        ("what.xyz", "mimeType"),
        ("folder.png", "is a folder"),
        ("pipe.png", "is a FIFO"),
        ("large.mp4", "2147483648"),
        ("", "tells no media type"),
        ("/", "tells no media type"),
    ] {
        let (fate, message) = world.take_path(path).expect_err("refused");
        assert_eq!(fate, LineFate::MediaUnusable, "{path}: {message}");
        assert!(message.contains(what), "{path}: {message}");
    }
    let (_, message) = world
        .take(r#"{"fileUri":"file:what.xyz","mimeType":"image/\u0007tiff"}"#)
        .expect_err("refused");
    assert!(message.contains("\\u{7}tiff") && message.contains("image/png"), "{message}");
}

#[test]
fn escapes_belong_to_urls_and_not_to_paths() {
    let mut world = World::new(false);
    let name = world.path("inbox/a/50%25 söt.png");
    fs::write(name, "x").expect("written");
    assert!(world.take_path("50%25 söt.png").is_ok());
    assert_eq!(percent_decoded("/a%20b%C3%B6%25"), Some("/a bö%".to_owned()));
    for bad in ["%", "%2", "%+1", "%ff"] {
        assert_eq!(percent_decoded(bad), None, "{bad}");
    }
}
