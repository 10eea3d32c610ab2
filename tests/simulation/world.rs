//! The world around the engine: one thread, one seed, virtual time.
//!
//! How the process lives and dies is in `process`, what it does in `shell` and `network`, what goes
//! wrong in `faults`, what must hold in `rules`.

use std::collections::BTreeMap;

use gemini_batchd::engine::Engine;
use gemini_batchd::engine::effect::Issued;
use gemini_batchd::engine::event::Event;
use gemini_batchd::engine::ids::{JobId, Millis};
use gemini_batchd::engine::job::{Queue, Source};
use gemini_batchd::engine::policy::{Duplicates, Policy, Uncertain};
use gemini_batchd::provider::gemini::emulator::Faults;
use gemini_batchd::store::MemoryStore;

use super::api::Api;
use super::disk::Disk;
use super::faults::{self, DAY_MS, HOUR_MS, Tamper, Weather};
use super::files::Dropped;
use super::fixtures::{limits, queue};
use super::money::{self, Account};
use super::network::Late;
use super::random::Random;
use super::rescuing::Asked;
use super::steering::{Told, queue_of};
use super::windows::canary_of;

/// Everything there is.
pub struct World {
    pub transcript: Vec<String>,
    pub tamper: Tamper,
    pub random: Random,
    /// True time; the engine's clock may show another.
    pub now: Millis,
    pub begun_at: Millis,
    pub faults_until: Millis,
    /// How far the engine's clock is ahead, milliseconds.
    pub ahead: i64,
    pub policy: Policy,
    pub engine: Engine,
    pub store: MemoryStore,
    /// What a store that does not sync would have on the disk.
    pub synced: MemoryStore,
    pub disk: Disk,
    /// The disk as it was synced last, while a power cut is going to come.
    pub safe: Option<Disk>,
    pub api: Api,
    pub weather: Weather,
    /// Whether results may be shown later than the end of their batch.
    late_results: bool,
    /// How many steps of an effect are still taken before the process dies inside it.
    pub doom: Option<u64>,
    /// Effects that are going to be done.
    pub begun: Vec<(Millis, Issued)>,
    /// What came of effects, on its way to the engine.
    pub replies: Vec<(Millis, Event)>,
    pub late: Vec<Late>,
    /// Files still to be dropped.
    pub to_drop: Vec<(Millis, Dropped)>,
    /// Every file that was dropped, by number.
    pub files: BTreeMap<u64, Dropped>,
    /// Which file a job was made of.
    pub origins: BTreeMap<JobId, u64>,
    /// Downloads that ended early, by batch.
    pub shorts: BTreeMap<String, u32>,
    /// Rescues that were begun, and whether nothing was in their way.
    pub rescues: BTreeMap<JobId, bool>,
    /// Jobs that were delivered of those that were wanted by some time, and whether they were in time.
    pub wanted: BTreeMap<JobId, bool>,
    /// How often each row was asked by itself and answered.
    pub asked: Asked,
    /// What operators were told.
    pub told: Told,
    /// Answers that can be used again, by their requests.
    pub kept: BTreeMap<String, String>,
    /// Rows that were answered so.
    pub reused: u64,
    /// What every create may cost.
    pub account: Account,
    /// Tokens that the API lets into the queue of a model; 0: any number.
    queue_tokens: u64,
    jobs_made: u64,
    pub next_scan: Millis,
    next_housekeeping: Millis,
}

/// Why things do not go on as usual.
#[derive(Debug)]
pub enum Halt {
    /// The process dies.
    Crash(&'static str),
    /// A promise is broken.
    Violation(String),
}

/// What was done, unless things came to a halt.
pub type Step<T = ()> = Result<T, Halt>;

/// What happens next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Next {
    Late(usize),
    Reply(usize),
    Begun(usize),
    Drop(usize),
    Scan,
    Housekeeping,
    Tick,
}

impl World {
    pub fn new(seed: u64, tamper: Tamper) -> World {
        let mut random = Random::new(seed);
        let (means, queue_tokens) = money::draw(seed);
        let storage_bytes = random.between(2000, 40_000);
        let policy = Policy {
            open_batches: random.between(2, 6) as usize,
            storage_bytes,
            uploads: random.between(1, 3) as usize,
            inline_bytes: random.pick(&[0, 4000]),
            poll_min_ms: random.pick(&[60_000, 600_000, 600_000]),
            poll_max_ms: random.pick(&[HOUR_MS, 2 * HOUR_MS, 3 * HOUR_MS]),
            backoff_max_ms: random.pick(&[300_000, HOUR_MS / 2]),
            uncertain: random.pick(&[Uncertain::Resubmit, Uncertain::Resubmit, Uncertain::Hold]),
            uncertain_window_ms: match tamper {
                Tamper::NoSettlingWindow => 1,
                _ => 300_000,
            },
            duplicates: random.pick(&[Duplicates::Hold, Duplicates::Process]),
            duplicate_window_ms: 7 * DAY_MS,
            records_keep_ms: 60 * DAY_MS,
            means,
            ..limits()
        };
        let now = Millis(1_760_000_000_000);
        let pending_ms = random.pick(&[60_000, HOUR_MS, 20 * HOUR_MS]);
        let running_ms = random.pick(&[60_000, HOUR_MS, 20 * HOUR_MS]);
        let api = Api::new(seed, pending_ms, running_ms, storage_bytes * 3);
        let (engine, _) = Engine::resume(Vec::new(), policy.clone(), now);
        let mut world = World {
            transcript: Vec::new(),
            tamper,
            random,
            now,
            begun_at: now,
            faults_until: now.plus(0),
            ahead: 0,
            policy,
            engine,
            store: MemoryStore::new(),
            synced: MemoryStore::new(),
            disk: Disk::default(),
            safe: None,
            api,
            weather: Weather::default(),
            late_results: seed.is_multiple_of(2),
            doom: None,
            begun: Vec::new(),
            replies: Vec::new(),
            late: Vec::new(),
            to_drop: Vec::new(),
            files: BTreeMap::new(),
            origins: BTreeMap::new(),
            shorts: BTreeMap::new(),
            rescues: BTreeMap::new(),
            wanted: BTreeMap::new(),
            asked: Asked::default(),
            told: Told::default(),
            kept: BTreeMap::new(),
            reused: 0,
            account: Account::default(),
            queue_tokens,
            jobs_made: 0,
            next_scan: now,
            next_housekeeping: now.plus(DAY_MS),
        };
        let (engine, _) = Engine::resume(Vec::new(), world.policy_in_force(), now);
        world.engine = engine;
        world.plan_life();
        world
    }

    fn plan_life(&mut self) {
        let span = self.random.between(2, 9) * DAY_MS;
        self.faults_until = self.now.plus(span);
        for number in 0..self.random.between(1, 7) {
            let at = self.now.plus(self.random.below(span));
            let mut file = Dropped::draw(&mut self.random, number);
            let earlier = self.random.below(number) as usize;
            if self.random.chance(150)
                && let Some((_, same)) = self.to_drop.get(earlier)
            {
                file = Dropped { name: file.name, ..same.clone() };
            }
            self.to_drop.push((at, file));
        }
    }

    /// Lives until everything is done.
    ///
    /// # Errors
    /// The promise that was broken.
    pub fn run(&mut self) -> Result<(), String> {
        for _ in 0..STEPS_MAX {
            let lived = self.live_on();
            let goes_on = match lived {
                Err(halt) => self.survive(halt).map(|()| true)?,
                Ok(goes_on) => goes_on,
            };
            self.check_always()?;
            if !goes_on {
                return self.check_the_end();
            }
            if self.now > self.faults_until.plus(CALM_MAX_MS) {
                return Err(format!("it never ends: {}", self.what_hangs()));
            }
        }
        Err(format!("it goes on without getting anywhere: {}", self.what_hangs()))
    }

    /// Lets the next thing happen; `false` if nothing is left to happen.
    fn live_on(&mut self) -> Step<bool> {
        self.change_weather()?;
        self.look_at_the_calendar()?;
        if self.is_faulty() {
            if self.random.chance(self.weather.deadly) {
                return Err(Halt::Crash("at rest"));
            }
            self.meddle()?;
        } else if self.let_everything_go()? {
            return Ok(true);
        }
        let Some((at, next)) = self.next_thing() else { return self.let_people_decide() };
        if !self.wait_until(at)? {
            return Ok(true);
        }
        match next {
            Next::Late(at) => {
                let late = self.late.remove(at);
                self.create_arrives(&late.model, &late.body)?;
            }
            Next::Reply(at) => {
                let (_, event) = self.replies.remove(at);
                self.tell(event)?;
            }
            Next::Begun(at) => {
                let (_, issued) = self.begun.remove(at);
                self.do_effect(issued)?;
            }
            Next::Drop(at) => {
                let (_, file) = self.to_drop.remove(at);
                self.drop_file(file);
            }
            Next::Scan => self.scan()?,
            Next::Housekeeping => {
                self.next_housekeeping = self.now.plus(DAY_MS);
                self.mend_windows()?;
                self.tell(Event::Housekeeping)?;
            }
            Next::Tick => self.tell(Event::Tick)?,
        }
        Ok(true)
    }

    fn next_thing(&self) -> Option<(Millis, Next)> {
        let ahead = self.ahead;
        let tick = self.engine.next_wakeup();
        let tick = tick.map(|at| (Millis(at.0.saturating_add_signed(-ahead)), Next::Tick));
        let scan = (!self.inbox_is_left_alone()).then_some((self.next_scan, Next::Scan));
        let first = |list: &mut dyn Iterator<Item = Millis>| {
            list.enumerate().map(|(index, at)| (at, index)).min()
        };
        let late = first(&mut self.late.iter().map(|late| late.at));
        let reply = first(&mut self.replies.iter().map(|(at, _)| *at));
        let begun = first(&mut self.begun.iter().map(|(at, _)| *at));
        let drop = first(&mut self.to_drop.iter().map(|(at, _)| *at));
        // When the disk has room again, the engine is told.
        let room = self.engine.full().map(|_| (self.weather.until.max(self.now), Next::Tick));
        let dawn = self.end_of_the_night().map(|at| (at, Next::Tick));
        let things = [
            room,
            dawn,
            late.map(|(at, index)| (at, Next::Late(index))),
            reply.map(|(at, index)| (at, Next::Reply(index))),
            begun.map(|(at, index)| (at, Next::Begun(index))),
            drop.map(|(at, index)| (at, Next::Drop(index))),
            scan,
            tick,
        ];
        let next = things.into_iter().flatten().min()?;
        let housekeeping = (self.next_housekeeping, Next::Housekeeping);
        Some(next.min(housekeeping))
    }

    /// Time passes; `false` if something was begun meanwhile. The daemon looks up every few
    /// seconds; here only where that matters.
    fn wait_until(&mut self, at: Millis) -> Step<bool> {
        let under_way = self.begun.len();
        while at.since(self.now) > LOOK_UP_MS && self.engine_watches_the_clock() {
            self.now = self.now.plus(LOOK_UP_MS);
            self.tell(Event::Tick)?;
            if self.begun.len() > under_way {
                return Ok(false);
            }
        }
        self.now = self.now.max(at);
        Ok(true)
    }

    fn drop_file(&mut self, file: Dropped) {
        if self.disk.inbox.contains_key(&file.name) {
            let at = self.now.plus(HOUR_MS);
            self.to_drop.push((at, file));
            return;
        }
        let number = self.files.len() as u64;
        self.note(format!("{} is dropped as number {number}", file.name));
        self.disk.inbox.insert(file.name.clone(), number);
        self.files.insert(number, file);
    }

    /// The scan tells of every file in the inbox, again and again.
    fn scan(&mut self) -> Step {
        self.next_scan = self.now.plus(30_000);
        self.notice_sometimes()?;
        let found: Vec<(String, u64)> =
            self.disk.inbox.iter().map(|(name, number)| (name.clone(), *number)).collect();
        for (name, number) in found {
            self.jobs_made += 1;
            let id = format!("{:026}", self.jobs_made).parse().expect("an id");
            let window_ms = self.files[&number].window_ms;
            let moments = self.moments_of(id, window_ms);
            let file = &self.files[&number];
            let source = Source { folder: String::new(), name, bytes: file.bytes, sidecar: None };
            let (model, priority) = (file.model.to_owned(), file.priority);
            let name = queue_of(number).to_owned();
            let canary = canary_of(&self.files[&number]);
            let cache_ms = file.cache_ms();
            let queue = Queue { name, model, priority, canary, moments, cache_ms, ..queue() };
            let queue = file.with_deadline(queue, self.clock());
            self.tell(Event::Arrived { id, source, queue })?;
        }
        Ok(())
    }

    fn change_weather(&mut self) -> Step {
        if self.now < self.weather.until {
            return Ok(());
        }
        if !self.is_faulty() {
            self.weather = Weather { until: Millis(u64::MAX), ..Weather::default() };
            let enqueued_tokens = self.queue_tokens;
            self.api.set_faults(Faults { enqueued_tokens, ..faults::always() });
            return self.tell(Event::Room(None));
        }
        self.weather = Weather::draw(&mut self.random, self.now);
        let drawn = faults::draw_faults(&mut self.random, self.late_results);
        self.api.set_faults(Faults { enqueued_tokens: self.queue_tokens, ..drawn });
        self.note(format!("{:?}", self.weather));
        self.tell(Event::Room(self.full()))
    }

    /// Whether faults still happen.
    pub fn is_faulty(&self) -> bool {
        self.now < self.faults_until
    }

    /// Why nothing should be begun that needs room on the disk, if so.
    pub fn full(&self) -> Option<String> {
        (self.weather.full == 1000).then(|| "the disk is full".to_owned())
    }

    pub fn is_disk_full(&mut self) -> bool {
        let full = self.weather.full;
        self.random.chance(full)
    }

    /// What the engine's clock shows.
    pub fn clock(&self) -> Millis {
        Millis(self.now.0.saturating_add_signed(self.ahead))
    }

    pub fn note(&mut self, line: String) {
        self.transcript.push(format!("{} {line}", self.now.since(self.begun_at)));
    }
}

/// No world takes more steps to its end.
const STEPS_MAX: u32 = 200_000;
/// How long the loop sleeps at most here, where nobody minds, milliseconds.
const LOOK_UP_MS: u64 = 100_000;
/// Everything is done so long after the last fault, milliseconds.
const CALM_MAX_MS: u64 = 60 * DAY_MS;
