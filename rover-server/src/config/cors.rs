//! Comes in: the keys in `cors = { … }`. Goes out: which other sites may read the answers. Must not know: HTTP, Lua.

use std::time::Duration;

use super::key::{ConfigKey, Group};
use super::kind::{Kind, custom, flag, time};
use super::value::{ConfigValue, is_token};

/// Which pages of other origins may use the server, and how.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Cors {
    pub(crate) origins: Origins,
    /// `None`: those that the path declares.
    pub(crate) methods: Option<Vec<String>>,
    /// `None`: those that the page asks for.
    pub(crate) headers: Option<Vec<String>>,
    pub(crate) expose: Vec<String>,
    pub(crate) credentials: bool,
    pub(crate) max_age: Duration,
}

impl Default for Cors {
    fn default() -> Cors {
        Cors {
            origins: Origins::None,
            methods: None,
            headers: None,
            expose: Vec::new(),
            credentials: false,
            max_age: Duration::from_secs(600),
        }
    }
}

/// The origins whose pages may read answers.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Origins {
    /// No other than the server's own: CORS is off.
    None,
    /// `*`: all of them.
    Any,
    List(Vec<OriginPattern>),
    /// A function of the app decides.
    Function,
}

/// An origin, or a family of them.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct OriginPattern {
    scheme: String,
    /// Without the `*.` before it.
    host: String,
    subdomains: bool,
    port: Port,
}

#[derive(Clone, Debug, PartialEq)]
enum Port {
    /// Empty where the scheme's own is meant.
    Exactly(String),
    Any,
}

impl OriginPattern {
    /// Whether `origin`, as a browser sends it, is one of them.
    pub(crate) fn matches(&self, origin: &str) -> bool {
        let Some((scheme, host, port)) = parts(origin) else { return false };
        let is_host = match self.subdomains {
            false => host == self.host,
            true => host
                .strip_suffix(self.host.as_str())
                .and_then(|rest| rest.strip_suffix('.'))
                .is_some_and(|names| names.split('.').all(|name| !name.is_empty() && is_name(name))),
        };
        let is_port = match &self.port {
            Port::Exactly(own) => own == port,
            Port::Any => port.bytes().all(|byte| byte.is_ascii_digit()),
        };
        scheme == self.scheme && is_host && is_port
    }

    fn parse(text: &str) -> Result<OriginPattern, &'static str> {
        if text == "null" {
            return Err("; \"null\" is what every sandboxed page sends, so it names nobody");
        }
        let lower = text.to_ascii_lowercase();
        let (scheme, host, port) =
            parts(&lower).ok_or("; an origin is a scheme and a host: \"https://example.com\"")?;
        if host.contains('/') || port.contains('/') {
            return Err("; an origin has no path, nor a slash at its end");
        }
        let (subdomains, host) = match host.strip_prefix("*.") {
            Some(rest) => (true, rest),
            None => (false, host),
        };
        if host.contains('*') || scheme.contains('*') {
            return Err("; a \"*\" stands for the names before a domain (\"https://*.example.com\") or for the port");
        }
        let is_address = host.starts_with('[') && host.ends_with(']') && !subdomains;
        if !is_address && !host.split('.').all(|name| !name.is_empty() && is_name(name)) {
            return Err("; the host of an origin is a name or an address");
        }
        if subdomains && !host.contains('.') {
            return Err("; \"*.\" needs a domain behind it");
        }
        let port = match port {
            "*" => Port::Any,
            "443" if scheme == "https" => return Err("; browsers leave out the port 443 of https"),
            "80" if scheme == "http" => return Err("; browsers leave out the port 80 of http"),
            digits if digits.bytes().all(|byte| byte.is_ascii_digit()) => Port::Exactly(digits.to_owned()),
            _ => return Err("; the port of an origin is a number or \"*\""),
        };
        Ok(OriginPattern { scheme: scheme.to_owned(), host: host.to_owned(), subdomains, port })
    }
}

fn is_name(name: &str) -> bool {
    name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}

/// The scheme, host and port of an origin; the port is empty where there is none.
fn parts(origin: &str) -> Option<(&str, &str, &str)> {
    let (scheme, rest) = origin.split_once("://")?;
    let (host, port) = match rest.rsplit_once(':') {
        // The last colon of an IPv6 address stands within its brackets.
        Some((host, port)) if !port.contains(']') && !port.is_empty() => (host, port),
        _ => (rest, ""),
    };
    (!scheme.is_empty() && !host.is_empty()).then_some((scheme, host, port))
}

impl Origins {
    /// Whether one of them is a site of plain HTTP that is not on the visitor's own machine.
    pub(super) fn has_plain(&self) -> bool {
        let is_plain = |origin: &OriginPattern| {
            let is_own = matches!(origin.host.as_str(), "localhost" | "127.0.0.1" | "[::1]");
            origin.scheme == "http" && !(is_own || origin.host.ends_with(".localhost"))
        };
        matches!(self, Origins::List(all) if all.iter().any(is_plain))
    }

    fn parse(value: &ConfigValue) -> Result<Origins, &'static str> {
        if *value == ConfigValue::Other("function") {
            return Ok(Origins::Function);
        }
        let names = value.texts().ok_or("")?;
        match names.as_slice() {
            [] => Ok(Origins::None),
            [only] if only == "none" => Ok(Origins::None),
            [only] if only == "*" => Ok(Origins::Any),
            all if all.iter().any(|name| name == "*") => Err("; \"*\" stands alone"),
            all => Ok(Origins::List(all.iter().map(|name| OriginPattern::parse(name)).collect::<Result<_, _>>()?)),
        }
    }
}

/// A list of names for a header; `None` for the word that leaves it to Rover.
fn names(value: &ConfigValue, automatic: &str) -> Result<Option<Vec<String>>, &'static str> {
    let names = value.texts().ok_or("")?;
    if names == [automatic] {
        return Ok(None);
    }
    if !names.iter().all(|name| is_token(name)) {
        return Err("; a name consists of letters, digits and \"-\"");
    }
    Ok(Some(names))
}

/// The keys of this group.
pub(super) fn keys() -> Vec<ConfigKey> {
    Group::of(|config| &mut config.cors)
        .table("cors")
        .key("origins", "sites whose pages may read answers; the function gets the origin and returns true or false")
        .takes(custom(ORIGINS, "none", Origins::parse), |cors| &mut cors.origins)
        .key("methods", "methods that those pages may use")
        .takes(methods(), |cors| &mut cors.methods)
        .key("headers", "request headers that those pages may send")
        .takes(headers(), |cors| &mut cors.headers)
        .key("expose", "response headers that those pages may read, beside the few that they always may")
        .takes(exposed(), |cors| &mut cors.expose)
        .key("credentials", "whether requests of those pages carry cookies")
        .takes(flag(), |cors| &mut cors.credentials)
        .key("max_age", "seconds that a browser may remember the answer to a preflight")
        .takes(time(), |cors| &mut cors.max_age)
        .keys()
}

const ORIGINS: &str =
    "a list of origins (\"https://example.com\", \"https://*.example.com\"), \"*\", a function, or \"none\"";

fn methods() -> Kind<Option<Vec<String>>> {
    custom("a list of methods, or \"declared\" for those of each path", "declared", |value| {
        let methods = names(value, "declared")?;
        Ok(methods.map(|all| all.iter().map(|name| name.to_ascii_uppercase()).collect()))
    })
}

fn headers() -> Kind<Option<Vec<String>>> {
    custom("a list of header names, or \"asked\" for those that the page asks for", "asked", |value| {
        names(value, "asked")
    })
}

fn exposed() -> Kind<Vec<String>> {
    custom("a list of header names, or \"none\"", "none", |value| Ok(names(value, "none")?.unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, origin: &str) -> bool {
        OriginPattern::parse(pattern).unwrap().matches(origin)
    }

    #[test]
    fn patterns() {
        for (pattern, origin, expected) in [
            ("https://example.com", "https://example.com", true),
            ("https://Example.com", "https://example.com", true),
            ("https://example.com", "http://example.com", false),
            ("https://example.com", "https://example.com:8443", false),
            ("https://example.com", "https://example.com.evil.test", false),
            ("https://example.com:8443", "https://example.com:8443", true),
            ("https://*.example.com", "https://a.example.com", true),
            ("https://*.example.com", "https://a.b.example.com", true),
            ("https://*.example.com", "https://example.com", false),
            ("https://*.example.com", "https://evilexample.com", false),
            ("https://*.example.com", "https://evil.test/.example.com", false),
            ("https://*.example.com", "https://.example.com", false),
            ("http://localhost:*", "http://localhost:5173", true),
            ("http://localhost:*", "http://localhost", true),
            ("http://localhost:*", "http://localhost:5173/x", false),
            ("http://[::1]:3000", "http://[::1]:3000", true),
            ("http://[::1]", "http://[::1]", true),
            ("https://example.com", "null", false),
            ("https://example.com", "", false),
        ] {
            assert_eq!(matches(pattern, origin), expected, "{pattern} {origin}");
        }
    }

    #[test]
    fn wrong_patterns_with_their_cure() {
        for (wrong, cure) in [
            ("example.com", "scheme and a host"),
            ("https://example.com/", "no path"),
            ("https://example.com:443", "443"),
            ("http://example.com:80", "port 80"),
            ("https://*example.com", "stands for"),
            ("https://a.*.com", "stands for"),
            ("https://*.com", "needs a domain"),
            ("https://exa mple.com", "name or an address"),
            ("https://example.com:http", "a number"),
            ("null", "sandboxed"),
        ] {
            let hint = OriginPattern::parse(wrong).unwrap_err();
            assert!(hint.contains(cure), "{wrong}: {hint}");
        }
        let mixed = Origins::parse(&ConfigValue::Text("*, https://example.com".into()));
        assert_eq!(mixed, Err("; \"*\" stands alone"));
    }
}
