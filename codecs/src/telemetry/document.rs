//! A JSON text read once into one flat list, borrowing its texts from the payload.
//!
//! Here: the list and how to walk it. It is several times faster than a tree of maps, and of duplicate keys the last one
//! counts, as in `serde_json::Value`. Not here: what fields mean (`field`, the codecs).

use std::borrow::Cow;
use std::cell::Cell;
use std::collections::HashSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::{Fault, PAYLOAD_MAX};

/// Most values of a message: 256 reports have some 5,000. It bounds the memory, and how long a key is searched for.
const VALUES_MAX: usize = 32_768;

/// One value with the key it stands under (empty in lists), and where its next sibling is.
struct Node<'a> {
    key: Cow<'a, str>,
    value: Value<'a>,
    next: u32,
}

enum Value<'a> {
    Null,
    Flag(bool),
    Whole(i64),
    Number(f64),
    Text(Cow<'a, str>),
    List,
    Object,
}

/// A payload as JSON.
pub struct Document<'a> {
    nodes: Vec<Node<'a>>,
    has_duplicates: bool,
    /// A number was taken out of a text.
    read_text: Cell<bool>,
}

/// Up to so many members are compared with each other; more are looked up.
const MEMBERS_COMPARED: usize = 24;

impl<'a> Document<'a> {
    /// At most [`PAYLOAD_MAX`] bytes and [`VALUES_MAX`] values; depth is bounded by `serde_json` (128).
    pub fn parse(payload: &'a [u8]) -> Result<Self, Fault> {
        if payload.len() > PAYLOAD_MAX {
            return Err(Fault::TooLarge);
        }
        // A member takes some 16 bytes of text.
        let mut nodes = Vec::with_capacity(payload.len() / 16 + 4);
        let mut text = serde_json::Deserializer::from_slice(payload);
        let read = Reading {
            key: Cow::Borrowed(""),
            nodes: &mut nodes,
        }
        .deserialize(&mut text)
        .and_then(|()| text.end());
        match read {
            Ok(()) => Ok(Self {
                has_duplicates: has_duplicates(&nodes),
                nodes,
                read_text: Cell::new(false),
            }),
            Err(_) if nodes.len() >= VALUES_MAX => Err(Fault::TooLarge),
            Err(_) => Err(Fault::NotJson),
        }
    }

    pub fn root(&self) -> Item<'_> {
        Item {
            nodes: &self.nodes,
            at: 0,
            read_text: &self.read_text,
        }
    }

    /// What was read in spite of its form: to be asked when all was read.
    pub fn quirks(&self) -> impl Iterator<Item = Fault> + use<> {
        let duplicate = self.has_duplicates.then_some(Fault::DuplicateKey);
        let text = self.read_text.get().then_some(Fault::NumberAsText);
        duplicate.into_iter().chain(text)
    }
}

/// Has any object a key twice? Each is looked at once, in about the time of its length.
fn has_duplicates(nodes: &[Node<'_>]) -> bool {
    let objects = nodes.iter().enumerate();
    objects
        .filter(|(_, n)| matches!(n.value, Value::Object))
        .any(|(at, object)| {
            let end = object.next as usize;
            let first = Some(at + 1).filter(|at| *at < end);
            let next = |at: &usize| Some(nodes[*at].next as usize).filter(|next| *next < end);
            let members = std::iter::successors(first, next);
            let mut few: [&str; MEMBERS_COMPARED] = [""; MEMBERS_COMPARED];
            let mut many = HashSet::new();
            members.enumerate().any(|(n, at)| {
                let key = &*nodes[at].key;
                match few.get_mut(n) {
                    Some(place) => {
                        *place = key;
                        few[..n].contains(&key)
                    }
                    None => !many.insert(key) || few.contains(&key),
                }
            })
        })
}

/// Any value of a document.
#[derive(Clone, Copy)]
pub struct Item<'d> {
    nodes: &'d [Node<'d>],
    at: usize,
    read_text: &'d Cell<bool>,
}

impl<'d> Item<'d> {
    fn value(self) -> &'d Value<'d> {
        &self.nodes[self.at].value
    }

    pub fn is_null(self) -> bool {
        matches!(self.value(), Value::Null)
    }

    pub fn as_flag(self) -> Option<bool> {
        match self.value() {
            Value::Flag(b) => Some(*b),
            _ => None,
        }
    }

    /// A text in quotes.
    pub fn as_text(self) -> Option<&'d str> {
        match self.value() {
            Value::Text(s) => Some(s),
            _ => None,
        }
    }

    /// A finite number, also when it comes as text.
    pub fn as_number(self) -> Option<f64> {
        #[allow(clippy::cast_precision_loss, reason = "as JSON's own numbers")]
        match self.value() {
            Value::Whole(i) => Some(*i as f64),
            Value::Number(f) => Some(*f),
            Value::Text(s) => self.parsed(s),
            _ => None,
        }
        .filter(|f: &f64| f.is_finite())
    }

    /// A whole number, also when it comes as text or with a fraction.
    pub fn as_integer(self) -> Option<i64> {
        match self.value() {
            Value::Whole(i) => Some(*i),
            Value::Text(s) => self.parsed(s),
            _ => None,
        }
        .or_else(|| {
            #[allow(clippy::cast_possible_truncation, reason = "checked to be small")]
            self.as_number()
                .filter(|f| f.abs() < 9e15)
                .map(|f| f.trunc() as i64)
        })
    }

    fn parsed<T: std::str::FromStr>(self, text: &str) -> Option<T> {
        let number = text.trim().parse().ok()?;
        // NaN and infinities are none.
        if text.contains(|c: char| c.is_ascii_digit()) {
            self.read_text.set(true);
        }
        Some(number)
    }

    /// A text or a number as people would write it.
    pub fn to_text(self) -> Option<Cow<'d, str>> {
        match self.value() {
            Value::Text(s) => Some(Cow::Borrowed(s)),
            Value::Whole(i) => Some(i.to_string().into()),
            Value::Number(f) => Some(f.to_string().into()),
            _ => None,
        }
    }

    pub fn as_object(self) -> Option<Object<'d>> {
        matches!(self.value(), Value::Object).then_some(Object(self))
    }

    /// The items of a list.
    pub fn as_list(self) -> Option<impl Iterator<Item = Item<'d>> + Clone> {
        matches!(self.value(), Value::List).then(|| self.children())
    }

    fn children(self) -> impl Iterator<Item = Item<'d>> + Clone {
        let Self {
            nodes, read_text, ..
        } = self;
        let end = nodes[self.at].next as usize;
        let first = Some(self.at + 1).filter(|at| *at < end);
        std::iter::successors(first, move |at| {
            Some(nodes[*at].next as usize).filter(|next| *next < end)
        })
        .map(move |at| Item {
            nodes,
            at,
            read_text,
        })
    }
}

/// A value that is an object.
#[derive(Clone, Copy)]
pub struct Object<'d>(Item<'d>);

impl<'d> Object<'d> {
    /// The member, unless it is absent or null. Of duplicate keys the last one counts.
    pub fn get(self, key: &str) -> Option<Item<'d>> {
        self.last(key).filter(|v| !v.is_null())
    }

    /// Is there such a member, null or not?
    pub fn has(self, key: &str) -> bool {
        self.last(key).is_some()
    }

    fn last(self, key: &str) -> Option<Item<'d>> {
        let Item {
            nodes,
            at,
            read_text,
        } = self.0;
        let (mut at, end) = (at + 1, nodes[at].next as usize);
        let mut found = None;
        while at < end {
            if nodes[at].key == key {
                found = Some(Item {
                    nodes,
                    at,
                    read_text,
                });
            }
            at = nodes[at].next as usize;
        }
        found
    }

    /// All members as they stand, duplicates and nulls too.
    pub fn members(self) -> impl Iterator<Item = (&'d str, Item<'d>)> + Clone {
        self.0.children().map(|v| (&*v.nodes[v.at].key, v))
    }
}

/// Reads one value to the end of the list.
struct Reading<'n, 'a> {
    key: Cow<'a, str>,
    nodes: &'n mut Vec<Node<'a>>,
}

impl<'a> Reading<'_, 'a> {
    fn leaf<E: Error>(self, value: Value<'a>) -> Result<(), E> {
        let (nodes, at) = self.open(value)?;
        close(nodes, at)
    }
}

impl<'n, 'a> Reading<'n, 'a> {
    fn open<E: Error>(self, value: Value<'a>) -> Result<(&'n mut Vec<Node<'a>>, usize), E> {
        let Self { key, nodes } = self;
        let (at, next) = (nodes.len(), 0);
        if at >= VALUES_MAX {
            return Err(E::custom("too many values"));
        }
        nodes.push(Node { key, value, next });
        Ok((nodes, at))
    }
}

fn close<E: Error>(nodes: &mut [Node<'_>], at: usize) -> Result<(), E> {
    nodes[at].next = u32::try_from(nodes.len()).map_err(E::custom)?;
    Ok(())
}

impl<'a> DeserializeSeed<'a> for Reading<'_, 'a> {
    type Value = ();

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'a> Visitor<'a> for Reading<'_, 'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        self.leaf(Value::Null)
    }

    fn visit_bool<E: Error>(self, b: bool) -> Result<(), E> {
        self.leaf(Value::Flag(b))
    }

    fn visit_i64<E: Error>(self, i: i64) -> Result<(), E> {
        self.leaf(Value::Whole(i))
    }

    fn visit_u64<E: Error>(self, u: u64) -> Result<(), E> {
        #[allow(clippy::cast_precision_loss, reason = "as JSON's own numbers")]
        self.leaf(i64::try_from(u).map_or(Value::Number(u as f64), Value::Whole))
    }

    fn visit_f64<E: Error>(self, f: f64) -> Result<(), E> {
        self.leaf(Value::Number(f))
    }

    fn visit_borrowed_str<E: Error>(self, s: &'a str) -> Result<(), E> {
        self.leaf(Value::Text(Cow::Borrowed(s)))
    }

    fn visit_str<E: Error>(self, s: &str) -> Result<(), E> {
        self.leaf(Value::Text(Cow::Owned(s.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'a>>(self, mut list: A) -> Result<(), A::Error> {
        let (nodes, at) = self.open(Value::List)?;
        loop {
            let item = Reading {
                key: Cow::Borrowed(""),
                nodes: &mut *nodes,
            };
            if list.next_element_seed(item)?.is_none() {
                return close(nodes, at);
            }
        }
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<(), A::Error> {
        let (nodes, at) = self.open(Value::Object)?;
        while let Some(key) = map.next_key_seed(Key)? {
            map.next_value_seed(Reading {
                key,
                nodes: &mut *nodes,
            })?;
        }
        close(nodes, at)
    }
}

/// Reads a key, borrowed unless it has escapes.
struct Key;

impl<'a> DeserializeSeed<'a> for Key {
    type Value = Cow<'a, str>;

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'a> Visitor<'a> for Key {
    type Value = Cow<'a, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_borrowed_str<E: Error>(self, s: &'a str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(s))
    }

    fn visit_str<E: Error>(self, s: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(s.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As `serde_json::Value`, to compare.
    fn tree(item: Item<'_>) -> serde_json::Value {
        if let Some(object) = item.as_object() {
            let members = object.members();
            return members.map(|(k, v)| (k.to_owned(), tree(v))).collect();
        }
        if let Some(list) = item.as_list() {
            return list.map(tree).collect();
        }
        match item.value() {
            Value::Flag(b) => (*b).into(),
            Value::Whole(i) => (*i).into(),
            Value::Number(f) => (*f).into(),
            Value::Text(s) => (&**s).into(),
            _ => serde_json::Value::Null,
        }
    }

    #[test]
    fn duplicates_are_told_in_objects_of_any_size() {
        for size in [2, MEMBERS_COMPARED, MEMBERS_COMPARED + 1, 5000] {
            let members: Vec<_> = (0..size).map(|i| format!("\"k{i}\":0")).collect();
            let told = |more: &str| {
                let text = format!("{{\"a\":[{{{}{more}}}]}}", members.join(","));
                Document::parse(text.as_bytes()).unwrap().has_duplicates
            };
            let last = format!(",\"k{}\":1", size - 1);
            assert!(!told("") && told(",\"k0\":1") && told(&last), "{size}");
            assert!(!told(",\"n\":{\"k0\":1}"), "another object");
        }
    }

    #[test]
    fn nested_values_are_found_and_the_last_duplicate_counts() {
        let text = br#" {"a":{"b":[1,{"c":"x\n"},null,[]],"e":{}},"n":-1.5,"n":"7","\u0061bc":true,"z":null} "#;
        let document = Document::parse(text).unwrap();
        let o = document.root().as_object().unwrap();
        assert_eq!(o.get("n").unwrap().as_number(), Some(7.0));
        assert_eq!(o.get("abc").unwrap().as_flag(), Some(true));
        assert!(o.get("z").is_none() && o.has("z") && !o.has("b"));
        let b = o.get("a").unwrap().as_object().unwrap().get("b").unwrap();
        let items: Vec<_> = b.as_list().unwrap().collect();
        assert_eq!(items.len(), 4);
        assert_eq!(items[0].as_integer(), Some(1));
        let c = items[1].as_object().unwrap().get("c").unwrap();
        assert_eq!(c.as_text(), Some("x\n"));
        assert_eq!(items[3].as_list().unwrap().count(), 0);
    }

    #[test]
    fn what_is_no_json_is_refused() {
        let fault = |p: &[u8]| Document::parse(p).err();
        for bad in [
            &b""[..],
            b"{",
            b"{}{}",
            b"{\"a\":1,}",
            b"\xff",
            b"{1:2}",
            b"// x",
        ] {
            assert_eq!(fault(bad), Some(Fault::NotJson), "{bad:?}");
        }
        assert_eq!(
            fault("[".repeat(200).as_bytes()),
            Some(Fault::NotJson),
            "too deep"
        );
        assert_eq!(fault(&vec![b' '; PAYLOAD_MAX + 1]), Some(Fault::TooLarge));
        assert_eq!(fault(b"18446744073709551615"), None);
        let many = |n: usize| format!("[{}]", vec!["0"; n].join(","));
        assert_eq!(fault(many(VALUES_MAX - 1).as_bytes()), None);
        assert_eq!(fault(many(VALUES_MAX).as_bytes()), Some(Fault::TooLarge));
    }

    proptest! {
        #[test]
        fn it_is_what_serde_json_reads(text in r#"[\[\]{}",:a\\u0-9.eE+-]{0,40}"#) {
            let ours = Document::parse(text.as_bytes()).ok();
            let theirs: Option<serde_json::Value> = serde_json::from_str(&text).ok();
            prop_assert_eq!(ours.is_some(), theirs.is_some());
            if let (Some(ours), Some(theirs)) = (ours, theirs) {
                prop_assert_eq!(tree(ours.root()), theirs);
            }
        }
    }
}
