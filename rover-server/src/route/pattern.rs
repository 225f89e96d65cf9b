//! Patterns: the paths that a handler answers, in Rover's terms.
//!
//! In: the field names from the app down to the verb, such as `users`, `p_id`, `{*path}`. Out: segments with
//! literals in the spelling that a client sends, or what is wrong with a name and how to cure it.
//! Must not know: methods, other patterns, and the syntax of the library that searches.

use std::fmt;

use super::literal::{OTHER_SPELLINGS, encode_literal, has_delimiters, other_spelling};

/// How many parameters one pattern may have; the search names them with one letter each.
const MAX_PARAMS: usize = 26;

/// One segment of a pattern.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Segment {
    /// Exactly this text, percent-encoded as a client sends it. Empty only at the end, where it stands for a trailing `/`.
    Literal(Box<str>),
    /// One non-empty segment, under this name.
    Param(Box<str>),
    /// The rest of the path, at least one byte, under this name. Always last.
    Rest(Box<str>),
}

/// The paths that a handler answers. Displays as `/users/{id}/posts/{pid}` or `/files/{*path}`.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Pattern {
    segments: Box<[Segment]>,
    text: Box<str>,
}

/// What is wrong with a pattern, with the cure, in words for Lua authors.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PatternMistake {
    message: String,
}

impl Pattern {
    /// Builds a pattern from the Lua field names that lead to a verb. None stand for `/`.
    ///
    /// `p_<name>` and `{name}` are parameters, `{*name}` is the rest of the path, an empty last name is a trailing
    /// slash, anything else is a literal.
    ///
    /// # Errors
    /// The first mistake from the left: a name with a `/`, an empty name before the last, a bad or repeated parameter
    /// name, a rest of the path that is not last, more than 26 parameters.
    pub fn parse<S: AsRef<[u8]>>(fields: &[S]) -> Result<Pattern, PatternMistake> {
        let mut segments = Vec::with_capacity(fields.len());
        for (i, field) in fields.iter().enumerate() {
            let segment = parse_segment(field.as_ref(), i, fields.len())?;
            if let Some(name) = segment.param_name()
                && segments.iter().any(|earlier: &Segment| earlier.param_name() == Some(name))
            {
                return mistake(format!(
                    "the parameter name {name:?} stands twice in one path; give each parameter its own name"
                ));
            }
            segments.push(segment);
        }
        if segments.iter().filter(|segment| segment.param_name().is_some()).count() > MAX_PARAMS {
            return mistake(format!(
                "a path has at most {MAX_PARAMS} parameters; take the tail as one with \"{{*rest}}\" and split it in the handler"
            ));
        }
        let text = write_path(&segments, |segment| match segment {
            Segment::Literal(text) => ["", text, ""],
            Segment::Param(name) => ["{", name, "}"],
            Segment::Rest(name) => ["{*", name, "}"],
        });
        Ok(Pattern { segments: segments.into(), text: text.into() })
    }

    /// Returns the segments from the left; none for `/`.
    #[must_use]
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// Returns the text that it displays as.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Says whether it is one path only.
    pub(super) fn is_static(&self) -> bool {
        self.segments.iter().all(|segment| matches!(segment, Segment::Literal(_)))
    }

    /// The names of its parameters, from the left.
    pub(super) fn param_names(&self) -> Box<[Box<str>]> {
        self.segments.iter().filter_map(Segment::param_name).map(Box::from).collect()
    }

    /// The pattern without the parameters' names: equal for patterns that match the same paths, and the syntax of
    /// `matchit`. No ambiguity: a literal never holds a brace.
    pub(super) fn shape(&self) -> String {
        write_path(&self.segments, |segment| ["", segment.shape(), ""])
    }

    /// The shape where a literal may hold a brace, which is doubled then, for it is matchit's own.
    pub(super) fn escaped_shape(&self) -> String {
        let segments = self.segments.iter().map(|segment| match segment {
            Segment::Literal(text) => text.replace('{', "{{").replace('}', "}}"),
            other => other.shape().to_owned(),
        });
        segments.flat_map(|segment| ["/".to_owned(), segment]).collect()
    }

    /// Says whether clients may encode bytes of a literal that need not be.
    pub(super) fn has_delimiters(&self) -> bool {
        self.segments.iter().any(|segment| matches!(segment, Segment::Literal(text) if has_delimiters(text)))
    }

    /// The pattern with its literals in the other spellings that clients send, if there are any; no spelling twice.
    ///
    /// A client has one way to spell, so there are no more than three however many segments there are.
    pub(super) fn other_spellings(&self) -> Vec<Pattern> {
        let mut others: Vec<Pattern> = Vec::new();
        for number in 0..if self.text.contains('%') { OTHER_SPELLINGS } else { 0 } {
            let respelled = self.segments.iter().map(|segment| match segment {
                Segment::Literal(text) => Segment::Literal(other_spelling(text, number).into()),
                other => other.clone(),
            });
            let other = Pattern { segments: respelled.collect(), text: self.text.clone() };
            if other != *self && !others.contains(&other) {
                others.push(other);
            }
        }
        others
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Display for PatternMistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for PatternMistake {}

impl Segment {
    /// What stands for it in the shape of a pattern, after a `/`.
    pub(super) fn shape(&self) -> &str {
        match self {
            Segment::Literal(text) => text,
            Segment::Param(_) => "{p}",
            Segment::Rest(_) => "{*p}",
        }
    }

    /// Returns the name under which a parameter or a rest of the path arrives.
    #[must_use]
    pub fn param_name(&self) -> Option<&str> {
        match self {
            Segment::Literal(_) => None,
            Segment::Param(name) | Segment::Rest(name) => Some(name),
        }
    }
}

/// A path of what `parts` gives for each segment.
fn write_path<'s>(segments: &'s [Segment], parts: impl Fn(&'s Segment) -> [&'s str; 3]) -> String {
    if segments.is_empty() {
        return "/".to_owned();
    }
    let mut path = String::with_capacity(segments.len() * 12);
    for segment in segments {
        path.push('/');
        path.extend(parts(segment));
    }
    path
}

fn mistake<T>(message: String) -> Result<T, PatternMistake> {
    Err(PatternMistake { message })
}

fn parse_segment(field: &[u8], index: usize, count: usize) -> Result<Segment, PatternMistake> {
    let shown = String::from_utf8_lossy(field);
    if field.contains(&b'/') {
        let parts: String =
            shown.split('/').filter(|part| !part.is_empty()).map(|part| format!("[{part:?}]")).collect();
        return mistake(if parts.is_empty() {
            format!("the segment {shown:?} holds only \"/\"; leave it out")
        } else {
            format!("the segment {shown:?} holds a \"/\"; write one field for each segment: api{parts}")
        });
    }
    if field.is_empty() && (index == 0 || index + 1 < count) {
        return mistake(
            "a segment is empty; leave it out (an empty name is allowed only at the end of a path, for a trailing slash)"
                .to_owned(),
        );
    }
    if let Some(name) = field.strip_prefix(b"p_") {
        return param_name(name, &shown).map(Segment::Param);
    }
    if let Some(inner) = field.strip_prefix(b"{").and_then(|rest| rest.strip_suffix(b"}")) {
        return match inner.strip_prefix(b"*") {
            None => param_name(inner, &shown).map(Segment::Param),
            Some(_) if index + 1 < count => mistake(format!(
                "{shown:?} takes the rest of the path, so nothing can follow it; make it the last segment"
            )),
            Some(name) => param_name(name, &shown).map(Segment::Rest),
        };
    }
    if holds_param(field) {
        return mistake(format!(
            "{shown:?} mixes a parameter with text; a parameter is a whole segment: take it whole and split it in the \
             handler (a brace that is meant as text is written %7B or %7D)"
        ));
    }
    match encode_literal(field).as_str() {
        dots @ ("." | "..") => mistake(format!(
            "no path holds the segment {dots:?}, for clients and Rover resolve it; leave it out, or name another"
        )),
        literal => Ok(Segment::Literal(literal.into())),
    }
}

fn param_name(name: &[u8], shown: &str) -> Result<Box<str>, PatternMistake> {
    match (is_name(name), std::str::from_utf8(name)) {
        (true, Ok(name)) => Ok(name.into()),
        _ => mistake(format!(
            "{shown:?} needs a parameter name of letters, digits and \"_\" that does not begin with a digit, such as p_id"
        )),
    }
}

fn is_name(name: &[u8]) -> bool {
    name.first().is_some_and(|first| !first.is_ascii_digit())
        && name.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_')
}

/// Says whether `{name}` or `{*name}` stands somewhere in the text.
fn holds_param(field: &[u8]) -> bool {
    field.split(|byte| *byte == b'{').skip(1).any(|tail| {
        let tail = tail.strip_prefix(b"*").unwrap_or(tail);
        tail.iter().position(|byte| *byte == b'}').is_some_and(|end| is_name(&tail[..end]))
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn shown(fields: &[&str]) -> String {
        Pattern::parse(fields).unwrap().to_string()
    }

    fn wrong(fields: &[&str]) -> String {
        Pattern::parse(fields).unwrap_err().to_string()
    }

    #[test]
    fn reads_lua_field_names() {
        assert_eq!(shown(&[]), "/");
        assert_eq!(shown(&["users", "p_id", "posts", "{pid}"]), "/users/{id}/posts/{pid}");
        assert_eq!(shown(&["files", "{*path}"]), "/files/{*path}");
        assert_eq!(shown(&[".well-known", "security.txt"]), "/.well-known/security.txt");
        assert_eq!(shown(&["users", ""]), "/users/");
        assert_eq!(shown(&["{p_id}", "pid", "p"]), "/{p_id}/pid/p");
    }

    #[test]
    fn names_mistakes_with_their_cure() {
        assert!(wrong(&["a/b"]).contains("api[\"a\"][\"b\"]"));
        assert!(wrong(&["/"]).contains("leave it out"));
        assert!(wrong(&[""]).contains("empty"));
        assert!(wrong(&["a", "", "b"]).contains("empty"));
        for bad in ["p_", "p_1st", "p_a-b", "{}", "{*}", "{1}", "{a b}", "{**a}"] {
            assert!(wrong(&[bad]).contains("needs a parameter name"), "{bad}");
        }
        assert!(wrong(&["{*path}", "x"]).contains("make it the last segment"));
        assert!(wrong(&["p_id", "x", "{id}"]).contains("\"id\" stands twice"));
        assert!(wrong(&["a", ".."]).contains("\"..\""));
        assert!(wrong(&["%2e", "a"]).contains("\".\""));
        assert!(wrong(&["{id}.json"]).contains("whole segment"));
        let many: Vec<String> = (0..27).map(|i| format!("p_x{i}")).collect();
        assert!(Pattern::parse(&many[..26]).is_ok());
        assert!(Pattern::parse(&many).unwrap_err().to_string().contains("at most 26"));
    }
}
