//! What the engine and a supervisor say to each other, and its version.
//!
//! One `SOCK_SEQPACKET` connection carries one JSON message per packet; file
//! descriptors travel beside a message by `SCM_RIGHTS`, in the order that the
//! message's documentation gives. What can be large (a [`Launch`], a
//! [`Process`]) travels as a sealed memfd, since a packet is bounded by the
//! socket's buffer.
//!
//! Supervisors outlive engines and engine upgrades. So everything here only
//! ever grows: new fields are optional, nothing is renamed, and
//! `tests/protocol.rs` holds one golden file per released version.
//!
//! # A supervisor's life
//!
//! ```text
//!  parked ──Launch──▶ running ──init exits──▶ exited ──output drained──▶ gone
//!    │ engine's end of the socket closes
//!    ▼
//!  gone
//! ```
//!
//! *Parked*: started ahead of need with one end of a socket pair as its
//! standard input (fd 0), already inside the control groups that it was given.
//! *Running*: also accepts connections on the listening socket that came with
//! [`Request::Launch`]; each new connection is first sent [`Event::Hello`].
//! *Exited*: writes [`Exit`] to the exit file atomically, then tells every
//! connection, then leaves once the output has been delivered.

use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Grows by one whenever a message gets a field or a new message appears.
pub const VERSION: u32 = 3;

/// What the engine asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case")]
pub enum Request {
    /// Start the container. Descriptors: the memfd with a [`Launch`], the
    /// listening socket, the control group's directory on the v2 tree, then
    /// the network namespace if `Launch::namespaces.network` is
    /// [`Namespace::Given`], then one stream socket per `attachments`.
    /// Answered by [`Event::Started`] or [`Event::Failed`] with `exec: None`.
    Launch { attachments: Vec<Streams> },
    /// Run one more process in the container. Descriptors: the memfd with a
    /// [`Process`]; then, unless `terminal`, its standard input, output and
    /// error. Answered by [`Event::Started`] or [`Event::Failed`].
    Exec { id: String },
    /// Copy the init process's output to a stream socket as Docker's
    /// multiplexed frames (8-byte header: stream, 0, 0, 0, big-endian length);
    /// with a terminal, raw bytes without frames. The stream ends when the
    /// output does. Descriptor: the socket. Answered by [`Event::Attached`].
    Attach { streams: Streams },
    /// The init process shall see end-of-file on its standard input once what
    /// was written has been read. (The engine has closed its own copy.)
    CloseStdin,
}

/// Which of the init process's outputs an attached client wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Streams {
    pub stdout: bool,
    pub stderr: bool,
}

/// What the supervisor tells.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// First on every connection to the listening socket. Descriptors: the
    /// init process's pidfd, then its terminal's master or the write end of
    /// its standard input, if it has one.
    Hello { version: u32, pid: i32, exit: Option<Exit> },
    /// A process has been executed (its `execve` has succeeded). Descriptors
    /// for the init process: as in `Hello`. For an exec: its pidfd, then the
    /// terminal's master if it has a terminal.
    Started { exec: Option<String>, pid: i32 },
    /// The socket of an [`Request::Attach`] gets every byte of output from here
    /// on; sent in the order of the requests.
    Attached {},
    /// A process could not be started; nothing of it is left.
    Failed { exec: Option<String>, failure: Failure },
    /// Something is wrong that does not stop the container: its log has lost
    /// output, or its exit file could not be written.
    Warned { message: String },
    /// A process has ended. For the init process every other process of the
    /// container has been killed as well.
    Exited { exec: Option<String>, exit: Exit },
}

/// Why a process could not be started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The step that failed, in words: `mount /data`, `exec /bin/nope`.
    pub step: String,
    /// The errno value.
    pub errno: i32,
    /// The code that Docker records for it: 127 command or file not found, 126
    /// found but not permitted, 128 anything else.
    pub code: i32,
    /// The sentence for the user, which goes behind Docker's `unable to start
    /// container process: `. Users and working directories are dockerd's own
    /// business there: those begin with `unable to find`, `Cannot mkdir` or
    /// `uids and gids` and stand alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// How a process ended. Also the content of the exit file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// As a shell has it: the status, or 128 + the signal.
    pub code: i32,
    /// The kernel's OOM killer has been at work in the container's group.
    pub oom_killed: bool,
    /// Nanoseconds since 1970.
    pub at: i64,
}

/// Everything it takes to make one container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Launch {
    pub version: u32,
    /// 64 hexadecimal digits.
    pub id: String,
    /// Where the [`Exit`] is written.
    pub exit_file: PathBuf,
    pub process: Process,
    pub hostname: String,
    #[serde(default)]
    pub domainname: String,
    pub rootfs: Rootfs,
    /// In order; later ones may lie below earlier ones.
    pub mounts: Vec<Mount>,
    pub devices: Vec<Device>,
    /// Made unreadable: a directory by an empty tmpfs, a file by /dev/null.
    pub masked_paths: Vec<String>,
    pub readonly_paths: Vec<String>,
    pub namespaces: Namespaces,
    /// `kernel.shm_rmid_forced` ⇒ `1`; written before exec.
    #[serde(default)]
    pub sysctls: Vec<(String, String)>,
    /// Docker's `--init`: process 1 is a reaper that runs the command.
    #[serde(default)]
    pub init: bool,
    /// Keep standard input open (Docker's `-i`), else /dev/null.
    pub stdin: bool,
    pub log: Option<Log>,
    /// Files that say whether the OOM killer was at work: v2 `memory.events`
    /// (`oom_kill N`) or v1 `memory.oom_control` (`oom_kill N`).
    pub oom_file: Option<PathBuf>,
}

/// One process: the container's first, or one more by exec.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    pub args: Vec<String>,
    pub env: Vec<String>,
    /// Made if it is missing, as Docker does.
    pub cwd: String,
    /// Docker's `user[:group]`, by name or number, looked up in the
    /// container's own /etc/passwd and /etc/group. Empty: root.
    pub user: String,
    /// Docker's `--group-add`: names or numbers.
    #[serde(default)]
    pub groups: Vec<String>,
    pub terminal: bool,
    /// Rows and columns the terminal starts with.
    #[serde(default)]
    pub size: Option<(u16, u16)>,
    pub capabilities: Capabilities,
    pub no_new_privileges: bool,
    /// Classic BPF programs, little-endian `struct sock_filter`s in base64,
    /// installed in this order.
    pub seccomp: Vec<String>,
    pub rlimits: Vec<Rlimit>,
    pub oom_score_adj: Option<i32>,
}

/// Bit sets as in capabilities(7): bit N is capability N.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    pub bounding: u64,
    pub permitted: u64,
    pub effective: u64,
    pub inheritable: u64,
    pub ambient: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rlimit {
    /// An `RLIMIT_*` number of getrlimit(2).
    pub resource: u32,
    pub soft: u64,
    pub hard: u64,
}

/// overlayfs, mounted in the container's own mount namespace only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rootfs {
    /// Uppermost first. All below `layers_dir`, given as names in it, so that
    /// 128 of them fit in one page of mount options.
    pub lower: Vec<String>,
    pub layers_dir: PathBuf,
    pub upper: PathBuf,
    pub work: PathBuf,
    /// An empty directory to mount at; nothing shows there outside.
    pub target: PathBuf,
    pub readonly: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "each is one mount flag")]
pub struct Mount {
    pub kind: MountKind,
    /// Absolute, below the container's root; opened without following a link
    /// out of it (`RESOLVE_IN_ROOT`). Made if missing.
    pub destination: String,
    #[serde(default)]
    pub readonly: bool,
    /// `readonly` is not for what is mounted below the source.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub shallow: bool,
    #[serde(default)]
    pub nosuid: bool,
    #[serde(default)]
    pub nodev: bool,
    #[serde(default)]
    pub noexec: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum MountKind {
    Proc,
    Sysfs,
    /// The container's view of its control groups.
    Cgroup,
    Mqueue,
    Devpts,
    /// `data` in tmpfs(5)'s words: `size=65536k,mode=1777`.
    Tmpfs {
        data: String,
    },
    Bind {
        source: PathBuf,
        /// Only this of the source; no link leads out of it
        /// (`RESOLVE_BENEATH`).
        #[serde(default, skip_serializing_if = "String::is_empty")]
        subpath: String,
        recursive: bool,
        propagation: Propagation,
    },
    /// An image's layers, put together by overlayfs where nobody writes:
    /// uppermost first, names in `layers_dir`. One alone is shown as it is.
    Layers {
        lower: Vec<String>,
        layers_dir: PathBuf,
        #[serde(default, skip_serializing_if = "String::is_empty")]
        subpath: String,
    },
    /// The /dev/shm of the container whose process this is.
    SharedMemory {
        pid: i32,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Propagation {
    Private,
    Rprivate,
    Shared,
    Rshared,
    Slave,
    Rslave,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Below the container's root: `/dev/null`.
    pub path: String,
    /// `c` or `b`.
    pub kind: char,
    pub major: u32,
    pub minor: u32,
    /// Permission bits.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Namespaces {
    pub pid: Namespace,
    pub network: Namespace,
    pub ipc: Namespace,
    pub uts: Namespace,
    pub cgroup: Namespace,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Namespace {
    /// One of its own.
    New,
    /// The host's.
    Host,
    /// That of this process (`--pid container:…`, `--network container:…`).
    Of { pid: i32 },
    /// The one whose descriptor came with the message (network only).
    Given,
}

/// Docker's `json-file` log, written by the supervisor so that it goes on
/// while no engine runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Log {
    pub path: PathBuf,
    /// Bytes after which the file is rotated; none: never.
    #[serde(default)]
    pub max_size: Option<u64>,
    /// Files kept, the current one included; at least 1.
    #[serde(default)]
    pub max_file: Option<u32>,
    /// Compress what has been rotated. Since version 3.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub compress: bool,
    /// What every line tells of the container, as a JSON object: Docker's
    /// `attrs`. Since version 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attributes: Option<String>,
}
