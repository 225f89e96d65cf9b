//! Decides which requests the management listener answers.
//!
//! A page of another site can make a browser in the operator's network send requests to addresses that the site itself
//! cannot reach; and if the site's name resolves to such an address by then (DNS rebinding), the page can read the
//! answer. Both can be seen: the first in `Origin`, the second in `Host`, which holds the site's name.

use std::net::IpAddr;

use http::header::{HOST, ORIGIN};
use http::{HeaderMap, Uri};

/// The names under which operators know the server, beside its addresses.
#[derive(Clone, Debug, Default)]
pub(crate) struct HostNames {
    list: Vec<String>,
    any: bool,
}

impl HostNames {
    /// In lower case; `*` stands for any.
    pub(crate) fn new(list: impl IntoIterator<Item = String>) -> HostNames {
        let list: Vec<String> = list.into_iter().collect();
        HostNames { any: list.iter().any(|name| name == "*"), list }
    }

    /// Accepts any name.
    pub(super) fn any() -> HostNames {
        HostNames { list: Vec::new(), any: true }
    }

    /// Why a request is refused; `None` if it is answered.
    pub(super) fn refuses(&self, headers: &HeaderMap, target: &Uri) -> Option<&'static str> {
        let named = target.authority().map(|authority| authority.as_str().as_bytes());
        let hosts: Vec<&[u8]> = headers.get_all(HOST).iter().map(|host| host.as_bytes()).chain(named).collect();
        if !self.any && !hosts.iter().all(|host| self.knows(host)) {
            return Some(
                "Host must be an address of this server, localhost, a name without a dot, or one of management.hosts",
            );
        }
        let mut origins = headers.get_all(ORIGIN).iter().map(|origin| origin.as_bytes());
        let host = hosts.first().copied().unwrap_or_default();
        let is_own = |origin: &[u8]| {
            let rest = origin.strip_prefix(b"http://").or_else(|| origin.strip_prefix(b"https://"));
            rest.is_some_and(|rest| rest.eq_ignore_ascii_case(host))
        };
        if origins.all(is_own) { None } else { Some("the request comes from a page of another site") }
    }

    /// Whether no public site can have this name: it is an address, a local name without a dot, or one that the
    /// operator has listed.
    fn knows(&self, host: &[u8]) -> bool {
        let Ok(host) = std::str::from_utf8(host) else { return false };
        if let Some(literal) = host.strip_prefix('[') {
            return literal.split_once(']').is_some_and(|(address, _)| address.parse::<IpAddr>().is_ok());
        }
        let name = host.split(':').next().unwrap_or_default().trim_end_matches('.');
        let is_address = name.parse::<IpAddr>().is_ok();
        let is_listed = || self.list.iter().any(|own| own.eq_ignore_ascii_case(name));
        is_address || !name.contains('.') || name.to_ascii_lowercase().ends_with(".localhost") || is_listed()
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn is_answered(names: &HostNames, host: &str, origin: Option<&str>) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, HeaderValue::from_str(host).unwrap());
        if let Some(origin) = origin {
            headers.insert(ORIGIN, HeaderValue::from_str(origin).unwrap());
        }
        names.refuses(&headers, &Uri::from_static("/metrics")).is_none()
    }

    #[test]
    fn names_that_a_site_cannot_have() {
        let names = HostNames::new(["metrics.example.com".to_owned()]);
        for host in [
            "127.0.0.1:9090",
            "10.1.2.3",
            "[::1]:9090",
            "localhost:9090",
            "rover:9090",
            "Metrics.Example.com:9090",
            "app.localhost",
            "",
        ] {
            assert!(is_answered(&names, host, None), "{host}");
        }
        for host in [
            "evil.example:9090",
            "example.com",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "[evil.example]",
            "1.2.3",
        ] {
            assert!(!is_answered(&names, host, None), "{host}");
        }
        assert!(is_answered(&HostNames::new(["*".to_owned()]), "any.example", None));
        assert!(HostNames::default().refuses(&HeaderMap::new(), &Uri::from_static("/")).is_none(), "no browser");
        let absolute = Uri::from_static("http://evil.example/metrics");
        assert!(HostNames::default().refuses(&HeaderMap::new(), &absolute).is_some());
    }

    #[test]
    fn pages_of_the_server_itself_may_ask() {
        let names = HostNames::default();
        assert!(is_answered(&names, "localhost:9090", Some("http://localhost:9090")));
        for origin in ["http://evil.example", "null", "http://localhost:3000", "http://localhost", ""] {
            assert!(!is_answered(&names, "localhost:9090", Some(origin)), "{origin}");
        }
        assert!(!is_answered(&HostNames::new(["*".to_owned()]), "any.example", Some("http://evil.example")));
    }
}
