//! Batches that fail, expire, are cancelled or vanish, and rows that fail for a while.

use gemini_batchd::provider::gemini::emulator::faults::{Ending, Ends, EveryNth, Poison};
use gemini_batchd::provider::gemini::emulator::{Budget, Faults};

use super::rig::{Rig, keys, request, requests};

const BY_FILE: &str = "queue.default.transport = \"file\"";

/// Fault 66.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_batch_had_answered_before_its_end_is_kept_and_the_rest_sent_again() {
    for state in [Ending::Cancelled, Ending::Expired, Ending::Failed] {
        let ends = Ends { state, fraction: 0.5, times: Budget::times(1) };
        let faults = Faults { ends: Some(ends), ..Faults::default() };
        let rig = Rig::with(faults, &[BY_FILE]).await;
        rig.drop_file("a.jsonl", requests(20));
        rig.drain().await;
        let manifest = rig.manifest("a");
        assert_eq!(manifest["verdict"], "complete", "{state:?} {manifest}");
        assert_eq!(manifest["batches"][0]["answered"], 10, "{state:?} {manifest}");
        assert_eq!(manifest["batches"][1]["lines"], 10, "{state:?} {manifest}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_with_an_internal_error_are_sent_again_up_to_the_limit() {
    let always = EveryNth { every: 10, times: Budget::Always };
    let faults = Faults { code_13: always, code_13_first_only: true, ..Faults::default() };
    let rig = Rig::new(faults).await;
    rig.drop_file("a.jsonl", requests(20));
    rig.drain().await;
    assert_eq!(rig.manifest("a")["verdict"], "complete");

    let faults =
        Faults { code_13: EveryNth { every: 1, times: Budget::Always }, ..Faults::default() };
    let rig = Rig::new(faults).await;
    rig.drop_file("b.jsonl", requests(3));
    rig.drain().await;
    let manifest = rig.manifest("b");
    assert_eq!(manifest["verdict"], "failed");
    assert_eq!(manifest["batches"].as_array().expect("batches").len(), 3, "{manifest}");
    assert_eq!(rig.lines("b.errors.jsonl")[0]["error"]["code"], 13);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_fails_for_one_line_is_halved_until_that_line_stands_alone() {
    for code in [3, 13] {
        let message = "Request contains an invalid argument.".to_owned();
        let poison = Poison { text: "arsenic".to_owned(), code, message };
        let faults = Faults { poison: Some(poison), ..Faults::default() };
        let rig = Rig::with(faults, &[BY_FILE]).await;
        let mut input = requests(13);
        input.push_str(&request("bad", "a cup of arsenic"));
        input.push_str(&request("last", "fine"));
        rig.drop_file("a.jsonl", input);
        rig.drain().await;
        let manifest = rig.manifest("a");
        assert_eq!(manifest["answered"], 14, "code {code}: {manifest}");
        let errors = rig.lines("a.errors.jsonl");
        assert_eq!(keys(&errors), ["bad"]);
        assert_eq!(errors[0]["line"], 14);
    }
}

/// Fault 57.
#[tokio::test(flavor = "multi_thread")]
async fn a_create_refused_without_a_reason_is_halved_too() {
    for settings in [&[BY_FILE][..], &[]] {
        let faults = Faults { create_opaque_400: Some("arsenic".to_owned()), ..Faults::default() };
        let rig = Rig::with(faults, settings).await;
        let mut input = requests(9);
        input.push_str(&request("bad", "a cup of arsenic"));
        rig.drop_file("a.jsonl", input);
        rig.drain().await;
        assert_eq!(rig.manifest("a")["answered"], 9);
        assert_eq!(keys(&rig.lines("a.errors.jsonl")), ["bad"]);
    }
}

/// Fault 57.
#[tokio::test(flavor = "multi_thread")]
async fn lines_that_the_api_names_fail_alone_and_the_rest_is_sent() {
    for settings in [&[BY_FILE][..], &[]] {
        let rig = Rig::with(Faults::default(), settings).await;
        let mut input = requests(4);
        input.push_str("{\"key\":\"odd\",\"request\":{\"contents\":[{\"parts\":[{\"text\":\"x\"}]}],\"thinkingConfig\":{}}}\n");
        input.push_str(&requests(2).replace("\"k", "\"l"));
        rig.drop_file("a.jsonl", input);
        rig.drain().await;
        let manifest = rig.manifest("a");
        assert_eq!(manifest["answered"], 6, "{manifest}");
        let errors = rig.lines("a.errors.jsonl");
        assert_eq!(keys(&errors), ["odd"]);
        let message = errors[0]["error"]["message"].as_str().expect("a message");
        assert!(message.contains("thinkingConfig"), "{message}");
        assert_eq!(rig.creates().len(), 1);
    }
}

/// Fault 66.
#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_vanishes_is_made_again() {
    let faults = Faults { vanish: Budget::times(1), ..Faults::default() };
    let rig = Rig::new(faults).await;
    rig.drop_file("a.jsonl", requests(3));
    rig.drain().await;
    assert_eq!(rig.manifest("a")["answered"], 3);
    assert_eq!(rig.creates().len(), 2);
}
