//! The routes under `/v1`, and `/healthz`.

use std::time::Duration;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use serde_json::json;
use tokio::sync::oneshot;

use crate::engine::event::Command;
use crate::engine::ids::JobId;
use crate::view::{NoSuchJob, Snapshot};

use super::Control;

/// All routes.
pub fn router(control: Control) -> Router {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/v1/status", get(status))
        .route("/v1/jobs", get(jobs))
        .route("/v1/jobs/{id}", get(job).post(command))
        .fallback(no_such_route)
        .with_state(control)
}

/// Alive, and whether work goes on. Always 200: a paused daemon is not a dead one.
async fn healthz(State(control): State<Control>) -> Response {
    let health = snapshot(control).await.health;
    let status = match (&health.trouble, &health.paused) {
        (Some(_), _) => "trouble",
        (None, Some(_)) => "paused",
        (None, None) => "ok",
    };
    Json(json!({"status": status, "paused": health.paused, "trouble": health.trouble}))
        .into_response()
}

async fn status(State(control): State<Control>) -> Response {
    Json(snapshot(control).await).into_response()
}

async fn jobs(State(control): State<Control>) -> Response {
    Json(json!({"jobs": snapshot(control).await.jobs})).into_response()
}

async fn job(State(control): State<Control>, Path(id): Path<String>) -> Response {
    match snapshot(control).await.job_by_prefix(&id) {
        Ok(job) => Json(job).into_response(),
        Err(error) => no_such_job(&error),
    }
}

/// `POST /v1/jobs/{id}:cancel` and `:release`.
async fn command(State(control): State<Control>, Path(target): Path<String>) -> Response {
    let Some((prefix, verb)) = target.rsplit_once(':') else {
        return refuse(
            StatusCode::NOT_FOUND,
            "NOT_FOUND",
            "write /v1/jobs/{id}:cancel or :release",
        );
    };
    let make: fn(JobId) -> Command = match verb {
        "cancel" => Command::Cancel,
        "release" => Command::Release,
        _ => return refuse(StatusCode::NOT_FOUND, "NOT_FOUND", "known are :cancel and :release"),
    };
    let found = snapshot(control.clone()).await;
    let (id, view) = match found.job_by_prefix(prefix) {
        Ok(view) => match view.id.parse::<JobId>() {
            Ok(id) => (id, view.clone()),
            Err(error) => {
                let why = error.to_string();
                return refuse(StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL", &why);
            }
        },
        Err(error) => return no_such_job(&error),
    };
    let (reply, answer) = oneshot::channel();
    if control.command.send((make(id), reply)).await.is_err() {
        return refuse(StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE", "the daemon is stopping");
    }
    match tokio::time::timeout(REPLY_TIMEOUT, answer).await {
        Ok(Ok(Ok(()))) => Json(view).into_response(),
        Ok(Ok(Err(why))) => refuse(StatusCode::CONFLICT, "FAILED_PRECONDITION", &why),
        Ok(Err(_)) => {
            refuse(StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE", "the daemon is stopping")
        }
        Err(_) => {
            let why =
                "the daemon did not answer in time; `gemini-batchd status` shows what came of it";
            refuse(StatusCode::GATEWAY_TIMEOUT, "DEADLINE_EXCEEDED", why)
        }
    }
}

async fn no_such_route() -> Response {
    refuse(
        StatusCode::NOT_FOUND,
        "NOT_FOUND",
        "known are /healthz, /v1/status, /v1/jobs and /v1/jobs/{id}",
    )
}

/// Building a snapshot of many jobs takes a while; it must not hold up the runtime.
async fn snapshot(control: Control) -> Snapshot {
    tokio::task::spawn_blocking(move || (control.snapshot)())
        .await
        .expect("a snapshot is built without panicking")
}

fn no_such_job(error: &NoSuchJob) -> Response {
    let why = error.to_string();
    match error {
        NoSuchJob::TooShort(_) => refuse(StatusCode::BAD_REQUEST, "INVALID_ARGUMENT", &why),
        NoSuchJob::Unknown(_) => refuse(StatusCode::NOT_FOUND, "NOT_FOUND", &why),
        NoSuchJob::Several { .. } => refuse(StatusCode::BAD_REQUEST, "INVALID_ARGUMENT", &why),
    }
}

fn refuse(code: StatusCode, status: &str, message: &str) -> Response {
    (code, Json(json!({"error": {"status": status, "message": message}}))).into_response()
}

/// Longer than a store needs to save, shorter than a person's patience.
const REPLY_TIMEOUT: Duration = Duration::from_secs(30);
