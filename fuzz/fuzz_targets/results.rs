//! Any text as a result line: the quick reader and the patient one say the same of it.

#![no_main]

#[path = "../../tests/damage/results.rs"]
mod results;

libfuzzer_sys::fuzz_target!(|line: &[u8]| {
    results::check(line);
});
