//! Comes in: the keys about proxies in front of the server. Goes out: whose word about clients is taken, and how it is
//! read. Must not know: connections, requests.

use std::net::IpAddr;

use ipnet::IpNet;

use super::key::{ConfigKey, Group};
use super::kind::{choice, custom, flag};
use super::value::ConfigValue;

/// The proxies in front of the server.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Proxies {
    /// Whose word is taken. `None`: nobody's, and the headers are left as they come.
    pub(crate) trusted: Option<Trusted>,
    pub(crate) headers: ProxyHeaders,
    /// Whether every connection begins with a header of the PROXY protocol.
    pub(crate) protocol: bool,
}

/// Addresses whose word about clients is taken.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Trusted {
    networks: Vec<IpNet>,
    /// Peers on a Unix socket, which have no address.
    unix: bool,
}

/// Which headers tell of the client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum ProxyHeaders {
    /// `Forwarded` where it is there, else `X-Forwarded-*`.
    #[default]
    Both,
    /// `Forwarded` (RFC 7239) alone.
    Forwarded,
    /// `X-Forwarded-For`, `-Proto` and `-Host` alone.
    XForwarded,
}

impl Trusted {
    /// Whether the peer's word is taken; a peer on a Unix socket has no address.
    pub(crate) fn contains(&self, peer: Option<IpAddr>) -> bool {
        match peer {
            Some(ip) => self.networks.iter().any(|network| network.contains(&ip)),
            None => self.unix,
        }
    }

    /// Whether it is all addresses of a family.
    pub(crate) fn is_everybody(&self) -> bool {
        self.networks.iter().any(|network| network.prefix_len() == 0)
    }

    /// The addresses of a list, for tests.
    #[cfg(test)]
    pub(crate) fn from_text(list: &str) -> Option<Trusted> {
        Trusted::parse(&ConfigValue::Text(list.to_owned())).ok().flatten()
    }

    fn parse(value: &ConfigValue) -> Result<Option<Trusted>, &'static str> {
        let names = value.texts().ok_or("")?;
        if names == ["none"] {
            return Ok(None);
        }
        let mut trusted = Trusted::default();
        for name in names {
            match name.as_str() {
                "loopback" => trusted.add(&["127.0.0.0/8", "::1/128"]),
                "private" => trusted.add(&["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"]),
                "unix" => trusted.unix = true,
                other => match (other.parse::<IpNet>(), other.parse::<IpAddr>()) {
                    (Ok(network), _) if network.trunc() != network => {
                        return Err("; the address has bits beyond the length of its prefix, as in 10.0.0.1/8: \
                                    write 10.0.0.0/8");
                    }
                    (Ok(network), _) => trusted.networks.push(canonical(network)),
                    (_, Ok(address)) => trusted.networks.push(address.to_canonical().into()),
                    _ => return Err("; an entry is none of these"),
                },
            }
        }
        Ok(Some(trusted))
    }

    fn add(&mut self, networks: &[&str]) {
        self.networks.extend(networks.iter().filter_map(|network| network.parse::<IpNet>().ok()));
    }
}

/// The network in the form in which peers are compared: one of mapped addresses (RFC 4291, section 2.5.5.2) as the one of
/// IPv4 that it is.
fn canonical(network: IpNet) -> IpNet {
    /// Bits in front of the address of IPv4.
    const MAPPED: u8 = 96;
    let mapped = match network {
        IpNet::V6(network) => network.prefix_len().checked_sub(MAPPED).zip(network.addr().to_ipv4_mapped()),
        IpNet::V4(_) => None,
    };
    mapped.and_then(|(prefix, address)| IpNet::new(address.into(), prefix).ok()).unwrap_or(network)
}

/// The keys of this group.
pub(super) fn keys() -> Vec<ConfigKey> {
    Group::of(|config| &mut config.proxies)
        .key(
            "trusted_proxies",
            "proxies whose word about the client is taken; an empty list takes nobody's and drops the headers",
        )
        .takes(custom(TRUSTED, "none", Trusted::parse), |proxies| &mut proxies.trusted)
        .key(
            "proxy_headers",
            "headers by which trusted proxies tell of the client; with \"both\", Forwarded is read before the others",
        )
        .takes(choice(HEADERS), |proxies| &mut proxies.headers)
        .key("proxy_protocol", "whether connections begin with a header of the PROXY protocol, version 1 or 2")
        .takes(flag(), |proxies| &mut proxies.protocol)
        .keys()
}

const TRUSTED: &str =
    "a list of addresses, networks (\"10.0.0.0/8\"), \"loopback\", \"private\" and \"unix\", or \"none\"";

const HEADERS: [(&str, ProxyHeaders); 3] =
    [("both", ProxyHeaders::Both), ("forwarded", ProxyHeaders::Forwarded), ("x-forwarded", ProxyHeaders::XForwarded)];

#[cfg(test)]
mod tests {
    use super::*;

    fn trusts(list: &str, ip: &str) -> bool {
        let trusted = Trusted::parse(&ConfigValue::Text(list.into())).unwrap().unwrap();
        trusted.contains(ip.parse().ok())
    }

    #[test]
    fn networks_addresses_and_names() {
        for (list, ip, expected) in [
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("192.0.2.1, 2001:db8::/32", "192.0.2.1", true),
            ("192.0.2.1, 2001:db8::/32", "2001:db8:1::1", true),
            ("192.0.2.1", "192.0.2.2", false),
            ("loopback", "127.0.0.9", true),
            ("loopback", "::1", true),
            ("private", "172.31.0.1", true),
            ("private", "172.32.0.1", false),
            ("private", "fd00::1", true),
            ("private", "127.0.0.1", false),
            ("unix", "no address", true),
            ("loopback", "no address", false),
        ] {
            assert_eq!(trusts(list, ip), expected, "{list} {ip}");
        }
    }

    #[test]
    fn an_empty_list_is_not_none() {
        assert_eq!(Trusted::parse(&ConfigValue::List(Vec::new())), Ok(Some(Trusted::default())));
        assert_eq!(Trusted::parse(&ConfigValue::Text("none".into())), Ok(None));
    }

    #[test]
    fn wrong_lists() {
        for wrong in ["10.0.0.1/8", "10.0.0.0/33", "example.com", "10.0.0"] {
            assert!(Trusted::parse(&ConfigValue::Text(wrong.into())).is_err(), "{wrong}");
        }
        assert!(Trusted::parse(&ConfigValue::Bool(true)).is_err());
        assert!(Trusted::parse(&ConfigValue::List(vec![ConfigValue::Number(1.0)])).is_err());
    }
}
