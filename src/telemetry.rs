//! Logs: to a terminal, as JSON, or for the journal; always on standard error.
//!
//! Standard output belongs to results. Colour only on a terminal that wants it; no time stamps
//! where the journal adds its own. Whatever came from outside is escaped: a file name can not
//! forge a line. Nothing here ever sees the API key.

use std::fmt;
use std::io::IsTerminal;

use tracing::field::{Field, Visit};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FormatFields, MakeWriter};
use tracing_subscriber::util::SubscriberInitExt;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogStyle {
    /// For people at a terminal or in a file: with time stamps.
    Terminal {
        /// With colours.
        colour: bool,
    },
    /// One JSON object a line.
    Json,
    /// For the journal, which adds time stamps itself.
    Journal,
}

/// What decides about the style and the level.
#[derive(Debug, Clone, Default)]
pub struct LogOptions {
    /// `--log-format json`.
    pub json: bool,
    /// `--log-level`, a filter as in `RUST_LOG`; goes before it.
    pub level: Option<String>,
    /// The level when nothing else is said.
    pub default_level: &'static str,
}

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter is not understood.
    #[error("log level {text:?} is not understood: {why}; write error, warn, info, debug or trace")]
    Level {
        /// What was asked for.
        text: String,
        /// What is wrong with it.
        why: String,
    },
    /// Something else in this process has set it up already.
    #[error("logging is set up already")]
    Twice,
}

/// Sets up logging for the whole process.
///
/// # Errors
/// If the level is not understood, or logging is set up already.
pub fn init(options: &LogOptions) -> Result<(), TelemetryError> {
    let filter = filter(options, std::env::var("RUST_LOG").ok())?;
    let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let style = LogStyle::choose(
        options.json,
        set("JOURNAL_STREAM"),
        std::io::stderr().is_terminal(),
        set("NO_COLOR"),
    );
    subscriber(style, filter, std::io::stderr).try_init().map_err(|_| TelemetryError::Twice)
}

impl LogStyle {
    /// The style for what is known of standard error.
    pub fn choose(json: bool, journal: bool, terminal: bool, no_colour: bool) -> LogStyle {
        if json {
            LogStyle::Json
        } else if journal && !terminal {
            // Inherited from a desktop session, JOURNAL_STREAM says nothing about a terminal.
            LogStyle::Journal
        } else {
            LogStyle::Terminal { colour: terminal && !no_colour }
        }
    }
}

fn filter(options: &LogOptions, rust_log: Option<String>) -> Result<EnvFilter, TelemetryError> {
    let default = || options.default_level.to_owned();
    let text = options.level.clone().or(rust_log).filter(|text| !text.is_empty());
    let text = text.unwrap_or_else(default);
    // A bare word that is no level would silently filter out everything.
    let is_level = text.parse::<tracing::level_filters::LevelFilter>().is_ok();
    if !is_level && !text.contains('=') && !text.contains(',') {
        return Err(TelemetryError::Level { text, why: "no such level".to_owned() });
    }
    EnvFilter::try_new(&text)
        .map_err(|error| TelemetryError::Level { text, why: error.to_string() })
}

fn subscriber<W>(
    style: LogStyle,
    filter: EnvFilter,
    writer: W,
) -> Box<dyn tracing::Subscriber + Send + Sync>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let plain = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer);
    match style {
        LogStyle::Json => Box::new(plain.json().flatten_event(true).finish()),
        LogStyle::Journal => {
            let plain = plain.with_ansi(false).without_time().with_target(false);
            Box::new(plain.fmt_fields(OneLine).finish())
        }
        LogStyle::Terminal { colour } => {
            let plain = plain.with_ansi(colour).with_target(false);
            Box::new(plain.fmt_fields(OneLine).finish())
        }
    }
}

/// Writes fields as `name=value` with control characters escaped, so that a record is always
/// exactly one line.
struct OneLine;

impl<'w> FormatFields<'w> for OneLine {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'w>, fields: R) -> fmt::Result {
        let mut visitor = OneLineVisitor { writer, started: false, result: Ok(()) };
        fields.record(&mut visitor);
        visitor.result
    }
}

struct OneLineVisitor<'w> {
    writer: Writer<'w>,
    started: bool,
    result: fmt::Result,
}

impl OneLineVisitor<'_> {
    fn write(&mut self, field: &Field, text: &str) {
        if self.result.is_err() || field.name().starts_with("log.") {
            return;
        }
        let space = if self.started { " " } else { "" };
        let text = escaped(text);
        self.started = true;
        self.result = match field.name() {
            "message" => write!(self.writer, "{space}{text}"),
            name => write!(self.writer, "{space}{name}={text}"),
        };
    }
}

impl Visit for OneLineVisitor<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() != "message" && value.contains([' ', '"', '=']) {
            self.write(field, &format!("{value:?}"));
        } else {
            self.write(field, value);
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.write(field, &format!("{value:?}"));
    }
}

/// The text with control characters, and those that turn the writing direction, spelled out.
pub fn escaped(text: &str) -> String {
    let odd = |c: char| {
        c.is_control()
            || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    if !text.contains(odd) {
        return text.to_owned();
    }
    let mut safe = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if odd(c) {
            safe.extend(c.escape_default());
        } else {
            safe.push(c);
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Page {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("not poisoned").extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(style: LogStyle) -> String {
        let page = Page::default();
        let writer = page.clone();
        let filter = EnvFilter::new("info");
        let subscriber = subscriber(style, filter, move || writer.clone());
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(file = "a\n2026 ERROR forged\u{1b}[31m", rows = 3, "claimed");
            tracing::debug!("not wanted");
        });
        let bytes = page.0.lock().expect("not poisoned").clone();
        String::from_utf8(bytes).expect("UTF-8")
    }

    /// Fault 43.
    #[test]
    fn a_file_name_can_not_forge_a_line() {
        for style in [LogStyle::Terminal { colour: false }, LogStyle::Journal, LogStyle::Json] {
            let text = logged(style);
            assert_eq!(text.lines().count(), 1, "{style:?}: {text}");
            assert!(!text.contains('\u{1b}'), "{style:?}: {text}");
            assert!(text.contains("claimed") && text.contains("forged"), "{style:?}: {text}");
        }
    }

    #[test]
    fn the_journal_adds_its_own_time_stamps() {
        assert!(logged(LogStyle::Journal).trim_start().starts_with("INFO"));
        assert!(logged(LogStyle::Terminal { colour: false }).starts_with("20"));
    }

    #[test]
    fn json_lines_are_json() {
        let line: serde_json::Value = serde_json::from_str(&logged(LogStyle::Json)).expect("JSON");
        assert_eq!(line["rows"], 3);
        assert_eq!(line["message"], "claimed");
    }

    #[test]
    fn colour_needs_a_terminal_that_wants_it() {
        let colour = LogStyle::Terminal { colour: true };
        let plain = LogStyle::Terminal { colour: false };
        assert_eq!(LogStyle::choose(false, false, true, false), colour);
        assert_eq!(LogStyle::choose(false, false, true, true), plain);
        assert_eq!(LogStyle::choose(false, false, false, false), plain);
        assert_eq!(LogStyle::choose(false, true, false, false), LogStyle::Journal);
        assert_eq!(LogStyle::choose(false, true, true, false), colour);
        assert_eq!(LogStyle::choose(true, true, true, false), LogStyle::Json);
    }

    #[test]
    fn the_flag_goes_before_the_environment_and_a_bad_level_is_refused() {
        let with = |level: Option<&str>, rust_log: Option<&str>| {
            let level = level.map(str::to_owned);
            let options = LogOptions { json: false, level, default_level: "info" };
            filter(&options, rust_log.map(str::to_owned)).map(|filter| filter.to_string())
        };
        assert_eq!(with(Some("debug"), Some("error")).expect("known"), "debug");
        assert_eq!(with(None, Some("error")).expect("known"), "error");
        assert_eq!(with(None, None).expect("known"), "info");
        assert!(with(Some("loud"), None).is_err());
    }

    #[test]
    fn text_that_turns_the_writing_direction_is_spelled_out() {
        assert_eq!(escaped("a\u{202e}b\tc"), "a\\u{202e}b\\tc");
        assert_eq!(escaped("日本 – ü"), "日本 – ü");
    }
}
