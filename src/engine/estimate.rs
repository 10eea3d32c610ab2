//! How many tokens a request will take, before anybody counts them.
//!
//! Prompts are estimated from their text by its script, answers from the limits that requests set,
//! or from what the model used lately. What was estimated is corrected by what usage reported.

use super::job::{Rest, Task};

/// What the requests of a chunk are like, taken from a sample of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Density {
    /// Prompt tokens in a thousand bytes.
    pub per_kb: u32,
    /// Tokens that an answer may have, where its request says so: the mean.
    pub bound: u32,
    /// Of a thousand requests, those that do not say.
    pub unbounded: u16,
}

impl Default for Density {
    /// Of chunks that nobody looked at: four bytes a token, and no limits.
    fn default() -> Density {
        Density { per_kb: 250, bound: 0, unbounded: 1000 }
    }
}

impl Density {
    /// Prompt tokens in so many bytes of requests.
    pub fn prompt(self, bytes: u64) -> u64 {
        let tokens = u128::from(bytes) * u128::from(self.per_kb);
        u64::try_from(tokens.div_ceil(1000)).unwrap_or(u64::MAX)
    }
}

/// What a model used lately.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Habit {
    /// Tokens of an answer, with its thinking.
    pub output: u64,
    /// Prompt tokens that were counted for a thousand that were estimated.
    pub prompt: u64,
}

/// What some requests will take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Forecast {
    /// How many requests.
    pub lines: u64,
    /// Tokens of their prompts, probably.
    pub input: u64,
    /// The same, hardly exceeded.
    pub input_most: u64,
    /// Tokens of their answers, probably.
    pub likely: u64,
    /// The same, hardly exceeded: what their limits allow, or a multiple of what is usual.
    pub most: u64,
}

impl Forecast {
    /// Of these rows.
    pub fn of(density: Density, rest: Rest, task: Task, habit: Option<Habit>) -> Forecast {
        let lines = rest.rows();
        let estimated = density.prompt(rest.bytes());
        let input = match habit {
            Some(habit) => estimated.saturating_mul(habit.prompt) / 1000,
            None => estimated,
        };
        let (each, each_most) = match task {
            Task::Embed => (0, 0),
            Task::Generate => {
                let usual = habit.map_or(OUTPUT_USUAL, |habit| habit.output);
                let unbounded = u64::from(density.unbounded.min(1000));
                let (bound, wide) = (u64::from(density.bound), usual.saturating_mul(SAFETY));
                let mixed = |bound: u64, free: u64| {
                    (bound * (1000 - unbounded))
                        .saturating_add(free.saturating_mul(unbounded))
                        .div_ceil(1000)
                };
                (mixed(bound.min(usual), usual), mixed(bound, wide))
            }
        };
        Forecast {
            lines,
            input,
            input_most: input.saturating_add(input / 4),
            likely: lines.saturating_mul(each),
            most: lines.saturating_mul(each_most),
        }
    }

    /// Both together.
    #[must_use]
    pub fn plus(self, other: Forecast) -> Forecast {
        Forecast {
            lines: self.lines.saturating_add(other.lines),
            input: self.input.saturating_add(other.input),
            input_most: self.input_most.saturating_add(other.input_most),
            likely: self.likely.saturating_add(other.likely),
            most: self.most.saturating_add(other.most),
        }
    }
}

/// Tokens of an answer of a model that nothing is known of.
const OUTPUT_USUAL: u64 = 500;
/// How many times what is usual an answer without a limit is thought to take at most, on average.
const SAFETY: u64 = 3;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::job::Share;

    fn rest(rows: u64, bytes: u64) -> Rest {
        Rest { left: Share { rows, bytes }, right: Share::default() }
    }

    #[test]
    fn a_limit_bounds_an_answer_and_without_one_a_multiple_of_the_usual_does() {
        let bounded = Density { bound: 100, unbounded: 0, ..Density::default() };
        let of = |density, habit| Forecast::of(density, rest(10, 4000), Task::Generate, habit);
        let all = of(bounded, None);
        assert_eq!((all.input, all.input_most, all.likely, all.most), (1000, 1250, 1000, 1000));
        let none = of(Density::default(), None);
        assert_eq!((none.likely, none.most), (5000, 15_000));
        let half = of(Density { bound: 100, unbounded: 500, ..Density::default() }, None);
        assert_eq!((half.likely, half.most), (3000, 8000));
        let habit = Habit { output: 40, prompt: 2000 };
        let learned = of(bounded, Some(habit));
        assert_eq!((learned.input, learned.likely, learned.most), (2000, 400, 1000));
    }

    #[test]
    fn embeddings_have_no_output() {
        let all = Forecast::of(Density::default(), rest(10, 4000), Task::Embed, None);
        assert_eq!((all.input, all.likely, all.most), (1000, 0, 0));
    }

    #[test]
    fn absurd_numbers_do_not_overflow() {
        let density = Density { per_kb: u32::MAX, bound: u32::MAX, unbounded: u16::MAX };
        let habit = Habit { output: u64::MAX, prompt: u64::MAX };
        let all = Forecast::of(density, rest(1 << 60, 1 << 60), Task::Generate, Some(habit));
        assert_eq!((all.most, all.plus(all).most), (u64::MAX, u64::MAX));
    }
}
