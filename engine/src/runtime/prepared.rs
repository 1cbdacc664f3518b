//! A container's place, before its first instruction.

use super::{
    Inner, Job, NetworkNamespace, Running,
    cgroup::Group,
    connection::Connection,
    failure,
    launch::{self, Place},
    packet,
    pool::Supervisor,
    running::Shared,
};
use crate::{error::Error, ids::ContainerId, spec::HostConfig};
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with,
};
use std::{
    fs, io,
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::fs::DirBuilderExt as _,
    },
    path::Path,
    sync::Arc,
};
use tritium_supervisor::protocol::Streams;

/// A supervisor in the container's control groups. Dropping it takes
/// everything back.
#[derive(Debug)]
pub struct Prepared {
    runtime: Arc<Inner>,
    id: ContainerId,
    group: Group,
    cgroup_id: u64,
    /// `None` once the container runs.
    supervisor: Option<Supervisor>,
    /// The supervisor has been told to start the container.
    told: bool,
}

impl Prepared {
    pub(super) async fn make(
        runtime: Arc<Inner>,
        id: ContainerId,
        host: &HostConfig,
    ) -> Result<Self, Error> {
        let failed = |error| Error::internal(format!("cannot prepare container {id}"), error);
        let group = runtime.layout.group(id);
        let supervisor = runtime.pool.take().await.map_err(failed)?;
        // From here on, dropping takes back.
        let supervisor = Some(supervisor);
        let mut prepared = Self { runtime, id, group, cgroup_id: 0, supervisor, told: false };
        prepared.name().await.map_err(failed)?;
        prepared.cgroup_id = prepared.group.make_v2().map_err(failed)?;
        let limited = prepared.group.limit(host);
        limited.map_err(|refused| failure::limit(&refused.to_string()))?;
        Ok(prepared)
    }

    /// Gives the supervisor's directories the container's name.
    async fn name(&mut self) -> io::Result<()> {
        let name = self.id.hex();
        let Some(supervisor) = &mut self.supervisor else { return Ok(()) };
        if !self.group.exists() && supervisor.rename(&name).is_ok() {
            return Ok(());
        }
        // Something of an earlier life is still there.
        let janitor = self.runtime.pool.janitor();
        if let Some(aside) = self.group.remove(janitor.name()).await? {
            janitor.remove(aside);
        }
        supervisor.rename(&name)
    }

    /// The inode number of the container's directory on the version 2 tree:
    /// what BPF calls the cgroup's id.
    #[must_use]
    pub fn cgroup_id(&self) -> u64 {
        self.cgroup_id
    }

    /// Starts the container.
    ///
    /// # Errors
    /// `NotStarted` with Docker's words; everything has been taken back then.
    pub async fn launch(mut self, mut job: Job) -> Result<Running, Error> {
        let id = self.id;
        let failed =
            |error: io::Error| Error::internal(format!("cannot start container {id}"), error);
        let place =
            Place { exit_file: self.runtime.exit_file(id), oom_file: self.group.oom_file() };
        let launch = launch::launch(&job, &self.runtime.rights, place)?;
        let mut fds = vec![
            packet::document(&launch).map_err(failed)?,
            listen_at(&self.runtime.directory(id)).map_err(failed)?,
            self.group.open().map_err(failed)?,
        ];
        if let NetworkNamespace::Given(namespace) = job.network {
            fds.push(namespace);
        }
        let room = packet::MOST_FDS - fds.len();
        let late = job.attachments.split_off(job.attachments.len().min(room));
        let (attachments, sockets): (Vec<Streams>, Vec<OwnedFd>) =
            job.attachments.into_iter().unzip();
        fds.extend(sockets);

        let Some(supervisor) = &self.supervisor else {
            return Err(failed(io::ErrorKind::NotConnected.into()));
        };
        let socket = supervisor.socket().map_err(failed)?;
        let last_word = self.runtime.last_word(id);
        let connection =
            Connection::open(socket, last_word, &self.runtime.tasks).map_err(failed)?;
        self.told = true;
        let gone = |gone| Error::internal(format!("cannot start container {id}"), gone);
        let outcome = connection.launch(attachments, fds).await.map_err(gone)?;
        let started = outcome.map_err(|failure| failure::create(&failure))?;
        for (streams, socket) in late {
            connection.attach(streams, socket).await.map_err(gone)?;
        }
        let mut fds = started.fds.into_iter();
        let pidfd = fds.next().ok_or_else(|| failed(io::ErrorKind::InvalidData.into()))?;
        let shared = Shared {
            id,
            pid: started.pid,
            pidfd,
            input: fds.next().into(),
            group: self.group.clone(),
            cgroup_id: self.cgroup_id,
            connection,
            rights: self.runtime.rights.clone(),
        };
        if let Some(child) = self.supervisor.take().and_then(Supervisor::engage) {
            // Waits by itself when the supervisor ends.
            drop(child);
        }
        Ok(Running::new(shared))
    }
}

impl Drop for Prepared {
    fn drop(&mut self) {
        let Some(supervisor) = self.supervisor.take() else { return };
        let id = self.id;
        let note = |what: &'static str, outcome: io::Result<()>| {
            if let Err(error) = outcome {
                tracing::warn!(container = %id, %error, "{what}");
            }
        };
        if self.told {
            // A start that nobody waits for any more may still succeed.
            note("cannot kill a half-made container", self.group.kill());
        }
        // Its socket closes: the supervisor leaves, its directories follow.
        drop(supervisor);
        note("cannot remove a control group", self.group.try_remove_v2());
        note("cannot remove the run directory", remove_run_directory(&self.runtime.directory(id)));
    }
}

/// The socket where an engine meets the supervisor.
pub(super) const SOCKET: &str = "supervisor.sock";
/// What the supervisor writes when its container has ended.
pub(super) const EXIT: &str = "exit.json";

fn listen_at(directory: &Path) -> io::Result<OwnedFd> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    remove_file(&directory.join(EXIT))?;
    remove_file(&directory.join(SOCKET))?;
    let socket =
        socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    let (_open, address) = address(directory)?;
    bind(&socket, &address)?;
    listen(&socket, 16)?;
    Ok(socket)
}

/// The address of the socket in a run directory, through a descriptor: a path
/// of 108 bytes would not fit. Good for as long as the descriptor is open.
pub(super) fn address(directory: &Path) -> io::Result<(OwnedFd, SocketAddrUnix)> {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let open = rustix::fs::open(directory, flags, Mode::empty())?;
    let address = SocketAddrUnix::new(format!("/proc/self/fd/{}/{SOCKET}", open.as_raw_fd()))?;
    Ok((open, address))
}

/// Removes a file that may not be there.
pub(super) fn remove_file(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        outcome => outcome,
    }
}

/// How often a supervisor changes its run directory when its container ends:
/// it writes a file and gives it its name.
const CHANGES: usize = 2;

/// Removes all of a run directory that may not be there. Its supervisor may be
/// writing at this moment how the container ended.
pub(super) fn remove_run_directory(path: &Path) -> io::Result<()> {
    let mut changes = 0;
    loop {
        match fs::remove_dir_all(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty && changes < CHANGES => {
                changes += 1;
            }
            outcome => return outcome,
        }
    }
}
