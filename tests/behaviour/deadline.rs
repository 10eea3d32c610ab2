//! Deadlines: lines are asked one by one when their batch would come too late, and a batch that does
//! not begin is told of or sent again. A fast clock, and real parts.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gemini_batchd::clock::Clock;
use gemini_batchd::daemon::{Message, Setup, Until};
use gemini_batchd::engine::Millis;
use gemini_batchd::provider::gemini::emulator::faults::{CallKind, Slow};
use gemini_batchd::provider::gemini::emulator::{Budget, Faults, Happened, Options};
use serde_json::Value;

use super::rig::{Rig, keys, requests, text};

/// A clock that goes so many times as fast.
struct Fast(Instant, u64);

impl Clock for Fast {
    fn now(&self) -> Millis {
        let passed = u64::try_from(self.0.elapsed().as_millis()).expect("a test is short");
        Millis(1_790_000_000_000 + passed * self.1)
    }
}

impl Rig {
    fn fast(&self, clock: &Arc<Fast>) -> Setup {
        let clock: Arc<dyn Clock> = Arc::clone(clock) as Arc<dyn Clock>;
        Setup::open(Arc::new(self.config()), clock).expect("it starts")
    }

    async fn drain_fast(&self, clock: &Arc<Fast>) {
        let run = self.fast(clock).daemon.run(Until::Idle);
        let run = tokio::time::timeout(Duration::from_secs(120), run);
        run.await.unwrap_or_else(|_| panic!("it ends:\n{}", self.listing())).expect("it saves");
    }

    /// Calls that were paid for, by request, and their tiers.
    fn asked(&self) -> BTreeMap<String, Vec<String>> {
        let mut asked: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for entry in self.emulator.journal() {
            if let Happened::Asked { request, tier, is_paid: true, .. } = entry.what {
                asked.entry(request).or_default().push(tier);
            }
        }
        asked
    }

    /// Each question has its own answer.
    fn answers_fit(&self, count: usize) {
        let lines = self.lines("a.results.jsonl");
        let wanted: Vec<String> = (1..=count).map(|n| format!("k{n}")).collect();
        assert_eq!(keys(&lines), wanted);
        for (n, line) in (1..).zip(&lines) {
            assert!(text(line).ends_with(&format!("question {n}")), "{line}");
        }
    }
}

/// The first batch never begins.
fn stuck() -> Faults {
    Faults { stuck_pending: Budget::times(1), ..Faults::default() }
}

/// A little more than what a rescue needs.
const BY: &str = "queue.default.deliver_by = \"13m\"";
const FLEX: &str = "queue.default.rescue = [\"flex\"]";
const BOTH: &str = "queue.default.rescue = [\"flex\", \"standard\"]";

fn clock(times: u64) -> Arc<Fast> {
    Arc::new(Fast(Instant::now(), times))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flex_answers_what_a_stuck_batch_does_not_in_time_and_each_line_is_paid_once() {
    let rig = Rig::with(stuck(), &[BY, FLEX]).await;
    rig.drop_file("a.jsonl", requests(20));
    rig.drain_fast(&clock(20)).await;
    rig.answers_fit(20);
    let manifest = rig.manifest("a");
    assert_eq!(manifest["rescued"]["flex"], 20, "{manifest}");
    assert_eq!(manifest["rescued"]["uncertain"], 0, "{manifest}");
    assert_eq!(manifest["in_time"], true, "{manifest}");
    assert!(manifest["deliver_by"].is_string(), "{manifest}");
    let asked = rig.asked();
    assert_eq!(asked.len(), 20);
    assert!(asked.values().all(|tiers| tiers == &["flex"]), "{asked:?}");
    assert_eq!(rig.creates().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_flex_has_no_room_standard_answers_in_the_last_quarter() {
    let faults = Faults { flex_shed_503: Budget::Always, ..stuck() };
    let rig = Rig::with(faults, &[BY, BOTH]).await;
    rig.drop_file("a.jsonl", requests(5));
    rig.drain_fast(&clock(40)).await;
    rig.answers_fit(5);
    let manifest = rig.manifest("a");
    assert_eq!(manifest["rescued"]["standard"], 5, "{manifest}");
    assert!(rig.asked().values().all(|tiers| tiers == &["standard"]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tier_that_is_not_there_fails_no_line() {
    let faults = Faults { flex_refused: true, ..stuck() };
    let rig = Rig::with(faults, &[BY, BOTH]).await;
    rig.drop_file("a.jsonl", requests(5));
    rig.drain_fast(&clock(20)).await;
    rig.answers_fit(5);
    let manifest = rig.manifest("a");
    assert_eq!(manifest["rescued"]["standard"], 5, "{manifest}");
    let warnings = manifest["warnings"].to_string();
    assert!(warnings.contains("does not take the flex tier"), "{warnings}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_leave_to_rescue_the_job_is_only_told_to_be_late() {
    let slow = Options { running_for: Duration::from_secs(4), ..Rig::options(Faults::default()) };
    let rig = Rig::over(slow, &[BY]).await;
    rig.drop_file("a.jsonl", requests(3));
    let clock = clock(400);
    rig.drain_fast(&clock).await;
    let manifest = rig.manifest("a");
    assert_eq!(manifest["in_time"], false, "{manifest}");
    assert_eq!(manifest["rescued"], Value::Null, "{manifest}");
    assert!(rig.asked().is_empty());
    let events = std::fs::read_to_string(rig.path("state/events.jsonl")).expect("written");
    let events: Vec<Value> =
        events.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let told: Vec<&str> = events
        .iter()
        .filter(|event| event["kind"] == "deadline")
        .filter_map(|event| event["text"].as_str())
        .collect();
    assert!(
        matches!(told[..], [danger, missed] if danger.starts_with("may not be delivered by")
        && missed.contains("is not complete")),
        "{told:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_whose_answers_get_lost_are_counted_and_asked_again() {
    let faults = Faults { ask_drop_after: Budget::times(2), ..stuck() };
    let rig = Rig::with(faults, &[BY, FLEX]).await;
    rig.drop_file("a.jsonl", requests(8));
    rig.drain_fast(&clock(20)).await;
    rig.answers_fit(8);
    let manifest = rig.manifest("a");
    assert_eq!(manifest["rescued"]["flex"], 8, "{manifest}");
    let twice = rig.asked().values().filter(|tiers| tiers.len() > 1).count() as u64;
    let uncertain = manifest["rescued"]["uncertain"].as_u64().expect("a number");
    assert!((1..=2).contains(&twice) && twice <= uncertain, "{twice} {manifest}");
    assert!(rig.asked().values().all(|tiers| tiers.len() <= 3));
    assert!(manifest["warnings"].to_string().contains("nobody knows whether"), "{manifest}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_kill_in_the_middle_what_was_answered_is_kept_and_the_rest_is_uncertain() {
    let settings = [BY, FLEX, "limits.rescue_parallel = 2"];
    let rig = Rig::with(stuck(), &settings).await;
    rig.drop_file("a.jsonl", requests(60));
    let clock = clock(20);
    // In a runtime of its own, so that all it has begun ends with it.
    let own = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let own = own.expect("a runtime");
    let setup = rig.fast(&clock);
    let run = own.spawn(async move { setup.daemon.run(Until::Stopped).await.is_ok() });
    while rig.asked().len() < 10 {
        assert!(!run.is_finished(), "it ended");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let kill = move || own.shutdown_timeout(Duration::from_secs(60));
    tokio::task::spawn_blocking(kill).await.expect("it is dead");
    rig.drain_fast(&clock).await;
    rig.answers_fit(60);
    let manifest = rig.manifest("a");
    let asked = rig.asked();
    let twice = asked.values().filter(|tiers| tiers.len() > 1).count() as u64;
    let uncertain = manifest["rescued"]["uncertain"].as_u64().expect("a number");
    assert!(twice <= uncertain && uncertain <= 40, "{twice} {manifest}");
    assert!(asked.values().all(|tiers| tiers.len() <= 2), "{asked:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_waits_for_the_lines_that_are_being_asked_and_leaves_none_in_doubt() {
    let slow = Slow { ms: 100, call: Some(CallKind::Ask), times: Budget::Always };
    let faults = Faults { slow: Some(slow), ..stuck() };
    let rig = Rig::with(faults, &[BY, FLEX, "limits.rescue_parallel = 4"]).await;
    rig.drop_file("a.jsonl", requests(80));
    let clock = clock(20);
    let setup = rig.fast(&clock);
    let handle = setup.daemon.handle();
    let run = tokio::spawn(async move { setup.daemon.run(Until::Stopped).await });
    while rig.asked().len() < 10 {
        assert!(!run.is_finished(), "it ended");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    handle.tell(Message::Stop).await;
    run.await.expect("no panic").expect("its store works");
    let before = rig.asked().len();
    assert!(before < 80, "{before} were asked: it began nothing more");
    rig.drain_fast(&clock).await;
    rig.answers_fit(80);
    let manifest = rig.manifest("a");
    assert_eq!(manifest["rescued"]["uncertain"], 0, "{manifest}");
    assert!(rig.asked().values().all(|tiers| tiers.len() == 1), "{:?}", rig.asked());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_line_that_is_refused_for_good_fails_with_its_reason() {
    let rig = Rig::with(stuck(), &[BY, FLEX]).await;
    let bad = "{\"key\":\"bad\",\"request\":{\"contents\":[{\"parts\":[{\"text\":\"x\"}]}],\
               \"generationConfig\":{\"maxOutputTokens\":-5}}}\n";
    rig.drop_file("a.jsonl", requests(2) + bad);
    rig.drain_fast(&clock(20)).await;
    let manifest = rig.manifest("a");
    assert_eq!((&manifest["answered"], &manifest["failed"]), (&2.into(), &1.into()), "{manifest}");
    let error = &rig.lines("a.errors.jsonl")[0];
    assert!(error["error"]["message"].to_string().contains("maxOutputTokens"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn embeddings_are_rescued_through_the_standard_tier() {
    let settings = [
        BY,
        BOTH,
        "queue.default.task = \"embed\"",
        "queue.default.model = \"gemini-embedding-001\"",
    ];
    let rig = Rig::with(stuck(), &settings).await;
    let line = |n: u32| {
        format!(
            "{{\"key\":{n},\"request\":{{\"content\":{{\"parts\":[{{\"text\":\"t{n}\"}}]}}}}}}\n"
        )
    };
    rig.drop_file("a.jsonl", (1..=3).map(line).collect::<String>());
    rig.drain_fast(&clock(20)).await;
    let manifest = rig.manifest("a");
    assert_eq!(manifest["rescued"]["standard"], 3, "{manifest}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stuck_batch_is_sent_again_where_the_queue_wants_that() {
    let faults = Faults { stuck_pending: Budget::times(1), ..Faults::default() };
    let settings = ["queue.default.stuck = \"resubmit\"", "queue.default.stuck_after = \"5m\""];
    let rig = Rig::with(faults, &settings).await;
    rig.drop_file("a.jsonl", requests(6));
    rig.drain_fast(&clock(100)).await;
    rig.answers_fit(6);
    assert_eq!(rig.creates().len(), 2);
}
