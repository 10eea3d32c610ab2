//! What passed over the wire, whole, for tests that hold it against the API's own description.
//!
//! Off unless asked for: it holds the content of requests and answers, though no key. Bodies are
//! copied as they pass, so that a connection that is cut leaves what had passed until then.

use std::sync::{Arc, Mutex, PoisonError};

use axum::body::{Body, Bytes, HttpBody, to_bytes};
use axum::http::{Response, header, request};
use futures_util::StreamExt;

use super::line::Cut;

/// A call and its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exchange {
    /// Such as `GET`.
    pub method: String,
    /// Without its query.
    pub path: String,
    /// Parameters of the query, decoded; the key is left out.
    pub query: Vec<(String, String)>,
    /// Value of `X-Goog-Upload-Command`.
    pub command: Option<String>,
    /// Value of `X-Goog-Upload-Offset`.
    pub offset: Option<u64>,
    /// The body of the call, if it came to its end; `None` too if it is larger than 16 MiB.
    pub sent: Option<Vec<u8>>,
    /// HTTP status of the answer.
    pub status: u16,
    /// Its media type; empty if it named none.
    pub media_type: String,
    /// Its body, if all of it could be sent; `None` too if it is larger than 16 MiB.
    pub answered: Option<Vec<u8>>,
}

/// A list of exchanges that the emulator adds to, in the order in which answers came to their ends.
#[derive(Debug, Clone, Default)]
pub struct Recorder(Arc<Mutex<Vec<Exchange>>>);

impl Recorder {
    /// What was recorded so far.
    pub fn exchanges(&self) -> Vec<Exchange> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Begins to record a call; the body is to be read in the place of the one given.
    pub(super) fn call(&self, head: &request::Parts, body: Body) -> (Call, Body) {
        let header = |name: &str| {
            let value = head.headers.get(name).and_then(|value| value.to_str().ok());
            value.map(str::to_owned)
        };
        let query = head.uri.query().unwrap_or_default().as_bytes();
        let exchange = Exchange {
            method: head.method.to_string(),
            path: head.uri.path().to_owned(),
            query: url::form_urlencoded::parse(query)
                .into_owned()
                .filter(|(name, _)| name != "key")
                .collect(),
            command: header("x-goog-upload-command"),
            offset: header("x-goog-upload-offset").and_then(|offset| offset.parse().ok()),
            sent: None,
            status: 0,
            media_type: String::new(),
            answered: None,
        };
        let sent = Passing::default();
        let body = passing(body, sent.clone(), |_| {});
        (Call { recorder: self.clone(), exchange, sent }, body)
    }

    fn add(&self, exchange: Exchange) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(exchange);
    }
}

/// A call whose answer is to come.
pub(super) struct Call {
    recorder: Recorder,
    exchange: Exchange,
    sent: Passing,
}

impl Call {
    /// Records the answer; the response is to be sent in the place of the one given. Of a connection
    /// that was cut nothing is recorded but the call.
    pub(super) async fn answered(mut self, response: Response<Body>, cut: &Cut) -> Response<Body> {
        if cut.happened() {
            self.finish(&Passing::default());
            return response;
        }
        let (head, body) = response.into_parts();
        self.exchange.status = head.status.as_u16();
        let media_type = head.headers.get(header::CONTENT_TYPE);
        let media_type = media_type.and_then(|value| value.to_str().ok()).unwrap_or_default();
        self.exchange.media_type = media_type.to_owned();
        // A body whose length is known keeps it: a stream would be sent in another form.
        if body.size_hint().exact().is_some() {
            let bytes = to_bytes(body, usize::MAX).await.unwrap_or_default();
            let answered = Passing::default();
            answered.add(&bytes);
            answered.end();
            self.finish(&answered);
            return Response::from_parts(head, Body::from(bytes));
        }
        let body = passing(body, Passing::default(), move |answered| self.finish(answered));
        Response::from_parts(head, body)
    }

    fn finish(mut self, answered: &Passing) {
        self.exchange.sent = self.sent.take();
        self.exchange.answered = answered.take();
        self.recorder.add(self.exchange);
    }
}

/// Bytes that passed.
#[derive(Clone, Default)]
struct Passing(Arc<Mutex<Passed>>);

#[derive(Default)]
struct Passed {
    bytes: Vec<u8>,
    too_large: bool,
    ended: bool,
}

impl Passing {
    fn add(&self, bytes: &[u8]) {
        let mut passed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        passed.too_large |= passed.bytes.len() + bytes.len() > BYTES_MAX;
        if !passed.too_large {
            passed.bytes.extend_from_slice(bytes);
        }
    }

    fn end(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).ended = true;
    }

    fn take(&self) -> Option<Vec<u8>> {
        let mut passed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let whole = passed.ended && !passed.too_large;
        whole.then(|| std::mem::take(&mut passed.bytes))
    }
}

/// The same body, copied as it passes. `then` runs before its end is told, or when it is given up.
fn passing(body: Body, copy: Passing, then: impl FnOnce(&Passing) + Send + 'static) -> Body {
    if body.is_end_stream() {
        copy.end();
        then(&copy);
        return body;
    }
    let last = Last { copy, then: Some(then) };
    let stream = body.into_data_stream();
    let stream = futures_util::stream::unfold((stream, last), async |(mut stream, mut last)| {
        match stream.next().await {
            Some(Ok(bytes)) => {
                last.copy.add(&bytes);
                Some((Ok::<Bytes, axum::Error>(bytes), (stream, last)))
            }
            Some(Err(error)) => Some((Err(error), (stream, last))),
            None => {
                last.copy.end();
                last.finish();
                None
            }
        }
    });
    Body::from_stream(stream.boxed())
}

/// Runs what is to come after a body, however that ends.
struct Last<F: FnOnce(&Passing)> {
    copy: Passing,
    then: Option<F>,
}

impl<F: FnOnce(&Passing)> Last<F> {
    fn finish(&mut self) {
        if let Some(then) = self.then.take() {
            then(&self.copy);
        }
    }
}

impl<F: FnOnce(&Passing)> Drop for Last<F> {
    fn drop(&mut self) {
        self.finish();
    }
}

/// Larger bodies are not kept.
const BYTES_MAX: usize = 16 << 20;
