use std::time::Duration;

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
        let manifest = place.path("kept/outbox").join(format!("{name}.manifest.json"));
        let text = std::fs::read_to_string(manifest).expect("there");
        let value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(value["verdict"], "complete", "{name}");
    }
    let results = std::fs::read_to_string(place.path("kept/outbox/reviews/classify.results.jsonl"));
    let first: serde_json::Value =
        serde_json::from_str(results.expect("there").lines().next().expect("a line"))
            .expect("JSON");
    assert_eq!(first["key"], 1001, "in input order, the key as it was written");
    place.run(&["demo", "--keep", "kept"]).assert().code(2);
}
