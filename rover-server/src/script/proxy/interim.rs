//! Passes interim responses of an upstream, such as 103 Early Hints, on to the client.
//!
//! Comes in: what the upstream sends before its answer. Goes out: the same, to a client of HTTP/1.1 that waits for its
//! answer. hyper sends no interim responses but 100, so they bypass it; in HTTP/2 they cannot.

use std::future::Future;
use std::pin::pin;
use std::rc::{Rc, Weak};

use http::{HeaderMap, StatusCode, Version};

use crate::exchange::context::{Peer, Request, RequestKey};
use crate::outbound::Relay;

use super::{Options, Proxy, headers};

/// A client that may be told of interim answers.
pub(super) struct Hints {
    relay: Relay,
    peer: Rc<Peer>,
    request_key: RequestKey,
    proxy: Weak<Proxy>,
    options: Options,
}

impl Hints {
    /// `None` where the client could not take them for what they are (RFC 9110, section 15.2), or nobody can send them.
    pub(super) fn new(request: &Request, request_key: RequestKey, proxy: &Proxy, options: &Options) -> Option<Hints> {
        (request.head.version == Version::HTTP_11).then(|| Hints {
            relay: Relay::default(),
            peer: request.peer.clone(),
            request_key,
            proxy: proxy.own.clone(),
            options: *options,
        })
    }

    /// What the request to the upstream takes along.
    pub(super) fn relay(&self) -> Relay {
        self.relay.clone()
    }

    /// Waits for the answer, and passes on what comes before it.
    pub(super) async fn pass<T>(&self, answer: impl Future<Output = T>) -> T {
        let mut answer = pin!(answer);
        loop {
            tokio::select! {
                biased;
                come = self.relay.next() => come.iter().for_each(|(status, fields)| self.send(*status, fields)),
                answered = &mut answer => return answered,
            }
        }
    }

    fn send(&self, status: StatusCode, fields: &HeaderMap) {
        // Rover asks for the client's body itself.
        if status == StatusCode::CONTINUE {
            return;
        }
        // Whoever goes on once the response has begun would write into the middle of it.
        let is_open = self.proxy.upgrade().is_some_and(|proxy| proxy.contexts.requests.get(self.request_key).is_ok());
        if !is_open {
            return;
        }
        let reason = status.canonical_reason().unwrap_or_default();
        let mut bytes = format!("HTTP/1.1 {} {reason}\r\n", status.as_str()).into_bytes();
        headers::backward(fields, Version::HTTP_11, &self.options, false, |name, value| {
            for part in [name, b": ", value, b"\r\n"] {
                bytes.extend_from_slice(part);
            }
        });
        bytes.extend_from_slice(b"\r\n");
        self.peer.interject(&bytes);
    }
}
