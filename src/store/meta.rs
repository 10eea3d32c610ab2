//! What a store says of itself, saved with every change: its schema, the number of its saves, and
//! a sum over all other records, which shows whether any of them was lost or changed.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::open::SCHEMA;

/// What the store says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Meta {
    /// Saves since the store was first made; never goes back.
    pub saves: u64,
    /// Over all records but this one.
    pub sum: Sum,
}

/// A sum over records that does not depend on their order, so that a save can carry it on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Sum {
    records: u64,
    digest: u64,
}

/// The saved form of [`Meta`]; `v` is the schema of the whole store.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct MetaV1 {
    v: u64,
    saves: u64,
    records: u64,
    digest: String,
}

impl Meta {
    /// Where it is kept.
    pub const KEY: &'static str = "meta";

    /// Its record.
    pub fn write(self) -> Vec<u8> {
        let digest = format!("{:016x}", self.sum.digest);
        let stored = MetaV1 { v: SCHEMA, saves: self.saves, records: self.sum.records, digest };
        serde_json::to_vec(&stored).expect("numbers and text are JSON")
    }

    /// Reads it, if its schema is ours.
    pub fn read(bytes: &[u8]) -> Result<Meta, String> {
        let stored: MetaV1 = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        let digest = u64::from_str_radix(&stored.digest, 16).map_err(|error| error.to_string())?;
        Ok(Meta { saves: stored.saves, sum: Sum { records: stored.records, digest } })
    }

    /// The schema of the store, whatever else the record holds.
    pub fn schema(bytes: &[u8]) -> Result<u64, String> {
        #[derive(Deserialize)]
        struct Peek {
            v: u64,
        }
        serde_json::from_slice(bytes).map(|Peek { v }| v).map_err(|error| error.to_string())
    }
}

impl Sum {
    /// Counts a record.
    pub fn put_in(&mut self, key: &[u8], value: &[u8]) {
        self.records = self.records.wrapping_add(1);
        self.digest ^= digest(key, value);
    }

    /// Takes it out again.
    pub fn take_out(&mut self, key: &[u8], value: &[u8]) {
        self.records = self.records.wrapping_sub(1);
        self.digest ^= digest(key, value);
    }
}

fn digest(key: &[u8], value: &[u8]) -> u64 {
    let mut hash = Sha256::new();
    hash.update((key.len() as u64).to_le_bytes());
    hash.update(key);
    hash.update(value);
    let bytes = hash.finalize();
    let first = bytes.first_chunk().expect("a SHA-256 has 32 bytes");
    u64::from_le_bytes(*first)
}
