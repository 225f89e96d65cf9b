//! Passes listening sockets between processes: takes them from a service manager or a predecessor, hands them to a
//! successor.

use std::os::fd::OwnedFd;
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::{Control, Server};
use crate::error::Error;
use crate::listen::accept::InheritedListener;
use crate::listen::handover::{Predecessor, Successor};
use crate::log::{self, Level};

/// Sockets that a server was given before it binds. Clones share them, because they can be used only once.
#[derive(Clone, Default)]
pub(super) struct InheritedOnce(Arc<Mutex<InheritedSockets>>);

#[derive(Default)]
pub(super) struct InheritedSockets {
    pub(super) serving: Vec<InheritedListener>,
    pub(super) management: Vec<InheritedListener>,
    pub(super) predecessor: Option<Predecessor>,
}

impl InheritedOnce {
    pub(super) fn take(&self) -> InheritedSockets {
        std::mem::take(&mut *self.0.lock())
    }

    fn change(&self, change: impl FnOnce(&mut InheritedSockets)) {
        change(&mut self.0.lock());
    }
}

/// The note that goes with a socket to a successor.
mod note {
    pub(super) const MANAGEMENT: u8 = 1;
    /// A service manager owns it.
    pub(super) const LENT: u8 = 2;
}

impl Server {
    /// Listens on sockets that a service manager has bound, such as those of systemd's socket activation, instead of
    /// the app's `host` and `port`. The sockets stay open, and their files stay, when the server ends.
    ///
    /// # Errors
    /// One of them is not a listening TCP or Unix socket.
    pub fn inherit(self, sockets: impl IntoIterator<Item = OwnedFd>) -> Result<Server, Error> {
        for socket in sockets {
            let given = InheritedListener::new(socket, true)
                .map_err(|error| Error::io("cannot listen on a given socket", error))?;
            self.inherited.change(|inherited| inherited.serving.push(given));
        }
        Ok(self)
    }

    /// Takes over the sockets of the server that started this process with [`Control::restart`], if there is one. That
    /// server is told when this one serves.
    ///
    /// # Errors
    /// The system refuses the sockets.
    pub fn take_over(self) -> Result<Server, Error> {
        let failed = |error| Error::io("cannot take over the sockets of the running server", error);
        let Some(mut predecessor) = Predecessor::find().map_err(failed)? else { return Ok(self) };
        for (place, (socket, note)) in (0..).zip(predecessor.sockets.drain(..)) {
            let given = InheritedListener::new(socket, note & note::LENT != 0).map_err(failed)?.at(place);
            self.inherited.change(|inherited| match note & note::MANAGEMENT {
                0 => inherited.serving.push(given),
                _ => inherited.management.push(given),
            });
        }
        self.inherited.change(|inherited| inherited.predecessor = Some(predecessor));
        Ok(self)
    }
}

impl Control {
    /// Starts `command` as this server's successor on the same sockets, and waits until it serves. Then stop this
    /// server: no connection is lost. Returns the id of the new process.
    ///
    /// The program must call [`Server::take_over`] before it binds; its standard input is not the caller's.
    ///
    /// # Errors
    /// The new process cannot be started, or ends before it serves; or this is process 1, with which a container ends.
    /// This server then keeps serving. Or it has stopped.
    pub async fn restart(&self, mut command: Command) -> Result<u32, Error> {
        let _turn = self.shared.turn.lock().await;
        let started = self.start_successor(&mut command).await;
        match &started {
            Ok(process) => {
                log::event(Level::Info, "another process has taken over").field("pid", u64::from(*process)).emit()
            }
            Err(error) => log::event(Level::Error, "no other process took over, this one serves on")
                .field("error", error.to_string().as_str())
                .emit(),
        }
        started
    }

    async fn start_successor(&self, command: &mut Command) -> Result<u32, Error> {
        let failed = |error| Error::io("cannot start a successor", error);
        let stopped = || Error::app("the server has stopped");
        if std::process::id() == 1 {
            // The kernel ends all processes of a container with the first one.
            return Err(Error::app("process 1 cannot be succeeded: start a new container in place of this one"));
        }
        let listeners = self.shared.listeners.upgrade().ok_or_else(stopped)?;
        let management = self.shared.management.upgrade();
        let (successor, report) = {
            let lent = |is_lent| if is_lent { note::LENT } else { 0 };
            let serving = listeners.sockets().map(|(socket, is_lent)| (socket, lent(is_lent)));
            let telling = management.iter().flat_map(|bound| bound.sockets());
            let telling = telling.map(|(socket, is_lent)| (socket, lent(is_lent) | note::MANAGEMENT));
            let sockets: Vec<_> = serving.chain(telling).collect();
            Successor::start(command, &sockets).map_err(failed)?
        };
        let (reply, replied) = oneshot::channel();
        let latest = Instant::now() + self.shared.plan().config.reload_timeout;
        thread::Builder::new()
            .name("rover-restart".to_owned())
            .spawn(move || {
                let serves = report.wait(|| Instant::now() < latest && !reply.is_closed());
                let _ = reply.send(serves);
            })
            .map_err(failed)?;
        let taken = replied.await.map_err(|_| stopped())?.map_err(failed)?;
        let process = successor.let_go();
        // The other sockets are closed with this server, as without a successor.
        listeners.leave(|place| taken.holds(place));
        if let Some(management) = management {
            let first = listeners.sockets().count();
            management.leave(|place| taken.holds(first + place));
        }
        Ok(process)
    }
}
