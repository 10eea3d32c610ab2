//! Node, Chromium and playwright-core; the last is installed below `target/`, at most once.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use tokio::process::Command;

/// What drives the browser; the browser itself is the system's.
const PLAYWRIGHT: &str = "1.65.1";

/// Tests run at the same time, and need the same.
static TOOLS: OnceLock<Result<Tools, String>> = OnceLock::new();

/// What a test of the page needs.
#[derive(Debug, Clone)]
pub struct Tools {
    /// The browser.
    pub chromium: PathBuf,
    scripts: PathBuf,
}

impl Tools {
    /// Node, about to run one of the scripts beside this file.
    pub fn script(&self, name: &str) -> Command {
        let mut command = Command::new("node");
        command.arg(self.scripts.join(name)).env("NO_PROXY", "127.0.0.1").kill_on_drop(true);
        command
    }
}

/// What is needed; `None`, said aloud, where it cannot be had and need not be.
pub fn tools_or_skip() -> Option<Tools> {
    match TOOLS.get_or_init(tools).clone() {
        Ok(tools) => Some(tools),
        Err(reason) if std::env::var("GEMINI_BATCHD_REQUIRE_BROWSER").as_deref() == Ok("1") => {
            panic!("the browser is required, but: {reason}")
        }
        Err(reason) => {
            // Not by a macro, whose words are kept back when a test passes.
            let mut said = std::io::stderr();
            drop(writeln!(said, "SKIPPED: this needs what cannot be had here: {reason}"));
            None
        }
    }
}

/// Finds or installs them. The scripts are copied to where they find their module.
fn tools() -> Result<Tools, String> {
    let chromium = BROWSERS.iter().map(PathBuf::from).find(|path| path.exists());
    let chromium = chromium.ok_or_else(|| format!("there is none of {}", BROWSERS.join(", ")))?;
    run("node", &["-e", "if (Number(process.versions.node.split('.')[0]) < 20) throw 'too old'"])?;
    let scripts = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("browser-{PLAYWRIGHT}"));
    let package = scripts.join("node_modules/playwright-core/package.json");
    let installed = std::fs::read_to_string(&package).unwrap_or_default();
    let failed = |error: std::io::Error| error.to_string();
    if !installed.contains(&format!("\"version\": \"{PLAYWRIGHT}\"")) {
        std::fs::create_dir_all(&scripts).map_err(failed)?;
        let folder = scripts.to_str().ok_or("the folder's name is no text")?;
        let quiet = ["--no-audit", "--no-fund", "--ignore-scripts", "--loglevel", "error"];
        let module = format!("playwright-core@{PLAYWRIGHT}");
        let mut arguments = vec!["install", "--prefix", folder];
        arguments.extend(quiet);
        arguments.push(&module);
        run("npm", &arguments)?;
    }
    for name in ["browser.mjs", "daemon.mjs", "fixture.mjs", "many.mjs"] {
        let own = own_path("tests/browser").join(name);
        std::fs::copy(own, scripts.join(name)).map_err(failed)?;
    }
    Ok(Tools { chromium, scripts })
}

/// A path of this repository.
pub fn own_path(part: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(part)
}

fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    let output = std::process::Command::new(program).args(arguments).output();
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{program}: {}", String::from_utf8_lossy(&output.stderr)))
}

/// Where distributions put it.
const BROWSERS: [&str; 3] =
    ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];
