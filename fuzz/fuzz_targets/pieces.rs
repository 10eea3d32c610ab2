//! Any text as a line, and as a document: what the fast readers accept, serde_json accepts, with
//! the same places.

#![no_main]

#[path = "../../tests/damage/agree.rs"]
mod agree;

libfuzzer_sys::fuzz_target!(|text: &[u8]| {
    agree::agree(text);
});
