//! A webhook that is told: one POST with the event as JSON, signed as Standard Webhooks has it.
//!
//! Redirects are not followed, what is answered is not read, and nothing of the URL beyond its host
//! is told to anybody.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, RETRY_AFTER};
use url::Url;

use super::message::Told;
use crate::engine::ids::Millis;
use crate::signature::{self, Message, Secret};

/// Why something was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// In words, without the URL.
    pub why: String,
    /// The pause that was asked for, if one was.
    pub pause: Option<Duration>,
}

/// Sends to webhooks. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Sender {
    /// Made when something is sent first: most daemons have no webhook, and reading the
    /// certificates of the machine takes time.
    clients: Arc<OnceLock<Result<Clients, String>>>,
}

#[derive(Debug)]
struct Clients {
    far: reqwest::Client,
    /// For URLs on this machine, where a proxy has no business.
    near: reqwest::Client,
}

impl Clients {
    fn new() -> Result<Clients, String> {
        // Whoever came first has installed the same.
        drop(rustls::crypto::ring::default_provider().install_default());
        let build = || {
            reqwest::Client::builder()
                .user_agent(concat!("gemini-batchd/", env!("CARGO_PKG_VERSION")))
                .redirect(reqwest::redirect::Policy::none())
                .retry(reqwest::retry::never())
                .referer(false)
                .http1_only()
                .pool_max_idle_per_host(0)
        };
        let say = |error: reqwest::Error| {
            let error = error.without_url();
            format!("{error}; check the CA certificates and the proxy settings of this machine")
        };
        let far = build().build().map_err(say)?;
        Ok(Clients { far, near: build().no_proxy().build().map_err(say)? })
    }
}

impl Sender {
    /// Posts an event.
    ///
    /// # Errors
    /// If it was not taken: with anything but a 2xx, or not at all.
    pub async fn post(
        &self,
        url: &Url,
        told: &Told,
        secret: Option<&Secret>,
        now: Millis,
        patience: Duration,
    ) -> Result<(), Refused> {
        let (body, timestamp) = (told.json(), (now.0 / 1000).to_string());
        let mut request = self.client(url)?.post(url.clone()).timeout(patience);
        request = request.header(CONTENT_TYPE, "application/json");
        request = request.header(signature::ID, &told.id).header(signature::TIMESTAMP, &timestamp);
        if let Some(secret) = secret {
            let signed = Message { id: &told.id, timestamp: &timestamp, body: &body };
            request = request.header(signature::SIGNATURE, secret.sign(signed));
        }
        taken(request.body(body).send().await)
    }

    /// Fetches a URL, for nothing but that it was fetched.
    ///
    /// # Errors
    /// As [`Sender::post`].
    pub async fn ping(&self, url: &Url, patience: Duration) -> Result<(), Refused> {
        taken(self.client(url)?.get(url.clone()).timeout(patience).send().await)
    }

    fn client(&self, url: &Url) -> Result<&reqwest::Client, Refused> {
        match self.clients.get_or_init(Clients::new) {
            Ok(clients) if url.scheme() == "http" => Ok(&clients.near),
            Ok(clients) => Ok(&clients.far),
            Err(why) => Err(Refused { why: why.clone(), pause: None }),
        }
    }
}

fn taken(sent: Result<reqwest::Response, reqwest::Error>) -> Result<(), Refused> {
    let response = match sent {
        Ok(response) => response,
        Err(error) => return Err(Refused { why: described(error), pause: None }),
    };
    let status = response.status();
    if status.is_success() {
        return Ok(());
    }
    let pause = response.headers().get(RETRY_AFTER).and_then(|text| text.to_str().ok());
    let pause = pause.and_then(|text| text.parse().ok()).map(Duration::from_secs);
    let why = match status.is_redirection() {
        true => format!("it answered {status}; redirects are not followed, name the right URL"),
        false => format!("it answered {status}"),
    };
    Err(Refused { why, pause })
}

/// The error with its causes, without the URL.
fn described(error: reqwest::Error) -> String {
    use std::error::Error;
    let error = error.without_url();
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}
