//! The API says that a batch has ended, and it is polled at once.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;

use gemini_batchd::clock::SystemClock;
use gemini_batchd::daemon::{Message, Until, wakeup};
use gemini_batchd::provider::gemini::emulator::faults::{Ending, Ends};
use gemini_batchd::provider::gemini::emulator::{Budget, Faults, Options, Webhook};
use gemini_batchd::signature::Secret;
use gemini_batchd::view::Wakeups;

use super::rig::{Rig, requests};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// A port that is free now.
fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("an address").port()
}

/// A rig whose daemon would look at its batches after an hour only.
async fn patient_rig(secret: &str, faults: Faults) -> Rig {
    let port = free_port();
    let secret = Secret::parse(secret).expect("a secret");
    let webhook = Some(Webhook { url: format!("http://127.0.0.1:{port}/"), secret });
    // Not over before the first poll.
    let pending_for = Duration::from_millis(300);
    let options = Options { webhook, pending_for, ..Rig::options(faults) };
    let listen = format!("webhook.listen = \"127.0.0.1:{port}\"");
    let rig = Rig::over(
        options,
        &[&listen, "webhook.secret_file = \"secret\"", "poll.min = \"1h\"", "poll.max = \"1h\""],
    )
    .await;
    fs::write(rig.path("secret"), SECRET).expect("written");
    fs::set_permissions(rig.path("secret"), fs::Permissions::from_mode(0o600)).expect("set");
    rig
}

/// Runs a daemon that hears notices until something is so; tells what it heard.
async fn hear(rig: &Rig, is_so: impl Fn(&Wakeups) -> bool) -> Wakeups {
    let config = rig.config();
    let setup = rig.setup();
    let handle = setup.daemon.handle();
    let settings = config.wakeup.expect("it is set");
    let _waking =
        wakeup::serve(&settings, handle.clone(), Arc::new(SystemClock)).expect("it listens");
    let wait = async {
        while !is_so(&handle.notices().wakeups) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let heard = handle.notices().wakeups;
        handle.tell(Message::Stop).await;
        heard
    };
    let both = async { tokio::join!(setup.daemon.run(Until::Stopped), wait) };
    let (ended, heard) =
        tokio::time::timeout(Duration::from_secs(60), both).await.expect("in time");
    ended.expect("its store works");
    heard
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signed_notice_lets_a_batch_be_polled_at_once() {
    let rig = patient_rig(SECRET, Faults::default()).await;
    rig.drop_file("a.jsonl", requests(3));
    let heard = hear(&rig, |_| rig.path("outbox/a.manifest.json").exists()).await;
    assert_eq!((heard.taken, heard.refused), (1, 0));
    assert_eq!(rig.manifest("a")["answered"], 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_failed_is_noticed_too() {
    let ends = Ends { state: Ending::Expired, fraction: 0.0, times: Budget::times(1) };
    let rig = patient_rig(SECRET, Faults { ends: Some(ends), ..Faults::default() }).await;
    rig.drop_file("a.jsonl", requests(3));
    let heard = hear(&rig, |_| rig.path("outbox/a.manifest.json").exists()).await;
    assert_eq!((heard.taken, heard.refused), (2, 0), "the first batch expired");
    assert_eq!(rig.creates().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_notice_with_another_secret_wakes_nobody() {
    let other = "whsec_b3RoZXItc2VjcmV0LW9mLXRoZS10ZXN0cw==";
    let rig = patient_rig(other, Faults::default()).await;
    rig.drop_file("a.jsonl", requests(3));
    // Every notice is sent a few times.
    let heard = hear(&rig, |heard| heard.refused >= 5).await;
    assert_eq!(heard.taken, 0);
    assert!(!rig.path("outbox/a.manifest.json").exists(), "nobody looked at the batch");
}
