//! Uploads: a session, pieces, and an end that may get lost, as `Client::upload` deals with them.

use gemini_batchd::engine::effect::Which;
use gemini_batchd::engine::event::{Failure, Outcome};
use gemini_batchd::engine::ids::FileName;

use serde_json::Value;

use super::api::{Answer, Sent};
use super::world::{Step, World};

impl World {
    /// Uploads the open rows of an attempt as a file, or goes on with it.
    pub fn upload(&mut self, which: Which, file: &FileName) -> Step<Result<Outcome, Failure>> {
        if !self.has_input(which.job) {
            return Ok(Err(Failure::Local("the working folder is not there".to_owned())));
        }
        let line = |(row, request): (u64, String)| {
            format!("{{\"key\":\"{row}\",\"request\":{request}}}\n")
        };
        let bytes: String = self.rows_to_send(which).into_iter().map(line).collect();
        let bytes = bytes.as_bytes();
        let place = (which.chunk, which.attempt);
        let done = Ok(Outcome::Uploaded { file: file.clone() });
        for _ in 0..3 {
            let kept = self.folder(which.job).sessions.get(&place).cloned();
            let session = match kept {
                Some(session) => session,
                None => {
                    let len = bytes.len() as u64;
                    let mut session = None;
                    let started =
                        self.call(|api, now| match api.upload_start(&file.0, len, now) {
                            Ok(opened) => {
                                session = Some(opened);
                                Answer { status: 200, body: Vec::new() }
                            }
                            Err(answer) => answer,
                        })?;
                    match (started, session) {
                        (Ok(_), Some(session)) => session,
                        (Err(Failure::Transient(why)), _) if why.contains("ALREADY_EXISTS") => {
                            match self.is_there(file, bytes.len())? {
                                Ok(true) => return Ok(done),
                                Ok(false) => {}
                                Err(failure) => return Ok(Err(failure)),
                            }
                            // A torn try of its own, or what the file was before it was read anew.
                            match self.drop_input(file)? {
                                Ok(()) => continue,
                                Err(failure) => return Ok(Err(failure)),
                            }
                        }
                        (Err(failure), _) => return Ok(Err(failure)),
                        (Ok(_), None) => unreachable!("a start opens a session or is refused"),
                    }
                }
            };
            self.folder(which.job).sessions.insert(place, session.clone());
            self.sync();
            self.step()?;
            match self.send(&session, bytes)? {
                Ok(true) => return Ok(done),
                Ok(false) => {
                    self.folder(which.job).sessions.remove(&place);
                    match self.is_there(file, bytes.len())? {
                        Ok(true) => return Ok(done),
                        Ok(false) => {}
                        Err(failure) => return Ok(Err(failure)),
                    }
                }
                Err(failure) => return Ok(Err(failure)),
            }
        }
        Ok(Err(Failure::Transient("upload: three sessions were of no use".to_owned())))
    }

    /// Whether a file is there whole.
    fn is_there(&mut self, file: &FileName, len: usize) -> Step<Result<bool, Failure>> {
        Ok(match self.call(|api, now| api.get_file(&file.0, now))? {
            Ok(answer) => {
                let file: Value = serde_json::from_slice(&answer.body).expect("the API's JSON");
                Ok(file["sizeBytes"].as_str() == Some(&len.to_string()))
            }
            Err(Failure::Gone(_) | Failure::Denied(_)) => Ok(false),
            Err(failure) => Err(failure),
        })
    }

    /// Sends what a session does not have yet; `false` if it is lost.
    fn send(&mut self, session: &str, bytes: &[u8]) -> Step<Result<bool, Failure>> {
        let mut offset = match self.piece(session, None)? {
            Ok(Some(received)) => received as usize,
            Ok(None) => return Ok(Ok(true)),
            Err(None) => return Ok(Ok(false)),
            Err(Some(failure)) => return Ok(Err(failure)),
        };
        loop {
            let rest = bytes.get(offset..).unwrap_or_default();
            let len = if rest.len() > 200 { rest.len() / 2 } else { rest.len() };
            let is_last = len == rest.len();
            let piece = Some((offset as u64, &rest[..len], is_last));
            match self.piece(session, piece)? {
                Ok(Some(_)) => offset += len,
                Ok(None) => return Ok(Ok(true)),
                Err(None) => return Ok(Ok(false)),
                Err(Some(failure)) => return Ok(Err(failure)),
            }
            self.step()?;
        }
    }

    /// One call on a session: bytes received, or `None` when the file is complete. A lost session
    /// is an error without a failure.
    fn piece(
        &mut self,
        session: &str,
        piece: Option<(u64, &[u8], bool)>,
    ) -> Step<Result<Option<u64>, Option<Failure>>> {
        let mut came = None;
        let answer = self.call(|api, now| match api.upload(session, piece, now) {
            Sent::Refused(answer) => answer,
            other => {
                came = Some(other);
                Answer { status: 200, body: Vec::new() }
            }
        })?;
        Ok(match (answer, came) {
            (Ok(_), Some(Sent::Final)) => Ok(None),
            (Ok(_), Some(Sent::Active { received })) => Ok(Some(received)),
            (Err(Failure::Gone(_) | Failure::Rejected(_)), _) => Err(None),
            (Err(failure), _) => Err(Some(failure)),
            (Ok(_), Some(Sent::Refused(_)) | None) => unreachable!("a refusal is no success"),
        })
    }
}
