//! Connections that stand still, are dead without saying so, or never stop talking.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use gemini_batchd::engine::event::Failure;
use gemini_batchd::engine::ids::{FileName, Stamp};
use gemini_batchd::engine::job::Task;
use gemini_batchd::provider::gemini::{
    ApiKey, Client, ClientSettings, CreateFailure, CreateInput, Payload,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Barrier, watch};

use crate::server::MARKER;

/// How long the client waits here for what never comes.
const PATIENCE: Duration = Duration::from_millis(700);

fn client(base: &str, change: impl FnOnce(&mut ClientSettings)) -> Client {
    let key = ApiKey::new(MARKER).expect("a key");
    let mut settings = ClientSettings::new(base.parse().expect("a URL"), key);
    settings.recovery_pause = Duration::from_millis(1);
    change(&mut settings);
    Client::new(settings).expect("a client")
}

/// Listens; each connection, with its number from 1, is served by `serve`.
async fn listen<F>(serve: impl Fn(TcpStream, usize) -> F + Send + 'static) -> String
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let base = format!("http://{}", listener.local_addr().expect("bound"));
    tokio::spawn(async move {
        for number in 1.. {
            let Ok((stream, _)) = listener.accept().await else { return };
            tokio::spawn(serve(stream, number));
        }
    });
    base
}

/// The head of the next request and what of its body came with it; `None` at the end.
async fn head(stream: &mut TcpStream) -> Option<(String, Vec<u8>)> {
    let mut raw = Vec::new();
    loop {
        if let Some(at) = raw.windows(4).position(|four| four == b"\r\n\r\n") {
            let text = String::from_utf8_lossy(&raw[..at]).to_ascii_lowercase();
            return Some((text, raw.split_off(at + 4)));
        }
        let mut buffer = [0; 4096];
        let read = stream.read(&mut buffer).await.ok().filter(|read| *read > 0)?;
        raw.extend_from_slice(&buffer[..read]);
    }
}

fn value<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let line = head.lines().find(|line| line.split(':').next() == Some(name))?;
    line.split_once(':').map(|(_, value)| value.trim())
}

fn length(head: &str) -> usize {
    value(head, "content-length").map_or(0, |text| text.parse().expect("a length"))
}

async fn answer(stream: &mut TcpStream, headers: &str, body: &str) {
    let text = format!("HTTP/1.1 200 OK\r\n{headers}content-length: {}\r\n\r\n{body}", body.len());
    // The client may have gone: then it shows there.
    let _ = stream.write_all(text.as_bytes()).await;
}

/// What a server has of an upload.
#[derive(Default)]
struct Got {
    bytes: u64,
    /// Somebody asked, so that nothing of an older connection may count any more.
    told: bool,
}

/// A server for one upload: of the first piece it reads `first` bytes, with a pause after each
/// read if there is one, and then nothing more.
async fn reluctant(first: u64, pause: Option<Duration>) -> (String, Arc<Mutex<Got>>) {
    let got = Arc::new(Mutex::new(Got::default()));
    let state = Arc::clone(&got);
    let base = listen(move |mut stream, _| {
        let got = Arc::clone(&state);
        async move {
            let Some((head, body)) = head(&mut stream).await else { return };
            let host = value(&head, "host").unwrap_or_default();
            match value(&head, "x-goog-upload-command") {
                Some("start") => {
                    let url = format!("http://{host}/upload/v1beta/files?upload_id=1");
                    answer(&mut stream, &format!("x-goog-upload-url: {url}\r\n"), "").await;
                }
                Some("query") => {
                    let bytes = {
                        let mut got = got.lock().expect("no panic holds it");
                        got.told = true;
                        got.bytes
                    };
                    let status = "x-goog-upload-status: active\r\nx-goog-upload-size-received:";
                    answer(&mut stream, &format!("{status} {bytes}\r\n"), "").await;
                }
                Some(_) => {
                    let offset = value(&head, "x-goog-upload-offset").map(str::parse);
                    if offset == Some(Ok(0)) {
                        swallow(&mut stream, body.len() as u64, first, pause, &got).await;
                        return std::future::pending().await;
                    }
                    assert_eq!(offset, Some(Ok(got.lock().expect("no panic holds it").bytes)));
                    let mut left = length(&head) - body.len();
                    let mut buffer = vec![0; 64 * 1024];
                    while left > 0 {
                        let read = stream.read(&mut buffer).await.expect("the rest comes");
                        assert!(read > 0, "{left} bytes are missing");
                        left -= read;
                    }
                    got.lock().expect("no panic holds it").bytes += length(&head) as u64;
                    let file =
                        format!(r#"{{"file":{{"name":"files/mine","sizeBytes":"{LARGE}"}}}}"#);
                    answer(&mut stream, "x-goog-upload-status: final\r\n", &file).await;
                }
                None => answer(&mut stream, "", "{}").await,
            }
        }
    })
    .await;
    (base, got)
}

/// Reads up to `most` bytes of a body, for as long as nobody asks how many there are.
async fn swallow(
    stream: &mut TcpStream,
    mut read: u64,
    most: u64,
    pause: Option<Duration>,
    got: &Mutex<Got>,
) {
    let mut buffer = [0; 4096];
    loop {
        {
            let mut got = got.lock().expect("no panic holds it");
            if got.told {
                return;
            }
            got.bytes = read.min(most);
        }
        if read >= most {
            return;
        }
        read += stream.read(&mut buffer).await.unwrap_or(0) as u64;
        if let Some(pause) = pause {
            tokio::time::sleep(pause).await;
        }
    }
}

/// More than the buffers of any socket here.
const LARGE: u64 = 48 * 1024 * 1024;

fn large() -> Payload {
    let open = |_: u64, len: u64| {
        const PIECE: &[u8] = &[b'x'; 64 * 1024];
        let pieces = (0..len.div_ceil(PIECE.len() as u64)).map(move |n| {
            let left = len - n * PIECE.len() as u64;
            let part = PIECE.len().min(usize::try_from(left).expect("small"));
            Ok(Bytes::from_static(&PIECE[..part]))
        });
        futures_util::stream::iter(pieces).boxed()
    };
    Payload { len: LARGE, open: Arc::new(open) }
}

async fn upload(client: &Client) -> Result<FileName, Failure> {
    let name = FileName("files/mine".to_owned());
    client.upload(&name, "gemini-batchd/J", &large(), None, &|_| {}).await
}

/// Faults 51 and 79: also what an upload meets after this machine slept.
#[tokio::test]
async fn a_server_that_stops_reading_inside_a_piece_is_asked_and_gets_the_rest() {
    let (base, got) = reluctant(100_000, None).await;
    let client = client(&base, |settings| settings.idle_timeout = PATIENCE);
    let uploaded = upload(&client).await;
    assert_eq!(uploaded, Ok(FileName("files/mine".to_owned())));
    assert_eq!(got.lock().expect("no panic holds it").bytes, LARGE);
}

/// Fault 51: every now and then some bytes move, so that only the whole takes too long.
#[tokio::test]
async fn a_server_that_reads_by_drops_meets_the_deadline_of_the_piece() {
    let (base, got) = reluctant(u64::MAX, Some(Duration::from_millis(2))).await;
    let client = client(&base, |settings| {
        settings.connect_timeout = PATIENCE;
        settings.reply_timeout = PATIENCE;
        settings.bytes_per_second_min = u64::MAX;
    });
    let uploaded = upload(&client).await;
    assert_eq!(uploaded, Ok(FileName("files/mine".to_owned())));
    assert_eq!(got.lock().expect("no panic holds it").bytes, LARGE);
}

/// A server that keeps connections open. The first three requests are answered together, so that
/// three connections lie ready. Once frozen, no connection that stands then says a word.
async fn freezable() -> (String, watch::Sender<bool>, Arc<Mutex<Vec<usize>>>) {
    let (freeze, frozen) = watch::channel(false);
    let together = Arc::new(Barrier::new(3));
    let asked = Arc::new(Mutex::new(Vec::new()));
    let record = Arc::clone(&asked);
    let base = listen(move |mut stream, number| {
        let (mut frozen, together) = (frozen.clone(), Arc::clone(&together));
        let record = Arc::clone(&record);
        async move {
            let was_frozen = *frozen.borrow_and_update();
            while let Some((head, _)) = head(&mut stream).await {
                record.lock().expect("no panic holds it").push(number);
                if !was_frozen {
                    if *frozen.borrow() {
                        return std::future::pending().await;
                    }
                    together.wait().await;
                }
                assert!(head.starts_with("get "), "{head}");
                answer(&mut stream, "", "{}").await;
            }
        }
    })
    .await;
    (base, freeze, asked)
}

/// Fault 79: after hours of sleep all connections are dead, and nobody says so.
#[tokio::test]
async fn of_many_connections_that_died_unseen_only_one_costs_time() {
    let (base, freeze, asked) = freezable().await;
    let client = client(&base, |settings| {
        settings.connect_timeout = PATIENCE;
        settings.reply_timeout = PATIENCE;
    });
    let checks = [client.check_key(), client.check_key(), client.check_key()];
    for check in futures_util::future::join_all(checks).await {
        check.expect("answered");
    }
    freeze.send(true).expect("the server runs");
    let failure = client.check_key().await.expect_err("nobody answers");
    assert!(matches!(failure, Failure::Transient(_)), "{failure:?}");
    client.check_key().await.expect("by a new connection");
    let asked = asked.lock().expect("no panic holds it").clone();
    assert_eq!(asked.len(), 5, "{asked:?}");
    assert!(asked[3] <= 3 && asked[4] == 4, "an old one, then a new one: {asked:?}");
}

/// Fault 64.
#[tokio::test]
async fn a_connection_closed_while_it_lay_ready_never_carries_a_create() {
    let served = Arc::new(Mutex::new(Vec::new()));
    let record = Arc::clone(&served);
    let base = listen(move |mut stream, number| {
        let record = Arc::clone(&record);
        async move {
            let mut requests = 0;
            while let Some((head, mut body)) = head(&mut stream).await {
                requests += 1;
                let method = head.split(' ').next().unwrap_or_default().to_owned();
                record.lock().expect("no panic holds it").push((number, method.clone()));
                if requests > 1 {
                    return; // Closed on use, without a word.
                }
                while body.len() < length(&head) {
                    stream.read_buf(&mut body).await.expect("its body");
                }
                match method.as_str() {
                    "get" => answer(&mut stream, "", "{}").await,
                    _ => return,
                }
            }
        }
    })
    .await;
    let client = client(&base, |_| {});
    client.check_key().await.expect("answered");
    let second = client.check_key().await;
    assert!(matches!(second, Err(Failure::Transient(_))), "{second:?}");
    client.check_key().await.expect("asked again, by a new connection");

    let input = CreateInput::File(FileName("files/f".to_owned()));
    let created = client.create("m", Task::Generate, &Stamp("s".to_owned()), 0, input).await;
    let unknown = matches!(created, Err(CreateFailure::Failure(Failure::Ambiguous(_))));
    assert!(unknown, "{created:?}");
    let served = served.lock().expect("no panic holds it").clone();
    let creates: Vec<_> = served.iter().filter(|(_, method)| method == "post").collect();
    assert_eq!(creates.len(), 1, "{served:?}");
    let number = creates[0].0;
    assert_eq!(served.iter().filter(|(other, _)| *other == number).count(), 1, "{served:?}");
}

/// A server that answers every request with `head`, and then with `more` up to a gigabyte, or
/// until nobody reads on. Counts what it could send.
async fn torrent(head_of_answer: &'static str, more: &'static str) -> (String, Arc<AtomicU64>) {
    let sent = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&sent);
    let base = listen(move |mut stream, _| {
        let count = Arc::clone(&count);
        async move {
            if head(&mut stream).await.is_none()
                || stream.write_all(head_of_answer.as_bytes()).await.is_err()
            {
                return;
            }
            let block = more.repeat(64 * 1024 / more.len());
            while count.load(Ordering::SeqCst) < GIGABYTE {
                if stream.write_all(block.as_bytes()).await.is_err() {
                    return;
                }
                count.fetch_add(block.len() as u64, Ordering::SeqCst);
            }
        }
    })
    .await;
    (base, sent)
}

const GIGABYTE: u64 = 1 << 30;

/// Fault 60.
#[tokio::test]
async fn of_an_endless_answer_only_so_much_is_read() {
    const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 1073741900\r\n\r\n";
    const ERROR: &str = "HTTP/1.1 400 Bad\r\ncontent-length: 1073741900\r\n\r\n";
    const LIST: &str = "HTTP/1.1 200 OK\r\ncontent-length: 1073741900\r\n\r\n{\"operations\":[0";
    const MANY: &str = "HTTP/1.1 200 OK\r\nx: y";
    const HEADERS: &str = "HTTP/1.1 200 OK\r\n";
    // What is read, and what may lie in the buffers between.
    const BUFFERS: u64 = 24 << 20;
    let cases = [
        (OK, " ", 32 << 20),
        (OK, "[", 32 << 20),
        (LIST, ",0", 1 << 20),
        (ERROR, "x", 1 << 20),
        (MANY, "y", 1 << 20),
        (HEADERS, "a: b\r\n", 1 << 20),
    ];
    for (head, more, bound) in cases {
        let (base, sent) = torrent(head, more).await;
        let failure = client(&base, |_| {}).list_batches().await.expect_err("no end");
        let known = matches!(failure, Failure::Transient(_));
        assert!(known, "{head:?} {more:?}: {failure:?}");
        let sent = sent.load(Ordering::SeqCst);
        assert!(sent < bound + BUFFERS, "{head:?} {more:?}: {sent} bytes were read");
    }
    for (head, more) in [(OK, " "), (OK, "{\"a\":"), (MANY, "y"), (HEADERS, "a: b\r\n")] {
        let (base, sent) = torrent(head, more).await;
        let input = CreateInput::File(FileName("files/f".to_owned()));
        let created = client(&base, |_| {})
            .create("m", Task::Generate, &Stamp("s".to_owned()), 0, input)
            .await;
        let unknown = matches!(created, Err(CreateFailure::Failure(Failure::Ambiguous(_))));
        assert!(unknown, "{head:?} {more:?}: {created:?}");
        let sent = sent.load(Ordering::SeqCst);
        assert!(sent < (1 << 20) + BUFFERS, "{head:?} {more:?}: {sent} bytes were read");
    }
}
