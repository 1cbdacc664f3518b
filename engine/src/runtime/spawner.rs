//! The thread that starts supervisors.
//!
//! A process is born into the version 1 control groups of the thread that
//! forks it, and a thread may move *itself* between those without the RCU
//! grace period of 5 to 20 ms that moving anything else costs (a `0` into
//! `tasks`; `cgroup_procs_write_start` in the kernel's cgroup.c takes no lock
//! for it). So one thread goes into the new directories, starts the supervisor
//! there, and comes back. It is no task of tokio's: those change threads.

use super::{
    cgroup::{Group, Layout},
    pool::{Janitor, Supervisor},
};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use std::{
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, Mutex, mpsc},
    thread,
};
use tokio::{
    process::{Child, Command},
    runtime::Handle,
    sync::oneshot,
};
use tokio_util::task::task_tracker::TaskTrackerToken;

type Reply = oneshot::Sender<io::Result<Supervisor>>;

/// Starts supervisors, one after another.
#[derive(Debug)]
pub(super) struct Spawner {
    requests: Mutex<Option<mpsc::Sender<Reply>>>,
}

impl Spawner {
    /// Starts the thread; it ends when this is stopped or dropped, and `token`
    /// with it.
    pub(super) fn start(
        program: PathBuf,
        layout: Arc<Layout>,
        janitor: Janitor,
        token: TaskTrackerToken,
    ) -> io::Result<Self> {
        let (requests, inbox) = mpsc::channel::<Reply>();
        let handle = Handle::current();
        thread::Builder::new().name("spawner".into()).spawn(move || {
            let _until_it_ends = token;
            // Children are registered with the reactor.
            let _entered = handle.enter();
            let me = std::process::id();
            for (count, reply) in inbox.into_iter().enumerate() {
                let group = layout.parking(format!("{READY}{me}-{count}"));
                // Dropped if nobody waits any more, and so on its way out.
                drop(reply.send(spawn(&program, &group, &janitor)));
            }
        })?;
        Ok(Self { requests: Mutex::new(Some(requests)) })
    }

    /// Lets the thread end: it is in the engine's control groups.
    pub(super) fn stop(&self) {
        self.requests.lock().expect("no panic happens under this lock").take();
    }

    /// One more supervisor.
    pub(super) async fn spawn(&self) -> io::Result<Supervisor> {
        let (reply, answer) = oneshot::channel();
        let gone = || io::Error::other("the thread that starts supervisors has ended");
        {
            let requests = self.requests.lock().expect("no panic happens under this lock");
            requests.as_ref().ok_or_else(gone)?.send(reply).map_err(|_| gone())?;
        }
        answer.await.map_err(|_| gone())?
    }
}

/// How the directories of parked supervisors begin.
pub(super) const READY: &str = "ready-";

fn spawn(program: &Path, group: &Group, janitor: &Janitor) -> io::Result<Supervisor> {
    let flags = SocketFlags::CLOEXEC;
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    let inside = group.enter()?;
    let started = start(program, theirs);
    inside.leave()?;
    let child = started.inspect_err(|_| janitor.remove(group.clone()))?;
    let pid = child.id();
    let supervisor = Supervisor::new(child, ours, group.clone(), janitor.clone());
    pid.map_or(Ok(()), |pid| group.adopt(pid))?;
    Ok(supervisor)
}

fn start(program: &Path, socket: OwnedFd) -> io::Result<Child> {
    // Nothing between fork and exec, so that the library may use vfork: a copy
    // of a large engine's page tables costs milliseconds.
    Command::new(program)
        .env_clear()
        .stdin(Stdio::from(socket))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
}
