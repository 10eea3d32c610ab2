use std::path::Path;

use crate::{Asked, EMBED, FLASH, Finding, Task, check, lint, request, said};

/// What stands in a request, and what is said of it.
pub const REQUESTS: &[(&str, &[&str])] = &[
    // Good ones of real life.
    ("", &[]),
    (r#""generationConfig": {"temperature": 0.2, "maxOutputTokens": 4096}"#, &[]),
    (r#""generation_config": {"top_k": 40, "stop_sequences": ["END"], "seed": null}"#, &[]),
    (
        r#""generationConfig": {"thinkingConfig": {"thinkingBudget": 0}, "maxOutputTokens": 100}"#,
        &[],
    ),
    (
        r#""generationConfig": {"thinking_config": {"thinking_budget": 64}, "maxOutputTokens": "65"}"#,
        &[],
    ),
    (
        r#""system_instruction": {"parts": {"text": "one"}}"#,
        &["wrong_type request.system_instruction.parts"],
    ),
    (
        r#""systemInstruction": {"parts": [{"text": "Be brief."}]}, "model": "models/gemini-2.5-flash""#,
        &[],
    ),
    (r#""tools": [{"googleSearch": {}}, {"codeExecution": {}}], "cachedContent": null"#, &[]),
    (
        r#""safetySettings": [{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_NONE"}]"#,
        &[],
    ),
    (
        r#""tools": [{"functionDeclarations": [{"name": "f", "parameters": {"type": "object",
            "properties": {"temperature": {"type": "NUMBER"}}}}]}],
           "toolConfig": {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["f"]}}"#,
        &[],
    ),
    (
        r#""generationConfig": {"responseMimeType": "application/json", "responseSchema":
            {"type": "OBJECT", "properties": {"config": {"type": "STRING"}}}}"#,
        &[],
    ),
    // Settings where they do not belong.
    (r#""temperature": 0.5"#, &["misplaced request.temperature"]),
    (r#""max_output_tokens": 9000"#, &["misplaced request.max_output_tokens"]),
    (r#""thinkingConfig": {}"#, &["misplaced request.thinkingConfig"]),
    (r#""thinking_budget": 0"#, &["misplaced request.thinking_budget"]),
    (
        r#""generationConfig": {"thinkingBudget": 0}"#,
        &["misplaced request.generationConfig.thinkingBudget"],
    ),
    (
        r#""generationConfig": {"systemInstruction": {"parts": [{"text": "x"}]}}"#,
        &["misplaced request.generationConfig.systemInstruction"],
    ),
    (
        r#""generationConfig": {"thinkingConfig": {"temperature": 1}}"#,
        &["misplaced request.generationConfig.thinkingConfig.temperature"],
    ),
    (
        r#""config": {"temperature": 0, "labels": {}}"#,
        &["misplaced request.config.temperature", "misplaced request.config.labels"],
    ),
    (
        r#""temperature": 0.5, "generationConfig": {"temperature": 1}"#,
        &["misplaced request.temperature"],
    ),
    // Shapes.
    (r#""systemInstruction": "Be brief.""#, &["system_instruction request.systemInstruction"]),
    (
        r#""system_instruction": [{"text": "a"}]"#,
        &["system_instruction request.system_instruction"],
    ),
    (r#""systemInstruction": {"parts": "a"}"#, &["wrong_type request.systemInstruction.parts"]),
    (
        r#""safetySettings": {"category": "HARM_CATEGORY_HARASSMENT"}"#,
        &["wrong_type request.safetySettings"],
    ),
    (
        r#""generationConfig": {"temperature": "warm"}"#,
        &["wrong_type request.generationConfig.temperature"],
    ),
    (
        r#""generationConfig": {"maxOutputTokens": 99999.5}"#,
        &["wrong_type request.generationConfig.maxOutputTokens"],
    ),
    (r#""generationConfig": [1]"#, &["wrong_type request.generationConfig"]),
    // Names and words.
    (
        r#""generationConfig": {"temprature": 1}"#,
        &["unknown_field request.generationConfig.temprature"],
    ),
    (r#""generationConfig": {"Top_P": 1}"#, &["unknown_field request.generationConfig.Top_P"]),
    (r#""user.id\n": 1"#, &[r#"unknown_field request["user.id\n"]"#]),
    (r#""max_tokens": 100"#, &["unknown_field request.max_tokens"]),
    (
        r#""safetySettings": [{"category": "HATE_SPEECH", "threshold": "NONE"}]"#,
        &[
            "unknown_value request.safetySettings[0].category",
            "unknown_value request.safetySettings[0].threshold",
        ],
    ),
    (r#""generationConfig": {}, "generation_config": {}"#, &["twice request.generation_config"]),
    // Habits of batches.
    (
        r#""generationConfig": {"responseMimeType": "application/json", "responseJsonSchema": {"type": "object"}}"#,
        &["response_json_schema request.generationConfig.responseJsonSchema"],
    ),
    (
        r#""generationConfig": {"responseSchema": {"type": "OBJECT"}}"#,
        &["response_mime_type request.generationConfig.responseMimeType"],
    ),
    (
        r#""generationConfig": {"responseSchema": {"type": "OBJECT"}, "response_mime_type": "text/plain"}"#,
        &["response_mime_type request.generationConfig.response_mime_type"],
    ),
    (
        r#""generationConfig": {"maxOutputTokens": 256}"#,
        &["max_tokens request.generationConfig.maxOutputTokens"],
    ),
    (
        r#""generationConfig": {"maxOutputTokens": 256, "thinkingConfig": {"thinkingBudget": 512}}"#,
        &["max_tokens request.generationConfig.maxOutputTokens"],
    ),
    (
        r#""generationConfig": {"thinkingConfig": {"thinkingLevel": "LOW"}}"#,
        &["thinking request.generationConfig.thinkingConfig"],
    ),
    (
        r#""generationConfig": {"temperature": 2.5, "topP": -0.1, "candidateCount": 0}"#,
        &[
            "out_of_range request.generationConfig.temperature",
            "out_of_range request.generationConfig.topP",
            "out_of_range request.generationConfig.candidateCount",
        ],
    ),
    (
        r#""toolConfig": {"functionCallingConfig": {"mode": "ANY"}}"#,
        &["tool_config request.toolConfig"],
    ),
    (
        r#""tools": [{"googleSearch": {}}], "toolConfig": {"functionCallingConfig": {"mode": "ANY"}}"#,
        &["tool_config request.toolConfig.functionCallingConfig"],
    ),
    (
        r#""tools": [{"functionDeclarations": [{"name": "f"}]}],
        "toolConfig": {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["g"]}}"#,
        &["tool_config request.toolConfig.functionCallingConfig"],
    ),
    (
        r#""tools": [{"functionDeclarations": [{"name": "f"}]}],
        "toolConfig": {"functionCallingConfig": {"allowedFunctionNames": ["f"]}}"#,
        &["tool_config request.toolConfig.functionCallingConfig"],
    ),
    (
        r#""cachedContent": "cachedContents/a", "systemInstruction": {"parts": [{"text": "x"}]}"#,
        &["cached_content request.systemInstruction"],
    ),
    (
        r#""cachedContent": "cachedContents/a", "toolConfig": {}"#,
        &["cached_content request.toolConfig"],
    ),
];

#[test]
fn each_request_has_the_findings_of_the_table_and_no_others() {
    for (more, expected) in REQUESTS {
        let line = request(more).replace('\n', " ");
        assert_eq!(said(&check(&line)), *expected, "{line}");
    }
}

#[test]
fn what_is_found_in_a_request_is_found_in_a_bare_one_under_its_own_path() {
    let line =
        r#"{"contents": [{"parts": [{"text": "hi"}]}], "config": {"temperature": 0}, "topK": 0}"#;
    assert_eq!(said(&check(line)), ["misplaced config.temperature", "misplaced topK"]);
}

/// Parts, and what is said of them.
const PARTS: &[(&str, &[&str])] = &[
    (r#"{"text": ""}"#, &[]),
    (r#"{"inlineData": {"mimeType": "image/png", "data": "aGk="}}"#, &[]),
    (r#"{"inline_data": {"data": "aGk="}}"#, &["mime_type [0].inline_data"]),
    (
        r#"{"inlineData": {"mimeType": "image/png", "data": "data:image/png;base64,aGk="}}"#,
        &["wrong_type [0].inlineData.data"],
    ),
    (r#"{"fileData": {"fileUri": "https://example.com/cat.png"}}"#, &[]),
    (r#"{"fileData": {"fileUri": "file:pictures/cat.png"}}"#, &[]),
    (
        r#"{"fileData": {"fileUri": "https://generativelanguage.googleapis.com/v1beta/files/abc"}}"#,
        &["file_uri [0].fileData.fileUri"],
    ),
    (r#"{"file_data": {"file_uri": "files/abc"}}"#, &["file_uri [0].file_data.file_uri"]),
    (r#"{"fileData": {"fileUri": "gs://bucket/cat.png"}}"#, &["file_uri [0].fileData.fileUri"]),
    (
        r#"{"fileData": {"fileUri": "data:image/png;base64,aGk="}}"#,
        &["file_uri [0].fileData.fileUri"],
    ),
    (r#"{"fileData": {"fileUri": "/home/me/cat.png"}}"#, &["file_uri [0].fileData.fileUri"]),
    (r#"{}, {"text": null}"#, &["empty [0]", "empty [1]"]),
    (r#""just text""#, &["wrong_type [0]"]),
];

#[test]
fn parts_are_looked_at_one_by_one() {
    for (parts, expected) in PARTS {
        let line =
            format!(r#"{{"request": {{"contents": [{{"role": "user", "parts": [{parts}]}}]}}}}"#);
        let expected: Vec<String> =
            expected.iter().map(|it| it.replace(" [", " request.contents[0].parts[")).collect();
        assert_eq!(said(&check(&line)), expected, "{line}");
    }
}

#[test]
fn contents_have_parts_and_a_role_that_the_api_knows() {
    for (content, expected) in [
        (
            r#"{"role": "assistant", "parts": [{"text": "a"}]}"#,
            vec!["role request.contents[0].role"],
        ),
        (r#"{"role": "system", "parts": [{"text": "a"}]}"#, vec!["role request.contents[0].role"]),
        (r#"{"role": "function", "parts": [{"functionResponse": {"name": "f"}}]}"#, vec![]),
        (r#"{"role": "", "parts": [{"text": "a"}]}"#, vec![]),
        (r#"{"parts": []}"#, vec!["empty request.contents[0]"]),
        (r#"{"role": "user"}"#, vec!["empty request.contents[0]"]),
        (
            r#"{"role": "user", "content": "a"}"#,
            vec!["unknown_field request.contents[0].content", "empty request.contents[0]"],
        ),
    ] {
        let line = format!(r#"{{"request": {{"contents": [{content}]}}}}"#);
        assert_eq!(said(&check(&line)), expected, "{line}");
    }
}

#[test]
fn what_stands_beside_a_request_is_the_users_own_unless_it_looks_like_a_setting() {
    let inner = r#""request": {"contents": [{"parts": [{"text": "hi"}]}]}"#;
    for (beside, expected) in [
        (r#""key": "a", "id": 7, "source": {"temperature": 1}"#, vec![]),
        // As errors.jsonl has them.
        (r#""key": "a", "error": {"code": 3, "message": "x"}, "line": 3"#, vec![]),
        (r#""metadata": {"key": "a", "temperature": 1}"#, vec![]),
        (
            r#""config": {"temperature": 1, "http_options": {}}"#,
            vec!["ignored config.temperature", "ignored config.http_options"],
        ),
        (r#""config": {}"#, vec!["ignored config"]),
        (r#""config": "prod", "generationConfig": {"topK": 1}"#, vec!["ignored generationConfig"]),
        (r#""system_instruction": "x", "temperature": null"#, vec!["ignored system_instruction"]),
    ] {
        let line = format!("{{{beside}, {inner}}}");
        assert_eq!(said(&check(&line)), expected, "{line}");
    }
}

#[test]
fn embeddings_have_rules_of_their_own() {
    for (request, expected) in [
        (
            r#"{"content": {"parts": [{"text": "a"}]}, "taskType": "RETRIEVAL_DOCUMENT", "title": "t",
            "output_dimensionality": 256, "embedContentConfig": {"autoTruncate": true}}"#,
            vec![],
        ),
        (
            r#"{"content": {"parts": [{"text": "a"}]}, "autoTruncate": true}"#,
            vec!["misplaced request.autoTruncate"],
        ),
        (
            r#"{"content": {"parts": [{"text": "a"}]}, "config": {"outputDimensionality": 1}}"#,
            vec!["misplaced request.config.outputDimensionality"],
        ),
        (
            r#"{"content": {"parts": [{"text": "a"}]}, "outputDimensionality": 9999, "dimensions": 1}"#,
            vec!["unknown_field request.dimensions", "out_of_range request.outputDimensionality"],
        ),
        (
            r#"{"content": {"parts": [{"text": "a"}]}, "taskType": "SEARCH"}"#,
            vec!["unknown_value request.taskType"],
        ),
        (
            r#"{"content": {"parts": [{"inlineData": {"mimeType": "image/png", "data": "aGk="}}]}}"#,
            vec!["not_embedded request.content.parts[0]"],
        ),
        (
            r#"{"content": {"parts": [{"text": "a"}]}, "generationConfig": {}}"#,
            vec!["unknown_field request.generationConfig"],
        ),
        (r#"{"content": {"parts": []}}"#, vec!["empty request.content"]),
    ] {
        let line = format!(r#"{{"key": 1, "request": {request}}}"#);
        assert_eq!(said(&lint::check(&line, EMBED)), expected, "{line}");
    }
}

#[test]
fn a_model_decides_what_is_said_of_thinking() {
    let found = |model: &str, config: &str| -> Vec<String> {
        let line = request(&format!(r#""generationConfig": {{{config}}}"#));
        let asked = Asked { task: Task::Generate, model };
        lint::check(&line, asked).into_iter().map(|it| it.kind.as_str().to_owned()).collect()
    };
    let few = r#""maxOutputTokens": 300"#;
    assert_eq!(found("gemini-2.5-flash-lite", few), [""; 0]);
    assert_eq!(found("gemini-2.0-flash", few), [""; 0]);
    assert_eq!(found("somebody-elses-model", few), [""; 0]);
    assert_eq!(found("gemini-2.5-pro", few), ["max_tokens"]);
    assert_eq!(found("gemini-3-pro-preview", few), ["max_tokens"]);
    let low = r#""maxOutputTokens": 300, "thinkingConfig": {"thinkingLevel": "low"}"#;
    assert_eq!(found("gemini-3-pro-preview", low), [""; 0]);
    let none = r#""thinkingConfig": {"thinkingBudget": 0}"#;
    assert_eq!(found("gemini-2.5-pro", none), ["thinking"]);
    assert_eq!(found("gemini-2.0-flash", none), ["thinking"]);
    let both = r#""thinkingConfig": {"thinkingBudget": 100, "thinkingLevel": "LOW"}"#;
    assert_eq!(found("gemini-3-pro-preview", both), ["thinking"]);
}

#[test]
fn each_finding_says_what_happens_and_what_to_do() {
    for (more, _) in REQUESTS {
        for Finding { kind, message, remedy, .. } in check(&request(more).replace('\n', " ")) {
            assert!(message.len() > 20 && remedy.len() > 5, "{kind:?}: {message}; {remedy}");
        }
    }
    let remedy = |more: &str| check(&request(more)).remove(0).remedy;
    assert_eq!(remedy(r#""temperature": 1"#), "move it to request.generationConfig.temperature");
    assert_eq!(remedy(r#""generationConfig": {"temprature": 1}"#), "did you mean `temperature`?");
    assert_eq!(remedy(r#""max_tokens": 1"#), "did you mean `generationConfig.maxOutputTokens`?");
    assert_eq!(remedy(r#""xyzzy": 1"#), "take it out");
    let hate = r#""safetySettings": [{"category": "HATE_SPEECH"}]"#;
    assert_eq!(remedy(hate), "did you mean \"HARM_CATEGORY_HATE_SPEECH\"?");
}

#[test]
fn what_is_no_request_of_this_kind_has_no_findings() {
    for line in [
        "",
        "nonsense",
        "[1, 2]",
        "{}",
        r#"{"key": 1}"#,
        r#"{"custom_id": "1", "method": "POST", "url": "/v1/embeddings", "body": {"temperature": 1}}"#,
        r#"{"key": 1, "request": "text"}"#,
        r#"{"batch": {"temperature": 1}}"#,
    ] {
        assert_eq!(said(&check(line)), [""; 0], "{line}");
    }
}

#[test]
fn a_line_full_of_mistakes_gives_a_bounded_number_of_findings() {
    let members: Vec<String> = (0..10_000).map(|n| format!("\"no{n}\": {n}")).collect();
    let found = check(&request(&members.join(", ")));
    assert_eq!(found.len(), 100);
}

#[test]
fn the_examples_have_no_findings() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let (mut lines, mut files) = (0, Vec::new());
    collect(&folder, &mut files);
    for file in files {
        // What is cut off there is to be cut off.
        if file.ends_with("features/judged/reviews.jsonl") {
            continue;
        }
        let text = std::fs::read_to_string(&file).expect("text");
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            let asked = if line.contains("\"content\":") { EMBED } else { FLASH };
            assert_eq!(said(&lint::check(line, asked)), [""; 0], "{}: {line}", file.display());
            lines += 1;
        }
    }
    assert!(lines > 20, "only {lines} lines were found");
}

/// Files with good requests.
fn collect(folder: &Path, files: &mut Vec<std::path::PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("listed") {
        let path = entry.expect("listed").path();
        let name = path.file_name().expect("named").to_string_lossy().into_owned();
        if path.is_dir() && name != "mistakes" && name != "lint" {
            collect(&path, files);
        } else if name.ends_with(".jsonl") {
            files.push(path);
        }
    }
}

#[test]
fn the_example_of_habits_has_one_of_each() {
    let file =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/features/lint/sdk-habits.jsonl");
    let text = std::fs::read_to_string(file).expect("there");
    let found: Vec<Vec<String>> = text.lines().map(|line| said(&check(line))).collect();
    assert_eq!(
        found,
        [
            vec![],
            vec!["ignored config.temperature", "ignored config.system_instruction"],
            vec!["misplaced request.temperature", "misplaced request.thinking_budget"],
            vec!["system_instruction request.systemInstruction"],
            vec!["response_json_schema request.generationConfig.responseJsonSchema"],
            vec!["max_tokens request.generationConfig.maxOutputTokens"],
        ]
    );
}
