//! Sends a server's listening sockets to its successor.
//!
//! Comes in: sockets, on either side. Goes out: the same sockets in the other process (`SCM_RIGHTS`), and its message
//! that it serves, with the sockets that it took. The channel is the successor's standard input: it needs no name that
//! others could know, and ends with the successor. This module must not know what a server does with its sockets.

use std::fs::File;
use std::io::{self, ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::parent_id;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};

use crate::runtime::resources;

/// Tells a process that its standard input is the channel: holds the number of the process at the other end.
const VARIABLE: &str = "ROVER_PREDECESSOR";

/// More sockets than a server listens on.
const MOST_SOCKETS: usize = 32;

/// How often it is checked whether a successor is still waited for.
const LOOK_TIME: Duration = Duration::from_millis(50);

/// What the successor says once it serves.
const SERVES: &[u8] = b"serves";

/// Then follow the places of the sockets that it took, a byte for each. Versions before did not name them.
const NAMES: u8 = b':';

/// A process that is to succeed this one. Dropped before it is [let go](Successor::let_go), it ends.
pub(crate) struct Successor {
    process: Option<Child>,
}

/// Where a successor says that it serves.
pub(crate) struct SuccessorReport(UnixStream);

impl Drop for Successor {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

impl Successor {
    /// Starts it, and gives it the sockets, each with a note of one byte.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn start(
        command: &mut Command,
        sockets: &[(BorrowedFd<'_>, u8)],
    ) -> io::Result<(Successor, SuccessorReport)> {
        let (channel, theirs) = UnixStream::pair()?;
        let process =
            command.stdin(Stdio::from(OwnedFd::from(theirs))).env(VARIABLE, std::process::id().to_string()).spawn()?;
        // Before it goes on: it waits for the sockets first.
        resources::restore(process.id());
        let successor = Successor { process: Some(process) };
        // The command holds the other end, which has to close with the successor.
        command.stdin(Stdio::null());
        let (descriptors, notes): (Vec<BorrowedFd<'_>>, Vec<u8>) = sockets.iter().copied().unzip();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_SOCKETS))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !ancillary.push(SendAncillaryMessage::ScmRights(&descriptors)) {
            return Err(io::Error::other("the server listens on too many sockets"));
        }
        sendmsg(&channel, &[IoSlice::new(&notes)], &mut ancillary, SendFlags::NOSIGNAL)?;
        Ok((successor, SuccessorReport(channel)))
    }

    /// Returns its process id, and leaves it alone from now on.
    pub(crate) fn let_go(mut self) -> u32 {
        self.process.take().map_or(0, |process| process.id())
    }
}

impl SuccessorReport {
    /// Waits until the successor serves, as long as `goes_on` returns true. Blocks the calling thread. Returns which of
    /// the sockets it took.
    ///
    /// # Errors
    /// It has ended instead, or was not ready in time.
    pub(crate) fn wait(mut self, goes_on: impl Fn() -> bool) -> io::Result<TakenSockets> {
        let mut said = [0; SERVES.len() + 1 + MOST_SOCKETS];
        let mut known = 0;
        self.0.set_read_timeout(Some(LOOK_TIME))?;
        // The channel ends with its word.
        while known < said.len() {
            match self.0.read(&mut said[known..]) {
                Ok(0) => break,
                Ok(count) => known += count,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                    if !goes_on() {
                        return Err(io::Error::other("the new process was not ready in time"));
                    }
                }
                Err(error) => return Err(error),
            }
        }
        match said[..known].strip_prefix(SERVES) {
            Some([]) => Ok(TakenSockets(None)),
            Some([NAMES, places @ ..]) => Ok(TakenSockets(Some(places.to_vec()))),
            _ => Err(io::Error::other("the new process ended before it was ready")),
        }
    }
}

/// Which sockets a successor took; `None` stands for all.
pub(crate) struct TakenSockets(Option<Vec<u8>>);

impl TakenSockets {
    /// Whether the one at `place` is among them.
    pub(crate) fn holds(&self, place: usize) -> bool {
        self.0.as_ref().is_none_or(|places| places.iter().any(|own| usize::from(*own) == place))
    }
}

/// The server that this process succeeds.
pub(crate) struct Predecessor {
    channel: UnixStream,
    /// What it gave, each with its note.
    pub(crate) sockets: Vec<(OwnedFd, u8)>,
}

impl Predecessor {
    /// Takes the sockets of the predecessor; `None` if there is none.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn find() -> io::Result<Option<Predecessor>> {
        // A process that the successor starts has the variable too, but another parent.
        let named = std::env::var(VARIABLE).ok().and_then(|number| number.parse().ok());
        if named != Some(parent_id()) {
            return Ok(None);
        }
        let channel = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
        // Nothing that the app starts may hold the channel open.
        rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
        let mut notes = [0; MOST_SOCKETS];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_SOCKETS))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let received = recvmsg(&channel, &mut [IoSliceMut::new(&mut notes)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
        let sockets = ancillary.drain().flat_map(|message| match message {
            RecvAncillaryMessage::ScmRights(sockets) => sockets.collect::<Vec<_>>(),
            _ => Vec::new(),
        });
        let sockets = sockets.zip(notes).take(received.bytes).collect();
        Ok(Some(Predecessor { channel, sockets }))
    }

    /// Says that this process serves, on the sockets from these places. The predecessor ends then.
    pub(crate) fn relieve(mut self, taken: &[u8]) {
        // If it is gone already, nothing needs to be said.
        let _ = self.channel.write_all(&[SERVES, &[NAMES], taken].concat());
    }
}
