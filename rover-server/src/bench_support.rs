//! Doors for the `benches` crate into what the library keeps to itself. Not part of the public API.

use std::cell::Cell;
use std::hint::black_box;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rover_lua::json::{self, Vocabulary};
use rover_lua::{OwnedMeta, Raise, Shared};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::runtime::{LocalOptions, LocalRuntime};

use crate::connection::Connection;
use crate::error::Error;
use crate::exchange::context::Peer;
use crate::server::Server;
use crate::service::CurrentSite;
use crate::service::handler;
use crate::transport::lifecycle::Lifecycle;
use crate::transport::socket::{Agreed, SpareBuffers, Transport};

/// A VM that encodes and decodes as the server does, many times for one call from Rust.
#[derive(Debug)]
pub struct Json {
    encode: mlua::Function,
    decode: mlua::Function,
}

impl Json {
    /// Adds what JSON needs to `lua`.
    ///
    /// # Errors
    /// When Lua is out of memory.
    pub fn new(lua: &mlua::Lua) -> mlua::Result<Json> {
        let texts = OwnedMeta::new(lua, &lua.create_table()?)?;
        let array = lua.create_table()?;
        let vocabulary = Vocabulary::new(lua, &array, Rc::<OwnedMeta<Bytes>>::new(texts))?;
        let shared = Shared::new(lua, Rc::new(vocabulary))?;
        let encode = shared.function(lua, |stack, vocabulary| {
            let times = stack.number(2) as u64;
            let mut out = Vec::new();
            let start = Instant::now();
            for _ in 0..times {
                out.clear();
                json::encode(stack, 1, vocabulary, &mut out).map_err(|error| Raise::mistake(error.to_string()))?;
                black_box(out.as_slice());
            }
            stack.push_number(start.elapsed().as_secs_f64());
            Ok(1)
        })?;
        let decode = shared.function(lua, |stack, vocabulary| {
            let text = stack.bytes(1).unwrap_or_default().to_vec();
            let times = stack.number(2) as u64;
            let start = Instant::now();
            for _ in 0..times {
                json::decode(stack, black_box(&text), vocabulary).map_err(|error| Raise::mistake(error.to_string()))?;
                stack.pop(1);
            }
            stack.push_number(start.elapsed().as_secs_f64());
            Ok(1)
        })?;
        Ok(Json { encode, decode })
    }

    /// How long it takes to encode `value` so many `times`.
    ///
    /// # Errors
    /// When the value cannot be JSON.
    pub fn encode(&self, value: &mlua::Value, times: u64) -> mlua::Result<Duration> {
        self.encode.call((value, times as f64)).map(Duration::from_secs_f64)
    }

    /// How long it takes to decode `text` so many `times`.
    ///
    /// # Errors
    /// When the text is not JSON.
    pub fn decode(&self, text: &str, times: u64) -> mlua::Result<Duration> {
        self.decode.call((text, times as f64)).map(Duration::from_secs_f64)
    }
}

/// The whole way of a request, from bytes in to bytes out, on this thread and without the kernel.
pub struct InProcess {
    runtime: LocalRuntime,
    current: Rc<CurrentSite>,
    lifecycle: Rc<Lifecycle>,
    spare: Rc<SpareBuffers>,
}

impl InProcess {
    /// Loads an app given as text.
    ///
    /// # Errors
    /// What is wrong with the app.
    pub fn new(code: &str) -> Result<InProcess, Error> {
        InProcess::of(&Server::from_source("app.lua", code))
    }

    /// Loads the app of `server`.
    ///
    /// # Errors
    /// What is wrong with the app.
    pub fn of(server: &Server) -> Result<InProcess, Error> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build_local(LocalOptions::default())
            .map_err(|error| Error::io("cannot start a runtime", error))?;
        let current = CurrentSite::new(runtime.block_on(async { server.site(true) })?);
        Ok(InProcess { runtime, current, lifecycle: Rc::default(), spare: Rc::default() })
    }

    /// Serves one connection on which `requests` come in turn, so many `times` in all and a read each; gives the number
    /// of bytes answered.
    pub fn serve(&self, requests: &[Vec<u8>], times: usize) -> usize {
        let (script, answered) = Script::new(requests, times);
        let transport = Transport::Other(Box::new(script));
        let peer = Peer::new(Some([127, 0, 0, 1].into()), "http");
        let (agreed, current) = (Agreed::Http1, self.current.clone());
        let connection = Connection::new(transport, peer, agreed, current, &self.lifecycle, self.spare.clone());
        self.runtime.block_on(connection);
        answered.get()
    }
}

impl InProcess {
    /// Lets what runs beside connections have its turn.
    pub fn rest(&self) {
        self.runtime.block_on(async { tokio::time::sleep(Duration::from_millis(20)).await });
    }

    /// How long so many calls of the first route's handler take, from a parsed request to its response.
    pub fn handle(&self, times: u64) -> Duration {
        let peer = Rc::new(Peer::new(None, "http"));
        let site = self.current.site();
        let start = Instant::now();
        for _ in 0..times {
            let (head, ()) = http::Request::new(()).into_parts();
            let request = site.app.contexts.requests.open(head, &peer, |_| {});
            let mut response = None;
            handler::start(&site.app, (1, 1), request, &mut response);
            black_box(response);
        }
        start.elapsed()
    }
}

impl std::fmt::Debug for InProcess {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InProcess").finish_non_exhaustive()
    }
}

/// A client that sends its requests in turn, again and again, and counts what it gets.
#[derive(Debug)]
pub struct Script {
    requests: Vec<Vec<u8>>,
    next: usize,
    times: usize,
    answered: Rc<Cell<usize>>,
}

impl Script {
    /// Sends so many `times` the next of `requests`; the counter tells how many bytes came back.
    pub fn new(requests: &[Vec<u8>], times: usize) -> (Script, Rc<Cell<usize>>) {
        let answered = Rc::new(Cell::new(0));
        (Script { requests: requests.to_vec(), next: 0, times, answered: answered.clone() }, answered)
    }
}

impl AsyncRead for Script {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.times > 0 {
            self.times -= 1;
            let this = &mut *self;
            this.next = (this.next + 1) % this.requests.len();
            // hyper offers at least 8 KB, which every request fits into.
            let request = &this.requests[this.next];
            let n = request.len().min(buf.remaining());
            buf.put_slice(&request[..n]);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Script {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.answered.set(self.answered.get() + buf.len());
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
