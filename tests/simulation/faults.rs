//! What goes wrong, and when: the weather of a world, and how its process dies.

use gemini_batchd::engine::ids::Millis;
use gemini_batchd::provider::gemini::emulator::faults::{
    Budget, Ending, Ends, EveryNth, Faults, Poison,
};

use super::random::Random;

/// What holds for some hours. Numbers are parts of a thousand.
#[derive(Debug, Clone, Default)]
pub struct Weather {
    pub until: Millis,
    /// Calls answered 502 or 503.
    pub out: u64,
    /// Calls answered 403.
    pub denied: u64,
    /// Calls answered 429.
    pub limited: u64,
    /// Calls that get lost.
    pub lossy: u64,
    /// Local steps that find the disk full.
    pub full: u64,
    /// Downloads that end early without a sign.
    pub short: u64,
    /// Steps of the world before which the process is killed.
    pub deadly: u64,
}

impl Weather {
    /// The weather of the next hours.
    pub fn draw(random: &mut Random, now: Millis) -> Weather {
        let mut weather = Weather {
            until: now.plus(random.between(HOUR_MS / 2, 10 * HOUR_MS)),
            lossy: random.pick(&[0, 10, 50, 150]),
            deadly: random.pick(&[0, 1, 5, 20]),
            short: random.pick(&[0, 0, 300]),
            ..Weather::default()
        };
        match random.below(10) {
            0 => weather.out = random.pick(&[500, 1000]),
            1 => weather.denied = random.pick(&[500, 1000]),
            2 | 3 => weather.limited = random.pick(&[100, 500, 900]),
            4 => weather.full = random.pick(&[300, 1000]),
            _ => {}
        }
        weather
    }
}

/// What goes wrong inside the API for some hours.
///
/// A batch that failed and shows what it has only later would rightly be taken for empty, so a
/// world has either the one or the other.
pub fn draw_faults(random: &mut Random, late_results: bool) -> Faults {
    let mut faults = Faults { poison: Some(poison()), ..always() };
    let mut seldom = |permille: u64| random.chance(permille);
    if seldom(150) {
        faults.list_empty_first_page = Budget::Times(2);
    }
    faults.list_stale_stats = seldom(200);
    faults.frozen_stats = seldom(100);
    if seldom(100) {
        faults.stuck_pending = Budget::Times(1);
    }
    faults.flex_shed_503 = if seldom(200) { Budget::Times(5) } else { Budget::Never };
    if seldom(100) {
        faults.vanish = Budget::Times(1);
    }
    if late_results && seldom(400) {
        faults.no_output_gets = 4;
    }
    let some = |every: u64| EveryNth { every, times: Budget::Times(2) };
    for fault in [&mut faults.missing, &mut faults.repeated, &mut faults.foreign] {
        if seldom(150) {
            *fault = some(3);
        }
    }
    for fault in [&mut faults.code_13, &mut faults.blocked, &mut faults.truncated] {
        if seldom(150) {
            *fault = some(4);
        }
    }
    if seldom(100) {
        faults.keyless = some(5);
    }
    if seldom(300) {
        faults.shuffled = Budget::Always;
    }
    if seldom(150) {
        faults.upload_session_lost = Budget::Times(2);
    }
    if random.chance(500) {
        faults.list_lag_ms = random.below(LAG_MS);
    }
    if !late_results && random.chance(350) {
        let state = random.pick(&[Ending::Failed, Ending::Cancelled, Ending::Expired]);
        let fraction = random.pick(&[0.0, 0.4, 0.8]);
        faults.ends = Some(Ends { state, fraction, times: Budget::Times(2) });
    }
    faults
}

/// What is no fault of the API: requests that it does not bear.
pub fn always() -> Faults {
    Faults {
        poison: Some(poison()),
        create_opaque_400: Some(OPAQUE.to_owned()),
        ..Faults::default()
    }
}

fn poison() -> Poison {
    Poison { text: POISON.to_owned(), code: 3, message: "Invalid argument.".to_owned() }
}

/// A safety rule that the world breaks, to see whether anybody notices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tamper {
    /// Nothing is broken.
    None,
    /// A batch that is not found at once counts as not created.
    NoSettlingWindow,
    /// After a restart, creates that were begun are begun again.
    NoProbe,
    /// Effects are begun before the records are saved.
    ActBeforeSave,
    /// Records are saved, but not synced.
    SaveWithoutSync,
    /// Rows are asked one by one without a note of it.
    AskBeforeNote,
    /// The manifest goes into the outbox first.
    ManifestFirst,
    /// After a restart, nobody knows what operators hold back.
    ForgetHolds,
    /// Files are taken in without their windows.
    NoWindows,
    /// Files go out whole, whatever becomes of their canaries.
    NoCanary,
    /// The cache answers with what another request got.
    ReuseAnything,
    /// Rows that the cache has answered are sent all the same.
    SendReused,
    /// The engine is not told of the budgets.
    Overspend,
    /// After a restart, nobody knows what was spent and set aside.
    ForgetSpending,
}

/// In a row that contains it, a batch fails as a whole.
pub const POISON: &str = "arsenic";
/// A create with a row that contains it is refused without saying why.
pub const OPAQUE: &str = "lead";
/// New batches are in no list for so long at most, milliseconds.
pub const LAG_MS: u64 = 100_000;
pub const HOUR_MS: u64 = 3_600_000;
pub const DAY_MS: u64 = 24 * HOUR_MS;
