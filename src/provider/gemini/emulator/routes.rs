//! HTTP: which call a request is, who may make it, and how it reaches the server.
//!
//! Every request is handled in a task of its own, so that a client that goes away in the middle
//! does not undo what the service would have done. What is not emulated is refused with 404 or 501
//! and a message that says so; unknown query parameters are refused as the service does.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, Response, header, uri::Authority};
use serde_json::json;
use tokio::sync::oneshot;

use super::body::{Manner, Source, response};
use super::call::{Call, Query, Route};
use super::clock::{Clock, Moment};
use super::create::{Create, CreateInput};
use super::faults::{CallKind, Faults};
use super::layer;
use super::line::Cut;
use super::memory::Memory;
use super::recorder::Recorder;
use super::reply::{Refusal, Reply};
use super::server::{ProjectNo, Server};
use super::sessions::UploadStart;
use super::upload;
use crate::engine::job::Task;

/// What all requests share.
#[derive(Debug)]
pub struct App {
    server: Mutex<Server>,
    /// What was known before each answer, if that is wanted.
    memories: Option<Mutex<Vec<Memory>>>,
    /// Virtual time.
    pub clock: Clock,
    /// Bytes, and tasks that move them.
    pub source: Source,
    /// Own address, if a client does not name one.
    pub authority: String,
    /// Where what passes is copied to, if anybody wants it.
    pub recorder: Option<Recorder>,
}

impl App {
    /// Puts the parts together.
    pub fn new(
        server: Server,
        clock: Clock,
        source: Source,
        authority: String,
        remembers: bool,
    ) -> App {
        let memories = remembers.then(|| Mutex::new(vec![Memory::of(&server, &source.disk)]));
        App { server: Mutex::new(server), memories, clock, source, authority, recorder: None }
    }

    /// The server. It is never held over anything that waits.
    pub fn server(&self) -> MutexGuard<'_, Server> {
        self.server.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was known before each answer, oldest first.
    pub fn memories(&self) -> Vec<Memory> {
        let memories = self.memories.as_ref();
        let list = memories.map(|list| list.lock().unwrap_or_else(PoisonError::into_inner));
        list.map_or_else(Vec::new, |list| list.clone())
    }

    fn remember(&self) {
        if let Some(memories) = &self.memories {
            // In this order: no memory is older than one before it.
            let mut memories = memories.lock().unwrap_or_else(PoisonError::into_inner);
            memories.push(Memory::of(&self.server(), &self.source.disk));
        }
    }

    /// Removes bytes that nobody needs.
    pub fn sweep(&self) {
        let garbage = self.server().take_garbage();
        self.source.disk.remove(&garbage);
    }

    /// Ends the batches whose time has come. Small results are waited for; a batch with large ones
    /// keeps running until they are written.
    pub async fn settle(self: &Arc<App>, now: Moment) {
        let due = self.server().settle(now);
        let mut small = Vec::new();
        for work in due {
            let wait = work.rows <= ROWS_WAITED_FOR;
            let app = Arc::clone(self);
            let written = self.source.tasks.spawn_blocking(move || {
                let result = app.source.disk.write_results(&work);
                app.server().written(&work, result.map_err(|error| error.to_string()));
                app.sweep();
            });
            small.extend(wait.then_some(written));
        }
        for written in small {
            if let Err(error) = written.await {
                tracing::error!(%error, "the emulator could not write results");
            }
        }
        self.sweep();
    }
}

/// Answers any request.
pub async fn handle(
    State(app): State<Arc<App>>,
    ConnectInfo(cut): ConnectInfo<Cut>,
    request: Request,
) -> Response<Body> {
    let (sender, receiver) = oneshot::channel();
    let lost = cut.clone();
    let task = Arc::clone(&app);
    app.source.tasks.spawn(async move {
        let (head, body) = request.into_parts();
        let (call, body) = match &task.recorder {
            None => (None, body),
            Some(recorder) => {
                let (call, body) = recorder.call(&head, body);
                (Some(call), body)
            }
        };
        let mut response = answer(&task, head, body, &cut).await;
        if let Some(call) = call {
            response = call.answered(response, &cut).await;
        }
        task.remember();
        // A client that went away does not want its answer.
        drop(sender.send(response));
    });
    match receiver.await {
        Ok(response) => response,
        Err(_) => {
            lost.now();
            Response::new(Body::empty())
        }
    }
}

async fn answer(app: &Arc<App>, head: Parts, body: Body, cut: &Cut) -> Response<Body> {
    let mut manner = Manner { base: base(app, &head.headers), ..Manner::default() };
    let query = Query::read(head.uri.query().unwrap_or_default());
    manner.compact = query.get("prettyPrint").is_some_and(|value| value == "false");
    manner.array_errors = app.server().faults().array_errors;
    let reply = match Route::find(&head.method, head.uri.path()) {
        Err(reply) => reply,
        Ok(Route::Emulator(name)) => own(app, &head.method, name, body).await,
        Ok(Route::Api { version, call }) => {
            manner.version = version.to_owned();
            let call = query.refine(call);
            match query.check(&call).and_then(|()| query.fields()) {
                Err(reply) => reply,
                Ok(fields) => {
                    manner.fields = fields;
                    api(app, &head.headers, &query, call, body, &manner).await
                }
            }
        }
    };
    response(reply, &manner, &app.source, cut)
}

/// The address that the client sees.
fn base(app: &App, headers: &HeaderMap) -> String {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let named = host.filter(|host| host.parse::<Authority>().is_ok());
    format!("http://{}", named.unwrap_or(&app.authority))
}

/// Calls to the emulator itself.
async fn own(app: &App, method: &Method, name: &str, body: Body) -> Reply {
    match (method, name) {
        (&Method::GET, "journal") => Reply::Json(json!({ "entries": app.server().journal() })),
        (&Method::GET, "faults") => Reply::Json(json!(app.server().faults())),
        (&Method::POST, "faults") => {
            let Ok(body) = upload::read_body(body, 1 << 20).await else {
                return Reply::refused(400, "The body is larger than 1 MiB or broke off.");
            };
            match serde_json::from_slice::<Faults>(&body) {
                Ok(faults) => {
                    app.server().set_faults(faults);
                    Reply::Json(json!({}))
                }
                Err(error) => Reply::refused(400, format!("These are not faults: {error}")),
            }
        }
        _ => Reply::refused(404, "The emulator answers GET journal, GET faults and POST faults."),
    }
}

async fn api(
    app: &Arc<App>,
    headers: &HeaderMap,
    query: &Query,
    call: Call,
    body: Body,
    manner: &Manner,
) -> Reply {
    let mishap = app.server().mishap(call.kind());
    if mishap.hold_ms > 0 {
        tokio::time::sleep(Duration::from_millis(mishap.hold_ms)).await;
    }
    if let Some(reply) = mishap.instead {
        drop(upload::read_body(body, 0).await);
        if call.kind() == CallKind::Create
            && let Ok(who) = who(app, headers, query, &call)
        {
            app.server().create_refused(who, "", &reply, app.clock.now());
        }
        return reply;
    }
    let now = app.clock.now();
    app.settle(now).await;
    if call.kind() == CallKind::Upload {
        return upload::session(app, headers, query, body, &manner.base).await;
    }
    let who = match who(app, headers, query, &call) {
        Ok(who) => who,
        Err(reply) => return reply,
    };
    let reply = perform(app, who, headers, query, call, body, manner, now).await;
    app.sweep();
    reply
}

fn who(app: &App, headers: &HeaderMap, query: &Query, call: &Call) -> Result<ProjectNo, Reply> {
    let key = headers.get("x-goog-api-key").and_then(|key| key.to_str().ok());
    let bearer = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let bearer = bearer.and_then(|text| text.strip_prefix("Bearer "));
    let key = key.or_else(|| query.get("key")).or(bearer.filter(|_| call.is_of_layer()));
    if key.is_none() && headers.contains_key(header::AUTHORIZATION) {
        let message = "Request had invalid authentication credentials. Expected OAuth 2 access \
                       token, login cookie or other valid authentication credential.";
        return Err(Reply::refused(401, message));
    }
    app.server().authenticate(key)
}

#[expect(clippy::too_many_arguments, reason = "a request has that many parts")]
async fn perform(
    app: &Arc<App>,
    who: ProjectNo,
    headers: &HeaderMap,
    query: &Query,
    call: Call,
    body: Body,
    manner: &Manner,
    now: Moment,
) -> Reply {
    let (size, token) = match query.page() {
        Ok(page) => page,
        Err(reply) => return reply,
    };
    match call {
        Call::Create { model, task } => create(app, who, &model, task, body).await,
        Call::Get { id } => app.server().get(who, &id, now),
        Call::List => app.server().list(who, size, token, now),
        Call::Cancel { id } => match upload::read_body(body, 1 << 16).await {
            Ok(body) if body.iter().all(|b| b.is_ascii_whitespace() || b"{}".contains(b)) => {
                app.server().cancel(who, &id, now)
            }
            Ok(_) | Err(_) => Reply::refused(400, "The body of a cancel must be empty or {}."),
        },
        Call::Delete { id } => app.server().delete(who, &id, now),
        Call::LayerCreate => layer::create(app, who, body).await,
        Call::LayerGet { id } => app.server().layer_get(who, &id, now),
        Call::LayerList => {
            let (limit, after) = (query.get("limit"), query.get("after"));
            app.server().layer_list(who, limit, after, now)
        }
        Call::LayerCancel { id } => app.server().layer_cancel(who, &id, now),
        Call::UploadStart => start(app, who, headers, query, body, now).await,
        // Sessions need no key; they are answered before.
        Call::UploadSession => Reply::refused(400, "upload_id is missing."),
        Call::FileGet { id } => app.server().file_get(who, &id, &manner.base, now),
        Call::FileList => app.server().file_list(who, size, token, &manner.base, now),
        Call::FileDelete { id } => app.server().file_delete(who, &id, now),
        Call::Download { id } if query.get("alt") != Some("media") => {
            drop(id);
            Reply::refused(400, "A download must be asked for with alt=media.")
        }
        Call::Download { id } => {
            let range = headers.get(header::RANGE).and_then(|range| range.to_str().ok());
            app.server().download(who, &id, range.and_then(open_range), now)
        }
        Call::Model { model } => app.server().model(&model),
        Call::Ask { model, task } => match upload::read_body(body, CREATE_BYTES_MAX).await {
            Ok(body) => app.server().ask(who, &model, task, &body, now),
            Err(upload::Unread::Broken) => Reply::Dropped,
            Err(upload::Unread::TooLarge) => {
                let limit = CREATE_BYTES_MAX;
                let message = format!("Request payload size exceeds the limit: {limit} bytes.");
                Reply::refused(400, message)
            }
        },
    }
}

/// The `n` of `bytes=n-`; other forms are not known to be used by anybody.
fn open_range(range: &str) -> Option<u64> {
    range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
}

async fn create(app: &Arc<App>, who: ProjectNo, model: &str, task: Task, body: Body) -> Reply {
    let body = match upload::read_body(body, CREATE_BYTES_MAX).await {
        Ok(body) => body,
        Err(upload::Unread::Broken) => return Reply::Dropped,
        Err(upload::Unread::TooLarge) => {
            let message =
                format!("Request payload size exceeds the limit: {CREATE_BYTES_MAX} bytes.");
            let now = app.clock.now();
            return app.server().refuse_create(who, Refusal::new(400, message), now);
        }
    };
    let (by, model) = (Arc::clone(app), model.to_owned());
    let work = move || create_now(&by, who, &model, task, body);
    let done = app.source.tasks.spawn_blocking(work).await;
    done.unwrap_or_else(|_| Reply::refused(500, "Internal error encountered."))
}

/// Reads and checks everything of a create, then makes the batch. Blocks.
fn create_now(app: &App, who: ProjectNo, model: &str, task: Task, body: Vec<u8>) -> Reply {
    let now = app.clock.now();
    let mut create = match Create::read(&body, task) {
        Ok(create) => create,
        Err(refusal) => return app.server().refuse_create(who, refusal, now),
    };
    drop(body);
    let admitted = match app.server().admit_create(who, model, task, &create, now) {
        Ok(admitted) => admitted,
        Err(reply) => return reply,
    };
    let disk = &app.source.disk;
    let look_for = [admitted.look_for[0].as_deref(), admitted.look_for[1].as_deref()];
    let (input, survey) = match (&mut create.input, admitted.file) {
        (CreateInput::Rows(rows), _) => {
            let store = disk.save(rows);
            rows.clear();
            let survey = store.and_then(|store| Ok((store, disk.survey(store, None, look_for)?)));
            match survey {
                Ok(found) => found,
                Err(error) => return unreadable(&error),
            }
        }
        (CreateInput::File(_), Some(store)) => match disk.survey(store, Some(task), look_for) {
            Ok(survey) => (store, survey),
            Err(error) => return unreadable(&error),
        },
        (CreateInput::File(_), None) => return super::batches::not_found(),
    };
    app.server().create(who, model, task, &create, input, &survey, app.clock.now())
}

fn unreadable(error: &std::io::Error) -> Reply {
    Reply::refused(500, format!("The emulator can not read the requests: {error}"))
}

async fn start(
    app: &Arc<App>,
    who: ProjectNo,
    headers: &HeaderMap,
    query: &Query,
    body: Body,
    now: Moment,
) -> Reply {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let protocol = header("x-goog-upload-protocol").unwrap_or_default();
    if query.get("uploadType").is_some() || !protocol.eq_ignore_ascii_case("resumable") {
        let message = "The emulator knows only resumable uploads: send X-Goog-Upload-Protocol: \
                       resumable and X-Goog-Upload-Command: start.";
        return Reply::refused(501, message);
    }
    if !header("x-goog-upload-command").is_some_and(|c| c.eq_ignore_ascii_case("start")) {
        return Reply::refused(400, "X-Goog-Upload-Command must be start.");
    }
    let Ok(body) = upload::read_body(body, 1 << 20).await else {
        return Reply::refused(400, "The metadata of a file must be smaller than 1 MiB.");
    };
    let length = header("x-goog-upload-header-content-length");
    if length.is_some_and(|length| length.parse::<u64>().is_err()) {
        return Reply::refused(400, "X-Goog-Upload-Header-Content-Length must be a number.");
    }
    let start = UploadStart {
        length: length.and_then(|length| length.parse().ok()),
        mime_type: header("x-goog-upload-header-content-type").map(str::to_owned),
        body,
    };
    let store = app.source.disk.fresh();
    app.server().upload_start(who, &start, store, now)
}

/// Larger bodies of creates are refused.
const CREATE_BYTES_MAX: usize = 20_971_520;

/// Batches with so many rows at most have their results when the call is answered that comes first
/// after their end.
const ROWS_WAITED_FOR: u64 = 20_000;
