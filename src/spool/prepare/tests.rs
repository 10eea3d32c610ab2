//! Inputs of every shape, prepared.

#![expect(clippy::disallowed_methods, reason = "tests make files as people do")]

use super::*;
use crate::engine::job::Task;
use crate::spool::index::{IndexReader, LineEntry};

fn rules() -> CutRules {
    CutRules {
        batch_bytes_max: 1_000_000,
        rows_max: 0,
        row_bytes_max: 1_000_000,
        line_bytes_max: 100_000,
        model: "m".to_owned(),
        task: Task::Generate,
    }
}

fn queue() -> Queue {
    let defaults = Some(r#"{"store":true}"#.into());
    Queue { model: "m".to_owned(), defaults, ..Queue::default() }
}

struct Place {
    folder: tempfile::TempDir,
    name: &'static str,
}

impl Place {
    fn with(name: &'static str, content: impl AsRef<[u8]>) -> Place {
        let folder = tempfile::tempdir().expect("a temporary folder");
        std::fs::write(folder.path().join(name), content).expect("written");
        Place { folder, name }
    }

    fn target(&self) -> PathBuf {
        self.folder.path().join("prepared.jsonl")
    }

    fn prepare(&self) -> Result<Prepared, PlanError> {
        let (queue, input) = (queue(), self.folder.path().join(self.name));
        let recipe = Recipe::of(self.name, &queue).expect("there are defaults");
        prepare_file(&input, &self.target(), &recipe, &rules())
    }

    fn prepared(&self) -> String {
        self.prepare().expect("prepared");
        std::fs::read_to_string(self.target()).expect("text")
    }

    fn refused(&self) -> String {
        let refused = self.prepare().map(|_| ()).expect_err("refused");
        let PlanError::Unusable(refusal) = refused else { panic!("{refused}") };
        let left = std::fs::read_dir(self.folder.path()).expect("listed").count();
        assert_eq!(left, 1, "nothing is left behind");
        refusal.reason
    }

    /// Fate and line of each row that a plan of the prepared lines finds.
    fn planned(&self) -> Vec<(LineFate, u32)> {
        let prepared = self.prepare().expect("prepared");
        let at = |name: &str| self.folder.path().join(name);
        let (lines, outcomes) = (at("lines.idx"), at("outcomes.idx"));
        plan::plan_prepared_file(&prepared, &lines, &outcomes, &rules(), plan::Told::nobody())
            .expect("planned");
        let index = File::open(lines).and_then(IndexReader::<LineEntry>::new);
        let mut index = index.expect("an index");
        let rows = (1..=index.rows()).map(|row| index.get(crate::engine::Row(row)));
        rows.map(|entry| entry.expect("read")).map(|entry| (entry.fate, entry.line)).collect()
    }
}

const ONE: &str = r#"{"key":1,"request":{"contents":[{}]}}"#;
const DONE: &str = r#"{"key":1,"request":{"contents":[{}],"store":true}}"#;

#[test]
fn every_line_keeps_its_number_and_what_is_no_request_stays_as_it_is() {
    let place = Place::with("a.jsonl", format!("\u{feff}\n{ONE}\r\n\nnonsense\n  {ONE}"));
    assert_eq!(place.prepared(), format!("\n{DONE}\n\nnonsense\n  {DONE}\n"));
    let (valid, broken) = (LineFate::Valid, LineFate::InvalidJson);
    assert_eq!(place.planned(), [(valid, 2), (broken, 4), (valid, 5)]);
}

#[test]
fn size_and_checksum_are_those_of_the_input() {
    let text = format!("{ONE}\n");
    let content = Place::with("a.jsonl", &text).prepare().expect("prepared").content;
    let sum = Sha256::digest(&text);
    let sha256: String = sum.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(content, Content { sha256, bytes: text.len() as u64 });
}

#[test]
fn documents_become_lines() {
    let pretty = ONE.replace(',', ",\n  ");
    let on_one_line = DONE.replacen(',', ",   ", 1);
    let body =
        format!(r#"{{"batch": {{"input_config": {{"requests": {{"requests": [{ONE}]}}}}}}}}"#);
    for (name, content, expected) in [
        ("a.json", format!("[{ONE},\n{pretty}]"), format!("{DONE}\n{on_one_line}\n")),
        ("a.json", body.clone(), format!("{DONE}\n")),
        ("a.jsonl", body, format!("{DONE}\n")),
        ("a.json", pretty.clone(), format!("{on_one_line}\n")),
        ("a.json", format!("{ONE}\n\n{ONE}\n"), format!("{DONE}\n\n{DONE}\n")),
    ] {
        let expected = expected.as_str();
        assert_eq!(Place::with(name, &content).prepared(), expected, "{name}: {content}");
    }
}

#[test]
fn a_line_break_within_a_text_does_not_become_right() {
    let list = "[{\"contents\": [{\"parts\": \"a\nb\"}]}, {\"contents\": [{}]}]";
    let place = Place::with("a.json", list);
    assert_eq!(place.planned(), [(LineFate::InvalidJson, 1), (LineFate::Valid, 2)]);
    assert!(place.prepared().contains("control character"), "{}", place.prepared());
}

#[test]
fn a_broken_first_line_does_not_make_a_document_of_lines() {
    let place = Place::with("a.jsonl", format!("{{\"key\": 1,\n{ONE}\n"));
    assert_eq!(place.planned(), [(LineFate::InvalidJson, 1), (LineFate::Valid, 2)]);
}

#[test]
fn a_line_beyond_the_limit_is_a_row_with_its_reason() {
    let long = ONE.replace("{}", &format!("{{\"parts\":\"{}\"}}", "x".repeat(200_000)));
    let place = Place::with("a.jsonl", format!("{ONE}\n{long}\n{ONE}\n"));
    let (valid, long) = (LineFate::Valid, LineFate::TooLong);
    assert_eq!(place.planned(), [(valid, 1), (long, 2), (valid, 3)]);
}

#[test]
fn what_can_never_be_sent_is_refused_as_it_is_without_preparing() {
    for (name, content, reason) in [
        ("a.jsonl", "", "empty"),
        ("a.jsonl", "\u{1f}\u{8b}", "compressed"),
        ("a.json", "[]", "empty"),
        ("a.json", r#"[{"contents": [{}]}, "#, "invalid_json"),
        ("a.json", r#"{"batch": {}}"#, "no_requests"),
    ] {
        let content =
            if reason == "compressed" { &[0x1f, 0x8b, 8, 0][..] } else { content.as_bytes() };
        assert_eq!(Place::with(name, content).refused(), reason, "{name}");
    }
}

#[test]
fn again_it_is_the_same_bytes_and_a_rest_of_before_is_in_no_way() {
    let place = Place::with("a.jsonl", format!("{ONE}\n"));
    std::fs::write(durable::aside(&place.target()), "a rest that is longer than the lines will be")
        .expect("written");
    let first = place.prepared();
    assert_eq!(place.prepared(), first);
    assert_eq!(first, format!("{DONE}\n"));
}

/// Refuses what has an `x` in it.
struct Picky;

impl Mapper for Picky {
    fn map(&mut self, line: &[u8], out: &mut Vec<u8>) -> Result<(), Unmapped> {
        if line.contains(&b'x') {
            let fault = Fault::new(LineFate::OtherModel, None, "it has an x");
            return Err(Unmapped::Fault(fault));
        }
        out.extend_from_slice(line);
        Ok(())
    }
}

#[test]
fn a_line_that_can_not_be_prepared_stands_for_itself_with_its_reason() {
    let place = Place::with("a.jsonl", "");
    let (target, rules) = (place.target(), rules());
    let queue = queue();
    let mut mappers = Recipe::of("a.jsonl", &queue).expect("there are defaults").mappers();
    mappers.push(Box::new(Picky));
    let mut writer = Writer::create(&target, mappers, None, &rules).expect("begun");
    for (number, text) in [(1, ONE.replace(":1", ":\"x\"")), (2, ONE.to_owned())] {
        let (bytes, len) = (Some(text.as_bytes()), text.len() as u64);
        writer.put(Piece { start: 0, len, number, bytes }).expect("put");
    }
    writer.finish().expect("whole");
    let text = std::fs::read_to_string(&target).expect("text");
    let lines: Vec<&str> = text.lines().collect();
    let fault = forms::examine(lines[0].as_bytes(), rules.wanted()).expect_err("a fault");
    assert_eq!((fault.fate, fault.message.as_str()), (LineFate::OtherModel, "it has an x"));
    assert_eq!(fault.key.map(|key| &lines[0][key]), Some("\"x\""));
    assert_eq!(lines[1], DONE);
}
