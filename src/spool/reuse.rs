//! Rows that were asked before are answered from the cache, and answers are kept in it.
//!
//! When a file is planned, the rows whose answers are known become answered rows, by result lines
//! of the form that collecting leaves, so that everything after that works as it does for the others.
//! What is left is cut into chunks anew. The lines and the outcomes are synced before anybody hears
//! of the plan; planning again does all of it again. Memory is bounded by the longest request and
//! the longest answer.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::answers::rest;
use super::cache::Cache;
use super::canonical::Knower;
use super::frame::Frame;
use super::index::{IndexReader, LineEntry, LineFate, OutcomeEntry};
use super::judged::Judged;
use super::outcomes::{OPEN, Outcomes, open_lines, open_outcomes};
use super::plan::{CutRules, Planned};
use super::result_line::ResultLine;
use super::windows::Windows;
use super::{At, JobFolder, SpoolError, durable, moment};
use crate::engine::event::PlannedChunk;
use crate::engine::ids::{Attempt, ChunkNo, Millis, Row, Rows};
use crate::engine::job::{Job, Queue};
use crate::engine::verdict::Verdict;

/// The chunk that answers from the cache are noted under: no chunk that is sent has this number.
pub const CHUNK: ChunkNo = ChunkNo(0);

/// Answers the rows of a plan that the cache knows, and cuts the rest anew. `name` is that of the
/// input.
///
/// # Errors
/// If the input or an index can not be read, or the answers not be written. An answer that can not
/// be had from the cache is no error.
pub fn answer(
    folder: &JobFolder,
    name: &str,
    queue: &Queue,
    rules: &CutRules,
    cache: &Cache,
    now: Millis,
    planned: Planned,
) -> Result<Planned, SpoolError> {
    let requests = folder.requests(name, planned.prepared);
    let mut asked = Asked::open(requests, &folder.lines(), queue)?;
    let mut outcomes = Outcomes::open(folder, Rows { first: Row(1), last: Row(planned.rows) })?;
    let mut written = Written::new(folder);
    for row in (1..=planned.rows).map(Row) {
        let Some(key) = asked.key(row)? else { continue };
        let Some(answer) = cache.get(&key, queue.cache_ms, now) else { continue };
        if let Some(entry) = written.add(row, &answer)? {
            outcomes.set(row, &entry)?;
        }
    }
    let reused = written.rows;
    if reused == 0 {
        return Ok(planned);
    }
    written.finish()?;
    moment("reuse:written", &folder.path)?;
    outcomes.sync()?;
    moment("reuse:noted", &folder.path)?;
    let chunks = cut(folder, planned.rows, rules, planned.chunks)?;
    Ok(Planned { reused, chunks, ..planned })
}

/// How many rows of a file the cache knows: its requests lie at one path, their index at the other.
///
/// # Errors
/// If one of them can not be read.
pub fn known(
    requests: &Path,
    lines: &Path,
    rows: u64,
    queue: &Queue,
    cache: &Cache,
    now: Millis,
) -> Result<u64, SpoolError> {
    let mut asked = Asked::open(requests.to_owned(), lines, queue)?;
    let mut known = 0;
    for row in (1..=rows).map(Row) {
        let key = asked.key(row)?;
        let found = key.and_then(|key| cache.get(&key, queue.cache_ms, now));
        known += u64::from(found.is_some());
    }
    Ok(known)
}

/// Keeps the answers of a job that is delivered, whose files still lie in its folder; tells how
/// many.
///
/// # Errors
/// If a file can not be read, or an answer not be written; those before it are kept.
pub fn keep(folder: &JobFolder, job: &Job, cache: &Cache, now: Millis) -> Result<u64, SpoolError> {
    let Some(plan) = job.head.state.plan() else { return Ok(0) };
    let queue = &job.head.queue;
    let requests = folder.requests(&job.head.source.name, plan.prepared);
    let mut asked = Asked::open(requests, &folder.lines(), queue)?;
    let mut outcomes = open_outcomes(folder, plan.rows)?;
    let (mut answers, path) = (Windows::over(folder), folder.outcomes());
    let mut kept = 0;
    for row in (1..=plan.rows).map(Row) {
        let outcome = outcomes.get(row).at("read", &path)?;
        // Only whole answers that everybody accepts, and none that came from here.
        if outcome.verdict != Verdict::Answered || outcome.chunk == CHUNK {
            continue;
        }
        let Some(key) = asked.key(row)? else { continue };
        let line = ResultLine::parse(answers.line(&outcome)?);
        if let Some(response) = line.and_then(|line| line.response) {
            cache.put(&key, response.as_bytes(), now)?;
            kept += 1;
        }
    }
    Ok(kept)
}

/// The requests of a job, and what each is known by.
struct Asked {
    lines: IndexReader<LineEntry>,
    lines_path: PathBuf,
    input: File,
    input_path: PathBuf,
    knower: Knower,
    request: Vec<u8>,
}

impl Asked {
    fn open(input_path: PathBuf, lines_path: &Path, queue: &Queue) -> Result<Asked, SpoolError> {
        let input = File::open(&input_path).at("read", &input_path)?;
        let lines = File::open(lines_path).and_then(IndexReader::new).at("read", lines_path)?;
        let (knower, request, lines_path) = (Knower::of(queue), Vec::new(), lines_path.to_owned());
        Ok(Asked { lines, lines_path, input, input_path, knower, request })
    }

    /// What a row is known by; `None` if it is no native request, or known by nothing.
    fn key(&mut self, row: Row) -> Result<Option<super::cache::Key>, SpoolError> {
        let entry = self.lines.get(row).at("read", &self.lines_path)?;
        if entry.fate != LineFate::Valid {
            return Ok(None);
        }
        self.request.clear();
        self.request.shrink_to(KEPT_BYTES);
        self.request.resize(entry.request_len as usize, 0);
        let read = self.input.read_exact_at(&mut self.request, entry.request_start);
        read.at("read", &self.input_path)?;
        Ok(self.knower.key(&self.request))
    }
}

/// Result lines made of answers from the cache.
struct Written {
    path: PathBuf,
    aside: PathBuf,
    /// It comes into being with the first line: most jobs have none.
    file: Option<BufWriter<File>>,
    end: u64,
    rows: u64,
}

impl Written {
    fn new(folder: &JobFolder) -> Written {
        let path = folder.answers(CHUNK, ATTEMPT);
        let aside = path.with_extension("aside");
        Written { path, aside, file: None, end: 0, rows: 0 }
    }

    /// Writes an answer as the result line of a row, unless it is none that could be merged.
    fn add(&mut self, row: Row, answer: &[u8]) -> Result<Option<OutcomeEntry>, SpoolError> {
        let mut line = format!("{{\"key\":\"{}\",\"response\":", row.0).into_bytes();
        line.extend_from_slice(answer);
        line.push(b'}');
        let judged = Judged::read(&line).filter(|judged| judged.verdict == Verdict::Answered);
        let (Some(judged), Ok(len)) = (judged, u32::try_from(line.len())) else { return Ok(None) };
        if line.contains(&b'\n') || len >= LINE_BYTES_MAX {
            return Ok(None);
        }
        line.push(b'\n');
        let file = match &mut self.file {
            Some(file) => file,
            none => {
                let file = File::create(&self.aside).at("write", &self.aside)?;
                none.insert(BufWriter::with_capacity(WRITTEN_BYTES, file))
            }
        };
        file.write_all(&line).at("write", &self.aside)?;
        let (start, verdict, within) = (self.end, judged.verdict, judged.within);
        self.end += line.len() as u64;
        self.rows += 1;
        let (chunk, attempt) = (CHUNK, ATTEMPT);
        Ok(Some(OutcomeEntry { verdict, chunk, attempt, start, len, within, ..OPEN }))
    }

    fn finish(mut self) -> Result<(), SpoolError> {
        if let Some(file) = &mut self.file {
            file.flush().at("write", &self.aside)?;
            file.get_ref().sync_data().at("sync", &self.aside)?;
        }
        durable::rename(&self.aside, &self.path)
    }
}

/// Cuts what is left to be sent into chunks, by the rules that planning cuts by. One chunk without
/// anything to send stays if nothing is left. Where the plan was cut otherwise, as for lines that go
/// first, its chunks stay as they are, and only what they hold is counted anew.
fn cut(
    folder: &JobFolder,
    rows: u64,
    rules: &CutRules,
    before: Vec<PlannedChunk>,
) -> Result<Vec<PlannedChunk>, SpoolError> {
    let (mut lines, mut outcomes) = (open_lines(folder)?, open_outcomes(folder, rows)?);
    let (lines_path, outcomes_path) = (folder.lines(), folder.outcomes());
    let (mut as_planned, mut left) = (Cutter::new(rules), Cutter::new(rules));
    for row in (1..=rows).map(Row) {
        let line = lines.get(row).at("read", &lines_path)?;
        if !line.fate.is_sent() {
            continue;
        }
        let len = Frame::on_file(line.fate).len(row, false, line.request_len);
        as_planned.add(row, len);
        if outcomes.get(row).at("read", &outcomes_path)?.verdict.is_open() {
            left.add(row, len);
        }
    }
    let is_usual = as_planned.firsts.iter().eq(before.iter().map(|chunk| &chunk.rows.first));
    let runs: Vec<Rows> = match is_usual {
        true => left.runs(rows),
        false => before.iter().map(|chunk| chunk.rows).collect(),
    };
    let chunks = runs.into_iter().map(|rows| {
        let rest = rest(folder, rows)?;
        // Of what is left the first of the former chunks is taken to be typical.
        let former = before.iter().find(|former| former.rows.contains(rows.first));
        let density = former.and_then(|former| former.density);
        Ok(PlannedChunk { rows, left: rest.left, right: rest.right, density })
    });
    chunks.collect()
}

/// Where chunks begin that are cut by the limits alone.
struct Cutter<'a> {
    rules: &'a CutRules,
    firsts: Vec<Row>,
    /// Rows and bytes of the last chunk.
    count: u64,
    bytes: u64,
}

impl Cutter<'_> {
    fn new(rules: &CutRules) -> Cutter<'_> {
        Cutter { rules, firsts: vec![Row(1)], count: 0, bytes: 0 }
    }

    /// The next row that is sent, of so many bytes.
    fn add(&mut self, row: Row, len: u64) {
        let rows_max = self.rules.rows_max;
        let is_full = (rows_max > 0 && self.count >= rows_max)
            || self.bytes + len > self.rules.batch_bytes_max;
        if self.count > 0 && is_full {
            self.firsts.push(row);
            (self.count, self.bytes) = (0, 0);
        }
        (self.count, self.bytes) = (self.count + 1, self.bytes + len);
    }

    /// The rows of each chunk, of so many in all.
    fn runs(&self, rows: u64) -> Vec<Rows> {
        let lasts = self.firsts.iter().skip(1).map(|next| Row(next.0 - 1)).chain([Row(rows)]);
        self.firsts.iter().zip(lasts).map(|(first, last)| Rows { first: *first, last }).collect()
    }
}

const ATTEMPT: Attempt = Attempt(0);
/// A longer result line can not be indexed.
const LINE_BYTES_MAX: u32 = 1 << 28;
/// What is kept of the buffer between two requests, bytes.
const KEPT_BYTES: usize = 1 << 20;
/// Bytes written at once.
const WRITTEN_BYTES: usize = 256 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::job::{Share, Task};
    use crate::spool::index::append;

    /// Six rows, of which the second was answered.
    fn folder() -> (tempfile::TempDir, JobFolder) {
        let temp = tempfile::tempdir().expect("a temporary folder");
        let folder = JobFolder { path: temp.path().to_owned() };
        let mut file = BufWriter::new(File::create(folder.lines()).expect("created"));
        let line = LineEntry {
            request_start: 0,
            request_len: 2,
            key: None,
            line: 1,
            fate: LineFate::Valid,
        };
        (0..6).for_each(|_| append(&mut file, &line).expect("written"));
        drop(file.into_inner().expect("flushed"));
        let rows = Rows { first: Row(1), last: Row(6) };
        let mut outcomes = Outcomes::open(&folder, rows).expect("opened");
        let answered = OutcomeEntry { verdict: Verdict::Answered, ..OPEN };
        outcomes.set(Row(2), &answered).and_then(|()| outcomes.sync()).expect("noted");
        (temp, folder)
    }

    /// Cuts what is left of a plan with these chunks; their first and last rows, and what each holds.
    fn cut_again(chunks: &[(u64, u64)]) -> Vec<(u64, u64, u64)> {
        let (_temp, folder) = folder();
        let rules = CutRules {
            batch_bytes_max: 1 << 20,
            rows_max: 2,
            row_bytes_max: u64::MAX,
            line_bytes_max: 1 << 20,
            model: "m".to_owned(),
            task: Task::Generate,
        };
        let none = Share::default();
        let chunk = |(first, last): &(u64, u64)| PlannedChunk {
            rows: Rows { first: Row(*first), last: Row(*last) },
            left: none,
            right: none,
            density: None,
        };
        let before = chunks.iter().map(chunk).collect();
        let cut = cut(&folder, 6, &rules, before).expect("cut");
        let told = |chunk: &PlannedChunk| {
            (chunk.rows.first.0, chunk.rows.last.0, chunk.left.rows + chunk.right.rows)
        };
        cut.iter().map(told).collect()
    }

    #[test]
    fn what_is_left_of_a_usual_plan_is_cut_anew() {
        assert_eq!(cut_again(&[(1, 2), (3, 4), (5, 6)]), [(1, 3, 2), (4, 5, 2), (6, 6, 1)]);
    }

    #[test]
    fn chunks_that_were_cut_otherwise_stay_as_they_are() {
        assert_eq!(cut_again(&[(1, 1), (2, 2), (3, 6)]), [(1, 1, 1), (2, 2, 0), (3, 6, 4)]);
    }
}
