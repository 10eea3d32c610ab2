//! Looks out for keys that are missing or stand twice.
//!
//! Neither is an error, since answers find their way by the number of the row; but who did not mean
//! it should be told. Memory is bounded: of very many keys only the first are compared.

use std::collections::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault, Hasher, RandomState};

use super::source::spoken;

/// What is known of the keys so far.
#[derive(Debug, Default)]
pub struct Keys {
    hash: RandomState,
    /// Hashes of keys, with the line of each.
    seen: HashMap<u64, u64, BuildHasherDefault<Hashed>>,
    missing: u64,
    first_missing: u64,
    repeated: u64,
    first_repeated: Option<(String, u64, u64)>,
    unchecked: u64,
}

impl Keys {
    /// Takes the key of a row, as JSON text, from line number `line`.
    pub fn note(&mut self, key: Option<&[u8]>, line: u64) {
        let Some(key) = key else {
            self.missing += 1;
            if self.missing == 1 {
                self.first_missing = line;
            }
            return;
        };
        // Seeded, or somebody could write keys that all fall into one place of the table.
        let mut hasher = self.hash.build_hasher();
        hasher.write(key);
        let hash = hasher.finish();
        if let Some(before) = self.seen.get(&hash) {
            self.repeated += 1;
            if self.first_repeated.is_none() {
                let key = String::from_utf8_lossy(&key[..key.len().min(60)]);
                self.first_repeated = Some((spoken(key.as_ref().as_ref()), *before, line));
            }
        } else if self.seen.len() < KEYS_MAX {
            self.seen.insert(hash, line);
        } else {
            self.unchecked += 1;
        }
    }

    /// What the user should know; `valid` rows have been noted.
    pub fn warnings(&self, valid: u64) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.missing == valid && valid > 0 {
            warnings.push(
                "no request has a key; their answers are named after their lines: \"line-N\""
                    .to_owned(),
            );
        } else if self.missing > 0 {
            warnings.push(format!(
                "{} of {valid} request(s) have no key, the first on line {}; their answers are \
                 named after their lines: \"line-N\"",
                self.missing, self.first_missing
            ));
        }
        if let Some((key, before, line)) = &self.first_repeated {
            let mut text = format!(
                "{} request(s) with a key that was used before, the first on line {line}: {key}, as \
                 on line {before}; all are answered, in input order",
                self.repeated
            );
            if self.unchecked > 0 {
                text.push_str(&format!(" (only the first {KEYS_MAX} keys were compared)"));
            }
            warnings.push(text);
        }
        warnings
    }
}

/// The hasher of a table whose keys are hashes already.
#[derive(Debug, Default)]
struct Hashed(u64);

impl Hasher for Hashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0 << 8 | u64::from(*byte);
        }
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

/// Key checksums kept: about 4 MB.
const KEYS_MAX: usize = 200_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beyond_the_bound_keys_are_compared_with_the_first_ones_only() {
        let mut keys = Keys::default();
        let count = KEYS_MAX as u64 + 10;
        for line in 1..=count {
            keys.note(Some(line.to_string().as_bytes()), line);
        }
        assert_eq!(keys.warnings(count), [""; 0]);
        for again in ["7", "200005", "8"] {
            keys.note(Some(again.as_bytes()), 999_999);
        }
        let warnings = keys.warnings(count + 3);
        assert_eq!(warnings.len(), 1);
        assert!(warnings[0].starts_with("2 request(s)"), "{warnings:?}");
        assert!(warnings[0].contains("on line 999999: 7, as on line 7"), "{warnings:?}");
        assert!(warnings[0].contains("only the first 200000 keys"), "{warnings:?}");
    }

    #[test]
    fn missing_keys_are_told_once() {
        let mut keys = Keys::default();
        keys.note(None, 3);
        keys.note(None, 4);
        assert!(keys.warnings(2)[0].starts_with("no request has a key"));
        keys.note(Some(b"1"), 5);
        assert!(
            keys.warnings(3)[0].starts_with("2 of 3 request(s) have no key, the first on line 3")
        );
    }
}
