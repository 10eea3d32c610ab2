use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::Stdio;

use predicates::prelude::*;

use crate::Place;

#[test]
fn the_first_line_names_the_address_and_sigterm_ends_it_in_order() {
    let place = Place::new();
    let temporary = place.path("tmp");
    std::fs::create_dir(&temporary).expect("made");
    let mut child = place
        .std_command()
        .args(["emulate", "--speed", "10"])
        .env("TMPDIR", &temporary)
        .stdout(Stdio::piped())
        .spawn()
        .expect("started");
    let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
    let mut line = String::new();
    stdout.read_line(&mut line).expect("read");
    let address = line.trim().strip_prefix("listening on http://").expect("an address").to_owned();
    let mut stream = TcpStream::connect(&address).expect("it listens");
    write!(stream, "GET /v1beta/batches HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")
        .expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("answered");
    assert!(answer.starts_with("HTTP/1.1 403 "), "without a key: {answer}");
    let id = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw);
    rustix::process::kill_process(id.expect("an id"), rustix::process::Signal::TERM).expect("sent");
    assert_eq!(child.wait().expect("ended").code(), Some(0));
    let left = std::fs::read_dir(temporary).expect("listed").count();
    assert_eq!(left, 0, "its folder is removed");
}

#[test]
fn an_unknown_fault_is_refused_with_its_name() {
    let place = Place::new();
    place.write("faults.toml", "create_599 = 1\n");
    place
        .run(&["emulate", "--faults", "faults.toml"])
        .assert()
        .code(2)
        .stderr(predicate::str::contains("create_599"));
}
