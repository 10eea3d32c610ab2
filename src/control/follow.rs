//! `/v1/events`: what has happened as a list, or as a stream that goes on.
//!
//! A stream holds little of the daemon: a client that reads too slowly is let go and told where to
//! go on, and only so many are served at a time.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::http::header::{ACCEPT, HeaderMap};
use axum::response::sse::{self, KeepAlive, Sse};
use axum::response::{IntoResponse, Json, Response};
use futures_util::stream;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::sync::{OwnedSemaphorePermit, watch};

use crate::view::event::EventQuery;
use crate::view::lists::{LIMIT_MAX, read_limit};
use crate::view::{Event, EventFilter};

use super::Look;
use super::routes::{Desk, bad_query, odd_query, refuse};

/// One who follows.
struct Follower {
    look: Arc<dyn Look>,
    live: broadcast::Receiver<Arc<Event>>,
    stopping: watch::Receiver<bool>,
    /// Only events of jobs whose id begins so.
    job: Option<String>,
    /// The last event sent, or passed over.
    last: u64,
    /// What happened before, still to be sent.
    before: VecDeque<Event>,
    /// Whether all that happened before is sent.
    caught_up: bool,
    /// It was too slow, and has been told so.
    over: bool,
    _place: OwnedSemaphorePermit,
}

/// The events after a number, of all jobs or of one.
pub(super) async fn events(
    State(desk): State<Desk>,
    headers: HeaderMap,
    query: Result<Query<EventQuery>, QueryRejection>,
) -> Response {
    let query = match query {
        Ok(Query(query)) => query,
        Err(error) => return odd_query(&error),
    };
    let limit = match read_limit(query.limit, LIMIT_MAX) {
        Ok(limit) => limit,
        Err(error) => return bad_query(&error),
    };
    let job = query.job.map(|job| job.trim().to_ascii_uppercase());
    let accepts = headers.get(ACCEPT).and_then(|kinds| kinds.to_str().ok()).unwrap_or_default();
    if !accepts.contains("text/event-stream") {
        let filter = EventFilter { after: query.after, job, limit };
        return Json(desk.look().events(&filter)).into_response();
    }
    // A browser that connects again says this, whatever stands in the address.
    let last = headers.get("last-event-id").and_then(|id| id.to_str().ok()?.parse().ok());
    follow(&desk, job, last.or(query.after))
}

fn follow(desk: &Desk, job: Option<String>, after: Option<u64>) -> Response {
    let Ok(place) = Arc::clone(desk.followers()).try_acquire_owned() else {
        let why = format!(
            "{FOLLOWERS_MAX} programs follow the events already; ask for them with ?after=SEQ \
             now and then, or try again later"
        );
        return refuse(StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE", &why);
    };
    // What happens from now on is kept for this one, so nothing falls between it and what was.
    let live = desk.look().follow();
    let newest = EventFilter { after: Some(u64::MAX), job: None, limit: 1 };
    let follower = Follower {
        live,
        stopping: desk.stopping(),
        job,
        last: after.unwrap_or_else(|| desk.look().events(&newest).next),
        before: VecDeque::new(),
        caught_up: after.is_none(),
        look: Arc::clone(desk.look()),
        over: false,
        _place: place,
    };
    let hello = sse::Event::default().retry(RETRY).comment("following");
    let hello = stream::once(async move { Ok::<_, Infallible>(hello) });
    let events = stream::unfold(follower, |mut follower| async move {
        let event = follower.next().await?;
        Some((Ok::<_, Infallible>(event), follower))
    });
    let all = futures_util::StreamExt::chain(hello, events);
    Sse::new(all).keep_alive(KeepAlive::new().interval(ALIVE_EVERY)).into_response()
}

impl Follower {
    async fn next(&mut self) -> Option<sse::Event> {
        if self.over {
            return None;
        }
        loop {
            if let Some(event) = self.before.pop_front() {
                return Some(self.send(&event));
            }
            if !self.caught_up {
                self.look_back();
                continue;
            }
            let event = tokio::select! {
                biased;
                _ = self.stopping.wait_for(|stopping| *stopping) => return None,
                event = self.live.recv() => event,
            };
            match event {
                Ok(event) if event.seq <= self.last => {}
                Ok(event) if self.is_wanted(&event) => return Some(self.send(&event)),
                Ok(event) => self.last = event.seq,
                Err(RecvError::Lagged(_)) => {
                    self.over = true;
                    let last = self.last;
                    return Some(sse::Event::default().event("dropped").data(last.to_string()));
                }
                Err(RecvError::Closed) => return None,
            }
        }
    }

    /// The next of what happened before.
    fn look_back(&mut self) {
        let filter =
            EventFilter { after: Some(self.last), job: self.job.clone(), limit: LIMIT_MAX };
        let list = self.look.events(&filter);
        if list.next < self.last {
            // The numbers began anew: what was seen is not what is there.
            self.last = 0;
            return;
        }
        self.caught_up = list.events.is_empty();
        if self.caught_up {
            self.last = list.next;
        }
        self.before = list.events.into();
    }

    fn is_wanted(&self, event: &Event) -> bool {
        let of_job =
            |prefix: &String| event.job.as_ref().is_some_and(|job| job.starts_with(prefix));
        self.job.as_ref().is_none_or(of_job)
    }

    fn send(&mut self, event: &Event) -> sse::Event {
        self.last = event.seq;
        let text = serde_json::to_string(event).expect("an event is plain text and numbers");
        sse::Event::default().id(event.seq.to_string()).data(text)
    }
}

/// Programs that follow at a time.
pub(super) const FOLLOWERS_MAX: usize = 64;
/// After so long a browser connects again.
const RETRY: Duration = Duration::from_secs(2);
/// Something is said at least so often.
const ALIVE_EVERY: Duration = Duration::from_secs(15);
