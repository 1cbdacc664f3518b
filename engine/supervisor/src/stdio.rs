//! The output of the container's first process: to the log and to the clients
//! that are attached.
//!
//! What must stay true: the supervisor holds at most one read's worth of bytes
//! per client. While a client has not taken them, the streams that it wants
//! are not read, so the container waits for it, as it does on Docker. A
//! container with nobody attached and no log is read all the same.

use rustix::event::PollFlags;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::{Errno, IoSlice};
use rustix::net::{SendAncillaryBuffer, SendFlags, Shutdown, sendmsg, shutdown};
use tritium_supervisor::protocol::Streams;

use crate::log::{JsonLog, Stream};

/// What one read takes; also what a pipe is asked to hold.
pub(crate) const CHUNK: usize = 128 << 10;
/// Reads from one stream before the others have their turn.
const TURN: usize = 8;

/// One of the container's outputs.
#[derive(Debug)]
struct Source {
    fd: OwnedFd,
    stream: Stream,
    ended: bool,
}

/// Somebody attached.
#[derive(Debug)]
struct Client {
    socket: OwnedFd,
    streams: Streams,
    /// Not taken yet.
    pending: Vec<u8>,
    gone: bool,
}

/// All of it.
#[derive(Debug, Default)]
pub(crate) struct Output {
    sources: Vec<Source>,
    log: Option<JsonLog>,
    clients: Vec<Client>,
    /// Docker's 8-byte headers; without them on a terminal.
    framed: bool,
    /// The first source is still to come.
    awaits_source: bool,
    /// There while bytes flow.
    buffer: Vec<u8>,
    trouble: Option<std::io::Error>,
}

impl Output {
    pub(crate) fn new(log: Option<JsonLog>, framed: bool) -> Self {
        Self { log, framed, awaits_source: true, ..Self::default() }
    }

    /// Reads from `fd`, which does not block.
    pub(crate) fn add_source(&mut self, fd: OwnedFd, stream: Stream) {
        self.awaits_source = false;
        self.sources.push(Source { fd, stream, ended: false });
    }

    pub(crate) fn attach(&mut self, socket: OwnedFd, streams: Streams) {
        self.clients.push(Client { socket, streams, pending: Vec::new(), gone: false });
    }

    /// What to poll for: sources that may be read, clients that owe or leave.
    pub(crate) fn interests(&self) -> impl Iterator<Item = (BorrowedFd<'_>, PollFlags)> {
        let sources = (0..self.sources.len())
            .filter(|index| self.may_read(*index))
            .map(|index| (self.sources[index].fd.as_fd(), PollFlags::IN));
        let clients = self.clients.iter().map(|client| {
            let flags = if client.pending.is_empty() { PollFlags::empty() } else { PollFlags::OUT };
            (client.socket.as_fd(), flags)
        });
        sources.chain(clients)
    }

    /// Moves what can be moved without waiting.
    pub(crate) fn pump(&mut self) {
        self.clients.iter_mut().for_each(Client::flush);
        for index in 0..self.sources.len() {
            for _ in 0..TURN {
                if !self.may_read(index) || !self.read(index) {
                    break;
                }
            }
        }
        for client in &mut self.clients {
            client.notice_hangup();
            let wanted = self.sources.iter().filter(|source| client.streams.has(source.stream));
            let ended = !self.awaits_source && wanted.into_iter().all(|source| source.ended);
            if ended && client.pending.is_empty() {
                client.finish();
            }
        }
        self.clients.retain(|client| !client.gone);
    }

    /// Whether every source has ended.
    pub(crate) fn has_ended(&self) -> bool {
        !self.awaits_source && self.sources.iter().all(|source| source.ended)
    }

    /// Whether every client has been given everything.
    pub(crate) fn is_delivered(&self) -> bool {
        self.has_ended() && self.clients.is_empty()
    }

    /// Whether a client's slowness is what the rest of the output waits for.
    pub(crate) fn is_stalled(&self) -> bool {
        let mut open = (0..self.sources.len()).filter(|index| !self.sources[*index].ended);
        open.any(|index| !self.may_read(index))
    }

    /// Frees what a quiet container does not need.
    pub(crate) fn rest(&mut self) {
        self.buffer = Vec::new();
        if let Some(log) = &mut self.log {
            log.rest();
        }
    }

    /// Why the log has lost something, once.
    pub(crate) fn take_trouble(&mut self) -> Option<std::io::Error> {
        self.trouble.take()
    }

    fn may_read(&self, index: usize) -> bool {
        let source = &self.sources[index];
        !source.ended
            && !self.clients.iter().any(|client| {
                !client.gone && client.streams.has(source.stream) && !client.pending.is_empty()
            })
    }

    /// Reads once. Whether there may be more.
    fn read(&mut self, index: usize) -> bool {
        let source = &mut self.sources[index];
        if self.buffer.is_empty() {
            // Zeroed by the kernel as far as it is used.
            self.buffer = vec![0; CHUNK];
        }
        let read = match rustix::io::retry_on_intr(|| {
            rustix::io::read(&source.fd, &mut self.buffer)
        }) {
            Ok(read) if read > 0 => read,
            Err(Errno::AGAIN) => return false,
            // The end: a pipe says 0; a terminal that nobody has open, EIO.
            // Nothing else can be read again either.
            Ok(_) | Err(_) => {
                source.ended = true;
                let finished = self.log.as_mut().map_or(Ok(()), |log| log.finish(source.stream));
                self.note(finished);
                return false;
            }
        };
        let (stream, bytes) = (source.stream, &self.buffer[..read]);
        let recorded = self.log.as_mut().map_or(Ok(()), |log| log.record(stream, bytes));
        for client in self.clients.iter_mut().filter(|client| client.streams.has(stream)) {
            client.offer(self.framed.then_some(stream), bytes);
        }
        self.note(recorded);
        true
    }

    fn note(&mut self, result: std::io::Result<()>) {
        if let Err(error) = result {
            self.trouble.get_or_insert(error);
        }
    }
}

trait Wants {
    fn has(&self, stream: Stream) -> bool;
}

impl Wants for Streams {
    fn has(&self, stream: Stream) -> bool {
        match stream {
            Stream::Stdout => self.stdout,
            Stream::Stderr => self.stderr,
        }
    }
}

impl Client {
    /// Sends `bytes`, and keeps what is not taken now.
    fn offer(&mut self, framed: Option<Stream>, bytes: &[u8]) {
        let header = framed.map(|stream| frame(stream, bytes.len()));
        let header = header.as_ref().map_or(&[][..], |header| &header[..]);
        let sent = match self.send(header, bytes) {
            Ok(sent) => sent,
            Err(Errno::AGAIN) => 0,
            Err(_) => return self.gone = true,
        };
        let in_header = sent.min(header.len());
        self.pending.extend_from_slice(&header[in_header..]);
        self.pending.extend_from_slice(&bytes[sent - in_header..]);
    }

    fn flush(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        match self.send(&[], &self.pending) {
            Ok(sent) if sent == self.pending.len() => self.pending = Vec::new(),
            Ok(sent) => drop(self.pending.drain(..sent)),
            Err(Errno::AGAIN) => {}
            Err(_) => self.gone = true,
        }
    }

    fn send(&self, header: &[u8], bytes: &[u8]) -> rustix::io::Result<usize> {
        let parts = [IoSlice::new(header), IoSlice::new(bytes)];
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        let mut nothing = SendAncillaryBuffer::default();
        rustix::io::retry_on_intr(|| sendmsg(&self.socket, &parts, &mut nothing, flags))
    }

    /// A client that has closed both directions takes nothing any more.
    fn notice_hangup(&mut self) {
        let mut poll = [rustix::event::PollFd::new(&self.socket, PollFlags::empty())];
        let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        let polled = rustix::event::poll(&mut poll, Some(&now));
        let over = PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL;
        self.gone |= polled.is_ok() && poll[0].revents().intersects(over);
    }

    fn finish(&mut self) {
        // Others may hold this socket too, so closing it says nothing. If it
        // cannot be shut down, the client has left before.
        let _left_already = shutdown(&self.socket, Shutdown::Write).is_err();
        self.gone = true;
    }
}

/// Docker's frame: the stream's number, three zeros, the length.
fn frame(stream: Stream, length: usize) -> [u8; 8] {
    let number = match stream {
        Stream::Stdout => 1,
        Stream::Stderr => 2,
    };
    // A read is never longer than `CHUNK`.
    let [a, b, c, d] = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
    [number, 0, 0, 0, a, b, c, d]
}
