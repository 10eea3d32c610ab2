//! The bytes of a chunk as a stream that can be opened at any offset.
//!
//! A thread of its own reads blocks of 256 KiB ahead of the connection; the channel between them
//! holds two, so that memory stays constant however large the chunk is.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use tokio::sync::mpsc;

use crate::failpoint;
use crate::provider::gemini::Payload;
use crate::spool::body::Body;

/// Makes the rows of a chunk uploadable.
pub fn payload(body: Arc<Body>) -> Payload {
    Payload { len: body.len(), open: Arc::new(move |offset, len| stream(&body, offset, len)) }
}

fn stream(body: &Arc<Body>, offset: u64, len: u64) -> BoxStream<'static, io::Result<Bytes>> {
    let (sender, receiver) = mpsc::channel(BLOCKS_AHEAD);
    let body = Arc::clone(body);
    tokio::task::spawn_blocking(move || {
        let mut reader = match body.reader(offset) {
            Ok(reader) => reader.take(len),
            Err(error) => {
                // A closed channel means that nobody waits for the bytes any more.
                let _ = sender.blocking_send(Err(io::Error::other(error)));
                return;
            }
        };
        let (back, free) = sync_channel(BLOCKS_AHEAD + 2);
        loop {
            let buffer = free.try_recv().unwrap_or_else(|_| vec![0; BLOCK_BYTES].into());
            let block = read_block(&mut reader, Lent { buffer, len: 0, back: back.clone() });
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

fn read_block(reader: &mut impl Read, mut block: Lent) -> io::Result<Bytes> {
    failpoint::at("upload:block")?;
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
