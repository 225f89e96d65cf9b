//! The keys of `tls = { … }`. Comes in: a value. Goes out: where certificates lie and how strict the server is. Must not
//! know: what the files hold.

use std::path::PathBuf;
use std::time::Duration;

use super::ConfigMistake;
use super::key::{ConfigKey, Group};
use super::kind::{Kind, choice, custom, file, flag, port, time};
use super::value::ConfigValue;

/// How connections are encrypted, if they are.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TlsSettings {
    pub(crate) cert: Option<PathBuf>,
    /// Where it is not in the file of `cert`.
    pub(crate) key: Option<PathBuf>,
    /// For other names than the first certificate's.
    pub(crate) certificates: Vec<CertificateFiles>,
    /// A certificate made at the start, in place of all others.
    pub(crate) self_signed: bool,
    pub(crate) client_ca: Option<PathBuf>,
    /// Means something only with `client_ca`.
    pub(crate) client_auth: ClientAuth,
    pub(crate) min_version: TlsVersion,
    /// Never zero.
    pub(crate) handshake_timeout: Duration,
    /// Zero: files are not looked at again.
    pub(crate) reload_interval: Duration,
    pub(crate) redirect_port: Option<u16>,
}

/// The files of one certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CertificateFiles {
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
}

/// Whether a client must show a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ClientAuth {
    Optional,
    Required,
}

/// The oldest version that is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TlsVersion {
    Tls12,
    Tls13,
}

impl Default for TlsSettings {
    fn default() -> Self {
        TlsSettings {
            cert: None,
            key: None,
            certificates: Vec::new(),
            self_signed: false,
            client_ca: None,
            client_auth: ClientAuth::Required,
            min_version: TlsVersion::Tls12,
            handshake_timeout: Duration::from_secs(10),
            reload_interval: Duration::from_secs(10),
            redirect_port: None,
        }
    }
}

impl TlsSettings {
    /// Whether connections are encrypted.
    pub(crate) fn is_on(&self) -> bool {
        self.self_signed || self.cert.is_some()
    }

    /// Settings that do not go together; `port` is the server's own.
    pub(super) fn mistakes(&self, port: u16) -> Vec<ConfigMistake> {
        let mut mistakes = Vec::new();
        let mut mistake = |text: &str| mistakes.push(ConfigMistake(text.to_owned()));
        if !self.is_on() {
            let needs_cert = [
                ("tls.key", self.key.is_some()),
                ("tls.certificates", !self.certificates.is_empty()),
                ("tls.client_ca", self.client_ca.is_some()),
                ("tls.redirect_port", self.redirect_port.is_some()),
            ];
            for (name, _) in needs_cert.iter().filter(|(_, is_set)| *is_set) {
                mistake(&format!("{name} needs tls.cert, the file of the server's certificate"));
            }
        }
        if self.redirect_port.is_some_and(|redirect| redirect != 0 && redirect == port) {
            mistake("tls.redirect_port must be another port than port, which speaks https");
        }
        mistakes
    }
}

/// `{ { cert = "a.pem", key = "a.key" }, … }`, or as text `a.pem:a.key,b.pem:b.key`.
fn certificates(value: &ConfigValue) -> Option<Vec<CertificateFiles>> {
    if let ConfigValue::List(entries) = value {
        return entries.iter().map(certificate).collect();
    }
    let text = value.text()?;
    if text.is_empty() || text == "none" {
        return Some(Vec::new());
    }
    text.split(',').map(pair).collect()
}

fn certificate(value: &ConfigValue) -> Option<CertificateFiles> {
    let ConfigValue::Table(entries) = value else { return pair(value.text()?) };
    let path = |wanted: &str| {
        let (_, value) = entries.iter().find(|(name, _)| name == wanted)?;
        (pem().read)(value).ok()
    };
    if entries.iter().any(|(name, _)| name != "cert" && name != "key") {
        return None;
    }
    let cert = path("cert")?;
    let key = path("key").unwrap_or_else(|| cert.clone());
    Some(CertificateFiles { cert, key })
}

fn pair(text: &str) -> Option<CertificateFiles> {
    let (cert, key) = text.split_once(':').unwrap_or((text, text));
    let (cert, key) = (cert.trim(), key.trim());
    let is_whole = !cert.is_empty() && !key.is_empty();
    is_whole.then(|| CertificateFiles { cert: cert.into(), key: key.into() })
}

/// The keys of this group.
pub(super) fn keys() -> Vec<ConfigKey> {
    Group::of(|config| &mut config.tls)
        .table("tls")
        .needs_restart()
        .key("cert", "file of the certificate chain; turns https on")
        .takes(pem().or("none"), |tls| &mut tls.cert)
        .key("key", "file of its private key, where that is not in the same file")
        .takes(pem().or("none"), |tls| &mut tls.key)
        .key("certificates", "further certificates, each for the names it holds (SNI)")
        .takes(custom(CERTIFICATES, "none", |value| certificates(value).ok_or("")), |tls| &mut tls.certificates)
        .key("self_signed", "a certificate made at the start, in place of files; for development")
        .takes(flag(), |tls| &mut tls.self_signed)
        .key("client_ca", "file of the authorities whose clients are let in")
        .takes(pem().or("none"), |tls| &mut tls.client_ca)
        .key("client_auth", "whether a client must show a certificate, where tls.client_ca is set")
        .takes(choice(CLIENT_AUTH), |tls| &mut tls.client_auth)
        .key("min_version", "oldest version of TLS that is spoken")
        .takes(version(), |tls| &mut tls.min_version)
        .key("handshake_timeout", "seconds a client gets for its handshake")
        .takes(time().above_zero(), |tls| &mut tls.handshake_timeout)
        .key("reload_interval", "seconds between two looks at the files; changed ones are loaded, 0 never looks")
        .takes(time(), |tls| &mut tls.reload_interval)
        .key("redirect_port", "port that sends plain http to https with 308; 0 picks a free one")
        .takes(port().or("none"), |tls| &mut tls.redirect_port)
        .keys()
}

fn pem() -> Kind<PathBuf> {
    file("the path of a PEM file")
}

const CERTIFICATES: &str = "a list of { cert = \"…\", key = \"…\" }, or text such as \"a.pem:a.key,b.pem:b.key\"";

const CLIENT_AUTH: [(&str, ClientAuth); 2] = [("required", ClientAuth::Required), ("optional", ClientAuth::Optional)];

fn version() -> Kind<TlsVersion> {
    custom("\"1.2\" or \"1.3\"", "1.2", |value| match (value, value.text()) {
        (ConfigValue::Number(1.2), _) | (_, Some("1.2")) => Ok(TlsVersion::Tls12),
        (ConfigValue::Number(1.3), _) | (_, Some("1.3")) => Ok(TlsVersion::Tls13),
        _ => Err("; older versions are broken"),
    })
}
