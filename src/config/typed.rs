//! From values to the typed [`Config`], with every rule that a value must keep.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use croner::parser::{CronParser, Seconds};
use url::{Host, Url};

use crate::spool::Folders;

use super::layers::{ConfigError, Layers, Origin, Value};
use super::settings::{NOT_YET, QUEUE};
use super::{
    Api, Config, Control, Duplicates, Environment, Housekeeping, Intake, Limits, Poll, Uncertain,
    Watch, credentials, hooks, key, money, queues, shown, window,
};

/// Checks all values and gives them their types.
pub(super) fn read(mut layers: Layers, environment: &Environment) -> Result<Config, ConfigError> {
    refuse_what_is_not_there_yet(&mut layers);
    let folders = folders(&mut layers, environment);
    let config = Config {
        file: layers.file.clone(),
        intake: intake(&mut layers),
        api: api(&mut layers, environment),
        credentials: credentials::read(&layers, environment),
        limits: limits(&mut layers),
        means: money::read(&mut layers),
        poll: poll(&mut layers),
        queues: queues::read(&mut layers),
        cache_bytes: layers.size("cache", "max_bytes", 1 << 50),
        control: control(&mut layers, environment, &folders.state),
        hooks: Arc::new(hooks::read(&mut layers, environment)),
        wakeup: hooks::read_wakeup(&mut layers, environment),
        housekeeping: housekeeping(&mut layers),
        report: window::report(&mut layers),
        shown: shown::all(&layers),
        folders,
        layers: Arc::default(),
    };
    if layers.problems.is_empty() {
        Ok(Config { layers: Arc::new(layers), ..config })
    } else {
        Err(ConfigError { problems: layers.problems })
    }
}

/// Notes every setting whose feature is still to come.
pub(super) fn refuse_what_is_not_there_yet(layers: &mut Layers) {
    let queues = layers.queues();
    for (section, key, only) in NOT_YET {
        let sections = match *section {
            QUEUE => queues.iter().map(|name| format!("{QUEUE}.{name}")).collect(),
            other => vec![other.to_owned()],
        };
        for section in sections {
            let placed = layers.get(&section, key).clone();
            // A queue that inherits the value would repeat the complaint.
            if shown::written(&placed.value) != *only
                && !layers.problems.iter().any(|seen| seen.place == placed.origin.to_string())
            {
                let why = format!(
                    "{section}.{key} is not supported in this version; remove it or set it to {only}"
                );
                layers.problem(&placed.origin, why);
            }
        }
    }
}

fn folders(layers: &mut Layers, environment: &Environment) -> Folders {
    let dir = match layers.path("spool", "dir", environment) {
        Some(dir) => dir,
        None => usual_spool(layers, environment),
    };
    let usual = Folders::below(&dir);
    let folder = |key: &'static str, usual: PathBuf| match layers.text("spool", key) {
        text if text.is_empty() => usual,
        text => dir.join(home(&text, environment)),
    };
    let folders = Folders {
        inbox: folder("inbox", usual.inbox),
        working: folder("working", usual.working),
        held: folder("held", usual.held),
        outbox: folder("outbox", usual.outbox),
        failed: folder("failed", usual.failed),
        archive: folder("archive", usual.archive),
        state: folder("state", usual.state),
    };
    refuse_nesting(layers, &folders);
    folders
}

/// A folder inside another would be taken for part of it: results would become inputs.
fn refuse_nesting(layers: &mut Layers, folders: &Folders) {
    let all: [(&'static str, &PathBuf); 7] = [
        ("inbox", &folders.inbox),
        ("working", &folders.working),
        ("held", &folders.held),
        ("outbox", &folders.outbox),
        ("failed", &folders.failed),
        ("archive", &folders.archive),
        ("state", &folders.state),
    ];
    for (inner, inner_path) in all {
        for (outer, outer_path) in all {
            if inner == outer || !inner_path.starts_with(outer_path) {
                continue;
            }
            let of = |key| layers.get("spool", key).origin.clone();
            let origin = if of(inner) == Origin::Default { of(outer) } else { of(inner) };
            let why =
                format!("spool.{inner} lies inside spool.{outer}; give it a folder of its own");
            let two_sided = inner_path == outer_path && inner > outer;
            if !two_sided {
                layers.problem(&origin, why);
            }
        }
    }
}

fn usual_spool(layers: &mut Layers, environment: &Environment) -> PathBuf {
    if let Some(list) = environment.get("STATE_DIRECTORY") {
        // systemd separates several folders with colons.
        return PathBuf::from(list.split(':').next().unwrap_or(list));
    }
    let below_home = || environment.get("HOME").map(|home| Path::new(home).join(".local/share"));
    match environment.get("XDG_DATA_HOME").map(PathBuf::from).or_else(below_home) {
        Some(data) => data.join("gemini-batchd"),
        None => {
            let why = "spool.dir is not set, and there is neither STATE_DIRECTORY nor \
                       XDG_DATA_HOME nor HOME; set it, or use --spool DIR";
            layers.problem(&Origin::Default, why.to_owned());
            PathBuf::new()
        }
    }
}

fn intake(layers: &mut Layers) -> Intake {
    let watch = match layers.text("intake", "watch").as_str() {
        "events" => Watch::Events,
        "poll" => Watch::Poll,
        _ => Watch::Auto,
    };
    // Each queue reads them for itself.
    layers.size("intake", "unpacked_bytes", 1 << 60);
    layers.integer::<u64>("intake", "unpacked_ratio", 1, i64::MAX);
    let duplicates = match layers.text("intake", "duplicates").as_str() {
        "process" => Duplicates::Process,
        _ => Duplicates::Hold,
    };
    let Value::List(ignore) = layers.get("intake", "ignore").value.clone() else {
        unreachable!("intake.ignore is a list by the table")
    };
    Intake {
        watch,
        settle: layers.duration("intake", "settle"),
        rescan: layers.duration_above_zero("intake", "rescan"),
        ignore,
        duplicates,
        duplicate_window: layers.duration("intake", "duplicate_window"),
    }
}

fn api(layers: &mut Layers, environment: &Environment) -> Api {
    let key_file = layers.path("api", "key_file", environment);
    let uncertain = match layers.text("api", "uncertain").as_str() {
        "hold" => Uncertain::Hold,
        _ => Uncertain::Resubmit,
    };
    let backoff_min = layers.duration_above_zero("api", "backoff_min");
    let backoff_max = layers.duration_above_zero("api", "backoff_max");
    layers.ordered("api", ("backoff_min", backoff_min), ("backoff_max", backoff_max));
    Api {
        base_url: base_url(layers),
        version: version(layers),
        key: key::find(key_file.as_deref(), environment),
        connect_timeout: layers.duration_above_zero("api", "connect_timeout"),
        idle_timeout: layers.duration_above_zero("api", "idle_timeout"),
        backoff_min,
        backoff_max,
        uncertain,
        uncertain_window: layers.duration_above_zero("api", "uncertain_window"),
    }
}

fn base_url(layers: &mut Layers) -> Url {
    let text = layers.text("api", "base_url");
    let origin = layers.get("api", "base_url").origin.clone();
    let mut complain = |why: &str| {
        // The text may hold a password; it is not shown.
        layers.problem(&origin, format!("api.base_url {why}"));
        Url::parse("https://invalid.invalid").expect("a fixed URL")
    };
    let Ok(url) = Url::parse(&text) else {
        return complain("is no URL; write one like \"https://generativelanguage.googleapis.com\"");
    };
    let here = is_here(&url);
    let bare = url.username().is_empty() && url.password().is_none() && url.query().is_none();
    if url.scheme() != "https" && !(url.scheme() == "http" && here) {
        return complain(
            "must begin with https://; http:// would send the API key in clear and is taken for this machine only",
        );
    }
    if !bare || url.fragment().is_some() || !matches!(url.path(), "" | "/") {
        return complain("must be scheme, host and port only, without user, path or query");
    }
    url
}

/// Whether a URL leads to this machine.
pub(super) fn is_here(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

fn version(layers: &mut Layers) -> String {
    let text = layers.text("api", "version");
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    if !text.starts_with('v') || text.len() > 20 || !text.chars().all(plain) {
        let origin = layers.get("api", "version").origin.clone();
        layers.problem(&origin, format!(r#"api.version is {text:?}; write "v1beta" or "v1""#));
    }
    text
}

fn limits(layers: &mut Layers) -> Limits {
    let file_bytes = layers.size("limits", "file_bytes", API_FILE_BYTES);
    let storage_bytes = layers.size("limits", "storage_bytes", u64::MAX);
    if storage_bytes < file_bytes {
        let mut origin = layers.get("limits", "storage_bytes").origin.clone();
        if origin == Origin::Default {
            origin = layers.get("limits", "file_bytes").origin.clone();
        }
        let why =
            "limits.storage_bytes is less than limits.file_bytes; a full file would never fit";
        layers.problem(&origin, why.to_owned());
    }
    Limits {
        file_bytes,
        inline_bytes: layers.size("limits", "inline_bytes", API_INLINE_BYTES),
        open_batches: layers.integer("limits", "open_batches", 1, 10_000),
        storage_bytes,
        uploads: layers.integer("limits", "uploads", 1, 64),
        rescue_parallel: layers.integer("limits", "rescue_parallel", 1, 256),
        free_bytes: layers.size("limits", "free_bytes", u64::MAX),
    }
}

fn poll(layers: &mut Layers) -> Poll {
    let min = layers.duration_above_zero("poll", "min");
    let max = layers.duration_above_zero("poll", "max");
    layers.ordered("poll", ("min", min), ("max", max));
    Poll { min, max }
}

fn control(layers: &mut Layers, environment: &Environment, state: &Path) -> Control {
    let set = layers.path("control", "socket", environment);
    let runtime = || {
        environment.get("RUNTIME_DIRECTORY").map(|list| {
            // systemd separates several folders with colons.
            PathBuf::from(list.split(':').next().unwrap_or(list))
        })
    };
    let socket_was_set = set.is_some();
    let socket = set.unwrap_or_else(|| runtime().unwrap_or_else(|| state.to_owned()).join(SOCKET));
    if socket_was_set && socket.as_os_str().len() > SOCKET_PATH_BYTES_MAX {
        let origin = layers.get("control", "socket").origin.clone();
        let why = "control.socket is longer than the 107 bytes that a socket's path can have";
        layers.problem(&origin, why.to_owned());
    }
    let Value::List(hosts) = layers.get("control", "hosts").value.clone() else {
        unreachable!("control.hosts is a list by the table")
    };
    for host in &hosts {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-._:[]".contains(c);
        if host.is_empty() || !host.chars().all(plain) {
            let origin = layers.get("control", "hosts").origin.clone();
            let why =
                format!("control.hosts: {host:?} is no name of a host, with a port or without");
            layers.problem(&origin, why);
        }
    }
    let token_file = layers.path("control", "token_file", environment);
    Control {
        socket,
        socket_was_set,
        listen: layers.address("control", "listen"),
        hosts,
        token_file: token_file.unwrap_or_else(|| state.join(TOKEN)),
    }
}

fn housekeeping(layers: &mut Layers) -> Housekeeping {
    let schedule = layers.text("housekeeping", "schedule");
    if let Err(why) = check_schedule(&schedule) {
        let origin = layers.get("housekeeping", "schedule").origin.clone();
        let why = format!(
            "housekeeping.schedule is {schedule:?}: {why}; write six fields: second, minute, hour, \
             day, month, weekday, such as \"0 30 3 * * *\""
        );
        layers.problem(&origin, why);
    }
    Housekeeping {
        schedule,
        archive_keep: layers.duration("housekeeping", "archive_keep"),
        records_keep: layers.duration("housekeeping", "records_keep"),
        remote_cleanup: layers.flag("housekeeping", "remote_cleanup"),
    }
}

/// Whether a text is a cron line with seconds, and one whose time ever comes.
fn check_schedule(line: &str) -> Result<(), String> {
    let parser = CronParser::builder().seconds(Seconds::Required).build();
    let cron = parser.parse(line).map_err(|error| error.to_string())?;
    let from = jiff::Timestamp::UNIX_EPOCH.to_zoned(jiff::tz::TimeZone::UTC);
    let first = cron.find_next_occurrence(&from, false);
    first.map(drop).map_err(|_| "that time never comes".to_owned())
}

impl Layers {
    /// A text or a word of a choice.
    pub fn text(&self, section: &str, key: &'static str) -> String {
        let Value::Text(text) = &self.get(section, key).value else {
            unreachable!("{section}.{key} is a text by the table")
        };
        text.clone()
    }

    /// True or false.
    pub fn flag(&self, section: &str, key: &'static str) -> bool {
        matches!(self.get(section, key).value, Value::Flag(true))
    }

    /// A whole number within limits.
    pub fn integer<N: TryFrom<i64> + Default>(
        &mut self,
        section: &str,
        key: &'static str,
        least: i64,
        most: i64,
    ) -> N {
        let placed = self.get(section, key).clone();
        let Value::Integer(number) = placed.value else {
            unreachable!("{section}.{key} is a number by the table")
        };
        if let (true, Ok(number)) = ((least..=most).contains(&number), N::try_from(number)) {
            return number;
        }
        let range = if most == i64::MAX {
            format!("{least} or more")
        } else {
            format!("between {least} and {most}")
        };
        self.problem(&placed.origin, format!("{section}.{key} is {number}; it must be {range}"));
        N::default()
    }

    /// A path: relative to the file's folder if it comes from a file, else to the current
    /// folder; `~/` is the home folder. `None` if empty.
    pub fn path(
        &self,
        section: &str,
        key: &'static str,
        environment: &Environment,
    ) -> Option<PathBuf> {
        let text = self.text(section, key);
        if text.is_empty() {
            return None;
        }
        let here = environment.folder();
        let base = match &self.get(section, key).origin {
            Origin::File { path, .. } => here.join(path.parent().unwrap_or(Path::new(""))),
            Origin::Default | Origin::Environment(_) | Origin::Flag(_) => here.to_owned(),
        };
        // `./` in the middle would only confuse whoever reads the path.
        Some(base.join(home(&text, environment)).components().collect())
    }

    /// A TCP address, if it is set.
    pub fn address(&mut self, section: &str, key: &'static str) -> Option<SocketAddr> {
        let text = self.text(section, key);
        if text.is_empty() {
            return None;
        }
        let here = text.strip_prefix("localhost:").map(|port| format!("127.0.0.1:{port}"));
        let address = here.as_ref().unwrap_or(&text).parse();
        if address.is_err() {
            let origin = self.get(section, key).origin.clone();
            let why = format!(
                "{section}.{key} is {text:?}, which is no address; write one like \
                 \"127.0.0.1:8787\""
            );
            self.problem(&origin, why);
        }
        address.ok()
    }

    /// A span of time.
    pub fn duration(&self, section: &str, key: &'static str) -> Duration {
        let Value::Duration(duration) = self.get(section, key).value else {
            unreachable!("{section}.{key} is a duration by the table")
        };
        duration
    }

    /// The same; nothing is a problem.
    pub fn duration_above_zero(&mut self, section: &str, key: &'static str) -> Duration {
        let duration = self.duration(section, key);
        if duration.is_zero() {
            let origin = self.get(section, key).origin.clone();
            self.problem(&origin, format!("{section}.{key} must be longer than nothing"));
        }
        duration
    }

    /// A number of bytes up to `most`.
    pub fn size(&mut self, section: &str, key: &'static str, most: u64) -> u64 {
        let placed = self.get(section, key).clone();
        let Value::Size(size) = placed.value else {
            unreachable!("{section}.{key} is a size by the table")
        };
        if size == 0 || size > most {
            let why = format!("{section}.{key} must be between 1 and {most} bytes, not {size}");
            self.problem(&placed.origin, why);
        }
        size
    }

    fn ordered(
        &mut self,
        section: &str,
        (low_key, low): (&'static str, Duration),
        (high_key, high): (&'static str, Duration),
    ) {
        if low <= high {
            return;
        }
        let mut origin = self.get(section, low_key).origin.clone();
        if origin == Origin::Default {
            origin = self.get(section, high_key).origin.clone();
        }
        let why = format!("{section}.{low_key} is longer than {section}.{high_key}");
        self.problem(&origin, why);
    }
}

/// Replaces a leading `~/`.
fn home(text: &str, environment: &Environment) -> PathBuf {
    match (text.strip_prefix("~/"), environment.get("HOME")) {
        (Some(rest), Some(home)) => Path::new(home).join(rest),
        (Some(_), None) | (None, _) => PathBuf::from(text),
    }
}

/// The largest upload the API takes (API contract, 10).
const API_FILE_BYTES: u64 = 2 << 30;
/// One byte less than the API refuses (API contract, 10).
const API_INLINE_BYTES: u64 = (20 << 20) - 1;
/// What `sockaddr_un` holds, less its end mark.
const SOCKET_PATH_BYTES_MAX: usize = 107;
const SOCKET: &str = "gemini-batchd.sock";
const TOKEN: &str = "control.token";
