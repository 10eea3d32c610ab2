//! Configurations as people write them, right and wrong.

#![expect(clippy::disallowed_methods, reason = "tests write plain files")]

use super::*;
use crate::engine::job::{By, Stuck, Task, Tiers};

/// A configuration file in a temporary folder that is also the current folder.
struct World {
    folder: tempfile::TempDir,
}

impl World {
    fn with(text: &str) -> World {
        let folder = tempfile::tempdir().expect("a temporary folder");
        std::fs::write(folder.path().join("gemini-batchd.toml"), text).expect("written");
        World { folder }
    }

    fn load(&self, variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let home = [("HOME", "/home/someone"), ("XDG_CONFIG_HOME", "/nonexistent")];
        let variables = home.into_iter().chain(variables.iter().copied());
        let environment = Environment::made_up(self.folder.path(), variables);
        Config::load(&Flags::default(), &environment)
    }
}

fn complaint(text: &str) -> String {
    World::with(text).load(&[]).expect_err(text).to_string()
}

#[test]
fn the_example_gives_the_defaults() {
    let defaults = World::with("").load(&[]).expect("defaults are valid");
    let example = World::with(&example()).load(&[]).expect("the example is valid");
    for (a, b) in defaults.shown.iter().zip(&example.shown) {
        assert_eq!((&a.section, a.key, &a.value), (&b.section, b.key, &b.value));
        assert_eq!(a.origin, Origin::Default);
        assert_ne!(b.origin, Origin::Default, "{} is missing in the example", b.key);
    }
    assert_eq!(defaults.shown.len(), example.shown.len());
    assert_eq!(defaults.limits, example.limits);
    assert_eq!(defaults.queues, example.queues);
}

#[test]
fn the_defaults_are_those_of_the_contract() {
    let config = World::with("").load(&[]).expect("valid");
    assert_eq!(config.folders.inbox, Path::new("/home/someone/.local/share/gemini-batchd/inbox"));
    assert_eq!(config.intake.settle, Duration::from_secs(2));
    assert_eq!(config.limits.file_bytes, 2_000_000_000);
    assert_eq!(config.limits.inline_bytes, 16 << 20);
    assert_eq!(config.api.uncertain_window, Duration::from_secs(300));
    assert_eq!(config.api.key.as_ref().expect_err("none given"), &KeyProblem::Missing);
    assert_eq!(config.queue_for("").model, "gemini-2.5-flash");
    assert!(config.queue_for("").accept.truncated && !config.queue_for("").accept.blocked);
}

#[test]
fn environment_goes_over_file_and_flags_over_both() {
    let world = World::with("[spool]\ndir = \"a\"\n[intake]\nsettle = \"5s\"\n");
    let config = world.load(&[("GEMINI_BATCHD__INTAKE__SETTLE", "7s")]).expect("valid");
    assert_eq!(config.intake.settle, Duration::from_secs(7));
    assert_eq!(config.folders.inbox, world.folder.path().join("a/inbox"));
    let environment =
        Environment::made_up(Path::new("/here"), [("GEMINI_BATCHD__SPOOL__DIR", "b")]);
    let file = world.folder.path().join("gemini-batchd.toml");
    let flags = Flags { config: Some(file), spool: Some("c".into()) };
    let config = Config::load(&flags, &environment).expect("valid");
    assert_eq!(config.folders.inbox, Path::new("/here/c/inbox"));
    let origin = config.shown.iter().find(|one| one.key == "dir").map(|one| one.origin.clone());
    assert_eq!(origin, Some(Origin::Flag("--spool")));
}

#[test]
fn every_value_keeps_its_line() {
    let world = World::with("# first\n[api]\n\nversion = \"v1\"\n");
    let config = world.load(&[]).expect("valid");
    let shown = config.shown.iter().find(|one| one.key == "version").expect("shown");
    assert!(shown.origin.to_string().ends_with("gemini-batchd.toml:4"), "{}", shown.origin);
}

#[test]
fn an_unknown_key_names_the_nearest_one_and_its_line() {
    let text = complaint("[intake]\nsetle = \"5s\"\n");
    assert!(text.contains("gemini-batchd.toml:2: unknown key `setle` in [intake]"), "{text}");
    assert!(text.contains("did you mean `settle`?"), "{text}");
    let text = complaint("[intke]\nsettle = \"5s\"\n");
    assert!(text.contains("toml:1: unknown section `intke`; did you mean `intake`?"), "{text}");
    let text = complaint("[api]\nsettle = \"5s\"\n");
    assert!(text.contains("it belongs under [intake]"), "{text}");
    let text = complaint("settle = \"5s\"\n");
    assert!(text.contains("put it under [intake]"), "{text}");
    let text = complaint("[queue.default]\nmodle = \"x\"\n");
    assert!(text.contains("[queue.default]; did you mean `model`?"), "{text}");
}

#[test]
fn an_unknown_variable_is_an_error_too() {
    let world = World::with("");
    for (name, part) in [
        ("GEMINI_BATCHD__INTAKE__SETLE", "did you mean `settle`?"),
        ("GEMINI_BATCHD__INTKE__SETTLE", "did you mean `intake`?"),
        ("GEMINI_BATCHD__SETTLE", "GEMINI_BATCHD__SECTION__KEY"),
        ("GEMINI_BATCHD__QUEUE__NOSUCH__MODEL", "no queue `nosuch`"),
    ] {
        let text = world.load(&[(name, "5s")]).expect_err(name).to_string();
        assert!(text.contains(name) && text.contains(part), "{text}");
    }
}

#[test]
fn a_setting_of_a_later_version_is_refused() {
    let said = complaint("[queue.default]\nemit = \"chunks\"\n");
    let is_told = said.contains("not supported in this version") && said.contains("toml:2");
    assert!(is_told, "{said}");
    // Queues that inherit it do not repeat the complaint.
    let both = "[queue.default]\nemit = \"chunks\"\n[queue.a]\nattempts = 2\n";
    assert_eq!(World::with(both).load(&[]).expect_err("refused").problems.len(), 1);
}

#[test]
fn a_model_that_is_inherited_from_a_queue_with_another_task_is_refused() {
    let embed = "[queue.e]\ntask = \"embed\"\n";
    let default_embeds = "[queue.default]\ntask = \"embed\"\nmodel = \"gemini-embedding-001\"\n";
    for wrong in [
        embed.to_owned(),
        format!("[queue.default]\nmodel = \"gemini-2.5-pro\"\n{embed}"),
        format!("{default_embeds}[queue.g]\ntask = \"generate\"\n"),
        "[queue.default]\ntask = \"embed\"\n".to_owned(),
    ] {
        let said = complaint(&wrong);
        assert!(said.contains("another task") && said.contains("model ="), "{wrong}: {said}");
    }
    let generate = "[queue.q]\ntask = \"generate\"\nmodel = \"gemini-2.5-pro\"\n";
    for (right, model, task) in [
        (
            "[queue.q]\ntask = \"embed\"\nmodel = \"gemini-embedding-001\"\n".to_owned(),
            "gemini-embedding-001",
            Task::Embed,
        ),
        (format!("{default_embeds}[queue.q]\nattempts = 2\n"), "gemini-embedding-001", Task::Embed),
        (format!("{default_embeds}{generate}"), "gemini-2.5-pro", Task::Generate),
    ] {
        let queue = World::with(&right).load(&[]).expect(&right).queue_for("q");
        assert_eq!((queue.model.as_str(), queue.task), (model, task), "{right}");
    }
}

/// Fault 81.
#[test]
fn wrong_values_are_refused_with_their_line() {
    for text in [
        "[intake]\nsettle = 5\n",
        "[intake]\nsettle = \"5\"\n",
        "[intake]\nwatch = \"sometimes\"\n",
        "[intake]\nignore = \"*.bak\"\n",
        "[intake]\nrescan = \"0s\"\n",
        "[api]\nbase_url = \"http://generativelanguage.googleapis.com\"\n",
        "[api]\nbase_url = \"https://me:secret@example.com\"\n",
        "[api]\nbase_url = \"example.com\"\n",
        "[api]\nversion = \"v1/../../x\"\n",
        "[api]\nbackoff_min = \"10m\"\n",
        "[limits]\nfile_bytes = \"3GiB\"\n",
        "[limits]\ninline_bytes = \"20MiB\"\n",
        "[limits]\nstorage_bytes = \"1GB\"\n",
        "[limits]\nopen_batches = 0\n",
        "[limits]\nuploads = \"2\"\n",
        "[poll]\nmin = \"10m\"\n",
        "[queue.default]\nmodel = \"gemini 2.5\"\n",
        "[queue.default]\nattempts = 0\n",
        "[queue.default]\nattempts = 99999999\n",
        "[queue.default]\naccept_empty = 1\n",
        "[queue.default]\ndeliver_by = \"24:00\"\n",
        "[queue.default]\ndeliver_by = \"6:00\"\n",
        "[queue.default]\ndeliver_by = \"59s\"\n",
        "[queue.default]\ndeliver_by = \"40d\"\n",
        "[queue.default]\ndeliver_by = \"tomorrow\"\n",
        "[queue.default]\ntime_zone = \"Mars/Olympus\"\n",
        "[queue.default]\nrescue = [\"fast\"]\n",
        "[queue.default]\nrescue = [\"standard\", \"flex\"]\n",
        "[queue.default]\nrescue = \"flex\"\n",
        "[queue.default]\nstuck = \"wait\"\n",
        "[queue.default]\nstuck_after = \"soon\"\n",
        "[limits]\nrescue_parallel = 0\n",
        "[housekeeping]\nschedule = \"every night\"\n",
        "[housekeeping]\nschedule = \"0 61 3 * * *\"\n",
        "[housekeeping]\nschedule = \"0 0 3 30 2 *\"\n",
        "[spool]\noutbox = \"inbox/results\"\n",
        "[spool]\noutbox = \"held\"\n",
    ] {
        let said = complaint(text);
        assert!(said.contains("toml:2: "), "{text:?} gives {said}");
        assert!(!said.contains("problems") && !said.contains("secret"), "{text:?} gives {said}");
    }
    assert!(complaint("[queue.\"../up\"]\nattempts = 1\n").contains("can name no sub-folder"));
    assert!(complaint("[api\n").contains("toml:1: not valid TOML"));
}

#[test]
fn a_deadline_is_a_time_of_day_or_a_span_with_what_may_be_done_for_it() {
    let text = "[queue.default]\ntime_zone = \"Europe/Berlin\"\n[queue.a]\ndeliver_by = \"06:30\"\n\
                rescue = [\"flex\", \"standard\"]\n[queue.b]\ndeliver_by = \"10h\"\nstuck = \"split\"\n\
                stuck_after = \"12h\"\n";
    let config = World::with(text).load(&[]).expect("valid");
    let deadline = |name| config.queue_for(name).deadline;
    assert_eq!(deadline(""), None, "a zone alone asks for nothing");
    let a = deadline("a").expect("asked for");
    assert_eq!((a.by, a.zone.as_deref()), (Some(By::At(390)), Some("Europe/Berlin")));
    assert_eq!(a.rescue, Tiers { flex: true, standard: true });
    let b = deadline("b").expect("asked for");
    assert_eq!((b.by, b.zone.as_deref()), (Some(By::Within(36_000_000)), None));
    assert_eq!((b.stuck, b.stuck_after), (Stuck::Split, Some(43_200_000)));
    let beside = config.queue_beside("", "a.job.toml", "deliver_by = \"2h\"\n").expect("right");
    assert_eq!(beside.deadline.expect("asked for").by, Some(By::Within(7_200_000)));
}

#[test]
fn media_root_is_a_whole_path_and_a_sidecar_only_narrows_it() {
    for bad in ["pictures", "/", "/data/../etc", "~/pictures"] {
        let why = complaint(&format!("[queue.zoo]\nmedia_root = {bad:?}\n"));
        assert!(why.contains("queue.zoo.media_root") && why.contains("whole path"), "{why}");
    }
    let config = World::with("[queue.zoo]\nmedia_root = \"/data/zoo\"\n").load(&[]).expect("valid");
    assert_eq!(config.queue_for("zoo").media_root.as_deref(), Some("/data/zoo"));
    assert_eq!(config.queue_for("").media_root, None);
    let beside = |folder: &str, root: &str| {
        config.queue_beside(folder, "a.job.toml", &format!("media_root = {root:?}"))
    };
    for narrower in ["/data/zoo/cats", "/data/zoo", ""] {
        let queue = beside("zoo", narrower).expect("narrower");
        assert_eq!(queue.media_root.as_deref().unwrap_or_default(), narrower);
    }
    for (folder, wider) in [("zoo", "/data"), ("zoo", "/data/zoology"), ("", "/data/zoo")] {
        let why = beside(folder, wider).expect_err("wider").listed();
        assert!(why.contains("a.job.toml:1") && why.contains("only name a folder"), "{why}");
    }
    assert!(beside("zoo", "/data/zoo/../..").is_err());
}

#[test]
fn a_size_may_be_any_whole_number_of_toml() {
    for (written, bytes) in [("0x100000", 1 << 20), ("0o400", 256), ("0b1000", 8), ("1_000", 1000)]
    {
        let world = World::with(&format!("[limits]\ninline_bytes = {written}\n"));
        let config = world.load(&[]).expect(written);
        assert_eq!(config.limits.inline_bytes, bytes, "{written}");
    }
    let told = complaint("[limits]\ninline_bytes = -1\n");
    assert!(told.contains("limits.inline_bytes is a number out of range"), "{told}");
}

#[test]
fn what_is_shown_of_a_queue_can_be_read_again_whatever_its_name() {
    for name in ["a b", "it's", r#"it's \"x\""#, r"back\\slash", "a.b/c", "ü"] {
        let world = World::with(&format!("[queue.\"{name}\"]\npriority = 7\n"));
        let config = world.load(&[]).expect(name);
        let again = World::with(&as_file(&config.shown)).load(&[]).expect(name);
        assert_eq!(config.queues, again.queues);
        assert!(again.queues.values().any(|queue| queue.priority == 7), "{name}");
    }
}

#[test]
fn all_problems_are_told_at_once() {
    let said = complaint("[intake]\nsetle = \"5s\"\nwatch = \"no\"\n[limits]\nuploads = 0\n");
    assert!(said.starts_with("configuration: 3 problems"), "{said}");
}

#[test]
fn this_machine_may_be_reached_without_encryption() {
    for url in ["http://127.0.0.1:8080", "http://[::1]:8080", "http://localhost:1"] {
        let world = World::with("");
        let config = world.load(&[("GEMINI_BATCHD__API__BASE_URL", url)]).expect(url);
        assert_eq!(config.api.base_url.scheme(), "http");
    }
}

#[test]
fn a_sub_folder_has_the_settings_of_its_longest_named_part() {
    let config = World::with(
        "[queue.default]\nattempts = 7\n[queue.reviews]\nmodel = \"models/a\"\n\
         [queue.\"reviews/german\"]\nmodel = \"b\"\nattempts = 2\n",
    )
    .load(&[("GEMINI_BATCHD__QUEUE__REVIEWS_GERMAN__LINES_PER_BATCH", "10")])
    .expect("valid");
    let of = |folder: &str| {
        let queue = config.queue_for(folder);
        (queue.name, queue.model, queue.attempts, queue.lines_per_batch)
    };
    let german = ("reviews/german".to_owned(), "b".to_owned(), 2, 10);
    assert_eq!(of("reviews/german"), german);
    assert_eq!(of("reviews/german/2026/11"), german);
    assert_eq!(of("reviews/french"), ("reviews".to_owned(), "a".to_owned(), 7, 0));
    let default = ("default".to_owned(), "gemini-2.5-flash".to_owned(), 7, 0);
    assert_eq!(of("reviewsandmore"), default);
    assert_eq!(of(""), default);
}

#[test]
fn systemd_folders_are_used_when_nothing_is_set() {
    let config = World::with("")
        .load(&[("STATE_DIRECTORY", "/var/lib/x:/other"), ("RUNTIME_DIRECTORY", "/run/x")])
        .expect("valid");
    assert_eq!(config.folders.outbox, Path::new("/var/lib/x/outbox"));
    assert_eq!(config.control.socket, Path::new("/run/x/gemini-batchd.sock"));
}

#[test]
fn a_file_that_was_named_but_is_missing_is_an_error() {
    let flags = Flags { config: Some("/nonexistent/x.toml".into()), spool: None };
    let environment = Environment::made_up(Path::new("/"), [("HOME", "/")]);
    let text = Config::load(&flags, &environment).expect_err("missing").to_string();
    assert!(text.contains("/nonexistent/x.toml") && text.contains("cannot be read"), "{text}");
}

#[test]
fn no_key_is_ever_shown() {
    let world = World::with("");
    let config = world.load(&[("GEMINI_API_KEY", "marker-key-123")]).expect("valid");
    let text = format!("{config:?} {:?}", config.shown);
    assert!(!text.contains("marker-key"));
    let key = config.api.key.expect("found");
    assert_eq!(key.source, KeySource::Environment("GEMINI_API_KEY".to_owned()));
}

#[test]
fn defaults_are_a_table_or_a_json_text_and_their_numbers_stay_as_written() {
    for text in [
        r#"defaults = '{"generationConfig": {"temperature": 0.10}, "store": true}'"#,
        "defaults = { store = true, generationConfig.temperature = 0.10 }",
        "[queue.default.defaults]\nstore = true\n[queue.default.defaults.generationConfig]\ntemperature = +0.10",
    ] {
        let config = World::with(&format!("[queue.default]\n{text}\n")).load(&[]).expect(text);
        let kept = config.queue_for("").defaults.expect("some");
        assert!(kept.contains("0.10"), "{kept}");
        let value: serde_json::Value = serde_json::from_str(&kept).expect("JSON");
        let expected = serde_json::json!({"generationConfig": {"temperature": 0.1}, "store": true});
        assert_eq!(value, expected, "{text}");
    }
    let all = "s = \"a\\\"b\"\nn = -3\nx = 0xff\nd = 2026-11-22\nl = [1, [true]]\ne = {}\n";
    let text = format!("[queue.default.defaults.generationConfig]\n{all}");
    let kept = World::with(&text).load(&[]).expect("valid").queue_for("").defaults;
    let value: serde_json::Value = serde_json::from_str(&kept.expect("some")).expect("JSON");
    let inner = serde_json::json!(
        {"s": "a\"b", "n": -3, "x": 255, "d": "2026-11-22", "l": [1, [true]], "e": {}}
    );
    assert_eq!(value["generationConfig"], inner);
    for none in ["\"\"", "{}", "'{}'"] {
        let text = format!(
            "[queue.default.defaults]\nstore = true\n[queue.a]\n[queue.b]\ndefaults = {none}\n"
        );
        let config = World::with(&text).load(&[]).expect("valid");
        assert!(config.queue_for("a").defaults.is_some(), "they are inherited");
        assert_eq!(config.queue_for("b").defaults, None, "but where they are given up");
    }
}

#[test]
fn defaults_that_no_request_can_have_are_told() {
    let long = format!(r#"defaults = '{{"cachedContent": "{}"}}'"#, "x".repeat(50_000));
    for (text, why) in [
        ("defaults = '{'", "queue.default.defaults is no JSON object"),
        ("defaults = '[1]'", "queue.default.defaults is no JSON object"),
        ("defaults = 7", "must be a JSON object in quotes"),
        ("defaults = { genrationConfig = {} }", "did you mean `generationConfig`?"),
        ("defaults = { contents = [] }", "every request has its own"),
        ("defaults = { model = \"m\" }", "write queue.default.model"),
        ("defaults = { taskType = \"X\" }", "it belongs to requests of task = \"embed\""),
        ("defaults = { store = nan }", "holds nan, which is no number for JSON"),
        (long.as_str(), "are saved with each job"),
    ] {
        let found = complaint(&format!("[queue.default]\n{text}\n"));
        assert!(found.contains(why), "{found}");
        assert!(found.contains("gemini-batchd.toml:2: "), "{found}");
    }
    let inherited = "[queue.default]\ndefaults = { store = true }\n[queue.e]\ntask = \"embed\"\n\
                     model = \"gemini-embedding-001\"\n";
    assert!(complaint(inherited).contains("or defaults = \"\""));
    World::with(&format!("{inherited}defaults = \"\"\n")).load(&[]).expect("given up");
}

#[test]
fn a_sidecar_counts_over_its_queue_and_nothing_else() {
    let world = World::with(
        "[queue.default]\nattempts = 4\n[queue.r]\nmodel = \"gemini-2.5-pro\"\npriority = 1\n",
    );
    let config = world.load(&[]).expect("valid");
    let queue = config.queue_beside("r/deep", "a.job.toml", "priority = 2\n").expect("right");
    let expected = Queue { priority: 2, ..config.queue_for("r") };
    assert_eq!(queue, expected);
    assert_eq!(config.queue_beside("r", "a.job.toml", "").expect("right"), config.queue_for("r"));
    // The model of the queue is hardly meant for another task.
    for (text, why) in [
        (
            "task = \"embed\"\n",
            "a.job.toml:1: task is \"embed\", and its model is for another task",
        ),
        ("\nmodel = \"a b\"\n", "a.job.toml:2: model is \"a b\", which is no model name"),
        ("atempts = 2\n", "a.job.toml:1: unknown key `atempts`; did you mean `attempts`?"),
        ("emit = \"chunks\"\n", "a.job.toml:1: emit is not supported in this version"),
        ("[queue.r]\nattempts = 2\n", "a.job.toml:1: [queue] is a section"),
        ("attempts = \n", "a.job.toml:1: not valid TOML"),
    ] {
        let error = config.queue_beside("r", "a.job.toml", text).expect_err(text);
        assert!(error.listed().contains(why), "{}", error.listed());
    }
    let both = config.queue_beside("r", "a.job.toml", "attempts = 0\nmodel = \"\"\n");
    assert_eq!(both.expect_err("two mistakes").problems.len(), 2);
}

#[test]
fn a_release_window_is_read_and_an_impossible_one_is_told_with_its_line_and_an_example() {
    let world = World::with(
        "[queue.default]\nrelease = \"0 22 * * *\"\n[queue.a]\ntime_zone = \"Asia/Kathmandu\"\n\
         [queue.b]\nrelease = \"\"\n[queue.c]\nrelease = \"30 0 22 * * 1-5\"\n",
    );
    let config = world.load(&[]).expect("valid");
    let window = |name: &str| {
        let window = config.queue_for(name).window?;
        Some((window.release.clone(), window.zone.clone()))
    };
    let plain = |release: &str, zone: &str| Some((release.to_owned(), zone.to_owned()));
    assert_eq!(window(""), plain("0 22 * * *", ""));
    assert_eq!(window("a"), plain("0 22 * * *", "Asia/Kathmandu"));
    assert_eq!(window("b"), None);
    assert_eq!(window("c"), plain("30 0 22 * * 1-5", ""));
    for (text, why) in [
        ("release = \"22:00\"", "such as \"0 22 * * *\""),
        ("release = \"0 22 30 2 *\"", "that time never comes"),
        ("release = \"0 22 * * * * *\"", "write five fields"),
        ("time_zone = \"Europe/Berlim\"", "is no time zone of this machine"),
    ] {
        let text = format!("[queue.default]\n{text}\n[queue.a]\nattempts = 2\n");
        let error = World::with(&text).load(&[]).expect_err(&text);
        assert_eq!(error.problems.len(), 1, "queues that inherit it do not repeat it: {error}");
        let said = error.to_string();
        assert!(said.contains("toml:2") && said.contains(why), "{said}");
    }
    let beside = config.queue_beside("", "x.job.toml", "release = \"never\"\n").expect_err("wrong");
    assert!(beside.listed().contains("x.job.toml:1: release is \"never\""), "{}", beside.listed());
}

#[test]
fn a_canary_is_read_and_an_odd_limit_is_told_with_its_line() {
    use crate::engine::job::{Canary, Tolerance};
    for (text, expected) in [
        ("canary = 20", Some(Canary { lines: 20, limit: Tolerance::Percent(10) })),
        ("canary = 5\ncanary_limit = \"2\"", Some(Canary { lines: 5, limit: Tolerance::Lines(2) })),
        ("canary_limit = \"50%\"", None),
    ] {
        let world = World::with(&format!("[queue.default]\n{text}\n"));
        assert_eq!(world.load(&[]).expect("valid").queue_for("").canary, expected, "{text}");
    }
    for wrong in ["canary_limit = \"100%\"", "canary_limit = \"few\"", "canary = -1"] {
        let said = complaint(&format!("[queue.default]\n{wrong}\n"));
        assert!(said.contains("toml:2"), "{said}");
    }
}
