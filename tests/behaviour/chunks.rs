//! Big inputs with small limits.

use gemini_batchd::provider::gemini::emulator::{Faults, Happened};

use super::rig::{Rig, request};

/// Lines of all accepted forms and some bad ones, about `bytes` in all.
fn mixed(bytes: usize) -> (String, usize) {
    let mut input = String::new();
    let mut lines = 0;
    while input.len() < bytes {
        lines += 1;
        let text = format!("{lines} {}", "lorem ipsum dolor ".repeat(lines % 97));
        let contents = serde_json::json!([{"parts": [{"text": text}]}]);
        let line = match lines % 5 {
            0 => serde_json::json!({"contents": contents}).to_string(),
            1 => request(&format!("k{lines}"), &text).trim_end().to_owned(),
            2 => {
                serde_json::json!({"request": {"contents": contents}, "metadata": {"key": "same"}})
                    .to_string()
            }
            3 => serde_json::json!({"key": lines, "request": {"contents": contents}}).to_string(),
            _ if lines % 25 == 4 => format!("{{\"key\": \"broken {lines}\", \"request\""),
            _ => request("same", &text).trim_end().to_owned(),
        };
        input.push_str(&line);
        input.push('\n');
    }
    (input, lines)
}

async fn goes_through(bytes: usize, settings: &[&str], chunks_min: usize) {
    let rig = Rig::with(Faults::default(), settings).await;
    let (input, lines) = mixed(bytes);
    rig.drop_file("big.jsonl", &input);
    rig.drain().await;
    let manifest = rig.json("outbox/big.manifest.json");
    assert_eq!(manifest["lines"], lines);
    let expected_bad = input.lines().filter(|line| line.contains("broken")).count();
    assert_eq!(manifest["failed"], expected_bad);
    assert!(rig.creates().len() >= chunks_min, "{} chunks", rig.creates().len());
    let results = std::fs::read_to_string(rig.path("outbox/big.results.jsonl")).expect("results");
    let mut answers = results.lines();
    for (n, line) in (1..).zip(input.lines()) {
        if line.contains("broken") {
            continue;
        }
        let answer: serde_json::Value =
            serde_json::from_str(answers.next().expect("as many answers")).expect("JSON");
        let asked: serde_json::Value = serde_json::from_str(line).expect("JSON");
        let key = [&asked["key"], &asked["metadata"]["key"]].into_iter().find(|key| !key.is_null());
        assert_eq!(answer["key"], key.cloned().unwrap_or_else(|| format!("line-{n}").into()));
        let text = super::rig::text(&answer);
        assert!(text.contains(&format!(" {n} ")), "line {n}: {text:.80}");
    }
    assert_eq!(answers.next(), None);
}

/// Bytes of the big input; `BIG_BYTES=50000000` makes it as big as one likes.
fn big() -> usize {
    std::env::var("BIG_BYTES").ok().and_then(|text| text.parse().ok()).unwrap_or(10_000_000)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_big_file_of_mixed_lines_goes_through_in_many_chunks_by_file() {
    let limit = format!("limits.file_bytes = \"{}B\"", big() / 6);
    goes_through(big(), &["queue.default.transport = \"file\"", &limit], 5).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_big_file_of_mixed_lines_goes_through_in_many_chunks_inline() {
    let limit = format!("limits.inline_bytes = \"{}B\"", big() / 6);
    goes_through(big(), &["queue.default.transport = \"inline\"", &limit], 5).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_file_travels_inline_and_a_larger_one_as_a_file() {
    let rig = Rig::with(Faults::default(), &["limits.inline_bytes = \"4kB\""]).await;
    rig.drop_file("small.jsonl", super::rig::requests(2));
    rig.drop_file("large.jsonl", super::rig::requests(200));
    rig.drain().await;
    let mut kinds: Vec<(u64, String)> = Vec::new();
    for entry in rig.emulator.journal() {
        if let Happened::Created { rows, input, .. } = entry.what {
            kinds.push((rows, format!("{input:?}")));
        }
    }
    kinds.sort();
    assert_eq!(kinds, [(2, "Inline".to_owned()), (200, "File".to_owned())]);
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_the_api_can_store_goes_through_by_making_room() {
    let settings = [
        "queue.default.transport = \"file\"",
        "queue.default.lines_per_batch = 50",
        "limits.file_bytes = \"9kB\"",
        "limits.storage_bytes = \"10kB\"",
    ];
    let rig = Rig::with(Faults::default(), &settings).await;
    rig.drop_file("a.jsonl", super::rig::requests(500));
    rig.drain().await;
    assert_eq!(rig.manifest("a")["answered"], 500);
    assert_eq!(rig.creates().len(), 10);
}
