//! The TCP address of `control.listen`, as a user sets it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use predicates::prelude::*;

use super::Place;

/// Asks and gives the status and the body.
fn ask(address: &str, line: &str, token: Option<&str>) -> (u16, String) {
    let mut stream = TcpStream::connect(address).expect("connected");
    let token = token.map(|token| format!("authorization: Bearer {token}\r\n"));
    let request = format!(
        "{line} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n{}\r\n",
        token.unwrap_or_default()
    );
    stream.write_all(request.as_bytes()).expect("sent");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("answered");
    let (head, body) = text.split_once("\r\n\r\n").expect("a head and a body");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    (status.expect("a status"), body.to_owned())
}

/// Fault 82.
#[test]
fn the_address_is_told_the_token_lies_in_the_state_folder_and_is_in_no_log() {
    let place = Place::new();
    place.write("gemini-batchd.toml", "[control]\nlisten = \"localhost:0\"\n");
    let mut daemon = place
        .std_command()
        .args(["run", "-vv"])
        .env("GEMINI_API_KEY", "a-key-of-the-tests")
        .env("GEMINI_BATCHD__API__BASE_URL", "http://127.0.0.1:9")
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut log = BufReader::new(daemon.stderr.take().expect("piped"));
    let (mut said, mut line) = (String::new(), String::new());
    let address = loop {
        line.clear();
        assert!(log.read_line(&mut line).expect("read") > 0, "it ended: {said}");
        said.push_str(&line);
        if let Some((_, rest)) = line.split_once("127.0.0.1:")
            && line.contains("the dashboard is served")
        {
            let port: String = rest.chars().take_while(char::is_ascii_digit).collect();
            break format!("127.0.0.1:{port}");
        }
    };
    let path = place.path("spool/state/control.token");
    let mode = std::fs::metadata(&path).expect("made at the start").permissions().mode();
    assert_eq!(mode & 0o7777, 0o640);
    let token = std::fs::read_to_string(path).expect("read").trim().to_owned();
    assert_eq!(ask(&address, "GET /v1/status", None).0, 200);
    assert_eq!(ask(&address, "POST /v1/daemon:pause", None).0, 401);
    assert_eq!(ask(&address, "POST /v1/daemon:pause", Some("another")).0, 401);
    assert_eq!(ask(&address, "POST /v1/daemon:pause", Some(&token)).0, 200);
    let (status, why) = ask(&address, "GET /readyz", None);
    assert_eq!(status, 503, "{why}");
    place.run(&["status"]).assert().stdout(predicate::str::contains("PAUSED"));
    let id = rustix::process::Pid::from_child(&daemon);
    rustix::process::kill_process(id, rustix::process::Signal::TERM).expect("told to stop");
    log.read_to_string(&mut said).expect("read to its end");
    assert_eq!(daemon.wait().expect("it ends").code(), Some(0));
    assert!(!said.contains(&token), "the token is in the log");
}

#[test]
fn an_address_a_name_or_a_token_that_is_none_is_told_before_anything_is_served() {
    for (settings, part) in [
        ("listen = \"everywhere\"", "control.listen is \"everywhere\""),
        ("listen = \"127.0.0.1\"", "write one like \"127.0.0.1:8787\""),
        ("hosts = [\"http://batch.example.org/\"]", "is no name of a host"),
    ] {
        let place = Place::new();
        place.write("gemini-batchd.toml", &format!("[control]\n{settings}\n"));
        let check = place.run(&["config", "check"]).assert();
        check.code(10).stderr(predicate::str::contains(part));
    }
    let place = Place::new();
    place.write("gemini-batchd.toml", "[control]\nlisten = \"127.0.0.1:0\"\n");
    place.write("spool/state/control.token", "short\n");
    let file = place.path("spool/state/control.token");
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o600)).expect("closed");
    place
        .run(&["run"])
        .env("GEMINI_API_KEY", "a-key-of-the-tests")
        .assert()
        .code(10)
        .stderr(predicate::str::contains("holds no token"));
}
