//! `submit`: put files into the inbox, and with `--wait` see them through.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use clap::Args;

use crate::config::Config;
use crate::spool::{At, source};
use crate::telemetry::escaped;

use super::dropping::{self, Dropped};
use super::explain::settings_beside;
use super::waiting::{Awaited, Baseline, Ending, PATIENCE, wait_for_all};
use super::{ExitCode, Failure, Globals, print_json, runtime};

/// The verb.
#[derive(Debug, Args)]
pub struct Submit {
    /// The files; `-` is standard input and needs --name
    #[arg(required = true)]
    pub files: Vec<PathBuf>,
    /// The queue: a sub-folder of the inbox [default: the inbox itself]
    #[arg(long, value_name = "Q")]
    pub queue: Option<String>,
    /// The name in the inbox, instead of the file's own
    #[arg(long, value_name = "NAME.jsonl")]
    pub name: Option<String>,
    /// Settings for these files alone, instead of those that lie beside them as NAME.job.toml
    #[arg(long, value_name = "FILE")]
    pub job_file: Option<PathBuf>,
    /// Send every line, also those whose answers are in the cache
    #[arg(long)]
    pub no_cache: bool,
    /// Wait until the results are in the outbox; the exit code is that of the worst file
    #[arg(long)]
    pub wait: bool,
}

impl Submit {
    /// Runs the verb.
    ///
    /// # Errors
    /// If a file can not be dropped. Files before it stay dropped.
    pub fn run(&self, globals: &Globals, out: &mut dyn Write) -> Result<ExitCode, Failure> {
        let config = globals.load()?;
        let sub = self.sub_folder(&config)?;
        let named = self.named()?;
        let mut awaited = Vec::new();
        for (path, name) in &named {
            let baseline = Baseline::of(&config.folders, &sub, name);
            let settings = self.settings(&config, &sub, path)?;
            let dropped = drop_one(&config, &sub, (path, name), settings.as_deref())?;
            if !globals.json {
                let file = escaped(&joined(&sub, &dropped.name));
                writeln!(out, "submitted {file} ({} bytes)", dropped.bytes)?;
            }
            awaited.push(Awaited { sub: sub.clone(), dropped, baseline });
        }
        out.flush()?;
        if !self.wait {
            if globals.json {
                let all: Vec<_> = awaited.iter().map(|one| json(one, None)).collect();
                print_json(out, &all)?;
            }
            return Ok(ExitCode::Complete);
        }
        let Some(endings) = runtime()?.block_on(wait_for_all(&config, &awaited, PATIENCE))? else {
            return Err(Failure::new(ExitCode::Interrupted, anyhow::Error::msg("interrupted"))
                .with_remedy("the files stay submitted; `gemini-batchd status` shows them"));
        };
        tell(&awaited, &endings, globals.json, out)
    }

    /// The sub-folder of the inbox; a queue nobody configured is most likely a slip.
    fn sub_folder(&self, config: &Config) -> Result<String, Failure> {
        let Some(queue) = self.queue.as_deref().filter(|queue| *queue != "default") else {
            return Ok(String::new());
        };
        if config.queue_for(queue).name != "default" && is_plain_path(queue) {
            return Ok(queue.to_owned());
        }
        let known: Vec<&str> = config.queues.keys().map(String::as_str).collect();
        let message = format!("there is no queue {queue:?}; configured are {}", known.join(", "));
        Err(Failure::usage(message)
            .with_remedy(format!("add [queue.{queue:?}] to the configuration file")))
    }

    /// The settings that lie beside a file, or the named ones, if they are right.
    fn settings(&self, config: &Config, sub: &str, path: &Path) -> Result<Option<String>, Failure> {
        let found = match (&self.job_file, path.file_name().and_then(|name| name.to_str())) {
            (Some(file), _) => {
                Some((file.clone(), std::fs::read_to_string(file).at("read", file)?))
            }
            (None, Some(name)) if path != Path::new("-") => {
                let folder = path.parent().filter(|folder| *folder != Path::new(""));
                let folder = folder.unwrap_or(Path::new("."));
                settings_beside(folder, name)?.map(|(name, text)| (folder.join(name), text))
            }
            (None, _) => None,
        };
        if let Some((file, text)) = &found {
            config.explain(sub, Some((file, text)))?;
        }
        let text = found.map(|(_, text)| text);
        Ok(if self.no_cache { Some(without_cache(text.as_deref())) } else { text })
    }

    /// Every file with the name it is to have.
    fn named(&self) -> Result<Vec<(PathBuf, String)>, Failure> {
        if self.name.is_some() && self.files.len() > 1 {
            return Err(Failure::usage("--name goes with one file only".to_owned()));
        }
        self.files.iter().map(|path| Ok((path.clone(), self.name_for(path)?))).collect()
    }

    fn name_for(&self, path: &Path) -> Result<String, Failure> {
        let own = path.file_name().and_then(|name| name.to_str());
        let name = match (&self.name, own) {
            (Some(name), _) => name.clone(),
            (None, _) if path == Path::new("-") => {
                return Err(Failure::usage("standard input has no name".to_owned())
                    .with_remedy("add --name NAME.jsonl"));
            }
            (None, Some(own)) => own.to_owned(),
            (None, None) => {
                let message = format!("{} has no name that can be used", path.display());
                return Err(Failure::usage(message).with_remedy("add --name NAME.jsonl"));
            }
        };
        // What the daemon would refuse is better told before it is dropped.
        let refuse = |what: &str| {
            Failure::usage(format!(
                "`{}` is no name for the inbox: it {what}",
                source::spoken(name.as_ref())
            ))
            .with_remedy(format!("use a name that ends in {} (see --name)", source::ENDINGS_TOLD))
        };
        source::check_name(name.as_ref()).map_err(refuse)?;
        if source::ending(&name) == source::Ending::Unknown {
            return Err(refuse("has another ending"));
        }
        Ok(name)
    }
}

/// Settings for one file, which are right, with the cache off.
fn without_cache(settings: Option<&str>) -> String {
    let mut table: toml::Table = settings.and_then(|text| text.parse().ok()).unwrap_or_default();
    table.insert("cache".to_owned(), "off".into());
    table.to_string()
}

fn drop_one(
    config: &Config,
    sub: &str,
    (path, name): (&Path, &str),
    settings: Option<&str>,
) -> Result<Dropped, Failure> {
    let mut content: Box<dyn Read> =
        if path == Path::new("-") { Box::new(io::stdin().lock()) } else { Box::new(open(path)?) };
    let folder = config.folders.inbox.join(sub);
    dropping::drop_with(&folder, name, &mut content, settings)
        .map_err(|error| Failure::from(error).leading_to("the file was not submitted"))
}

fn open(path: &Path) -> Result<File, Failure> {
    let failed = |error: io::Error| {
        Failure::new(ExitCode::Failed, anyhow::Error::new(error))
            .leading_to(format!("{} cannot be submitted", path.display()))
    };
    // Before opening: a FIFO would never come back.
    if !std::fs::metadata(path).map_err(failed)?.is_file() {
        return Err(failed(io::Error::other("it is not a regular file"))
            .with_remedy("name a file, or pipe into `gemini-batchd submit - --name NAME.jsonl`"));
    }
    File::open(path).map_err(failed)
}

fn tell(
    awaited: &[Awaited],
    endings: &[Ending],
    as_json: bool,
    out: &mut dyn Write,
) -> Result<ExitCode, Failure> {
    let mut worst = ExitCode::Complete;
    for (one, ending) in awaited.iter().zip(endings) {
        worst = worst.worst(ending.code());
        if !as_json {
            writeln!(out, "{}: {ending}", escaped(&joined(&one.sub, &one.dropped.name)))?;
        }
    }
    if as_json {
        let all: Vec<_> =
            awaited.iter().zip(endings).map(|(one, ending)| json(one, Some(ending))).collect();
        print_json(out, &all)?;
    }
    Ok(worst)
}

fn json(one: &Awaited, ending: Option<&Ending>) -> serde_json::Value {
    let mut value = serde_json::json!({
        "file": joined(&one.sub, &one.dropped.name),
        "path": one.dropped.path.display().to_string(),
        "bytes": one.dropped.bytes,
        "sha256": one.dropped.sha256,
    });
    if let Some(ending) = ending {
        value["ending"] = ending.to_json();
    }
    value
}

fn joined(sub: &str, name: &str) -> String {
    if sub.is_empty() { name.to_owned() } else { format!("{sub}/{name}") }
}

fn is_plain_path(queue: &str) -> bool {
    let plain = |part: &str| !part.is_empty() && !part.starts_with('.');
    queue.split('/').all(plain) && !queue.contains(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn submit(files: &[&str], name: Option<&str>) -> Submit {
        let files = files.iter().map(PathBuf::from).collect();
        Submit {
            files,
            queue: None,
            name: name.map(str::to_owned),
            job_file: None,
            wait: false,
            no_cache: false,
        }
    }

    #[test]
    fn names_that_the_inbox_would_refuse_are_refused_before() {
        for (file, name) in [
            ("-", None),
            ("a.pdf", None),
            ("a.jsonl", Some("../a.jsonl")),
            ("a.jsonl", Some(".a.jsonl")),
            ("a.jsonl", Some("a\n.jsonl")),
            ("..", None),
        ] {
            let failure = submit(&[file], name).named().expect_err(file);
            assert_eq!(failure.code, ExitCode::Usage, "{file} {name:?}");
            assert!(failure.remedy.is_some());
        }
        assert!(submit(&["a.jsonl", "b.jsonl"], Some("c.jsonl")).named().is_err());
    }

    #[test]
    fn a_file_keeps_its_name_and_standard_input_gets_one() {
        let names = submit(&["x/a.jsonl", "b.csv.gz"], None).named().expect("fine");
        assert_eq!(names[0].1, "a.jsonl");
        assert_eq!(names[1].1, "b.csv.gz");
        assert_eq!(submit(&["-"], Some("n.jsonl")).named().expect("fine")[0].1, "n.jsonl");
    }
}
