//! What operators change: the `POST` routes, and the command line's side of them.
//!
//! A route finds out what is meant and passes it on. The reply comes when it is saved; it says in
//! words what happens now. Bodies are not read.

use std::time::Duration;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Json, Response};
use axum::routing::post;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use utoipa::ToSchema;

use crate::engine::event::Command;
use crate::engine::ids::JobId;
use crate::view::{JobView, VERSION};

use super::client::{Client, ClientError, plain};
use super::routes::{Desk, no_such_job, refuse};

/// Why a command is not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Nothing bears the name it is for.
    #[error("{0}")]
    Unknown(String),
    /// It makes no sense now.
    #[error("{0}")]
    NotNow(String),
    /// It was tried and did not work on this machine.
    #[error("{0}")]
    Failed(String),
}

impl From<String> for Refused {
    fn from(why: String) -> Refused {
        Refused::NotNow(why)
    }
}

/// What came of a command for a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct JobTold {
    /// The version of this form.
    pub version: u32,
    /// The job after it; as it was last if it is forgotten now.
    pub job: JobView,
    /// What happens now, as the end of a sentence about the job.
    pub said: String,
}

/// What came of a command for a queue or for the daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Told {
    /// The version of this form.
    pub version: u32,
    /// What happens now.
    pub said: String,
}

/// The routes that change something.
pub(super) fn routes() -> Router<Desk> {
    Router::new()
        .route("/v1/jobs/{id}", post(of_job))
        .route("/v1/queues/{name}", post(of_queue))
        .route("/v1/daemon:pause", post(|desk| of_daemon(desk, Command::Pause(None))))
        .route("/v1/daemon:resume", post(|desk| of_daemon(desk, Command::Resume(None))))
        .route("/v1/daemon:drain", post(|desk| of_daemon(desk, Command::Drain)))
}

/// The verbs for a job, as they stand after its id.
pub const JOB_VERBS: [&str; 5] = ["cancel", "release", "hold", "retry", "delete"];

/// `POST /v1/jobs/{id}:VERB`.
async fn of_job(State(desk): State<Desk>, Path(target): Path<String>) -> Response {
    let (prefix, verb) = target.rsplit_once(':').unwrap_or((&target, ""));
    let make: fn(JobId) -> Command = match verb {
        "cancel" => Command::Cancel,
        "release" => Command::Release,
        "hold" => Command::Hold,
        "retry" => Command::Retry,
        "delete" => Command::Delete,
        _ => {
            let known = JOB_VERBS.map(|verb| format!(":{verb}")).join(", ");
            return not_found(&format!("write /v1/jobs/{{id}} and one of {known}"));
        }
    };
    let before = match desk.job(prefix).await {
        Ok(view) => view,
        Err(error) => return no_such_job(&error),
    };
    let Ok(id) = before.id.parse::<JobId>() else {
        return refuse(StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL", "the job has no proper id");
    };
    let said = match ask(&desk, make(id)).await {
        Ok(said) => said,
        Err(refusal) => return refusal,
    };
    let job = desk.job(id.as_str()).await.unwrap_or(before);
    Json(JobTold { version: VERSION, job, said }).into_response()
}

/// `POST /v1/queues/{name}:pause` and `:resume`.
async fn of_queue(State(desk): State<Desk>, Path(target): Path<String>) -> Response {
    match target.rsplit_once(':') {
        Some((name, "pause")) => told(&desk, Command::Pause(Some(name.to_owned()))).await,
        Some((name, "resume")) => told(&desk, Command::Resume(Some(name.to_owned()))).await,
        Some(_) | None => not_found("write /v1/queues/{name}:pause or :resume"),
    }
}

/// `POST /v1/daemon:pause`, `:resume` and `:drain`.
async fn of_daemon(State(desk): State<Desk>, command: Command) -> Response {
    told(&desk, command).await
}

async fn told(desk: &Desk, command: Command) -> Response {
    match ask(desk, command).await {
        Ok(said) => Json(Told { version: VERSION, said }).into_response(),
        Err(refusal) => refusal,
    }
}

/// Passes a command on and waits for what comes of it.
async fn ask(desk: &Desk, command: Command) -> Result<String, Response> {
    let unavailable = |why: &str| refuse(StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE", why);
    let (reply, answer) = oneshot::channel();
    if desk.command.send((command, reply)).await.is_err() {
        return Err(unavailable("the daemon is stopping"));
    }
    match tokio::time::timeout(REPLY_TIMEOUT, answer).await {
        Ok(Ok(Ok(said))) => Ok(said),
        Ok(Ok(Err(Refused::Unknown(why)))) => Err(not_found(&why)),
        Ok(Ok(Err(Refused::NotNow(why)))) => {
            Err(refuse(StatusCode::CONFLICT, "FAILED_PRECONDITION", &why))
        }
        Ok(Ok(Err(Refused::Failed(why)))) => {
            Err(refuse(StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL", &why))
        }
        Ok(Err(_)) => Err(unavailable("the daemon is stopping")),
        Err(_) => {
            let why =
                "the daemon did not answer in time; `gemini-batchd status` shows what came of it";
            Err(refuse(StatusCode::GATEWAY_TIMEOUT, "DEADLINE_EXCEEDED", why))
        }
    }
}

fn not_found(why: &str) -> Response {
    refuse(StatusCode::NOT_FOUND, "NOT_FOUND", why)
}

impl Client {
    /// Steers a job, given by its id or a unique prefix: `verb` is one of [`JOB_VERBS`].
    ///
    /// # Errors
    /// If the daemon can not be asked, or refuses.
    pub async fn command(&self, verb: &str, prefix: &str) -> Result<JobTold, ClientError> {
        self.change(&format!("jobs/{}:{verb}", plain(prefix)?)).await
    }

    /// Steers a queue, or with `None` the daemon: `verb` is `pause`, `resume`, or, for the daemon
    /// alone, `drain`.
    ///
    /// # Errors
    /// If the daemon can not be asked, or refuses.
    pub async fn steer(&self, verb: &str, queue: Option<&str>) -> Result<Told, ClientError> {
        match queue {
            Some(name) => self.change(&format!("queues/{}:{verb}", encoded(name))).await,
            None => self.change(&format!("daemon:{verb}")).await,
        }
    }
}

/// A name as it stands in a path.
fn encoded(name: &str) -> String {
    let mut text = String::new();
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => {
                text.push(char::from(byte));
            }
            _ => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}

/// Longer than a store needs to save, shorter than a person's patience.
const REPLY_TIMEOUT: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_any_kind_is_one_part_of_a_path() {
        assert_eq!(encoded("reviews"), "reviews");
        assert_eq!(encoded("a/b:c d"), "a%2Fb%3Ac%20d");
        assert_eq!(encoded("é"), "%C3%A9");
    }
}
