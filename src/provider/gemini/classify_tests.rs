//! How answers are sorted, by the bodies that were seen (API contract, 1, 3.6, 9).

use super::*;

fn answer(http: u16, body: &str) -> ErrorAnswer {
    let head = ErrorHead { http, ..ErrorHead::default() };
    ErrorAnswer::read(&head, body.as_bytes(), false, &key())
}

fn key() -> ApiKey {
    ApiKey::new("AIza-marker").expect("a key")
}

fn api(http: u16, status: &str, message: &str) -> ErrorAnswer {
    let error = serde_json::json!({"code": http, "status": status, "message": message});
    answer(http, &serde_json::json!({ "error": error }).to_string())
}

fn refused(verdict: Verdict) -> (RemoteError, RefusedKind) {
    match verdict {
        Verdict::Refused(error, kind) => (error, kind),
        Verdict::Failure(failure) => panic!("not refused: {failure:?}"),
    }
}

fn failed(verdict: Verdict) -> Failure {
    match verdict {
        Verdict::Failure(failure) => failure,
        Verdict::Refused(error, kind) => panic!("refused: {error:?} {kind:?}"),
    }
}

/// Fault 56.
#[test]
fn a_bad_key_is_denied_although_it_is_a_400() {
    let body = r#"{"error":{"code":400,"message":"API key not valid. Please pass a valid API key.",
        "status":"INVALID_ARGUMENT","details":[{"@type":"type.googleapis.com/google.rpc.ErrorInfo",
        "reason":"API_KEY_INVALID","domain":"googleapis.com"}]}}"#;
    assert!(matches!(answer(400, body).failure("list"), Failure::Denied(_)));
    assert!(matches!(failed(answer(400, body).refusal(None)), Failure::Denied(_)));
}

#[test]
fn statuses_are_sorted_by_what_to_do() {
    let class = |http| api(http, "X", "said").failure("list");
    assert!(matches!(class(302), Failure::Barred(_)));
    assert!(matches!(class(400), Failure::Rejected(_)));
    assert!(matches!(class(401), Failure::Denied(_)));
    assert!(matches!(class(403), Failure::Denied(_)));
    assert!(matches!(class(404), Failure::Gone(_)));
    assert!(matches!(class(407), Failure::Barred(_)));
    assert!(matches!(class(413), Failure::Rejected(_)));
    assert!(matches!(class(429), Failure::RateLimited { retry_after_ms: None, .. }));
    assert!(matches!(class(511), Failure::Barred(_)));
    for http in [408, 499, 500, 502, 503, 504] {
        assert!(matches!(class(http), Failure::Transient(_)), "{http}");
    }
}

/// Faults 60 and 67: paid results would be given up for the page of a proxy.
#[test]
fn a_page_that_is_not_the_apis_never_says_that_something_is_gone_or_refused_for_good() {
    for http in [400, 402, 404, 405, 410, 414, 451, 501] {
        for page in ["<html><h1>Not Found</h1></html>", "{}", "", "[]", r#"{"error":"no"}"#] {
            let failure = answer(http, page).failure("get batch");
            assert!(matches!(failure, Failure::Transient(_)), "{http} {page}: {failure:?}");
        }
    }
}

#[test]
fn the_key_is_taken_out_however_it_is_written() {
    let spelled = "AIza\\u002dm\\u0061rker";
    let bodies = [
        format!(r#"{{"error":{{"code":400,"message":"bad {spelled}","status":"{spelled}"}}}}"#),
        format!(r#"{{"error":"{spelled}"}}"#),
        format!(r#"{{"error":{{"message":"no {spelled} {}"#, "x".repeat(9)),
        format!(
            r#"{{"error":{{"message":"Invalid","details":[{{"fieldViolations":[{{"field":
            "batch.input_config.requests.requests[3]","description":"{spelled}"}}]}}]}}}}"#
        ),
    ];
    for body in bodies {
        let answer = answer(400, &body);
        let told = format!("{answer:?} {:?} {:?}", answer.failure("x"), answer.refusal(None));
        assert!(!told.contains("AIza-marker"), "{told}");
    }
}

/// Fault 58.
#[test]
fn only_a_definite_refusal_of_a_create_is_no_ambiguity() {
    for http in [408, 409, 499, 500, 502, 503, 504] {
        let verdict = answer(http, "<html>").refusal(None);
        assert!(matches!(failed(verdict), Failure::Ambiguous(_)), "{http}");
    }
    assert!(matches!(failed(answer(429, "").refusal(None)), Failure::RateLimited { .. }));
    assert!(matches!(failed(answer(301, "").refusal(None)), Failure::Barred(_)));
    assert!(matches!(failed(answer(407, "").refusal(None)), Failure::Barred(_)));
    let billing = api(400, "FAILED_PRECONDITION", "User location is not supported");
    assert!(matches!(failed(billing.refusal(Some("files/a"))), Failure::Denied(_)));
    let whole = api(400, "INVALID_ARGUMENT", "Request contains an invalid argument.");
    assert_eq!(refused(whole.refusal(None)).1, RefusedKind::Whole);
    assert_eq!(refused(answer(413, "").refusal(None)).1, RefusedKind::Whole);
}

#[test]
fn a_missing_model_and_a_missing_file_are_told_apart() {
    let model = "models/x is not found for API version v1beta, or is not supported";
    let model = api(404, "NOT_FOUND", model);
    assert_eq!(refused(model.refusal(Some("files/a1"))).1, RefusedKind::Model);
    let entity = api(404, "NOT_FOUND", "Requested entity was not found.");
    assert_eq!(refused(entity.refusal(Some("files/a1"))).1, RefusedKind::File);
    assert_eq!(refused(entity.refusal(None)).1, RefusedKind::Model);
    let file = "You do not have permission to access the File a1 or it may not exist.";
    let file = api(403, "PERMISSION_DENIED", file);
    assert_eq!(refused(file.refusal(Some("files/a1"))).1, RefusedKind::File);
    assert!(matches!(failed(file.refusal(None)), Failure::Denied(_)));
    let page = answer(404, "<html>nothing here</html>");
    assert!(matches!(failed(page.refusal(None)), Failure::Rejected(_)));
}

#[test]
fn rows_are_named_by_a_file_and_by_an_inline_request() {
    let message = "Error on line 1: invalid JSON, near column 1032: no such field: 'thinking'\n\
                   Error on line 20: x\nError on line 20: y";
    let (error, kind) = refused(api(400, "INVALID_ARGUMENT", message).refusal(Some("files/a")));
    assert_eq!(error.code, 3);
    let RefusedKind::Lines(lines) = kind else { panic!("{kind:?}") };
    assert_eq!(lines.iter().map(|line| line.0).collect::<Vec<_>>(), [1, 20]);
    assert_eq!(lines[1].1, "Error on line 20: x");

    let message = "Invalid JSON payload received. Unknown name \"a at 'batch.input_config.requests.\
                   requests[7]'\" at 'batch.input_config.requests.requests[0].request': \
                   Cannot find field.";
    let (_, kind) = refused(api(400, "INVALID_ARGUMENT", message).refusal(None));
    let RefusedKind::Lines(lines) = kind else { panic!("{kind:?}") };
    assert_eq!(lines.iter().map(|line| line.0).collect::<Vec<_>>(), [1]);
}

#[test]
fn field_violations_name_rows_too() {
    let body = serde_json::json!({"error": {"code": 400, "message": "Invalid", "details": [
        {"@type": "type.googleapis.com/google.rpc.BadRequest", "fieldViolations": [
            {"field": "batch.input_config.requests.requests[3].request", "description": "no"},
            {"field": "batch.display_name", "description": "long"}]}]}});
    let (_, kind) = refused(answer(400, &body.to_string()).refusal(None));
    assert_eq!(kind, RefusedKind::Lines(vec![(4, "no".to_owned())]));
}

#[test]
fn a_message_cut_off_never_blames_a_torn_number() {
    let full = format!(
        "{{\"error\":{{\"code\":400,\"message\":\"Error on line 12: a\\nError on line 573: b {}",
        "c".repeat(50)
    );
    for end in [full.len(), full.find("73").expect("there")] {
        let head = ErrorHead { http: 400, ..ErrorHead::default() };
        let cut = ErrorAnswer::read(&head, &full.as_bytes()[..end], true, &key());
        let (_, kind) = refused(cut.refusal(None));
        let lines = vec![(12, "Error on line 12: a".to_owned())];
        assert_eq!(kind, RefusedKind::Lines(lines));
    }
}

/// Fault 60.
#[test]
fn bodies_of_any_shape_give_one_clean_line() {
    let list = answer(500, r#"[{"error":{"code":500,"message":"a\nb","status":"INTERNAL"}}]"#);
    assert_eq!(list.describe("list batches"), "list batches: HTTP 500 INTERNAL: a b");
    let html = answer(502, &format!("<html>\x1b[31m{}", "x".repeat(5000)));
    let text = html.describe("list batches");
    assert!(text.len() < 400 && !text.contains('\x1b'), "{text}");
    let leak = answer(400, r#"{"error":{"message":"bad key AIza-marker"}}"#);
    assert!(!format!("{leak:?}").contains("AIza-marker"));
    assert_eq!(answer(503, "").describe("x"), "x: HTTP 503 (not an answer in the API's format)");
}

/// Fault 55.
#[test]
fn a_pause_is_read_from_header_date_and_details_and_is_bounded() {
    let pause = |retry: &str, date: Option<&str>| {
        let head = ErrorHead {
            http: 429,
            retry_after: Some(retry.to_owned()),
            date: date.map(str::to_owned),
        };
        ErrorAnswer::read(&head, b"", false, &key()).retry_after_ms
    };
    assert_eq!(pause("7", None), Some(7000));
    assert_eq!(pause("315360000", None), Some(RETRY_AFTER_MAX_MS));
    let now = Some("Sun, 06 Nov 1994 08:49:37 GMT");
    assert_eq!(pause("Sun, 06 Nov 1994 08:50:00 GMT", now), Some(23_000));
    assert_eq!(pause("Sun, 06 Nov 1994 08:50:00 GMT", None), None);
    assert_eq!(pause("soon", now), None);
    let body = r#"{"error":{"details":[{"@type":"x","retryDelay":"34.4s"}]}}"#;
    assert_eq!(answer(429, body).retry_after_ms, Some(34_400));
}
