//! `ctx:client_certificate()`: the client's TLS certificate.

use std::rc::Rc;

use rover_lua::{Returns, Stack};

use super::{Contexts, request_key};

/// A client's certificate, signed by one of the server's authorities.
#[derive(Debug)]
pub(crate) struct ClientCertificate {
    /// Such as `CN=alice, O=Example`.
    pub(crate) subject: String,
    /// Such as `DNS:alice.example`.
    pub(crate) san: Vec<String>,
    /// SHA-256 of the certificate, in hexadecimal.
    pub(crate) fingerprint: String,
}

/// `ctx:client_certificate()`: a table, or nil if the client presented none.
pub(super) fn client_certificate(stack: &mut Stack<'_>, contexts: &Contexts) -> Returns {
    let request_key = request_key(stack, contexts, "client_certificate()")?;
    let certificate: Option<Rc<ClientCertificate>> = contexts.requests.get(request_key)?.peer.certificate.clone();
    let Some(certificate) = certificate else {
        stack.push_nil();
        return Ok(1);
    };
    stack.push_table(0, 4);
    let table = stack.top();
    for (name, text) in [("subject", &certificate.subject), ("fingerprint", &certificate.fingerprint)] {
        stack.push_bytes(name.as_bytes());
        stack.push_bytes(text.as_bytes());
        stack.set_field(table);
    }
    stack.push_bytes(b"san");
    stack.push_table(certificate.san.len(), 0);
    let san = stack.top();
    for (name, number) in certificate.san.iter().zip(1..) {
        stack.push_bytes(name.as_bytes());
        stack.set_item(san, number);
    }
    stack.set_field(table);
    // A handshake with an unverified certificate fails.
    stack.push_bytes(b"verified");
    stack.push_boolean(true);
    stack.set_field(table);
    Ok(1)
}
