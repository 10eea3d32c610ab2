//! Many cases at once, on a few threads.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

/// Runs every case, whatever became of the others; fails if one of them does.
pub fn in_parallel<C: Send>(cases: impl Iterator<Item = C> + Send, run: impl Fn(C) + Sync) {
    let cases = Mutex::new(cases);
    // Bound to a name, so that the lock is not held while the case runs.
    let next = || {
        let mut cases = cases.lock().expect("taking the next case does not panic");
        cases.next()
    };
    let failed = AtomicU32::new(0);
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while let Some(case) = next() {
                    // What went wrong is printed where it does.
                    if catch_unwind(AssertUnwindSafe(|| run(case))).is_err() {
                        failed.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner();
    assert_eq!(failed, 0, "cases failed; see above");
}

/// Daemons wait more than they work: for the disk, for each other, for time to pass.
const THREADS: usize = 4;
