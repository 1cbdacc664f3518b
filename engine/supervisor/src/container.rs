//! What the supervisor knows of its container, and the container's end.

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{WaitId, WaitIdOptions, waitid};
use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};
use tritium_supervisor::protocol::{Exit, Launch, Namespace};

/// One container, from its clone on.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is an answer of its own")]
pub(crate) struct Container {
    pub(crate) exit_file: PathBuf,
    pub(crate) listener: OwnedFd,
    pub(crate) cgroup: OwnedFd,
    pub(crate) pid: i32,
    pub(crate) pidfd: OwnedFd,
    /// Its `execve` has succeeded.
    pub(crate) running: bool,
    /// Its end has been told.
    pub(crate) told: bool,
    /// The root's mount. overlayfs syncs the whole file system below it when
    /// its last mount goes (`ovl_sync_fs`, fs/overlayfs/super.c): several
    /// milliseconds that would lie between the container's end and its being
    /// told. So this holds it beyond that.
    root: Option<OwnedFd>,
    oom_file: Option<PathBuf>,
    /// What the OOM file said before the container began.
    ooms_before: u64,
    /// The kernel kills the rest when the first process of a pid namespace
    /// ends; without one of its own, the supervisor does.
    has_pid_namespace: bool,
    is_terminal: bool,
    /// The terminal's master or the write end of standard input.
    input: Option<OwnedFd>,
    end: Option<(Exit, Instant)>,
}

impl Container {
    pub(crate) fn new(
        launch: &Launch,
        listener: OwnedFd,
        cgroup: OwnedFd,
        (pid, pidfd): (i32, OwnedFd),
    ) -> Self {
        let mut container = Self {
            exit_file: launch.exit_file.clone(),
            listener,
            cgroup,
            pid,
            pidfd,
            running: false,
            told: false,
            root: None,
            oom_file: launch.oom_file.clone(),
            ooms_before: 0,
            has_pid_namespace: launch.namespaces.pid == Namespace::New,
            is_terminal: launch.process.terminal,
            input: None,
            end: None,
        };
        container.ooms_before = container.ooms();
        container
    }

    pub(crate) fn set_input(&mut self, input: Option<OwnedFd>) {
        self.input = input;
    }

    pub(crate) fn hold_root(&mut self, root: Option<OwnedFd>) {
        self.root = root;
    }

    /// Lets the root go, when all has been told.
    pub(crate) fn let_go(self) {
        drop(self.root);
    }

    /// End-of-file for a pipe. A terminal has none: there it is a character.
    pub(crate) fn close_input(&mut self) {
        if !self.is_terminal {
            self.input = None;
        }
    }

    /// What goes out with `Started` and `Hello`.
    pub(crate) fn handed_out(&self) -> Vec<BorrowedFd<'_>> {
        std::iter::once(&self.pidfd).chain(&self.input).map(AsFd::as_fd).collect()
    }

    pub(crate) fn interests(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let listener = self.running.then(|| self.listener.as_fd());
        let process = (self.running && self.end.is_none()).then(|| self.pidfd.as_fd());
        listener.into_iter().chain(process)
    }

    pub(crate) fn exit(&self) -> Option<Exit> {
        self.end.map(|(exit, _)| exit)
    }

    pub(crate) fn ended(&self) -> Option<Instant> {
        self.end.map(|(_, at)| at)
    }

    pub(crate) fn had_oom(&self) -> bool {
        self.ooms() > self.ooms_before
    }

    /// If the first process has ended: ends the others, writes the exit file.
    ///
    /// # Errors
    ///
    /// The exit file could not be written. The end is known all the same.
    pub(crate) fn look_after(&mut self) -> io::Result<()> {
        if self.end.is_some() {
            return Ok(());
        }
        let Some(code) = code_of(self.pidfd.as_fd(), false) else { return Ok(()) };
        let exit = Exit::now(code, self.had_oom());
        self.end = Some((exit, Instant::now()));
        self.input = None;
        let killed = if self.has_pid_namespace { Ok(()) } else { self.kill_rest() };
        self.write(exit)?;
        killed
    }

    fn kill_rest(&self) -> io::Result<()> {
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        let kill = rustix::fs::openat(&self.cgroup, "cgroup.kill", flags, Mode::empty())?;
        rustix::io::write(kill, b"1")?;
        Ok(())
    }

    /// By another name first, so that nobody reads half of it.
    #[expect(
        clippy::disallowed_methods,
        reason = "the file is renamed into place; a host that crashes has no container to have exited"
    )]
    fn write(&self, exit: Exit) -> io::Result<()> {
        let mut name = self.exit_file.as_os_str().to_owned();
        name.push(".new");
        fs::write(&name, serde_json::to_vec(&exit)?)?;
        fs::rename(&name, &self.exit_file)
    }

    /// The kernel's count of kills for want of memory; 0 if it cannot be
    /// read, as in a group that is gone.
    fn ooms(&self) -> u64 {
        let Some(file) = &self.oom_file else { return 0 };
        let text = fs::read_to_string(file).unwrap_or_default();
        let count = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        count.and_then(|count| count.trim().parse().ok()).unwrap_or(0)
    }
}

/// How the child behind `pidfd` ended, as a shell has it. `None` if it has
/// not, unless `patient`.
pub(crate) fn code_of(pidfd: BorrowedFd<'_>, patient: bool) -> Option<i32> {
    let mut options = WaitIdOptions::EXITED;
    options.set(WaitIdOptions::NOHANG, !patient);
    loop {
        match waitid(WaitId::PidFd(pidfd), options) {
            Ok(None) => return None,
            Ok(Some(status)) => {
                return match (status.exit_status(), status.terminating_signal()) {
                    (Some(code), _) => Some(code),
                    (None, Some(signal)) => Some(128 + signal),
                    (None, None) => None,
                };
            }
            Err(Errno::INTR) => {}
            // Nobody else waits for this process's children.
            Err(_) => return None,
        }
    }
}

/// Stamps an [`Exit`] with the time.
pub(crate) trait Stamp {
    fn now(code: i32, oom_killed: bool) -> Self;
}

impl Stamp for Exit {
    fn now(code: i32, oom_killed: bool) -> Self {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let nanos = since.unwrap_or(Duration::ZERO).as_nanos();
        Self { code, oom_killed, at: i64::try_from(nanos).unwrap_or(i64::MAX) }
    }
}
