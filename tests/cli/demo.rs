use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use gemini_batchd::cli::demo::features::{Embedded, FEATURES};
use predicates::prelude::*;

use crate::Place;

#[test]
fn the_demo_answers_every_example_and_keeps_what_it_is_told_to() {
    let place = Place::new();
    place
        .run(&["demo", "--keep", "kept"])
        .timeout(Duration::from_secs(60))
        .assert()
        .code(0)
        .stdout(predicate::str::contains("inbox/translate.jsonl: 12 lines, 12 answered, 0 failed"))
        .stdout(predicate::str::contains("inbox/guide.jsonl: 2 lines, 2 answered, 0 failed"))
        .stdout(predicate::str::contains("\"zh-1\": "))
        .stdout(predicate::str::contains("outbox/reviews/classify.manifest.json"));
    for name in ["guide", "translate", "questions-zh", "reviews/classify"] {
        assert_eq!(manifest(&place, name)["verdict"], "complete", "{name}");
    }
    let results = std::fs::read_to_string(place.path("kept/outbox/reviews/classify.results.jsonl"));
    let first: serde_json::Value =
        serde_json::from_str(results.expect("there").lines().next().expect("a line"))
            .expect("JSON");
    assert_eq!(first["key"], 1001, "in input order, the key as it was written");
    place.run(&["demo", "--keep", "kept"]).assert().code(2);
}

#[test]
fn demo_all_runs_every_feature_and_each_ends_as_its_table_says() {
    let place = Place::new();
    let ran = place
        .run(&["demo", "--all", "--keep", "kept"])
        .timeout(Duration::from_secs(240))
        .assert()
        .code(0);
    let said = String::from_utf8(ran.get_output().stdout.clone()).expect("UTF-8");
    assert!(said.contains("Left at the API: 0 uploaded files, 0 batches.\n"), "{said}");
    for feature in FEATURES {
        let file = feature.file.path;
        assert!(said.contains(&format!("inbox/{file}: {}\n", feature.shows)), "{file}: {said}");
        if feature.answered + feature.failed == 0 {
            assert!(place.path("kept/failed").join(file).exists(), "{file} is refused");
            continue;
        }
        let manifest = manifest(&place, stem(file));
        let counts = (manifest["answered"].as_u64(), manifest["failed"].as_u64());
        assert_eq!(counts, (Some(feature.answered), Some(feature.failed)), "{file}");
        for made in feature.makes {
            assert!(place.path("kept/outbox").join(made).exists(), "{file}: {made}");
        }
    }
}

#[test]
fn a_bad_night_within_a_minute_ends_with_every_line_answered_and_a_report() {
    let place = Place::new();
    let ran = place
        .run(&["demo", "--night", "--keep", "kept"])
        .timeout(Duration::from_secs(300))
        .assert()
        .code(0);
    let said = String::from_utf8(ran.get_output().stdout.clone()).expect("UTF-8");
    let told = ["nothing is sent before 22:00", "batch created", "does not begin", "flex tier"];
    let places: Vec<Option<usize>> = told.iter().map(|words| said.find(words)).collect();
    assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{places:?}: {said}");
    assert!(said.contains("# Report from ") && said.contains("18 answered, none failed"), "{said}");
    let manifest = manifest(&place, "tickets/classify");
    let other = self::manifest(&place, "tickets/translate");
    let answered = |manifest: &serde_json::Value| manifest["answered"].as_u64().unwrap_or(0);
    assert_eq!(answered(&manifest) + answered(&other), 18);
    let rescued = |manifest: &serde_json::Value| manifest["rescued"]["flex"].as_u64().unwrap_or(0);
    assert!(rescued(&manifest) + rescued(&other) > 0, "one of the two batches never began");
}

#[test]
fn every_file_of_the_feature_examples_is_in_the_table() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/features");
    let mut there = BTreeSet::new();
    let mut folders = vec![folder.clone()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next).expect("listed") {
            let path = entry.expect("listed").path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let below = path.strip_prefix(&folder).expect("below");
                there.insert(below.to_str().expect("UTF-8").to_owned());
            }
        }
    }
    let embedded = |file: &Embedded| {
        assert_eq!(std::fs::read(folder.join(file.path)).ok().as_deref(), Some(file.content))
    };
    let mut table = BTreeSet::new();
    for feature in FEATURES {
        for file in feature.beside.iter().chain([&feature.file]) {
            embedded(file);
            table.insert(file.path.to_owned());
        }
    }
    assert_eq!(there, table);
}

#[test]
fn every_feature_of_the_demo_is_told_in_the_readme() {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let readme = std::fs::read_to_string(readme).expect("there");
    for feature in FEATURES {
        let link = format!("](examples/features/{})", feature.file.path);
        assert!(readme.contains(&link), "the table of README.md has no row with {link}");
    }
}

#[test]
fn the_settings_of_the_feature_examples_are_valid_by_themselves() {
    let place = Place::new();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/features.toml");
    place
        .run(&["config", "check", "--config", file.to_str().expect("UTF-8")])
        .env("GEMINI_API_KEY", "k")
        .env("GEMINI_API_KEY_TEAM", "k2")
        .assert()
        .code(0);
}

/// The name of its outputs.
fn stem(file: &str) -> &str {
    let name = file.rfind('/').map_or(0, |at| at + 1);
    let end = file[name..].find('.').map_or(file.len(), |at| name + at);
    &file[..end]
}

fn manifest(place: &Place, stem: &str) -> serde_json::Value {
    let file = place.path("kept/outbox").join(format!("{stem}.manifest.json"));
    let text = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{file:?}: {error}"));
    serde_json::from_str(&text).expect("JSON")
}
