//! The bytes of a chunk as a stream that can be opened at any offset.
//!
//! A thread of its own reads blocks of 256 KiB ahead of the connection; the channel between them
//! holds two, so that memory stays constant however large the chunk is.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use tokio::sync::mpsc;

use crate::failpoint;
use crate::provider::gemini::Payload;
use crate::spool::body::{Body, BodyReader};

/// Makes the rows of a chunk uploadable.
pub fn payload(body: Arc<Body>) -> Payload {
    Payload { len: body.len(), open: Arc::new(move |offset, len| stream(&body, offset, len)) }
}

/// Makes a file of so many bytes uploadable.
pub fn file_payload(path: PathBuf, len: u64) -> Payload {
    let open = move |offset: u64, len: u64| {
        let path = path.clone();
        let reader = move || {
            let mut file = File::open(path)?;
            file.seek(SeekFrom::Start(offset))?;
            Ok(file)
        };
        blocks("upload:block", reader, len)
    };
    Payload { len, open: Arc::new(open) }
}

/// The next `len` bytes of a chunk that still grows. Whoever stops reading them before their end
/// must read no others.
pub fn next_bytes(
    reader: &Arc<Mutex<BodyReader>>,
    len: u64,
) -> BoxStream<'static, io::Result<Bytes>> {
    let reader = Shared(Arc::clone(reader));
    blocks("early:block", move || Ok(reader), len)
}

fn stream(body: &Arc<Body>, offset: u64, len: u64) -> BoxStream<'static, io::Result<Bytes>> {
    let body = Arc::clone(body);
    blocks("upload:block", move || body.reader(offset).map_err(io::Error::other), len)
}

fn blocks<R: Read>(
    moment: &'static str,
    open: impl FnOnce() -> io::Result<R> + Send + 'static,
    len: u64,
) -> BoxStream<'static, io::Result<Bytes>> {
    let (sender, receiver) = mpsc::channel(BLOCKS_AHEAD);
    tokio::task::spawn_blocking(move || {
        let mut reader = match open() {
            Ok(reader) => reader.take(len),
            Err(error) => {
                // A closed channel means that nobody waits for the bytes any more.
                let _ = sender.blocking_send(Err(error));
                return;
            }
        };
        let (back, free) = sync_channel(BLOCKS_AHEAD + 2);
        loop {
            let buffer = free.try_recv().unwrap_or_else(|_| vec![0; BLOCK_BYTES].into());
            let block =
                read_block(moment, &mut reader, Lent { buffer, len: 0, back: back.clone() });
            let last = !matches!(&block, Ok(bytes) if !bytes.is_empty());
            if matches!(&block, Ok(bytes) if bytes.is_empty()) {
                return;
            }
            if sender.blocking_send(block).is_err() || last {
                return;
            }
        }
    });
    futures_util::stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|block| (block, receiver))
    })
    .boxed()
}

fn read_block(moment: &str, reader: &mut impl Read, mut block: Lent) -> io::Result<Bytes> {
    failpoint::at(moment)?;
    while block.len < block.buffer.len() {
        match reader.read(&mut block.buffer[block.len..]) {
            Ok(0) => break,
            Ok(count) => block.len += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Bytes::from_owner(block))
}

/// Reads from where the one before stopped.
struct Shared(Arc<Mutex<BodyReader>>);

impl Read for Shared {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        lock(&self.0).read(buffer)
    }
}

/// Takes the reader; if a thread that read from it panicked, the process is ending anyway.
pub fn lock(reader: &Mutex<BodyReader>) -> MutexGuard<'_, BodyReader> {
    reader.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A buffer that goes back to be filled again when the connection is done with it.
struct Lent {
    buffer: Box<[u8]>,
    /// So many bytes of it are filled.
    len: usize,
    back: SyncSender<Box<[u8]>>,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.buffer[..self.len]
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        // Nobody may be left who fills it.
        let _ = self.back.try_send(std::mem::take(&mut self.buffer));
    }
}

/// Bytes read at a time.
const BLOCK_BYTES: usize = 256 * 1024;
/// Blocks read ahead of the connection.
const BLOCKS_AHEAD: usize = 2;
