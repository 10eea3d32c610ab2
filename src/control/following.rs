//! The command line's side of a stream of events.
//!
//! It goes on by itself where the daemon let it go for being too slow; it ends when the daemon does.

use std::time::Duration;

use crate::view::Event;

use super::client::{Client, ClientError};

/// Events as they happen.
#[derive(Debug)]
pub struct Following {
    client: Client,
    job: Option<String>,
    response: reqwest::Response,
    /// What came and is not read yet.
    buffer: Vec<u8>,
    /// The number of the last event that was read, or after which it began.
    last: Option<u64>,
}

/// One message of the stream.
#[derive(Debug, Default, PartialEq, Eq)]
struct Message {
    /// Its kind; empty for an event.
    kind: String,
    data: String,
}

impl Following {
    /// Begins to follow.
    pub(super) async fn begin(
        client: Client,
        after: Option<u64>,
        job: Option<String>,
    ) -> Result<Following, ClientError> {
        let response = client.stream(after, job.as_deref()).await?;
        Ok(Following { client, job, response, buffer: Vec::new(), last: after })
    }

    /// The next event, when it has happened; `None` when the daemon ends.
    ///
    /// # Errors
    /// If the connection breaks, falls silent, or what comes is no event.
    pub async fn next(&mut self) -> Result<Option<Event>, ClientError> {
        loop {
            match take_message(&mut self.buffer) {
                Some(message) if message.kind == "dropped" => self.resume(&message.data).await?,
                Some(message) if message.data.is_empty() => {}
                Some(message) => {
                    let event: Event = serde_json::from_str(&message.data)
                        .map_err(|error| self.client.broken(error.to_string()))?;
                    self.last = Some(event.seq);
                    return Ok(Some(event));
                }
                None => {
                    let piece = tokio::time::timeout(SILENCE_MAX, self.response.chunk()).await;
                    let silent = |_| self.client.broken("it has fallen silent".to_owned());
                    let piece = piece.map_err(silent)?.map_err(|error| self.client.said(error))?;
                    let Some(piece) = piece else { return Ok(None) };
                    self.buffer.extend_from_slice(&piece);
                    if self.buffer.len() > MESSAGE_BYTES_MAX {
                        return Err(self.client.broken("an event is longer than 1 MiB".to_owned()));
                    }
                }
            }
        }
    }

    /// We were too slow: what has happened since is asked for.
    async fn resume(&mut self, last: &str) -> Result<(), ClientError> {
        let last = last.parse().ok().or(self.last);
        self.response = self.client.stream(last, self.job.as_deref()).await?;
        self.buffer.clear();
        Ok(())
    }
}

/// Takes the first whole message out of what came; comments are messages without anything.
fn take_message(buffer: &mut Vec<u8>) -> Option<Message> {
    let end = buffer.windows(2).position(|pair| pair == b"\n\n")?;
    let rest = buffer.split_off(end + 2);
    let text = String::from_utf8_lossy(buffer).into_owned();
    *buffer = rest;
    let mut message = Message::default();
    for line in text.lines() {
        match line.split_once(": ") {
            Some(("event", kind)) => kind.clone_into(&mut message.kind),
            Some(("data", data)) => message.data.push_str(data),
            Some(_) | None => {}
        }
    }
    Some(message)
}

/// The daemon says something every 15 s.
const SILENCE_MAX: Duration = Duration::from_secs(45);
/// No event is nearly as long.
const MESSAGE_BYTES_MAX: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_taken_one_by_one_however_they_come() {
        let mut buffer =
            b": following\nretry: 2000\n\nid: 7\ndata: {\"seq\":7}\n\nevent: dro".to_vec();
        assert_eq!(take_message(&mut buffer), Some(Message::default()));
        let event = take_message(&mut buffer).expect("whole");
        assert_eq!((event.kind.as_str(), event.data.as_str()), ("", "{\"seq\":7}"));
        assert_eq!(take_message(&mut buffer), None);
        buffer.extend_from_slice(b"pped\ndata: 9\n\n");
        let dropped = take_message(&mut buffer).expect("whole");
        assert_eq!((dropped.kind.as_str(), dropped.data.as_str()), ("dropped", "9"));
        assert!(buffer.is_empty());
    }
}
