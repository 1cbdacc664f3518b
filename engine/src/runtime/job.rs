//! What the room is asked to run.

use crate::{
    ids::{ContainerId, ExecId, ImageId},
    spec::{Config, HostConfig},
};
use std::{os::fd::OwnedFd, path::PathBuf, sync::Arc};
use tritium_supervisor::protocol::{Rootfs, Streams};

/// One container to start.
#[derive(Debug)]
pub struct Job {
    pub id: ContainerId,
    /// Its name and image: for the log.
    pub name: String,
    pub image: ImageId,
    /// Entrypoint and command.
    pub args: Vec<String>,
    pub config: Arc<Config>,
    pub host: Arc<HostConfig>,
    pub rootfs: Rootfs,
    pub files: Files,
    pub mounts: Vec<BindMount>,
    pub network: NetworkNamespace,
    /// The process whose PID namespace is shared (`--pid container:…`).
    pub pid: Option<i32>,
    /// The process whose IPC namespace and /dev/shm are shared.
    pub ipc: Option<i32>,
    /// The json-file log.
    pub log_path: PathBuf,
    /// Clients that attached before the start, and what they want.
    pub attachments: Vec<(Streams, OwnedFd)>,
}

/// Files of the engine that appear in /etc.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    pub hosts: PathBuf,
    pub hostname: PathBuf,
    pub resolv_conf: PathBuf,
}

/// A directory or file of the host inside the container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BindMount {
    pub source: PathBuf,
    pub destination: String,
    pub readonly: bool,
    pub recursive: bool,
    /// `rprivate` and so on, as in mount(8); empty is `rprivate`.
    pub propagation: String,
}

/// Which network the container sees.
#[derive(Debug)]
pub enum NetworkNamespace {
    /// One that has been made for it.
    Given(OwnedFd),
    Host,
    /// That of this process.
    Of(i32),
}

/// One more process to run in a container.
#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "Docker's own struct has them")]
pub struct ExecJob {
    pub id: ExecId,
    pub args: Vec<String>,
    /// `NAME=value`; PATH and TERM get Docker's defaults when absent.
    pub env: Vec<String>,
    /// Empty is the root directory.
    pub cwd: String,
    pub user: String,
    pub terminal: bool,
    /// Rows and columns.
    pub size: Option<(u16, u16)>,
    pub privileged: bool,
    /// Keep its standard input open.
    pub stdin: bool,
    /// Nobody reads its output: /dev/null.
    pub detached: bool,
    /// The container's own: capabilities, seccomp profile, limits.
    pub host: Arc<HostConfig>,
}
