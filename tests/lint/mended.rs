use serde_json::{Value, json};

use gemini_batchd::lint::mend::{Mended, mend};

use crate::{EMBED, FLASH, request, said};

fn value(line: &str) -> Value {
    serde_json::from_str(line).expect("JSON")
}

/// What a line becomes, which must have no findings any more.
fn mended(line: &str) -> Value {
    let Mended { line: mended, left, done } = mend(line, FLASH);
    assert_eq!(said(&left), [""; 0], "{line}");
    assert!(!done.is_empty(), "{line}");
    value(&mended.unwrap_or_else(|| panic!("nothing was mended: {line}")))
}

/// The whole line that has these members beside the contents.
fn whole(more: Value) -> Value {
    let mut line = value(&request(""));
    for (name, value) in more.as_object().expect("an object") {
        line["request"][name] = value.clone();
    }
    line
}

#[test]
fn mended_lines_are_clean_and_otherwise_the_same() {
    for (more, expected) in [
        (
            r#""temperature": 0.5, "topK": 3"#,
            json!({"generationConfig": {"temperature": 0.5, "topK": 3}}),
        ),
        (
            r#""temperature": 0.5, "generation_config": {"topK": 3}"#,
            json!({"generation_config": {"topK": 3, "temperature": 0.5}}),
        ),
        (
            r#""thinking_budget": 0, "generationConfig": null"#,
            json!({"generationConfig": {"thinkingConfig": {"thinkingBudget": 0}}}),
        ),
        (
            r#""temperature": 1, "generationConfig": {"temperature": 1}"#,
            json!({"generationConfig": {"temperature": 1}}),
        ),
        (
            r#""config": {"system_instruction": "Be brief.", "top_p": 0.5, "tools": [{"google_search": {}}]}"#,
            json!({"systemInstruction": {"parts": [{"text": "Be brief."}]},
                "generationConfig": {"topP": 0.5}, "tools": [{"google_search": {}}]}),
        ),
        (
            r#""systemInstruction": ["a", {"text": "b"}]"#,
            json!({"systemInstruction": {"parts": [{"text": "a"}, {"text": "b"}]}}),
        ),
        (
            r#""systemInstruction": [{"role": "user", "parts": [{"text": "b"}]}]"#,
            json!({"systemInstruction": {"role": "user", "parts": [{"text": "b"}]}}),
        ),
        (
            r#""generationConfig": {"Top_P": 1, "stopSequences": "END", "response_logprobs": "true"}"#,
            json!({"generationConfig": {"topP": 1, "stopSequences": ["END"], "response_logprobs": true}}),
        ),
        (
            r#""safetySettings": {"category": "HARM_CATEGORY_HARASSMENT"}"#,
            json!({"safetySettings": [{"category": "HARM_CATEGORY_HARASSMENT"}]}),
        ),
    ] {
        let line = request(more);
        assert_eq!(mended(&line), whole(expected), "{line}");
    }
}

#[test]
fn settings_beside_a_request_move_into_it() {
    let line = r#"{"key": "a", "config": {"temperature": 1.50, "maxOutputTokens": 9000},
        "request": {"contents": [{"parts": [{"text": "hi"}]}]}, "id": 5}"#;
    let expected = json!({"key": "a", "id": 5, "request": {"contents": [{"parts": [{"text": "hi"}]}],
        "generationConfig": {"temperature": 1.5, "maxOutputTokens": 9000}}});
    assert_eq!(mended(line), expected);
}

#[test]
fn a_request_beside_its_key_is_wrapped_and_its_contents_get_their_shape() {
    let line = r#"{"key": 12345678901234567890123, "contents": "hi", "temperature": 1, "id": 5}"#;
    let mended = mend(line, FLASH).line.expect("mended");
    assert_eq!(
        mended,
        "{\"key\": 12345678901234567890123, \"id\": 5, \"request\": {\"contents\": \
         [{\"parts\": [{\"text\": \"hi\"}]}], \"generationConfig\": {\"temperature\": 1}}}"
    );
    let line = r#"{"key": 1, "content": "hi", "outputDimensionality": 64}"#;
    let expected = json!({"key": 1, "request": {"content": {"parts": [{"text": "hi"}]},
        "outputDimensionality": 64}});
    assert_eq!(value(&mend(line, EMBED).line.expect("mended")), expected);
}

#[test]
fn an_assistant_is_called_model() {
    let line = r#"{"request": {"contents": [{"role": "user", "parts": [{"text": "a"}]},
        {"role": "assistant", "parts": [{"text": "b"}]}]}}"#;
    assert_eq!(mended(line)["request"]["contents"][1]["role"], "model");
}

#[test]
fn what_could_lose_its_meaning_is_left_as_it_was() {
    for (more, left) in [
        (r#""temperature": 1, "generationConfig": {"temperature": 0}"#, "misplaced"),
        (r#""generationConfig": {"temprature": 1}"#, "unknown_field"),
        (r#""generationConfig": {"maxOutputTokens": 10}"#, "max_tokens"),
        (r#""config": {"http_options": {"timeout": 1}}"#, "misplaced"),
        (r#""systemInstruction": 5"#, "system_instruction"),
    ] {
        let line = request(more);
        let mended = mend(&line, FLASH);
        assert_eq!(mended.line, None, "{line}");
        assert_eq!(mended.left.len(), 1, "{line}");
        assert_eq!(mended.left[0].kind.as_str(), left, "{line}");
    }
}

#[test]
fn a_line_is_mended_as_far_as_it_can_be() {
    let mended = mend(&request(r#""temperature": 1, "nonsense": true"#), FLASH);
    assert_eq!(said(&mended.done), ["misplaced request.temperature"]);
    assert_eq!(said(&mended.left), ["unknown_field request.nonsense"]);
    let line = value(&mended.line.expect("mended"));
    assert_eq!(line, whole(json!({"generationConfig": {"temperature": 1}, "nonsense": true})));
}

/// A JSON Schema, and what it becomes.
fn rewritten(schema: Value) -> Result<Value, String> {
    let line = request(&format!(r#""generationConfig": {{"responseJsonSchema": {schema}}}"#));
    let mended = mend(&line, FLASH);
    match mended.line.map(|line| value(&line)) {
        Some(line) if line["request"]["generationConfig"].get("responseSchema").is_some() => {
            let config = &line["request"]["generationConfig"];
            assert_eq!(said(&mended.left), [""; 0]);
            assert_eq!(config["responseMimeType"], "application/json");
            assert_eq!(config.get("responseJsonSchema"), None);
            Ok(config["responseSchema"].clone())
        }
        Some(_) | None => Err(mended.left[0].remedy.clone()),
    }
}

#[test]
fn a_json_schema_becomes_the_form_that_works_in_batches() {
    let schema = json!({"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Review",
    "type": "object", "additionalProperties": false, "required": ["mood"],
    "$defs": {"Mood": {"type": "string", "enum": ["good", "bad"]}},
    "properties": {
        "mood": {"$ref": "#/$defs/Mood", "description": "how it sounds"},
        "stars": {"type": ["integer", "null"], "minimum": 1},
        "kind": {"const": "review"},
        "note": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        "tags": {"type": "array", "items": {"oneOf": [{"type": "string"}, {"type": "number"}]}},
    }});
    let expected = json!({"title": "Review", "type": "OBJECT", "required": ["mood"],
    "properties": {
        "mood": {"type": "STRING", "enum": ["good", "bad"], "description": "how it sounds"},
        "stars": {"type": "INTEGER", "nullable": true, "minimum": 1},
        "kind": {"enum": ["review"]},
        "note": {"type": "STRING", "nullable": true},
        "tags": {"type": "ARRAY", "items": {"anyOf": [{"type": "STRING"}, {"type": "NUMBER"}]}},
    }});
    assert_eq!(rewritten(schema).expect("rewritten"), expected);
}

#[test]
fn a_json_schema_that_says_more_is_left_as_it_was() {
    for (schema, word) in [
        (json!({"type": "object", "additionalProperties": true}), "`additionalProperties`"),
        (json!({"type": "object", "properties": {"a": {"allOf": []}}}), "`allOf`"),
        (json!({"type": "string", "format": "email"}), "the format \"email\""),
        (json!({"enum": [1, 2]}), "`enum`"),
        (json!({"type": ["string", "integer"]}), "a choice of types"),
        (json!({"$ref": "#/$defs/None"}), "`$ref`"),
        (
            json!({"$defs": {"T": {"type": "array", "items": {"$ref": "#/$defs/T"}}},
            "$ref": "#/$defs/T"}),
            "a schema within itself",
        ),
    ] {
        let remedy = rewritten(schema.clone()).expect_err("not rewritten");
        assert!(remedy.contains(word), "{schema}: {remedy}");
    }
}

#[test]
fn where_something_stands_twice_nothing_is_changed() {
    for more in [
        r#""systemInstruction": "a", "systemInstruction": "b""#,
        r#""generationConfig": {}, "generation_config": {}, "temperature": 1"#,
        r#""generationConfig": {"Top_P": 1, "topP": 0.5}"#,
    ] {
        assert_eq!(mend(&request(more), FLASH).line, None, "{more}");
    }
}

#[test]
fn a_null_gives_way_to_what_is_put_in_its_place() {
    let more = r#""generationConfig": {"responseSchema": null, "responseMimeType": null,
        "response_json_schema": {"type": "string"}}"#;
    let expected = json!({"generationConfig":
        {"responseSchema": {"type": "STRING"}, "responseMimeType": "application/json"}});
    assert_eq!(mended(&request(more)), whole(expected));
}
