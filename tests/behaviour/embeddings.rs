//! Queues that embed.

use gemini_batchd::provider::gemini::emulator::{Faults, Happened, JournalEntry};
use serde_json::{Value, json};

use super::rig::Rig;

const QUEUE: [&str; 2] =
    ["queue.embeddings.task = \"embed\"", "queue.embeddings.model = \"gemini-embedding-001\""];

fn line(key: &str, text: &str, dimensions: u64) -> String {
    let request = json!({
        "content": {"parts": [{"text": text}]},
        "taskType": "RETRIEVAL_DOCUMENT",
        "outputDimensionality": dimensions,
    });
    format!("{}\n", json!({"key": key, "request": request}))
}

fn values(line: &Value) -> usize {
    line["response"]["embedding"]["values"].as_array().map_or(0, Vec::len)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_embed_queue_brings_a_vector_for_every_line_by_file_and_inline() {
    for transport in ["file", "inline"] {
        let transport = format!("queue.embeddings.transport = \"{transport}\"");
        let settings = [QUEUE[0], QUEUE[1], transport.as_str()];
        let rig = Rig::with(Faults::default(), &settings).await;
        let bare = json!({"content": {"parts": [{"text": "bare"}]},
            "embedContentConfig": {"outputDimensionality": 5}});
        let input = line("a", "one", 8) + &line("b", "two", 16) + &format!("{bare}\n");
        rig.drop_file("embeddings/a.jsonl", input);
        rig.drain().await;
        let results = rig.lines("embeddings/a.results.jsonl");
        let found: Vec<(Value, usize)> =
            results.iter().map(|line| (line["key"].clone(), values(line))).collect();
        assert_eq!(found, [(json!("a"), 8), (json!("b"), 16), (json!("line-3"), 5)], "{transport}");
        let manifest = rig.manifest("embeddings/a");
        assert_eq!(manifest["verdict"], "complete");
        assert_eq!(manifest["batches"][0]["model"], "models/gemini-embedding-001");
        assert!(
            manifest["tokens"]["prompt"].as_u64().is_some_and(|tokens| tokens > 0),
            "{manifest}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_of_another_task_fails_alone_and_says_where_it_belongs() {
    let rig = Rig::with(Faults::default(), &QUEUE).await;
    let generate = json!({"key": "g", "request": {"contents": [{"parts": [{"text": "x"}]}]}});
    rig.drop_file("embeddings/a.jsonl", line("a", "one", 8) + &format!("{generate}\n"));
    rig.drop_file("b.jsonl", format!("{generate}\n") + &line("e", "one", 8));
    rig.drain().await;
    for (stem, key, hint) in
        [("embeddings/a", "g", "task = \"embed\""), ("b", "e", "task = \"embed\"")]
    {
        let errors = rig.lines(&format!("{stem}.errors.jsonl"));
        let [error] = &errors[..] else { panic!("{errors:?}") };
        assert_eq!((error["key"].as_str(), error["line"].as_u64()), (Some(key), Some(2)));
        let message = error["error"]["message"].as_str().unwrap_or_default();
        assert!(message.contains(hint), "{message}");
        assert_eq!(rig.lines(&format!("{stem}.results.jsonl")).len(), 1);
    }
    let sent = |entry: &JournalEntry| match &entry.what {
        Happened::Created { rows, .. } => *rows,
        _ => 0,
    };
    assert_eq!(rig.emulator.journal().iter().map(sent).sum::<u64>(), 2, "only what fits is sent");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_create_body_of_embeddings_is_taken_as_a_file() {
    let rig = Rig::with(Faults::default(), &QUEUE).await;
    let item = |text: &str| json!({"request": {"content": {"parts": [{"text": text}]}, "outputDimensionality": 4}});
    let body =
        json!({"batch": {"inputConfig": {"requests": {"requests": [item("a"), item("b")]}}}});
    rig.drop_file("embeddings/a.json", body.to_string());
    rig.drain().await;
    let results = rig.lines("embeddings/a.results.jsonl");
    assert_eq!(results.iter().map(values).collect::<Vec<_>>(), [4, 4]);
}
