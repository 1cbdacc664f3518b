//! Trees of files that a build reads and writes: the context, other stages,
//! the layer under construction.
//!
//! All of them are open by descriptor, and every name is resolved by the
//! kernel as if that descriptor were the root: a link that leads out leads
//! nowhere.

mod copy;
mod find;
mod walk;

pub(super) use copy::{Owner, Put, copy, make_directory, put_stream, put_text};
pub(super) use find::{Found, find, hide};

use crate::error::Error;
use rustix::{
    fd::OwnedFd,
    fs::{Mode, OFlags, ResolveFlags},
    io::Errno,
};
use std::path::Path;

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
/// A pipe must not make the engine wait for its other end.
const FILE: OFlags = OFlags::RDONLY.union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);
/// `openat2` may ask to be called again while others rename; nobody does here.
const TRIES: usize = 8;

/// Opens what is at `path` for a process whose root is `root`.
pub(super) fn open(root: &OwnedFd, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let mut tries = 0;
    loop {
        let opened = rustix::fs::openat2(root, path, flags, Mode::empty(), resolve);
        tries += 1;
        if !matches!(opened, Err(Errno::AGAIN | Errno::INTR)) || tries == TRIES {
            return opened;
        }
    }
}

/// For `map_err`. What the disk lacks is the host's fault; the rest is what
/// the Dockerfile and the files in it make of each other.
pub(super) fn failed(doing: &str, path: &Path) -> impl FnOnce(Errno) -> Error + use<> {
    let text = format!("failed to copy files: cannot {doing} /{}", path.display());
    move |errno| match errno {
        Errno::NOSPC | Errno::DQUOT | Errno::IO | Errno::ROFS | Errno::MFILE | Errno::NFILE => {
            Error::internal(text, std::io::Error::from(errno))
        }
        _ => {
            let cause = std::io::Error::from(errno).to_string();
            let cause = cause.split(" (os error").next().unwrap_or_default().to_lowercase();
            Error::Invalid(format!("{text}: {cause}"))
        }
    }
}
