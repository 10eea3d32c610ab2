//! A simulation that finds nothing proves nothing: here one safety rule at a time is broken, by the
//! world, not by switches in the product, and the simulation must notice.

use super::faults::Tamper;
use super::world::World;

/// Lives through some seeds until a promise is broken in one of them.
fn broken_with(tamper: Tamper) -> (u64, String) {
    let mut lives = (0..SEEDS).map(|seed| (seed, World::new(seed, tamper).run()));
    let found = lives.find_map(|(seed, life)| life.err().map(|problem| (seed, problem)));
    let (seed, problem) = found.unwrap_or_else(|| panic!("{tamper:?} was not noticed"));
    println!("campaign: tampering {tamper:?}, noticed with seed {seed}: {problem}");
    (seed, problem)
}

#[test]
fn without_the_settling_window_rows_are_paid_for_twice() {
    let (_, problem) = broken_with(Tamper::NoSettlingWindow);
    // Which of them it is, the seeds decide: a batch that nobody knows of is paid for in vain too.
    let seen = ["sent again", "no record says so", "was lost"];
    assert!(seen.iter().any(|words| problem.contains(words)), "{problem}");
}

#[test]
fn without_the_probe_after_a_restart_batches_are_created_twice() {
    let (_, problem) = broken_with(Tamper::NoProbe);
    assert!(problem.contains("created twice") || problem.contains("again"), "{problem}");
}

#[test]
fn acting_before_saving_pays_for_what_no_record_knows() {
    let (_, problem) = broken_with(Tamper::ActBeforeSave);
    let words = ["created", "sent again", "no record says so", "delivered"];
    assert!(words.iter().any(|word| problem.contains(word)), "{problem}");
}

#[test]
fn records_that_are_not_synced_are_missed() {
    let (_, problem) = broken_with(Tamper::SaveWithoutSync);
    assert!(!problem.is_empty());
}

#[test]
fn a_manifest_that_comes_first_is_seen_before_the_rest() {
    let (_, problem) = broken_with(Tamper::ManifestFirst);
    assert!(problem.contains("before the rest"), "{problem}");
}

#[test]
fn holds_and_pauses_that_a_restart_forgets_are_missed() {
    let (_, problem) = broken_with(Tamper::ForgetHolds);
    assert!(problem.contains("on hold") || problem.contains("is paused"), "{problem}");
}

#[test]
fn files_that_are_taken_in_without_their_windows_are_seen_to_be_sent_too_early() {
    let (_, problem) = broken_with(Tamper::NoWindows);
    assert!(problem.contains("before its window"), "{problem}");
}

#[test]
fn a_file_that_goes_out_beside_its_canary_is_noticed() {
    let (_, problem) = broken_with(Tamper::NoCanary);
    assert!(problem.contains("before its canary"), "{problem}");
}

#[test]
fn an_answer_that_is_used_again_for_another_request_is_seen() {
    let (_, problem) = broken_with(Tamper::ReuseAnything);
    assert!(problem.contains("has the answer of another"), "{problem}");
}

#[test]
fn rows_that_the_cache_has_answered_are_not_sent() {
    let (_, problem) = broken_with(Tamper::SendReused);
    assert!(problem.contains("answered from the cache, and paid"), "{problem}");
}

#[test]
fn rows_that_are_asked_without_a_note_are_paid_twice_unknown_to_anybody() {
    let (_, problem) = broken_with(Tamper::AskBeforeNote);
    assert!(problem.contains("and nobody says so"), "{problem}");
}

#[test]
fn without_budgets_too_much_is_spent() {
    let (_, problem) = broken_with(Tamper::Overspend);
    assert!(problem.contains("over the budget"), "{problem}");
}

#[test]
fn spending_that_a_restart_forgets_is_missed() {
    let (_, problem) = broken_with(Tamper::ForgetSpending);
    assert!(problem.contains("over the budget"), "{problem}");
}

/// Far fewer than a plain `cargo test` lives through.
const SEEDS: u64 = 60;
