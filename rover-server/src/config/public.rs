//! Comes in: a checked config. Goes out: settings that contradict each other, and a list of what is unsafe on a public
//! address. Must not know: where the settings came from.

use std::net::IpAddr;

use super::cors::{Cors, Origins};
use super::{Config, Host};

impl Config {
    /// Settings that are right by themselves and wrong together.
    pub(super) fn contradictions(&self) -> Vec<String> {
        let mut found = Vec::new();
        let cors = &self.cors;
        if cors.credentials && cors.origins == Origins::Any {
            found.push(
                "cors.credentials cannot be true where cors.origins is \"*\": any site could act in the name of its \
                 visitors; list the origins"
                    .to_owned(),
            );
        }
        if cors.origins == Origins::None && *cors != Cors::default() {
            found.push("cors has settings but no cors.origins, so it does nothing; list the origins".to_owned());
        }
        let limit = &self.rate_limit;
        if limit.rate.is_none() && (limit.burst.is_some() || limit.per != super::Per::Ip) {
            found.push("rate_limit has settings but no rate_limit.rate, so it does nothing; give a rate".to_owned());
        }
        found.extend(self.otlp.contradiction().map(str::to_owned));
        found
    }

    /// What is unsafe with this config, each with its cure. `has_limits`: some route has a rate limit of its own.
    pub(crate) fn warnings(&self, has_limits: bool) -> Vec<String> {
        let mut found = Vec::new();
        let mut warn = |is_unsafe: bool, text: &str| {
            if is_unsafe {
                found.push(text.to_owned());
            }
        };
        let public = is_public(&self.host);
        warn(
            !self.path_normalisation,
            "path_normalisation is off: /x/../admin passes by the hooks and limits of /admin, and reaches what a rest-of-path \
             route or an upstream makes of it; turn it on",
        );
        warn(
            !self.path_guards,
            "path_guards is off: files, 404 answers, and what rest-of-path routes and parameters further up answer, pass by \
             the hooks of their path; turn it on",
        );
        let proxies = &self.proxies;
        let everybody = proxies.trusted.as_ref().is_some_and(super::Trusted::is_everybody);
        warn(
            everybody,
            "trusted_proxies holds a network of all addresses: anyone can claim to be anyone; name the proxies",
        );
        warn(
            public && proxies.protocol && proxies.trusted.is_none(),
            "proxy_protocol is on and trusted_proxies is not set: any client can claim any address; name the proxies",
        );
        warn(
            self.connections.is_lenient,
            "http1.lenient is on: a proxy in front may read other requests than this server does, which lets requests \
             past its rules; turn it off once the clients that need it are mended",
        );
        warn(public && self.debug, "debug is on and host is public: answers show tracebacks; turn debug off");
        warn(
            public && self.cors.origins == Origins::Any,
            "cors.origins is \"*\" and host is public: the pages of every site may read the answers; list the origins",
        );
        warn(
            public && self.cors.credentials && self.cors.origins.has_plain(),
            "cors.credentials is on and cors.origins holds a site of plain http: whoever is on the way to that site \
             acts in the name of its visitors; list https origins",
        );
        warn(
            public && self.tls.self_signed,
            "tls.self_signed is on and host is public: nobody can tell this server from one that poses as it; set \
             tls.cert",
        );
        warn(
            public && self.tls.is_on() && self.security_headers.strict_transport_security.is_none(),
            "security_headers.strict_transport_security is off and host is public: browsers that were here may be led \
             to plain http; leave it on",
        );
        warn(
            self.management.host().is_some_and(is_public),
            "management.host is public: anyone can read what the server tells of itself; listen on 127.0.0.1, a Unix \
             socket, or an address that only those reach who may",
        );
        warn(
            public && self.connections.max_connections == 0,
            "max_connections is 0 and host is public: connections can use up the system's memory; set a number",
        );
        warn(
            public && self.connections.handler_timeout.is_zero(),
            "handler_timeout is 0 and host is public: handlers that wait for ever pile up; set a time",
        );
        warn(
            public && proxies.trusted.is_none() && !proxies.protocol && !self.tls.is_on(),
            "host is public and speaks plain HTTP: anyone on the way reads and changes what is sent; listen on \
             127.0.0.1 behind a proxy that speaks TLS, and name it in trusted_proxies",
        );
        warn(
            public && self.rate_limit.rate.is_none() && !has_limits,
            "host is public and there is no rate limit: one client can use up the server; set rate_limit.rate",
        );
        warn(
            public && self.security_headers.content_type_options.is_none(),
            "security_headers.content_type_options is off and host is public: old browsers may run what is no script; \
             leave it on",
        );
        found
    }
}

/// Whether others than this machine reach the address. A name may be anything, so it counts as public.
fn is_public(host: &Host) -> bool {
    match host {
        Host::Ip(IpAddr::V4(ip)) => !ip.is_loopback(),
        Host::Ip(IpAddr::V6(ip)) => !ip.is_loopback(),
        Host::Name(_) => true,
        Host::Localhost | Host::Unix(_) => false,
    }
}
