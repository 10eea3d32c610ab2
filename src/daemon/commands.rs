//! What operators ask is done, and answered when it is saved.
//!
//! The engine decides what becomes of jobs. Here is what it can not know: the names of queues,
//! what is paused across a restart, and files that are dropped once more.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::config::nearest;
use crate::control::{Refused, Reply};
use crate::engine::effect::Turn;
use crate::engine::event::Command;
use crate::engine::ids::{JobId, Millis};
use crate::engine::job::{Job, JobState};
use crate::engine::steering::{Pauses, Retry, as_argument};
use crate::spool::again::{self, Again};
use crate::spool::{Folders, SpoolError};
use crate::store::{JobStore, StoreError};
use crate::view::when;

use super::blocking::blocking;
use super::{Answer, Daemon, DaemonError, Handle, Message, add, lock, spawn};

/// What happens now, in words, or why it is not done.
type Done = Result<String, Refused>;

impl Daemon {
    /// Does what an operator asks. It is answered when `turn` is saved, or when the files are
    /// where they should be.
    pub(super) fn operate(
        &mut self,
        (command, reply): (Command, Reply),
        turn: &mut Turn,
        answers: &mut Vec<Answer>,
        now: Millis,
    ) -> Result<(), DaemonError> {
        tracing::info!(?command, "an operator asks");
        self.tell_command(&command);
        let done = match command {
            Command::Cancel(id) => {
                let done = lock(&self.engine).cancel(id, now);
                said(
                    turn,
                    done,
                    "is being cancelled; what is answered already will be in the outbox",
                )
            }
            Command::Hold(id) => {
                let done = lock(&self.engine).hold(id, now);
                let says = format!(
                    "is on hold: nothing new of it is sent, and what is at the API is collected; \
                     `gemini-batchd release {id}` lets it go on"
                );
                said(turn, done, says)
            }
            Command::Release(id) => {
                let mut engine = lock(&self.engine);
                let done = engine.release(id, now);
                let but = engine
                    .job(id)
                    .and_then(|job| engine.held_back(job).or_else(|| waits_for_window(job, now)));
                said(
                    turn,
                    done,
                    but.map_or("goes on".to_owned(), |why| format!("goes on, but {why}")),
                )
            }
            Command::Retry(id) => {
                let tried = lock(&self.engine).retry(id, now);
                match tried {
                    Ok(Retry::Now(more)) => said(turn, Ok(more), "is tried again now"),
                    Ok(retry @ (Retry::FailedLines(..) | Retry::Input(_))) => {
                        self.drop_again(retry, reply);
                        return Ok(());
                    }
                    Err(why) => Err(why.into()),
                }
            }
            Command::Delete(id) => self.delete(id, turn),
            Command::Pause(queue) => self.pause(queue, turn, now)?,
            Command::Resume(queue) => self.resume(queue, turn, now)?,
            Command::Drain => {
                lock(&self.engine).close(true);
                Ok("the daemon takes in nothing new, finishes what it has, and ends then; \
                    `gemini-batchd resume` takes that back"
                    .to_owned())
            }
        };
        answers.push((reply, done));
        Ok(())
    }

    fn delete(&self, id: JobId, turn: &mut Turn) -> Done {
        let mut engine = lock(&self.engine);
        let state = engine.job(id).map(|job| &job.head.state);
        let files = if matches!(state, Some(JobState::Held(_))) {
            "its file stays in held/"
        } else if matches!(state, Some(JobState::Failed(_))) {
            "its file stays in failed/"
        } else {
            "its results stay in the outbox, and its input in the archive"
        };
        let done = engine.delete(id);
        said(turn, done, format!("is forgotten; {files}"))
    }

    /// Drops failed lines, or a refused input, into the inbox once more.
    fn drop_again(&self, retry: Retry, reply: Reply) {
        let (folders, handle) = (self.performer.folders.clone(), self.handle.clone());
        let full = lock(&self.engine).full().map(str::to_owned);
        spawn(async move {
            let done = match full {
                Some(why) => Err(Refused::NotNow(why)),
                None => blocking(move || drop_files(&folders, &retry)).await,
            };
            if done.is_ok() {
                handle.tell(Message::Look).await;
            }
            // Whoever does not wait any more finds the file in the inbox.
            let _ = reply.send(done);
        });
    }

    fn pause(
        &mut self,
        queue: Option<String>,
        turn: &mut Turn,
        now: Millis,
    ) -> Result<Done, DaemonError> {
        let mut pauses = lock(&self.engine).pauses().clone();
        let what = "nothing new is taken in or sent, and what is at the API is collected";
        let says = match queue {
            None => {
                pauses.all = true;
                format!("the daemon is paused: {what}; `gemini-batchd resume` lets it go on")
            }
            Some(name) => {
                if let Err(why) = self.check_queue(&name) {
                    return Ok(Err(why));
                }
                let argument = as_argument(&name);
                pauses.queues.insert(name);
                format!(
                    "the queue {argument} is paused: {what}; `gemini-batchd resume {argument}` lets \
                     it go on"
                )
            }
        };
        self.set_pauses(pauses, turn, now)?;
        Ok(Ok(says))
    }

    fn resume(
        &mut self,
        queue: Option<String>,
        turn: &mut Turn,
        now: Millis,
    ) -> Result<Done, DaemonError> {
        let (mut pauses, was_closing) = {
            let engine = lock(&self.engine);
            (engine.pauses().clone(), engine.is_closing())
        };
        let was_paused = pauses.all;
        let says = match &queue {
            Some(name) if pauses.queues.remove(name) => {
                let but = if was_paused { ", but the daemon as a whole is paused" } else { "" };
                format!("the queue {} goes on{but}", as_argument(name))
            }
            Some(name) => {
                if let Err(why) = self.check_queue(name) {
                    return Ok(Err(why));
                }
                let name = as_argument(name);
                let but = "but the daemon as a whole is: `gemini-batchd resume`";
                let why = match was_paused {
                    true => format!("the queue {name} is not paused by itself, {but}"),
                    false => format!("the queue {name} is not paused"),
                };
                return Ok(Err(Refused::NotNow(why)));
            }
            None if was_paused || was_closing => {
                pauses.all = false;
                lock(&self.engine).close(false);
                let still = still_paused(&pauses.queues);
                format!("the daemon goes on{}", still.map_or(String::new(), |it| format!("; {it}")))
            }
            None => {
                let still = still_paused(&pauses.queues);
                let still = still.map_or(String::new(), |it| format!(" as a whole; {it}"));
                return Ok(Err(Refused::NotNow(format!("the daemon is not paused{still}"))));
            }
        };
        self.set_pauses(pauses, turn, now)?;
        Ok(Ok(says))
    }

    /// Saves what is paused, then lets it count.
    fn set_pauses(
        &mut self,
        pauses: Pauses,
        turn: &mut Turn,
        now: Millis,
    ) -> Result<(), DaemonError> {
        let is_new = *lock(&self.engine).pauses() != pauses;
        if is_new {
            let note = note_of(&pauses);
            tokio::task::block_in_place(|| self.store.set_note(NOTE, &note))?;
            let more = lock(&self.engine).pause(pauses, now);
            add(turn, more);
        }
        self.intake.look(&self.handle, now);
        Ok(())
    }

    /// Whether any file could be in a queue of this name.
    fn check_queue(&self, name: &str) -> Result<(), Refused> {
        let engine = lock(&self.engine);
        let in_use = engine.unfinished().map(|job| job.head.queue.name.as_str());
        let known: BTreeSet<&str> =
            self.config.queues.keys().map(String::as_str).chain(in_use).collect();
        if known.contains(name) {
            return Ok(());
        }
        let known: Vec<&str> = known.into_iter().collect();
        let hint = nearest(name, &known);
        Err(Refused::Unknown(format!("there is no queue `{}`; {hint}", name.escape_debug())))
    }

    /// Whether nothing is left that a daemon can do which takes in nothing new.
    pub(super) fn is_drained(&self) -> bool {
        let is_closing = lock(&self.engine).is_closing();
        let is_drained = is_closing && self.is_all_over();
        if is_drained {
            tracing::info!("everything that was taken in is finished, as an operator asked");
            self.watchdog.stopping();
        }
        is_drained
    }

    /// Whether the inbox holds nothing that may become a job as things are.
    pub(super) fn inbox_rests(&self) -> bool {
        lock(&self.engine).pauses().all || self.intake.is_quiet()
    }
}

impl Handle {
    /// Passes a command on and waits until it is saved. Answers with what happens now.
    ///
    /// # Errors
    /// In words, if it can not be done or the daemon is stopping.
    pub async fn command(&self, command: Command) -> Result<String, String> {
        let (answer, answered) = tokio::sync::oneshot::channel();
        self.tell(Message::Operator(command, answer)).await;
        let stopping = || Err(Refused::NotNow("the daemon is stopping".to_owned()));
        let done = answered.await.unwrap_or_else(|_| stopping());
        done.map_err(|refused| refused.to_string())
    }
}

/// What was paused when it was saved last.
///
/// # Errors
/// If the store fails, or the note can not be understood: nothing must be sent then.
pub(super) fn saved_pauses(store: &dyn JobStore) -> Result<Pauses, StoreError> {
    let Some(note) = store.note(NOTE)? else { return Ok(Pauses::default()) };
    let unreadable = |error: serde_json::Error| StoreError::Unreadable {
        key: format!("note/{NOTE}"),
        reason: error.to_string(),
    };
    let PausesNote { all, queues } = serde_json::from_str(&note).map_err(unreadable)?;
    Ok(Pauses { all, queues })
}

/// What is paused, as a note of the store.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PausesNote {
    all: bool,
    queues: BTreeSet<String>,
}

fn note_of(pauses: &Pauses) -> String {
    if pauses.is_empty() {
        return String::new();
    }
    let note = PausesNote { all: pauses.all, queues: pauses.queues.clone() };
    serde_json::to_string(&note).expect("names and a flag always make JSON")
}

/// Adds what the engine made of a command to a turn, and says what happens now.
fn said(turn: &mut Turn, done: Result<Turn, String>, says: impl Into<String>) -> Done {
    add(turn, done?);
    Ok(says.into())
}

/// What is said of a file that was fetched back from held/, and still waits for its window.
fn waits_for_window(job: &Job, now: Millis) -> Option<String> {
    let (until, id) = (when::waits_until(job, now)?, job.head.id);
    Some(format!("waits until {until}: `gemini-batchd release {id}` once more sends it at once"))
}

fn drop_files(folders: &Folders, retry: &Retry) -> Done {
    let told = |done: Result<Again, SpoolError>, what: &str| match done {
        Ok(Again::Dropped(name)) => {
            Ok(format!("is tried again: {what} in the inbox, as {}", name.escape_debug()))
        }
        Ok(Again::Impossible(why)) => Err(Refused::NotNow(why)),
        Err(error) => Err(Refused::Failed(error.to_string())),
    };
    match retry {
        Retry::FailedLines(head, delivery) => {
            let what = match delivery.tally.failed {
                1 => "its failed line lies".to_owned(),
                failed => format!("its {failed} failed lines lie"),
            };
            told(again::drop_failed_lines(folders, head, delivery), &what)
        }
        Retry::Input(head) => {
            let done = again::drop_refused_input(folders, head.id, &head.source);
            told(done, "its file lies")
        }
        Retry::Now(_) => Ok("is tried again now".to_owned()),
    }
}

/// Which queues are paused by themselves, and what to do about that; `None` if there are none.
fn still_paused(queues: &BTreeSet<String>) -> Option<String> {
    let names: Vec<String> = queues.iter().map(|name| as_argument(name)).collect();
    match names.as_slice() {
        [] => None,
        [one] => Some(format!("the queue {one} is paused: `gemini-batchd resume {one}`")),
        [first, ..] => {
            let all = names.join(", ");
            Some(format!("the queues {all} are paused: `gemini-batchd resume {first}`, …"))
        }
    }
}

/// Under which name the store keeps what is paused.
const NOTE: &str = "pauses";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::MemoryStore;

    #[test]
    fn what_is_paused_is_read_as_it_was_saved_and_never_guessed() {
        let mut store = MemoryStore::new();
        assert_eq!(saved_pauses(&store).expect("read"), Pauses::default());
        for (all, queues) in [(true, vec![]), (false, vec!["a", "b: c/d\"e"]), (true, vec!["a"])] {
            let queues = queues.into_iter().map(str::to_owned).collect();
            let pauses = Pauses { all, queues };
            store.set_note(NOTE, &note_of(&pauses)).expect("saved");
            assert_eq!(saved_pauses(&store).expect("read"), pauses);
        }
        store.set_note(NOTE, &note_of(&Pauses::default())).expect("saved");
        assert_eq!(store.note(NOTE).expect("read"), None, "nothing is left of it");
        store.set_note(NOTE, "{\"all\":true,\"queues\":[],\"more\":1}").expect("saved");
        let error = saved_pauses(&store).expect_err("of another version").to_string();
        assert!(error.contains("note/pauses"), "{error}");
    }

    #[test]
    fn queues_that_stay_paused_are_named_with_what_lets_them_go_on() {
        let still = |names: &[&str]| still_paused(&names.iter().map(|n| (*n).to_owned()).collect());
        assert_eq!(still(&[]), None);
        let one = still(&["it's"]).expect("one");
        assert_eq!(one, "the queue 'it'\\''s' is paused: `gemini-batchd resume 'it'\\''s'`");
        assert!(still(&["a", "b"]).expect("two").starts_with("the queues a, b are paused"));
    }
}
