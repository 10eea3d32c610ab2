//! Which call a method and a path are, and which query parameters it takes (API contract, 1.1 and
//! section 2).

use axum::http::Method;

use super::faults::CallKind;
use super::reply::Reply;
use crate::engine::job::Task;

/// Where a request goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route<'a> {
    /// To the emulator itself: what stands behind `/emulator/`.
    Emulator(&'a str),
    /// To the API.
    Api {
        /// `v1` or `v1beta`.
        version: &'static str,
        /// The call.
        call: Call,
    },
}

/// A call of the API that is emulated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    /// `models.batchGenerateContent` or `models.asyncBatchEmbedContent`.
    Create {
        /// Without `models/`.
        model: String,
        /// Which of them.
        task: Task,
    },
    /// `batches.get`.
    Get {
        /// Without `batches/`.
        id: String,
    },
    /// `batches.list`.
    List,
    /// `batches.cancel`.
    Cancel {
        /// Without `batches/`.
        id: String,
    },
    /// `batches.delete`.
    Delete {
        /// Without `batches/`.
        id: String,
    },
    /// A batch through the OpenAI-compatible layer.
    LayerCreate,
    /// One of these batches.
    LayerGet {
        /// Without `batches/`.
        id: String,
    },
    /// All of them.
    LayerList,
    /// To stop one of them.
    LayerCancel {
        /// Without `batches/`.
        id: String,
    },
    /// `media.upload`, the start of a session.
    UploadStart,
    /// Anything sent to a session.
    UploadSession,
    /// `files.get`.
    FileGet {
        /// Without `files/`.
        id: String,
    },
    /// `files.list`.
    FileList,
    /// `files.delete`.
    FileDelete {
        /// Without `files/`.
        id: String,
    },
    /// The download of a generated file.
    Download {
        /// Without `files/`.
        id: String,
    },
    /// `models.generateContent` or `models.embedContent`.
    Ask {
        /// Without `models/`.
        model: String,
        /// Which of them.
        task: Task,
    },
    /// `models.get`.
    Model {
        /// Without `models/`.
        model: String,
    },
}

impl Call {
    /// How faults are aimed at it.
    pub fn kind(&self) -> CallKind {
        match self {
            Call::Create { .. } | Call::LayerCreate => CallKind::Create,
            Call::Get { .. } | Call::LayerGet { .. } => CallKind::Get,
            Call::List | Call::LayerList => CallKind::List,
            Call::Cancel { .. } | Call::LayerCancel { .. } => CallKind::Cancel,
            Call::Delete { .. } => CallKind::Delete,
            Call::UploadStart => CallKind::UploadStart,
            Call::UploadSession => CallKind::Upload,
            Call::FileGet { .. } => CallKind::FileGet,
            Call::FileList => CallKind::FileList,
            Call::FileDelete { .. } => CallKind::FileDelete,
            Call::Download { .. } => CallKind::Download,
            Call::Model { .. } => CallKind::Model,
            Call::Ask { .. } => CallKind::Ask,
        }
    }

    /// Whether it takes the key as OpenAI does.
    pub fn is_of_layer(&self) -> bool {
        matches!(
            self,
            Call::LayerCreate | Call::LayerGet { .. } | Call::LayerList | Call::LayerCancel { .. }
        )
    }

    /// Query parameters beyond those that every call takes.
    fn takes(&self) -> &'static [&'static str] {
        match self {
            Call::List => &["pageSize", "pageToken", "filter", "returnPartialSuccess"],
            Call::FileList => &["pageSize", "pageToken"],
            Call::UploadStart | Call::UploadSession => &["upload_id"],
            Call::LayerList => &["limit", "after"],
            Call::LayerCreate
            | Call::LayerGet { .. }
            | Call::LayerCancel { .. }
            | Call::Create { .. }
            | Call::Get { .. }
            | Call::Cancel { .. }
            | Call::Delete { .. }
            | Call::FileGet { .. }
            | Call::FileDelete { .. }
            | Call::Download { .. }
            | Call::Ask { .. }
            | Call::Model { .. } => &[],
        }
    }
}

impl<'a> Route<'a> {
    /// Finds the call. Only the query tells an upload's start from its session: see
    /// [`Query::refine`].
    ///
    /// # Errors
    /// The answer to what is not emulated.
    pub fn find(method: &Method, path: &'a str) -> Result<Route<'a>, Reply> {
        if let Some(name) = path.strip_prefix("/emulator/") {
            return Ok(Route::Emulator(name));
        }
        let path = path.replace("%3A", ":").replace("%3a", ":");
        let (door, rest) = match path.split_at_checked(1).map(|(_, rest)| rest) {
            Some(rest) => match rest.split_once('/') {
                Some((door @ ("upload" | "download"), rest)) => (door, rest),
                Some(_) | None => ("", rest),
            },
            None => ("", ""),
        };
        let (version, rest) = match rest.split_once('/') {
            Some(("v1beta", rest)) => ("v1beta", rest),
            Some(("v1", rest)) => ("v1", rest),
            Some(_) | None => return Err(unknown(method, &path)),
        };
        let parts: Vec<&str> = rest.split('/').collect();
        let call = match door {
            "upload" => match (method, parts.as_slice()) {
                (&Method::POST, ["files"]) => Some(Call::UploadStart),
                _ => None,
            },
            "download" => match (method, parts.as_slice()) {
                (&Method::GET, ["files", file]) => {
                    file.strip_suffix(":download").map(|id| Call::Download { id: id.to_owned() })
                }
                _ => None,
            },
            // The layer is documented for one version only.
            _ if version == "v1" && parts[0] == "openai" => None,
            _ => Self::plain(method, &parts)?,
        };
        call.map(|call| Route::Api { version, call }).ok_or_else(|| unknown(method, &path))
    }

    fn plain(method: &Method, parts: &[&str]) -> Result<Option<Call>, Reply> {
        let get = method == Method::GET;
        let post = method == Method::POST;
        let delete = method == Method::DELETE;
        Ok(match parts {
            ["batches"] if get => Some(Call::List),
            ["batches", name] => match name.split_once(':') {
                None if get => Some(Call::Get { id: (*name).to_owned() }),
                None if delete => Some(Call::Delete { id: (*name).to_owned() }),
                Some((id, "cancel")) if post => Some(Call::Cancel { id: id.to_owned() }),
                Some((_, "updateGenerateContentBatch" | "updateEmbedContentBatch")) => {
                    return Err(unimplemented("Updating a batch"));
                }
                Some(_) | None => None,
            },
            ["files"] if get => Some(Call::FileList),
            ["files"] if post => return Err(unimplemented("A file without content")),
            ["files:register"] => return Err(unimplemented("Registering files")),
            ["files", name] => match name.split_once(':') {
                None if get => Some(Call::FileGet { id: (*name).to_owned() }),
                None if delete => Some(Call::FileDelete { id: (*name).to_owned() }),
                Some((id, "download")) if get => Some(Call::Download { id: id.to_owned() }),
                Some(_) | None => None,
            },
            ["models"] => return Err(unimplemented("Listing models")),
            ["models", name] => match name.split_once(':') {
                None if get => Some(Call::Model { model: (*name).to_owned() }),
                Some((model, "batchGenerateContent")) if post => {
                    Some(Call::Create { model: model.to_owned(), task: Task::Generate })
                }
                Some((model, "asyncBatchEmbedContent")) if post => {
                    Some(Call::Create { model: model.to_owned(), task: Task::Embed })
                }
                Some((model, "generateContent")) if post => {
                    Some(Call::Ask { model: model.to_owned(), task: Task::Generate })
                }
                Some((model, "embedContent")) if post => {
                    Some(Call::Ask { model: model.to_owned(), task: Task::Embed })
                }
                Some((_, verb)) if post => {
                    let verb: String = verb.chars().take(60).collect();
                    return Err(unimplemented(&format!("models.{verb}")));
                }
                Some(_) | None => None,
            },
            ["tunedModels", ..] => return Err(unimplemented("Tuned models")),
            ["openai", "batches", rest @ ..] => return Self::layer(method, &rest.join("/")),
            ["openai", ..] => {
                return Err(unimplemented("Of the OpenAI-compatible layer only batches:"));
            }
            ["webhooks" | "cachedContents" | "corpora" | "fileSearchStores", ..] => {
                return Err(unimplemented("This resource"));
            }
            _ => None,
        })
    }
}

impl Route<'_> {
    /// A call below `openai/batches`. Some clients write the slash of an id as `%2F`.
    fn layer(method: &Method, rest: &str) -> Result<Option<Call>, Reply> {
        let (get, post) = (method == Method::GET, method == Method::POST);
        let rest = rest.replace("%2F", "/").replace("%2f", "/");
        let bare = |id: &str| id.strip_prefix("batches/").unwrap_or(id).to_owned();
        Ok(match rest.strip_suffix("/cancel") {
            _ if rest.is_empty() && get => Some(Call::LayerList),
            _ if rest.is_empty() && post => Some(Call::LayerCreate),
            Some(id) if post => Some(Call::LayerCancel { id: bare(id) }),
            None if get => Some(Call::LayerGet { id: bare(&rest) }),
            Some(_) | None => None,
        })
    }
}

/// The query of a request.
#[derive(Debug, Clone, Default)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Takes a query string apart.
    pub fn read(query: &str) -> Query {
        Query(url::form_urlencoded::parse(query.as_bytes()).into_owned().collect())
    }

    /// The value of a parameter.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// An upload that names its session is a call on that session.
    pub fn refine(&self, call: Call) -> Call {
        if call == Call::UploadStart && self.get("upload_id").is_some() {
            return Call::UploadSession;
        }
        call
    }

    /// Whether the call takes all these parameters.
    ///
    /// # Errors
    /// The answer if not.
    pub fn check(&self, call: &Call) -> Result<(), Reply> {
        for (name, value) in &self.0 {
            let known =
                EVERY_CALL_TAKES.contains(&name.as_str()) || call.takes().contains(&name.as_str());
            if !known {
                let name: String = name.chars().take(60).collect();
                let message = format!(
                    "Invalid JSON payload received. Unknown name \"{name}\": Cannot bind query \
                     parameter. Field '{name}' could not be found in request message."
                );
                return Err(Reply::refused(400, message));
            }
            match (name.as_str(), value.as_str()) {
                ("alt", "json" | "media") | ("$alt", "json") => {}
                ("alt" | "$alt" | "callback", _) => {
                    return Err(unimplemented("This form of answer"));
                }
                ("filter", _) => return Err(unimplemented("Filtering")),
                ("returnPartialSuccess", "true") => return Err(unimplemented("Partial success")),
                ("access_token" | "oauth_token", _) => {
                    return Err(Reply::refused(
                        401,
                        "Request had invalid authentication credentials.",
                    ));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The members to show; all if `None`.
    ///
    /// # Errors
    /// The answer to selectors that reach deeper.
    pub fn fields(&self) -> Result<Option<Vec<String>>, Reply> {
        let Some(fields) = self.get("fields") else { return Ok(None) };
        let plain = |name: &str| name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        let names: Vec<String> = fields.split(',').map(|name| name.trim().to_owned()).collect();
        if names.iter().any(|name| !plain(name)) {
            return Err(unimplemented("Selecting fields below the top level"));
        }
        Ok(Some(names))
    }

    /// Page size and page token.
    ///
    /// # Errors
    /// The answer to a size that is no number.
    pub fn page(&self) -> Result<(Option<usize>, Option<&str>), Reply> {
        let size = match self.get("pageSize").map(str::parse::<i32>) {
            None | Some(Ok(0)) => None,
            Some(Ok(size)) if size > 0 => usize::try_from(size).ok(),
            Some(Ok(_)) => return Err(Reply::refused(400, "page_size must not be negative.")),
            Some(Err(_)) => {
                let message = "Invalid value at 'page_size' (TYPE_INT32)";
                return Err(Reply::refused(400, message));
            }
        };
        Ok((size, self.get("pageToken").filter(|token| !token.is_empty())))
    }
}

fn unimplemented(what: &str) -> Reply {
    Reply::refused(501, format!("{what}: not emulated."))
}

fn unknown(method: &Method, path: &str) -> Reply {
    let path: String = path.chars().take(200).collect();
    Reply::refused(404, format!("The emulator knows no call {method} {path}."))
}

const EVERY_CALL_TAKES: &[&str] = &[
    "$.xgafv",
    "$alt",
    "access_token",
    "alt",
    "callback",
    "fields",
    "key",
    "oauth_token",
    "prettyPrint",
    "quotaUser",
    "uploadType",
    "upload_protocol",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn call(method: &Method, path: &str) -> Option<Call> {
        match Route::find(method, path) {
            Ok(Route::Api { call, .. }) => Some(call),
            Ok(Route::Emulator(_)) | Err(_) => None,
        }
    }

    #[test]
    fn both_versions_and_both_download_paths_are_served() {
        let id = || "batch-1".to_owned();
        for version in ["v1", "v1beta"] {
            for door in ["", "/download"] {
                let path = format!("{door}/{version}/files/batch-1:download");
                assert_eq!(call(&Method::GET, &path), Some(Call::Download { id: id() }));
            }
            assert_eq!(call(&Method::GET, &format!("/{version}/batches")), Some(Call::List));
        }
        assert_eq!(call(&Method::GET, "/v2/batches"), None);
    }

    #[test]
    fn the_wrong_verbs_of_the_guide_are_no_calls() {
        assert_eq!(call(&Method::GET, "/v1beta/batches/x:cancel"), None);
        assert_eq!(call(&Method::DELETE, "/v1beta/batches/x:delete"), None);
        assert_eq!(call(&Method::POST, "/v1beta/batches/x:delete"), None);
    }

    #[test]
    fn the_layers_batches_are_found_however_their_ids_are_written() {
        let id = || "b1".to_owned();
        for path in ["b1", "batches/b1", "batches%2Fb1"] {
            let path = format!("/v1beta/openai/batches/{path}");
            assert_eq!(call(&Method::GET, &path), Some(Call::LayerGet { id: id() }));
            let cancel = call(&Method::POST, &format!("{path}/cancel"));
            assert_eq!(cancel, Some(Call::LayerCancel { id: id() }));
            assert_eq!(call(&Method::DELETE, &path), None);
        }
        assert_eq!(call(&Method::POST, "/v1beta/openai/batches"), Some(Call::LayerCreate));
        assert_eq!(call(&Method::GET, "/v1/openai/batches"), None);
    }

    #[test]
    fn what_is_not_emulated_is_refused_loudly() {
        for path in ["/v1beta/models/m:batchEmbedContents", "/v1beta/openai/files"] {
            let Err(Reply::Refused(refusal)) = Route::find(&Method::POST, path) else {
                panic!("{path} is answered");
            };
            assert_eq!((refusal.http, refusal.status()), (501, "UNIMPLEMENTED"));
        }
    }
}
