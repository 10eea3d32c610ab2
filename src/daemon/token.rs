//! The token that changes over `control.listen` need.
//!
//! It is made once, of random bytes, and stays until its file is removed. Nobody but the daemon's
//! user and group can read it; it is never logged.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use secrecy::SecretString;

use crate::control::ControlError;
use crate::spool::durable;

/// The token in this file; it is made if there is none.
///
/// # Errors
/// If it can neither be read nor made, others can read it, or what is there is none.
pub fn read_or_make(path: &Path) -> Result<SecretString, ControlError> {
    let failed = |why: String| ControlError::Token { path: path.to_owned(), why };
    match read(path) {
        Ok(Some(token)) => Ok(token),
        // What may pass by itself.
        Ok(None) => make(path).map_err(|why| ControlError::Io {
            action: "make the token for",
            path: path.to_owned(),
            source: io::Error::other(why),
        }),
        Err(why) => Err(failed(why)),
    }
}

fn read(path: &Path) -> Result<Option<SecretString>, String> {
    // Before opening: a FIFO would never come back.
    let mode = match std::fs::metadata(path) {
        Ok(found) if found.is_file() => found.permissions().mode(),
        Ok(_) => return Err("it is no file; remove it, and a token is made".to_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.to_string()),
    };
    if mode & 0o007 != 0 {
        return Err(format!(
            "others can use it (mode {:04o}); run `chmod 640` on it",
            mode & 0o7777
        ));
    }
    let mut text = String::new();
    let file = File::open(path).map_err(|error| error.to_string())?;
    file.take(BYTES_MAX).read_to_string(&mut text).map_err(|error| error.to_string())?;
    let token = text.trim();
    if token.len() < LENGTH_MIN || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(format!(
            "it holds no token, which is one line of {LENGTH_MIN} letters and digits or more; \
             remove it, and one is made"
        ));
    }
    Ok(Some(SecretString::from(token)))
}

fn make(path: &Path) -> Result<SecretString, String> {
    let mut bytes = [0; 32];
    let random = rustls::crypto::ring::default_provider().secure_random;
    random.fill(&mut bytes).map_err(|_| "the system gives no random bytes".to_owned())?;
    let token: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    durable::replace_secret(path, format!("{token}\n").as_bytes())
        .map_err(|error| error.to_string())?;
    let mode = std::fs::Permissions::from_mode(0o640);
    std::fs::set_permissions(path, mode).map_err(|error| error.to_string())?;
    Ok(SecretString::from(token))
}

/// Shorter ones could be guessed.
const LENGTH_MIN: usize = 32;
/// More is no token.
const BYTES_MAX: u64 = 4096;

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    #[test]
    fn a_token_is_made_once_and_only_for_owner_and_group() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("control.token");
        let token = read_or_make(&path).expect("made");
        assert_eq!(token.expose_secret().len(), 64);
        let mode = std::fs::metadata(&path).expect("there").permissions().mode();
        assert_eq!(mode & 0o7777, 0o640);
        let again = read_or_make(&path).expect("read");
        assert_eq!(again.expose_secret(), token.expose_secret());
        let other = read_or_make(&folder.path().join("other")).expect("made");
        assert_ne!(other.expose_secret(), token.expose_secret());
        assert!(!format!("{token:?}").contains(token.expose_secret()));
    }

    #[test]
    fn a_token_that_others_read_or_that_is_too_short_is_refused() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("control.token");
        read_or_make(&path).expect("made");
        let open = std::fs::Permissions::from_mode(0o644);
        std::fs::set_permissions(&path, open).expect("opened up");
        let why = read_or_make(&path).expect_err("open").to_string();
        assert!(why.contains("chmod 640"), "{why}");
        durable::replace_secret(&path, b"short\n").expect("written");
        let why = read_or_make(&path).expect_err("short").to_string();
        assert!(why.contains("no token") && !why.contains("short"), "{why}");
        assert!(read_or_make(folder.path()).is_err(), "a folder");
    }
}
