//! Names with `*` for any text.
//!
//! Comes in: a pattern and a name. Goes out: whether the one describes the other. Must not know: what is named.
//!
//! Not by `globset` or `wildmatch`: in a glob `?`, `[` and `{` mean something, which names of files and types may hold.

/// Whether `name` is `pattern`, in which `*` stands for any text.
pub(crate) fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let mut parts = pattern.split(|byte| *byte == b'*');
    let Some(mut rest) = parts.next().and_then(|first| name.strip_prefix(first)) else { return false };
    let parts: Vec<&[u8]> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
    for part in middle {
        match memchr::memmem::find(rest, part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_stars() {
        for (pattern, name) in [
            ("assets/*", "assets/a-1.js"),
            ("*", "a"),
            ("*.js", "x/y.js"),
            ("a*b*c", "a1b2c"),
            ("a", "a"),
            ("*-*.css", "a-b.css"),
        ] {
            assert!(matches(pattern.as_bytes(), name.as_bytes()), "{pattern} {name}");
        }
        for (pattern, name) in [("assets/*", "a.js"), ("*.js", "a.jsx"), ("a*b", "ab1"), ("a", "ab"), ("a*a", "a")] {
            assert!(!matches(pattern.as_bytes(), name.as_bytes()), "{pattern} {name}");
        }
    }
}
