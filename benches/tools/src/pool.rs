//! Text to cut prompts and answers from: JSON string contents, escaped already.
//!
//! A few megabytes are made once; a piece of any length is a slice of them, so that a gigabyte of
//! lines costs little more than copying a gigabyte.

use crate::dice::Dice;

/// Text that can be cut between any two of its words.
pub struct Pool {
    text: Vec<u8>,
    /// Where words begin, ascending.
    words: Vec<u32>,
}

impl Pool {
    /// Words of several scripts, with line breaks, quotes and escapes between them.
    pub fn words(seed: u64) -> Pool {
        let mut dice = Dice::new(seed);
        let mut pool = Pool { text: Vec::with_capacity(POOL_BYTES + 64), words: Vec::new() };
        while pool.text.len() < POOL_BYTES {
            pool.words.push(pool.text.len() as u32);
            pool.text.extend_from_slice(dice.pick(&WORDS).as_bytes());
            pool.text.push(b' ');
        }
        pool
    }

    /// Letters of base64, which can be cut anywhere.
    pub fn base64(seed: u64) -> Pool {
        const LETTERS: &[u8; 64] =
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let mut dice = Dice::new(seed);
        let text = (0..POOL_BYTES).map(|_| LETTERS[dice.below(64)]).collect();
        Pool { text, words: (0..POOL_BYTES as u32).step_by(4).collect() }
    }

    /// Appends about `bytes` bytes of it, from a place that the dice choose.
    pub fn append(&self, dice: &mut Dice, bytes: usize, to: &mut Vec<u8>) {
        let mut left = bytes;
        while left >= SHORTEST_PIECE {
            let from = self.words[dice.below(self.words.len())] as usize;
            let end = self.words.partition_point(|word| (*word as usize) <= from + left);
            let end = self.words[end - 1] as usize;
            to.extend_from_slice(&self.text[from..end]);
            left -= (end - from).max(1);
        }
    }
}

const POOL_BYTES: usize = 4 << 20;
/// What is left to fill below this stays unfilled, bytes.
const SHORTEST_PIECE: usize = 32;

const WORDS: [&str; 28] = [
    "the",
    "batch",
    "reads",
    "every",
    "line",
    "once",
    "and",
    "writes",
    "it",
    "exactly",
    "as",
    "was",
    "一行",
    "批处理请求",
    "回答写在文件里",
    "und",
    "schreibt",
    "sie",
    "genau",
    "wie",
    "zurück",
    r"\n",
    r"\u00e9t\u00e9",
    r#"\"quoted\""#,
    r"\ud83d\ude00",
    r"C:\\temp",
    "🙂",
    "число",
];
