use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use gemini_batchd::provider::gemini::emulator::Happened;
use predicates::prelude::*;

use crate::Place;
use crate::world::{JOB, KEY, World, stamp};

/// What makes the daemon quick; `more` comes last.
fn configure(place: &Place, more: &str) {
    let quick = "[api]\nbackoff_min = \"5ms\"\nbackoff_max = \"50ms\"\nuncertain_window = \"400ms\"\n\
                 [poll]\nmin = \"10ms\"\nmax = \"20ms\"\n[intake]\nsettle = \"0s\"\nwatch = \"poll\"\n";
    place.write("gemini-batchd.toml", &format!("{quick}{more}"));
}

/// So many requests.
fn requests(count: usize) -> String {
    let line = |n: usize| {
        let contents = serde_json::json!([{"role": "user", "parts": [{"text": format!("q {n}")}]}]);
        format!(
            "{}\n",
            serde_json::json!({"key": format!("k{n}"), "request": {"contents": contents}})
        )
    };
    (1..=count).map(line).collect()
}

/// The display names of all batches that were made.
fn creates(world: &World) -> Vec<String> {
    let created = |what: Happened| match what {
        Happened::Created { display_name, .. } => Some(display_name),
        _ => None,
    };
    world.happened().into_iter().filter_map(created).collect()
}

/// Runs the daemon until so many batches are made, and kills it.
fn run_until(place: &Place, world: &World, batches: usize) {
    let mut daemon = place
        .std_command()
        .arg("run")
        .env("GEMINI_API_KEY", KEY)
        .env("GEMINI_BATCHD__API__BASE_URL", world.emulator.url())
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts");
    let begun = Instant::now();
    while creates(world).len() < batches {
        assert!(begun.elapsed() < Duration::from_secs(120), "{:?}", creates(world));
        std::thread::sleep(Duration::from_millis(5));
    }
    daemon.kill().expect("killed");
    daemon.wait().expect("ended");
}

/// The one working folder.
fn working(place: &Place) -> PathBuf {
    let mut all = std::fs::read_dir(place.path("spool/working")).expect("listed");
    let one = all.next().expect("one").expect("listed").path();
    assert!(all.next().is_none());
    one
}

/// Ends what was begun: every request is answered, and nothing was sent twice.
fn ends_well(place: &Place, world: &World, batches: usize, results: &str) {
    world.advance(120);
    let output = world.run(place, &["once"]).output().expect("run");
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{error}");
    ended_well(place, world, batches, results);
}

/// The same of what has ended.
fn ended_well(place: &Place, world: &World, batches: usize, results: &str) {
    let text = std::fs::read_to_string(place.path(results)).expect("delivered");
    assert_eq!(text.lines().count(), 100, "{text}");
    let mut made = creates(world);
    assert_eq!(made.len(), batches, "{made:?}");
    made.sort();
    made.dedup();
    assert_eq!(made.len(), batches, "no stamp was used twice");
}

/// Fault 26.
#[test]
fn a_job_whose_whole_state_folder_is_gone_goes_on_from_its_mirror() {
    let (place, world) = (Place::new(), World::new());
    configure(&place, "[queue.default]\nlines_per_batch = 25\n");
    place.write("spool/inbox/a.jsonl", &requests(100));
    run_until(&place, &world, 4);
    std::fs::remove_dir_all(place.path("spool/state")).expect("removed");
    let would = world.json(&place, &["adopt", "--dry-run"]);
    assert_eq!((would["version"].as_u64(), would["dry_run"].as_bool()), (Some(1), Some(true)));
    assert_eq!(would["jobs"][0]["outcome"], "mirrored", "{would}");
    assert!(!place.path("spool/state").exists(), "nothing was changed");
    let said = world.said(&place, &["adopt"]);
    assert!(said.contains("a.jsonl") && said.contains("as its mirror says: 4 chunks"), "{said}");
    assert!(said.contains("1 jobs adopted; start the daemon"), "{said}");
    ends_well(&place, &world, 4, "spool/outbox/a.results.jsonl");
    world.run(&place, &["adopt"]).assert().code(4).stdout(predicate::str::contains("no job"));
}

/// Fault 26.
#[test]
fn a_job_without_a_mirror_is_planned_anew_and_its_batches_are_found_running_or_over() {
    for over in [false, true] {
        let (place, world) = (Place::new(), World::new());
        configure(&place, "[queue.default]\nlines_per_batch = 25\n");
        place.write("spool/inbox/a.jsonl", &requests(100));
        run_until(&place, &world, 4);
        std::fs::remove_dir_all(place.path("spool/state")).expect("removed");
        std::fs::remove_file(working(&place).join("record.json")).expect("removed");
        world.advance(if over { 60 } else { 12 });
        let would = world.json(&place, &["adopt", "--dry-run"]);
        assert_eq!(would["jobs"][0]["outcome"], "plannable", "{would}");
        assert_eq!(would["jobs"][0]["detail"]["found"], 4);
        let done = world.json(&place, &["adopt"]);
        let job = &done["jobs"][0];
        assert_eq!(job["outcome"], "planned", "{done}");
        let counts = serde_json::json!({"chunks": 4, "found": 4, "doubted": 0});
        assert_eq!(job["detail"], counts);
        ends_well(&place, &world, 4, "spool/outbox/a.results.jsonl");
    }
}

#[test]
fn a_chunk_whose_batch_no_list_shows_is_looked_for_and_sent_once() {
    let (place, world) = (Place::new(), World::new());
    configure(&place, "[queue.default]\nlines_per_batch = 25\n[limits]\nopen_batches = 2\n");
    place.write("spool/inbox/a.jsonl", &requests(100));
    run_until(&place, &world, 2);
    std::fs::remove_dir_all(place.path("spool/state")).expect("removed");
    std::fs::remove_file(working(&place).join("record.json")).expect("removed");
    let said = world.said(&place, &["adopt"]);
    let told = "planned anew: 4 chunks, 2 batches under way, 2 to be looked for";
    assert!(said.contains(told), "{said}");
    // The other two are made when the first are over; time must go on meanwhile.
    let going = std::thread::scope(|scope| {
        let run = scope.spawn(|| world.run(&place, &["once"]).output().expect("run"));
        while !run.is_finished() {
            world.advance(1);
            std::thread::sleep(Duration::from_millis(20));
        }
        run.join().expect("no panic")
    });
    assert_eq!(going.status.code(), Some(0), "{}", String::from_utf8_lossy(&going.stderr));
    ended_well(&place, &world, 4, "spool/outbox/a.results.jsonl");
}

#[test]
fn a_batch_in_the_openai_format_is_found_by_the_name_of_its_file() {
    let (place, world) = (Place::new(), World::new());
    configure(&place, "");
    let line = |n: usize| {
        let body = serde_json::json!({"model": "gemini-2.5-flash",
            "messages": [{"role": "user", "content": format!("q {n}")}]});
        let line = serde_json::json!({"custom_id": format!("k{n}"), "method": "POST",
            "url": "/v1/chat/completions", "body": body});
        format!("{line}\n")
    };
    place.write("spool/inbox/a.jsonl", &(1..=100).map(line).collect::<String>());
    run_until(&place, &world, 1);
    std::fs::remove_dir_all(place.path("spool/state")).expect("removed");
    std::fs::remove_file(working(&place).join("record.json")).expect("removed");
    let done = world.json(&place, &["adopt"]);
    assert_eq!(done["jobs"][0]["detail"]["found"], 1, "{done}");
    ends_well(&place, &world, 1, "spool/outbox/a.results.jsonl");
}

/// Fault 26.
#[test]
fn what_can_not_be_decided_is_left_as_it_is_for_a_person() {
    let (place, world) = (Place::new(), World::new());
    configure(&place, "[queue.default]\nlines_per_batch = 25\n");
    place.write("spool/inbox/a.jsonl", &requests(100));
    run_until(&place, &world, 4);
    std::fs::remove_dir_all(place.path("spool/state")).expect("removed");
    let folder = working(&place);
    std::fs::write(folder.join("record.json"), "{\"v\":1,").expect("torn");
    let undecided = |why: &str| {
        world
            .run(&place, &["adopt", "--json"])
            .assert()
            .code(13)
            .stdout(predicate::str::contains("\"outcome\": \"undecided\""))
            .stdout(predicate::str::contains(why));
        world
            .run(&place, &["adopt"])
            .assert()
            .code(13)
            .stdout(predicate::str::contains("UNDECIDED, left as it is: "))
            .stdout(predicate::str::contains("no job to adopt"));
        assert!(folder.join("input/a.jsonl").exists());
    };
    // Cut as now, the batches at the API would not be those of its chunks.
    configure(&place, "[queue.default]\nlines_per_batch = 10\n");
    undecided("by the settings of now");
    configure(&place, "[queue.default]\nlines_per_batch = 25\n");
    std::fs::write(folder.join("answers/c1-a1.jsonl"), "{}\n").expect("written");
    undecided("some of it is answered already");
    std::fs::remove_file(folder.join("answers/c1-a1.jsonl")).expect("removed");
    configure(&place, "[queue.default]\nlines_per_batch = 25\n[queue.reviews]\npriority = 2\n");
    undecided("say so with --queue: default, reviews");
    assert_eq!(creates(&world).len(), 4);
    let said = world.said(&place, &["adopt", "--queue", "default"]);
    assert!(said.contains("4 batches under way"), "{said}");
    ends_well(&place, &world, 4, "spool/outbox/a.results.jsonl");
}

#[test]
fn the_model_of_its_batches_tells_the_queue_of_a_job() {
    let (place, world) = (Place::new(), World::new());
    let queues = "[queue.default]\nlines_per_batch = 25\n\
                  [queue.reviews]\nmodel = \"gemini-2.5-pro\"\n";
    configure(&place, queues);
    place.write("spool/inbox/reviews/a.jsonl", &requests(100));
    run_until(&place, &world, 4);
    std::fs::remove_dir_all(place.path("spool/state")).expect("removed");
    std::fs::remove_file(working(&place).join("record.json")).expect("removed");
    world.said(&place, &["adopt"]);
    ends_well(&place, &world, 4, "spool/outbox/reviews/a.results.jsonl");
}

#[test]
fn batches_of_jobs_that_are_not_here_are_named_and_nothing_else() {
    let (place, world) = (Place::new(), World::new());
    let name = world.inline(&stamp(2, 1), 2);
    world.inline("someone else's", 2);
    let said = world.said(&place, &["adopt"]);
    assert!(said.contains(&format!("gemini-batchd remote results {name}")), "{said}");
    assert!(said.contains(&format!("-o {JOB}-c2-a1.jsonl")), "{said}");
    assert!(!said.contains("someone else"), "{said}");
    let manifest = serde_json::json!({"version": 1, "job": JOB}).to_string();
    place.write("spool/outbox/a/b.manifest.json", &manifest);
    let said = world.said(&place, &["adopt"]);
    assert!(said.contains("1 batches are of jobs that were delivered"), "{said}");
    assert!(said.contains("a/b.manifest.json") && !said.contains("remote results"), "{said}");
}

#[test]
fn nothing_is_decided_while_a_daemon_runs_or_the_api_does_not_tell() {
    let (place, world) = (Place::new(), World::new());
    world.run(&place, &["adopt"]).assert().code(4);
    world
        .run(&place, &["adopt", "--queue", "nobody"])
        .assert()
        .code(2)
        .stderr(predicate::str::contains("there is no queue \"nobody\""));
    world.run(&place, &["adopt"]).env_remove("GEMINI_API_KEY").assert().code(12);
    std::fs::create_dir_all(place.path("spool/working").join(JOB).join("input")).expect("made");
    place.write(&format!("spool/working/{JOB}/input/a.jsonl"), &requests(1));
    world
        .run(&place, &["adopt"])
        .env("GEMINI_BATCHD__API__BASE_URL", "http://127.0.0.1:9")
        .assert()
        .code(1)
        .stderr(predicate::str::contains("nothing was adopted"));
    let state = place.path("spool/state");
    let lock = gemini_batchd::store::lock::StateLock::take(&state).expect("free");
    for verb in [&["adopt"][..], &["adopt", "--dry-run"]] {
        world.run(&place, verb).assert().code(11).stderr(predicate::str::contains("is in use"));
    }
    drop(lock);
    // The daemon leaves it alone, and says so.
    world
        .run(&place, &["once"])
        .assert()
        .code(4)
        .stderr(predicate::str::contains("`gemini-batchd adopt` goes on with them"));
    let said = world.said(&place, &["adopt"]);
    assert!(
        said.contains("planned anew: 1 chunks, 0 batches under way, 1 to be looked for"),
        "{said}"
    );
}
