//! The keys of `tls = { … }`. Comes in: a value. Goes out: where certificates lie and how strict the server is. Must not
//! know: what the files hold.

use std::path::PathBuf;
use std::time::Duration;

use super::ConfigMistake;
use super::key::ConfigKey;
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

/// A path; "none" stands for no path at all.
fn file(value: &ConfigValue) -> Result<Option<PathBuf>, &'static str> {
    match value.text() {
        Some("none") => Ok(None),
        Some(path) if !path.is_empty() => Ok(Some(PathBuf::from(path))),
        _ => Err(""),
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
        file(value).ok().flatten()
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

pub(super) static TLS_KEYS: &[ConfigKey] = &[
    ConfigKey {
        name: "tls.cert",
        what: "file of the certificate chain; turns https on",
        takes: "the path of a PEM file",
        default: "none",
        example: "\"/etc/rover/cert.pem\"",
        store: |config, value| {
            config.tls.cert = file(value)?;
            Ok(())
        },
    },
    ConfigKey {
        name: "tls.key",
        what: "file of its private key, where that is not in the same file",
        takes: "the path of a PEM file",
        default: "none",
        example: "\"/etc/rover/key.pem\"",
        store: |config, value| {
            config.tls.key = file(value)?;
            Ok(())
        },
    },
    ConfigKey {
        name: "tls.certificates",
        what: "further certificates, each for the names it holds (SNI)",
        takes: "a list of { cert = \"…\", key = \"…\" }, or text such as \"a.pem:a.key,b.pem:b.key\"",
        default: "none",
        example: "\"b.pem:b.key\"",
        store: |config, value| {
            config.tls.certificates = certificates(value).ok_or("")?;
            Ok(())
        },
    },
    ConfigKey {
        name: "tls.self_signed",
        what: "a certificate made at the start, in place of files; for development",
        takes: "true or false",
        default: "false",
        example: "true",
        store: |config, value| {
            config.tls.self_signed = value.truth().ok_or("")?;
            Ok(())
        },
    },
    ConfigKey {
        name: "tls.client_ca",
        what: "file of the authorities whose clients are let in",
        takes: "the path of a PEM file",
        default: "none",
        example: "\"/etc/rover/clients.pem\"",
        store: |config, value| {
            config.tls.client_ca = file(value)?;
            Ok(())
        },
    },
    ConfigKey {
        name: "tls.client_auth",
        what: "whether a client must show a certificate, where tls.client_ca is set",
        takes: "\"required\" or \"optional\"",
        default: "required",
        example: "\"optional\"",
        store: |config, value| {
            config.tls.client_auth = match value.text() {
                Some("required") => ClientAuth::Required,
                Some("optional") => ClientAuth::Optional,
                _ => return Err(""),
            };
            Ok(())
        },
    },
    ConfigKey {
        name: "tls.min_version",
        what: "oldest version of TLS that is spoken",
        takes: "\"1.2\" or \"1.3\"",
        default: "1.2",
        example: "\"1.3\"",
        store: |config, value| {
            config.tls.min_version = match value {
                ConfigValue::Number(1.2) => TlsVersion::Tls12,
                ConfigValue::Number(1.3) => TlsVersion::Tls13,
                _ => match value.text() {
                    Some("1.2") => TlsVersion::Tls12,
                    Some("1.3") => TlsVersion::Tls13,
                    _ => return Err("; older versions are broken"),
                },
            };
            Ok(())
        },
    },
    ConfigKey {
        name: "tls.handshake_timeout",
        what: "seconds a client gets for its handshake",
        takes: "a time above 0: seconds, or text such as \"500ms\"",
        default: "10",
        example: "5",
        store: |config, value| {
            config.tls.handshake_timeout = value.time().filter(|time| !time.is_zero()).ok_or("")?;
            Ok(())
        },
    },
    ConfigKey {
        name: "tls.reload_interval",
        what: "seconds between two looks at the files; changed ones are loaded, 0 never looks",
        takes: "a time: seconds, or text such as \"500ms\"",
        default: "10",
        example: "60",
        store: |config, value| {
            config.tls.reload_interval = value.time().ok_or("")?;
            Ok(())
        },
    },
    ConfigKey {
        name: "tls.redirect_port",
        what: "port that sends plain http to https with 308; 0 picks a free one",
        takes: "a whole number from 0 to 65535",
        default: "none",
        example: "80",
        store: |config, value| {
            config.tls.redirect_port = match value.text() {
                Some("none") => None,
                _ => {
                    let port = value.whole(0, u16::MAX.into()).ok_or("")?;
                    Some(u16::try_from(port).map_err(|_| "")?)
                }
            };
            Ok(())
        },
    },
];
