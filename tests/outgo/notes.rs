//! Notes in `held/` about batches that nobody knows the fate of.

use std::fs;

use gemini_batchd::engine::job::{Refusal, Source};
use gemini_batchd::spool::{Folders, aside};

/// Chunks of one job, and jobs of the same name, come into doubt at the same moment.
#[test]
fn notices_written_at_once_are_one_for_each_job() {
    let spool = tempfile::tempdir().unwrap();
    let folders = Folders::below(spool.path());
    let source =
        Source { folder: String::new(), name: "a.jsonl".to_owned(), bytes: 3, sidecar: None };
    let job = |n: u8| format!("01JD00000000000000000000{n:02}");
    std::thread::scope(|scope| {
        for (n, message) in [(1, "one"), (1, "two"), (2, "one"), (2, "two"), (3, "one")] {
            let (folders, source) = (&folders, &source);
            let refusal = Refusal {
                reason: "uncertain".to_owned(),
                message: message.to_owned(),
                remedy: "Decide.".to_owned(),
                line: None,
                column: None,
            };
            scope.spawn(move || {
                aside::notice(folders, job(n).parse().unwrap(), source, &refusal).unwrap();
            });
        }
    });
    let read = |entry: fs::DirEntry| -> String {
        let note: serde_json::Value =
            serde_json::from_slice(&fs::read(entry.path()).unwrap()).unwrap();
        note["job"].as_str().unwrap().to_owned()
    };
    let mut jobs: Vec<String> =
        fs::read_dir(&folders.held).unwrap().map(|entry| read(entry.unwrap())).collect();
    jobs.sort();
    assert_eq!(jobs, [job(1), job(2), job(3)]);
}
