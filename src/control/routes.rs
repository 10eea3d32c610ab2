//! The routes under `/v1`, and `/healthz`.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use serde_json::json;
use tokio::sync::mpsc;

use crate::engine::event::Command;
use crate::view::NoSuchJob;

use super::latest::{Latest, Seen};
use super::{Control, Reply};

/// All routes.
pub fn router(control: Control) -> Router {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/v1/status", get(status))
        .route("/v1/jobs", get(jobs))
        .route("/v1/jobs/{id}", get(job))
        .merge(super::commands::routes())
        .fallback(no_such_route)
        .with_state(Desk { latest: Latest::new(control.snapshot), command: control.command })
}

/// What the routes share.
#[derive(Clone)]
pub(super) struct Desk {
    pub(super) latest: Latest,
    pub(super) command: mpsc::Sender<(Command, Reply)>,
}

/// Alive, and whether work goes on. Always 200: a paused daemon is not a dead one.
async fn healthz(State(desk): State<Desk>) -> Response {
    let seen = desk.latest.see().await;
    let health = &seen.snapshot.health;
    let status = match (&health.trouble, &health.paused) {
        (Some(_), _) => "trouble",
        (None, Some(_)) => "paused",
        (None, None) => "ok",
    };
    Json(json!({"status": status, "paused": health.paused, "trouble": health.trouble}))
        .into_response()
}

async fn status(State(desk): State<Desk>) -> Response {
    let seen = desk.latest.see().await;
    ([(CONTENT_TYPE, "application/json")], Shared(seen)).into_response()
}

async fn jobs(State(desk): State<Desk>) -> Response {
    Json(json!({"jobs": desk.latest.see().await.snapshot.jobs})).into_response()
}

async fn job(State(desk): State<Desk>, Path(id): Path<String>) -> Response {
    match desk.latest.see().await.snapshot.job_by_prefix(&id) {
        Ok(job) => Json(job).into_response(),
        Err(error) => no_such_job(&error),
    }
}

async fn no_such_route() -> Response {
    refuse(
        StatusCode::NOT_FOUND,
        "NOT_FOUND",
        "known are /healthz, /v1/status, /v1/jobs and /v1/jobs/{id}",
    )
}

/// A snapshot that is sent to many without being copied for each.
struct Shared(Arc<Seen>);

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        &self.0.json
    }
}

impl IntoResponse for Shared {
    fn into_response(self) -> Response {
        bytes::Bytes::from_owner(self).into_response()
    }
}

pub(super) fn no_such_job(error: &NoSuchJob) -> Response {
    let why = error.to_string();
    match error {
        NoSuchJob::TooShort(_) => refuse(StatusCode::BAD_REQUEST, "INVALID_ARGUMENT", &why),
        NoSuchJob::Unknown(_) => refuse(StatusCode::NOT_FOUND, "NOT_FOUND", &why),
        NoSuchJob::Several { .. } => refuse(StatusCode::BAD_REQUEST, "INVALID_ARGUMENT", &why),
    }
}

pub(super) fn refuse(code: StatusCode, status: &str, message: &str) -> Response {
    (code, Json(json!({"error": {"status": status, "message": message}}))).into_response()
}
