//! Recognises headers by which a client could claim what only a proxy in front of the upstream knows.
//!
//! Comes in: the name of a field of a request. Goes out: whether it may be passed on. An upstream behind a proxy trusts
//! such fields, so they come from the proxy or not at all. This module must not know of values.

use http::header::HeaderName;

/// What the upstream is told of the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Forwarding {
    /// What this server knows, in place of what the client says.
    Replace,
    /// What this server knows, behind what a proxy in front says.
    Append,
    /// Nothing of its own.
    Off,
}

/// Where a request came from, said in other fields than `Forwarded` and `X-Forwarded-For`, `-Proto`, `-Host`, which are
/// written anew, and those that begin with `x-forwarded-`.
const ORIGINS: [&str; 9] = [
    "x-real-ip",
    "x-client-ip",
    "x-cluster-client-ip",
    "true-client-ip",
    "client-ip",
    "x-forwarded",
    "x-scheme",
    "x-url-scheme",
    "front-end-https",
];

/// Says that the request was for another target; some frameworks route by it. The others begin with `x-original-` and
/// `x-rewrite-`. `Proxy` becomes `HTTP_PROXY` in CGI, which clients of HTTP obey.
const PROXY: &str = "proxy";

/// The fields that are written anew, as `forwarded` says.
pub(super) const WRITTEN: [&str; 4] = ["forwarded", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host"];

/// Whether a client's field goes on to the upstream. `kept` are those that the app names.
#[inline]
pub(super) fn may_pass(name: &HeaderName, forwarding: Forwarding, kept: &[HeaderName]) -> bool {
    let text = name.as_str();
    let is_claim = match text.as_bytes()[0] {
        b'x' | b'p' | b't' | b'c' | b'f' => is_claim(text, forwarding),
        _ => false,
    };
    !(is_claim || has_twin(text)) || kept.contains(name)
}

fn is_claim(name: &str, forwarding: Forwarding) -> bool {
    if name == PROXY || name.starts_with("x-original-") || name.starts_with("x-rewrite-") {
        return true;
    }
    // The operator trusts a proxy in front, or wants nothing changed.
    forwarding == Forwarding::Replace
        && (ORIGINS.contains(&name) || name.starts_with("x-forwarded-") && !WRITTEN.contains(&name))
}

/// Whether an upstream may take the name for another one: CGI and WSGI make `_` of a hyphen, so `X_Forwarded_For` would
/// be `X-Forwarded-For` to it, and others make `_` of whatever is no letter or digit.
fn has_twin(name: &str) -> bool {
    !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passes(name: &'static str, forwarding: Forwarding) -> bool {
        may_pass(&HeaderName::from_static(name), forwarding, &[])
    }

    #[test]
    fn claims_are_known_by_their_names() {
        let always = ["x_forwarded_for", "content_length", "x.real.ip", "proxy", "x-original-url", "x-rewrite-url"];
        let replaced =
            ["x-real-ip", "x-forwarded-port", "x-forwarded-prefix", "x-forwarded-ssl", "x-forwarded-user", "client-ip"];
        let never = ["x-request-id", "x-forwarded-for", "proxy-authorization", "x-one", "cookie", "forwarded", "te"];
        for forwarding in [Forwarding::Replace, Forwarding::Append, Forwarding::Off] {
            assert!(always.iter().all(|name| !passes(name, forwarding)));
            assert!(replaced.iter().all(|name| passes(name, forwarding) != (forwarding == Forwarding::Replace)));
            assert!(never.iter().all(|name| passes(name, forwarding)));
        }
        let kept = [HeaderName::from_static("x_mine")];
        assert!(may_pass(&kept[0], Forwarding::Replace, &kept));
    }
}
