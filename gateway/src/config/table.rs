//! Reading TOML key by key, so that every fault of a file is told with its line, not only the first.
//!
//! Here: a table that knows which keys were asked for, typed values with their place, "did you mean".
//! Not here: which keys there are and what they mean (`gateway.rs`, `lists.rs`).

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::ops::{Range, RangeInclusive};
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::de::{DeTable, DeValue};

/// One fault of the configuration, shown as `file:line: key: reason`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConfigFault {
    /// The file, below the directory as it was given.
    pub file: PathBuf,
    /// From 1.
    pub line: usize,
    /// Dotted key, e.g. `listen.mqtt` or `platform[2].url` (lists count from 0); `file` or `syntax` for the whole file.
    pub key: String,
    /// What is wrong and what to do.
    pub reason: String,
}

impl fmt::Display for ConfigFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            file,
            line,
            key,
            reason,
        } = self;
        write!(f, "{}:{line}: {key}: {reason}", file.display())
    }
}

/// One file's text, and the faults found in it so far.
pub(super) struct Source {
    pub path: PathBuf,
    pub text: String,
    faults: RefCell<Vec<ConfigFault>>,
}

impl Source {
    pub fn new(path: PathBuf, text: String) -> Self {
        Self {
            path,
            text,
            faults: RefCell::default(),
        }
    }

    pub fn fault(&self, line: usize, key: &str, reason: impl Into<String>) {
        self.faults.borrow_mut().push(ConfigFault {
            file: self.path.clone(),
            line,
            key: key.to_owned(),
            reason: reason.into(),
        });
    }

    /// The faults, in order of lines.
    pub fn into_faults(self) -> Vec<ConfigFault> {
        let mut all = self.faults.into_inner();
        all.sort();
        all.dedup();
        all
    }

    fn line_of(&self, span: &Range<usize>) -> usize {
        let end = span.start.min(self.text.len());
        1 + self.text.as_bytes()[..end]
            .iter()
            .filter(|b| **b == b'\n')
            .count()
    }

    /// The file's top table; None when it is not TOML (told as one fault).
    pub fn parse(&self) -> Option<Table<'_>> {
        match DeTable::parse(&self.text) {
            Ok(doc) => {
                let at = At {
                    source: self,
                    line: 1,
                    key: String::new(),
                };
                Some(Table::new(at, doc.into_inner()))
            }
            Err(e) => {
                let line = e.span().map_or(1, |s| self.line_of(&s));
                self.fault(line, "syntax", e.message().replace('\n', "; "));
                None
            }
        }
    }

    /// Directory that relative paths in the file start from.
    fn dir(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("."))
    }
}

/// A place in a file.
#[derive(Clone)]
pub(super) struct At<'t> {
    source: &'t Source,
    pub line: usize,
    pub key: String,
}

impl At<'_> {
    pub fn fault(&self, reason: impl Into<String>) {
        self.source.fault(self.line, &self.key, reason);
    }

    fn below(&self, key: &str) -> String {
        if self.key.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.key)
        }
    }
}

/// A table that tells about keys nobody asked for.
pub(super) struct Table<'t> {
    pub at: At<'t>,
    values: DeTable<'t>,
    known: Vec<&'static str>,
}

impl<'t> Table<'t> {
    fn new(at: At<'t>, values: DeTable<'t>) -> Self {
        Self {
            at,
            values,
            known: Vec::new(),
        }
    }

    pub fn has(&self, key: &str) -> bool {
        self.values.contains_key(key)
    }

    pub fn optional(&mut self, key: &'static str) -> Option<Found<'t>> {
        self.known.push(key);
        let (name, value) = self.values.remove_entry(key)?;
        let at = At {
            source: self.at.source,
            line: self.at.source.line_of(&name.span()),
            key: self.at.below(key),
        };
        Some(Found {
            at,
            value: value.into_inner(),
        })
    }

    /// A key without default: its absence is a fault at the table's line.
    pub fn required(&mut self, key: &'static str, what: &str) -> Option<Found<'t>> {
        let found = self.optional(key);
        if found.is_none() {
            self.at.source.fault(
                self.at.line,
                &self.at.below(key),
                format!("is missing; give {what}"),
            );
        }
        found
    }

    /// The table under `key`; an empty one at this table's place when the file does not have it.
    pub fn table(&mut self, key: &'static str) -> Table<'t> {
        self.optional_table(key)
            .unwrap_or_else(|| Table::new(self.at.clone(), DeTable::new()))
    }

    pub fn optional_table(&mut self, key: &'static str) -> Option<Table<'t>> {
        self.optional(key)?.table()
    }

    /// The tables `[[key]]`.
    pub fn tables(&mut self, key: &'static str) -> Vec<Table<'t>> {
        let Some(found) = self.optional(key) else {
            return Vec::new();
        };
        found
            .list()
            .into_iter()
            .flatten()
            .filter_map(Found::table)
            .collect()
    }

    /// Everything that is left, by whatever names it has.
    pub fn rest(self) -> Vec<(String, Found<'t>)> {
        let (source, table) = (self.at.source, self.at);
        let mut all: Vec<_> = self
            .values
            .into_iter()
            .map(|(name, value)| {
                let at = At {
                    source,
                    line: source.line_of(&name.span()),
                    key: table.below(name.get_ref()),
                };
                let value = value.into_inner();
                (name.into_inner().into_owned(), Found { at, value })
            })
            .collect();
        all.sort_by_key(|(_, f)| f.at.line);
        all
    }

    /// Tells about the keys that are left.
    pub fn finish(self) {
        for (key, _) in &self.values {
            let name: &str = key.get_ref();
            let hint = match nearest(name, &self.known) {
                Some(k) => format!("unknown key; did you mean {k:?}?"),
                None => format!("unknown key; known here: {}", self.known.join(", ")),
            };
            self.at.source.fault(
                self.at.source.line_of(&key.span()),
                &self.at.below(name),
                hint,
            );
        }
    }
}

/// A value and its place. Each reading method tells a fault and gives None when the value is not of its shape.
pub(super) struct Found<'t> {
    pub at: At<'t>,
    value: DeValue<'t>,
}

impl<'t> Found<'t> {
    fn wrong<T>(&self, wanted: &str) -> Option<T> {
        self.at
            .fault(format!("is {}, but must be {wanted}", shape(&self.value)));
        None
    }

    pub fn text(self) -> Option<String> {
        match self.value {
            DeValue::String(s) => Some(s.into_owned()),
            _ => self.wrong("a text in quotes"),
        }
    }

    /// A text that means something: `read` says what is wrong with it.
    pub fn read<T>(self, read: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        let at = self.at.clone();
        read(&self.text()?).map_err(|e| at.fault(e)).ok()
    }

    /// A text, a whole number or a flag, as text.
    pub fn scalar(self) -> Option<String> {
        match self.value {
            DeValue::String(s) => Some(s.into_owned()),
            DeValue::Integer(i) if i.radix() == 10 => Some(i.as_str().to_owned()),
            DeValue::Boolean(b) => Some(b.to_string()),
            _ => self.wrong("a text, a whole number, true or false"),
        }
    }

    pub fn is_table(&self) -> bool {
        matches!(self.value, DeValue::Table(_))
    }

    pub fn is_list(&self) -> bool {
        matches!(self.value, DeValue::Array(_))
    }

    pub fn boolean(self) -> Option<bool> {
        match self.value {
            DeValue::Boolean(b) => Some(b),
            _ => self.wrong("true or false"),
        }
    }

    pub fn integer(self, range: RangeInclusive<u64>) -> Option<u64> {
        let wanted = format!("a whole number from {} to {}", range.start(), range.end());
        let DeValue::Integer(i) = &self.value else {
            return self.wrong(&wanted);
        };
        match u64::from_str_radix(i.as_str(), i.radix()) {
            Ok(n) if range.contains(&n) => Some(n),
            _ => {
                self.at.fault(format!("is {i}, but must be {wanted}"));
                None
            }
        }
    }

    pub fn seconds(self, range: RangeInclusive<u64>) -> Option<Duration> {
        self.integer(range).map(Duration::from_secs)
    }

    pub fn number(self, range: RangeInclusive<f64>) -> Option<f64> {
        let wanted = format!("a number from {} to {}", range.start(), range.end());
        let text = match &self.value {
            DeValue::Float(f) => f.as_str(),
            DeValue::Integer(i) if i.radix() == 10 => i.as_str(),
            _ => return self.wrong(&wanted),
        };
        let n = text.parse().ok().filter(|n| range.contains(n));
        if n.is_none() {
            self.at.fault(format!("is {text}, but must be {wanted}"));
        }
        n
    }

    /// A path, relative to the file it stands in; it must exist.
    pub fn path(self, is_dir: bool) -> Option<PathBuf> {
        let at = self.at.clone();
        let path = at.source.dir().join(self.text()?);
        match std::fs::metadata(&path) {
            Ok(m) if m.is_dir() == is_dir => return Some(path),
            Ok(_) if is_dir => at.fault(format!("{} is not a directory", path.display())),
            Ok(_) => at.fault(format!("{} is a directory, not a file", path.display())),
            Err(e) => at.fault(format!("{} cannot be used: {e}", path.display())),
        }
        None
    }

    pub fn list(self) -> Option<Vec<Found<'t>>> {
        let DeValue::Array(values) = self.value else {
            return self.wrong("a list");
        };
        let at = &self.at;
        let found = values.into_iter().enumerate().map(|(i, v)| Found {
            at: At {
                source: at.source,
                line: at.source.line_of(&v.span()),
                key: format!("{}[{i}]", at.key),
            },
            value: v.into_inner(),
        });
        Some(found.collect())
    }

    pub fn table(self) -> Option<Table<'t>> {
        match self.value {
            DeValue::Table(t) => Some(Table::new(self.at, t)),
            _ => self.wrong("a table"),
        }
    }
}

/// Names that may occur only once.
#[derive(Default)]
pub(super) struct Unique(HashMap<String, usize>);

impl Unique {
    pub fn note(&mut self, at: &At<'_>, name: &str) {
        if let Some(line) = self.0.insert(name.to_owned(), at.line) {
            at.fault(format!("{name:?} is already used at line {line}"));
        }
    }
}

fn shape(v: &DeValue<'_>) -> &'static str {
    match v {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// The known name most like `name`, if it is like one at all.
pub(super) fn nearest<'k>(name: &str, known: &[&'k str]) -> Option<&'k str> {
    if name.len() > 64 {
        return None;
    }
    known
        .iter()
        .map(|k| (distance(&name.to_ascii_lowercase(), k), *k))
        .filter(|(d, k)| *d <= 1 + k.len() / 4)
        .min()
        .map(|(_, k)| k)
}

/// Edits between two names: a character more, less or other, or two neighbours swapped (optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut d = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            if i == 0 || j == 0 {
                d[i][j] = i + j;
                continue;
            }
            let change = d[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            d[i][j] = change.min(d[i - 1][j] + 1).min(d[i][j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                d[i][j] = d[i][j].min(d[i - 2][j - 2] + 1);
            }
        }
    }
    d[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_like_the_wrong_one() {
        let known = ["mqtt", "mqtts", "webrtc", "packet_bytes_max"];
        assert_eq!(nearest("mqt", &known), Some("mqtt"));
        assert_eq!(nearest("Mqtts", &known), Some("mqtts"));
        assert_eq!(nearest("packet_byte_max", &known), Some("packet_bytes_max"));
        assert_eq!(nearest("smtp", &known), None);
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("sso", "sos"), 1);
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in ".{0,200}") {
            let source = Source::new("x.toml".into(), text);
            if let Some(mut t) = source.parse() {
                t.tables("rule");
                t.finish();
            }
            let lines = 1 + source.text.matches('\n').count();
            prop_assert!(source.into_faults().iter().all(|f| (1..=lines).contains(&f.line)));
        }
    }
}
