//! The management listener, apart from the listener of the app.
//!
//! Comes in: bound sockets, and a function from paths to pages. Goes out: the pages, over HTTP/1.1, from a separate
//! thread, so that it answers even when workers are stuck. Pages of other sites in a browser get nothing. This module
//! must not know what the pages contain.

mod origin;

use std::cell::Cell;
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::rt::{Read, Write};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpStream, UnixStream};
use tokio::runtime::LocalOptions;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::sleep;

pub(crate) use origin::HostNames;

use crate::listen::accept::{ClientStream, Listeners};
use crate::log::{self, Level};

/// Connections at one time; further ones are closed at once.
const MOST_CONNECTIONS: usize = 64;

/// How long a client may take to send a request, and to take the answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is answered to a path.
pub(crate) struct Page {
    pub(crate) status: StatusCode,
    pub(crate) content_type: &'static str,
    pub(crate) body: String,
}

/// A request: the path, the query, and whether it is a POST, which actions need.
pub(crate) struct PageRequest {
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) is_post: bool,
}

/// The result for a path.
pub(crate) enum PageAnswer {
    Page(Page),
    Nothing,
    /// A page for these methods only.
    Only(&'static str),
}

/// Answers what is asked.
pub(crate) type Pages = Arc<dyn Fn(PageRequest) -> Pin<Box<dyn Future<Output = PageAnswer>>> + Send + Sync>;

/// The thread that answers. Dropping it ends it.
pub(crate) struct ManagementThread {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl ManagementThread {
    /// Starts to answer on `listeners` to requests whose `Host` is one of `names`.
    ///
    /// # Errors
    /// The system refuses a thread or an event queue.
    pub(crate) fn start(listeners: Arc<Listeners>, names: HostNames, pages: Pages) -> io::Result<ManagementThread> {
        let (stop, stopped) = oneshot::channel();
        let thread = thread::Builder::new().name("rover-manage".to_owned()).spawn(move || {
            let built = tokio::runtime::Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
            let runtime = match built {
                Ok(runtime) => runtime,
                Err(error) => return failed(&error),
            };
            let serving = serve(listeners, Rc::new(names), pages);
            runtime.block_on(async {
                tokio::select! {
                    served = serving => if let Err(error) = served { failed(&error) },
                    _ = stopped => {}
                }
            });
        })?;
        Ok(ManagementThread { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for ManagementThread {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn failed(error: &io::Error) {
    log::event(Level::Error, "the management listener has ended").field("error", error.to_string().as_str()).emit();
}

async fn serve(listeners: Arc<Listeners>, names: Rc<HostNames>, pages: Pages) -> io::Result<()> {
    let room = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    listeners
        .accept_here(|accepted| {
            let Ok(place) = room.clone().try_acquire_owned() else { return };
            let (names, pages) = (names.clone(), pages.clone());
            tokio::task::spawn_local(async move {
                let _place = place;
                match accepted.stream {
                    ClientStream::Tcp(stream) => {
                        if let Ok(stream) = TcpStream::from_std(stream) {
                            converse(TokioIo::new(stream), &names, &pages).await;
                        }
                    }
                    ClientStream::Unix(stream) => {
                        if let Ok(stream) = UnixStream::from_std(stream) {
                            // A Unix socket is out of a web page's reach, whatever the `Host`.
                            converse(TokioIo::new(stream), &HostNames::any(), &pages).await;
                        }
                    }
                }
            });
        })
        .await
}

/// Answers one request. Does not wait for a slow client.
async fn converse(stream: impl Read + Write + Unpin, names: &HostNames, pages: &Pages) {
    let is_made = Cell::new(false);
    let service = service_fn(|request| {
        is_made.set(true);
        let (answer, is_made) = (answer(request, names, pages), &is_made);
        async move {
            let answer = answer.await;
            is_made.set(false);
            answer
        }
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(PATIENCE).keep_alive(false);
    let mut serving = pin!(builder.serve_connection(stream, service));
    loop {
        tokio::select! {
            // Errors here are caused by the client.
            _ = serving.as_mut() => return,
            () = sleep(PATIENCE) => {
                if !is_made.get() {
                    return;
                }
            }
        }
    }
}

async fn answer(
    request: Request<Incoming>,
    names: &HostNames,
    pages: &Pages,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let plain = |status: StatusCode| Page {
        status,
        content_type: "text/plain; charset=utf-8",
        body: format!("{}\n", status.canonical_reason().unwrap_or("Error")),
    };
    let is_post = request.method() == Method::POST;
    let refusal = names.refuses(request.headers(), request.uri());
    let told = match *request.method() {
        _ if refusal.is_some() => PageAnswer::Page(Page {
            body: format!("{}\n", refusal.unwrap_or_default()),
            ..plain(StatusCode::FORBIDDEN)
        }),
        Method::GET | Method::HEAD | Method::POST => {
            let path = request.uri().path().to_owned();
            pages(PageRequest { path, query: request.uri().query().unwrap_or_default().to_owned(), is_post }).await
        }
        _ => PageAnswer::Only("GET, HEAD"),
    };
    let (page, allow) = match told {
        PageAnswer::Page(page) => (page, None),
        PageAnswer::Nothing => (plain(StatusCode::NOT_FOUND), None),
        PageAnswer::Only(allow) => (plain(StatusCode::METHOD_NOT_ALLOWED), Some(allow)),
    };
    let mut response = Response::new(Full::new(page.body.into()));
    *response.status_mut() = page.status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(page.content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Some(allow) = allow {
        headers.insert(ALLOW, HeaderValue::from_static(allow));
    }
    Ok(response)
}
