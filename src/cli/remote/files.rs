//! `remote files`: what was uploaded to the API.

use std::io::{self, Write};
use std::ops::ControlFlow;

use serde_json::{Value, json};

use crate::engine::ids::{FileName, JobId, Millis, Stamp};
use crate::provider::gemini::RemoteFile;
use crate::spool::media::addresses;
use crate::telemetry::escaped;
use crate::view::{VERSION, moment};

use super::super::{Failure, print_json};
use super::{Api, Asked, gone, one, words};

/// Lists the files of this program, or all of them, as their pages come in.
///
/// # Errors
/// If a page can not be had, or nothing be written.
pub fn list(api: &Api, all: bool, out: &mut dyn Write) -> Result<(), Failure> {
    let (mut rows, mut shown, mut others, mut bytes) = (Vec::new(), 0u64, 0u64, 0u64);
    let mut broken = None;
    let mut take = |file: RemoteFile| -> io::Result<()> {
        if !all && job_of(&file).is_none() {
            others += 1;
            return Ok(());
        }
        shown += 1;
        bytes = bytes.saturating_add(file.bytes);
        if api.json {
            rows.push(as_json(&file));
            return Ok(());
        }
        if shown == 1 {
            writeln!(out, "  {:<46} {:>8} {:>8} STATE", "NAME", "SIZE", "AGE")?;
        }
        row(&file, api.now(), out)
    };
    let each = |file: RemoteFile| match take(file) {
        Ok(()) => ControlFlow::Continue(()),
        Err(error) => {
            broken = Some(error);
            ControlFlow::Break(())
        }
    };
    api.wait(api.client.each_file(each))?;
    if let Some(error) = broken {
        return Err(Failure::from(error));
    }
    if api.json {
        let said = json!({"version": VERSION, "files": rows, "others": others, "bytes": bytes});
        print_json(out, &said)?;
        return Ok(());
    }
    match shown {
        0 => writeln!(out, "no files{}", if all { "" } else { " of this program" })?,
        _ => writeln!(out, "{shown} files, {}", words::size(bytes))?,
    }
    if others > 0 {
        writeln!(out, "{others} of others are not shown; --all shows them")?;
    }
    Ok(())
}

/// Shows a file.
///
/// # Errors
/// If it is not there, or the API can not be asked.
pub fn get(api: &Api, name: &FileName, out: &mut dyn Write) -> Result<(), Failure> {
    let file = find(api, name)?;
    if api.json {
        print_json(out, &json!({"version": VERSION, "file": as_json(&file)}))?;
        return Ok(());
    }
    let mut line = |word: &str, text: String| writeln!(out, "{word:<9}{text}");
    line("name", file.name.0.clone())?;
    if let Some(whose) = whose(&file) {
        line("of", whose)?;
    } else if !file.display_name.is_empty() {
        line("called", escaped(&file.display_name))?;
    }
    if !file.state.is_empty() {
        line("state", escaped(&file.state))?;
    }
    line("size", format!("{} ({} bytes)", words::size(file.bytes), file.bytes))?;
    if let Some(at) = file.created {
        line("created", one::ago(at, api.now()))?;
    }
    if let Some(at) = file.expires {
        line("expires", moment(at))?;
    }
    Ok(())
}

/// Removes a file.
///
/// # Errors
/// If it is not there, a job of this spool may need it, nobody says yes, or the API refuses.
pub fn delete(
    api: &Api,
    name: &FileName,
    asked: Asked,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let file = find(api, name)?;
    if let Some(job) = job_of(&file).filter(|_| !asked.force) {
        api.guard(job, &name.0)?;
    }
    api.confirm(&format!("Remove {} for good?", name.0), asked)?;
    api.wait(api.client.delete_file(name))?;
    match api.json {
        true => {
            print_json(out, &json!({"version": VERSION, "file": name.0, "asked": "delete"}))?;
        }
        false => writeln!(out, "{} is removed", name.0)?,
    }
    Ok(())
}

fn find(api: &Api, name: &FileName) -> Result<RemoteFile, Failure> {
    api.wait(api.client.describe_file(name))?.ok_or_else(|| gone(&name.0))
}

/// The job whose input a file is, or whose lines name it.
fn job_of(file: &RemoteFile) -> Option<JobId> {
    let input = || Stamp::parse(&file.display_name).or_else(|| Stamp::parse_file(&file.name));
    addresses::job_of(&file.display_name).or_else(|| input().map(|(job, _, _)| job))
}

/// The same in words.
fn whose(file: &RemoteFile) -> Option<String> {
    match Stamp::parse(&file.display_name).or_else(|| Stamp::parse_file(&file.name)) {
        Some(attempt) => Some(words::attempt(attempt)),
        None => job_of(file).map(|job| format!("job {job}, a file that its lines name")),
    }
}

fn as_json(file: &RemoteFile) -> Value {
    json!({
        "name": file.name.0,
        "display_name": file.display_name,
        "ours": job_of(file).is_some(),
        "job": job_of(file).map(|job| job.to_string()),
        "state": Some(&file.state).filter(|state| !state.is_empty()),
        "bytes": file.bytes,
        "created": file.created.map(moment),
        "expires": file.expires.map(moment),
    })
}

/// A file in one line, and in a second one whose it is.
fn row(file: &RemoteFile, now: Millis, out: &mut dyn Write) -> io::Result<()> {
    let mark = if job_of(file).is_some() { '*' } else { ' ' };
    let age = file.created.map_or_else(|| "?".to_owned(), |at| words::span(now.since(at)));
    let (name, size, state) =
        (&file.name.0, words::size(file.bytes), words::short(&file.state, 12));
    writeln!(out, "{}", format!("{mark} {name:<46} {size:>8} {age:>8} {state}").trim_end())?;
    match whose(file) {
        Some(whose) => writeln!(out, "    {whose}"),
        None if file.display_name.is_empty() => Ok(()),
        None => writeln!(out, "    {}", words::short(&file.display_name, 76)),
    }
}
