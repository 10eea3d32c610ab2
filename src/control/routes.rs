//! The routes that show something, and the few that change something.

use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use axum::{Router, extract::rejection::PathRejection};
use serde::Serialize;
use serde_json::json;
use tokio::sync::{Semaphore, mpsc, watch};

use crate::engine::event::Command;
use crate::view::lists::{DayQuery, LIMIT_MAX, read_limit};
use crate::view::report::ReportQuery;
use crate::view::{BadQuery, BatchQuery, EventFilter, JobQuery, JobView, NoSuchJob};

use super::door::{Door, guard};
use super::follow::{FOLLOWERS_MAX, events};
use super::latest::{Latest, Pace, Seen};
use super::{Control, Look, Reply, metrics, openapi, page};

/// All routes, behind a door.
pub fn router(desk: Desk, door: Door) -> Router {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(figures))
        .route("/v1/status", get(status))
        .route("/v1/jobs", get(jobs))
        .route("/v1/jobs/{id}", get(job))
        .route("/v1/jobs/{id}/events", get(job_events))
        .route("/v1/batches", get(batches))
        .route("/v1/days", get(days))
        .route("/v1/schedule", get(schedule))
        .route("/v1/report", get(report))
        .route("/v1/events", get(events))
        .route("/v1/openapi.json", get(described))
        .merge(super::commands::routes())
        .merge(page::routes())
        .fallback(no_such_route)
        .layer(from_fn_with_state(door, guard))
        .with_state(desk)
}

/// What the routes share, whichever way requests come.
#[derive(Clone)]
pub struct Desk {
    look: Arc<dyn Look>,
    pub(super) latest: Latest,
    pace: Pace,
    pub(super) command: mpsc::Sender<(Command, Reply)>,
    followers: Arc<Semaphore>,
    stopping: watch::Receiver<bool>,
}

impl Desk {
    /// A desk for a daemon.
    pub fn new(control: Control) -> Desk {
        let Control { look, command, stopping } = control;
        let looked_at = Arc::clone(&look);
        let latest = Latest::new(Arc::new(move || looked_at.snapshot()));
        let followers = Arc::new(Semaphore::new(FOLLOWERS_MAX));
        Desk { look, latest, pace: Pace::new(), command, followers, stopping }
    }

    /// Comes to an end when nobody is to be served any more.
    pub(super) fn closed(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut stopping = self.stopping();
        async move {
            // A sender that is gone means the same as one that was used.
            drop(stopping.wait_for(|stopping| *stopping).await);
        }
    }

    /// The job whose id begins so.
    pub(super) async fn job(&self, prefix: &str) -> Result<JobView, NoSuchJob> {
        let (look, prefix) = (Arc::clone(&self.look), prefix.to_owned());
        self.pace.look(move || look.job(&prefix)).await
    }

    pub(super) fn look(&self) -> &Arc<dyn Look> {
        &self.look
    }

    pub(super) fn followers(&self) -> &Arc<Semaphore> {
        &self.followers
    }

    pub(super) fn stopping(&self) -> watch::Receiver<bool> {
        self.stopping.clone()
    }

    /// Looks when it is this one's turn, and answers with what is seen.
    async fn show<T, E>(
        &self,
        look: impl FnOnce(&dyn Look) -> Result<T, E> + Send + 'static,
        refuse: impl FnOnce(&E) -> Response,
    ) -> Response
    where
        T: Serialize + Send + 'static,
        E: Send + 'static,
    {
        let at = Arc::clone(&self.look);
        // To put a thousand jobs into words takes longer than to look at them.
        let seen = move || {
            let seen = look(at.as_ref())?;
            Ok(serde_json::to_vec(&seen).expect("what is seen has text keys only"))
        };
        match self.pace.look(seen).await {
            Ok(text) => ([(CONTENT_TYPE, JSON)], text).into_response(),
            Err(error) => refuse(&error),
        }
    }
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

/// 200 while work goes on, and 503 with the reason while it does not.
async fn readyz(State(desk): State<Desk>) -> Response {
    let seen = desk.latest.see().await;
    let health = &seen.snapshot.health;
    let draining = || "it takes in nothing new, and ends when all is done".to_owned();
    let by_operator =
        || "an operator has paused it; `gemini-batchd resume` lets it go on".to_owned();
    let why = (health.trouble.clone())
        .or_else(|| health.paused.clone())
        .or_else(|| health.draining.then(draining))
        .or_else(|| health.paused_by_operator.then(by_operator));
    match why {
        None => Json(json!({"status": "ready"})).into_response(),
        Some(why) => refuse(StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE", &why),
    }
}

async fn figures(State(desk): State<Desk>) -> Response {
    let look = Arc::clone(&desk.look);
    let text = desk.pace.look(move || metrics::page(&look.figures())).await;
    ([(CONTENT_TYPE, metrics::TYPE)], text).into_response()
}

async fn status(State(desk): State<Desk>) -> Response {
    let seen = desk.latest.see().await;
    ([(CONTENT_TYPE, JSON)], Shared(seen)).into_response()
}

async fn jobs(
    State(desk): State<Desk>,
    query: Result<Query<JobQuery>, QueryRejection>,
) -> Response {
    match query {
        Ok(Query(query)) => desk.show(move |look| look.jobs(&query), bad_query).await,
        Err(error) => odd_query(&error),
    }
}

async fn batches(
    State(desk): State<Desk>,
    query: Result<Query<BatchQuery>, QueryRejection>,
) -> Response {
    match query {
        Ok(Query(query)) => desk.show(move |look| look.batches(&query), bad_query).await,
        Err(error) => odd_query(&error),
    }
}

async fn days(
    State(desk): State<Desk>,
    query: Result<Query<DayQuery>, QueryRejection>,
) -> Response {
    let days = match query {
        Ok(Query(query)) => query.days.unwrap_or(DAYS_USUAL),
        Err(error) => return odd_query(&error),
    };
    match u32::try_from(days) {
        Ok(days @ 1..=DAYS_MAX) => {
            desk.show(move |look| Ok::<_, BadQuery>(look.days(days)), bad_query).await
        }
        Ok(_) | Err(_) => {
            let why = format!("days is {days}; it must be between 1 and {DAYS_MAX}");
            bad_query(&BadQuery(why))
        }
    }
}

async fn schedule(State(desk): State<Desk>) -> Response {
    desk.show(|look| Ok::<_, BadQuery>(look.schedule()), bad_query).await
}

async fn report(
    State(desk): State<Desk>,
    query: Result<Query<ReportQuery>, QueryRejection>,
) -> Response {
    match query {
        Ok(Query(query)) => desk.show(move |look| look.report(query.since()), bad_query).await,
        Err(error) => odd_query(&error),
    }
}

async fn job(State(desk): State<Desk>, id: Result<Path<String>, PathRejection>) -> Response {
    match id {
        Ok(Path(id)) => desk.show(move |look| look.job(&id), no_such_job).await,
        Err(_) => no_such_route().await,
    }
}

/// What happened to one job: also to one that is only counted by now, as long as it is known.
async fn job_events(
    State(desk): State<Desk>,
    Path(prefix): Path<String>,
    query: Result<Query<JobEventQuery>, QueryRejection>,
) -> Response {
    let limit = match query {
        Ok(Query(query)) => match read_limit(query.limit, LIMIT_MAX) {
            Ok(limit) => limit,
            Err(error) => return bad_query(&error),
        },
        Err(error) => return odd_query(&error),
    };
    let found = desk.job(&prefix).await;
    let wanted = match &found {
        Ok(job) => job.id.clone(),
        Err(NoSuchJob::Unknown(_)) => prefix.trim().to_ascii_uppercase(),
        Err(error) => return no_such_job(error),
    };
    let list = desk.look.events(&EventFilter { after: None, job: Some(wanted), limit });
    match found {
        Err(error) if list.events.is_empty() => no_such_job(&error),
        Ok(_) | Err(_) => Json(list).into_response(),
    }
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct JobEventQuery {
    limit: Option<usize>,
}

async fn described() -> Response {
    ([(CONTENT_TYPE, JSON)], openapi::text()).into_response()
}

async fn no_such_route() -> Response {
    refuse(
        StatusCode::NOT_FOUND,
        "NOT_FOUND",
        "no such route; /v1/openapi.json describes all there are",
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

/// A question that makes no sense.
pub(super) fn bad_query(error: &BadQuery) -> Response {
    refuse(StatusCode::BAD_REQUEST, "INVALID_ARGUMENT", &error.0)
}

/// A question that is none.
pub(super) fn odd_query(error: &QueryRejection) -> Response {
    refuse(StatusCode::BAD_REQUEST, "INVALID_ARGUMENT", &error.body_text())
}

/// An answer that says why not, and what to do next.
pub(super) fn refuse(code: StatusCode, status: &str, message: &str) -> Response {
    (code, Json(json!({"error": {"status": status, "message": message}}))).into_response()
}

/// The media type of most answers.
const JSON: &str = "application/json";
/// Days shown, unless said otherwise.
const DAYS_USUAL: usize = 30;
/// Nobody gets more.
const DAYS_MAX: u32 = 366;
