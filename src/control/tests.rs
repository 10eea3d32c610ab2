//! The control socket, served and asked over a real socket.

use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::view::{Health, JobView, Lines, Times, VERSION};

fn snapshot() -> Snapshot {
    let health = Health {
        daemon: "0.1.0".to_owned(),
        pid: 1,
        inbox: "/inbox".to_owned(),
        watching: "events".to_owned(),
        started: String::new(),
        now: String::new(),
        paused: Some("the key was refused".to_owned()),
        trouble: None,
    };
    let job = |id: &str| JobView {
        id: id.to_owned(),
        file: "a.jsonl".to_owned(),
        queue: "default".to_owned(),
        model: "m".to_owned(),
        state: "active".to_owned(),
        phase: "waiting at Google".to_owned(),
        reason: None,
        lines: Lines::default(),
        chunks: Default::default(),
        batches: Vec::new(),
        batches_total: 0,
        output: None,
        times: Times::default(),
    };
    let jobs = vec![job(ONE), job(TWO)];
    Snapshot { version: VERSION, health, counts: Default::default(), jobs }
}

const ONE: &str = "01JD0000000000000000000001";
const TWO: &str = "01JE0000000000000000000002";

/// Runs a test against a served socket; commands are answered by `answer`.
async fn served<T>(
    answer: fn(Command) -> Result<String, Refused>,
    test: impl AsyncFnOnce(Client) -> T,
) -> T {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("run/control.sock");
    let (command, mut commands) = mpsc::channel::<(Command, Reply)>(4);
    let control = Control { snapshot: Arc::new(snapshot), command };
    let listening = listen(&path).expect("opened");
    let daemon = async {
        while let Some((command, reply)) = commands.recv().await {
            reply.send(answer(command)).expect("somebody waits");
        }
    };
    let (stop, stopped) = oneshot::channel::<()>();
    let server = listening.serve(control, async {
        drop(stopped.await);
    });
    let client = async {
        let result = test(Client::connect(&path).expect("somebody listens")).await;
        drop(stop);
        result
    };
    let (result, served, ()) = tokio::join!(client, server, daemon);
    served.expect("served to the end");
    assert!(!path.exists(), "the socket is removed at the end");
    result
}

#[tokio::test]
async fn status_and_jobs_come_over_the_socket() {
    served(
        |_| Ok(String::new()),
        async |client| {
            let status = client.status().await.expect("answered");
            assert_eq!(status, snapshot());
            assert_eq!(client.job("01jd").await.expect("unique").id, ONE);
            let error = client.job("01J").await.expect_err("too short").to_string();
            assert!(error.contains("at least 4"), "{error}");
            let error = client.job("01J/../status").await.expect_err("no id").to_string();
            assert!(error.contains("no job id"), "{error}");
        },
    )
    .await;
}

#[tokio::test]
async fn a_command_reaches_the_daemon_and_its_refusal_comes_back() {
    served(
        |command| match command {
            Command::Cancel(id) if id.as_str() == ONE => Ok("is being cancelled".to_owned()),
            Command::Pause(Some(queue)) if queue == "a/b: c" => Ok("it is paused".to_owned()),
            Command::Drain => Err(Refused::Failed("no room".to_owned())),
            Command::Resume(Some(name)) => Err(Refused::Unknown(format!("no queue {name}"))),
            _ => Err(Refused::NotNow("is not held".to_owned())),
        },
        async |client| {
            let told = client.command("cancel", "01JD").await.expect("taken");
            assert_eq!((told.version, told.job.id.as_str()), (VERSION, ONE));
            assert_eq!(told.said, "is being cancelled");
            let error = client.command("release", "01JE").await.expect_err("refused");
            assert!(matches!(&error, ClientError::Refused(why) if why == "is not held"), "{error}");
            let error = client.command("explode", "01JE").await.expect_err("refused");
            assert!(error.to_string().contains(":cancel, :release, :hold"), "{error}");
            let told = client.steer("pause", Some("a/b: c")).await.expect("taken");
            assert_eq!(told, Told { version: VERSION, said: "it is paused".to_owned() });
            for (verb, queue, why) in [
                ("resume", Some("revews"), "no queue revews"),
                ("drain", None, "no room"),
                ("pause", None, "is not held"),
                ("explode", Some("q"), ":pause or :resume"),
            ] {
                let error = client.steer(verb, queue).await.expect_err("refused").to_string();
                assert!(error.contains(why), "{verb}: {error}");
            }
        },
    )
    .await;
}

/// Fault 85.
#[tokio::test]
async fn the_socket_is_for_owner_and_group_only() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("s");
    let _listening = listen(&path).expect("opened");
    let mode = std::fs::metadata(&path).expect("there").permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
}

#[tokio::test]
async fn a_socket_left_by_a_dead_daemon_is_replaced_a_living_one_is_not() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("s");
    drop(listen(&path).expect("opened"));
    assert!(path.exists(), "dropped without clean-up, as after a crash");
    let error = Client::connect(&path).expect_err("dead");
    assert!(matches!(error, ClientError::NotRunning { .. }));
    let _alive = listen(&path).expect("replaced");
    assert!(matches!(listen(&path), Err(ControlError::InUse { .. })));
}

#[tokio::test]
async fn a_file_in_the_way_is_left_alone() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("s");
    std::fs::File::create(&path).expect("made");
    assert!(matches!(listen(&path), Err(ControlError::NotASocket { .. })));
    assert!(path.exists());
    let long = folder.path().join("x".repeat(120));
    assert!(matches!(listen(&long), Err(ControlError::TooLong { .. })));
}
