//! Tests of the module above, and of preparing, planning and reading together.

#![expect(clippy::disallowed_methods, reason = "tests make files as people do")]

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::sync::Arc;

use super::addresses::Addresses;
use super::slots::MediaId;
use super::take::Places;
use super::*;
use crate::engine::ids::{Row, Rows};
use crate::engine::job::{Queue, Task};
use crate::spool::JobFolder;
use crate::spool::body::Body;
use crate::spool::frame::Frame;
use crate::spool::plan::{self, CutRules, PlanError, Planned};
use crate::spool::prepare::{self, Recipe};

struct World {
    temp: tempfile::TempDir,
    folder: JobFolder,
}

impl World {
    fn new(input: &str) -> World {
        let temp = tempfile::tempdir().expect("a temporary folder");
        let folder = JobFolder { path: temp.path().join("job") };
        fs::create_dir_all(folder.path.join("input")).expect("made");
        fs::create_dir(temp.path().join("inbox")).expect("made");
        for (name, content) in [("cat.png", "a cat"), ("dog.jpg", "a dog")] {
            fs::write(temp.path().join("inbox").join(name), content).expect("written");
        }
        fs::write(folder.input("a.jsonl"), input).expect("written");
        World { temp, folder }
    }

    fn plan(&self) -> Result<Planned, PlanError> {
        let queue = Queue::default();
        let inbox = self.temp.path().join("inbox");
        let places = Places { inbox, folder: String::new(), root: None };
        let recipe = Recipe::taking("a.jsonl", &queue, &places);
        let prepared = prepare::prepare(&self.folder, &recipe, &rules())?;
        plan::plan_prepared(&self.folder, &prepared, &rules(), None)
    }

    fn body(&self, rows: u64) -> Body {
        let rows = Rows { first: Row(1), last: Row(rows) };
        Body::open(&self.folder, self.folder.prepared(), rows, Frame::FileLine, 0).expect("opened")
    }
}

fn rules() -> CutRules {
    CutRules {
        batch_bytes_max: 1 << 30,
        rows_max: 0,
        row_bytes_max: u64::MAX,
        line_bytes_max: 1 << 20,
        model: "gemini-2.5-flash".to_owned(),
        task: Task::Generate,
    }
}

fn line(path: &str) -> String {
    let part = serde_json::json!({"fileData": {"fileUri": format!("file:{path}")}});
    format!("{}\n", serde_json::json!({"contents": [{"parts": [part, {"text": path}]}]}))
}

fn addresses(media: &BTreeMap<MediaId, Row>) -> Arc<Addresses> {
    let uri = |media: &MediaId| format!("https://there/v1beta/files/{}", &media.hex()[..20]);
    Arc::new(media.keys().map(|media| (*media, uri(media))).collect())
}

fn read(body: &Body, offset: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    body.reader(offset).expect("opened").read_to_end(&mut bytes).expect("read");
    bytes
}

#[test]
fn the_same_bytes_go_out_from_whichever_byte_on() {
    let text = r#"{"contents":[{"parts":[{"text":"no file"}]}]}"#;
    let input = format!("\n{}{text}\n{}\n{}", line("cat.png"), line("dog.jpg"), line("cat.png"));
    let world = World::new(&input);
    let planned = world.plan().expect("planned");
    assert_eq!((planned.rows, planned.invalid, planned.media), (4, 0, true));
    let body = world.body(4);
    let media = body.media().expect("looked at");
    assert_eq!(media.values().copied().collect::<std::collections::BTreeSet<_>>().len(), 2);
    let body = body.with(addresses(&media));
    let whole = read(&body, 0);
    assert_eq!(whole.len() as u64, body.len());
    for offset in 0..=whole.len() {
        assert!(read(&body, offset as u64) == whole[offset..], "from {offset}");
    }
    let text = String::from_utf8(whole).expect("text");
    let uris: Vec<String> = text
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"))
        .map(|row| row["request"]["contents"][0]["parts"][0]["fileData"]["fileUri"].to_string())
        .collect();
    assert!(uris[0].starts_with("\"https://there/v1beta/files/"), "{uris:?}");
    assert_eq!((&uris[0], uris[1].as_str()), (&uris[3], "null"));
    assert_ne!(uris[0], uris[2]);
}

#[test]
fn rows_that_name_files_are_not_read_without_addresses() {
    let world = World::new(&line("cat.png"));
    world.plan().expect("planned");
    let mut bytes = Vec::new();
    let read = world.body(1).reader(0).expect("opened").read_to_end(&mut bytes);
    assert!(read.is_err(), "{}", String::from_utf8_lossy(&bytes));
}

#[test]
fn a_file_that_is_not_there_fails_its_line_alone() {
    let world = World::new(&(line("cat.png") + &line("no.png") + &line("dog.jpg")));
    let planned = world.plan().expect("planned");
    assert_eq!((planned.rows, planned.invalid), (3, 1));
    let problem = planned.first_problem.expect("one");
    assert_eq!((problem.line, problem.reason), (2, "media_missing"));
    assert!(problem.message.contains("file:no.png"), "{}", problem.message);
    let named = world.body(3).media().expect("looked at");
    assert_eq!(named.values().copied().collect::<Vec<_>>().len(), 2);
}

#[test]
fn an_input_whose_lines_name_files_is_not_planned_as_it_stands() {
    for content in [line("cat.png"), format!("{}{}", "x\n".repeat(300_000), line("cat.png"))] {
        let world = World::new(&content);
        let planned = plan::plan(&world.folder, "a.jsonl", &rules(), &|_| {});
        assert!(matches!(planned, Err(PlanError::NamesFiles)), "{planned:?}");
    }
    let world = World::new("{\"contents\":[{\"parts\":[{\"text\":\"a file: x\"}]}]}\n");
    let planned = plan::plan(&world.folder, "a.jsonl", &rules(), &|_| {});
    assert!(!planned.expect("planned").prepared);
}

#[test]
fn the_same_input_is_prepared_to_the_same_bytes_again() {
    let world = World::new(&(line("cat.png") + &line("no.png")));
    world.plan().expect("planned");
    let files = [world.folder.prepared(), world.folder.slots()];
    let once = files.each_ref().map(|path| fs::read(path).expect("read"));
    world.plan().expect("planned");
    assert_eq!(files.each_ref().map(|path| fs::read(path).expect("read")), once);
    // Without the file there is nothing to be put in any more.
    fs::remove_file(world.temp.path().join("inbox/cat.png")).expect("removed");
    assert!(matches!(world.plan(), Err(PlanError::Unusable(_))));
    assert!(!world.folder.slots().exists());
}

#[test]
fn kinds_are_known_by_name_by_type_and_by_number() {
    for known in KNOWN {
        let kind = Kind::of_mime(known.mime).expect("known");
        assert_eq!((kind.code(), kind.mime()), (known.code, known.mime));
        assert_eq!(Kind::from_code(known.code), Some(kind));
        for ending in known.endings {
            assert_eq!(Kind::of_name(&format!("A.B.{}", ending.to_uppercase())), Some(kind));
        }
    }
    for (other, mime) in SAME {
        let kind = Kind::of_mime(&format!("{} ; charset=utf-8", other.to_uppercase()));
        assert_eq!(kind.map(Kind::mime), Some(*mime));
    }
    assert_eq!(Kind::of_name("png"), None);
    assert_eq!(Kind::of_mime("image/tiff"), None);
    assert_eq!(Kind::from_code(0), None);
}

#[test]
fn no_number_stands_for_two_kinds() {
    let codes: std::collections::HashSet<u8> = KNOWN.iter().map(|known| known.code).collect();
    assert_eq!(codes.len(), KNOWN.len());
}

#[test]
fn what_may_be_an_input_is_not_left_in_the_inbox() {
    assert!(is_left_in_inbox("cat.PNG"));
    assert!(is_left_in_inbox("paper.pdf"));
    for name in ["a.jsonl", "a.json", "a.txt", "a.csv", "a.gz", "a.tiff", "png"] {
        assert!(!is_left_in_inbox(name), "{name}");
    }
}
