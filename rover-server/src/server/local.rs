//! Answers requests without a socket, for tests of an app.

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Request, Response, Version, header};
use http_body::Body as _;
use http_body_util::Full;

use crate::exchange::context::Peer;
use crate::script::tasks::Driver;
use crate::service::Site;

/// An app that answers requests on the calling thread, through every stage except the connection.
///
/// ```
/// # async fn example() -> Result<(), rover_server::Error> {
/// let app = rover_server::Server::from_source(
///     "hello.lua",
///     "local api = rover.server {} function api.hello.get(ctx) return { to = ctx:query().name } end return api",
/// )
/// .load()?;
/// let response = app.request(http::Request::get("/hello?name=Ada").body("").unwrap()).await;
/// assert_eq!(response.status(), 200);
/// assert_eq!(response.body(), r#"{"to":"Ada"}"#);
/// # Ok(())
/// # }
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(example()).unwrap();
/// ```
pub struct LocalApp {
    site: Rc<Site>,
    peer: Rc<Peer>,
    driver: RefCell<Driver>,
}

impl LocalApp {
    pub(crate) fn new(site: Rc<Site>, peer: Peer) -> LocalApp {
        let driver = RefCell::new(Driver::new(site.app.tasks.clone()));
        LocalApp { site, peer: Rc::new(peer), driver }
    }

    /// Answers one request. A request without `Host` gets `localhost`; the client's address is 127.0.0.1.
    ///
    /// Handlers that wait for timers or IO need a tokio runtime around this call. Spawned tasks run while requests are
    /// answered. A streamed response is returned when it has ended; one that breaks off ends early.
    pub async fn request(&self, request: Request<impl Into<Bytes>>) -> Response<Bytes> {
        let mut request = request.map(|body| Full::new(body.into()));
        if request.version() == Version::HTTP_11 && !request.headers().contains_key(header::HOST) {
            // If there is no room for the body, answers for that instead.
            let _ = request.headers_mut().try_insert(header::HOST, HeaderValue::from_static("localhost"));
        }
        let mut answer = self.site.answer(request, &self.peer, |_, _| {});
        let Ok(response) = self.beside_tasks(|cx| Pin::new(&mut answer).poll(cx)).await;
        let (head, mut body) = response.into_parts();
        let mut bytes = BytesMut::new();
        while let Some(Ok(frame)) = self.beside_tasks(|cx| Pin::new(&mut body).poll_frame(cx)).await {
            bytes.extend(frame.into_data());
        }
        Response::from_parts(head, bytes.freeze())
    }

    /// Polls something, and the spawned tasks beside it.
    async fn beside_tasks<T>(&self, mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>) -> T {
        poll_fn(|cx| {
            let polled = poll(cx);
            if let Ok(mut driver) = self.driver.try_borrow_mut() {
                let _ = Pin::new(&mut *driver).poll(cx);
            }
            polled
        })
        .await
    }
}

impl std::fmt::Debug for LocalApp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LocalApp").finish_non_exhaustive()
    }
}
