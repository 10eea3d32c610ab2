//! Standard error that nobody reads: the daemon goes on.

use std::io::{ErrorKind, PipeReader, PipeWriter, Read, Write};

use gemini_batchd::provider::gemini::emulator::Faults;
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::process::Signal;

use super::rig::{Daemon, End, Rig, eventually, requests};

/// Fault 86.
#[test]
fn a_daemon_whose_log_was_closed_answers_every_line() {
    let rig = Rig::new(Faults::default(), &[]);
    rig.drop_file("a.jsonl", requests(5));
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let mut command = rig.command(&["once"]);
    command.env("RUST_LOG", "trace").stderr(writer);
    assert_eq!(Daemon::start(&mut command).end(), End::Exited(0));
    assert!(rig.spool().join("outbox/a.manifest.json").is_file());
}

/// Fault 86.
#[test]
fn a_daemon_whose_log_is_full_answers_every_line_and_tells_later_what_was_dropped() {
    let rig = Rig::new(Faults::default(), &[]);
    let (mut reader, writer) = full_pipe();
    let mut command = rig.command(&["run"]);
    command.env("RUST_LOG", "trace").stderr(writer);
    let daemon = Daemon::start(&mut command);
    // The pipe lives as long as anybody has its end.
    drop(command);
    let mut asked = 0;
    eventually("a status", || {
        asked += 1;
        rig.command(&["status"]).status().expect("it runs").success()
    });
    // More is logged than the daemon keeps for later.
    for file in 0..30 {
        rig.drop_file(
            &format!("{file}.jsonl"),
            requests(200).replace("question", &file.to_string()),
        );
    }
    eventually("the answers", || {
        (0..30).all(|file| rig.spool().join(format!("outbox/{file}.manifest.json")).is_file())
    });
    let read = std::thread::spawn(move || {
        let mut text = Vec::new();
        reader.read_to_end(&mut text).expect("read");
        String::from_utf8_lossy(&text).into_owned()
    });
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.end(), End::Exited(0));
    let text = read.join().expect("read");
    assert!(text.contains("log lines were dropped here"), "{} bytes came", text.len());
}

/// Faults 15 and 86.
#[test]
fn a_panic_that_can_not_be_told_ends_the_process_all_the_same() {
    let rig = Rig::new(Faults::default(), &[]);
    rig.drop_file("a.jsonl", requests(5));
    let (_reader, writer) = full_pipe();
    let mut command = rig.command(&["once"]);
    command.env("FAILPOINTS", "begun:claim=panic").stderr(writer);
    assert_eq!(Daemon::start(&mut command).end(), End::ABORTED);
    rig.drain();
    assert!(rig.spool().join("outbox/a.manifest.json").is_file(), "{}", rig.log());
}

/// Fault 86.
#[test]
fn a_failure_that_can_not_be_told_ends_the_process_with_its_code() {
    let rig = Rig::new(Faults::default(), &[]);
    let (_reader, writer) = full_pipe();
    let mut command = rig.command(&["once"]);
    command.env("RUST_LOG", "debug").env("FAILPOINTS", "open:checked=return(error)").stderr(writer);
    assert_eq!(Daemon::start(&mut command).end(), End::Exited(1));
}

/// A pipe into which not a byte more fits.
fn full_pipe() -> (PipeReader, PipeWriter) {
    let (reader, mut writer) = std::io::pipe().expect("a pipe");
    let flags = fcntl_getfl(&writer).expect("flags");
    fcntl_setfl(&writer, flags | OFlags::NONBLOCK).expect("set");
    loop {
        match writer.write(&[b'\n'; 512]) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => panic!("{error}"),
        }
    }
    fcntl_setfl(&writer, flags).expect("set");
    (reader, writer)
}
