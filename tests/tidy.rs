//! The house rules that a compiler does not check: who imports whom, and ARCHITECTURE.md.
//!
//! Test modules inside `src` may import what they like; everything before them may not.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The folders for the worlds outside, which never import one another.
const OUTSIDE: [&str; 5] = ["spool", "store", "provider", "control", "dashboard"];

/// Where these may meet.
const MEETING_POINTS: [&str; 3] = ["daemon", "cli", "config"];

/// A file in `src` may have so many lines.
const LINES_MAX: usize = 500;

#[test]
fn the_worlds_outside_meet_only_where_they_may() {
    for source in sources() {
        let module = source.module();
        if MEETING_POINTS.contains(&module) {
            continue;
        }
        let imported = outside_imports(&source.code());
        let others: Vec<_> = imported.iter().filter(|name| **name != module).collect();
        let allowed = if OUTSIDE.contains(&module) { 0 } else { 1 };
        assert!(others.len() <= allowed, "src/{} imports {others:?}", source.path);
    }
}

#[test]
fn the_engine_imports_only_std() {
    let crates = dependencies();
    for source in sources().iter().filter(|source| source.module() == "engine") {
        let code = source.code();
        let path = &source.path;
        for name in paths_after(&code, "crate::") {
            assert_eq!(name, "engine", "src/{path} imports crate::{name}");
        }
        for name in &crates {
            assert!(!mentions_crate(&code, name), "src/{path} uses the crate {name}");
        }
        for forbidden in ["std::fs", "std::net", "std::thread", "SystemTime", "Instant", "async "] {
            assert!(!code.contains(forbidden), "src/{path} uses {forbidden}");
        }
    }
}

#[test]
fn the_emulator_shares_only_the_wire_with_the_client() {
    let sources = sources();
    let siblings: Vec<&str> = sources
        .iter()
        .filter_map(|source| source.path.strip_prefix("provider/gemini/")?.strip_suffix(".rs"))
        .filter(|name| !name.contains('/') && !["mod", "wire"].contains(name))
        .collect();
    for source in &sources {
        let code = source.code();
        if source.path.starts_with("provider/gemini/emulator/") {
            for name in &siblings {
                let (far, near) = (format!("gemini::{name}"), format!("super::super::{name}"));
                let found = code.contains(&far) || code.contains(&near);
                assert!(!found, "src/{} imports {far}", source.path);
            }
        } else if source.module() == "provider" {
            assert!(!code.contains("emulator::"), "src/{} imports the emulator", source.path);
        }
    }
}

#[test]
fn the_module_map_names_every_file_and_no_other() {
    let page = architecture();
    let mapped = module_map(&page);
    let is_test = |path: &String| path.ends_with("tests.rs");
    let present = sources().into_iter().map(|source| source.path).filter(|path| !is_test(path));
    let present: BTreeSet<String> = present.collect();
    let missing: Vec<_> = present.difference(&mapped).collect();
    let stale: Vec<_> = mapped.difference(&present).collect();
    assert!(missing.is_empty(), "ARCHITECTURE.md's module map does not name {missing:?}");
    assert!(stale.is_empty(), "ARCHITECTURE.md's module map names {stale:?}, which do not exist");
}

#[test]
fn every_state_has_its_row_in_the_state_table() {
    let page = architecture();
    let rows = state_rows(&page);
    let job = fs::read_to_string(root().join("src/engine/job.rs")).expect("job.rs is there");
    for name in ["JobState", "ChunkState"] {
        let variants = variants_of(&job, name);
        assert!(variants.len() > 5, "{name} was not found as it is written");
        for variant in variants {
            assert!(rows.contains(variant), "{name}::{variant} has no row in the state table");
        }
    }
}

#[test]
fn the_architecture_page_is_short_enough_to_be_read() {
    assert!(architecture().lines().count() < 200);
}

#[test]
fn no_source_file_is_too_long() {
    for source in sources() {
        let lines = source.text.lines().count();
        assert!(lines <= LINES_MAX, "src/{} has {lines} lines, {LINES_MAX} allowed", source.path);
    }
}

#[test]
fn every_fault_has_its_row_and_every_test_named_there_exists() {
    let page = faults_page();
    let numbers: Vec<u32> = fault_rows(&page).iter().map(|(number, _)| *number).collect();
    assert_eq!(numbers, (1..=87).collect::<Vec<_>>());
    let code = all_code();
    for row in page.lines().filter(|line| line.starts_with("| ")) {
        for name in test_names(row) {
            assert!(code.contains(&format!("fn {name}(")), "docs/faults.md: no test {name}");
        }
    }
}

#[test]
fn every_test_named_for_a_fault_names_that_fault_itself() {
    let (page, code) = (faults_page(), all_code());
    for (number, row) in fault_rows(&page) {
        for name in test_names(row) {
            let told = faults_told(&code, name);
            assert!(
                told.contains(&number),
                "docs/faults.md names {name} for fault {number}; `/// Fault {number}.` is missing there"
            );
        }
    }
}

#[test]
fn every_row_of_the_feature_table_names_a_test_and_an_example_that_exist() {
    let page = fs::read_to_string(root().join("README.md")).expect("README.md is there");
    let chapter = page.split("\n## What it can do, and what shows it\n").nth(1);
    let chapter = chapter.and_then(|rest| rest.split("\n## ").next()).expect("the chapter");
    let rows: Vec<&str> = chapter.lines().filter(|line| line.starts_with("| ")).skip(1).collect();
    assert!(rows.len() > 5, "the table was not understood");
    let code = all_code();
    for row in rows {
        let tests: Vec<&str> =
            test_names(row).filter(|name| name.matches('_').count() > 2).collect();
        assert!(!tests.is_empty(), "README.md: no test in {row}");
        for name in tests {
            assert!(code.contains(&format!("fn {name}(")), "README.md: no test {name}");
        }
        let links = row.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        for link in links.filter(|link| !link.starts_with('#')) {
            assert!(root().join(link).exists(), "README.md: no {link}");
        }
    }
}

#[test]
fn the_page_of_the_emulator_names_every_fault_and_no_other() {
    let page = fs::read_to_string(root().join("docs/emulator.md")).expect("the page is there");
    let table = page.split("\n## Faults\n").nth(1).expect("a chapter of faults");
    let told = table.lines().filter_map(|row| row.strip_prefix("| `")?.split('`').next());
    let code = fs::read_to_string(root().join("src/provider/gemini/emulator/faults.rs"));
    let code = code.expect("faults.rs is there");
    let fields =
        code.split("pub struct Faults {\n").nth(1).and_then(|code| code.split("\n}").next());
    let fields = fields
        .expect("the struct")
        .lines()
        .filter_map(|line| line.strip_prefix("    pub ").and_then(|field| field.split(':').next()));
    assert_eq!(told.collect::<BTreeSet<_>>(), fields.collect());
}

/// What can go wrong, as people read it.
fn faults_page() -> String {
    fs::read_to_string(root().join("docs/faults.md")).expect("docs/faults.md is there")
}

/// The rows of the faults by their numbers; the tables after them are about other things.
fn fault_rows(page: &str) -> Vec<(u32, &str)> {
    let faults = page.split("\n## How it is tested\n").next().unwrap_or_default();
    let number = |row: &str| row.strip_prefix("| ")?.split(" |").next()?.parse().ok();
    faults.lines().filter_map(|row| Some((number(row)?, row))).collect()
}

/// The tests that a row names. A name of many words is that of a test; shorter ones, and those
/// with other signs in them, are failpoints, settings and the like.
fn test_names(row: &str) -> impl Iterator<Item = &str> {
    let plain = |name: &&str| {
        name.contains('_') && name.bytes().all(|b| b == b'_' || b.is_ascii_alphanumeric())
    };
    row.split('`').skip(1).step_by(2).filter(plain)
}

/// The numbers in `/// Fault 22.` or `/// Faults 2, 3 and 6.` before a test.
fn faults_told(code: &str, name: &str) -> BTreeSet<u32> {
    let before = code.split(&format!("fn {name}(")).next().unwrap_or_default();
    let doc = before.lines().rev().skip(1).map(str::trim);
    let doc = doc.take_while(|line| line.starts_with("///") || line.starts_with("#["));
    let told = doc.filter(|line| line.starts_with("/// Fault"));
    let words = told.flat_map(|line| line.split(|c: char| !c.is_ascii_digit()));
    words.filter_map(|word| word.parse().ok()).collect()
}

/// Everything below `src` and `tests` in one text.
fn all_code() -> String {
    let below = |folder| sources_below(folder).into_iter().map(|source| source.text);
    below("src").chain(below("tests")).collect()
}

#[test]
fn the_faults_of_a_test_are_read_from_its_comment_alone() {
    let code = "/// Fault 1.\n#[test]\nfn a() {}\n\n/// Says more.\n/// Faults 2, 30 and 6.\n#[test]\n    async fn b() {}\n#[test]\nfn c() {}\n";
    assert_eq!(faults_told(code, "a"), BTreeSet::from([1]));
    assert_eq!(faults_told(code, "b"), BTreeSet::from([2, 6, 30]));
    assert_eq!(faults_told(code, "c"), BTreeSet::new());
}

#[test]
fn every_source_file_says_what_it_is_for() {
    for source in sources().iter().filter(|source| source.path != "main.rs") {
        let first = source.text.lines().next().unwrap_or_default();
        assert!(first.starts_with("//! "), "src/{} begins with {first:?}", source.path);
    }
}

/// A file below `src`.
struct Source {
    /// Relative to `src`, `/` between the parts.
    path: String,
    text: String,
}

impl Source {
    /// The module right below the crate that it belongs to.
    fn module(&self) -> &str {
        let end = self.path.find(['/', '.']).expect("a Rust file has an ending");
        &self.path[..end]
    }

    /// The code without comments and test modules.
    fn code(&self) -> String {
        without_tests_and_comments(&self.text)
    }
}

fn without_tests_and_comments(text: &str) -> String {
    let code = text.split("\n#[cfg(test)]\nmod ").next().unwrap_or_default();
    let lines = code.lines().map(|line| line.find("//").map_or(line, |at| &line[..at]));
    lines.collect::<Vec<_>>().join("\n")
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn architecture() -> String {
    fs::read_to_string(root().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md is there")
}

fn sources() -> Vec<Source> {
    sources_below("src")
}

fn sources_below(folder: &str) -> Vec<Source> {
    fn walk(folder: &Path, base: &Path, found: &mut Vec<Source>) {
        for entry in fs::read_dir(folder).expect("listed") {
            let path = entry.expect("listed").path();
            if path.is_dir() {
                walk(&path, base, found);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                let relative = path.strip_prefix(base).expect("below").to_str().expect("text");
                let text = fs::read_to_string(&path).expect("read");
                found.push(Source { path: relative.to_owned(), text });
            }
        }
    }
    let (base, mut found) = (root().join(folder), Vec::new());
    walk(&base, &base, &mut found);
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

/// The worlds outside that the code names as `crate::X`, `super::X` or `gemini_batchd::X`.
fn outside_imports(code: &str) -> BTreeSet<&'static str> {
    let mut names = BTreeSet::new();
    for start in ["crate::", "super::", "gemini_batchd::"] {
        names.extend(paths_after(code, start));
    }
    OUTSIDE.into_iter().filter(|name| names.contains(*name)).collect()
}

/// The names right after `start`, also those of a `start{a::b, c}`.
fn paths_after(code: &str, start: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (at, _) in code.match_indices(start) {
        let rest = &code[at + start.len()..];
        match rest.strip_prefix('{') {
            Some(group) => names.extend(group_heads(group)),
            None => names.extend(Some(identifier(rest)).filter(|name| !name.is_empty())),
        }
    }
    names
}

/// The first names of the paths in a `{…}` that was just opened.
fn group_heads(group: &str) -> Vec<String> {
    let (mut depth, mut heads, mut at_head) = (1, Vec::new(), true);
    for (at, letter) in group.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 1 => at_head = true,
            _ if depth == 1 && at_head && !letter.is_whitespace() => {
                heads.push(identifier(&group[at..]));
                at_head = false;
            }
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    heads
}

fn identifier(text: &str) -> String {
    text.chars().take_while(|letter| letter.is_alphanumeric() || *letter == '_').collect()
}

/// The crates of `Cargo.toml`, as code names them.
fn dependencies() -> Vec<String> {
    let text = fs::read_to_string(root().join("Cargo.toml")).expect("Cargo.toml is there");
    let section = text.split("[dependencies]").nth(1).expect("it has dependencies");
    let lines = section.lines().take_while(|line| !line.starts_with('['));
    let names = lines.filter_map(|line| line.split_once(" = ")).map(|(name, _)| name);
    let names: Vec<String> = names.map(|name| name.replace('-', "_")).collect();
    assert!(names.len() > 10, "Cargo.toml was not understood: {names:?}");
    names
}

/// Whether `name::` occurs as the beginning of a path.
fn mentions_crate(code: &str, name: &str) -> bool {
    code.match_indices(&format!("{name}::")).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        before.is_none_or(|letter| !letter.is_alphanumeric() && !"_:".contains(letter))
            || code[..at].ends_with(" ::")
    })
}

/// The files of the tree in ARCHITECTURE.md that begins with `src/`, relative to `src`.
fn module_map(page: &str) -> BTreeSet<String> {
    let tree = page.split("```text\nsrc/\n").nth(1).expect("a ```text block begins with src/");
    let mut folders: Vec<&str> = Vec::new();
    let mut files = BTreeSet::new();
    for line in tree.lines().take_while(|line| !line.starts_with("```")) {
        let mut words = line.split_whitespace();
        let Some(first) = words.next() else { continue };
        let depth = (line.len() - line.trim_start().len()) / 2;
        assert!((1..=folders.len() + 1).contains(&depth), "odd indent in the module map: {line}");
        folders.truncate(depth - 1);
        if let Some(folder) = first.strip_suffix('/') {
            folders.push(folder);
            continue;
        }
        // Files that belong together share a line: `a.rs, b.rs   what they are for`.
        let mut name = first;
        loop {
            let path: Vec<&str> =
                folders.iter().copied().chain([name.trim_end_matches(',')]).collect();
            assert!(files.insert(path.join("/")), "twice in the module map: {name}");
            match words.next() {
                Some(next) if name.ends_with(',') => name = next,
                Some(_) | None => break,
            }
        }
    }
    files
}

/// The words of the first column of the state table.
fn state_rows(page: &str) -> BTreeSet<&str> {
    let section = page.split("\n## States\n").nth(1).expect("a section `## States`");
    let section = section.split("\n## ").next().expect("split gives one part at least");
    let cells = section.lines().filter_map(|line| line.strip_prefix("| ")?.split(" |").next());
    cells.flat_map(|cell| cell.split(['·', ' '])).collect()
}

/// The variants of an enum, read from its source.
fn variants_of<'a>(text: &'a str, name: &str) -> Vec<&'a str> {
    let start = format!("pub enum {name} {{\n");
    let body = text.split(&start).nth(1).expect("the enum is there");
    let body = body.split("\n}").next().expect("split gives one part at least");
    let variants = body.lines().filter_map(|line| line.strip_prefix("    "));
    let variants = variants.filter(|line| line.starts_with(|c: char| c.is_ascii_uppercase()));
    variants.map(|line| line.split([' ', '(', ',']).next().unwrap_or_default()).collect()
}

#[test]
fn imports_are_seen_in_every_spelling() {
    let spellings = [
        "use crate::store::JobStore;",
        "use crate::{engine::Job, store};",
        "use crate::{\n    engine::{Job, Head},\n    store::{self, X},\n};",
        "fn f(s: &dyn crate::store::JobStore) {}",
        "use super::store::JobStore;",
        "use gemini_batchd::store;",
    ];
    for spelling in spellings {
        assert_eq!(outside_imports(spelling), BTreeSet::from(["store"]), "{spelling}");
    }
    let others = "use crate::engine::{store, X}; use crate::restore::x; let store = 1;";
    assert!(outside_imports(others).is_empty());
}

#[test]
fn comments_and_tests_are_no_imports() {
    let text =
        "// crate::spool\nfn f() {}\n\n#[cfg(test)]\nmod tests {\n    use crate::spool;\n}\n";
    assert!(outside_imports(&without_tests_and_comments(text)).is_empty());
}

#[test]
fn a_crate_is_told_from_a_path_that_ends_like_it() {
    assert!(mentions_crate("use serde::Serialize;", "serde"));
    assert!(mentions_crate("#[derive(serde::Serialize)]", "serde"));
    assert!(!mentions_crate("use super::url::Url;", "url"));
    assert!(!mentions_crate("use std::bytes::X;", "bytes"));
}

#[test]
fn a_map_is_read_with_its_folders() {
    let page = "```text\nother\n```\n```text\nsrc/\n  a.rs  x\n  b/\n    c.rs  y/z\n  d/  f\n    e.rs\n```\n";
    assert_eq!(module_map(page), BTreeSet::from(["a.rs", "b/c.rs", "d/e.rs"].map(String::from)));
}
