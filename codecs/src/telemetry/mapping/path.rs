//! Where a value stands in a message.

use crate::telemetry::document::Item;

/// Most steps of a path.
const STEPS_MAX: usize = 16;

/// `gps.lat`, `pos[0]`, `data[1].x`; `$` is the whole message, `$.head.id` starts there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path {
    from_root: bool,
    steps: Vec<Step>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Key(String),
    Index(usize),
}

impl Path {
    /// # Errors
    /// What is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (from_root, rest) = match text.strip_prefix('$') {
            Some("") => (true, ""),
            Some(rest) if rest.starts_with(['.', '[']) => {
                (true, rest.strip_prefix('.').unwrap_or(rest))
            }
            Some(_) => return Err("\"$\" is followed by \".\" or \"[\"".into()),
            None if text.is_empty() => return Err("is empty".into()),
            None => (false, text),
        };
        let mut steps = Vec::new();
        for part in rest.split('.').filter(|_| !rest.is_empty()) {
            let (key, indices) = part.split_at(part.find('[').unwrap_or(part.len()));
            if key.is_empty() && (indices.is_empty() || !steps.is_empty()) {
                return Err(format!("{text:?} has an empty name"));
            }
            if !key.is_empty() {
                steps.push(Step::Key(key.to_owned()));
            }
            let mut indices = indices;
            while let Some(inside) = indices.strip_prefix('[') {
                let (index, after) = inside
                    .split_once(']')
                    .ok_or_else(|| format!("{text:?} has no \"]\""))?;
                let index = index
                    .parse()
                    .map_err(|_| format!("{text:?}: [{index}] is no index; they count from 0"))?;
                steps.push(Step::Index(index));
                indices = after;
            }
            if !indices.is_empty() {
                return Err(format!("{text:?} has something behind \"]\""));
            }
        }
        if steps.len() > STEPS_MAX {
            return Err(format!("{text:?} has more than {STEPS_MAX} steps"));
        }
        Ok(Self { from_root, steps })
    }

    /// The value there, unless it is absent or null.
    pub(in crate::telemetry) fn find<'d>(
        &self,
        root: Item<'d>,
        item: Item<'d>,
    ) -> Option<Item<'d>> {
        let mut at = if self.from_root { root } else { item };
        for step in &self.steps {
            at = match step {
                Step::Key(key) => at.as_object()?.get(key)?,
                Step::Index(index) => at.as_list()?.nth(*index)?,
            };
        }
        Some(at).filter(|v| !v.is_null())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::document::Document;

    #[test]
    fn paths_lead_to_values() {
        let text = br#"{"a":{"b":[1,[2,{"c d":3}]]},"n":null,"x[0]":9}"#;
        let document = Document::parse(text).unwrap();
        let root = document.root();
        let find = |p: &str| Path::parse(p).unwrap().find(root, root)?.as_integer();
        assert_eq!(find("a.b[0]"), Some(1));
        assert_eq!(find("a.b[1][0]"), Some(2));
        assert_eq!(find("$.a.b[1][1].c d"), Some(3));
        for none in ["a.b[2]", "a.c", "n", "a[0]", "a.b.c"] {
            assert_eq!(find(none), None, "{none}");
        }
        let list = Document::parse(b"[5]").unwrap();
        let first = Path::parse("[0]").unwrap().find(list.root(), root);
        assert!(first.is_none(), "starts at the item");
        let first = Path::parse("$[0]").unwrap().find(list.root(), root);
        assert_eq!(first.unwrap().as_integer(), Some(5));
        assert!(Path::parse("$").unwrap().find(root, list.root()).is_some());
    }

    #[test]
    fn what_is_no_path() {
        for bad in [
            "", ".", "a.", ".a", "a..b", "a[", "a[x]", "a[-1]", "a[0]b", "$a", "a.[0]",
        ] {
            assert!(Path::parse(bad).is_err(), "{bad}");
        }
        assert!(Path::parse(&vec!["a"; 17].join(".")).is_err());
    }
}
