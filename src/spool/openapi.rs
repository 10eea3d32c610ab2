//! A `responseSchema` in the words of JSON Schema.
//!
//! The API takes a subset of OpenAPI 3.0 (its message `Schema`): types in capitals, `nullable`,
//! numbers that may be text, names in either spelling. What only describes or orders is left out.
//! Formats are left out too: the API makes no promise about them.

use serde_json::{Map, Value, json};

/// Translates a schema; what is no schema at all allows everything, as JSON Schema has it.
pub fn to_json_schema(schema: &Value) -> Value {
    let Some(members) = schema.as_object() else { return Value::Bool(true) };
    let mut out = Map::new();
    let mut nullable = false;
    for (name, value) in members {
        match name.as_str() {
            "type" => {
                let word = value.as_str().unwrap_or_default().to_ascii_lowercase();
                if !word.is_empty() && word != "type_unspecified" {
                    out.insert("type".to_owned(), Value::from(word));
                }
            }
            "nullable" => nullable = value.as_bool().unwrap_or(false),
            "enum" | "required" | "pattern" => {
                out.insert(name.clone(), value.clone());
            }
            "properties" => {
                let translate =
                    |(name, inner): (&String, &Value)| (name.clone(), to_json_schema(inner));
                let properties = value.as_object().into_iter().flatten().map(translate);
                out.insert("properties".to_owned(), Value::Object(properties.collect()));
            }
            "items" => {
                out.insert("items".to_owned(), to_json_schema(value));
            }
            "anyOf" | "any_of" => {
                let choices = value.as_array().into_iter().flatten().map(to_json_schema);
                out.insert("anyOf".to_owned(), choices.collect());
            }
            _ => {
                if let Some((bound, number)) = bound(name).zip(number(value)) {
                    out.insert(bound.to_owned(), number);
                }
            }
        }
    }
    match nullable {
        true => json!({"anyOf": [{"type": "null"}, out]}),
        false => Value::Object(out),
    }
}

/// The name of a bound in JSON Schema.
fn bound(name: &str) -> Option<&'static str> {
    Some(match name {
        "minimum" => "minimum",
        "maximum" => "maximum",
        "minItems" | "min_items" => "minItems",
        "maxItems" | "max_items" => "maxItems",
        "minLength" | "min_length" => "minLength",
        "maxLength" | "max_length" => "maxLength",
        "minProperties" | "min_properties" => "minProperties",
        "maxProperties" | "max_properties" => "maxProperties",
        _ => return None,
    })
}

/// A number, which may be written as text.
fn number(value: &Value) -> Option<Value> {
    match value {
        Value::Number(_) => Some(value.clone()),
        Value::String(text) => {
            let number: serde_json::Number = serde_json::from_str(text).ok()?;
            Some(Value::Number(number))
        }
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_of_the_api_becomes_one_of_json_schema() {
        let schema = json!({
            "type": "OBJECT", "title": "t", "propertyOrdering": ["b", "a"], "required": ["a"],
            "properties": {
                "a": {"type": "STRING", "enum": ["x"], "format": "enum", "max_length": "7"},
                "b": {"type": "ARRAY", "minItems": "1", "items": {"type": "INTEGER", "minimum": 0}},
                "c": {"type": "NUMBER", "nullable": true},
                "d": {"any_of": [{"type": "BOOLEAN"}, {"type": "TYPE_UNSPECIFIED"}]},
            },
        });
        let expected = json!({
            "type": "object", "required": ["a"],
            "properties": {
                "a": {"type": "string", "enum": ["x"], "maxLength": 7},
                "b": {"type": "array", "minItems": 1, "items": {"type": "integer", "minimum": 0}},
                "c": {"anyOf": [{"type": "null"}, {"type": "number"}]},
                "d": {"anyOf": [{"type": "boolean"}, {}]},
            },
        });
        assert_eq!(to_json_schema(&schema), expected);
    }
}
