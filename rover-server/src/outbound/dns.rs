//! Resolves names off the event loop: the system's resolver, on blocking threads.

use std::future::Future;
use std::net::{SocketAddr, ToSocketAddrs};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::vec;

use hyper_util::client::legacy::connect::dns::Name;
use tokio::sync::Semaphore;
use tower_service::Service;

use super::Problem;
use crate::runtime::blocking;
use crate::runtime::resources;

/// How many names one client looks up at once; further ones wait. A resolver that hangs takes no more threads.
const MOST_LOOKUPS: usize = 16;

/// The system's resolver.
#[derive(Clone)]
pub(super) struct Resolver {
    turns: Arc<Semaphore>,
}

impl Default for Resolver {
    fn default() -> Resolver {
        Resolver { turns: Arc::new(Semaphore::new(MOST_LOOKUPS)) }
    }
}

impl Service<Name> for Resolver {
    type Response = vec::IntoIter<SocketAddr>;
    type Error = Problem;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Problem>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Problem>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let turns = self.turns.clone();
        Box::pin(async move {
            let turn = turns.acquire_owned().await;
            let looked_up = blocking::run(move || {
                let found = (name.as_str(), 0).to_socket_addrs();
                drop(turn);
                found.map_err(|error| match error.raw_os_error() {
                    Some(_) => Problem::of(&error),
                    // Without a free descriptor the resolver finds nothing, which says nothing about the name.
                    None => resources::shortage().map_or(Problem::NameNotFound, |error| Problem::of(&error)),
                })
            });
            let refused = |refused| Problem::Shortage(format!("cannot look the name up: {refused}"));
            looked_up.await.map_err(refused)?
        })
    }
}
