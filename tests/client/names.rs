//! Names that do not exist, and name servers that say nothing.
//!
//! The program runs in a mount namespace of its own, where /etc/resolv.conf names a server of the
//! test. That needs root.

use std::io::{BufRead, BufReader};
use std::net::UdpSocket;
use std::process::{Child, Command, Stdio};

use crate::server::MARKER;

/// A name server on an address of this machine that is only used here.
const NAME_SERVER: &str = "127.86.41.7";

/// Says that `gone.test` does not exist; to all other questions it says nothing.
fn name_server() -> std::io::Result<()> {
    let socket = UdpSocket::bind((NAME_SERVER, 53))?;
    std::thread::spawn(move || {
        let mut packet = [0; 1024];
        while let Ok((len, from)) = socket.recv_from(&mut packet) {
            let question = &packet[..len];
            if question.windows(9).any(|part| part == b"\x04gone\x04tes") {
                let mut answer = question.to_vec();
                // An answer, recursion available, no such name; nothing but the question follows.
                answer[2] = 0x81;
                answer[3] = 0x83;
                answer[6..12].fill(0);
                answer.truncate(question_end(question));
                let _ = socket.send_to(&answer, from);
            }
        }
    });
    Ok(())
}

/// Where the first question of a packet ends.
fn question_end(packet: &[u8]) -> usize {
    let mut at = 12;
    while packet[at] != 0 {
        at += 1 + usize::from(packet[at]);
    }
    at + 5
}

/// The program with a file to send to a host of this name.
fn start(folder: &std::path::Path, host: &str) -> Child {
    let resolv = folder.join("resolv.conf");
    let text = format!("nameserver {NAME_SERVER}\noptions timeout:30 attempts:1\n");
    std::fs::write(&resolv, text).expect("written");
    let inbox = folder.join("inbox");
    std::fs::create_dir_all(&inbox).expect("made");
    let line = r#"{"key":"a","request":{"contents":[{"parts":[{"text":"x"}]}]}}"#;
    std::fs::write(inbox.join(format!("{host}.jsonl")), line).expect("written");
    Command::new("unshare")
        .args([
            "--mount",
            "sh",
            "-c",
            "mount --bind \"$1\" /etc/resolv.conf && exec \"$2\" run",
            "sh",
        ])
        .arg(&resolv)
        .arg(env!("CARGO_BIN_EXE_gemini-batchd"))
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("HOME", folder)
        .env("GEMINI_API_KEY", MARKER)
        .env("GEMINI_BATCHD__SPOOL__DIR", folder)
        .env("GEMINI_BATCHD__API__BASE_URL", format!("https://{host}"))
        .env("GEMINI_BATCHD__API__CONNECT_TIMEOUT", "1s")
        .env("GEMINI_BATCHD__INTAKE__SETTLE", "0s")
        .env("GEMINI_BATCHD__INTAKE__WATCH", "poll")
        .current_dir(folder)
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts")
}

/// Fault 63.
#[test]
fn a_name_that_is_not_there_and_a_name_server_that_is_silent_are_tried_again() {
    let is_root = rustix::process::geteuid().is_root();
    let may_mount = || {
        let tried = Command::new("unshare").args(["--mount", "true"]).output();
        tried.is_ok_and(|output| output.status.success())
    };
    if !is_root || !may_mount() || name_server().is_err() {
        assert!(std::env::var_os("CI").is_none(), "this test must not be skipped here");
        eprintln!("skipped: a mount namespace and port 53 are needed, so root");
        return;
    }
    for (host, word) in [("gone.test", "dns error"), ("silent.test", "timed out")] {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut child = start(folder.path(), host);
        let mut said = String::new();
        let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines();
        for line in lines.by_ref() {
            said.push_str(&line.expect("text"));
            said.push('\n');
            if said.contains("cannot reach the server") {
                break;
            }
        }
        // It ends at once, although the system is still waiting for the name.
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it runs");
        let status = child.wait().expect("it ends");
        assert_eq!(status.code(), Some(0), "{said}");
        assert!(said.contains(word) && said.contains("tried again"), "{host}: {said}");
        assert!(!said.contains(MARKER) && !said.contains("panic"), "{said}");
    }
}
