//! Lists, polls, cancels, and what must hold for every call.

use std::time::Duration;

use gemini_batchd::engine::event::{Failure, Polled};
use gemini_batchd::engine::ids::{BatchName, FileName, Millis, Stamp};
use gemini_batchd::engine::job::RemoteState;
use gemini_batchd::provider::gemini::{ApiKey, Client, ClientError, ClientSettings};

use crate::server::{MARKER, Reply, Server};

fn entry(id: &str, stamp: &str, created: &str, state: &str) -> String {
    format!(
        r#"{{"name":"batches/{id}","metadata":{{"@type":"x","displayName":"{stamp}","createTime":"{created}","state":"BATCH_STATE_{state}"}}}}"#
    )
}

fn names(names: &[&str]) -> Vec<BatchName> {
    names.iter().map(|name| BatchName(format!("batches/{name}"))).collect()
}

#[tokio::test]
async fn a_search_reads_all_pages_and_gives_the_oldest_first() {
    let server = Server::start(|request| {
        let one = entry("one", "gemini-batchd/J/c1/a1", "2026-01-02T00:00:00Z", "RUNNING");
        let two = entry("two", "gemini-batchd/J/c1/a1", "2026-01-01T00:00:00Z", "PENDING");
        let other = entry("other", "gemini-batchd/J/c1/a10", "2026-01-01T00:00:00Z", "PENDING");
        Reply::json(match request.target.as_str() {
            "/v1beta/batches?pageSize=100" => r#"{"nextPageToken":"a b"}"#.to_owned(),
            "/v1beta/batches?pageSize=100&pageToken=a+b" => {
                format!(r#"{{"operations":[{one},{other},{{"name":7}}],"nextPageToken":"c"}}"#)
            }
            "/v1beta/batches?pageSize=100&pageToken=c" => format!(r#"{{"operations":[{two}]}}"#),
            _ => return Reply::status(500, "not asked for"),
        })
    })
    .await;
    let stamp = Stamp("gemini-batchd/J/c1/a1".to_owned());
    let found = server.client().find(&stamp).await.expect("found");
    let ids: Vec<_> = found.into_iter().map(|batch| batch.name).collect();
    assert_eq!(ids, names(&["two", "one"]));
    assert!(server.seen().iter().all(|r| r.header("x-goog-api-key") == Some(MARKER)));
    assert!(server.seen().iter().all(|r| !r.target.contains(MARKER)));
}

/// Fault 59.
#[tokio::test]
async fn a_search_that_could_not_read_its_own_entry_does_not_say_absent() {
    let server = Server::start(|_| {
        Reply::json(r#"{"operations":[{"name":7,"metadata":{"displayName":"me\/c1"}}]}"#)
    })
    .await;
    let found = server.client().find(&Stamp("me/c1".to_owned())).await;
    assert!(matches!(found, Err(Failure::Transient(_))), "{found:?}");
}

#[tokio::test]
async fn pages_that_go_round_in_circles_are_an_error() {
    let server = Server::start(|_| Reply::json(r#"{"nextPageToken":"again"}"#)).await;
    let failure = server.client().list_batches().await.expect_err("no end");
    assert!(matches!(&failure, Failure::Transient(m) if m.contains("circles")), "{failure:?}");
    assert_eq!(server.seen().len(), 2);
}

/// Fault 65.
#[tokio::test]
async fn a_poll_stops_when_all_are_seen_and_asks_by_name_only_for_what_no_list_shows() {
    let server = Server::start(|request| {
        let one = entry("one", "s", "2026-01-02T00:00:00Z", "RUNNING");
        let body = format!(r#"{{"operations":[{one}],"nextPageToken":"more"}}"#);
        match request.target.as_str() {
            "/v1beta/batches?pageSize=100" => Reply::json(body),
            "/v1beta/batches?pageSize=100&pageToken=more" => Reply::json("{}"),
            "/v1beta/batches/gone" => Reply::error(404, "NOT_FOUND", "no"),
            "/v1beta/batches/hidden" => {
                Reply::json(entry("hidden", "s", "2026-01-02T00:00:00Z", "NEW_STATE"))
            }
            _ => Reply::status(500, ""),
        }
    })
    .await;
    let client = server.client();
    let polled = client.poll(&names(&["one"])).await.expect("polled");
    assert!(matches!(&polled[0].1, Polled::Seen(batch) if batch.state == RemoteState::Running));
    assert_eq!(server.seen().len(), 1);

    let polled = client.poll(&names(&["one", "gone", "hidden"])).await.expect("polled");
    let of = |id: &str| {
        let name = BatchName(format!("batches/{id}"));
        polled.iter().find(|(other, _)| *other == name).map(|(_, polled)| polled.clone())
    };
    assert_eq!(polled.len(), 3);
    assert_eq!(of("gone"), Some(Polled::Gone));
    let Some(Polled::Seen(hidden)) = of("hidden") else { panic!("{polled:?}") };
    assert_eq!(hidden.state, RemoteState::Unknown("NEW_STATE".to_owned()));
}

/// A server with so many pages of a hundred batches each; every batch is running.
async fn server_with_pages(pages: usize) -> Server {
    let running = |id: &str| entry(id, "s", "2026-01-02T00:00:00Z", "RUNNING");
    Server::start(move |request| {
        if let Some(id) = request.path().strip_prefix("/v1beta/batches/") {
            return Reply::json(running(id));
        }
        let page: usize = request
            .target
            .split_once("pageToken=")
            .map_or(0, |(_, token)| token.parse().expect("our own token"));
        let entries: Vec<String> =
            (0..100).map(|n| running(&format!("b{}", page * 100 + n))).collect();
        let next = match page + 1 < pages {
            true => format!(r#","nextPageToken":"{}""#, page + 1),
            false => String::new(),
        };
        Reply::json(format!(r#"{{"operations":[{}]{next}}}"#, entries.join(",")))
    })
    .await
}

#[tokio::test]
async fn ten_thousand_batches_are_polled_with_a_hundred_requests() {
    let server = server_with_pages(100).await;
    let all: Vec<BatchName> = (0..10_000).map(|n| BatchName(format!("batches/b{n}"))).collect();
    let client = server.client();
    for round in 1..=2 {
        assert_eq!(client.poll(&all).await.expect("polled").len(), all.len());
        assert_eq!(server.seen().len(), round * 100);
    }
}

#[tokio::test]
async fn a_few_batches_at_the_end_of_a_long_list_are_asked_for_by_name() {
    let server = server_with_pages(30).await;
    let client = server.client();
    // Nobody knows yet how long the list is.
    client.poll(&names(&["b2999"])).await.expect("polled");
    assert_eq!(server.seen().len(), 30);
    client.poll(&names(&["b2999", "b2998"])).await.expect("polled");
    let asked: Vec<String> = server.seen().split_off(30).into_iter().map(|r| r.target).collect();
    assert_eq!(asked.len(), 2, "{asked:?}");
    assert!(asked.iter().all(|target| target.starts_with("/v1beta/batches/b29")), "{asked:?}");
}

#[tokio::test]
async fn of_many_batches_that_no_list_shows_a_poll_asks_for_a_hundred() {
    let server = server_with_pages(1).await;
    let hidden: Vec<BatchName> = (0..500).map(|n| BatchName(format!("batches/h{n}"))).collect();
    assert_eq!(server.client().poll(&hidden).await.expect("polled").len(), 100);
    assert_eq!(server.seen().len(), 101);
}

/// Fault 66.
#[tokio::test]
async fn a_page_of_a_proxy_says_nothing_of_a_batch() {
    for status in [403, 404, 410] {
        let server = Server::start(move |request| match request.path() {
            "/v1beta/batches" => Reply::json("{}"),
            _ => Reply::status(status, "<html><h1>Blocked by your network</h1></html>"),
        })
        .await;
        let client = server.client();
        let polled = client.poll(&names(&["one"])).await;
        assert!(polled.is_err(), "{status}: the batch is not gone: {polled:?}");
        let cancelled = client.cancel(&names(&["one"])[0]).await;
        assert!(cancelled.is_err(), "{status}: nothing was cancelled: {cancelled:?}");
    }
}

/// Fault 82.
#[tokio::test]
async fn what_a_server_says_of_a_batch_is_kept_without_the_key() {
    let text = format!(
        r#"{{"operations":[{{"name":"batches/a","done":true,"error":{{"code":7,"message":"{MARKER}"}},
            "metadata":{{"displayName":"for {MARKER}","state":"STATE_{MARKER}"}}}}]}}"#
    );
    let listed = text.clone();
    let server = Server::start(move |_| Reply::json(listed.clone())).await;
    let all = server.client().list_batches().await.expect("listed");
    assert_eq!(all.len(), 1);
    assert!(!format!("{all:?}").contains(MARKER), "{all:?}");

    for answer in [format!(r#"{{"name":["{MARKER}"]}}"#), format!(r#"{{"name":"{MARKER}"}}"#)] {
        let server = Server::start(move |request| match request.path() {
            "/v1beta/batches" => Reply::json("{}"),
            _ => Reply::json(answer.clone()),
        })
        .await;
        let failure = server.client().poll(&names(&["one"])).await.expect_err("unreadable");
        assert!(!failure.message().contains(MARKER), "{failure:?}");
    }
}

#[tokio::test]
async fn a_cancel_of_what_is_over_and_a_delete_of_what_is_gone_are_fine() {
    let server = Server::start(|request| match request.path() {
        "/v1beta/batches/over:cancel" => Reply::error(400, "FAILED_PRECONDITION", "over"),
        "/v1beta/batches/gone" => Reply::error(404, "NOT_FOUND", "no"),
        "/v1beta/files/gone" => Reply::error(403, "PERMISSION_DENIED", "may not exist"),
        _ => Reply::status(500, ""),
    })
    .await;
    let client = server.client();
    client.cancel(&BatchName("batches/over".to_owned())).await.expect("fine");
    client.delete_batch(&BatchName("batches/gone".to_owned())).await.expect("fine");
    client.delete_file(&FileName("files/gone".to_owned())).await.expect("fine");
    let seen = server.seen();
    let methods: Vec<_> = seen.iter().map(|request| request.method.as_str()).collect();
    assert_eq!(methods, ["POST", "DELETE", "DELETE"]);
    let bad = client.delete_file(&FileName("files/a/../../batches/b".to_owned())).await;
    assert!(matches!(bad, Err(Failure::Rejected(_))));
    assert_eq!(server.seen().len(), 3, "nothing was sent for a name that is none");
}

#[tokio::test]
async fn files_are_listed_over_all_pages() {
    let server = Server::start(|request| {
        Reply::json(if request.target.contains("pageToken") {
            r#"{"files":[{"name":"files/b"},{"name":"../x"}]}"#
        } else {
            r#"{"files":[{"name":"files/a","displayName":"mine","sizeBytes":"12",
                "createTime":"1970-01-01T00:00:01Z"}],"nextPageToken":"n"}"#
        })
    })
    .await;
    let files = server.client().list_files().await.expect("listed");
    assert_eq!(files.len(), 2);
    assert_eq!(files[0].bytes, 12);
    assert_eq!(files[0].display_name, "mine");
    assert_eq!(files[0].created, Some(Millis(1000)));
}

/// Faults 60 and 82.
#[tokio::test]
async fn every_failure_has_its_class_and_none_tells_the_key_or_a_url() {
    type Expected = fn(&Failure) -> bool;
    let cases: Vec<(u16, &str, Expected)> = vec![
        (400, r#"{"error":{"message":"bad","status":"INVALID_ARGUMENT"}}"#, |f| {
            matches!(f, Failure::Rejected(_))
        }),
        (400, r#"{"error":{"message":"API key not valid. AIza-marker-key"}}"#, |f| {
            matches!(f, Failure::Denied(_))
        }),
        (401, "", |f| matches!(f, Failure::Denied(_))),
        (403, "AIza-marker-key is not allowed", |f| matches!(f, Failure::Denied(_))),
        (404, r#"{"error":{"status":"NOT_FOUND"}}"#, |f| matches!(f, Failure::Gone(_))),
        (404, "<html>not here</html>", |f| matches!(f, Failure::Transient(_))),
        (407, "", |f| matches!(f, Failure::Barred(_))),
        (408, "", |f| matches!(f, Failure::Transient(_))),
        (429, "{}", |f| matches!(f, Failure::RateLimited { retry_after_ms: Some(7000), .. })),
        (500, r#"[{"error":{"message":"x","status":"INTERNAL"}}]"#, |f| {
            matches!(f, Failure::Transient(_))
        }),
        (502, "<html>AIza-marker-key</html>", |f| matches!(f, Failure::Transient(_))),
        (200, "<html>surprise</html>", |f| matches!(f, Failure::Transient(_))),
        (200, r#"{"operations":"#, |f| matches!(f, Failure::Transient(_))),
        (200, r#"{"operations":"AIza-marker-key"}"#, |f| matches!(f, Failure::Transient(_))),
        (200, r#"{"nextPageToken":["AIza-marker-\u006bey"]}"#, |f| {
            matches!(f, Failure::Transient(_))
        }),
    ];
    for (status, body, expected) in cases {
        let server =
            Server::start(move |_| Reply::with(status, &[("retry-after", "7")], body.as_bytes()))
                .await;
        let failure = server.client().list_batches().await.expect_err("no list");
        assert!(expected(&failure), "{status} {body}: {failure:?}");
        let text = format!("{failure:?} {}", failure.message());
        assert!(!text.contains(MARKER) && !text.contains("127.0.0.1"), "{text}");
        assert_eq!(server.seen().len(), 1, "asked once, no more");
    }
}

/// Fault 51.
#[tokio::test]
async fn a_silent_server_and_a_missing_server_are_transient() {
    let server = Server::start(|_| Reply::Hang).await;
    let mut settings = server.settings();
    settings.connect_timeout = Duration::from_millis(300);
    settings.reply_timeout = Duration::from_millis(50);
    let client = Client::new(settings).expect("a client");
    assert!(matches!(client.check_key().await, Err(Failure::Transient(_))));
    let cut = Server::start(|_| Reply::Drop).await.client();
    assert!(matches!(cut.check_key().await, Err(Failure::Transient(_))));

    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}", free.local_addr().expect("bound")).parse().expect("a URL");
    drop(free);
    let key = ApiKey::new(MARKER).expect("a key");
    let client = Client::new(ClientSettings::new(url, key)).expect("a client");
    let failure = client.check_key().await.expect_err("nobody there");
    assert!(matches!(&failure, Failure::Transient(m) if m.contains("reach")), "{failure:?}");
}

/// Fault 61.
#[tokio::test]
async fn a_redirect_is_not_followed_and_the_key_stays_here() {
    let other = Server::start(|_| Reply::json("{}")).await;
    let target = format!("{}/v1beta/batches", other.base);
    let server = Server::start(move |_| Reply::with(307, &[("location", &target)], b"")).await;
    let failure = server.client().check_key().await.expect_err("redirected");
    assert!(matches!(&failure, Failure::Barred(m) if m.contains("redirect")), "{failure:?}");
    assert!(other.seen().is_empty());
}

#[tokio::test]
async fn the_servers_clock_is_compared_with_ours() {
    let date = ("date", "Thu, 01 Jan 1970 00:10:00 GMT");
    let server = Server::start(move |_| Reply::with(200, &[date], b"{}")).await;
    let client = server.client();
    assert_eq!(client.server_time_skew(Millis(0)), None);
    client.check_key().await.expect("good");
    let skew = client.server_time_skew(Millis(500_000)).expect("known");
    assert!((100_000..160_000).contains(&skew), "{skew}");
}

#[test]
fn settings_that_would_show_the_key_are_refused() {
    let make = |url: &str| {
        let key = ApiKey::new(MARKER).expect("a key");
        Client::new(ClientSettings::new(url.parse().expect("a URL"), key))
    };
    for url in ["http://example.com", "ftp://127.0.0.1", "https://a:b@example.com", "https://x?y"] {
        let error = make(url).expect_err("refused");
        assert!(matches!(error, ClientError::BaseUrl { .. }), "{url}");
        assert!(!error.to_string().contains(":b@"));
    }
    let client = make("https://generativelanguage.googleapis.com").expect("good");
    assert!(!format!("{client:?}").contains(MARKER));
}
