//! `/metrics`: the figures as Prometheus reads them.
//!
//! Labels are states, queues and models only, never names of files or ids, so their number is
//! bounded. Every metric stands in `docs/metrics.md`.

use std::fmt::Write;

use crate::engine::budget::{Budget, Standing};
use crate::engine::money::Amount;
use crate::view::Figures;

/// The media type of the text.
pub const TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A page that is being written.
#[derive(Default)]
struct Page {
    text: String,
}

/// All metrics as text.
pub fn page(figures: &Figures) -> String {
    let mut page = Page::default();
    daemon(figures, &mut page);
    jobs(figures, &mut page);
    delivered(figures, &mut page);
    means(figures, &mut page);
    process(figures, &mut page);
    page.text
}

fn daemon(figures: &Figures, page: &mut Page) {
    let version = [("version", env!("CARGO_PKG_VERSION"))];
    page.metric("gemini_batchd_info", "gauge", "The version of the daemon; always 1.");
    page.value("gemini_batchd_info", &version, 1.0);
    for (name, help, set) in [
        ("gemini_batchd_paused", "1 while nothing is sent.", figures.paused),
        ("gemini_batchd_trouble", "1 while something is wrong.", figures.trouble),
        ("gemini_batchd_draining", "1 while it ends when all is done.", figures.draining),
    ] {
        page.metric(name, "gauge", help);
        page.value(name, &[], f64::from(u8::from(set)));
    }
    let name = "gemini_batchd_events_total";
    page.metric(name, "counter", "Events noted so far.");
    page.value(name, &[], figures.events as f64);
    let name = "gemini_batchd_wakeups_total";
    page.metric(name, "counter", "Notices that batches have ended, by what came of them.");
    let wakeups = &figures.wakeups;
    for (outcome, count) in
        [("taken", wakeups.taken), ("repeated", wakeups.repeated), ("refused", wakeups.refused)]
    {
        page.value(name, &[("outcome", outcome)], count as f64);
    }
    let name = "gemini_batchd_hooks_total";
    page.metric(name, "counter", "What hooks told: events taken, and tries that failed.");
    for (outcome, count) in [("taken", figures.hooks.taken), ("failed", figures.hooks.failed)] {
        page.value(name, &[("outcome", outcome)], count as f64);
    }
    let name = "gemini_batchd_hooks_waiting";
    page.metric(name, "gauge", "Events that hooks could not tell yet.");
    page.value(name, &[], figures.hooks.waiting as f64);
}

fn jobs(figures: &Figures, page: &mut Page) {
    let name = "gemini_batchd_jobs";
    page.metric(name, "gauge", "Jobs by state.");
    for (state, count) in &figures.jobs {
        page.value(name, &[("state", state)], *count as f64);
    }
    let name = "gemini_batchd_queue_jobs";
    page.metric(name, "gauge", "Jobs of a queue that are not over, by state.");
    for queue in &figures.queues {
        let counts = [("waiting", queue.waiting), ("active", queue.active), ("held", queue.held)];
        for (state, count) in counts {
            page.value(name, &[("queue", &queue.name), ("state", state)], count as f64);
        }
    }
    let name = "gemini_batchd_queue_paused";
    page.metric(name, "gauge", "1 while an operator has paused the queue.");
    for queue in &figures.queues {
        page.value(name, &[("queue", &queue.name)], f64::from(u8::from(queue.paused)));
    }
    let name = "gemini_batchd_batches";
    page.metric(name, "gauge", "Batches at the API or being fetched, by state.");
    for state in ["pending", "running", "other", "collecting"] {
        let count = figures.batches.get(state).copied().unwrap_or(0);
        page.value(name, &[("state", state)], count as f64);
    }
    let name = "gemini_batchd_open_lines";
    page.metric(name, "gauge", "Lines that are neither answered nor failed.");
    page.value(name, &[], figures.open_lines as f64);
    let name = "gemini_batchd_batch_typical_seconds";
    page.metric(name, "gauge", "How long batches of a model took lately: the median.");
    for (model, ms) in &figures.typical_ms {
        page.value(name, &[("model", model)], *ms as f64 / 1000.0);
    }
}

fn delivered(figures: &Figures, page: &mut Page) {
    type Count = fn(&crate::engine::history::Delivered) -> u64;
    let counts: [(&str, &str, Count); 7] = [
        ("gemini_batchd_delivered_jobs_total", "Jobs delivered.", |it| it.jobs),
        ("gemini_batchd_answered_lines_total", "Lines answered.", |it| it.answered),
        ("gemini_batchd_failed_lines_total", "Lines failed.", |it| it.failed),
        ("gemini_batchd_prompt_tokens_total", "Tokens of prompts.", |it| it.tokens.prompt),
        ("gemini_batchd_output_tokens_total", "Tokens of answers.", |it| it.tokens.output),
        ("gemini_batchd_thinking_tokens_total", "Tokens of thinking.", |it| it.tokens.thinking),
        ("gemini_batchd_cached_tokens_total", "Prompt tokens from a cache.", |it| it.tokens.cached),
    ];
    for (name, help, count) in counts {
        page.metric(name, "counter", &format!("{help} Since the start, by model."));
        for (model, delivered) in &figures.delivered {
            page.value(name, &[("model", model)], count(delivered) as f64);
        }
    }
}

/// Money, in the currency of the configuration, and tokens in the API's queues.
fn means(figures: &Figures, page: &mut Page) {
    type Part = fn(&Standing) -> Option<Amount>;
    let parts: [(&str, &str, Part); 3] = [
        ("gemini_batchd_spent", "Money spent in a period.", |it| Some(it.spent)),
        ("gemini_batchd_set_aside", "Money set aside for what is under way.", |it| Some(it.held)),
        ("gemini_batchd_budget", "Money that may be spent in a period.", |it| it.limit),
    ];
    for (name, help, part) in parts {
        page.metric(name, "gauge", help);
        for standing in &figures.standings {
            let (period, queue) = match &standing.budget {
                Budget::Job => continue,
                Budget::Queue(name) => ("night", name.as_str()),
                Budget::Night => ("night", ""),
                Budget::Month => ("month", ""),
            };
            if let Some(amount) = part(standing) {
                page.value(name, &[("period", period), ("queue", queue)], amount.0 as f64 / 1e9);
            }
        }
    }
    let name = "gemini_batchd_cost_total";
    page.metric(name, "counter", "Cost of delivered jobs. Since the start, by model.");
    for (model, delivered) in &figures.delivered {
        page.value(name, &[("model", model)], delivered.cost.0 as f64 / 1e9);
    }
    let name = "gemini_batchd_enqueued_tokens";
    page.metric(name, "gauge", "Tokens in the API's queue of a model, estimated.");
    for room in &figures.rooms {
        page.value(name, &[("model", &room.model)], room.enqueued as f64);
    }
    let name = "gemini_batchd_enqueued_tokens_limit";
    page.metric(name, "gauge", "Tokens that the API's queue of a model takes.");
    for (room, ceiling) in figures.rooms.iter().filter_map(|it| Some((it, it.ceiling?))) {
        page.value(name, &[("model", &room.model)], ceiling as f64);
    }
}

/// What every program tells of itself, by the names that everybody uses; what the system does not
/// say is left out.
fn process(figures: &Figures, page: &mut Page) {
    let name = "process_start_time_seconds";
    page.metric(name, "gauge", "When it started, seconds since 1970.");
    page.value(name, &[], figures.started_s as f64);
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
    if let Some(kib) = kib {
        let name = "process_resident_memory_bytes";
        page.metric(name, "gauge", "Memory in use.");
        page.value(name, &[], kib * 1024.0);
    }
    if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
        let name = "process_open_fds";
        page.metric(name, "gauge", "Open files.");
        page.value(name, &[], open.count() as f64);
    }
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks: Vec<f64> =
        fields.split_whitespace().skip(11).take(2).filter_map(|field| field.parse().ok()).collect();
    if let [user, system] = ticks.as_slice() {
        let name = "process_cpu_seconds_total";
        page.metric(name, "counter", "Seconds of processor time used.");
        page.value(name, &[], (user + system) / TICKS_A_SECOND);
    }
}

impl Page {
    fn metric(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a text does not fail.
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn value(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        self.text.push_str(name);
        for (at, (label, value)) in labels.iter().enumerate() {
            let before = if at == 0 { '{' } else { ',' };
            let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = write!(self.text, "{before}{label}=\"{value}\"");
        }
        let after = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.text, "{after} {value}");
    }
}

/// `USER_HZ`, which is the same on all Linux machines.
const TICKS_A_SECOND: f64 = 100.0;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::engine::history::Delivered;
    use crate::view::QueueView;

    fn figures() -> Figures {
        Figures {
            jobs: [("done".to_owned(), 3)].into(),
            queues: vec![QueueView { name: "a\"b\\".to_owned(), held: 2, ..QueueView::default() }],
            batches: [("running", 4)].into(),
            delivered: vec![("m".to_owned(), Delivered { jobs: 5, ..Delivered::default() })],
            typical_ms: vec![("m".to_owned(), 1500)],
            ..Figures::default()
        }
    }

    #[test]
    fn labels_are_escaped_and_every_line_is_one_that_prometheus_reads() {
        let text = page(&figures());
        assert!(text.contains("gemini_batchd_jobs{state=\"done\"} 3\n"), "{text}");
        let odd = "gemini_batchd_queue_jobs{queue=\"a\\\"b\\\\\",state=\"held\"} 2\n";
        assert!(text.contains(odd), "{text}");
        assert!(text.contains("gemini_batchd_batches{state=\"running\"} 4\n"), "{text}");
        assert!(text.contains("gemini_batchd_batch_typical_seconds{model=\"m\"} 1.5\n"), "{text}");
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let value = line.rsplit_once(' ').expect("a value").1;
            assert!(value.parse::<f64>().is_ok(), "{line}");
        }
    }

    #[test]
    fn the_page_of_metrics_names_every_one_and_no_other() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md");
        let told = std::fs::read_to_string(path).expect("docs/metrics.md is there");
        let rows = told.lines().filter_map(|row| row.strip_prefix("| `")?.split_once("` | "));
        let told: BTreeSet<(&str, &str)> =
            rows.map(|(name, rest)| (name, rest.split(" |").next().unwrap_or_default())).collect();
        let text = page(&figures());
        let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
        assert_eq!(types.collect::<BTreeSet<_>>(), told);
    }
}
