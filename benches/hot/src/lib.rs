//! A job to measure with: a planned input with its results, as the daemon would have them.

#[path = "../../tools/src/dice.rs"]
mod dice;
#[path = "../../tools/src/generate.rs"]
pub mod generate;
#[path = "../../tools/src/pool.rs"]
mod pool;
#[path = "../../tools/src/results.rs"]
mod results;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use gemini_batchd::engine::Which;
use gemini_batchd::engine::ids::{Attempt, ChunkNo, JobId, Millis, Row, Rows};
use gemini_batchd::engine::job::{
    Accept, Chunk, Head, Job, JobState, Plan, Queue, Rest, Source, Task, Transport,
};
use gemini_batchd::spool::plan::{self, CutRules};
use gemini_batchd::spool::{Folders, JobFolder};

use generate::{Amount, Kind};

/// A spool with one job in it.
pub struct World {
    folders: Folders,
    job: Job,
    answers: PathBuf,
}

impl World {
    /// A job of so many bytes of text below `place`, planned, with its results in another order.
    pub fn new(place: &Path, bytes: u64) -> World {
        let folders = Folders::below(place);
        folders.prepare().expect("a fresh folder can be used");
        let id: JobId = "01JD000000000000000000000A".parse().expect("an id");
        let folder = folders.job(id);
        for name in ["input", "answers"] {
            fs::create_dir_all(folder.path.join(name)).expect("a fresh folder can be used");
        }
        let input = folder.input(NAME);
        generate::write(Kind::Text, Amount::Bytes(bytes), 7, &input).expect("the disk has room");
        let recipe = results::Recipe { shuffle: Some(3), cuts: &[1], bytes: None };
        results::write(&input, place, &recipe).expect("the disk has room");
        let planned = plan::plan(&folder, NAME, &rules(), &|_| {}).expect("all lines are valid");
        let plan = Plan {
            rows: planned.rows,
            invalid: planned.invalid,
            bytes: planned.bytes,
            sha256: planned.sha256,
            planned: Millis(2),
            first_create: Some(Millis(3)),
            last_result: None,
            cancelled: false,
            warnings: Vec::new(),
            ..Plan::default()
        };
        let job = job(id, plan);
        World { folders, job, answers: place.join("1.jsonl") }
    }

    /// All folders.
    pub fn folders(&self) -> &Folders {
        &self.folders
    }

    /// The working folder of the job.
    pub fn folder(&self) -> JobFolder {
        self.folders.job(self.job.head.id)
    }

    /// The job, about to be merged.
    pub fn job(&self) -> &Job {
        &self.job
    }

    /// All its rows.
    pub fn rows(&self) -> Rows {
        self.job.chunks[&ChunkNo(1)].rows
    }

    /// Its one attempt.
    pub fn which(&self) -> Which {
        let chunk = &self.job.chunks[&ChunkNo(1)];
        Which {
            job: self.job.head.id,
            chunk: chunk.no,
            attempt: Attempt(1),
            rows: chunk.rows,
            middle: chunk.middle(),
            terms: self.job.head.queue.terms(),
            prepared: false,
        }
    }

    /// The result lines.
    pub fn answers(&self) -> &Path {
        &self.answers
    }

    /// Puts the results where a finished download lies.
    pub fn download(&self) {
        let path = self.folder().download(ChunkNo(1), Attempt(1));
        drop(fs::remove_file(&path));
        drop(fs::remove_file(self.folder().answers(ChunkNo(1), Attempt(1))));
        fs::hard_link(&self.answers, path).expect("on the same disk");
    }
}

/// How the daemon cuts by default.
pub fn rules() -> CutRules {
    CutRules {
        batch_bytes_max: 2_000_000_000,
        rows_max: 0,
        row_bytes_max: u64::MAX,
        line_bytes_max: 64_000_000,
        model: MODEL.to_owned(),
        task: Task::Generate,
    }
}

fn job(id: JobId, plan: Plan) -> Job {
    let rows = Rows { first: Row(1), last: Row(plan.rows) };
    let queue = Queue {
        name: "default".to_owned(),
        model: MODEL.to_owned(),
        task: Task::Generate,
        transport: Transport::File,
        lines_per_batch: 0,
        priority: 0,
        attempts: 3,
        accept: Accept { truncated: true, blocked: false, empty: false },
        ..Queue::default()
    };
    let source =
        Source { folder: String::new(), name: NAME.to_owned(), bytes: plan.bytes, sidecar: None };
    let head = Head {
        id,
        source,
        queue,
        claimed: Millis(1),
        released: false,
        on_hold: false,
        key_print: None,
        funds: None,
        state: JobState::Merging(plan),
    };
    let chunk = Chunk::new(ChunkNo(1), ChunkNo(1), rows, Rest::default());
    Job { head, chunks: BTreeMap::from([(ChunkNo(1), chunk)]) }
}

/// The name of the input.
pub const NAME: &str = "a.jsonl";
/// The model of all requests.
pub const MODEL: &str = "gemini-2.5-flash";
