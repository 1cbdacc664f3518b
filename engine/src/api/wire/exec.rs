//! `POST /containers/{id}/exec`, `GET /exec/{id}/json`.

use crate::service::seen::{ExecRequest, ExecSnapshot};
use serde::{Deserialize, Serialize};

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(in crate::api) struct ExecCreate {
    user: Option<String>,
    privileged: Option<bool>,
    tty: Option<bool>,
    console_size: Option<[u16; 2]>,
    attach_stdin: Option<bool>,
    attach_stderr: Option<bool>,
    attach_stdout: Option<bool>,
    detach_keys: Option<String>,
    env: Option<Vec<String>>,
    working_dir: Option<String>,
    cmd: Option<Vec<String>>,
}

impl From<ExecCreate> for ExecRequest {
    fn from(create: ExecCreate) -> Self {
        Self {
            cmd: create.cmd.unwrap_or_default(),
            env: create.env.unwrap_or_default(),
            user: create.user.unwrap_or_default(),
            working_dir: create.working_dir.unwrap_or_default(),
            privileged: create.privileged.unwrap_or_default(),
            terminal: create.tty.unwrap_or_default(),
            stdin: create.attach_stdin.unwrap_or_default(),
            stdout: create.attach_stdout.unwrap_or_default(),
            stderr: create.attach_stderr.unwrap_or_default(),
            detach_keys: create.detach_keys.unwrap_or_default(),
            console_size: size(create.console_size),
        }
    }
}

/// Rows and columns; 0 by 0 is none.
fn size(size: Option<[u16; 2]>) -> Option<(u16, u16)> {
    size.filter(|size| *size != [0, 0]).map(|[rows, columns]| (rows, columns))
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(in crate::api) struct ExecStart {
    detach: Option<bool>,
    tty: Option<bool>,
    console_size: Option<[u16; 2]>,
}

impl ExecStart {
    pub(in crate::api) fn detach(&self) -> bool {
        self.detach.unwrap_or_default()
    }

    pub(in crate::api) fn terminal(&self) -> bool {
        self.tty.unwrap_or_default()
    }

    pub(in crate::api) fn size(&self) -> Option<(u16, u16)> {
        size(self.console_size)
    }
}

#[derive(Debug, Serialize)]
#[expect(clippy::struct_excessive_bools, reason = "Docker's own struct has them")]
pub(in crate::api) struct ExecInspect {
    #[serde(rename = "ID")]
    id: String,
    #[serde(rename = "Running")]
    running: bool,
    /// `null` while it runs.
    #[serde(rename = "ExitCode")]
    exit_code: Option<i32>,
    #[serde(rename = "ProcessConfig")]
    process_config: ProcessConfig,
    #[serde(rename = "OpenStdin")]
    open_stdin: bool,
    #[serde(rename = "OpenStderr")]
    open_stderr: bool,
    #[serde(rename = "OpenStdout")]
    open_stdout: bool,
    #[serde(rename = "CanRemove")]
    can_remove: bool,
    #[serde(rename = "ContainerID")]
    container_id: String,
    #[serde(rename = "DetachKeys")]
    detach_keys: String,
    #[serde(rename = "Pid")]
    pid: i32,
}

#[derive(Debug, Serialize)]
struct ProcessConfig {
    tty: bool,
    entrypoint: String,
    arguments: Vec<String>,
    privileged: bool,
    #[serde(skip_serializing_if = "String::is_empty")]
    user: String,
}

impl From<ExecSnapshot> for ExecInspect {
    fn from(snapshot: ExecSnapshot) -> Self {
        let request = snapshot.request;
        let mut cmd = request.cmd.into_iter();
        Self {
            id: snapshot.id.hex(),
            running: snapshot.running,
            exit_code: snapshot.exit_code,
            process_config: ProcessConfig {
                tty: request.terminal,
                entrypoint: cmd.next().unwrap_or_default(),
                arguments: cmd.collect(),
                privileged: request.privileged,
                user: request.user,
            },
            open_stdin: request.stdin,
            open_stderr: request.stderr,
            open_stdout: request.stdout,
            can_remove: false,
            container_id: snapshot.container.hex(),
            detach_keys: String::new(),
            pid: snapshot.pid,
        }
    }
}
