//! A JSON Schema becomes the API's own kind of schema.
//!
//! The API takes JSON Schemas too, but not in batches (API contract, section 12). Its own kind is
//! a part of OpenAPI's: whatever it has no word for is named and refused, since an answer that fits
//! half a schema fits none. Properties come in the order in which they were written.

use serde_json::value::RawValue;

use super::members::{Members, Object, Untranslatable, is_text, joined, list, quoted, text};

/// Translates a schema; `path` is where it stands.
///
/// # Errors
/// What there is no word for.
pub fn native(schema: &RawValue, path: &str) -> Result<String, Untranslatable> {
    let mut out = Object::default();
    let mut nullable = false;
    for (name, value) in Members::of(schema, path)?.0 {
        let place = format!("{path}.{name}");
        match name.as_str() {
            "type" => {
                let (kind, or_null) = kind(value, &place)?;
                nullable |= or_null;
                out.put("type", &quoted(&kind));
            }
            "properties" => {
                let mut inner = Object::default();
                let mut order = Vec::new();
                for (name, property) in Members::of(value, &place)?.0 {
                    inner.put(&name, &native(property, &format!("{place}.{name}"))?);
                    order.push(quoted(&name));
                }
                out.put("properties", &inner.end());
                out.put("propertyOrdering", &joined(&order));
            }
            "items" => out.put("items", &native(value, &place)?),
            "anyOf" => {
                let mut choices = Vec::new();
                for (at, choice) in list(value, &place)?.into_iter().enumerate() {
                    match is_null_type(choice) {
                        true => nullable = true,
                        false => choices.push(native(choice, &format!("{place}[{at}]"))?),
                    }
                }
                out.put("anyOf", &joined(&choices));
            }
            "enum" => {
                let (mut words, null) = (Vec::new(), |value: &&RawValue| value.get() == "null");
                let values = list(value, &place)?;
                nullable |= values.iter().any(null);
                for value in values.into_iter().filter(|value| !null(value)) {
                    if !is_text(value) {
                        return Err(Untranslatable::new(place, "holds something else than texts"));
                    }
                    words.push(value.get().to_owned());
                }
                out.put("enum", &joined(&words));
            }
            "const" if is_text(value) => out.put("enum", &joined(&[value.get().to_owned()])),
            // An answer has no other members anyway.
            "additionalProperties" if value.get() == "false" => {}
            "nullable" => nullable |= value.get() == "true",
            "required" | "description" | "title" | "format" | "pattern" | "minimum" | "maximum"
            | "minItems" | "maxItems" | "minLength" | "maxLength" | "minProperties"
            | "maxProperties" => out.put(&name, value.get()),
            _ => {
                let why = "is a part of JSON Schema that the API's own schemas lack";
                return Err(Untranslatable::new(place, why));
            }
        }
    }
    if nullable {
        out.put("nullable", "true");
    }
    Ok(out.end())
}

/// A type, and whether it may also be null.
fn kind(value: &RawValue, path: &str) -> Result<(String, bool), Untranslatable> {
    let words = match is_text(value) {
        true => vec![value],
        false => list(value, path)?,
    };
    let mut kinds = Vec::new();
    for word in &words {
        kinds.push(text(word, path)?);
    }
    let many = kinds.len();
    kinds.retain(|kind| *kind != "null" || many == 1);
    let known = ["string", "number", "integer", "boolean", "array", "object", "null"];
    match &kinds[..] {
        [kind] if known.contains(&kind.as_ref()) => Ok((kind.to_ascii_uppercase(), many > 1)),
        _ => Err(Untranslatable::new(path, "is not one type, or one and null")),
    }
}

fn is_null_type(schema: &RawValue) -> bool {
    Members::of(schema, "").is_ok_and(|members| {
        matches!(&members.0[..], [(name, kind)] if name == "type" && kind.get() == "\"null\"")
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn translated(schema: &Value) -> Result<Value, Untranslatable> {
        let text = schema.to_string();
        let native = native(serde_json::from_str(&text).expect("JSON"), "schema")?;
        Ok(serde_json::from_str(&native).expect("JSON"))
    }

    #[test]
    fn a_schema_of_the_usual_kind_keeps_its_meaning() {
        let schema = json!({
            "type": "object",
            "properties": {
                "name": {"type": "string", "description": "d", "enum": ["a", "b"]},
                "size": {"type": ["integer", "null"], "minimum": 1},
                "tags": {"type": "array", "items": {"anyOf": [{"type": "string"}, {"type": "null"}]}},
            },
            "required": ["name", "size", "tags"],
            "additionalProperties": false,
        });
        let expected = json!({
            "type": "OBJECT",
            "properties": {
                "name": {"type": "STRING", "description": "d", "enum": ["a", "b"]},
                "size": {"type": "INTEGER", "minimum": 1, "nullable": true},
                "tags": {"type": "ARRAY", "items": {"anyOf": [{"type": "STRING"}], "nullable": true}},
            },
            "propertyOrdering": ["name", "size", "tags"],
            "required": ["name", "size", "tags"],
        });
        assert_eq!(translated(&schema), Ok(expected));
    }

    #[test]
    fn what_has_no_word_is_named_with_its_place() {
        for (schema, place) in [
            (json!({"$ref": "#/$defs/x"}), "schema.$ref"),
            (
                json!({"type": "object", "additionalProperties": true}),
                "schema.additionalProperties",
            ),
            (json!({"properties": {"a": {"oneOf": []}}}), "schema.properties.a.oneOf"),
            (json!({"type": ["string", "integer"]}), "schema.type"),
            (json!({"enum": [1, 2]}), "schema.enum"),
            (json!({"const": 5}), "schema.const"),
        ] {
            assert_eq!(translated(&schema).expect_err("refused").path, place, "{schema}");
        }
    }
}
