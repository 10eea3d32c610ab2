//! Snapshots for any number of askers, without hindering what they look at.
//!
//! Building a snapshot holds up the daemon's loop for a moment. So one is built at a time, it
//! serves everybody who asked before it was begun, and in the long run only a tenth of the time is
//! spent on them. Whoever asks now and then is answered at once; who asks all the time, waits.
//! Nobody is shown anything older than their own question.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::view::Snapshot;

/// Builds a snapshot.
pub type Build = Arc<dyn Fn() -> Snapshot + Send + Sync>;

/// The newest snapshot.
#[derive(Clone)]
pub struct Latest {
    build: Build,
    newest: Arc<Mutex<Option<Built>>>,
}

/// A snapshot, and how it is sent.
#[derive(Debug)]
pub struct Seen {
    /// The snapshot.
    pub snapshot: Snapshot,
    /// The same as JSON.
    pub json: Vec<u8>,
}

struct Built {
    seen: Arc<Seen>,
    begun: Instant,
    /// When all that was spent on snapshots is made up for by pauses.
    balanced: Instant,
}

impl Latest {
    /// Nothing is built yet.
    pub fn new(build: Build) -> Latest {
        Latest { build, newest: Arc::default() }
    }

    /// A snapshot that was begun after this question.
    pub async fn see(&self) -> Arc<Seen> {
        let asked = Instant::now();
        // Askers queue here; the first of them builds for all who stand behind it.
        let mut newest = self.newest.lock().await;
        let mut balanced = asked;
        if let Some(built) = newest.as_ref() {
            if built.begun > asked {
                return Arc::clone(&built.seen);
            }
            balanced = built.balanced;
            tokio::time::sleep_until(may_begin(balanced)).await;
        }
        let begun = Instant::now();
        let build = Arc::clone(&self.build);
        let work = move || {
            let snapshot = build();
            let json = serde_json::to_vec(&snapshot).expect("a snapshot has text keys only");
            Arc::new(Seen { snapshot, json })
        };
        let seen = tokio::task::spawn_blocking(work);
        let seen = seen.await.expect("a snapshot is built without panicking");
        let balanced = balance(balanced, begun, begun.elapsed());
        *newest = Some(Built { seen: Arc::clone(&seen), begun, balanced });
        seen
    }
}

/// When the next snapshot may be begun.
fn may_begin(balanced: Instant) -> Instant {
    // There is no earlier moment only right after the machine has started.
    balanced.checked_sub(CREDIT).unwrap_or(balanced)
}

/// When a snapshot that was begun then and took so long is made up for, too.
fn balance(before: Instant, begun: Instant, spent: Duration) -> Instant {
    before.max(begun) + spent + (spent * PAUSES).min(PAUSE_MAX)
}

/// Other looks at the daemon than snapshots, one at a time and with pauses between them.
#[derive(Clone)]
pub struct Pace {
    /// The next one is not begun before.
    next: Arc<Mutex<Instant>>,
}

impl Pace {
    /// Nobody has looked yet.
    pub fn new() -> Pace {
        Pace { next: Arc::new(Mutex::new(Instant::now())) }
    }

    /// Looks, on a thread that may wait, when it is this one's turn.
    pub async fn look<T: Send + 'static>(&self, look: impl FnOnce() -> T + Send + 'static) -> T {
        let mut next = self.next.lock().await;
        tokio::time::sleep_until(*next).await;
        let begun = Instant::now();
        let seen = tokio::task::spawn_blocking(look).await.expect("a look does not panic");
        *next = Instant::now() + begun.elapsed().min(PAUSE_MAX);
        seen
    }
}

/// The pause that building a snapshot asks for, in times of what it took: a tenth of the time, at
/// most, is spent building.
const PAUSES: u32 = 9;
/// Nobody waits longer for the next to be begun.
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// So much of the pauses may be owed: a few questions in a row are answered without any.
const CREDIT: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::view::{Health, VERSION};

    fn snapshot() -> Snapshot {
        let health = Health {
            daemon: String::new(),
            pid: 1,
            inbox: String::new(),
            watching: String::new(),
            started: String::new(),
            now: String::new(),
            paused: None,
            trouble: None,
            draining: false,
            paused_by_operator: false,
        };
        Snapshot {
            version: VERSION,
            health,
            counts: Default::default(),
            queues: Vec::new(),
            jobs: Vec::new(),
            jobs_total: 0,
            spending: None,
        }
    }

    /// Fault 87.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_thousand_questions_at_once_are_answered_by_a_few_snapshots() {
        let built = Arc::new(AtomicUsize::new(0));
        let (counted, (open, gate)) = (Arc::clone(&built), std::sync::mpsc::channel::<()>());
        let gate = std::sync::Mutex::new(gate);
        let latest = Latest::new(Arc::new(move || {
            // The first one takes until everybody has asked.
            if counted.fetch_add(1, Ordering::Relaxed) == 0 {
                gate.lock().expect("whole").recv().expect("opened");
            }
            snapshot()
        }));
        let (mut asked, arrived) = (tokio::task::JoinSet::new(), Arc::new(AtomicUsize::new(0)));
        for _ in 0..1000 {
            let (latest, arrived) = (latest.clone(), Arc::clone(&arrived));
            asked.spawn(async move {
                arrived.fetch_add(1, Ordering::Relaxed);
                latest.see().await
            });
        }
        while arrived.load(Ordering::Relaxed) < 1000 {
            tokio::task::yield_now().await;
        }
        open.send(()).expect("waited for");
        let mut answers = 0;
        while let Some(seen) = asked.join_next().await {
            assert_eq!(seen.expect("answered").snapshot, snapshot());
            answers += 1;
        }
        assert_eq!(answers, 1000);
        let built = built.load(Ordering::Relaxed);
        assert!(built < 100, "{built} snapshots were built");
    }

    #[test]
    fn who_asks_now_and_then_never_waits_and_who_asks_all_the_time_does() {
        let spent = Duration::from_millis(3);
        let start = Instant::now();
        let (mut now, mut balanced) = (start, start);
        let mut waits = Vec::new();
        for _ in 0..1000 {
            waits.push(may_begin(balanced).saturating_duration_since(now));
            now = now.max(may_begin(balanced)) + spent;
            balanced = balance(balanced, now - spent, spent);
        }
        assert!(waits.iter().take(30).all(Duration::is_zero), "thirty in a row wait for nothing");
        let share = (spent * 1000).as_secs_f64() / (now - start).as_secs_f64();
        assert!(share < 0.11, "in the long run {share} of the time is spent");
        assert_eq!(may_begin(start).saturating_duration_since(start), Duration::ZERO);
    }

    #[tokio::test]
    async fn what_is_shown_is_never_older_than_the_question() {
        let time = Arc::new(AtomicUsize::new(0));
        let told = Arc::clone(&time);
        let latest = Latest::new(Arc::new(move || {
            let mut snapshot = snapshot();
            snapshot.health.now = told.load(Ordering::Relaxed).to_string();
            snapshot
        }));
        for now in 0..5 {
            time.store(now, Ordering::Relaxed);
            assert_eq!(latest.see().await.snapshot.health.now, now.to_string());
        }
    }
}
