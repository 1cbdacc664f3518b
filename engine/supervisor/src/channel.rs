//! What a child says to the supervisor on its way to `execve`.
//!
//! The one thing that it asks is to have a kernel setting written: by then it is
//! in the container's control group, which may not write any.
//!
//! A `SOCK_SEQPACKET` pair that closes on exec. The last word is silence: the
//! end of the stream after [`Word::Executing`] means that `execve` succeeded.

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::{Errno, Result};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair,
};
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

    /// Has the supervisor write `value` to the open `setting`.
    pub(crate) fn sysctl(&self, setting: BorrowedFd<'_>, value: &str) -> Result<()> {
        packet::send(self.0.as_fd(), &[b"S", value.as_bytes()].concat(), &[setting])?;
        let mut errno = [0; 4];
        let (length, _) = recv(&self.0, &mut errno, RecvFlags::empty())?;
        match (length, i32::from_le_bytes(errno)) {
            (4, 0) => Ok(()),
            (4, errno) => Err(Errno::from_raw_os_error(errno)),
            _ => Err(Errno::BADMSG),
        }
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
        loop {
            let Some((bytes, mut fds)) = packet::receive(self.0.as_fd(), LONGEST)? else {
                return Ok(None);
            };
            match (bytes.split_first(), fds.pop()) {
                (Some((b'S', value)), Some(setting)) => {
                    let outcome = rustix::io::write(setting, value);
                    let errno = outcome.err().map_or(0, Errno::raw_os_error);
                    send(&self.0, &errno.to_le_bytes(), SendFlags::NOSIGNAL)?;
                }
                (word, fd) => return Self::word(word, fd).map(Some),
            }
        }
    }

    fn word(bytes: Option<(&u8, &[u8])>, fd: Option<OwnedFd>) -> Result<Word> {
        match (bytes, fd) {
            (Some((b'R', [])), Some(mount)) => Ok(Word::Root(mount)),
            (Some((b'T', [])), Some(master)) => Ok(Word::Terminal(master)),
            (Some((b'X', [])), None) => Ok(Word::Executing),
            (Some((b'F', json)), None) => {
                serde_json::from_slice(json).map(Word::Failed).map_err(|_| Errno::BADMSG)
            }
            _ => Err(Errno::BADMSG),
        }
    }
}
