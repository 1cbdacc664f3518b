//! The resolver of one container, as long as it is not dropped.

use super::{
    Settings, SharedDirectory,
    answer::{Verdict, consider},
    forward::Forwarder,
    place::Sockets,
    question::{LONGEST_DATAGRAM, Question, Transport},
};
use crate::ids::{ContainerId, random};
use hickory_proto::op::ResponseCode;
use std::{io, net::SocketAddr, rc::Rc, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    task::JoinSet,
    time::{sleep, timeout},
};

/// How many questions may wait for an answer from outside.
const WAITING: usize = 1024;
/// How many connections there may be at a time.
const CONNECTIONS: usize = 32;
/// How long a connection may be without a question.
const IDLE: Duration = Duration::from_secs(10);
/// After an error of a socket that has no business with errors.
const PAUSE: Duration = Duration::from_millis(100);

/// What both sockets' tasks share.
#[derive(Debug)]
struct Server {
    container: ContainerId,
    directory: SharedDirectory,
    settings: Settings,
    forwarder: Forwarder,
}

/// Starts answering. Ends, with all that is under way, when the set is dropped.
pub(super) fn serve(
    container: ContainerId,
    sockets: Sockets,
    directory: SharedDirectory,
    (settings, forwarder): (Settings, Forwarder),
) -> io::Result<JoinSet<()>> {
    let server = Rc::new(Server { container, directory, settings, forwarder });
    let udp = Rc::new(UdpSocket::from_std(sockets.udp)?);
    let tcp = TcpListener::from_std(sockets.tcp)?;
    let mut tasks = JoinSet::new();
    tasks.spawn_local(server.clone().datagrams(udp));
    tasks.spawn_local(server.connections(tcp));
    Ok(tasks)
}

impl Server {
    async fn datagrams(self: Rc<Self>, socket: Rc<UdpSocket>) {
        let mut waiting = JoinSet::new();
        let mut buffer = vec![0; usize::from(LONGEST_DATAGRAM)];
        loop {
            let received = tokio::select! {
                received = socket.recv_from(&mut buffer) => received,
                Some(_) = waiting.join_next() => continue,
            };
            let (length, peer) = match received {
                Ok(received) => received,
                Err(error) => {
                    self.complain(&error).await;
                    continue;
                }
            };
            let question = buffer.get(..length).unwrap_or_default();
            match self.consider(question, Transport::Udp) {
                Verdict::Nothing => {}
                Verdict::Answer(answer) => send(&socket, &answer, peer),
                Verdict::Forward(question) if waiting.len() < WAITING => {
                    let (server, socket) = (self.clone(), socket.clone());
                    waiting.spawn_local(async move {
                        let answer = server.outside(&question, Transport::Udp).await;
                        send(&socket, &answer, peer);
                    });
                }
                Verdict::Forward(question) => {
                    send(&socket, &question.answer(ResponseCode::Refused), peer);
                }
            }
        }
    }

    async fn connections(self: Rc<Self>, listener: TcpListener) {
        let mut open = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept(), if open.len() < CONNECTIONS => accepted,
                Some(_) = open.join_next() => continue,
            };
            match accepted {
                Ok((stream, _)) => drop(open.spawn_local(self.clone().connection(stream))),
                Err(error) => self.complain(&error).await,
            }
        }
    }

    async fn connection(self: Rc<Self>, mut stream: TcpStream) {
        let mut question = Vec::new();
        // However it ends: the client notices.
        while let Ok(Ok(())) = timeout(IDLE, receive(&mut stream, &mut question)).await {
            let mut answer = match self.consider(&question, Transport::Tcp) {
                Verdict::Nothing => return,
                Verdict::Answer(answer) => answer,
                Verdict::Forward(question) => self.outside(&question, Transport::Tcp).await,
            };
            let Ok(length) = u16::try_from(answer.len()) else { return };
            answer.splice(0..0, length.to_be_bytes());
            let written = timeout(IDLE, stream.write_all(&answer)).await;
            if !matches!(written, Ok(Ok(()))) {
                return;
            }
        }
    }

    fn consider(&self, bytes: &[u8], transport: Transport) -> Verdict {
        let [a, b, ..] = random();
        let dice = || usize::from(u16::from_be_bytes([a, b]));
        let directory = self.directory.read().expect("no panic happens under this lock");
        consider(&directory, (self.container, &self.settings), (bytes, transport), dice)
    }

    async fn outside(&self, question: &Question, transport: Transport) -> Vec<u8> {
        let answer = self.forwarder.ask(question, transport).await;
        answer.unwrap_or_else(|| question.answer(ResponseCode::ServFail))
    }

    async fn complain(&self, error: &io::Error) {
        tracing::warn!(container = %self.container, %error, "its resolver cannot receive");
        sleep(PAUSE).await;
    }
}

/// Whoever asked may be gone or may not want an answer (by its own firewall).
fn send(socket: &UdpSocket, answer: &[u8], peer: SocketAddr) {
    if let Err(error) = socket.try_send_to(answer, peer) {
        tracing::debug!(%peer, %error, "cannot answer");
    }
}

async fn receive(stream: &mut TcpStream, question: &mut Vec<u8>) -> io::Result<()> {
    let length = stream.read_u16().await?;
    question.resize(usize::from(length), 0);
    stream.read_exact(question).await.map(drop)
}
