//! Chooses a client's certificate: the one for the name that it asked for (SNI, RFC 6066, section 3), else the first.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use tokio_rustls::rustls::server::{ClientHello, ResolvesServerCert};
use tokio_rustls::rustls::sign::CertifiedKey;
use webpki::EndEntityCert;

/// Certificates by the names that they hold.
#[derive(Default)]
pub(super) struct Certificates {
    first: Option<Arc<CertifiedKey>>,
    /// In lower case; `*.example.org` stands as `.example.org`.
    by_name: HashMap<String, Arc<CertifiedKey>>,
}

impl Certificates {
    /// Adds a certificate. A name that an earlier one covers stays with that.
    pub(super) fn add(&mut self, certificate: CertifiedKey) {
        let certificate = Arc::new(certificate);
        for name in names(&certificate) {
            self.by_name.entry(name).or_insert_with(|| certificate.clone());
        }
        self.first.get_or_insert(certificate);
    }

    fn find(&self, name: Option<&str>) -> Option<Arc<CertifiedKey>> {
        let name = name.unwrap_or_default().trim_end_matches('.').to_ascii_lowercase();
        // A wildcard stands for one label: RFC 6125, section 6.4.3.
        let parent = name.find('.').map_or("", |dot| &name[dot..]);
        let found = self.by_name.get(&name).or_else(|| self.by_name.get(parent));
        found.or(self.first.as_ref()).cloned()
    }
}

/// The names of hosts in a certificate.
fn names(certificate: &CertifiedKey) -> Vec<String> {
    let Ok(end) = certificate.end_entity_cert() else { return Vec::new() };
    let Ok(end) = EndEntityCert::try_from(end) else { return Vec::new() };
    end.valid_dns_names().map(|name| name.strip_prefix('*').unwrap_or(name).to_ascii_lowercase()).collect()
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.find(hello.server_name())
    }
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificates").field("names", &self.by_name.keys()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listen::tls::self_signed;

    #[test]
    fn the_certificate_with_the_name_is_found() {
        let own = |names: &[&str]| self_signed(&names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>()).unwrap();
        let all = [own(&["a.example"]), own(&["B.example", "*.wild.example"]), own(&["a.example", "c.example"])];
        let ends: Vec<_> = all.iter().map(|one| one.cert[0].clone()).collect();
        let mut certificates = Certificates::default();
        assert!(certificates.find(Some("a.example")).is_none());
        all.into_iter().for_each(|one| certificates.add(one));
        for (name, expected) in [
            (Some("a.example"), 0),
            (Some("A.Example."), 0),
            (Some("b.example"), 1),
            (Some("x.wild.example"), 1),
            (Some("x.y.wild.example"), 0),
            (Some("wild.example"), 0),
            (Some("c.example"), 2),
            (Some("unknown"), 0),
            (None, 0),
        ] {
            assert_eq!(certificates.find(name).unwrap().cert[0], ends[expected], "{name:?}");
        }
    }
}
