//! The configuration, the keys, and whether the API does what the queues ask of it.

use std::collections::BTreeMap;

use crate::clock::{Clock, SystemClock};
use crate::config::{Key, KeyProblem};
use crate::engine::event::Failure;
use crate::engine::job::Task;
use crate::provider::gemini::Client;

use super::super::ExitCode;
use super::super::remote::{refused, words};
use super::{Context, Finding, service};

/// Where the configuration comes from. It is there, or nothing would be checked.
pub fn configuration(context: &Context) -> Vec<Finding> {
    let config = &context.config;
    let from = match &config.file {
        Some(path) => path.display().to_string(),
        None => "no file, all defaults".to_owned(),
    };
    let queues = match config.queues.len() {
        1 => "1 queue".to_owned(),
        count => format!("{count} queues"),
    };
    vec![Finding::ok("configuration", format!("{from}; {queues}"))]
}

/// Whether each key is there, and the API takes it.
pub fn keys(context: &Context) -> Vec<Finding> {
    let config = &context.config;
    let is_needed = config.queues.values().any(|queue| queue.credential.is_empty());
    let default = match &config.api.key {
        Err(KeyProblem::Missing) if !is_needed => None,
        key => Some(("", key)),
    };
    let named = config.credentials.iter().map(|(name, key)| (name.as_str(), key));
    default.into_iter().chain(named).map(|(name, key)| one_key(context, name, key)).collect()
}

fn one_key(context: &Context, name: &str, key: &Result<Key, KeyProblem>) -> Finding {
    let fail = |text: String, remedy: Option<String>, code: ExitCode| Finding {
        code,
        ..Finding::fail("key", text, remedy)
    };
    let key = match key {
        Ok(key) => key,
        Err(problem) => {
            let is_missing =
                matches!(problem, KeyProblem::Missing | KeyProblem::MissingNamed { .. });
            let remedy = (is_missing && service::is_installed()).then(|| {
                "the installed service has its own: run this as systemd/README.md says".to_owned()
            });
            return fail(problem.to_string(), remedy, ExitCode::Credentials);
        }
    };
    let which = match name {
        "" => format!("from {}", key.source),
        name => format!("of {name}, from {}", key.source),
    };
    if context.offline {
        return Finding::ok("key", format!("{which}; not tried"));
    }
    let Some(client) = context.client(name) else {
        return match super::super::remote::client(&context.config, name) {
            Err(failure) => fail(format!("{:#}", failure.error), failure.remedy, failure.code),
            Ok(_) => Finding::ok("key", format!("{which}; not tried")),
        };
    };
    match context.ask(client.check_key()) {
        Ok(()) => Finding::ok("key", format!("{which}; the API lists batches with it")),
        Err(failure) => {
            let failure = refused(failure);
            // It is being told already that this is the doctor.
            let remedy = match failure.code {
                ExitCode::Credentials | ExitCode::Configuration => failure.remedy,
                _ => Some("check network, api.base_url and proxy, then try again".to_owned()),
            };
            fail(format!("{which}: {:#}", failure.error), remedy, failure.code)
        }
    }
}

/// Whether this machine's clock and the API's agree.
pub fn clock(context: &Context) -> Vec<Finding> {
    let now = SystemClock.now();
    let skews = context.clients.iter().filter_map(|(_, client)| client.server_time_skew(now));
    let Some(skew_ms) = skews.max_by_key(|skew| skew.unsigned_abs()) else { return Vec::new() };
    let by = words::span(skew_ms.unsigned_abs());
    if skew_ms.unsigned_abs() <= SKEW_MAX_MS {
        return vec![Finding::ok("clock", format!("within {} s of the API's", SKEW_MAX_MS / 1000))];
    }
    let way = if skew_ms > 0 { "behind" } else { "ahead of" };
    vec![Finding::warn(
        "clock",
        format!("this machine's is {by} {way} the API's"),
        "let it be set by NTP, such as with `timedatectl set-ntp true`",
    )]
}

/// Whether the model of each queue is there, and can be batched.
pub fn models(context: &Context) -> Vec<Finding> {
    let mut asked: BTreeMap<(&str, &str, &str), Vec<&str>> = BTreeMap::new();
    for queue in context.config.queues.values() {
        let method = match queue.task {
            Task::Generate => "batchGenerateContent",
            Task::Embed => "asyncBatchEmbedContent",
        };
        let by = (queue.credential.as_str(), queue.model.as_str(), method);
        asked.entry(by).or_default().push(&queue.name);
    }
    let one = |((credential, model, method), queues): ((&str, &str, &str), Vec<&str>)| {
        // One that never answered has been told of with its key.
        let answered = |client: &&Client| client.server_time_skew(SystemClock.now()).is_some();
        let client = context.client(credential).filter(answered)?;
        let queues = queues.join(", ");
        let remedy = format!(
            "choose another model for {queues}: https://ai.google.dev/gemini-api/docs/models"
        );
        match context.ask(client.model_methods(model)) {
            Ok(Some(methods)) if methods.iter().any(|known| known == method) => {
                Some(Finding::ok("model", format!("{model} can be batched (queue {queues})")))
            }
            // Some models say nothing of what they can do.
            Ok(Some(methods)) if methods.is_empty() => {
                let text = format!("{model} does not tell whether it can be batched");
                Some(Finding::warn("model", text, "try it with a file of one line"))
            }
            Ok(Some(_)) => {
                let text = format!("{model} knows no {method}");
                Some(Finding::fail("model", text, Some(remedy)))
            }
            Ok(None) => {
                let text = format!("there is no model {model} for this key");
                Some(Finding::fail("model", text, Some(remedy)))
            }
            // That was told with the key.
            Err(Failure::Denied(_) | Failure::Barred(_)) => None,
            Err(failure) => {
                let text = format!("{model} could not be asked for: {}", failure.message());
                Some(Finding::warn("model", text, "try again"))
            }
        }
    };
    asked.into_iter().filter_map(one).collect()
}

/// The API's times are compared with ours; so much does no harm.
const SKEW_MAX_MS: u64 = 60_000;
