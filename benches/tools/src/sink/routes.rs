//! The calls: what is read from a connection, and what is answered.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use super::Options;
use super::api::{
    Answers, Batch, Known, Session, Uploaded, batch_name, canned_line, keys_of_items,
    keys_of_lines, locked, member,
};
use super::http::{Connection, Head};
use super::journal::{Journal, now_us};
use super::pace::Link;

/// The server.
pub struct Sink {
    base: String,
    options: Options,
    done_after_us: AtomicU64,
    known: Mutex<Known>,
    journal: Journal,
    up: Link,
    down: Link,
}

impl Sink {
    /// A server that is reached at `base`.
    pub fn new(base: String, options: Options, up: Link, down: Link) -> Sink {
        let mut known = Known::default();
        for _ in 0..options.preload {
            let number = known.number();
            known.batches.insert(
                number,
                Batch {
                    name: batch_name(number),
                    display_name: format!("preloaded-{number}"),
                    model: "models/gemini-2.5-flash".to_owned(),
                    input: None,
                    created_us: now_us(),
                    done_us: u64::MAX,
                    answers: Answers::Canned(Arc::default()),
                    told: false,
                },
            );
        }
        Sink {
            base,
            done_after_us: AtomicU64::new(options.done_after_ms * 1000),
            options,
            known: Mutex::new(known),
            journal: Journal::default(),
            up,
            down,
        }
    }

    /// Answers the calls of one connection until it ends.
    pub fn serve(&self, stream: TcpStream) {
        let Ok(mut connection) = Connection::new(stream) else { return };
        while let Ok(Some(head)) = connection.head() {
            if self.call(&mut connection, &head).is_err() {
                return;
            }
        }
    }

    fn call(&self, to: &mut Connection, head: &Head) -> io::Result<()> {
        let path = head.path.trim_start_matches("/download");
        let version = |path| ["/v1beta/", "/v1/"].iter().find_map(|v| str::strip_prefix(path, v));
        let uploading = path.strip_prefix("/upload").and_then(version) == Some("files");
        let path = version(path).unwrap_or(path);
        match (head.method.as_str(), path) {
            (_, path) if path.starts_with("/sink/") => self.own(to, head, &path[6..]),
            ("POST", _) if uploading && head.asked("upload_id").is_empty() => self.start(to, head),
            ("POST" | "PUT", _) if uploading => self.piece(to, head),
            ("POST", path) if path.ends_with(":batchGenerateContent") => {
                self.create(to, head, path.trim_end_matches(":batchGenerateContent"))
            }
            ("GET", "batches") => self.list(to, head),
            ("GET", "files") => to.answer(200, "", "{}"),
            ("GET", path) if path.ends_with(":download") => {
                self.download(to, head, path.trim_end_matches(":download"))
            }
            ("GET", path) if path.starts_with("batches/") => self.get(to, path),
            ("GET", path) if path.starts_with("files/") => {
                let file = locked(&self.known).files.get(path).map(Uploaded::json);
                match file {
                    Some(json) => to.answer(200, "", &json),
                    None => refuse(to, 404),
                }
            }
            (method, path) => {
                to.body(head).whole()?;
                self.journal.note(if method == "DELETE" { "delete" } else { "other" }, path, 0);
                if method == "DELETE" {
                    locked(&self.known).files.remove(path);
                    let number = super::api::number_of(path);
                    number.and_then(|number| locked(&self.known).batches.remove(&number));
                }
                to.answer(200, "", "{}")
            }
        }
    }

    fn start(&self, to: &mut Connection, head: &Head) -> io::Result<()> {
        let body = String::from_utf8_lossy(&to.body(head).whole()?).into_owned();
        let mut known = locked(&self.known);
        let number = known.number();
        let name = member(&body, &["name"]).filter(|name| name.starts_with("files/"));
        let file = name.map_or_else(|| format!("files/up{number}"), str::to_owned);
        let display_name = member(&body, &["displayName", "display_name"]).unwrap_or("").to_owned();
        let keep = self.options.keep.as_ref();
        let keep =
            keep.map(|folder| File::create(folder.join(format!("up{number}")))).transpose()?;
        self.journal.note("session", &file, 0);
        let session = Session { file, display_name, received: 0, start: Vec::new(), keep };
        known.sessions.insert(number, Arc::new(Mutex::new(session)));
        drop(known);
        let url = format!("{}/upload/v1beta/files?upload_id={number}", self.base);
        let headers = format!(
            "x-goog-upload-status: active\r\nx-goog-upload-url: {url}\r\n\
             x-goog-upload-control-url: {url}\r\nx-goog-upload-chunk-granularity: 8388608\r\n"
        );
        to.answer(200, &headers, "{}")
    }

    fn piece(&self, to: &mut Connection, head: &Head) -> io::Result<()> {
        let id = head.asked("upload_id").parse().unwrap_or(0);
        let session = locked(&self.known).sessions.get(&id).map(Arc::clone);
        let Some(session) = session else { return refuse(to, 404) };
        let mut session = locked(&session);
        let command = head.header("x-goog-upload-command");
        if command == "query" {
            to.body(head).whole()?;
            let headers = format!(
                "x-goog-upload-status: active\r\nx-goog-upload-size-received: {}\r\n",
                session.received
            );
            return to.answer(200, &headers, "");
        }
        self.journal.note("upload-first", &session.file, session.received);
        let Session { received, start, keep, .. } = &mut *session;
        to.body(head).each(self.up.slice(), |piece| {
            self.up.pass(piece.len());
            *received += piece.len() as u64;
            // The beginning names the first row; of a small file all rows are answered.
            if start.len() < SMALL_BYTES {
                let room = SMALL_BYTES - start.len();
                start.extend_from_slice(&piece[..piece.len().min(room)]);
            }
            keep.as_mut().map_or(Ok(()), |keep| keep.write_all(piece))
        })?;
        self.journal.note("upload-last", &session.file, session.received);
        if !command.contains("finalize") {
            return to.answer(200, "x-goog-upload-status: active\r\n", "");
        }
        let start = std::mem::take(&mut session.start);
        let answers = self.answers_to(&start, session.received);
        let uploaded = Uploaded {
            name: session.file.clone(),
            display_name: session.display_name.clone(),
            bytes: session.received,
            answers,
        };
        let json = format!("{{\"file\":{}}}", uploaded.json());
        let mut known = locked(&self.known);
        known.sessions.remove(&id);
        known.files.insert(uploaded.name.clone(), uploaded);
        drop(known);
        to.answer(200, "x-goog-upload-status: final\r\n", &json)
    }

    /// Prepared results for the row that an upload begins with, or canned ones.
    fn answers_to(&self, start: &[u8], bytes: u64) -> Answers {
        let first = start.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let first = first.get(..first.len().min(64)).unwrap_or_default();
        let prepared = self.options.results.as_ref().and_then(|folder| {
            let key = keys_of_lines(first).into_iter().next()?;
            let path = folder.join(format!("{key}.jsonl"));
            path.exists().then_some(path)
        });
        match prepared {
            Some(path) => Answers::Prepared(path),
            None if bytes <= SMALL_BYTES as u64 => Answers::Canned(Arc::new(keys_of_lines(start))),
            None => Answers::Canned(Arc::default()),
        }
    }

    fn create(&self, to: &mut Connection, head: &Head, model: &str) -> io::Result<()> {
        let came = now_us();
        let body = to.body(head).whole()?;
        let beginning = String::from_utf8_lossy(&body[..body.len().min(4096)]).into_owned();
        let inline = beginning.contains("\"requests\"");
        let mut known = locked(&self.known);
        let input = member(&beginning, &["fileName", "file_name"]).filter(|_| !inline);
        let answers = match input.and_then(|name| known.files.get(name)) {
            Some(file) => file.answers.clone(),
            None if inline => Answers::Canned(Arc::new(keys_of_items(&body))),
            None => return refuse(to, 400),
        };
        let number = known.number();
        let display_name = member(&beginning, &["displayName", "display_name"]).unwrap_or("");
        let created_us = now_us();
        let batch = Batch {
            name: batch_name(number),
            display_name: display_name.to_owned(),
            model: model.to_owned(),
            input: input.map(str::to_owned),
            created_us,
            done_us: created_us + self.done_after_us.load(Ordering::Relaxed),
            answers,
            told: false,
        };
        self.journal.note_at(came, "create", display_name, number);
        self.journal.note_at(batch.done_us, "done", display_name, number);
        // The answer to a create says that it is pending, however soon it ends.
        let json = Batch { done_us: u64::MAX, ..batch.clone() }.operation(created_us, false);
        known.batches.insert(number, batch);
        drop(known);
        to.answer(200, "", &json)
    }

    fn list(&self, to: &mut Connection, head: &Head) -> io::Result<()> {
        let size: usize = head.asked("pageSize").parse().unwrap_or(50);
        let from: usize = head.asked("pageToken").parse().unwrap_or(0);
        let now = now_us();
        let mut known = locked(&self.known);
        let all = known.batches.len();
        let mut entries = Vec::new();
        for (number, batch) in known.batches.iter_mut().rev().skip(from).take(size) {
            self.tell(now, *number, batch);
            entries.push(batch.operation(now, false));
        }
        drop(known);
        self.journal.note("list", head.asked("pageToken"), entries.len() as u64);
        let next = match from + size < all {
            true => format!(",\"nextPageToken\":\"{}\"", from + size),
            false => String::new(),
        };
        to.answer(200, "", &format!("{{\"operations\":[{}]{next}}}", entries.join(",")))
    }

    fn get(&self, to: &mut Connection, name: &str) -> io::Result<()> {
        let now = now_us();
        self.journal.note("get", name, 0);
        let mut known = locked(&self.known);
        let number = super::api::number_of(name).unwrap_or(0);
        let json = known.batch(name).map(|batch| {
            self.tell(now, number, batch);
            batch.clone()
        });
        drop(known);
        match json {
            Some(batch) => to.answer(200, "", &batch.operation(now, true)),
            None => refuse(to, 404),
        }
    }

    fn tell(&self, now: u64, number: u64, batch: &mut Batch) {
        if now >= batch.done_us && !batch.told {
            batch.told = true;
            self.journal.note("told", &batch.display_name, number);
        }
    }

    fn download(&self, to: &mut Connection, head: &Head, name: &str) -> io::Result<()> {
        let batch = name.trim_start_matches("files/batch-");
        let answers = locked(&self.known).batch(batch).map(|batch| batch.answers.clone());
        match answers {
            Some(Answers::Prepared(path)) => {
                self.journal.note("download-first", name, 0);
                let bytes = self.send(to, &path, offset(head))?;
                self.journal.note("download-last", name, bytes);
                Ok(())
            }
            Some(Answers::Canned(keys)) => {
                let text: String = keys.iter().map(|key| canned_line(key)).collect();
                self.journal.note("download-first", name, 0);
                to.answer(200, "", &text)
            }
            None => refuse(to, 404),
        }
    }

    /// Sends a file from a byte on.
    fn send(&self, to: &mut Connection, path: &Path, from: u64) -> io::Result<u64> {
        let mut file = File::open(path)?;
        let bytes = file.metadata()?.len();
        if from > 0 && from >= bytes {
            refuse(to, 416)?;
            return Ok(0);
        }
        file.seek(SeekFrom::Start(from))?;
        let (status, range) = match from {
            0 => ("200 OK", String::new()),
            _ => ("206 Partial", format!("content-range: bytes {from}-{}/{bytes}\r\n", bytes - 1)),
        };
        let mut left = bytes - from;
        let head = format!(
            "HTTP/1.1 {status}\r\ncontent-type: application/octet-stream\r\n\
             content-length: {left}\r\n{range}\r\n"
        );
        to.stream.write_all(head.as_bytes())?;
        while left > 0 {
            let slice = left.min(self.down.slice() as u64);
            self.down.pass(usize::try_from(slice).unwrap_or(usize::MAX));
            // On Linux the kernel moves these bytes (sendfile).
            let sent = io::copy(&mut (&file).take(slice), &mut &to.stream)?;
            if sent == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            left -= sent;
        }
        Ok(bytes - from)
    }

    /// Calls of the measuring itself.
    fn own(&self, to: &mut Connection, head: &Head, what: &str) -> io::Result<()> {
        match what {
            "discard" => {
                self.journal.note("discard-first", "", 0);
                let bytes = to.body(head).each(self.up.slice(), |piece| {
                    self.up.pass(piece.len());
                    Ok(())
                })?;
                self.journal.note("discard-last", "", bytes);
                to.answer(200, "", "{}")
            }
            "journal" => {
                let from = head.asked("from").parse().unwrap_or(0);
                to.answer(200, "", &self.journal.text(from))
            }
            "count" => to.answer(200, "", &self.journal.count(head.asked("what")).to_string()),
            "done-after" => {
                to.body(head).whole()?;
                let ms: u64 = head.asked("ms").parse().unwrap_or(0);
                self.done_after_us.store(ms * 1000, Ordering::Relaxed);
                to.answer(200, "", "{}")
            }
            name => {
                let folder = self.options.results.as_deref().unwrap_or(Path::new("."));
                let Some(name) = name.strip_prefix("results/").filter(|name| !name.contains('/'))
                else {
                    return refuse(to, 404);
                };
                self.journal.note("served-first", name, 0);
                let bytes = self.send(to, &folder.join(name), offset(head))?;
                self.journal.note("served-last", name, bytes);
                Ok(())
            }
        }
    }
}

fn offset(head: &Head) -> u64 {
    let range = head.header("range").strip_prefix("bytes=").unwrap_or_default();
    range.split('-').next().and_then(|from| from.parse().ok()).unwrap_or(0)
}

fn refuse(to: &mut Connection, code: u16) -> io::Result<()> {
    let text = format!("{{\"error\":{{\"code\":{code},\"message\":\"not in the sink\"}}}}");
    to.answer(code, "", &text)
}

/// Of an upload up to this size every row is answered, bytes.
const SMALL_BYTES: usize = 16 << 20;
