//! What operators ask of a daemon that works.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use gemini_batchd::clock::SystemClock;
use gemini_batchd::control::Client;
use gemini_batchd::daemon::operators::{self, Identity};
use gemini_batchd::daemon::{Message, Until};
use gemini_batchd::engine::Millis;
use gemini_batchd::provider::gemini::emulator::Faults;

use super::rig::{Rig, request};

/// Fault 87.
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_status_requests_keeps_no_file_from_its_answers() {
    const FILES: usize = 60;
    const ASKERS: usize = 50;
    let rig = Rig::with(Faults::default(), &["intake.rescan = \"20ms\""]).await;
    let setup = rig.setup();
    let handle = setup.daemon.handle();
    let socket = rig.path("control.sock");
    let identity = Identity { inbox: String::new(), started: Millis(0) };
    let _serving =
        operators::serve(&socket, identity, handle.clone(), Arc::new(SystemClock)).expect("served");
    let (answered, over) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let mut askers = tokio::task::JoinSet::new();
    for _ in 0..ASKERS {
        let (answered, over, socket) = (Arc::clone(&answered), Arc::clone(&over), socket.clone());
        askers.spawn(async move {
            let client = Client::connect(&socket).expect("it listens");
            while !over.load(Ordering::Relaxed) {
                client.status().await.expect("answered");
                answered.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    let story = async {
        for n in 0..FILES {
            rig.drop_file(&format!("{n}.jsonl"), request("k", &format!("question {n}")));
        }
        let done = |n: &usize| rig.path("outbox").join(format!("{n}.manifest.json")).exists();
        while (0..FILES).filter(done).count() < FILES || answered.load(Ordering::Relaxed) < 1000 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        over.store(true, Ordering::Relaxed);
        handle.tell(Message::Stop).await;
    };
    let run = async { tokio::join!(setup.daemon.run(Until::Stopped), story) };
    let (ended, ()) = tokio::time::timeout(Duration::from_secs(240), run).await.expect("in time");
    ended.expect("its store works");
    while let Some(asker) = askers.join_next().await {
        asker.expect("every question was answered");
    }
    assert_eq!(rig.creates().len(), FILES);
}
