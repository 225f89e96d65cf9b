//! How many system calls pipelined requests cost: counted under the socket.

use std::cell::Cell;
use std::io;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::runtime::LocalOptions;

use super::*;
use crate::lua::Shared;
use crate::server::Server;

/// A client that sends everything at once, closes its side, and counts the writes and the answers it gets.
struct Once {
    bytes: Vec<u8>,
    seen: Rc<Seen>,
}

#[derive(Default)]
struct Seen {
    writes: Cell<usize>,
    bytes: Cell<Vec<u8>>,
}

impl AsyncRead for Once {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let n = self.bytes.len().min(buf.remaining());
        buf.put_slice(&self.bytes[..n]);
        self.bytes.drain(..n);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Once {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.seen.writes.set(self.seen.writes.get() + 1);
        let mut bytes = self.seen.bytes.take();
        bytes.extend_from_slice(buf);
        self.seen.bytes.set(bytes);
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// The number of writes, and the statuses, that answer `bytes`.
fn writes_for(bytes: String) -> (usize, Vec<String>) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build_local(LocalOptions::default()).unwrap();
    let code = "local api = rover.server { access_log = false } function api.get() return 'home' end return api";
    let site = Server::from_source("app.lua", code).site(false).unwrap();
    let seen = Rc::new(Seen::default());
    let transport = Transport::Other(Box::new(Once { bytes: bytes.into_bytes(), seen: seen.clone() }));
    let peer = Peer::new(None, "http");
    let current = Current::new(site);
    let connection = Connection::new(transport, peer, Agreed::Nothing, current, &Rc::default(), Rc::default());
    runtime.block_on(connection);
    let text = String::from_utf8(seen.bytes.take()).unwrap();
    let statuses = text.split("HTTP/1.1 ").skip(1).map(|answer| answer[..3].to_owned()).collect();
    (seen.writes.get(), statuses)
}

const HOME: &str = "GET / HTTP/1.1\r\nHost: test\r\n\r\n";

#[test]
fn pipelined_requests_share_their_writes() {
    let (writes, statuses) = writes_for(HOME.repeat(16));
    assert_eq!((writes, statuses.len()), (1, 16));
    let (writes, statuses) = writes_for(HOME.repeat(200));
    assert_eq!(statuses.len(), 200);
    assert!(writes <= 200 / 16 + 1, "{writes} writes");
}

#[test]
fn the_answer_to_a_malformed_request_shares_the_write_too() {
    let (writes, statuses) = writes_for(HOME.repeat(3) + "BAD LINE\r\n\r\n");
    assert_eq!((writes, statuses), (1, ["200", "200", "200", "400"].map(str::to_owned).to_vec()));
}

/// A client that asks for an echo instead of HTTP: the request, then bytes that are not HTTP, in one piece.
#[test]
fn a_101_hands_the_connection_over_with_the_bytes_behind_the_request() {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build_local(LocalOptions::default()).unwrap();
    let code = "local api = rover.server { access_log = false }
        local Response = getmetatable(api.json {})
        local function answer(ctx, status)
          return setmetatable({ 7, status, upgrade(ctx), { 'Connection', 'upgrade', 'Upgrade', 'echo' } }, Response)
        end
        function api.get(ctx) return answer(ctx, 101) end
        function api.wrong.get(ctx) return answer(ctx, 200) end
        return api";
    let serve = |bytes: &str| {
        let site = Server::from_source("app.lua", code).site(false).unwrap();
        let lua = site.app.coroutines.lua().clone();
        let own = Shared::new(&lua, site.app.clone()).unwrap();
        let upgrade = own.function(&lua, |stack, app| {
            let ticket = crate::context::ticket(stack, &app.contexts, "upgrade()")?;
            let peer = app.contexts.requests.get(ticket)?.peer.clone();
            app.responder.push_upgrade(stack, peer, Box::new(|upgraded| Box::pin(echo(upgraded))));
            Ok(1)
        });
        lua.globals().raw_set("upgrade", upgrade.unwrap()).unwrap();
        let seen = Rc::new(Seen::default());
        let transport = Transport::Other(Box::new(Once { bytes: bytes.into(), seen: seen.clone() }));
        let (peer, current) = (Peer::new(None, "http"), Current::new(site));
        let connection = Connection::new(transport, peer, Agreed::Nothing, current, &Rc::default(), Rc::default());
        runtime.block_on(connection);
        String::from_utf8(seen.bytes.take()).unwrap()
    };
    let head = "Host: test\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n";

    let answer = serve(&format!("GET / HTTP/1.1\r\n{head}GET me this"));
    assert!(answer.starts_with("HTTP/1.1 101 Switching Protocols\r\n"), "{answer}");
    assert!(answer.ends_with("\r\n\r\nGET me this"), "{answer}");
    assert!(!answer.to_ascii_lowercase().contains("content-length"), "{answer}");

    // What is no 101 leaves the connection with HTTP.
    let answer = serve(&format!("GET /wrong HTTP/1.1\r\n{head}GET /no HTTP/1.1\r\n{head}"));
    assert!(answer.starts_with("HTTP/1.1 500 "), "{answer}");
    assert!(answer.contains("HTTP/1.1 404 "), "{answer}");
}

async fn echo(mut upgraded: Upgraded) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut bytes = Vec::new();
    upgraded.read_to_end(&mut bytes).await.unwrap();
    upgraded.write_all(&bytes).await.unwrap();
}
