//! Who may come in: judged before any route is looked for.
//!
//! On the socket it is a matter of users, see `peer.rs`. On a TCP address any page in a browser, and
//! any user of this machine, can send requests: they must be meant for a name of ours (so that no
//! foreign name that points here works), must not come from another page, and changes need the
//! token. On an address that others can reach, everything but `/healthz`, `/readyz` and the bare page
//! of the dashboard needs it.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::connect_info::ConnectInfo;
use axum::extract::{Request, State};
use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::Response;
use secrecy::{ExposeSecret, SecretString};
use subtle::ConstantTimeEq;

use super::page;
use super::peer::{Caller, Place};
use super::routes::refuse;

/// Where requests come in.
#[derive(Clone)]
pub enum Door {
    /// The Unix socket.
    Socket(Place),
    /// A TCP address.
    Address(Arc<Rules>),
}

/// What holds on a TCP address.
#[derive(Debug)]
pub struct Rules {
    address: SocketAddr,
    /// More names than those that the address has by itself, in lower case.
    hosts: Vec<String>,
    token: SecretString,
}

/// Lets a request in, or answers why not.
pub async fn guard(State(door): State<Door>, request: Request, next: Next) -> Response {
    let refusal = match &door {
        Door::Socket(place) => {
            let caller = request.extensions().get::<ConnectInfo<Caller>>();
            let is_admitted = caller.is_some_and(|ConnectInfo(caller)| place.admits(*caller));
            let whose = "the control socket is for root, the daemon's user and the socket's group";
            (!is_admitted).then(|| forbidden(whose))
        }
        Door::Address(rules) => rules.refusal(&request),
    };
    let mut response = match refusal {
        None => next.run(request).await,
        Some(refusal) => refusal,
    };
    for (name, value) in SAFE {
        response.headers_mut().entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}

impl Rules {
    /// The rules for an address; `hosts` are more names it is known by, with a port or without.
    pub fn new(address: SocketAddr, hosts: &[String], token: SecretString) -> Rules {
        let hosts = hosts.iter().map(|host| host.to_ascii_lowercase()).collect();
        Rules { address, hosts, token }
    }

    /// Why a request is not let in, if so.
    fn refusal(&self, request: &Request) -> Option<Response> {
        let headers = request.headers();
        let host = only(headers, header::HOST);
        let asked = request.uri().authority().map(|authority| authority.as_str());
        if !host.is_some_and(|host| self.is_called(host))
            || !asked.is_none_or(|name| self.is_called(name))
        {
            return Some(forbidden(
                "the request is not meant for this daemon: its Host is none of control.listen and \
                 control.hosts; add the name to control.hosts if it is right",
            ));
        }
        if headers.contains_key(header::ORIGIN) && !self.is_ours(only(headers, header::ORIGIN)) {
            return Some(forbidden("the request comes from a page of another origin"));
        }
        let path = request.uri().path();
        // A browser has no token when it opens the page, and the page itself tells nothing.
        let is_open = matches!(path, "/healthz" | "/readyz") || page::is_part(path);
        let is_reading = matches!(*request.method(), Method::GET | Method::HEAD);
        if is_reading && (is_open || self.address.ip().is_loopback()) {
            return None;
        }
        (!self.has_token(headers)).then(no_token)
    }

    /// Whether this is one of our names.
    fn is_called(&self, name: &str) -> bool {
        let name = name.to_ascii_lowercase();
        let port = self.address.port();
        let here = ["localhost", "127.0.0.1", "[::1]"];
        let is_here =
            |host: &&str| name == format!("{host}:{port}") || (port == 80 && name == **host);
        name == self.address.to_string()
            || here.iter().any(is_here)
            || self.hosts.iter().any(|host| *host == name || host == without_port(&name))
    }

    fn is_ours(&self, origin: Option<&str>) -> bool {
        let origin = origin.unwrap_or_default();
        let name = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
        name.is_some_and(|name| self.is_called(name))
    }

    fn has_token(&self, headers: &HeaderMap) -> bool {
        let given = only(headers, header::AUTHORIZATION).and_then(|value| value.split_once(' '));
        let given = given.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        let token = self.token.expose_secret().as_bytes();
        given.is_some_and(|(_, given)| bool::from(given.trim().as_bytes().ct_eq(token)))
    }
}

/// A header that is there exactly once, as text.
fn only(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().ok(),
        (Some(_), Some(_)) | (None, _) => None,
    }
}

fn without_port(name: &str) -> &str {
    match name.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host,
        Some(_) | None => name,
    }
}

fn forbidden(why: &str) -> Response {
    refuse(StatusCode::FORBIDDEN, "PERMISSION_DENIED", why)
}

fn no_token() -> Response {
    let why = "this needs the token: send `Authorization: Bearer TOKEN`; it stands in \
               control.token in the spool's state folder, or where control.token_file says";
    let mut response = refuse(StatusCode::UNAUTHORIZED, "UNAUTHENTICATED", why);
    response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    response
}

/// What every answer says to browsers, unless its route says otherwise.
const SAFE: [(HeaderName, &str); 4] = [
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CACHE_CONTROL, "no-store"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    fn rules(address: &str, hosts: &[&str]) -> Rules {
        let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        Rules::new(address.parse().expect("an address"), &hosts, SecretString::from("t0ken"))
    }

    /// The status of a request with these headers; 200 if it is let in.
    fn ask(rules: &Rules, line: &str, headers: &[(&str, &str)]) -> u16 {
        let (method, path) = line.split_once(' ').expect("a method and a path");
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::empty()).expect("a request");
        rules.refusal(&request).map_or(200, |refusal| refusal.status().as_u16())
    }

    const HOST: (&str, &str) = ("host", "127.0.0.1:8787");
    const TOKEN: (&str, &str) = ("authorization", "Bearer t0ken");

    /// Fault 84.
    #[test]
    fn a_request_that_is_meant_for_another_name_is_refused() {
        let rules = rules("127.0.0.1:8787", &["Batch.example.org", "proxy.example.org:444"]);
        for host in [
            "127.0.0.1:8787",
            "localhost:8787",
            "LOCALHOST:8787",
            "[::1]:8787",
            "batch.example.org",
            "batch.example.org:9999",
            "proxy.example.org:444",
        ] {
            assert_eq!(ask(&rules, "GET /v1/status", &[("host", host)]), 200, "{host}");
        }
        for host in [
            "evil.example.org",
            "evil.example.org:8787",
            "127.0.0.1",
            "127.0.0.1:8788",
            "localhost",
            "localhost.evil.example.org:8787",
            "proxy.example.org",
            "proxy.example.org:443",
            "",
        ] {
            assert_eq!(ask(&rules, "GET /v1/status", &[("host", host)]), 403, "{host}");
            assert_eq!(ask(&rules, "GET /healthz", &[("host", host)]), 403, "{host}");
        }
        assert_eq!(ask(&rules, "GET /v1/status", &[]), 403, "no host at all");
        assert_eq!(ask(&rules, "GET /v1/status", &[HOST, ("host", "evil")]), 403, "two hosts");
        assert_eq!(
            ask(&rules, "GET http://evil:8787/v1/status", &[HOST]),
            403,
            "another in the line"
        );
    }

    /// Fault 84.
    #[test]
    fn a_page_of_another_origin_is_refused_even_with_the_token() {
        let rules = rules("127.0.0.1:8787", &["batch.example.org"]);
        let post = "POST /v1/jobs/01JD:cancel";
        for (origin, status) in [
            ("http://127.0.0.1:8787", 200),
            ("http://localhost:8787", 200),
            ("https://batch.example.org", 200),
            ("http://127.0.0.1:8788", 403),
            ("http://evil.example.org", 403),
            ("null", 403),
            ("file://", 403),
            ("", 403),
        ] {
            assert_eq!(ask(&rules, post, &[HOST, TOKEN, ("origin", origin)]), status, "{origin}");
            let read = ask(&rules, "GET /v1/status", &[HOST, ("origin", origin)]);
            assert_eq!(read, status, "{origin}");
        }
    }

    #[test]
    fn changes_need_the_token_and_off_this_machine_everything_but_probes_does() {
        let (here, open) = (rules("127.0.0.1:8787", &[]), rules("192.0.2.7:8787", &[]));
        let outside = ("host", "192.0.2.7:8787");
        let post = "POST /v1/daemon:pause";
        for (rules, host) in [(&here, HOST), (&open, outside)] {
            for (authorization, status) in [
                ("Bearer t0ken", 200),
                ("bearer t0ken", 200),
                ("Bearer t0kem", 401),
                ("Bearer t0ken1", 401),
                ("Bearer ", 401),
                ("Basic t0ken", 401),
                ("t0ken", 401),
            ] {
                let asked = ask(rules, post, &[host, ("authorization", authorization)]);
                assert_eq!(asked, status, "{authorization}");
            }
            assert_eq!(ask(rules, post, &[host]), 401);
            assert_eq!(ask(rules, post, &[host, TOKEN, TOKEN]), 401, "twice");
            assert_eq!(ask(rules, "GET /healthz", &[host]), 200);
            assert_eq!(ask(rules, "GET /readyz", &[host]), 200);
            assert_eq!(ask(rules, "POST /healthz", &[host]), 401);
        }
        assert_eq!(ask(&here, "GET /v1/status", &[HOST]), 200);
        assert_eq!(ask(&open, "GET /v1/status", &[outside]), 401);
        assert_eq!(ask(&open, "GET /v1/status", &[outside, TOKEN]), 200);
        assert_eq!(ask(&open, "GET /", &[outside]), 200, "the page asks for the token");
        assert_eq!(ask(&open, "GET /dashboard.js", &[outside]), 200);
        assert_eq!(ask(&open, "POST /", &[outside]), 401);
        assert_eq!(ask(&open, "GET /metrics", &[outside]), 401);
        assert!(!format!("{here:?}").contains("t0ken"), "the token is not told");
    }
}
