//! The name that an author meant, for messages about unknown names.
//!
//! Comes in: a name, and those that are known. Goes out: the one that is near enough, if there is one. Must not know: what
//! is named, and how the message is worded.

/// The known name with the fewest edits from `meant`; upper case, `_`, `-` and `.` aside. None, where more than a third of
/// its letters differ, for then a guess misleads.
pub(crate) fn nearest<'a>(meant: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let plain = |name: &str| name.to_ascii_lowercase().replace(['_', '-', '.'], "");
    let meant = plain(meant);
    let edits = known.into_iter().map(|name| (strsim::damerau_levenshtein(&meant, &plain(name)), name));
    let (distance, name) = edits.min_by_key(|(distance, _)| *distance)?;
    let most = (name.len() / 3).max(1);
    (distance <= most).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_near() {
        let known = ["port", "log_level", "body_size_limit", "get", "delete"];
        for (meant, expected) in [
            ("prot", Some("port")),
            ("logLevel", Some("log_level")),
            ("body_limit", Some("body_size_limit")),
            ("gett", Some("get")),
            ("DELTE", Some("delete")),
            ("colours", None),
            ("porte", Some("port")),
            ("gist", None),
            ("", None),
        ] {
            assert_eq!(nearest(meant, known), expected, "{meant}");
        }
        assert_eq!(nearest("a", []), None);
    }
}
