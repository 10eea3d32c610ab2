//! A listener for what the API sends when batches end: it only wakes the poller.
//!
//! A notice counts if it bears a signature by our secret, was sent within five minutes, and its id
//! was not seen before; everything else is refused, or passed over, and counted. What it says is
//! only used to choose which batch is asked for: what became of it, the API says when asked. The
//! listener is public by nature, so nothing is read before its size is known to be small, nothing
//! is answered but a status, and the log hears of refusals once a minute.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, Method, StatusCode};
use serde::Deserialize;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::clock::Clock;
use crate::engine::ids::Millis;
use crate::signature::{self, Message, Secret};

use super::connections::Bounded;

/// What came of a notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// The poller was woken, or there was no reason to.
    Taken,
    /// It was heard before.
    Repeated,
    /// It was not believed.
    Refused,
}

/// Who hears of notices.
pub trait Wake: Send + Sync {
    /// A batch has ended, `batches/…`, or one that is not named.
    fn wake(&self, batch: Option<String>);

    /// Something came in.
    fn count(&self, heard: Heard);
}

/// Judges notices.
pub struct Ear {
    secret: Secret,
    clock: Arc<dyn Clock>,
    who: Arc<dyn Wake>,
    /// Ids of late, and when they were heard.
    seen: Mutex<VecDeque<(String, Millis)>>,
    /// When a refusal was told last.
    told: Mutex<Option<Millis>>,
}

/// An address that is open but not served yet.
#[derive(Debug)]
pub struct Listening {
    listener: TcpListener,
    /// The address; with the port that the system chose, if it was to.
    pub address: SocketAddr,
}

/// Opens the address. To be called inside the runtime.
///
/// # Errors
/// If it can not be had.
pub fn listen(address: SocketAddr) -> io::Result<Listening> {
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    Ok(Listening { listener: TcpListener::from_std(listener)?, address })
}

impl Listening {
    /// Serves until `stopping` becomes true or loses its sender.
    ///
    /// # Errors
    /// If the listener breaks.
    pub async fn serve(self, ear: Arc<Ear>, mut stopping: watch::Receiver<bool>) -> io::Result<()> {
        let limit = DefaultBodyLimit::max(BODY_BYTES_MAX);
        let router = Router::new().fallback(hear).layer(limit).with_state(ear);
        let served = axum::serve(Bounded::new(self.listener), router.into_make_service());
        let stop = async move {
            // A sender that is gone says the same.
            drop(stopping.wait_for(|stopping| *stopping).await);
        };
        served.with_graceful_shutdown(stop).await
    }
}

async fn hear(
    State(ear): State<Arc<Ear>>,
    method: Method,
    headers: HeaderMap,
    body: Result<Bytes, axum::extract::rejection::BytesRejection>,
) -> StatusCode {
    match body {
        _ if method != Method::POST => ear.refuse(StatusCode::METHOD_NOT_ALLOWED, "is no POST"),
        Ok(body) => ear.judge(&headers, &body),
        Err(_) => ear.refuse(StatusCode::PAYLOAD_TOO_LARGE, "is too large, or was cut off"),
    }
}

impl Ear {
    /// Believes what is signed by this secret.
    pub fn new(secret: Secret, clock: Arc<dyn Clock>, who: Arc<dyn Wake>) -> Ear {
        Ear { secret, clock, who, seen: Mutex::default(), told: Mutex::default() }
    }

    /// The answer to a notice, of which is heard.
    fn judge(&self, headers: &HeaderMap, body: &[u8]) -> StatusCode {
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let parts = (header(signature::ID), header(signature::TIMESTAMP));
        let ((Some(id), Some(timestamp)), Some(signed)) = (parts, header(signature::SIGNATURE))
        else {
            return self.refuse(StatusCode::BAD_REQUEST, "is not signed");
        };
        if id.is_empty() || id.len() > ID_BYTES_MAX {
            return self.refuse(StatusCode::BAD_REQUEST, "has no usable id");
        }
        if !self.secret.verifies(Message { id, timestamp, body }, signed) {
            return self.refuse(StatusCode::UNAUTHORIZED, "has a signature that is not right");
        }
        let now = self.clock.now();
        let sent_s: Option<u64> = timestamp.parse().ok();
        if sent_s.is_none_or(|sent_s| sent_s.abs_diff(now.0 / 1000) > AGE_S_MAX) {
            return self.refuse(StatusCode::BAD_REQUEST, "is old, or one of the clocks is wrong");
        }
        if self.was_seen(id, now) {
            // A repetition is no error of whoever could not know that it had come.
            self.who.count(Heard::Repeated);
            return StatusCode::OK;
        }
        if let Ok(notice) = serde_json::from_slice::<Notice>(body)
            && notice.kind.starts_with("batch.")
        {
            let id = notice.data.and_then(|data| data.id).filter(|id| !id.is_empty());
            let name = |id: String| if id.contains('/') { id } else { format!("batches/{id}") };
            self.who.wake(id.map(name));
        }
        self.who.count(Heard::Taken);
        StatusCode::OK
    }

    fn refuse(&self, status: StatusCode, why: &'static str) -> StatusCode {
        self.who.count(Heard::Refused);
        let now = self.clock.now();
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.is_none_or(|told| told.0.abs_diff(now.0) >= TOLD_EVERY_MS) {
            *told = Some(now);
            tracing::warn!(why, "a notice at webhook.listen was refused; more are only counted");
        }
        status
    }

    /// Whether an id was heard before; it is remembered for as long as its time would pass.
    fn was_seen(&self, id: &str, now: Millis) -> bool {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let old = |at: &Millis| at.0.abs_diff(now.0) > 2 * AGE_S_MAX * 1000;
        while seen.len() >= SEEN_MAX || seen.front().is_some_and(|(_, at)| old(at)) {
            seen.pop_front();
        }
        let was_seen = seen.iter().any(|(known, _)| known == id);
        if !was_seen {
            seen.push_back((id.to_owned(), now));
        }
        was_seen
    }
}

/// What is read of a notice.
#[derive(Deserialize)]
struct Notice {
    #[serde(rename = "type")]
    kind: String,
    data: Option<Data>,
}

#[derive(Deserialize)]
struct Data {
    id: Option<String>,
}

/// A longer notice is none.
const BODY_BYTES_MAX: usize = 64 * 1024;
/// So far its time may be from ours, seconds.
const AGE_S_MAX: u64 = 300;
/// A longer id is none, bytes.
const ID_BYTES_MAX: usize = 256;
/// Ids that are remembered; all of them are signed.
const SEEN_MAX: usize = 4096;
/// Refusals are told so often, milliseconds.
const TOLD_EVERY_MS: u64 = 60_000;

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[derive(Default)]
    struct Bell {
        woken: Mutex<Vec<Option<String>>>,
        heard: Mutex<Vec<Heard>>,
    }

    impl Wake for Bell {
        fn wake(&self, batch: Option<String>) {
            self.woken.lock().expect("no panic").push(batch);
        }

        fn count(&self, heard: Heard) {
            self.heard.lock().expect("no panic").push(heard);
        }
    }

    struct At(AtomicU64);

    impl Clock for At {
        fn now(&self) -> Millis {
            Millis(self.0.load(Ordering::Relaxed))
        }
    }

    const NOW_S: u64 = 1_795_226_401;
    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    fn ear() -> (Ear, Arc<Bell>, Arc<At>) {
        let (bell, clock) = (Arc::new(Bell::default()), Arc::new(At((NOW_S * 1000).into())));
        let secret = Secret::parse(SECRET).expect("a secret");
        (Ear::new(secret, clock.clone(), bell.clone()), bell, clock)
    }

    fn signed(id: &str, sent_s: u64, body: &str) -> HeaderMap {
        let timestamp = sent_s.to_string();
        let message = Message { id, timestamp: &timestamp, body: body.as_bytes() };
        let signature = Secret::parse(SECRET).expect("a secret").sign(message);
        let mut headers = HeaderMap::new();
        for (name, value) in [
            (signature::ID, id),
            (signature::TIMESTAMP, &timestamp),
            (signature::SIGNATURE, &format!("v1,b3RoZXI= {signature}")),
        ] {
            headers.insert(name, value.parse().expect("a header"));
        }
        headers
    }

    const ENDED: &str = r#"{"type":"batch.succeeded","version":"v1","data":{"id":"abc"}}"#;

    #[test]
    fn a_signed_notice_wakes_once_and_its_repetition_wakes_nobody() {
        let (ear, bell, clock) = ear();
        let judge =
            |id: &str, sent_s, body: &str| ear.judge(&signed(id, sent_s, body), body.as_bytes());
        assert_eq!(judge("m1", NOW_S, ENDED), StatusCode::OK);
        assert_eq!(judge("m1", NOW_S, ENDED), StatusCode::OK);
        assert_eq!(judge("m1", NOW_S - 200, ENDED), StatusCode::OK);
        assert_eq!(judge("m2", NOW_S + 299, r#"{"type":"batch.failed"}"#), StatusCode::OK);
        assert_eq!(judge("m3", NOW_S, r#"{"type":"video.generated","data":{}}"#), StatusCode::OK);
        assert_eq!(judge("m4", NOW_S, "no JSON"), StatusCode::OK);
        let named = r#"{"type":"batch.expired","data":{"id":"batches/x"}}"#;
        assert_eq!(judge("m5", NOW_S, named), StatusCode::OK);
        let woken = bell.woken.lock().expect("no panic").clone();
        let name = |name: &str| Some(name.to_owned());
        assert_eq!(woken, [name("batches/abc"), None, name("batches/x")]);
        // Long after, its time is over, and it would not be believed.
        clock.0.fetch_add(601_000, Ordering::Relaxed);
        assert_eq!(judge("m1", NOW_S, ENDED), StatusCode::BAD_REQUEST);
        assert_eq!(ear.seen.lock().expect("no panic").len(), 5);
        assert_eq!(judge("m6", NOW_S + 601, ENDED), StatusCode::OK);
        assert_eq!(ear.seen.lock().expect("no panic").len(), 1);
    }

    #[test]
    fn what_is_unsigned_wrongly_signed_old_or_from_the_future_is_refused_and_counted() {
        let (ear, bell, _) = ear();
        let body = ENDED.as_bytes();
        assert_eq!(ear.judge(&HeaderMap::new(), body), StatusCode::BAD_REQUEST);
        for missing in [signature::ID, signature::TIMESTAMP, signature::SIGNATURE] {
            let mut headers = signed("m", NOW_S, ENDED);
            headers.remove(missing);
            assert_eq!(ear.judge(&headers, body), StatusCode::BAD_REQUEST, "{missing}");
        }
        let headers = signed("m", NOW_S, ENDED);
        assert_eq!(ear.judge(&headers, b"{}"), StatusCode::UNAUTHORIZED);
        let mut other = headers.clone();
        other.insert(signature::ID, "n".parse().expect("a header"));
        assert_eq!(ear.judge(&other, body), StatusCode::UNAUTHORIZED);
        for sent_s in [NOW_S - 301, NOW_S + 301, 0] {
            let headers = signed("m", sent_s, ENDED);
            assert_eq!(ear.judge(&headers, body), StatusCode::BAD_REQUEST, "{sent_s}");
        }
        let long = "i".repeat(ID_BYTES_MAX + 1);
        assert_eq!(ear.judge(&signed(&long, NOW_S, ENDED), body), StatusCode::BAD_REQUEST);
        assert!(bell.woken.lock().expect("no panic").is_empty());
        let heard = bell.heard.lock().expect("no panic").clone();
        assert_eq!(heard, [Heard::Refused; 10]);
    }

    #[test]
    fn the_ids_that_are_remembered_are_bounded() {
        let (ear, _, _) = ear();
        for n in 0..SEEN_MAX + 10 {
            assert!(!ear.was_seen(&n.to_string(), Millis(5)));
        }
        assert_eq!(ear.seen.lock().expect("no panic").len(), SEEN_MAX);
        assert!(ear.was_seen(&(SEEN_MAX + 5).to_string(), Millis(5)));
    }
}
