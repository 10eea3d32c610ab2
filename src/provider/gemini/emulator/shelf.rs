//! The files that a project's requests can name, as they are when a batch runs.
//!
//! A request that names a file which is not there, belongs to somebody else, has expired or is not
//! ready fails alone, when its row runs, as the service lets it (API contract, 3.6 and 7.7). Addresses
//! of other web servers are believed; a path of the client's machine never is.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::clock::Moment;
use super::server::Project;

/// The files of one project at one moment.
#[derive(Debug, Clone, Default)]
pub struct Shelf {
    files: BTreeMap<String, Shown>,
}

/// A file as rows see it.
#[derive(Debug, Clone)]
struct Shown {
    mime_type: String,
    bytes: u64,
    sha256_hex: String,
    is_active: bool,
}

impl Shelf {
    /// All files that a project has now, but for those with requests.
    pub(super) fn of(project: &Project, now: Moment) -> Shelf {
        let named = project.files.iter().filter(|(_, file)| {
            let is_input = ["jsonl", "application/jsonl"].contains(&file.mime_type.as_str());
            file.lives(now) && !is_input
        });
        let shown = named.map(|(id, file)| {
            let shown = Shown {
                mime_type: file.mime_type.clone(),
                bytes: file.bytes,
                sha256_hex: file.sha256_hex.clone(),
                is_active: file.state(now) == "ACTIVE",
            };
            (id.clone(), shown)
        });
        Shelf { files: shown.collect() }
    }

    /// What a request, given as JSON text, shows the model: a word for each file that it names.
    ///
    /// # Errors
    /// The code and the message with which its row fails.
    pub fn look(&self, request: &str) -> Result<String, (i32, String)> {
        let mut seen = String::new();
        for data in file_data(request) {
            let Some(uri) = data.file_uri.or(data.snake_uri) else {
                return Err((3, "* file_data.file_uri: must not be empty\n".to_owned()));
            };
            match self.find(&uri)? {
                None => seen.push_str(" [a file of another server]"),
                Some(Shown { mime_type, bytes, sha256_hex, .. }) => {
                    let sum = &sha256_hex[..8.min(sha256_hex.len())];
                    seen.push_str(&format!(" [{mime_type}, {bytes} bytes, sha256 {sum}…]"));
                }
            }
        }
        Ok(seen)
    }

    fn find(&self, uri: &str) -> Result<Option<&Shown>, (i32, String)> {
        let refused = || {
            let uri: String = uri.chars().take(100).collect();
            (3, format!("Invalid or unsupported file uri: {uri}"))
        };
        let (scheme, rest) = uri.split_once("://").ok_or_else(refused)?;
        let (_, path) = rest.split_once('/').unwrap_or((rest, ""));
        let ours = ["v1beta/files/", "v1/files/"].iter().find_map(|start| path.strip_prefix(start));
        let id = match (scheme, ours) {
            ("https" | "http", Some(id)) => id,
            ("https", None) => return Ok(None),
            (_, _) => return Err(refused()),
        };
        let Some(file) = self.files.get(id) else {
            let id: String = id.chars().take(100).collect();
            let message =
                format!("You do not have permission to access the File {id} or it may not exist.");
            return Err((7, message));
        };
        if !file.is_active {
            let message =
                format!("The File {id} is not in an ACTIVE state and usage is not allowed.");
            return Err((9, message));
        }
        Ok(Some(file))
    }
}

/// All that is read of a part that names a file.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct FileData {
    file_uri: Option<String>,
    #[serde(rename = "file_uri")]
    snake_uri: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Asked<'a> {
    #[serde(borrow)]
    contents: Option<&'a RawValue>,
    #[serde(borrow)]
    content: Option<&'a RawValue>,
    #[serde(borrow)]
    system_instruction: Option<&'a RawValue>,
    #[serde(borrow, rename = "system_instruction")]
    snake_instruction: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Said<'a> {
    #[serde(borrow)]
    parts: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Part {
    file_data: Option<FileData>,
    #[serde(rename = "file_data")]
    snake_data: Option<FileData>,
}

fn file_data(request: &str) -> Vec<FileData> {
    // Most requests name none.
    if !["fileData", "file_data"].iter().any(|name| request.contains(name)) {
        return Vec::new();
    }
    let Ok(asked) = serde_json::from_str::<Asked<'_>>(request) else { return Vec::new() };
    let instruction = asked.system_instruction.or(asked.snake_instruction);
    let said = [asked.contents, asked.content, instruction].into_iter().flatten().flat_map(all);
    let parts = said.filter_map(|said| serde_json::from_str::<Said<'_>>(said.get()).ok()?.parts);
    parts
        .flat_map(all)
        .filter_map(|part| serde_json::from_str::<Part>(part.get()).ok())
        .filter_map(|part| part.file_data.or(part.snake_data))
        .collect()
}

/// The elements of a list; anything else by itself.
fn all(value: &RawValue) -> Vec<&RawValue> {
    match value.get().starts_with('[') {
        true => serde_json::from_str(value.get()).unwrap_or_default(),
        false => vec![value],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shelf() -> Shelf {
        let file = |is_active| Shown {
            mime_type: "image/png".to_owned(),
            bytes: 7,
            sha256_hex: "0123456789abcdef".to_owned(),
            is_active,
        };
        let files = [("cat", true), ("film", false)];
        Shelf { files: files.map(|(id, active)| (id.to_owned(), file(active))).into() }
    }

    fn look(uri: &str) -> Result<String, (i32, String)> {
        let request = format!(
            r#"{{"contents":[{{"parts":[{{"text":"fileData"}},{{"fileData":{{"fileUri":"{uri}"}}}}]}}]}}"#
        );
        shelf().look(&request)
    }

    #[test]
    fn a_file_that_is_there_and_ready_is_seen() {
        for uri in ["https://there/v1beta/files/cat", "http://127.0.0.1:1/v1/files/cat"] {
            assert_eq!(look(uri), Ok(" [image/png, 7 bytes, sha256 01234567…]".to_owned()));
        }
        assert_eq!(look("https://there/cat.png"), Ok(" [a file of another server]".to_owned()));
        assert_eq!(shelf().look(r#"{"contents":[{"parts":{"text":"x"}}]}"#), Ok(String::new()));
    }

    #[test]
    fn any_other_file_fails_the_row_that_names_it() {
        for (uri, code) in [
            ("https://there/v1beta/files/dog", 7),
            ("https://there/v1beta/files/film", 9),
            ("http://there/cat.png", 3),
            ("file:cat.png", 3),
            ("file:///cat.png", 3),
            ("gs://bucket/cat.png", 3),
            ("files/cat", 3),
        ] {
            let (found, message) = look(uri).expect_err("refused");
            assert_eq!(found, code, "{uri}: {message}");
        }
        let bare = r#"{"content":{"parts":[{"file_data":{}}]}}"#;
        assert_eq!(shelf().look(bare).expect_err("refused").0, 3);
        let snake = r#"{"contents":[],"system_instruction":{"parts":{"file_data":{"file_uri":"https://x/v1/files/no"}}}}"#;
        assert_eq!(shelf().look(snake).expect_err("refused").0, 7);
    }
}
