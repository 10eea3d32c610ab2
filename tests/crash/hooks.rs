//! Killed around a hook: whoever is to be told is told, at least once.

use std::collections::BTreeSet;
use std::fs;

use gemini_batchd::provider::gemini::emulator::Faults;
use serde_json::Value;

use super::rig::{End, Rig, requests};

/// A program that writes down what it is told.
const HOOK: &str = "hooks.on_done = [\"/bin/sh\", \"-c\", \"cat >> \\\"$HOME/told\\\"\"]";

fn told(rig: &Rig) -> Vec<Value> {
    let text = fs::read_to_string(rig.aside("told")).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).expect("a line is JSON")).collect()
}

#[test]
fn an_event_is_told_at_least_once_and_under_one_id_wherever_the_daemon_is_killed() {
    for (moment, at_least) in [
        ("saved:delivering", 1),
        ("done:deliver", 1),
        ("hooks:noted", 1),
        ("saved:cleaning", 1),
        ("hooks:told", 2),
        ("saved:done", 1),
    ] {
        let rig = Rig::new(Faults::default(), &[HOOK]);
        rig.drop_file("a.jsonl", requests(3));
        let end = rig.once(&format!("{moment}=return(kill)"));
        assert_eq!(end, End::ABORTED, "{moment}\n{}", rig.log());
        rig.drain();
        // A hook that was cut off with the daemon may have written nothing, but not half.
        let told = told(&rig);
        assert!(told.len() >= at_least, "{moment}: {told:?}");
        let ids: BTreeSet<&str> = told.iter().filter_map(|told| told["id"].as_str()).collect();
        assert_eq!(ids.len(), 1, "{moment}: {told:?}");
        assert!(told.iter().all(|told| told["event"] == "done"), "{moment}: {told:?}");
        let left = fs::read_dir(rig.spool().join("state/hooks")).into_iter().flatten().count();
        assert_eq!(left, 0, "{moment}: all is told");
        rig.drain();
        assert_eq!(self::told(&rig).len(), told.len(), "{moment}: nothing is told for ever");
    }
}
