//! What stands between us and the API until somebody acts: certificates, proxies, wrong ports.
//!
//! The certificates in `tests/fixtures/tls` were made for these tests by an authority whose key is
//! thrown away; `good` and `expired` are for localhost, `other` is for another host.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use gemini_batchd::engine::event::Failure;
use gemini_batchd::engine::ids::{FileName, Stamp};
use gemini_batchd::engine::job::Task;
use gemini_batchd::provider::gemini::{
    ApiKey, Client, ClientSettings, CreateFailure, CreateInput, Payload,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::server::MARKER;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tls").join(name)
}

fn read(name: &str) -> Vec<u8> {
    std::fs::read(fixture(name)).expect("a fixture")
}

/// Serves connections on threads, for as long as the test runs; tells its port.
fn serve(each: impl Fn(TcpStream) + Send + Sync + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    let each = Arc::new(each);
    std::thread::spawn(move || {
        while let Ok((stream, _)) = listener.accept() {
            let each = Arc::clone(&each);
            std::thread::spawn(move || each(stream));
        }
    });
    port
}

/// What a server got to read.
type Heard = Arc<Mutex<Vec<u8>>>;

/// A server that shows this certificate, keeps what it hears, and answers that nothing is there.
fn with_certificate(name: &str) -> (u16, Heard) {
    let certificate = CertificateDer::from(read(name));
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(read("key.der")));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider knows them")
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .expect("they fit");
    let (config, heard) = (Arc::new(config), Heard::default());
    let hears = Arc::clone(&heard);
    let port = serve(move |stream| {
        let tls = rustls::ServerConnection::new(Arc::clone(&config)).expect("a good configuration");
        let mut stream = rustls::StreamOwned::new(tls, stream);
        let mut buffer = [0; 4096];
        let Ok(read) = stream.read(&mut buffer) else { return };
        hears.lock().expect("no panic holds it").extend_from_slice(&buffer[..read]);
        let body = r#"{"error":{"code":403,"message":"not you","status":"PERMISSION_DENIED"}}"#;
        let head = "HTTP/1.1 403 X\r\nconnection: close\r\ncontent-length:";
        let _ = write!(stream, "{head} {}\r\n\r\n{body}", body.len());
        stream.conn.send_close_notify();
        let _ = stream.flush();
    });
    (port, heard)
}

fn client(url: &str) -> Client {
    let key = ApiKey::new(MARKER).expect("a key");
    Client::new(ClientSettings::new(url.parse().expect("a URL"), key)).expect("a client")
}

/// Fault 63.
#[tokio::test]
async fn a_certificate_that_is_not_trusted_bars_the_way_and_nothing_is_sent() {
    let (port, heard) = with_certificate("good.der");
    let client = client(&format!("https://localhost:{port}"));
    let failure = client.check_key().await.expect_err("not trusted");
    let told = matches!(&failure, Failure::Barred(m) if m.contains("certificate"));
    assert!(told, "{failure:?}");
    for input in [
        CreateInput::File(FileName("files/f".to_owned())),
        CreateInput::Inline(Payload::from_bytes(Bytes::from_static(b"{}"))),
    ] {
        let created = client.create("m", Task::Generate, &Stamp("s".to_owned()), 0, input).await;
        let barred = matches!(created, Err(CreateFailure::Failure(Failure::Barred(_))));
        assert!(barred, "a batch that can not exist is not searched for: {created:?}");
    }
    let payload = Payload::from_bytes(Bytes::from_static(b"{}"));
    let name = FileName("files/f".to_owned());
    let uploaded = client.upload(&name, "x", &payload, None, &|_| {}).await;
    assert!(matches!(uploaded, Err(Failure::Barred(_))), "{uploaded:?}");
    assert!(heard.lock().expect("no panic holds it").is_empty());
}

/// Fault 63.
#[tokio::test]
async fn a_server_that_speaks_no_tls_bars_the_way() {
    let port = serve(|mut stream| {
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n");
        let _ = stream.read(&mut [0; 4096]);
    });
    let failure = client(&format!("https://localhost:{port}")).check_key().await;
    assert!(matches!(&failure, Err(Failure::Barred(m)) if m.contains("TLS")), "{failure:?}");
}

/// A whole run of the program with one file in the inbox.
fn once(base_url: &str, variables: &[(&str, &str)]) -> (tempfile::TempDir, Output) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let inbox = folder.path().join("inbox");
    std::fs::create_dir(&inbox).expect("made");
    let line = r#"{"key":"a","request":{"contents":[{"parts":[{"text":"x"}]}]}}"#;
    std::fs::write(inbox.join("a.jsonl"), line).expect("written");
    // A run that tries again and again would never end.
    let output = Command::new("timeout")
        .args(["120", env!("CARGO_BIN_EXE_gemini-batchd"), "once"])
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("HOME", folder.path())
        .env("GEMINI_API_KEY", MARKER)
        .env("GEMINI_BATCHD__SPOOL__DIR", folder.path())
        .env("GEMINI_BATCHD__API__BASE_URL", base_url)
        .env("GEMINI_BATCHD__INTAKE__SETTLE", "0s")
        .env("GEMINI_BATCHD__INTAKE__WATCH", "poll")
        .envs(variables.iter().copied())
        .current_dir(folder.path())
        .output()
        .expect("the program runs");
    (folder, output)
}

/// The run ended as a fault of the configuration, said so, and kept the file for the next one.
fn assert_barred(folder: &Path, output: &Output, words: &[&str]) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(10), "{said}");
    for word in words {
        assert!(said.contains(word), "{word:?} is missing: {said}");
    }
    assert!(!said.contains(MARKER), "{said}");
    assert!(!folder.join("failed/a.jsonl").exists(), "{said}");
    let jobs = std::fs::read_dir(folder.join("working")).expect("listed").count();
    assert_eq!(jobs, 1, "the job is not lost: {said}");
}

/// Fault 63.
#[test]
fn an_expired_certificate_and_one_for_another_host_are_faults_of_the_configuration() {
    let authority = fixture("ca.pem");
    let trust = [("SSL_CERT_FILE", authority.to_str().expect("text"))];
    for (name, word) in [("expired.der", "expired"), ("other.der", "not valid for name")] {
        let (port, heard) = with_certificate(name);
        let (folder, output) = once(&format!("https://localhost:{port}"), &trust);
        assert_barred(folder.path(), &output, &[word, "certificate"]);
        assert!(heard.lock().expect("no panic holds it").is_empty());
    }
    // With a good one the server is reached, and refuses the key.
    let (port, heard) = with_certificate("good.der");
    let (_folder, output) = once(&format!("https://localhost:{port}"), &trust);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(12), "{said}");
    assert!(!heard.lock().expect("no panic holds it").is_empty());
}

/// Fault 63.
#[test]
fn a_proxy_that_wants_credentials_is_a_fault_of_the_configuration_and_gets_no_key() {
    let heard = Heard::default();
    let hears = Arc::clone(&heard);
    let port = serve(move |mut stream| {
        let mut buffer = [0; 4096];
        let Ok(read) = stream.read(&mut buffer) else { return };
        hears.lock().expect("no panic holds it").extend_from_slice(&buffer[..read]);
        let head = "HTTP/1.1 407 Proxy Authentication Required\r\nproxy-authenticate: Basic\r\n";
        let _ = write!(stream, "{head}content-length: 0\r\n\r\n");
        let _ = stream.read(&mut buffer);
    });
    let proxy = format!("http://127.0.0.1:{port}");
    let (folder, output) = once("https://api.invalid", &[("https_proxy", &proxy)]);
    assert_barred(folder.path(), &output, &["proxy", "https_proxy"]);
    let heard = String::from_utf8_lossy(&heard.lock().expect("no panic holds it")).into_owned();
    assert!(heard.starts_with("CONNECT api.invalid:443 "), "{heard}");
    assert!(!heard.contains(MARKER), "{heard}");
}
