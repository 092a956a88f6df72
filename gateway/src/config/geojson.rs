//! Where a feature of a GeoJSON text stands: faults of the grid name the feature, people look for a line.

/// Line and key of the `number`-th feature, as faults are told.
pub(super) fn place(text: &str, number: usize) -> (usize, String) {
    let key = match number {
        0 => "grid".to_owned(),
        n => format!("features[{}]", n - 1),
    };
    (line(text, number), key)
}

/// Line of the `number`-th feature (from 1); for 0, the text as a whole: where it stops being JSON, or its first line.
fn line(text: &str, number: usize) -> usize {
    if number == 0 {
        let parsed = serde_json::from_str::<serde::de::IgnoredAny>(text);
        return parsed.map_or_else(|e| e.line().max(1), |_| 1);
    }
    let end = offset(text, number).unwrap_or(0);
    1 + text.as_bytes()[..end]
        .iter()
        .filter(|b| **b == b'\n')
        .count()
}

/// Byte offset of the `number`-th object in the list `features` of the top object. `text` is known to be JSON.
fn offset(text: &str, number: usize) -> Option<usize> {
    let bytes = text.as_bytes();
    let (mut depth, mut inside, mut seen, mut i) = (0, false, 0, 0);
    let mut key = &bytes[..0];
    while let Some(b) = bytes.get(i) {
        match b {
            b'"' => {
                let start = i + 1;
                i = end_of_text(bytes, start)?;
                if depth == 1 {
                    key = &bytes[start..i];
                }
            }
            b'[' | b'{' => {
                inside |= depth == 1 && *b == b'[' && key == b"features";
                if inside && depth == 2 {
                    seen += 1;
                    if seen == number {
                        return Some(i);
                    }
                }
                depth += 1;
            }
            b']' | b'}' => {
                depth -= 1;
                inside &= depth > 1;
            }
            _ => {}
        }
        i += 1;
    }
    None
}

/// Offset of the quote that ends the text which starts at `i`.
fn end_of_text(bytes: &[u8], mut i: usize) -> Option<usize> {
    loop {
        match bytes.get(i)? {
            b'"' => return Some(i),
            b'\\' => i += 2,
            _ => i += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn features_are_found() {
        let text = r#"{"name": "a \" [ {",
"other": [{}],
"features": [
  {"geometry": {"coordinates": [[1, 2]]}},

  {}
]}"#;
        assert_eq!(
            [line(text, 0), line(text, 1), line(text, 2), line(text, 3)],
            [1, 4, 6, 1]
        );
        assert_eq!(line("{\n\n]", 0), 3);
    }

    proptest! {
        #[test]
        fn any_text(text in "[\\[\\]{}\",:a\\\\\n]{0,40}", number in 0usize..4) {
            prop_assert!(line(&text, number) <= 1 + text.matches('\n').count());
        }
    }
}
