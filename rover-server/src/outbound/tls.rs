//! What a client asks of TLS: whom it trusts, and who it is.
//!
//! Files and the system's certificates are read when the first `https` URL is requested, on a thread for blocking work.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::sync::OnceCell;

use super::Problem;
use crate::runtime::blocking;
use crate::runtime::resources;

/// How a client speaks TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct TlsOptions {
    /// A file of certificates in PEM to trust in place of the system's.
    pub(crate) ca: Option<PathBuf>,
    /// The client's own certificates and key, in PEM.
    pub(crate) identity: Option<(PathBuf, PathBuf)>,
    /// Believes every certificate.
    pub(crate) insecure: bool,
    /// Offers no HTTP/2.
    pub(crate) http1_only: bool,
}

/// The TLS settings of a client, made when they are first needed.
#[derive(Debug, Default)]
pub(super) struct ClientTls {
    options: TlsOptions,
    config: OnceCell<Arc<ClientConfig>>,
}

impl ClientTls {
    pub(super) fn new(options: TlsOptions) -> ClientTls {
        ClientTls { options, config: OnceCell::new() }
    }

    /// The settings; an attempt that failed is made again next time.
    ///
    /// # Errors
    /// A file cannot be read or understood.
    pub(super) async fn config(&self) -> Result<Arc<ClientConfig>, Problem> {
        let config = self.config.get_or_try_init(|| async {
            let options = self.options.clone();
            let built = blocking::run(move || {
                build(&options).map_err(|why| match resources::shortage() {
                    // No word on the server.
                    Some(_) => Problem::Shortage(format!("TLS: {why}")),
                    None => Problem::Tls(format!("TLS: {why}")),
                })
            });
            let refused = |refused| Problem::Shortage(format!("TLS: the settings could not be read: {refused}"));
            built.await.map_err(refused)?.map(Arc::new)
        });
        config.await.cloned()
    }
}

fn build(options: &TlsOptions) -> Result<ClientConfig, String> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let builder = if options.insecure {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(NoVerification(provider)))
    } else {
        let roots = match &options.ca {
            Some(file) => Arc::new(roots_of(file)?),
            None => system_roots()?,
        };
        builder.with_root_certificates(roots)
    };
    let mut config = match &options.identity {
        Some((certificates, key)) => {
            let chain = certificates_of(certificates)?;
            let key = PrivateKeyDer::from_pem_file(key).map_err(|_| format!("{} has no private key", key.display()))?;
            builder.with_client_auth_cert(chain, key).map_err(|error| error.to_string())?
        }
        None => builder.with_no_client_auth(),
    };
    if !options.http1_only {
        config.alpn_protocols.push(b"h2".to_vec());
    }
    config.alpn_protocols.push(b"http/1.1".to_vec());
    Ok(config)
}

fn certificates_of(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let read = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match read {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        Ok(_) => Err(format!("{} has no certificates", file.display())),
        Err(_) => Err(format!("cannot read certificates from {}", file.display())),
    }
}

fn roots_of(file: &Path) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(certificates_of(file)?);
    if added == 0 { Err(format!("{} has no valid certificates", file.display())) } else { Ok(roots) }
}

/// Whom the system trusts; Mozilla's list where it has none. Read once for the process: it is some hundred kilobytes.
///
/// # Errors
/// The system has no descriptor, say, to read them with.
fn system_roots() -> Result<Arc<RootCertStore>, String> {
    static ROOTS: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    if let Some(roots) = ROOTS.get() {
        return Ok(roots.clone());
    }
    let found = rustls_native_certs::load_native_certs();
    let is_missing = |error: &io::Error| matches!(error.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied);
    for error in &found.errors {
        if let rustls_native_certs::ErrorKind::Io { inner, .. } = &error.kind
            && inner.raw_os_error().is_some()
            && !is_missing(inner)
        {
            let text = inner.to_string();
            let words = text.split(" (os error").next().unwrap_or_default();
            return Err(format!("cannot read the system's certificates: {words}"));
        }
    }
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(found.certs);
    if added == 0 {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    Ok(ROOTS.get_or_init(|| Arc::new(roots)).clone())
}

/// Believes every certificate, as `insecure = true` asks for. The handshake's signatures are still checked.
#[derive(Debug)]
struct NoVerification(Arc<CryptoProvider>);

impl ServerCertVerifier for NoVerification {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn http2_is_offered_unless_it_must_not_be() {
        let offered = |http1_only| {
            let options = TlsOptions { insecure: true, http1_only, ..TlsOptions::default() };
            build(&options).unwrap().alpn_protocols
        };
        assert_eq!(offered(false), [&b"h2"[..], b"http/1.1"]);
        assert_eq!(offered(true), [b"http/1.1"]);
    }
}
