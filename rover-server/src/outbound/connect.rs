//! New connections: TCP, then TLS where the URL asks for it. Each counts itself while it is open.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::Uri;
use http::uri::Scheme;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tower_service::Service;

use super::Problem;
use super::dns::Resolver;
use super::figures::{Figures, OriginFigures, add, subtract};
use super::tls::Tls;
use super::url::origin_of;

/// Opens the connections of one client.
#[derive(Clone)]
pub(super) struct Connector {
    http: HttpConnector<Resolver>,
    tls: Arc<Tls>,
    client: Arc<str>,
    figures: Arc<Figures>,
}

impl Connector {
    /// `client` is the name that the connections are counted under.
    pub(super) fn new(tls: Tls, client: Arc<str>, figures: Arc<Figures>) -> Connector {
        let mut http = HttpConnector::new_with_resolver(Resolver::default());
        http.enforce_http(false);
        http.set_nodelay(true);
        Connector { http, tls: Arc::new(tls), client, figures }
    }
}

pub(super) type BoxError = Box<dyn std::error::Error + Send + Sync>;
type Stream = MaybeHttpsStream<TokioIo<TcpStream>>;

impl Connector {
    /// Connects to the origin of `url`.
    ///
    /// # Errors
    /// It cannot be reached, or TLS fails.
    pub(super) async fn connect(&self, url: Uri) -> Result<Counted, BoxError> {
        let figures = self.figures.of(&self.client, &origin_of(&url));
        let mut http = self.http.clone();
        let stream = if url.scheme() == Some(&Scheme::HTTPS) {
            let config = self.tls.config().await?;
            HttpsConnector::from((http, config)).call(url).await.map_err(in_handshake)?
        } else {
            MaybeHttpsStream::Http(http.call(url).await?)
        };
        add(&figures.open);
        add(&figures.opened);
        Ok(Counted { stream, figures })
    }
}

/// A peer that ends the connection in the middle of a handshake does not speak TLS, as far as anybody can tell.
fn in_handshake(error: BoxError) -> BoxError {
    match Problem::of(&*error) {
        Problem::Closed => Problem::Tls("TLS: the server closed the connection in the handshake".to_owned()).into(),
        _ => error,
    }
}

/// An open connection.
pub(super) struct Counted {
    stream: Stream,
    figures: Arc<OriginFigures>,
}

impl Drop for Counted {
    fn drop(&mut self) {
        subtract(&self.figures.open);
    }
}

impl Connection for Counted {
    fn connected(&self) -> Connected {
        self.stream.connected()
    }
}

impl Read for Counted {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl Write for Counted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }
}
