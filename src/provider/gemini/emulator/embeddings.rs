//! Embeddings: what a request to embed is answered with, always the same for the same content.
//!
//! Vectors of length one, drawn from the content alone, with as many numbers as were asked for
//! (API contract, 3.7 and 5.7). They mean nothing; equal contents have equal vectors.

use serde::Deserialize;
use serde_json::Value;

use super::answers::{Unanswerable, mark, mix, object};

/// Answers a request, given as JSON text, with the JSON text of an `EmbedContentResponse`.
/// `turn` decides the order of members.
///
/// # Errors
/// What the service says of such a row when it runs it.
pub fn answer(request: &str, turn: u64) -> Result<String, Unanswerable> {
    let request: Request =
        serde_json::from_str(request).map_err(|error| Unanswerable(error.to_string()))?;
    let text: String = request.content.iter().flat_map(Content::texts).collect();
    if text.is_empty() {
        let message = "* EmbedContentRequest.content: contents is not specified\n";
        return Err(Unanswerable(message.to_owned()));
    }
    let settings = request.config.unwrap_or_default();
    let asked = settings.dimensions.or(request.dimensions).unwrap_or(DIMENSIONS);
    let dimensions =
        usize::try_from(asked).ok().filter(|count| (1..=DIMENSIONS_MAX).contains(count));
    let Some(dimensions) = dimensions else {
        let message = format!("output_dimensionality must be between 1 and {DIMENSIONS_MAX}.");
        return Err(Unanswerable(message));
    };
    let values = vector(mark(text.as_bytes()), dimensions);
    let embedding = format!(r#"{{"values":[{values}]}}"#);
    let tokens = text.chars().count().div_ceil(4).max(1);
    let usage = format!(r#"{{"promptTokenCount":{tokens}}}"#);
    Ok(object(&[("embedding", &embedding), ("usageMetadata", &usage)], turn))
}

/// The numbers of a vector of length one, as JSON.
fn vector(seed: u64, dimensions: usize) -> String {
    let draw = |at: usize| (mix(seed, at as u64) >> 11) as f64 / (1_u64 << 52) as f64 - 1.0;
    let length = (0..dimensions).map(|at| draw(at) * draw(at)).sum::<f64>().sqrt();
    let numbers: Vec<String> =
        (0..dimensions).map(|at| format!("{:.8}", draw(at) / length)).collect();
    numbers.join(",")
}

#[derive(Deserialize)]
struct Request {
    #[serde(default)]
    content: Option<Content>,
    #[serde(default, alias = "output_dimensionality", rename = "outputDimensionality")]
    dimensions: Option<i64>,
    #[serde(default, alias = "embed_content_config", rename = "embedContentConfig")]
    config: Option<Settings>,
}

#[derive(Deserialize, Default)]
struct Settings {
    #[serde(default, alias = "output_dimensionality", rename = "outputDimensionality")]
    dimensions: Option<i64>,
}

#[derive(Deserialize)]
struct Content {
    #[serde(default)]
    parts: Value,
}

impl Content {
    /// The texts of its parts; a single part may stand in the place of their list.
    fn texts(&self) -> impl Iterator<Item = &str> {
        let parts = self.parts.as_array().map_or(std::slice::from_ref(&self.parts), Vec::as_slice);
        parts.iter().filter_map(|part| part.get("text")?.as_str())
    }
}

/// Numbers of a vector when nobody asks for another count.
const DIMENSIONS: i64 = 3072;
const DIMENSIONS_MAX: usize = 3072;

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(request: &str) -> Vec<f64> {
        let answer: Value =
            serde_json::from_str(&answer(request, 0).expect("answered")).expect("JSON");
        let values = answer["embedding"]["values"].as_array().expect("a list");
        values.iter().map(|value| value.as_f64().expect("a number")).collect()
    }

    #[test]
    fn vectors_have_the_length_one_and_the_dimension_asked_for() {
        let text = r#""content":{"parts":[{"text":"to embed"}]}"#;
        for (asked, count) in [
            (String::new(), 3072),
            (r#","outputDimensionality":256"#.to_owned(), 256),
            (r#","output_dimensionality":7,"taskType":"CLUSTERING""#.to_owned(), 7),
            (r#","embedContentConfig":{"outputDimensionality":768}"#.to_owned(), 768),
        ] {
            let values = numbers(&format!("{{{text}{asked}}}"));
            assert_eq!(values.len(), count);
            let length: f64 = values.iter().map(|value| value * value).sum();
            assert!((length - 1.0).abs() < 1e-5, "{length}");
        }
    }

    #[test]
    fn equal_contents_have_equal_vectors_and_others_do_not() {
        let of = |text: &str| {
            numbers(&format!(
                r#"{{"content":{{"parts":[{{"text":"{text}"}}]}},"outputDimensionality":8}}"#
            ))
        };
        assert_eq!(of("one"), of("one"));
        assert_ne!(of("one"), of("two"));
    }

    #[test]
    fn what_can_not_be_embedded_is_told_as_the_service_does() {
        for request in [
            r#"{}"#,
            r#"{"content":{"parts":[]}}"#,
            r#"{"content":{"parts":[{"text":"a"}]},"outputDimensionality":0}"#,
            r#"{"content":{"parts":[{"text":"a"}]},"outputDimensionality":4000}"#,
        ] {
            assert!(answer(request, 0).is_err(), "{request}");
        }
    }
}
