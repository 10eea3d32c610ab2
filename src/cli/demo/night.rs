//! `demo --night`: a bad night within a minute, and the report in the morning.
//!
//! The daemon is the real one; only its clock, and that of the stand-in for Google, go faster.

use std::io::Write;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use jiff::Zoned;
use jiff::civil::time;
use jiff::tz::TimeZone;
use tokio::signal::unix::{SignalKind, signal};

use crate::cli::dropping::drop_into;
use crate::cli::figures::Look as Screen;
use crate::cli::jobs_told::event;
use crate::cli::{ExitCode, Failure, run};
use crate::clock::{Clock, FastClock, SystemClock};
use crate::config::Config;
use crate::control::Look;
use crate::daemon::operators::{Identity, Looks};
use crate::daemon::{Handle, Message, Setup, Until};
use crate::engine::Millis;
use crate::provider::gemini::emulator::{self, Budget, Emulator, Faults, Options};
use crate::view::JobView;
use crate::view::event::EventFilter;

use super::features::Embedded;
use super::stage::configure;
use super::{CLASSIFY, TRANSLATE};

/// Plays the night; gives the exit code of its worst job, or `None` after Ctrl-C.
///
/// # Errors
/// If something does not start, or the report does not come.
pub async fn play(spool: &Path, talk: &mut dyn Write) -> Result<Option<ExitCode>, Failure> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let evening = evening()?;
    let emulator = emulator::start(stand_in(evening)).await?;
    let config = Arc::new(configure(spool, &emulator.url(), SETTINGS)?);
    introduce(spool, &emulator.url(), talk)?;
    let clock = Arc::new(FastClock::new(evening, SLOW));
    let setup = Setup::open(Arc::clone(&config), Arc::clone(&clock) as Arc<dyn Clock>)?;
    for file in FILES {
        let (mut content, name) = (file.content, file.path.rsplit('/').next());
        drop_into(&config.folders.inbox.join(QUEUE), name.unwrap_or(file.path), &mut content)?;
    }
    let handle = setup.daemon.handle();
    let teller = Teller::new(&config, &handle, &clock);
    let report = tokio::select! {
        ended = setup.daemon.run(Until::Stopped) => {
            ended?;
            None
        }
        report = teller.tell(&config, &clock, &emulator, talk) => Some(report?),
        _ = interrupt.recv() => None,
    };
    let Some(report) = report else { return Ok(None) };
    conclude(&report, talk)?;
    emulator.stop().await;
    let views: Vec<JobView> =
        handle.with_engine(|engine| engine.jobs().map(JobView::new).collect());
    Ok(Some(run::worst(&views)))
}

/// Shortly before the window opens.
fn evening() -> Result<Millis, Failure> {
    let failed = |error| Failure::new(ExitCode::Failed, anyhow::Error::new(error));
    let now = i64::try_from(SystemClock.now().0).unwrap_or(i64::MAX);
    let now = jiff::Timestamp::from_millisecond(now).map_err(failed)?;
    let evening = evening_near(&now.to_zoned(TimeZone::system())).map_err(failed)?;
    Ok(Millis(evening.timestamp().as_millisecond().unsigned_abs()))
}

/// Until noon yesterday's evening, then today's: the stand-in tells the real time as well, and no
/// moment of the night may seem to be a day away from that.
fn evening_near(now: &Zoned) -> Result<Zoned, jiff::Error> {
    let day = if now.hour() < 12 { now.yesterday()? } else { now.clone() };
    day.with().time(time(21, 56, 0, 0)).build()
}

/// A stand-in whose first batch never begins, and whose flex tier is busy at first.
fn stand_in(evening: Millis) -> Options {
    Options {
        // It is told the time.
        speed: 0.0,
        start: Some(SystemTime::UNIX_EPOCH + Duration::from_millis(evening.0)),
        pending_for: Duration::from_secs(20 * 60),
        running_for: Duration::from_secs(55 * 60),
        faults: Faults {
            stuck_pending: Budget::times(1),
            flex_shed_503: Budget::times(2),
            ..Faults::default()
        },
        ..Options::default()
    }
}

/// Tells what happens as it happens.
struct Teller {
    looks: Looks,
    handle: Handle,
}

impl Teller {
    fn new(config: &Config, handle: &Handle, clock: &Arc<FastClock>) -> Teller {
        let inbox = config.folders.inbox.display().to_string();
        let identity = Identity { inbox, started: clock.now() };
        let clock = Arc::clone(clock) as Arc<dyn Clock>;
        Teller { looks: Looks { identity, handle: handle.clone(), clock }, handle: handle.clone() }
    }

    /// Until the report is there.
    async fn tell(
        &self,
        config: &Config,
        clock: &FastClock,
        emulator: &Emulator,
        talk: &mut dyn Write,
    ) -> Result<PathBuf, Failure> {
        let screen = Screen { columns: None, ..Screen::of_stdout() };
        let reports = config.folders.outbox.join("reports");
        let (mut after, mut passed) = (0, 0);
        let begun = clock.now();
        loop {
            let filter = EventFilter { after: Some(after), job: None, limit: 1000 };
            let told = self.looks.events(&filter);
            for one in told.events.iter().filter(|one| one.job.is_some()) {
                writeln!(talk, "   {}", event(one, true).shown(&screen))?;
            }
            talk.flush()?;
            after = told.next;
            let before = std::mem::replace(&mut passed, clock.now().since(begun));
            emulator.advance(Duration::from_millis(passed - before));
            let is_quiet = QUIET_MS.iter().any(|quiet| quiet.contains(&passed));
            clock.set_speed(if is_quiet { FAST } else { SLOW });
            if let Some(report) = written(&reports) {
                return Ok(report);
            }
            if passed > NIGHT_MS {
                return Err(Failure::new(ExitCode::Failed, anyhow::Error::msg(NO_REPORT)));
            }
            // As the scheduler does every minute.
            self.handle.tell(Message::HousekeepingDue).await;
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

/// The report, once it is there.
fn written(reports: &Path) -> Option<PathBuf> {
    let entries = std::fs::read_dir(reports).ok()?;
    let mut paths = entries.flatten().map(|entry| entry.path());
    paths.find(|path| path.extension().is_some_and(|ending| ending == "md"))
}

fn introduce(spool: &Path, url: &str, out: &mut dyn Write) -> std::io::Result<()> {
    writeln!(
        out,
        "gemini-batchd demo --night: a bad night within a minute, all on this machine.\n"
    )?;
    writeln!(
        out,
        "1. A stand-in for Google's API listens on {url}. It and the daemon have clocks"
    )?;
    writeln!(out, "   that go up to {FAST} times as fast. Its first batch will never begin.")?;
    writeln!(out, "2. The spool is {}. Its settings:\n", spool.display())?;
    for line in SETTINGS.lines() {
        writeln!(out, "      {line}")?;
    }
    writeln!(
        out,
        "\n3. It is evening. Two files are dropped into inbox/{QUEUE}/, and nobody looks:\n"
    )?;
    out.flush()
}

fn conclude(report: &Path, out: &mut dyn Write) -> std::io::Result<()> {
    let name = report.file_name().unwrap_or_default().to_string_lossy();
    writeln!(out, "\n4. In the morning outbox/reports/{name} lies there:\n")?;
    for line in std::fs::read_to_string(report)?.lines() {
        writeln!(out, "      {line}")?;
    }
    out.flush()
}

const QUEUE: &str = "tickets";
/// What a person would write for a night like that.
const SETTINGS: &str = "\
[queue.\"tickets\"]
release = \"0 22 * * *\"     # nothing is sent before 22:00
deliver_by = \"06:00\"       # the answers are wanted by then …
rescue = [\"flex\"]          # … one by one if need be, at the same price

[report]
schedule = \"0 7 * * *\"
";
const FILES: [Embedded; 2] = [CLASSIFY, TRANSLATE];
const NO_REPORT: &str = "the morning came without a report";
/// How many times as fast the clocks go while much happens.
const SLOW: u32 = 120;
/// And while everybody waits: a quarter of an hour takes a second.
const FAST: u32 = 900;
/// When that is, counted from the evening: from the window to the time before the deadline, and
/// from there to the report.
const QUIET_MS: [Range<u64>; 2] =
    [10 * MINUTE_MS..(7 * 60 + 30) * MINUTE_MS, (8 * 60 + 10) * MINUTE_MS..9 * 60 * MINUTE_MS];
const MINUTE_MS: u64 = 60_000;
/// From the evening to long after the morning.
const NIGHT_MS: u64 = 12 * 3_600_000;
const LOOK_EVERY: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_moment_of_the_night_is_a_day_away_from_now() {
        for minute in 0..24 * 60 {
            let now =
                jiff::civil::date(2026, 11, 23).at((minute / 60) as i8, (minute % 60) as i8, 0, 0);
            let now = now.to_zoned(TimeZone::UTC).expect("a moment");
            let evening = evening_near(&now).expect("a moment");
            let away = evening.timestamp().as_second() - now.timestamp().as_second();
            let morning = away + 10 * 3600;
            assert!(away.abs() < 86_400 && morning.abs() < 86_400, "{now}: {away} {morning}");
        }
    }
}
