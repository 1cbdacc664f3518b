//! One more process in a container.

use super::{
    ExecJob, Exit, Stdin,
    connection::{Connection, Ending, Gone, ended},
    failure, packet,
    process::{self, Rights, Wanted},
    running::resize,
    stdio::Stdio,
};
use crate::error::Error;
use rustix::{
    fs::{Mode, OFlags},
    pipe::{PipeFlags, pipe_with},
};
use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
    sync::{Arc, Mutex},
};

/// A cheap handle on one more process in a container.
#[derive(Debug, Clone)]
pub struct ExecRunning(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    pid: i32,
    /// None from a supervisor that did not send one.
    pidfd: Option<OwnedFd>,
    stdio: Mutex<Option<ExecStdio>>,
    /// For its size.
    master: Option<OwnedFd>,
    exit: Ending,
}

/// The engine's ends of an exec's standard streams.
#[derive(Debug)]
pub enum ExecStdio {
    Terminal {
        input: Stdin,
        output: Stdio,
    },
    /// `None`: not asked for.
    Pipes {
        stdin: Option<Stdin>,
        stdout: Option<Stdio>,
        stderr: Option<Stdio>,
    },
}

/// Runs it. The inner error: the container has ended meanwhile.
pub(super) async fn exec(
    connection: &Connection,
    rights: &Rights,
    job: ExecJob,
) -> Result<Result<ExecRunning, Gone>, Error> {
    let failed = |error: io::Error| Error::internal(format!("cannot run exec {}", job.id), error);
    let wanted = Wanted {
        args: job.args.clone(),
        env: process::exec_environment(&job.env, job.terminal),
        cwd: &job.cwd,
        user: &job.user,
        terminal: job.terminal,
        size: job.size,
        privileged: job.privileged,
    };
    let process = rights.process(wanted, &job.host)?;
    let mut fds = vec![packet::document(&process).map_err(failed)?];
    let mut pipes = None;
    if !job.terminal {
        let (ours, theirs) = streams(&job).map_err(failed)?;
        fds.extend(theirs);
        pipes = Some(ours);
    }
    let outcome = match connection.exec(job.id.hex(), fds).await {
        Ok(outcome) => outcome,
        Err(gone) => return Ok(Err(gone)),
    };
    let started = outcome.map_err(|failure| failure::exec(&failure))?;
    let mut fds = started.fds.into_iter();
    let (pidfd, master) = (fds.next(), fds.next());
    let stdio = match (&master, pipes) {
        (Some(master), _) => terminal(master).map_err(failed)?,
        (None, Some(pipes)) => pipes,
        (None, None) => return Err(failed(io::ErrorKind::InvalidData.into())),
    };
    let stdio = Mutex::new(Some(stdio));
    Ok(Ok(ExecRunning(Arc::new(Shared {
        pid: started.pid,
        pidfd,
        stdio,
        master,
        exit: started.exit,
    }))))
}

fn terminal(master: &OwnedFd) -> io::Result<ExecStdio> {
    let input = Stdio::new(master.try_clone()?)?;
    Ok(ExecStdio::Terminal { input, output: Stdio::new(master.try_clone()?)? })
}

/// Our ends and the process's: input, output, error.
fn streams(job: &ExecJob) -> io::Result<(ExecStdio, [OwnedFd; 3])> {
    let null = || {
        rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
            .map_err(io::Error::from)
    };
    let (stdin, input) = if job.stdin {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
        (Some(Stdio::new(write)?), read)
    } else {
        (None, null()?)
    };
    let output = || -> io::Result<(Option<Stdio>, OwnedFd)> {
        if job.detached {
            return Ok((None, null()?));
        }
        let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
        Ok((Some(Stdio::new(read)?), write))
    };
    let (stdout, out) = output()?;
    let (stderr, err) = output()?;
    Ok((ExecStdio::Pipes { stdin, stdout, stderr }, [input, out, err]))
}

impl ExecRunning {
    /// As the host sees it.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.0.pid
    }

    /// The streams; the second call gives none.
    #[must_use]
    pub fn take_stdio(&mut self) -> ExecStdio {
        let taken = self.0.stdio.lock().expect("no panic happens under this lock").take();
        taken.unwrap_or(ExecStdio::Pipes { stdin: None, stdout: None, stderr: None })
    }

    /// Waits for the end. Any number may wait, also after it.
    pub async fn exited(&self) -> Exit {
        ended(self.0.exit.clone()).await
    }

    /// Kills it, if it has not ended.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn kill(&self) -> io::Result<()> {
        let Some(pidfd) = &self.0.pidfd else { return Ok(()) };
        match tritium_sys::signal::send(pidfd.as_fd(), nix::libc::SIGKILL) {
            Err(error) if error.raw_os_error() == Some(nix::libc::ESRCH) => Ok(()),
            sent => sent,
        }
    }

    /// Tells its terminal how large it is.
    ///
    /// # Errors
    /// `Invalid` if there is no terminal.
    pub fn resize(&self, rows: u16, columns: u16) -> Result<(), Error> {
        match &self.0.master {
            Some(master) => resize(master, rows, columns),
            None => Err(Error::Invalid("the exec has no terminal".into())),
        }
    }
}
