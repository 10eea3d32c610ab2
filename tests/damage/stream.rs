//! The results of an attempt as they arrive: what is taken in is the same wherever the stream is
//! cut and whenever the download breaks off, and it is what the lines say. The fuzz target
//! includes this file too.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;

use gemini_batchd::engine::Which;
use gemini_batchd::engine::event::Harvest;
use gemini_batchd::engine::ids::{Attempt, ChunkNo, JobId, Row, Rows};
use gemini_batchd::engine::job::Terms;
use gemini_batchd::engine::verdict::Verdict;
use gemini_batchd::spool::answers::CollectError;
use gemini_batchd::spool::index::{LineEntry, LineFate, append};
use gemini_batchd::spool::judged::Judged;
use gemini_batchd::spool::receiver::Receiver;
use gemini_batchd::spool::{Folders, JobFolder};

/// A job of [`ROWS`] rows that lies below `folder`, which should be in memory.
pub struct Place {
    folder: JobFolder,
    which: Which,
}

/// Rows of the job.
const ROWS: u64 = 5;

/// What came of a stream.
#[derive(Debug, PartialEq)]
struct Taken {
    harvest: Option<Harvest>,
    answers: Option<Vec<u8>>,
    strays: Option<Vec<u8>>,
    outcomes: Option<Vec<u8>>,
}

impl Place {
    /// Makes the job.
    ///
    /// # Panics
    /// If that can not be done.
    pub fn below(folder: &Path) -> Place {
        let job: JobId = "01JD000000000000000000000A".parse().expect("an id");
        let folder = Folders::below(folder).job(job);
        fs::create_dir_all(folder.path.join("answers")).expect("made");
        let mut index = BufWriter::new(File::create(folder.lines()).expect("made"));
        for line in 1..=ROWS {
            let line = u32::try_from(line).expect("few");
            let (request_start, request_len) = (0, 2);
            let fate = LineFate::Valid;
            let entry = LineEntry { request_start, request_len, key: None, line, fate };
            append(&mut index, &entry).expect("written");
        }
        index.flush().expect("written");
        let rows = Rows { first: Row(1), last: Row(ROWS) };
        let (chunk, attempt) = (ChunkNo(1), Attempt(1));
        let terms =
            Terms { accepts_truncated: true, check_schema: false, tokens_max: 0, counts: true };
        let (middle, prepared) = (Row(2), false);
        Place { folder, which: Which { job, chunk, attempt, rows, middle, terms, prepared } }
    }

    /// Takes a stream in, in several ways. Its first two bytes say where it is cut, and whether
    /// what is damaged or missing is accepted. Tells whether it was taken in.
    ///
    /// # Panics
    /// If they do not come to the same, or not to what the lines say.
    pub fn check(&self, data: &[u8]) -> bool {
        let &[first, second, ref stream @ ..] = data else { return false };
        let accept = first & 1 == 1;
        let step = usize::from(first >> 1) + 1;
        let whole = self.take(stream, stream.len().max(1), None, accept);
        assert_eq!(whole, self.take(stream, step, None, accept), "pieces of {step}: {stream:?}");
        let pause = usize::from(second) % (stream.len() + 1);
        let paused = self.take(stream, step, Some(pause), accept);
        assert_eq!(whole, paused, "paused at {pause}, pieces of {step}: {stream:?}");
        assert_eq!(whole.harvest.is_some(), self.harvest_of(stream, accept).is_some());
        if let (Some(told), Some(harvest)) = (&whole.harvest, self.harvest_of(stream, accept)) {
            // What is left, and what was paid for, the lines alone do not tell.
            let Harvest { rest, tokens, uncounted, .. } = harvest;
            let told = Harvest { rest, tokens, uncounted, ..told.clone() };
            assert_eq!(told, harvest, "{stream:?}");
        }
        whole.harvest.is_some()
    }

    /// Takes the stream in as pieces; at `pause` the download breaks off and is taken up again.
    fn take(&self, stream: &[u8], step: usize, pause: Option<usize>, accept: bool) -> Taken {
        self.clear();
        let mut receiver = self.open(accept);
        let mut from = 0;
        if let Some(pause) = pause {
            let part = &stream[..pause];
            if part.chunks(step).all(|piece| receiver.take(piece).is_ok()) {
                receiver.pause().expect("it can be written");
                drop(receiver);
                receiver = self.open(accept);
                let kept = receiver.resume().expect("it can be read");
                from = usize::try_from(kept).expect("short");
                // Zero bytes could be the traces of a power cut.
                assert!(from == pause || from == 0 && part.contains(&0), "{kept} of {pause} bytes");
            } else {
                receiver.restart().expect("it can be removed");
            }
        }
        let mut taken = stream[from..].chunks(step).try_for_each(|piece| receiver.take(piece));
        if taken.is_ok() && !accept && !receiver.is_whole() {
            taken = Err(CollectError::Short { missing: 0 });
        }
        let harvest = taken.and_then(|()| receiver.finish()).ok();
        if harvest.is_none() {
            receiver.give_up().expect("it can be written");
            drop(receiver);
            return Taken { harvest, answers: None, strays: None, outcomes: None };
        }
        drop(receiver);
        let Which { chunk, attempt, .. } = self.which;
        let read = |path| fs::read(path).ok();
        Taken {
            harvest,
            answers: read(self.folder.answers(chunk, attempt)),
            strays: read(self.folder.strays()),
            outcomes: read(self.folder.outcomes()),
        }
    }

    fn open(&self, accept: bool) -> Receiver {
        Receiver::open(&self.folder, &self.which, if accept { u64::MAX } else { 0 })
            .expect("it can be read")
    }

    fn clear(&self) {
        for entry in fs::read_dir(self.folder.path.join("answers")).expect("there") {
            fs::remove_file(entry.expect("listed").path()).expect("removed");
        }
        for path in [self.folder.strays(), self.folder.outcomes()] {
            drop(fs::remove_file(path));
        }
    }

    /// What the lines say, read one after the other; `None` if they can not be accepted.
    fn harvest_of(&self, stream: &[u8], accept: bool) -> Option<Harvest> {
        let mut harvest = Harvest::default();
        let mut seen = BTreeSet::new();
        for line in stream.split(|byte| *byte == b'\n') {
            if line.trim_ascii().is_empty() {
                continue;
            }
            let Some(judged) = Judged::read(line) else {
                if !accept {
                    return None;
                }
                harvest.unknown += 1;
                continue;
            };
            match judged.row.filter(|row| self.which.rows.contains(*row)) {
                None => harvest.unknown += 1,
                Some(row) if !seen.insert(row) => harvest.repeated += 1,
                Some(_) => match judged.verdict {
                    Verdict::Answered | Verdict::Truncated => harvest.answered += 1,
                    Verdict::Blocked | Verdict::Empty | Verdict::Failed => harvest.failed += 1,
                    Verdict::Retryable => harvest.retryable += 1,
                    Verdict::Open | Verdict::Invalid => panic!("no line says that"),
                },
            }
        }
        harvest.missing = ROWS - seen.len() as u64;
        (accept || harvest.missing == 0).then_some(harvest)
    }
}
