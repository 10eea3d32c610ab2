//! The dashboard: files of one static page, part of the program.
//!
//! The page may load nothing from elsewhere and run nothing that is not in these files.

use std::sync::LazyLock;

use axum::Router;
use axum::http::StatusCode;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, HeaderMap, IF_NONE_MATCH,
};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use sha2::{Digest, Sha256};

use super::routes::Desk;

/// One file of the page.
struct Part {
    /// Its path.
    path: &'static str,
    /// Its media type.
    kind: &'static str,
    content: &'static [u8],
    /// Changes with the content.
    tag: LazyLock<String>,
}

/// A route for each file.
pub(super) fn routes() -> Router<Desk> {
    let mut router = Router::new();
    for part in &PARTS {
        router = router.route(part.path, get(async move |headers: HeaderMap| part.send(&headers)));
    }
    router
}

/// Whether a file of the page has this path.
pub(super) fn is_part(path: &str) -> bool {
    PARTS.iter().any(|part| part.path == path)
}

impl Part {
    const fn new(
        path: &'static str,
        kind: &'static str,
        content: &'static [u8],
        tag: fn() -> String,
    ) -> Part {
        Part { path, kind, content, tag: LazyLock::new(tag) }
    }

    fn send(&self, headers: &HeaderMap) -> Response {
        let tag = self.tag.as_str();
        let known = headers.get(IF_NONE_MATCH).and_then(|tags| tags.to_str().ok());
        let is_known = known.is_some_and(|tags| tags.split(',').any(|known| known.trim() == tag));
        let about = [
            (CONTENT_TYPE, self.kind),
            (CONTENT_SECURITY_POLICY, POLICY),
            (CACHE_CONTROL, "no-cache"),
            (ETAG, tag),
        ];
        match is_known {
            true => (StatusCode::NOT_MODIFIED, about).into_response(),
            false => (about, self.content).into_response(),
        }
    }
}

/// The `ETag` of a content.
fn tag(content: &[u8]) -> String {
    let digest = Sha256::digest(content);
    let digits: String = digest.iter().take(12).map(|byte| format!("{byte:02x}")).collect();
    format!("\"{digits}\"")
}

macro_rules! parts {
    ($($path:literal, $kind:literal, $file:literal;)*) => {
        [$(Part::new($path, $kind, include_bytes!($file), || tag(include_bytes!($file))),)*]
    };
}

/// The files.
static PARTS: [Part; 5] = parts! {
    "/", "text/html; charset=utf-8", "../dashboard/index.html";
    "/dashboard.css", "text/css; charset=utf-8", "../dashboard/dashboard.css";
    "/dashboard.js", "text/javascript; charset=utf-8", "../dashboard/dashboard.js";
    "/client.js", "text/javascript; charset=utf-8", "../dashboard/client.js";
    "/charts.js", "text/javascript; charset=utf-8", "../dashboard/charts.js";
};

/// What the page may load and do.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; \
                      connect-src 'self'; img-src 'self' data:; base-uri 'none'; \
                      form-action 'none'; frame-ancestors 'none'";
