//! Stacks of layers as trees: to read from, and to write a new layer over.
//!
//! A tree is an overlay that is mounted nowhere: its descriptor is all there
//! is of it, and it goes with the descriptor, also when the engine is killed.
//! What is written to a [`Draft`] gathers in its upper directory, which then
//! becomes a layer by a rename; its diff id is the digest of the archive that
//! it packs to, so that the layer can be saved and pushed.
//!
//! What must stay true: an upper directory becomes a layer only after its
//! overlay is gone, and never with references to lower layers in it
//! (`redirect_dir` and `metacopy` are off; the packing refuses them).

use super::{
    Pin, Staged, Store, StoreError,
    archive::{
        pack::{Pack, Style},
        unpack,
    },
    rootfs::{root_directory, root_is_changed},
};
use crate::ids::{ContainerId, Digest};
use nix::sched::{CloneFlags, unshare};
use rustix::{
    fd::{AsFd, OwnedFd},
    fs::{CWD, Mode, OFlags},
    io::Errno,
    mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags,
        fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen,
    },
};
use sha2::{Digest as _, Sha256};
use std::{
    ffi::CString,
    fs::DirBuilder,
    io::{self, BufWriter, Write},
    os::unix::{ffi::OsStrExt, fs::DirBuilderExt},
    path::Path,
};

const DIRECTORY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
const BUFFER: usize = 256 << 10;

/// A tree that is being changed. Dropped, it leaves nothing.
#[derive(Debug)]
pub struct Draft {
    root: OwnedFd,
    staged: Staged,
}

/// An upper directory that nobody writes to any more.
#[derive(Debug)]
pub struct Upper(Written);

#[derive(Debug)]
enum Written {
    Here(Staged),
    /// A layer has been made of it already.
    Copied(Option<Pin>),
}

impl Draft {
    /// The root of the tree, for `openat2` and its kin.
    #[must_use]
    pub fn root(&self) -> &OwnedFd {
        &self.root
    }

    /// No more changes.
    #[must_use]
    pub fn finish(self) -> Upper {
        let Self { root, staged } = self;
        drop(root);
        Upper(Written::Here(staged))
    }
}

impl Upper {
    /// Makes a layer of it; none if nothing has changed. Not durable before
    /// [`Store::commit_image`]. Blocks.
    ///
    /// # Errors
    /// It cannot be read or renamed; it refers to lower layers.
    pub fn publish(self) -> Result<Option<Pin>, StoreError> {
        let staged = match self.0 {
            Written::Here(staged) => staged,
            Written::Copied(layer) => return Ok(layer),
        };
        let path = staged.path().to_owned();
        let root = root_is_changed(&path)?;
        let mut entries = std::fs::read_dir(&path).map_err(StoreError::io("read", &path))?;
        if !root && entries.next().is_none() {
            return Ok(None);
        }
        let digest = digest(&path, root)?;
        let size = super::size::of_files(&path)?;
        staged.publish(digest, size, root).map(Some)
    }

    /// One of which [`Store::copy_upper`] has made a layer.
    #[must_use]
    pub fn copied(layer: Option<Pin>) -> Self {
        Self(Written::Copied(layer))
    }
}

/// Of the archive that an upper directory packs to.
fn digest(path: &Path, root: bool) -> Result<Digest, StoreError> {
    let mut hash = BufWriter::with_capacity(BUFFER, Hash(Sha256::new()));
    pack(path, root, &mut hash)?;
    let hash = hash.into_inner();
    let Hash(hash) = hash.map_err(|error| StoreError::io("pack", path)(error.into_error()))?;
    Ok(Digest::of(hash.finalize().into()))
}

fn pack(path: &Path, root: bool, out: &mut dyn Write) -> Result<(), StoreError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let top = rustix::fs::openat(CWD, path, flags, Mode::empty())
        .map_err(|errno| StoreError::io("open", path)(errno.into()))?;
    let mut pack = Pack::new(out, Style::Upper);
    let packed =
        if root { pack.one(top.as_fd(), ".".as_ref(), b".") } else { pack.tree(top.as_fd(), b"") };
    packed.and_then(|()| pack.finish()).map_err(|error| StoreError::Pack(error.into()))
}

struct Hash(Sha256);

impl Write for Hash {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Store {
    /// The files of a stack of layers, lowest first, to read. Its layers must
    /// be pinned for as long. Blocks.
    ///
    /// # Errors
    /// [`StoreError::NoLayer`]; the kernel refuses the mount.
    pub fn view(&self, layers: &[Digest]) -> Result<OwnedFd, StoreError> {
        let mut lower = self.lower(layers)?;
        // Alone it is no overlay: overlayfs wants two.
        if lower.as_slice() == [super::layers::EMPTY] {
            let path = self.layers_dir().join(super::layers::EMPTY);
            return open(&path);
        }
        lower.push(super::layers::EMPTY.to_owned());
        self.overlay(&lower, None)
    }

    /// The same to write to. Blocks.
    ///
    /// # Errors
    /// As [`Store::view`]; the disk is full.
    pub fn draft(&self, layers: &[Digest]) -> Result<Draft, StoreError> {
        let lower = self.lower(layers)?;
        let staged = self.stage_in("upper")?;
        let dir = staged.place().to_owned();
        let (upper, work) = (dir.join("upper"), dir.join("work"));
        for path in [&upper, &work] {
            let made = DirBuilder::new().mode(0o700).create(path);
            made.map_err(StoreError::io("create", path))?;
        }
        root_directory(&upper)?;
        let root = self.overlay(&lower, Some((&upper, &work)))?;
        Ok(Draft { root, staged })
    }

    /// Takes a container's upper directory away from it. The container must
    /// not run, nor ever again. Blocks.
    ///
    /// # Errors
    /// It is not there.
    pub fn take_upper(&self, id: ContainerId) -> Result<Upper, StoreError> {
        let staged = self.stage_in("upper")?;
        let from = self.container_dir(id).join("upper");
        std::fs::rename(&from, staged.path()).map_err(StoreError::io("take away", &from))?;
        Ok(Upper(Written::Here(staged)))
    }

    /// Makes a layer of what a container has written so far, and leaves it to
    /// the container; none if that is nothing. Blocks.
    ///
    /// # Errors
    /// It cannot be read; the disk is full.
    pub fn copy_upper(&self, id: ContainerId) -> Result<Option<Pin>, StoreError> {
        let path = self.container_dir(id).join("upper");
        let root = root_is_changed(&path)?;
        let mut entries = std::fs::read_dir(&path).map_err(StoreError::io("read", &path))?;
        if !root && entries.next().is_none() {
            return Ok(None);
        }
        let mut staged = self.stage_layer()?;
        let recipe = staged.recipe()?;
        let (reader, writer) = io::pipe().map_err(StoreError::io("make a pipe for", &path))?;
        let unpacked = std::thread::scope(|scope| {
            let packing = scope.spawn(|| {
                let mut writer = BufWriter::with_capacity(BUFFER, writer);
                pack(&path, root, &mut writer)
            });
            let unpacked =
                unpack::unpack(reader, staged.path(), Some(recipe), unpack::Limits::default());
            // What could not be packed cannot be unpacked either: it is the cause.
            match packing.join() {
                Ok(packed) => packed?,
                Err(_) => return Err(StoreError::Stopping),
            }
            unpacked
                .map_err(|error| StoreError::io("unpack", staged.path())(io::Error::other(error)))
        })?;
        if let Some(archive) = unpacked.archive {
            staged.has_recipe(archive);
        }
        staged.publish(unpacked.diff_id, unpacked.size, unpacked.root).map(Some)
    }

    /// Mounts it, nowhere. `lower`: uppermost first.
    fn overlay(
        &self,
        lower: &[String],
        over: Option<(&Path, &Path)>,
    ) -> Result<OwnedFd, StoreError> {
        let layers = self.layers_dir();
        let mounted = match detached(&layers, lower, over) {
            // Linux before 6.7 has no `lowerdir+`, and fsconfig(2) takes
            // strings of at most 255 bytes.
            Err(Errno::INVAL) => elsewhere(&layers, lower, over),
            mounted => mounted.map_err(io::Error::from),
        };
        mounted.map_err(StoreError::io("mount layers of", &layers))
    }
}

fn open(path: &Path) -> Result<OwnedFd, StoreError> {
    let opened = rustix::fs::openat(CWD, path, DIRECTORY, Mode::empty());
    opened.map_err(|errno| StoreError::io("open", path)(errno.into()))
}

fn detached(
    layers: &Path,
    lower: &[String],
    over: Option<(&Path, &Path)>,
) -> Result<OwnedFd, Errno> {
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    for name in lower {
        fsconfig_set_string(&context, "lowerdir+", layers.join(name))?;
    }
    if let Some((upper, work)) = over {
        fsconfig_set_string(&context, "upperdir", upper)?;
        fsconfig_set_string(&context, "workdir", work)?;
        // Not synced when it goes: that is done once, before it is recorded.
        fsconfig_set_flag(&context, "volatile")?;
    }
    for (key, value) in [("redirect_dir", "off"), ("metacopy", "off"), ("index", "off")] {
        fsconfig_set_string(&context, key, value)?;
    }
    fsconfig_create(&context)?;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::MOUNT_ATTR_NOSUID)
}

/// By mount(2), which has room for a page of options: on a thread with a mount
/// namespace and a working directory of its own, so that neither the host nor
/// other threads see anything of it.
fn elsewhere(layers: &Path, lower: &[String], over: Option<(&Path, &Path)>) -> io::Result<OwnedFd> {
    let data = options(lower, over)?;
    let layers = layers.to_owned();
    let mounting = move || -> io::Result<OwnedFd> {
        unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS)?;
        let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        rustix::mount::mount_change("/", private)?;
        rustix::process::chdir(&layers)?;
        let at = layers.join(super::layers::EMPTY);
        rustix::mount::mount("overlay", &at, "overlay", MountFlags::NOSUID, data.as_c_str())?;
        Ok(rustix::fs::openat(CWD, &at, DIRECTORY, Mode::empty())?)
    };
    let thread = std::thread::Builder::new().name("overlay".to_owned()).spawn(mounting)?;
    thread.join().unwrap_or_else(|_| Err(io::Error::other("the mounting thread has panicked")))
}

/// Lower directories are named from the directory of layers.
fn options(lower: &[String], over: Option<(&Path, &Path)>) -> io::Result<CString> {
    let mut data = format!("lowerdir={}", lower.join(":")).into_bytes();
    if let Some((upper, work)) = over {
        for (key, path) in [("upperdir", upper), ("workdir", work)] {
            data.extend_from_slice(format!(",{key}=").as_bytes());
            for byte in path.as_os_str().as_bytes() {
                // overlayfs splits at these.
                if matches!(byte, b':' | b',' | b'\\') {
                    data.push(b'\\');
                }
                data.push(*byte);
            }
        }
    }
    data.extend_from_slice(b",redirect_dir=off,metacopy=off,index=off");
    Ok(CString::new(data)?)
}

/// Needs root: overlays.
#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, os::unix::fs::PermissionsExt};
    use tokio_util::task::TaskTracker;

    async fn store(dir: &Path) -> Store {
        Store::open(dir, TaskTracker::new()).await.unwrap()
    }

    fn seen(root: &OwnedFd) -> std::path::PathBuf {
        use std::os::fd::AsRawFd;
        std::path::PathBuf::from(format!("/proc/self/fd/{}", root.as_raw_fd()))
    }

    fn write(path: &Path, text: &str) {
        fs::File::create(path).unwrap().write_all(text.as_bytes()).unwrap();
    }

    #[tokio::test]
    async fn what_is_written_over_layers_becomes_a_layer_and_nothing_stays_mounted() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path()).await;
        let draft = store.draft(&[]).unwrap();
        let top = seen(draft.root());
        fs::create_dir_all(top.join("a/b")).unwrap();
        write(&top.join("a/b/file"), "low");
        write(&top.join("gone"), "");
        let low = draft.finish().publish().unwrap().unwrap();
        let draft = store.draft(&[low.digest()]).unwrap();
        let top = seen(draft.root());
        assert_eq!(fs::read_to_string(top.join("a/b/file")).unwrap(), "low");
        fs::remove_file(top.join("gone")).unwrap();
        write(&top.join("a/new"), "high");
        fs::set_permissions(&top, fs::Permissions::from_mode(0o711)).unwrap();
        let high = draft.finish().publish().unwrap().unwrap();
        let layers = [low.digest(), high.digest()];
        let both = [
            store.view(&layers).unwrap(),
            // As kernels before 6.7 need it.
            elsewhere(&store.layers_dir(), &store.lower(&layers).unwrap(), None).unwrap(),
        ];
        for view in &both {
            let top = seen(view);
            assert_eq!(fs::read_to_string(top.join("a/b/file")).unwrap(), "low");
            assert_eq!(fs::read_to_string(top.join("a/new")).unwrap(), "high");
            assert!(!top.join("gone").exists());
            assert_eq!(fs::metadata(&top).unwrap().permissions().mode() & 0o7777, 0o711);
            assert!(fs::File::create(top.join("x")).is_err(), "a view is for reading");
        }
        assert_eq!(store.layer_size(high.digest()), Some(4));
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        assert!(!mounts.contains(&dir.path().display().to_string()));
        assert!(store.draft(&layers).unwrap().finish().publish().unwrap().is_none());
    }

    #[tokio::test]
    async fn a_draft_that_is_dropped_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(dir.path()).await;
        let draft = store.draft(&[]).unwrap();
        write(&seen(draft.root()).join("file"), "x");
        drop(draft);
        assert_eq!(fs::read_dir(dir.path().join("tmp")).unwrap().count(), 0);
    }
}
