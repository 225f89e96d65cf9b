//! The kinds of a pattern's segments: all that is needed to rank a match and to place its parameters.
//!
//! In: a pattern, once; then the paths that it matches. Out: an order between patterns, and [`Params`].
//! Must not know: how a match is found.

use super::{Params, Pattern, Segment};

/// The kinds of a pattern's segments, from the left. Of two patterns that match one path, the smaller one wins.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Rank(Box<[Kind]>);

/// In the order in which segments win over each other.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Kind {
    Literal,
    Param,
    Rest,
}

impl Rank {
    pub(super) fn of(pattern: &Pattern) -> Self {
        let kind = |segment: &Segment| match segment {
            Segment::Literal(_) => Kind::Literal,
            Segment::Param(_) => Kind::Param,
            Segment::Rest(_) => Kind::Rest,
        };
        Self(pattern.segments().iter().map(kind).collect())
    }

    /// Places the parameters in a path that the pattern matches. Counting the slashes again costs 10 to 15 ns less than
    /// taking the values from matchit, which checks each one for UTF-8 (`benches/router.rs`, two parameters).
    #[inline]
    pub(super) fn place(&self, path: &str) -> Params {
        let mut params = Params::default();
        let mut start = 1;
        for kind in &self.0 {
            let tail = path.as_bytes().get(start..).unwrap_or_default();
            let segment = || tail.iter().position(|byte| *byte == b'/').unwrap_or(tail.len());
            let end = start + if *kind == Kind::Rest { tail.len() } else { segment() };
            if *kind != Kind::Literal {
                params.push(start, end);
            }
            start = end + 1;
        }
        params
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn rank(fields: &[&str]) -> Rank {
        Rank::of(&Pattern::parse(fields).unwrap())
    }

    #[test]
    fn the_leftmost_difference_decides() {
        let order = [
            rank(&["a", "b"]),
            rank(&["a", "p_x", "{*rest}"]),
            rank(&["a", "{*rest}"]),
            rank(&["p_x", "b"]),
            rank(&["{*rest}"]),
        ];
        assert!(order.is_sorted());
    }

    #[test]
    fn places_parameters_by_counting_slashes() {
        assert_eq!(rank(&["u", "p_id", "p", "p_x"]).place("/u/42/p/z").spans(), [(3, 5), (8, 9)]);
        assert_eq!(rank(&["p_a", "{*b}"]).place("/1/2//3/").spans(), [(1, 2), (3, 8)]);
        assert_eq!(rank(&["p_a", ""]).place("/1/").spans(), [(1, 2)]);
        assert_eq!(rank(&["{*a}"]).place("//").spans(), [(1, 2)]);
    }
}
