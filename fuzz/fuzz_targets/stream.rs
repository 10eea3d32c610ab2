//! Any stream of results, cut and broken off anywhere. Its files lie in memory.

#![no_main]

#[path = "../../tests/damage/stream.rs"]
mod stream;

use std::sync::OnceLock;

use stream::Place;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    static PLACE: OnceLock<(tempfile::TempDir, Place)> = OnceLock::new();
    let (_, place) = PLACE.get_or_init(|| {
        let folder = tempfile::tempdir_in("/dev/shm").expect("a folder in memory");
        let place = Place::below(folder.path());
        (folder, place)
    });
    place.check(data);
});
