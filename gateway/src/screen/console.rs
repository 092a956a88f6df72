//! The console: files that were built into the program.

use axum::body::Body;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};

use super::headers::content_type;

/// One file of console/dist.
pub(super) struct File {
    path: &'static str,
    etag: &'static str,
    bytes: &'static [u8],
}

include!(concat!(env!("OUT_DIR"), "/console.rs"));

const NOT_BUILT: &str = "<!doctype html><meta charset=utf-8><title>Kerbside</title>\
<h1>The console is not part of this build</h1>\
<p>Run <code>make console</code>, then build the gateway again. The interfaces for programs work without it.</p>";

/// GET of a console file; None when there is none of this name.
pub(super) fn file(uri: &Uri, request: &HeaderMap) -> Option<Response> {
    let path = uri.path().strip_prefix('/')?;
    let path = if path.is_empty() { "index.html" } else { path };
    if FILES.is_empty() && path == "index.html" {
        let html = [(header::CONTENT_TYPE, "text/html; charset=utf-8")];
        return Some((StatusCode::SERVICE_UNAVAILABLE, html, NOT_BUILT).into_response());
    }
    find(FILES, path).map(|f| answer(f, request))
}

fn find<'f>(files: &'f [File], path: &str) -> Option<&'f File> {
    let i = files.binary_search_by(|f| f.path.cmp(path)).ok()?;
    Some(&files[i])
}

fn answer(file: &File, request: &HeaderMap) -> Response {
    // The build puts a hash into the names below assets/: such a file never changes.
    let cache = if file.path.starts_with("assets/") {
        "public, max-age=31536000, immutable"
    } else {
        "no-cache"
    };
    let known = request
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .any(|v| {
            v.split(',')
                .any(|e| e.trim().trim_start_matches("W/") == file.etag)
        });
    let headers = [(header::CACHE_CONTROL, cache), (header::ETAG, file.etag)];
    if known {
        return (StatusCode::NOT_MODIFIED, headers).into_response();
    }
    let kind = [(header::CONTENT_TYPE, content_type(file.path))];
    (headers, kind, Body::from(file.bytes)).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    const INDEX: File = File {
        path: "index.html",
        etag: "\"e1\"",
        bytes: b"<p>hello",
    };

    #[test]
    fn the_table_can_be_searched() {
        assert!(FILES.is_sorted_by(|a, b| a.path < b.path));
        assert!(find(&[INDEX], "index.html").is_some());
        assert!(find(&[INDEX], "index").is_none());
    }

    #[test]
    fn a_known_file_is_not_sent_again() {
        let mut request = HeaderMap::new();
        let first = answer(&INDEX, &request);
        assert_eq!(first.status(), StatusCode::OK);
        assert_eq!(
            first.headers()[header::CONTENT_TYPE],
            "text/html; charset=utf-8"
        );
        request.insert(header::IF_NONE_MATCH, "\"e0\", W/\"e1\"".parse().unwrap());
        assert_eq!(answer(&INDEX, &request).status(), StatusCode::NOT_MODIFIED);
    }
}
