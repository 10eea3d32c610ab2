//! Reads a file through once and tells its SHA-256.
//!
//! Reading and whatever is made of the bytes happen on the caller's thread; the checksum is computed
//! on another one from the same blocks, which are never copied: of all that is done with an input
//! it takes longest, since one round of it waits for the other. Memory is a few blocks, whatever
//! the size of the file; a file of one block is not worth a thread.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use sha2::{Digest, Sha256};

use super::source;
use super::{At, SpoolError};

/// What a file is, whatever stands in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    /// SHA-256, lower-case hexadecimal.
    pub sha256: String,
    /// Bytes.
    pub bytes: u64,
}

/// Reads `file`, which was opened at `path`, from its beginning to its end, and hands on each
/// block with its offset.
///
/// # Errors
/// If it can not be read, or that of `each`.
pub fn through<E: From<SpoolError>>(
    file: &File,
    path: &Path,
    mut each: impl FnMut(u64, &[u8]) -> Result<(), E>,
) -> Result<Content, E> {
    let mut offset = 0;
    let mut next = |block: &mut Block| {
        block.len = source::fill(file, &mut block.bytes, offset).at("read", path)?;
        offset += block.len as u64;
        Ok::<u64, SpoolError>(offset - block.len as u64)
    };
    let mut first = Block::new();
    next(&mut first)?;
    let one_block = first.len < BLOCK_BYTES;
    let hash = if one_block {
        each(0, first.filled())?;
        Sha256::new_with_prefix(first.filled())
    } else {
        thread::scope(|scope| {
            let (to_hasher, blocks) = sync_channel(BLOCKS);
            let (back, used) = sync_channel(BLOCKS);
            let hasher = thread::Builder::new()
                .name("checksum".to_owned())
                .spawn_scoped(scope, move || hash(&blocks, &back))
                .at("begin to read", path)?;
            let blocks = Circle { used, made: 1 };
            let read = read_rest(first, blocks, &to_hasher, &mut next, &mut each);
            // The hasher ends when nothing more can come.
            drop(to_hasher);
            let hash = hasher.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            read.map(|()| hash)
        })?
    };
    let sha256 = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(Content { sha256, bytes: offset })
}

/// The same without a checksum, for what nobody else will ever see.
///
/// # Errors
/// As [`through`].
pub fn unsummed<E: From<SpoolError>>(
    file: &File,
    path: &Path,
    mut each: impl FnMut(u64, &[u8]) -> Result<(), E>,
) -> Result<(), E> {
    let (mut block, mut offset) = (Block::new(), 0);
    loop {
        block.len = source::fill(file, &mut block.bytes, offset).at("read", path)?;
        if block.len == 0 {
            return Ok(());
        }
        each(offset, block.filled())?;
        offset += block.len as u64;
    }
}

/// Hands every block to the hasher and to `each`, beginning with the one that was read already.
fn read_rest<E: From<SpoolError>>(
    first: Block,
    mut blocks: Circle,
    to_hasher: &SyncSender<Arc<Block>>,
    next: &mut impl FnMut(&mut Block) -> Result<u64, SpoolError>,
    each: &mut impl FnMut(u64, &[u8]) -> Result<(), E>,
) -> Result<(), E> {
    let (mut block, mut offset) = (first, 0);
    while block.len > 0 {
        let shared = Arc::new(block);
        to_hasher.send(Arc::clone(&shared)).expect("the hasher waits for blocks");
        each(offset, shared.filled())?;
        drop(shared);
        block = blocks.free();
        offset = next(&mut block)?;
    }
    Ok(())
}

fn hash(blocks: &Receiver<Arc<Block>>, back: &SyncSender<Arc<Block>>) -> Sha256 {
    let mut hash = Sha256::new();
    for block in blocks {
        hash.update(block.filled());
        // Whoever read them needs them no more after an error.
        let _ = back.send(block);
    }
    hash
}

/// Part of a file.
struct Block {
    bytes: Box<[u8]>,
    /// So many of the bytes are part of the file.
    len: usize,
}

impl Block {
    fn new() -> Block {
        Block { bytes: vec![0; BLOCK_BYTES].into_boxed_slice(), len: 0 }
    }

    fn filled(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// The blocks on their way to the hasher and back.
struct Circle {
    used: Receiver<Arc<Block>>,
    made: usize,
}

impl Circle {
    /// A block that nobody reads any more.
    fn free(&mut self) -> Block {
        if self.made < BLOCKS {
            self.made += 1;
            return Block::new();
        }
        let used = self.used.recv().expect("the hasher gives blocks back while it is sent some");
        Arc::into_inner(used).expect("the reader let go of a block before it asks for another")
    }
}

/// Bytes read at once: more would not stay in the cache of a processor.
const BLOCK_BYTES: usize = 256 * 1024;

/// Blocks in memory: the one that is looked at, the one that is hashed, and some between them.
const BLOCKS: usize = 4;

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "tests make files as people do")]

    use std::io;

    use super::*;

    #[test]
    fn every_byte_is_handed_on_once_in_order_and_counts_for_the_checksum() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("file");
        for len in [0, 1, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, 9 * BLOCK_BYTES + 7] {
            let content: Vec<u8> = (0..len).map(|n| (n % 251) as u8).collect();
            std::fs::write(&path, &content).expect("written");
            let file = File::open(&path).expect("opened");
            let mut seen = Vec::new();
            let read = through(&file, &path, |offset, block| {
                assert_eq!(offset, seen.len() as u64);
                seen.extend_from_slice(block);
                Ok::<(), SpoolError>(())
            });
            let expected = Sha256::digest(&content);
            let sha256 = expected.iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(read.expect("read"), Content { sha256, bytes: len as u64 });
            assert!(seen == content, "{len} bytes");
        }
    }

    #[test]
    fn an_error_on_the_way_ends_it() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("file");
        std::fs::write(&path, vec![b'x'; 20 * BLOCK_BYTES]).expect("written");
        let file = File::open(&path).expect("opened");
        let mut calls = 0;
        let error = through(&file, &path, |_, _| {
            calls += 1;
            let error = io::Error::other("enough");
            if calls < 7 { Ok(()) } else { Err(error).at("look at", &path) }
        });
        assert!(error.expect_err("an error").to_string().contains("enough"));
        assert_eq!(calls, 7);
    }
}
