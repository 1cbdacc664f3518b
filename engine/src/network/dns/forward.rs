//! Questions that are passed on to servers outside.
//!
//! Each goes out from a socket of its own (a random port), with a random id,
//! and only what echoes both and the question itself is taken for an answer.

use super::{
    Upstream,
    home::Home,
    question::{LONGEST_DATAGRAM, Question, Transport},
};
use crate::ids::random;
use std::{
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket as StdUdpSocket},
    os::fd::OwnedFd,
    rc::Rc,
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, UdpSocket},
    sync::Semaphore,
    time::timeout,
};

/// How long one server may take; as in Docker.
const PATIENCE: Duration = Duration::from_secs(4);
/// How many of the servers that are named are asked; as in Docker.
const ASKED: usize = 3;
/// How many questions of one container may be outside at a time.
const AT_ONCE: usize = 128;
const DNS_PORT: u16 = 53;
/// Length of a message's header, in bytes.
const HEADER: usize = 12;

/// The way out for one container.
#[derive(Debug)]
pub(super) struct Forwarder {
    upstreams: Vec<Upstream>,
    home: Rc<Home>,
    netns: OwnedFd,
    /// So that no tenant uses up the engine's descriptors.
    of_tenant: Arc<Semaphore>,
    of_container: Semaphore,
}

impl Forwarder {
    pub(super) fn new(
        upstreams: &[Upstream],
        home: Rc<Home>,
        netns: OwnedFd,
        of_tenant: Arc<Semaphore>,
    ) -> Self {
        // It would be asked by itself, and ask itself again.
        let others = upstreams.iter().filter(|it| it.from_host || !it.is_ourselves());
        Self {
            upstreams: others.take(ASKED).cloned().collect(),
            home,
            netns,
            of_tenant,
            of_container: Semaphore::new(AT_ONCE),
        }
    }

    /// The first usable answer of a server outside.
    pub(super) async fn ask(&self, question: &Question, transport: Transport) -> Option<Vec<u8>> {
        let permits = async {
            let mine = self.of_container.acquire().await;
            (mine, self.of_tenant.acquire().await)
        };
        let _permits = timeout(PATIENCE, permits).await.ok()?;
        for upstream in &self.upstreams {
            let asked = self.ask_one(upstream, question, transport);
            match timeout(PATIENCE, asked).await {
                Ok(Ok(answer)) if is_usable(&answer) => {
                    return Some(question.pass_on(answer, transport));
                }
                Ok(Ok(_)) => {}
                Ok(Err(error)) => tracing::debug!(server = %upstream, %error, "cannot be asked"),
                Err(_) => tracing::debug!(server = %upstream, "does not answer"),
            }
        }
        None
    }

    async fn ask_one(
        &self,
        upstream: &Upstream,
        question: &Question,
        transport: Transport,
    ) -> io::Result<Vec<u8>> {
        let [high, low, ..] = random();
        let sent = question.onward(u16::from_be_bytes([high, low])).map_err(io::Error::other)?;
        let server = upstream.socket_address()?;
        match transport {
            Transport::Udp => self.by_udp(upstream, server, &sent).await,
            Transport::Tcp => self.by_tcp(upstream, server, &sent).await,
        }
    }

    async fn by_udp(
        &self,
        upstream: &Upstream,
        server: SocketAddr,
        sent: &[u8],
    ) -> io::Result<Vec<u8>> {
        let any: IpAddr =
            if server.is_ipv4() { [0; 4].into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let socket = self.place(upstream, || {
            let socket = StdUdpSocket::bind((any, 0))?;
            socket.set_nonblocking(true)?;
            // From now on nobody else is heard.
            socket.connect(server)?;
            Ok(socket)
        })?;
        let socket = UdpSocket::from_std(socket)?;
        socket.send(sent).await?;
        let mut answer = vec![0; usize::from(LONGEST_DATAGRAM)];
        loop {
            let length = socket.recv(&mut answer).await?;
            if answers(answer.get(..length).unwrap_or_default(), sent) {
                answer.truncate(length);
                return Ok(answer);
            }
        }
    }

    async fn by_tcp(
        &self,
        upstream: &Upstream,
        server: SocketAddr,
        sent: &[u8],
    ) -> io::Result<Vec<u8>> {
        // A socket belongs to the namespace that it was made in.
        let socket = self.place(upstream, || {
            if server.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }
        })?;
        let mut stream = socket.connect(server).await?;
        let length = u16::try_from(sent.len()).map_err(io::Error::other)?;
        stream.write_all(&[&length.to_be_bytes(), sent].concat()).await?;
        let mut answer = vec![0; usize::from(stream.read_u16().await?)];
        stream.read_exact(&mut answer).await?;
        if answers(&answer, sent) { Ok(answer) } else { Err(io::ErrorKind::InvalidData.into()) }
    }

    fn place<T>(&self, upstream: &Upstream, make: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        if upstream.from_host { make() } else { self.home.inside(&self.netns, make) }
    }
}

impl Upstream {
    fn is_ourselves(&self) -> bool {
        self.address == super::ADDRESS_INSIDE || self.address.is_unspecified()
    }

    fn socket_address(&self) -> io::Result<SocketAddr> {
        let IpAddr::V6(address) = self.address else { return Ok((self.address, DNS_PORT).into()) };
        let scope = match &self.zone {
            Some(zone) => nix::net::if_::if_nametoindex(zone.as_str())?,
            None => 0,
        };
        Ok(SocketAddrV6::new(address, DNS_PORT, 0, scope).into())
    }
}

/// Whether this is an answer to what was sent.
fn answers(answer: &[u8], sent: &[u8]) -> bool {
    let (Some((header, _)), Some((asked, _))) =
        (answer.split_first_chunk::<HEADER>(), sent.split_first_chunk::<HEADER>())
    else {
        return false;
    };
    let is_answer = header[..2] == asked[..2] && header[2] & 0xf8 == 0x80;
    // Who does not understand the question may not repeat it.
    let refuses = header[3] & 15 != 0 && header[4..6] == [0, 0];
    is_answer && (refuses || (header[4..6] == [0, 1] && same_question(answer, sent)))
}

/// We wrote `sent`: its only question is not compressed and comes first.
fn same_question(answer: &[u8], sent: &[u8]) -> bool {
    let mut end = HEADER;
    while let Some(length) = sent.get(end).filter(|length| **length != 0) {
        end += 1 + usize::from(*length);
    }
    let name = HEADER..end + 1;
    let rest = end + 1..end + 5;
    let same_name = match (answer.get(name.clone()), sent.get(name)) {
        // No length of a label is an ASCII letter.
        (Some(theirs), Some(ours)) => theirs.eq_ignore_ascii_case(ours),
        _ => false,
    };
    same_name && answer.get(rest.clone()).is_some_and(|theirs| Some(theirs) == sent.get(rest))
}

/// Whether the next server need not be asked (`NOERROR` or `NXDOMAIN`).
fn is_usable(answer: &[u8]) -> bool {
    answer.get(3).is_some_and(|flags| matches!(flags & 15, 0 | 3))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SENT: &[u8] = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x03web\x02ex\0\0\x01\0\x01";

    fn answer(change: impl FnOnce(&mut Vec<u8>)) -> bool {
        let mut bytes = SENT.to_vec();
        bytes[2] = 0x81;
        change(&mut bytes);
        answers(&bytes, SENT)
    }

    #[test]
    fn only_what_repeats_id_and_question_is_an_answer() {
        assert!(answer(|_| ()));
        assert!(answer(|bytes| bytes.extend(b"\xc0\x0c")), "with records");
        assert!(answer(|bytes| bytes[13..16].make_ascii_uppercase()), "in another case");
        assert!(!answer(|bytes| bytes[0] = 0), "another id");
        assert!(!answer(|bytes| bytes[2] = 1), "a question");
        assert!(!answer(|bytes| bytes[13] = b'v'), "another name");
        assert!(!answer(|bytes| bytes[21] = 28), "another type");
        assert!(!answer(|bytes| bytes.truncate(20)), "cut off");
        assert!(!answer(|bytes| bytes.truncate(5)));
        assert!(!answer(|bytes| bytes[5] = 0), "no question and no refusal");
        assert!(answer(|bytes| (bytes[5], bytes[3]) = (0, 1)), "a refusal");
    }
}
