//! Names of things: devices, streams, sessions, events.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

/// Device id: `[A-Za-z0-9._-]{1,64}`. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeviceId(Arc<str>);

/// Why a name is not usable as an id.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is not a valid id: 1 to 64 characters of A-Z a-z 0-9 . _ - and not only dots")]
pub struct BadId(pub String);

/// Is `s` a valid device id, camera or user name?
pub fn is_id(s: &str) -> bool {
    (1..=64).contains(&s.len())
        && s.bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
        && s.bytes().any(|b| b != b'.')
}

impl DeviceId {
    /// # Errors
    /// [`BadId`] when the text is not `[A-Za-z0-9._-]{1,64}` or only dots.
    pub fn parse(s: &str) -> Result<Self, BadId> {
        if is_id(s) {
            Ok(Self(s.into()))
        } else {
            Err(BadId(s.chars().take(80).collect()))
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
impl fmt::Debug for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
impl Serialize for DeviceId {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&self.0)
    }
}
impl<'de> Deserialize<'de> for DeviceId {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

/// A stream's name: `{device}/{camera}`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamId {
    pub device: DeviceId,
    pub camera: Arc<str>,
}

impl StreamId {
    /// # Errors
    /// [`BadId`] when either part is not a valid id.
    pub fn new(device: &str, camera: &str) -> Result<Self, BadId> {
        let device = DeviceId::parse(device)?;
        if !is_id(camera) {
            return Err(BadId(camera.chars().take(80).collect()));
        }
        Ok(Self {
            device,
            camera: camera.into(),
        })
    }

    /// Reads `device/camera`, with or without slashes around it.
    ///
    /// # Errors
    /// [`BadId`] when it is not exactly two valid ids.
    pub fn parse(path: &str) -> Result<Self, BadId> {
        let (device, camera) = path
            .trim_matches('/')
            .split_once('/')
            .ok_or_else(|| BadId(path.chars().take(80).collect()))?;
        Self::new(device, camera)
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.device, self.camera)
    }
}
impl fmt::Debug for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}
impl Serialize for StreamId {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

/// One authenticated connection; unique within this run of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct SessionId(u64);

impl SessionId {
    pub fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Event id: UUIDv7 (RFC 9562 §5.7), sortable by time, the idempotency key everywhere.
pub type EventId = Uuid;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_path_safe() {
        for good in ["bc-01", "A.b_c-9", "x", &"a".repeat(64)] {
            assert!(is_id(good), "{good}");
        }
        for bad in ["", ".", "..", "a/b", "a b", "é", "a+", "#", &"a".repeat(65)] {
            assert!(!is_id(bad), "{bad}");
        }
    }

    #[test]
    fn stream_paths() {
        assert_eq!(
            StreamId::parse("/bc-01/main").unwrap().to_string(),
            "bc-01/main"
        );
        assert!(StreamId::parse("bc-01").is_err());
        assert!(StreamId::parse("bc-01/a/b").is_err());
        assert!(StreamId::parse("../main").is_err());
    }
}
