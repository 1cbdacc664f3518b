//! The container's /dev: nodes, links, and its terminal.

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{self, CWD, FileType, Gid, Mode, OFlags, Uid};
use rustix::io::{Errno, Result};
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;
use tritium_supervisor::protocol::{Device, Failure, Process};

use crate::channel::Speaker;
use crate::failure::Step;
use crate::inside::{self, Kind};
use crate::mounts;

/// The device number of /dev/null (devices.txt: 1:3).
pub(crate) const NULL: u64 = 0x103;
/// The device number of /dev/ptmx (devices.txt: 5:2).
const PTMX: u64 = 0x502;
/// `DEVPTS_SUPER_MAGIC` of linux/magic.h.
const DEVPTS: i64 = 0x1cd1;

/// Makes the node `device` below `root`, or shows the host's where this
/// process may not make any. One that is there already stays.
pub(crate) fn make(root: BorrowedFd<'_>, device: &Device) -> std::result::Result<(), Failure> {
    node(root, device).step(&format!("mknod {}", device.path))
}

fn node(root: BorrowedFd<'_>, device: &Device) -> Result<()> {
    let path = inside::cleaned(&device.path);
    let (parent, name) = path.rsplit_once('/').unwrap_or(("", &path));
    let parent = inside::ensure(root, parent, Kind::Directory)?;
    let kind = if device.kind == 'b' { FileType::BlockDevice } else { FileType::CharacterDevice };
    let mode = Mode::from_raw_mode(device.mode);
    match fs::mknodat(&parent, name, kind, mode, fs::makedev(device.major, device.minor)) {
        Ok(()) => {}
        Err(Errno::EXIST) => return Ok(()),
        Err(Errno::PERM) => {
            let tree = mounts::clone_tree(CWD, &device.path, false)?;
            let place = inside::ensure(root, &path, Kind::File)?;
            return mounts::attach(tree.as_fd(), place.as_fd());
        }
        Err(errno) => return Err(errno),
    }
    if (device.uid, device.gid) == (0, 0) {
        return Ok(());
    }
    let (uid, gid) = (Uid::from_raw(device.uid), Gid::from_raw(device.gid));
    fs::chownat(&parent, name, Some(uid), Some(gid), fs::AtFlags::SYMLINK_NOFOLLOW)
}

/// The links that every /dev has.
pub(crate) fn link(root: BorrowedFd<'_>) -> std::result::Result<(), Failure> {
    const LINKS: [(&str, &str); 5] = [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
        ("ptmx", "pts/ptmx"),
    ];
    let dev = inside::ensure(root, "dev", Kind::Directory).step("open /dev")?;
    for (name, target) in LINKS {
        match fs::symlinkat(target, &dev, name) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno).step(&format!("symlink {target} /dev/{name}")),
        }
    }
    Ok(())
}

/// Opens a terminal in the devpts below `root`, makes it this session's
/// controlling terminal and standard streams, and hands its master out.
pub(crate) fn terminal(
    root: BorrowedFd<'_>,
    process: &Process,
    speaker: &Speaker,
) -> std::result::Result<OwnedFd, Failure> {
    let (master, slave) = open_terminal(root).step("open a terminal")?;
    if let Some((rows, columns)) = process.size {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(&slave, size).step("set the terminal's size")?;
    }
    speaker.terminal(master.as_fd()).step("hand the terminal out")?;
    rustix::process::ioctl_tiocsctty(&slave).step("take the terminal")?;
    rustix::stdio::dup2_stdin(&slave).step("use the terminal")?;
    rustix::stdio::dup2_stdout(&slave).step("use the terminal")?;
    rustix::stdio::dup2_stderr(&slave).step("use the terminal")?;
    Ok(slave)
}

/// The master leaves the container for the engine, so it is looked at: a
/// container that runs could have put anything at this path.
fn open_terminal(root: BorrowedFd<'_>) -> Result<(OwnedFd, OwnedFd)> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NONBLOCK;
    let master = inside::open(root, "dev/pts/ptmx", flags)?;
    let stat = fs::fstat(&master)?;
    let is_ptmx = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
        && stat.st_rdev == PTMX
        && fs::fstatfs(&master)?.f_type == DEVPTS;
    if !is_ptmx {
        return Err(Errno::NODEV);
    }
    rustix::pty::unlockpt(&master)?;
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let slave = rustix::pty::ioctl_tiocgptpeer(&master, flags)?;
    Ok((master, slave))
}

/// Shows the terminal at /dev/console.
pub(crate) fn console(
    root: BorrowedFd<'_>,
    slave: BorrowedFd<'_>,
) -> std::result::Result<(), Failure> {
    let show = || {
        let place = inside::ensure(root, "dev/console", Kind::File)?;
        let tree = mounts::clone_tree(slave, "", false)?;
        mounts::attach(tree.as_fd(), place.as_fd())
    };
    show().step("mount /dev/console")
}
