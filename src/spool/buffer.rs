//! Bytes in memory that go back to the system as soon as they are dropped.
//!
//! The allocator keeps what large buffers took, for each thread that ever had one, so that a job
//! with many large parts would slowly take as much as all of them. This is for those few buffers;
//! everything else is a `Vec`.

use std::ops::{Deref, DerefMut};

use memmap2::MmapMut;

/// A buffer that grows.
#[derive(Default)]
pub struct Buffer {
    /// `None` as long as nothing was asked for.
    map: Option<MmapMut>,
    len: usize,
}

impl Buffer {
    /// Bytes it can hold without growing.
    pub fn capacity(&self) -> usize {
        self.map.as_ref().map_or(0, |map| map.len())
    }

    /// Adds bytes at the end.
    pub fn extend_from_slice(&mut self, bytes: &[u8]) {
        let len = self.len + bytes.len();
        if len > self.capacity() {
            // Pages that are never touched cost nothing, copying does.
            let ahead = (4 * self.capacity()).clamp(FIRST_BYTES, MOST_GROWN_BYTES);
            self.hold(ahead.max(len + len / 4));
        }
        let start = std::mem::replace(&mut self.len, len);
        self[start..].copy_from_slice(bytes);
    }

    /// Makes it so long; what stands in the bytes that are added is not said.
    pub fn set_len(&mut self, len: usize) {
        if len > self.capacity() {
            self.hold(len);
        }
        self.len = len;
    }

    /// Takes away the first bytes, and what it holds beyond `capacity` that is not needed.
    pub fn drop_front(&mut self, count: usize, capacity: usize) {
        self.copy_within(count.., 0);
        self.len -= count;
        if self.capacity() > capacity.max(self.len) {
            self.hold(capacity.max(self.len));
        }
    }

    /// Moves to a map of so many bytes.
    fn hold(&mut self, capacity: usize) {
        // Like any allocation, it succeeds or the process ends.
        let mut map = MmapMut::map_anon(capacity).expect("the system has memory left");
        map[..self.len].copy_from_slice(self);
        self.map = Some(map);
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.map.as_ref().map_or(&[], |map| &map[..self.len])
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        let len = self.len;
        self.map.as_mut().map_or(&mut [], |map| &mut map[..len])
    }
}

/// What is held at first, bytes.
const FIRST_BYTES: usize = 64 * 1024;

/// Up to here it grows fourfold, then by a quarter, bytes.
const MOST_GROWN_BYTES: usize = 16 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_holds_what_a_vec_would() {
        let (mut buffer, mut vec) = (Buffer::default(), Vec::new());
        for step in 0..60_usize {
            let piece = vec![step as u8; step * step * 97 % 70_000];
            buffer.extend_from_slice(&piece);
            vec.extend_from_slice(&piece);
            if step % 7 == 6 {
                let count = vec.len() / 3 * 2;
                buffer.drop_front(count, 1 << 17);
                vec.drain(..count);
                assert!(buffer.capacity() <= vec.len().max(1 << 17));
            }
            assert!(*buffer == vec[..], "after step {step}");
        }
        let len = vec.len();
        buffer.set_len(len / 2);
        assert!(*buffer == vec[..len / 2]);
        buffer.set_len(len + 5);
        assert!(buffer[..len / 2] == vec[..len / 2]);
        assert_eq!(buffer.len(), len + 5);
    }

    #[test]
    fn what_is_long_is_not_copied_for_each_piece() {
        let (mut buffer, mut moves) = (Buffer::default(), 0);
        for _ in 0..256 {
            let before = buffer.capacity();
            buffer.extend_from_slice(&[7; 256 * 1024]);
            moves += usize::from(buffer.capacity() != before);
        }
        assert_eq!(buffer.len(), 64 << 20);
        assert!(moves < 20, "moved {moves} times");
    }

    #[test]
    fn nothing_takes_nothing() {
        let mut buffer = Buffer::default();
        buffer.extend_from_slice(&[]);
        buffer.drop_front(0, 0);
        assert_eq!((buffer.len(), &*buffer), (0, &[][..]));
    }
}
