//! Progress bars: one for each job, on a terminal only.

use std::collections::HashMap;
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::telemetry::escaped;
use crate::view::JobView;

use super::jobs_told::phase;

/// A bar for each job shown so far, on standard error.
#[derive(Debug)]
pub struct Bars {
    all: MultiProgress,
    by_job: Mutex<HashMap<String, ProgressBar>>,
}

impl Default for Bars {
    fn default() -> Bars {
        Bars::new()
    }
}

impl Bars {
    /// No bars yet; none ever, if standard error is no terminal.
    pub fn new() -> Bars {
        let target = match std::io::stderr().is_terminal() {
            true => ProgressDrawTarget::stderr(),
            false => ProgressDrawTarget::hidden(),
        };
        Bars { all: MultiProgress::with_draw_target(target), by_job: Mutex::default() }
    }

    /// Brings a job's bar up to date.
    pub fn show(&self, job: &JobView) {
        let mut by_job = self.by_job.lock().unwrap_or_else(PoisonError::into_inner);
        let bar = by_job.entry(job.id.clone()).or_insert_with(|| {
            let bar = self.all.add(ProgressBar::new(1).with_style(style()));
            bar.set_prefix(escaped(&job.file));
            bar.enable_steady_tick(TICK);
            bar
        });
        bar.set_length(job.lines.total.max(1));
        bar.set_position(job.lines.answered + job.lines.failed);
        bar.set_message(phase(job));
        if job.is_over() {
            bar.abandon();
        }
    }

    /// Stops a job's bar as it stands.
    pub fn finish(&self, id: &str) {
        let by_job = self.by_job.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bar) = by_job.get(id) {
            bar.abandon();
        }
    }

    /// Says something above the bars, or plainly where there are none.
    pub fn say(&self, text: &str) {
        let shown = !self.all.is_hidden() && self.all.println(text).is_ok();
        if !shown {
            // When standard error is gone, there is nobody left to tell.
            drop(writeln!(std::io::stderr(), "{text}"));
        }
    }

    /// Removes all bars.
    pub fn clear(&self) {
        // A terminal that went away needs no clearing.
        drop(self.all.clear());
    }
}

/// A bar for the bytes of a file that is read, hidden for a small one and where nobody looks on.
pub fn of_file(file: &Path) -> ProgressBar {
    let bytes = std::fs::metadata(file).map_or(0, |file| file.len());
    if bytes < LARGE_BYTES || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = "{wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
    let style = ProgressStyle::with_template(style).expect("the template is valid");
    ProgressBar::new(bytes).with_style(style)
}

fn style() -> ProgressStyle {
    ProgressStyle::with_template("{spinner} {prefix:<32} {wide_bar} {pos}/{len} {elapsed} {msg}")
        .expect("the template is valid")
}

/// Less is read in the blink of an eye.
const LARGE_BYTES: u64 = 16_000_000;
const TICK: Duration = Duration::from_millis(120);
