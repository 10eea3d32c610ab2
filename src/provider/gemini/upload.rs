//! Uploads an input file so that a break costs only what was not received yet.
//!
//! The protocol is Google's resumable upload (API contract, 7.2 to 7.4): a session, pieces, a
//! query after every break, and an end that may get lost. Since the file's id is chosen by us, a
//! lost end is found again by asking for the file. Promises: the server's offset is believed only
//! within what was sent; a session of a foreign host is never sent anything; three breaks without
//! progress end the try, and the session stays good for the next one.

use url::Url;

use super::client::Client;
use super::session::{About, Part, Piece, Progress, Session};
use super::transfer::Payload;
use super::wire::{self, GRANULARITY, JSONL};
use crate::engine::event::Failure;
use crate::engine::ids::FileName;

/// Told whenever there is a new session (its URL, a secret to be stored), and when it is over.
pub type OnSession<'a> = &'a (dyn Fn(Option<&str>) + Send + Sync);

impl Client {
    /// Uploads `payload` as the file `file`, or goes on with it: `session` is what `on_session`
    /// was told last for the same file. If the file is there already, nothing is sent.
    ///
    /// # Errors
    /// `Transient` and `RateLimited` leave the session as it is, for another try; the others as
    /// they say.
    pub async fn upload(
        &self,
        file: &FileName,
        display_name: &str,
        payload: &Payload,
        session: Option<String>,
        on_session: OnSession<'_>,
    ) -> Result<FileName, Failure> {
        let about = About { name: file, display_name, mime: JSONL };
        self.upload_as(about, payload, session, on_session).await
    }

    pub(super) async fn upload_as(
        &self,
        about: About<'_>,
        payload: &Payload,
        session: Option<String>,
        on_session: OnSession<'_>,
    ) -> Result<FileName, Failure> {
        let file = wire::file_name(&about.name.0).map_err(|e| Failure::Rejected(e.to_string()))?;
        let upload = Upload { client: self, file, about, payload, on_session };
        upload.run(session).await
    }
}

/// One upload under way.
struct Upload<'a> {
    client: &'a Client,
    file: FileName,
    about: About<'a>,
    payload: &'a Payload,
    on_session: OnSession<'a>,
}

/// How a session came to its end.
enum End {
    /// The file is there, by this name.
    Done(FileName),
    /// The session is lost or of no use any more; start over.
    Lost(String),
    /// The server gave the upload up for good.
    Refused(String),
}

impl Upload<'_> {
    async fn run(&self, stored: Option<String>) -> Result<FileName, Failure> {
        let mut reason = String::new();
        if let Some(stored) = stored {
            match self.resume(&stored).await? {
                End::Done(name) => return Ok(self.over(name)),
                // It may have begun before the length was known, or under rules that have changed
                // since: one that begins anew is believed.
                End::Lost(why) | End::Refused(why) => reason = why,
            }
            (self.on_session)(None);
        }
        for _ in 0..SESSIONS_MAX {
            let len = Some(self.payload.len);
            let started = self.client.start_session(self.about, len).await?;
            let Some(session) = started else {
                match self.find_file().await? {
                    Some(name) => return Ok(self.over(name)),
                    // Something else has our name: it can only be a torn try of our own.
                    None => self.client.delete_file(&self.file).await?,
                }
                reason = "another file had its name".to_owned();
                continue;
            };
            (self.on_session)(Some(session.url.as_str()));
            match self.send_from(&session, 0).await? {
                End::Done(name) => return Ok(self.over(name)),
                End::Lost(why) => reason = why,
                End::Refused(why) => {
                    (self.on_session)(None);
                    let why = format!("{why}; the server gave the upload up for good");
                    return Err(Failure::Rejected(why));
                }
            }
            (self.on_session)(None);
            // The end may have been lost together with the session.
            if let Some(name) = self.find_file().await? {
                return Ok(name);
            }
        }
        Err(Failure::Transient(format!("upload: {SESSIONS_MAX} sessions were of no use: {reason}")))
    }

    fn over(&self, name: FileName) -> FileName {
        (self.on_session)(None);
        name
    }

    /// Goes on with a session from before a restart.
    async fn resume(&self, url: &str) -> Result<End, Failure> {
        let url = Url::parse(url).ok().filter(|url| self.client.accepts(url));
        let Some(url) = url else {
            return Ok(End::Lost("the stored session belongs to another server".to_owned()));
        };
        let session = Session { url, granularity: GRANULARITY };
        let mut pause = self.client.inner.settings.recovery_pause;
        for tries_left in (0..RECOVERIES_MAX).rev() {
            match self.client.query_session(&session).await {
                Ok(Progress::At(offset)) if offset <= self.payload.len => {
                    return self.send_from(&session, offset).await;
                }
                Ok(Progress::At(_)) => {
                    return Ok(End::Lost("the server claims more bytes than there are".to_owned()));
                }
                Ok(Progress::Final) => return self.confirm().await,
                Ok(Progress::Lost(why)) => {
                    return Ok(self.find_file().await?.map_or(End::Lost(why), End::Done));
                }
                Err(Failure::Transient(_)) if tries_left > 0 => {
                    tokio::time::sleep(pause).await;
                    pause = pause.saturating_mul(2);
                }
                Err(failure) => return Err(failure),
            }
        }
        Err(Failure::Transient("upload: the session does not answer".to_owned()))
    }

    /// Sends everything from `offset` on, through breaks.
    async fn send_from(&self, session: &Session, mut offset: u64) -> Result<End, Failure> {
        // The furthest byte that the server can have, and the furthest it had.
        let (mut sent, mut best) = (offset, offset);
        let mut breaks = 0;
        loop {
            let len = self.piece(session, offset);
            sent = sent.max(offset + len);
            let trouble = match self.send_piece(session, offset, len).await? {
                Piece::Received => {
                    offset += len;
                    // Bytes sent again are no progress, or it could go on for ever.
                    if offset > best {
                        best = offset;
                        breaks = 0;
                    }
                    continue;
                }
                Piece::Final(name) => return self.finish(name).await,
                Piece::Lost(why) => return Ok(End::Lost(why)),
                Piece::Refused(why) => return Ok(End::Refused(why)),
                Piece::Trouble(why) => why,
            };
            // After a break only the server knows where to go on.
            offset = loop {
                breaks += 1;
                if breaks > RECOVERIES_MAX {
                    return Err(Failure::Transient(format!(
                        "upload: no progress at byte {best} after {RECOVERIES_MAX} tries: {trouble}"
                    )));
                }
                let pause = self.client.inner.settings.recovery_pause;
                tokio::time::sleep(pause.saturating_mul(1 << (breaks - 1).min(6))).await;
                match self.client.query_session(session).await {
                    Ok(Progress::At(at)) if at <= sent => break at,
                    Ok(Progress::At(_)) => {
                        let why = "the server claims more bytes than were sent";
                        return Ok(End::Lost(why.to_owned()));
                    }
                    Ok(Progress::Final) => return self.confirm().await,
                    Ok(Progress::Lost(why)) => {
                        return Ok(self.find_file().await?.map_or(End::Lost(why), End::Done));
                    }
                    Err(Failure::Transient(_)) => {}
                    Err(failure) => return Err(failure),
                }
            };
            if offset > best {
                best = offset;
                breaks = 0;
            }
        }
    }

    /// How long the piece at `offset` is: all the rest, or a multiple of the granularity.
    fn piece(&self, session: &Session, offset: u64) -> u64 {
        let rest = self.payload.len.saturating_sub(offset);
        let about = self.client.inner.settings.piece_bytes;
        rest.min(session.whole_steps(about).max(session.granularity))
    }

    async fn send_piece(&self, session: &Session, offset: u64, len: u64) -> Result<Piece, Failure> {
        let part = Part { offset, len, last: offset + len == self.payload.len };
        self.client.send_piece(session, part, (self.payload.open)(offset, len)).await
    }

    /// The end of the upload with the file as the server described it, if it did.
    async fn finish(&self, file: Option<wire::File>) -> Result<End, Failure> {
        let Some(file) = file else { return self.confirm().await };
        if file.bytes() != self.payload.len {
            let why = format!("{} of {} bytes arrived", file.bytes(), self.payload.len);
            self.client.delete_file(&self.file).await?;
            return Ok(End::Lost(why));
        }
        match wire::file_name(file.name.as_deref().unwrap_or_default()) {
            Ok(name) => Ok(End::Done(name)),
            Err(_) => self.confirm().await,
        }
    }

    /// The server says it has everything: looks at the file itself.
    async fn confirm(&self) -> Result<End, Failure> {
        if let Some(name) = self.find_file().await? {
            return Ok(End::Done(name));
        }
        self.client.delete_file(&self.file).await?;
        Ok(End::Lost("the server has no such file, or one of another size".to_owned()))
    }

    /// The file, if it is there whole.
    async fn find_file(&self) -> Result<Option<FileName>, Failure> {
        let file = self.client.get_file(&self.file).await?;
        let whole = file.is_some_and(|file| {
            file.bytes() == self.payload.len && file.state.as_deref() != Some("FAILED")
        });
        Ok(whole.then(|| self.file.clone()))
    }
}

/// Breaks without progress that are borne.
const RECOVERIES_MAX: u32 = 3;

/// Sessions that are begun before the try is given up.
const SESSIONS_MAX: u32 = 3;
