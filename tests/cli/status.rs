use std::sync::Arc;

use gemini_batchd::control::{self, Control, Desk, Look, Refused, Reply};
use gemini_batchd::engine::event::Command;
use gemini_batchd::engine::ids::Millis;
use gemini_batchd::view::report::{Gathering, Report};
use gemini_batchd::view::schedule::Schedule;
use gemini_batchd::view::{
    BadQuery, BatchList, BatchQuery, DayList, Event, EventFilter, EventList, Figures, Health,
    JobList, JobQuery, JobView, Lines, NoSuchJob, Snapshot, Times, VERSION, found,
};
use predicates::prelude::*;
use tokio::sync::{broadcast, mpsc, watch};

use crate::Place;

const ID: &str = "01JD0000000000000000000001";

fn snapshot() -> Snapshot {
    let health = Health {
        daemon: "0.1.0".to_owned(),
        pid: 42,
        inbox: "/spool/inbox".to_owned(),
        watching: "events".to_owned(),
        started: "2026-11-21T02:00:00Z".to_owned(),
        now: "2026-11-21T02:00:10Z".to_owned(),
        paused: Some("the API refused the key".to_owned()),
        trouble: Some("the API refused the key".to_owned()),
        draining: false,
        paused_by_operator: false,
    };
    let job = JobView {
        id: ID.to_owned(),
        file: "reviews/a\u{1b}[31m.jsonl".to_owned(),
        queue: "reviews".to_owned(),
        model: "gemini-2.5-flash".to_owned(),
        state: "active".to_owned(),
        phase: "waiting at Google".to_owned(),
        reason: None,
        lines: Lines { total: 10, answered: 4, failed: 1, open: 5 },
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
        bytes: 10,
        reused: 0,
        deadline: None,
    };
    let (counts, jobs) = ([("active".to_owned(), 1)].into(), vec![job]);
    Snapshot {
        version: VERSION,
        health,
        counts,
        queues: Vec::new(),
        jobs,
        jobs_total: 1,
        spending: None,
    }
}

/// A daemon that always looks the same.
struct Fake(broadcast::Sender<Arc<Event>>);

impl Look for Fake {
    fn snapshot(&self) -> Snapshot {
        snapshot()
    }

    fn job(&self, prefix: &str) -> Result<JobView, NoSuchJob> {
        let id = ID.parse().expect("an id");
        found::by_prefix([id], prefix).map(|_| snapshot().jobs.remove(0))
    }

    fn jobs(&self, _: &JobQuery) -> Result<JobList, BadQuery> {
        Ok(JobList { version: VERSION, jobs: snapshot().jobs, total: 1, next: None })
    }

    fn batches(&self, _: &BatchQuery) -> Result<BatchList, BadQuery> {
        Ok(BatchList { version: VERSION, batches: Vec::new() })
    }

    fn days(&self, _: u32) -> DayList {
        DayList { version: VERSION, days: Vec::new() }
    }

    fn schedule(&self) -> Schedule {
        Schedule { version: VERSION, now: String::new(), entries: Vec::new() }
    }

    fn report(&self, _: Option<&str>) -> Result<Report, BadQuery> {
        let gathering = Gathering::new(Millis(0), Millis(1000));
        Ok(gathering.finish(&Default::default(), None, Vec::new()))
    }

    fn figures(&self) -> Figures {
        Figures::default()
    }

    fn events(&self, _: &EventFilter) -> EventList {
        EventList { version: VERSION, events: Vec::new(), next: 0 }
    }

    fn follow(&self) -> broadcast::Receiver<Arc<Event>> {
        self.0.subscribe()
    }
}

/// A control socket in the spool of the place, served by a thread of its own; it cancels and
/// never releases.
struct Served {
    stop: Option<watch::Sender<bool>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Served {
    fn at(place: &Place) -> Served {
        let socket = place.path("spool/state/gemini-batchd.sock");
        let (ready, started) = std::sync::mpsc::channel();
        let (stop, stopping) = watch::channel(false);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Runtime::new().expect("a runtime");
            runtime.block_on(async {
                let (command, mut commands) = mpsc::channel::<(Command, Reply)>(1);
                let look = Arc::new(Fake(broadcast::channel(1).0));
                let desk = Desk::new(Control { look, command, stopping });
                let listening = control::listen(&socket).expect("opened");
                ready.send(()).expect("somebody waits");
                let answers = async {
                    while let Some((command, reply)) = commands.recv().await {
                        let answer = match command {
                            Command::Cancel(_) => Ok("is being cancelled".to_owned()),
                            _ => Err(Refused::NotNow("the job waits for nobody".to_owned())),
                        };
                        reply.send(answer).expect("somebody waits");
                    }
                };
                let served = listening.serve(desk);
                let (served, ()) = tokio::join!(served, answers);
                served.expect("served");
            });
        });
        started.recv().expect("started");
        Served { stop: Some(stop), thread: Some(thread) }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the server ended well");
        }
    }
}

#[test]
fn without_a_daemon_each_verb_says_how_to_start_one() {
    let place = Place::new();
    let verbs =
        "status, status 01JD, cancel 01JD, release 01JD, list, show 01JD, events, events --follow";
    for verb in verbs.split(", ") {
        let verb: Vec<&str> = verb.split(' ').collect();
        place
            .run(&verb)
            .assert()
            .code(1)
            .stdout("")
            .stderr(predicate::str::starts_with("error: no daemon is running"))
            .stderr(predicate::str::contains("gemini-batchd run"));
    }
}

#[test]
fn jobs_are_listed_with_what_they_do_and_nothing_odd_reaches_the_terminal() {
    let place = Place::new();
    let _daemon = Served::at(&place);
    place
        .run(&["status"])
        .assert()
        .code(0)
        .stdout(predicate::str::contains("PAUSED: the API refused the key"))
        .stdout(predicate::str::contains("TROUBLE").not())
        .stdout(predicate::str::contains(
            "4 of 10 answered, 1 failed, 5 open\n    waiting at Google",
        ))
        .stdout(predicate::str::contains("a\\u{1b}[31m.jsonl"))
        .stdout(predicate::str::contains('\u{1b}').not());
    place
        .run(&["status", "01jd"])
        .assert()
        .code(0)
        .stdout(predicate::str::contains(format!("job      {ID}")));
}

#[test]
fn json_is_the_snapshot_itself() {
    let place = Place::new();
    let _daemon = Served::at(&place);
    let output = place.run(&["status", "--json"]).output().expect("run");
    let seen: Snapshot = serde_json::from_slice(&output.stdout).expect("a snapshot");
    assert_eq!(seen, snapshot());
}

#[test]
fn a_job_nobody_knows_is_told_so() {
    let place = Place::new();
    let _daemon = Served::at(&place);
    place
        .run(&["status", "01ZZ"])
        .assert()
        .code(1)
        .stderr(predicate::str::contains("no job's id begins with \"01ZZ\""));
}

#[test]
fn commands_go_through_and_refusals_come_back() {
    let place = Place::new();
    let _daemon = Served::at(&place);
    place
        .run(&["cancel", "01JD"])
        .assert()
        .code(0)
        .stdout(predicate::str::contains(format!("{ID} (reviews/")));
    place.run(&["release", "01JD"]).assert().code(1).stderr("error: the job waits for nobody\n");
}

/// Fault 85.
#[test]
fn another_user_may_not_ask_the_daemon_anything() {
    use std::os::unix::fs::PermissionsExt;
    let as_nobody = ["--reuid=65534", "--regid=65534", "--clear-groups"];
    let tried = std::process::Command::new("setpriv").args(as_nobody).arg("true").output();
    if !tried.as_ref().is_ok_and(|tried| tried.status.success()) {
        // Only root can become somebody else.
        let is_root = rustix::process::geteuid().is_root();
        assert!(std::env::var_os("CI").is_none() || !is_root, "setpriv: {tried:?}");
        eprintln!("SKIPPED: setpriv: {tried:?}");
        return;
    }
    let place = Place::new();
    let _daemon = Served::at(&place);
    // Everybody may come near the socket and run the program; only the socket itself is in the way.
    let program = place.path("gemini-batchd");
    std::fs::copy(crate::binary(), &program).expect("copied");
    for path in [place.path(""), place.path("spool"), place.path("spool/state"), program.clone()] {
        let open = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(path, open).expect("opened up");
    }
    let ask = || {
        let asked = place.std_command();
        let mut command = std::process::Command::new("setpriv");
        command.args(as_nobody).arg(&program).arg("status").env_clear().current_dir("/");
        command.envs(asked.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        let output = command.output().expect("it runs");
        assert_eq!(output.status.code(), Some(1));
        assert!(output.stdout.is_empty());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let said = ask();
    assert!(said.contains("cannot be opened"), "{said}");
    // Even a socket that somebody has opened up is for the same people.
    let socket = place.path("spool/state/gemini-batchd.sock");
    std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o666)).expect("opened up");
    let said = ask();
    assert!(said.contains("is for root, the daemon's user and the socket's group"), "{said}");
}
