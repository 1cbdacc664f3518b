//! The children's steps to `execve`, as straight lists.
//!
//! [`first`] makes the container and becomes its first process, [`further`]
//! joins it. Both run in a child of the supervisor and end in `execve`; what
//! they answer is why that did not come about.
//!
//! What must stay true: the host's files are touched before [`root::enter`]
//! and the container's only through [`inside`](crate::inside) or after it.

use nix::sched::{CloneFlags, setns, unshare};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open, umask};
use std::convert::Infallible;
use tritium_supervisor::protocol::{Failure, Launch, MountKind, Namespace, Process};

use crate::channel::Speaker;
use crate::failure::Step;
use crate::inside::{self, Kind};
use crate::{cgroups, devices, execute, mounts, root};

/// Where Docker shows its reaper.
const REAPER: &str = "/sbin/docker-init";

/// Standard input, output and error of a process without a terminal.
pub(crate) type Stdio = [OwnedFd; 3];

/// Descriptors from the host's side of a launch.
#[derive(Debug)]
pub(crate) struct Given<'a> {
    pub(crate) network: Option<BorrowedFd<'a>>,
    /// By [`foreign`].
    pub(crate) foreign: Vec<(OwnedFd, CloneFlags)>,
    /// By [`donor`].
    pub(crate) donor: Option<OwnedFd>,
    pub(crate) stdio: Option<Stdio>,
    /// A detached mount of this program, if it shall be the reaper.
    pub(crate) reaper: Option<OwnedFd>,
}

/// Makes the container and executes its first process.
pub(crate) fn first(
    launch: &Launch,
    given: &Given<'_>,
    speaker: &Speaker,
) -> Result<Infallible, Failure> {
    begin(&launch.process, given.stdio.as_ref())?;
    umask(Mode::empty());
    join(launch, given)?;
    let hierarchies = match launch.mounts.iter().any(|mount| mount.kind == MountKind::Cgroup) {
        true => cgroups::hierarchies().step("read the control groups")?,
        false => Vec::new(),
    };
    if launch.namespaces.cgroup == Namespace::New {
        unshare(CloneFlags::CLONE_NEWCGROUP).step("unshare the cgroup namespace")?;
    }
    let mut planned = mounts::plan(&launch.mounts, given.donor.as_ref().map(AsFd::as_fd))?;
    root::detach_from_host(launch)?;
    mounts::plan_images(&mut planned, &launch.rootfs.target)?;
    let root = root::mount(&launch.rootfs)?;
    speaker.root(root.as_fd()).step("hand the root out")?;
    for mount in planned {
        mounts::place(root.as_fd(), mount, &hierarchies)?;
    }
    if let Some(program) = &given.reaper {
        show_reaper(root.as_fd(), program.as_fd())?;
    }
    populate(launch, root.as_fd(), speaker)?;
    for (key, value) in &launch.sysctls {
        root::sysctl(key, value, speaker)?;
    }
    root::protect(root.as_fd(), &launch.readonly_paths)?;
    root::mask(root.as_fd(), &launch.masked_paths)?;
    root::make_cwd(root.as_fd(), &launch.process.cwd)?;
    if launch.rootfs.readonly {
        mounts::read_only(root.as_fd(), false).step("make the root read-only")?;
    }
    root::enter(root.as_fd())?;
    name(launch)?;
    umask(Mode::from_raw_mode(0o022));
    let args = match launch.init {
        true => [REAPER, "--"]
            .into_iter()
            .map(str::to_owned)
            .chain(launch.process.args.iter().cloned())
            .collect(),
        false => launch.process.args.clone(),
    };
    execute::execute(&launch.process, &args, speaker)
}

/// Joins the container of the process behind `init` and executes one more.
pub(crate) fn further(
    process: &Process,
    init: BorrowedFd<'_>,
    stdio: Option<&Stdio>,
    speaker: &Speaker,
) -> Result<Infallible, Failure> {
    begin(process, stdio)?;
    // From here on the container's processes can see this one: it takes
    // nothing along that is not theirs.
    tritium_sys::fd::close_others(&[init, speaker.as_fd()])
        .step("close the supervisor's descriptors")?;
    let all = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWCGROUP;
    setns(init, all).step("join the container's namespaces")?;
    if process.terminal {
        let root = rustix::fs::open(
            "/",
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        );
        devices::terminal(root.step("open /")?.as_fd(), process, speaker)?;
    }
    umask(Mode::from_raw_mode(0o022));
    execute::execute(process, &process.args, speaker)
}

/// What needs the host's /proc, and the standard streams.
fn begin(process: &Process, stdio: Option<&Stdio>) -> Result<(), Failure> {
    rustix::process::setsid().step("setsid")?;
    if let Some([input, output, error]) = stdio {
        rustix::stdio::dup2_stdin(input).step("use standard input")?;
        rustix::stdio::dup2_stdout(output).step("use standard output")?;
        rustix::stdio::dup2_stderr(error).step("use standard error")?;
    }
    if let Some(score) = process.oom_score_adj {
        let path = "/proc/self/oom_score_adj";
        let file = rustix::fs::openat(CWD, path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty());
        rustix::io::write(file.step("open oom_score_adj")?, score.to_string().as_bytes())
            .step("write oom_score_adj")?;
    }
    Ok(())
}

/// Joins the namespaces that are somebody else's. The pid namespace is not
/// among them: the supervisor has cloned this child into it.
fn join(launch: &Launch, given: &Given<'_>) -> Result<(), Failure> {
    for (foreign, flag) in &given.foreign {
        setns(foreign, *flag).step("join another container's namespace")?;
    }
    match (&launch.namespaces.network, given.network) {
        (Namespace::Given, Some(network)) => {
            setns(network, CloneFlags::CLONE_NEWNET).step("join the network namespace")
        }
        (Namespace::Given, None) => Err(Errno::BADF).step("join the network namespace"),
        (Namespace::New, _) => {
            tritium_sys::link::loopback_up().step("switch the loopback interface on")
        }
        (Namespace::Host | Namespace::Of { .. }, _) => Ok(()),
    }
}

/// The namespaces that shall be joined. To be opened where their owners'
/// numbers mean something, in the supervisor's pid namespace; and by one whom
/// the guard does not take for a container that looks into another.
pub(crate) fn foreign(launch: &Launch) -> Result<Vec<(OwnedFd, CloneFlags)>, Failure> {
    let namespaces = &launch.namespaces;
    let wanted = [
        (&namespaces.network, "net", CloneFlags::CLONE_NEWNET),
        (&namespaces.ipc, "ipc", CloneFlags::CLONE_NEWIPC),
        (&namespaces.uts, "uts", CloneFlags::CLONE_NEWUTS),
        (&namespaces.cgroup, "cgroup", CloneFlags::CLONE_NEWCGROUP),
    ];
    let mut found = Vec::new();
    for (namespace, name, flag) in wanted {
        if let Namespace::Of { pid } = namespace {
            let path = format!("/proc/{pid}/ns/{name}");
            let open = OFlags::RDONLY | OFlags::CLOEXEC;
            let namespace = rustix::fs::open(&path, open, Mode::empty());
            found.push((namespace.step(&format!("open {path}"))?, flag));
        }
    }
    Ok(found)
}

/// The mount namespace of the container whose /dev/shm is shared; opened like
/// [`foreign`].
pub(crate) fn donor(launch: &Launch) -> Result<Option<OwnedFd>, Failure> {
    let pid = launch.mounts.iter().find_map(|mount| {
        if let MountKind::SharedMemory { pid } = mount.kind { Some(pid) } else { None }
    });
    let Some(pid) = pid else { return Ok(None) };
    let path = format!("/proc/{pid}/ns/mnt");
    let namespace = rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    namespace.step(&format!("open {path}")).map(Some)
}

/// A descriptor of process `pid`.
pub(crate) fn pidfd_of(pid: i32) -> rustix::io::Result<OwnedFd> {
    let pid = Pid::from_raw(pid).ok_or(Errno::SRCH)?;
    pidfd_open(pid, PidfdFlags::empty())
}

/// Docker's `--init`: this very program, under the name that makes it a reaper.
fn show_reaper(root: BorrowedFd<'_>, program: BorrowedFd<'_>) -> Result<(), Failure> {
    let show = || {
        let place = inside::ensure(root, REAPER, Kind::File)?;
        mounts::read_only(program, false)?;
        mounts::attach(program, place.as_fd())
    };
    show().step(&format!("mount {REAPER}"))
}

fn populate(launch: &Launch, root: BorrowedFd<'_>, speaker: &Speaker) -> Result<(), Failure> {
    for device in &launch.devices {
        devices::make(root, device)?;
    }
    devices::link(root)?;
    if launch.process.terminal {
        let slave = devices::terminal(root, &launch.process, speaker)?;
        devices::console(root, slave.as_fd())?;
    }
    Ok(())
}

fn name(launch: &Launch) -> Result<(), Failure> {
    if launch.namespaces.uts != Namespace::New {
        return Ok(());
    }
    rustix::system::sethostname(launch.hostname.as_bytes()).step("sethostname")?;
    if launch.domainname.is_empty() {
        return Ok(());
    }
    rustix::system::setdomainname(launch.domainname.as_bytes()).step("setdomainname")
}
