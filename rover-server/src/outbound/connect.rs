//! Opens connections: TCP, then TLS if the URL asks for it. Each counts itself while it is open.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::Uri;
use http::uri::Scheme;
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::client::legacy::connect::{Connection, HttpConnector};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};
use tower_service::Service;

use super::Problem;
use super::dns::Resolver;
use super::figures::{Figures, OriginFigures, add, subtract};
use super::interim::{Frames, Interims};
use super::tls::ClientTls;
use super::url::origin_of;

/// How long a failed write is held back at most, so that the read side can report first.
const HEARING: Duration = Duration::from_secs(5);

/// Opens the connections of one client.
#[derive(Clone)]
pub(super) struct Connector {
    http: HttpConnector<Resolver>,
    tls: Arc<ClientTls>,
    client: Arc<str>,
    figures: Arc<Figures>,
}

impl Connector {
    /// `client` is the name under which the connections are counted.
    pub(super) fn new(tls: ClientTls, client: Arc<str>, figures: Arc<Figures>) -> Connector {
        let mut http = HttpConnector::new_with_resolver(Resolver::default());
        http.enforce_http(false);
        http.set_nodelay(true);
        Connector { http, tls: Arc::new(tls), client, figures }
    }
}

pub(super) type BoxError = Box<dyn std::error::Error + Send + Sync>;
type MaybeTls = MaybeHttpsStream<TokioIo<TcpStream>>;

impl Connector {
    /// Connects to the origin of `url`.
    ///
    /// # Errors
    /// It cannot be reached, or TLS fails.
    pub(super) async fn connect(&self, url: Uri) -> Result<CountedStream, BoxError> {
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
        Ok(CountedStream::new(stream, figures))
    }
}

/// A peer that closes the connection during a handshake probably does not speak TLS.
fn in_handshake(error: BoxError) -> BoxError {
    match Problem::of(&*error) {
        Problem::Closed => Problem::Tls("TLS: the server closed the connection in the handshake".to_owned()).into(),
        _ => error,
    }
}

/// An open connection.
///
/// On HTTP/1.1 a failed write is reported only after the read side: a server may answer a request and close the
/// connection before it has read all of it, and its answer has then arrived although writing fails.
pub(super) struct CountedStream {
    stream: TokioIo<MaybeTls>,
    figures: Arc<OriginFigures>,
    /// Told by whoever sends requests over HTTP/1.1.
    interims: Arc<Interims>,
    /// Of HTTP/2.
    frames: Option<Frames>,
    /// Writing has failed, as is told when this is over.
    deaf: Option<Box<Deaf>>,
}

/// Why writing failed, and for how long the read side may keep that back.
type Deaf = (io::ErrorKind, Pin<Box<Sleep>>);

impl CountedStream {
    fn new(stream: MaybeTls, figures: Arc<OriginFigures>) -> CountedStream {
        let is_http2 = stream.connected().is_negotiated_h2();
        let (interims, frames) = (Arc::default(), is_http2.then(Frames::default));
        CountedStream { stream: TokioIo::new(stream), figures, interims, frames, deaf: None }
    }

    /// Whether HTTP/2 has been agreed on.
    pub(super) fn is_http2(&self) -> bool {
        self.frames.is_some()
    }

    /// What counts the interim answers of HTTP/1.1.
    pub(super) fn interims(&self) -> Arc<Interims> {
        self.interims.clone()
    }

    /// Writes, as long as that has not failed.
    #[inline]
    fn poll_with<T>(
        &mut self,
        cx: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut TokioIo<MaybeTls>>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if self.deaf.is_none() {
            match write(Pin::new(&mut self.stream), cx) {
                Poll::Ready(Err(error)) if self.frames.is_none() => {
                    self.deaf = Some(Box::new((error.kind(), Box::pin(sleep(HEARING)))));
                }
                written => return written,
            }
        }
        self.poll_deaf(cx).map(Err)
    }

    /// Holds back that writing failed. Mostly the read side wakes who waits: it has a byte, the end or the error.
    #[cold]
    fn poll_deaf(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let Some(deaf) = &mut self.deaf else { return Poll::Pending };
        let (kind, clock) = &mut **deaf;
        clock.as_mut().poll(cx).map(|()| (*kind).into())
    }
}

impl Drop for CountedStream {
    fn drop(&mut self) {
        subtract(&self.figures.open);
    }
}

impl AsyncRead for CountedStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        this.interims.check()?;
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(cx, buf))?;
        if let Some(frames) = &mut this.frames {
            frames.take(&buf.filled()[before..])?;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for CountedStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_with(cx, |stream, cx| stream.poll_write(cx, buf))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_with(cx, |stream, cx| stream.poll_flush(cx))
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
        self.poll_with(cx, |stream, cx| stream.poll_write_vectored(cx, bufs))
    }
}
