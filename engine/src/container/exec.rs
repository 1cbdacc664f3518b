//! Processes that run beside a container's first: `docker exec`.

use super::{Attachment, Handle, Output};
use crate::{
    error::Error,
    ids::{self, ContainerId, ExecId},
    runtime::{ExecJob, ExecRunning, ExecStdio},
};
use bytes::{BufMut, Bytes, BytesMut};
use futures_util::{StreamExt, stream};
use std::{
    fmt, io,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{io::AsyncRead, sync::watch, time::timeout};
use tokio_util::io::ReaderStream;

/// How much of the output is moved at once.
const CHUNK: usize = 64 * 1024;
/// How long the output of children that outlive the process is still awaited
/// (containerd's shim does alike).
const LINGER: Duration = Duration::from_secs(2);

/// One process to run beside the first, as `POST /containers/{id}/exec` asks.
#[derive(Debug, Clone, Default)]
#[expect(clippy::struct_excessive_bools, reason = "Docker's own struct has them")]
pub struct ExecRequest {
    pub cmd: Vec<String>,
    pub env: Vec<String>,
    pub user: String,
    pub working_dir: String,
    pub privileged: bool,
    pub terminal: bool,
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    pub detach_keys: String,
    /// Rows and columns.
    pub console_size: Option<(u16, u16)>,
}

/// What `POST /exec/{id}/start` says beside.
#[derive(Debug, Clone, Copy, Default)]
pub struct ExecStart {
    /// Nobody is attached.
    pub detach: bool,
    pub terminal: bool,
    /// Rows and columns.
    pub size: Option<(u16, u16)>,
}

/// What `GET /exec/{id}/json` shows.
#[derive(Debug, Clone)]
pub struct ExecSnapshot {
    pub id: ExecId,
    pub container: ContainerId,
    pub request: ExecRequest,
    pub running: bool,
    /// `None` until it has ended.
    pub exit_code: Option<i32>,
    /// 0 until it runs.
    pub pid: i32,
}

/// A cheap handle on one exec.
#[derive(Clone)]
pub struct ExecHandle {
    inner: Arc<Inner>,
}

struct Inner {
    id: ExecId,
    container: Handle,
    request: ExecRequest,
    stage: Mutex<Stage>,
    /// Users can ask for it.
    listed: bool,
    /// It is to end as soon as it runs.
    doomed: AtomicBool,
}

enum Stage {
    Waiting,
    Starting,
    Running(ExecRunning),
    Ended { code: i32, pid: i32 },
}

impl fmt::Debug for ExecHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ExecHandle({})", self.inner.id)
    }
}

impl ExecHandle {
    pub(super) fn new(container: Handle, request: ExecRequest) -> Self {
        Self::make(container, request, true)
    }

    /// The engine's own, that no user can ask for.
    pub(super) fn unlisted(container: Handle, request: ExecRequest) -> Self {
        Self::make(container, request, false)
    }

    fn make(container: Handle, request: ExecRequest, listed: bool) -> Self {
        let id = ExecId::of(ids::random());
        let command = request.cmd.join(" ");
        let stage = Mutex::new(Stage::Waiting);
        let exec = Self {
            inner: Arc::new(Inner {
                id,
                container,
                request,
                stage,
                listed,
                doomed: AtomicBool::new(false),
            }),
        };
        exec.announce(&format!("exec_create: {command}"), None);
        exec
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> ExecId {
        self.inner.id
    }

    /// Where it runs.
    #[must_use]
    pub fn container(&self) -> ContainerId {
        self.inner.container.id()
    }

    fn stage(&self) -> MutexGuard<'_, Stage> {
        self.inner.stage.lock().expect("no panic happens under this lock")
    }

    /// What it looks like now.
    #[must_use]
    pub fn snapshot(&self) -> ExecSnapshot {
        let (running, exit_code, pid) = match &*self.stage() {
            Stage::Waiting | Stage::Starting => (false, None, 0),
            Stage::Running(running) => (true, None, running.pid()),
            Stage::Ended { code, pid } => (false, Some(*code), *pid),
        };
        ExecSnapshot {
            id: self.inner.id,
            container: self.container(),
            request: self.inner.request.clone(),
            running,
            exit_code,
            pid,
        }
    }

    /// Runs it. Detached: no attachment comes back.
    ///
    /// # Errors
    /// `Conflict` if it has been started before or its container does not run;
    /// `NotStarted` with the reason.
    pub async fn start(&self, how: ExecStart) -> Result<Option<Attachment>, Error> {
        {
            let mut stage = self.stage();
            match *stage {
                Stage::Waiting => *stage = Stage::Starting,
                Stage::Starting | Stage::Running(_) => {
                    return Err(Error::Conflict(format!(
                        "exec command {} is already running",
                        self.inner.id
                    )));
                }
                Stage::Ended { .. } => {
                    return Err(Error::Conflict(format!(
                        "exec command {} has already run",
                        self.inner.id
                    )));
                }
            }
        }
        // On a task of its own: a client that leaves now leaves no process behind
        // that nobody reaps or knows.
        let exec = self.clone();
        let tracker = &self.inner.container.tools().tracker;
        let started = tracker.spawn(async move { exec.launch(how).await });
        started.await.map_err(|error| Error::internal("the exec's task failed", error))?
    }

    async fn launch(&self, how: ExecStart) -> Result<Option<Attachment>, Error> {
        let request = &self.inner.request;
        self.announce(&format!("exec_start: {}", request.cmd.join(" ")), None);
        let launched = self.run(how).await;
        let mut running = match launched {
            Ok(running) => running,
            Err(error) => {
                let code = error.start_code().unwrap_or(126);
                *self.stage() = Stage::Ended { code, pid: 0 };
                self.forget_later();
                return Err(error);
            }
        };
        let stdio = running.take_stdio();
        *self.stage() = Stage::Running(running.clone());
        if self.inner.doomed.load(Ordering::SeqCst) {
            self.kill();
        }
        let (ended_sender, ended) = watch::channel(false);
        let exec = self.clone();
        self.inner.container.tools().tracker.spawn(async move {
            let pid = running.pid();
            let exit = running.exited().await;
            *exec.stage() = Stage::Ended { code: exit.code, pid };
            exec.announce("exec_die", Some(exit.code));
            ended_sender.send_replace(true);
            exec.forget_later();
        });
        Ok((!how.detach).then(|| attachment(stdio, request, ended)))
    }

    async fn run(&self, how: ExecStart) -> Result<ExecRunning, Error> {
        let container = &self.inner.container;
        let request = &self.inner.request;
        let Some(running) = container.running() else {
            return Err(Error::Conflict(format!("container {} is not running", container.id())));
        };
        let snapshot = container.snapshot();
        let config = &snapshot.record.config;
        let mut env = vec![format!("HOSTNAME={}", config.hostname)];
        crate::spec::merge_env(&mut env, config.env.as_deref().unwrap_or_default());
        crate::spec::merge_env(&mut env, &request.env);
        let pick = |own: &str, other: &str| if own.is_empty() { other } else { own }.to_owned();
        let job = ExecJob {
            id: self.inner.id,
            args: request.cmd.clone(),
            env,
            cwd: pick(&request.working_dir, &config.working_dir),
            user: pick(&request.user, &config.user),
            terminal: how.terminal || request.terminal,
            size: how.size.or(request.console_size),
            privileged: request.privileged,
            stdin: request.stdin && !how.detach,
            detached: how.detach,
            host: Arc::new(snapshot.record.host.clone()),
        };
        running.exec(job).await
    }

    /// Tells its terminal how large it is.
    ///
    /// # Errors
    /// `Conflict` if it does not run.
    pub async fn resize(&self, rows: u16, columns: u16) -> Result<(), Error> {
        match &*self.stage() {
            Stage::Running(running) => running.resize(rows, columns),
            Stage::Waiting | Stage::Starting | Stage::Ended { .. } => {
                Err(Error::Conflict(format!("exec {} is not running", self.inner.id)))
            }
        }
    }

    /// Kills it, now or as soon as it runs.
    pub(super) fn kill(&self) {
        self.inner.doomed.store(true, Ordering::SeqCst);
        if let Stage::Running(running) = &*self.stage()
            && let Err(error) = running.kill()
        {
            tracing::warn!(exec = %self.inner.id, %error, "cannot kill it");
        }
    }

    /// Docker shows an exec for some minutes after its end.
    fn forget_later(&self) {
        if !self.inner.listed {
            return;
        }
        let tools = self.inner.container.tools().clone();
        let id = self.inner.id;
        tools.tracker.clone().spawn(async move {
            tokio::select! {
                () = tokio::time::sleep(Duration::from_secs(300)) => {}
                () = tools.stopping.cancelled() => {}
            }
            tools.registry.remove_exec(id);
        });
    }

    fn announce(&self, action: &str, code: Option<i32>) {
        let snapshot = self.inner.container.snapshot();
        let mut more = vec![("execID", self.inner.id.hex())];
        more.extend(code.map(|code| ("exitCode", code.to_string())));
        self.inner.container.tools().announce(&snapshot.record, action, &more);
    }
}

fn attachment(stdio: ExecStdio, request: &ExecRequest, ended: watch::Receiver<bool>) -> Attachment {
    match stdio {
        ExecStdio::Terminal { input, output } => Attachment {
            output: Some(until_ended(Box::pin(ReaderStream::with_capacity(output, CHUNK)), ended)),
            input: request.stdin.then(|| Box::pin(input) as _),
            terminal: true,
        },
        ExecStdio::Pipes { stdin, stdout, stderr } => {
            let mut streams: Vec<Output> = Vec::new();
            if request.stdout {
                streams.extend(stdout.map(|pipe| framed(1, pipe)));
            }
            if request.stderr {
                streams.extend(stderr.map(|pipe| framed(2, pipe)));
            }
            let merged = Box::pin(stream::select_all(streams));
            Attachment {
                output: Some(until_ended(merged, ended)),
                input: stdin.map(|pipe| Box::pin(pipe) as _),
                terminal: false,
            }
        }
    }
}

/// Docker's 8-byte frames round what the pipe gives.
fn framed(number: u8, pipe: impl AsyncRead + Send + 'static) -> Output {
    Box::pin(ReaderStream::with_capacity(pipe, CHUNK).map(move |read| {
        read.map(|bytes| {
            let mut frame = BytesMut::with_capacity(8 + bytes.len());
            frame.put_u32(u32::from(number) << 24);
            frame.put_u32(u32::try_from(bytes.len()).expect("a chunk is 64 KiB"));
            frame.put_slice(&bytes);
            frame.freeze()
        })
    }))
}

/// Ends after the process has ended, so that its exit code can be asked for;
/// and not much later, even if its children hold the pipe.
fn until_ended(output: Output, ended: watch::Receiver<bool>) -> Output {
    Box::pin(stream::unfold(Some((output, ended)), |going| async move {
        let (mut output, mut ended) = going?;
        match next_or_linger(&mut output, &mut ended).await {
            // A terminal whose last user has gone answers EIO (tty_ioctl(4)).
            Some(Err(error)) if error.raw_os_error() == Some(nix::libc::EIO) => {}
            Some(item) => return Some((item, Some((output, ended)))),
            None => {}
        }
        // An error says that the watcher has gone, after the end.
        drop(ended.wait_for(|ended| *ended).await);
        None
    }))
}

async fn next_or_linger(
    output: &mut Output,
    ended: &mut watch::Receiver<bool>,
) -> Option<io::Result<Bytes>> {
    tokio::select! {
        biased;
        item = output.next() => item,
        () = async { drop(ended.wait_for(|ended| *ended).await) } => {
            timeout(LINGER, output.next()).await.unwrap_or(None)
        }
    }
}
