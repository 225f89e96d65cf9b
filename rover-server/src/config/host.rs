//! Comes in: the text of `host`. Goes out: what it names, and later the addresses to listen on, as data.
//! Must not know: sockets; binding them is the acceptor's work.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;

use super::kind::{Kind, custom};

/// Where the server listens, without the port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Host {
    /// One address; `0.0.0.0` and `::` are all of them.
    Ip(IpAddr),
    /// `localhost`: both loopbacks, 127.0.0.1 and ::1.
    Localhost,
    /// A name that the system resolves when the server binds, or an IPv6 address in a zone.
    Name(String),
    /// A Unix socket; the port means nothing then.
    Unix(PathBuf),
}

/// One address to bind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Endpoint {
    /// A TCP address; port 0 lets the system pick one.
    Tcp(SocketAddr),
    /// The path of a Unix socket.
    Unix(PathBuf),
}

/// As a URL where there is one: `http://127.0.0.1:4242`, `unix:/run/app.sock`.
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Endpoint::Tcp(address) => write!(f, "http://{address}"),
            Endpoint::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Host::Ip(ip) => write!(f, "{ip}"),
            Host::Localhost => f.write_str("localhost"),
            Host::Name(name) => f.write_str(name),
            Host::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl Host {
    /// The kind of values that name one.
    pub(super) fn kind() -> Kind<Host> {
        let takes = "an IP address, a host name, or a Unix socket (\"/path\" or \"unix:path\")";
        custom(takes, "127.0.0.1", |value| Host::parse(value.text().ok_or("")?))
    }

    /// Reads `127.0.0.1`, `::1`, `[::1]`, `fe80::1%eth0`, `localhost`, `app.internal`, `/run/app.sock` or `unix:app.sock`.
    ///
    /// # Errors
    /// A hint for the author, possibly empty, that goes behind "must be …, got …".
    pub(super) fn parse(text: &str) -> Result<Host, &'static str> {
        if text.starts_with('/') || text.starts_with("unix:") {
            return unix(text);
        }
        let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let bare = bare.unwrap_or(text);
        match bare.parse() {
            Ok(IpAddr::V6(ip)) if ip.to_ipv4_mapped().is_some() => {
                return Err("; write the IPv4 address by itself, such as 127.0.0.1");
            }
            Ok(ip) => return Ok(Host::Ip(ip)),
            Err(_) => {}
        }
        if let Some((ip, zone)) = bare.split_once('%')
            && ip.parse::<Ipv6Addr>().is_ok()
        {
            return match zone.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/') && !zone.is_empty() {
                true => Ok(Host::Name(bare.to_owned())),
                false => Err("; a zone is the name or the number of an interface, as in fe80::1%eth0"),
            };
        }
        if text.eq_ignore_ascii_case("localhost") {
            return Ok(Host::Localhost);
        }
        if text.contains("://") {
            return Err("; leave out the scheme");
        }
        if text == "*" {
            return Err("; \"0.0.0.0\" listens on every IPv4 address, \"::\" on every address");
        }
        if text.contains(':') {
            return Err("; give the port as port");
        }
        if is_hostname(text) {
            return Ok(Host::Name(text.to_owned()));
        }
        Err("")
    }

    /// The addresses to bind, in order. Asks the system's resolver for a `Name`, so it may block.
    ///
    /// With `localhost` and port 0 the second address must take the port that the first one got, and a machine without
    /// IPv6 has no `::1`: that the first of the two binds is enough.
    ///
    /// # Errors
    /// A name that does not resolve.
    pub(crate) fn endpoints(&self, port: u16) -> io::Result<Vec<Endpoint>> {
        let tcp = |ip: IpAddr| Endpoint::Tcp(SocketAddr::new(ip, port));
        match self {
            Host::Ip(ip) => Ok(vec![tcp(*ip)]),
            Host::Localhost => Ok(vec![tcp(Ipv4Addr::LOCALHOST.into()), tcp(Ipv6Addr::LOCALHOST.into())]),
            Host::Unix(path) => Ok(vec![Endpoint::Unix(path.clone())]),
            Host::Name(name) => resolve(name, port),
        }
    }
}

fn unix(text: &str) -> Result<Host, &'static str> {
    let path = text.strip_prefix("unix:").unwrap_or(text);
    // "unix:///run/app.sock", as URLs have it, is the same path as "/run/app.sock".
    let path = match path.trim_start_matches('/') {
        relative if relative.len() == path.len() => path.to_owned(),
        rest => format!("/{rest}"),
    };
    if path.is_empty() || path.ends_with('/') {
        return Err("; name the socket's file");
    }
    match std::os::unix::net::SocketAddr::from_pathname(&path) {
        Ok(_) => Ok(Host::Unix(PathBuf::from(path))),
        Err(_) => Err("; the system's limit for the path of a Unix socket is about 100 bytes"),
    }
}

/// A name as RFC 1123 has it, with `_` let through, as container networks use it. A name that ends in a number is a
/// misspelt IP address.
fn is_hostname(text: &str) -> bool {
    const LONGEST_NAME: usize = 253;
    let name = text.strip_suffix('.').unwrap_or(text);
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    let last = name.rsplit('.').next().unwrap_or(name);
    name.len() <= LONGEST_NAME && name.split('.').all(label) && !last.bytes().all(|b| b.is_ascii_digit())
}

fn resolve(name: &str, port: u16) -> io::Result<Vec<Endpoint>> {
    let explain = |reason: &dyn fmt::Display| io::Error::other(format!("host \"{name}\" does not resolve: {reason}"));
    let mut found = Vec::new();
    let lookup = (name, port).to_socket_addrs().map_err(|error| match name.split_once('%') {
        Some((_, zone)) => explain(&format_args!("this machine has no interface {zone:?}")),
        None => {
            let error = error.to_string();
            explain(&error.strip_prefix("failed to lookup address information: ").unwrap_or(&error))
        }
    });
    for address in lookup? {
        let endpoint = Endpoint::Tcp(address);
        if !found.contains(&endpoint) {
            found.push(endpoint);
        }
    }
    if found.is_empty() {
        return Err(explain(&"it has no address"));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listens(host: &str) -> Vec<String> {
        let endpoints = Host::parse(host).unwrap().endpoints(4242).unwrap();
        endpoints.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn forms_of_host() {
        assert_eq!(listens("127.0.0.1"), ["http://127.0.0.1:4242"]);
        assert_eq!(listens("0.0.0.0"), ["http://0.0.0.0:4242"]);
        assert_eq!(listens("::"), ["http://[::]:4242"]);
        assert_eq!(listens("[::1]"), ["http://[::1]:4242"]);
        let both = ["http://127.0.0.1:4242", "http://[::1]:4242"];
        assert_eq!(listens("LocalHost"), both);
        assert_eq!(listens("/run/app.sock"), ["unix:/run/app.sock"]);
        assert_eq!(listens("unix:///run/app.sock"), ["unix:/run/app.sock"]);
        assert_eq!(listens("unix:app.sock"), ["unix:app.sock"]);
        assert_eq!(listens("fe80::1%1"), ["http://[fe80::1%1]:4242"]);
        assert_eq!(listens("[fe80::1%lo]"), ["http://[fe80::1%1]:4242"]);
        assert_eq!(Host::parse("app_1.internal"), Ok(Host::Name("app_1.internal".into())));
    }

    #[test]
    fn wrong_hosts_with_their_cure() {
        for (host, cure) in [
            ("", ""),
            ("two words", ""),
            ("127.0.0", ""),
            ("256.1.1.1", ""),
            ("-x", ""),
            ("a..b", ""),
            ("http://localhost", "scheme"),
            ("localhost:3000", "port as port"),
            ("*", "0.0.0.0"),
            ("::ffff:127.0.0.1", "by itself"),
            ("[::ffff:7f00:1]", "by itself"),
            ("fe80::1%", "interface"),
            ("fe80::1%a b", "interface"),
            ("127.0.0.1%lo", ""),
            ("unix:", "file"),
            ("/run/", "file"),
        ] {
            let hint = Host::parse(host).unwrap_err();
            assert!(hint.contains(cure), "{host}: {hint}");
        }
        let long = format!("/{}", "x".repeat(200));
        assert!(Host::parse(&long).unwrap_err().contains("100 bytes"));
    }

    #[test]
    fn an_unknown_name_says_so_when_binding() {
        let host = Host::parse("no-such-host.invalid").unwrap();
        let error = host.endpoints(1).unwrap_err().to_string();
        assert!(error.starts_with("host \"no-such-host.invalid\" does not resolve: "));
        assert_eq!(error.matches("look").count() + error.matches("resolve").count(), 1, "{error}");
        let error = Host::parse("[fe80::1%nowhere0]").unwrap().endpoints(1).unwrap_err().to_string();
        assert_eq!(error, "host \"fe80::1%nowhere0\" does not resolve: this machine has no interface \"nowhere0\"");
    }
}
