//! A table of TOML as a JSON object.

use std::borrow::Cow;

use toml::Spanned;
use toml::de::DeValue;

/// A value as JSON, its numbers as they were written.
pub(super) fn json(value: &DeValue<'_>) -> Result<String, String> {
    let text = |text: &str| serde_json::Value::from(text).to_string();
    let all = |parts: Result<Vec<String>, String>| parts.map(|parts| parts.join(","));
    Ok(match value {
        DeValue::String(value) => text(value),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map_err(|_| "holds a number out of range".to_owned())?
            .to_string(),
        DeValue::Float(number) => {
            let plain = number.as_str().trim_start_matches('+');
            if serde_json::from_str::<f64>(plain).is_err() {
                return Err(format!("holds {plain}, which is no number for JSON"));
            }
            plain.to_owned()
        }
        DeValue::Boolean(flag) => flag.to_string(),
        DeValue::Datetime(time) => text(&time.to_string()),
        DeValue::Array(items) => {
            format!("[{}]", all(items.iter().map(|item| json(item.get_ref())).collect())?)
        }
        DeValue::Table(table) => {
            let member = |(name, value): (&Spanned<Cow<'_, str>>, &Spanned<DeValue<'_>>)| {
                Ok(format!("{}:{}", text(name.get_ref()), json(value.get_ref())?))
            };
            format!("{{{}}}", all(table.iter().map(member).collect())?)
        }
    })
}
