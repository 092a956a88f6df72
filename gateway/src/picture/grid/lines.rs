//! On which line of the file each feature begins: faults are told as `file:line`.

/// Lines (from 1) of the elements of the top-level array `features`, in order. For text that is JSON.
pub fn of_features(text: &str) -> Vec<usize> {
    let mut lines = Vec::new();
    let (mut line, mut depth) = (1, 0_usize);
    let mut in_text: Option<usize> = None;
    let mut escaped = false;
    let mut key = "";
    // The depth of the array's elements, while in it.
    let mut features: Option<usize> = None;
    for (i, b) in text.bytes().enumerate() {
        if b == b'\n' {
            line += 1;
        }
        if let Some(start) = in_text {
            match b {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => {
                    in_text = None;
                    if depth == 1 {
                        key = &text[start..i];
                    }
                }
                _ => {}
            }
            continue;
        }
        let begins =
            features == Some(depth) && !matches!(b, b',' | b']' | b' ' | b'\t' | b'\r' | b'\n');
        if begins && matches!(b, b'{' | b'[' | b'"') {
            lines.push(line);
        }
        match b {
            b'"' => in_text = Some(i + 1),
            b'{' | b'[' => {
                depth += 1;
                if b == b'[' && depth == 2 && key == "features" {
                    lines.clear();
                    features = Some(depth);
                }
            }
            b'}' | b']' => {
                if features == Some(depth) && b == b']' {
                    features = None;
                }
                depth = depth.saturating_sub(1);
            }
            _ => {}
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_are_found_by_line() {
        let text = "{\n\"name\":\"features [{\\\"\",\n\"features\":[{\"a\":[{}]},\n\n {\"features\":[{}]},\n{}],\n\"x\":[{}]}";
        assert_eq!(of_features(text), [3, 5, 6]);
        assert!(of_features("").is_empty());
    }
}
