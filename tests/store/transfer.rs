//! Exports hold everything, imports overwrite nothing.

use gemini_batchd::engine::{Change, ChunkNo};
use gemini_batchd::store::backend::Backend;
use gemini_batchd::store::export::{Imported, export, import};
use gemini_batchd::store::record;
use gemini_batchd::store::{JobStore, MemoryStore, StoreError};

use crate::contract::Model;
use crate::dice::{Dice, id};
use crate::{for_every_backend, open_whole};

fn filled() -> (MemoryStore, Model) {
    let mut store = MemoryStore::new();
    let mut model = Model::default();
    store.save(&model.draw(&mut Dice(3), 200)).expect("saved");
    store.set_note("last slot", "2026-11-21T03:30:00Z").expect("saved");
    model.notes.insert("last slot".into(), "2026-11-21T03:30:00Z".into());
    (store, model)
}

fn exported(store: &dyn JobStore) -> Vec<u8> {
    let mut bytes = Vec::new();
    let lines = export(store, &mut bytes).expect("exported");
    assert_eq!(lines, bytes.iter().filter(|byte| **byte == b'\n').count() as u64);
    bytes
}

#[test]
fn an_export_comes_back_into_any_other_kind_of_store() {
    fn check<B: Backend>() {
        let (memory, model) = filled();
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut store = open_whole::<B>(folder.path());
        let done = import(&exported(&memory)[..], &mut store).expect("imported");
        let jobs = model.jobs.len() as u64;
        assert_eq!(done, Imported { jobs, present: 0, notes: 1 });
        model.check(&store, "imported");
        assert_eq!(exported(&store), exported(&memory));
        drop(store);
        let store = open_whole::<B>(folder.path());
        let mut back = MemoryStore::new();
        import(&exported(&store)[..], &mut back).expect("imported");
        model.check(&back, "there and back");
    }
    for_every_backend!(check);
}

#[test]
fn the_same_export_twice_changes_nothing() {
    let (mut memory, model) = filled();
    let bytes = exported(&memory);
    let done = import(&bytes[..], &mut memory).expect("imported");
    assert_eq!(done, Imported { jobs: 0, present: model.jobs.len() as u64, notes: 0 });
    model.check(&memory, "imported twice");
}

#[test]
fn a_job_that_differs_is_refused_with_its_line_and_nothing_is_taken() {
    let mut from = MemoryStore::new();
    let mut dice = Dice(4);
    let heads = [dice.head(id(1)), dice.head(id(2))];
    from.save(&heads.map(|head| Change::Head(Box::new(head)))).expect("saved");
    let mut into = MemoryStore::new();
    into.save(&[Change::Head(Box::new(dice.head(id(2))))]).expect("saved");
    let before = exported(&into);
    match import(&exported(&from)[..], &mut into) {
        Err(StoreError::Import { line: 2, reason }) => assert!(reason.contains("never overwrites")),
        other => panic!("{other:?}"),
    }
    assert_eq!(exported(&into), before);
}

#[test]
fn a_wrong_line_is_named() {
    let (memory, _) = filled();
    let good = String::from_utf8(exported(&memory)).expect("JSON is text");
    let head = good.lines().next().expect("a line");
    let chunk = {
        let mut store = MemoryStore::new();
        let head = Change::Head(Box::new(Dice(1).head(id(77))));
        store
            .save(&[head, Change::Chunk(id(77), Box::new(Dice(1).chunk(ChunkNo(1))))])
            .expect("saved");
        String::from_utf8(exported(&store)).expect("text").lines().nth(1).expect("it").to_owned()
    };
    let long = format!("{}{head}", " ".repeat(64 * 1024));
    let cases = [
        (format!("{head}\n\n{{\"v\":1"), 3, "EOF"),
        (format!("{head}\n{head}\n"), 2, "on line 1 already"),
        (format!("{head}\n{chunk}"), 2, "no head"),
        (long, 1, "longer than"),
        (format!("{head}\n{}", r#"{"v":9}"#), 2, "version 9"),
    ];
    for (text, expected, word) in cases {
        let mut into = MemoryStore::new();
        match import(text.as_bytes(), &mut into) {
            Err(StoreError::Import { line, reason }) => {
                assert_eq!(line, expected, "{reason}");
                assert!(reason.contains(word), "{reason}");
            }
            other => panic!("{word}: {other:?}"),
        }
        assert_eq!(into.load().expect("read"), []);
    }
}

/// Such a line is not ours: somebody left out what is empty.
#[test]
fn a_record_that_is_too_large_when_it_is_written_out_is_named_before_anything_is_taken() {
    let mut dice = Dice(12);
    let mut chunk = dice.chunk(ChunkNo(1));
    chunk.last_error = None;
    let mut write = |name: usize| {
        let file = gemini_batchd::engine::FileName("x".repeat(name));
        chunk.state = gemini_batchd::engine::ChunkState::Uploading { file };
        record::write_chunk(id(2), &chunk)
    };
    let around = write(0).len();
    for (bytes, fits) in [(record::BYTES_MAX, true), (record::BYTES_MAX + 1, false)] {
        let long = String::from_utf8(write(bytes - around)).expect("text");
        assert_eq!(long.len(), bytes);
        let short = long.replace(r#","last_error":null"#, "");
        assert!(short.len() < record::BYTES_MAX);
        let mut text = Vec::new();
        for head in [dice.head(id(1)), dice.head(id(2))] {
            text.extend(record::write_head(&head));
            text.push(b'\n');
        }
        text.extend(short.into_bytes());
        let mut into = MemoryStore::new();
        match import(&text[..], &mut into) {
            Ok(done) => assert!(fits, "{done:?}"),
            Err(StoreError::Import { line: 3, reason }) => assert!(!fits, "{reason}"),
            Err(other) => panic!("{other:?}"),
        }
        assert_eq!(into.load().expect("read").len(), if fits { 2 } else { 0 });
    }
}
