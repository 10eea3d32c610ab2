//! The API key: held so that it can be sent, and not be seen.
//!
//! Promises: it is never part of a `Debug` or `Display` text, it is wiped when dropped, and
//! messages of the server are cleaned of it. It never goes into a URL.

use std::fmt;

use reqwest::header::HeaderValue;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};

/// A key of the Gemini API.
#[derive(Clone)]
pub struct ApiKey(SecretString);

/// What is wrong with a key; the key itself is not told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Nothing is there.
    #[error("the API key is empty; put the key, and nothing else, into the key file")]
    Empty,
    /// It can not be sent in a header.
    #[error(
        "the API key holds a blank, a line break or another character that no key has; \
         put the key, and nothing else, into the key file"
    )]
    Malformed,
}

impl ApiKey {
    /// Takes a key as it was read from a file or the environment; blanks and line breaks around
    /// it are dropped.
    ///
    /// # Errors
    /// If nothing is left, or something that no key holds.
    pub fn new(text: &str) -> Result<ApiKey, KeyError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(KeyError::Empty);
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(KeyError::Malformed);
        }
        Ok(ApiKey(SecretString::from(text)))
    }

    /// The key's fingerprint: the first 12 hexadecimal digits of the SHA-256 of it and a salt. Safe
    /// to store: nobody can tell the key from it, or that it is the same as elsewhere.
    pub fn print(&self, salt: &str) -> String {
        let digest = Sha256::new().chain_update(format!("gemini-batchd {salt} "));
        start_of(digest.chain_update(self.0.expose_secret().as_bytes()))
    }

    /// The fingerprint as earlier versions made it, without a salt: records may still hold it.
    pub fn former_print(&self) -> String {
        start_of(Sha256::new().chain_update(self.0.expose_secret().as_bytes()))
    }

    /// The value of the `x-goog-api-key` header, marked so that it is not printed.
    pub(super) fn header(&self) -> HeaderValue {
        let mut value = HeaderValue::from_str(self.0.expose_secret())
            .expect("a key is made of visible ASCII characters only");
        value.set_sensitive(true);
        value
    }

    /// The value of the `Authorization` header, where the key travels in that one; marked too.
    pub(super) fn bearer(&self) -> HeaderValue {
        let text = format!("Bearer {}", self.0.expose_secret());
        let mut value =
            HeaderValue::from_str(&text).expect("a key is made of visible ASCII characters only");
        value.set_sensitive(true);
        value
    }

    /// The text with the key taken out, should somebody have put it in. To be done before a text
    /// is shortened: half a key is a secret too.
    pub(super) fn scrub(&self, text: String) -> String {
        let key = self.0.expose_secret();
        if text.contains(key) { text.replace(key, "[API key]") } else { text }
    }
}

fn start_of(digest: Sha256) -> String {
    digest.finalize().iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKey([redacted])")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARKER: &str = "AIza-marker-0123456789";

    #[test]
    fn a_key_is_never_printed() {
        let key = ApiKey::new(MARKER).expect("a key");
        assert!(!format!("{key:?}").contains(MARKER));
        assert!(!format!("{:?}", key.header()).contains(MARKER));
        let said = key.scrub(format!("API key {MARKER} not valid"));
        assert_eq!(said, "API key [API key] not valid");
    }

    #[test]
    fn the_fingerprint_is_that_of_key_and_salt() {
        // First digits of SHA-256("abc"), FIPS 180-2.
        let key = ApiKey::new(" abc\n").expect("a key");
        assert_eq!(key.former_print(), "ba7816bf8f01");
        let salted = key.print("salt");
        assert_eq!(salted, ApiKey::new("abc").expect("a key").print("salt"));
        let others = [
            ApiKey::new("abd").expect("a key").print("salt"),
            key.print("other"),
            key.former_print(),
        ];
        assert!(!others.contains(&salted), "{others:?}");
    }

    #[test]
    fn what_no_key_holds_is_refused() {
        assert_eq!(ApiKey::new(" \r\n").expect_err("nothing is there"), KeyError::Empty);
        assert_eq!(ApiKey::new("two words").expect_err("a blank"), KeyError::Malformed);
        assert_eq!(ApiKey::new("a\nX-Other: b").expect_err("a break"), KeyError::Malformed);
    }
}
