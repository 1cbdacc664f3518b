//! Starting processes, the supervisor's side: pipes, namespaces, clone.

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};
use rustix::thread::{ThreadNameSpaceType, move_into_thread_name_spaces};
use std::convert::Infallible;
use std::io;
use tritium_supervisor::protocol::{Failure, Launch, Namespace, Process};
use tritium_sys::clone::{NewNamespaces, Side, clone_into};

use crate::channel::{self, Listener, Speaker, Word};
use crate::failure::{Step, with_message};
use crate::mounts;
use crate::setup::{self, Given, Stdio};
use crate::stdio::CHUNK;

/// A child between `clone` and `execve`.
#[derive(Debug)]
pub(crate) struct Starting {
    /// Which exec this is; none for the container's first process.
    pub(crate) exec: Option<String>,
    pub(crate) pid: i32,
    pub(crate) pidfd: OwnedFd,
    pub(crate) terminal: Option<OwnedFd>,
    pub(crate) root: Option<OwnedFd>,
    listener: Listener,
    executing: bool,
    failure: Option<Failure>,
}

/// What has become of a [`Starting`] child.
#[derive(Debug)]
pub(crate) enum Outcome {
    Unknown,
    Executed,
    Failed(Failure),
}

impl Starting {
    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }

    /// Listens to the child without waiting.
    pub(crate) fn listen(&mut self) -> Outcome {
        loop {
            match self.listener.hear() {
                Ok(Some(Word::Root(mount))) => self.root = Some(mount),
                Ok(Some(Word::Terminal(master))) => self.terminal = Some(master),
                Ok(Some(Word::Executing)) => self.executing = true,
                Ok(Some(Word::Failed(failure))) => self.failure = Some(failure),
                Err(Errno::AGAIN) => return Outcome::Unknown,
                Ok(None) => break,
                Err(errno) => {
                    self.failure = Some(crate::failure::during_init("listen to the child", errno));
                    break;
                }
            }
        }
        match self.failure.take() {
            Some(failure) => Outcome::Failed(failure),
            None if self.executing => Outcome::Executed,
            None => {
                let message = "the process was killed while it was being set up".to_owned();
                Outcome::Failed(with_message("set up", Errno::SRCH, message))
            }
        }
    }
}

/// The supervisor's ends of the first process's streams.
#[derive(Debug)]
pub(crate) struct Pipes {
    pub(crate) input: Option<OwnedFd>,
    pub(crate) output: OwnedFd,
    pub(crate) error: OwnedFd,
}

/// What children are made with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'a> {
    /// The control group's directory on the v2 tree.
    pub(crate) cgroup: BorrowedFd<'a>,
    /// The supervisor's own pid namespace, to come back to.
    pub(crate) home: BorrowedFd<'a>,
}

/// Starts the container's first process.
pub(crate) fn first(
    launch: &Launch,
    place: Place<'_>,
    network: Option<BorrowedFd<'_>>,
) -> Result<(Starting, Option<Pipes>), Failure> {
    let (stdio, pipes) = match launch.process.terminal {
        true => (None, None),
        false => pipes(launch.stdin)
            .step("make the standard streams")
            .map(|(s, p)| (Some(s), Some(p)))?,
    };
    let is_new = |namespace: &Namespace| *namespace == Namespace::New;
    let namespaces = &launch.namespaces;
    let new = NewNamespaces {
        mount: true,
        pid: is_new(&namespaces.pid),
        network: is_new(&namespaces.network),
        ipc: is_new(&namespaces.ipc),
        uts: is_new(&namespaces.uts),
    };
    let target = match namespaces.pid {
        Namespace::Of { pid } => Some(setup::pidfd_of(pid).step("join the pid namespace")?),
        Namespace::New | Namespace::Host | Namespace::Given => None,
    };
    let target = target.as_ref().map(AsFd::as_fd);
    // Here, because in the child's mount namespace this program's mount is a
    // stranger's.
    let reaper = launch.init.then(|| mounts::clone_tree(CWD, "/proc/self/exe", false));
    let reaper = reaper.transpose().step("open the reaper")?;
    let (foreign, donor) = (setup::foreign(launch)?, setup::donor(launch)?);
    let given = Given { network, foreign, donor, stdio, reaper };
    let body = |speaker: &Speaker| setup::first(launch, &given, speaker);
    Ok((start(None, place, new, target, body)?, pipes))
}

/// Starts one more process in the container whose first process is behind
/// `init`.
pub(crate) fn further(
    id: &str,
    process: &Process,
    place: Place<'_>,
    init: BorrowedFd<'_>,
    stdio: Option<&Stdio>,
) -> Result<Starting, Failure> {
    let body = |speaker: &Speaker| setup::further(process, init, stdio, speaker);
    start(Some(id.to_owned()), place, NewNamespaces::default(), Some(init), body)
}

fn start(
    exec: Option<String>,
    place: Place<'_>,
    new: NewNamespaces,
    target: Option<BorrowedFd<'_>>,
    body: impl FnOnce(&Speaker) -> Result<Infallible, Failure>,
) -> Result<Starting, Failure> {
    let (speaker, listener) = channel::open().step("open a channel to the child")?;
    match clone(place, new, target).step("clone")? {
        Side::Parent { pid, pidfd } => Ok(Starting {
            exec,
            pid,
            pidfd,
            terminal: None,
            root: None,
            listener,
            executing: false,
            failure: None,
        }),
        Side::Child => {
            drop(listener);
            let Err(failure) = body(&speaker);
            // If the supervisor cannot be told, it sees the channel's end.
            let told = speaker.failed(&failure);
            end_child(u8::from(told.is_err()) + 1)
        }
    }
}

/// Clones into the pid namespace of the process behind `target`. Joining it
/// changes nothing for this process, only for the children it makes until it
/// is back home: pid_namespaces(7). So no process in between is needed.
fn clone(place: Place<'_>, new: NewNamespaces, target: Option<BorrowedFd<'_>>) -> io::Result<Side> {
    let Some(target) = target else {
        return clone_into(place.cgroup, new);
    };
    move_into_thread_name_spaces(target, ThreadNameSpaceType::PROCESS_ID)?;
    let side = clone_into(place.cgroup, new);
    if !tritium_sys::clone::is_child() {
        move_into_thread_name_spaces(place.home, ThreadNameSpaceType::PROCESS_ID)?;
    }
    side
}

#[expect(
    clippy::exit,
    clippy::disallowed_methods,
    reason = "this child has no main to return to: that is its parent's"
)]
fn end_child(code: u8) -> ! {
    std::process::exit(i32::from(code))
}

/// The container's ends block; the supervisor's do not.
fn pipes(stdin: bool) -> rustix::io::Result<(Stdio, Pipes)> {
    let (input, write_input) = match stdin {
        true => {
            let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
            rustix::fs::fcntl_setfl(&write, OFlags::NONBLOCK)?;
            (read, Some(write))
        }
        false => {
            (rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?, None)
        }
    };
    let (output, write_output) = output_pipe()?;
    let (error, write_error) = output_pipe()?;
    Ok(([input, write_output, write_error], Pipes { input: write_input, output, error }))
}

fn output_pipe() -> rustix::io::Result<(OwnedFd, OwnedFd)> {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
    rustix::fs::fcntl_setfl(&read, OFlags::NONBLOCK)?;
    match fcntl_setpipe_size(&read, CHUNK) {
        // More than this user may have: the usual 64 KiB do as well.
        Ok(_) | Err(Errno::PERM) => Ok((read, write)),
        Err(errno) => Err(errno),
    }
}
