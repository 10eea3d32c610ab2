//! `lint --fix`: a mended copy beside a file.
//!
//! Every line of the file has its line in the copy, in the same place: mended, or as it was. The
//! file itself is never touched, nothing is ever overwritten, and the copy gets its name when it is
//! whole. Memory does not grow with the file.

use std::cell::RefCell;
use std::fs::{File, Permissions};
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::lint::mend;
use crate::lint::report::Report;
use crate::spool::durable::{self, Moved};
use crate::spool::forms;
use crate::spool::index::LineFate;
use crate::spool::lines::Piece;
use crate::spool::plan::{self, CutRules, PlanError, Told};
use crate::spool::source;
use crate::spool::{At, SpoolError};

/// A copy, and what was mended in it.
#[derive(Debug)]
pub struct Mending {
    /// Where the copy lies; `None` if nothing could be mended, so that there is none.
    pub copy: Option<PathBuf>,
    /// Lines that are other than in the file.
    pub mended: u64,
    /// Lines that still are no requests.
    unread: u64,
    /// What there still is to say about all others.
    pub left: Report,
}

impl Mending {
    /// Lines of the copy that can not be sent.
    pub fn invalid(&self) -> u64 {
        self.unread + self.left.with_errors()
    }
}

/// Mends a file as far as that keeps the meaning of its lines. `progress` is told the bytes read.
///
/// # Errors
/// If the file can not be read as lines or a list of requests, or the copy not be written.
pub fn mend_file(
    file: &Path,
    rules: &CutRules,
    progress: &dyn Fn(u64),
) -> Result<Mending, PlanError> {
    let indexes = tempfile::tempdir().at("make a folder in", &std::env::temp_dir())?;
    let copy = RefCell::new(Copy::beside(file, rules)?);
    // What can not be written is told when all is read: planning goes on without us.
    let failed = RefCell::new(None);
    let on_row = |piece: &Piece<'_>, fate: LineFate| {
        if failed.borrow().is_none()
            && let Err(error) = copy.borrow_mut().row(piece, fate)
        {
            *failed.borrow_mut() = Some(error);
        }
    };
    let told = Told { progress, on_known: None, on_row: &on_row };
    let (lines, outcomes) = (indexes.path().join("lines.idx"), indexes.path().join("outcomes.idx"));
    let planned = plan::plan_file(file, &lines, &outcomes, rules, told);
    if let Some(error) = failed.into_inner() {
        return Err(error.into());
    }
    let copy = copy.into_inner();
    match planned {
        Err(error @ PlanError::Spool(_)) => Err(error),
        // Refused for its lines, which may be mended now.
        Err(error @ PlanError::Unusable(_)) if copy.mending.mended == 0 => Err(error),
        Ok(_) | Err(PlanError::Unusable(_) | PlanError::NamesFiles) => Ok(copy.finish(file)?),
    }
}

fn is_openai(fate: LineFate) -> bool {
    fate.is_sent() && fate != LineFate::Valid
}

/// A copy in the making.
struct Copy<'a> {
    rules: &'a CutRules,
    file: File,
    path: &'a Path,
    out: BufWriter<NamedTempFile>,
    /// Lines written.
    line: u64,
    mending: Mending,
}

impl<'a> Copy<'a> {
    fn beside(path: &'a Path, rules: &'a CutRules) -> Result<Copy<'a>, SpoolError> {
        let folder = folder_of(path);
        let aside = tempfile::Builder::new()
            .prefix(".mended-")
            .suffix(".part")
            .permissions(Permissions::from_mode(0o666))
            .tempfile_in(folder)
            .at("write in", folder)?;
        let file = File::open(path).at("read", path)?;
        let out = BufWriter::with_capacity(BUFFER_BYTES, aside);
        let mending = Mending { copy: None, mended: 0, unread: 0, left: Report::default() };
        Ok(Copy { rules, file, path, out, line: 0, mending })
    }

    /// Takes the next row.
    fn row(&mut self, piece: &Piece<'_>, fate: LineFate) -> Result<(), SpoolError> {
        // Blank lines stay, so that the lines keep their numbers.
        while self.line + 1 < piece.number {
            self.write(b"\n")?;
            self.line += 1;
        }
        self.line += 1;
        let Some(bytes) = piece.bytes else {
            self.mending.unread += 1;
            return self.copy_long(piece);
        };
        let asked = self.rules.asked();
        // Lines of the OpenAI batch format are of another API, with habits of its own.
        let native = std::str::from_utf8(bytes).ok().filter(|_| !is_openai(fate));
        let mended = native.map(|line| mend::mend(line, asked));
        let sendable = |line: &str| forms::examine(line.as_bytes(), self.rules.wanted()).is_ok();
        match mended {
            Some(mend::Mended { line: Some(line), left, .. }) if sendable(&line) => {
                self.mending.mended += 1;
                self.mending.left.note(piece.number, &left);
                self.write(one_line(line.as_bytes()).as_ref())?;
            }
            other => {
                if fate == LineFate::Valid {
                    let left = other.map(|mended| mended.left).unwrap_or_default();
                    self.mending.left.note(piece.number, &left);
                } else if !fate.is_sent() {
                    self.mending.unread += 1;
                }
                self.write(one_line(bytes).as_ref())?;
            }
        }
        self.write(b"\n")
    }

    /// Copies a line that is too long to be held.
    fn copy_long(&mut self, piece: &Piece<'_>) -> Result<(), SpoolError> {
        self.file.seek(SeekFrom::Start(piece.start)).at("read", self.path)?;
        let copied = io::copy(&mut (&self.file).take(piece.len), &mut self.out);
        copied.at("copy a line to", self.out.get_ref().path())?;
        self.write(b"\n")
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), SpoolError> {
        self.out.write_all(bytes).at("write", self.out.get_ref().path())
    }

    /// Gives the copy its name, if there is anything in it that the file does not have.
    fn finish(mut self, file: &Path) -> Result<Mending, SpoolError> {
        if self.mending.mended == 0 {
            return Ok(self.mending);
        }
        self.out.flush().at("write", self.out.get_ref().path())?;
        let Ok(aside) = self.out.into_inner() else {
            return Err(io::Error::other("it was not written to its end")).at("write", file);
        };
        aside.as_file().sync_all().at("sync", aside.path())?;
        let aside = aside.into_temp_path();
        let name = file.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
        let stem = source::split(&name).0;
        for number in 1..=NAMES_TRIED {
            let name = match number {
                1 => format!("{stem}.mended.jsonl"),
                _ => format!("{stem}.mended~{number}.jsonl"),
            };
            let path = file.with_file_name(&name);
            match durable::move_file(&aside, &folder_of(file).join(name))? {
                Moved::Now => {
                    // Nothing is left under the old name; removing it would only fail.
                    drop(aside.keep());
                    return Ok(Mending { copy: Some(path), ..self.mending });
                }
                Moved::Taken => {}
                Moved::NoSource => {
                    return Err(io::Error::other("it was removed meanwhile")).at("rename", &aside);
                }
            }
        }
        Err(io::Error::other("there are too many mended copies of it")).at("copy", file)
    }
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        Some(_) | None => Path::new("."),
    }
}

/// An element of a document may span lines; a line break in JSON is as good as a blank.
fn one_line(bytes: &[u8]) -> std::borrow::Cow<'_, [u8]> {
    if memchr::memchr2(b'\n', b'\r', bytes).is_none() {
        return bytes.into();
    }
    bytes.iter().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { *byte }).collect()
}

const BUFFER_BYTES: usize = 256 * 1024;
const NAMES_TRIED: u32 = 10_000;
