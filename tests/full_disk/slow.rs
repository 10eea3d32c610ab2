//! A disk that takes its time, as `strace` makes it.

use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use gemini_batchd::provider::gemini::emulator::Faults;

use super::failing::strace_is_here;
use super::rig::{DISK, Rig, requests};

/// Fault 32.
#[test]
fn a_slow_disk_only_makes_it_slow() {
    if !strace_is_here() {
        return;
    }
    let settings = ["api.idle_timeout = \"5s\""];
    let Some(rig) = Rig::on(DISK, Faults::default(), &settings) else { return };
    let names: Vec<String> = (0..FILES).map(|number| format!("{number}.jsonl")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    for (name, count) in names.iter().zip(3..) {
        rig.bring(name, requests(count, 10));
        rig.drop_file(name);
    }
    let notices = UnixDatagram::bind(rig.aside("notify")).expect("a socket");
    let slow = format!("inject=fsync,fdatasync:delay_exit={}", SYNC.as_micros());
    // With -D the daemon is our child and strace is not, so that killing it leaves nobody behind.
    let strace = [
        "strace",
        "-D",
        "-f",
        "-qq",
        "-o",
        "/dev/null",
        "-e",
        "trace=fsync,fdatasync",
        "-e",
        &slow,
    ];
    let mut command = rig.through(&strace, &["run"]);
    command.env("NOTIFY_SOCKET", rig.aside("notify"));
    command.env("WATCHDOG_USEC", WATCHDOG.as_micros().to_string());
    let mut daemon = command.spawn().expect("it starts");
    // A service manager would kill it now.
    let bark = |why: &str| panic!("{why}\n{}", rig.log());
    let mut said = [0; 4096];
    notices.set_read_timeout(Some(Duration::from_secs(60))).expect("set");
    let mut is_ready = false;
    let mut fed = 0;
    while !rig.has_done(&names) {
        let Ok(len) = notices.recv(&mut said) else { bark("the watchdog was not fed in time") };
        let said = String::from_utf8_lossy(&said[..len]).into_owned();
        is_ready |= said.contains("READY=1");
        fed += said.matches("WATCHDOG=1").count();
        if is_ready {
            notices.set_read_timeout(Some(WATCHDOG)).expect("set");
        }
    }
    assert!(fed > 2);
    daemon.kill().expect("killed");
    daemon.wait().expect("waited");
    assert_eq!(rig.rows_paid(), (3..3 + FILES as u64).sum::<u64>());
    assert_eq!(rig.logged("did not work"), 0, "{}", rig.log());
}

/// How long each sync takes.
const SYNC: Duration = Duration::from_millis(100);
/// How long the daemon may be silent.
const WATCHDOG: Duration = Duration::from_secs(4);
/// So many that their syncs one after the other would take longer than that.
const FILES: usize = 24;
