//! The API key: where it is looked for, and what makes it unusable.
//!
//! Promises: the key is held as a secret that does not print itself, and no message here ever
//! holds any part of it. A place that was named but is unusable is an error, not passed over.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use secrecy::SecretString;

use super::Environment;

/// The API key and where it came from.
#[derive(Debug, Clone)]
pub struct Key {
    /// The key itself; prints as a placeholder.
    pub secret: SecretString,
    /// Where it came from.
    pub source: KeySource,
}

/// Where the key came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// The file named by `api.key_file`.
    File(PathBuf),
    /// The systemd credential.
    Credential(PathBuf),
    /// An environment variable.
    Environment(String),
}

impl std::fmt::Display for KeySource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            KeySource::File(path) => write!(f, "file {}", path.display()),
            KeySource::Credential(path) => write!(f, "systemd credential {}", path.display()),
            KeySource::Environment(name) => write!(f, "environment {name}"),
        }
    }
}

/// Why there is no key to use. Shown with exit code 12.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyProblem {
    /// Nothing was found anywhere.
    #[error(
        "no API key: neither api.key_file nor a systemd credential nor GEMINI_API_KEY nor \
         GOOGLE_API_KEY is set; get one at https://aistudio.google.com/apikey and put it \
         into a file with mode 0600 named by api.key_file"
    )]
    Missing,
    /// Nothing was found for a credential with a name.
    #[error(
        "no API key for the credential {name:?}: neither credential.{name}.key_file nor a systemd \
         credential gemini-api-key.{name} nor {variable} is set; put the key into a file with mode \
         0600 and name it: [credential.{name}], key_file = \"...\""
    )]
    MissingNamed {
        /// The credential.
        name: String,
        /// The environment variable it could stand in.
        variable: String,
    },
    /// The file can not be read.
    #[error("the API key file {} cannot be read: {why}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        why: String,
    },
    /// The file is open to others.
    #[error(
        "the API key file {} can be read or written by others (mode {mode:04o}); run \
         `chmod 600` on it",
        path.display()
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// What was found is empty.
    #[error("the API key from {0} is empty")]
    Empty(KeySource),
    /// What was found can not be a key.
    #[error("what {0} holds is no API key: a key is one line of letters, digits, `-` and `_`")]
    Malformed(KeySource),
}

/// Finds the key: the configured file, the systemd credential, the environment.
pub(super) fn find(key_file: Option<&Path>, environment: &Environment) -> Result<Key, KeyProblem> {
    let variables = ["GEMINI_API_KEY", "GOOGLE_API_KEY"];
    find_in(key_file, "gemini-api-key", &variables, environment)?.ok_or(KeyProblem::Missing)
}

/// Finds the key of a credential with a name, in places that bear the name.
pub(super) fn find_named(
    name: &str,
    key_file: Option<&Path>,
    environment: &Environment,
) -> Result<Key, KeyProblem> {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
    let variable: String = name.chars().map(plain).collect();
    let variable = format!("GEMINI_API_KEY_{variable}");
    find_in(key_file, &format!("gemini-api-key.{name}"), &[&variable], environment)?
        .ok_or_else(|| KeyProblem::MissingNamed { name: name.to_owned(), variable })
}

fn find_in(
    key_file: Option<&Path>,
    credential: &str,
    variables: &[&str],
    environment: &Environment,
) -> Result<Option<Key>, KeyProblem> {
    if let Some(path) = key_file {
        return checked(read(path, true)?, KeySource::File(path.to_owned())).map(Some);
    }
    if let Some(folder) = environment.get("CREDENTIALS_DIRECTORY") {
        let path = Path::new(folder).join(credential);
        if path.exists() {
            // systemd guards the folder; the file's own bits are its business.
            return checked(read(&path, false)?, KeySource::Credential(path)).map(Some);
        }
    }
    for name in variables {
        if let Some(text) = environment.get(name) {
            let source = KeySource::Environment((*name).to_owned());
            return checked(text.to_owned(), source).map(Some);
        }
    }
    Ok(None)
}

/// The text of a secret that is no API key: the named file, else the systemd credential.
///
/// # Errors
/// Why a place that is named can not be used, in words.
pub(super) fn find_text(
    file: Option<&Path>,
    credential: &str,
    environment: &Environment,
) -> Result<Option<String>, String> {
    let folder = environment.get("CREDENTIALS_DIRECTORY").map(|it| Path::new(it).join(credential));
    let found = match (file, folder.filter(|path| path.exists())) {
        (Some(path), _) => read(path, true),
        (None, Some(path)) => read(&path, false),
        (None, None) => return Ok(None),
    };
    found.map(Some).map_err(|problem| problem.to_string().replace("the API key file", "the file"))
}

fn read(path: &Path, private: bool) -> Result<String, KeyProblem> {
    let unreadable = |why: String| KeyProblem::Unreadable { path: path.to_owned(), why };
    // Before opening: a FIFO would never come back.
    let kind = std::fs::metadata(path).map_err(|error| unreadable(error.to_string()))?;
    if !kind.is_file() {
        return Err(unreadable("it is not a regular file".to_owned()));
    }
    let file = File::open(path).map_err(|error| unreadable(error.to_string()))?;
    let mode = file.metadata().map_err(|error| unreadable(error.to_string()))?.permissions().mode();
    if private && mode & 0o077 != 0 {
        return Err(KeyProblem::Exposed { path: path.to_owned(), mode: mode & 0o7777 });
    }
    let mut text = String::new();
    file.take(KEY_FILE_BYTES_MAX)
        .read_to_string(&mut text)
        .map_err(|error| unreadable(error.to_string()))?;
    Ok(text)
}

fn checked(text: String, source: KeySource) -> Result<Key, KeyProblem> {
    let key = text.trim();
    if key.is_empty() {
        return Err(KeyProblem::Empty(source));
    }
    // Anything else could not stand in a header.
    let plain = |b: u8| b.is_ascii_graphic();
    if key.len() > KEY_BYTES_MAX || !key.bytes().all(plain) {
        return Err(KeyProblem::Malformed(source));
    }
    Ok(Key { secret: SecretString::from(key), source })
}

const KEY_FILE_BYTES_MAX: u64 = 4096;
const KEY_BYTES_MAX: usize = 512;

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "tests write plain files")]

    use secrecy::ExposeSecret;

    use super::*;

    fn key_file(content: &str, mode: u32) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("key");
        std::fs::write(&path, content).expect("written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("set");
        (folder, path)
    }

    fn nothing() -> Environment {
        Environment::made_up(Path::new("/"), [])
    }

    /// Fault 83.
    #[test]
    fn a_private_key_file_is_read_without_its_newline() {
        let (_folder, path) = key_file("AIza-marker_1\n", 0o600);
        let key = find(Some(&path), &nothing()).expect("usable");
        assert_eq!(key.secret.expose_secret(), "AIza-marker_1");
        assert!(!format!("{key:?}").contains("marker"));
    }

    /// Fault 83.
    #[test]
    fn a_key_file_open_to_others_is_refused() {
        for mode in [0o640, 0o604, 0o620, 0o602] {
            let (_folder, path) = key_file("AIza-marker", mode);
            let problem = find(Some(&path), &nothing()).expect_err("refused");
            assert!(matches!(problem, KeyProblem::Exposed { .. }), "{problem:?}");
            assert!(!problem.to_string().contains("marker"));
        }
    }

    /// Fault 83.
    #[test]
    fn an_empty_or_odd_key_file_is_refused_without_showing_it() {
        let (_folder, path) = key_file("\n", 0o600);
        assert!(matches!(find(Some(&path), &nothing()), Err(KeyProblem::Empty(_))));
        let (_folder, path) = key_file("marker one\nmarker two\n", 0o600);
        let problem = find(Some(&path), &nothing()).expect_err("refused");
        assert!(matches!(problem, KeyProblem::Malformed(_)));
        assert!(!format!("{problem} {problem:?}").contains("marker"));
    }

    #[test]
    fn a_named_file_that_is_missing_is_not_passed_over() {
        let environment = Environment::made_up(Path::new("/"), [("GEMINI_API_KEY", "other")]);
        let problem = find(Some(Path::new("/nonexistent/key")), &environment);
        assert!(matches!(problem, Err(KeyProblem::Unreadable { .. })));
    }

    #[test]
    fn the_credential_goes_before_the_environment_and_gemini_before_google() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        std::fs::write(folder.path().join("gemini-api-key"), "from-systemd\n").expect("written");
        let path = folder.path().to_string_lossy().into_owned();
        let both = [("GEMINI_API_KEY", "gemini"), ("GOOGLE_API_KEY", "google")];
        let all = both.into_iter().chain([("CREDENTIALS_DIRECTORY", path.as_str())]);
        let secret = |environment: Environment| {
            let key = find(None, &environment).expect("usable");
            key.secret.expose_secret().to_owned()
        };
        assert_eq!(secret(Environment::made_up(Path::new("/"), all)), "from-systemd");
        assert_eq!(secret(Environment::made_up(Path::new("/"), both)), "gemini");
        assert_eq!(secret(Environment::made_up(Path::new("/"), [both[1]])), "google");
        assert_eq!(find(None, &nothing()).expect_err("none"), KeyProblem::Missing);
    }
}
