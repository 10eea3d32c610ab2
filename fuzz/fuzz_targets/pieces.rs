//! Any text, read by the fast walk and by serde_json: what the first accepts, the second must.

#![no_main]

#[path = "../../tests/damage/agree.rs"]
mod agree;

libfuzzer_sys::fuzz_target!(|text: &[u8]| {
    agree::agree(text);
});
