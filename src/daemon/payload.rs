//! The bytes of a chunk as a stream that can be opened at any offset.
//!
//! A thread of its own reads blocks of 256 KiB ahead of the connection; the channel between them
//! holds two, so that memory stays constant however large the chunk is.

use std::io::{self, Read};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use tokio::sync::mpsc;

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
        loop {
            let block = read_block(&mut reader);
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

fn read_block(reader: &mut impl Read) -> io::Result<Bytes> {
    let mut block = vec![0_u8; BLOCK_BYTES];
    let mut filled = 0;
    while filled < block.len() {
        match reader.read(&mut block[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    block.truncate(filled);
    Ok(Bytes::from(block))
}

/// Bytes read at a time.
const BLOCK_BYTES: usize = 256 * 1024;
/// Blocks read ahead of the connection.
const BLOCKS_AHEAD: usize = 2;
