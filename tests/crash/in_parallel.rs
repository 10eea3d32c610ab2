//! Many cases at once, on a few threads.

use std::sync::Mutex;
use std::thread;

/// Runs every case; the first that fails fails the test, after the others have ended.
pub fn in_parallel<C: Send>(cases: impl Iterator<Item = C> + Send, run: impl Fn(C) + Sync) {
    let cases = Mutex::new(cases);
    // Bound to a name, so that the lock is not held while the case runs.
    let next = || {
        let mut cases = cases.lock().expect("taking the next case does not panic");
        cases.next()
    };
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while let Some(case) = next() {
                    run(case);
                }
            });
        }
    });
}

/// Daemons wait more than they work: for the disk, for each other, for time to pass.
const THREADS: usize = 4;
