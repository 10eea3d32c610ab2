//! A raw HTTP/1 server that does exactly what a test tells it, byte by byte.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use gemini_batchd::provider::gemini::{ApiKey, Client, ClientSettings};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// The key that must never show up where it does not belong.
pub const MARKER: &str = "AIza-marker-key";

/// One request as it came.
#[derive(Debug, Clone, Default)]
pub struct Request {
    pub method: String,
    pub target: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(other, _)| other == name);
        found.map(|(_, value)| value.as_str())
    }

    pub fn command(&self) -> &str {
        self.header("x-goog-upload-command").unwrap_or_default()
    }

    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// What to answer.
pub enum Reply {
    /// These bytes, then the connection is closed.
    Raw(Vec<u8>),
    /// Nothing; the connection is closed.
    Drop,
    /// Nothing, for ever.
    Hang,
}

impl Reply {
    pub fn json(body: impl Into<String>) -> Reply {
        Reply::with(200, &[], body.into().as_bytes())
    }

    pub fn status(status: u16, body: &str) -> Reply {
        Reply::with(status, &[], body.as_bytes())
    }

    pub fn error(status: u16, name: &str, message: &str) -> Reply {
        let error = serde_json::json!({"code": status, "status": name, "message": message});
        Reply::status(status, &serde_json::json!({ "error": error }).to_string())
    }

    pub fn with(status: u16, headers: &[(&str, &str)], body: &[u8]) -> Reply {
        Reply::promising(status, headers, body, body.len())
    }

    /// Announces a length that may not be that of the body.
    pub fn promising(status: u16, headers: &[(&str, &str)], body: &[u8], length: usize) -> Reply {
        let mut raw = format!("HTTP/1.1 {status} X\r\nconnection: close\r\n");
        for (name, value) in headers {
            raw.push_str(&format!("{name}: {value}\r\n"));
        }
        raw.push_str(&format!("content-length: {length}\r\n\r\n"));
        let mut raw = raw.into_bytes();
        raw.extend_from_slice(body);
        Reply::Raw(raw)
    }
}

type Answer = dyn Fn(&Request) -> Reply + Send + Sync;
type Cut = dyn Fn(&Request) -> Option<usize> + Send + Sync;

/// A server and what it has seen.
pub struct Server {
    pub base: String,
    seen: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    pub async fn start(answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Server {
        Server::cutting(|_| None, answer).await
    }

    /// `cut` sees the head of a request and may have the connection closed after so many bytes
    /// of its body; what came of it is recorded.
    pub async fn cutting(
        cut: impl Fn(&Request) -> Option<usize> + Send + Sync + 'static,
        answer: impl Fn(&Request) -> Reply + Send + Sync + 'static,
    ) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let base = format!("http://{}", listener.local_addr().expect("bound"));
        let seen = Arc::new(Mutex::new(Vec::new()));
        let record = Arc::clone(&seen);
        let (cut, answer): (Arc<Cut>, Arc<Answer>) = (Arc::new(cut), Arc::new(answer));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let parts = (Arc::clone(&cut), Arc::clone(&answer), Arc::clone(&record));
                tokio::spawn(async move { serve(stream, &parts.0, &parts.1, &parts.2).await });
            }
        });
        Server { base, seen }
    }

    /// Everything that came, oldest first.
    pub fn seen(&self) -> Vec<Request> {
        self.seen.lock().expect("no panic holds it").clone()
    }

    /// Requests that carried an upload command other than `start`.
    pub fn pieces(&self) -> Vec<Request> {
        let all = self.seen().into_iter();
        all.filter(|r| !matches!(r.command(), "" | "start" | "query")).collect()
    }

    pub fn settings(&self) -> ClientSettings {
        let key = ApiKey::new(MARKER).expect("a key");
        let mut settings = ClientSettings::new(self.base.parse().expect("a URL"), key);
        settings.recovery_pause = Duration::from_millis(1);
        settings
    }

    pub fn client(&self) -> Client {
        Client::new(self.settings()).expect("a client")
    }
}

async fn serve(
    mut stream: TcpStream,
    cut: &Arc<Cut>,
    answer: &Arc<Answer>,
    seen: &Mutex<Vec<Request>>,
) {
    let Some(mut request) = head(&mut stream).await else { return };
    let length: usize =
        request.header("content-length").map_or(0, |l| l.parse().expect("a length"));
    let limit = cut(&request);
    let mut body = std::mem::take(&mut request.body);
    while body.len() < limit.unwrap_or(length).min(length) {
        let mut buffer = [0; 4096];
        let read = stream.read(&mut buffer).await.unwrap_or(0);
        if read == 0 {
            break;
        }
        body.extend_from_slice(&buffer[..read]);
    }
    body.truncate(limit.unwrap_or(usize::MAX));
    let whole = body.len() == length;
    request.body = body;
    // The answer is made first: it may look at what came before this request.
    let reply = if limit.is_some() || !whole { Reply::Drop } else { answer(&request) };
    seen.lock().expect("no panic holds it").push(request);
    match reply {
        Reply::Raw(bytes) => {
            let _ = stream.write_all(&bytes).await;
            let _ = stream.shutdown().await;
            // Wait for the other side, so that nothing it has not read yet is reset.
            let _ = stream.read(&mut [0; 16]).await;
        }
        Reply::Drop => {}
        Reply::Hang => std::future::pending().await,
    }
}

async fn head(stream: &mut TcpStream) -> Option<Request> {
    let mut raw = Vec::new();
    let end = loop {
        if let Some(at) = raw.windows(4).position(|four| four == b"\r\n\r\n") {
            break at;
        }
        let mut buffer = [0; 4096];
        let read = stream.read(&mut buffer).await.ok().filter(|read| *read > 0)?;
        raw.extend_from_slice(&buffer[..read]);
    };
    let text = String::from_utf8_lossy(&raw[..end]).into_owned();
    let mut lines = text.split("\r\n");
    let mut first = lines.next()?.split(' ');
    let (method, target) = (first.next()?.to_owned(), first.next()?.to_owned());
    let headers = lines.filter_map(|line| line.split_once(':'));
    let headers = headers.map(|(n, v)| (n.to_ascii_lowercase(), v.trim().to_owned())).collect();
    Some(Request { method, target, headers, body: raw[end + 4..].to_vec() })
}
