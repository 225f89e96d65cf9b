//! Loads certificates and keys, and configures TLS.
//!
//! Comes in: the settings of `tls`. Goes out: the [`ServerConfig`] of each handshake, always made from the last valid
//! files. rustls with the ring provider does the cryptography. This module must not know of connections.

mod client;
mod files;
mod names;
mod reload;

use std::sync::Arc;

use parking_lot::RwLock;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivatePkcs8KeyDer;
use tokio_rustls::rustls::server::{ProducesTickets, ServerConfig, WebPkiClientVerifier};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::version::TLS13;
use tokio_rustls::rustls::{ALL_VERSIONS, SupportedProtocolVersion};

use crate::config::{ClientAuth, Host, TlsSettings, TlsVersion};
use crate::error::Error;

pub(crate) use client::client_certificate;
use names::Certificates;
pub(crate) use reload::CertificateWatch;
use reload::FileStamp;

/// The TLS of a server, as all its workers share it.
pub(crate) struct ServerTls {
    settings: TlsSettings,
    protocols: Vec<Vec<u8>>,
    /// The names that a self-signed certificate gets.
    own_names: Vec<String>,
    /// Kept over reloads, so that sessions can be resumed, unless clients present certificates.
    tickets: Arc<dyn ProducesTickets>,
    current: RwLock<Arc<ServerConfig>>,
    /// The state of the files before they were read, so that no change during the start is missed.
    first_stamps: Vec<FileStamp>,
}

impl ServerTls {
    /// Reads certificates and keys; `None` where the settings have none.
    ///
    /// # Errors
    /// A file that cannot be used, with its name and the cure.
    pub(crate) fn load(settings: &TlsSettings, host: &Host, http2: bool) -> Result<Option<Arc<ServerTls>>, Error> {
        if !settings.is_on() {
            return Ok(None);
        }
        let tickets = new_tickets().map_err(Error::app)?;
        let protocols: Vec<_> =
            [&b"h2"[..], b"http/1.1"].into_iter().skip(usize::from(!http2)).map(<[u8]>::to_vec).collect();
        let mut own_names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
        if let Host::Ip(_) | Host::Name(_) = host {
            own_names.push(host.to_string());
        }
        own_names.dedup();
        let first_stamps = reload::stamps(settings);
        let config = build(settings, &own_names, &protocols, &tickets).map_err(Error::app)?;
        let current = RwLock::new(Arc::new(config));
        Ok(Some(Arc::new(ServerTls {
            settings: settings.clone(),
            protocols,
            own_names,
            tickets,
            current,
            first_stamps,
        })))
    }

    /// The config of the next handshake.
    pub(crate) fn current(&self) -> Arc<ServerConfig> {
        self.current.read().clone()
    }

    /// Reads all files again. New handshakes use them; open connections are not affected.
    ///
    /// # Errors
    /// As [`ServerTls::load`]; the old certificates stay in use then.
    fn reload(&self) -> Result<(), String> {
        // A resumed session presents no certificate, so a session that began under other authorities must not be
        // resumed.
        let tickets = match &self.settings.client_ca {
            Some(_) => new_tickets()?,
            None => self.tickets.clone(),
        };
        let config = build(&self.settings, &self.own_names, &self.protocols, &tickets)?;
        *self.current.write() = Arc::new(config);
        Ok(())
    }
}

fn new_tickets() -> Result<Arc<dyn ProducesTickets>, String> {
    ring::Ticketer::new().map_err(|error| format!("tls: no keys for session tickets: {error}"))
}

fn build(
    settings: &TlsSettings,
    own_names: &[String],
    protocols: &[Vec<u8>],
    tickets: &Arc<dyn ProducesTickets>,
) -> Result<ServerConfig, String> {
    let provider = Arc::new(ring::default_provider());
    let versions: &[&SupportedProtocolVersion] = match settings.min_version {
        TlsVersion::Tls12 => ALL_VERSIONS,
        TlsVersion::Tls13 => &[&TLS13],
    };
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(versions)
        .map_err(|error| format!("tls: {error}"))?;
    let builder = match &settings.client_ca {
        None => builder.with_no_client_auth(),
        Some(file) => {
            let roots = Arc::new(files::authorities(file)?);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider.clone());
            let verifier = match settings.client_auth {
                ClientAuth::Required => verifier,
                ClientAuth::Optional => verifier.allow_unauthenticated(),
            };
            let verifier = verifier.build().map_err(|error| format!("tls.client_ca {}: {error}", file.display()))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut certificates = Certificates::default();
    if settings.self_signed {
        certificates.add(self_signed(own_names)?);
    } else {
        if let Some(cert) = &settings.cert {
            let key = settings.key.as_ref().unwrap_or(cert);
            certificates.add(files::certified(cert, key, "tls.key")?);
        }
        for files in &settings.certificates {
            certificates.add(files::certified(&files.cert, &files.key, "its key")?);
        }
    }
    let mut config = builder.with_cert_resolver(Arc::new(certificates));
    config.alpn_protocols = protocols.to_vec();
    config.ticketer = tickets.clone();
    Ok(config)
}

/// A new self-signed certificate, for development.
fn self_signed(names: &[String]) -> Result<CertifiedKey, String> {
    let failed = |error: &dyn std::fmt::Display| format!("tls.self_signed: no certificate can be made: {error}");
    let made = rcgen::generate_simple_self_signed(names).map_err(|error| failed(&error))?;
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    CertifiedKey::from_der(vec![made.cert.der().clone()], key.into(), &ring::default_provider())
        .map_err(|error| failed(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_versions_are_refused_by_setting() {
        assert_eq!(ALL_VERSIONS.len(), 2);
        let settings = TlsSettings { self_signed: true, ..TlsSettings::default() };
        let tls = ServerTls::load(&settings, &Host::Localhost, true).unwrap().unwrap();
        assert_eq!(tls.current().alpn_protocols, [b"h2".to_vec(), b"http/1.1".to_vec()]);
        let tls = ServerTls::load(&settings, &Host::Localhost, false).unwrap().unwrap();
        assert_eq!(tls.current().alpn_protocols, [b"http/1.1".to_vec()]);
        assert!(ServerTls::load(&TlsSettings::default(), &Host::Localhost, true).unwrap().is_none());
    }
}
