//! Reads a client's certificate for the app.
//!
//! Comes in: its DER, which the handshake has verified. Goes out: names and a fingerprint. Must not know: Lua.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};

use ring::digest;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::exchange::context::ClientCertificate;

/// Reads a certificate; `None` where it cannot be read.
pub(crate) fn client_certificate(der: &[u8]) -> Option<ClientCertificate> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let names = certificate.subject_alternative_name().ok().flatten();
    let san = names.iter().flat_map(|names| &names.value.general_names).filter_map(text_of).collect();
    let mut fingerprint = String::with_capacity(64);
    for byte in digest::digest(&digest::SHA256, der).as_ref() {
        let _ = write!(fingerprint, "{byte:02x}");
    }
    Some(ClientCertificate { subject: certificate.subject().to_string(), san, fingerprint })
}

/// A name in the form of OpenSSL; `None` for unusual kinds.
fn text_of(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some(format!("DNS:{name}")),
        GeneralName::RFC822Name(name) => Some(format!("email:{name}")),
        GeneralName::URI(uri) => Some(format!("URI:{uri}")),
        GeneralName::IPAddress(bytes) => match **bytes {
            [a, b, c, d] => Some(format!("IP:{}", Ipv4Addr::new(a, b, c, d))),
            _ => <[u8; 16]>::try_from(*bytes).ok().map(|bytes| format!("IP:{}", Ipv6Addr::from(bytes))),
        },
        _ => None,
    }
}
