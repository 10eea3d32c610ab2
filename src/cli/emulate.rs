//! `emulate`: a local Gemini Batch API, for rehearsals and tests.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use crate::provider::gemini::emulator::{self, Emulator, EmulatorError, Faults, Options, Webhook};
use crate::signature::Secret;

use super::{ExitCode, Failure, Globals, print_json};

/// The verb.
#[derive(Debug, Args)]
pub struct Emulate {
    /// Where to listen; port 0 picks one
    #[arg(long, value_name = "ADDR:PORT", default_value_t = SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))]
    pub listen: SocketAddr,
    /// How many times as fast as real time its clock runs
    #[arg(long, value_name = "N", default_value_t = 1.0, value_parser = speed)]
    pub speed: f64,
    /// A TOML file with the faults it is to show, such as `create_503_after = 1`
    #[arg(long, value_name = "FILE")]
    pub faults: Option<PathBuf>,
    /// Where it sends signed notices of batches that have ended, as the API does
    #[arg(long, value_name = "URL", requires = "webhook_secret")]
    pub webhook: Option<String>,
    /// The file with the secret of these notices, whsec_…
    #[arg(long, value_name = "FILE", requires = "webhook")]
    pub webhook_secret: Option<PathBuf>,
    /// How many tokens may be enqueued for each model; creates beyond them are refused with 429
    #[arg(long, value_name = "N")]
    pub enqueued_tokens: Option<u64>,
}

impl Emulate {
    /// Runs until Ctrl-C or SIGTERM.
    ///
    /// # Errors
    /// If it can not listen, or the faults are not understood.
    pub fn run(&self, globals: &Globals, out: &mut dyn Write) -> Result<ExitCode, Failure> {
        let mut faults = self.faults.as_deref().map(read_faults).transpose()?.unwrap_or_default();
        if let Some(tokens) = self.enqueued_tokens {
            faults.enqueued_tokens = tokens;
        }
        let webhook = self.webhook()?;
        let (listen, speed) = (self.listen, self.speed);
        let options = Options { listen, speed, faults, webhook, ..Options::default() };
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        runtime.block_on(async {
            // From here on Ctrl-C ends it in order, so that its folder is removed.
            let mut interrupt = signal(SignalKind::interrupt())?;
            let mut terminate = signal(SignalKind::terminate())?;
            let emulator = emulator::start(options).await?;
            tell(&emulator, globals.json, out)?;
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            emulator.stop().await;
            Ok(ExitCode::Complete)
        })
    }
}

impl Emulate {
    fn webhook(&self) -> Result<Option<Webhook>, Failure> {
        let (Some(url), Some(path)) = (&self.webhook, &self.webhook_secret) else {
            return Ok(None);
        };
        let wrong = |error: anyhow::Error| {
            let path = path.display();
            Failure::new(ExitCode::Usage, error)
                .leading_to(format!("the secret in {path} cannot be used"))
        };
        let text = std::fs::read_to_string(path).map_err(|error| wrong(error.into()))?;
        let no_secret = || wrong(anyhow::anyhow!("it is not whsec_ and base64"));
        let secret = Secret::parse(&text).ok_or_else(no_secret)?;
        Ok(Some(Webhook { url: url.clone(), secret }))
    }
}

/// Says where it listens, in the first line, and how to use it.
fn tell(emulator: &Emulator, json: bool, out: &mut dyn Write) -> std::io::Result<()> {
    let url = emulator.url();
    if json {
        print_json(out, &serde_json::json!({"url": url}))?;
    } else {
        writeln!(out, "listening on {url}")?;
        writeln!(out, "any key will do; a daemon speaks to it with")?;
        writeln!(out, "  GEMINI_API_KEY=any GEMINI_BATCHD__API__BASE_URL={url} gemini-batchd run")?;
        writeln!(out, "what it saw: {url}/emulator/journal; Ctrl-C ends it")?;
    }
    out.flush()
}

fn read_faults(path: &Path) -> Result<Faults, Failure> {
    let wrong = |error: anyhow::Error| {
        Failure::new(ExitCode::Usage, error)
            .leading_to(format!("the faults in {} cannot be used", path.display()))
    };
    let text = std::fs::read_to_string(path).map_err(|error| wrong(error.into()))?;
    toml::from_str(&text).map_err(|error| wrong(anyhow::Error::msg(error.to_string())))
}

fn speed(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(speed) if speed.is_finite() && speed > 0.0 => Ok(speed),
        Ok(_) | Err(_) => Err("write a number above 0, such as 10".to_owned()),
    }
}

impl From<EmulatorError> for Failure {
    fn from(error: EmulatorError) -> Failure {
        Failure::new(ExitCode::Failed, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_neither_stands_still_nor_runs_backwards() {
        assert_eq!(speed("2.5"), Ok(2.5));
        for text in ["0", "-1", "nan", "inf", "fast"] {
            assert!(speed(text).is_err(), "{text}");
        }
    }
}
