//! The SDKs, each in a folder of its own below `target/`, installed at most once.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

/// The current one.
pub const PYTHON_SDK: &str = "3.4.0";
/// The last of 1.x, which speaks v1beta unless told otherwise.
pub const PYTHON_SDK_1: &str = "1.75.0";
/// The current one.
const JAVASCRIPT_SDK: &str = "3.1.0";

/// Tests run at the same time, and may want the same one.
static INSTALLING: Mutex<()> = Mutex::new(());

/// What was installed; `None`, said aloud, where it cannot be had and need not be.
pub fn or_skip<T>(installed: Result<T, String>) -> Option<T> {
    match installed {
        Ok(installed) => Some(installed),
        Err(reason) if std::env::var("GEMINI_BATCHD_REQUIRE_SDK").as_deref() == Ok("1") => {
            panic!("the SDKs are required, but: {reason}")
        }
        Err(reason) => {
            // Not by a macro, whose words are kept back when a test passes.
            let mut said = std::io::stderr();
            drop(writeln!(said, "SKIPPED: this needs what cannot be had here: {reason}"));
            None
        }
    }
}

/// The interpreter of an environment that has this version of Google's Python SDK.
pub fn python(version: &str) -> Result<PathBuf, String> {
    let _one_at_a_time = INSTALLING.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("sdk-{version}"));
    let python = folder.join("bin/python");
    let check =
        format!("from google.genai import version; assert version.__version__ == '{version}'");
    if run(Command::new(&python).args(["-c", &check])).is_ok() {
        return Ok(python);
    }
    run(Command::new("python3").args(["-m", "venv"]).arg(&folder))?;
    let sdk = format!("google-genai=={version}");
    run(Command::new(&python).args(["-m", "pip", "install", "--quiet", "--retries", "1", &sdk]))?;
    Ok(python)
}

/// Google's JavaScript SDK.
pub struct JavaScript(PathBuf);

impl JavaScript {
    /// A script that may import the SDK: it lies beside its modules.
    pub fn script(&self, name: &str, content: &str) -> PathBuf {
        let path = self.0.join(format!("{name}.mjs"));
        std::fs::write(&path, content).expect("written");
        path
    }
}

/// Google's JavaScript SDK, if Node is there to run it.
pub fn javascript() -> Result<JavaScript, String> {
    let _one_at_a_time = INSTALLING.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("sdk-js-{JAVASCRIPT_SDK}"));
    let check = format!(
        "if (Number(process.versions.node.split('.')[0]) < {NODE_MIN}) throw 'Node is too old';"
    );
    run(Command::new("node").args(["-e", &check]))?;
    let package = folder.join("node_modules/@google/genai/package.json");
    let installed = std::fs::read_to_string(&package).unwrap_or_default();
    if !installed.contains(&format!("\"version\": \"{JAVASCRIPT_SDK}\"")) {
        std::fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
        let sdk = format!("@google/genai@{JAVASCRIPT_SDK}");
        let quiet = ["--no-audit", "--no-fund", "--ignore-scripts", "--loglevel", "error"];
        run(Command::new("npm").args(["install", "--prefix"]).arg(&folder).args(quiet).arg(sdk))?;
    }
    Ok(JavaScript(folder))
}

/// What a program says on standard output.
pub fn run(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(format!("{command:?}: {}", super::shown(&output)))
    }
}

/// The SDK asks for 22; it does what is used here with 20 as well.
const NODE_MIN: u32 = 20;
