//! The morning report: when it is due, what it is made of, and that each comes once.
//!
//! The moment up to which was reported is kept in the store, and set only when the report lies in the
//! outbox: a crash between the two finds it there. Slots that were missed give one report of all the
//! time since.

use jiff::tz::TimeZone;

use crate::engine::ids::Millis;
use crate::engine::job::JobState;
use crate::slots::Slots;
use crate::spool::{SpoolError, outbox, reports};
use crate::store::StoreError;
use crate::view::money::SpendingView;
use crate::view::report::told::day_of;
use crate::view::report::{Gathering, Report};
use crate::view::{Kind, moment};

use super::chronicle::Draft;
use super::looks::{Typical, standing};
use super::{Daemon, lock};

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
enum ReportError {
    /// Records can not be read, or the moment not be kept.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It can not be written.
    #[error(transparent)]
    Spool(#[from] SpoolError),
}

impl Daemon {
    /// Catches up a slot that was missed while no daemon ran. On a new spool there was none.
    pub(super) fn catch_up_report(&mut self) {
        if let Ok(Some(_)) = self.store.note(LAST_REPORT) {
            self.report_due(self.clock.now());
        }
    }

    /// Writes the report if its slot has come. What fails is told, and tried again.
    pub(super) fn report_due(&mut self, now: Millis) {
        match tokio::task::block_in_place(|| self.write_report(now)) {
            Ok(None) => {}
            Ok(Some((stem, report))) => {
                let told = report.told(&TimeZone::system());
                let text = format!("reports/{stem}.md in the outbox: {}", told.headline);
                tracing::info!(stem, "the morning report was written");
                self.note(Draft::of_daemon(Kind::Report, text));
                self.ping_after(&told);
            }
            Err(error) => tracing::error!(%error, "the morning report was not written"),
        }
    }

    /// What happened since a moment.
    ///
    /// # Errors
    /// If what is not in memory can not be read from the store.
    pub(super) fn report(&self, from: Millis, to: Millis) -> Result<Report, StoreError> {
        let mut gathering = Gathering::new(from, to);
        let is_in_memory = self.gather_from_memory(&mut gathering, from, to);
        if !is_in_memory {
            // A busy night: more than is kept in memory. One job at a time is held here, and
            // operators can look meanwhile.
            self.store.each_job(&mut |job| {
                if matches!(job.head.state, JobState::Done(_)) {
                    gathering.take_in(&job);
                }
            })?;
        }
        let engine = lock(&self.engine);
        let (paused, trouble) = standing(&engine, to);
        let trouble = trouble.filter(|why| paused.as_ref() != Some(why));
        let trouble = paused.into_iter().chain(trouble).collect();
        let spending = SpendingView::of(&engine);
        Ok(gathering.finish(engine.past().history(), spending, trouble))
    }

    /// Answers with whether that is all there is to know.
    fn gather_from_memory(&self, gathering: &mut Gathering, from: Millis, to: Millis) -> bool {
        let engine = lock(&self.engine);
        let mut typical = Typical::default();
        for job in engine.unfinished() {
            gathering.take_in(job);
            let view = typical.view(&engine, job, to);
            gathering.take_in_open(job, &view);
        }
        let is_all = !engine.past().has_older_since(from);
        if is_all {
            engine.past().recent().for_each(|job| gathering.take_in(job));
        }
        is_all
    }

    fn write_report(&mut self, now: Millis) -> Result<Option<(String, Report)>, ReportError> {
        let schedule = self.config.report.schedule.clone();
        // The configuration was checked, so a line is one.
        let Ok(slots) = Slots::parse(&schedule, "") else { return Ok(None) };
        let last = self.store.note(LAST_REPORT)?.and_then(|text| text.parse().ok()).map(Millis);
        let Some(last) = last else {
            // The time before the first look at a new spool is not ours.
            self.store.set_note(LAST_REPORT, &now.0.to_string())?;
            return Ok(None);
        };
        if now.plus(SET_BACK_MS) < last {
            // The clock was wrong then, and its slots count anew.
            self.store.set_note(LAST_REPORT, &now.0.to_string())?;
            return Ok(None);
        }
        let is_due = slots.after(last).is_some_and(|slot| slot <= now);
        if !is_due || lock(&self.engine).full().is_some() {
            return Ok(None);
        }
        let report = self.report(last, now)?;
        let folders = &self.performer.folders;
        if self.performer.outbox_was_mounted {
            outbox::check_mounted(folders)?;
        }
        let zone = TimeZone::system();
        let mut json = serde_json::to_vec_pretty(&report).expect("a report has text keys only");
        json.push(b'\n');
        let read = |json: &[u8]| serde_json::from_slice::<Report>(json).ok();
        let is_same = |json: &[u8]| read(json).is_some_and(|found| found.from == moment(last));
        let told = |json: &[u8]| read(json).unwrap_or(report.clone()).markdown(&zone);
        let stem = reports::write(folders, &day_of(&report, &zone), &json, &is_same, &told)?;
        // Before it counts as written: a crash tells it twice rather than never.
        self.note_report(last, &stem, &report.told(&zone).headline, now);
        self.store.set_note(LAST_REPORT, &now.0.to_string())?;
        Ok(Some((stem, report)))
    }
}

/// A clock that is set back by more has been wrong, milliseconds; daylight saving counts as well.
const SET_BACK_MS: u64 = 25 * 3_600_000;
/// The note that keeps up to when was reported.
const LAST_REPORT: &str = "report.last";
