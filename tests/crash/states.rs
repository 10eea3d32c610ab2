//! `kill -9` in every state, and between every effect and its record.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::in_parallel::in_parallel;
use super::rig::{End, Rig};
use super::scenarios::{SCENARIOS, Scenario};
use super::spool::Contents;

/// A run that is killed at one point.
struct Case<'a> {
    scenario: &'a Scenario,
    undisturbed: &'a Undisturbed,
    /// What each run in turn dies of; the first must, the others may.
    deaths: Vec<String>,
}

/// What a run leaves behind that nobody kills.
struct Undisturbed {
    contents: Contents,
    rows: u64,
}

/// Faults 2, 3, 4, 5, 6 and 7.
#[test]
fn kill_9_in_every_state_gives_the_same_outbox() {
    let undisturbed: Vec<Undisturbed> = SCENARIOS.iter().map(Undisturbed::of).collect();
    let mut cases = Vec::new();
    for (scenario, undisturbed) in SCENARIOS.iter().zip(&undisturbed) {
        let case = |deaths: &[String]| Case { scenario, undisturbed, deaths: deaths.to_vec() };
        for point in scenario.points.split_whitespace() {
            let die = format!("{point}=return");
            cases.push(case(&[die.clone(), die]));
        }
        for point in scenario.again.split_whitespace() {
            cases.push(case(&[format!("{point}=1*off->return"), format!("{point}=return")]));
        }
    }
    let (count, kills) = (cases.len(), AtomicUsize::new(0));
    in_parallel(cases.into_iter(), |case| {
        kills.fetch_add(case.run(), Ordering::Relaxed);
    });
    println!("{count} cases, {} kills, nothing lost, nothing doubled", kills.into_inner());
}

#[test]
fn every_state_and_every_effect_has_its_kill() {
    let killed: BTreeSet<&str> =
        SCENARIOS.iter().flat_map(|scenario| scenario.points.split_whitespace()).collect();
    // The words are in arms such as `JobState::Claiming => "claiming"` and `Effect::Plan { .. } =>`.
    let source = include_str!("../../src/daemon/failpoints.rs");
    let word = |line: &str| Some(line.rsplit_once("=> \"")?.1.strip_suffix("\",")?.to_owned());
    let (effects, states): (Vec<_>, Vec<_>) = source
        .lines()
        .filter(|line| line.contains("::"))
        .filter_map(|line| Some((line.contains("Effect::"), word(line)?)))
        .partition(|(is_effect, _)| *is_effect);
    assert!(effects.len() > 10 && states.len() > 10, "the words are found");
    let saved = states.iter().map(|(_, word)| format!("saved:{word}"));
    let done = effects.iter().map(|(_, word)| format!("done:{word}"));
    for point in saved.chain(done) {
        assert!(killed.contains(point.as_str()), "no scenario dies at {point}");
    }
}

impl Undisturbed {
    fn of(scenario: &Scenario) -> Undisturbed {
        let rig = scenario.rig();
        let end = (scenario.drain)(&rig, "");
        assert!(matches!(end, End::Exited(_)), "{}: {end:?}\n{}", scenario.name, rig.log());
        let rows = rows_paid(&rig, scenario.name);
        Undisturbed { contents: Contents::of(&rig), rows }
    }
}

impl Case<'_> {
    /// Answers with how often the daemon died.
    fn run(self) -> usize {
        let what = format!("{}, {:?}", self.scenario.name, self.deaths);
        let rig = self.scenario.rig();
        let mut ends = Vec::new();
        for death in &self.deaths {
            ends.push((self.scenario.drain)(&rig, death));
            if matches!(ends.last(), Some(End::Exited(_))) {
                break;
            }
        }
        assert_eq!(ends[0], End::ABORTED, "{what}: it did not get there\n{}", rig.log());
        if !matches!(ends.last(), Some(End::Exited(_))) {
            ends.push((self.scenario.drain)(&rig, ""));
        }
        assert!(matches!(ends.last(), Some(End::Exited(_))), "{what}: {ends:?}\n{}", rig.log());
        assert_eq!(rows_paid(&rig, &what), self.undisturbed.rows, "{what}: rows paid");
        Contents::of(&rig).assert_same(&self.undisturbed.contents, &what);
        ends.iter().filter(|end| **end == End::ABORTED).count()
    }
}

/// Rows in all batches that were made. No stamp may have made two of them.
#[track_caller]
pub fn rows_paid(rig: &Rig, what: &str) -> u64 {
    let created = rig.created();
    let stamps: BTreeSet<&str> = created.iter().map(|(stamp, _)| stamp.as_str()).collect();
    assert_eq!(stamps.len(), created.len(), "{what}: a batch was made twice: {created:?}");
    created.iter().map(|(_, rows)| rows).sum()
}
