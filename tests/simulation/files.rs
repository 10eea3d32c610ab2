//! Files that people drop, and the requests in them.

use super::faults::{DAY_MS, OPAQUE, POISON};
use super::random::Random;
use super::rescuing::Wanted;

/// A file that was dropped once. Nobody but the tests knows its number.
#[derive(Debug, Clone)]
pub struct Dropped {
    pub name: String,
    /// Files with the same content have the same number here.
    pub content: u64,
    /// What its requests are, in order.
    pub kinds: Vec<Kind>,
    pub rows_a_chunk: u64,
    /// What it claims to have; its rows are few in any case.
    pub bytes: u64,
    pub model: &'static str,
    pub priority: i64,
    /// How long it waits for its window, milliseconds.
    pub window_ms: Option<u64>,
    /// Whether its first chunk is a canary, and how many of that may be bad.
    pub canary: Option<u64>,
    /// By when it is wanted, and what may be done for that.
    pub wanted: Wanted,
    /// Its owner took it back before anybody had read it.
    pub withdrawn: bool,
}

/// What a request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Good,
    /// It makes a batch fail as a whole.
    Poison,
    /// It makes a create be refused without a reason.
    Opaque,
    /// The API names it and refuses the create.
    Named,
    /// It can not be sent at all.
    Invalid,
}

impl Dropped {
    pub fn draw(random: &mut Random, number: u64) -> Dropped {
        let rows = random.pick(&[1, 3, 8, 20, 40]);
        let bad = random.pick(&[0, 0, 0, 30, 100]);
        let kind = |random: &mut Random| match random.chance(bad) {
            true => random.pick(&[Kind::Poison, Kind::Opaque, Kind::Named, Kind::Invalid]),
            false => Kind::Good,
        };
        let rows = 1 + random.below(rows);
        let kinds = (0..rows).map(|_| kind(random)).collect();
        Dropped {
            name: format!("file-{}.jsonl", random.below(number + 1)),
            content: number,
            kinds,
            // Not too many: where batches take days, they come one after the other.
            rows_a_chunk: 1 + rows / 6 + random.below(rows),
            bytes: random.pick(&[1, 8 << 20, 1 << 30]),
            model: if random.chance(30) { "gemini-0-flash" } else { "gemini-2.5-flash" },
            priority: random.pick(&[0, 0, 5]),
            window_ms: random.chance(300).then(|| 1 + random.below(DAY_MS)),
            canary: random.chance(300).then(|| random.below(3)),
            wanted: Wanted::draw(random),
            withdrawn: false,
        }
    }

    /// A request as JSON.
    pub fn request(&self, row: u64) -> String {
        let text = self.text(row);
        let extra = match self.kinds[row as usize - 1] {
            Kind::Named => ",\"nonsense\":1",
            Kind::Good | Kind::Poison | Kind::Opaque | Kind::Invalid => "",
        };
        format!("{{\"contents\":[{{\"parts\":[{{\"text\":\"{text}\"}}]}}]{extra}}}")
    }

    /// How long its answers are used again: every other content's are.
    pub fn cache_ms(&self) -> u64 {
        if self.content.is_multiple_of(2) { 2 * DAY_MS } else { 0 }
    }

    fn text(&self, row: u64) -> String {
        // What many files ask.
        if self.kinds[row as usize - 1] == Kind::Good && row.is_multiple_of(3) {
            return format!("water {row} of all");
        }
        let word = match self.kinds[row as usize - 1] {
            Kind::Poison => POISON,
            Kind::Opaque => OPAQUE,
            Kind::Good | Kind::Named | Kind::Invalid => "water",
        };
        format!("{word} {row} of {}", self.content)
    }

    /// Whether a text is the whole answer to a row.
    pub fn is_whole_answer(&self, row: u64, text: &str) -> bool {
        text == format!("Echo of request: {}", self.text(row))
    }

    /// Whether a text answers a row, or begins to.
    pub fn is_answer(&self, row: u64, text: &str) -> bool {
        let full = format!("Echo of request: {}", self.text(row));
        !text.is_empty() && full.starts_with(text)
    }
}
