//! Small jobs beside large ones: whatever the large ones are doing, the small ones get through.

use std::collections::VecDeque;

use gemini_batchd::engine::Engine;
use gemini_batchd::engine::effect::{Effect, Issued};
use gemini_batchd::engine::event::{Event, Failure, Harvest, Outcome, Polled};
use gemini_batchd::engine::ids::{JobId, Millis};
use gemini_batchd::engine::job::{JobState, Transport};

use super::fixtures::{arrival, limits, plan_of, seen_ended};

/// A place on the way of a job where it may stay for as long as it likes.
const PLACES: [&str; 7] = ["claim", "plan", "upload", "create", "collect", "merge", "deliver"];

#[test]
fn a_small_job_passes_large_ones_wherever_they_are_stuck() {
    for place in PLACES {
        for transport in [Transport::File, Transport::Inline] {
            let mut shell = Shell::new();
            for number in 0..LARGE_JOBS {
                shell.drop_file(number, LARGE, transport);
            }
            shell.run(|effect| size_is_large(effect) && word(effect) == place);
            for number in LARGE_JOBS..LARGE_JOBS + 5 {
                shell.drop_file(number, 100, transport);
            }
            shell.run(|effect| size_is_large(effect) && word(effect) == place);
            for number in LARGE_JOBS..LARGE_JOBS + 5 {
                let state = &shell.engine.job(id(number)).expect("known").head.state;
                assert!(
                    matches!(state, JobState::Done(_)),
                    "{transport:?}: large ones are stuck in {place}, and a small one in {state:?}"
                );
            }
        }
    }
}

#[test]
fn a_large_job_is_not_held_up_by_a_stream_of_small_ones() {
    let mut shell = Shell::new();
    shell.drop_file(0, LARGE, Transport::File);
    for number in 1..500 {
        shell.drop_file(number, 100, Transport::File);
    }
    let done = |shell: &Shell, number| {
        matches!(shell.engine.job(id(number)).expect("known").head.state, JobState::Done(_))
    };
    while !done(&shell, 0) {
        assert!(shell.step(&|_| false), "something is left to do");
    }
    assert!(!done(&shell, 499), "the large one was there first");
}

/// What the daemon does, without any of its files.
struct Shell {
    engine: Engine,
    begun: VecDeque<Issued>,
    now: Millis,
}

impl Shell {
    fn new() -> Shell {
        let now = Millis(1_000_000_000);
        let (engine, _) = Engine::resume(Vec::new(), limits(), now);
        Shell { engine, begun: VecDeque::new(), now }
    }

    fn drop_file(&mut self, number: u64, bytes: u64, transport: Transport) {
        let Event::Arrived { id, source, mut queue } = arrival(id(number), bytes) else {
            unreachable!("a file arrives");
        };
        queue.transport = transport;
        self.tell(Event::Arrived { id, source, queue });
    }

    fn tell(&mut self, event: Event) {
        let turn = self.engine.handle(event, self.now);
        self.begun.extend(turn.then);
    }

    /// Goes on until nothing is left to do but what is stuck.
    fn run(&mut self, is_stuck: impl Fn(&Effect) -> bool) {
        for _ in 0..10_000 {
            if !self.step(&is_stuck) {
                return;
            }
        }
        panic!("it never comes to rest: {:?}", self.begun);
    }

    /// Does one effect, or lets time pass.
    fn step(&mut self, is_stuck: &impl Fn(&Effect) -> bool) -> bool {
        let next = self.begun.iter().position(|issued| !is_stuck(&issued.effect));
        if let Some(issued) = next.and_then(|at| self.begun.remove(at)) {
            let ticket = issued.ticket;
            let event = match perform(issued.effect, self.now) {
                Ok(outcome) => Event::Done { ticket, outcome },
                Err(failure) => Event::Failed { ticket, failure },
            };
            self.tell(event);
            return true;
        }
        let Some(at) = self.engine.next_wakeup() else { return false };
        self.now = self.now.max(at);
        self.tell(Event::Tick);
        !self.begun.iter().all(|issued| is_stuck(&issued.effect))
    }
}

/// Everything works.
fn perform(effect: Effect, now: Millis) -> Result<Outcome, Failure> {
    Ok(match effect {
        Effect::Claim { head, plan: true } | Effect::Plan { head, .. } => {
            plan_of(head.source.bytes)
        }
        Effect::Claim { plan: false, .. } => Outcome::Claimed,
        Effect::Upload { file, .. } => Outcome::Uploaded { file },
        Effect::Create { which, .. } => {
            let batch = gemini_batchd::engine::BatchName(format!("batches/{}", which.stamp().0));
            Outcome::Created { batch, created: Some(now) }
        }
        Effect::Poll { batches } => {
            let ended = |name| (Clone::clone(name), Polled::Seen(seen_ended(name, now)));
            Outcome::Polled(batches.iter().map(ended).collect())
        }
        Effect::Collect { which, .. } => {
            Outcome::Collected(Harvest { answered: which.rows.len(), ..Harvest::default() })
        }
        Effect::Merge { .. } => {
            Outcome::Merged { tally: Default::default(), stem: "name".to_owned() }
        }
        Effect::Deliver { .. } => Outcome::Delivered,
        Effect::Clean { .. } => Outcome::Cleaned,
        Effect::Discard { .. } | Effect::DropInput { .. } => Outcome::Discarded,
        other @ (Effect::Find { .. }
        | Effect::Rescue { .. }
        | Effect::CancelBatch { .. }
        | Effect::Judge { .. }
        | Effect::Refuse { .. }
        | Effect::Hold { .. }
        | Effect::Notify { .. }
        | Effect::Withdraw { .. }) => panic!("nothing failed, and yet: {other:?}"),
    })
}

/// Whether an effect is for a large job alone.
fn size_is_large(effect: &Effect) -> bool {
    let job = match effect {
        Effect::Claim { head, .. } | Effect::Plan { head, .. } => head.id,
        Effect::Upload { which, .. }
        | Effect::Create { which, .. }
        | Effect::Collect { which, .. } => which.job,
        Effect::Merge { job } | Effect::Deliver { job } => job.head.id,
        _ => return false,
    };
    (0..LARGE_JOBS).any(|number| id(number) == job)
}

fn word(effect: &Effect) -> &'static str {
    match effect {
        Effect::Claim { .. } => "claim",
        Effect::Plan { .. } => "plan",
        Effect::Upload { .. } => "upload",
        Effect::Create { .. } => "create",
        Effect::Poll { .. } => "poll",
        Effect::Collect { .. } => "collect",
        Effect::Merge { .. } => "merge",
        Effect::Deliver { .. } => "deliver",
        _ => "another",
    }
}

fn id(number: u64) -> JobId {
    format!("{number:026}").parse().expect("an id")
}

/// More than any limit of the engine.
const LARGE_JOBS: u64 = 200;
/// Bytes of a large input.
const LARGE: u64 = 1 << 30;
