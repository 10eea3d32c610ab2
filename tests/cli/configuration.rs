use std::process::Stdio;

use predicates::prelude::*;

use crate::Place;

#[test]
fn a_valid_configuration_with_a_key_passes_the_check() {
    let place = Place::new();
    place
        .run(&["config", "check"])
        .env("GEMINI_API_KEY", "marker-key")
        .assert()
        .code(0)
        .stdout(predicate::str::contains("from environment GEMINI_API_KEY"))
        .stdout(predicate::str::contains("marker-key").not());
}

#[test]
fn a_missing_key_has_its_own_exit_code_and_says_where_to_get_one() {
    let place = Place::new();
    place
        .run(&["config", "check"])
        .assert()
        .code(12)
        .stderr(predicate::str::starts_with("error: no API key"))
        .stderr(predicate::str::contains("https://aistudio.google.com/apikey"));
}

#[test]
fn an_unknown_key_is_told_with_file_line_and_the_nearest_key() {
    let place = Place::new();
    place.write("gemini-batchd.toml", "[intake]\n\nsetle = \"5s\"\n");
    place
        .run(&["config", "check"])
        .assert()
        .code(10)
        .stdout("")
        .stderr(predicate::str::contains("gemini-batchd.toml:3: unknown key `setle`"))
        .stderr(predicate::str::contains("did you mean `settle`?"))
        .stderr(predicate::str::contains("\n  try: "));
}

#[test]
fn every_setting_is_shown_with_its_origin_and_never_the_key() {
    let place = Place::new();
    place.write("gemini-batchd.toml", "[poll]\nmin = \"20s\"\n");
    place
        .run(&["config", "show"])
        .env("GEMINI_BATCHD__POLL__MAX", "1h")
        .env("GOOGLE_API_KEY", "marker-key")
        .assert()
        .code(0)
        .stdout(
            predicate::str::is_match(r#"min = "20s" +# .*gemini-batchd.toml:2"#).expect("valid"),
        )
        .stdout(predicate::str::is_match(r#"max = "1h" +# environment GEMINI"#).expect("valid"))
        .stdout(predicate::str::is_match(r#"settle = "2s" +# default"#).expect("valid"))
        .stdout(predicate::str::contains("from environment GOOGLE_API_KEY"))
        .stdout(predicate::str::contains("marker-key").not());
}

#[test]
fn what_is_shown_can_be_used_as_a_file() {
    let place = Place::new();
    place.write(
        "gemini-batchd.toml",
        "[queue.\"a/b\"]\nattempts = 5\n[intake]\nignore = [\"*.x\"]\n",
    );
    let shown = place.run(&["config", "show"]).output().expect("run").stdout;
    place.write("second.toml", &String::from_utf8(shown).expect("UTF-8"));
    place
        .run(&["config", "show", "--config", "second.toml"])
        .assert()
        .code(0)
        .stdout(predicate::str::contains("[queue.\"a/b\"]"))
        .stdout(predicate::str::contains("attempts = 5"));
}

#[test]
fn show_speaks_json_on_demand() {
    let place = Place::new();
    let output = place.run(&["config", "show", "--json"]).output().expect("run");
    let value: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert!(value["settings"].as_array().expect("a list").len() > 40);
    assert_eq!(value["api_key_from"], serde_json::Value::Null);
}

#[test]
fn a_misspelled_verb_is_a_usage_error_with_a_suggestion() {
    let place = Place::new();
    place.run(&["sumbit", "x.jsonl"]).assert().code(2).stderr(predicate::str::contains("'submit'"));
}

#[test]
fn a_misspelled_log_level_is_a_usage_error() {
    let place = Place::new();
    place
        .run(&["config", "show", "--log-level", "loud"])
        .assert()
        .code(2)
        .stderr(predicate::str::contains("\"loud\" is not understood"));
}

#[test]
fn a_reader_that_goes_away_ends_the_verb_quietly() {
    let place = Place::new();
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let output = place
        .std_command()
        .args(["config", "example"])
        .stdout(writer)
        .stderr(Stdio::piped())
        .output()
        .expect("run");
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

/// Fault 25.
#[test]
fn a_spool_that_can_not_be_made_is_told_with_a_remedy() {
    let place = Place::new();
    place.write("spool", "a file, where the folder should be");
    place
        .run(&["once"])
        .env("GEMINI_API_KEY", "made-up")
        .assert()
        .code(10)
        .stderr(predicate::str::contains("error: cannot create folder "))
        .stderr(predicate::str::contains("try: the spool must be a folder"));
}

#[test]
fn a_drain_says_why_a_file_was_refused() {
    let place = Place::new();
    place.write("spool/inbox/a.jsonl", "");
    place
        .run(&["once"])
        .env("GEMINI_API_KEY", "made-up")
        .env("GEMINI_BATCHD__INTAKE__SETTLE", "0s")
        .assert()
        .code(1)
        .stdout(predicate::str::contains("a.jsonl  refused\n    the file is empty. Write one"));
}

#[test]
fn what_counts_for_a_file_is_explained_with_its_origins() {
    let place = Place::new();
    place.write(
        "gemini-batchd.toml",
        "[spool]\ndir = \"spool\"\n[queue.reviews]\nattempts = 5\nmodel = \"gemini-2.5-pro\"\n",
    );
    std::fs::create_dir_all(place.folder.path().join("spool/inbox/reviews/deep")).expect("made");
    place.write("spool/inbox/reviews/deep/a.job.toml", "# mine\npriority = 3\n");
    let explain = |path: &str| {
        let mut run = place.run(&["config", "explain", path]);
        run.env("GEMINI_BATCHD__QUEUE__REVIEWS__TRANSPORT", "file").assert().code(0)
    };
    // There or not yet, counted from the inbox or from here.
    for path in ["reviews/deep/a.jsonl", "spool/inbox/reviews/deep/a.jsonl"] {
        explain(path)
            .stdout(predicate::str::contains("# queue: reviews\n"))
            .stdout(predicate::str::contains("# settings beside it: a.job.toml\n"))
            .stdout(line(r#"model = "gemini-2.5-pro" +# .*gemini-batchd.toml:5"#))
            .stdout(line("attempts = 5 +# .*gemini-batchd.toml:4"))
            .stdout(line("priority = 3 +# .*/inbox/reviews/deep/a.job.toml:2"))
            .stdout(line(r#"transport = "file" +# environment GEMINI_BATCHD__QUEUE__REVIEWS"#))
            .stdout(line("lines_per_batch = 0 +# default"));
    }
    explain("reviews/deep/")
        .stdout(predicate::str::contains("# files in inbox/reviews/deep/"))
        .stdout(line("priority = 0 +# default"));
    explain("other/b.docx")
        .stdout(predicate::str::contains("# queue: default\n"))
        .stdout(predicate::str::contains("is refused"));
    let mut run = place.run(&["config", "explain", "--json", "reviews/deep/a.jsonl"]);
    let output = run.output().expect("run").stdout;
    let value: serde_json::Value = serde_json::from_slice(&output).expect("JSON");
    assert_eq!((&value["queue"], &value["sidecar"]), (&"reviews".into(), &"a.job.toml".into()));
    let settings = value["settings"].as_array().expect("a list");
    let priority = settings.iter().find(|one| one["key"] == "priority").expect("explained");
    assert_eq!(priority["value"], "3");
    assert!(priority["from"].as_str().is_some_and(|from| from.ends_with("a.job.toml:2")));
}

#[test]
fn what_can_not_be_explained_says_why() {
    let place = Place::new();
    place.write("gemini-batchd.toml", "[spool]\ndir = \"spool\"\n");
    std::fs::create_dir_all(place.folder.path().join("spool/inbox")).expect("made");
    place.write("spool/inbox/a.job.toml", "attempts = 0\n[queue.default]\nmodel = \"m\"\n");
    place.write("spool/inbox/b.job.toml", "attempts = 0\ndefaults = { contents = [] }\n");
    for (path, code, why) in [
        ("/etc/passwd", 2, "is not in the inbox"),
        ("../a.jsonl", 2, "`..`"),
        ("a.jsonl", 10, "a.job.toml:2: [queue] is a section of the configuration"),
        ("b.jsonl", 10, "b.job.toml:1: attempts is 0; it must be between 1 and 100"),
        ("b.jsonl", 10, "b.job.toml:2: defaults has `contents`: every request has its own"),
    ] {
        place
            .run(&["config", "explain", path])
            .assert()
            .code(code)
            .stderr(predicate::str::contains(why));
    }
}

#[test]
fn a_check_names_the_queues() {
    let place = Place::new();
    place.write(
        "gemini-batchd.toml",
        "[queue.e]\ntask = \"embed\"\nmodel = \"gemini-embedding-001\"\ndefaults = { title = \"t\" }\n",
    );
    place
        .run(&["config", "check"])
        .env("GEMINI_API_KEY", "marker-key")
        .assert()
        .code(0)
        .stdout(predicate::str::contains("default: generate, gemini-2.5-flash\n"))
        .stdout(predicate::str::contains("e: embed, gemini-embedding-001, with defaults\n"));
}

/// A line of the output.
fn line(pattern: &str) -> predicates::str::RegexPredicate {
    predicate::str::is_match(pattern).expect("a pattern")
}
