//! Delivery: media, results, errors, then the manifest, whose presence means complete.
//!
//! A delivery can be repeated after a crash at any point. Before anything is moved, the job
//! claims its stem with a hidden file beside the targets: the manifest itself, not yet under its
//! name. So two jobs never mix their files under one stem, a job that comes back knows what is
//! its own, and nothing that exists is ever overwritten. Each file reaches the outbox under a
//! hidden name, synced, and gets its real name by rename.

use std::fs::{self, File, Permissions};
use std::io::{self, BufReader, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::convert::written_back;
use super::durable::{self, Moved};
use super::free_name::{NAME_MAX, first_free, is_free, split, sub_folder};
use super::{At, Folders, SpoolError, media_out, moment, whole_folder};
use crate::engine::ids::JobId;
use crate::engine::job::{Delivery, Head, Job};

/// Whether the outbox is where a file system of its own begins, so that it can be there without
/// its content.
///
/// # Errors
/// If it can not be looked at.
pub fn is_mounted(folders: &Folders) -> Result<bool, SpoolError> {
    let device = |path: &Path| Ok(fs::metadata(path).at("find", path)?.dev());
    match folders.outbox.parent() {
        Some(parent) => Ok(device(&folders.outbox)? != device(parent)?),
        None => Ok(false),
    }
}

/// Makes sure that an outbox that was mounted still is.
///
/// # Errors
/// If it is not: what is delivered into the bare folder could not be seen any more later.
pub fn check_mounted(folders: &Folders) -> Result<(), SpoolError> {
    if is_mounted(folders)? {
        return Ok(());
    }
    let text = "nothing is mounted there any more; mount it again, or restart the daemon if the \
                results are to lie in the bare folder";
    Err(io::Error::other(text)).at("deliver to", &folders.outbox)
}

/// Where the failed lines and the manifest lie that were delivered under a stem into a folder of
/// the outbox.
pub fn errors_and_manifest(folder: &Path, stem: &str) -> (PathBuf, PathBuf) {
    (folder.join(format!("{stem}.errors.jsonl")), folder.join(format!("{stem}.manifest.json")))
}

/// Whether a manifest lies there, and is this job's.
///
/// # Errors
/// If it can not be read.
pub fn is_manifest_of(path: &Path, job: JobId) -> Result<bool, SpoolError> {
    Ok(owner(path)?.is(job))
}

/// What became of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeliverOutcome {
    /// Everything is in the outbox.
    Done,
    /// One of the names belongs to somebody else. Nothing of the job is in the outbox: another
    /// stem can be taken.
    NameTaken,
}

/// A stem for the outputs of an input, such that all their names are free: the input's name
/// without its ending, with `~2`, `~3`, … if need be; with `media`, that of their folder too.
///
/// # Errors
/// If the outbox can not be looked at.
pub fn free_stem(folders: &Folders, head: &Head) -> Result<String, SpoolError> {
    let folder = sub_folder(&folders.outbox, &head.source.folder)?;
    let media = head.queue.wants_media_files();
    let (stem, _) = split(&head.source.name);
    first_free(stem, STEM_MAX, &folder, |stem| {
        let names = Names::new(&folder, stem, head, media);
        Ok(names.all_free()? && is_free(&names.claim)?)
    })
}

/// Moves the merged outputs of a job into the outbox, the manifest last.
///
/// # Errors
/// If a file can not be written, moved or synced, or the outbox is not there. No file has one of
/// the real names without its whole content then; it can be tried again.
pub fn deliver(
    folders: &Folders,
    job: &Job,
    delivery: &Delivery,
    manifest: &[u8],
) -> Result<DeliverOutcome, SpoolError> {
    let folder = make_folder(folders, &job.head.source.folder)?;
    let media = delivery.tally.media.files > 0;
    let names = Names::new(&folder, &delivery.stem, &job.head, media);
    let work = folders.job(job.head.id);
    // In this order: whoever sees the results finds the files that they name.
    let media = names.media.iter().map(|target| (work.merged_media(), target.clone()));
    let mut moves: Vec<_> = media.collect();
    moves.push((work.merged_results(), names.results.clone()));
    if delivery.tally.failed > 0 {
        moves.push((work.merged_errors(), names.errors.clone()));
    }
    if let Some(table) = &names.table {
        moves.push((work.merged_table(), table.clone()));
    }
    let receipts = work.path.join("out");
    let parcel = Parcel { id: job.head.id, folder, names, moves, receipts };
    if owner(&parcel.names.manifest)?.is(parcel.id) {
        // It has its name, but perhaps only until the next power cut.
        durable::sync_folder(&parcel.folder)?;
        parcel.drop_claim()?;
        return Ok(DeliverOutcome::Done);
    }
    if parcel.was_handed_over()? {
        return Ok(DeliverOutcome::Done);
    }
    if !parcel.claim(manifest)? {
        return Ok(DeliverOutcome::NameTaken);
    }
    moment("deliver:claimed", &parcel.names.claim)?;
    if !is_free(&parcel.names.manifest)? {
        return parcel.take_back();
    }
    for (source, target) in &parcel.moves {
        if !parcel.place(source, target)? {
            return parcel.take_back();
        }
        moment("deliver:placed", target)?;
    }
    parcel.leave_receipt()?;
    moment("deliver:receipt", &parcel.receipts)?;
    // Claim, moves and receipt are on the disk before the manifest gets its name. Only now: the
    // first sync after several changes writes them all, and the second has nothing left to do.
    durable::sync_folder(&parcel.folder)?;
    durable::sync_folder(&parcel.receipts)?;
    moment("deliver:synced", &parcel.folder)?;
    match durable::move_file(&parcel.names.claim, &parcel.names.manifest)? {
        Moved::Now => Ok(DeliverOutcome::Done),
        Moved::Taken => parcel.take_back(),
        Moved::NoSource => Err(io::Error::other("it was taken away during the delivery"))
            .at("rename", &parcel.names.claim),
    }
}

/// Makes the sub-folder of the outbox, but never the outbox itself: if that is missing, it may
/// just not be mounted.
fn make_folder(folders: &Folders, folder: &str) -> Result<PathBuf, SpoolError> {
    fs::metadata(&folders.outbox).at("find", &folders.outbox)?;
    let folder = sub_folder(&folders.outbox, folder)?;
    durable::make_lasting_folder(&folder)?;
    Ok(folder)
}

/// The outputs of one job and where they go.
struct Parcel {
    id: JobId,
    folder: PathBuf,
    names: Names,
    moves: Vec<(PathBuf, PathBuf)>,
    /// Where in the working folder an empty file says that all but the manifest's name is done,
    /// and by its name, in which folder of the outbox.
    receipts: PathBuf,
}

impl Parcel {
    /// Claims the stem; `false` if it belongs to somebody else. A power cut may take the claim
    /// back, and even keep a file that was moved after it: that one proves that the stem is ours.
    fn claim(&self, manifest: &[u8]) -> Result<bool, SpoolError> {
        let claim = &self.names.claim;
        if owner(claim)?.is(self.id) {
            self.write_claim(manifest)?;
            durable::rename(&self.own_aside(), claim)?;
            return Ok(true);
        }
        // The claim may be gone: removed by somebody, or never on the disk.
        let resumed = self.has_moved()? && is_free(&self.names.manifest)?;
        if !resumed && !self.names.all_free()? {
            return Ok(false);
        }
        self.write_claim(manifest)?;
        if durable::move_unsynced(&self.own_aside(), claim)? == Moved::Taken {
            remove(&self.own_aside())?;
            return Ok(false);
        }
        // Another job may have completed its delivery between the look and the claim.
        if !resumed && !self.names.all_free()? {
            self.drop_claim()?;
            return Ok(false);
        }
        Ok(true)
    }

    fn write_claim(&self, manifest: &[u8]) -> Result<(), SpoolError> {
        let aside = self.own_aside();
        let mut file = File::create(&aside).at("write", &aside)?;
        let written = file.write_all(manifest).and_then(|()| file.sync_all());
        if written.is_err() {
            drop(fs::remove_file(&aside));
        }
        written.at("write", &aside)?;
        self.open_up(&aside)
    }

    /// Moves one file; `false` if its name is taken by somebody else's.
    fn place(&self, source: &Path, target: &Path) -> Result<bool, SpoolError> {
        if !is_free(source)? {
            self.open_up(source)?;
        }
        let moved = durable::move_unsynced(source, target).inspect_err(|_| {
            // A full disk is not made fuller by what is copied again anyway.
            drop(remove(&hidden(target)));
        })?;
        match moved {
            Moved::Now => {}
            Moved::NoSource if is_free(target)? => {
                let text = "it is neither in the working folder nor in the outbox";
                return Err(io::Error::new(io::ErrorKind::NotFound, text)).at("deliver", source);
            }
            Moved::NoSource => {}
            // The names are this job's: a copy to another file system was interrupted, or a power
            // cut left the file under both of its names.
            Moved::Taken if same_content(source, target)? => {
                durable::sync_folder(&self.folder)?;
                remove(source)?;
            }
            Moved::Taken => return Ok(false),
        }
        self.open_up(target)?;
        Ok(true)
    }

    /// Whether an earlier run completed the delivery, although nothing of it is there any more:
    /// whoever waits for a manifest may take all files away the moment it appears.
    fn was_handed_over(&self) -> Result<bool, SpoolError> {
        let mut gone = !owner(&self.names.claim)?.is(self.id);
        for (source, _) in &self.moves {
            gone = gone && is_free(source)?;
        }
        if !gone || self.count_receipts()? == 0 {
            return Ok(false);
        }
        if !is_free(&self.receipt()?)? {
            return Ok(true);
        }
        let text = "it is not the folder that a delivery was begun in; mount that one again";
        Err(io::Error::other(text)).at("deliver to", &self.folder)
    }

    fn leave_receipt(&self) -> Result<(), SpoolError> {
        let receipt = self.receipt()?;
        File::create(&receipt).map(drop).at("write", &receipt)
    }

    fn receipt(&self) -> Result<PathBuf, SpoolError> {
        Ok(self.receipts.join(format!("{RECEIPT}{}", self.folder_number()?)))
    }

    fn count_receipts(&self) -> Result<usize, SpoolError> {
        let entries = fs::read_dir(&self.receipts).at("list", &self.receipts)?;
        let is_receipt = |entry: &fs::DirEntry| {
            entry.file_name().as_encoded_bytes().starts_with(RECEIPT.as_bytes())
        };
        Ok(entries.filter_map(Result::ok).filter(is_receipt).count())
    }

    /// Tells the outbox folder from the bare mount point it may be without its disk.
    fn folder_number(&self) -> Result<String, SpoolError> {
        Ok(fs::metadata(&self.folder).at("look at", &self.folder)?.ino().to_string())
    }

    /// Takes everything of this job out of the outbox again, the claim last. Only for the holder
    /// of the claim: under its stem, what is missing here is what it moved there.
    fn take_back(&self) -> Result<DeliverOutcome, SpoolError> {
        for (source, target) in &self.moves {
            if is_free(source)? && !is_free(target)? {
                durable::move_file(target, source)?;
            }
        }
        self.drop_claim()?;
        Ok(DeliverOutcome::NameTaken)
    }

    fn drop_claim(&self) -> Result<(), SpoolError> {
        match owner(&self.names.claim)?.is(self.id) {
            true => remove(&self.names.claim),
            false => Ok(()),
        }
    }

    /// Whether any of the files is in the outbox already; on some file systems a power cut leaves
    /// it under both names.
    fn has_moved(&self) -> Result<bool, SpoolError> {
        for (source, target) in &self.moves {
            if !is_free(target)? && (is_free(source)? || durable::is_same_file(source, target)?) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Lets the group of the outbox folder read a file.
    fn open_up(&self, path: &Path) -> Result<(), SpoolError> {
        let group = fs::metadata(&self.folder).at("look at", &self.folder)?.gid();
        // Giving a file to a group we are not in is not allowed; then it keeps ours.
        drop(std::os::unix::fs::chown(path, None, Some(group)));
        let mut mode = MODE;
        if path.is_dir() {
            for entry in fs::read_dir(path).at("list", path)? {
                self.open_up(&entry.at("list", path)?.path())?;
            }
            mode = FOLDER_MODE;
        }
        fs::set_permissions(path, Permissions::from_mode(mode)).at("set the mode of", path)
    }

    /// Where this job, and no other, writes its claim before it has its name.
    fn own_aside(&self) -> PathBuf {
        self.folder.join(format!(".{}.manifest.aside", self.id))
    }
}

/// The names under one stem.
struct Names {
    /// Only where there are any.
    media: Option<PathBuf>,
    results: PathBuf,
    errors: PathBuf,
    /// Only where one is wanted.
    table: Option<PathBuf>,
    manifest: PathBuf,
    claim: PathBuf,
}

impl Names {
    fn new(folder: &Path, stem: &str, head: &Head, media: bool) -> Names {
        let table = || folder.join(format!("{stem}.results.csv"));
        let manifest = folder.join(format!("{stem}.manifest.json"));
        Names {
            media: media.then(|| folder.join(media_out::folder_name(stem))),
            results: folder.join(format!("{stem}.results.jsonl")),
            errors: folder.join(format!("{stem}.errors.jsonl")),
            table: written_back::is_wanted(head).then(table),
            claim: hidden(&manifest),
            manifest,
        }
    }

    fn all_free(&self) -> Result<bool, SpoolError> {
        let plain = [&self.results, &self.errors, &self.manifest];
        for path in plain.into_iter().chain(&self.table).chain(&self.media) {
            if !is_free(path)? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Whose manifest, or claim, a file is.
enum Owner {
    Job(JobId),
    NobodyKnown,
}

impl Owner {
    fn is(&self, id: JobId) -> bool {
        matches!(self, Owner::Job(owner) if *owner == id)
    }
}

fn owner(path: &Path) -> Result<Owner, SpoolError> {
    #[derive(serde::Deserialize)]
    struct Manifest {
        job: String,
    }
    // A FIFO or the like would keep us waiting for ever.
    if is_free(path)? || !fs::symlink_metadata(path).at("look at", path)?.is_file() {
        return Ok(Owner::NobodyKnown);
    }
    let file = BufReader::new(File::open(path).at("read", path)?);
    match serde_json::from_reader::<_, Manifest>(file) {
        Ok(manifest) => Ok(manifest.job.parse().map_or(Owner::NobodyKnown, Owner::Job)),
        Err(error) if error.is_io() => Err(io::Error::from(error)).at("read", path),
        Err(_) => Ok(Owner::NobodyKnown),
    }
}

fn same_content(one: &Path, other: &Path) -> Result<bool, SpoolError> {
    match one.is_dir() {
        true => whole_folder::same_content(one, other),
        false => durable::same_content(one, other),
    }
}

fn remove(path: &Path) -> Result<(), SpoolError> {
    match path.is_dir() {
        true => fs::remove_dir_all(path).at("remove", path)?,
        false => fs::remove_file(path).at("remove", path)?,
    }
    path.parent().map_or(Ok(()), durable::sync_folder)
}

/// The name that a file has in the outbox before it has its own.
fn hidden(path: &Path) -> PathBuf {
    let name = path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
    path.with_file_name(format!(".{name}.aside"))
}

/// Longest stem, bytes: room is left for a hidden `.STEM.results.jsonl.aside`.
const STEM_MAX: usize = NAME_MAX - ".".len() - ".results.jsonl".len() - ".aside".len();

/// How the name of a receipt begins.
const RECEIPT: &str = "receipt-";

/// Who may read outputs: the owner and the folder's group.
const MODE: u32 = 0o640;

/// The same for a folder of media.
const FOLDER_MODE: u32 = 0o750;
