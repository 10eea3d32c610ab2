//! Money: what is counted, what is held, and what goes on when somebody says so.

use std::path::Path;
use std::time::Duration;

use gemini_batchd::config::{Config, Environment};
use gemini_batchd::daemon::{Ended, Handle, Until};
use gemini_batchd::engine::budget::Budget;
use gemini_batchd::engine::event::Command;
use gemini_batchd::engine::money::Amount;
use gemini_batchd::engine::{Engine, JobId};
use gemini_batchd::provider::gemini::emulator::Faults;

use super::rig::{Rig, requests};

/// A price by which a line with a limit of a thousand tokens costs a thousandth, or little more.
const PRICE: [&str; 2] =
    ["price.\"gemini-2.5-flash\".input = 0.1", "price.\"gemini-2.5-flash\".output = \"2\""];
const OFTEN: &str = "intake.rescan = \"20ms\"";

async fn priced(more: &[&str]) -> Rig {
    let settings: Vec<&str> = PRICE.iter().chain(more).copied().collect();
    Rig::with(Faults::default(), &settings).await
}

/// Requests whose answers have a limit.
fn limited(count: usize) -> String {
    let limit = r#""request":{"generationConfig":{"maxOutputTokens":1000},"#;
    requests(count).replace("\"request\":{", limit)
}

async fn while_running(rig: &Rig, story: impl AsyncFnOnce(&Handle)) {
    let setup = rig.setup();
    let handle = setup.daemon.handle();
    let run = setup.daemon.run(Until::Stopped);
    let story = tokio::time::timeout(PATIENCE, story(&handle));
    tokio::select! {
        ended = run => panic!("it ended: {ended:?}"),
        told = story => told.unwrap_or_else(|_| panic!("it did not happen:\n{}", rig.listing())),
    }
}

async fn seen<T>(handle: &Handle, find: impl Fn(&Engine) -> Option<T>) -> T {
    loop {
        if let Some(found) = handle.with_engine(&find) {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

async fn until(is_so: impl Fn() -> bool) {
    while !is_so() {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

fn job_of(engine: &Engine, name: &str) -> Option<JobId> {
    engine.jobs().find(|job| job.head.source.name == name).map(|job| job.head.id)
}

fn spent(handle: &Handle) -> Amount {
    let night = |engine: &Engine| {
        let standings = engine.standings();
        standings.into_iter().find(|it| it.budget == Budget::Night).map(|it| it.spent)
    };
    handle.with_engine(night).expect("always told")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_manifest_says_what_a_job_cost_and_what_was_estimated() {
    let rig = priced(&[]).await;
    rig.drop_file("a.jsonl", limited(10));
    rig.drain().await;
    let manifest = rig.manifest("a");
    let cost = &manifest["cost"];
    assert_eq!(cost["currency"], "USD");
    let (prompt, output) = (&manifest["tokens"]["prompt"], &manifest["tokens"]["output"]);
    let (prompt, output) = (prompt.as_u64().expect("counted"), output.as_u64().expect("counted"));
    let thinking = manifest["tokens"]["thinking"].as_u64().expect("counted");
    // Half of 0.1 and of 2 for a million of them, in thousand-millionths.
    let nano = prompt * 50 + (output + thinking) * 1000;
    assert_eq!(cost["amount"], Amount(nano).to_string());
    assert!(cost["estimated"].as_str().is_some_and(|it| it.starts_with("0.0")), "{cost}");
    let plain = Rig::new(Faults::default()).await;
    plain.drop_file("a.jsonl", limited(1));
    plain.drain().await;
    assert_eq!(plain.manifest("a")["cost"], serde_json::Value::Null, "nobody said what it costs");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_beyond_its_budget_is_held_whole_and_a_release_sends_it() {
    let rig = priced(&[OFTEN, "queue.default.budget = \"0.005\""]).await;
    rig.drop_file("a.jsonl", limited(10));
    assert!(matches!(rig.drain().await, Ended::Idle(_)), "a run that ends by itself does not wait");
    let reason = rig.json("held/a.jsonl.reason.json");
    assert_eq!(reason["reason"], "budget");
    let message = reason["message"].as_str().expect("a text");
    assert!(message.starts_with("none of its 10 lines was sent: up to 0.0"), "{message}");
    assert!(message.contains("of its own budget, 0.005 USD"), "{message}");
    assert_eq!(rig.creates().len(), 0);
    while_running(&rig, async |handle| {
        let id = seen(handle, |engine| job_of(engine, "a.jsonl")).await;
        handle.command(Command::Release(id)).await.expect("it waits for that");
        until(|| rig.path("outbox/a.manifest.json").exists()).await;
    })
    .await;
    assert_eq!(rig.manifest("a")["answered"], 10);
    assert!(!rig.path("held/a.jsonl.reason.json").exists(), "{}", rig.listing());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sidecar_sets_the_budget_of_its_file() {
    let rig = priced(&[OFTEN]).await;
    rig.drop_file("a.job.toml", "budget = \"0.001\"\n");
    rig.drop_file("a.jsonl", limited(10));
    rig.drain().await;
    assert_eq!(rig.json("held/a.jsonl.reason.json")["reason"], "budget");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_night_has_spent_holds_the_next_file_whatever_crashes() {
    let rig = priced(&[OFTEN, "budgets.night = \"0.012\""]).await;
    rig.drop_file("a.jsonl", limited(10));
    rig.drain().await;
    let cost = rig.manifest("a")["cost"]["amount"].as_str().map(Amount::parse);
    let cost = cost.flatten().expect("it is counted");
    while_running(&rig, async |handle| {
        assert_eq!(spent(handle), cost, "a restart remembers");
        rig.drop_file("b.jsonl", limited(12).replace("question", "another question"));
        until(|| rig.path("held/b.jsonl.reason.json").exists()).await;
        let told = rig.json("held/b.jsonl.reason.json")["message"].to_string();
        assert!(told.contains("of the night's budget, 0.012 USD"), "{told}");
        let id = seen(handle, |engine| job_of(engine, "a.jsonl")).await;
        handle.command(Command::Delete(id)).await.expect("it is over");
    })
    .await;
    while_running(&rig, async |handle| {
        assert_eq!(spent(handle), cost, "although its job is forgotten");
    })
    .await;
    assert_eq!(rig.creates().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_was_held_for_the_night_is_sent_when_the_budget_is_raised_and_reloaded() {
    let rig = priced(&[OFTEN, "budgets.night = \"0.005\""]).await;
    rig.drop_file("a.jsonl", limited(10));
    rig.drain().await;
    assert!(rig.path("held/a.jsonl").exists());
    let file = rig.path("gemini-batchd.toml");
    let mut setup = rig.setup();
    let text = std::fs::read_to_string(&file).expect("read").replace("0.005", "0.05");
    let spool = rig.folder.path().to_owned();
    setup.daemon.reload_from(move || {
        let variables = [("GEMINI_API_KEY", super::rig::KEY)];
        let spool = spool.to_string_lossy();
        let variables =
            variables.into_iter().chain([("GEMINI_BATCHD__SPOOL__DIR", spool.as_ref())]);
        Config::read(&file, &text, &Environment::made_up(Path::new(spool.as_ref()), variables))
    });
    let handle = setup.daemon.handle();
    let run = setup.daemon.run(Until::Stopped);
    let story = async {
        handle.tell(gemini_batchd::daemon::Message::Reload).await;
        until(|| rig.path("outbox/a.manifest.json").exists()).await;
    };
    tokio::select! {
        ended = run => panic!("it ended: {ended:?}"),
        told = tokio::time::timeout(PATIENCE, story) => told.expect("it is sent"),
    }
    assert_eq!(rig.manifest("a")["answered"], 10);
}

fn complaint(text: &str) -> String {
    let environment = Environment::made_up(Path::new("/spool"), [("HOME", "/home")]);
    let read = Config::read(Path::new("/etc/c.toml"), text, &environment);
    read.expect_err("it is wrong").to_string()
}

#[test]
fn prices_and_budgets_that_are_none_are_refused_with_the_line() {
    let price = "[price.\"gemini-2.5-flash\"]\ninput = 0.3\noutput = \"2.50\"\n";
    for (text, line, part) in [
        ("[budgets]\nnight = \"-5\"\n", 2, "plain decimal that is not negative"),
        ("[budgets]\nnight = -5\n", 2, "plain decimal that is not negative"),
        ("[budgets]\nnight = 1e3\n", 2, "plain decimal"),
        ("[budgets]\nmonth = \"much\"\n", 2, "plain decimal"),
        ("[budgets]\nmonth = 0\n", 2, "above 0"),
        ("[budgets]\nmonth = 99999999999\n", 2, "up to 1000000000"),
        ("[budgets]\ncurrency = \"\"\n", 2, "such as \"USD\""),
        ("[budgets]\nqueue.reviews = \"-1\"\n", 2, "\"reviews\" is \"-1\""),
        ("[budgets.queue]\nreviews = 0\n", 1, "\"reviews\" is \"0\""),
        ("[queue.default]\nbudget = \"5,00\"\n", 2, "plain decimal"),
        ("[price.\"m\"]\ninput = 1\n", 2, "price.m.output is missing"),
        ("[price.\"m\"]\ninput = 1000001\noutput = 1\n", 2, "between 0 and 1000000"),
        ("[price.\"m\"]\ninput = 0\noutput = 0\n", 2, "costs nothing"),
        ("[price.\"m\"]\ninput = 1\noutput = 1\nbatch_factor = 1.5\n", 4, "between 0 and 1"),
        ("[price.\"a b\"]\ninput = 1\noutput = 1\n", 1, "no model name"),
        ("[price]\ninput = 1\n", 2, "[price.\"MODEL\"]"),
        ("[limits]\nenqueued_tokens = -1\n", 2, "0 or more"),
        ("[limits]\nenqueued_tokens_of = { m = 0 }\n", 2, "whole number of tokens"),
        ("[budgets]\nnight = \"5\"\n", 2, "no price of that model"),
        ("[queue.default]\nbudget = 5\nmodel = \"gemini-2.5-pro\"\n", 3, "no price of that model"),
    ] {
        let said = complaint(text);
        assert!(said.contains(&format!("c.toml:{line}: ")) && said.contains(part), "{text}{said}");
    }
    let said =
        complaint(&format!("{price}[budgets]\nnight = 5\n[queue.a]\nmodel = \"gemini-3\"\n"));
    assert!(
        said.contains("c.toml:7: queue.a.model") && said.contains("[price.\"gemini-3\"]"),
        "{said}"
    );
}

#[test]
fn prices_and_budgets_are_read_exactly_and_shown_as_they_can_be_written() {
    let text = "[price.\"gemini-2.5-flash\"]\ninput = 0.30\noutput = \"2.50\"\ncached = 0.075\n\
                [budgets]\ncurrency = \"EUR\"\nnight = 20\nmonth = \"300.5\"\nqueue.\"a b\" = \"1.25\"\n\
                [queue.default]\nbudget = 5\n[limits]\nenqueued_tokens_of = { \"gemini-2.5-pro\" = 5000000 }\n";
    let environment = Environment::made_up(Path::new("/spool"), [("HOME", "/home")]);
    let read = |text: &str| {
        Config::read(Path::new("/etc/c.toml"), text, &environment).expect("it is right")
    };
    let config = read(text);
    let means = &config.means;
    let price = means.prices["gemini-2.5-flash"];
    assert_eq!((price.input, price.output, price.cached), (300_000, 2_500_000, 75_000));
    assert_eq!((price.image, price.batch_factor), (None, 500_000));
    assert_eq!(means.currency, "EUR");
    let exact = |amount: Option<Amount>| amount.map(|it| it.to_string()).unwrap_or_default();
    assert_eq!((exact(means.night), exact(means.month)), ("20.00".into(), "300.50".into()));
    assert_eq!(means.queues["a b"].to_string(), "1.25");
    assert_eq!(means.tokens_of["gemini-2.5-pro"], 5_000_000);
    assert_eq!(exact(config.queue_for("").budget), "5.00");
    let again = read(&gemini_batchd::config::as_file(&config.shown));
    assert_eq!((again.means.clone(), again.queue_for("")), (means.clone(), config.queue_for("")));
}

const PATIENCE: Duration = Duration::from_secs(240);
