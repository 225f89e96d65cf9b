//! A server's listening sockets on their way to the process that succeeds it.
//!
//! Comes in: sockets, on either side. Goes out: the same sockets in the other process (`SCM_RIGHTS`), and the word that it
//! serves. The channel between the two is the successor's standard input, so that it needs no name that others could
//! know, and ends with the successor. This module must not know what a server does with its sockets.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::parent_id;
use std::process::{Child, Command, Stdio};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};

/// Tells a process that its standard input is the channel: holds the number of the process at the other end.
const VARIABLE: &str = "ROVER_PREDECESSOR";

/// More sockets than a server listens on.
const MOST_SOCKETS: usize = 32;

/// What the successor says once it serves.
const SERVES: &[u8] = b"serves";

/// A process that is to succeed this one.
pub(crate) struct Successor {
    pub(crate) process: Child,
    channel: UnixStream,
}

impl Successor {
    /// Starts it, and gives it the sockets, each with a note of one byte.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn start(command: &mut Command, sockets: &[(BorrowedFd<'_>, u8)]) -> io::Result<Successor> {
        let (channel, theirs) = UnixStream::pair()?;
        let process =
            command.stdin(Stdio::from(OwnedFd::from(theirs))).env(VARIABLE, std::process::id().to_string()).spawn()?;
        // The command holds the other end, which has to close with the successor.
        command.stdin(Stdio::null());
        let (descriptors, notes): (Vec<BorrowedFd<'_>>, Vec<u8>) = sockets.iter().copied().unzip();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_SOCKETS))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !ancillary.push(SendAncillaryMessage::ScmRights(&descriptors)) {
            return Err(io::Error::other("the server listens on too many sockets"));
        }
        sendmsg(&channel, &[IoSlice::new(&notes)], &mut ancillary, SendFlags::NOSIGNAL)?;
        Ok(Successor { process, channel })
    }

    /// Waits until the successor serves. Blocks the calling thread.
    ///
    /// # Errors
    /// It has ended instead.
    pub(crate) fn serves(&mut self) -> io::Result<()> {
        let mut said = Vec::new();
        (&self.channel).take(SERVES.len() as u64).read_to_end(&mut said)?;
        match said == SERVES {
            true => Ok(()),
            false => Err(io::Error::other("the new process ended before it was ready")),
        }
    }

    /// Ends a successor that has failed.
    pub(crate) fn end(mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The server that this process succeeds.
pub(crate) struct Predecessor {
    channel: UnixStream,
    /// What it gave, each with its note.
    pub(crate) sockets: Vec<(OwnedFd, u8)>,
}

impl Predecessor {
    /// Takes the sockets that the predecessor gives. `None` where this process succeeds nobody.
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

    /// Says that this process serves. The predecessor ends then.
    pub(crate) fn relieve(mut self) {
        // Where it is gone already, nothing is left to say.
        let _ = self.channel.write_all(SERVES);
    }
}
