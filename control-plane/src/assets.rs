//! The console, embedded in the program: files of `web/dist` as its build left them, with `.br` and `.gz` beside each.
//!
//! Names that carry a hash are cached for ever, everything else is asked for again each time by its entity tag. An address that
//! is no file is the console's own business and gets `index.html`. Nothing is compressed here.

#[cfg(test)]
mod bundle;

use axum::body::Body;
use axum::http::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, ETAG, IF_NONE_MATCH, VARY,
};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use axum::response::{Html, IntoResponse, Response};
use proto::ids::Digest;
use rust_embed::{EmbeddedFile, RustEmbed};

/// In a debug build these are read from the folder each time; in a release build they are in the program.
#[derive(RustEmbed)]
#[folder = "../web/dist"]
#[allow_missing = true]
struct Dist;

/// Where the files come from: the embedded ones, or a test's.
type Files = fn(&str) -> Option<EmbeddedFile>;

const INDEX: &str = "index.html";

const NOT_BUILT: &str = "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>DeployEx</title>\
    <h1>The console is not built</h1><p>The API answers under <code>/api/v1</code>. To build the console, run \
    <code>cargo xtask web</code> in the source folder and load this page again.</p></html>";

/// Answers what no route answers.
pub fn serve(method: &Method, uri: &Uri, headers: &HeaderMap) -> Response {
    answer(Dist::get, method, uri.path(), headers)
}

fn answer(files: Files, method: &Method, path: &str, headers: &HeaderMap) -> Response {
    if method != Method::GET && method != Method::HEAD {
        return StatusCode::METHOD_NOT_ALLOWED.into_response();
    }
    let name = path.trim_start_matches('/');
    let (name, found) = match find(files, name, headers) {
        Some(found) => (name, Some(found)),
        // A missing script is a fault that should show as one. A page of the console may well end in what looks like an
        // extension (`nodes/web-1.example.com`), but it lies in no folder of files.
        None if is_file(name) => {
            return StatusCode::NOT_FOUND.into_response();
        }
        None => (INDEX, find(files, INDEX, headers)),
    };
    match found {
        Some((file, encoding)) => respond(name, &file, encoding, headers),
        None => (StatusCode::SERVICE_UNAVAILABLE, Html(NOT_BUILT)).into_response(),
    }
}

/// The smallest form that the browser takes.
fn find(files: Files, name: &str, headers: &HeaderMap) -> Option<(EmbeddedFile, Option<&'static str>)> {
    let plain = || files(name).map(|file| (file, None));
    if name.is_empty() || matches!(extension(name), Some("br" | "gz")) {
        return None;
    }
    let encoded = [("br", ".br"), ("gzip", ".gz")].into_iter().find_map(|(encoding, suffix)| {
        let file = accepts(headers, encoding).then(|| files(&format!("{name}{suffix}")))??;
        Some((file, Some(encoding)))
    });
    encoded.or_else(plain)
}

fn respond(name: &str, file: &EmbeddedFile, encoding: Option<&'static str>, headers: &HeaderMap) -> Response {
    let etag = format!("\"{}\"", Digest(file.metadata.sha256_hash()).short());
    let seen = headers.get(IF_NONE_MATCH).and_then(|tags| tags.to_str().ok());
    let unchanged =
        seen.is_some_and(|tags| tags.split(',').any(|tag| tag.trim().trim_start_matches("W/") == etag));
    let mut response = if unchanged {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        Body::from(file.data.clone().into_owned()).into_response()
    };
    let cache = if is_hashed(name) { "public, max-age=31536000, immutable" } else { "no-cache" };
    let out = response.headers_mut();
    out.insert(CACHE_CONTROL, HeaderValue::from_static(cache));
    out.insert(VARY, HeaderValue::from_static("accept-encoding"));
    out.insert(CONTENT_TYPE, HeaderValue::from_static(media_type(name)));
    if let Ok(etag) = HeaderValue::from_str(&etag) {
        out.insert(ETAG, etag);
    }
    if let Some(encoding) = encoding {
        out.insert(CONTENT_ENCODING, HeaderValue::from_static(encoding));
    }
    response
}

/// `Accept-Encoding: gzip;q=0` refuses gzip.
fn accepts(headers: &HeaderMap, encoding: &str) -> bool {
    let accepted = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|line| line.to_str().ok());
    accepted.flat_map(|line| line.split(',')).any(|item| {
        let (name, weight) = item.split_once(';').unwrap_or((item, ""));
        let refused = weight.trim().strip_prefix("q=").is_some_and(|q| q.parse() == Ok(0.0_f32));
        name.trim().eq_ignore_ascii_case(encoding) && !refused
    })
}

fn extension(name: &str) -> Option<&str> {
    let file = name.rsplit('/').next()?;
    file.rsplit_once('.').map(|(_, extension)| extension)
}

/// In the folder of files, or beside the index with an extension.
fn is_file(name: &str) -> bool {
    let in_root = !name.contains('/');
    name.starts_with("assets/") || (in_root && extension(name).is_some_and(|it| it != "html"))
}

/// `name-0123abcd….ext`: at least eight hex digits, which the console's build writes from the file's content.
fn is_hashed(name: &str) -> bool {
    let stem = name.rsplit_once('.').map_or(name, |(stem, _)| stem);
    stem.rsplit_once('-')
        .is_some_and(|(_, hash)| hash.len() >= 8 && hash.bytes().all(|b| b.is_ascii_hexdigit()))
}

fn media_type(name: &str) -> &'static str {
    match extension(name) {
        Some("html") => "text/html; charset=utf-8",
        Some("js" | "mjs") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("wasm") => "application/wasm",
        Some("svg") => "image/svg+xml",
        Some("png") => "image/png",
        Some("ico") => "image/x-icon",
        Some("woff2") => "font/woff2",
        Some("json" | "webmanifest") => "application/json",
        Some("txt") => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use rust_embed::Metadata;

    use super::*;

    fn built(name: &str) -> Option<EmbeddedFile> {
        let data: &'static [u8] = match name {
            "index.html" => b"<html>",
            "app-0123456789abcdef.js" => b"plain",
            "app-0123456789abcdef.js.br" => b"brotli",
            "app-0123456789abcdef.js.gz" => b"gzip",
            _ => return None,
        };
        let first = *data.first()?;
        Some(EmbeddedFile {
            data: data.into(),
            metadata: Metadata::__rust_embed_new([first; 32], None, None),
        })
    }

    fn get(path: &str, lines: &[(&'static str, &str)]) -> Response {
        let headers = lines
            .iter()
            .map(|(name, value)| (axum::http::HeaderName::from_static(name), value.parse().unwrap()))
            .collect();
        answer(built, &Method::GET, path, &headers)
    }

    async fn text(response: Response) -> String {
        let body = axum::body::to_bytes(response.into_body(), 4_096).await.unwrap();
        String::from_utf8(body.to_vec()).unwrap()
    }

    #[tokio::test]
    async fn the_smallest_form_that_is_accepted_is_sent() {
        let path = "/app-0123456789abcdef.js";
        for (accept, encoding, body) in [
            ("gzip, deflate, br", Some("br"), "brotli"),
            ("gzip", Some("gzip"), "gzip"),
            ("br;q=0, gzip;q=1", Some("gzip"), "gzip"),
            ("identity", None, "plain"),
        ] {
            let response = get(path, &[("accept-encoding", accept)]);
            let sent = response.headers().get(CONTENT_ENCODING).map(|it| it.to_str().unwrap().to_owned());
            assert_eq!(sent.as_deref(), encoding, "{accept}");
            assert_eq!(response.headers()[CONTENT_TYPE], "text/javascript; charset=utf-8");
            assert_eq!(response.headers()[CACHE_CONTROL], "public, max-age=31536000, immutable");
            assert_eq!(text(response).await, body);
        }
    }

    #[tokio::test]
    async fn a_page_of_the_console_is_the_index_and_is_asked_for_again() {
        for path in ["/", "/applications/myapp", "/nodes/web-1.example.com", "/index.html"] {
            let response = get(path, &[]);
            assert_eq!(response.headers()[CACHE_CONTROL], "no-cache", "{path}");
            let etag = response.headers()[ETAG].to_str().unwrap().to_owned();
            assert_eq!(text(response).await, "<html>");
            assert_eq!(get(path, &[("if-none-match", &etag)]).status(), StatusCode::NOT_MODIFIED);
        }
    }

    #[test]
    fn a_missing_script_is_missing() {
        assert_eq!(get("/app-ffffffffffffffff.js", &[]).status(), StatusCode::NOT_FOUND);
        assert_eq!(get("/assets/app-ffffffffffffffff.js", &[]).status(), StatusCode::NOT_FOUND);
        assert_eq!(get("/app-0123456789abcdef.js.br", &[]).status(), StatusCode::NOT_FOUND);
    }

    #[tokio::test]
    async fn where_the_console_is_not_built_the_page_says_how() {
        let response = answer(|_| None, &Method::GET, "/", &HeaderMap::new());
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert!(text(response).await.contains("cargo xtask web"));
    }
}
