//! Answers that can be used again: by the SHA-256 of what was asked, on the disk, bounded.
//!
//! A convenience and never a truth: nothing is synced, and nothing read is believed before its
//! checksum is right. What is torn, damaged or gone is asked for again, at its price, and costs
//! nothing else. Answers stand in up to a few segments, each a file that only grows and a table
//! beside it in which it is known where they begin; the oldest segment goes when there are too many
//! bytes. Memory is the handles of these files, whatever their size.

mod segment;

use std::collections::VecDeque;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::statvfs;

use super::{At, SpoolError};
use crate::engine::ids::Millis;
use segment::{Put, Segment};

/// What a request is known by: the SHA-256 of its canonical form and of who is asked.
pub type Key = [u8; 32];

/// The answers of one state folder.
#[derive(Debug)]
pub struct Cache {
    folder: PathBuf,
    shelf: Mutex<Shelf>,
}

#[derive(Debug)]
struct Shelf {
    /// The oldest first; read when they are wanted first.
    segments: Option<VecDeque<Segment>>,
    bytes_max: u64,
    /// Whether files may be changed and removed.
    is_ours: bool,
}

impl Cache {
    /// The answers that lie in a state folder, which may take so many bytes there. Nothing is read
    /// or made yet.
    pub fn of(state: &Path, bytes_max: u64) -> Cache {
        let shelf = Mutex::new(Shelf { segments: None, bytes_max, is_ours: true });
        Cache { folder: state.join("cache"), shelf }
    }

    /// The answers of a daemon that may be running: nothing is changed.
    pub fn to_look_at(state: &Path) -> Cache {
        let shelf = Mutex::new(Shelf { segments: None, bytes_max: 0, is_ours: false });
        Cache { folder: state.join("cache"), shelf }
    }

    /// Other bounds from the next answer on.
    pub fn want(&self, bytes_max: u64) {
        self.shelf().bytes_max = bytes_max;
    }

    /// The answer to a request, if there is one that was kept at most `age_ms` ago.
    pub fn get(&self, key: &Key, age_ms: u64, now: Millis) -> Option<Vec<u8>> {
        let mut shelf = self.shelf();
        let segments = shelf.opened(&self.folder);
        segments.iter().rev().find_map(|segment| segment.get(key, age_ms, now))
    }

    /// Keeps an answer, unless it is too large to be worth its room.
    ///
    /// # Errors
    /// If it can not be written; what was kept before stays.
    pub fn put(&self, key: &Key, answer: &[u8], now: Millis) -> Result<(), SpoolError> {
        let mut shelf = self.shelf();
        let segment_bytes = (shelf.bytes_max / SEGMENTS).max(SEGMENT_BYTES_MIN);
        if answer.len() as u64 > (segment_bytes / 4).min(u64::from(u32::MAX)) {
            return Ok(());
        }
        let bytes_max = shelf.bytes_max;
        let segments = shelf.opened(&self.folder);
        if let Some(newest) = segments.back_mut()
            && newest.len() < segment_bytes
            && newest.put(key, answer, now).at("keep an answer in", &self.folder)? == Put::Kept
        {
            return Ok(());
        }
        make_room(segments, bytes_max.saturating_sub(segment_bytes));
        let number = segments.back().map_or(1, |newest| newest.number() + 1);
        fs::create_dir_all(&self.folder).at("make", &self.folder)?;
        let mut segment = Segment::create(&self.folder, number, segment_bytes)
            .at("make a file in", &self.folder)?;
        let put = segment.put(key, answer, now).at("keep an answer in", &self.folder);
        segments.push_back(segment);
        put.map(drop)
    }

    /// Whether the disk has so many bytes free, so that keeping answers takes nobody's room.
    pub fn has_room(&self, free_bytes: u64) -> bool {
        let place = if self.folder.exists() { Some(&*self.folder) } else { self.folder.parent() };
        let found = place.and_then(|place| statvfs(place).ok());
        found.is_some_and(|it| it.f_bavail.saturating_mul(it.f_frsize) >= free_bytes)
    }

    /// Removes what was last added to longer ago than `age_ms`.
    pub fn sweep(&self, age_ms: u64, now: Millis) {
        let mut shelf = self.shelf();
        let segments = shelf.opened(&self.folder);
        while segments.front().is_some_and(|oldest| now.since(oldest.newest()) > age_ms) {
            if let Some(oldest) = segments.pop_front() {
                oldest.remove();
            }
        }
    }

    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shelf {
    fn opened(&mut self, folder: &Path) -> &mut VecDeque<Segment> {
        let is_ours = self.is_ours;
        self.segments.get_or_insert_with(|| Segment::all(folder, is_ours).into())
    }
}

/// Removes the oldest segments until the others are small enough.
fn make_room(segments: &mut VecDeque<Segment>, bytes_max: u64) {
    let mut bytes: u64 = segments.iter().map(Segment::len).sum();
    while bytes > bytes_max || segments.len() as u64 > 2 * SEGMENTS {
        let Some(oldest) = segments.pop_front() else { return };
        bytes -= oldest.len();
        oldest.remove();
    }
}

/// Into so many parts the room is cut, about.
const SEGMENTS: u64 = 16;
/// The smallest part, bytes.
const SEGMENT_BYTES_MIN: u64 = 64 * 1024;

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "tests damage files")]

    use sha2::{Digest, Sha256};

    use super::*;

    const NOW: Millis = Millis(1_000_000_000);
    const DAY: u64 = 86_400_000;

    fn key(n: u64) -> Key {
        Sha256::digest(n.to_le_bytes()).into()
    }

    fn answer(n: u64) -> Vec<u8> {
        format!("{{\"answer\":{n}}}").into_bytes()
    }

    fn cache(folder: &tempfile::TempDir) -> Cache {
        Cache::of(folder.path(), 1 << 30)
    }

    #[test]
    fn answers_come_back_as_they_were_kept_until_they_are_too_old() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let first = cache(&folder);
        for n in 0..500 {
            first.put(&key(n), &answer(n), NOW).expect("kept");
        }
        for cache in [&first, &cache(&folder)] {
            for n in 0..500 {
                assert_eq!(cache.get(&key(n), DAY, NOW.plus(DAY)), Some(answer(n)));
            }
            assert_eq!(cache.get(&key(501), DAY, NOW), None);
            assert_eq!(cache.get(&key(1), DAY, NOW.plus(DAY + 1)), None);
            // A clock that is set back makes nothing old.
            assert_eq!(cache.get(&key(1), DAY, Millis(5)), Some(answer(1)));
        }
        // A newer answer to the same counts.
        first.put(&key(1), b"{}", NOW.plus(DAY)).expect("kept");
        assert_eq!(first.get(&key(1), DAY, NOW.plus(DAY)), Some(b"{}".to_vec()));
        assert_eq!(first.get(&key(1), DAY, NOW.plus(2 * DAY)), Some(b"{}".to_vec()));
    }

    #[test]
    fn the_oldest_go_first_and_the_bytes_are_bounded() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let cache = Cache::of(folder.path(), 2 << 20);
        let text = vec![b'x'; 1000];
        for n in 0..6000 {
            cache.put(&key(n), &text, NOW).expect("kept");
        }
        let files = fs::read_dir(folder.path().join("cache")).expect("listed").flatten();
        let data = files.filter(|entry| entry.path().extension().is_some_and(|it| it == "answers"));
        let bytes: u64 = data.map(|entry| entry.metadata().expect("there").len()).sum();
        assert!((1 << 20..=2 << 20).contains(&bytes), "{bytes} bytes");
        assert_eq!(cache.get(&key(0), DAY, NOW), None);
        assert!(cache.get(&key(5999), DAY, NOW).is_some());
        cache.sweep(DAY, NOW.plus(DAY));
        assert!(cache.get(&key(5999), DAY, NOW).is_some());
        cache.sweep(DAY, NOW.plus(3 * DAY));
        assert_eq!(fs::read_dir(folder.path().join("cache")).expect("listed").count(), 0);
    }

    #[test]
    fn whatever_is_damaged_is_not_there_and_harms_nothing() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let first = cache(&folder);
        for n in 0..200 {
            first.put(&key(n), &answer(n), NOW).expect("kept");
        }
        drop(first);
        let files: Vec<PathBuf> = fs::read_dir(folder.path().join("cache"))
            .expect("listed")
            .flatten()
            .map(|entry| entry.path())
            .collect();
        for path in files {
            let whole = fs::read(&path).expect("read");
            for at in [0, 1, 9, 33, 70, 150, whole.len() / 2, whole.len() - 1] {
                let mut damaged = whole.clone();
                damaged[at] ^= 0x55;
                fs::write(&path, &damaged).expect("damaged");
                look_at_all(&cache(&folder));
            }
            for len in [0, 1, 63, whole.len() / 3, whole.len() - 1] {
                fs::write(&path, &whole[..len]).expect("cut off");
                look_at_all(&cache(&folder));
            }
            fs::write(&path, &whole).expect("mended");
        }
        fs::remove_dir_all(folder.path().join("cache")).expect("removed");
        let empty = cache(&folder);
        assert_eq!(empty.get(&key(1), DAY, NOW), None);
        empty.put(&key(1), &answer(1), NOW).expect("kept");
        assert_eq!(empty.get(&key(1), DAY, NOW), Some(answer(1)));
    }

    /// Every answer is the right one, or not there; and it can be kept anew.
    fn look_at_all(cache: &Cache) {
        for n in 0..200 {
            let found = cache.get(&key(n), DAY, NOW);
            assert!(found.is_none() || found == Some(answer(n)), "another answer");
        }
        cache.put(&key(999), &answer(999), NOW).expect("kept");
        assert_eq!(cache.get(&key(999), DAY, NOW), Some(answer(999)));
    }
}
