//! What a daemon that works shows of itself, over its socket and over TCP, and whom it lets in.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use gemini_batchd::clock::SystemClock;
use gemini_batchd::control::{CONNECTIONS_MAX, Client, document};
use gemini_batchd::daemon::operators::{self, Identity};
use gemini_batchd::daemon::{Ended, Message, Until};
use gemini_batchd::engine::Millis;
use gemini_batchd::provider::gemini::emulator::Faults;
use gemini_batchd::view::event::EventQuery;
use gemini_batchd::view::{BatchQuery, JobQuery, Snapshot};
use secrecy::SecretString;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::rig::{Rig, requests};

/// A daemon that is served over both ways.
struct Served {
    client: Client,
    address: SocketAddr,
}

/// What came back over TCP.
struct Answer {
    status: u16,
    head: String,
    body: String,
}

async fn rig() -> Rig {
    Rig::with(Faults::default(), &["intake.rescan = \"20ms\""]).await
}

/// Runs a daemon, tells a story to it, and stops it.
async fn while_served(rig: &Rig, story: impl AsyncFnOnce(&Served)) {
    let setup = rig.setup();
    let handle = setup.daemon.handle();
    let socket = rig.path("control.sock");
    let identity = Identity { inbox: "/inbox".to_owned(), started: Millis(0) };
    let clock = Arc::new(SystemClock);
    let serving = operators::serve(&socket, identity, handle.clone(), clock).expect("served");
    let here = "127.0.0.1:0".parse().expect("an address");
    let address = serving.listen(here, &[], SecretString::from(TOKEN)).expect("listening");
    let client = Client::connect(&socket).expect("it listens");
    let story = async {
        story(&Served { client, address }).await;
        drop(serving);
        handle.tell(Message::Stop).await;
    };
    let run = async { tokio::join!(setup.daemon.run(Until::Stopped), story) };
    let (ended, ()) = tokio::time::timeout(PATIENCE, run).await.unwrap_or_else(|_| {
        panic!("it did not happen:\n{}", rig.listing());
    });
    assert_eq!(ended.expect("its store works"), Ended::Stopped);
}

impl Served {
    /// Asks over TCP; `line` is a method and a path.
    async fn ask(&self, line: &str, headers: &[(&str, &str)]) -> Answer {
        let mut request = format!("{line} HTTP/1.1\r\nconnection: close\r\n");
        if !headers.iter().any(|(name, _)| *name == "host") {
            request.push_str(&format!("host: {}\r\n", self.address));
        }
        for (name, value) in headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        let mut stream = TcpStream::connect(self.address).await.expect("connected");
        stream.write_all(format!("{request}\r\n").as_bytes()).await.expect("sent");
        let mut text = String::new();
        stream.read_to_string(&mut text).await.expect("answered");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head and a body");
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.expect("a status");
        Answer { status, head: head.to_ascii_lowercase(), body: body.to_owned() }
    }

    async fn get(&self, path: &str) -> Value {
        let answer = self.ask(&format!("GET {path}"), &[]).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        serde_json::from_str(&whole(&answer)).expect("JSON")
    }

    /// Waits until the daemon looks so.
    async fn until(&self, is_so: impl Fn(&Snapshot) -> bool) -> Snapshot {
        loop {
            let seen = self.client.status().await.expect("answered");
            if is_so(&seen) {
                return seen;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn until_done(&self, jobs: u64) -> Snapshot {
        self.until(|seen| seen.counts.get("done") == Some(&jobs)).await
    }
}

/// The body, which may come in chunks.
fn whole(answer: &Answer) -> String {
    if !answer.head.contains("transfer-encoding: chunked") {
        return answer.body.clone();
    }
    let (mut rest, mut body) = (answer.body.as_str(), String::new());
    while let Some((length, after)) = rest.split_once("\r\n") {
        let length = usize::from_str_radix(length, 16).expect("a length");
        body.push_str(&after[..length]);
        rest = after.get(length + 2..).unwrap_or_default();
    }
    body
}

#[tokio::test(flavor = "multi_thread")]
async fn every_job_is_on_one_page_and_filters_leave_those_that_fit() {
    const FILES: usize = 25;
    let rig = rig().await;
    while_served(&rig, async |served| {
        for n in 1..=FILES {
            let folder = if n % 5 == 0 { "team/" } else { "" };
            rig.drop_file(&format!("{folder}file-{n}.jsonl"), requests(2));
        }
        // Equal content is held; the first one is answered.
        let seen = served.until(|seen| seen.counts.values().sum::<u64>() == FILES as u64).await;
        assert_eq!(seen.jobs_total, FILES as u64);
        let client = &served.client;
        let (mut ids, mut after) = (BTreeSet::new(), None);
        loop {
            let query = JobQuery { limit: Some(10), after, ..JobQuery::default() };
            let page = client.jobs(&query).await.expect("answered");
            assert_eq!(page.total, FILES as u64);
            for job in &page.jobs {
                assert!(ids.insert(job.id.clone()), "{} came twice", job.id);
            }
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(ids.len(), FILES);
        let team = JobQuery { file: Some("TEAM/".to_owned()), ..JobQuery::default() };
        assert_eq!(client.jobs(&team).await.expect("answered").total, 5);
        let seen = served
            .until(|seen| {
                let over = ["done", "held"].map(|word| seen.counts.get(word).copied().unwrap_or(0));
                over.iter().sum::<u64>() == FILES as u64
            })
            .await;
        let held = JobQuery { state: Some("held".to_owned()), ..JobQuery::default() };
        let held = client.jobs(&held).await.expect("answered");
        assert_eq!(Some(&held.total), seen.counts.get("held"));
        assert_eq!(seen.jobs[0].state, "held", "what needs a person comes first");
        assert_eq!(seen.queues[0].held, held.total);
        let long_ago = JobQuery { since: Some("2h".to_owned()), ..JobQuery::default() };
        assert_eq!(client.jobs(&long_ago).await.expect("answered").total, FILES as u64);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_finished_job_tells_its_tokens_its_times_and_what_is_usual() {
    let rig = rig().await;
    while_served(&rig, async |served| {
        rig.drop_file("a.jsonl", requests(3));
        let seen = served.until_done(1).await;
        let job = &seen.jobs[0];
        let tokens = job.tokens.expect("counted");
        assert!(tokens.total > 0 && tokens.output > 0, "{tokens:?}");
        assert!(job.typical_s.is_some() && job.bytes > 0 && job.waiting_s.is_none(), "{job:?}");
        assert_eq!(job.batches[0].answered, Some(3));
        let batches = served.client.batches(&BatchQuery::default()).await.expect("answered");
        let batch = &batches.batches[0];
        let (queued, ended) = (batch.queued.as_ref(), batch.ended.as_ref());
        assert!(queued.expect("told") <= &batch.created, "{batch:?}");
        assert!(ended.expect("told") >= &batch.created, "{batch:?}");
        assert!(batch.collected.is_some() && batch.job == job.id, "{batch:?}");
        let days = served.client.days(30).await.expect("answered").days;
        let jobs: u64 = days.iter().map(|day| day.jobs).sum();
        let (last, before) = (&days[29], &days[28]);
        assert_eq!((days.len(), jobs), (30, 1));
        // It may have been delivered right before midnight.
        assert_eq!(last.answered + before.answered, 3);
        let metrics = served.ask("GET /metrics", &[]).await;
        assert!(metrics.head.contains("text/plain; version=0.0.4"), "{}", metrics.head);
        for line in [
            "gemini_batchd_jobs{state=\"done\"} 1\n",
            "gemini_batchd_answered_lines_total{model=\"gemini-2.5-flash\"} 3\n",
            "gemini_batchd_batches{state=\"running\"} 0\n",
            "gemini_batchd_paused 0\n",
        ] {
            assert!(metrics.body.contains(line), "{line} is not in\n{}", metrics.body);
        }
        assert!(!metrics.body.contains("a.jsonl") && !metrics.body.contains(&job.id));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_tell_the_whole_story_and_outlive_the_daemon() {
    let rig = rig().await;
    let mut id = String::new();
    let mut last = 0;
    while_served(&rig, async |served| {
        let mut following = served.client.follow_events(Some(0), None).await.expect("begun");
        rig.drop_file("a.jsonl", requests(3));
        let (mut kinds, mut first) = (Vec::new(), 0);
        while kinds.last().is_none_or(|kind| kind != "done") {
            let event = following.next().await.expect("read").expect("there");
            assert!(event.seq > last, "{event:?}");
            (first, last) = (if event.kind == "claimed" { event.seq } else { first }, event.seq);
            if let Some(job) = &event.job {
                assert_eq!(event.file.as_deref(), Some("a.jsonl"));
                id.clone_from(job);
                if event.kind == "planned" {
                    assert_eq!(event.text, "3 lines in 1 batch");
                }
                kinds.push(event.kind);
            }
        }
        for kind in ["claimed", "planned", "batch_created", "collected", "merging", "delivered"] {
            assert_eq!(kinds.iter().filter(|told| *told == kind).count(), 1, "{kind}: {kinds:?}");
        }
        // One who comes back is told what came after the last that it has seen.
        drop(following);
        let mut again = served.client.follow_events(Some(first), None).await.expect("begun");
        let mut seen = Vec::new();
        while seen.last() != Some(&last) {
            seen.push(again.next().await.expect("read").expect("there").seq);
        }
        assert_eq!(seen, (first + 1..=last).collect::<Vec<_>>());
        // So is a browser, which says so in a header.
        let mut browser = TcpStream::connect(served.address).await.expect("connected");
        let request = format!(
            "GET /v1/events?after=0 HTTP/1.1\r\nhost: {}\r\naccept: text/event-stream\r\n\
             last-event-id: {}\r\n\r\n",
            served.address,
            last - 1
        );
        browser.write_all(request.as_bytes()).await.expect("sent");
        let (mut text, mut piece) = (String::new(), [0; 4096]);
        while !text.contains(&format!("id: {last}\n")) {
            let read = browser.read(&mut piece).await.expect("read");
            assert!(read > 0, "it ended: {text}");
            text.push_str(&String::from_utf8_lossy(&piece[..read]));
        }
        assert!(!text.contains(&format!("id: {}\n", last - 1)), "{text}");
    })
    .await;
    while_served(&rig, async |served| {
        let events = served.client.job_events(&id, 100).await.expect("known").events;
        let kinds: Vec<&str> = events.iter().map(|event| event.kind.as_str()).collect();
        assert_eq!((kinds[0], kinds[kinds.len() - 1]), ("claimed", "done"));
        let query = EventQuery { after: Some(last), ..EventQuery::default() };
        let since = served.client.events(&query).await.expect("answered").events;
        let kinds: Vec<&str> = since.iter().map(|event| event.kind.as_str()).collect();
        assert!(kinds.contains(&"stopping") && kinds.contains(&"started"), "{kinds:?}");
        assert!(!kinds.contains(&"claimed"), "nothing is told twice: {kinds:?}");
    })
    .await;
}

/// Fault 84.
#[tokio::test(flavor = "multi_thread")]
async fn over_tcp_only_those_who_mean_us_are_let_in_and_changes_need_the_token() {
    let rig = rig().await;
    while_served(&rig, async |served| {
        let token = format!("Bearer {TOKEN}");
        let token = ("authorization", token.as_str());
        let foreign = ("host", "batch.evil.example");
        assert_eq!(served.ask("GET /v1/status", &[]).await.status, 200);
        assert_eq!(served.ask("GET /v1/status", &[foreign]).await.status, 403);
        assert_eq!(served.ask("GET /", &[foreign]).await.status, 403);
        let origin = ("origin", "http://batch.evil.example");
        assert_eq!(served.ask("GET /v1/jobs", &[origin]).await.status, 403);
        let pause = "POST /v1/daemon:pause";
        let refused = served.ask(pause, &[]).await;
        assert_eq!(refused.status, 401);
        assert!(refused.body.contains("control.token") && !refused.body.contains(TOKEN));
        assert_eq!(served.ask(pause, &[token, origin]).await.status, 403);
        assert_eq!(served.ask(pause, &[("authorization", "Bearer x")]).await.status, 401);
        assert_eq!(served.ask("GET /readyz", &[]).await.status, 200);
        assert_eq!(served.ask(pause, &[token]).await.status, 200);
        let ready = served.ask("GET /readyz", &[]).await;
        assert_eq!(ready.status, 503);
        assert!(ready.body.contains("gemini-batchd resume"), "{}", ready.body);
        assert_eq!(served.ask("GET /healthz", &[]).await.status, 200);
        assert!(served.client.status().await.expect("answered").health.paused_by_operator);
        let resume = served.ask("POST /v1/daemon:resume", &[token]).await;
        assert_eq!(resume.status, 200, "{}", resume.body);
        assert_eq!(served.ask("GET /readyz", &[]).await.status, 200);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_is_served_with_what_it_may_do() {
    let rig = rig().await;
    while_served(&rig, async |served| {
        let page = served.ask("GET /", &[]).await;
        assert_eq!(page.status, 200);
        for said in [
            "content-security-policy: default-src 'none'; style-src 'self'; script-src 'self'",
            "x-content-type-options: nosniff",
            "referrer-policy: no-referrer",
            "content-type: text/html",
        ] {
            assert!(page.head.contains(said), "{said} is not in {}", page.head);
        }
        let tag = page.head.lines().find_map(|line| line.strip_prefix("etag: "));
        let tag = tag.expect("it has a tag").to_owned();
        let again = served.ask("GET /", &[("if-none-match", &tag)]).await;
        assert_eq!((again.status, again.body.as_str()), (304, ""));
        assert_eq!(served.ask("GET /dashboard.js", &[]).await.status, 200);
        let lost = served.ask("GET /../etc/passwd", &[]).await;
        assert_eq!(lost.status, 404);
        assert!(lost.body.contains("/v1/openapi.json"), "{}", lost.body);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_is_as_it_is_described() {
    let rig = rig().await;
    while_served(&rig, async |served| {
        rig.drop_file("a.jsonl", requests(3));
        rig.drop_file("b.jsonl", "no JSON\n");
        let seen =
            served.until(|seen| seen.jobs.iter().filter(|job| job.is_over()).count() == 2).await;
        let told = served.get("/v1/openapi.json").await;
        assert_eq!(told, document());
        let (mut checked, refusal) = (0, "#/components/schemas/Refusal");
        for (path, operations) in told["paths"].as_object().expect("paths") {
            let content = &operations["get"]["responses"]["200"]["content"]["application/json"];
            let Some(schema) = content["schema"]["$ref"].as_str() else { continue };
            let answer = served.get(&path.replace("{id}", &seen.jobs[0].id)).await;
            check(&told, schema, &answer, path);
            checked += 1;
        }
        assert!(checked >= 8, "{checked}");
        let token = format!("Bearer {TOKEN}");
        let post = |path: &str| format!("POST {path}");
        let said = served.ask(&post("/v1/daemon:pause"), &[("authorization", &token)]).await;
        let said: Value = serde_json::from_str(&said.body).expect("JSON");
        check(&told, "#/components/schemas/Told", &said, "pause");
        let done = post(&format!("/v1/jobs/{}", seen.jobs[0].id));
        for (line, status) in [
            ("GET /v1/jobs/0000", 404),
            ("GET /v1/jobs?limit=x", 400),
            ("GET /none", 404),
            ("GET /v1/daemon:drain", 405),
            ("POST /v1/jobs/0000:cancel", 404),
            ("POST /v1/queues/none:pause", 404),
            ("POST /v1/queues/default:resume", 409),
            ("POST /v1/daemon:pause", 200),
            (&format!("{done}:explode"), 404),
            (&format!("{done}:hold"), 409),
            (&format!("{done}:delete"), 200),
            (&format!("{done}:delete"), 404),
        ] {
            let refused = served.ask(line, &[("authorization", &token)]).await;
            assert_eq!(refused.status, status, "{line}: {}", refused.body);
            if status == 200 || status == 405 {
                continue;
            }
            let refused: Value = serde_json::from_str(&refused.body).expect("JSON");
            check(&told, refusal, &refused, line);
        }
    })
    .await;
}

/// Holds an answer against a schema of the description.
fn check(told: &Value, schema: &str, answer: &Value, what: &str) {
    let schema = json!({"$ref": schema, "components": told["components"]});
    let validator = jsonschema::validator_for(&schema).expect("a schema");
    let faults: Vec<String> =
        validator.iter_errors(answer).map(|error| error.to_string()).collect();
    assert!(faults.is_empty(), "{what}: {faults:?}\n{answer:#}");
}

/// Fault 87.
#[tokio::test(flavor = "multi_thread")]
async fn those_who_connect_and_say_nothing_keep_no_file_from_its_answers() {
    let rig = rig().await;
    while_served(&rig, async |served| {
        let mut silent = tokio::task::JoinSet::new();
        let connected = Arc::new(tokio::sync::Semaphore::new(0));
        for _ in 0..3 * CONNECTIONS_MAX {
            let (address, connected) = (served.address, Arc::clone(&connected));
            silent.spawn(async move {
                let stream = TcpStream::connect(address).await;
                connected.add_permits(1);
                std::future::pending::<()>().await;
                drop(stream);
            });
        }
        let enough = u32::try_from(CONNECTIONS_MAX).expect("few");
        drop(connected.acquire_many(enough).await.expect("open"));
        rig.drop_file("a.jsonl", requests(1));
        // The socket is not in their way, and neither is the work.
        served.until_done(1).await;
        silent.shutdown().await;
        assert_eq!(served.ask("GET /healthz", &[]).await.status, 200);
    })
    .await;
}

const TOKEN: &str = "0123456789abcdef0123456789abcdef";
const PATIENCE: Duration = Duration::from_secs(240);
