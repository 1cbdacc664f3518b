//! How everybody but its driver deals with a container.

use super::Snapshot;
use crate::{error::Error, ids::ExecId, spec::Config};
use bytes::Bytes;
use futures_util::Stream;
use std::{io, pin::Pin, sync::Arc};
use tokio::io::AsyncWrite;

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

impl std::fmt::Debug for Attachment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
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

/// One process to run beside the first, as `POST /containers/{id}/exec` asks.
#[derive(Debug, Clone, Default)]
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

/// A cheap handle on a container.
#[derive(Debug, Clone)]
pub struct Handle {}

impl Handle {
    /// What it looks like now.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        unimplemented!()
    }
    pub async fn start(&self) -> Result<(), Error> {
        unimplemented!()
    }
    /// `signal` and `timeout` (seconds, -1: for ever): else the container's own.
    pub async fn stop(&self, signal: Option<i32>, timeout: Option<i64>) -> Result<(), Error> {
        unimplemented!()
    }
    pub async fn restart(&self, signal: Option<i32>, timeout: Option<i64>) -> Result<(), Error> {
        unimplemented!()
    }
    pub async fn kill(&self, signal: i32) -> Result<(), Error> {
        unimplemented!()
    }
    pub async fn pause(&self) -> Result<(), Error> {
        unimplemented!()
    }
    pub async fn unpause(&self) -> Result<(), Error> {
        unimplemented!()
    }
    pub async fn remove(&self, force: bool, volumes: bool) -> Result<(), Error> {
        unimplemented!()
    }
    /// Registers at once; the future may be awaited later and dropped freely.
    pub fn wait(
        &self,
        condition: WaitCondition,
    ) -> impl Future<Output = Result<WaitOutcome, Error>> + Send + use<> {
        async { unimplemented!() }
    }
    pub async fn attach(&self, options: AttachOptions) -> Result<Attachment, Error> {
        unimplemented!()
    }
    pub async fn resize(&self, rows: u16, columns: u16) -> Result<(), Error> {
        unimplemented!()
    }
    pub async fn logs(&self, options: LogOptions) -> Result<Output, Error> {
        unimplemented!()
    }
    /// `arguments`: ps(1)'s.
    pub async fn top(&self, arguments: &str) -> Result<Top, Error> {
        unimplemented!()
    }
    pub async fn exec_create(&self, request: ExecRequest) -> Result<ExecId, Error> {
        unimplemented!()
    }
}

/// A cheap handle on one exec.
#[derive(Debug, Clone)]
pub struct ExecHandle {}

/// What `GET /exec/{id}/json` shows.
#[derive(Debug, Clone)]
pub struct ExecSnapshot {
    pub id: ExecId,
    pub container: crate::ids::ContainerId,
    pub request: ExecRequest,
    pub running: bool,
    /// `None` until it has ended.
    pub exit_code: Option<i32>,
    /// 0 until it runs.
    pub pid: i32,
}

impl ExecHandle {
    pub fn snapshot(&self) -> ExecSnapshot {
        unimplemented!()
    }
    /// Runs it. Detached: no attachment comes back.
    pub async fn start(
        &self,
        detach: bool,
        terminal: bool,
        size: Option<(u16, u16)>,
    ) -> Result<Option<Attachment>, Error> {
        unimplemented!()
    }
    pub async fn resize(&self, rows: u16, columns: u16) -> Result<(), Error> {
        unimplemented!()
    }
}

#[expect(dead_code, reason = "seam")]
fn seam(_: &Config) {}
