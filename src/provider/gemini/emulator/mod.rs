//! A local Gemini Batch API: for rehearsals, demonstrations and tests, without a key or a network.
//!
//! It keeps to the API contract as strictly as the service does (section 14), answers every
//! request with an echo that is always the same, and can be made to fail in all the ways that a
//! client must live through ([`faults`]). Time runs as fast as wanted. Memory does not grow with
//! the size of files. What it does not know it refuses loudly; the OpenAI layer is such a
//! thing. It listens on loopback unless told otherwise, and asks nobody for anything.
//!
//! The pure part is public: a simulation runs it on virtual time, without HTTP and without files.
//!
//! Reading order: `call` and `routes` (HTTP), `server`, `batches`, `batch`, `files` and
//! `sessions` (the pure state), `create`, `rows` and `schema` (what is accepted), `results`,
//! `answers`, `fitting`, `pictures`, `shelf` and `embeddings` (what comes back), `disk`, `body`,
//! `upload` and `line` (bytes on their way).

mod answers;
mod batch;
mod batches;
mod body;
mod call;
pub mod clock;
pub mod create;
mod disk;
mod embeddings;
pub mod faults;
mod files;
mod fitting;
mod interactive;
pub mod journal;
mod layer;
mod layer_answers;
mod layer_rows;
mod line;
pub mod memory;
mod pictures;
pub mod recorder;
pub mod reply;
pub mod results;
mod routes;
pub mod rows;
pub mod schema;
pub mod server;
pub mod sessions;
mod shelf;
mod upload;
mod webhook;

pub use faults::{Budget, Faults};
pub use journal::{Happened, InputKind, JournalEntry};
pub use memory::Memory;
pub use recorder::{Exchange, Recorder};
pub use server::Remains;
pub use webhook::Webhook;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::Router;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio_util::task::TaskTracker;

use body::Source;
use clock::Clock;
use disk::Disk;
use line::{Cut, Lines, OpenLines};
use routes::App;
use server::{Rules, Server};

/// How an emulator is to behave.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where it listens; port 0 picks one.
    pub listen: SocketAddr,
    /// How many times as fast as real time its clock runs.
    pub speed: f64,
    /// What its clock shows at the start; the system's time if `None`.
    pub start: Option<SystemTime>,
    /// The faults at the start.
    pub faults: Faults,
    /// Ids are drawn from it: the same calls get the same ids.
    pub seed: u64,
    /// How long a batch is PENDING, virtual time.
    pub pending_for: Duration,
    /// How long it is RUNNING, virtual time.
    pub running_for: Duration,
    /// How long a cancel takes, virtual time.
    pub cancel_for: Duration,
    /// Pieces of an upload but the last are multiples of it, bytes.
    pub granularity: u64,
    /// Bytes that a project can store.
    pub storage_bytes: u64,
    /// Keys that are answered as not valid.
    pub bad_keys: Vec<String>,
    /// Keys that belong to one project, and see the same batches and files. Any other key has a
    /// project of its own.
    pub projects: Vec<Vec<String>>,
    /// Where its own folder is made; the system's folder for temporary files if `None`.
    pub folder: Option<PathBuf>,
    /// Whether it remembers what it knew before each answer: [`Emulator::memories`]. All bytes it
    /// ever had stay on its disk then.
    pub remembers: bool,
    /// Where everything that passes over the wire is copied to; a test's business.
    pub recorder: Option<Recorder>,
    /// Where it sends notices of batches that have ended.
    pub webhook: Option<Webhook>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            speed: 1.0,
            start: None,
            faults: Faults::default(),
            seed: 1,
            pending_for: Duration::from_secs(2),
            running_for: Duration::from_secs(3),
            cancel_for: Duration::from_millis(500),
            granularity: 8_388_608,
            storage_bytes: 21_474_836_480,
            bad_keys: Vec::new(),
            projects: Vec::new(),
            folder: None,
            remembers: false,
            recorder: None,
            webhook: None,
        }
    }
}

/// Why an emulator could not be started.
#[derive(Debug, thiserror::Error)]
pub enum EmulatorError {
    /// Its address can not be used.
    #[error("the emulator cannot listen on {address}: {source}; choose another port, or 0")]
    Listen {
        /// The address asked for.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// Its folder can not be made.
    #[error("the emulator cannot make its folder in {}: {source}", folder.display())]
    Folder {
        /// The folder asked for.
        folder: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Starts an emulator. It must be called within a tokio runtime, and runs until it is stopped or
/// dropped.
///
/// # Errors
/// If it can not listen or has no folder.
pub async fn start(options: Options) -> Result<Emulator, EmulatorError> {
    let disk = Disk::new(options.folder.as_deref(), options.remembers).map_err(|source| {
        let folder = options.folder.clone().unwrap_or_else(std::env::temp_dir);
        EmulatorError::Folder { folder, source }
    })?;
    let rules = Rules {
        pending_for: options.pending_for,
        running_for: options.running_for,
        cancel_for: options.cancel_for,
        granularity: options.granularity.max(1),
        storage_bytes: options.storage_bytes,
        bad_keys: options.bad_keys.clone(),
        projects: options.projects.clone(),
        seed: options.seed,
    };
    let server = Server::new(rules, options.faults.clone());
    serve(options, Arc::new(disk), server).await
}

/// Starts one that knows what another one knew at a moment, and nothing that came after. Uploads
/// that were under way then are lost. Of the options, only address, clock and memory count.
///
/// # Errors
/// If it can not listen.
pub async fn go_on(options: Options, memory: &Memory) -> Result<Emulator, EmulatorError> {
    serve(options, Arc::clone(&memory.disk), memory.server.restarted()).await
}

async fn serve(
    options: Options,
    disk: Arc<Disk>,
    server: Server,
) -> Result<Emulator, EmulatorError> {
    let address = options.listen;
    let listen = |source| EmulatorError::Listen { address, source };
    let listener = tokio::net::TcpListener::bind(address).await.map_err(listen)?;
    let address = listener.local_addr().map_err(listen)?;

    let clock = Clock::new(options.start, options.speed);
    let source = Source { disk, tasks: TaskTracker::new() };
    let mut app = App::new(server, clock, source, address.to_string(), options.remembers);
    app.recorder = options.recorder;
    let app = Arc::new(app);

    let lines = Lines::new(listener);
    let open = lines.open();
    let router = Router::new().fallback(routes::handle).with_state(Arc::clone(&app));
    let service = router.into_make_service_with_connect_info::<Cut>();
    let (quit, quitting) = oneshot::channel::<()>();
    let mut accepting = JoinSet::new();
    accepting.spawn(async move {
        let served = axum::serve(lines, service).with_graceful_shutdown(async {
            // A quit that is dropped is a quit.
            drop(quitting.await);
        });
        if let Err(error) = served.await {
            tracing::error!(%error, "the emulator stopped accepting connections");
        }
    });
    if let Some(webhook) = options.webhook {
        app.server().tell_news();
        accepting.spawn(webhook::tell(Arc::clone(&app), webhook));
    }
    Ok(Emulator { app, address, open, quit: Some(quit), accepting })
}

/// An emulator that runs.
#[derive(Debug)]
pub struct Emulator {
    app: Arc<App>,
    address: SocketAddr,
    open: OpenLines,
    quit: Option<oneshot::Sender<()>>,
    accepting: JoinSet<()>,
}

impl Emulator {
    /// The base URL for clients, such as `http://127.0.0.1:40123`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.address
    }

    /// What it saw so far.
    pub fn journal(&self) -> Vec<JournalEntry> {
        self.app.server().journal()
    }

    /// What lies there now.
    pub fn remains(&self) -> Remains {
        let now = self.app.clock.now();
        self.app.server().remains(now)
    }

    /// What it knew before each answer, oldest first, the first before all; empty unless it was
    /// to remember.
    pub fn memories(&self) -> Vec<Memory> {
        self.app.memories()
    }

    /// Replaces all faults and their budgets.
    pub fn set_faults(&self, faults: Faults) {
        self.app.server().set_faults(faults);
    }

    /// The faults, with what is left of their budgets.
    pub fn faults(&self) -> Faults {
        self.app.server().faults().clone()
    }

    /// Moves the virtual clock forward.
    pub fn advance(&self, by: Duration) {
        self.app.clock.advance(by);
    }

    /// Cuts all connections, finishes what was begun, and removes its folder.
    pub async fn stop(mut self) {
        self.open.cut();
        drop(self.quit.take());
        self.accepting.join_next().await;
        self.app.source.tasks.close();
        self.app.source.tasks.wait().await;
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        self.open.cut();
    }
}
