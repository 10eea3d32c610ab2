//! A server that plays the Gemini Batch API as fast as it can, and notes when what happened.
//!
//! It forgets what is uploaded, serves results that were prepared in files by letting the kernel
//! send them, and checks nothing: it measures clients, and must cost next to nothing itself.
//! One thread for each connection. It never computes answers, but for canned ones of small batches.

mod api;
mod http;
mod journal;
mod pace;
mod routes;

use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;

pub use journal::now_us;
use pace::Link;

/// How it is to behave.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where to listen; port 0 picks one.
    pub listen: SocketAddr,
    /// Results of uploaded files, `FIRST.jsonl` by the first row of the file.
    pub results: Option<PathBuf>,
    /// Where uploads are kept; they are forgotten without.
    pub keep: Option<PathBuf>,
    /// Bytes a second in each direction; as fast as it goes without.
    pub rate: Option<u64>,
    /// How long a batch runs, milliseconds.
    pub done_after_ms: u64,
    /// Batches that are there from the start and never end.
    pub preload: u64,
}

/// Serves until the process ends; the first line printed names the address.
///
/// # Errors
/// If it can not listen.
pub fn run(options: Options) -> io::Result<()> {
    let listener = TcpListener::bind(options.listen)?;
    let base = format!("http://{}", listener.local_addr()?);
    println!("listening on {base}");
    io::stdout().flush()?;
    let (up, down) = (Link::new(options.rate), Link::new(options.rate));
    let sink = Arc::new(routes::Sink::new(base, options, up, down));
    for stream in listener.incoming() {
        let (stream, sink) = (stream?, Arc::clone(&sink));
        // An error ends the connection: the client sees it, and there is nobody else to tell.
        thread::Builder::new().stack_size(512 * 1024).spawn(move || sink.serve(stream))?;
    }
    Ok(())
}
