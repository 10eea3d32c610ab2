//! `/v1/openapi.json`: what the control plane answers, for programs that want to know.
//!
//! The schemas are made from the types that are sent; the table of operations stands here. A test
//! holds both against the router and against real answers.

use std::sync::LazyLock;

use serde_json::{Map, Value, json};
use utoipa::{OpenApi, ToSchema};

use crate::view::report::Report;
use crate::view::schedule::Schedule;
use crate::view::{BatchList, DayList, EventList, JobList, JobView, Snapshot};

use super::commands::{JobTold, Told};

/// One thing that can be asked for.
struct Operation {
    method: &'static str,
    path: &'static str,
    summary: &'static str,
    /// Name, type, what it is.
    query: &'static [(&'static str, &'static str, &'static str)],
    answer: Answer,
}

/// What comes back.
enum Answer {
    /// JSON of a schema.
    Json(&'static str),
    /// Something else.
    Other(&'static str),
}

/// How the daemon is, in a word.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only its schema is used")]
struct Alive {
    /// `ok`, `paused` or `trouble`; of `/readyz`: `ready`.
    status: String,
    /// Why nothing is sent at present.
    #[schema(required = false)]
    paused: Option<String>,
    /// What is wrong.
    #[schema(required = false)]
    trouble: Option<String>,
}

/// Why something was not done.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only its schema is used")]
struct Refusal {
    /// The reason.
    error: RefusalReason,
}

/// A reason, and what to do next.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only its schema is used")]
struct RefusalReason {
    /// A word for programs, such as `NOT_FOUND`.
    status: String,
    /// The reason for people.
    message: String,
}

#[derive(OpenApi)]
#[openapi(components(schemas(
    Snapshot, JobList, JobView, BatchList, DayList, EventList, Schedule, Report, Alive, Refusal,
    JobTold, Told
)))]
struct Schemas;

/// Every operation.
const OPERATIONS: &[Operation] = &[
    get(
        "/healthz",
        "Whether the daemon is alive: 200 as long as it is",
        &[],
        Answer::Json("Alive"),
    ),
    get(
        "/readyz",
        "Whether work goes on: 503 with the reason while it is paused, drains, has no room, or is \
         in trouble",
        &[],
        Answer::Json("Alive"),
    ),
    get(
        "/metrics",
        "Figures for Prometheus; see docs/metrics.md",
        &[],
        Answer::Other("text/plain"),
    ),
    get(
        "/v1/status",
        "How the daemon is, jobs by state and by queue, and the 200 that matter most",
        &[],
        Answer::Json("Snapshot"),
    ),
    get(
        "/v1/jobs",
        "Jobs, page by page",
        &[
            ("state", "string", "only those in these states, with commas between them"),
            ("queue", "string", "only those of this queue"),
            ("file", "string", "only those whose file has this in its path"),
            (
                "since",
                "string",
                "only those claimed since a moment (RFC 3339), a day, or a span (2h)",
            ),
            ("order", "string", "newest (the default) or oldest first"),
            ("limit", "integer", "at most so many, up to 1000; 100 by default"),
            ("after", "string", "those that come after this id: the `next` of the page before"),
        ],
        Answer::Json("JobList"),
    ),
    get("/v1/jobs/{id}", "One job, by its id or a unique prefix", &[], Answer::Json("JobView")),
    get(
        "/v1/jobs/{id}/events",
        "What happened to one job: the newest events, oldest first",
        &[("limit", "integer", "at most so many, up to 1000")],
        Answer::Json("EventList"),
    ),
    get(
        "/v1/batches",
        "Batches of all jobs, the newest first",
        &[
            ("limit", "integer", "at most so many, up to 1000; 500 by default"),
            ("since", "string", "open, or ended since a moment, a day, or a span; 24h by default"),
        ],
        Answer::Json("BatchList"),
    ),
    get(
        "/v1/days",
        "What each of the last days brought, by the UTC day of delivery",
        &[("days", "integer", "so many days, up to 366; 30 by default")],
        Answer::Json("DayList"),
    ),
    get(
        "/v1/schedule",
        "What comes next: windows, deadlines, the report, housekeeping, jobs that wait",
        &[],
        Answer::Json("Schedule"),
    ),
    get(
        "/v1/report",
        "What happened: files, lines, failures, tokens, what waits, and the nights before",
        &[("since", "string", "since a moment (RFC 3339), a day, or a span; 24h by default")],
        Answer::Json("Report"),
    ),
    get(
        "/v1/events",
        "What happened. With `Accept: text/event-stream` it goes on as server-sent events, which \
         `Last-Event-ID` resumes",
        &[
            ("after", "integer", "those with higher numbers; without it the newest"),
            ("job", "string", "only those of the job whose id begins so"),
            ("limit", "integer", "at most so many, up to 1000"),
        ],
        Answer::Json("EventList"),
    ),
    get("/v1/openapi.json", "This description", &[], Answer::Other("application/json")),
    get("/", "The dashboard", &[], Answer::Other("text/html")),
    post("/v1/jobs/{id}:cancel", "Stop a job: what is answered is delivered, the rest fails", JOB),
    post("/v1/jobs/{id}:release", "Let a job go on that waits for a person", JOB),
    post("/v1/jobs/{id}:hold", "Send nothing new of a job until it is released", JOB),
    post("/v1/jobs/{id}:retry", "Try again what failed, or what waits after an error", JOB),
    post("/v1/jobs/{id}:delete", "Forget the record of a job that is over; its files stay", JOB),
    post("/v1/queues/{name}:pause", "Take in and send nothing new of a queue", TOLD),
    post("/v1/queues/{name}:resume", "Let a queue go on", TOLD),
    post("/v1/daemon:pause", "Take in and send nothing new", TOLD),
    post("/v1/daemon:resume", "Let the daemon go on; takes back a drain too", TOLD),
    post("/v1/daemon:drain", "Take in nothing new, finish what was taken, then end", TOLD),
];

const JOB: Answer = Answer::Json("JobTold");
const TOLD: Answer = Answer::Json("Told");

/// The description as text; made once.
pub(super) fn text() -> &'static str {
    static TEXT: LazyLock<String> = LazyLock::new(|| document().to_string());
    &TEXT
}

/// The description.
pub fn document() -> Value {
    let schemas = serde_json::to_value(Schemas::openapi()).expect("schemas are JSON");
    let mut paths = Map::new();
    for operation in OPERATIONS {
        let path = paths.entry(operation.path).or_insert_with(|| json!({}));
        path[operation.method] = operation.describe();
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "gemini-batchd",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "What a running gemini-batchd shows, and what it can be told. On the \
                Unix socket everything is allowed to whoever may open it. On control.listen, \
                changes need the token, and so does everything else on an address that is not of \
                this machine alone, /healthz and /readyz left out.",
        },
        "paths": paths,
        "components": {
            "schemas": schemas["components"]["schemas"],
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    })
}

impl Operation {
    fn describe(&self) -> Value {
        let content = match self.answer {
            Answer::Json(schema) => json!({"application/json": {"schema": reference(schema)}}),
            Answer::Other(kind) => json!({kind: {}}),
        };
        let refusal = json!({
            "description": "Why not, and what to do next",
            "content": {"application/json": {"schema": reference("Refusal")}},
        });
        let mut described = json!({
            "summary": self.summary,
            "operationId": self.name(),
            "parameters": self.parameters(),
            "responses": {
                "200": {"description": "Done", "content": content},
                "default": refusal,
            },
        });
        if self.method == "post" {
            described["security"] = json!([{"token": []}]);
        }
        described
    }

    /// A name for generated code, such as `get_v1_jobs_id_events`.
    fn name(&self) -> String {
        let words = self.path.split(|c: char| !c.is_ascii_alphanumeric());
        let words = words.filter(|word| !word.is_empty());
        words.fold(self.method.to_owned(), |name, word| name + "_" + word)
    }

    fn parameters(&self) -> Value {
        let named = ["id", "name"].iter().filter(|name| self.path.contains(&format!("{{{name}}}")));
        let in_path = named.map(|name| {
            json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}})
        });
        let in_query = self.query.iter().map(|(name, kind, about)| {
            json!({"name": name, "in": "query", "required": false, "description": about,
                "schema": {"type": kind}})
        });
        in_path.chain(in_query).collect()
    }
}

const fn get(
    path: &'static str,
    summary: &'static str,
    query: &'static [(&'static str, &'static str, &'static str)],
    answer: Answer,
) -> Operation {
    Operation { method: "get", path, summary, query, answer }
}

const fn post(path: &'static str, summary: &'static str, answer: Answer) -> Operation {
    Operation { method: "post", path, summary, query: &[], answer }
}

fn reference(schema: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{schema}")})
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Every route that the code of this folder makes, as it is written there.
    fn routes() -> BTreeSet<String> {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/control");
        let mut routes = BTreeSet::new();
        for entry in std::fs::read_dir(folder).expect("listed") {
            let text = std::fs::read_to_string(entry.expect("listed").path()).unwrap_or_default();
            let after = text.split(".route(").skip(1);
            let named =
                after.filter_map(|rest| rest.trim_start().strip_prefix('"')?.split('"').next());
            routes.extend(named.filter(|path| path.starts_with('/')).map(str::to_owned));
        }
        routes
    }

    #[test]
    fn every_route_is_described_and_every_description_has_a_route() {
        let (routes, document) = (routes(), document());
        let described = document["paths"].as_object().expect("paths");
        // A verb after a name is not a route of its own: it is told apart by the one who takes it.
        let bare = |path: &str| match path.split_once("}:") {
            Some((name, _)) => format!("{name}}}"),
            None => path.to_owned(),
        };
        for path in described.keys() {
            let is_page = path == "/";
            assert!(is_page || routes.contains(&bare(path)), "no route for {path}");
        }
        let described: BTreeSet<String> = described.keys().map(|path| bare(path)).collect();
        for route in routes {
            assert!(described.contains(&route), "{route} is not described");
        }
    }

    #[test]
    fn every_reference_leads_somewhere_and_every_name_is_used_once() {
        let document = document();
        let mut references = Vec::new();
        collect(&document, &mut references);
        assert!(references.len() > 30, "{references:?}");
        for reference in references {
            let pointer = reference.strip_prefix('#').expect("inside the document");
            assert!(document.pointer(pointer).is_some(), "{reference}");
        }
        let names: Vec<String> = OPERATIONS.iter().map(Operation::name).collect();
        let unique: BTreeSet<&String> = names.iter().collect();
        assert_eq!(unique.len(), names.len(), "{names:?}");
    }

    fn collect(value: &Value, references: &mut Vec<String>) {
        match value {
            Value::Object(members) => {
                references.extend(members.get("$ref").and_then(Value::as_str).map(str::to_owned));
                members.values().for_each(|value| collect(value, references));
            }
            Value::Array(items) => items.iter().for_each(|value| collect(value, references)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
}
