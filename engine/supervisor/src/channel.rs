//! What a child says to the supervisor on its way to `execve`.
//!
//! A `SOCK_SEQPACKET` pair that closes on exec. The last word is silence: the
//! end of the stream after [`Word::Executing`] means that `execve` succeeded.

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::{Errno, Result};
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, send, socketpair};
use tritium_supervisor::protocol::Failure;

use crate::packet;

/// Longer than any sentence that a failure makes, paths included.
const LONGEST: usize = 16 << 10;

/// One message of a child.
#[derive(Debug)]
pub(crate) enum Word {
    /// The container's root mount, to be held until nobody waits any more.
    Root(OwnedFd),
    /// The master of its terminal.
    Terminal(OwnedFd),
    /// All is done but `execve`.
    Executing,
    /// A step failed. The child is ending.
    Failed(Failure),
}

/// The child's end.
#[derive(Debug)]
pub(crate) struct Speaker(OwnedFd);

/// The supervisor's end.
#[derive(Debug)]
pub(crate) struct Listener(OwnedFd);

/// Both ends.
pub(crate) fn open() -> Result<(Speaker, Listener)> {
    let (child, parent) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    Ok((Speaker(child), Listener(parent)))
}

impl AsFd for Speaker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Speaker {
    pub(crate) fn root(&self, mount: BorrowedFd<'_>) -> Result<()> {
        packet::send(self.0.as_fd(), b"R", &[mount])
    }

    pub(crate) fn terminal(&self, master: BorrowedFd<'_>) -> Result<()> {
        packet::send(self.0.as_fd(), b"T", &[master])
    }

    pub(crate) fn executing(&self) -> Result<()> {
        send(&self.0, b"X", SendFlags::NOSIGNAL).map(|_| ())
    }

    /// Written, not sent: a seccomp policy may be in force by now, and write
    /// is what every policy allows.
    pub(crate) fn failed(&self, failure: &Failure) -> Result<()> {
        let mut bytes = vec![b'F'];
        serde_json::to_writer(&mut bytes, failure).map_err(|_| Errno::INVAL)?;
        bytes.truncate(LONGEST);
        rustix::io::write(&self.0, &bytes).map(|_| ())
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Listener {
    /// The next word; `None` at the end; `EAGAIN` if there is none yet.
    pub(crate) fn hear(&self) -> Result<Option<Word>> {
        let Some((bytes, mut fds)) = packet::receive(self.0.as_fd(), LONGEST)? else {
            return Ok(None);
        };
        match (bytes.split_first(), fds.pop()) {
            (Some((b'R', [])), Some(mount)) => Ok(Some(Word::Root(mount))),
            (Some((b'T', [])), Some(master)) => Ok(Some(Word::Terminal(master))),
            (Some((b'X', [])), None) => Ok(Some(Word::Executing)),
            (Some((b'F', json)), None) => serde_json::from_slice(json)
                .map(|failure| Some(Word::Failed(failure)))
                .map_err(|_| Errno::BADMSG),
            _ => Err(Errno::BADMSG),
        }
    }
}
