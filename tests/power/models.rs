//! What a power cut leaves of a disk: four models, from nothing unsynced to everything.
//!
//! What counts as synced is defined in [`super::disk`]. Of the rest,
//!
//! - **strict** keeps nothing: no byte, no length, no name. A file whose name is kept but whose
//!   content was never synced is empty.
//! - **page-random** keeps any pages of 4 KiB, each as it was at any moment since its last sync;
//!   any length the file has had since; and any names, in any order but for what
//!   [`super::disk`] holds together. Pages that are not kept are what they were, or zeros.
//! - **range-data** keeps all names, and of each file the beginning of what was written to it, in
//!   the order of writing and cut at any sector of 512 bytes; the length is that of this
//!   beginning, or the last one, with zeros for what is missing.
//! - **all** keeps everything: so it is after `kill -9`.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::dice::Dice;
use crate::disk::{Disk, Edit, File, Name, Node, ROOT};

/// How much a power cut keeps of what was not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Model {
    Strict,
    PageRandom,
    RangeData,
    All,
}

impl Model {
    /// Each of them.
    pub const EACH: [Model; 4] = [Model::Strict, Model::PageRandom, Model::RangeData, Model::All];

    /// Writes the disk that is left into `target`, an empty folder.
    pub fn leave(self, disk: &Disk, dice: &mut Dice, target: &Path) {
        let kept = self.kept_names(disk, dice);
        let names = disk.names(|number| kept.contains(&number));
        let mut written: HashMap<Node, PathBuf> = HashMap::new();
        let mut folders = vec![(ROOT, target.to_owned())];
        while let Some((folder, path)) = folders.pop() {
            for (name, node) in &names[&folder] {
                let path = path.join(as_text(name));
                match (disk.file_at(*node), written.get(node)) {
                    (None, _) => {
                        fs::create_dir(&path).expect("made");
                        folders.push((*node, path));
                    }
                    (Some(_), Some(other)) => fs::hard_link(other, &path).expect("linked"),
                    (Some(file), None) => {
                        let bytes = self.content(file, dice);
                        let mut made = fs::File::create_new(&path).expect("made");
                        if bytes.iter().all(|byte| *byte == 0) {
                            made.set_len(bytes.len() as u64).expect("as long");
                        } else {
                            made.write_all(&bytes).expect("written");
                        }
                        written.insert(*node, path);
                    }
                }
            }
        }
    }

    /// The changes of names that are kept, though no sync covered them.
    fn kept_names(self, disk: &Disk, dice: &mut Dice) -> BTreeSet<u64> {
        let of_ten = match self {
            Model::Strict => 0,
            Model::PageRandom => [1, 5, 9][dice.below(3) as usize],
            Model::RangeData | Model::All => 10,
        };
        let waiting: BTreeSet<u64> = disk.unsynced().iter().map(|change| change.number).collect();
        let mut kept = BTreeSet::new();
        for change in disk.unsynced() {
            // What it needs and waits no more is durable.
            let possible = |need| kept.contains(need) || !waiting.contains(need);
            if change.needs.iter().all(possible) && dice.below(10) < of_ten {
                kept.insert(change.number);
            }
        }
        kept
    }

    fn content(self, file: &File, dice: &mut Dice) -> Vec<u8> {
        if file.edits.is_empty() {
            return file.durable.to_vec();
        }
        match self {
            Model::Strict => file.durable.to_vec(),
            Model::PageRandom => any_pages(file, dice),
            Model::RangeData => a_beginning(file, dice),
            Model::All => file.content(),
        }
    }
}

/// Any pages as they were at any moment.
fn any_pages(file: &File, dice: &mut Dice) -> Vec<u8> {
    let edits: Vec<&Edit> = file.edits.iter().map(|(_, edit)| edit).collect();
    // The moments of all pages at once would be too many disks to meet the bad ones.
    let habit = dice.below(3);
    let moment = |last: usize, dice: &mut Dice| match habit {
        0 if dice.below(10) > 0 => 0,
        1 if dice.below(10) > 0 => last,
        _ => dice.below(last as u64 + 1) as usize,
    };
    // By page, how many of the edits that touch it have reached the disk.
    let mut touched: HashMap<u64, usize> = HashMap::new();
    let mut len = file.durable.len() as u64;
    let mut lens = vec![len];
    for edit in &edits {
        match edit {
            Edit::SetLen(new) => len = *new,
            Edit::Write(start, bytes) => {
                let end = start + bytes.len() as u64;
                len = len.max(end);
                for page in start / PAGE..end.div_ceil(PAGE) {
                    *touched.entry(page).or_default() += 1;
                }
            }
        }
        lens.push(len);
    }
    let mut pages: Vec<u64> = touched.keys().copied().collect();
    pages.sort_unstable();
    let reached: HashMap<u64, usize> =
        pages.into_iter().map(|page| (page, moment(touched[&page], dice))).collect();
    let mut seen: HashMap<u64, usize> = HashMap::new();
    let mut bytes = file.durable.to_vec();
    for edit in &edits {
        let Edit::Write(start, written) = edit else { continue };
        let end = start + written.len() as u64;
        for page in start / PAGE..end.div_ceil(PAGE) {
            let count = seen.entry(page).or_default();
            *count += 1;
            if *count <= reached[&page] {
                let (from, to) = ((page * PAGE).max(*start), ((page + 1) * PAGE).min(end));
                let part = &written[(from - start) as usize..(to - start) as usize];
                Edit::Write(from, part.into()).apply(&mut bytes);
            }
        }
    }
    Edit::SetLen(lens[moment(lens.len() - 1, dice)]).apply(&mut bytes);
    bytes
}

/// What was written, up to any sector.
fn a_beginning(file: &File, dice: &mut Dice) -> Vec<u8> {
    let count = dice.below(file.edits.len() as u64 + 1) as usize;
    let mut bytes = file.durable.to_vec();
    file.edits[..count].iter().for_each(|(_, edit)| edit.apply(&mut bytes));
    if let Some((_, Edit::Write(start, written))) = file.edits.get(count) {
        let part = (dice.below(written.len() as u64 + 1) / SECTOR * SECTOR) as usize;
        Edit::Write(*start, written[..part].into()).apply(&mut bytes);
    }
    if dice.below(2) == 0 {
        bytes.resize(file.content().len(), 0);
    }
    bytes
}

/// File names of tests are text.
fn as_text(name: &Name) -> &str {
    std::str::from_utf8(name).expect("text")
}

/// Bytes of a page.
const PAGE: u64 = 4096;

/// Bytes of a sector.
const SECTOR: u64 = 512;
