//! Every moment at which a daemon can be interrupted × what can happen there: it is killed, the
//! step fails, or it takes its time. Whatever it is, the same files come out, and nothing is paid
//! twice.
//!
//! A plain run takes each moment once with each of the three; `GEMINI_BATCHD_PAIRS=1` takes each in
//! every scenario and at several passes, and kills at every pair of moments too. A larger number is
//! that of the pairs, drawn by `SEED`; `GEMINI_BATCHD_FROM=n` leaves the first so many of them out.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};

use gemini_batchd::provider::gemini::emulator::Happened;

use super::dice::{Dice, number, seed};
use super::in_parallel::in_parallel;
use super::rig::{End, Rig};
use super::scenarios::{ACROSS, SCENARIOS, Scenario};
use super::spool::Contents;

/// What a run leaves behind that nothing happens to.
struct Undisturbed {
    scenario: &'static Scenario,
    contents: Contents,
    rows: u64,
    end: End,
    /// The moments it passed, and how often.
    moments: BTreeMap<String, usize>,
}

/// Something that happens at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Kill,
    Error,
    Delay,
}

/// A run to which something happens.
struct Case<'a> {
    undisturbed: &'a Undisturbed,
    /// What happens to each daemon in turn.
    mishaps: Vec<String>,
    /// The first daemon must die of the first of them, or come to this moment.
    certain: Certain<'a>,
}

/// What the first mishap surely does.
enum Certain<'a> {
    Death,
    Passing(&'a str),
    Nothing,
}

/// Faults 2, 3, 4, 5, 6, 7 and 9.
#[test]
fn whatever_happens_at_any_moment_the_same_files_come_out_and_nothing_is_paid_twice() {
    let roads = Undisturbed::all();
    every_moment_has_its_road(&roads);
    let mut cases = Vec::new();
    let mut known = BTreeSet::new();
    for road in &roads {
        for (moment, passes) in &road.moments {
            if !known.insert(moment.as_str()) && !is_large() {
                // Between file systems a move is a copy, so that its moments are others.
                if road.scenario.name == ACROSS {
                    cases.push(road.killed(moment, 1));
                }
                continue;
            }
            cases.push(road.killed(moment, 1));
            cases.push(road.failed(moment, 1));
            cases.push(road.delayed(moment));
            let later: BTreeSet<usize> = [2, passes.div_ceil(2), *passes].into();
            for pass in later.into_iter().filter(|pass| *pass > 1 && is_large()) {
                cases.push(road.killed(moment, pass));
                cases.push(road.failed(moment, pass));
            }
        }
    }
    let tally = run(cases);
    println!("campaign: failpoints {} × kill, error, delay: {tally}", known.len());
}

/// Faults 2 to 7, twice in a row.
#[test]
fn a_second_kill_while_the_first_is_being_recovered_from_changes_nothing() {
    if !is_large() {
        eprintln!("only in long campaigns: GEMINI_BATCHD_PAIRS=1");
        return;
    }
    let seed = seed();
    println!("SEED={seed}");
    let roads = Undisturbed::all();
    let mut cases = Vec::new();
    let mut known = BTreeSet::new();
    for road in &roads {
        let moments: Vec<&String> = road.moments.keys().collect();
        for first in &moments {
            for second in &moments {
                // A pair that another road has passed already shows nothing new.
                if known.insert((first.as_str(), second.as_str())) {
                    let kill = |moment: &String| format!("{moment}=return(kill)");
                    let mishaps = vec![kill(first), kill(second)];
                    cases.push(Case { undisturbed: road, mishaps, certain: Certain::Death });
                }
            }
        }
    }
    let all = cases.len();
    let mut dice = Dice(seed);
    let wanted = number("GEMINI_BATCHD_PAIRS").filter(|wanted| *wanted > 1);
    while wanted.is_some_and(|wanted| cases.len() as u64 > wanted) {
        cases.swap_remove(dice.below(cases.len() as u64) as usize);
    }
    let from = number("GEMINI_BATCHD_FROM").unwrap_or(0) as usize;
    cases.drain(..from.min(cases.len()));
    let pairs = cases.len();
    let tally = run(cases);
    println!("campaign: pairs of failpoints {pairs} of {all}, kill × kill: {tally}, seed {seed}");
}

/// The words are in arms such as `JobState::Claiming => "claiming"`, the rest is written out.
fn every_moment_has_its_road(roads: &[Undisturbed]) {
    let passed: BTreeSet<&String> = roads.iter().flat_map(|road| road.moments.keys()).collect();
    let mut named = BTreeSet::new();
    for source in sources_below(std::path::Path::new("src")) {
        for call in ["failpoint::at(\"", " moment(\""] {
            let names = source.split(call).skip(1).filter_map(|rest| rest.split('"').next());
            named.extend(names.map(str::to_owned));
        }
    }
    let states = include_str!("../../src/daemon/failpoints.rs").lines();
    let effects = include_str!("../../src/engine/effect.rs").lines();
    for line in states.chain(effects).filter(|line| line.contains("::")) {
        let Some((variant, word)) = line.split_once("=> \"") else { continue };
        let word = word.split('"').next().expect("a word");
        if variant.contains("Effect::") {
            named.extend([format!("begun:{word}"), format!("done:{word}")]);
        } else {
            named.insert(format!("saved:{word}"));
        }
    }
    assert!(named.len() > 70, "the names are found: {named:?}");
    let missed: Vec<_> = named.iter().filter(|name| !passed.contains(name)).collect();
    assert!(missed.is_empty(), "no scenario comes to {missed:?}");
}

fn sources_below(folder: &std::path::Path) -> Vec<String> {
    let mut texts = Vec::new();
    for entry in std::fs::read_dir(folder).expect("listed") {
        let path = entry.expect("listed").path();
        if path.is_dir() {
            texts.extend(sources_below(&path));
        } else {
            texts.push(std::fs::read_to_string(path).expect("read"));
        }
    }
    texts
}

fn is_large() -> bool {
    number("GEMINI_BATCHD_PAIRS").is_some()
}

/// Runs all cases and tells how many there were.
fn run(cases: Vec<Case<'_>>) -> String {
    let (count, kills, begun) = (cases.len(), AtomicUsize::new(0), AtomicUsize::new(0));
    in_parallel(cases.into_iter(), |case| {
        kills.fetch_add(case.run(), Ordering::Relaxed);
        let begun = begun.fetch_add(1, Ordering::Relaxed) + 1;
        if begun.is_multiple_of(500) {
            eprintln!("{begun} of {count} cases");
        }
    });
    let kills = kills.into_inner();
    format!("cases {count}, kills {kills}, lost 0, doubled 0, double creates 0")
}

impl Undisturbed {
    /// Of every scenario.
    fn all() -> Vec<Undisturbed> {
        SCENARIOS.iter().map(Undisturbed::of).collect()
    }

    fn of(scenario: &'static Scenario) -> Undisturbed {
        let rig = scenario.rig();
        let before = rig.log().len();
        let end = (scenario.drain)(&rig, "");
        assert!(matches!(end, End::Exited(_)), "{}: {end:?}\n{}", scenario.name, rig.log());
        let mut moments = BTreeMap::new();
        for line in rig.log()[before..].lines() {
            if let Some((_, moment)) = line.rsplit_once(" moment=") {
                *moments.entry(moment.to_owned()).or_default() += 1;
            }
        }
        let (rows, contents) = (rows_paid(&rig, scenario.name), Contents::of(&rig));
        let left = contents.below("working/JOB");
        let waits = end == End::Exited(13);
        assert!(waits || left.is_empty(), "{}: nothing is left over: {left:?}", scenario.name);
        Undisturbed { scenario, contents, rows, end, moments }
    }

    /// Killed at a pass of this moment, and again when it comes there after the restart.
    fn killed(&self, moment: &str, pass: usize) -> Case<'_> {
        let certain = if pass == 1 { Certain::Death } else { Certain::Nothing };
        let again = format!("{moment}=return(kill)");
        Case {
            undisturbed: self,
            mishaps: vec![at_pass(moment, pass, Action::Kill), again],
            certain,
        }
    }

    fn failed<'a>(&'a self, moment: &'a str, pass: usize) -> Case<'a> {
        let certain = if pass == 1 { Certain::Passing(moment) } else { Certain::Nothing };
        Case { undisturbed: self, mishaps: vec![at_pass(moment, pass, Action::Error)], certain }
    }

    fn delayed<'a>(&'a self, moment: &'a str) -> Case<'a> {
        let mishaps = vec![at_pass(moment, 1, Action::Delay)];
        Case { undisturbed: self, mishaps, certain: Certain::Passing(moment) }
    }
}

fn at_pass(moment: &str, pass: usize, action: Action) -> String {
    let before = if pass > 1 { format!("{}*off->", pass - 1) } else { String::new() };
    match action {
        Action::Kill => format!("{moment}={before}return(kill)"),
        Action::Error => format!("{moment}={before}1*return(error)"),
        Action::Delay => format!("{moment}={before}8*sleep(40)"),
    }
}

impl Case<'_> {
    /// Answers with how often the daemon died.
    fn run(self) -> usize {
        let what = format!("{}, {:?}", self.undisturbed.scenario.name, self.mishaps);
        let drain = self.undisturbed.scenario.drain;
        let rig = self.undisturbed.scenario.rig();
        let before = rig.log().len();
        let _named = Named(&what, &rig);
        let mut ends = Vec::new();
        for mishap in &self.mishaps {
            ends.push(drain(&rig, mishap));
            if matches!(ends.last(), Some(End::Exited(_))) {
                break;
            }
        }
        match self.certain {
            Certain::Death => {
                assert_eq!(ends[0], End::ABORTED, "{what}: it got past\n{}", rig.log())
            }
            Certain::Passing(moment) => {
                let passed = rig.log()[before..].contains(&format!(" moment={moment}\n"));
                assert!(passed, "{what}: it did not get there\n{}", rig.log());
            }
            Certain::Nothing => {}
        }
        // A daemon that could not save, or not even start, ends with 1: that is started again too.
        let fine = |end: &End| *end == self.undisturbed.end && *end != End::Exited(1);
        if !ends.last().is_some_and(fine) {
            ends.push(drain(&rig, ""));
        }
        assert!(matches!(ends.last(), Some(End::Exited(_))), "{what}: {ends:?}\n{}", rig.log());
        assert_eq!(
            rows_paid(&rig, &what),
            self.undisturbed.rows,
            "{what}: rows paid\n{}",
            rig.log()
        );
        let asked = most_asked(&rig);
        assert!(asked <= ends.len(), "{what}: a row was paid {asked} times\n{}", rig.log());
        Contents::of(&rig).assert_same(&self.undisturbed.contents, &format!("{what}: {ends:?}"));
        ends.iter().filter(|end| **end == End::ABORTED).count()
    }
}

/// Says which case it was when one fails in the middle.
struct Named<'a>(&'a str, &'a Rig);

impl Drop for Named<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.1.log();
            let last = log.lines().rev().take(60).collect::<Vec<_>>();
            let last: Vec<&str> = last.into_iter().rev().collect();
            eprintln!("{}: the end of the log:\n{}", self.0, last.join("\n"));
        }
    }
}

/// How often the row was asked by itself and answered that was asked most: each daemon may find one
/// in doubt.
fn most_asked(rig: &Rig) -> usize {
    let mut asked: BTreeMap<String, usize> = BTreeMap::new();
    for entry in rig.emulator.journal() {
        if let Happened::Asked { request, is_paid: true, .. } = entry.what {
            *asked.entry(request).or_default() += 1;
        }
    }
    asked.values().max().copied().unwrap_or(0)
}

/// Rows in all batches that were made. No stamp may have made two of them.
#[track_caller]
pub fn rows_paid(rig: &Rig, what: &str) -> u64 {
    let created = rig.created();
    let stamps: BTreeSet<&str> = created.iter().map(|(stamp, _)| stamp.as_str()).collect();
    assert_eq!(stamps.len(), created.len(), "{what}: a batch was made twice: {created:?}");
    created.iter().map(|(_, rows)| rows).sum()
}
