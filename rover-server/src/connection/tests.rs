//! How many system calls pipelined requests cost: counted under the socket.

use std::cell::Cell;
use std::io;

use rover_lua::Shared;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::runtime::LocalOptions;

use super::*;
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
    let current = CurrentSite::new(site);
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
            let request_key = crate::exchange::context::request_key(stack, &app.contexts, "upgrade()")?;
            let peer = app.contexts.requests.get(request_key)?.peer.clone();
            app.responder.push_upgrade(stack, peer, Box::new(|upgraded| Box::pin(echo(upgraded))));
            Ok(1)
        });
        lua.globals().raw_set("upgrade", upgrade.unwrap()).unwrap();
        let seen = Rc::new(Seen::default());
        let transport = Transport::Other(Box::new(Once { bytes: bytes.into(), seen: seen.clone() }));
        let (peer, current) = (Peer::new(None, "http"), CurrentSite::new(site));
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

/// A client that sends its bytes in parts, then closes its side.
struct Parts {
    parts: std::vec::IntoIter<Vec<u8>>,
    part: Vec<u8>,
    seen: Rc<Seen>,
}

impl AsyncRead for Parts {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.part.is_empty() {
            self.part = self.parts.next().unwrap_or_default();
        }
        let n = self.part.len().min(buf.remaining());
        buf.put_slice(&self.part[..n]);
        self.part.drain(..n);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Parts {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
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

/// Bytes of which some make requests, and some come close.
const PIECES: [&[u8]; 30] = [
    b"GET /a HTTP/1.1\r\nHost: test\r\n",
    b"POST /b HTTP/1.1\r\nHost: test\r\n",
    b"PUT /c HTTP/1.0\r\nHost: test\r\n",
    b"DELETE /d HTTP/1.1\r\nHost: test\r\nUpgrade: a\r\n",
    b"GET /e HTTP/1.1\r\nHost: test\r\n\r\n",
    b"GET /f HTTP/1.1\r\nHost: test\r\n\r\n",
    b"POST /g HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n\r\nGET /",
    b"PUT /h HTTP/1.1\r\nHost: test\r\ntransfer-encoding:chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    b"Content-Length: 5\r\n",
    b"content-length:0\r\n",
    b"Content-Length: 05 \r\n",
    b"Content-Length: x\r\n",
    b"Content-Length : 3\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: gzip, chunked\r\n",
    b"Transfer-Encoding: gzip\r\n",
    b" folded: a\r\n",
    b"X: a\rb\r\n",
    b"\r\n",
    b"\r\n\r\n",
    b"\n",
    b"\r",
    b"hello",
    b"5\r\nhello\r\n",
    b"0\r\n\r\n",
    b"0\r\nA: b\r\n\r\n",
    b"5;a=\"b\r\n",
    b"#",
    b"0",
    b"\0",
];

/// Where messages end, hyper and the look below it agree: without a refusal the answers are those of a server that does
/// not look, and with one all that came before it.
#[test]
fn strict_and_lenient_see_the_same_messages() {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build_local(LocalOptions::default()).unwrap();
    let site = |lenient: &str| {
        let code = format!(
            "local api = rover.server {{ access_log = false, http1 = {{ lenient = {lenient} }} }}
            api['{{*path}}'].any = {{ body = true, function(ctx)
              local body = ctx:body()
              return ctx.method .. ctx.path .. ':' .. (body and body:text() or '') .. '.'
            end }}
            return api"
        );
        CurrentSite::new(Server::from_source("app.lua", code).site(false).unwrap())
    };
    let sites = [site("false"), site("true")];
    let answers = |current: &Rc<CurrentSite>, parts: Vec<Vec<u8>>| {
        let seen = Rc::new(Seen::default());
        let client = Parts { parts: parts.into_iter(), part: Vec::new(), seen: seen.clone() };
        let (transport, peer) = (Transport::Other(Box::new(client)), Peer::new(None, "http"));
        let connection =
            Connection::new(transport, peer, Agreed::Nothing, current.clone(), &Rc::default(), Rc::default());
        runtime.block_on(connection);
        let text = String::from_utf8_lossy(&seen.bytes.take()).into_owned();
        let without_date = |answer: &str| {
            let lines =
                answer.split("\r\n").filter(|line| !line.starts_with("date:") && !line.starts_with("connection:"));
            lines.collect::<Vec<_>>().join("|")
        };
        let closes = text.rsplit("HTTP/1.").next().is_some_and(|last| last.contains("\r\nconnection: close\r\n"));
        (text.split("HTTP/1.").skip(1).map(without_date).collect::<Vec<_>>(), closes)
    };
    let mut random = fastrand::Rng::with_seed(7);
    let (mut refused, mut taken) = (0, 0);
    for _ in 0..20_000 {
        let pieces = (0..random.usize(1..9)).map(|_| PIECES[random.usize(..PIECES.len())]).collect::<Vec<_>>();
        let mut bytes = pieces.concat();
        let mut parts = Vec::new();
        while !bytes.is_empty() {
            let most = if random.bool() { bytes.len() } else { bytes.len().min(9) };
            let rest = bytes.split_off(random.usize(1..=most));
            parts.push(std::mem::replace(&mut bytes, rest));
        }
        let (mut strict, _) = answers(&sites[0], parts.clone());
        let (lenient, lenient_closes) = answers(&sites[1], parts);
        // Nobody who does not look knows whether a request in chunks had a length as well, so its connection ends.
        if strict == lenient || lenient_closes && strict.starts_with(&lenient) {
            taken += 1;
            continue;
        }
        refused += 1;
        let last = strict.pop().unwrap_or_default();
        assert!(last.starts_with("1 400"), "{pieces:?}: {strict:?} {last} and {lenient:?}");
        assert!(lenient.starts_with(&strict), "{pieces:?}: {strict:?} and {lenient:?}");
    }
    assert!(refused > 500 && taken > 5000, "{refused} refused, {taken} taken");
}
