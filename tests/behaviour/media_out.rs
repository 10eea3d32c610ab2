//! Images in answers become files beside the results.

use std::fs;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use gemini_batchd::provider::gemini::emulator::Faults;
use serde_json::{Value, json};

use super::rig::{Rig, keys, requests};

const IMAGES: &str = "queue.images.model = \"gemini-2.5-flash-image\"";

/// What stands in the parts of an answer under a name.
fn parts<'a>(line: &'a Value, name: &str) -> Vec<&'a Value> {
    let parts = line["response"]["candidates"][0]["content"]["parts"].as_array().expect("parts");
    parts.iter().map(|part| &part[name]).filter(|value| !value.is_null()).collect()
}

fn is_png(bytes: &[u8]) -> bool {
    bytes.starts_with(b"\x89PNG\r\n\x1a\n") && bytes.ends_with(b"IEND\xae\x42\x60\x82")
}

#[tokio::test(flavor = "multi_thread")]
async fn images_become_files_that_the_results_name() {
    for transport in ["file", "inline"] {
        let transport = format!("queue.images.transport = {transport:?}");
        let rig = Rig::with(Faults::default(), &[IMAGES, transport.as_str()]).await;
        rig.drop_file("images/a.jsonl", requests(3) + "no request\n" + &requests(1));
        rig.drop_file("b.jsonl", requests(1));
        rig.drain().await;
        let results = rig.lines("images/a.results.jsonl");
        let lines = ["1", "2", "3", "5"];
        let mut bytes = 0;
        for (result, line) in results.iter().zip(lines) {
            let [file] = parts(result, "fileData")[..] else { panic!("{result}") };
            let uri = format!("a.media/{line}-1.png");
            assert_eq!(*file, json!({"mimeType": "image/png", "fileUri": uri}));
            let path = rig.path("outbox/images").join(uri);
            let content =
                fs::read(&path).unwrap_or_else(|error| panic!("{error} {}", rig.listing()));
            assert!(is_png(&content));
            bytes += content.len();
            assert_eq!(parts(result, "text").len(), 1, "what stands beside it stays");
            assert!(parts(result, "inlineData").is_empty());
        }
        let manifest = rig.manifest("images/a");
        assert_eq!(manifest["media"], json!({"files": 4, "bytes": bytes}));
        assert_eq!(manifest["answered"], 4);
        assert_eq!(rig.manifest("b")["media"], Value::Null);
        assert!(!rig.path("outbox/b.media").exists());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn images_stay_in_the_results_where_that_is_wanted() {
    let inline = "queue.images.media = \"inline\"";
    let rig = Rig::with(Faults::default(), &[IMAGES, inline]).await;
    rig.drop_file("images/a.jsonl", requests(1));
    rig.drain().await;
    let results = rig.lines("images/a.results.jsonl");
    let data = parts(&results[0], "inlineData")[0]["data"].as_str().expect("base64");
    assert!(is_png(&STANDARD.decode(data).expect("base64")));
    assert!(!rig.path("outbox/images/a.media").exists());
    assert_eq!(rig.manifest("images/a")["media"], Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn drafts_of_an_image_stay_where_they_are() {
    let newer = "queue.images.model = \"gemini-3-pro-image-preview\"";
    let rig = Rig::with(Faults::default(), &[newer]).await;
    rig.drop_file("images/a.jsonl", requests(1));
    rig.drain().await;
    let results = rig.lines("images/a.results.jsonl");
    assert_eq!(parts(&results[0], "fileData")[0]["fileUri"], "a.media/1-1.png");
    assert_eq!(parts(&results[0], "inlineData").len(), 1, "the draft");
    assert_eq!(parts(&results[0], "thoughtSignature").len(), 1);
    assert_eq!(rig.manifest("images/a")["media"]["files"], 1);
    assert_eq!(fs::read_dir(rig.path("outbox/images/a.media")).expect("listed").count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_is_taken_is_left_alone_and_the_results_name_the_other() {
    let rig = Rig::with(Faults::default(), &[IMAGES]).await;
    fs::create_dir_all(rig.path("outbox/images/a.media")).expect("made");
    fs::write(rig.path("outbox/images/a.media/1-1.png"), "somebody else's").expect("written");
    rig.drop_file("images/a.jsonl", requests(2));
    rig.drain().await;
    let kept = fs::read(rig.path("outbox/images/a.media/1-1.png")).expect("there");
    assert_eq!(kept, b"somebody else's");
    let results = rig.lines("images/a~2.results.jsonl");
    assert_eq!(keys(&results), ["k1", "k2"]);
    assert_eq!(parts(&results[1], "fileData")[0]["fileUri"], "a~2.media/2-1.png");
    assert!(is_png(&fs::read(rig.path("outbox/images/a~2.media/2-1.png")).expect("there")));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_of_a_megabyte_comes_out_whole() {
    let rig = Rig::with(Faults::default(), &[IMAGES]).await;
    let request = json!({"contents": [{"parts": [{"text": "large"}]}], "generationConfig":
        {"imageConfig": {"imageSize": "1K"}, "responseModalities": ["IMAGE"]}});
    rig.drop_file("images/a.jsonl", format!("{}\n", json!({"key": "k", "request": request})));
    rig.drain().await;
    let content = fs::read(rig.path("outbox/images/a.media/1-1.png")).expect("there");
    assert!(is_png(&content) && content.len() > 1 << 20, "{} bytes", content.len());
    let results = fs::metadata(rig.path("outbox/images/a.results.jsonl")).expect("there").len();
    assert!(results < 2000, "{results} bytes");
}
