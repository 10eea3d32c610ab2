//! The ledger of what was spent and is set aside; what that is for is said in `budget`.

use std::collections::BTreeMap;

use super::budget::Periods;
use super::ids::{JobId, Millis};
use super::job::{Chunk, Job};
use super::lanes::Unit;
use super::money::{Amount, Cost};

/// Everything spent and set aside.
#[derive(Debug, Default)]
pub(super) struct Spending {
    pub(super) periods: Periods,
    /// By quarters of an hour since 1970, and queue.
    spent: BTreeMap<Slot, Amount>,
    /// What is set aside, and for which queue.
    held: BTreeMap<Unit, (Box<str>, Cost)>,
    /// What was spent and is set aside for chunks of jobs under way.
    parts: BTreeMap<Unit, Amount>,
    /// The same by jobs.
    pub(super) by_job: BTreeMap<JobId, Amount>,
    /// The note is behind.
    is_new: bool,
    /// There may be more to spend than before.
    pub(super) freed: bool,
}

type Slot = (u32, Box<str>);

/// What complete and other saved jobs have spent, while they are read.
#[derive(Debug, Default)]
pub(super) struct Spent(BTreeMap<Slot, Amount>);

impl Spent {
    /// Takes in a job as it was saved.
    pub(super) fn take_in(&mut self, job: &Job) {
        for cost in job.chunks.values().flat_map(costs) {
            add(&mut self.0, &job.head.queue.name, cost);
        }
    }
}

impl Spending {
    /// What is known after a restart: by the note, or, where that is lost, by the jobs.
    pub(super) fn recalled(note: &str, seen: Spent, periods: Periods, now: Millis) -> Spending {
        let known = |spent| Spending { spent, periods, freed: true, ..Spending::default() };
        let mut noted = known(BTreeMap::new());
        for line in note.lines() {
            let mut parts = line.splitn(3, ' ');
            let (Some(slot), Some(nano), Some(queue)) = (parts.next(), parts.next(), parts.next())
            else {
                continue;
            };
            if let (Ok(slot), Ok(nano)) = (slot.parse(), nano.parse()) {
                noted.spent.insert((slot, queue.into()), Amount(nano));
            }
        }
        let mut seen = known(seen.0);
        noted.merge_old(now, FINE_SLOTS);
        seen.merge_old(now, FINE_SLOTS);
        for (slot, amount) in seen.spent {
            let known = noted.spent.entry(slot).or_default();
            *known = amount.max(*known);
        }
        noted
    }

    pub(super) fn spend(&mut self, queue: &str, cost: Cost) {
        add(&mut self.spent, queue, cost);
        self.is_new = true;
    }

    /// What was spent and is set aside since a moment, by a queue or by all.
    pub(super) fn since(&self, from: Millis, queue: Option<&str>) -> (Amount, Amount) {
        let is_of = |of: &str| queue.is_none_or(|queue| queue == of);
        let spent = self.spent.range((slot(from), "".into())..);
        let spent = spent.filter(|((_, of), _)| is_of(of));
        let held = self.held.values().filter(|(of, held)| is_of(of) && held.at >= from);
        (
            spent.fold(Amount::default(), |sum, (_, amount)| sum.plus(*amount)),
            held.fold(Amount::default(), |sum, (_, held)| sum.plus(held.amount)),
        )
    }

    /// Keeps the count of what a chunk of a job under way has of the money; `None` if there is none
    /// any more.
    pub(super) fn account(&mut self, unit: Unit, of: Option<(&Job, &Chunk)>) {
        let held = of.and_then(|(_, chunk)| chunk.purse.as_ref()?.held);
        let costs = of.into_iter().flat_map(|(_, chunk)| costs(chunk)).chain(held);
        let all = costs.fold(Amount::default(), |sum, cost| sum.plus(cost.amount));
        let before_held = match (held, of) {
            (Some(held), Some((job, _))) => {
                let queue = job.head.queue.name.as_str().into();
                self.held.insert(unit, (queue, held))
            }
            (Some(_) | None, _) => self.held.remove(&unit),
        };
        let before = match all == Amount::default() {
            true => self.parts.remove(&unit),
            false => self.parts.insert(unit, all),
        };
        let before = before.unwrap_or_default();
        self.freed |=
            all < before || before_held.map(|(_, cost)| cost.amount) > held.map(|it| it.amount);
        if all != before {
            let sum = self.by_job.entry(unit.job).or_default();
            *sum = sum.plus(all).minus(before);
            if *sum == Amount::default() {
                self.by_job.remove(&unit.job);
            }
        }
    }

    /// Of what is longer ago than some slots, only days are told apart, and no queues.
    fn merge_old(&mut self, now: Millis, fine: u32) {
        let (now, month) = (slot(now), slot(self.periods.month));
        let limit = now.saturating_sub(fine);
        let newer = self.spent.split_off(&(limit, "".into()));
        for ((at, _), amount) in std::mem::replace(&mut self.spent, newer) {
            // What was spent this month stays in this month.
            let day = at - at % DAY_SLOTS;
            let day = if at >= month { day.max(month) } else { day };
            let sum = self.spent.entry((day, "".into())).or_default();
            *sum = sum.plus(amount);
        }
        while self.spent.range(..(limit, "".into())).count() > DAYS_MAX {
            self.spent.pop_first();
        }
    }

    /// The note, if it has to be saved.
    pub(super) fn note(&mut self, now: Millis) -> Option<String> {
        if !std::mem::take(&mut self.is_new) {
            return None;
        }
        let mut text = String::new();
        for fine in [FINE_SLOTS, DAY_SLOTS, 0] {
            self.merge_old(now, fine);
            text = self.spent.iter().fold(String::new(), |text, ((slot, queue), amount)| {
                text + &format!("{slot} {} {queue}\n", amount.0)
            });
            if text.len() <= NOTE_BYTES_MAX {
                break;
            }
        }
        Some(text)
    }
}

/// Everything that was spent for a chunk.
pub(super) fn costs(chunk: &Chunk) -> impl Iterator<Item = Cost> {
    let doubtful = chunk.purse.iter().flat_map(|purse| &purse.doubtful).copied();
    chunk.batches.iter().filter_map(|batch| batch.cost).chain(doubtful)
}

fn add(spent: &mut BTreeMap<Slot, Amount>, queue: &str, cost: Cost) {
    let sum = spent.entry((slot(cost.at), queue.into())).or_default();
    *sum = sum.plus(cost.amount);
}

fn slot(at: Millis) -> u32 {
    u32::try_from(at.0 / SLOT_MS).unwrap_or(u32::MAX)
}

/// Every zone's noon and midnight lie on one.
const SLOT_MS: u64 = 900_000;
const DAY_SLOTS: u32 = 96;
/// For so long quarters of an hour and queues are told apart: a clock may be days off.
const FINE_SLOTS: u32 = 8 * DAY_SLOTS;
/// Days that are kept, more than there are in a month and the one before.
const DAYS_MAX: usize = 100;
/// A record may have 64 KiB.
const NOTE_BYTES_MAX: usize = 48 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    /// A moment in a slot of a day.
    fn at(day: u32, slot: u32) -> Millis {
        Millis(u64::from(day * DAY_SLOTS + slot) * SLOT_MS)
    }

    fn spent(entries: &[(u32, u32, &str, u64)], periods: Periods) -> Spending {
        let mut spending = Spending { periods, ..Spending::default() };
        for (day, slot, queue, amount) in entries {
            spending.spend(queue, Cost { amount: Amount(*amount), at: at(*day, *slot) });
        }
        spending
    }

    #[test]
    fn of_what_is_long_ago_only_days_are_told_apart_and_no_queues() {
        let entries =
            [(80, 3, "a", 1), (80, 95, "b", 2), (81, 0, "a", 4), (98, 7, "a", 8), (98, 7, "b", 16)];
        let note = spent(&entries, Periods::default()).note(at(100, 0)).expect("it has changed");
        assert_eq!(note, "7680 3 \n7776 4 \n9415 8 a\n9415 16 b\n");
        let recalled = Spending::recalled(&note, Spent::default(), Periods::default(), at(100, 0));
        assert_eq!(recalled.since(at(81, 0), None).0, Amount(28));
        assert_eq!(recalled.since(at(0, 0), Some("b")).0, Amount(16));
        assert!(recalled.freed, "after a restart everybody looks again");
    }

    #[test]
    fn what_was_spent_in_a_month_stays_in_it_wherever_its_day_begins() {
        // The month began in the middle of a day of UTC.
        let periods = Periods { month: at(80, 40), ..Periods::default() };
        let mut spending = spent(&[(80, 39, "a", 1), (80, 41, "a", 2), (81, 5, "a", 4)], periods);
        spending.note(at(100, 0)).expect("it has changed");
        assert_eq!(spending.since(periods.month, None).0, Amount(6));
        assert_eq!(spending.since(at(80, 0), None).0, Amount(7));
    }

    #[test]
    fn a_hundred_days_are_kept_and_those_that_are_told_apart() {
        let entries: Vec<(u32, u32, &str, u64)> = (1..=400).map(|day| (day, 0, "a", 1)).collect();
        let note = spent(&entries, Periods::default()).note(at(400, 1)).expect("it has changed");
        assert_eq!(note.lines().filter(|line| line.ends_with(' ')).count(), DAYS_MAX);
        assert_eq!(note.lines().filter(|line| line.ends_with(" a")).count(), 9 - 1);
    }
}
