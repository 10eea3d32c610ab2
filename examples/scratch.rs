//! scratch
use gemini_batchd::engine::Which;
use gemini_batchd::engine::ids::*;
use gemini_batchd::engine::job::*;
use gemini_batchd::spool::answers;
use gemini_batchd::spool::index::*;
use gemini_batchd::spool::receiver::Receiver;
use gemini_batchd::spool::{Folders, merge};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufWriter, Read, Write};
use std::path::Path;
use std::time::Instant;

fn cpu() -> f64 {
    let s = fs::read_to_string("/proc/self/stat").unwrap();
    let f: Vec<&str> = s.rsplit(')').next().unwrap().split_whitespace().collect();
    (f[11].parse::<f64>().unwrap() + f[12].parse::<f64>().unwrap()) / 100.0
}
fn rss() -> String {
    fs::read_to_string("/proc/self/status")
        .unwrap()
        .lines()
        .find(|l| l.starts_with("VmHWM"))
        .unwrap()
        .to_owned()
}
fn main() {
    let args: Vec<String> = std::env::args().collect();
    let root = Path::new(&args[2]);
    let id: JobId = "01JD000000000000000000000A".parse().unwrap();
    let folders = Folders::below(root);
    let folder = folders.job(id);
    let t = Instant::now();
    let c = cpu();
    match args[1].as_str() {
        // gen ROOT ROWS BYTES(per row) shuffled|ordered
        "gen" => {
            let rows: u64 = args[3].parse().unwrap();
            let bytes: usize = args[4].parse().unwrap();
            fs::create_dir_all(folder.path.join("input")).unwrap();
            fs::create_dir_all(folder.path.join("answers")).unwrap();
            let mut input = BufWriter::new(File::create(folder.input("a.jsonl")).unwrap());
            let mut index = BufWriter::new(File::create(folder.lines()).unwrap());
            let mut at = 0u64;
            let words = "the quick brown fox said \\\"hello\\n\\\" to 漢字 and ünder \\u00e9 lazily jumped over dogs, then 12345 times more. ";
            let filler = words.repeat(2 * bytes / words.len() + 9);
            let cut = |n: usize| {
                let mut n = n;
                while !filler.is_char_boundary(n)
                    || filler.as_bytes()[n - 1] == b'\\'
                    || (n >= 6 && filler.as_bytes()[n - 6..n].contains(&b'\\'))
                {
                    n += 1;
                }
                n
            };
            for row in 1..=rows {
                let head = format!("{{\"key\":\"k{row}\",\"request\":");
                let size = bytes / 2 + (row as usize * 7919) % bytes.max(2);
                let req = format!(
                    "{{\"contents\":[{{\"parts\":[{{\"text\":\"{}\"}}]}}]}}",
                    &filler[..cut(size.saturating_sub(80).max(1))]
                );
                input.write_all(head.as_bytes()).unwrap();
                input.write_all(req.as_bytes()).unwrap();
                input.write_all(b"}\n").unwrap();
                append(
                    &mut index,
                    &LineEntry {
                        request_start: at + head.len() as u64,
                        request_len: req.len() as u32,
                        key: Some(KeySpan {
                            start: at + 7,
                            len: format!("\"k{row}\"").len() as u16,
                        }),
                        line: row as u32,
                        fate: LineFate::Valid,
                    },
                )
                .unwrap();
                at += (head.len() + req.len() + 2) as u64;
            }
            input.flush().unwrap();
            index.flush().unwrap();
            let mut order: Vec<u64> = (1..=rows).collect();
            if args[5] == "shuffled" {
                let mut x = 88172645463325252u64;
                for i in (1..order.len()).rev() {
                    x ^= x << 13;
                    x ^= x >> 7;
                    x ^= x << 17;
                    order.swap(i, (x % (i as u64 + 1)) as usize);
                }
            }
            let mut out = BufWriter::new(File::create(root.join("stream")).unwrap());
            for row in order {
                let size = bytes / 2 + (row as usize * 7919) % bytes.max(2);
                write!(out, "{{\"response\":{{\"candidates\":[{{\"content\":{{\"parts\":[{{\"text\":\"{}\"}}],\"role\":\"model\"}},\"finishReason\":\"STOP\",\"index\":0}}],\"usageMetadata\":{{\"promptTokenCount\":12,\"candidatesTokenCount\":30,\"totalTokenCount\":42,\"promptTokensDetails\":[{{\"modality\":\"TEXT\",\"tokenCount\":12}}]}},\"modelVersion\":\"gemini-2.5-flash\",\"responseId\":\"x{row}\"}},\"key\":\"{row}\"}}\n", &filler[..cut(size.saturating_sub(300).max(1))]).unwrap();
            }
            out.flush().unwrap();
            println!("input {} stream {}", at, fs::metadata(root.join("stream")).unwrap().len());
        }
        "receive" | "collect" => {
            let rows = fs::metadata(folder.lines()).unwrap().len() / 22;
            let all = Rows { first: Row(1), last: Row(rows) };
            let which = Which {
                job: id,
                chunk: ChunkNo(1),
                attempt: Attempt(1),
                rows: all,
                middle: Row(rows / 2),
            };
            drop(fs::remove_file(folder.outcomes()));
            drop(fs::remove_dir_all(folder.path.join("answers")));
            fs::create_dir_all(folder.path.join("answers")).unwrap();
            if args[1] == "collect" {
                fs::copy(root.join("stream"), folder.download(ChunkNo(1), Attempt(1))).unwrap();
                let t = Instant::now();
                let c = cpu();
                let h = answers::collect(&folder, &which, false).unwrap();
                println!("collect {:.2}s cpu {:.2} {h:?}", t.elapsed().as_secs_f64(), cpu() - c);
                return;
            }
            let mut r = Receiver::open(&folder, &which, false).unwrap();
            let mut f = File::open(root.join("stream")).unwrap();
            let mut b = vec![0; 256 * 1024];
            r.resume().unwrap();
            loop {
                let n = f.read(&mut b).unwrap();
                if n == 0 {
                    break;
                }
                r.take(&b[..n]).unwrap();
            }
            println!("taken {:.2}s cpu {:.2}", t.elapsed().as_secs_f64(), cpu() - c);
            let h = r.finish().unwrap();
            assert_eq!(h.answered, rows);
        }
        "merge" => {
            let rows = fs::metadata(folder.lines()).unwrap().len() / 22;
            let all = Rows { first: Row(1), last: Row(rows) };
            let source = Source { folder: String::new(), name: "a.jsonl".to_owned(), bytes: 1 };
            let queue = Queue {
                name: "default".to_owned(),
                model: "m".to_owned(),
                transport: Transport::Auto,
                lines_per_batch: 0,
                priority: 0,
                attempts: 3,
                accept: Accept { truncated: true, blocked: false, empty: false },
            };
            let plan = Plan {
                rows,
                invalid: 0,
                bytes: 1,
                sha256: "00".to_owned(),
                planned: Millis(2),
                first_create: Some(Millis(3)),
                last_result: None,
                cancelled: false,
                warnings: Vec::new(),
            };
            let chunk = Chunk::new(ChunkNo(1), ChunkNo(1), all, Rest::default());
            let head =
                Head { id, source, queue, claimed: Millis(1), state: JobState::Merging(plan) };
            let job = Job { head, chunks: BTreeMap::from([(ChunkNo(1), chunk)]) };
            if args.get(3).is_some_and(|a| a == "cold") {
                let f = File::open(folder.answers(ChunkNo(1), Attempt(1))).unwrap();
                f.sync_all().unwrap();
                rustix::fs::fadvise(&f, 0, None, rustix::fs::Advice::DontNeed).unwrap();
            }
            let t = Instant::now();
            let c = cpu();
            let tally = merge::merge(&folders, &job, &|_| String::new()).unwrap();
            println!(
                "merged {:.2}s cpu {:.2} tokens {:?}",
                t.elapsed().as_secs_f64(),
                cpu() - c,
                tally.tokens
            );
            assert_eq!(tally.answered, rows);
        }
        _ => panic!(),
    }
    println!("{} {:.2}s cpu {:.2} {}", args[1], t.elapsed().as_secs_f64(), cpu() - c, rss());
}
