//! Work on the disk, done on threads made for that.
//!
//! It is waited for to its end, and its panics go on here. Work that had not begun when the
//! process ends is never done, and whoever waits for it is not woken any more.

use super::failpoints;

/// Does disk work on a thread made for that.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let work = || {
        failpoints::disk();
        work()
    };
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        // The runtime has been shut down: what ended it is told, and not that this was cut off.
        Err(_) => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Waker};

    use super::*;

    /// Faults 13 and 23.
    #[test]
    fn work_that_is_cut_off_by_the_end_of_the_process_panics_nowhere() {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let late = runtime.handle().clone();
        runtime.shutdown_background();
        let _entered = late.enter();
        let mut waiting = pin!(blocking(|| ()));
        let mut context = Context::from_waker(Waker::noop());
        // Once to begin, once to hear that it never will be.
        for _ in 0..2 {
            assert!(waiting.as_mut().poll(&mut context).is_pending());
        }
    }
}
