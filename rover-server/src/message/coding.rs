//! Negotiates content codings.
//!
//! Comes in: the `Accept-Encoding` fields of a request. Goes out: the coding to answer with, out of those on offer
//! (RFC 9110, sections 8.4.1 and 12.5.3). Must not know: who encodes, and what.

use http::header::ACCEPT_ENCODING;
use http::{HeaderMap, HeaderValue};

/// A content coding that Rover knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Coding {
    /// RFC 8878.
    Zstd,
    /// RFC 7932.
    Br,
    /// RFC 1952.
    Gzip,
}

impl Coding {
    /// All of them; a coding's place is its number.
    pub(crate) const ALL: [Coding; 3] = [Coding::Zstd, Coding::Br, Coding::Gzip];

    /// The registered name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Coding::Zstd => "zstd",
            Coding::Br => "br",
            Coding::Gzip => "gzip",
        }
    }

    /// The value of `Content-Encoding`.
    pub(crate) fn value(self) -> HeaderValue {
        HeaderValue::from_static(self.name())
    }

    /// The coding of this name, in any case; `x-gzip` is `gzip` (RFC 9110, section 8.4.1.3).
    pub(crate) fn from_name(name: &str) -> Option<Coding> {
        match name {
            name if name.eq_ignore_ascii_case("gzip") || name.eq_ignore_ascii_case("x-gzip") => Some(Coding::Gzip),
            name if name.eq_ignore_ascii_case("br") => Some(Coding::Br),
            name if name.eq_ignore_ascii_case("zstd") => Some(Coding::Zstd),
            _ => None,
        }
    }
}

/// The codings that a client accepts, each with its quality in thousandths; 0 is "not acceptable".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Accepted {
    /// By the number of the coding.
    qualities: [u16; 3],
    identity: u16,
}

/// The quality of `identity` where the client says nothing of it: acceptable, and behind everything that it names.
const UNNAMED_IDENTITY: u16 = 1;

impl Accepted {
    /// Reads the `Accept-Encoding` fields. Without one, only the plain bytes are sent: the client would have to take
    /// any coding, but those that do not say so often do not.
    pub(crate) fn of(headers: &HeaderMap) -> Accepted {
        let mut named = [None; 4];
        let mut others = None;
        for value in headers.get_all(ACCEPT_ENCODING) {
            for element in value.as_bytes().split(|byte| *byte == b',') {
                let Some((name, quality)) = std::str::from_utf8(element).ok().and_then(parse) else { continue };
                match Coding::from_name(name) {
                    Some(coding) => named[coding as usize] = Some(quality),
                    None if name == "*" => others = Some(quality),
                    None if name.eq_ignore_ascii_case("identity") => named[3] = Some(quality),
                    None => {}
                }
            }
        }
        let of = |place: usize| named[place].or(others).unwrap_or(0);
        Accepted {
            qualities: [of(0), of(1), of(2)],
            identity: named[3].or(others.filter(|quality| *quality == 0)).unwrap_or(UNNAMED_IDENTITY),
        }
    }

    /// The best of what is on offer, which stands in the server's order of preference; `None` for the plain bytes.
    pub(crate) fn choose(self, offered: impl IntoIterator<Item = Coding>) -> Option<Coding> {
        let mut best = None;
        let mut most = 0;
        for coding in offered {
            let quality = self.qualities[coding as usize];
            if quality > most && quality >= self.identity {
                best = Some(coding);
                most = quality;
            }
        }
        best
    }

    /// Whether the client refuses plain bytes.
    pub(crate) fn refuses_identity(self) -> bool {
        self.identity == 0
    }
}

/// Splits ` gzip ; q=0.5` into its name and its quality in thousandths. `None` for what is not well formed.
fn parse(element: &str) -> Option<(&str, u16)> {
    let mut parts = element.split(';').map(|part| part.trim_matches([' ', '\t']));
    let name = parts.next().filter(|name| !name.is_empty())?;
    let quality = match parts.next() {
        None => 1000,
        Some(weight) => {
            let digits = weight.strip_prefix("q=").or_else(|| weight.strip_prefix("Q="))?;
            let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
            if fraction.len() > 3 {
                return None;
            }
            let mut thousandths = 0;
            for place in 0..3 {
                let digit = match fraction.as_bytes().get(place) {
                    Some(byte) => char::from(*byte).to_digit(10)?,
                    None => 0,
                };
                thousandths = thousandths * 10 + digit as u16;
            }
            match whole {
                "0" => thousandths,
                "1" if thousandths == 0 => 1000,
                _ => return None,
            }
        }
    };
    Some((name, quality))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(fields: &[&'static str]) -> Option<Coding> {
        let mut headers = HeaderMap::new();
        for field in fields {
            headers.append(ACCEPT_ENCODING, HeaderValue::from_static(field));
        }
        Accepted::of(&headers).choose(Coding::ALL)
    }

    #[test]
    fn the_best_that_both_know() {
        for (fields, coding) in [
            (&[][..], None),
            (&[""], None),
            (&["gzip"], Some(Coding::Gzip)),
            (&["gzip, deflate, br, zstd"], Some(Coding::Zstd)),
            (&["gzip, br"], Some(Coding::Br)),
            (&["GZIP"], Some(Coding::Gzip)),
            (&["x-gzip"], Some(Coding::Gzip)),
            (&["br;q=0.5, gzip;q=0.8"], Some(Coding::Gzip)),
            (&["br ; q=0.5", "gzip\t;q=0.4"], Some(Coding::Br)),
            (&["zstd;q=0, *"], Some(Coding::Br)),
            (&["*"], Some(Coding::Zstd)),
            (&["*;q=0"], None),
            (&["*;q=0, gzip"], Some(Coding::Gzip)),
            (&["deflate"], None),
            (&["identity"], None),
            (&["identity, gzip"], Some(Coding::Gzip)),
            (&["identity, gzip;q=0.9"], None),
            (&["identity;q=0.5, gzip;q=0.5"], Some(Coding::Gzip)),
            (&["gzip;q=0.001"], Some(Coding::Gzip)),
            (&["gzip;q=0.000"], None),
            (&["gzip;q=1.000"], Some(Coding::Gzip)),
        ] {
            assert_eq!(chosen(fields), coding, "{fields:?}");
        }
    }

    #[test]
    fn what_is_malformed_does_not_count() {
        for wrong in ["gzip;q=2", "gzip;q=1.1", "gzip;q=0.1234", "gzip;q=", "gzip;q=x", "gzip;level=1", ";q=1", "gz ip"]
        {
            assert_eq!(chosen(&[wrong]), None, "{wrong}");
        }
        assert_eq!(chosen(&["gzip;q=2, br"]), Some(Coding::Br));
    }

    #[test]
    fn refused_identity() {
        let refuses = |field| {
            let headers = HeaderMap::from_iter([(ACCEPT_ENCODING, HeaderValue::from_static(field))]);
            Accepted::of(&headers).refuses_identity()
        };
        assert!(refuses("identity;q=0, gzip") && refuses("*;q=0") && refuses("gzip, *;q=0"));
        assert!(!refuses("gzip") && !refuses("*") && !refuses("*;q=0, identity") && !refuses("*;q=0.5"));
    }
}
