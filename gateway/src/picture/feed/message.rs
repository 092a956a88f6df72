//! Messages of the feed as text, and the batches that screens share.

use std::fmt::Write;
use std::sync::OnceLock;

use bytes::Bytes;

use super::items::{Entry, Gone, Key, To, Trail};
use super::tags::Audience;

/// What one message says.
pub struct Message<'a> {
    pub kind: &'static str,
    pub epoch: &'a str,
    /// Version of the grid in force.
    pub grid: &'a str,
    pub seq: u64,
    pub now_ms: i64,
    pub entries: &'a [(&'a Entry, Option<&'a Trail>)],
    pub gone: &'a [&'a Key],
}

impl Message<'_> {
    /// As JSON, see gateway/API.md.
    pub fn write(&self) -> Bytes {
        let room: usize = self.entries.iter().map(|(e, _)| e.shown.body.size()).sum();
        let mut out = String::with_capacity(room + 200 + self.gone.len() * 40);
        let _ = write!(
            out,
            r#"{{"type":"{}","epoch":"{}","seq":{},"now_ms":{},"datum":"wgs84","grid":{}"#,
            self.kind,
            self.epoch,
            self.seq,
            self.now_ms,
            serde_json::Value::from(self.grid)
        );
        let is_device = |k: &Key| matches!(k, Key::Device(_));
        let is_stream = |k: &Key| matches!(k, Key::Stream(_));
        let is_event = |k: &Key| matches!(k, Key::Event(_));
        self.list(&mut out, "devices", is_device);
        self.list(&mut out, "streams", is_stream);
        self.list(&mut out, "events", is_event);
        if self.kind == "change" {
            out.push_str(r#","gone":["#);
            for (i, key) in self.gone.iter().enumerate() {
                // Ids need no escaping.
                let _ = write!(out, r#"{}"{key}""#, if i > 0 { "," } else { "" });
            }
            out.push(']');
        }
        out.push('}');
        out.into()
    }

    fn list(&self, out: &mut String, name: &str, is_of: impl Fn(&Key) -> bool) {
        let _ = write!(out, r#","{name}":["#);
        let mut first = true;
        for (entry, trail) in self.entries.iter().filter(|(e, _)| is_of(&e.shown.key)) {
            if !std::mem::take(&mut first) {
                out.push(',');
            }
            entry.shown.body.write(out, self.now_ms, *trail);
        }
        out.push(']');
    }
}

/// The changes between two pulses. Written once for all screens that keep up and want everything.
#[derive(Debug, Default)]
pub struct Batch {
    /// Changes after this one …
    pub from: u64,
    /// … and up to this one.
    pub to: u64,
    /// Changes so far, at its end; for the ledger.
    pub changes: u64,
    pub now_ms: i64,
    pub entries: Vec<Entry>,
    pub gone: Vec<Gone>,
    /// With what is restricted, and without.
    texts: [OnceLock<Bytes>; 2],
}

impl Batch {
    pub fn new(
        from: u64,
        to: u64,
        changes: u64,
        now_ms: i64,
        entries: Vec<Entry>,
        gone: Vec<Gone>,
    ) -> Self {
        Self {
            from,
            to,
            changes,
            now_ms,
            entries,
            gone,
            texts: Default::default(),
        }
    }

    /// The whole batch for an audience without a filter, and how many items it says something of.
    pub fn text(&self, epoch: &str, grid: &str, sees_restricted: bool) -> (Bytes, usize) {
        let all = sees_restricted || !self.has_restricted();
        let may = |restricted: bool| all || !restricted;
        let n = if all {
            self.entries.len() + self.gone.len()
        } else {
            self.entries.iter().filter(|e| may(e.restricted)).count()
                + self
                    .gone
                    .iter()
                    .filter(|g| g.is_for(sees_restricted))
                    .count()
        };
        let text = self.texts[usize::from(!all)].get_or_init(|| {
            let entries: Vec<_> = self
                .entries
                .iter()
                .filter(|e| may(e.restricted))
                .map(|e| (e, None))
                .collect();
            let left = self.gone.iter().filter(|g| g.is_for(sees_restricted));
            let gone: Vec<_> = left.map(|g| &g.key).collect();
            Message {
                kind: "change",
                epoch,
                grid,
                seq: self.to,
                now_ms: self.now_ms,
                entries: &entries,
                gone: &gone,
            }
            .write()
        });
        (text.clone(), n)
    }

    fn has_restricted(&self) -> bool {
        self.entries.iter().any(|e| e.restricted) || self.gone.iter().any(|g| g.to != To::All)
    }
}

/// Is the entry for this audience, whatever it has seen so far?
pub fn wants(audience: &Audience, entry: &Entry) -> bool {
    if entry.restricted && !audience.sees_restricted {
        return false;
    }
    match (&audience.filter, &entry.shown.key) {
        (None, _) | (_, Key::Stream(_)) => true,
        (Some(filter), _) => filter.matches(&entry.shown.tags),
    }
}
