//! Signatures of webhooks, as Standard Webhooks has them: ours, and those of others.
//!
//! What is signed is `ID.TIMESTAMP.BODY`, by HMAC-SHA256 with a secret that both sides know. A
//! secret never prints itself, and signatures are compared without telling how far they were right.

use base64::Engine;
use base64::alphabet;
use base64::engine::general_purpose::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretSlice};
use sha2::Sha256;

/// What both sides know.
#[derive(Debug, Clone)]
pub struct Secret {
    bytes: SecretSlice<u8>,
}

/// One message on its way: what is signed.
#[derive(Debug, Clone, Copy)]
pub struct Message<'a> {
    /// Its id, in the header [`ID`].
    pub id: &'a str,
    /// When it was sent, seconds since 1970, in the header [`TIMESTAMP`].
    pub timestamp: &'a str,
    /// Its body, byte by byte.
    pub body: &'a [u8],
}

impl Secret {
    /// Reads a secret as it is handed out: `whsec_` and base64, which may stand alone. `None` if it
    /// is none, or has fewer than 16 bytes, which could be guessed, or more than 128.
    pub fn parse(text: &str) -> Option<Secret> {
        let text = text.trim();
        let text = text.strip_prefix("whsec_").unwrap_or(text);
        let bytes = LENIENT.decode(text).ok()?;
        let is_fit = (SECRET_BYTES_MIN..=SECRET_BYTES_MAX).contains(&bytes.len());
        is_fit.then(|| Secret { bytes: bytes.into() })
    }

    /// The signature of a message, as it stands in the header [`SIGNATURE`].
    pub fn sign(&self, message: Message<'_>) -> String {
        let sum = self.mac(message).finalize().into_bytes();
        format!("{VERSION}{}", STANDARD.encode(sum))
    }

    /// Whether one of the signatures in a header is that of the message. Signatures of other kinds
    /// are passed over.
    pub fn verifies(&self, message: Message<'_>, header: &str) -> bool {
        let ours = |signature: &str| {
            let sum = signature.strip_prefix(VERSION).and_then(|text| LENIENT.decode(text).ok());
            sum.is_some_and(|sum| self.mac(message).verify_slice(&sum).is_ok())
        };
        header.split_ascii_whitespace().take(SIGNATURES_MAX).any(ours)
    }

    fn mac(&self, message: Message<'_>) -> Hmac<Sha256> {
        let key = self.bytes.expose_secret();
        let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("a key may have any length");
        mac.update(message.id.as_bytes());
        mac.update(b".");
        mac.update(message.timestamp.as_bytes());
        mac.update(b".");
        mac.update(message.body);
        mac
    }
}

/// The header with the id of a message.
pub const ID: &str = "webhook-id";
/// The header with the time it was sent.
pub const TIMESTAMP: &str = "webhook-timestamp";
/// The header with its signatures.
pub const SIGNATURE: &str = "webhook-signature";

/// What a signature of this kind begins with.
const VERSION: &str = "v1,";
/// Signatures of one message that are looked at.
const SIGNATURES_MAX: usize = 16;
const SECRET_BYTES_MIN: usize = 16;
const SECRET_BYTES_MAX: usize = 128;

/// Base64 with its padding or without.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification.
    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const GIVEN: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";

    fn message<'a>(body: &'a str) -> Message<'a> {
        let (id, timestamp) = ("msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330");
        Message { id, timestamp, body: body.as_bytes() }
    }

    #[test]
    fn a_message_has_the_signature_that_the_specification_gives_it() {
        let secret = Secret::parse(SECRET).expect("a secret");
        assert_eq!(secret.sign(message(r#"{"test": 2432232314}"#)), GIVEN);
    }

    #[test]
    fn one_right_signature_among_several_is_enough_and_a_changed_message_has_none() {
        let secret = Secret::parse(SECRET).expect("a secret");
        let right = message(r#"{"test": 2432232314}"#);
        for header in [
            GIVEN.to_owned(),
            format!("v1a,AAAA v1,bm90IGl0 {GIVEN}"),
            GIVEN.trim_end_matches('=').to_owned(),
        ] {
            assert!(secret.verifies(right, &header), "{header}");
            assert!(!secret.verifies(message(r#"{"test": 2432232315}"#), &header), "{header}");
            assert!(!secret.verifies(Message { id: "msg_other", ..right }, &header), "{header}");
            assert!(!secret.verifies(Message { timestamp: "1", ..right }, &header), "{header}");
        }
        let other = Secret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSx").expect("a secret");
        assert!(!other.verifies(right, GIVEN));
        for header in ["", "v1,", "v1,!!!", "v2,AAAA", &"v1,AAAA ".repeat(1000)] {
            assert!(!secret.verifies(right, header), "{header}");
        }
    }

    #[test]
    fn what_is_no_secret_is_refused_and_one_never_prints_itself() {
        for text in ["", "whsec_", "whsec_short", "whsec_not base64 at all!", "whsec_AAAA"] {
            assert!(Secret::parse(text).is_none(), "{text}");
        }
        let secret = Secret::parse(&format!("{SECRET}\n")).expect("a secret");
        assert!(!format!("{secret:?}").contains("MfKQ"));
    }
}
