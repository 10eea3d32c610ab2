//! Random numbers that a seed repeats, and numbers in the environment.

/// The seed of this run: `SEED`, or one of its own.
pub fn seed() -> u64 {
    number("SEED").unwrap_or_else(|| u64::from(std::process::id()))
}

/// A number in the environment, if it is there.
pub fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is no number: {text}")))
}

/// Random numbers (SplitMix64).
pub struct Dice(pub u64);

impl Dice {
    /// A number from 0 to below the limit.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (bits ^ (bits >> 31)) % limit
    }

    /// Whether it happens, once in so many times.
    pub fn one_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }
}
