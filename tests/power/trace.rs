//! What a process did to its files, read from the words of `strace -f -ttt -xx`.
//!
//! Calls stand in the order in which they came back, since what follows from a call can only come
//! after that; but a handle is given up when its closing begins, and a sync makes durable only what
//! had been written when it began. Calls that failed did nothing. A call that changes files and is
//! not known here fails the test: nothing is passed over in silence.

use std::collections::HashMap;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

/// One step of the recorded process.
#[derive(Debug, Clone)]
pub struct Step {
    /// When its call began, microseconds since 1970.
    pub at_us: u64,
    /// What it did.
    pub call: Call,
}

/// A path as a call names it: in the folder of a handle, or absolute.
#[derive(Debug, Clone)]
pub struct Place {
    pub folder: Option<i32>,
    pub path: Vec<u8>,
}

/// What a rename does with a name that is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// It is replaced, or was not taken.
    Replaced,
    /// Both change places.
    Exchanged,
}

/// A call that changes files, or what handles mean.
#[derive(Debug, Clone)]
pub enum Call {
    Open {
        handle: i32,
        place: Place,
        create: bool,
        truncate: bool,
        append: bool,
        unnamed: bool,
    },
    Close {
        handle: i32,
    },
    Duplicate {
        from: i32,
        to: i32,
    },
    Seek {
        handle: i32,
        to: u64,
    },
    Write {
        handle: i32,
        at: Option<u64>,
        bytes: Arc<[u8]>,
    },
    Copy {
        from: i32,
        to: i32,
        len: u64,
    },
    SetLen {
        handle: i32,
        len: u64,
    },
    /// The file has so many bytes at least.
    Allocate {
        handle: i32,
        len: u64,
    },
    SyncBegins {
        thread: u32,
        handle: i32,
    },
    SyncEnds {
        thread: u32,
    },
    Rename {
        from: Place,
        to: Place,
        taken: Taken,
    },
    Link {
        from: Place,
        to: Place,
    },
    Unlink {
        place: Place,
    },
    MakeFolder {
        place: Place,
    },
    /// The process said something on standard error that begins with `ack `.
    Said(String),
    /// The process is gone, and its handles with it.
    Ended,
}

/// Puts a command under strace; the words go to `words`.
pub fn traced(command: &Command, words: &Path) -> Command {
    let mut traced = Command::new("strace");
    traced.args(["-f", "--seccomp-bpf", "-qq", "-ttt", "-xx", "-s", "67108864", "-e", CALLS, "-o"]);
    traced.arg(words).arg(command.get_program()).args(command.get_args());
    traced
}

/// Why processes can not be traced here, if they can not.
pub fn strace_is_missing() -> Option<String> {
    let probe = ["-f", "--seccomp-bpf", "-o", "/dev/null", "true"];
    match Command::new("strace").args(probe).output() {
        Ok(output) if output.status.success() => None,
        Ok(output) => Some(String::from_utf8_lossy(&output.stderr).into_owned()),
        Err(error) => Some(format!("strace: {error}")),
    }
}

/// Reads what strace wrote.
pub fn read(words: &[u8]) -> Vec<Step> {
    let mut reader = Reader::default();
    words.split(|byte| *byte == b'\n').for_each(|line| reader.line(line));
    reader.steps
}

#[derive(Default)]
struct Reader {
    steps: Vec<Step>,
    /// Calls that have begun, by thread.
    begun: HashMap<u32, (u64, Vec<u8>)>,
}

impl Reader {
    fn line(&mut self, line: &[u8]) {
        if line.is_empty() {
            return;
        }
        let (thread, rest) = word(line);
        let (at, rest) = word(rest);
        let thread: u32 = number(thread).expect("a line begins with a thread");
        let at_us = microseconds(at);
        if rest.starts_with(b"+++") || rest.starts_with(b"---") {
            return;
        }
        if let Some(begun) = rest.strip_suffix(b" <unfinished ...>") {
            self.begins(thread, at_us, begun);
            self.begun.insert(thread, (at_us, begun.to_vec()));
        } else if rest.starts_with(b"<... ") {
            let (at_us, mut whole) = self.begun.remove(&thread).expect("it was begun");
            let end = find(rest, b" resumed>").expect("a call goes on") + b" resumed>".len();
            whole.extend_from_slice(&rest[end..]);
            self.ends(thread, at_us, &whole);
        } else {
            self.begins(thread, at_us, rest);
            self.ends(thread, at_us, rest);
        }
    }

    /// What counts from the beginning of a call.
    fn begins(&mut self, thread: u32, at_us: u64, text: &[u8]) {
        let handle = |rest: &[u8]| {
            let digits = rest.split(|byte| *byte == b')').next().unwrap_or_default();
            integer(digits) as i32
        };
        if let Some(rest) = text.strip_prefix(b"close(") {
            self.push(at_us, Call::Close { handle: handle(rest) });
        }
        let sync = text.strip_prefix(b"fsync(").or_else(|| text.strip_prefix(b"fdatasync("));
        if let Some(rest) = sync {
            self.push(at_us, Call::SyncBegins { thread, handle: handle(rest) });
        }
    }

    /// What counts from the end of a call.
    fn ends(&mut self, thread: u32, at_us: u64, text: &[u8]) {
        // A thread whose process ends beneath it may get no closing words: nobody has seen its call
        // return. What such a call did after all shows when the last state is compared with the disk.
        let Some(end) = rfind(text, b") ") else { return };
        let Some(result) = text[end + 1..].trim_ascii().strip_prefix(b"= ") else { return };
        let result = result.split(|byte| *byte == b' ').next().unwrap_or_default();
        if result.starts_with(b"-") || result == b"?" {
            return;
        }
        let (name, arguments) = call(&text[..end]);
        if name == "mmap" {
            let shared = find(arguments[3], b"MAP_SHARED").is_some();
            let writes = find(arguments[2], b"PROT_WRITE").is_some();
            let file = arguments[4] != b"-1";
            assert!(!(shared && writes && file), "files written through memory are not followed");
            return;
        }
        if let Some(call) = changes(name, &arguments, integer(result), thread) {
            self.push(at_us, call);
        }
    }

    fn push(&mut self, at_us: u64, call: Call) {
        self.steps.push(Step { at_us, call });
    }
}

/// What a call that has succeeded did.
fn changes(name: &str, arguments: &[&[u8]], result: u64, thread: u32) -> Option<Call> {
    let handle = |n: usize| integer(arguments[n]) as i32;
    let bare = |n: usize| Place { folder: None, path: text(arguments[n]) };
    let place = |n: usize| Place {
        folder: (arguments[n] != b"AT_FDCWD").then(|| handle(n)),
        path: text(arguments[n + 1]),
    };
    let written = |at: Option<u64>, bytes: Vec<u8>| {
        let bytes = bytes.get(..result as usize).expect("no more is written than was given");
        Some(Call::Write { handle: handle(0), at, bytes: bytes.into() })
    };
    match name {
        "open" | "openat" => {
            let (place, flags) = match name {
                "open" => (bare(0), arguments[1]),
                _ => (place(0), arguments[2]),
            };
            let has = |flag: &[u8]| find(flags, flag).is_some();
            Some(Call::Open {
                handle: result as i32,
                place,
                create: has(b"O_CREAT"),
                truncate: has(b"O_TRUNC"),
                append: has(b"O_APPEND"),
                unnamed: has(b"O_TMPFILE"),
            })
        }
        "write" if arguments[0] == b"2" => {
            let said = String::from_utf8_lossy(&text(arguments[1])).trim_end().to_owned();
            said.starts_with("ack ").then_some(Call::Said(said))
        }
        "write" => written(None, text(arguments[1])),
        "pwrite64" => written(Some(integer(arguments[3])), text(arguments[1])),
        "writev" => written(None, texts(arguments[1])),
        "pwritev" | "pwritev2" => written(Some(integer(arguments[3])), texts(arguments[1])),
        "copy_file_range" => {
            assert!(arguments[1] == b"NULL" && arguments[3] == b"NULL", "copies go on in turn");
            Some(Call::Copy { from: handle(0), to: handle(2), len: result })
        }
        "sendfile" => Some(Call::Copy { from: handle(1), to: handle(0), len: result }),
        "ftruncate" => Some(Call::SetLen { handle: handle(0), len: integer(arguments[1]) }),
        "fallocate" => {
            assert_eq!(arguments[1], b"0", "only room at the end is followed");
            let len = integer(arguments[2]) + integer(arguments[3]);
            Some(Call::Allocate { handle: handle(0), len })
        }
        "lseek" => Some(Call::Seek { handle: handle(0), to: result }),
        "dup" | "dup2" | "dup3" => Some(Call::Duplicate { from: handle(0), to: result as i32 }),
        "fcntl" if arguments[1].starts_with(b"F_DUPFD") => {
            Some(Call::Duplicate { from: handle(0), to: result as i32 })
        }
        "fsync" | "fdatasync" => Some(Call::SyncEnds { thread }),
        "rename" => Some(Call::Rename { from: bare(0), to: bare(1), taken: Taken::Replaced }),
        "renameat" => Some(Call::Rename { from: place(0), to: place(2), taken: Taken::Replaced }),
        "renameat2" => {
            let exchanged = find(arguments[4], b"RENAME_EXCHANGE").is_some();
            let taken = if exchanged { Taken::Exchanged } else { Taken::Replaced };
            Some(Call::Rename { from: place(0), to: place(2), taken })
        }
        "link" => Some(Call::Link { from: bare(0), to: bare(1) }),
        "linkat" => Some(Call::Link { from: place(0), to: place(2) }),
        "unlink" | "rmdir" => Some(Call::Unlink { place: bare(0) }),
        "unlinkat" => Some(Call::Unlink { place: place(0) }),
        "mkdir" => Some(Call::MakeFolder { place: bare(0) }),
        "mkdirat" => Some(Call::MakeFolder { place: place(0) }),
        // Their work is done when they begin, or they promise nothing.
        "close" | "fcntl" | "sync_file_range" => None,
        other => panic!("strace tells of {other}, which is not followed here"),
    }
}

/// The name of a call and its arguments.
fn call(text: &[u8]) -> (&str, Vec<&[u8]>) {
    let open = text.iter().position(|byte| *byte == b'(').expect("a call has arguments");
    let name = std::str::from_utf8(&text[..open]).expect("a name is text");
    let mut arguments = Vec::new();
    let (mut start, mut at, mut depth) = (open + 1, open + 1, 0);
    while at < text.len() {
        match text[at] {
            // With -xx there is no quote within a string.
            b'"' => at += 1 + memchr::memchr(b'"', &text[at + 1..]).expect("strings end"),
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth -= 1,
            b',' if depth == 0 => {
                arguments.push(text[start..at].trim_ascii());
                start = at + 1;
            }
            _ => {}
        }
        at += 1;
    }
    arguments.push(text[start..].trim_ascii());
    (name, arguments)
}

/// The bytes of `"\x2f\x61"`.
fn text(argument: &[u8]) -> Vec<u8> {
    let inner = argument.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\""));
    let inner = inner.expect("a string is told whole");
    inner.chunks(4).map(|digits| nibble(digits[2]) << 4 | nibble(digits[3])).collect()
}

/// The bytes of all strings in `[{iov_base="…", iov_len=3}, …]`.
fn texts(argument: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = argument;
    while let Some(from) = memchr::memchr(b'"', rest) {
        let to = from + 1 + memchr::memchr(b'"', &rest[from + 1..]).expect("strings end");
        bytes.extend(text(&rest[from..=to]));
        rest = &rest[to + 1..];
    }
    bytes
}

/// The first word of a line, and what follows it.
fn word(line: &[u8]) -> (&[u8], &[u8]) {
    let end = line.iter().position(|byte| *byte == b' ').unwrap_or(line.len());
    (&line[..end], line[end..].trim_ascii_start())
}

fn nibble(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        _ => panic!("{digit} is no digit"),
    }
}

fn integer(argument: &[u8]) -> u64 {
    let found = match argument.strip_prefix(b"0x") {
        Some(digits) => u64::from_str_radix(&String::from_utf8_lossy(digits), 16).ok(),
        None => number(argument),
    };
    found.unwrap_or_else(|| panic!("{} is no number", argument.escape_ascii()))
}

fn number<N: std::str::FromStr>(digits: &[u8]) -> Option<N> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

fn microseconds(stamp: &[u8]) -> u64 {
    let digits: Vec<u8> = stamp.iter().copied().filter(|byte| *byte != b'.').collect();
    number(&digits).expect("strace -ttt tells microseconds")
}

fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    memchr::memmem::find(text, what)
}

fn rfind(text: &[u8], what: &[u8]) -> Option<usize> {
    memchr::memmem::rfind(text, what)
}

/// Everything that changes files, and everything that gives numbers to handles of files. Were
/// there a call of `io_uring` or a newer one for the same things, reading it would fail the test.
const CALLS: &str = "trace=open,openat,openat2,creat,close,close_range,dup,dup2,dup3,fcntl,\
    lseek,write,writev,pwrite64,pwritev,pwritev2,copy_file_range,sendfile,splice,truncate,\
    ftruncate,fallocate,fsync,fdatasync,sync,syncfs,sync_file_range,msync,rename,renameat,\
    renameat2,link,linkat,symlink,symlinkat,unlink,unlinkat,rmdir,mkdir,mkdirat,mknod,mknodat,\
    mmap,io_uring_setup";

#[test]
fn a_call_that_nobody_saw_return_has_only_begun() {
    let words = b"7 17.000001 fsync(5 <unfinished ...>\n7 17.000002 <... fsync resumed>";
    let steps = read(words);
    assert!(
        matches!(&steps[..], [Step { call: Call::SyncBegins { thread: 7, handle: 5 }, .. }]),
        "{steps:?}"
    );
}
