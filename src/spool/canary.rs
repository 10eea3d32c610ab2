//! The canary of a job in its files: cut out of the chunks, counted when it is back, and its answers
//! laid beside the note for people.

use std::path::{Path, PathBuf};

use super::frame::Frame;
use super::free_name::split;
use super::index::{IndexReader, LineEntry, OutcomeEntry};
use super::outcomes::{open_lines, open_outcomes};
use super::{At, JobFolder, SpoolError};
use crate::engine::event::PlannedChunk;
use crate::engine::ids::{Row, Rows};
use crate::engine::job::{Rest, Share, Trial};
use crate::engine::verdict::Verdict;

/// Cuts runs of lines out of the chunks of a plan, about so many lines in all: at the beginning, in
/// the middle and at the end of the file. The chunks stay in input order, and each row stays in one
/// of them. `None`, and nothing is cut, if the file has hardly more lines than that.
///
/// # Errors
/// If the line index can not be read.
pub fn cut(
    folder: &JobFolder,
    chunks: &mut Vec<PlannedChunk>,
    lines: u64,
) -> Result<Option<Trial>, SpoolError> {
    let all: u64 = chunks.iter().map(|chunk| share_of(chunk).rows).sum();
    if lines == 0 || all / WORTH_IT <= lines {
        return Ok(None);
    }
    let mut open = Open::rows(folder)?;
    let third = lines.div_ceil(3);
    let (front, back) = (third, third.min(lines - third));
    let middle = lines - front - back;
    let wanted = match chunks.as_slice() {
        // Of one chunk each half is known.
        [one] => {
            let [left, right] = halves(one);
            *chunks = vec![left, right];
            vec![(front, 0), (middle, back)]
        }
        many => {
            let mut wanted = vec![(0, 0); many.len()];
            wanted[0].0 = front;
            wanted[many.len() / 2].0 += middle;
            wanted[many.len() - 1].1 = back;
            wanted
        }
    };
    let (mut pieces, mut runs) = (Vec::new(), Vec::new());
    for (chunk, (front, back)) in chunks.iter().zip(wanted) {
        let cut = carve(chunk, front, back, &mut open)?;
        for (piece, is_run) in cut.into_iter().filter(|(piece, _)| share_of(piece).rows > 0) {
            pieces.push(piece);
            runs.extend(is_run.then_some(piece));
        }
    }
    *chunks = pieces;
    Ok((!runs.is_empty()).then(|| Trial::of(&runs)))
}

/// Counts the lines of a canary that came back badly: not answered, cut off, or blocked.
///
/// # Errors
/// If the indexes can not be read.
pub fn judge(folder: &JobFolder, trial: &Trial, rows: u64) -> Result<u64, SpoolError> {
    let (mut lines, mut outcomes) = (open_lines(folder)?, open_outcomes(folder, rows)?);
    let (lines_path, outcomes_path) = (folder.lines(), folder.outcomes());
    let mut bad = 0;
    for row in rows_of(&trial.runs) {
        let entry = lines.get(row).at("read", &lines_path)?;
        let outcome = outcomes.get(row).at("read", &outcomes_path)?;
        bad += u64::from(entry.fate.is_sent() && outcome.verdict != Verdict::Answered);
    }
    Ok(bad)
}

/// Where the answers of a canary, and its failed lines, lie beside the note for a file of this name.
pub fn beside(held: &Path, name: &str) -> [PathBuf; 2] {
    let (stem, _) = split(name);
    ["results", "errors"].map(|kind| held.join(format!("{stem}.canary.{kind}.jsonl")))
}

/// The rows of some runs.
pub fn rows_of(runs: &[Rows]) -> impl Iterator<Item = Row> + '_ {
    runs.iter().flat_map(|run| (run.first.0..=run.last.0).map(Row))
}

/// A chunk in pieces: as many sendable rows of its beginning and of its end as are wanted, and what is
/// between. One that has no more than that is a run as a whole.
fn carve(
    chunk: &PlannedChunk,
    front: u64,
    back: u64,
    open: &mut Open,
) -> Result<Vec<(PlannedChunk, bool)>, SpoolError> {
    let all = share_of(chunk);
    if front + back == 0 {
        return Ok(vec![(*chunk, false)]);
    }
    if all.rows <= front + back {
        return Ok(vec![(*chunk, true)]);
    }
    let Rows { mut first, mut last } = chunk.rows;
    let (mut head, mut tail) = (Share::default(), Share::default());
    while head.rows < front {
        open.count(&mut head, first)?;
        first = Row(first.0 + 1);
    }
    while tail.rows < back {
        open.count(&mut tail, last)?;
        last = Row(last.0 - 1);
    }
    let rest = Share {
        rows: all.rows - head.rows - tail.rows,
        bytes: all.bytes.saturating_sub(head.bytes + tail.bytes),
    };
    let before = Rows { first: chunk.rows.first, last: Row(first.0 - 1) };
    let after = Rows { first: Row(last.0 + 1), last: chunk.rows.last };
    let pieces = [(before, head, true), (Rows { first, last }, rest, false), (after, tail, true)];
    let pieces = pieces.into_iter().filter(|(rows, ..)| !rows.is_empty());
    Ok(pieces.map(|(rows, share, is_run)| (piece(chunk, rows, share), is_run)).collect())
}

/// The rows that are to be sent: those that can be, and are not answered from the cache.
struct Open {
    lines: IndexReader<LineEntry>,
    outcomes: IndexReader<OutcomeEntry>,
    paths: [PathBuf; 2],
}

impl Open {
    fn rows(folder: &JobFolder) -> Result<Open, SpoolError> {
        let lines = open_lines(folder)?;
        let outcomes = open_outcomes(folder, lines.rows())?;
        Ok(Open { lines, outcomes, paths: [folder.lines(), folder.outcomes()] })
    }

    fn count(&mut self, share: &mut Share, row: Row) -> Result<(), SpoolError> {
        let LineEntry { fate, request_len, .. } = self.lines.get(row).at("read", &self.paths[0])?;
        let outcome = self.outcomes.get(row).at("read", &self.paths[1])?;
        if fate.is_sent() && outcome.verdict.is_open() {
            share.rows += 1;
            share.bytes += Frame::on_file(fate).len(row, false, request_len);
        }
        Ok(())
    }
}

/// Its own halves are counted when it comes to its end, as those of a chunk that was cut in two.
fn piece(of: &PlannedChunk, rows: Rows, left: Share) -> PlannedChunk {
    PlannedChunk { rows, left, right: Share::default(), density: of.density }
}

fn halves(chunk: &PlannedChunk) -> [PlannedChunk; 2] {
    let (rows, middle) = (chunk.rows, chunk.rows.middle());
    let left = Rows { first: rows.first, last: middle };
    let right = Rows { first: Row(middle.0 + 1), last: rows.last };
    [piece(chunk, left, chunk.left), piece(chunk, right, chunk.right)]
}

fn share_of(chunk: &PlannedChunk) -> Share {
    let rest = Rest { left: chunk.left, right: chunk.right };
    Share { rows: rest.rows(), bytes: rest.bytes() }
}

/// A file with fewer than so many times the lines of its canary goes as a whole.
const WORTH_IT: u64 = 3;

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "tests write plain files")]

    use super::*;
    use crate::spool::index::{LineFate, append};

    /// Chunks of so many rows, of which every seventh can not be sent.
    fn planned(folder: &JobFolder, chunks: &[u64]) -> Vec<PlannedChunk> {
        let total: u64 = chunks.iter().sum();
        let mut bytes = Vec::new();
        for row in 1..=total {
            let fate = if is_sent(row) { LineFate::Valid } else { LineFate::InvalidJson };
            let entry =
                LineEntry { request_start: 0, request_len: 100, key: None, line: row as u32, fate };
            append(&mut bytes, &entry).expect("appended");
        }
        std::fs::write(folder.lines(), bytes).expect("written");
        let mut open = Open::rows(folder).expect("an index");
        let mut first = 1;
        let of = |rows: u64| {
            let run = Rows { first: Row(first), last: Row(first + rows - 1) };
            let (mut left, mut right) = (Share::default(), Share::default());
            for row in rows_of(&[run]) {
                let half = if row <= run.middle() { &mut left } else { &mut right };
                open.count(half, row).expect("counted");
            }
            first += rows;
            PlannedChunk { rows: run, left, right, density: None }
        };
        chunks.iter().copied().map(of).collect()
    }

    fn is_sent(row: u64) -> bool {
        !row.is_multiple_of(7)
    }

    #[test]
    fn every_row_is_in_one_chunk_and_about_so_many_lines_go_first_from_all_over_the_file() {
        let temporary = tempfile::tempdir().expect("a folder");
        let folder = JobFolder { path: temporary.path().to_owned() };
        for chunks in [vec![200], vec![50, 150], vec![20; 20], vec![1; 90], vec![3, 300, 2]] {
            for lines in [1, 2, 5, 20] {
                let total: u64 = chunks.iter().sum();
                let before = planned(&folder, &chunks);
                let mut after = before.clone();
                let trial = cut(&folder, &mut after, lines).expect("cut").expect("worth it");
                let mut sent = Vec::new();
                for chunk in &after {
                    let rows: Vec<Row> =
                        rows_of(&[chunk.rows]).filter(|row| is_sent(row.0)).collect();
                    assert_eq!(share_of(chunk).rows, rows.len() as u64, "{chunks:?}, {lines}");
                    sent.extend(rows);
                }
                let all: Vec<Row> = (1..=total).filter(|row| is_sent(*row)).map(Row).collect();
                assert_eq!(sent, all, "{chunks:?}, {lines}");
                let bytes = |all: &[PlannedChunk]| all.iter().map(|it| share_of(it).bytes).sum();
                let (old, new): (u64, u64) = (bytes(&before), bytes(&after));
                assert_eq!(old, new);
                assert!(trial.lines > 0 && trial.lines <= lines, "{chunks:?}, {lines}: {trial:?}");
                let is_run = |chunk: &PlannedChunk| trial.runs.contains(&chunk.rows);
                assert_eq!(after.iter().filter(|chunk| is_run(chunk)).count(), trial.runs.len());
                if lines >= 3 && chunks.len() < 50 {
                    assert_eq!(trial.runs.len(), 3, "{chunks:?}, {lines}: {trial:?}");
                }
            }
        }
    }

    #[test]
    fn a_file_with_hardly_more_lines_than_its_canary_goes_as_a_whole() {
        let temporary = tempfile::tempdir().expect("a folder");
        let folder = JobFolder { path: temporary.path().to_owned() };
        let before = planned(&folder, &[30]);
        let mut after = before.clone();
        assert_eq!(cut(&folder, &mut after, 20).expect("read"), None);
        assert_eq!(after, before);
    }
}
