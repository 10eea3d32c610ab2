//! The control socket, served and asked over a real socket.

use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::view::event::EventQuery;
use crate::view::report::{Gathering, Report};
use crate::view::schedule::Schedule;
use crate::view::{Health, Lines, Times, VERSION, found};

/// A daemon with two jobs and one event.
struct Fake {
    live: broadcast::Sender<Arc<Event>>,
}

impl Look for Fake {
    fn snapshot(&self) -> Snapshot {
        snapshot()
    }

    fn job(&self, prefix: &str) -> Result<JobView, NoSuchJob> {
        let ids = [ONE, TWO].map(|id| id.parse().expect("an id"));
        Ok(job(found::by_prefix(ids, prefix)?.as_str()))
    }

    fn jobs(&self, query: &JobQuery) -> Result<JobList, BadQuery> {
        let filter = crate::view::JobFilter::read(query, crate::engine::Millis(0))?;
        let page = filter.page([]);
        let jobs = vec![job(ONE), job(TWO)];
        Ok(JobList { version: VERSION, jobs, total: page.total, next: None })
    }

    fn batches(&self, _: &BatchQuery) -> Result<BatchList, BadQuery> {
        Ok(BatchList { version: VERSION, batches: Vec::new() })
    }

    fn days(&self, days: u32) -> DayList {
        DayList::of(&Default::default(), crate::engine::Millis(0), days)
    }

    fn schedule(&self) -> Schedule {
        Schedule { version: VERSION, now: String::new(), entries: Vec::new() }
    }

    fn report(&self, _: Option<&str>) -> Result<Report, BadQuery> {
        let gathering = Gathering::new(crate::engine::Millis(0), crate::engine::Millis(1000));
        Ok(gathering.finish(&Default::default(), None, Vec::new()))
    }

    fn figures(&self) -> Figures {
        Figures::default()
    }

    fn events(&self, filter: &EventFilter) -> EventList {
        let events: Vec<Event> = (1..=3).map(event).collect();
        let after = filter.after.unwrap_or(0);
        let events = events.into_iter().filter(|event| event.seq > after);
        EventList { version: VERSION, events: events.take(filter.limit).collect(), next: 3 }
    }

    fn follow(&self) -> broadcast::Receiver<Arc<Event>> {
        self.live.subscribe()
    }
}

fn event(seq: u64) -> Event {
    Event {
        seq,
        time: String::new(),
        job: (seq > 1).then(|| ONE.to_owned()),
        file: None,
        kind: "planned".to_owned(),
        text: seq.to_string(),
    }
}

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
        draining: false,
        paused_by_operator: false,
    };
    let jobs = vec![job(ONE), job(TWO)];
    let counts = Default::default();
    Snapshot {
        version: VERSION,
        health,
        counts,
        queues: Vec::new(),
        jobs,
        jobs_total: 2,
        spending: None,
    }
}

fn job(id: &str) -> JobView {
    JobView {
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
        tokens: None,
        failures: Default::default(),
        on_hold: false,
        opens: None,
        waiting_s: None,
        typical_s: None,
        cost: None,
        bytes: 0,
        deadline: None,
        reused: 0,
    }
}

const ONE: &str = "01JD0000000000000000000001";
const TWO: &str = "01JE0000000000000000000002";

/// Runs a test against a served socket; commands are answered by `answer`.
async fn served<T>(
    answer: fn(Command) -> Result<String, Refused>,
    test: impl AsyncFnOnce(Client, broadcast::Sender<Arc<Event>>) -> T,
) -> T {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("run/control.sock");
    let (command, mut commands) = mpsc::channel::<(Command, Reply)>(4);
    let (live, _) = broadcast::channel(4);
    let (stop, stopping) = watch::channel(false);
    let look = Arc::new(Fake { live: live.clone() });
    let desk = Desk::new(Control { look, command, stopping });
    let listening = listen(&path).expect("opened");
    let daemon = async {
        while let Some((command, reply)) = commands.recv().await {
            reply.send(answer(command)).expect("somebody waits");
        }
    };
    let server = listening.serve(desk);
    let client = async {
        let result = test(Client::connect(&path).expect("somebody listens"), live).await;
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
        async |client, _| {
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
        async |client, _| {
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

#[tokio::test]
async fn lists_are_asked_for_and_odd_questions_are_told_what_is_wrong() {
    served(
        |_| Ok(String::new()),
        async |client, _| {
            assert_eq!(client.jobs(&JobQuery::default()).await.expect("answered").jobs.len(), 2);
            assert_eq!(client.days(30).await.expect("answered").days.len(), 1, "since 1970");
            let odd = JobQuery { state: Some("lost".to_owned()), ..JobQuery::default() };
            let error = client.jobs(&odd).await.expect_err("no state").to_string();
            assert!(error.contains("\"lost\" is no state"), "{error}");
            let error = client.days(0).await.expect_err("none").to_string();
            assert!(error.contains("between 1 and 366"), "{error}");
            let batches = client.batches(&BatchQuery::default()).await.expect("answered");
            assert!(batches.batches.is_empty());
            let events = EventQuery { after: Some(1), ..EventQuery::default() };
            assert_eq!(client.events(&events).await.expect("answered").events[0].seq, 2);
            assert_eq!(client.job_events("01jd", 10).await.expect("answered").events.len(), 3);
            let error = client.job_events("01JD/", 10).await.expect_err("no id").to_string();
            assert!(error.contains("no job id"), "{error}");
        },
    )
    .await;
}

#[tokio::test]
async fn a_stream_gives_what_was_then_what_comes_and_ends_with_the_daemon() {
    let mut following = served(
        |_| Ok(String::new()),
        async |client, live| {
            let mut following = client.follow_events(Some(1), Some("01jd")).await.expect("begun");
            for seq in [2, 3] {
                let event = following.next().await.expect("read").expect("there");
                assert_eq!(event.seq, seq);
            }
            // What was there already does not come twice, nor what is of other jobs.
            live.send(Arc::new(event(3))).expect("somebody follows");
            live.send(Arc::new(Event { job: Some(TWO.to_owned()), ..event(4) })).expect("so");
            live.send(Arc::new(event(5))).expect("somebody follows");
            assert_eq!(following.next().await.expect("read").expect("there").seq, 5);
            following
        },
    )
    .await;
    assert_eq!(following.next().await.expect("ended well"), None);
}

#[tokio::test]
async fn one_who_reads_too_slowly_is_let_go_and_goes_on_where_it_was() {
    served(
        |_| Ok(String::new()),
        async |client, live| {
            let mut following = client.follow_events(None, None).await.expect("begun");
            // Nothing runs between these, so nobody can have read them.
            for seq in 4..=40 {
                live.send(Arc::new(event(seq))).expect("somebody follows");
            }
            let next = following.next();
            tokio::pin!(next);
            // It is served again from what is kept, which has nothing newer, then from what comes.
            let event = loop {
                tokio::select! {
                    event = &mut next => break event.expect("read").expect("there"),
                    () = tokio::time::sleep(std::time::Duration::from_millis(5)) => {
                        drop(live.send(Arc::new(event(41))));
                    }
                }
            };
            assert_eq!(event.seq, 41);
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
