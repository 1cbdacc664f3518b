//! The supervisor's life: one poll loop over engines, processes and output.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use std::time::Duration;
use tritium_supervisor::protocol::{
    Event, Exit, Failure, Launch, Namespace, Process, Request, Streams, VERSION,
};

use crate::container::{Container, Stamp, code_of};
use crate::control::{self, Connection};
use crate::failure::{Step, during_init};
use crate::launch::{self, Outcome, Place, Starting};
use crate::log::{JsonLog, Stream};
use crate::setup::Stdio;
use crate::stdio::Output;

/// How long a quiet container's buffers stay.
const QUIET: Duration = Duration::from_millis(500);
/// How long a client may take for the last output of a container.
const GRACE: Duration = Duration::from_secs(10);
/// How long the output of an ended container may take to end, when a process
/// outside of it still holds it open.
const LINGER: Duration = Duration::from_secs(1);

/// One process that was exec'd and runs.
#[derive(Debug)]
struct Exec {
    id: String,
    pidfd: OwnedFd,
}

/// All that the supervisor knows.
#[derive(Debug)]
pub(crate) struct Supervisor {
    connections: Vec<Connection>,
    /// Being started; the container's first process among them.
    starting: Vec<Starting>,
    container: Option<Container>,
    execs: Vec<Exec>,
    output: Output,
    /// The pid namespace to come back to.
    home: OwnedFd,
    /// A launch has failed: there is nothing to stay for.
    failed: bool,
    /// Ends of execs that no engine was there to hear of.
    untold: Vec<Event>,
}

impl Supervisor {
    /// A parked supervisor on the connection `socket`.
    pub(crate) fn park(socket: OwnedFd, home: OwnedFd) -> Self {
        Self {
            connections: vec![Connection::new(socket)],
            starting: Vec::new(),
            container: None,
            execs: Vec::new(),
            output: Output::default(),
            home,
            failed: false,
            untold: Vec::new(),
        }
    }

    /// Runs until there is nothing left to do.
    ///
    /// # Errors
    ///
    /// Those of poll(2), which this process's own mistakes would cause.
    pub(crate) fn run(mut self) -> rustix::io::Result<()> {
        while !self.is_done() {
            self.wait()?;
            self.hear_engines();
            self.hear_children();
            self.accept();
            self.output.pump();
            self.bury();
            self.report();
        }
        self.connections.clear();
        if let Some(container) = self.container {
            container.let_go();
        }
        Ok(())
    }

    fn is_done(&self) -> bool {
        if !self.starting.is_empty() {
            return false;
        }
        let settled = self.connections.iter().all(Connection::is_settled);
        match &self.container {
            None if self.failed => settled,
            None => self.connections.is_empty(),
            Some(container) => match container.ended() {
                Some(ended) => {
                    let delivered = container.told
                        && settled
                        && self.output.is_delivered()
                        && self.execs.is_empty();
                    delivered || ended.elapsed() > GRACE
                }
                None => false,
            },
        }
    }

    /// Waits until something can be done.
    fn wait(&mut self) -> rustix::io::Result<()> {
        let ended = self.container.as_ref().and_then(Container::ended);
        let timeout = ended.map(|ended| {
            let left = if ended.elapsed() < LINGER { LINGER } else { GRACE };
            left.saturating_sub(ended.elapsed()) + Duration::from_millis(1)
        });
        if timeout.is_some() || self.container.is_none() || !self.starting.is_empty() {
            return poll_for(&mut self.polls(), timeout).map(|_| ());
        }
        if poll_for(&mut self.polls(), Some(QUIET))? {
            return Ok(());
        }
        // Nothing happens in this container: give back what that does not
        // take, and last of all, so that little comes back, the program.
        self.output.rest();
        let mut polls = self.polls();
        // A hint to the kernel: where it is not taken, this process is bigger.
        let _bigger = tritium_sys::memory::forget_program().is_err();
        poll_for(&mut polls, None).map(|_| ())
    }

    fn polls(&self) -> Vec<PollFd<'_>> {
        let engines = self.connections.iter().map(Connection::interest);
        let children = self.starting.iter().map(Starting::as_fd);
        let running = self.execs.iter().map(|exec| exec.pidfd.as_fd());
        let container = self.container.iter().flat_map(Container::interests);
        let readable = children.chain(running).chain(container).map(|fd| (fd, PollFlags::IN));
        let all = engines.chain(self.output.interests()).chain(readable);
        all.map(|(fd, flags)| PollFd::from_borrowed_fd(fd, flags)).collect()
    }

    fn hear_engines(&mut self) {
        let mut index = 0;
        while index < self.connections.len() {
            self.connections[index].flush();
            while let Some((request, fds)) = self.connections[index].next() {
                self.serve(index, request, fds);
            }
            index += 1;
        }
        self.connections.retain(|connection| !connection.is_gone());
    }

    fn serve(&mut self, from: usize, request: Request, fds: Vec<OwnedFd>) {
        match request {
            Request::Launch { attachments } => {
                if let Err(failure) = self.launch(fds, &attachments) {
                    self.failed = self.container.is_none();
                    self.connections[from].tell(&Event::Failed { exec: None, failure }, &[]);
                }
            }
            Request::Exec { id } => {
                if let Err(failure) = self.exec(&id, fds) {
                    self.connections[from].tell(&Event::Failed { exec: Some(id), failure }, &[]);
                }
            }
            Request::Attach { streams } => {
                for socket in fds {
                    self.output.attach(socket, streams);
                }
                self.connections[from].tell(&Event::Attached, &[]);
            }
            Request::CloseStdin => {
                if let Some(container) = &mut self.container {
                    container.close_input();
                }
            }
        }
    }

    fn launch(&mut self, fds: Vec<OwnedFd>, attachments: &[Streams]) -> Result<(), Failure> {
        if self.container.is_some() {
            return Err(during_init("launch a second container", Errno::ALREADY));
        }
        let mut fds = fds.into_iter();
        let mut next = || fds.next().ok_or(Errno::BADF).step("read the launch's descriptors");
        let launch: Launch = control::document(next()?).step("read the launch")?;
        let (listener, cgroup) = (next()?, next()?);
        let network = match launch.namespaces.network {
            Namespace::Given => Some(next()?),
            Namespace::New | Namespace::Host | Namespace::Of { .. } => None,
        };
        rustix::io::ioctl_fionbio(&listener, true).step("prepare the listening socket")?;
        let log = launch.log.clone().map(JsonLog::open).transpose().step("open the log")?;
        let mut output = Output::new(log, !launch.process.terminal);
        for streams in attachments {
            output.attach(next()?, *streams);
        }
        crate::name_process(&launch.id);
        let place = Place { cgroup: cgroup.as_fd(), home: self.home.as_fd() };
        let (starting, pipes) = launch::first(&launch, place, network.as_ref().map(AsFd::as_fd))?;
        let pidfd = starting.pidfd.try_clone().step("keep the process's descriptor")?;
        let mut container = Container::new(&launch, listener, cgroup, (starting.pid, pidfd));
        if let Some(pipes) = pipes {
            container.set_input(pipes.input);
            output.add_source(pipes.output, Stream::Stdout);
            output.add_source(pipes.error, Stream::Stderr);
        }
        self.output = output;
        self.container = Some(container);
        self.starting.push(starting);
        Ok(())
    }

    fn exec(&mut self, id: &str, fds: Vec<OwnedFd>) -> Result<(), Failure> {
        let container = self.container.as_ref().filter(|container| container.ended().is_none());
        let container = container.ok_or(Errno::SRCH).step("join a container that does not run")?;
        let mut fds = fds.into_iter();
        let document = fds.next().ok_or(Errno::BADF).step("read the process's descriptors")?;
        let process: Process = control::document(document).step("read the process")?;
        let stdio: Option<Stdio> = match process.terminal {
            true => None,
            false => {
                let three = Stdio::try_from(fds.collect::<Vec<_>>());
                Some(three.map_err(|_| Errno::BADF).step("read the process's descriptors")?)
            }
        };
        let place = Place { cgroup: container.cgroup.as_fd(), home: self.home.as_fd() };
        let starting =
            launch::further(id, &process, place, container.pidfd.as_fd(), stdio.as_ref())?;
        self.starting.push(starting);
        Ok(())
    }

    /// Learns which children have come to `execve`, and which have not.
    fn hear_children(&mut self) {
        let mut index = 0;
        while index < self.starting.len() {
            match self.starting[index].listen() {
                Outcome::Unknown => index += 1,
                Outcome::Executed => {
                    let started = self.starting.remove(index);
                    self.started(started);
                }
                Outcome::Failed(failure) => {
                    let gone = self.starting.remove(index);
                    // It ends by itself now; until then it is still counted.
                    let _code = code_of(gone.pidfd.as_fd(), true);
                    if gone.exec.is_none() {
                        self.container = None;
                        self.failed = true;
                    }
                    self.tell(&Event::Failed { exec: gone.exec, failure }, &[]);
                }
            }
        }
    }

    fn started(&mut self, started: Starting) {
        let Starting { exec, pid, pidfd, terminal, root, .. } = started;
        if let Some(id) = exec {
            let event = Event::Started { exec: Some(id.clone()), pid };
            let fds: Vec<BorrowedFd<'_>> =
                std::iter::once(&pidfd).chain(&terminal).map(AsFd::as_fd).collect();
            tell(&mut self.connections, &event, &fds);
            self.execs.push(Exec { id, pidfd });
            return;
        }
        let Some(container) = &mut self.container else { return };
        if let Some(master) = terminal {
            match master.try_clone() {
                Ok(copy) => self.output.add_source(copy, Stream::Stdout),
                Err(error) => {
                    let message = format!("cannot read the terminal: {error}");
                    tell(&mut self.connections, &Event::Warned { message }, &[]);
                }
            }
            container.set_input(Some(master));
        }
        container.hold_root(root);
        container.running = true;
        tell(&mut self.connections, &Event::Started { exec: None, pid }, &container.handed_out());
    }

    fn accept(&mut self) {
        let Some(container) = &self.container else { return };
        // Before the first process runs there is nothing to say Hello with.
        if !container.running {
            return;
        }
        while let Ok(socket) =
            rustix::net::accept_with(&container.listener, rustix::net::SocketFlags::CLOEXEC)
        {
            let mut connection = Connection::new(socket);
            let hello =
                Event::Hello { version: VERSION, pid: container.pid, exit: container.exit() };
            connection.tell(&hello, &container.handed_out());
            for event in self.untold.drain(..) {
                connection.tell(&event, &[]);
            }
            self.connections.push(connection);
        }
    }

    /// Waits for the processes that have ended.
    fn bury(&mut self) {
        let mut index = 0;
        while index < self.execs.len() {
            let Some(code) = code_of(self.execs[index].pidfd.as_fd(), false) else {
                index += 1;
                continue;
            };
            let id = self.execs.remove(index).id;
            let oom_killed = self.container.as_ref().is_some_and(Container::had_oom);
            let event = Event::Exited { exec: Some(id), exit: Exit::now(code, oom_killed) };
            if self.connections.is_empty() {
                self.untold.push(event);
            } else {
                self.tell(&event, &[]);
            }
        }
        let Some(container) = self.container.as_mut().filter(|container| container.running) else {
            return;
        };
        if let Err(error) = container.look_after() {
            let message = format!("cannot write {}: {error}", container.exit_file.display());
            self.tell(&Event::Warned { message }, &[]);
        }
    }

    /// Tells the container's end once its output has been read, and what went
    /// wrong with the log.
    fn report(&mut self) {
        if let Some(error) = self.output.take_trouble() {
            self.tell(&Event::Warned { message: format!("the log has lost output: {error}") }, &[]);
        }
        let Some(container) = &mut self.container else { return };
        let (Some(exit), Some(ended), false) =
            (container.exit(), container.ended(), container.told)
        else {
            return;
        };
        let others_ended = self.execs.is_empty() && self.starting.is_empty();
        let output_ended = self.output.has_ended() || self.output.is_stalled();
        if (others_ended && output_ended) || ended.elapsed() > LINGER {
            container.told = true;
            self.tell(&Event::Exited { exec: None, exit }, &[]);
        }
    }

    fn tell(&mut self, event: &Event, fds: &[BorrowedFd<'_>]) {
        tell(&mut self.connections, event, fds);
    }
}

/// Whether something happened in time.
fn poll_for(polls: &mut [PollFd<'_>], timeout: Option<Duration>) -> rustix::io::Result<bool> {
    let timeout = timeout.map(|timeout| Timespec {
        tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: timeout.subsec_nanos().into(),
    });
    match poll(polls, timeout.as_ref()) {
        Ok(ready) => Ok(ready > 0),
        Err(Errno::INTR) => Ok(true),
        Err(errno) => Err(errno),
    }
}

fn tell(connections: &mut [Connection], event: &Event, fds: &[BorrowedFd<'_>]) {
    for connection in connections {
        connection.tell(event, fds);
    }
}
