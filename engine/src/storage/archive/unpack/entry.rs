//! One entry of the archive, made into one file.

use super::{
    BUFFER, UnpackError,
    beneath::{Inside, Root, make_opaque, write},
};
use rustix::{
    fd::{AsFd, AsRawFd, OwnedFd},
    fs::{AtFlags, Dev, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags},
    io::Errno,
};
use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::{Path, PathBuf},
};
use tar::EntryType;
use tritium_sys::fd::begin_writing;

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
/// Of aufs, about itself; Docker skips them too.
const AUFS: &[u8] = b".wh..wh.";
/// From this size on, zeros are worth looking for.
const LARGE: u64 = 1 << 20;
/// So much of a layer's file goes to the disk while more comes: the sync before
/// the layer's record has less to wait for.
const WRITEBACK: u64 = 8 << 20;

/// Who owns a file, what may be done with it, and what else is known of it.
struct Attributes {
    uid: u32,
    gid: u32,
    mode: u32,
    time: Timespec,
    xattrs: Vec<(String, Vec<u8>)>,
    /// Into what is there already, which may be on any file system.
    of_tree: bool,
}

impl Attributes {
    /// A volume's file system may know no extended attributes.
    fn allow(&self, set: Result<(), Errno>) -> Result<(), Errno> {
        if self.of_tree && set == Err(Errno::NOTSUP) { Ok(()) } else { set }
    }
}

/// Makes the file, directory, link, device or whiteout. How many bytes it has.
pub(super) fn place<R: Read>(
    root: &mut Root,
    entry: &mut tar::Entry<'_, R>,
) -> Result<u64, UnpackError> {
    let name = entry.path_bytes().into_owned();
    let kind = entry.header().entry_type();
    if kind.is_pax_global_extensions() {
        return Ok(0);
    }
    let path = Inside::parse(&name)?;
    let last = path.split().map_or(OsStr::new(""), |(_, last)| last).as_bytes();
    if root.is_layer() && last == OPAQUE {
        let parent = path.path().parent().unwrap_or(Path::new(""));
        make_opaque(root.parent(parent)?, parent)?;
        return Ok(0);
    }
    if root.is_layer() && last.starts_with(AUFS) {
        return Ok(0);
    }
    if root.is_layer()
        && let Some(hidden) = last.strip_prefix(WHITEOUT)
    {
        return whiteout(root, &path, hidden).map(|()| 0);
    }
    let mut attributes = attributes(entry, path.path())?;
    attributes.of_tree = !root.is_layer();
    (attributes.uid, attributes.gid) = root.owner().unwrap_or((attributes.uid, attributes.gid));
    // Before POSIX, a directory was a file whose name ends so.
    let directory_comes = kind.is_dir() || (is_file(kind) && name.ends_with(b"/"));
    root.may_replace(&path, directory_comes)?;
    if directory_comes {
        return directory(root, &path, &attributes).map(|()| 0);
    }
    if path.split().is_none() {
        return Err(UnpackError::Outside { path: PathBuf::from(OsString::from_vec(name)) });
    }
    if is_file(kind) {
        return file(root, &path, &attributes, entry);
    }
    let target = entry.link_name_bytes().map(std::borrow::Cow::into_owned).unwrap_or_default();
    if kind.is_hard_link() {
        hard_link(root, &path, &target)?;
    } else if kind.is_symlink() {
        symlink(root, &path, &attributes, &target)?;
    } else if kind.is_character_special() || kind.is_block_special() || kind.is_fifo() {
        device(root, &path, &attributes, entry.header())?;
    } else {
        let kind = format!("{:?}", kind.as_byte() as char);
        return Err(UnpackError::Kind { path: path.path().to_owned(), kind });
    }
    Ok(0)
}

fn is_file(kind: EntryType) -> bool {
    kind.is_file() || kind.is_contiguous() || kind.is_gnu_sparse()
}

fn attributes<R: Read>(
    entry: &mut tar::Entry<'_, R>,
    path: &Path,
) -> Result<Attributes, UnpackError> {
    let read = |source| UnpackError::Read { source };
    let header = entry.header();
    let raw = header.as_old();
    let uid = number(&raw.uid, header.uid())?;
    let gid = number(&raw.gid, header.gid())?;
    let mode = number(&raw.mode, header.mode().map(u64::from))? & 0o7777;
    let seconds = if is_blank(&raw.mtime) { 0 } else { header.mtime().map_err(read)? };
    let seconds = i64::try_from(seconds).unwrap_or(0);
    let mut time = Timespec { tv_sec: seconds, tv_nsec: 0 };
    let mut xattrs = Vec::new();
    for extension in entry.pax_extensions().map_err(read)?.into_iter().flatten() {
        let extension = extension.map_err(read)?;
        let Ok(key) = extension.key() else { continue };
        if key == "mtime" {
            time = extension.value().ok().and_then(seconds_of).unwrap_or(time);
        } else if key.starts_with("GNU.sparse.") {
            let kind = "a sparse file in PAX format".to_owned();
            return Err(UnpackError::Kind { path: path.to_owned(), kind });
        } else if let Some(name) = key.strip_prefix("SCHILY.xattr.") {
            xattr(path, name, extension.value_bytes(), &mut xattrs)?;
        }
    }
    Ok(Attributes { uid, gid, mode, time, xattrs, of_tree: false })
}

/// Go's writer and others leave a field empty for zero.
fn is_blank(raw: &[u8]) -> bool {
    raw.iter().all(|byte| matches!(byte, 0 | b' '))
}

fn number(raw: &[u8], parsed: io::Result<u64>) -> Result<u32, UnpackError> {
    let read = |source| UnpackError::Read { source };
    if is_blank(raw) {
        return Ok(0);
    }
    u32::try_from(parsed.map_err(read)?).map_err(|_| read(io::ErrorKind::InvalidData.into()))
}

/// What only an attack would ask for is refused, what means nothing here left out.
fn xattr(
    path: &Path,
    name: &str,
    value: &[u8],
    xattrs: &mut Vec<(String, Vec<u8>)>,
) -> Result<(), UnpackError> {
    if name.starts_with("trusted.") || name.starts_with("user.overlay.") || name.contains('\0') {
        return Err(UnpackError::Xattr { path: path.to_owned(), name: name.to_owned() });
    }
    if crate::storage::archive::is_portable(name) {
        xattrs.push((name.to_owned(), value.to_owned()));
    }
    Ok(())
}

/// `1700000000.123456789`
fn seconds_of(text: &str) -> Option<Timespec> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let mut digits = fraction.bytes().chain(std::iter::repeat(b'0')).take(9);
    let tv_nsec = digits.try_fold(0_i64, |nanos, digit| {
        digit.is_ascii_digit().then(|| nanos * 10 + i64::from(digit - b'0'))
    })?;
    let tv_sec = whole.parse().ok()?;
    if text.starts_with('-') && tv_nsec > 0 {
        return Some(Timespec { tv_sec: tv_sec - 1, tv_nsec: 1_000_000_000 - tv_nsec });
    }
    Some(Timespec { tv_sec, tv_nsec })
}

fn whiteout(root: &mut Root, path: &Inside, hidden: &[u8]) -> Result<(), UnpackError> {
    let (parent, _) = path.split().unwrap_or((Path::new(""), OsStr::new("")));
    if matches!(hidden, b"" | b"." | b"..") {
        return Err(UnpackError::Outside { path: path.path().to_owned() });
    }
    let target = Inside::parse(&[parent.as_os_str().as_bytes(), b"/", hidden].concat())?;
    match root.is_directory(&target)? {
        // This layer has it anew: the file hides the lower one by itself.
        Some(false) => Ok(()),
        Some(true) => {
            let opened = root.enter(target.path()).map_err(write("open", target.path()))?;
            make_opaque(opened, target.path())
        }
        None => {
            let directory = root.parent(parent)?;
            let name = OsStr::from_bytes(hidden);
            rustix::fs::mknodat(directory, name, FileType::CharacterDevice, Mode::empty(), 0)
                .map_err(write("hide", target.path()))
        }
    }
}

fn directory(root: &mut Root, path: &Inside, is: &Attributes) -> Result<(), UnpackError> {
    let at = path.path();
    if let Some((parent, name)) = path.split() {
        let mut hides = false;
        if root.is_directory(path)? != Some(true) {
            hides = root.clear(path)?;
            rustix::fs::mkdirat(root.parent(parent)?, name, Mode::from_raw_mode(0o700))
                .map_err(write("make", at))?;
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = rustix::fs::openat(root.parent(parent)?, name, flags, Mode::empty())
            .map_err(write("open", at))?;
        if hides {
            make_opaque(&opened, at)?;
        }
        dress(&opened, at, is)?;
    } else {
        root.explicit();
        let opened = root.enter(at).map_err(write("open", at))?;
        dress(&opened, at, is)?;
    }
    root.time_later(at, is.time);
    Ok(())
}

fn file<R: Read>(
    root: &mut Root,
    path: &Inside,
    is: &Attributes,
    entry: &mut tar::Entry<'_, R>,
) -> Result<u64, UnpackError> {
    let at = path.path();
    let (parent, name) = path.split().unwrap_or((Path::new(""), OsStr::new("")));
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mode = Mode::from_raw_mode(0o600);
    let opened = match rustix::fs::openat(root.parent(parent)?, name, flags, mode) {
        Err(Errno::EXIST) => {
            root.clear(path)?;
            rustix::fs::openat(root.parent(parent)?, name, flags, mode)
        }
        opened => opened,
    };
    let mut file = File::from(opened.map_err(write("make", at))?);
    let size = entry.size();
    let parts = entry.header().entry_type().is_gnu_sparse();
    // Of a sparse file the archive has the parts only: they go into the recipe.
    if !parts {
        root.content(path, &file, size)?;
    }
    let sparse = parts || size >= LARGE;
    fill(&mut file, entry, (sparse, root.is_layer()), at)?;
    let file = OwnedFd::from(file);
    dress(&file, at, is)?;
    let times = Timestamps { last_access: is.time, last_modification: is.time };
    rustix::fs::futimens(&file, &times).map_err(write("set the time of", at))?;
    Ok(size)
}

/// Copies the entry's bytes; long runs of zeros in a large file become holes:
/// most writers send a sparse file's holes so. `durable`: it will be synced.
fn fill<R: Read>(
    file: &mut File,
    entry: &mut tar::Entry<'_, R>,
    (sparse, durable): (bool, bool),
    at: &Path,
) -> Result<(), UnpackError> {
    let size = entry.size();
    let failed = |source| UnpackError::Write { doing: "write", path: at.to_owned(), source };
    let mut buffer = [0; BUFFER];
    let (mut copied, mut begun) = (0_u64, 0_u64);
    loop {
        let count = entry.read(&mut buffer).map_err(|source| UnpackError::Read { source })?;
        let bytes = buffer.get(..count).unwrap_or_default();
        if bytes.is_empty() {
            break;
        }
        copied += bytes.len() as u64;
        if sparse && bytes.iter().all(|byte| *byte == 0) {
            file.seek(SeekFrom::Start(copied)).map_err(failed)?;
        } else {
            file.write_all(bytes).map_err(failed)?;
        }
        if durable && copied - begun >= WRITEBACK {
            begun = copied;
            begin_writing(file.as_fd());
        }
    }
    if copied != size {
        return Err(UnpackError::Read { source: io::ErrorKind::UnexpectedEof.into() });
    }
    if sparse {
        file.set_len(size).map_err(failed)?;
    }
    // Of small ones, many go in one request later.
    if durable && copied >= BUFFER as u64 {
        begin_writing(file.as_fd());
    }
    Ok(())
}

fn hard_link(root: &mut Root, path: &Inside, target: &[u8]) -> Result<(), UnpackError> {
    let at = path.path();
    let target = Inside::parse(target)?;
    if target == *path {
        return Ok(());
    }
    let (Some((from, old)), Some((parent, new))) = (target.split(), path.split()) else {
        return Err(UnpackError::Outside { path: at.to_owned() });
    };
    let from = root.enter(from).map_err(write("find the target of", at))?;
    let mut linked = rustix::fs::linkat(&from, old, root.parent(parent)?, new, AtFlags::empty());
    if linked == Err(Errno::EXIST) {
        root.clear(path)?;
        linked = rustix::fs::linkat(&from, old, root.parent(parent)?, new, AtFlags::empty());
    }
    linked.map_err(write("link", at))
}

fn symlink(
    root: &mut Root,
    path: &Inside,
    is: &Attributes,
    target: &[u8],
) -> Result<(), UnpackError> {
    let at = path.path();
    let (parent, name) = path.split().unwrap_or((Path::new(""), OsStr::new("")));
    root.clear(path)?;
    let directory = root.parent(parent)?;
    rustix::fs::symlinkat(OsStr::from_bytes(target), directory, name).map_err(write("link", at))?;
    dress_name(directory, name, at, is)
}

fn device(
    root: &mut Root,
    path: &Inside,
    is: &Attributes,
    header: &tar::Header,
) -> Result<(), UnpackError> {
    let at = path.path();
    let (parent, name) = path.split().unwrap_or((Path::new(""), OsStr::new("")));
    let (old_major, old_minor) = ([0; 8], [0; 8]);
    let (raw_major, raw_minor) = match (header.as_ustar(), header.as_gnu()) {
        (Some(ustar), _) => (&ustar.dev_major, &ustar.dev_minor),
        (None, Some(gnu)) => (&gnu.dev_major, &gnu.dev_minor),
        // Before POSIX there were none.
        (None, None) => (&old_major, &old_minor),
    };
    let given = |number: io::Result<Option<u32>>| number.map(|n| u64::from(n.unwrap_or(0)));
    let major = number(raw_major, given(header.device_major()))?;
    let minor = number(raw_minor, given(header.device_minor()))?;
    let kind = header.entry_type();
    let (kind, number): (FileType, Dev) = if kind.is_fifo() {
        (FileType::Fifo, 0)
    } else if kind.is_character_special() {
        (FileType::CharacterDevice, rustix::fs::makedev(major, minor))
    } else {
        (FileType::BlockDevice, rustix::fs::makedev(major, minor))
    };
    root.clear(path)?;
    let directory = root.parent(parent)?;
    rustix::fs::mknodat(directory, name, kind, Mode::from_raw_mode(0o600), number)
        .map_err(write("make the device", at))?;
    dress_name(directory, name, at, is)?;
    // It is no link: it has just been made, and nobody else is here.
    rustix::fs::chmodat(directory, name, Mode::from_raw_mode(is.mode), AtFlags::empty())
        .map_err(write("set the mode of", at))
}

/// The owner first, since that takes away setuid bits and capabilities.
fn dress(file: impl AsFd, at: &Path, is: &Attributes) -> Result<(), UnpackError> {
    let file = file.as_fd();
    rustix::fs::fchown(file, Some(Uid::from_raw(is.uid)), Some(Gid::from_raw(is.gid)))
        .map_err(write("set the owner of", at))?;
    rustix::fs::fchmod(file, Mode::from_raw_mode(is.mode)).map_err(write("set the mode of", at))?;
    for (name, value) in &is.xattrs {
        let set = rustix::fs::fsetxattr(file, name.as_str(), value, XattrFlags::empty());
        is.allow(set).map_err(write("set an extended attribute of", at))?;
    }
    Ok(())
}

/// The same for what cannot be opened: links and devices. Not the mode.
fn dress_name(
    directory: impl AsFd,
    name: &OsStr,
    at: &Path,
    is: &Attributes,
) -> Result<(), UnpackError> {
    let directory = directory.as_fd();
    let (uid, gid) = (Some(Uid::from_raw(is.uid)), Some(Gid::from_raw(is.gid)));
    rustix::fs::chownat(directory, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)
        .map_err(write("set the owner of", at))?;
    let here = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd())).join(name);
    for (key, value) in &is.xattrs {
        let set = rustix::fs::lsetxattr(&here, key.as_str(), value, XattrFlags::empty());
        is.allow(set).map_err(write("set an extended attribute of", at))?;
    }
    let times = Timestamps { last_access: is.time, last_modification: is.time };
    rustix::fs::utimensat(directory, name, &times, AtFlags::SYMLINK_NOFOLLOW)
        .map_err(write("set the time of", at))
}
