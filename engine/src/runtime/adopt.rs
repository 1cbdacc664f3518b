//! Finding supervisors that outlived the engine that started them.

use super::{
    Exit, Inner, Running,
    connection::{Connection, hear},
    prepared::{SOCKET, directory_of, short},
    running::Shared,
    stdio,
};
use crate::{error::Error, ids::ContainerId};
use rustix::{
    io::Errno,
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with},
};
use std::{fs, io, os::fd::OwnedFd, path::Path, sync::Arc, time::Duration};
use tokio::time::timeout;
use tritium_supervisor::protocol::Event;

/// How long a supervisor may take for its first word.
const PATIENCE: Duration = Duration::from_secs(5);

/// What has become of a container that an earlier engine had started.
#[derive(Debug)]
pub enum Adopted {
    Running(Running),
    Exited(Exit),
    /// Neither a supervisor nor its last word.
    Gone,
}

/// What a supervisor says first.
struct Hello {
    pid: i32,
    exit: Option<Exit>,
    fds: Vec<OwnedFd>,
}

pub(super) async fn adopt(runtime: &Arc<Inner>, id: ContainerId) -> Result<Adopted, Error> {
    let failed = |error| Error::internal(format!("cannot adopt container {id}"), error);
    let path = runtime.directory(id).join(SOCKET);
    let Some(socket) = meet(&path).map_err(failed)? else {
        return without_supervisor(runtime, id).await.map_err(failed);
    };
    let Some(hello) = hello(&socket).await.map_err(failed)? else {
        return without_supervisor(runtime, id).await.map_err(failed);
    };
    if let Some(exit) = hello.exit {
        return Ok(Adopted::Exited(exit));
    }
    let mut fds = hello.fds.into_iter();
    let pidfd = fds.next().ok_or_else(|| failed(io::ErrorKind::InvalidData.into()))?;
    let group = runtime.layout.group(id);
    let cgroup_id = group.id().map_err(failed)?;
    let connection =
        Connection::open(socket, runtime.last_word(id), &runtime.tasks).map_err(failed)?;
    Ok(Adopted::Running(Running::new(Shared {
        id,
        pid: hello.pid,
        pidfd,
        input: fds.next().into(),
        group,
        cgroup_id,
        connection,
        rights: runtime.rights.clone(),
    })))
}

/// Connects to a supervisor; `None`: nobody listens.
fn meet(path: &Path) -> io::Result<Option<OwnedFd>> {
    let socket =
        socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    let directory = match directory_of(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        directory => directory?,
    };
    match connect(&socket, &SocketAddrUnix::new(short(&directory, SOCKET))?) {
        Ok(()) => Ok(Some(socket)),
        Err(Errno::NOENT | Errno::CONNREFUSED) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// `None`: it has left just now.
async fn hello(socket: &OwnedFd) -> io::Result<Option<Hello>> {
    let watched = stdio::watched(socket.try_clone()?)?;
    let heard = timeout(PATIENCE, hear(&watched));
    match heard.await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?? {
        Some((Event::Hello { pid, exit, .. }, fds)) => Ok(Some(Hello { pid, exit, fds })),
        Some((event, _)) => {
            let message = format!("its first word is {event:?}");
            Err(io::Error::new(io::ErrorKind::InvalidData, message))
        }
        None => Ok(None),
    }
}

/// Its last word, if it had one; whatever is left of the container goes.
async fn without_supervisor(runtime: &Arc<Inner>, id: ContainerId) -> io::Result<Adopted> {
    let exit = last_word(&runtime.exit_file(id))?;
    runtime.layout.group(id).raze().await?;
    Ok(exit.map_or(Adopted::Gone, Adopted::Exited))
}

/// Reads the exit file; `None`: there is none.
pub(super) fn last_word(path: &Path) -> io::Result<Option<Exit>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
