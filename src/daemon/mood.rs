//! What is told of how the daemon is: when nothing is sent any more, and what goes wrong.

use std::time::{Duration, Instant};

use crate::engine::ids::Millis;
use crate::view::Kind;

use super::chronicle::Draft;
use super::{Daemon, lock, looks};

/// How the daemon was when it was last looked at.
#[derive(Debug, Default)]
pub struct Mood {
    looked: Option<Instant>,
    paused: Option<String>,
    trouble: Option<String>,
}

impl Daemon {
    /// Tells what has changed since the last look; now and then, since failures come and go.
    pub(super) fn tell_mood(&mut self) {
        if self.mood.looked.is_some_and(|looked| looked.elapsed() < LOOK_EVERY) {
            return;
        }
        self.mood.looked = Some(Instant::now());
        let now: Millis = self.clock.now();
        let (paused, trouble) = looks::standing(&lock(&self.engine), now);
        let drafts = self.mood.change(paused, trouble);
        self.handle.chronicle().note(now, drafts);
    }
}

impl Mood {
    fn change(&mut self, paused: Option<String>, trouble: Option<String>) -> Vec<Draft> {
        let told = [
            (&mut self.paused, paused, Kind::Paused, Kind::Resumed, "work goes on"),
            (&mut self.trouble, trouble, Kind::Trouble, Kind::TroubleOver, "it is overcome"),
        ];
        let drafts = told.into_iter().filter_map(|(before, now, begins, ends, over)| {
            let draft = match (before.as_ref(), &now) {
                (None, Some(why)) if why.starts_with("draining") => {
                    Some(Draft::of_daemon(Kind::Draining, why.clone()))
                }
                (None, Some(why)) => Some(Draft::of_daemon(begins, why.clone())),
                (Some(_), None) => Some(Draft::of_daemon(ends, over)),
                (None, None) | (Some(_), Some(_)) => None,
            };
            *before = now;
            draft
        });
        drafts.collect()
    }
}

/// The shortest pause between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_change_is_told() {
        let mut mood = Mood::default();
        let why = |text: &str| Some(text.to_owned());
        let kinds = |drafts: Vec<Draft>| -> Vec<Kind> {
            drafts.into_iter().map(|draft| draft.kind).collect()
        };
        assert_eq!(kinds(mood.change(None, None)), []);
        assert_eq!(kinds(mood.change(why("full"), why("slow"))), [Kind::Paused, Kind::Trouble]);
        assert_eq!(kinds(mood.change(why("full"), why("slower"))), []);
        assert_eq!(kinds(mood.change(None, why("slower"))), [Kind::Resumed]);
        assert_eq!(kinds(mood.change(None, None)), [Kind::TroubleOver]);
    }
}
