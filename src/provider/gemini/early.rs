//! An upload that begins before its file is known to the end.
//!
//! Its length is not announced: the contract (7.2) does not call that required, and whether the API
//! takes it was not tried; a refusal leaves the upload to begin later as ever. Pieces are sent one after the other, never the last one, so that no file
//! comes of it by itself; [`Client::upload`] goes on with the session, or with another if this
//! one is of no use. Nothing is tried again here: the first trouble ends it.

use std::io;

use bytes::Bytes;
use futures_util::stream::BoxStream;
use url::Url;

use super::client::Client;
use super::session::{About, Part, Piece, Session};
use super::wire::{self, GRANULARITY, JSONL};
use crate::engine::event::Failure;
use crate::engine::ids::FileName;

/// An upload under way whose file still grows.
pub struct EarlyUpload {
    client: Client,
    session: Session,
    sent: u64,
}

impl std::fmt::Debug for EarlyUpload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The address is a secret.
        write!(f, "EarlyUpload({} bytes)", self.sent)
    }
}

impl Client {
    /// Begins to upload the file `file` without saying how long it will be.
    ///
    /// # Errors
    /// If there is no session to be had; nothing is left behind then.
    pub async fn upload_early(
        &self,
        file: &FileName,
        display_name: &str,
    ) -> Result<EarlyUpload, Failure> {
        let file = wire::file_name(&file.0).map_err(|e| Failure::Rejected(e.to_string()))?;
        let about = About { name: &file, display_name, mime: JSONL };
        match self.start_session(about, None).await? {
            Some(session) => Ok(EarlyUpload { client: self.clone(), session, sent: 0 }),
            None => Err(Failure::Rejected("there is a file of that name".to_owned())),
        }
    }

    /// Tells the server to forget a session by its address, if it is one of ours.
    ///
    /// # Errors
    /// If it does not do so; it forgets what is never ended by itself, in time.
    pub async fn give_up_upload(&self, address: &str) -> Result<(), Failure> {
        match Url::parse(address).ok().filter(|url| self.accepts(url)) {
            Some(url) => self.cancel_session(&Session { url, granularity: GRANULARITY }).await,
            None => Ok(()),
        }
    }
}

impl EarlyUpload {
    /// The session's URL: a secret.
    pub fn address(&self) -> &str {
        self.session.url.as_str()
    }

    /// Bytes of the next piece, if so many bytes of the file are known: at most `max`, but at
    /// least one step of the server's. 0 as long as that much is not there, or so little in
    /// relation to what was sent that the pauses between pieces would add up.
    pub fn next_piece(&self, known: u64, max: u64) -> u64 {
        let new = known.saturating_sub(self.sent);
        if new < (self.sent / 4).min(max) {
            return 0;
        }
        self.session.whole_steps(new.min(max.max(self.session.granularity)))
    }

    /// Sends the next `len` bytes, as [`EarlyUpload::next_piece`] told.
    ///
    /// # Errors
    /// Whatever went wrong: what the server has is to be asked then.
    pub async fn send(
        &mut self,
        len: u64,
        bytes: BoxStream<'static, io::Result<Bytes>>,
    ) -> Result<(), Failure> {
        let part = Part { offset: self.sent, len, last: false };
        match self.client.send_piece(&self.session, part, bytes).await? {
            Piece::Received => {
                self.sent += len;
                Ok(())
            }
            Piece::Final(_) => Err(Failure::Rejected("the server ended the upload".to_owned())),
            Piece::Lost(why) | Piece::Refused(why) | Piece::Trouble(why) => {
                Err(Failure::Transient(why))
            }
        }
    }
}
