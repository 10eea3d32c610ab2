//! Inputs that are packed, or texts, or tables.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use gemini_batchd::provider::gemini::emulator::{Faults, Happened};
use ruzstd::encoding::{CompressionLevel, compress_to_vec};
use serde_json::json;

use super::rig::{Rig, keys, request, requests, text};

fn gzip(bytes: impl AsRef<[u8]>) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes.as_ref()).expect("packed");
    encoder.finish().expect("packed")
}

fn zstd(bytes: impl AsRef<[u8]>) -> Vec<u8> {
    compress_to_vec(bytes.as_ref(), CompressionLevel::Fastest)
}

/// Lines that reached the API.
fn sent(rig: &Rig) -> u64 {
    let rows = rig.emulator.journal().into_iter().map(|entry| match entry.what {
        Happened::Created { rows, .. } => rows,
        _ => 0,
    });
    rows.sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_input_is_answered_under_its_bare_name() {
    let rig = Rig::with(Faults::default(), &["intake.duplicates = \"process\""]).await;
    let body: Vec<_> = ["a", "b"]
        .iter()
        .map(|key| json!({"metadata": {"key": key}, "request": {"contents": [{"parts": [{"text": key}]}]}}))
        .collect();
    let document = serde_json::to_string_pretty(&json!(body)).expect("JSON");
    let mut several = gzip(request("a", "one"));
    several.extend(gzip(request("b", "two")));
    let table = "id,prompt\na,one\nb,\"two\nlines\"\n";
    let inputs: [(&str, Vec<u8>, [&str; 2]); 9] = [
        ("lines-gz.jsonl.gz", several, ["a", "b"]),
        ("lines-zst.ndjson.zst", zstd(requests(2)), ["k1", "k2"]),
        ("document.json.gz", gzip(document), ["a", "b"]),
        ("text.txt", b"\xef\xbb\xbfone\r\n\r\ntwo".to_vec(), ["line-1", "line-3"]),
        ("text-zst.TXT.zst", zstd("one\ntwo\n"), ["line-1", "line-2"]),
        ("table.csv", table.into(), ["a", "b"]),
        ("sub/table-gz.csv.gz", gzip(table), ["a", "b"]),
        ("table-zst.csv.zst", zstd(table.replace(',', "\t")), ["a", "b"]),
        ("plain.jsonl", requests(2).into(), ["k1", "k2"]),
    ];
    for (name, content, _) in &inputs {
        rig.drop_file(name, content);
    }
    rig.drain().await;
    for (name, content, expected) in &inputs {
        let stem = &name[..name.find('.').expect("an ending")];
        let manifest = rig.manifest(stem);
        assert_eq!(manifest["verdict"], "complete", "{name}");
        assert_eq!(manifest["input"]["bytes"], content.len(), "{name}: of the file as it came");
        assert_eq!(keys(&rig.lines(&format!("{stem}.results.jsonl"))), *expected, "{name}");
        let archived = std::fs::read(rig.path("archive").join(name)).expect("archived");
        assert!(archived == *content, "{name}");
    }
    assert!(text(&rig.lines("table.results.jsonl")[1]).contains("two\nlines"));
    assert_eq!(sent(&rig), 2 * inputs.len() as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_comes_back_as_one_with_every_record_and_its_answer() {
    let settings = [
        "queue.default.emit_csv = true",
        "queue.default.template = \"Translate {{Text}} into {{to}}\"",
        "queue.default.key_column = \"number\"",
        "queue.default.lines_per_batch = 2",
    ];
    let rig = Rig::with(Faults::default(), &settings).await;
    let table = b"number;text;to;note\r\n1;Hund;en;\"a; b\"\r\n2;;;empty\r\n\r\n\
        3;Katze;fr;=1+1\r\n4;short\r\n5;M\xfcnch;fr;\r\n6;Haus;it;last";
    rig.drop_file("sub/words.csv", table);
    rig.drain().await;
    let manifest = rig.manifest("sub/words");
    assert_eq!((&manifest["answered"], &manifest["failed"]), (&json!(3), &json!(3)));
    assert_eq!(keys(&rig.lines("sub/words.results.jsonl")), ["1", "3", "6"]);
    let errors = rig.lines("sub/words.errors.jsonl");
    let lines: Vec<_> = errors.iter().map(|error| error["line"].as_u64()).collect();
    assert_eq!(lines, [Some(3), Some(6), Some(7)]);
    assert_eq!(keys(&errors), ["2", "line-6", "5"]);
    let made = std::fs::read(rig.path("outbox/sub/words.results.csv")).expect("a table");
    let rows: Vec<String> =
        made.split(|byte| *byte == b'\n').map(|row| String::from_utf8_lossy(row).into()).collect();
    for (row, begin, end) in [
        (0, "number;text;to;note;answer;error\r", ""),
        (1, "1;Hund;en;\"a; b\";", ";\r"),
        (2, "2;;;empty;;\"invalid_request: there is no text in ", "\r"),
        (3, "3;Katze;fr;=1+1;", ";\r"),
        (4, "4;short;;;;\"invalid_request: the record has 2 field(s), the header 4;", "\r"),
        (5, "5;M\u{fffd}nch;fr;;;", "\r"),
        (6, "6;Haus;it;last;", ";\r"),
    ] {
        assert!(rows[row].starts_with(begin) && rows[row].ends_with(end), "{:?}", rows[row]);
    }
    assert!(rows[1].contains("Translate Hund into en"), "{:?}", rows[1]);
    assert_eq!((rows.len(), rows[7].as_str()), (8, ""));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_embed_queue_embeds_texts_and_tables() {
    let settings = [
        "queue.embeddings.task = \"embed\"",
        "queue.embeddings.model = \"gemini-embedding-001\"",
        "queue.embeddings.emit_csv = true",
        "queue.embeddings.defaults = '{\"outputDimensionality\": 3}'",
    ];
    let rig = Rig::with(Faults::default(), &settings).await;
    rig.drop_file("embeddings/a.txt", "one\ntwo\n");
    rig.drop_file("embeddings/b.csv", "key,prompt\nx,one\n");
    rig.drain().await;
    assert_eq!(keys(&rig.lines("embeddings/a.results.jsonl")), ["line-1", "line-2"]);
    let line = &rig.lines("embeddings/b.results.jsonl")[0];
    assert_eq!(line["key"], "x");
    let values = line["response"]["embedding"]["values"].as_array().expect("a vector");
    assert_eq!(values.len(), 3, "defaults count for what is converted, too");
    let table =
        std::fs::read_to_string(rig.path("outbox/embeddings/b.results.csv")).expect("there");
    let (_, row) = table.split_once('\n').expect("a row");
    assert!(row.starts_with("x,one,\"[") && row.ends_with("]\",\n"), "{row}");
}

/// Fault 73.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_damaged_or_a_bomb_or_lacks_a_column_is_refused_whole_and_costs_nothing() {
    let settings = ["intake.unpacked_bytes = \"1MB\"", "queue.q.template = \"{{word}}\""];
    let rig = Rig::with(Faults::default(), &settings).await;
    let packed = gzip(requests(100));
    let cut = &packed[..packed.len() - 5];
    let mut flipped = zstd(requests(100));
    let middle = flipped.len() / 2;
    flipped[middle] ^= 4;
    let bomb = gzip(vec![b'\n'; 2_000_000]);
    let after = format!("after byte {}", cut.len());
    let inputs: [(&str, &[u8], &str, &str); 9] = [
        ("cut.jsonl.gz", cut, "damaged", &after),
        ("flipped.jsonl.zst", &flipped, "damaged", "damaged"),
        ("plain.jsonl.gz", b"{}\n", "damaged", "content does not"),
        ("bomb.txt.gz", &bomb, "unpacked_too_large", "1000000 bytes"),
        ("columns.csv", b"a,b\n1,2\n", "unknown_column", "but \"a\", \"b\""),
        ("q/columns.csv", b"prompt\nx\n", "unknown_column", "\"word\""),
        ("quote.csv", b"prompt\none\n\"two\nthree\n", "open_quote", "line 3"),
        ("header.csv", b"id,prompt\n\n", "empty", "no record"),
        ("blank.txt", b"\n  \n", "empty", "blank"),
    ];
    for (name, content, ..) in inputs {
        rig.drop_file(name, content);
    }
    rig.drain().await;
    for (name, content, reason, words) in inputs {
        let told = rig.json(&format!("failed/{name}.reason.json"));
        assert_eq!(told["reason"], reason, "{name}: {told}");
        assert!(told["message"].as_str().is_some_and(|said| said.contains(words)), "{told}");
        assert!(!told["remedy"].as_str().unwrap_or_default().is_empty(), "{told}");
        assert!(std::fs::read(rig.path("failed").join(name)).expect("kept") == content, "{name}");
    }
    assert_eq!(rig.json("failed/quote.csv.reason.json")["line"], 3);
    assert_eq!(sent(&rig), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_table_dropped_twice_waits_for_a_person_unless_it_asks_otherwise() {
    let rig = Rig::new(Faults::default()).await;
    let table = "prompt\none\n";
    rig.drop_file("a.csv", table);
    rig.drain().await;
    rig.drop_file("b.csv", table);
    rig.drain().await;
    assert!(rig.path("held/b.csv").exists(), "{}", rig.listing());
    assert_eq!(sent(&rig), 1);
    rig.drop_file("c.job.toml", "template = \"Say {{prompt}}\"\n");
    rig.drop_file("c.csv", table);
    rig.drain().await;
    assert!(text(&rig.lines("c.results.jsonl")[0]).contains("Say one"), "another question");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_dies_on_the_way_answers_a_packed_table_once() {
    let rig = Rig::with(Faults::default(), &["queue.default.emit_csv = true"]).await;
    rig.drop_file("a.csv.gz", gzip("prompt\none\ntwo\n"));
    rig.run_until(|rig| sent(rig) > 0).await;
    rig.drain().await;
    assert_eq!(rig.manifest("a")["answered"], 2);
    assert_eq!(sent(&rig), 2);
    let table = std::fs::read_to_string(rig.path("outbox/a.results.csv")).expect("a table");
    assert_eq!(table.lines().count(), 3, "{table}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_is_taken_by_a_table_of_somebody_is_not_used() {
    let rig = Rig::with(Faults::default(), &["queue.default.emit_csv = true"]).await;
    std::fs::create_dir_all(rig.path("outbox")).expect("made");
    std::fs::write(rig.path("outbox/a.results.csv"), "theirs").expect("written");
    rig.drop_file("a.csv", "prompt\none\n");
    rig.drop_file("b.txt", "one\n");
    rig.drain().await;
    assert_eq!(rig.manifest("a~2")["answered"], 1);
    assert_eq!(rig.manifest("b")["answered"], 1);
    assert!(!rig.path("outbox/b.results.csv").exists(), "only a table becomes one");
    assert!(rig.path("outbox/a~2.results.csv").exists());
    assert_eq!(std::fs::read(rig.path("outbox/a.results.csv")).expect("kept"), b"theirs");
}
