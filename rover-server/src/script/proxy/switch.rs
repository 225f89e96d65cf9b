//! Joins connections that leave HTTP, such as WebSockets: after a 101, bytes pass in both directions until one side
//! ends.

use std::time::Duration;

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncWriteExt, copy_bidirectional};

use crate::outbound::Active;
use crate::transport::upgrade::{Upgrade, Upgraded};

use super::group::Turn;
use super::standstill;

/// How long an upstream that takes nothing may hold up the end of a server that stops.
const FAREWELL: Duration = Duration::from_secs(1);

/// What takes the client's connection over, and joins it with the upstream's until nothing passes for `timeout`.
pub(super) fn joined(upstream: OnUpgrade, turn: Turn, active: Active, timeout: Option<Duration>) -> Upgrade {
    Box::new(move |mut client: Upgraded| {
        Box::pin(async move {
            let _held = (turn, active);
            let Ok(upstream) = upstream.await else { return };
            let mut upstream = TokioIo::new(upstream);
            // Every byte of both ways passes the client's connection.
            let (ending, movement) = (client.ending(), client.movement());
            tokio::select! {
                _ = copy_bidirectional(&mut client, &mut upstream) => {}
                () = standstill(movement, timeout) => {}
                () = ending.told() => {
                    let _ = tokio::time::timeout(FAREWELL, upstream.shutdown()).await;
                }
            }
        })
    })
}
