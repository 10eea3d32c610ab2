//! Any text as a configuration, with any variables.

#![no_main]

#[path = "../../tests/damage/settings.rs"]
mod settings;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    settings::check(data);
});
