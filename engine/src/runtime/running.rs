//! A container that runs.

use super::{
    ExecJob, ExecRunning, Exit, Stdin, Streams, Usage,
    cgroup::{Group, Refused},
    connection::{Connection, Gone, ended},
    exec,
    process::Rights,
    stdio::Stdio,
};
use crate::{error::Error, ids::ContainerId, spec::HostConfig};
use rustix::termios::{Winsize, isatty, tcsetwinsize};
use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    sync::{Arc, Mutex, MutexGuard},
};
use tokio::net::UnixStream;
use tritium_supervisor::protocol::Request;

/// A cheap handle on a running container.
#[derive(Debug, Clone)]
pub struct Running(Arc<Shared>);

/// What the handles share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) id: ContainerId,
    pub(super) pid: i32,
    pub(super) pidfd: OwnedFd,
    /// The terminal's master, or the write end of standard input.
    pub(super) input: Mutex<Option<OwnedFd>>,
    pub(super) group: Group,
    pub(super) cgroup_id: u64,
    pub(super) connection: Connection,
    pub(super) rights: Arc<Rights>,
}

impl Running {
    pub(super) fn new(shared: Shared) -> Self {
        Self(Arc::new(shared))
    }

    fn not_running(&self) -> Error {
        Error::Conflict(format!("container {} is not running", self.0.id))
    }

    fn failed(&self, doing: &str, error: io::Error) -> Error {
        Error::internal(format!("cannot {doing} container {}", self.0.id), error)
    }

    fn input(&self) -> MutexGuard<'_, Option<OwnedFd>> {
        self.0.input.lock().expect("no panic happens under this lock")
    }

    /// Of the first process, as the host sees it.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.0.pid
    }

    /// Of its directory on the version 2 tree.
    #[must_use]
    pub fn cgroup_id(&self) -> u64 {
        self.0.cgroup_id
    }

    /// Sends a signal to the first process.
    ///
    /// # Errors
    /// `Conflict` if it has ended, `Invalid` if there is no such signal.
    pub fn signal(&self, signal: i32) -> Result<(), Error> {
        let sent = tritium_sys::signal::send(self.0.pidfd.as_fd(), signal);
        sent.map_err(|error| match error.raw_os_error() {
            Some(nix::libc::ESRCH) => self.not_running(),
            Some(nix::libc::EINVAL) => Error::Invalid(format!("Invalid signal: {signal}")),
            _ => self.failed("signal", error),
        })
    }

    /// Whether the first process's number is still its own.
    ///
    /// # Errors
    /// `Conflict` if it has ended.
    pub(super) fn is_there(&self) -> Result<(), Error> {
        self.signal(0)
    }

    /// The first process, for as long as this is held.
    pub(super) fn pidfd(&self) -> io::Result<OwnedFd> {
        self.0.pidfd.try_clone()
    }

    /// Waits for the end. Any number may wait, also after it.
    pub async fn exited(&self) -> Exit {
        ended(self.0.connection.exit.clone()).await
    }

    /// Runs one more process.
    ///
    /// # Errors
    /// `NotStarted` with Docker's words; `Conflict` if the container has ended.
    pub async fn exec(&self, job: ExecJob) -> Result<ExecRunning, Error> {
        let gone = |Gone| self.not_running();
        exec::exec(&self.0.connection, &self.0.rights, job).await?.map_err(gone)
    }

    /// The output from now on: Docker's frames, or raw bytes of a terminal.
    ///
    /// # Errors
    /// `Conflict` if the container has ended.
    pub async fn attach(&self, streams: Streams) -> Result<UnixStream, Error> {
        let failed = |error| self.failed("attach to", error);
        let (ours, theirs) = UnixStream::pair().map_err(failed)?;
        let theirs = theirs.into_std().map_err(failed)?;
        let attached = self.0.connection.attach(streams, theirs.into()).await;
        attached.map_err(|Gone| self.not_running())?;
        Ok(ours)
    }

    /// A writer of the first process's standard input, if that is kept open.
    #[must_use]
    pub fn stdin(&self) -> Option<Stdin> {
        let copy = self.input().as_ref()?.try_clone();
        match copy.and_then(Stdio::new) {
            Ok(stdin) => Some(stdin),
            Err(error) => {
                tracing::warn!(container = %self.0.id, %error, "cannot open standard input");
                None
            }
        }
    }

    /// The first process sees end-of-file once it has read what was written.
    /// Writers that are still held keep it from that. A terminal stays open.
    pub async fn close_stdin(&self) {
        {
            let mut input = self.input();
            if input.as_ref().is_none_or(isatty) {
                return;
            }
            *input = None;
        }
        // Gone: then its standard input is as well.
        if self.0.connection.tell(Request::CloseStdin, Vec::new()).is_err() {
            tracing::debug!("it has ended, and its input with it");
        }
    }

    /// Tells the terminal how large it is.
    ///
    /// # Errors
    /// `Invalid` if there is no terminal.
    pub fn resize(&self, rows: u16, columns: u16) -> Result<(), Error> {
        match self.input().as_ref() {
            Some(master) => resize(master, rows, columns),
            None => Err(Error::Invalid("the container has no terminal".into())),
        }
    }

    /// What it has used.
    ///
    /// # Errors
    /// The control group cannot be read: mostly, it has ended.
    pub fn usage(&self) -> Result<Usage, Error> {
        self.0.group.usage().map_err(|error| self.failed("measure", error))
    }

    /// Every process of it, without the supervisor.
    ///
    /// # Errors
    /// The control group cannot be read: mostly, it has ended.
    pub fn processes(&self) -> Result<Vec<i32>, Error> {
        self.0.group.processes().map_err(|error| self.failed("list the processes of", error))
    }

    /// Stops every process where it stands; returns once they do.
    ///
    /// # Errors
    /// The kernel refuses.
    pub async fn freeze(&self) -> Result<(), Error> {
        self.0.group.freeze(true).await.map_err(|error| self.failed("pause", error))
    }

    /// Lets them go on.
    ///
    /// # Errors
    /// The kernel refuses.
    pub async fn thaw(&self) -> Result<(), Error> {
        self.0.group.freeze(false).await.map_err(|error| self.failed("unpause", error))
    }

    /// Whether `freeze` is in force.
    #[must_use]
    pub fn is_frozen(&self) -> bool {
        self.0.group.is_frozen()
    }

    /// Writes new limits.
    ///
    /// # Errors
    /// `Invalid` in Docker's words if the kernel refuses one.
    pub async fn update(&self, host: &HostConfig) -> Result<(), Error> {
        self.0.group.limit(host).map_err(|refused: Refused| {
            let why = crate::error::chain(&refused);
            Error::Invalid(format!("Cannot update container {}: {why}", self.0.id))
        })
    }
}

/// Tells a terminal how large it is.
pub(super) fn resize(master: impl AsFd, rows: u16, columns: u16) -> Result<(), Error> {
    let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(master, size)
        .map_err(|_| Error::Invalid("cannot resize: there is no terminal".into()))
}
