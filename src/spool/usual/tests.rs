//! Tests of the module above. tests/damage.rs holds it against the JSON reader.

use super::*;

const BARE: &str = r#"{"contents": [{"role": "user", "parts": [{"text": "x\n"}]}]}"#;

fn parts(line: &str) -> Option<(&str, Option<&str>)> {
    let found = request(line.as_bytes(), "models/m")?;
    Some((&line[found.span], found.key.map(|key| &line[key])))
}

#[test]
fn the_usual_forms_take_the_short_way() {
    let table = [
        (format!(r#"{{"key": "k\u0041", "request": {BARE}}}"#), Some(r#""k\u0041""#)),
        (format!(r#"{{"request":{BARE},"key":-1.5e3}}"#), Some("-1.5e3")),
        (format!(r#"{{"request": {BARE}, "metadata": {{"a": [], "key": "7"}}}}"#), Some("\"7\"")),
        (format!(r#"{{"request": {BARE}, "metadata": {{}}, "key": 1}}"#), Some("1")),
        (format!(r#"{{"error": {{"code": 3}}, "line": 9, "request": {BARE}}}"#), None),
        (format!(" \t{BARE} \r"), None),
    ];
    for (line, key) in table {
        assert_eq!(parts(&line), Some((BARE, key)), "{line}");
    }
    for model in ["m", "models/m"] {
        let bare = format!(r#"{{"model":"{model}","contents":[{{}}],"safetySettings":[]}}"#);
        assert_eq!(parts(&bare), Some((&*bare, None)));
        let line = format!(r#"{{"model":"{model}","request":{bare}}}"#);
        assert_eq!(parts(&line), Some((&*bare, None)));
    }
}

#[test]
fn everything_odd_is_left_to_the_close_look() {
    for line in [
        "",
        "{}",
        "[{}]",
        r#"{"contents": []}"#,
        r#"{"contents": ["x"]}"#,
        r#"{"contents": {}}"#,
        r#"{"contents": [{}]} {}"#,
        r#"{"contents": [{}], "contents": [{}]}"#,
        r#"{"\u0063ontents": [{}]}"#,
        r#"{"contents": [{}], "key": 1}"#,
        r#"{"contents": [{}], "model": "other"}"#,
        r#"{"contents": [{}], "model": "\u006d"}"#,
        r#"{"contents": [{}], "model": null}"#,
        r#"{"contents": [{}], "content": {}}"#,
        r#"{"request": {}}"#,
        r#"{"request": [], "contents": [{}]}"#,
        r#"{"request": {"contents": [{}]}, "key": null}"#,
        r#"{"request": {"contents": [{}]}, "key": true}"#,
        r#"{"request": {"contents": [{}]}, "key": 1, "key": 1}"#,
        r#"{"request": {"contents": [{}]}, "metadata": {"key": 1, "key": 1}}"#,
        r#"{"request": {"contents": [{}]}, "metadata": null}"#,
        r#"{"request": {"contents": [{}]}, "custom_id": "a"}"#,
        r#"{"request": {"contents": [{}], "model": "other"}}"#,
        r#"{"request": {"contents": [{}]}"#,
    ] {
        assert_eq!(parts(line), None, "{line}");
    }
}
