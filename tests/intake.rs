//! What becomes of a dropped file: every kind of bad input, and the bytes that go out.

#![expect(clippy::disallowed_methods, reason = "tests drop files as people do")]

use gemini_batchd::engine::answers::TOKENS_MAX;
use gemini_batchd::engine::job::Task;
use std::cell::RefCell;
use std::fs;
use std::io::{Read, Write};
use std::path::Path;

use gemini_batchd::engine::ids::{Attempt, ChunkNo, Row, Rows};
use gemini_batchd::engine::job::Refusal;
use gemini_batchd::engine::verdict::Verdict;
use gemini_batchd::spool::body::{Body, BodyReader};
use gemini_batchd::spool::frame::Frame;
use gemini_batchd::spool::index::{self, IndexReader, LineEntry, LineFate, OutcomeEntry, Raise};
use gemini_batchd::spool::plan::{CutRules, PlanError, Planned, plan, plan_telling};
use gemini_batchd::spool::problem::{Problem, explain};
use gemini_batchd::spool::sketch::Known;
use gemini_batchd::spool::{Folders, JobFolder};
use proptest::prelude::*;
use serde_json::{Value, json};

const REQUEST: &str = r#"{"contents":[{"parts":[{"text":"x"}]}]}"#;

/// A job whose input is claimed.
struct Claimed {
    _spool: tempfile::TempDir,
    folder: JobFolder,
    name: String,
}

impl Claimed {
    fn new(name: &str, content: impl AsRef<[u8]>) -> Claimed {
        let spool = tempfile::tempdir().expect("a temporary folder");
        let job = "01JD0000000000000000000000".parse().expect("an id");
        let folder = Folders::below(spool.path()).job(job);
        fs::create_dir_all(folder.path.join("input")).expect("a folder");
        fs::write(folder.input(name), content).expect("written");
        Claimed { _spool: spool, folder, name: name.to_owned() }
    }

    fn plan_by(&self, rules: &CutRules) -> Result<Planned, Refusal> {
        match plan(&self.folder, &self.name, rules, &|_| {}) {
            Ok(planned) => Ok(planned),
            Err(PlanError::Unusable(refusal)) => Err(refusal),
            Err(error @ (PlanError::Spool(_) | PlanError::NamesFiles)) => panic!("{error}"),
        }
    }

    fn plan(&self) -> Result<Planned, Refusal> {
        self.plan_by(&rules())
    }

    fn entries(&self) -> Vec<LineEntry> {
        let file = fs::File::open(self.folder.lines()).expect("an index");
        let mut index = IndexReader::new(file).expect("an index");
        (1..=index.rows()).map(|row| index.get(Row(row)).expect("a record")).collect()
    }

    fn outcomes(&self) -> Vec<Verdict> {
        let file = fs::File::open(self.folder.outcomes()).expect("an index");
        let mut index = IndexReader::<OutcomeEntry>::new(file).expect("an index");
        (1..=index.rows()).map(|row| index.get(Row(row)).expect("a record").verdict).collect()
    }

    fn close(&self, row: u64, verdict: Verdict) {
        let file = fs::File::options().write(true).open(self.folder.outcomes()).expect("opened");
        let outcome = OutcomeEntry {
            verdict,
            chunk: ChunkNo(1),
            attempt: Attempt(1),
            start: 0,
            len: 0,
            within: None,
            raise: Raise::default(),
        };
        index::write_at(&file, Row(row), &outcome).expect("written");
    }

    fn text(&self, start: u64, len: u64) -> String {
        let content = fs::read(self.folder.input(&self.name)).expect("the input");
        String::from_utf8_lossy(&content[start as usize..(start + len) as usize]).into_owned()
    }

    fn body(&self, rows: Rows, frame: Frame) -> Body {
        let input = self.folder.input(&self.name);
        Body::open(&self.folder, input, rows, frame, TOKENS_MAX).expect("a body")
    }

    fn explained(&self, row: usize) -> Problem {
        let entry = self.entries()[row - 1];
        explain(&self.folder.input(&self.name), &entry, &rules()).expect("explained")
    }
}

fn rules() -> CutRules {
    CutRules {
        batch_bytes_max: 1_000_000,
        rows_max: 0,
        row_bytes_max: 1_000_000,
        line_bytes_max: 64_000_000,
        model: "m".to_owned(),
        task: Task::Generate,
    }
}

fn rows(first: u64, last: u64) -> Rows {
    Rows { first: Row(first), last: Row(last) }
}

fn read_all(body: &Body, offset: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    body.reader(offset).expect("a reader").read_to_end(&mut bytes).expect("read");
    bytes
}

/// Fault 44.
#[test]
fn files_without_a_single_request_are_refused_with_place_and_remedy() {
    const CUT: &str = "{\n  \"contents\": [{}]\n";
    type Row = (&'static str, &'static [u8], &'static str, Option<(u64, u64)>, &'static str);
    let table: &[Row] = &[
        ("a.jsonl", b"", "empty", None, "empty"),
        ("a.json", b"", "empty", None, "empty"),
        ("a.jsonl", b"\n \r\n\t\n", "empty", None, "blank"),
        ("a.json", b"\n\n", "empty", None, "blank"),
        ("a.jsonl", b"\xef\xbb\xbf\n", "empty", None, "blank"),
        ("a.json", b"[]", "empty", None, "list of requests is empty"),
        ("a.jsonl", b"\xff\xfe{\0}\0", "utf16", None, "UTF-16"),
        ("a.jsonl", b"\x1f\x8b\x08\0abc", "compressed", None, "does not say so"),
        ("a.jsonl", b"\nhello\n", "no_valid_line", Some((2, 1)), "line 2, column 1: not valid"),
        ("a.jsonl", b"{\"key\": \"\xe4\"}", "no_valid_line", Some((1, 10)), "UTF-8"),
        ("a.jsonl", b"{}\0\0\0\0", "no_valid_line", Some((1, 3)), "NUL"),
        ("a.jsonl", b"{\"request\": 7}", "no_valid_line", Some((1, 13)), "not an object"),
        ("a.jsonl", CUT.as_bytes(), "invalid_json", Some((3, 0)), "ends too early"),
        ("a.json", b"[{\"contents\": [{}]}] x", "invalid_json", Some((1, 22)), "trailing"),
        ("a.json", b"[{\"contents\": [{}]},\n", "invalid_json", Some((2, 1)), "after 1 requests"),
        ("a.json", b"{\n\"batch\": {\"x\": 1}\n}", "no_requests", None, "no list at"),
        ("a.json", b"[\n{},\n{\"contents\": 1}]", "no_valid_line", None, "request 1"),
        (
            "a.json",
            br#"{"batch": {"model": "models/b", "input_config": {"requests": {"requests": [{"request": {"contents": [{}]}}]}}}}"#,
            "other_model",
            None,
            "\"models/b\"",
        ),
    ];
    for (name, content, reason, place, words) in table {
        let claimed = Claimed::new(name, content);
        let shown = String::from_utf8_lossy(content);
        let refusal = claimed.plan().expect_err(&shown);
        assert_eq!(refusal.reason, *reason, "{shown}: {refusal:?}");
        assert!(refusal.message.contains(words), "{shown}: {refusal:?}");
        assert!(!refusal.remedy.is_empty(), "{shown}");
        if let Some((line, column)) = place {
            assert_eq!((refusal.line, refusal.column), (Some(*line), Some(*column)), "{shown}");
        }
        assert!(!claimed.folder.lines().exists(), "{shown}: no index of a refused file");
        assert_eq!(fs::read_dir(&claimed.folder.path).expect("listed").count(), 1, "{shown}");
    }
    let refusal = Claimed::new("a.jsonl", CUT).plan().expect_err("lines");
    assert!(refusal.remedy.contains(".json"), "{refusal:?}");
}

#[test]
fn bad_lines_become_invalid_rows_and_never_hold_the_others_back() {
    let long_key = format!(r#"{{"key": "{}", "request": {REQUEST}}}"#, "k".repeat(70_000));
    let too_big = format!(
        r#"{{"key": "big", "request": {{"contents": [{{"a": "{}"}}]}}}}"#,
        "x".repeat(1_000_000)
    );
    let lines: Vec<(Vec<u8>, LineFate, Option<&str>)> = vec![
        (
            format!("\u{feff}{{\"key\": \"a\", \"request\": {REQUEST}}}\r").into(),
            LineFate::Valid,
            Some("\"a\""),
        ),
        (b" \t\r".to_vec(), LineFate::Valid, None),
        (format!("{{\"key\": 1, \"request\": {REQUEST}").into(), LineFate::InvalidJson, None),
        (
            format!("{{\"key\": 1e400, \"request\": {REQUEST}}}").into(),
            LineFate::Valid,
            Some("1e400"),
        ),
        (b"\"key\xff\"".to_vec(), LineFate::InvalidUtf8, None),
        (b"{\"contents\": \0}".to_vec(), LineFate::InvalidJson, None),
        (
            format!("{{\"key\": {{\"a\": 1}}, \"request\": {REQUEST}}}").into(),
            LineFate::BadKey,
            None,
        ),
        (long_key.into(), LineFate::BadKey, None),
        (
            format!("{{\"request\": {REQUEST}, \"metadata\": {{\"key\": \"a\"}}}}").into(),
            LineFate::Valid,
            Some("\"a\""),
        ),
        (REQUEST.into(), LineFate::Valid, None),
        (
            b"{\"key\": \"m\", \"request\": {\"model\": \"other\", \"contents\": [{}]}}".to_vec(),
            LineFate::OtherModel,
            Some("\"m\""),
        ),
        (
            b"{\"key\": \"o\", \"request\": {\"content\": {}}}".to_vec(),
            LineFate::OtherTask,
            Some("\"o\""),
        ),
        (too_big.into(), LineFate::TooLong, Some("\"big\"")),
        (
            format!("{{\"key\": \"last\", \"request\": {REQUEST}}}").into(),
            LineFate::Valid,
            Some("\"last\""),
        ),
    ];
    let content = lines.iter().map(|line| line.0.as_slice()).collect::<Vec<_>>().join(&b'\n');
    let claimed = Claimed::new("a.jsonl", &content);
    let planned = claimed.plan().expect("planned");
    assert_eq!((planned.rows, planned.invalid), (13, 8));
    assert_eq!(planned.bytes, content.len() as u64);
    let problem = planned.first_problem.expect("a problem");
    assert_eq!((problem.line, problem.reason), (3, "invalid_json"));

    let entries = claimed.entries();
    let outcomes = claimed.outcomes();
    let inked = lines.iter().enumerate().filter(|(n, _)| *n != 1);
    for ((n, (bytes, fate, key)), (entry, outcome)) in inked.zip(entries.iter().zip(outcomes)) {
        let line = n + 1;
        assert_eq!((entry.line as usize, entry.fate), (line, *fate), "line {line}");
        let found = entry.key.map(|key| claimed.text(key.start, u64::from(key.len)));
        assert_eq!(found.as_deref(), *key, "line {line}");
        let text = claimed.text(entry.request_start, u64::from(entry.request_len));
        if *fate == LineFate::Valid {
            assert_eq!(text, REQUEST, "line {line}");
            assert_eq!(outcome, Verdict::Open, "line {line}");
        } else {
            assert_eq!(text, String::from_utf8_lossy(bytes), "line {line}");
            assert_eq!(outcome, Verdict::Invalid, "line {line}");
            let row = entries.iter().position(|other| other == entry).expect("there") + 1;
            let explained = claimed.explained(row);
            assert_eq!((explained.line, explained.reason), (line as u64, fate.reason()));
            assert!(explained.message.len() > 20, "line {line}: {explained:?}");
        }
    }
    assert!(
        planned.warnings.iter().any(|text| text.contains("have no key")),
        "{:?}",
        planned.warnings
    );
    assert!(
        planned.warnings.iter().any(|text| text.contains("on line 9: \"a\", as on line 1")),
        "{:?}",
        planned.warnings
    );
}

#[test]
fn columns_count_characters_as_an_editor_does() {
    let content = format!("{{\"key\": \"三个问题\" 7}}\n{REQUEST}");
    let claimed = Claimed::new("a.jsonl", content);
    let problem = claimed.plan().expect("planned").first_problem.expect("a problem");
    assert_eq!((problem.line, problem.column), (1, Some(16)));
    assert_eq!(claimed.explained(1), problem);
}

#[test]
fn every_shape_of_a_json_file_gives_the_same_requests() {
    let one = json!({"key": "a", "request": {"contents": [{"parts": [{"text": "一"}]}]}});
    let two =
        json!({"request": {"contents": [{"parts": [{"text": "]}"}]}]}, "metadata": {"key": "b"}});
    let three = json!({"contents": [{"parts": [{"text": "\\\""}]}]});
    let list = json!([one, two, three]);
    let camel =
        json!({"batch": {"displayName": "d", "inputConfig": {"requests": {"requests": list}}}});
    let snake =
        json!({"batch": {"input_config": {"requests": {"requests": list}}, "model": "models/m"}});
    let shapes = [
        format!("{one}\n{two}\n{three}\n"),
        format!("\u{feff}\n{one}\r\n\r\n{two}\r\n{three}"),
        list.to_string(),
        format!("\u{feff}{list:#}\n"),
        camel.to_string(),
        format!("{camel:#}"),
        format!("\n{snake:#}\n\n"),
    ];
    let expected = [
        (one["request"].clone(), Some("\"a\"")),
        (two["request"].clone(), Some("\"b\"")),
        (three.clone(), None),
    ];
    for shape in shapes {
        let claimed = Claimed::new("a.json", &shape);
        let planned = claimed.plan().unwrap_or_else(|refusal| panic!("{shape}: {refusal:?}"));
        assert_eq!((planned.rows, planned.invalid), (3, 0), "{shape}");
        for (entry, (request, key)) in claimed.entries().iter().zip(&expected) {
            let text = claimed.text(entry.request_start, u64::from(entry.request_len));
            assert_eq!(serde_json::from_str::<Value>(&text).expect("JSON"), *request, "{shape}");
            let found = entry.key.map(|key| claimed.text(key.start, u64::from(key.len)));
            assert_eq!(found.as_deref(), *key, "{shape}");
        }
        let lines: Vec<Value> = read_all(&claimed.body(rows(1, 3), Frame::FileLine), 0)
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
            .map(|line| serde_json::from_slice(line).expect("one line, one object"))
            .collect();
        assert_eq!(lines.len(), 3, "{shape}");
        for (line, (request, _)) in lines.iter().zip(&expected) {
            assert_eq!(line["request"], *request, "{shape}");
        }
    }
}

#[test]
fn a_single_pretty_printed_request_is_one_row() {
    for request in [
        json!({"contents": [{"parts": [{"text": "x"}]}]}),
        json!({"key": 1, "request": {"contents": [{"parts": [{"text": "x"}]}]}}),
    ] {
        let claimed = Claimed::new("a.json", format!("{request:#}\n"));
        let planned = claimed.plan().expect("planned");
        assert_eq!((planned.rows, planned.invalid), (1, 0));
        let out = read_all(&claimed.body(rows(1, 1), Frame::FileLine), 0);
        assert_eq!(out.iter().filter(|byte| **byte == b'\n').count(), 1);
    }
}

#[test]
fn json_lines_in_a_json_file_survive_a_first_line_that_is_cut_off() {
    let content = format!("{{\"key\": 1, \"request\": {{\n{REQUEST}\n{REQUEST}\n");
    let planned = Claimed::new("a.json", content).plan().expect("planned");
    assert_eq!((planned.rows, planned.invalid), (3, 1));
    assert_eq!(planned.first_problem.expect("a problem").line, 1);
}

#[test]
fn a_long_first_line_of_a_json_file_is_read_as_what_it_is() {
    let long = json!({"contents": [{"parts": [{"text": "问".repeat(360_000)}]}]});
    let rules = CutRules { batch_bytes_max: 9_000_000, row_bytes_max: 9_000_000, ..rules() };
    let body = json!({"batch": {"input_config": {"requests": {"requests": [
        {"request": long}, {"request": long},
    ]}}}});
    // Shifted by up to two bytes, so that one of them is cut within a character.
    for blanks in ["", " ", "  "] {
        for content in [format!("{blanks}{body}"), format!("{blanks}{long}\n{long}\n")] {
            let planned = Claimed::new("a.json", content).plan_by(&rules).expect("planned");
            assert_eq!((planned.rows, planned.invalid), (2, 0));
        }
    }
}

#[test]
fn a_list_that_is_cut_off_is_refused_even_if_its_last_line_looks_like_a_request() {
    let body = "{\"batch\": {\"input_config\": {\"requests\": {\n\"requests\": [";
    for begin in ["[", body] {
        let content = format!("{begin}\n{REQUEST},\n{REQUEST}\n");
        let refusal = Claimed::new("a.json", content).plan().expect_err(begin);
        assert!(refusal.message.contains("as if it was cut off"), "{refusal:?}");
    }
}

#[test]
fn a_bad_element_of_a_list_fails_alone_and_names_its_place_within() {
    let content = format!("[\n{REQUEST},\n{{\n  \"contents\": 7\n}},\n{REQUEST}]");
    let claimed = Claimed::new("a.json", content);
    let planned = claimed.plan().expect("planned");
    assert_eq!((planned.rows, planned.invalid), (3, 1));
    let problem = planned.first_problem.expect("a problem");
    assert_eq!((problem.line, problem.column), (2, None));
    assert!(problem.message.contains("line 2, column 15 of the request"), "{problem:?}");
    assert_eq!(claimed.explained(2), problem);
}

#[test]
fn chunks_keep_both_limits_and_have_every_row_once() {
    let mut content = String::new();
    for n in 0..100 {
        let line = if n % 7 == 0 { "broken".to_owned() } else { REQUEST.to_owned() };
        content.push_str(&line);
        content.push('\n');
    }
    let claimed = Claimed::new("a.jsonl", content);
    for (batch_bytes_max, rows_max) in [(1_000_000, 10), (500, 0), (500, 3), (200, 1)] {
        let planned =
            claimed.plan_by(&CutRules { batch_bytes_max, rows_max, ..rules() }).expect("planned");
        let mut next = 1;
        let mut sendable = 0;
        for chunk in &planned.chunks {
            assert_eq!(chunk.rows.first.0, next);
            next = chunk.rows.last.0 + 1;
            let count = chunk.left.rows + chunk.right.rows;
            let bytes = chunk.left.bytes + chunk.right.bytes;
            assert!(count > 0 && bytes <= batch_bytes_max);
            assert!(rows_max == 0 || count <= rows_max);
            let body = claimed.body(chunk.rows, Frame::FileLine);
            assert_eq!((body.rows(), body.len()), (count, bytes));
            let left = Rows { last: chunk.rows.middle(), ..chunk.rows };
            let body = claimed.body(left, Frame::FileLine);
            assert_eq!((body.rows(), body.len()), (chunk.left.rows, chunk.left.bytes));
            sendable += count;
        }
        assert_eq!(next, 101);
        assert_eq!(sendable, planned.rows - planned.invalid);
    }
}

#[test]
fn a_row_too_big_for_its_transport_fails_alone() {
    let content = format!("{REQUEST}\n{{\"contents\":[{{\"a\":\"{}\"}}]}}\n", "x".repeat(300));
    let claimed = Claimed::new("a.jsonl", content);
    for rules in [
        CutRules { row_bytes_max: 200, ..rules() },
        CutRules { batch_bytes_max: 200, ..rules() },
        CutRules { line_bytes_max: 200, ..rules() },
    ] {
        let planned = claimed.plan_by(&rules).expect("planned");
        assert_eq!((planned.rows, planned.invalid), (2, 1));
        let problem = planned.first_problem.expect("a problem");
        assert_eq!((problem.line, problem.reason), (2, "line_too_long"));
        assert!(problem.message.contains("200"), "{problem:?}");
    }
}

#[test]
fn more_batches_than_a_job_may_have_are_refused_with_the_setting_to_change() {
    let content = format!("{REQUEST}\n").repeat(65_001);
    let claimed = Claimed::new("a.jsonl", content);
    let refusal =
        claimed.plan_by(&CutRules { rows_max: 1, ..rules() }).expect_err("too many batches");
    assert_eq!(refusal.reason, "too_many_batches");
    assert!(refusal.remedy.contains("lines_per_batch"));
}

#[test]
fn planning_again_writes_the_same_indexes() {
    let claimed = Claimed::new("a.jsonl", format!("{REQUEST}\nbad\n{REQUEST}"));
    let first = claimed.plan().expect("planned");
    let lines = fs::read(claimed.folder.lines()).expect("an index");
    assert_eq!(claimed.plan().expect("planned"), first);
    assert_eq!(fs::read(claimed.folder.lines()).expect("an index"), lines);
    let mut names: Vec<_> = fs::read_dir(&claimed.folder.path)
        .expect("listed")
        .map(|entry| entry.expect("listed").file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["input", "lines.idx", "outcomes.idx"]);
}

/// Fault 39.
#[test]
fn an_input_that_still_grows_while_it_is_read_gives_no_plan_yet() {
    let claimed = Claimed::new("a.jsonl", format!("{REQUEST}\n").repeat(10));
    let path = claimed.folder.input("a.jsonl");
    let late = std::cell::Cell::new(true);
    let append = |_| {
        if late.replace(false) {
            let mut file = fs::File::options().append(true).open(&path).expect("opened");
            writeln!(file, "{REQUEST}").expect("written");
        }
    };
    let outcome = plan(&claimed.folder, "a.jsonl", &rules(), &append);
    assert!(matches!(outcome, Err(PlanError::Spool(_))), "{outcome:?}");
    assert_eq!(claimed.plan().expect("planned").rows, 11);
}

#[test]
fn the_checksum_is_that_of_the_whole_file() {
    let claimed = Claimed::new("a.jsonl", format!("\u{feff}{REQUEST}\n"));
    let planned = claimed.plan().expect("planned");
    let mut hash = <sha2::Sha256 as sha2::Digest>::new();
    sha2::Digest::update(&mut hash, fs::read(claimed.folder.input("a.jsonl")).expect("read"));
    let expected: String =
        sha2::Digest::finalize(hash).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(planned.sha256, expected);
}

#[test]
fn a_link_a_fifo_and_a_missing_input_are_refused_without_waiting() {
    let claimed = Claimed::new("real.jsonl", REQUEST);
    let input = |name: &str| claimed.folder.input(name);
    std::os::unix::fs::symlink("real.jsonl", input("link.jsonl")).expect("a link");
    let mode = rustix::fs::Mode::RUSR;
    let fifo = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, input("fifo.jsonl"), fifo, mode, 0).expect("a fifo");
    for (name, reason) in
        [("link.jsonl", "special_file"), ("fifo.jsonl", "special_file"), ("no.jsonl", "missing")]
    {
        let Err(PlanError::Unusable(refusal)) = plan(&claimed.folder, name, &rules(), &|_| {})
        else {
            panic!("{name} was planned");
        };
        assert_eq!(refusal.reason, reason, "{name}");
    }
}

#[test]
fn a_body_has_only_what_is_valid_and_open() {
    let content = format!("{REQUEST}\nbad\n{REQUEST}\n{REQUEST}\n{REQUEST}\n");
    let claimed = Claimed::new("a.jsonl", content);
    claimed.plan().expect("planned");
    claimed.close(3, Verdict::Answered);
    claimed.close(4, Verdict::Retryable);
    let body = claimed.body(rows(1, 5), Frame::FileLine);
    assert_eq!(body.rows(), 3);
    let expected: String =
        [1, 4, 5].map(|row| format!("{{\"key\":\"{row}\",\"request\":{REQUEST}}}\n")).concat();
    assert_eq!(read_all(&body, 0), expected.as_bytes());
    assert_eq!(body.len(), expected.len() as u64);
    let positions: Vec<_> = (0..=4).map(|n| body.row_at(n).expect("asked")).collect();
    assert_eq!(positions, [None, Some(Row(1)), Some(Row(4)), Some(Row(5)), None]);

    let body = claimed.body(rows(2, 5), Frame::InlineItem);
    let inline = format!("[{}]", String::from_utf8(read_all(&body, 0)).expect("UTF-8"));
    let items: Vec<Value> = serde_json::from_str(&inline).expect("items of a list");
    assert_eq!(items.len(), 2);
    assert_eq!(items[0]["metadata"]["key"], "4");
    assert_eq!(body.len() + 2, inline.len() as u64);

    claimed.close(1, Verdict::Failed);
    let body = claimed.body(rows(1, 3), Frame::FileLine);
    assert!(body.is_empty());
    assert!(read_all(&body, 0).is_empty());
}

#[test]
fn a_body_of_short_and_long_rows_is_read_on_from_anywhere() {
    let mut expected = String::new();
    let mut content = String::new();
    let mut row = 0;
    for round in 0..40 {
        let long = [20, 31_000, 33_000, 70_000, 300_000][round % 5];
        for len in [0; 60].into_iter().chain([long, 3 * long % 40_000]) {
            row += 1;
            let text = "abcdefghij".repeat(len / 10);
            content.push_str(&format!("{{\"contents\":[{{\"a\":\"{text}\"}}],\r\"b\":1}}\n"));
            expected.push_str(&format!(
                "{{\"key\":\"{row}\",\"request\":{{\"contents\":[{{\"a\":\"{text}\"}}], \"b\":1}}}}\n"
            ));
        }
    }
    let claimed = Claimed::new("a.jsonl", content);
    let rules = CutRules { batch_bytes_max: 1 << 40, ..rules() };
    assert_eq!(claimed.plan_by(&rules).expect("planned").rows, row);
    let body = claimed.body(rows(1, row), Frame::FileLine);
    assert_eq!(body.len(), expected.len() as u64);
    for offset in (0..expected.len()).step_by(94_321).chain([1, 40, expected.len() - 1]) {
        assert!(read_all(&body, offset as u64) == expected.as_bytes()[offset..], "from {offset}");
    }
}

/// What can be read of the first chunk while a file is planned, read as it becomes known, and what
/// was told last.
fn read_ahead(claimed: &Claimed, rules: &CutRules) -> (Vec<u8>, Known, Result<Planned, PlanError>) {
    let state = RefCell::new((None::<BodyReader>, Vec::new(), Known::default()));
    let on_known = |known: Known| {
        let (reader, read, last) = &mut *state.borrow_mut();
        let reader = reader.get_or_insert_with(|| {
            BodyReader::growing(&claimed.folder, &claimed.folder.input(&claimed.name))
                .expect("it can be read")
        });
        assert!(known.rows >= last.rows && known.bytes >= last.bytes, "{last:?} {known:?}");
        *last = known;
        reader.grow(Row(known.rows));
        // Not all that is known is sent at once.
        let most = known.bytes - read.len() as u64;
        let most = if last.rows.is_multiple_of(2) { most } else { most / 2 };
        reader.take(most).read_to_end(read).expect("read");
    };
    let planned = plan_telling(&claimed.folder, &claimed.name, rules, &on_known);
    let (reader, mut read, last) = state.into_inner();
    if let Some(mut reader) = reader {
        reader.read_to_end(&mut read).expect("read");
    }
    (read, last, planned)
}

#[test]
fn what_is_read_ahead_of_a_plan_is_the_beginning_of_what_is_sent() {
    let long = |n: usize| "w\u{f6}rd ".repeat(600 + 997 * n % 5000);
    let request = |n| format!(r#"{{"contents":[{{"parts":[{{"text":"{}"}}]}}]}}"#, long(n));
    let line = |n: usize| match n % 6 {
        0 => format!(r#"{{"key":"k{n}","request":{}}}"#, request(n)),
        1 => format!(r#"{{"request":{},"metadata":{{"key":{n}}}}}"#, request(n)),
        2 => request(n),
        3 => format!(r#"{{"broken": {}"#, long(n)),
        4 => String::new(),
        _ => format!(" {} ", request(n)),
    };
    let lines = |end: &str| (0..600).map(|n| line(n) + end).collect::<String>();
    let list = |end: &str| {
        let element = |n| format!("{{\r\n\"key\": \"{n}\",\n\"request\":\r\n{}\n}}", request(n));
        format!("[{}{end}", (0..400).map(element).collect::<Vec<_>>().join(",\n"))
    };
    for (name, content) in [
        ("a.jsonl", lines("\n")),
        ("a.jsonl", lines("\r\n")),
        ("a.jsonl", format!("\u{feff}{}", lines("\n"))),
        ("a.json", list("]")),
        ("a.json", format!("\u{feff}{}", list("]\n\n"))),
        ("a.json", format!("{{\"broken\n{}", lines("\n"))),
    ] {
        for (batch_bytes_max, rows_max) in [(u64::MAX, 0), (3_000_000, 0), (u64::MAX, 170)] {
            let rules = CutRules { batch_bytes_max, rows_max, row_bytes_max: u64::MAX, ..rules() };
            let claimed = Claimed::new(name, &content);
            let (ahead, known, planned) = read_ahead(&claimed, &rules);
            let planned = planned.expect("it has valid rows");
            let what = format!("{name} {:?} {batch_bytes_max} {rows_max}", &content[..20]);
            let body = read_all(&claimed.body(planned.chunks[0].rows, Frame::FileLine), 0);
            assert_eq!(ahead.len() as u64, known.bytes, "{what}");
            assert!(body.starts_with(&ahead), "{what}");
            assert!(body.len() - ahead.len() <= 1 << 20, "{what}: the rest is small");
            if planned.chunks.len() > 1 {
                assert_eq!(ahead.len(), body.len(), "{what}: all of a chunk that was cut off");
                assert_eq!(known.rows, planned.chunks[0].rows.last.0, "{what}");
            }
        }
    }
    let claimed = Claimed::new("a.json", list(", oops"));
    let (ahead, _, planned) =
        read_ahead(&claimed, &CutRules { batch_bytes_max: u64::MAX, ..rules() });
    assert!(matches!(planned, Err(PlanError::Unusable(_))), "{planned:?}");
    assert!(ahead.len() > 1 << 20, "a file that is refused in the end was read ahead");
}

#[test]
fn an_input_that_was_cut_short_is_an_error_never_a_short_body() {
    let claimed = Claimed::new("a.jsonl", format!("{REQUEST}\n{REQUEST}\n"));
    claimed.plan().expect("planned");
    let file =
        fs::File::options().write(true).open(claimed.folder.input("a.jsonl")).expect("opened");
    file.set_len(50).expect("cut");
    let body = claimed.body(rows(1, 2), Frame::FileLine);
    let error = body.reader(0).expect("a reader").read_to_end(&mut Vec::new());
    assert_eq!(error.expect_err("too short").kind(), std::io::ErrorKind::UnexpectedEof);
}

/// Fault 47.
#[test]
fn a_line_of_two_hundred_megabytes_costs_no_memory() {
    let claimed = Claimed::new("a.jsonl", "");
    let mut file = fs::File::create(claimed.folder.input("a.jsonl")).expect("created");
    let block = vec![b'x'; 1 << 20];
    writeln!(file, "{REQUEST}").expect("written");
    for _ in 0..200 {
        file.write_all(&block).expect("written");
    }
    write!(file, "\n{REQUEST}").expect("written");
    drop(file);
    let before = peak_kib();
    let planned = claimed.plan_by(&CutRules { line_bytes_max: 4 << 20, ..rules() });
    let planned = planned.expect("planned");
    assert_eq!((planned.rows, planned.invalid), (3, 1));
    assert_eq!(claimed.entries()[1].fate, LineFate::TooLong);
    assert_eq!(claimed.entries()[1].request_len, 200 << 20);
    assert!(claimed.explained(2).message.contains("209715200 bytes"));
    // Other tests run beside this one, so the bound is far below the line, not tight.
    let grown = peak_kib().saturating_sub(before);
    assert!(grown < 100 * 1024, "peak memory grew by {grown} KiB");
}

/// The most memory this process has ever had.
fn peak_kib() -> u64 {
    let status = fs::read_to_string(Path::new("/proc/self/status")).expect("Linux");
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("a peak");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number")
}

/// Text with everything that could confuse whoever looks for brackets, quotes and lines.
fn text() -> impl Strategy<Value = String> {
    proptest::collection::vec(
        prop_oneof![
            Just("\""),
            Just("\\"),
            Just("]}"),
            Just("{["),
            Just("\n"),
            Just("，"),
            Just("a")
        ],
        0..6,
    )
    .prop_map(|parts| parts.concat())
}

fn request() -> impl Strategy<Value = Value> {
    (text(), text()).prop_map(|(text, role)| {
        json!({"contents": [{"role": role, "parts": [{"text": text}]}], "generationConfig": {}})
    })
}

fn row() -> impl Strategy<Value = (Value, Value)> {
    (request(), 0..3, text()).prop_map(|(request, form, key)| {
        let whole = match form {
            0 => json!({"key": key, "request": request}),
            1 => json!({"metadata": {"key": 7}, "request": request}),
            _ => request.clone(),
        };
        (whole, request)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn bodies_reparse_to_the_same_requests_and_resume_at_every_byte(
        found in proptest::collection::vec(row(), 1..6),
        shape in 0..3,
        inline: bool,
        closed in 0_u64..6,
    ) {
        let wholes: Vec<&Value> = found.iter().map(|(whole, _)| whole).collect();
        let content = match shape {
            0 => wholes.iter().map(|whole| format!("{whole}\r\n")).collect::<String>(),
            1 => format!("{:#}", json!(wholes)),
            _ => json!({"batch": {"input_config": {"requests": {"requests": wholes}}}}).to_string(),
        };
        let name = if shape == 0 { "a.jsonl" } else { "a.json" };
        let claimed = Claimed::new(name, content);
        let planned = claimed.plan().expect("all are valid");
        prop_assert_eq!(planned.rows, found.len() as u64);
        if (1..=planned.rows).contains(&closed) {
            claimed.close(closed, Verdict::Answered);
        }
        let frame = if inline { Frame::InlineItem } else { Frame::FileLine };
        let body = claimed.body(rows(1, planned.rows), frame);
        let bytes = read_all(&body, 0);
        prop_assert_eq!(bytes.len() as u64, body.len());
        for offset in 0..=bytes.len() + 1 {
            let rest = bytes.get(offset..).unwrap_or_default();
            prop_assert_eq!(&read_all(&body, offset as u64)[..], rest);
        }
        let text = String::from_utf8(bytes).expect("UTF-8");
        let items: Vec<Value> = if inline {
            serde_json::from_str(&format!("[{text}]")).expect("items")
        } else {
            text.lines().map(|line| serde_json::from_str(line).expect("a line")).collect()
        };
        let sent = found.iter().zip(1_u64..).filter(|(_, row)| *row != closed);
        let sent: Vec<_> = sent.map(|((_, request), row)| (row.to_string(), request)).collect();
        prop_assert_eq!(items.len(), sent.len());
        for (item, (row, request)) in items.iter().zip(sent) {
            prop_assert_eq!(&item["request"], request);
            let key = if inline { &item["metadata"]["key"] } else { &item["key"] };
            prop_assert_eq!(key, &json!(row));
        }
    }

    #[test]
    fn no_bytes_make_planning_fail_in_any_other_way_than_a_refusal(
        bytes in proptest::collection::vec(
            prop_oneof![Just(b'{'), Just(b'}'), Just(b'['), Just(b']'), Just(b'"'), Just(b'\\'),
                Just(b','), Just(b':'), Just(b'\n'), Just(b' '), Just(b'1'), Just(0xff_u8), Just(0_u8)],
            0..40),
        json: bool,
    ) {
        let claimed = Claimed::new(if json { "a.json" } else { "a.jsonl" }, bytes);
        let refusal = claimed.plan().expect_err("there is no request in it");
        prop_assert!(!refusal.message.is_empty() && !refusal.remedy.is_empty());
    }
}
