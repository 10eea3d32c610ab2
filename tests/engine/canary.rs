//! The canary: a few lines go first, and the rest only if they came back well.

use gemini_batchd::engine::effect::Effect;
use gemini_batchd::engine::event::{Event, Failure, Harvest, Outcome};
use gemini_batchd::engine::job::{
    Canary, JobState, Queue, RemoteState, Tolerance, Transport, Trial,
};
use gemini_batchd::engine::policy::Policy;
use gemini_batchd::engine::{ChunkState, canary};

use crate::rig::{Rig, id, planned, policy, queue};

/// A job of three chunks, of which the second is the canary; of its ten lines one may be bad.
fn with_canary(policy: Policy, transport: Transport) -> Rig {
    let mut rig = Rig::new(policy);
    let canary = Some(Canary { lines: 10, limit: Tolerance::Percent(10) });
    rig.arrive(1, Queue { canary, ..queue(transport) }, 100);
    let Outcome::Planned { mut plan, chunks } = planned("x", &[50, 10, 40]) else { unreachable!() };
    plan.canary = Some(Box::new(Trial::of(&chunks[1..2])));
    rig.answer("claim", Ok(Outcome::Planned { plan, chunks }));
    rig
}

/// The canary has come back, whole.
fn bring_back(rig: &mut Rig) {
    rig.create("canary");
    rig.end("canary", RemoteState::Succeeded);
    rig.collect(Harvest { answered: 10, ..Harvest::default() });
}

fn is_waiting(rig: &Rig, chunk: u32) -> bool {
    matches!(rig.state(chunk), ChunkState::Waiting { .. })
}

#[test]
fn the_rest_is_sent_only_when_the_canary_was_judged_well() {
    let mut rig = with_canary(policy(), Transport::Inline);
    assert_eq!(rig.kinds(), ["create"]);
    bring_back(&mut rig);
    assert_eq!(rig.kinds(), ["judge"]);
    rig.pass(600_000);
    assert!(is_waiting(&rig, 1) && is_waiting(&rig, 3));
    rig.answer("judge", Ok(Outcome::Judged { bad: 1 }));
    assert_eq!(rig.kinds(), ["create", "create"]);
    assert_eq!(rig.plan().canary.as_ref().and_then(|trial| trial.bad), Some(1));
}

#[test]
fn a_canary_that_comes_back_badly_stops_the_job_until_a_person_decides() {
    let mut rig = with_canary(policy(), Transport::File);
    rig.answer("upload", Ok(Outcome::Uploaded { file: file(&rig) }));
    bring_back(&mut rig);
    rig.answer("judge", Ok(Outcome::Judged { bad: 2 }));
    let Effect::Notify { refusal, .. } = rig.answer("notify", Ok(Outcome::Told)) else {
        unreachable!()
    };
    assert_eq!(refusal.reason, "canary");
    assert!(refusal.message.contains("of the 10 lines") && refusal.message.contains("1 may"));
    assert!(refusal.remedy.contains("gemini-batchd release"), "{}", refusal.remedy);
    rig.pass(86_400_000);
    assert_eq!(rig.kinds(), Vec::<&str>::new());
    let job = rig.engine.job(id(1)).expect("known");
    assert!(rig.engine.waits_for_a_person(job));
    assert_eq!(canary::told(job), Some(refusal));
    rig.restart();
    assert_eq!(rig.kinds(), ["notify"], "a note may have been lost");
    rig.answer("notify", Ok(Outcome::Told));
    let turn = rig.engine.release(id(1), rig.now).expect("it waits");
    rig.consume(turn);
    assert_eq!(rig.kinds(), ["withdraw", "upload", "upload"]);
    rig.restart();
    assert_eq!(rig.kinds(), ["upload", "upload"], "that is saved");
}

fn file(rig: &Rig) -> gemini_batchd::engine::FileName {
    let ChunkState::Uploading { file } = rig.state(2).clone() else { panic!("{:?}", rig.state(2)) };
    file
}

#[test]
fn what_a_canary_stopped_can_be_given_up() {
    let mut rig = with_canary(policy(), Transport::Inline);
    bring_back(&mut rig);
    rig.answer("judge", Ok(Outcome::Judged { bad: 9 }));
    rig.take("notify");
    let turn = rig.engine.cancel(id(1), rig.now).expect("it is active");
    rig.consume(turn);
    assert!(matches!(rig.job(), JobState::Merging(_)));
    assert!(rig.kinds().contains(&"withdraw"), "{:?}", rig.kinds());
}

#[test]
fn a_decision_that_comes_before_the_note_takes_it_back() {
    let mut rig = with_canary(policy(), Transport::Inline);
    bring_back(&mut rig);
    rig.answer("judge", Ok(Outcome::Judged { bad: 9 }));
    let note = rig.take("notify");
    let turn = rig.engine.release(id(1), rig.now).expect("it waits");
    rig.consume(turn);
    rig.take("withdraw");
    rig.tell(Event::Done { ticket: note.ticket, outcome: Outcome::Told });
    assert!(rig.kinds().contains(&"withdraw"), "{:?}", rig.kinds());
}

#[test]
fn a_restart_at_any_time_judges_once_more_or_goes_on() {
    let mut rig = with_canary(policy(), Transport::Inline);
    bring_back(&mut rig);
    rig.restart();
    assert_eq!(rig.kinds(), ["judge"]);
    rig.answer("judge", Err(Failure::Local("the disk is full".to_owned())));
    rig.pass(600_000);
    rig.answer("judge", Ok(Outcome::Judged { bad: 0 }));
    assert_eq!(rig.kinds(), ["create", "create"]);
    rig.restart();
    assert_eq!(rig.kinds(), ["find"], "it is not judged again, and what was begun is looked for");
}

#[test]
fn the_canary_itself_is_sent_again_before_it_is_judged() {
    let mut rig = with_canary(policy(), Transport::Inline);
    rig.create("canary");
    rig.end("canary", RemoteState::Succeeded);
    let rest = crate::rig::rest(4);
    rig.collect(Harvest { answered: 6, retryable: 4, rest, ..Harvest::default() });
    rig.pass(60_000);
    assert_eq!(rig.kinds(), ["create"]);
    rig.create("again");
    rig.end("again", RemoteState::Succeeded);
    rig.collect(Harvest { answered: 4, ..Harvest::default() });
    assert_eq!(rig.kinds(), ["judge"]);
}

#[test]
fn a_limit_is_a_share_or_a_number() {
    assert_eq!(Tolerance::Percent(10).of(20), 2);
    assert_eq!(Tolerance::Percent(10).of(19), 1);
    assert_eq!(Tolerance::Percent(99).of(u64::MAX), 18_262_276_632_972_456_098);
    assert_eq!(Tolerance::Lines(2).of(5), 2);
}
