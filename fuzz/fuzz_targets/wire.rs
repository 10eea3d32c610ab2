//! Any answer of a server: lists, operations, files, errors.

#![no_main]

#[path = "../../tests/damage/wire.rs"]
mod wire;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    wire::check(data);
});
