//! Notices of batches that have ended, signed, as the service sends them (API contract, section 10).
//!
//! They are thin: which batch, and how it ended. One that is not taken is sent again a few times;
//! a cancelled batch gives none. They bear the system's time, whatever the emulator's clock shows.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use serde_json::json;

use super::clock::{Moment, system_now};
use super::routes::App;
use crate::signature::{self, Message, Secret};

/// Where notices are sent.
#[derive(Debug, Clone)]
pub struct Webhook {
    /// The URL.
    pub url: String,
    /// What they are signed with.
    pub secret: Secret,
}

/// A batch that has ended, of which nobody was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct News {
    /// `batches/…`.
    pub batch: String,
    /// `BATCH_STATE_…`.
    pub state: &'static str,
    /// Code and message of its error.
    pub error: Option<(i32, String)>,
    /// When it ended.
    pub at: Moment,
}

/// Sends a notice of every batch that ends.
pub async fn tell(app: Arc<App>, webhook: Webhook) {
    // Whoever came first has installed the same.
    drop(rustls::crypto::ring::default_provider().install_default());
    let built = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none());
    let client = match built.no_proxy().timeout(PATIENCE).build() {
        Ok(client) => client,
        Err(error) => {
            tracing::error!(error = %error.without_url(), "the emulator can send no webhooks");
            return;
        }
    };
    let mut sent = 0_u64;
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        app.settle(app.clock.now()).await;
        let news = app.server().take_news();
        for news in news {
            sent += 1;
            let Some(body) = news.body() else { continue };
            let id = format!("evt_{sent}_{}", news.batch.trim_start_matches("batches/"));
            for _ in 0..TRIES {
                if post(&client, &webhook, &id, &body).await {
                    break;
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        }
    }
}

/// Whether a notice was taken.
async fn post(client: &reqwest::Client, webhook: &Webhook, id: &str, body: &str) -> bool {
    let since = system_now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let timestamp = since.as_secs().to_string();
    let message = Message { id, timestamp: &timestamp, body: body.as_bytes() };
    let request = client
        .post(&webhook.url)
        .header("content-type", "application/json")
        .header(signature::ID, id)
        .header(signature::SIGNATURE, webhook.secret.sign(message))
        .header(signature::TIMESTAMP, &timestamp)
        .body(body.to_owned());
    match request.send().await {
        Ok(response) => response.status().is_success(),
        Err(error) => {
            tracing::debug!(error = %error.without_url(), "a notice was not taken");
            false
        }
    }
}

impl News {
    /// The notice; `None` for an end of which none is sent.
    fn body(&self) -> Option<String> {
        let kind = match self.state {
            "BATCH_STATE_SUCCEEDED" => "batch.succeeded",
            "BATCH_STATE_FAILED" => "batch.failed",
            "BATCH_STATE_EXPIRED" => "batch.expired",
            _ => return None,
        };
        let mut data = json!({"id": self.batch});
        if let Some((code, message)) = &self.error {
            data["error_code"] = (*code).into();
            data["error_message"] = message.as_str().into();
        }
        let timestamp = self.at.to_string();
        let notice = json!({"type": kind, "version": "v1", "timestamp": timestamp, "data": data});
        Some(notice.to_string())
    }
}

/// How often it is looked whether a batch has ended, real time.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How often a notice is sent that is not taken.
const TRIES: u32 = 5;
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);
