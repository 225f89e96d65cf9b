//! Performs the TLS handshake, on the worker's runtime.
//!
//! Comes in: an accepted transport. Goes out: the same, encrypted, with the negotiated HTTP and the client's
//! certificate; or a transport whose client speaks plain HTTP. A failed handshake is logged at debug only.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;

use crate::exchange::failure;
use crate::log::{self, Level};
use crate::transport::socket::{Agreed, Transport};

use super::final_flush::LINGER;

/// The result of a handshake.
pub(crate) enum HandshakeOutcome {
    Encrypted {
        transport: Transport,
        agreed: Agreed,
        /// The client's certificate in DER, if it presented one that the authorities signed.
        certificate: Option<Vec<u8>>,
    },
    /// The client speaks HTTP without TLS.
    Plain(Transport),
    /// Nothing.
    Failed,
}

/// Shakes hands within `patience`.
pub(crate) async fn handshake(transport: Transport, config: Arc<ServerConfig>, patience: Duration) -> HandshakeOutcome {
    timeout(patience, shake(transport, config)).await.unwrap_or_else(|_| failed("tls.handshake_timeout is over"))
}

async fn shake(transport: Transport, config: Arc<ServerConfig>) -> HandshakeOutcome {
    if begins_in_plain_text(&transport).await {
        return HandshakeOutcome::Plain(transport);
    }
    match TlsAcceptor::from(config).accept(transport).await {
        Ok(stream) => {
            let session = stream.get_ref().1;
            let agreed = match session.alpn_protocol() {
                Some(b"h2") => Agreed::Http2,
                _ => Agreed::Http1,
            };
            let certificate = session.peer_certificates().and_then(|chain| chain.first()).map(|own| own.to_vec());
            HandshakeOutcome::Encrypted { transport: Transport::Tls(Box::new(stream)), agreed, certificate }
        }
        Err(error) => failed(&error.to_string()),
    }
}

fn failed(reason: &str) -> HandshakeOutcome {
    log::event(Level::Debug, "a TLS handshake failed").field("reason", reason).emit();
    HandshakeOutcome::Failed
}

/// Whether the first byte is the letter of a method. That of TLS is a number below 32 (RFC 8446, section 5.1).
async fn begins_in_plain_text(transport: &Transport) -> bool {
    let Transport::Tcp(stream) = transport else { return false };
    let mut first = [0];
    matches!(stream.peek(&mut first).await, Ok(1)) && first[0].is_ascii_uppercase()
}

/// How much of a plain request is read before it is answered, in bytes.
const READ_MOST: usize = 4096;

/// Tells a client that speaks plain HTTP to use TLS; returns the beginning of its request, and the length of the
/// answer.
pub(crate) async fn refuse_plain(mut transport: Transport) -> Option<(Vec<u8>, u64)> {
    let mut head = vec![0; READ_MOST];
    let length = transport.read(&mut head).await.ok()?;
    head.truncate(length);
    let body = failure::error_body("this port speaks HTTPS: the request must come over TLS");
    let answer = format!(
        "HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
         date: {}\r\n\r\n",
        body.len(),
        httpdate::fmt_http_date(SystemTime::now()),
    );
    let is_head = head.starts_with(b"HEAD ");
    let answer = [answer.as_bytes(), if is_head { &[] } else { &body }].concat();
    transport.write_all(&answer).await.ok()?;
    transport.shutdown().await.ok()?;
    // The rest of the request is read, so that the client sees the answer and no reset.
    let mut rest = [0; READ_MOST];
    let _ = timeout(LINGER, async { while matches!(transport.read(&mut rest).await, Ok(1..)) {} }).await;
    Some((head, if is_head { 0 } else { body.len() as u64 }))
}
