//! Google's own Python SDK, unmodified, as a client of the emulator.
//!
//! It is installed into a virtual environment below `target/` when it is not there yet. Where that
//! cannot be done (no Python, no network) the test says so and passes, unless
//! `GEMINI_BATCHD_REQUIRE_SDK=1` is set.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use gemini_batchd::provider::gemini::emulator::{Happened, Options, start};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn googles_python_sdk_works_with_the_emulator() {
    let python = match python_with_sdk() {
        Ok(python) => python,
        Err(reason) if std::env::var("GEMINI_BATCHD_REQUIRE_SDK").as_deref() == Ok("1") => {
            panic!("the SDK is required, but: {reason}")
        }
        Err(reason) => {
            println!("SKIPPED: Google's SDK cannot be had here: {reason}");
            return;
        }
    };
    let options = Options {
        pending_for: Duration::from_millis(40),
        running_for: Duration::from_millis(40),
        cancel_for: Duration::ZERO,
        ..Options::default()
    };
    let emulator = start(options).await.expect("started");
    for version in ["v1beta", "v1"] {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sdk/use_the_api.py");
        let output = tokio::process::Command::new(&python)
            .arg(script)
            .args([&emulator.url(), version])
            .env_remove("GOOGLE_API_KEY")
            .env_remove("GEMINI_API_KEY")
            .env("NO_PROXY", "127.0.0.1")
            .output()
            .await
            .expect("python runs");
        assert!(output.status.success(), "{version}: {}", shown(&output));
    }
    let journal = emulator.journal();
    let created = journal.iter().filter(|e| matches!(e.what, Happened::Created { .. })).count();
    assert_eq!(created, 10, "{journal:#?}");
    emulator.stop().await;
}

fn python_with_sdk() -> Result<PathBuf, String> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("sdk-{SDK_VERSION}"));
    let python = folder.join("bin/python");
    let check =
        format!("from google.genai import version; assert version.__version__ == '{SDK_VERSION}'");
    if run(Command::new(&python).args(["-c", &check])).is_ok() {
        return Ok(python);
    }
    run(Command::new("python3").args(["-m", "venv"]).arg(&folder))?;
    let sdk = format!("google-genai=={SDK_VERSION}");
    run(Command::new(&python).args(["-m", "pip", "install", "--quiet", "--retries", "1", &sdk]))?;
    Ok(python)
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() { Ok(()) } else { Err(format!("{command:?}: {}", shown(&output))) }
}

fn shown(output: &Output) -> String {
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    format!("{}\n{}", text(&output.stdout), text(&output.stderr))
}

const SDK_VERSION: &str = "3.4.0";
