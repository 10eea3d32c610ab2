//! `kill -9` at moments that nobody chose, in nights in which everything else goes wrong too: the
//! API loses replies, batches and rows, operators cancel and release, files are dropped while
//! nobody looks, and every daemon finds another configuration.
//!
//! `GEMINI_BATCHD_KILLS=5000` asks for more kills than the hundred of a plain run, and `SEED=n`
//! makes the same choices again; the moments themselves are the machine's.

use std::process::Child;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use gemini_batchd::provider::gemini::emulator::faults::{
    AfterBytes, CallKind, Ending, Ends, EveryNth, OnCall, Slow,
};
use gemini_batchd::provider::gemini::emulator::{Budget, Faults};
use rustix::process::Signal;

use super::account::{Account, Expected};
use super::dice::{Dice, number, seed};
use super::in_parallel::in_parallel;
use super::rig::{Daemon, End, Rig, eventually, requests};

/// Faults 1, 13, 17 and 19.
#[test]
fn kill_9_at_random_moments_in_bad_nights_loses_nothing_and_pays_once() {
    let seed = seed();
    let wanted = number("GEMINI_BATCHD_KILLS").unwrap_or(100);
    println!("SEED={seed}");
    let expected = Expected::of(&calm());
    let tally = Tally::default();
    let nights = (0_u64..).take_while(|_| tally.kills.load(Ordering::Relaxed) < wanted);
    in_parallel(nights, |night| {
        let what = format!("SEED={seed}, night {night}");
        let mut night = Night::new(Dice(seed ^ (night << 32)), what, &tally);
        night.pass();
        let account = Account::of(&night.rig, &night.what);
        account.check(&expected, VICTIM, &night.what);
        tally.nights.fetch_add(1, Ordering::Relaxed);
        tally.batches.fetch_add(night.rig.created().len() as u64, Ordering::Relaxed);
    });
    println!("campaign: {}, seed {seed}", tally.told());
}

/// What happened in all nights together.
#[derive(Default)]
struct Tally {
    kills: AtomicU64,
    stops: AtomicU64,
    orders: AtomicU64,
    nights: AtomicU64,
    batches: AtomicU64,
}

impl Tally {
    fn told(&self) -> String {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        format!(
            "kills {}, stops {}, orders of operators {}, nights {}, batches {}, lost 0, doubled 0, \
             double creates 0",
            of(&self.kills),
            of(&self.stops),
            of(&self.orders),
            of(&self.nights),
            of(&self.batches)
        )
    }
}

/// One spool, from its first file to its last.
struct Night<'a> {
    rig: Rig,
    dice: Dice,
    what: String,
    tally: &'a Tally,
    /// Files that are still to be dropped.
    late: Vec<(&'static str, usize)>,
}

impl Night<'_> {
    fn new(mut dice: Dice, what: String, tally: &Tally) -> Night<'_> {
        let rig = Rig::new(weather(&mut dice), &SETTINGS);
        let night = Night { rig, dice, what, tally, late: LATE.to_vec() };
        night.reconfigure(0);
        drop_files(&night.rig, &EARLY);
        night
    }

    /// Until everything is answered, daemon after daemon.
    fn pass(&mut self) {
        let mut daemons = 0;
        loop {
            daemons += 1;
            if self.dice.one_in(3) {
                let config = self.dice.below(CONFIGURATIONS.len() as u64) as usize;
                self.reconfigure(config);
            }
            let verb = if self.dice.one_in(3) { "run" } else { "once" };
            let mut daemon = Daemon::start(&mut self.rig.command(&[verb]));
            if !self.dice.one_in(3) {
                // The others may die while they start.
                eventually("it listens", || self.rig.listens() || !daemon.runs());
            }
            let first = Duration::from_millis(self.dice.below(LONGEST_LIFE_MS / 2));
            std::thread::sleep(first);
            if !self.late.is_empty() && self.dice.one_in(2) {
                // Between the two there may well be a kill.
                let file = self.late.remove(0);
                drop_files(&self.rig, &[file]);
            }
            let orders = if self.dice.one_in(3) { self.order() } else { Vec::new() };
            let second = Duration::from_millis(self.dice.below(LONGEST_LIFE_MS / 2));
            std::thread::sleep(second);
            let is_over = self.end(daemon);
            for mut order in orders {
                let obeyed = order.wait().expect("it runs").success();
                self.tally.orders.fetch_add(u64::from(obeyed), Ordering::Relaxed);
            }
            // A night may take long, but it ends.
            if self.late.is_empty() && (is_over || daemons > 60) {
                break;
            }
        }
        self.finish();
    }

    /// Ends a daemon; whether it had come to its end by itself.
    fn end(&mut self, mut daemon: Daemon) -> bool {
        if !daemon.runs() {
            let end = daemon.end();
            let fine = matches!(end, End::Exited(0 | 1 | 3 | 4 | 13));
            assert!(fine, "{}: {end:?}\n{}", self.what, self.rig.log());
            return true;
        }
        if self.dice.one_in(6) {
            let (again, pause) = (self.dice.one_in(3), self.dice.below(50));
            daemon.try_signal(Signal::TERM);
            if again {
                std::thread::sleep(Duration::from_millis(pause));
                daemon.try_signal(Signal::TERM);
            }
            self.tally.stops.fetch_add(1, Ordering::Relaxed);
            let end = daemon.end();
            // Before it listens to signals, a process ends by them.
            let fine =
                matches!(end, End::Exited(0 | 1 | 3 | 4 | 13 | 130)) || end == End::TERMINATED;
            assert!(fine, "{}: {end:?}\n{}", self.what, self.rig.log());
            return false;
        }
        match daemon.kill() {
            End::KILLED => {
                self.tally.kills.fetch_add(1, Ordering::Relaxed);
                false
            }
            End::Exited(0 | 1 | 3 | 4 | 13) => true,
            end => panic!("{}: {end:?}\n{}", self.what, self.rig.log()),
        }
    }

    /// An operator asks for something; perhaps nobody is there to listen, or not for long.
    fn order(&mut self) -> Vec<Child> {
        let verb = if self.dice.one_in(2) { "cancel" } else { "release" };
        let jobs = match verb {
            "cancel" => self.rig.jobs_of(VICTIM),
            _ => self.rig.held_jobs(),
        };
        let ask = |job: &String| self.rig.command(&[verb, job]).spawn().expect("it runs");
        jobs.iter().map(ask).collect()
    }

    /// Lets what is left be done, and those go on that wait for a person.
    fn finish(&mut self) {
        self.reconfigure(0);
        loop {
            match self.rig.once("") {
                End::Exited(13) => self.release_all(),
                End::Exited(0 | 1 | 3 | 4) if self.rig.held_jobs().is_empty() => return,
                End::Exited(0 | 1 | 3 | 4) => self.release_all(),
                end => panic!("{}: {end:?}\n{}", self.what, self.rig.log()),
            }
        }
    }

    fn release_all(&self) {
        let (daemon, _notices) = self.rig.run("");
        for job in self.rig.held_jobs() {
            let done = self.rig.command(&["release", &job]).status().expect("it runs").success();
            assert!(done, "{}: {job} could not be released\n{}", self.what, self.rig.log());
            self.tally.orders.fetch_add(1, Ordering::Relaxed);
        }
        daemon.signal(Signal::TERM);
        assert_eq!(daemon.end(), End::Exited(0), "{}\n{}", self.what, self.rig.log());
    }

    fn reconfigure(&self, number: usize) {
        self.rig.configure(CONFIGURATIONS[number]);
    }
}

impl Drop for Night<'_> {
    /// A night that went wrong is kept to be looked at.
    fn drop(&mut self) {
        if std::thread::panicking() {
            let folder = std::env::temp_dir().join(format!("night-{}", std::process::id()));
            let night = folder.join(self.what.replace([' ', ',', '='], "-"));
            let journal: Vec<String> =
                self.rig.emulator.journal().iter().map(|entry| format!("{entry:?}\n")).collect();
            drop(std::fs::create_dir_all(&night));
            drop(std::fs::write(night.join("journal"), journal.concat()));
            drop(std::fs::write(night.join("log"), self.rig.log()));
            eprintln!("{}: see {}", self.what, night.display());
        }
    }
}

/// The same files on a day without any fault.
fn calm() -> Rig {
    let rig = Rig::new(Faults::default(), &SETTINGS);
    rig.configure(CONFIGURATIONS[0]);
    drop_files(&rig, &EARLY);
    drop_files(&rig, &LATE);
    rig.drain();
    rig
}

fn drop_files(rig: &Rig, files: &[(&'static str, usize)]) {
    for (name, lines) in files {
        // No two files are the same.
        let content = match lines {
            0 => "no request\n{\"contents\": 1}\n".to_owned(),
            lines => requests(*lines).replace("question", &format!("{name}: question")),
        };
        rig.drop_file(name, content);
    }
}

/// What goes wrong at the API in this night. A row may be sent again and again, but is answered
/// once: the emulator's own count of its answers is held against the outbox.
fn weather(dice: &mut Dice) -> Faults {
    let mut times = |most: u64| Budget::times(u32::try_from(dice.below(most + 1)).expect("few"));
    let mut faults = Faults {
        create_429: times(2),
        create_503_before: times(2),
        create_503_after: times(3),
        create_drop_before: times(2),
        create_drop_after: times(3),
        html_502: Some(OnCall { call: None, times: times(4) }),
        upload_refused: times(2),
        upload_session_lost: times(1),
        upload_finalize_lost: times(2),
        upload_start_429: times(1),
        shuffled: times(8),
        repeated: EveryNth { every: 4, times: times(3) },
        foreign: EveryNth { every: 5, times: times(3) },
        keyless: EveryNth::default(),
        code_13: EveryNth { every: 6, times: times(4) },
        code_13_first_only: true,
        slow: Some(Slow { ms: 10, call: None, times: Budget::Always }),
        ..Faults::default()
    };
    faults.ends = Some(Ends { state: Ending::Expired, fraction: 0.5, times: times(2) });
    faults.upload_cut = Some(AfterBytes { after: 1500, times: times(3) });
    faults.download_cut = Some(AfterBytes { after: 700, times: times(3) });
    faults.download_short = Some(AfterBytes { after: 900, times: times(2) });
    faults.download_ranges = dice.one_in(2);
    faults.list_lag_ms = dice.below(2) * 60;
    if dice.one_in(4) {
        let slow = Slow { ms: 150, call: Some(CallKind::Create), times: Budget::Always };
        faults.slow = Some(slow);
    }
    faults
}

/// Files and how many lines they have; none of those with 0 can be sent.
const EARLY: [(&str, usize); 4] =
    [("a.jsonl", 30), ("files/b.jsonl", 40), (VICTIM, 26), ("files/bad.jsonl", 0)];
/// These come while daemons live and die.
const LATE: [(&str, usize); 3] = [("files/c.jsonl", 5), ("late/d.jsonl", 14), ("late/e.jsonl", 3)];
/// Operators may cancel this one.
const VICTIM: &str = "victim.jsonl";
/// Most daemons do not live long enough to finish.
const LONGEST_LIFE_MS: u64 = 600;
const SETTINGS: [&str; 4] = [
    "queue.default.transport = \"inline\"",
    "queue.default.attempts = 40",
    "queue.files.attempts = 40",
    "queue.files.transport = \"file\"",
];
const CONFIGURATIONS: [&[&str]; 4] = [
    &["queue.default.lines_per_batch = 10", "queue.files.lines_per_batch = 10"],
    &["queue.files.lines_per_batch = 7", "api.uncertain = \"hold\"", "limits.uploads = 1"],
    &[
        "queue.default.lines_per_batch = 13",
        "limits.open_batches = 2",
        "intake.duplicates = \"process\"",
    ],
    &[
        "limits.file_bytes = \"8kB\"",
        "limits.storage_bytes = \"8kB\"",
        "queue.files.lines_per_batch = 3",
        "api.uncertain = \"hold\"",
    ],
];
