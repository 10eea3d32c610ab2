//! Google's own SDKs, unmodified, as clients of the emulator; and the examples of README.md.
//!
//! They are installed below `target/` when they are not there yet, in pinned versions. Where that
//! cannot be done (no Python, no Node, no network) a test says so and passes, unless
//! `GEMINI_BATCHD_REQUIRE_SDK=1` is set. What the SDKs themselves cannot do is told in `README.md`
//! beside this file.

#![expect(clippy::disallowed_methods, reason = "tests write plain files")]

#[path = "../discovery/mod.rs"]
mod discovery;
mod install;
mod readme;

use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use gemini_batchd::provider::gemini::emulator::{Emulator, Happened, Options, start};
use tokio::process::Command;

use discovery::Checker;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn googles_python_sdk_works_with_the_emulator() {
    let Some(python) = install::or_skip(install::python(install::PYTHON_SDK)) else { return };
    python_works(&python).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn googles_last_python_sdk_of_1_x_works_with_the_emulator() {
    let Some(python) = install::or_skip(install::python(install::PYTHON_SDK_1)) else { return };
    python_works(&python).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn googles_javascript_sdk_works_with_the_emulator() {
    let Some(sdk) = install::or_skip(install::javascript()) else { return };
    let script = sdk.script("flows", &own_file("javascript.mjs"));
    works(|| {
        let mut command = Command::new("node");
        command.arg(&script);
        command
    })
    .await;
}

async fn python_works(python: &Path) {
    works(|| {
        let mut command = Command::new(python);
        command.arg(own_path("python.py"));
        command
    })
    .await;
}

/// Runs a program in both versions of the API. It prints how many batches it made.
async fn works(program: impl Fn() -> Command) {
    for version in ["v1beta", "v1"] {
        let checker = Checker::default();
        let emulator = emulator(&checker).await;
        let output = run(program().args([&emulator.url(), version])).await;
        assert!(output.status.success(), "{version}: {}", shown(&output));
        let printed = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        let journal = emulator.journal();
        let count = |what: fn(&Happened) -> bool| {
            journal.iter().filter(|entry| what(&entry.what)).count().to_string()
        };
        let created = count(|what| matches!(what, Happened::Created { .. }));
        let deleted = count(|what| matches!(what, Happened::BatchDeleted { .. }));
        assert_eq!((&created, &deleted), (&printed, &printed), "{version}: {journal:#?}");
        let in_pieces =
            |what: &Happened| matches!(what, Happened::UploadPiece { offset: 8_388_608, .. });
        assert!(journal.iter().any(|entry| in_pieces(&entry.what)), "{version}: {journal:#?}");
        emulator.stop().await;
    }
}

/// One that has its results soon.
async fn emulator(checker: &Checker) -> Emulator {
    let options = Options {
        pending_for: Duration::from_millis(40),
        running_for: Duration::from_millis(40),
        cancel_for: Duration::ZERO,
        recorder: Some(checker.recorder()),
        ..Options::default()
    };
    start(options).await.expect("started")
}

/// Runs a program that has no key of its own and goes through no proxy.
async fn run(command: &mut Command) -> Output {
    command
        .env_remove("GOOGLE_API_KEY")
        .env_remove("GEMINI_API_KEY")
        .env("NO_PROXY", "127.0.0.1")
        .kill_on_drop(true)
        .output()
        .await
        .expect("it runs")
}

fn own_path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sdk").join(name)
}

fn own_file(name: &str) -> String {
    std::fs::read_to_string(own_path(name)).expect("there")
}

fn shown(output: &Output) -> String {
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    format!("{}\n{}", text(&output.stdout), text(&output.stderr))
}
