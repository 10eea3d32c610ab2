//! The daemon as systemd runs it.

use std::os::unix::net::UnixDatagram;
use std::process::Stdio;
use std::time::Duration;

use super::Place;

/// What the daemon says to the service manager, until `last` is said.
fn heard(socket: &UnixDatagram, last: &str) -> Vec<String> {
    let mut all = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let len = socket.recv(&mut buffer).unwrap_or_else(|error| panic!("{error}: {all:?}"));
        let text = String::from_utf8_lossy(&buffer[..len]).trim().to_owned();
        all.push(text);
        if all.iter().any(|text| text.starts_with(last)) {
            return all;
        }
    }
}

/// Fault 14.
#[test]
fn sighup_reloads_the_configuration_and_a_wrong_one_neither_stops_nor_changes_anything() {
    let place = Place::new();
    let path = place.path("notify");
    let socket = UnixDatagram::bind(&path).expect("bound");
    socket.set_read_timeout(Some(Duration::from_secs(60))).expect("set");
    place.write("gemini-batchd.toml", "poll.max = \"5m\"\n");
    let mut daemon = place
        .std_command()
        .arg("run")
        .env("NOTIFY_SOCKET", &path)
        .env("GEMINI_API_KEY", "a-key-of-the-tests")
        .env("GEMINI_BATCHD__API__BASE_URL", "http://127.0.0.1:9")
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts");
    heard(&socket, "READY=1");
    let id = rustix::process::Pid::from_child(&daemon);
    let reload = |text: &str| {
        place.write("gemini-batchd.toml", text);
        rustix::process::kill_process(id, rustix::process::Signal::HUP).expect("it runs");
        heard(&socket, "RELOADING=1");
        heard(&socket, "READY=1");
        // Elsewhere, where no wrong file is in the way.
        let output = place.run(&["status"]).current_dir("/").output().expect("it runs");
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    let said = reload("poll.max = \"a while\"\n");
    assert!(said.contains("TROUBLE: the changed configuration is not in force"), "{said}");
    assert!(said.contains("gemini-batchd.toml:1"), "{said}");
    let said = reload("poll.max = \"4m\"\n");
    assert!(said.contains("no jobs") && !said.contains("TROUBLE"), "{said}");
    rustix::process::kill_process(id, rustix::process::Signal::TERM).expect("told to stop");
    assert_eq!(daemon.wait().expect("it ends").code(), Some(0));
}

/// Fault 16.
#[test]
fn the_service_manager_is_told_when_the_daemon_is_ready_alive_and_stopping() {
    let place = Place::new();
    let path = place.path("notify");
    let socket = UnixDatagram::bind(&path).expect("bound");
    socket.set_read_timeout(Some(Duration::from_secs(30))).expect("set");
    let mut daemon = place
        .std_command()
        .arg("run")
        .env("NOTIFY_SOCKET", &path)
        .env("WATCHDOG_USEC", "300000")
        .env("GEMINI_API_KEY", "a-key-of-the-tests")
        .env("GEMINI_BATCHD__API__BASE_URL", "http://127.0.0.1:9")
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts");
    heard(&socket, "READY=1");
    heard(&socket, "STATUS=no jobs");
    place.write("spool/inbox/never-ready.part", "");
    heard(&socket, "WATCHDOG=1");
    let id = rustix::process::Pid::from_child(&daemon);
    rustix::process::kill_process(id, rustix::process::Signal::TERM).expect("told to stop");
    heard(&socket, "STOPPING=1");
    let status = daemon.wait().expect("it ends");
    assert_eq!(status.code(), Some(0));
}
