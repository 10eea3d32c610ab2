//! The chapter *Rehearse for free* of README.md: its examples are run as they stand there, but for
//! the port, and print what it says they print.

use std::path::Path;

use gemini_batchd::provider::gemini::emulator::Faults;
use tokio::process::Command;

use crate::discovery::Checker;
use crate::{emulator, install, run, shown};

/// The address that the chapter's examples speak to.
const ADDRESS: &str = "http://127.0.0.1:8910";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_python_example_of_the_readme_prints_what_it_says() {
    let Some(python) = install::or_skip(install::python(install::PYTHON_SDK)) else { return };
    prints_what_it_says("python", |code| {
        let mut command = Command::new(&python);
        command.args(["-c", code]);
        command
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_javascript_example_of_the_readme_prints_what_it_says() {
    let Some(sdk) = install::or_skip(install::javascript()) else { return };
    prints_what_it_says("js", |code| {
        let mut command = Command::new("node");
        command.arg(sdk.script("readme", code));
        command
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_curl_example_of_the_readme_prints_what_it_says() {
    let there = install::run(std::process::Command::new("curl").arg("--version"));
    if install::or_skip(there).is_none() {
        return;
    }
    prints_what_it_says("sh", |code| {
        let mut command = Command::new("sh");
        command.args(["-c", code]);
        command
    })
    .await;
}

#[test]
fn the_faults_of_the_readme_are_faults() {
    let chapter = chapter();
    let (_, faults, _) = blocks(&chapter, "toml")[0];
    let faults: Faults = toml::from_str(faults).expect("faults");
    assert_ne!(faults, Faults::default());
}

/// Runs the example of that language; the block after it is what must be printed.
async fn prints_what_it_says(language: &str, program: impl Fn(&str) -> Command) {
    let chapter = chapter();
    let blocks = blocks(&chapter, language);
    // Commands of this program have no answer below them.
    let mut examples = blocks.iter().filter(|(_, code, _)| code.contains(ADDRESS));
    let (_, code, expected) = examples.next().expect("an example");
    let checker = Checker::default();
    let emulator = emulator(&checker).await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut program = program(&code.replace(ADDRESS, &emulator.url()));
    let output = run(program.current_dir(folder.path())).await;
    assert!(output.status.success(), "{}", shown(&output));
    assert_eq!(String::from_utf8_lossy(&output.stdout), *expected, "{}", shown(&output));
    emulator.stop().await;
}

fn chapter() -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let text = std::fs::read_to_string(file).expect("there");
    let chapter = text.split("\n## Rehearse for free\n").nth(1).expect("the chapter");
    chapter.split("\n## ").next().unwrap_or_default().to_owned()
}

/// The code blocks in a language: language, content, and the content of the block after it.
fn blocks<'a>(chapter: &'a str, language: &str) -> Vec<(&'a str, &'a str, &'a str)> {
    let inside: Vec<&str> = chapter.split("```").skip(1).step_by(2).collect();
    let parts: Vec<(&str, &str)> =
        inside.iter().map(|block| block.split_once('\n').expect("a first line")).collect();
    let after = parts.iter().skip(1).map(|(_, content)| *content).chain([""]);
    let all = parts.iter().zip(after).map(|((word, content), after)| (*word, *content, after));
    all.filter(|(word, ..)| *word == language).collect()
}
