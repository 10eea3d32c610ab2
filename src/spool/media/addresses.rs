//! What is known of a job's media at the API: one small record for each file, and the addresses
//! that go out.
//!
//! A record is durable before the address in it is used, so that what was sent once is sent again
//! when an upload of lines goes on after a restart. It is bound to the API key: with another one the
//! file belongs to another project. The API forgets a file 48 hours after it came; one that is needed
//! for longer is uploaded again under another name, and the former one stays for the batches that
//! were made with it, until the job is over.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::Kind;
use super::slots::MediaId;
use crate::engine::ids::{FileName, JobId, Millis, Stamp};
use crate::spool::{At, JobFolder, SpoolError, durable};

/// Where a file is at the API.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remote {
    /// Counts the times it was uploaded, from 1. It is part of its name there.
    pub generation: u32,
    /// Its address, for requests.
    pub uri: String,
    /// When the API forgets it, milliseconds since 1970.
    pub expires_ms: u64,
    /// Fingerprint of the API key it was uploaded with.
    pub key_print: String,
}

/// The record of a file; `None` if it was never uploaded, or that is not known any more.
///
/// # Errors
/// If it is there and can not be read.
pub fn load(folder: &JobFolder, media: &MediaId) -> Result<Option<Remote>, SpoolError> {
    let path = record(folder, media);
    match fs::read(&path) {
        Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).at("read", &path),
    }
}

/// Keeps the record of a file, durably.
///
/// # Errors
/// If it can not be written.
pub fn keep(folder: &JobFolder, media: &MediaId, remote: &Remote) -> Result<(), SpoolError> {
    let text = serde_json::to_vec(remote).map_err(io::Error::other);
    let path = record(folder, media);
    durable::replace(&path, &text.at("write", &path)?)
}

/// Every file of a job that was uploaded with this key, by all the names it has had.
///
/// # Errors
/// If the records can not be listed.
pub fn uploaded(
    folder: &JobFolder,
    job: JobId,
    key_print: &str,
) -> Result<Vec<FileName>, SpoolError> {
    let path = folder.media();
    let entries = match fs::read_dir(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.at("list", &path)?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry.at("list", &path)?.file_name();
        let Some(media) = name.to_str().and_then(of_record) else { continue };
        let Some(remote) = load(folder, &media)?.filter(|it| it.key_print == key_print) else {
            continue;
        };
        names.extend((1..=remote.generation).map(|number| name_at_api(job, &media, number)));
    }
    Ok(names)
}

/// The name a file is given at the API: ours to choose, so that it is found again if the answer is
/// lost. After 36 generations, more than a month, the first is long gone.
pub fn name_at_api(job: JobId, media: &MediaId, generation: u32) -> FileName {
    let job = job.as_str().to_ascii_lowercase();
    let mut hash = Sha256::new_with_prefix(media.sha256);
    hash.update([media.kind.code()]);
    let mut number =
        hash.finalize().iter().take(8).fold(0, |sum, byte| sum << 8 | u64::from(*byte));
    let mut digits = String::new();
    for _ in 0..11 {
        digits.push(digit(number % 36));
        number /= 36;
    }
    FileName(format!("files/{job}-{digits}{}", digit(u64::from(generation) % 36)))
}

/// What it is called there for people; by it, housekeeping knows whose it is.
pub fn display_name(job: JobId, media: &MediaId) -> String {
    format!("{}{job}/media/{}", Stamp::PREFIX, &media.hex()[..16])
}

/// The addresses of files, as they go out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Addresses {
    by_media: HashMap<MediaId, Box<str>>,
}

impl Addresses {
    /// The address of a file.
    pub fn of(&self, media: &MediaId) -> Option<&str> {
        self.by_media.get(media).map(AsRef::as_ref)
    }

    /// A fingerprint: the same for the same addresses of the same files.
    pub fn print(&self) -> String {
        let mut all: Vec<_> = self.by_media.iter().collect();
        all.sort_unstable();
        let mut hash = Sha256::new();
        for (media, uri) in all {
            hash.update(media.sha256);
            hash.update([media.kind.code()]);
            hash.update(uri.as_bytes());
            hash.update([0]);
        }
        hash.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
    }
}

impl<U: Into<Box<str>>> FromIterator<(MediaId, U)> for Addresses {
    fn from_iter<I: IntoIterator<Item = (MediaId, U)>>(all: I) -> Addresses {
        Addresses { by_media: all.into_iter().map(|(media, uri)| (media, uri.into())).collect() }
    }
}

/// What went into an uploaded file of lines: the addresses in it stay as they are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sent {
    /// Their [`Addresses::print`].
    pub print: String,
    /// When that was, milliseconds since 1970.
    pub since_ms: u64,
    /// When the first of them ends, milliseconds since 1970.
    pub expires_ms: u64,
}

impl Sent {
    /// What is known of a file of lines; `None` if it names no media.
    ///
    /// # Errors
    /// If it can not be read.
    pub fn load(folder: &JobFolder, file: &FileName) -> Result<Option<Sent>, SpoolError> {
        let path = sent(folder, file);
        match fs::read(&path) {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).at("read", &path),
        }
    }

    /// Keeps it, durably.
    ///
    /// # Errors
    /// If it can not be written.
    pub fn keep(&self, folder: &JobFolder, file: &FileName) -> Result<(), SpoolError> {
        let path = sent(folder, file);
        let text = serde_json::to_vec(self).map_err(io::Error::other);
        durable::replace(&path, &text.at("write", &path)?)
    }

    /// Whether the addresses in it hold for so long still, or are so young that others would hardly
    /// hold for longer.
    pub fn lasts(&self, now: Millis, left_ms: u64) -> bool {
        self.expires_ms >= now.plus(left_ms).0 || now.0 < self.since_ms + YOUNG_MS
    }
}

fn record(folder: &JobFolder, media: &MediaId) -> PathBuf {
    folder.media().join(format!("{}-{}.json", media.hex(), media.kind.code()))
}

fn sent(folder: &JobFolder, file: &FileName) -> PathBuf {
    let name = file.0.rsplit('/').next().unwrap_or_default();
    folder.media().join(format!("sent-{name}.json"))
}

/// The file that a record is of, by the record's name.
fn of_record(name: &str) -> Option<MediaId> {
    let (hex, kind) = name.strip_suffix(".json")?.split_once('-')?;
    let kind = Kind::from_code(kind.parse().ok()?)?;
    let mut sha256 = [0; 32];
    if hex.len() != 64 || !hex.is_ascii() {
        return None;
    }
    for (byte, digits) in sha256.iter_mut().zip(hex.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(MediaId { sha256, kind })
}

fn digit(number: u64) -> char {
    char::from_digit(u32::try_from(number).unwrap_or(0), 36).unwrap_or('0')
}

/// Addresses that were looked up less than so long ago are as good as any, milliseconds.
const YOUNG_MS: u64 = 3_600_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn media(byte: u8) -> MediaId {
        MediaId { sha256: [byte; 32], kind: Kind::of_mime("image/png").expect("known") }
    }

    fn job() -> JobId {
        "01JD0000000000000000000000".parse().expect("an id")
    }

    #[test]
    fn a_name_at_the_api_is_of_its_job_its_file_and_its_generation_and_fits() {
        let name = name_at_api(job(), &media(1), 1);
        let id = name.0.strip_prefix("files/").expect("a file");
        assert!(id.len() <= 40, "{id}");
        let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        assert!(id.chars().all(is_plain) && !id.ends_with('-'), "{id}");
        assert_eq!(name, name_at_api(job(), &media(1), 1));
        assert_ne!(name, name_at_api(job(), &media(1), 2));
        assert_ne!(name, name_at_api(job(), &media(2), 1));
        let pdf = MediaId { kind: Kind::of_mime("application/pdf").expect("known"), ..media(1) };
        assert_ne!(name, name_at_api(job(), &pdf, 1));
    }

    #[test]
    fn records_come_back_and_every_name_of_this_key_is_told() {
        let temp = tempfile::tempdir().expect("a temporary folder");
        let folder = JobFolder { path: temp.path().to_owned() };
        assert_eq!(uploaded(&folder, job(), "key").expect("listed"), []);
        fs::create_dir(folder.media()).expect("made");
        let remote = |generation, key: &str| Remote {
            generation,
            uri: "https://there/files/x".to_owned(),
            expires_ms: 7,
            key_print: key.to_owned(),
        };
        keep(&folder, &media(1), &remote(2, "key")).expect("kept");
        keep(&folder, &media(2), &remote(1, "other")).expect("kept");
        File::create(folder.media().join(media(1).hex())).expect("made");
        assert_eq!(load(&folder, &media(1)).expect("read"), Some(remote(2, "key")));
        assert_eq!(load(&folder, &media(3)).expect("read"), None);
        let names = uploaded(&folder, job(), "key").expect("listed");
        assert_eq!(names, [name_at_api(job(), &media(1), 1), name_at_api(job(), &media(1), 2)]);
    }

    #[test]
    fn a_fingerprint_changes_with_every_address() {
        let print = |uris: [&str; 2]| {
            let all = [(media(1), uris[0]), (media(2), uris[1])];
            let backwards: Addresses = all.into_iter().rev().collect();
            assert_eq!(backwards.print(), all.into_iter().collect::<Addresses>().print());
            backwards.print()
        };
        assert_eq!(print(["a", "b"]), print(["a", "b"]));
        assert_ne!(print(["a", "b"]), print(["b", "a"]));
        assert_ne!(print(["a", "b"]), print(["ab", ""]));
    }

    use std::fs::File;
}
