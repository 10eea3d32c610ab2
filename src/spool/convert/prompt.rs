//! Requests made of prompts, and the words for a line of which none can be made.

use std::borrow::Cow;
use std::io;

use super::template::Template;
use super::unfit;
use crate::engine::job::Task;
use crate::spool::index::LineFate;

/// How prompts become requests.
pub struct Wording {
    task: Task,
    /// What is put around the text of a line, or together from the fields of a record.
    pub template: Option<Template>,
}

impl Wording {
    /// With the template of the queue, if it has one.
    ///
    /// # Errors
    /// If that is no template.
    pub fn new(task: Task, template: Option<&str>) -> io::Result<Wording> {
        let template = template.map(Template::parse).transpose().map_err(|what| {
            unfit("invalid_template", what, "Mend `template` in the settings of its queue.")
        })?;
        Ok(Wording { task, template })
    }

    /// Adds the request for a prompt, under a key.
    pub fn request<'p>(
        &self,
        key: &str,
        prompt: impl Iterator<Item = Cow<'p, str>>,
        lines: &mut Vec<u8>,
    ) {
        lines.extend_from_slice(b"{\"key\":");
        string(key, lines);
        lines.extend_from_slice(match self.task {
            Task::Generate => b",\"request\":{\"contents\":[{\"parts\":[{\"text\":".as_slice(),
            Task::Embed => b",\"request\":{\"content\":{\"parts\":[{\"text\":".as_slice(),
        });
        lines.push(b'"');
        for part in prompt {
            let start = lines.len();
            string(&part, lines);
            lines.remove(start);
            lines.pop();
        }
        lines.push(b'"');
        lines.extend_from_slice(match self.task {
            Task::Generate => b"}]}]}}".as_slice(),
            Task::Embed => b"}]}}}".as_slice(),
        });
    }
}

/// The key of a line that has none of its own.
pub fn line_key(number: u64) -> String {
    format!("line-{number}")
}

/// Why no request can be made of a line or a record.
pub struct Fault {
    /// The kind.
    pub fate: LineFate,
    /// What is wrong with it.
    pub message: String,
}

impl Fault {
    /// With its kind and words.
    pub fn new(fate: LineFate, message: String) -> Fault {
        Fault { fate, message }
    }

    /// Of one that has too many bytes to be looked at.
    pub fn too_long(what: &str, bytes: u64, limit: usize) -> Fault {
        let message =
            format!("the {what} has {bytes} bytes, more than the {limit} that one may have");
        Fault::new(LineFate::TooLong, message)
    }
}

/// The text of some bytes, if it can stand in a request; `place` is told in front of the fault.
///
/// # Errors
/// The fault.
pub fn text<'t>(bytes: &'t [u8], place: &str) -> Result<&'t str, Fault> {
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let byte = bytes[error.valid_up_to()];
        let message = format!("{place}byte 0x{byte:02x} is not UTF-8 text; save the file as UTF-8");
        Fault::new(LineFate::InvalidUtf8, message)
    })?;
    if memchr::memchr(0, bytes).is_some() {
        let message =
            format!("{place}a NUL byte stands here; the file was perhaps not written to its end");
        return Err(Fault::new(LineFate::NotARequest, message));
    }
    Ok(text)
}

/// Adds a JSON string.
pub fn string(text: &str, to: &mut Vec<u8>) {
    serde_json::to_writer(to, text).expect("a string always makes JSON, and memory takes it");
}
