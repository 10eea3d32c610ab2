//! Files that requests name: pictures, sounds, films, documents (API contract, 7).
//!
//! They travel as every file does, under a name of ours, so that one whose answer was lost is found
//! again. A film is not ready when it has arrived: it is asked for until it is. What the API says
//! about one file for good is no failure of the call, since only the requests that name it suffer.

use std::time::Duration;

use tokio::time::Instant;

use super::client::Client;
use super::session::About;
use super::transfer::Payload;
use super::wire;
use crate::engine::event::Failure;
use crate::engine::ids::{FileName, Millis};
use crate::engine::job::RemoteError;

/// What became of a file for requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Media {
    /// Requests can name it.
    Ready {
        /// By this address.
        uri: String,
        /// Until then, by the API's clock, if it says so.
        expires: Option<Millis>,
    },
    /// The API will not have it, and says why.
    Refused(String),
}

impl Client {
    /// Uploads a file for requests, unless it is there already, and waits until it can be used.
    ///
    /// # Errors
    /// If that could not be done, or takes too long; it can be tried again.
    pub async fn upload_media(
        &self,
        file: &FileName,
        display_name: &str,
        mime: &str,
        payload: &Payload,
    ) -> Result<Media, Failure> {
        let about = About { name: file, display_name, mime };
        match self.upload_as(about, payload, None, &|_| {}).await {
            Ok(_) => self.ready(file).await,
            Err(Failure::Rejected(why)) => Ok(Media::Refused(why)),
            Err(failure) => Err(failure),
        }
    }

    async fn ready(&self, file: &FileName) -> Result<Media, Failure> {
        let began = Instant::now();
        let mut pause = self.inner.settings.recovery_pause;
        loop {
            let Some(found) = self.get_file(file).await? else {
                return Err(Failure::Transient(format!("{} is not there any more", file.0)));
            };
            match found.state.as_deref() {
                Some("PROCESSING") => {}
                Some("FAILED") => {
                    let error = RemoteError::from(found.error.unwrap_or_default());
                    let why = self.told(&error.message);
                    return Ok(Media::Refused(format!(
                        "the API could not process the file: {why}"
                    )));
                }
                Some(_) | None => return usable(found),
            }
            if began.elapsed() > PROCESSING_MAX {
                let minutes = PROCESSING_MAX.as_secs() / 60;
                let why = format!("{} was not ready after {minutes} minutes", file.0);
                return Err(Failure::Transient(why));
            }
            tokio::time::sleep(pause).await;
            pause = pause.saturating_mul(2).min(PAUSE_MAX);
        }
    }
}

/// The address of a file, if it can stand in a request as it is.
fn usable(file: wire::File) -> Result<Media, Failure> {
    let uri = file.uri.unwrap_or_default();
    let is_plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\');
    let is_web = uri.starts_with("https://") || uri.starts_with("http://");
    if !is_web || !uri.bytes().all(is_plain) || uri.len() > URI_BYTES_MAX {
        let shown = wire::plain(&uri, 80);
        let why = format!("the API gave a file an address that can not be used: {shown:?}");
        return Err(Failure::Transient(why));
    }
    Ok(Media::Ready { uri, expires: file.expiration_time.as_deref().and_then(wire::millis) })
}

/// The longest address that is taken, bytes: lines have so much room for it.
pub const URI_BYTES_MAX: usize = 126;

/// How long a file may be PROCESSING before the call gives up for now.
const PROCESSING_MAX: Duration = Duration::from_secs(15 * 60);

/// The longest pause between two looks.
const PAUSE_MAX: Duration = Duration::from_secs(10);
