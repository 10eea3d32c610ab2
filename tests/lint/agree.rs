//! What `lint` calls an error is what the emulator refuses, and nothing else.

use proptest::prelude::*;
use serde_json::{Value, json};

use gemini_batchd::lint::mend::mend;
use gemini_batchd::provider::gemini::emulator::schema::first_offence;

use crate::found::REQUESTS;
use crate::{FLASH, check, request};

fn refused(line: &str) -> Option<String> {
    let line: Value = serde_json::from_str(line).expect("JSON");
    let request = line["request"].to_string();
    first_offence("GenerateContentRequest", request.as_bytes()).err().map(|misfit| misfit.what)
}

fn agree(line: &str) {
    let found = check(line);
    let errors: Vec<_> = found.iter().filter(|finding| finding.kind.is_error()).collect();
    assert_eq!(refused(line).is_some(), !errors.is_empty(), "{line}: {errors:#?}");
    let mended = mend(line, FLASH);
    assert!(mended.left.iter().all(|finding| finding.mend.is_none()), "{line}: {mended:#?}");
    let still = mended.left.iter().any(|finding| finding.kind.is_error());
    assert!(!still || !errors.is_empty(), "mending makes no errors: {line}: {mended:#?}");
    if let Some(mended) = &mended.line {
        assert_eq!(mend(mended, FLASH).line, None, "mending again changes nothing: {line}");
    }
}

#[test]
fn the_emulator_refuses_what_lint_calls_an_error_and_nothing_else() {
    for (more, _) in REQUESTS {
        agree(&request(more).replace('\n', " "));
    }
}

/// Names that mean something somewhere, and some that mean nothing anywhere.
fn name() -> impl Strategy<Value = String> {
    prop::sample::select(vec![
        "temperature",
        "top_k",
        "maxOutputTokens",
        "generationConfig",
        "generation_config",
        "thinkingConfig",
        "thinking_budget",
        "thinkingLevel",
        "systemInstruction",
        "system_instruction",
        "responseSchema",
        "response_json_schema",
        "responseMimeType",
        "safetySettings",
        "category",
        "tools",
        "toolConfig",
        "functionCallingConfig",
        "cachedContent",
        "parts",
        "text",
        "role",
        "config",
        "type",
        "properties",
        "stopSequences",
        "nonsense",
    ])
    .prop_map(str::to_owned)
}

fn value() -> impl Strategy<Value = Value> {
    let scalar = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-3..5000_i64).prop_map(Value::from),
        (-3.0..3.0_f64).prop_map(|number| json!((number * 8.0).round() / 8.0)),
        prop::sample::select(vec!["", "user", "HIGH", "12", "OBJECT", "x y", "application/json"])
            .prop_map(Value::from),
    ];
    scalar.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::btree_map(name(), inner, 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn both_agree_on_requests_made_up_at_random(
        more in prop::collection::btree_map(name(), value(), 0..4)
    ) {
        let more: Vec<String> =
            more.iter().map(|(name, value)| format!("{name:?}: {value}")).collect();
        agree(&request(&more.join(", ")));
    }
}
