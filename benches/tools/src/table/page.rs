//! How soon the dashboard is to be seen in a browser: with 10,000 jobs done and 1,000 under way.

use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use super::Bench;
use super::process::Server;
use super::records::filled_with;
use super::report::Row;

/// The rows; none that could be measured without a browser.
pub fn rows(bench: &Bench) -> Result<Vec<Row>, String> {
    let figure = "first paint of the dashboard with 11,000 jobs";
    let installed = std::env::var("BENCH_PAGE").ok().filter(|_| Path::new(BROWSER).exists());
    let Some(installed) = installed else {
        return Ok(vec![Row::only(figure, "not measured: needs chromium, Node and npm")]);
    };
    let server = Server::sink(&["--preload", "1000"])?;
    let address = free_address()?;
    let spool = filled_with(bench, &server, 10_000, 1_000)?
        .with("LIMITS__OPEN_BATCHES", "10000")
        .with("POLL__MIN", "10s")
        .with("POLL__MAX", "5m")
        .with("CONTROL__LISTEN", &address);
    let _daemon = spool.run()?;
    thread::sleep(Duration::from_secs(2));
    let mut script = Command::new("node");
    script.arg(Path::new(&installed).join("page.mjs")).arg(BROWSER);
    script.arg(format!("http://{address}/")).arg(bench.pick(5, 15).to_string());
    let output = script.env("NO_PROXY", "127.0.0.1").output().map_err(|error| error.to_string())?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let numbers: Vec<f64> = said.split_whitespace().filter_map(|one| one.parse().ok()).collect();
    let [paint, row] = numbers[..] else {
        return Err(format!("page.mjs: {said}{}", String::from_utf8_lossy(&output.stderr)));
    };
    let more = format!("the first row of jobs after {row:.0} ms; fresh profiles");
    Ok(vec![Row::most(figure, 300.0, paint, "ms", &more)])
}

/// An address that nobody has; the system gives away another port next.
fn free_address() -> Result<String, String> {
    let listener = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    listener.map(|address| address.to_string()).map_err(|error| error.to_string())
}

const BROWSER: &str = "/usr/bin/chromium";
