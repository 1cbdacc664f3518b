//! A connection to an engine: requests in, events out, never waiting.

use rustix::event::PollFlags;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::FileType;
use rustix::io::Errno;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read};
use tritium_supervisor::protocol::{Event, Request};

use crate::packet;

/// A request's packet: names and flags, nothing that grows with a container.
const LONGEST: usize = 4 << 10;
/// Events that an engine may leave unread before it is given up: it comes
/// back and asks anew.
const MOST_WAITING: usize = 1_024;
/// Longest document in a memfd.
const LONGEST_DOCUMENT: u64 = 16 << 20;

/// One engine, or one that was.
#[derive(Debug)]
pub(crate) struct Connection {
    socket: OwnedFd,
    waiting: VecDeque<(Vec<u8>, Vec<OwnedFd>)>,
    gone: bool,
}

impl Connection {
    pub(crate) fn new(socket: OwnedFd) -> Self {
        Self { socket, waiting: VecDeque::new(), gone: false }
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.gone
    }

    /// Whether everything told has been sent.
    pub(crate) fn is_settled(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(crate) fn interest(&self) -> (BorrowedFd<'_>, PollFlags) {
        let writable = if self.waiting.is_empty() { PollFlags::empty() } else { PollFlags::OUT };
        (self.socket.as_fd(), PollFlags::IN | writable)
    }

    /// The next request, if there is one. Anything that is not a request ends
    /// the connection: both ends are ours, so there is nothing to negotiate.
    pub(crate) fn next(&mut self) -> Option<(Request, Vec<OwnedFd>)> {
        match packet::receive(self.socket.as_fd(), LONGEST) {
            Err(Errno::AGAIN) => None,
            Ok(Some((bytes, fds))) => match serde_json::from_slice(&bytes) {
                Ok(request) => Some((request, fds)),
                Err(_) => self.give_up(),
            },
            Ok(None) | Err(_) => self.give_up(),
        }
    }

    fn give_up<T>(&mut self) -> Option<T> {
        self.gone = true;
        None
    }

    /// Tells `event`, now or as soon as the engine reads.
    pub(crate) fn tell(&mut self, event: &Event, fds: &[BorrowedFd<'_>]) {
        let owned: io::Result<Vec<OwnedFd>> =
            fds.iter().map(BorrowedFd::try_clone_to_owned).collect();
        match (serde_json::to_vec(event), owned) {
            (Ok(bytes), Ok(owned)) if self.waiting.len() < MOST_WAITING => {
                self.waiting.push_back((bytes, owned));
                self.flush();
            }
            _ => self.gone = true,
        }
    }

    /// Sends what waits.
    pub(crate) fn flush(&mut self) {
        while let Some((bytes, fds)) = self.waiting.front() {
            let fds: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
            match packet::send(self.socket.as_fd(), bytes, &fds) {
                Ok(()) => drop(self.waiting.pop_front()),
                Err(Errno::AGAIN) => return,
                Err(_) => {
                    self.waiting.clear();
                    self.gone = true;
                }
            }
        }
    }
}

/// Reads the JSON document in the memfd `fd`.
pub(crate) fn document<T: serde::de::DeserializeOwned>(fd: OwnedFd) -> io::Result<T> {
    let stat = rustix::fs::fstat(&fd)?;
    let length = u64::try_from(stat.st_size).unwrap_or(u64::MAX);
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile || length > LONGEST_DOCUMENT {
        return Err(Errno::INVAL.into());
    }
    rustix::fs::seek(&fd, rustix::fs::SeekFrom::Start(0))?;
    let mut bytes = Vec::with_capacity(usize::try_from(length).map_err(io::Error::other)?);
    File::from(fd).take(length).read_to_end(&mut bytes)?;
    serde_json::from_slice(&bytes).map_err(|_| Errno::BADMSG.into())
}
