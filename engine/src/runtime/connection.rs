//! A conversation with one supervisor.
//!
//! One task owns the socket: it sends what it is given and hands out what it
//! hears. So a caller may stop waiting at any moment, and nothing is lost or
//! sent by halves.

use super::{packet, stdio};
use std::{
    collections::{HashMap, VecDeque},
    io,
    os::fd::{AsFd as _, OwnedFd},
};
use tokio::{
    io::unix::AsyncFd,
    sync::{mpsc, oneshot, watch},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tritium_supervisor::protocol::{Event, Exit, Failure, Request, Streams};

/// A process that has been executed.
#[derive(Debug)]
pub(super) struct Started {
    pub(super) pid: i32,
    /// Its pidfd, then its terminal's master or standard input, if any.
    pub(super) fds: Vec<OwnedFd>,
    /// How it ends.
    pub(super) exit: Ending,
}

/// `None` until the process has ended.
pub(super) type Ending = watch::Receiver<Option<Exit>>;

/// Nothing more can be heard from the supervisor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the supervisor has gone")]
pub(super) struct Gone;

type Outcome = Result<Started, Failure>;

enum Command {
    Launch { attachments: Vec<Streams>, fds: Vec<OwnedFd>, reply: oneshot::Sender<Outcome> },
    Exec { id: String, fds: Vec<OwnedFd>, reply: oneshot::Sender<Outcome> },
    Attach { streams: Streams, socket: OwnedFd, reply: oneshot::Sender<()> },
    CloseStdin,
}

/// What one says into. The conversation ends when the last clone is dropped.
#[derive(Debug, Clone)]
pub(super) struct Connection {
    commands: mpsc::UnboundedSender<Command>,
    /// How the first process ends.
    pub(super) exit: Ending,
}

/// What makes the task of a conversation.
#[derive(Debug, Clone)]
pub(super) struct Tasks {
    pub(super) tracker: TaskTracker,
    pub(super) stopping: CancellationToken,
}

/// What is to be known when a supervisor goes without a word.
pub(super) type LastWord = Box<dyn FnOnce() -> Exit + Send>;

impl Connection {
    /// Takes a socket over. Needs the reactor.
    pub(super) fn open(socket: OwnedFd, last_word: LastWord, tasks: &Tasks) -> io::Result<Self> {
        let socket = stdio::watched(socket)?;
        let (commands, inbox) = mpsc::unbounded_channel();
        let (exit_seen, exit) = watch::channel(None);
        let talk = Talk {
            socket,
            inbox,
            exit: exit_seen,
            launching: None,
            execs: HashMap::new(),
            attaching: VecDeque::new(),
            last_word,
        };
        let stopping = tasks.stopping.clone();
        tasks.tracker.spawn(async move {
            // Dropped when the engine stops: whoever waits for an exit then
            // waits on, for it has not come.
            stopping.run_until_cancelled(talk.run()).await;
        });
        Ok(Self { commands, exit })
    }

    /// Has the container started; descriptors as the protocol wants them.
    pub(super) async fn launch(
        &self,
        attachments: Vec<Streams>,
        fds: Vec<OwnedFd>,
    ) -> Result<Outcome, Gone> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Launch { attachments, fds, reply })?;
        answer.await.map_err(|_| Gone)
    }

    /// Has one more process started.
    pub(super) async fn exec(&self, id: String, fds: Vec<OwnedFd>) -> Result<Outcome, Gone> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Exec { id, fds, reply })?;
        answer.await.map_err(|_| Gone)
    }

    /// Has the output copied to a socket; from when this returns, nothing of
    /// it is missed.
    pub(super) async fn attach(&self, streams: Streams, socket: OwnedFd) -> Result<(), Gone> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Attach { streams, socket, reply })?;
        answer.await.map_err(|_| Gone)
    }

    /// No more input comes.
    pub(super) fn close_stdin(&self) -> Result<(), Gone> {
        self.send(Command::CloseStdin)
    }

    fn send(&self, command: Command) -> Result<(), Gone> {
        self.commands.send(command).map_err(|_| Gone)
    }
}

/// Waits for an end; forever, if the engine stops before.
pub(super) async fn ended(mut exit: Ending) -> Exit {
    let seen = exit.wait_for(Option::is_some).await.ok().and_then(|exit| *exit);
    match seen {
        Some(exit) => exit,
        None => std::future::pending().await,
    }
}

struct Talk {
    socket: AsyncFd<OwnedFd>,
    inbox: mpsc::UnboundedReceiver<Command>,
    exit: watch::Sender<Option<Exit>>,
    launching: Option<oneshot::Sender<Outcome>>,
    execs: HashMap<String, Exec>,
    attaching: VecDeque<oneshot::Sender<()>>,
    last_word: LastWord,
}

struct Exec {
    starting: Option<oneshot::Sender<Outcome>>,
    exit: watch::Sender<Option<Exit>>,
}

impl Talk {
    async fn run(mut self) {
        let ended = loop {
            tokio::select! {
                command = self.inbox.recv() => match command {
                    Some(command) => {
                        if let Err(error) = self.perform(command).await {
                            break Err(error);
                        }
                    }
                    // Nobody is left to ask or to hear.
                    None => return,
                },
                heard = hear(&self.socket) => match heard {
                    Ok(Some((event, fds))) => self.take(event, fds),
                    Ok(None) => break Ok(()),
                    Err(error) => break Err(error),
                },
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "a supervisor has gone");
        }
        self.close();
    }

    async fn perform(&mut self, command: Command) -> io::Result<()> {
        let (request, fds) = match command {
            Command::Launch { attachments, fds, reply } => {
                self.launching = Some(reply);
                (Request::Launch { attachments }, fds)
            }
            Command::Exec { id, fds, reply } => {
                let exec = Exec { starting: Some(reply), exit: watch::channel(None).0 };
                self.execs.insert(id.clone(), exec);
                (Request::Exec { id }, fds)
            }
            Command::Attach { streams, socket, reply } => {
                self.attaching.push_back(reply);
                (Request::Attach { streams }, vec![socket])
            }
            Command::CloseStdin => (Request::CloseStdin, Vec::new()),
        };
        let bytes = serde_json::to_vec(&request)?;
        loop {
            let mut ready = self.socket.writable().await?;
            match ready.try_io(|socket| packet::send(socket.as_fd(), &bytes, &fds)) {
                Ok(sent) => return sent,
                Err(_would_block) => {}
            }
        }
    }

    fn take(&mut self, event: Event, fds: Vec<OwnedFd>) {
        match event {
            Event::Started { exec: None, pid } => {
                let started = Started { pid, fds, exit: self.exit.subscribe() };
                answer(self.launching.take(), Ok(started));
            }
            Event::Started { exec: Some(id), pid } => {
                let Some(exec) = self.execs.get_mut(&id) else { return };
                let started = Started { pid, fds, exit: exec.exit.subscribe() };
                answer(exec.starting.take(), Ok(started));
            }
            Event::Failed { exec: None, failure } => answer(self.launching.take(), Err(failure)),
            Event::Failed { exec: Some(id), failure } => {
                answer(self.execs.remove(&id).and_then(|exec| exec.starting), Err(failure));
            }
            Event::Exited { exec: None, exit } => drop(self.exit.send_replace(Some(exit))),
            // Unknown: one that an earlier engine had started.
            Event::Exited { exec: Some(id), exit } => {
                if let Some(exec) = self.execs.remove(&id) {
                    exec.exit.send_replace(Some(exit));
                }
            }
            Event::Attached => {
                let told = self.attaching.pop_front().is_some_and(|asked| asked.send(()).is_ok());
                if !told {
                    tracing::debug!("nobody waits any more for what was attached");
                }
            }
            Event::Warned { message } => tracing::warn!(error = message, "from a supervisor"),
            // Read before the conversation begins.
            Event::Hello { .. } => {}
        }
    }

    /// The supervisor is gone, and with it what it was looking after.
    fn close(mut self) {
        if self.exit.borrow().is_none() && self.launching.is_none() {
            self.exit.send_replace(Some((self.last_word)()));
        }
        let last = *self.exit.borrow();
        for (_, exec) in self.execs.drain() {
            if exec.starting.is_none() {
                exec.exit.send_replace(last);
            }
        }
    }
}

fn answer(waiting: Option<oneshot::Sender<Outcome>>, outcome: Outcome) {
    if let Some(waiting) = waiting {
        // Whoever asked has stopped waiting.
        drop(waiting.send(outcome));
    }
}

/// The next event; `None`: the supervisor has closed its end. May be dropped
/// at any moment: a packet is taken and handed over without a wait between.
pub(super) async fn hear(socket: &AsyncFd<OwnedFd>) -> io::Result<Option<(Event, Vec<OwnedFd>)>> {
    loop {
        let mut ready = socket.readable().await?;
        match ready.try_io(|socket| packet::receive(socket.as_fd())) {
            Ok(Ok(Some((bytes, fds)))) => {
                let event = serde_json::from_slice(&bytes)?;
                return Ok(Some((event, fds)));
            }
            Ok(Ok(None)) => return Ok(None),
            Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
            Ok(Err(error)) => return Err(error),
            Err(_would_block) => {}
        }
    }
}
