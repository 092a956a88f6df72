//! Offline map files below one directory, for users. Ranges are served: one map file (PMTiles) holds millions of tiles.

use std::ops::Range;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path as UriPath, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt};

use super::Room;
use super::auth::Viewer;
use super::headers::{Problem, content_type};

const CHUNK_BYTES: u64 = 64 << 10;

/// `GET /map/{path}`.
pub(super) async fn file(
    State(room): State<Arc<Room>>,
    _viewer: Viewer,
    UriPath(path): UriPath<String>,
    request: HeaderMap,
) -> Result<Response, Problem> {
    let unknown = || Problem::new(StatusCode::NOT_FOUND, "there is no such map file");
    let root = room.map_dir.as_deref().ok_or_else(|| {
        Problem::new(
            StatusCode::NOT_FOUND,
            "this gateway has no offline map; set map_dir in gateway.toml",
        )
    })?;
    let found = confined(root, &path).await.ok_or_else(unknown)?;
    let mut file = File::open(&found).await.map_err(|_| unknown())?;
    let meta = file.metadata().await.map_err(|_| unknown())?;
    if !meta.is_file() {
        return Err(unknown());
    }
    let wanted = match request.get(header::RANGE).and_then(|v| v.to_str().ok()) {
        Some(text) => range(text, meta.len()),
        None => Wanted::All,
    };
    let (status, part) = match wanted {
        Wanted::All => (StatusCode::OK, 0..meta.len()),
        Wanted::Part(part) => (StatusCode::PARTIAL_CONTENT, part),
        Wanted::Beyond => {
            let all = [(header::CONTENT_RANGE, format!("bytes */{}", meta.len()))];
            return Ok((StatusCode::RANGE_NOT_SATISFIABLE, all).into_response());
        }
    };
    if part.start > 0 {
        let moved = file.seek(std::io::SeekFrom::Start(part.start)).await;
        moved.map_err(|_| unknown())?;
    }
    let mut headers = HeaderMap::new();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static(content_type(&path)),
    );
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(
        header::CACHE_CONTROL,
        HeaderValue::from_static("private, max-age=3600"),
    );
    headers.insert(
        header::CONTENT_LENGTH,
        HeaderValue::from(part.end - part.start),
    );
    if status == StatusCode::PARTIAL_CONTENT {
        let text = format!("bytes {}-{}/{}", part.start, part.end - 1, meta.len());
        headers.extend(
            HeaderValue::from_str(&text)
                .ok()
                .map(|v| (header::CONTENT_RANGE, v)),
        );
    }
    Ok((status, headers, body(file, part.end - part.start)).into_response())
}

/// The file's path, if it lies below the root: neither `..` nor a link leads out.
async fn confined(root: &Path, path: &str) -> Option<PathBuf> {
    let path = Path::new(path);
    let plain = |c: Component<'_>| matches!(c, Component::Normal(_));
    if path.as_os_str().is_empty() || !path.components().all(plain) {
        return None;
    }
    let root = tokio::fs::canonicalize(root).await.ok()?;
    let found = tokio::fs::canonicalize(root.join(path)).await.ok()?;
    found.starts_with(&root).then_some(found)
}

#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    All,
    Part(Range<u64>),
    Beyond,
}

/// RFC 9110 §14.2: one range of bytes; what cannot be read, or lists of ranges, gives all.
fn range(text: &str, len: u64) -> Wanted {
    let Some((first, last)) = text.strip_prefix("bytes=").and_then(|r| r.split_once('-')) else {
        return Wanted::All;
    };
    let number = |s: &str| {
        s.bytes()
            .all(|b| b.is_ascii_digit())
            .then(|| s.parse::<u64>().ok())?
    };
    let part = match (number(first), number(last)) {
        (Some(a), Some(b)) if a <= b => a..b.saturating_add(1).min(len),
        (Some(a), None) if last.is_empty() => a..len,
        (None, Some(n)) if first.is_empty() => len.saturating_sub(n)..len,
        _ => return Wanted::All,
    };
    if part.is_empty() {
        Wanted::Beyond
    } else {
        Wanted::Part(part)
    }
}

/// The next `left` bytes of the file, in chunks as the client takes them.
fn body(file: File, left: u64) -> Body {
    Body::from_stream(futures_util::stream::try_unfold(
        (file, left),
        |(mut file, left)| async move {
            if left == 0 {
                return Ok::<_, std::io::Error>(None);
            }
            let mut chunk = Vec::new();
            let n = (&mut file)
                .take(left.min(CHUNK_BYTES))
                .read_to_end(&mut chunk)
                .await?;
            if n == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            Ok(Some((Bytes::from(chunk), (file, left - n as u64))))
        },
    ))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ranges() {
        for (text, wanted) in [
            ("bytes=0-0", Wanted::Part(0..1)),
            ("bytes=5-", Wanted::Part(5..10)),
            ("bytes=-3", Wanted::Part(7..10)),
            ("bytes=-30", Wanted::Part(0..10)),
            ("bytes=2-99", Wanted::Part(2..10)),
            ("bytes=0-18446744073709551615", Wanted::Part(0..10)),
            ("bytes=10-", Wanted::Beyond),
            ("bytes=-0", Wanted::Beyond),
            ("bytes=3-2", Wanted::All),
            ("bytes=0-1,3-4", Wanted::All),
            ("bytes=+1-2", Wanted::All),
            ("bytes=-", Wanted::All),
            ("pages=1-2", Wanted::All),
        ] {
            assert_eq!(range(text, 10), wanted, "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_part_is_never_outside(text in "bytes=[0-9]{0,20}-[0-9]{0,20}", len in 0u64..100) {
            if let Wanted::Part(p) = range(&text, len) {
                prop_assert!(p.start < p.end && p.end <= len);
            }
        }
    }
}
