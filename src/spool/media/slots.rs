//! Where in the prepared lines addresses have to stand: an index of places, and what is put there.
//!
//! A slot is the URI as its user wrote it, with its quotes, and blanks after it, at least
//! [`SLOT_BYTES`] together: room for any address of a file at the API. JSON does not mind the
//! blanks, so the prepared line says what the input said. When it goes out, the slot is overwritten
//! in place: nothing changes its length, and a body can be read on from any byte as it was planned.
//! Slots are known by their places, so that no text of a user can pass for one. Each takes 48 bytes
//! on disk; in memory there is a part of them, whatever their number.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Kind;
use super::addresses::Addresses;
use crate::spool::{At, SpoolError, durable, source};

/// A file as it was taken: its content, and what kind it is sent as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MediaId {
    /// SHA-256 of the content.
    pub sha256: [u8; 32],
    /// What it is.
    pub kind: Kind,
}

impl MediaId {
    /// The content's SHA-256 in lower-case hexadecimal.
    pub fn hex(&self) -> String {
        hex(&self.sha256)
    }
}

/// A checksum in lower-case hexadecimal.
pub fn hex(sha256: &[u8; 32]) -> String {
    sha256.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A place in the prepared lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    /// Byte offset of the opening quote.
    pub start: u64,
    /// Bytes of it, at least [`SLOT_BYTES`].
    pub len: u32,
    /// The file.
    pub media: MediaId,
}

/// Bytes of a slot, at least.
pub const SLOT_BYTES: usize = 128;

/// The longest address that fits into every slot, bytes.
pub const ADDRESS_BYTES_MAX: usize = SLOT_BYTES - 2;

const ENTRY_BYTES: usize = 48;

impl Slot {
    fn end(&self) -> u64 {
        self.start + u64::from(self.len)
    }

    fn encode(&self) -> [u8; ENTRY_BYTES] {
        let mut bytes = [0; ENTRY_BYTES];
        bytes[..8].copy_from_slice(&self.start.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.len.to_le_bytes());
        bytes[12] = self.media.kind.code();
        bytes[16..].copy_from_slice(&self.media.sha256);
        bytes
    }

    fn decode(bytes: &[u8]) -> io::Result<Slot> {
        let damaged =
            || io::Error::new(io::ErrorKind::InvalidData, "the index of media is damaged");
        let (start, rest) = bytes.split_first_chunk::<8>().ok_or_else(damaged)?;
        let (len, rest) = rest.split_first_chunk::<4>().ok_or_else(damaged)?;
        let kind = rest.first().copied().and_then(Kind::from_code).ok_or_else(damaged)?;
        let sha256 = rest.last_chunk::<32>().copied().ok_or_else(damaged)?;
        let (start, len) = (u64::from_le_bytes(*start), u32::from_le_bytes(*len));
        Ok(Slot { start, len, media: MediaId { sha256, kind } })
    }
}

/// Writes an index aside, slot after slot. Dropped before it has its name, it leaves nothing.
#[derive(Debug)]
pub struct SlotWriter {
    path: PathBuf,
    aside: PathBuf,
    file: io::BufWriter<File>,
    count: u64,
    named: bool,
}

impl SlotWriter {
    /// Begins the index anew.
    ///
    /// # Errors
    /// If it can not be written.
    pub fn create(path: &Path) -> Result<SlotWriter, SpoolError> {
        let aside = durable::aside(path);
        let file = io::BufWriter::new(File::create(&aside).at("write", &aside)?);
        Ok(SlotWriter { path: path.to_owned(), aside, file, count: 0, named: false })
    }

    /// Puts down the next slot; they come in the order in which they stand.
    ///
    /// # Errors
    /// If it can not be written.
    pub fn put(&mut self, slot: &Slot) -> Result<(), SpoolError> {
        self.count += 1;
        self.file.write_all(&slot.encode()).at("write", &self.aside)
    }

    /// Gives the index its name, durably. Without any slot there is none; one of an earlier try
    /// is removed then.
    ///
    /// # Errors
    /// If it can not be written, synced or named.
    pub fn finish(mut self) -> Result<(), SpoolError> {
        if self.count == 0 {
            return match fs::remove_file(&self.path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    Err(error).at("remove", &self.path)
                }
                Ok(()) | Err(_) => Ok(()),
            };
        }
        self.file.flush().at("write", &self.aside)?;
        durable::sync_file(&self.aside)?;
        durable::rename(&self.aside, &self.path)?;
        self.named = true;
        Ok(())
    }
}

impl Drop for SlotWriter {
    fn drop(&mut self) {
        if !self.named {
            // Only tidiness: the next try writes over it.
            drop(fs::remove_file(&self.aside));
        }
    }
}

/// Reads slots by their places.
#[derive(Debug)]
pub struct Slots {
    file: File,
    path: PathBuf,
    count: u64,
    /// Some of them in memory, and the number of the first.
    held: Vec<Slot>,
    first: u64,
}

impl Slots {
    /// Opens an index; `None` if the lines have no slots.
    ///
    /// # Errors
    /// If it is there and can not be read.
    pub fn open(path: &Path) -> Result<Option<Slots>, SpoolError> {
        let file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened.at("open", path)?,
        };
        let count = file.metadata().at("look at", path)?.len() / ENTRY_BYTES as u64;
        Ok(Some(Slots { file, path: path.to_owned(), count, held: Vec::new(), first: 0 }))
    }

    /// Calls `each` with the slots that have a byte in `start..end`, in order.
    ///
    /// # Errors
    /// If they can not be read.
    pub fn within(
        &mut self,
        start: u64,
        end: u64,
        mut each: impl FnMut(&Slot),
    ) -> Result<(), SpoolError> {
        let mut number = self.after(start)?;
        while number < self.count {
            let slot = self.get(number)?;
            if slot.start >= end {
                break;
            }
            each(&slot);
            number += 1;
        }
        Ok(())
    }

    /// The number of the first slot that ends after a byte.
    fn after(&mut self, byte: u64) -> Result<u64, SpoolError> {
        // Whoever reads on finds it among those in memory.
        if let (Some(first), Some(last)) = (self.held.first(), self.held.last())
            && (self.first == 0 || first.end() <= byte)
            && last.end() > byte
        {
            return Ok(self.first + self.held.partition_point(|slot| slot.end() <= byte) as u64);
        }
        let (mut low, mut high) = (0, self.count);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.read(middle, 1)?[0].end() <= byte { low = middle + 1 } else { high = middle }
        }
        Ok(low)
    }

    fn get(&mut self, number: u64) -> Result<Slot, SpoolError> {
        if number < self.first || number - self.first >= self.held.len() as u64 {
            // The one before, too: that a byte lies after it is worth knowing.
            self.first = number.saturating_sub(1);
            self.held = self.read(self.first, HELD.min(self.count - self.first))?;
        }
        Ok(self.held[(number - self.first) as usize])
    }

    fn read(&self, number: u64, count: u64) -> Result<Vec<Slot>, SpoolError> {
        let mut bytes = vec![0; count as usize * ENTRY_BYTES];
        let got = source::fill(&self.file, &mut bytes, number * ENTRY_BYTES as u64);
        let whole = got.and_then(|got| {
            if got < bytes.len() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            bytes.chunks_exact(ENTRY_BYTES).map(Slot::decode).collect()
        });
        whole.at("read", &self.path)
    }
}

/// Puts addresses into the slots of bytes that go out.
#[derive(Debug)]
pub struct Patch {
    slots: Slots,
    addresses: Arc<Addresses>,
}

impl Patch {
    /// For the lines whose slots are in this index.
    pub fn new(slots: Slots, addresses: Arc<Addresses>) -> Patch {
        Patch { slots, addresses }
    }

    /// Overwrites what lies in slots among `bytes`, which stand at `start` in the prepared lines.
    ///
    /// # Errors
    /// If the index can not be read, or a file has no address: then nothing may go out.
    pub fn apply(&mut self, start: u64, bytes: &mut [u8]) -> Result<(), SpoolError> {
        let end = start + bytes.len() as u64;
        let mut without = false;
        let addresses = Arc::clone(&self.addresses);
        self.slots.within(start, end, |slot| {
            let Some(address) = addresses.of(&slot.media) else {
                without = true;
                return;
            };
            let (from, to) = (slot.start.max(start), slot.end().min(end));
            let target = &mut bytes[(from - start) as usize..(to - start) as usize];
            fill(target, address.as_bytes(), (from - slot.start) as usize);
        })?;
        if without {
            let error = io::Error::other("a file that a line names has no address yet");
            return Err(error).at("go on with", &self.slots.path);
        }
        Ok(())
    }
}

/// Writes the part of a slot that begins at its byte `at`.
fn fill(target: &mut [u8], address: &[u8], at: usize) {
    for (place, byte) in (at..).zip(target) {
        *byte = match place {
            0 => b'"',
            place if place <= address.len() => address[place - 1],
            place if place == address.len() + 1 => b'"',
            _ => b' ',
        };
    }
}

/// Slots in memory at a time.
const HELD: u64 = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn media(byte: u8) -> MediaId {
        let kind = Kind::of_mime("image/png").expect("known");
        MediaId { sha256: [byte; 32], kind }
    }

    fn index(folder: &Path, slots: &[Slot]) -> PathBuf {
        let path = folder.join("slots.idx");
        let mut writer = SlotWriter::create(&path).expect("created");
        for slot in slots {
            writer.put(slot).expect("put");
        }
        writer.finish().expect("finished");
        path
    }

    #[test]
    fn a_patch_gives_the_same_bytes_wherever_reading_begins_and_ends() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let slot = |start, byte| Slot { start, len: SLOT_BYTES as u32, media: media(byte) };
        let path = index(folder.path(), &[slot(3, 1), slot(131, 2), slot(300, 1)]);
        let addresses: Arc<Addresses> = Arc::new(
            [(media(1), "https://there/one"), (media(2), "https://there/files/number-two")]
                .into_iter()
                .collect(),
        );
        let patch = || {
            let slots = Slots::open(&path).expect("opened").expect("there");
            Patch::new(slots, Arc::clone(&addresses))
        };
        let mut whole = vec![b'x'; 450];
        patch().apply(0, &mut whole).expect("patched");
        let text = String::from_utf8(whole.clone()).expect("text");
        assert!(text.starts_with("xxx\"https://there/one\" "), "{text}");
        assert!(text[131..].starts_with("\"https://there/files/number-two\" "), "{text}");
        assert!(text[259..300].bytes().all(|byte| byte == b'x'), "{text}");
        assert!(text[428..].bytes().all(|byte| byte == b'x'), "{text}");
        for start in 0..whole.len() {
            for len in [1, 2, 7, 130, 450] {
                let end = (start + len).min(whole.len());
                let mut part = vec![b'x'; end - start];
                patch().apply(start as u64, &mut part).expect("patched");
                assert_eq!(part, whole[start..end], "{start}..{end}");
            }
        }
        // Forwards and back with one and the same.
        let mut one = patch();
        for start in (0..450).chain((0..450).rev()) {
            let mut part = [b'x'];
            one.apply(start as u64, &mut part).expect("patched");
            assert_eq!(part[0], whole[start], "{start}");
        }
    }

    #[test]
    fn many_slots_are_found_from_any_byte() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let slots: Vec<Slot> = (0..5000)
            .map(|n| Slot { start: n * 1000 + 10, len: 200, media: media((n % 251) as u8) })
            .collect();
        let path = index(folder.path(), &slots);
        let mut reader = Slots::open(&path).expect("opened").expect("there");
        for n in (0..5000).chain([17, 4999, 0, 1024, 1023, 1025, 2500]) {
            for (start, end, expected) in [
                (n * 1000, n * 1000 + 10, None),
                (n * 1000, n * 1000 + 11, Some(n)),
                (n * 1000 + 209, n * 1000 + 1000, Some(n)),
                (n * 1000 + 210, n * 1000 + 1010, None),
            ] {
                let mut found = Vec::new();
                reader.within(start, end, |slot| found.push(*slot)).expect("read");
                let expected: Vec<Slot> = expected.map(|n| slots[n as usize]).into_iter().collect();
                assert_eq!(found, expected, "{start}..{end}");
            }
        }
    }

    #[test]
    fn without_an_address_nothing_goes_out() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = index(folder.path(), &[Slot { start: 0, len: 128, media: media(1) }]);
        let slots = Slots::open(&path).expect("opened").expect("there");
        let mut patch = Patch::new(slots, Arc::default());
        assert!(patch.apply(5, &mut [b'x']).is_err());
        patch.apply(128, &mut [b'x']).expect("no slot there");
    }

    #[test]
    fn an_index_without_slots_is_no_file_and_a_damaged_one_is_told() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = index(folder.path(), &[Slot { start: 0, len: 128, media: media(1) }]);
        let file = File::options().write(true).open(&path).expect("opened");
        io::Write::write_all(&mut &file, &[0; 48]).expect("damaged");
        let mut slots = Slots::open(&path).expect("opened").expect("there");
        assert!(slots.within(0, 1, |_| {}).is_err());
        index(folder.path(), &[]);
        assert!(Slots::open(&path).expect("looked").is_none());
        assert_eq!(fs::read_dir(folder.path()).expect("listed").count(), 0);
    }
}
