//! Values that fit a schema, and such that do not.

use serde_json::Value;

use super::answers::number;

/// A value that fits a schema; its texts are what was said.
pub fn fitting(schema: &Value, said: &str) -> Value {
    value(schema, said, 0)
}

/// A value like one that fits, in which the first scalar is of another type.
pub fn misfit(value: Value) -> Value {
    match value {
        Value::String(_) => Value::from(0),
        Value::Array(mut items) if !items.is_empty() => {
            items[0] = misfit(items[0].take());
            Value::Array(items)
        }
        Value::Object(mut members) if !members.is_empty() => {
            if let Some(first) = members.values_mut().next() {
                *first = misfit(first.take());
            }
            Value::Object(members)
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            Value::from("of another type")
        }
    }
}

fn value(schema: &Value, said: &str, depth: usize) -> Value {
    if depth > DEPTH_MAX {
        return Value::Null;
    }
    let get = |camel: &str, snake: &str| schema.get(camel).or_else(|| schema.get(snake));
    if let Some(first) = get("enum", "enum").and_then(|names| names.get(0)) {
        return first.clone();
    }
    if let Some(first) = get("anyOf", "any_of").and_then(|choices| choices.get(0)) {
        return value(first, said, depth + 1);
    }
    let kind = get("type", "type").map(|kind| kind.get(0).unwrap_or(kind));
    let kind = kind.and_then(Value::as_str).unwrap_or("object").to_ascii_lowercase();
    match kind.as_str() {
        "string" => match get("format", "format").and_then(Value::as_str) {
            Some("date-time") => Value::from("2026-01-01T00:00:00Z"),
            Some("date") => Value::from("2026-01-01"),
            Some(_) | None => {
                let max = number(get("maxLength", "max_length")).unwrap_or(i64::MAX);
                Value::String(said.chars().take(usize::try_from(max).unwrap_or(0)).collect())
            }
        },
        "integer" => Value::from(number(get("minimum", "minimum")).unwrap_or(1)),
        "number" => get("minimum", "minimum").cloned().unwrap_or(Value::from(0.5)),
        "boolean" => Value::Bool(true),
        "null" => Value::Null,
        "array" => {
            let least = number(get("minItems", "min_items")).unwrap_or(1).clamp(1, ITEMS_MAX);
            let items = schema.get("items").unwrap_or(&Value::Null);
            (0..least).map(|_| value(items, said, depth + 1)).collect()
        }
        _ => schema.get("properties").and_then(Value::as_object).map_or_else(
            || Value::Object(serde_json::Map::new()),
            |properties| {
                let fit = |(name, inner): (&String, &Value)| {
                    (name.clone(), value(inner, said, depth + 1))
                };
                Value::Object(properties.iter().map(fit).collect())
            },
        ),
    }
}

const DEPTH_MAX: usize = 16;

const ITEMS_MAX: i64 = 100;
