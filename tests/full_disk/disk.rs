//! A small disk of its own, that only the processes put on it can see.
//!
//! A process holds a mount namespace with it: as root, or else in a user namespace of its own. The
//! test reaches it through `/proc`, daemons are started within. When the holder is gone, nothing
//! of it is left on the machine, however the test ended.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::fs::{FallocateFlags, fallocate, statvfs};
use rustix::io::Errno;

/// The disk.
pub struct Disk {
    holder: Child,
    /// Whether it needed a user namespace.
    as_user: bool,
    /// Where it is mounted, for those within.
    pub inside: PathBuf,
    /// One filler at a time.
    filling: Mutex<()>,
}

impl Disk {
    /// Mounts one in this folder, as the shell is told to with `PLACE` for the folder.
    ///
    /// Errors: in words, where that can not be done.
    pub fn mount(folder: &Path, how: &str) -> Result<Disk, String> {
        let how = how.replace("PLACE", &folder.display().to_string());
        let script = format!("{how} && echo mounted && exec cat");
        let tried = Disk::hold(folder, &["-m"], &script);
        match tried {
            Err(_) if !rustix::process::geteuid().is_root() => {
                Disk::hold(folder, &["-rm"], &script)
            }
            tried => tried,
        }
    }

    fn hold(folder: &Path, flags: &[&str], script: &str) -> Result<Disk, String> {
        let mut unshare = Command::new("unshare");
        unshare.args(flags).args(["sh", "-c", script]).stdin(Stdio::piped());
        let holder = unshare.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut holder = holder.map_err(|error| format!("unshare: {error}"))?;
        let mut said = String::new();
        let out = holder.stdout.as_mut().expect("it is piped");
        while !said.ends_with('\n') {
            let mut byte = [0];
            match out.read(&mut byte).expect("read") {
                0 => break,
                _ => said.push(char::from(byte[0])),
            }
        }
        if said != "mounted\n" {
            let output = holder.wait_with_output().expect("it ended");
            return Err(format!("{script}: {}", String::from_utf8_lossy(&output.stderr)));
        }
        let (as_user, inside) = (flags.contains(&"-rm"), folder.to_owned());
        Ok(Disk { holder, as_user, inside, filling: Mutex::new(()) })
    }

    /// Where the test sees it.
    pub fn outside(&self) -> PathBuf {
        let within = self.inside.strip_prefix("/").expect("an absolute path");
        PathBuf::from(format!("/proc/{}/root", self.holder.id())).join(within)
    }

    /// A program that will run where the disk is. It has the process id of the command itself.
    pub fn command(&self, program: &OsStr) -> Command {
        let mut command = Command::new("nsenter");
        command.arg("-t").arg(self.holder.id().to_string());
        if self.as_user {
            command.args(["-U", "--preserve-credentials"]);
        }
        command.arg("-m").arg("--").arg(program);
        command
    }

    /// Runs `mount` or the like where the disk is.
    #[track_caller]
    pub fn run(&self, program: &str, arguments: &[&str]) {
        let status = self.command(program.as_ref()).args(arguments).status();
        assert!(status.expect("nsenter starts").success(), "{program} {arguments:?}");
    }

    /// Bytes free for everybody.
    pub fn free(&self) -> u64 {
        let found = statvfs(self.outside()).expect("it is mounted");
        found.f_bavail * found.f_frsize
    }

    /// Takes all room but so many bytes.
    pub fn fill(&self, leave: u64) {
        let _alone = self.filling.lock().expect("nobody panicked");
        let path = self.ballast();
        let file = File::options().create(true).append(true).open(path).expect("ballast");
        let mut step = self.free().saturating_sub(leave) / 4096 * 4096;
        while step > 0 {
            let len = file.metadata().expect("looked at").len();
            match fallocate(&file, FallocateFlags::empty(), len, step) {
                Ok(()) => step = self.free().saturating_sub(leave) / 4096 * 4096,
                // Somebody was faster, or the disk needs some for itself.
                Err(Errno::NOSPC) => step = step / 2 / 4096 * 4096,
                Err(errno) => panic!("fallocate: {errno}"),
            }
        }
    }

    /// Gives it all back.
    pub fn make_room(&self) {
        let _alone = self.filling.lock().expect("nobody panicked");
        fs::remove_file(self.ballast()).expect("removed");
    }

    /// Takes every byte that gets free until the flag is set.
    pub fn flood(&self, enough: &AtomicBool) {
        while !enough.load(Ordering::Relaxed) {
            self.fill(0);
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn ballast(&self) -> PathBuf {
        self.outside().join("ballast")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        drop(self.holder.kill());
        drop(self.holder.wait());
    }
}
