//! The functions that every byte of a file goes through, on 64 MiB of text lines.
//!
//!     cargo bench --manifest-path benches/hot/Cargo.toml

use std::fs;
use std::hint::black_box;
use std::io::Read;
use std::path::Path;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use gemini_batchd::engine::job::Task;
use gemini_batchd::spool::body::Body;
use gemini_batchd::spool::forms::{Wanted, examine};
use gemini_batchd::spool::frame::Frame;
use gemini_batchd::spool::result_line::ResultLine;
use gemini_batchd::spool::{answers, merge, plan};
use gemini_batchd_hot::generate::{self, Amount, Kind};
use gemini_batchd_hot::{MODEL, NAME, World, rules};

const WANTED: Wanted<'_> = Wanted { model: MODEL, task: Task::Generate };

fn lines(c: &mut Criterion) {
    let place = tempfile::tempdir().expect("a temporary folder");
    let mut group = c.benchmark_group("lines");
    for (kind, name) in [(Kind::Text, "text"), (Kind::Tiny, "tiny"), (Kind::Image, "image")] {
        let text = input(kind, place.path());
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_function(format!("examine/{name}"), |b| {
            b.iter(|| {
                for line in text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                    black_box(examine(line, WANTED)).expect("all lines are valid");
                }
            });
        });
    }
    group.finish();
}

fn job(c: &mut Criterion) {
    let place = tempfile::tempdir().expect("a temporary folder");
    let world = World::new(place.path(), JOB_BYTES);
    let mut group = c.benchmark_group("job");
    group.sample_size(10).throughput(Throughput::Bytes(JOB_BYTES));
    let folder = world.folder();
    let indexes = (place.path().join("lines.idx"), place.path().join("outcomes.idx"));
    group.bench_function("plan_file", |b| {
        let input = folder.input(NAME);
        b.iter(|| plan::plan_file(&input, &indexes.0, &indexes.1, &rules(), plan::Told::nobody()));
    });
    // The same, and some of the rows looked at for the manifest's warnings.
    group.bench_function("plan", |b| {
        b.iter(|| plan::plan(&folder, NAME, &rules(), &|_| {}));
    });
    group.bench_function("body", |b| {
        let mut buffer = vec![0; 256 * 1024];
        b.iter(|| {
            let input = folder.input(NAME);
            let body =
                Body::open(&folder, input, world.rows(), Frame::FileLine, 0).expect("planned");
            let mut reader = body.reader(0).expect("planned");
            while reader.read(&mut buffer).expect("the input is there") > 0 {
                black_box(&buffer);
            }
        });
    });
    let text = fs::read(world.answers()).expect("written before");
    group.bench_function("result lines", |b| {
        b.iter(|| {
            for line in text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                let line = ResultLine::parse(line).expect("all lines are whole");
                black_box((line.row, line.verdict()));
            }
        });
    });
    group.bench_function("collect", |b| {
        let collect = |()| answers::collect(&folder, &world.which(), 0).expect("all are there");
        b.iter_batched(|| world.download(), collect, BatchSize::PerIteration);
    });
    group.bench_function("merge", |b| {
        b.iter(|| {
            merge::merge(world.folders(), world.job(), "a", &|_| String::new()).expect("collected")
        });
    });
    group.finish();
}

fn input(kind: Kind, place: &Path) -> Vec<u8> {
    let path = place.join("input.jsonl");
    generate::write(kind, Amount::Bytes(4 << 20), 7, &path).expect("the disk has room");
    fs::read(path).expect("written before")
}

/// Bytes of the input that is planned, read and merged.
const JOB_BYTES: u64 = 64 << 20;

criterion_group!(benches, lines, job);
criterion_main!(benches);
