//! Ranks matches and places their parameters, by the kinds of a pattern's segments and the length of its literals.
//!
//! In: a pattern, once; then the paths that it matches. Out: an order between patterns, and [`Params`].
//! Must not know: how a match is found.

use std::cmp::Ordering;

use super::{Params, Pattern, Segment};

/// What ranks a pattern, and where its parameters are. Of two patterns that match one path, the smaller one wins.
#[derive(Debug)]
pub(super) struct Rank {
    /// From the left; alone they decide the order.
    kinds: Box<[SegmentKind]>,
    places: Box<[ParamPlace]>,
}

/// In the order in which segments win over each other.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum SegmentKind {
    Literal,
    Param,
    Rest,
}

/// Where a parameter's value is.
#[derive(Clone, Copy, Debug)]
struct ParamPlace {
    /// It begins so many bytes behind the value before it, or behind the beginning of the path.
    skip: usize,
    /// It reaches to the end of the path.
    is_last: bool,
}

impl Rank {
    pub(super) fn of(pattern: &Pattern) -> Self {
        let mut kinds = Vec::new();
        let mut places: Vec<ParamPlace> = Vec::new();
        let mut skip = 0;
        for (n, segment) in pattern.segments().iter().enumerate() {
            skip += 1;
            match segment {
                Segment::Literal(text) => {
                    kinds.push(SegmentKind::Literal);
                    skip += text.len();
                }
                Segment::Param(_) | Segment::Rest(_) => {
                    kinds.push(if matches!(segment, Segment::Param(_)) {
                        SegmentKind::Param
                    } else {
                        SegmentKind::Rest
                    });
                    places.push(ParamPlace { skip, is_last: n + 1 == pattern.segments().len() });
                    skip = 0;
                }
            }
        }
        Self { kinds: kinds.into(), places: places.into() }
    }

    /// Places the parameters in a path that the pattern matches. Literals are as long in the path as in the pattern (each
    /// spelling is a pattern), so only the values in between are looked at; taking them from matchit, which checks each one
    /// for UTF-8, costs 10 to 15 ns more (`benches/router.rs`, two parameters).
    #[inline]
    pub(super) fn place(&self, path: &str) -> Params {
        let mut params = Params::default();
        let mut end = 0;
        for place in &self.places {
            let start = end + place.skip;
            let tail = path.as_bytes().get(start..).unwrap_or_default();
            let length = match place.is_last {
                true => tail.len(),
                false => tail.iter().position(|byte| *byte == b'/').unwrap_or(tail.len()),
            };
            end = start + length;
            params.push(start, end);
        }
        params
    }
}

impl PartialEq for Rank {
    fn eq(&self, other: &Rank) -> bool {
        self.kinds == other.kinds
    }
}

impl Eq for Rank {}

impl PartialOrd for Rank {
    fn partial_cmp(&self, other: &Rank) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Rank {
    fn cmp(&self, other: &Rank) -> Ordering {
        self.kinds.cmp(&other.kinds)
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
    fn places_parameters_between_literals() {
        assert_eq!(rank(&["u", "p_id", "p", "p_x"]).place("/u/42/p/z").spans(), [(3, 5), (8, 9)]);
        assert_eq!(rank(&["p_a", "{*b}"]).place("/1/2//3/").spans(), [(1, 2), (3, 8)]);
        assert_eq!(rank(&["p_a", ""]).place("/1/").spans(), [(1, 2)]);
        assert_eq!(rank(&["{*a}"]).place("//").spans(), [(1, 2)]);
    }
}
