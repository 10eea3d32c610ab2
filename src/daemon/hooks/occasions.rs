//! Which saved changes somebody wants to be told of.
//!
//! Each event has an id that is the same whenever it is found again, as after a crash between its
//! note and the save that it stands for.

use crate::config::Occasion;
use crate::engine::effect::Change;
use crate::engine::ids::Millis;
use crate::engine::job::{ChunkState, Delivery, Head, JobState};
use crate::engine::{Chunk, JobId, stuck};
use crate::spool::Folders;
use crate::spool::manifest::{self, JobVerdict};
use crate::view::{self, Kind};

use super::message::Told;
use crate::daemon::chronicle::Draft;

/// What the changes that are about to be saved mean, of which `drafts` tell the record of events.
pub fn occasions(
    drafts: &[Draft],
    changes: &[Change],
    head_of: impl Fn(JobId) -> Option<Head>,
    folders: &Folders,
    now: Millis,
) -> Vec<(Occasion, Told)> {
    let mut told = Vec::new();
    for draft in drafts {
        let Some(id) = draft.job else { continue };
        let changed = changes.iter().rev().find_map(|change| match change {
            Change::Head(head) if head.id == id => Some((**head).clone()),
            Change::Head(_)
            | Change::Chunk(..)
            | Change::Shed(_)
            | Change::Forget(_)
            | Change::Note { .. } => None,
        });
        let Some(head) = changed.or_else(|| head_of(id)) else { continue };
        let text = draft.text.clone();
        if let (Kind::Delivered, JobState::Cleaning(delivery)) = (draft.kind, &head.state) {
            told.extend(delivered(&head, delivery, &text, folders, now));
        } else if let (Kind::Failed, JobState::Failed(_)) = (draft.kind, &head.state) {
            let new = Told::new(Occasion::Failed, format!("{id}-failed"), now, text);
            told.push((Occasion::Failed, new.of(&head)));
        } else if let (Kind::Held, JobState::Held(_)) = (draft.kind, &head.state) {
            // A file can be held again after it was released.
            let new = Told::new(Occasion::Held, format!("{id}-held-{}", now.0), now, text);
            told.push((Occasion::Held, new.of(&head)));
        } else if draft.kind == Kind::Stuck {
            let chunks = changes.iter().filter_map(|change| match change {
                Change::Chunk(of, chunk) if *of == id => stuck::stuck(chunk),
                Change::Chunk(..)
                | Change::Head(_)
                | Change::Shed(_)
                | Change::Forget(_)
                | Change::Note { .. } => None,
            });
            let batches: Vec<&str> = chunks.map(|name| name.0.as_str()).collect();
            let id = format!("{id}-stuck-{}", batches.join("+"));
            let new = Told::new(Occasion::Stuck, id, now, text);
            told.push((Occasion::Stuck, new.of(&head)));
        } else if let (Kind::Uncertain, Some(chunk)) = (draft.kind, stuck_of(changes, id)) {
            let id = format!("{id}-stuck-c{}-a{}", chunk.no.0, chunk.attempt.0);
            let new = Told::new(Occasion::Stuck, id, now, text);
            told.push((Occasion::Stuck, new.of(&head)));
        }
    }
    told
}

/// The chunk of a job among the changes that waits for a person.
fn stuck_of(changes: &[Change], id: JobId) -> Option<&Chunk> {
    changes.iter().find_map(|change| match change {
        Change::Chunk(of, chunk) if *of == id => {
            matches!(chunk.state, ChunkState::Stuck { .. }).then_some(&**chunk)
        }
        Change::Chunk(..)
        | Change::Head(_)
        | Change::Shed(_)
        | Change::Forget(_)
        | Change::Note { .. } => None,
    })
}

fn delivered(
    head: &Head,
    delivery: &Delivery,
    text: &str,
    folders: &Folders,
    now: Millis,
) -> Vec<(Occasion, Told)> {
    let occasion = match manifest::verdict(delivery) {
        JobVerdict::Complete => Occasion::Done,
        JobVerdict::Partial | JobVerdict::Cancelled => Occasion::Partial,
        JobVerdict::Failed => Occasion::Failed,
    };
    let tell = |occasion: Occasion, text: String| {
        let id = format!("{}-{}", head.id, occasion.word());
        let told = Told::new(occasion, id, now, text).of(head);
        (occasion, told.with_outputs(folders, head, delivery))
    };
    let mut all = vec![tell(occasion, text.to_owned())];
    if let Some(due) = head.queue.moments.deliver_by.filter(|due| delivery.delivered > *due) {
        let text = format!("it was to be delivered by {}; {text}", view::moment(due));
        all.push(tell(Occasion::Late, text));
    }
    all
}
