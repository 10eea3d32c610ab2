//! How many disks, from which seed, on how many threads, and where they lie meanwhile.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::thread;

use crate::dice::Dice;
use crate::disk::Disk;
use crate::models::Model;
use crate::trace::{self, Step};

/// One disk to be built.
#[derive(Debug, Clone, Copy)]
pub struct Image {
    /// They are numbered as they were drawn.
    pub number: u64,
    /// Everything that is random about it.
    pub seed: u64,
    /// The power goes right behind the step of this number.
    pub cut: usize,
    pub model: Model,
}

/// A drawn set of images.
pub struct Campaign {
    pub seed: u64,
    pub images: Vec<Image>,
}

impl Campaign {
    /// Draws `count` images over the models in turn; cuts are drawn from `cuts`, every other one
    /// from the rarer `special` ones.
    pub fn draw(count: u64, cuts: &[usize], special: &[usize]) -> Campaign {
        let seed = match std::env::var("SEED") {
            Ok(text) => text.parse().expect("SEED is a number"),
            Err(_) => u64::from(std::process::id()),
        };
        println!("SEED={seed}");
        let mut images: Vec<Image> = (0..count).map(|n| draw_one(seed, n, cuts, special)).collect();
        images.sort_by_key(|image| image.cut);
        Campaign { seed, images }
    }

    /// Goes through the steps on each of `threads` threads, and hands the disk, as the process
    /// sees it and as it is for sure, to `check` at each image's cut.
    pub fn run(
        &self,
        start: &Disk,
        steps: &[Step],
        threads: usize,
        check: impl Fn(&Image, &Disk) + Sync,
    ) {
        let failed = Mutex::new(Vec::new());
        thread::scope(|scope| {
            for mine in 0..threads {
                let (check, failed) = (&check, &failed);
                scope.spawn(move || {
                    let mut disk = start.clone();
                    let mut passed = 0;
                    for image in self.images.iter().skip(mine).step_by(threads) {
                        for step in &steps[passed..=image.cut] {
                            disk.follow(&step.call);
                        }
                        passed = image.cut + 1;
                        let checked = catch_unwind(AssertUnwindSafe(|| check(image, &disk)));
                        if checked.is_err() {
                            let kept = keep(image, &disk);
                            eprintln!("{image:?} failed; it is kept as {}", kept.display());
                            failed.lock().expect("nothing panics with it").push(image.number);
                        }
                    }
                });
            }
        });
        let failed = failed.into_inner().expect("nothing panics with it");
        assert!(failed.is_empty(), "SEED={} fails with images {failed:?}", self.seed);
    }
}

fn draw_one(seed: u64, number: u64, cuts: &[usize], special: &[usize]) -> Image {
    let mut dice = Dice(seed.wrapping_mul(0x0001_0000_0001).wrapping_add(number));
    let model = Model::EACH[(number % 4) as usize];
    let from = if special.is_empty() || number % 8 < 4 { cuts } else { special };
    let cut = from[dice.below(from.len() as u64) as usize];
    Image { number, seed: dice.roll(), cut, model }
}

/// The steps of a recording, and after which of them the disk is another one.
pub fn changes(start: &Disk, steps: &[Step]) -> (Disk, Vec<usize>) {
    let mut disk = start.clone();
    let changing = (0..steps.len()).filter(|n| disk.follow(&steps[*n].call)).collect();
    (disk, changing)
}

/// Fails unless the disk, as followed, is what lies in `folder` now: nothing was overlooked.
pub fn assert_followed(disk: &Disk, folder: &Path) {
    let followed = scratch();
    Model::All.leave(disk, &mut Dice(0), followed.path());
    let (ours, theirs) = (tree(followed.path()), tree(folder));
    let names = |tree: &[(PathBuf, Vec<u8>)]| tree.iter().map(|f| f.0.clone()).collect::<Vec<_>>();
    assert_eq!(names(&ours), names(&theirs), "calls were overlooked");
    for ((name, ours), (_, theirs)) in ours.iter().zip(&theirs) {
        assert!(ours == theirs, "calls on {} were overlooked", name.display());
    }
}

/// All files below a folder with their content; folders without any.
fn tree(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(&next).expect("listed") {
            let path = entry.expect("listed").path();
            let below = path.strip_prefix(folder).expect("below").to_owned();
            let kind = fs::symlink_metadata(&path).expect("there").file_type();
            if kind.is_dir() {
                found.push((below, Vec::new()));
                folders.push(path);
            } else if kind.is_file() {
                found.push((below, fs::read(&path).expect("read")));
            }
        }
    }
    found.sort();
    found
}

/// A folder in memory, where there is one: what is tested is what was synced, not the disk.
pub fn scratch() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let made = match memory.is_dir() {
        true => tempfile::Builder::new().prefix("gemini-power-").tempdir_in(memory),
        false => tempfile::tempdir(),
    };
    made.expect("a temporary folder")
}

/// Reads the words of strace; those of an earlier recording, if that is asked for.
pub fn recorded(words: &Path) -> Vec<Step> {
    trace::read(&fs::read(words).expect("strace has written"))
}

fn keep(image: &Image, disk: &Disk) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("image-{}", image.number));
    drop(fs::remove_dir_all(&folder));
    fs::create_dir_all(&folder).expect("made");
    image.model.leave(disk, &mut Dice(image.seed), &folder);
    folder
}

/// How many disks are built in all.
pub fn asked() -> u64 {
    let text = std::env::var("GEMINI_BATCHD_IMAGES").ok();
    text.map_or(400, |text| text.parse().expect("a number"))
}

/// Whether this machine can not record calls. In CI it must be able to.
pub fn can_not_record() -> bool {
    let Some(why) = trace::strace_is_missing() else { return false };
    assert!(std::env::var("CI").is_err(), "CI must have strace: {why}");
    eprintln!("SKIPPED, system calls can not be recorded: {why}");
    true
}
