//! Every form a line may have, and what is said of those in none.

use super::*;

const WANTED: Wanted<'_> = Wanted { model: "m", task: Task::Generate };
const EMBED: Wanted<'_> = Wanted { model: "m", task: Task::Embed };

const BARE: &str = r#"{"contents": [{"parts": [{"text": "x"}]}]}"#;

fn parts(line: &str) -> Result<(&str, Option<&str>), Fault> {
    let found = examine(line.as_bytes(), WANTED)?;
    Ok((&line[found.span], found.key.map(|key| &line[key])))
}

#[test]
fn the_three_forms_give_up_their_request_and_key_as_written() {
    let one = format!(r#" {{"request" : {BARE}, "key": "k\u0041\"1"}} "#);
    assert_eq!(parts(&one).expect("form 1"), (BARE, Some(r#""k\u0041\"1""#)));
    let two = format!(r#"{{"request": {BARE}, "metadata": {{"key": 1e400, "x": [1]}}}}"#);
    assert_eq!(parts(&two).expect("form 2"), (BARE, Some("1e400")));
    let three = format!("  {BARE}\t");
    assert_eq!(parts(&three).expect("form 3"), (BARE, None));
}

#[test]
fn an_error_line_of_ours_is_a_request_again() {
    let line = format!(r#"{{"key": 7, "error": {{"code": 3}}, "line": 9, "request": {BARE}}}"#);
    assert_eq!(parts(&line).expect("form 1"), (BARE, Some("7")));
}

#[test]
fn a_key_that_is_null_is_missing_and_an_escaped_member_name_is_read() {
    let line = format!(r#"{{"key": null, "requ\u0065st": {BARE}, "metadata": null}}"#);
    assert_eq!(parts(&line).expect("form 1"), (BARE, None));
    let line = format!(r#"{{"key": null, "request": {BARE}, "metadata": {{"key": "in"}}}}"#);
    assert_eq!(parts(&line).expect("form 2"), (BARE, Some(r#""in""#)));
}

#[test]
fn the_queues_model_may_be_named_with_or_without_its_prefix() {
    for model in ["m", "models/m"] {
        let line = format!(r#"{{"request": {{"model": "{model}", "contents": [{{}}]}}}}"#);
        assert!(parts(&line).is_ok(), "{model}");
        assert!(
            examine(line.as_bytes(), Wanted { model: "models/m", ..WANTED }).is_ok(),
            "{model}"
        );
    }
}

#[test]
fn every_bad_line_has_its_fate_its_column_and_its_words() {
    let long_key = format!(r#"{{"key": "{}", "request": {BARE}}}"#, "k".repeat(65_533));
    let stray = r#"{"key": 1, "contents": [{}]}"#;
    let table: &[(&str, LineFate, usize, &str)] = &[
        ("{\"key\": \"a\" \"request\": {}}", LineFate::InvalidJson, 12, "expected `,` or `}`"),
        ("{\"request\": {\"contents\": [", LineFate::InvalidJson, 25, "ends too early"),
        ("hello", LineFate::InvalidJson, 0, "not valid JSON"),
        ("{'key': 1}", LineFate::InvalidJson, 1, "not valid JSON"),
        ("{\"contents\": [{}]} {}", LineFate::InvalidJson, 19, "one request a line"),
        ("{\"a\": \0}", LineFate::InvalidJson, 6, "NUL"),
        ("{\"a\": \"\u{1}\"}", LineFate::InvalidJson, 6, "control character"),
        ("[1, 2]", LineFate::NotARequest, 0, "a list where"),
        ("\"text\"", LineFate::NotARequest, 0, "a string where"),
        ("null", LineFate::NotARequest, 0, "null where"),
        ("{}", LineFate::NotARequest, 0, "neither"),
        ("{\"key\": 1, \"request\": null}", LineFate::NotARequest, 0, "neither"),
        ("{\"request\": []}", LineFate::NotARequest, 12, "not an object"),
        ("{\"request\": {}}", LineFate::NotARequest, 12, "no `contents`"),
        ("{\"contents\": []}", LineFate::NotARequest, 13, "empty list"),
        ("{\"contents\": \"x\"}", LineFate::NotARequest, 13, "not a list"),
        ("{\"contents\": [\"x\"]}", LineFate::NotARequest, 13, "something else"),
        (stray, LineFate::NotARequest, 8, "inside `request`"),
        ("{\"key\":1,\"key\":2}", LineFate::NotARequest, 13, "stands twice: `key`"),
        ("{\"batch\": {}}", LineFate::NotARequest, 10, ".json"),
        ("{\"model\": 1, \"contents\": [{}]}", LineFate::NotARequest, 10, "not a string"),
        ("{\"model\": \"b\", \"contents\": [{}]}", LineFate::OtherModel, 10, "\"b\""),
        ("{\"key\": {\"a\": 1}, \"contents\": 1}", LineFate::BadKey, 8, "an object"),
        ("{\"key\": [1], \"contents\": 1}", LineFate::BadKey, 8, "a list"),
        ("{\"key\": true, \"contents\": 1}", LineFate::BadKey, 8, "true or false"),
        (&long_key, LineFate::BadKey, 8, "65,534"),
        ("{\"content\": {}}", LineFate::OtherTask, 12, "embedding"),
        ("{\"request\": {\"content\": {}}}", LineFate::OtherTask, 24, "embedding"),
        ("{\"custom_id\": \"a\", \"body\": {}}", LineFate::NotARequest, 0, "/v1/embeddings"),
    ];
    for (line, fate, at, words) in table {
        let fault = examine(line.as_bytes(), WANTED).expect_err(line);
        assert_eq!(fault.fate, *fate, "{line}: {fault:?}");
        assert_eq!(fault.at, Some(*at), "{line}: {fault:?}");
        assert!(fault.message.contains(words), "{line}: {}", fault.message);
    }
    let fault = examine(b"{\"key\": \"\xff\"}", WANTED).expect_err("not UTF-8");
    assert_eq!((fault.fate, fault.at), (LineFate::InvalidUtf8, Some(9)));
}

#[test]
fn a_bad_line_keeps_its_key() {
    for line in [
        r#"{"key": "a", "request": {"contents": []}}"#,
        r#"{"custom_id": "a", "method": "POST", "body": {}}"#,
        r#"{"key": "a", "request": {"model": "other", "contents": [{}]}}"#,
    ] {
        let fault = examine(line.as_bytes(), WANTED).expect_err(line);
        assert_eq!(fault.key.map(|key| &line[key]), Some(r#""a""#), "{line}");
    }
}

#[test]
fn deep_nesting_costs_no_stack() {
    let deep = "[".repeat(1_000_000);
    let line = format!(r#"{{"contents": {deep}"#);
    let fault = examine(line.as_bytes(), WANTED).expect_err("cut off");
    assert!(fault.cut_off);
    let line =
        format!(r#"{{"request": {{"contents": [{{"a": {deep}{}}}]}}}}"#, "]".repeat(1_000_000));
    assert!(examine(line.as_bytes(), WANTED).is_ok());
}

#[test]
fn the_forms_of_an_embedding_give_up_their_request_and_key_as_written() {
    let bare = r#"{"content": {"parts": [{"text": "x"}]}, "outputDimensionality": 7}"#;
    for (line, key) in [
        (format!(r#"{{"key": "k", "request": {bare}}}"#), Some(r#""k""#)),
        (format!(r#"{{"request": {bare}, "metadata": {{"key": 5}}}}"#), Some("5")),
        (format!(" {bare} "), None),
    ] {
        let found = examine(line.as_bytes(), EMBED).expect("an embedding");
        assert_eq!((&line[found.span], found.key.map(|key| &line[key])), (bare, key));
    }
}

#[test]
fn a_line_of_another_task_says_which_and_keeps_its_key() {
    let table: &[(&str, LineFate, usize, &str)] = &[
        ("{\"contents\": [{}]}", LineFate::OtherTask, 13, "task = \"embed\""),
        ("{\"key\": 1, \"request\": {\"contents\": [{}]}}", LineFate::OtherTask, 35, "`content`"),
        ("{\"content\": [1]}", LineFate::NotARequest, 12, "not an object"),
        ("{\"key\": 1, \"content\": {}}", LineFate::NotARequest, 8, "inside `request`"),
        ("{\"request\": {\"title\": \"t\"}}", LineFate::NotARequest, 12, "no `content`"),
        ("{\"title\": \"t\"}", LineFate::NotARequest, 0, "nor `content`"),
        ("{\"model\": \"b\", \"content\": {}}", LineFate::OtherModel, 10, "\"b\""),
    ];
    for (line, fate, at, words) in table {
        let fault = examine(line.as_bytes(), EMBED).expect_err(line);
        assert_eq!((fault.fate, fault.at), (*fate, Some(*at)), "{line}: {fault:?}");
        assert!(fault.message.contains(words), "{line}: {}", fault.message);
    }
    let fault =
        examine(br#"{"key": "a", "request": {"contents": [{}]}}"#, EMBED).expect_err("other");
    assert!(fault.key.is_some());
}
