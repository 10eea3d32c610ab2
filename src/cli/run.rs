//! `run`, the daemon, and `once`, which drains what is there and ends.

use std::collections::BTreeSet;
use std::io::Write;
use std::sync::Arc;

use clap::Args;

use crate::clock::{Clock, SystemClock};
use crate::config::{Config, Wakeup};
use crate::control::ControlError;
use crate::daemon::operators::{self, Identity};
use crate::daemon::wakeup::{self, Waking};
use crate::daemon::{
    DaemonError, Ended, Handle, Setup, SetupError, Until, failpoints, schedule, signals, token,
};
use crate::engine::{Job, JobId};
use crate::store::StoreError;
use crate::telemetry;
use crate::view::JobView;

use super::{ExitCode, Failure, Globals, print_json};

/// The daemon.
#[derive(Debug, Args)]
pub struct Run {}

/// One drain.
#[derive(Debug, Args)]
pub struct Once {}

impl Run {
    /// Runs until it is stopped.
    ///
    /// # Errors
    /// If it can not start, or its records can not be saved any more.
    pub fn run(&self, globals: &Globals) -> Result<ExitCode, Failure> {
        to_the_end(globals, Until::Stopped)?;
        Ok(ExitCode::Complete)
    }
}

impl Once {
    /// Runs until nothing is left to do; the exit code is that of the worst job.
    ///
    /// # Errors
    /// If it can not start, its records can not be saved any more, the API refuses the key, or
    /// the way to it is barred.
    pub fn run(&self, globals: &Globals, out: &mut dyn Write) -> Result<ExitCode, Failure> {
        let (ended, handle) = to_the_end(globals, Until::Idle)?;
        match ended {
            Ended::Stopped => Ok(ExitCode::Interrupted),
            Ended::Denied(message) => Err(denied(message)),
            Ended::Barred(message) => Err(barred(message)),
            Ended::Full(why) => Err(full(why)),
            Ended::Idle(jobs) => {
                let views = views(&handle, &jobs);
                if globals.json {
                    print_json(out, &views)?;
                } else {
                    views.iter().try_for_each(|view| super::status::line(view, out))?;
                }
                Ok(worst(&views))
            }
        }
    }
}

/// Runs the daemon. Work on the disk that is under way when it ends is not waited for: it can be
/// done again from its start, and reading a large input may take minutes.
fn to_the_end(globals: &Globals, until: Until) -> Result<(Ended, Handle), Failure> {
    let runtime = runtime()?;
    let ended = runtime.block_on(drive(globals, until));
    runtime.shutdown_background();
    ended
}

/// Starts everything and runs the loop to its end.
async fn drive(globals: &Globals, until: Until) -> Result<(Ended, Handle), Failure> {
    end_on_panic();
    let (flags, environment) = globals.sources()?;
    let config = Arc::new(Config::load(&flags, &environment)?);
    let _armed = failpoints::arm();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let mut setup = Setup::open(Arc::clone(&config), Arc::clone(&clock))?;
    setup.daemon.reload_from(move || Config::load(&flags, &environment));
    let handle = setup.daemon.handle();
    signals::listen(handle.clone())?;
    let identity =
        Identity { inbox: config.folders.inbox.display().to_string(), started: clock.now() };
    let told = Arc::clone(&clock);
    let serving = operators::serve(&config.control.socket, identity, handle.clone(), told)?;
    if let Some(address) = config.control.listen {
        let token = token::read_or_make(&config.control.token_file)?;
        let address = serving.listen(address, &config.control.hosts, token)?;
        tracing::info!(%address, "the dashboard is served");
    }
    let _waking = match &config.wakeup {
        Some(settings) => Some(wake(settings, &handle, clock.clone())?),
        None => None,
    };
    let mut cron = schedule::wake_every_minute(handle.clone()).await.map_err(|error| {
        Failure::new(ExitCode::Failed, error).leading_to("the scheduler did not start")
    })?;
    let inbox = config.folders.inbox.display().to_string();
    tracing::info!(inbox, version = env!("CARGO_PKG_VERSION"), "ready");
    let ended = setup.daemon.run(until).await;
    drop(serving);
    if let Err(error) = cron.shutdown().await {
        tracing::debug!(%error, "the scheduler did not stop");
    }
    Ok((ended?, handle))
}

/// Begins to hear notices of the API.
fn wake(settings: &Wakeup, handle: &Handle, clock: Arc<dyn Clock>) -> Result<Waking, Failure> {
    let waking = wakeup::serve(settings, handle.clone(), clock).map_err(|error| {
        let address = settings.listen;
        Failure::new(ExitCode::Failed, error)
            .leading_to(format!("cannot listen on {address}"))
            .with_remedy("set webhook.listen to another address")
    })?;
    tracing::info!(address = %waking.address, "notices of the API are heard");
    Ok(waking)
}

/// The jobs' views, oldest first.
pub fn views(handle: &Handle, jobs: &BTreeSet<JobId>) -> Vec<JobView> {
    let now = SystemClock.now();
    handle.with_engine(|engine| {
        let view = |job: &Job| {
            let view = JobView { waiting_s: None, ..JobView::at(job, now, None) };
            let waits = engine.waits_for_key(job);
            JobView { reason: waits.or(view.reason.clone()), ..view }
        };
        engine.jobs().filter(|job| jobs.contains(&job.head.id)).map(view).collect()
    })
}

/// The exit code of the worst of these jobs. Those that wait for their time are left out: there was
/// nothing to do for them yet.
pub fn worst(views: &[JobView]) -> ExitCode {
    let waits = |view: &&JobView| view.opens.is_some() && !view.on_hold;
    let codes = views.iter().filter(|view| !waits(view)).map(|view| match view.is_over() {
        true => ExitCode::of_job(view),
        false => ExitCode::Held,
    });
    codes.reduce(ExitCode::worst).unwrap_or(ExitCode::NothingToDo)
}

/// The runtime of the daemon.
///
/// # Errors
/// If the system refuses one.
pub fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .worker_threads(processors.min(WORKERS_MAX))
        .max_blocking_threads(BLOCKING_MAX)
        .build()
}

/// A panic in any task ends the process: a restart recovers, a half-alive daemon does not.
fn end_on_panic() {
    let tell = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        // Nobody may be there to be told, and the process ends all the same.
        let end = || {
            std::thread::sleep(LAST_WORDS);
            std::process::abort();
        };
        drop(std::thread::Builder::new().spawn(end));
        telemetry::flush();
        tell(panic);
        std::process::abort();
    }));
}

/// There is too little room on the disk to go on.
pub fn full(why: String) -> Failure {
    Failure::new(ExitCode::NoRoom, anyhow::Error::msg(why)).with_remedy(MAKE_ROOM)
}

/// The API refuses the key.
pub fn denied(message: String) -> Failure {
    Failure::new(ExitCode::Credentials, anyhow::Error::msg(message)).with_remedy(
        "check the API key (https://aistudio.google.com/apikey) and billing of its project; \
         nothing is lost, run this again afterwards",
    )
}

/// Something stands in the way to the API.
pub fn barred(message: String) -> Failure {
    Failure::new(ExitCode::Configuration, anyhow::Error::msg(message)).with_remedy(
        "check api.base_url, the proxy (https_proxy, no_proxy) and the certificates of this \
         machine (SSL_CERT_FILE); nothing is lost, run this again afterwards",
    )
}

impl From<SetupError> for Failure {
    fn from(error: SetupError) -> Failure {
        if error.is_about_room() {
            return Failure::new(ExitCode::NoRoom, error).with_remedy(MAKE_ROOM);
        }
        let code = match &error {
            SetupError::NoKey(_) | SetupError::BadKey(_) => ExitCode::Credentials,
            // What may pass by itself must not keep a service manager from trying again.
            SetupError::Spool(error) if !error.is_lasting() => ExitCode::Failed,
            SetupError::Client(_) | SetupError::Spool(_) => ExitCode::Configuration,
            SetupError::Store(StoreError::Locked { .. } | StoreError::Elsewhere { .. }) => {
                ExitCode::Locked
            }
            SetupError::Store(_) | SetupError::Rebuild(_) => ExitCode::Failed,
        };
        let remedy = match &error {
            SetupError::Spool(error) if error.is_lasting() => Some(
                "the spool must be a folder that this user may write in; mend that, or choose \
                 another one with --spool or spool.dir",
            ),
            SetupError::NoKey(_)
            | SetupError::BadKey(_)
            | SetupError::Client(_)
            | SetupError::Spool(_)
            | SetupError::Rebuild(_)
            | SetupError::Store(_) => None,
        };
        Failure { remedy: remedy.map(str::to_owned), ..Failure::new(code, error) }
    }
}

impl From<ControlError> for Failure {
    fn from(error: ControlError) -> Failure {
        let code = match &error {
            ControlError::InUse { .. } => ExitCode::Locked,
            ControlError::NotASocket { .. }
            | ControlError::TooLong { .. }
            | ControlError::Token { .. } => ExitCode::Configuration,
            // Whoever has it may let it go.
            ControlError::Address { .. } => ExitCode::Failed,
            ControlError::Io { source, .. } if StoreError::says_full(source) => ExitCode::NoRoom,
            ControlError::Io { .. } => ExitCode::Failed,
        };
        Failure::new(code, error)
    }
}

impl From<DaemonError> for Failure {
    fn from(error: DaemonError) -> Failure {
        let DaemonError::Store(store) = &error;
        if store.is_about_room() {
            return Failure::new(ExitCode::NoRoom, error).with_remedy(MAKE_ROOM);
        }
        Failure::new(ExitCode::Failed, error)
            .with_remedy("look at the disk that holds the spool's state folder, then start again")
    }
}

/// How long a panic may take to be told.
const LAST_WORDS: std::time::Duration = std::time::Duration::from_secs(2);
/// What to do about a full disk.
const MAKE_ROOM: &str = "make room on that disk, then start it again (a service manager does so by \
                         itself); nothing is lost meanwhile";
/// Threads that drive connections: each costs memory of its own, and none is busy for long.
const WORKERS_MAX: usize = 4;
/// Threads for work on the disk. Each upload under way keeps one, of which the configuration allows
/// 64; all other effects together keep fewer than 20.
const BLOCKING_MAX: usize = 96;
