//! How everybody but its driver deals with a container.

use super::{ExecHandle, Snapshot, State, driver::Request, exec, logs, tools::Tools, top};
use crate::{
    error::Error,
    ids::{ContainerId, ExecId, TenantName},
    runtime::Running,
    storage::Upper,
};
use bytes::Bytes;
use futures_util::Stream;
use std::{fmt, io, pin::Pin, sync::Arc};
use tokio::{
    io::AsyncWrite,
    sync::{RwLock, broadcast, mpsc, oneshot, watch},
};

/// Bytes ready for the client: Docker's multiplexed frames, or raw with a
/// terminal. Ends when the process's output has ended.
pub type Output = Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>;

/// A process's standard input. `shutdown` is end-of-file.
pub type Input = Pin<Box<dyn AsyncWrite + Send>>;

/// What an attached client gets.
pub struct Attachment {
    pub output: Option<Output>,
    pub input: Option<Input>,
    /// The output is raw, not framed.
    pub terminal: bool,
}

impl fmt::Debug for Attachment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attachment").field("terminal", &self.terminal).finish_non_exhaustive()
    }
}

/// What an attaching client asks for.
#[derive(Debug, Clone, Copy, Default)]
#[expect(clippy::struct_excessive_bools, reason = "these are Docker's query parameters")]
pub struct AttachOptions {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    /// Go on with what comes.
    pub stream: bool,
    /// Begin with what the log has.
    pub logs: bool,
}

/// Which part of the log, and how.
#[derive(Debug, Clone, Copy, Default)]
#[expect(clippy::struct_excessive_bools, reason = "these are Docker's query parameters")]
pub struct LogOptions {
    pub stdout: bool,
    pub stderr: bool,
    pub follow: bool,
    pub timestamps: bool,
    /// Lines from the end; `None`: all.
    pub tail: Option<u64>,
    /// Nanoseconds since 1970.
    pub since: Option<i64>,
    pub until: Option<i64>,
    /// Show the labels and variables the log driver recorded.
    pub details: bool,
}

/// How a container is removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RemoveOptions {
    /// If it runs, it is killed first.
    pub force: bool,
    /// The volumes that were given no name go with it.
    pub volumes: bool,
}

/// When `docker wait` shall answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaitCondition {
    NotRunning,
    NextExit,
    Removed,
}

/// What `docker wait` answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaitOutcome {
    pub code: i32,
    pub error: Option<String>,
}

/// `docker top`: the columns of ps(1) and a row a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Top {
    pub titles: Vec<String>,
    pub processes: Vec<Vec<String>>,
}

/// A cheap handle on a container.
#[derive(Clone)]
pub struct Handle {
    inner: Arc<Inner>,
}

/// Held for reading by who looks at the container's files, for writing while it
/// is started.
pub(super) type Views = Arc<RwLock<()>>;

pub(super) struct Inner {
    pub(super) id: ContainerId,
    pub(super) tenant: TenantName,
    pub(super) requests: mpsc::Sender<Request>,
    pub(super) seen: watch::Receiver<Arc<Snapshot>>,
    pub(super) running: watch::Receiver<Option<Running>>,
    /// Weak, so that those who wait learn when the driver has left.
    pub(super) exits: broadcast::WeakSender<WaitOutcome>,
    pub(super) tools: Tools,
    pub(super) views: Views,
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Handle({})", self.inner.id)
    }
}

/// The driver has left: the container has been removed meanwhile.
fn gone(id: ContainerId) -> Error {
    Error::NotFound(format!("No such container: {id}"))
}

impl Handle {
    pub(super) fn new(inner: Inner) -> Self {
        Self { inner: Arc::new(inner) }
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> ContainerId {
        self.inner.id
    }

    /// Whose it is.
    #[must_use]
    pub fn tenant(&self) -> &TenantName {
        &self.inner.tenant
    }

    /// What it looks like now.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.inner.seen.borrow().clone()
    }

    /// The processes, while there are any.
    #[must_use]
    pub fn running(&self) -> Option<Running> {
        self.inner.running.borrow().clone()
    }

    pub(super) fn tools(&self) -> &Tools {
        &self.inner.tools
    }

    pub(super) fn views(&self) -> &Views {
        &self.inner.views
    }

    pub(super) fn seen(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.inner.seen.clone()
    }

    fn exits(&self) -> broadcast::Receiver<WaitOutcome> {
        match self.inner.exits.upgrade() {
            Some(exits) => exits.subscribe(),
            // Removed: a channel without a sender says so at once.
            None => broadcast::channel(1).1,
        }
    }

    /// Dropping this future abandons the answer, never the work.
    async fn ask<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<Result<T, Error>>) -> Request,
    ) -> Result<T, Error> {
        let (done, outcome) = oneshot::channel();
        let id = self.inner.id;
        self.inner.requests.send(request(done)).await.map_err(|_| gone(id))?;
        outcome.await.map_err(|_| gone(id))?
    }

    /// Starts it.
    ///
    /// # Errors
    /// `NotModified` if it runs; `NotStarted` with the reason.
    pub async fn start(&self) -> Result<(), Error> {
        self.ask(|done| Request::Start { done }).await
    }

    /// `signal` and `timeout` (seconds, -1: for ever): else the container's own.
    ///
    /// # Errors
    /// `NotModified` if it does not run.
    pub async fn stop(&self, signal: Option<i32>, timeout: Option<i64>) -> Result<(), Error> {
        self.ask(|done| Request::Stop { signal, timeout, restart: false, done }).await
    }

    /// Stops it, if it runs, and starts it.
    ///
    /// # Errors
    /// As `start`.
    pub async fn restart(&self, signal: Option<i32>, timeout: Option<i64>) -> Result<(), Error> {
        self.ask(|done| Request::Stop { signal, timeout, restart: true, done }).await
    }

    /// Sends a signal; with SIGKILL waits until it has ended.
    ///
    /// # Errors
    /// `Conflict` if it does not run.
    pub async fn kill(&self, signal: i32) -> Result<(), Error> {
        self.ask(|done| Request::Kill { signal, done }).await
    }

    /// Freezes every process of it.
    ///
    /// # Errors
    /// `Conflict` if it does not run or is paused.
    pub async fn pause(&self) -> Result<(), Error> {
        self.ask(|done| Request::Freeze { freeze: true, done }).await
    }

    /// Lets them go on.
    ///
    /// # Errors
    /// `Conflict` if it is not paused.
    pub async fn unpause(&self) -> Result<(), Error> {
        self.ask(|done| Request::Freeze { freeze: false, done }).await
    }

    /// Removes it and everything of it. `called`: how the user named it, for
    /// the refusal.
    ///
    /// # Errors
    /// `Conflict` if it runs and `force` is not given.
    pub async fn remove(&self, how: RemoveOptions, called: &str) -> Result<(), Error> {
        let called = called.to_owned();
        self.ask(|done| Request::Remove { how, called, done }).await
    }

    /// A build leaves it to the user: it outlives the engine from now on.
    ///
    /// # Errors
    /// The disk is full.
    pub(crate) async fn keep(&self) -> Result<(), Error> {
        self.ask(|done| Request::Keep { done }).await
    }

    /// Takes what it has written, and removes it.
    ///
    /// # Errors
    /// `Conflict` if it runs.
    pub(crate) async fn surrender(&self) -> Result<Upper, Error> {
        self.ask(|done| Request::Surrender { done }).await
    }

    /// Connects it to a network, now or when it starts.
    pub(crate) async fn join(&self, joining: super::Joining) -> Result<(), Error> {
        self.ask(|done| Request::Join { joining: Box::new(joining), done }).await
    }

    /// Takes it from a network.
    pub(crate) async fn part(&self, network: String) -> Result<(), Error> {
        self.ask(|done| Request::Part { network, done }).await
    }

    /// The caller has taken the name.
    pub(crate) async fn rename(&self, name: String) -> Result<(), Error> {
        self.ask(|done| Request::Rename { name, done }).await
    }

    /// Changes limits and restart policy of a container, running or not.
    ///
    /// # Errors
    /// The kernel refuses a limit.
    pub(crate) async fn update(&self, change: super::Update) -> Result<(), Error> {
        self.ask(|done| Request::Update { change: Box::new(change), done }).await
    }

    /// Registers at once; the future may be awaited later and dropped freely.
    ///
    /// # Errors
    /// None yet: what cannot be waited for has been removed.
    pub fn wait(
        &self,
        condition: WaitCondition,
    ) -> impl Future<Output = Result<WaitOutcome, Error>> + Send + use<> {
        let mut exits = self.exits();
        let mut seen = self.inner.seen.clone();
        let now = self.snapshot();
        async move {
            let outcome_now = |state: &State| {
                let error = state.error().map(str::to_owned);
                WaitOutcome { code: state.exit_code(), error }
            };
            match condition {
                WaitCondition::NotRunning if !now.state.is_up() => Ok(outcome_now(&now.state)),
                WaitCondition::NotRunning | WaitCondition::NextExit => match exits.recv().await {
                    Ok(outcome) => Ok(outcome),
                    Err(_removed) => Ok(outcome_now(&now.state)),
                },
                WaitCondition::Removed => {
                    let mut outcome = outcome_now(&now.state);
                    loop {
                        tokio::select! {
                            biased;
                            exit = exits.recv() => match exit {
                                Ok(exit) => outcome = exit,
                                Err(_removed) => return Ok(outcome),
                            },
                            // The driver drops its end when all is gone.
                            changed = seen.changed() => if changed.is_err() { return Ok(outcome) },
                        }
                    }
                }
            }
        }
    }

    /// Connects a client to the first process's streams, now or once it runs.
    ///
    /// # Errors
    /// `Conflict` while it is paused.
    pub async fn attach(&self, options: AttachOptions) -> Result<Attachment, Error> {
        self.ask(|done| Request::Attach { options, done }).await
    }

    /// Tells its terminal how large it is.
    ///
    /// # Errors
    /// `Conflict` if it does not run.
    pub async fn resize(&self, rows: u16, columns: u16) -> Result<(), Error> {
        let Some(running) = self.running() else { return Err(self.not_running()) };
        running.resize(rows, columns)?;
        let size = [("height", rows.to_string()), ("width", columns.to_string())];
        self.inner.tools.announce(&self.snapshot().record, "resize", &size);
        Ok(())
    }

    /// What it has said so far, and with `follow` what it says until it ends.
    ///
    /// # Errors
    /// The log driver keeps nothing that could be read.
    pub async fn logs(&self, options: LogOptions) -> Result<Output, Error> {
        let snapshot = self.snapshot();
        let record = &snapshot.record;
        if !matches!(record.host.log_config.kind.as_str(), "json-file" | "local" | "") {
            return Err(Error::Unsupported(
                "configured logging driver does not support reading".into(),
            ));
        }
        let reader = logs::Reader {
            path: self.inner.tools.log_path(record.id),
            options,
            terminal: record.config.tty,
        };
        let (sender, alive) = watch::channel(snapshot.state.is_up());
        if options.follow {
            let mut seen = self.inner.seen.clone();
            self.inner.tools.tracker.spawn(async move {
                // Both ends count: the container stops, or the reader leaves.
                tokio::select! {
                    _ = seen.wait_for(|snapshot| !snapshot.state.is_up()) => {}
                    () = sender.closed() => {}
                }
                sender.send_replace(false);
            });
        }
        Ok(logs::read(reader, alive, &self.inner.tools.tracker))
    }

    /// `arguments`: ps(1)'s.
    ///
    /// # Errors
    /// `Conflict` if it does not run; what ps says of its arguments.
    pub async fn top(&self, arguments: &str) -> Result<Top, Error> {
        let Some(running) = self.running() else { return Err(self.not_running()) };
        let pids = running.processes()?.into_iter().collect();
        let top = top::top(arguments, &pids).await?;
        self.inner.tools.announce(&self.snapshot().record, "top", &[]);
        Ok(top)
    }

    /// Notes a process that is to run beside the first.
    ///
    /// # Errors
    /// `Conflict` if the container does not run or is paused.
    pub async fn exec_create(&self, request: exec::ExecRequest) -> Result<ExecId, Error> {
        match self.snapshot().state {
            State::Running { .. } => {}
            State::Paused { .. } => {
                return Err(Error::Conflict(format!(
                    "Container {} is paused, unpause the container before exec",
                    self.inner.id
                )));
            }
            State::Created { .. }
            | State::Restarting { .. }
            | State::Exited { .. }
            | State::Removing => {
                return Err(Error::Conflict(format!("container {} is not running", self.inner.id)));
            }
        }
        self.check_user(&request.user).await?;
        let exec = ExecHandle::new(self.clone(), request);
        let id = exec.id();
        self.inner.tools.registry.insert_exec(exec);
        Ok(id)
    }

    fn not_running(&self) -> Error {
        Error::Conflict(format!("container {} is not running", self.inner.id))
    }
}
