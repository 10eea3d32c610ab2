//! The table of all settings: their names, kinds, defaults, and a line about each.
//!
//! Parsing, the check for unknown keys, `config show` and `config example` are all made from
//! this one table, so that none of them can forget a key.

/// One key of the configuration.
#[derive(Debug, Clone, Copy)]
pub(super) struct Setting {
    /// The section; `queue` stands for every queue.
    pub section: &'static str,
    /// The key.
    pub key: &'static str,
    /// What its values look like.
    pub kind: Kind,
    /// The default, as it would stand in the file.
    pub default: &'static str,
    /// One line for people.
    pub about: &'static str,
}

/// What a value looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Any text.
    Text,
    /// A number with a unit of time.
    Duration,
    /// A number of bytes with a unit.
    Size,
    /// A whole number.
    Integer,
    /// `true` or `false`.
    Flag,
    /// A list of texts.
    List,
    /// Whom to call: a URL, or a program and its arguments as a list; kept as a list.
    Call,
    /// A JSON object as a text, or a table; as text where it is kept, and empty for none.
    Object,
    /// A number with or without places behind a point, in quotes or not; as text where it is kept,
    /// and empty for none.
    Decimal,
    /// One of these words.
    Choice(&'static [&'static str]),
}

/// The sections in the order of the example, each with a line about it.
pub(super) const SECTIONS: &[(&str, &str)] = &[
    ("spool", "Where files live."),
    ("intake", "How the inbox is watched."),
    ("api", "How the Gemini API is reached."),
    ("limits", "What is never exceeded. The defaults stay below the limits of the API."),
    ("poll", "How often batches under way are asked for."),
    (CREDENTIAL, "More API keys, each with a name that queues can use."),
    (
        PRICE,
        "What models cost, each in a section of its own: for a million tokens, before the discount of batches.",
    ),
    ("budgets", "What may be spent, in all. Queues and files have budgets of their own."),
    (QUEUE, "For files straight in inbox/, and in sub-folders without a queue of their own."),
    ("cache", "Answers that can be used again; queues say with `cache` whether they do."),
    ("control", "How people and programs reach the daemon."),
    ("hooks", "Who is told what has happened: a URL, or a program and its arguments."),
    ("webhook", "Where the API says that batches have ended, so that they are polled at once."),
    ("housekeeping", "What is tidied up, and when."),
    ("report", "The morning report, in reports/ of the outbox."),
];

/// A section of which there can be many: a sub-folder of the inbox.
pub(super) const QUEUE: &str = "queue";

/// Another of which there can be many: what a model costs.
pub(super) const PRICE: &str = "price";

/// Another of which there can be many: an API key with a name.
pub(super) const CREDENTIAL: &str = "credential";

/// Every setting, in the order of the example.
#[rustfmt::skip]
pub(super) const SETTINGS: &[Setting] = &[
    set("spool", "dir", Kind::Text, r#""""#, "empty: $STATE_DIRECTORY (systemd), else $XDG_DATA_HOME/gemini-batchd"),
    set("spool", "inbox", Kind::Text, r#""""#, "each folder can be elsewhere; relative to dir, empty: its usual name there"),
    set("spool", "working", Kind::Text, r#""""#, "files under way"),
    set("spool", "held", Kind::Text, r#""""#, "files that wait for a person"),
    set("spool", "outbox", Kind::Text, r#""""#, "results"),
    set("spool", "failed", Kind::Text, r#""""#, "files refused whole"),
    set("spool", "archive", Kind::Text, r#""""#, "inputs that are done"),
    set("spool", "state", Kind::Text, r#""""#, "the daemon's own records, on a local disk"),
    set("intake", "watch", Kind::Choice(&["auto", "events", "poll"]), r#""auto""#, "auto | events | poll"),
    set("intake", "settle", Kind::Duration, r#""2s""#, "a file that is copied in must be still for so long"),
    set("intake", "rescan", Kind::Duration, r#""60s""#, "a full look at the inbox at least so often"),
    set("intake", "ignore", Kind::List, "[]", r#"more names never to touch, such as ["*.bak"]"#),
    set("intake", "unpacked_bytes", Kind::Size, r#""64GB""#, "a .gz or .zst that unpacks to more is refused"),
    set("intake", "unpacked_ratio", Kind::Integer, "1000", "so is one that unpacks to so many times its size"),
    set("intake", "duplicates", Kind::Choice(&["hold", "process"]), r#""hold""#, "hold | process: content that was seen before"),
    set("intake", "duplicate_window", Kind::Duration, r#""7d""#, "how long the content of a finished job is remembered"),
    set("api", "base_url", Kind::Text, r#""https://generativelanguage.googleapis.com""#, "http:// only for this machine"),
    set("api", "version", Kind::Text, r#""v1beta""#, "the API version in the path"),
    set("api", "key_file", Kind::Text, r#""""#, r#"else the systemd credential "gemini-api-key", else GEMINI_API_KEY, else GOOGLE_API_KEY"#),
    set("api", "connect_timeout", Kind::Duration, r#""10s""#, "until a connection stands"),
    set("api", "idle_timeout", Kind::Duration, r#""60s""#, "no byte moved for so long"),
    set("api", "backoff_min", Kind::Duration, r#""1s""#, "the first pause after a failure"),
    set("api", "backoff_max", Kind::Duration, r#""5m""#, "the longest pause after failures"),
    set("api", "uncertain", Kind::Choice(&["resubmit", "hold"]), r#""resubmit""#, "resubmit | hold: a create without a reply, and no batch found"),
    set("api", "uncertain_window", Kind::Duration, r#""5m""#, "how long such a batch is looked for before that"),
    set("limits", "file_bytes", Kind::Size, r#""2GB""#, "largest uploaded file; the API takes 2 GiB"),
    set("limits", "inline_bytes", Kind::Size, r#""16MiB""#, "largest request with its lines inside; the API refuses 20 MiB"),
    set("limits", "open_batches", Kind::Integer, "90", "batches under way at once; the API allows 100 to a project"),
    set("limits", "storage_bytes", Kind::Size, r#""20GB""#, "our files at the API, together"),
    set("limits", "enqueued_tokens", Kind::Integer, "0", "prompt tokens enqueued for one model with one key; 0: as many as the API is found to let in"),
    set("limits", "enqueued_tokens_of", Kind::Object, r#""""#, r#"the same for single models, such as { "gemini-2.5-pro" = 5000000 }"#),
    set("limits", "uploads", Kind::Integer, "2", "uploads at once"),
    set("limits", "rescue_parallel", Kind::Integer, "16", "calls for single lines at once, when a deadline is near"),
    set("limits", "free_bytes", Kind::Size, r#""64MiB""#, "with less free on the spool's disk nothing new is begun"),
    set("poll", "min", Kind::Duration, r#""10s""#, "after a change"),
    set("poll", "max", Kind::Duration, r#""5m""#, "when nothing has changed for long"),
    set(CREDENTIAL, "key_file", Kind::Text, r#""""#, r#"else the systemd credential "gemini-api-key.NAME", else GEMINI_API_KEY_NAME"#),
    set(PRICE, "input", Kind::Decimal, r#""""#, "prompt tokens"),
    set(PRICE, "output", Kind::Decimal, r#""""#, "tokens of answers, thinking included"),
    set(PRICE, "cached", Kind::Decimal, r#""""#, "prompt tokens from a cache; empty: like input"),
    set(PRICE, "image", Kind::Decimal, r#""""#, "of each image, in place of its output tokens"),
    set(PRICE, "batch_factor", Kind::Decimal, r#""0.5""#, "what batches cost of that"),
    set("budgets", "currency", Kind::Text, r#""USD""#, "of all prices and budgets"),
    set("budgets", "night", Kind::Decimal, r#""""#, "from noon to noon, local time; empty: no limit"),
    set("budgets", "month", Kind::Decimal, r#""""#, "for each calendar month; empty: no limit"),
    set("budgets", "queue", Kind::Object, r#""""#, r#"a night's budgets of single queues, such as { reviews = "5.00" }"#),
    set(QUEUE, "model", Kind::Text, r#""gemini-2.5-flash""#, "the model for every line of the file"),
    set(QUEUE, "task", Kind::Choice(&["generate", "embed"]), r#""generate""#, "generate | embed: what the lines ask for"),
    set(QUEUE, "transport", Kind::Choice(&["auto", "inline", "file"]), r#""auto""#, "auto | inline | file: how the lines travel"),
    set(QUEUE, "lines_per_batch", Kind::Integer, "0", "0: as many as the limits allow"),
    set(QUEUE, "priority", Kind::Integer, "0", "higher goes first"),
    set(QUEUE, "attempts", Kind::Integer, "3", "how often an unanswered line is sent before it counts as failed"),
    set(QUEUE, "media_root", Kind::Text, r#""""#, "lines may name files below this folder, too; empty: only beside their input"),
    set(QUEUE, "accept_truncated", Kind::Flag, "true", "an answer cut off at the token limit counts as answered"),
    set(QUEUE, "accept_blocked", Kind::Flag, "false", "so does one blocked by a filter"),
    set(QUEUE, "accept_empty", Kind::Flag, "false", "so does one without content"),
    set(QUEUE, "openai", Kind::Choice(&["layer", "translate"]), r#""layer""#, "layer | translate: what becomes of lines in the OpenAI batch format"),
    set(QUEUE, "max_output_tokens", Kind::Integer, "65536", "where accept_truncated = false: the limit of a line that was cut off is doubled up to this"),
    set(QUEUE, "check_schema", Kind::Flag, "false", "an answer that does not fit its request's responseSchema does not count; its line is sent again"),
    set(QUEUE, "media", Kind::Choice(&["auto", "files", "inline"]), r#""auto""#, "auto | files | inline: images and the like in answers; auto: files if the model makes images"),
    set(QUEUE, "defaults", Kind::Object, r#""""#, "a JSON object, or a table: members for every request that lacks them"),
    set(QUEUE, "template", Kind::Text, r#""""#, r#"the prompt of a .csv record or .txt line, such as "Translate: {{text}}"; empty: the column prompt, or the line"#),
    set(QUEUE, "key_column", Kind::Text, r#""""#, "the keys of a .csv; empty: its column key or id, if it has one"),
    set(QUEUE, "csv_delimiter", Kind::Text, r#""""#, r#"what stands between the fields of a .csv, such as ";" or "tab"; empty: what seems to"#),
    set(QUEUE, "emit_csv", Kind::Flag, "false", "the answers to a .csv also come as one, NAME.results.csv"),
    set(QUEUE, "cache", Kind::Text, r#""off""#, r#"how long answers are used again for the same request, such as "30d""#),
    set(QUEUE, "credential", Kind::Text, r#""""#, "name of the API key to use; empty: the one of [api]"),
    set(QUEUE, "release", Kind::Text, r#""""#, r#"cron: its files wait until then, such as "0 22 * * *" for 22:00; empty: they go at once"#),
    set(QUEUE, "time_zone", Kind::Text, r#""""#, r#"in which release and deliver_by count, such as "Europe/Berlin"; empty: that of this machine"#),
    set(QUEUE, "canary", Kind::Integer, "0", "so many lines go first, and the rest only if they come back well; 0: all at once"),
    set(QUEUE, "canary_limit", Kind::Text, r#""10%""#, r#"so many of them may be bad: "10%", or a number of lines such as "2""#),
    set(QUEUE, "deliver_by", Kind::Text, r#""""#, r#"when results are wanted: a time of day such as "06:00", or a span such as "10h""#),
    set(QUEUE, "rescue", Kind::List, "[]", r#"["flex"] or ["flex", "standard"]: how lines are asked one by one when the deadline is near; []: not"#),
    set(QUEUE, "stuck", Kind::Choice(&["report", "resubmit", "split"]), r#""report""#, "report | resubmit | split: a batch that does not begin"),
    set(QUEUE, "stuck_after", Kind::Text, r#""auto""#, r#"a span such as "12h"; auto: four times what is usual, 6h at least"#),
    set(QUEUE, "budget", Kind::Decimal, r#""""#, "what each file may cost; empty: no limit"),
    set(QUEUE, "emit", Kind::Choice(&["whole", "chunks"]), r#""whole""#, "whole (chunks: not in this version)"),
    set("cache", "max_bytes", Kind::Size, r#""1GB""#, "disk for answers that can be used again; the oldest go first"),
    set("control", "socket", Kind::Text, r#""""#, "empty: gemini-batchd.sock in $RUNTIME_DIRECTORY (systemd), else in the spool's state folder"),
    set("control", "listen", Kind::Text, r#""""#, "a TCP address for dashboard and metrics, such as \"127.0.0.1:8787\"; empty: none"),
    set("control", "hosts", Kind::List, "[]", "more names that requests to it may be meant for, behind a proxy for example"),
    set("control", "token_file", Kind::Text, r#""""#, "holds the token that changes over it need; empty: control.token in the state folder"),
    set("hooks", "on_done", Kind::Call, "[]", r#"every line of a job was answered; "https://…", or ["/usr/local/bin/notify", "--now"]"#),
    set("hooks", "on_partial", Kind::Call, "[]", "some lines failed, or the job was cancelled"),
    set("hooks", "on_failed", Kind::Call, "[]", "no line was answered, or the file was refused"),
    set("hooks", "on_held", Kind::Call, "[]", "a file waits for a person"),
    set("hooks", "on_stuck", Kind::Call, "[]", "part of a job waits for a person, or for longer than is usual"),
    set("hooks", "on_report", Kind::Call, "[]", "the morning report is there"),
    set("hooks", "on_late", Kind::Call, "[]", "a job was delivered after its deliver_by"),
    set("hooks", "timeout", Kind::Duration, r#""60s""#, "a program that takes longer is ended, with all it started"),
    set("hooks", "secret_file", Kind::Text, r#""""#, r#"signs webhooks (whsec_…); else the systemd credential "hooks-secret"; without one they are not signed"#),
    set("hooks", "ping", Kind::Text, r#""""#, "a URL that is fetched with every morning report by which nothing failed"),
    set("webhook", "listen", Kind::Text, r#""""#, r#"a TCP address for what the API sends, such as "127.0.0.1:8788"; empty: none"#),
    set("webhook", "secret_file", Kind::Text, r#""""#, r#"the webhook's secret (whsec_…); else the systemd credential "webhook-secret""#),
    set("housekeeping", "schedule", Kind::Text, r#""0 30 3 * * *""#, "cron with seconds, local time: every day at 03:30"),
    set("housekeeping", "archive_keep", Kind::Duration, r#""30d""#, "inputs in archive/ are removed after"),
    set("housekeeping", "records_keep", Kind::Duration, r#""90d""#, "records of finished jobs are removed after"),
    set("housekeeping", "remote_cleanup", Kind::Flag, "true", "remove files and batches at the API when a job is done"),
    set("report", "schedule", Kind::Text, r#""0 0 7 * * *""#, "cron, local time: every day at 07:00; empty: none is written"),
    set("report", "keep", Kind::Duration, r#""90d""#, "reports are removed after"),
];

/// Settings whose feature is still to come: section, key, the only value taken today.
pub(super) const NOT_YET: &[(&str, &str, &str)] = &[(QUEUE, "emit", r#""whole""#)];

/// The settings of one section.
pub(super) fn of_section(section: &str) -> impl Iterator<Item = &'static Setting> {
    SETTINGS.iter().filter(move |setting| setting.section == section)
}

const fn set(
    section: &'static str,
    key: &'static str,
    kind: Kind,
    default: &'static str,
    about: &'static str,
) -> Setting {
    Setting { section, key, kind, default, about }
}
