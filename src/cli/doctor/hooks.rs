//! Whether hooks can be called, and notices of the API be heard.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::config::Call;

use super::{Context, Finding};

/// Programs that hooks name, and webhooks without a signature.
pub fn hooks(context: &Context) -> Vec<Finding> {
    let hooks = &context.config.hooks;
    let mut findings = Vec::new();
    for (occasion, call) in &hooks.calls {
        let key = occasion.key();
        let finding = match call {
            Call::Program(words) => {
                let program = words.first().map_or("", String::as_str);
                match can_be_run(Path::new(program)) {
                    Ok(()) => Finding::ok("hooks", format!("{key} calls {program}")),
                    Err(why) => {
                        let remedy = Some(format!("mend hooks.{key}, or chmod +x it"));
                        Finding::fail("hooks", format!("{key} names {program}: {why}"), remedy)
                    }
                }
            }
            Call::Url(_) if hooks.secret.is_none() => Finding::warn(
                "hooks",
                format!("{key} sends to {call} without a signature"),
                "set hooks.secret_file, so that it can be told who sends",
            ),
            Call::Url(_) => Finding::ok("hooks", format!("{key} sends to {call}")),
        };
        findings.push(finding);
    }
    findings.extend(context.config.wakeup.as_ref().map(|wakeup| {
        let text = format!("notices of the API are heard at {}", wakeup.listen);
        match wakeup.listen.ip().is_loopback() {
            true => Finding::ok("webhook", text),
            false => Finding::warn(
                "webhook",
                format!("{text}, in clear, by everybody who can reach it"),
                "listen on 127.0.0.1, behind a proxy with TLS",
            ),
        }
    }));
    findings
}

fn can_be_run(path: &Path) -> Result<(), String> {
    let found = std::fs::metadata(path).map_err(|error| error.to_string())?;
    match found.is_file() && found.permissions().mode() & 0o111 != 0 {
        true => Ok(()),
        false => Err("it is no program that can be run".to_owned()),
    }
}
