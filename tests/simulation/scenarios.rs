//! What the simulation and its readers found, each as a short story of its own.

use gemini_batchd::engine::effect::{Change, Effect, Issued, Turn};
use gemini_batchd::engine::event::{Event, Failure, Harvest, Outcome, Polled};
use gemini_batchd::engine::ids::{BatchName, JobId, Millis, Ticket};
use gemini_batchd::engine::job::{ChunkState, Input, Job, Rest, Transport};
use gemini_batchd::engine::keys::Keys;
use gemini_batchd::engine::policy::{Policy, Uncertain};
use gemini_batchd::engine::{ChunkNo, Engine};

use super::faults::{DAY_MS, HOUR_MS};
use super::fixtures::{arrival, limits, plan_of, seen_ended};

#[test]
fn a_create_that_did_not_leave_is_not_sent_again_after_a_cancel() {
    for failure in [
        Failure::Transient("not sent".to_owned()),
        Failure::Denied("403".to_owned()),
        Failure::Rejected("a proxy".to_owned()),
    ] {
        let mut scene = Scene::new(limits());
        let job = scene.drop_file(1, Transport::Inline);
        let create = scene.begun("create");
        scene.cancel(job);
        scene.failed(create, failure);
        assert_eq!(scene.chunk(job), ChunkState::Settled);
        assert!(scene.next_is("merge"), "what is cancelled comes to its end");
    }
}

/// Fault 68.
#[test]
fn a_short_fetch_is_not_believed_because_other_fetches_failed() {
    let mut scene = Scene::new(limits());
    let job = scene.drop_file(1, Transport::Inline);
    scene.run_until_collecting();
    for _ in 0..5 {
        for failure in [
            Failure::NotReady("not yet".to_owned()),
            Failure::Transient("503".to_owned()),
            Failure::Denied("403".to_owned()),
        ] {
            let collect = scene.collect_believing(0);
            scene.failed(collect, failure);
        }
    }
    for missing in [1, 2] {
        let collect = scene.collect_believing(0);
        scene.failed(
            collect,
            Failure::Damaged { message: "short".to_owned(), missing: Some(missing) },
        );
    }
    scene.collect_believing(1);
    assert!(matches!(scene.chunk(job), ChunkState::Collecting { .. }));
}

/// Fault 76.
#[test]
fn results_that_are_due_are_not_given_up_because_the_clock_leaps() {
    let mut scene = Scene::new(limits());
    let job = scene.drop_file(1, Transport::Inline);
    scene.run_until_collecting();
    let collect = scene.begun("collect");
    scene.failed(collect, Failure::NotReady("not yet".to_owned()));
    scene.now = scene.now.plus(2 * DAY_MS);
    scene.tell(Event::Tick);
    let collect = scene.begun("collect");
    scene.failed(collect, Failure::NotReady("not yet".to_owned()));
    assert!(matches!(scene.chunk(job), ChunkState::Collecting { .. }));
}

#[test]
fn a_long_outage_before_does_not_shorten_the_wait_for_results() {
    let mut scene = Scene::new(limits());
    let job = scene.drop_file(1, Transport::Inline);
    scene.run_until_collecting();
    let begin = scene.now;
    while scene.now.since(begin) < 25 * HOUR_MS {
        let collect = scene.begun("collect");
        scene.failed(collect, Failure::Transient("503".to_owned()));
    }
    let collect = scene.begun("collect");
    scene.failed(collect, Failure::NotReady("not yet".to_owned()));
    assert!(matches!(scene.chunk(job), ChunkState::Collecting { .. }));
}

/// Fault 67.
#[test]
fn results_count_as_gone_only_when_they_are_gone_for_an_hour() {
    let mut scene = Scene::new(limits());
    let job = scene.drop_file(1, Transport::Inline);
    scene.run_until_collecting();
    let begin = scene.now;
    while scene.now.since(begin) < HOUR_MS - 600_000 {
        assert!(matches!(scene.chunk(job), ChunkState::Collecting { .. }));
        let collect = scene.begun("collect");
        scene.failed(collect, Failure::Gone("403".to_owned()));
    }
    for _ in 0..20 {
        if scene.is_begun("merge") {
            break;
        }
        let collect = scene.begun("collect");
        scene.failed(collect, Failure::Gone("403".to_owned()));
    }
    assert_eq!(scene.chunk(job), ChunkState::Settled);
}

#[test]
fn results_of_another_key_are_waited_for() {
    let mut scene = Scene::new(limits());
    let job = scene.drop_file(1, Transport::Inline);
    scene.run_until_collecting();
    scene.restart(Policy { keys: Keys::one("another"), ..limits() });
    let begin = scene.now;
    while scene.now.since(begin) < 3 * DAY_MS {
        let collect = scene.begun("collect");
        scene.failed(collect, Failure::Gone("404".to_owned()));
    }
    assert!(matches!(scene.chunk(job), ChunkState::Collecting { .. }));
    let trouble = scene.engine.latest_trouble().expect("a trouble").message.clone();
    assert!(trouble.contains("another API key"), "{trouble}");
}

#[test]
fn a_removal_that_failed_is_tried_again_while_room_is_needed() {
    let mut scene = Scene::new(Policy { storage_bytes: 1500, ..limits() });
    let first = scene.drop_file(1000, Transport::File);
    scene.run_until_collecting();
    let collect = scene.begun("collect");
    let rest = match scene.engine.job(first).map(|job| &job.chunks[&ChunkNo(1)]) {
        Some(chunk) => chunk.rest,
        None => Rest::default(),
    };
    // Nothing came, so the rest is sent again, and what lies there is in the way.
    scene.done(collect, Outcome::Collected(Harvest { rest, missing: 1, ..Harvest::default() }));
    for _ in 0..4 {
        let discard = scene.begun("discard");
        scene.failed(discard, Failure::RateLimited { retry_after_ms: None, message: "m".into() });
        assert!(!scene.is_begun("upload"), "nothing has made room");
        assert!(!scene.is_begun("discard"), "there is a pause between two tries");
    }
    let discard = scene.begun("discard");
    scene.done(discard, Outcome::Discarded);
    scene.begun("upload");
}

#[test]
fn a_note_that_could_not_be_written_is_written_later() {
    let mut scene = Scene::stuck();
    for _ in 0..3 {
        let note = scene.begun("notify");
        scene.failed(note, Failure::Local("disk full".to_owned()));
    }
    let note = scene.begun("notify");
    scene.done(note, Outcome::Told);
    scene.now = scene.now.plus(DAY_MS);
    scene.tell(Event::Tick);
    assert!(!scene.is_begun("notify"), "once is enough");
    scene.restart(hold());
    scene.begun("notify");
}

#[test]
fn a_note_that_came_after_the_decision_is_taken_back() {
    let mut scene = Scene::stuck();
    let note = scene.begun("notify");
    let turn = scene.engine.release(scene.job, scene.now).expect("it is stuck");
    scene.take_in(turn);
    let withdrawal = scene.begun("withdraw");
    scene.done(withdrawal, Outcome::Withdrawn(scene.job));
    scene.done(note, Outcome::Told);
    scene.begun("withdraw");
}

/// Fault 55.
#[test]
fn a_create_that_asked_for_too_much_takes_its_uploaded_file_again() {
    let mut scene = Scene::new(limits());
    let job = scene.drop_file(1000, Transport::File);
    let upload = scene.begun("upload");
    let Effect::Upload { file, .. } = upload.effect.clone() else { unreachable!("an upload") };
    scene.done(upload, Outcome::Uploaded { file: file.clone() });
    let mut stamps = Vec::new();
    for _ in 0..3 {
        let create = scene.begun("create");
        let Effect::Create { which, input, .. } = create.effect.clone() else {
            unreachable!("a create")
        };
        assert_eq!(input, Input::File(file.clone()));
        stamps.push(which.stamp());
        scene.failed(create, Failure::RateLimited { retry_after_ms: None, message: "m".into() });
        let find = scene.begun("find");
        scene.done(find, Outcome::Found(Vec::new()));
        let upload = scene.begun("upload");
        let Effect::Upload { file: again, .. } = upload.effect.clone() else {
            unreachable!("an upload")
        };
        assert_eq!(again, file, "the file that is there is only made sure of");
        scene.done(upload, Outcome::Uploaded { file: again });
    }
    stamps.dedup();
    assert_eq!(stamps.len(), 3, "every attempt has a stamp of its own");
    assert!(matches!(scene.chunk(job), ChunkState::Creating { .. }));
}

#[test]
fn what_was_given_up_leaves_no_trouble_behind() {
    let mut scene = Scene::new(limits());
    let job = scene.drop_file(1000, Transport::File);
    let upload = scene.begun("upload");
    scene.cancel(job);
    scene.failed(upload, Failure::Local("the working folder is gone".to_owned()));
    assert_eq!(scene.engine.latest_trouble(), None);
}

/// An engine, and what it wants done.
struct Scene {
    engine: Engine,
    under_way: Vec<Issued>,
    saved: std::collections::BTreeMap<JobId, Job>,
    now: Millis,
    job: JobId,
}

impl Scene {
    fn new(policy: Policy) -> Scene {
        let now = Millis(1_760_000_000_000);
        let (engine, _) = Engine::resume(Vec::new(), policy, now);
        let job = format!("{:026}", 1).parse().expect("an id");
        Scene { engine, under_way: Vec::new(), saved: Default::default(), now, job }
    }

    /// A chunk that waits for a person.
    fn stuck() -> Scene {
        let mut scene = Scene::new(hold());
        let job = scene.drop_file(1, Transport::Inline);
        let create = scene.begun("create");
        scene.failed(create, Failure::Ambiguous("no answer".to_owned()));
        while !matches!(scene.chunk(job), ChunkState::Stuck { .. }) {
            let find = scene.begun("find");
            scene.done(find, Outcome::Found(Vec::new()));
        }
        scene
    }

    /// A file of one row and so many bytes, read.
    fn drop_file(&mut self, bytes: u64, transport: Transport) -> JobId {
        let Event::Arrived { id, source, mut queue } = arrival(self.job, bytes) else {
            unreachable!("a file arrives");
        };
        queue.transport = transport;
        self.tell(Event::Arrived { id, source, queue });
        let claim = self.begun("claim");
        self.done(claim, plan_of(bytes));
        id
    }

    fn run_until_collecting(&mut self) {
        if self.is_begun("upload") {
            let upload = self.begun("upload");
            let Effect::Upload { file, .. } = upload.effect.clone() else {
                unreachable!("an upload")
            };
            self.done(upload, Outcome::Uploaded { file });
        }
        let create = self.begun("create");
        let batch = BatchName("batches/b".to_owned());
        let created = Some(self.now);
        self.done(create, Outcome::Created { batch: batch.clone(), created });
        let poll = self.begun("poll");
        let seen = Polled::Seen(seen_ended(&batch, self.now));
        self.done(poll, Outcome::Polled(vec![(batch, seen)]));
    }

    fn collect_believing(&mut self, expected: u64) -> Issued {
        let issued = self.begun("collect");
        let Effect::Collect { missing_max, .. } = issued.effect else { unreachable!("a fetch") };
        assert_eq!(missing_max, expected);
        issued
    }

    fn cancel(&mut self, job: JobId) {
        let turn = self.engine.cancel(job, self.now).expect("it can be cancelled");
        self.take_in(turn);
    }

    fn chunk(&self, job: JobId) -> ChunkState {
        self.engine.job(job).expect("known").chunks[&ChunkNo(1)].state.clone()
    }

    fn tell(&mut self, event: Event) {
        let turn = self.engine.handle(event, self.now);
        self.take_in(turn);
    }

    fn take_in(&mut self, turn: Turn) {
        for change in turn.save {
            match change {
                Change::Head(head) => {
                    let chunks = self.saved.remove(&head.id).map(|job| job.chunks);
                    let job = Job { chunks: chunks.unwrap_or_default(), head: *head };
                    self.saved.insert(job.head.id, job);
                }
                Change::Chunk(id, chunk) => {
                    let job = self.saved.get_mut(&id).expect("its head was saved before");
                    job.chunks.insert(chunk.no, *chunk);
                }
                Change::Shed(_) | Change::Forget(_) => unreachable!("no job is that old here"),
                Change::Note { .. } => {}
            }
        }
        self.under_way.extend(turn.then);
    }

    fn restart(&mut self, policy: Policy) {
        let jobs = self.saved.values().cloned().collect();
        let (engine, turn) = Engine::resume(jobs, policy, self.now);
        self.engine = engine;
        self.under_way.clear();
        self.take_in(turn);
    }

    fn done(&mut self, issued: Issued, outcome: Outcome) {
        let ticket: Ticket = issued.ticket;
        self.tell(Event::Done { ticket, outcome });
    }

    fn failed(&mut self, issued: Issued, failure: Failure) {
        self.tell(Event::Failed { ticket: issued.ticket, failure });
    }

    fn is_begun(&self, word: &str) -> bool {
        self.under_way.iter().any(|issued| issued.effect.word() == word)
    }

    fn next_is(&self, word: &str) -> bool {
        self.under_way.last().is_some_and(|issued| issued.effect.word() == word)
    }

    /// Takes an effect of this kind, waiting for it if need be.
    fn begun(&mut self, word: &str) -> Issued {
        for _ in 0..10 {
            let found = self.under_way.iter().position(|it| it.effect.word() == word);
            if let Some(at) = found {
                return self.under_way.remove(at);
            }
            let at = self.engine.next_wakeup();
            let at = at.unwrap_or_else(|| panic!("no {word} is to come: {:?}", self.under_way));
            // The loop looks up now and then: time that passes is no leap.
            while self.now < at {
                self.now = self.now.plus(60_000).min(at);
                self.tell(Event::Tick);
            }
            self.tell(Event::Tick);
        }
        panic!("no {word} comes: {:?}", self.under_way);
    }
}

/// Whoever does not know what became of a batch asks people.
fn hold() -> Policy {
    Policy { uncertain: Uncertain::Hold, ..limits() }
}
