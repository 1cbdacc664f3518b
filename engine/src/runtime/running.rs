//! A container that runs, and the processes beside its first.

use super::{ExecJob, Exit, Stdin, Streams, Usage, stdio::Stdio};
use crate::{error::Error, spec::HostConfig};
use tokio::net::UnixStream;

/// A cheap handle on a running container.
#[derive(Debug, Clone)]
pub struct Running(());

/// A cheap handle on one more process in a container.
#[derive(Debug, Clone)]
pub struct ExecRunning(());

/// The engine's ends of an exec's standard streams.
#[derive(Debug)]
pub enum ExecStdio {
    Terminal {
        input: Stdio,
        output: Stdio,
    },
    /// `None`: not asked for.
    Pipes {
        stdin: Option<Stdio>,
        stdout: Option<Stdio>,
        stderr: Option<Stdio>,
    },
}

impl Running {
    /// Of the first process, as the host sees it.
    #[must_use]
    pub fn pid(&self) -> i32 {
        unimplemented!()
    }

    /// Of its directory on the version 2 tree.
    #[must_use]
    pub fn cgroup_id(&self) -> u64 {
        unimplemented!()
    }

    /// Sends a signal to the first process.
    ///
    /// # Errors
    /// `Conflict` if it has ended.
    pub fn signal(&self, signal: i32) -> Result<(), Error> {
        let _ = signal;
        unimplemented!()
    }

    /// Waits for the end. Any number may wait, also after it.
    pub async fn exited(&self) -> Exit {
        unimplemented!()
    }

    /// Runs one more process.
    ///
    /// # Errors
    /// `NotStarted` with Docker's words; `Conflict` if the container has ended.
    pub async fn exec(&self, job: ExecJob) -> Result<ExecRunning, Error> {
        let _ = job;
        unimplemented!()
    }

    /// The output from now on: Docker's frames, or raw bytes of a terminal.
    ///
    /// # Errors
    /// `Conflict` if the container has ended.
    pub async fn attach(&self, streams: Streams) -> Result<UnixStream, Error> {
        let _ = streams;
        unimplemented!()
    }

    /// A writer of the first process's standard input, if that is kept open.
    #[must_use]
    pub fn stdin(&self) -> Option<Stdin> {
        unimplemented!()
    }

    /// The first process sees end-of-file once it has read what was written.
    /// Writers that are still held keep it from that.
    pub async fn close_stdin(&self) {
        unimplemented!()
    }

    /// Tells the terminal how large it is.
    ///
    /// # Errors
    /// `Invalid` if there is no terminal.
    pub fn resize(&self, rows: u16, columns: u16) -> Result<(), Error> {
        let _ = (rows, columns);
        unimplemented!()
    }

    /// What it has used.
    ///
    /// # Errors
    /// The control group cannot be read: mostly, it has ended.
    pub fn usage(&self) -> Result<Usage, Error> {
        unimplemented!()
    }

    /// Every process of it, without the supervisor.
    ///
    /// # Errors
    /// The control group cannot be read: mostly, it has ended.
    pub fn processes(&self) -> Result<Vec<i32>, Error> {
        unimplemented!()
    }

    /// Stops every process where it stands; returns once they do.
    ///
    /// # Errors
    /// The kernel refuses.
    pub async fn freeze(&self) -> Result<(), Error> {
        unimplemented!()
    }

    /// Lets them go on.
    ///
    /// # Errors
    /// The kernel refuses.
    pub async fn thaw(&self) -> Result<(), Error> {
        unimplemented!()
    }

    /// Whether `freeze` is in force.
    #[must_use]
    pub fn is_frozen(&self) -> bool {
        unimplemented!()
    }

    /// Writes new limits.
    ///
    /// # Errors
    /// `Invalid` in Docker's words if the kernel refuses one.
    pub async fn update(&self, host: &HostConfig) -> Result<(), Error> {
        let _ = host;
        unimplemented!()
    }
}

impl ExecRunning {
    /// As the host sees it.
    #[must_use]
    pub fn pid(&self) -> i32 {
        unimplemented!()
    }

    /// The streams; the second call gives none.
    #[must_use]
    pub fn take_stdio(&mut self) -> ExecStdio {
        unimplemented!()
    }

    /// Waits for the end. Any number may wait, also after it.
    pub async fn exited(&self) -> Exit {
        unimplemented!()
    }

    /// Tells its terminal how large it is.
    ///
    /// # Errors
    /// `Invalid` if there is no terminal.
    pub fn resize(&self, rows: u16, columns: u16) -> Result<(), Error> {
        let _ = (rows, columns);
        unimplemented!()
    }
}
