//! The handshake of TLS, on the worker's own runtime.
//!
//! Comes in: an accepted transport. Goes out: the same, encrypted, and the HTTP that was agreed on. A handshake that
//! fails is the client's affair: it is logged at debug only.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;

use crate::log::{self, Level};
use crate::socket::{Agreed, Transport};

/// Shakes hands within `patience`; `None` where that came to nothing.
pub(crate) async fn handshake(
    transport: Transport,
    config: Arc<ServerConfig>,
    patience: Duration,
) -> Option<(Transport, Agreed)> {
    let failed = |reason: &str| log::event(Level::Debug, "a TLS handshake failed").field("reason", reason).emit();
    match timeout(patience, TlsAcceptor::from(config).accept(transport)).await {
        Ok(Ok(stream)) => {
            let agreed = match stream.get_ref().1.alpn_protocol() {
                Some(b"h2") => Agreed::Http2,
                _ => Agreed::Http1,
            };
            Some((Transport::Tls(Box::new(stream)), agreed))
        }
        Ok(Err(error)) => {
            failed(&error.to_string());
            None
        }
        Err(_) => {
            failed("tls.handshake_timeout is over");
            None
        }
    }
}
