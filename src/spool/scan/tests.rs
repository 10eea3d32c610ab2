//! Tests of the module above.

use serde_json::value::RawValue;

use super::*;

fn skipped(text: &[u8]) -> Option<Range<usize>> {
    let mut cursor = Cursor::over(text)?;
    let place = cursor.skip()?;
    cursor.end()?;
    Some(place)
}

fn by_serde(text: &[u8]) -> Option<Range<usize>> {
    let value: &RawValue = serde_json::from_slice(text).ok()?;
    let start = value.get().as_ptr() as usize - text.as_ptr() as usize;
    Some(start..start + value.get().len())
}

#[test]
fn texts_are_accepted_and_placed_as_serde_json_does() {
    let table = [
        "1",
        "-0",
        "01",
        "-",
        "+1",
        "1.",
        "1.5e",
        "1.5e+7",
        "0.0E-00",
        ".5",
        "1e400",
        "0x1",
        "1 2",
        " true ",
        "tru",
        "truefalse",
        "nul",
        "null",
        "false,",
        "NaN",
        "",
        " ",
        "\u{feff}1",
        r#""""#,
        r#"""#,
        r#""a"b""#,
        r#""\""#,
        r#""\"""#,
        r#""\\""#,
        r#""\/\b\f\n\r\t\"\\""#,
        r#""\x""#,
        r#""\u12""#,
        r#""\u12g4""#,
        r#""\uD800""#,
        r#""\uabCD""#,
        r#""ünï一""#,
        "\"\t\"",
        "\"\n\"",
        "\"\u{1f}\"",
        "\"\u{7f}\"",
        "\u{b}1",
        "\t\r\n {\t\r\n }\n",
        "[]",
        "[ ]",
        "[",
        "]",
        "[1",
        "[1,",
        "[1,]",
        "[,1]",
        "[1 2]",
        "[1,2]",
        "[[],[[]]]",
        "[}",
        "{}",
        "{ }",
        "{",
        "}",
        r#"{"a"}"#,
        r#"{"a":}"#,
        r#"{"a":1"#,
        r#"{"a":1,}"#,
        "{,}",
        "{]",
        r#"{a:1}"#,
        r#"{1:1}"#,
        r#"{"a":1 "b":2}"#,
        r#"{"a":1,"a":2}"#,
        r#"{"a":[{}],"b":{"c":[]}}"#,
        r#"{"a":[}"#,
        r#"{"a" : [1 , {"b" : null}] }  "#,
        "[1]]",
        "[[1]",
        r#"{"\ud800":1}"#,
        "/**/1",
        "'a'",
        "[1;2]",
    ];
    for text in table {
        assert_eq!(skipped(text.as_bytes()), by_serde(text.as_bytes()), "{text:?}");
    }
    assert_eq!(skipped(b"\"\xff\""), None);
    assert_eq!(skipped(b"\"\xed\xa0\x80\""), None);
}

#[test]
fn what_ends_a_string_is_found_wherever_it_stands() {
    for len in 0..200 {
        let plain = format!("\"{}\"", "a".repeat(len));
        assert_eq!(skipped(plain.as_bytes()), Some(0..len + 2));
        let escaped = format!("\"{}\\\"{}\"", "a".repeat(len), "b".repeat(len));
        assert_eq!(skipped(escaped.as_bytes()), Some(0..2 * len + 4));
        let broken = format!("\"{}\\q{}\"", "a".repeat(len), "b".repeat(len));
        assert_eq!(skipped(broken.as_bytes()), None);
        // Neighbours in value of what is searched for, with and without the highest bit.
        let near = format!("\"{}\"", "#!]¢Ü[".repeat(len));
        assert_eq!(skipped(near.as_bytes()), Some(0..near.len()));
    }
}

#[test]
fn nesting_is_followed_to_a_bound_and_costs_no_stack() {
    for depth in [1, 62, 63] {
        let text = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert_eq!(skipped(text.as_bytes()), Some(0..2 * depth));
        let text = format!("{}1{}", "{\"a\":".repeat(depth), "}".repeat(depth));
        assert_eq!(skipped(text.as_bytes()), Some(0..6 * depth + 1));
    }
    for depth in [64, 1_000_000] {
        let text = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert_eq!(skipped(text.as_bytes()), None);
    }
}

#[test]
fn members_and_elements_are_told_one_by_one() {
    let text = br#" { "a" : [ 1 , "x\ny" , {} ] , "" : "z" } "#;
    let mut cursor = Cursor::over(text).expect("UTF-8");
    let mut seen = Vec::new();
    let whole = cursor.object(|name, value| {
        seen.push(String::from_utf8_lossy(name).into_owned());
        if value.peek()? != b'[' {
            seen.push(String::from_utf8_lossy(value.string()?).into_owned());
            return Some(());
        }
        value.array(|element| {
            seen.push(String::from_utf8_lossy(&text[element.skip()?]).into_owned());
            Some(())
        })
    });
    assert!(whole.and_then(|()| cursor.end()).is_some());
    assert_eq!(seen, ["a", "1", "\"x\\ny\"", "{}", "", "z"]);
}

#[test]
fn a_name_with_an_escape_is_left_to_others() {
    let mut cursor = Cursor::over(br#"{"\u0061": 1}"#).expect("UTF-8");
    assert_eq!(cursor.object(|_, value| value.skip().map(drop)), None);
}

#[test]
fn broken_objects_and_lists_are_none() {
    for text in ["{\"a\":1", "{\"a\":1,}", "{\"a\" 1}", "{1:1}", "{", "[", "{\"a\":1 \"b\":1}"] {
        let mut cursor = Cursor::over(text.as_bytes()).expect("UTF-8");
        assert_eq!(cursor.object(|_, value| value.skip().map(drop)), None, "{text}");
    }
    for text in ["[1", "[1,]", "[,]", "[", "[1 2]", "{}"] {
        let mut cursor = Cursor::over(text.as_bytes()).expect("UTF-8");
        assert_eq!(cursor.array(|value| value.skip().map(drop)), None, "{text}");
    }
}
