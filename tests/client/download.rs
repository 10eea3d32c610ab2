//! Results as they come: inline, by file, torn, doubled, broken off.

use std::sync::{Arc, Mutex};

use gemini_batchd::engine::event::Failure;
use gemini_batchd::engine::ids::BatchName;
use gemini_batchd::provider::gemini::{Client, Fetched, Results};

use crate::server::{Reply, Request, Server};

const LINES: &str = "{\"key\":\"1\",\"response\":{}}\n{\"key\":\"2\",\"response\":{}}\n";
const FILE: &str = "/download/v1beta/files/batch-abc:download?alt=media";

/// Keeps results in memory as the spool does on disk.
#[derive(Default)]
pub struct Kept {
    bytes: Vec<u8>,
    paused: bool,
}

impl Results for Kept {
    fn resume(&mut self) -> Result<u64, Failure> {
        self.paused = false;
        Ok(self.bytes.len() as u64)
    }

    fn restart(&mut self) -> Result<(), Failure> {
        self.bytes.clear();
        Ok(())
    }

    fn take(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        if bytes.windows(4).any(|four| four == b"full") {
            return Err(Failure::Local("the disk is full".to_owned()));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn is_whole(&mut self) -> bool {
        let start = self.bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let tail = &self.bytes[start..];
        tail.is_empty() || serde_json::from_slice::<serde_json::Value>(tail).is_ok()
    }

    fn pause(&mut self) -> Result<(), Failure> {
        self.paused = true;
        Ok(())
    }
}

/// Where results are kept.
#[derive(Default)]
pub struct Place {
    pub kept: Arc<Mutex<Kept>>,
}

impl Place {
    pub fn new() -> Place {
        Place::default()
    }

    fn holding(text: &str) -> Place {
        let place = Place::new();
        place.kept.lock().expect("no panic holds it").bytes = text.as_bytes().to_vec();
        place
    }

    pub fn text(&self) -> String {
        let kept = self.kept.lock().expect("no panic holds it");
        String::from_utf8(kept.bytes.clone()).expect("text")
    }

    fn is_paused(&self) -> bool {
        self.kept.lock().expect("no panic holds it").paused
    }

    async fn fetch(&self, client: &Client) -> Result<Fetched, Failure> {
        client.fetch(&BatchName("batches/abc".to_owned()), &self.kept).await
    }
}

fn operation(state: &str, output: &str) -> String {
    format!(
        r#"{{"name":"batches/abc","metadata":{{"state":"BATCH_STATE_{state}","displayName":"s",
            "batchStats":{{"requestCount":"2"}}{output}}},"done":true}}"#
    )
}

fn by_file() -> String {
    operation("SUCCEEDED", r#","output":{"responsesFile":"files/batch-abc"}"#)
}

fn is_file(request: &Request) -> bool {
    request.target == FILE
}

#[tokio::test]
async fn inline_results_are_taken_once_line_by_line_as_they_came() {
    let item = "{\n  \"response\": {\"n\": 1.50, \"t\": \"a\\nb \u{e9}\"},\r\n  \"metadata\": {\"key\": \"1\"}}";
    let second = r#"{"error":{"code":13},"metadata":{"key":"2"}}"#;
    let list = format!(r#"{{"inlinedResponses":{{"inlinedResponses":[{item},{second}]}}}}"#);
    let metadata = format!(
        r#""metadata":{{"output":{list},"state":"BATCH_STATE_SUCCEEDED","batchStats":{{"requestCount":"2"}}}}"#
    );
    let response = format!(r#""response":{list},"done":true,"name":"batches/abc""#);
    for body in [format!("{{{metadata},{response}}}"), format!("{{{response},{metadata}}}")] {
        let server = Server::start(move |_| Reply::json(body.clone())).await;
        let place = Place::new();
        let fetched = place.fetch(&server.client()).await.expect("fetched");
        let expected = format!("{}\n{second}\n", item.replace(['\n', '\r'], " "));
        assert_eq!(place.text(), expected);
        assert_eq!(fetched.request_count, Some(2));
        assert_eq!(server.seen().len(), 1);
    }
}

#[tokio::test]
async fn a_broken_character_spoils_one_inline_result_only() {
    let mut body = operation(
        "SUCCEEDED",
        r#","output":{"inlinedResponses":{"inlinedResponses":[{"t":"<@>"},{"t":"ü"}]}}"#,
    )
    .into_bytes();
    let at = body.iter().position(|byte| *byte == b'@').expect("there");
    body[at] = 0xff;
    let server = Server::start(move |_| Reply::with(200, &[], &body)).await;
    let place = Place::new();
    place.fetch(&server.client()).await.expect("fetched");
    assert_eq!(place.text(), "{\"t\":\"<\u{FFFD}>\"}\n{\"t\":\"ü\"}\n");
}

#[tokio::test]
async fn an_operation_that_breaks_off_leaves_nothing_behind() {
    let list = r#","output":{"inlinedResponses":{"inlinedResponses":[{"a":1},{"a":2}]}}"#;
    let body = operation("SUCCEEDED", list);
    for cut in [body.len() / 2, body.len() - 1] {
        let short = body[..cut].to_owned();
        let length = body.len();
        let server =
            Server::start(move |_| Reply::promising(200, &[], short.as_bytes(), length)).await;
        let place = Place::new();
        let failure = place.fetch(&server.client()).await.expect_err("torn");
        assert!(matches!(failure, Failure::Transient(_)), "{failure:?}");
        assert_eq!(place.text(), "");
    }
}

#[tokio::test]
async fn a_result_file_is_downloaded_and_its_last_line_may_lack_the_break() {
    for lines in [LINES, LINES.trim_end(), ""] {
        let server = Server::start(move |request| {
            Reply::json(if is_file(request) { lines.to_owned() } else { by_file() })
        })
        .await;
        let place = Place::new();
        place.fetch(&server.client()).await.expect("fetched");
        assert_eq!(place.text(), lines);
    }
}

/// Fault 74.
#[tokio::test]
async fn a_download_that_broke_goes_on_where_the_server_allows_it() {
    for ranges in [true, false] {
        let server = Server::start(move |request| {
            if !is_file(request) {
                return Reply::json(by_file());
            }
            let range = request.header("range").and_then(|r| r.strip_prefix("bytes="));
            match range.and_then(|r| r.trim_end_matches('-').parse::<usize>().ok()) {
                None => Reply::promising(200, &[], &LINES.as_bytes()[..30], LINES.len()),
                Some(from) if ranges => {
                    let content = format!("bytes {from}-{}/{}", LINES.len() - 1, LINES.len());
                    Reply::with(206, &[("content-range", &content)], &LINES.as_bytes()[from..])
                }
                Some(_) => Reply::json(LINES),
            }
        })
        .await;
        let place = Place::new();
        let failure = place.fetch(&server.client()).await.expect_err("cut");
        assert!(matches!(failure, Failure::Transient(_)), "{failure:?}");
        assert_eq!(place.text(), LINES[..30]);
        assert!(place.is_paused(), "what came is kept");
        place.fetch(&server.client()).await.expect("fetched");
        assert_eq!(place.text(), LINES);
        let asked: Vec<_> = server.seen().into_iter().filter(is_file).collect();
        assert_eq!(asked[1].header("range"), Some("bytes=30-"));
        assert_eq!(asked.len(), 2);
    }
}

#[tokio::test]
async fn a_range_that_does_not_fit_starts_over() {
    let server = Server::start(|request| match (is_file(request), request.header("range")) {
        (false, _) => Reply::json(by_file()),
        (true, Some(_)) => Reply::with(206, &[("content-range", "bytes 0-9/99")], b"0123456789"),
        (true, None) => Reply::json(LINES),
    })
    .await;
    let place = Place::holding(&LINES[..30]);
    let failure = place.fetch(&server.client()).await.expect_err("does not fit");
    assert!(matches!(failure, Failure::Transient(_)), "{failure:?}");
    place.fetch(&server.client()).await.expect("fetched");
    assert_eq!(place.text(), LINES);
}

#[tokio::test]
async fn nothing_more_to_download_is_complete_only_with_a_whole_last_line() {
    let server = Server::start(|request| match (is_file(request), request.header("range")) {
        (false, _) => Reply::json(by_file()),
        (true, Some(_)) => Reply::status(416, ""),
        (true, None) => Reply::json(LINES),
    })
    .await;
    let place = Place::holding(LINES);
    place.fetch(&server.client()).await.expect("fetched");
    assert_eq!(place.text(), LINES);

    let place = Place::holding(&LINES[..30]);
    assert!(place.fetch(&server.client()).await.is_err());
    place.fetch(&server.client()).await.expect("fetched");
    assert_eq!(place.text(), LINES);
}

/// Fault 68.
#[tokio::test]
async fn a_torn_last_line_is_no_success_even_if_the_length_is_right() {
    let server = Server::start(|request| {
        Reply::json(if is_file(request) { LINES[..30].to_owned() } else { by_file() })
    })
    .await;
    let failure = Place::new().fetch(&server.client()).await.expect_err("torn");
    assert!(matches!(&failure, Failure::Transient(m) if m.contains("inside a line")));
}

#[tokio::test]
async fn what_can_not_be_taken_ends_the_download_with_its_reason() {
    let list = r#","output":{"inlinedResponses":{"inlinedResponses":[{"a":"full"}]}}"#;
    for body in [by_file(), operation("SUCCEEDED", list)] {
        let server = Server::start(move |request| {
            Reply::json(if is_file(request) { "{\"full\":1}\n".to_owned() } else { body.clone() })
        })
        .await;
        let place = Place::new();
        let failure = place.fetch(&server.client()).await.expect_err("refused");
        assert_eq!(failure, Failure::Local("the disk is full".to_owned()));
        assert!(!place.is_paused());
    }
}

#[tokio::test]
async fn inline_results_replace_what_an_earlier_try_left() {
    let list = r#","output":{"inlinedResponses":{"inlinedResponses":[{"a":1}]}}"#;
    let body = operation("SUCCEEDED", list);
    let server = Server::start(move |_| Reply::json(body.clone())).await;
    let place = Place::holding(&LINES[..30]);
    place.fetch(&server.client()).await.expect("fetched");
    assert_eq!(place.text(), "{\"a\":1}\n");
}

#[tokio::test]
async fn a_success_without_results_is_not_ready_and_other_ends_have_none() {
    let cases = [("SUCCEEDED", false), ("CANCELLED", true), ("EXPIRED", true), ("FAILED", true)];
    for (state, ended) in cases {
        let server = Server::start(move |_| Reply::json(operation(state, ""))).await;
        let place = Place::new();
        match place.fetch(&server.client()).await {
            Ok(_) => {
                assert!(ended, "{state}");
                assert_eq!(place.text(), "");
            }
            Err(failure) => {
                assert!(!ended && matches!(failure, Failure::NotReady(_)), "{failure:?}");
            }
        }
    }
    let running = r#"{"name":"batches/abc","metadata":{"state":"BATCH_STATE_RUNNING"}}"#;
    let server = Server::start(move |_| Reply::json(running)).await;
    let failure = Place::new().fetch(&server.client()).await.expect_err("runs");
    assert!(matches!(failure, Failure::NotReady(_)), "{failure:?}");
}

/// Fault 67.
#[tokio::test]
async fn results_that_are_gone_or_oddly_named_are_told_apart() {
    for status in [403, 404] {
        let server = Server::start(move |request| {
            if is_file(request) {
                Reply::error(status, "X", "gone")
            } else {
                Reply::json(by_file())
            }
        })
        .await;
        let failure = Place::new().fetch(&server.client()).await.expect_err("gone");
        assert!(matches!(failure, Failure::Gone(_)), "{failure:?}");
    }
    let odd = operation("SUCCEEDED", r#","output":{"responsesFile":"files/../../batches"}"#);
    let server = Server::start(move |_| Reply::json(odd.clone())).await;
    assert!(Place::new().fetch(&server.client()).await.is_err());
    assert_eq!(server.seen().len(), 1, "an odd name is not asked for");
}

/// Faults 60 and 73.
#[tokio::test]
async fn what_is_too_long_or_compressed_is_refused() {
    let long = format!("{{\"t\":\"{}\"}}", "x".repeat(300));
    let list = format!(r#","output":{{"inlinedResponses":{{"inlinedResponses":[{long}]}}}}"#);
    let inline = operation("SUCCEEDED", &list);
    let body = long.clone();
    let servers = [
        Server::start(move |_| Reply::json(inline.clone())).await,
        Server::start(move |request| {
            Reply::json(if is_file(request) { body.clone() } else { by_file() })
        })
        .await,
    ];
    for server in servers {
        let mut settings = server.settings();
        settings.item_bytes_max = 200;
        let client = Client::new(settings).expect("a client");
        let failure = Place::new().fetch(&client).await.expect_err("too long");
        assert!(matches!(failure, Failure::Rejected(_)), "{failure:?}");
    }
    let server = Server::start(|request| match is_file(request) {
        true => Reply::with(200, &[("content-encoding", "gzip")], b"\x1f\x8b"),
        false => Reply::json(by_file()),
    })
    .await;
    let failure = Place::new().fetch(&server.client()).await.expect_err("compressed");
    assert!(matches!(failure, Failure::Barred(_)), "{failure:?}");
}

/// Fault 67: what was paid for is not given up for the page of a proxy or a portal.
#[tokio::test]
async fn a_page_in_the_place_of_results_is_no_result_and_no_loss() {
    let page = b"<html>\n<p>Please log in</p>\n</html>\n";
    for status in [200, 403, 404, 410, 302, 511] {
        let server = Server::start(move |request| match is_file(request) {
            true => Reply::with(status, &[("content-type", "Text/HTML; charset=utf-8")], page),
            false => Reply::json(by_file()),
        })
        .await;
        let place = Place::holding(&LINES[..30]);
        let failure = place.fetch(&server.client()).await.expect_err("no results");
        let lost = matches!(failure, Failure::Gone(_) | Failure::Rejected(_));
        assert!(!lost, "{status}: {failure:?}");
        assert_eq!(place.text(), LINES[..30], "{status}: what came before is kept");
    }
}

#[tokio::test]
async fn inline_results_are_not_mixed_with_a_file_and_an_empty_list_is_no_result() {
    let both = r#","output":{"inlinedResponses":{"inlinedResponses":[{"a":1}]},
        "responsesFile":"files/batch-abc"}"#;
    let both = operation("SUCCEEDED", both);
    let server = Server::start(move |_| Reply::json(both.clone())).await;
    let place = Place::new();
    place.fetch(&server.client()).await.expect("fetched");
    assert_eq!(place.text(), "{\"a\":1}\n");
    assert_eq!(server.seen().len(), 1);

    let empty = r#","output":{"inlinedResponses":{"inlinedResponses":[]}}"#;
    let empty = operation("SUCCEEDED", empty);
    let server = Server::start(move |_| Reply::json(empty.clone())).await;
    let failure = Place::new().fetch(&server.client()).await.expect_err("nothing yet");
    assert!(matches!(failure, Failure::NotReady(_)), "{failure:?}");
}
