//! A spool with one job whose input is planned and claimed.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::BufWriter;
use std::path::Path;

use gemini_batchd::engine::Which;
use gemini_batchd::engine::event::Harvest;
use gemini_batchd::engine::ids::{Attempt, ChunkNo, JobId, Millis, Row, Rows};
use gemini_batchd::engine::job::{
    Accept, Chunk, Delivery, Head, Job, JobState, Plan, Queue, Rest, Source, Tally, Task, Transport,
};
use gemini_batchd::engine::verdict::Verdict;
use gemini_batchd::spool::answers::{self, CollectError};
use gemini_batchd::spool::index::{
    IndexReader, KeySpan, LineEntry, LineFate, OutcomeEntry, append,
};
use gemini_batchd::spool::{Folders, JobFolder, merge};

pub struct World {
    pub temp: tempfile::TempDir,
    pub folders: Folders,
    pub job: Job,
}

/// One row of an input.
#[derive(Clone)]
pub struct Line {
    pub key: Option<String>,
    pub request: String,
    pub fate: LineFate,
}

pub fn line(key: &str) -> Line {
    let request = "{\"contents\":[]}".to_owned();
    Line { key: Some(key.to_owned()), request, fate: LineFate::Valid }
}

pub fn lines(count: u64) -> Vec<Line> {
    (1..=count).map(|n| line(&format!("\"k{n}\""))).collect()
}

pub fn id(last: char) -> JobId {
    format!("01JD000000000000000000000{last}").parse().unwrap()
}

impl World {
    pub fn new(lines: &[Line]) -> World {
        let temp = tempfile::tempdir().unwrap();
        let folders = Folders::below(temp.path());
        for folder in [&folders.outbox, &folders.archive, &folders.working] {
            fs::create_dir(folder).unwrap();
        }
        World::within(temp, folders, id('A'), lines)
    }

    pub fn within(temp: tempfile::TempDir, folders: Folders, id: JobId, lines: &[Line]) -> World {
        let job = job(id, lines);
        write_input(&folders.job(id), &job.head.source.name, lines);
        World { temp, folders, job }
    }

    pub fn folder(&self) -> JobFolder {
        self.folders.job(self.job.head.id)
    }

    pub fn plan(&mut self) -> &mut Plan {
        let JobState::Merging(plan) = &mut self.job.head.state else {
            panic!("the job is not merging");
        };
        plan
    }

    pub fn which(&self, attempt: u16) -> Which {
        let chunk = &self.job.chunks[&ChunkNo(1)];
        Which {
            job: self.job.head.id,
            chunk: chunk.no,
            attempt: Attempt(attempt),
            rows: chunk.rows,
            middle: chunk.middle(),
            terms: self.job.head.queue.terms(),
            prepared: false,
        }
    }

    pub fn download(&self, attempt: u16, text: impl AsRef<[u8]>) {
        fs::write(self.folder().download(ChunkNo(1), Attempt(attempt)), text).unwrap();
    }

    pub fn collect(&self, attempt: u16) -> Result<Harvest, CollectError> {
        answers::collect(&self.folder(), &self.which(attempt), 0)
    }

    pub fn accept(&self, attempt: u16) -> Harvest {
        answers::collect(&self.folder(), &self.which(attempt), u64::MAX).unwrap()
    }

    pub fn outcomes(&self) -> Vec<OutcomeEntry> {
        let file = File::open(self.folder().outcomes()).unwrap();
        let mut reader = IndexReader::new(file).unwrap();
        (1..=reader.rows()).map(|row| reader.get(Row(row)).unwrap()).collect()
    }

    pub fn verdicts(&self) -> Vec<Verdict> {
        self.outcomes().iter().map(|entry| entry.verdict).collect()
    }

    pub fn merge(&self) -> Tally {
        merge::merge(&self.folders, &self.job, "a", &explain).unwrap()
    }

    pub fn results(&self) -> String {
        fs::read_to_string(self.folder().merged_results()).unwrap()
    }

    pub fn errors(&self) -> String {
        fs::read_to_string(self.folder().merged_errors()).unwrap()
    }

    pub fn delivery(&self, tally: Tally, stem: &str) -> Delivery {
        let JobState::Merging(plan) = self.job.head.state.clone() else {
            panic!("not merging");
        };
        Delivery { plan, tally, stem: stem.to_owned(), delivered: Millis(1_795_226_401_000) }
    }
}

pub fn explain(entry: &LineEntry) -> String {
    format!("line {} is {}", entry.line, entry.fate.reason())
}

/// A result line with an answer.
pub fn answer(row: u64) -> String {
    format!(
        "{{\"response\":{{\"candidates\":[{{\"content\":{{\"parts\":[{{\"text\":\"{row}\"}}]}},\
         \"finishReason\":\"STOP\"}}],\"usageMetadata\":{{\"promptTokenCount\":2,\
         \"candidatesTokenCount\":\"3\",\"totalTokenCount\":5}}}},\"key\":\"{row}\"}}\n"
    )
}

pub fn error(row: u64, code: i32) -> String {
    format!("{{\"key\":\"{row}\",\"error\":{{\"code\":{code},\"message\":\"said {code}\"}}}}\n")
}

/// Every file below a folder with its content.
pub fn tree(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut left = vec![folder.to_owned()];
    while let Some(next) = left.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                left.push(path);
            } else {
                let name = path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned();
                found.insert(name, fs::read(&path).unwrap());
            }
        }
    }
    found
}

fn write_input(folder: &JobFolder, name: &str, lines: &[Line]) {
    fs::create_dir_all(folder.path.join("input")).unwrap();
    fs::create_dir_all(folder.path.join("answers")).unwrap();
    let mut index = BufWriter::new(File::create(folder.lines()).unwrap());
    let mut input = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let start = input.len() as u64;
        let mut key = None;
        if let Some(text) = &line.key {
            input.extend_from_slice(b"{\"key\":");
            key = Some(KeySpan { start: input.len() as u64, len: text.len() as u16 });
            input.extend_from_slice(text.as_bytes());
            input.extend_from_slice(b",\"request\":");
        } else {
            input.extend_from_slice(b"{\"request\":");
        }
        let request = input.len() as u64;
        input.extend_from_slice(line.request.as_bytes());
        input.push(b'}');
        let whole = (start, input.len() as u64 - start);
        input.push(b'\n');
        let valid = line.fate == LineFate::Valid;
        let (from, len) = if valid { (request, line.request.len() as u64) } else { whole };
        let entry = LineEntry {
            request_start: from,
            request_len: len as u32,
            key,
            line: at as u32 + 1,
            fate: line.fate,
        };
        append(&mut index, &entry).unwrap();
    }
    drop(index.into_inner().unwrap());
    fs::write(folder.input(name), input).unwrap();
}

fn job(id: JobId, lines: &[Line]) -> Job {
    let rows = lines.len() as u64;
    let source =
        Source { folder: "sub".to_owned(), name: "a.jsonl".to_owned(), bytes: 1, sidecar: None };
    let queue = Queue {
        name: "default".to_owned(),
        model: "gemini-2.5-flash".to_owned(),
        task: Task::Generate,
        transport: Transport::Auto,
        lines_per_batch: 0,
        priority: 0,
        attempts: 3,
        accept: Accept { truncated: true, blocked: false, empty: false },
        ..Queue::default()
    };
    let plan = Plan {
        rows,
        invalid: lines.iter().filter(|line| line.fate != LineFate::Valid).count() as u64,
        bytes: 1,
        sha256: "00".to_owned(),
        planned: Millis(2),
        first_create: Some(Millis(3)),
        last_result: None,
        cancelled: false,
        warnings: Vec::new(),
        ..Plan::default()
    };
    let all = Rows { first: Row(1), last: Row(rows) };
    let chunk = Chunk::new(ChunkNo(1), ChunkNo(1), all, Rest::default());
    let state = JobState::Merging(plan);
    let (claimed, released, on_hold, key_print) = (Millis(1), false, false, None);
    let head =
        Head { id, source, queue, claimed, released, on_hold, key_print, funds: None, state };
    Job { head, chunks: BTreeMap::from([(ChunkNo(1), chunk)]) }
}
