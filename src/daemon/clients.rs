//! One HTTP client for each API key in use.
//!
//! What was made with one key is asked for with that key alone; an effect names its key by the
//! fingerprint. Nothing here decides which one that is.

use std::collections::BTreeMap;

use secrecy::ExposeSecret;

use crate::config::{Config, Key};
use crate::engine::event::Failure;
use crate::engine::ids::Millis;
use crate::engine::{Credential, Keys};
use crate::provider::gemini::{ApiKey, Client, ClientSettings};

use super::SetupError;

/// The clients, by the fingerprints of their keys.
#[derive(Debug, Clone)]
pub struct Clients {
    by_print: BTreeMap<String, Client>,
    keys: Keys,
}

impl Clients {
    /// Whether [`Clients::open`] will find every key it needs.
    ///
    /// # Errors
    /// If it will not.
    pub fn check(config: &Config) -> Result<(), SetupError> {
        for (_, key) in config.keys_needed()? {
            ApiKey::new(key.secret.expose_secret())?;
        }
        Ok(())
    }

    /// A client for each key of the configuration. `salt` is that of this spool.
    ///
    /// # Errors
    /// If a key is missing that a queue needs, or one that is configured can not be used.
    pub fn open(config: &Config, salt: &str) -> Result<Clients, SetupError> {
        let mut by_print = BTreeMap::new();
        let mut credentials = Vec::new();
        for (name, key) in config.keys_needed()? {
            let key = ApiKey::new(key.secret.expose_secret())?;
            let (print, former) = (key.print(salt), Some(key.former_print()));
            if !by_print.contains_key(&print) {
                by_print.insert(print.clone(), client_of(config, key)?);
            }
            credentials.push(Credential { name, print, former });
        }
        Ok(Clients { by_print, keys: Keys::new(credentials) })
    }

    /// The keys as the engine knows them.
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// The client for the key with this fingerprint, which may be one of an earlier version's.
    ///
    /// # Errors
    /// [`Failure::Local`] if that key is not in use any more; nothing was sent then.
    pub fn with(&self, print: Option<&str>) -> Result<&Client, Failure> {
        let no = print.and_then(|print| self.keys.of_print(print));
        let print = no.and_then(|no| self.keys.print(no));
        print.and_then(|print| self.by_print.get(print)).ok_or_else(|| {
            Failure::Local("the API key was exchanged before this could be sent".to_owned())
        })
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = &Client> {
        self.by_print.values()
    }

    /// All of them with the fingerprints of their keys.
    pub fn each(&self) -> impl Iterator<Item = (&str, &Client)> {
        self.by_print.iter().map(|(print, client)| (print.as_str(), client))
    }

    /// How far the API's clock is ahead of `now`, milliseconds, as the last answers told: the
    /// difference that is largest.
    pub fn server_time_skew(&self, now: Millis) -> Option<i64> {
        let skews = self.all().filter_map(|client| client.server_time_skew(now));
        skews.max_by_key(|skew| skew.unsigned_abs())
    }
}

fn client_of(config: &Config, key: ApiKey) -> Result<Client, SetupError> {
    let mut settings = ClientSettings::new(config.api.base_url.clone(), key);
    settings.version = config.api.version.clone();
    settings.connect_timeout = config.api.connect_timeout;
    settings.idle_timeout = config.api.idle_timeout;
    Ok(Client::new(settings)?)
}

/// A client with one key of the configuration, for work that belongs to no job.
///
/// # Errors
/// If the key can not be used.
pub fn client_with(config: &Config, key: &Key) -> Result<Client, SetupError> {
    client_of(config, ApiKey::new(key.secret.expose_secret())?)
}
