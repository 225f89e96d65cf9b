//! Reads PEM files. Comes in: a path. Goes out: its content, or what is wrong with it and how to correct it.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{Error, InconsistentKeys, RootCertStore};

/// The certificate chain in `cert` with the private key in `key`, which messages call `key_name`.
///
/// # Errors
/// A file cannot be read or has the wrong content, or the two do not belong together.
pub(super) fn certified(cert: &Path, key: &Path, key_name: &str) -> Result<CertifiedKey, String> {
    let chain = certificates(cert)?;
    let text = read(key)?;
    let private = PrivateKeyDer::from_pem_slice(&text).map_err(|_| no_key(key, &text, key_name, cert == key))?;
    let key_shown = key.display();
    CertifiedKey::from_der(chain, private, &ring::default_provider()).map_err(|error| match error {
        Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
            format!("the key in {key_shown} does not belong to the certificate in {}: name the two that were made together", cert.display())
        }
        Error::InvalidCertificate(_) => {
            format!("{}: the first certificate cannot be read: the server's own must come before those that signed it", cert.display())
        }
        error => format!("the key in {key_shown} cannot be used: {error}; RSA (2048 bits or more), ECDSA P-256 or P-384, and Ed25519 can"),
    })
}

/// The certificates of those who may sign clients' certificates.
///
/// # Errors
/// As [`certified`].
pub(super) fn authorities(file: &Path) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(file)? {
        roots.add(certificate).map_err(|error| format!("{}: a certificate cannot be used: {error}", file.display()))?;
    }
    Ok(roots)
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let text = read(file)?;
    let shown = file.display();
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) if holds(&text, "PRIVATE KEY") => {
            Err(format!("{shown} holds a private key where a certificate should be: are cert and key exchanged?"))
        }
        Ok(_) => Err(format!("{shown} holds no certificate: it must be a PEM file with BEGIN CERTIFICATE in it")),
        Err(error) => Err(format!("{shown} is no sound PEM file: {error}")),
    }
}

fn no_key(file: &Path, text: &[u8], key_name: &str, is_same_file: bool) -> String {
    let shown = file.display();
    if holds(text, "BEGIN ENCRYPTED PRIVATE KEY") || holds(text, "Proc-Type: 4,ENCRYPTED") {
        return format!("the key in {shown} is encrypted: decrypt it with openssl pkey -in {shown} -out plain.pem");
    }
    if is_same_file {
        return format!("{shown} holds no private key: name the file that does as {key_name}");
    }
    if holds(text, "BEGIN CERTIFICATE") {
        return format!("{shown} holds a certificate where a private key should be: are cert and key exchanged?");
    }
    format!("{shown} holds no private key: it must be a PEM file with BEGIN PRIVATE KEY in it")
}

fn holds(text: &[u8], part: &str) -> bool {
    text.windows(part.len()).any(|window| window == part.as_bytes())
}

fn read(file: &Path) -> Result<Vec<u8>, String> {
    fs::read(file).map_err(|error| {
        let shown = file.display();
        match error.kind() {
            ErrorKind::NotFound => {
                format!("{shown} does not exist: paths are relative to the folder that rover is started in")
            }
            ErrorKind::PermissionDenied => {
                format!(
                    "{shown} may not be read: give the user that runs rover the right to, e.g. with chgrp and chmod g+r"
                )
            }
            _ => format!("{shown} cannot be read: {error}"),
        }
    })
}
