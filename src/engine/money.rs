//! Money and prices. Whole numbers only, so that sums are exact and the same everywhere.

use std::collections::BTreeMap;
use std::fmt;

use super::estimate::Forecast;
use super::ids::Millis;
use super::tally::Tokens;

/// An amount of money, in thousand-millionths of the currency that is configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Amount(pub u64);

impl Amount {
    /// Reads a plain decimal such as `5` or `0.25`, with up to nine places; nothing else is one.
    pub fn parse(text: &str) -> Option<Amount> {
        decimal(text, 9).filter(|nano| *nano <= AMOUNT_MAX).map(Amount)
    }

    /// Both together.
    #[must_use]
    pub fn plus(self, other: Amount) -> Amount {
        Amount(self.0.saturating_add(other.0))
    }

    /// What is left when the other is taken away; nothing, if that is more.
    #[must_use]
    pub fn minus(self, other: Amount) -> Amount {
        Amount(self.0.saturating_sub(other.0))
    }

    /// `part` of `whole` of it, rounded up.
    #[must_use]
    pub fn part(self, part: u64, whole: u64) -> Amount {
        let whole = u128::from(whole.max(1));
        Amount(narrow((u128::from(self.0) * u128::from(part)).div_ceil(whole)))
    }

    /// For people: two places, or four where it is less than one; rounded up.
    pub fn told(self) -> String {
        let step = if self.0 >= UNIT { UNIT / 100 } else { UNIT / 10_000 };
        Amount(self.0.div_ceil(step).saturating_mul(step)).to_string()
    }
}

impl fmt::Display for Amount {
    /// Exactly, with at least two places.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let places = format!("{:09}", self.0 % UNIT);
        let places = places.trim_end_matches('0');
        write!(f, "{}.{places:0<2}", self.0 / UNIT)
    }
}

/// An amount, and the moment from which on it counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cost {
    /// How much.
    pub amount: Amount,
    /// When it was set aside: it belongs to the night and the month of this moment.
    pub at: Millis,
}

/// What a chunk has of a budget.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Purse {
    /// Set aside for the attempt under way.
    pub held: Option<Cost>,
    /// For what has no batch of its own to say it: lines asked one by one, and attempts that may have
    /// been paid for, though no batch of theirs was found.
    pub doubtful: Vec<Cost>,
}

/// What is known of the money for a job.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Funds {
    /// A person has said that it may go over every budget.
    pub over: bool,
    /// What it will probably cost.
    pub likely: Amount,
    /// What it will hardly exceed: so much is set aside for it in all.
    pub most: Amount,
    /// The currency in which it is counted.
    pub currency: String,
}

/// What a model costs without any discount, in millionths of the currency for a million tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Price {
    /// Of prompts.
    pub input: u64,
    /// Of answers, thinking included.
    pub output: u64,
    /// Of that part of prompts that came from a cache.
    pub cached: u64,
    /// Of an image, in millionths for each: every answered line counts as one then, and its output
    /// tokens as nothing.
    pub image: Option<u64>,
    /// What batches cost of that, in millionths.
    pub batch_factor: u64,
}

/// The way in which a line is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tier {
    /// In a batch.
    Batch,
    /// By a call of its own that may be turned away; it costs as much as in a batch.
    Flex,
    /// By an ordinary call of its own, at the full price.
    Standard,
}

impl From<super::rescue::Tier> for Tier {
    fn from(tier: super::rescue::Tier) -> Tier {
        match tier {
            super::rescue::Tier::Flex => Tier::Flex,
            super::rescue::Tier::Standard => Tier::Standard,
        }
    }
}

impl Price {
    /// What these tokens cost, of which `answered` lines were the answers.
    pub fn cost(&self, tokens: Tokens, answered: u64, tier: Tier) -> Amount {
        let fresh = tokens.prompt.saturating_sub(tokens.cached);
        let output = tokens.output.saturating_add(tokens.thinking);
        // What comes from a cache has no discount (API contract, 8).
        let cached = u128::from(tokens.cached.min(tokens.prompt)) * u128::from(self.cached);
        Amount(narrow((self.reduced(fresh, output, answered, tier) + cached).div_ceil(PICO)))
    }

    /// What a batch of this forecast will probably cost.
    pub fn likely(&self, forecast: &Forecast) -> Amount {
        let Forecast { input, likely, lines, .. } = *forecast;
        Amount(narrow(self.reduced(input, likely, lines, Tier::Batch).div_ceil(PICO)))
    }

    /// What it will hardly exceed.
    pub fn most(&self, forecast: &Forecast, tier: Tier) -> Amount {
        let Forecast { input_most, most, lines, .. } = *forecast;
        Amount(narrow(self.reduced(input_most, most, lines, tier).div_ceil(PICO)))
    }

    /// In million-millionths.
    fn reduced(&self, input: u64, output: u64, lines: u64, tier: Tier) -> u128 {
        let output = match self.image {
            Some(image) => u128::from(lines) * u128::from(image) * MILLION,
            None => u128::from(output) * u128::from(self.output),
        };
        let full = u128::from(input) * u128::from(self.input) + output;
        match tier {
            Tier::Batch | Tier::Flex => (full * u128::from(self.batch_factor)).div_ceil(MILLION),
            Tier::Standard => full,
        }
    }
}

/// What may be spent and enqueued: prices, budgets, and the limits of the API's queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Means {
    /// The currency of all prices and budgets.
    pub currency: String,
    /// By model.
    pub prices: BTreeMap<String, Price>,
    /// For everything from noon to noon.
    pub night: Option<Amount>,
    /// For everything in a calendar month.
    pub month: Option<Amount>,
    /// For single queues, from noon to noon.
    pub queues: BTreeMap<String, Amount>,
    /// Tokens that may be enqueued for a model with one key; 0: what the API lets in.
    pub tokens: u64,
    /// The same for single models.
    pub tokens_of: BTreeMap<String, u64>,
    /// A chunk that is refused although nothing else is enqueued is halved, if it has more tokens.
    pub halved_above: u64,
}

impl Default for Means {
    fn default() -> Means {
        Means {
            currency: "USD".to_owned(),
            prices: BTreeMap::new(),
            night: None,
            month: None,
            queues: BTreeMap::new(),
            tokens: 0,
            tokens_of: BTreeMap::new(),
            halved_above: HALVED_ABOVE,
        }
    }
}

/// Whether a text is a plain decimal: digits, and perhaps a point and up to nine more.
pub fn is_decimal(text: &str) -> bool {
    let (whole, rest) = text.split_once('.').unwrap_or((text, "0"));
    let plain = |digits: &str| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    plain(whole) && plain(rest) && rest.len() <= 9
}

/// Reads a plain decimal as a whole number of its `places`-th place.
pub fn decimal(text: &str, places: usize) -> Option<u64> {
    let (whole, rest) = text.split_once('.').unwrap_or((text, ""));
    if !is_decimal(text) || rest.len() > places {
        return None;
    }
    format!("{whole}{rest:0<places$}").parse().ok()
}

fn narrow(wide: u128) -> u64 {
    u64::try_from(wide).unwrap_or(u64::MAX)
}

const UNIT: u64 = 1_000_000_000;
const MILLION: u128 = 1_000_000;
/// Million-millionths in a thousand-millionth.
const PICO: u128 = 1_000;
/// A thousand million of any currency.
const AMOUNT_MAX: u64 = 1_000_000_000 * UNIT;
/// The smallest queue of any model takes so many tokens (API contract, 8).
const HALVED_ABOVE: u64 = 25_000;

#[cfg(test)]
mod tests {
    use super::*;

    const FLASH: Price = Price {
        input: 300_000,
        output: 2_500_000,
        cached: 30_000,
        image: None,
        batch_factor: 500_000,
    };

    #[test]
    fn plain_decimals_are_amounts_and_nothing_else_is() {
        for (text, nano) in
            [("5", 5 * UNIT), ("0.25", UNIT / 4), ("0.000000001", 1), ("007", 7 * UNIT)]
        {
            assert_eq!(Amount::parse(text), Some(Amount(nano)), "{text}");
        }
        for text in [
            "",
            "-1",
            "+1",
            "1e3",
            "1_000",
            "1,5",
            ".5",
            "5.",
            "0.0000000001",
            "inf",
            "9999999999",
            " 1",
        ] {
            assert_eq!(Amount::parse(text), None, "{text}");
        }
    }

    #[test]
    fn amounts_are_written_exactly_and_told_rounded_up() {
        for (nano, exact, told) in [
            (0, "0.00", "0.00"),
            (1, "0.000000001", "0.0001"),
            (5 * UNIT, "5.00", "5.00"),
            (1_234_500_000, "1.2345", "1.24"),
            (123_450_001, "0.123450001", "0.1235"),
        ] {
            assert_eq!(Amount(nano).to_string(), exact);
            assert_eq!(Amount(nano).told(), told);
        }
    }

    #[test]
    fn a_batch_costs_half_and_what_was_cached_has_its_own_price() {
        let tokens = Tokens {
            prompt: 3_000_000,
            cached: 1_000_000,
            output: 900_000,
            thinking: 100_000,
            total: 4_000_000,
        };
        let cost = |tier| FLASH.cost(tokens, 10, tier).to_string();
        // (2 × 0.30 + 1 × 2.50) / 2 + 1 × 0.03
        assert_eq!(cost(Tier::Batch), "1.58");
        assert_eq!(cost(Tier::Flex), "1.58");
        assert_eq!(cost(Tier::Standard), "3.13");
        let odd = Tokens { prompt: 1, cached: 9, ..Tokens::default() };
        assert_eq!(FLASH.cost(odd, 1, Tier::Batch), Amount(30), "no more is cached than there is");
    }

    #[test]
    fn the_least_part_of_a_coin_is_rounded_up() {
        let one = Tokens { prompt: 1, ..Tokens::default() };
        let cheap = Price { input: 1, ..FLASH };
        assert_eq!(cheap.cost(one, 0, Tier::Batch), Amount(1));
        assert_eq!(Amount(10).part(1, 3), Amount(4));
        assert_eq!(Amount(10).part(1, 0), Amount(10), "a whole of nothing");
    }

    #[test]
    fn images_are_counted_by_line() {
        let price = Price { image: Some(39_000), ..FLASH };
        let tokens = Tokens { prompt: 1_000_000, output: 1_290_000, ..Tokens::default() };
        // (0.30 + 1000 × 0.039) / 2
        assert_eq!(price.cost(tokens, 1000, Tier::Batch).to_string(), "19.65");
    }
}
