//! The result files that the sink serves: for each row of an input an answer of about its size.
//!
//! The daemon's keys on the wire are the numbers of the rows, and a long input goes out in several
//! chunks: each gets a file of its own, named after its first row.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::Path;

use crate::dice::Dice;
use crate::pool::Pool;

/// How the answers are to be.
pub struct Recipe<'a> {
    /// Seed of another order within each chunk; in order without.
    pub shuffle: Option<u64>,
    /// First rows of the chunks, ascending, the first of them 1.
    pub cuts: &'a [u64],
    /// Bytes of an answer; about those of its request without.
    pub bytes: Option<usize>,
}

/// Writes `FIRST.jsonl` into `folder` for each chunk of `input`. Lines that begin as the broken
/// ones of the generator have no answer. Gives the number of answers.
///
/// # Errors
/// If files can not be read or written.
pub fn write(input: &Path, folder: &Path, recipe: &Recipe<'_>) -> io::Result<u64> {
    fs::create_dir_all(folder)?;
    let sizes = sizes(input)?;
    let pool = Pool::words(11);
    let mut answers = 0;
    for (at, first) in recipe.cuts.iter().enumerate() {
        let end = recipe.cuts.get(at + 1).copied().unwrap_or(sizes.len() as u64 + 1);
        let mut rows: Vec<u32> = (*first..end)
            .filter(|row| sizes[*row as usize - 1] > 0)
            .map(|row| row as u32)
            .collect();
        if let Some(seed) = recipe.shuffle {
            Dice::new(seed ^ *first).shuffle(&mut rows);
        }
        answers += rows.len() as u64;
        let file = File::create(folder.join(format!("{first}.jsonl")))?;
        let mut out = BufWriter::with_capacity(1 << 20, file);
        let (mut dice, mut line) = (Dice::new(*first), Vec::new());
        for row in rows {
            line.clear();
            line.extend_from_slice(format!("{{\"key\":\"{row}\",\"response\":").as_bytes());
            let bytes = recipe.bytes.unwrap_or(sizes[row as usize - 1] as usize);
            response(&pool, &mut dice, bytes.saturating_sub(FRAME_BYTES), &mut line);
            line.extend_from_slice(b"}\n");
            out.write_all(&line)?;
        }
        out.flush()?;
    }
    Ok(answers)
}

/// A whole response whose text has about `bytes` bytes; one that is as short as can be without.
pub fn response(pool: &Pool, dice: &mut Dice, bytes: usize, line: &mut Vec<u8>) {
    line.extend_from_slice(b"{\"candidates\":[{\"content\":{\"parts\":[{\"text\":\"");
    if bytes < FRAME_BYTES {
        line.extend_from_slice(b"yes\"}]},\"finishReason\":\"STOP\"}]}");
        return;
    }
    pool.append(dice, bytes, line);
    let tokens = bytes / 4;
    let tail = format!(
        "\"}}],\"role\":\"model\"}},\"finishReason\":\"STOP\",\"index\":0}}],\
         \"usageMetadata\":{{\"promptTokenCount\":{tokens},\"candidatesTokenCount\":{tokens},\
         \"totalTokenCount\":{}}},\"modelVersion\":\"gemini-2.5-flash\",\
         \"responseId\":\"{:016x}\"}}",
        2 * tokens,
        dice.roll()
    );
    line.extend_from_slice(tail.as_bytes());
}

/// Bytes of each line that is a row; 0 for those that can not be sent.
fn sizes(input: &Path) -> io::Result<Vec<u32>> {
    let mut input = BufReader::with_capacity(1 << 20, File::open(input)?);
    let (mut sizes, mut line) = (Vec::new(), Vec::new());
    loop {
        line.clear();
        if input.read_until(b'\n', &mut line)? == 0 {
            return Ok(sizes);
        }
        let broken = line.starts_with(b"{\"key\": \"broken-");
        sizes.push(if broken { 0 } else { line.len() as u32 });
    }
}

/// Bytes of a result line around its text, about.
const FRAME_BYTES: usize = 300;
