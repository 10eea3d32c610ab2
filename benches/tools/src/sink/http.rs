//! As much of HTTP/1.1 as the clients of the API speak.
//!
//! Heads are small and read whole; bodies are read through a buffer of 256 KiB, with a length or
//! in HTTP chunks.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;

/// The head of a request.
#[derive(Debug, Default)]
pub struct Head {
    /// `GET` and the like.
    pub method: String,
    /// Without the query.
    pub path: String,
    /// After the question mark.
    pub query: String,
    headers: Vec<(String, String)>,
}

impl Head {
    /// A header by its name in lower case; empty if it is not there.
    pub fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value)
    }

    /// A value of the query; empty if it is not there.
    pub fn asked(&self, name: &str) -> &str {
        let pairs = self.query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.into_iter().find(|(key, _)| *key == name).map_or("", |(_, value)| value)
    }

    fn body_kind(&self) -> BodyKind {
        match self.header("transfer-encoding").contains("chunked") {
            true => BodyKind::Chunks { left: 0, ended: false },
            false => BodyKind::Length(self.header("content-length").parse().unwrap_or(0)),
        }
    }
}

/// A connection.
pub struct Connection {
    reader: BufReader<TcpStream>,
    /// The other direction.
    pub stream: TcpStream,
}

impl Connection {
    /// Takes a connection over.
    pub fn new(stream: TcpStream) -> io::Result<Connection> {
        stream.set_nodelay(true)?;
        Ok(Connection { reader: BufReader::with_capacity(256 * 1024, stream.try_clone()?), stream })
    }

    /// The next request; `None` when the client has gone.
    pub fn head(&mut self) -> io::Result<Option<Head>> {
        let mut head = Head::default();
        let Some(line) = self.line()? else { return Ok(None) };
        let mut words = line.split(' ');
        head.method = words.next().unwrap_or_default().to_owned();
        let target = words.next().unwrap_or_default();
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        (head.path, head.query) = (path.to_owned(), query.to_owned());
        while let Some(line) = self.line()?.filter(|line| !line.is_empty()) {
            if let Some((key, value)) = line.split_once(':') {
                head.headers.push((key.to_ascii_lowercase(), value.trim().to_owned()));
            }
        }
        if head.header("expect") == "100-continue" {
            self.stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        Ok(Some(head))
    }

    /// The body of the request whose head was read last.
    pub fn body(&mut self, head: &Head) -> Body<'_> {
        Body { reader: &mut self.reader, kind: head.body_kind() }
    }

    /// Answers with a body that is in memory.
    pub fn answer(&mut self, status: u16, headers: &str, body: &str) -> io::Result<()> {
        let text = format!(
            "HTTP/1.1 {status} {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
             {headers}\r\n{body}",
            if status < 300 { "OK" } else { "Not OK" },
            body.len()
        );
        self.stream.write_all(text.as_bytes())
    }

    fn line(&mut self) -> io::Result<Option<String>> {
        let mut line = Vec::new();
        if self.reader.read_until(b'\n', &mut line)? == 0 {
            return Ok(None);
        }
        let text = String::from_utf8_lossy(&line);
        Ok(Some(text.trim_end_matches(['\r', '\n']).to_owned()))
    }
}

enum BodyKind {
    /// Bytes left.
    Length(u64),
    /// Bytes left of the chunk at hand.
    Chunks { left: u64, ended: bool },
}

/// The body of a request.
pub struct Body<'a> {
    reader: &'a mut BufReader<TcpStream>,
    kind: BodyKind,
}

impl Body<'_> {
    /// Hands all pieces to `take` as they come; at most `slice` bytes at a time.
    pub fn each(
        &mut self,
        slice: usize,
        mut take: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<u64> {
        let mut total = 0;
        loop {
            let left = self.left()?;
            if left == 0 {
                return Ok(total);
            }
            let held = self.reader.fill_buf()?;
            if held.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let most = usize::try_from(left).unwrap_or(usize::MAX).min(slice).min(held.len());
            take(&held[..most])?;
            self.reader.consume(most);
            total += most as u64;
            self.used(most as u64);
        }
    }

    /// All of it.
    pub fn whole(&mut self) -> io::Result<Vec<u8>> {
        let mut all = Vec::new();
        self.each(usize::MAX, |piece| {
            all.extend_from_slice(piece);
            Ok(())
        })?;
        Ok(all)
    }

    fn used(&mut self, bytes: u64) {
        match &mut self.kind {
            BodyKind::Length(left) | BodyKind::Chunks { left, .. } => *left -= bytes,
        }
    }

    /// Bytes that follow for sure; 0 at the end.
    fn left(&mut self) -> io::Result<u64> {
        let BodyKind::Chunks { left, ended } = &mut self.kind else {
            let BodyKind::Length(left) = self.kind else { return Ok(0) };
            return Ok(left);
        };
        if *left > 0 || *ended {
            return Ok(*left);
        }
        let mut size = String::new();
        while size.trim().is_empty() {
            size.clear();
            if self.reader.by_ref().take(1024).read_line(&mut size)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        let digits = size.trim().split(';').next().unwrap_or_default();
        *left = u64::from_str_radix(digits, 16).map_err(io::Error::other)?;
        if *left == 0 {
            *ended = true;
            size.clear();
            self.reader.read_line(&mut size)?;
        }
        Ok(*left)
    }
}
