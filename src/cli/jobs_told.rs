//! Jobs and events in words: one in a line, one in full, all at a glance.
//!
//! Every text from outside is escaped here. `status`, `list`, `show`, `events` and the screen of
//! `status --watch` are made of these pieces.

use crate::telemetry::escaped;
use crate::view::{BatchView, Event, Health, JobView, Snapshot};

use super::deadlines::deadline;
use super::figures::{Line, Look, Tone, between, local, number, pad, plural, size, span, wrapped};
use super::money;

/// Everything at a glance: how the daemon is, and its jobs in groups, what needs a person first.
pub fn overview(snapshot: &Snapshot, look: &Look) -> Vec<Line> {
    let mut lines = head(&snapshot.health, look);
    if snapshot.counts.values().all(|count| *count == 0) {
        lines.push(Line::plain("no jobs; drop a .jsonl file into the inbox"));
        return lines;
    }
    let counts = snapshot.counts.iter().filter(|(_, count)| **count > 0);
    let counts: Vec<String> =
        counts.map(|(state, count)| format!("{} {state}", number(*count))).collect();
    lines.push(Line::plain(format!("jobs   {}", counts.join(", "))));
    // Where everything is paused, resuming one queue helps nobody; the head says what does.
    let apart = !snapshot.health.paused_by_operator;
    for queue in snapshot.queues.iter().filter(|queue| apart && queue.paused) {
        let resume = format!("; `gemini-batchd resume {}` lets it go on", escaped(&queue.name));
        let queue = format!("queue  {} is paused", escaped(&queue.name));
        lines.push(Line::of(Tone::Warn, queue).and(Tone::Plain, resume));
    }
    lines.extend(snapshot.spending.iter().flat_map(money::spending));
    let group = |name: &str, jobs: &[&JobView], lines: &mut Vec<Line>| {
        if !jobs.is_empty() {
            lines.extend([Line::default(), Line::of(Tone::Strong, name)]);
            lines.extend(jobs.iter().flat_map(|job| brief(job, look)));
        }
    };
    let (needy, others): (Vec<&JobView>, Vec<&JobView>) =
        snapshot.jobs.iter().partition(|job| needs_person(job));
    let (over, live): (Vec<&JobView>, Vec<&JobView>) =
        others.into_iter().partition(|job| job.is_over());
    group("Needs you", &needy, &mut lines);
    group("Under way", &live, &mut lines);
    let newest = &over[..over.len().min(OVER_SHOWN)];
    group("Over", newest, &mut lines);
    let shown = (needy.len() + live.len() + newest.len()) as u64;
    let all: u64 = snapshot.counts.values().sum();
    if all > shown {
        let more = format!("{} more: `gemini-batchd list` shows them", number(all - shown));
        lines.extend([Line::default(), Line::of(Tone::Faint, more)]);
    }
    lines
}

fn head(health: &Health, look: &Look) -> Vec<Line> {
    let up = between(&health.started, &health.now)
        .map_or_else(String::new, |up| format!(", up {}", span(up)));
    let daemon = format!(", process {}{up}, watching by {}", health.pid, escaped(&health.watching));
    let mut lines = vec![
        Line::of(Tone::Strong, format!("gemini-batchd {}", escaped(&health.daemon)))
            .and(Tone::Plain, daemon),
        Line::plain(format!("inbox  {}", escaped(&health.inbox))),
    ];
    let mut warn = |word: &str, tone: Tone, why: &str| {
        let mut parts = wrapped(&escaped(why), look.measure().saturating_sub(9)).into_iter();
        let first = parts.next().unwrap_or_default();
        lines.push(Line::of(tone, format!("{word}: ")).and(Tone::Plain, first));
        lines.extend(parts.map(|part| Line::plain(format!("       {part}"))));
    };
    if let Some(why) = &health.paused {
        warn("PAUSED", Tone::Warn, why);
    } else if health.paused_by_operator {
        warn("PAUSED", Tone::Warn, "by an operator; `gemini-batchd resume` lets it go on");
    }
    if health.draining {
        let why = "what was taken is finished, then the daemon ends; `gemini-batchd resume` takes \
                   it back";
        warn("DRAINING", Tone::Warn, why);
    }
    if let Some(why) = health.trouble.as_ref().filter(|why| health.paused.as_ref() != Some(why)) {
        warn("TROUBLE", Tone::Bad, why);
    }
    lines
}

/// A job in two lines or more: what it is, how far, and why it waits where there is something to say.
fn brief(job: &JobView, look: &Look) -> Vec<Line> {
    let (word, tone) = state(job);
    let first = Line::plain(format!("{}  ", escaped(&job.id)))
        .and(tone, pad(word, STATE_COLUMNS))
        .and(Tone::Plain, format!("  {}", escaped(&job.file)));
    let mut lines = vec![first];
    if job.lines.total > 0 {
        lines.push(bar(job));
    }
    if !job.is_over() {
        lines.push(Line::plain(format!("    {}", phase(job))));
    }
    if let Some(it) = job.deadline.as_ref().filter(|_| !job.is_over()) {
        let (tone, told) = deadline(it);
        lines.push(Line::of(tone, format!("    by {told}")));
    }
    if let Some(reason) = &job.reason {
        let parts = wrapped(&escaped(reason), look.measure().saturating_sub(4));
        lines.extend(parts.into_iter().map(|part| Line::of(Tone::Warn, format!("    {part}"))));
    }
    lines
}

/// How far a job is, drawn and in words.
fn bar(job: &JobView) -> Line {
    let lines = &job.lines;
    let cells = |count: u64| usize::try_from(count * BAR_CELLS / lines.total.max(1)).unwrap_or(0);
    let failed = cells(lines.failed).max(usize::from(lines.failed > 0));
    let answered = cells(lines.answered).min(BAR_CELLS as usize - failed.min(BAR_CELLS as usize));
    let left = (BAR_CELLS as usize).saturating_sub(answered + failed);
    Line::plain("    ")
        .and(Tone::Good, "█".repeat(answered))
        .and(Tone::Bad, "█".repeat(failed))
        .and(Tone::Faint, "░".repeat(left))
        .and(Tone::Plain, format!("  {}", progress(job)))
}

/// One job in full: why it is not finished, what failed and why, what it cost.
pub fn details(job: &JobView, look: &Look) -> Vec<Line> {
    let mut lines = Vec::new();
    let mut tell = |name: &str, tone: Tone, text: &str| {
        let parts = wrapped(text, look.measure().saturating_sub(NAME_COLUMNS));
        for (at, part) in parts.into_iter().enumerate() {
            let name = if at == 0 { name } else { "" };
            lines.push(Line::of(Tone::Faint, pad(name, NAME_COLUMNS)).and(tone, part));
        }
    };
    let (word, tone) = state(job);
    tell("job", Tone::Strong, &job.id);
    let bytes = if job.bytes > 0 { format!(", {}", size(job.bytes)) } else { String::new() };
    tell("file", Tone::Plain, &format!("{}{bytes}", escaped(&job.file)));
    tell("queue", Tone::Plain, &format!("{}, model {}", escaped(&job.queue), escaped(&job.model)));
    tell("state", tone, &format!("{word}: {}", phase(job)));
    if let Some(reason) = &job.reason {
        tell("reason", Tone::Warn, &escaped(reason));
    }
    if let Some(it) = &job.deadline {
        let (tone, told) = deadline(it);
        tell("wanted", tone, &format!("by {told}"));
    }
    if job.lines.total > 0 {
        tell("lines", Tone::Plain, &progress(job));
    }
    let failures = failures(job);
    if !failures.is_empty() {
        tell("failed", Tone::Bad, &failures);
    }
    if job.reused > 0 {
        let text = format!("{} of its lines were answered before and not sent", number(job.reused));
        tell("reused", Tone::Plain, &text);
    }
    if let Some(tokens) = &job.tokens {
        let parts = [
            ("prompt", tokens.prompt),
            ("output", tokens.output),
            ("thinking", tokens.thinking),
            ("cached", tokens.cached),
        ];
        let parts = parts.iter().filter(|(_, count)| *count > 0);
        let parts: Vec<String> =
            parts.map(|(name, count)| format!("{} {name}", number(*count))).collect();
        let parts =
            if parts.is_empty() { String::new() } else { format!(": {}", parts.join(", ")) };
        tell("tokens", Tone::Plain, &format!("{}{parts}", number(tokens.total)));
    }
    if let Some(cost) = &job.cost {
        tell("cost", Tone::Plain, &money::cost(cost));
    }
    if let Some(output) = &job.output {
        tell("output", Tone::Plain, &format!("{}.results.jsonl in the outbox", escaped(output)));
    }
    let times = &job.times;
    tell("claimed", Tone::Plain, &local(&times.claimed));
    for (name, time) in [
        ("planned", &times.planned),
        ("created", &times.first_create),
        ("results", &times.last_result),
        ("done", &times.delivered),
    ] {
        if let Some(time) = time {
            tell(name, Tone::Plain, &local(time));
        }
    }
    if job.batches_total > 0 {
        let listed = job.batches.len() as u64;
        let all = number(job.batches_total);
        let only = if listed < job.batches_total { ", the newest of them" } else { "" };
        tell("batches", Tone::Plain, &format!("{all}{only}"));
    }
    lines.extend(job.batches.iter().flat_map(batch));
    lines
}

fn batch(batch: &BatchView) -> [Line; 2] {
    let answered = batch
        .answered
        .map_or_else(String::new, |answered| format!(", {} answered", number(answered)));
    let took = batch.ended.as_ref().and_then(|ended| between(&batch.created, ended));
    let took = took.map_or_else(String::new, |took| format!(", took {}", span(took)));
    [
        Line::plain(format!("  {}  {}", escaped(&batch.name), escaped(&batch.state))),
        Line::of(
            Tone::Faint,
            format!(
                "    chunk {}, attempt {}, {}{answered}, created {}{took}",
                batch.chunk,
                batch.attempt,
                plural(batch.lines, "line", "lines"),
                local(&batch.created)
            ),
        ),
    ]
}

/// The headings of [`row`].
pub fn row_head() -> Line {
    let text = format!(
        "{:<ID_COLUMNS$}  {:<STATE_COLUMNS$}  {:>11}  {:>6}  FILE",
        "ID", "STATE", "ANSWERED", "AGE"
    );
    Line::of(Tone::Faint, text)
}

/// A job as a row of a table; `now` is RFC 3339.
pub fn row(job: &JobView, now: &str) -> Line {
    let (word, tone) = state(job);
    let lines = &job.lines;
    let answered = match lines.total {
        0 => "-".to_owned(),
        total => format!("{}/{}", number(lines.answered), number(total)),
    };
    let age = between(&job.times.claimed, now).map(span).unwrap_or_default();
    // The first unit is enough in a table.
    let age = age.split(' ').take(2).collect::<Vec<_>>().join(" ");
    Line::plain(format!("{}  ", escaped(&job.id)))
        .and(tone, pad(word, STATE_COLUMNS))
        .and(Tone::Plain, format!("  {answered:>11}  {age:>6}  {}", escaped(&job.file)))
}

/// What happened, in a line; with the file it happened to, unless that is known.
pub fn event(event: &Event, with_file: bool) -> Line {
    let tone = match event.kind.as_str() {
        "done" | "delivered" | "trouble_over" | "resumed" => Tone::Good,
        "held" | "cancelled" | "uncertain" | "paused" | "draining" | "retried" | "deadline"
        | "rescuing" | "stuck" => Tone::Warn,
        "failed" | "trouble" => Tone::Bad,
        _ => Tone::Plain,
    };
    let kind = escaped(&event.kind).replace('_', " ");
    let file = event.file.as_ref().filter(|_| with_file);
    let file = file.map_or_else(String::new, |file| format!("{}: ", escaped(file)));
    Line::of(Tone::Faint, format!("{}  ", local(&event.time)))
        .and(tone, pad(&kind, KIND_COLUMNS))
        .and(Tone::Plain, format!("  {file}{}", escaped(&event.text)))
}

/// What the job does, with how long it has waited and how long that usually takes.
pub fn phase(job: &JobView) -> String {
    let phase = escaped(&job.phase);
    match (job.waiting_s, job.typical_s) {
        (None, _) => phase,
        (Some(waiting), None) => format!("{phase} {}", span(waiting)),
        (Some(waiting), Some(typical)) => {
            format!("{phase} {}, typical {}", span(waiting), span(typical))
        }
    }
}

/// The lines of a job in a few words.
fn progress(job: &JobView) -> String {
    let lines = &job.lines;
    let mut words = format!("{} of {} answered", number(lines.answered), number(lines.total));
    if lines.failed > 0 {
        words.push_str(&format!(", {} failed", number(lines.failed)));
    }
    if lines.open > 0 {
        words.push_str(&format!(", {} open", number(lines.open)));
    }
    words
}

/// Why lines failed, the most frequent reason first.
fn failures(job: &JobView) -> String {
    let mut all: Vec<_> = job.failures.iter().filter(|(_, count)| **count > 0).collect();
    all.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    let told: Vec<String> =
        all.iter().map(|(why, count)| format!("{} {}", number(**count), escaped(why))).collect();
    match (&job.output, told.is_empty()) {
        (Some(output), false) => {
            format!("{}; see {}.errors.jsonl in the outbox", told.join(", "), escaped(output))
        }
        (None, false) | (_, true) => told.join(", "),
    }
}

/// The state in a word, and what it means for a person.
fn state(job: &JobView) -> (&str, Tone) {
    match job.state.as_str() {
        "held" => ("held", Tone::Warn),
        "failed" => ("failed", Tone::Bad),
        "done" if job.lines.failed > 0 && job.lines.answered > 0 => ("partial", Tone::Warn),
        "done" if job.lines.failed > 0 => ("failed", Tone::Bad),
        "done" => ("done", Tone::Good),
        "cancelled" => ("cancelled", Tone::Plain),
        _ if needs_person(job) => ("stuck", Tone::Warn),
        _ if job.on_hold => ("on hold", Tone::Warn),
        other => (other, Tone::Plain),
    }
}

/// Whether nothing goes on before somebody decides.
fn needs_person(job: &JobView) -> bool {
    let stuck = job.chunks.get("stuck").is_some_and(|count| *count > 0);
    let waits = job.phase.ends_with("waits for a person");
    job.state == "held" || ((stuck || waits) && !job.is_over())
}

/// An id is told whole: those of files that came together differ at the end only.
const ID_COLUMNS: usize = 26;
const STATE_COLUMNS: usize = 9;
const KIND_COLUMNS: usize = 13;
const NAME_COLUMNS: usize = 9;
const BAR_CELLS: u64 = 20;
/// Jobs that are over, at a glance.
const OVER_SHOWN: usize = 5;
