//! A container's own directories.

use super::{Store, StoreError, layers::EMPTY};
use crate::ids::{ContainerId, Digest};
use std::{
    fs::DirBuilder,
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

/// Where one container's root filesystem is, ready to be mounted as overlayfs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rootfs {
    /// Uppermost first; names in `layers_dir`. Never empty: an image without
    /// layers has an empty directory below it.
    pub lower: Vec<String>,
    pub layers_dir: PathBuf,
    pub upper: PathBuf,
    pub work: PathBuf,
    /// An empty directory to mount at.
    pub target: PathBuf,
    /// The container's own directory: for its log, hosts file, and so on.
    pub dir: PathBuf,
}

impl Store {
    /// Makes a new container's directories, and counts on its layers.
    /// `layers` are diff ids, lowest first.
    ///
    /// # Errors
    /// [`StoreError::NoLayer`] when the image has just been removed; the disk
    /// is full. Nothing is left then.
    pub async fn create_rootfs(
        &self,
        id: ContainerId,
        layers: &[Digest],
    ) -> Result<Rootfs, StoreError> {
        let layers = layers.to_vec();
        self.blocking(move |store| {
            let rootfs = store.rootfs(id, &layers)?;
            let made = Self::make(&rootfs);
            if made.is_err() {
                store.forget(id);
                store.trash().take(&rootfs.dir)?;
            }
            made.map(|()| rootfs)
        })
        .await
    }

    /// The same for a container that exists already. Call it for every
    /// container when the engine starts: it counts on the layers (once, however
    /// often it is called).
    ///
    /// # Errors
    /// [`StoreError::NoLayer`].
    pub fn rootfs(&self, id: ContainerId, layers: &[Digest]) -> Result<Rootfs, StoreError> {
        let mut lower = self.lower(layers)?;
        lower.push(super::layers::MOUNT_POINTS.to_owned());
        {
            let mut containers = self.containers();
            if let std::collections::hash_map::Entry::Vacant(place) = containers.entry(id) {
                self.hold_layers(layers)?;
                place.insert(layers.to_vec());
            }
        }
        let dir = self.container_dir(id);
        Ok(Rootfs {
            lower,
            layers_dir: self.layers_dir(),
            upper: dir.join("upper"),
            work: dir.join("work"),
            target: dir.join("merged"),
            dir,
        })
    }

    /// A container also counts on these: of images that are mounted in it.
    ///
    /// # Errors
    /// [`StoreError::NoLayer`].
    pub fn hold_for(&self, id: ContainerId, layers: &[Digest]) -> Result<(), StoreError> {
        self.hold_layers(layers)?;
        self.mounted().entry(id).or_default().extend(layers);
        Ok(())
    }

    /// An image where nobody writes to it: names of directories, uppermost
    /// first, and where they are. One alone is to be shown as it is.
    ///
    /// # Errors
    /// [`StoreError::NoLayer`].
    pub fn read_only_layers(
        &self,
        layers: &[Digest],
    ) -> Result<(Vec<String>, PathBuf), StoreError> {
        let mut lower = self.lower(layers)?;
        if lower.last().is_none_or(|last| last != EMPTY) {
            // overlayfs wants two where there is nothing to write to.
            lower.push(EMPTY.to_owned());
        }
        Ok((lower, self.layers_dir()))
    }

    /// The container's own directory: for its log, hosts file, and so on.
    #[must_use]
    pub fn container_dir(&self, id: ContainerId) -> PathBuf {
        self.dir().join("containers").join(id.hex())
    }

    /// Removes a container's directories, and counts on its layers no longer.
    /// No error if there are none. They are out of sight when this returns,
    /// and removed in the background.
    ///
    /// # Errors
    /// The directory cannot be renamed.
    pub async fn remove_rootfs(&self, id: ContainerId) -> Result<(), StoreError> {
        self.blocking(move |store| {
            store.trash().take(&store.dir().join("containers").join(id.hex()))?;
            store.forget(id);
            Ok(())
        })
        .await
    }

    fn forget(&self, id: ContainerId) {
        let own = self.containers().remove(&id);
        let mounted = self.mounted().remove(&id);
        for layers in [own, mounted].into_iter().flatten() {
            self.release_layers(&layers);
        }
    }

    fn make(rootfs: &Rootfs) -> Result<(), StoreError> {
        for path in [&rootfs.dir, &rootfs.work, &rootfs.target, &rootfs.upper] {
            let made = DirBuilder::new().mode(0o700).create(path);
            made.map_err(StoreError::io("create", path))?;
        }
        root_directory(&rootfs.upper)
    }
}

/// The mode of a container's `/`, whatever its image says, as with Docker: an
/// image that was made of a private directory serves other users than root, too.
const ROOT_MODE: u32 = 0o755;

/// An upper directory's owner and mode are those of the container's `/`.
pub(super) fn root_directory(upper: &Path) -> Result<(), StoreError> {
    let mode = std::fs::Permissions::from_mode(ROOT_MODE);
    std::fs::set_permissions(upper, mode).map_err(StoreError::io("set the mode of", upper))
}

/// An upper directory's owner or mode is not what it was at first.
pub(super) fn root_is_changed(upper: &Path) -> Result<bool, StoreError> {
    let found = std::fs::metadata(upper).map_err(StoreError::io("look at", upper))?;
    Ok((found.uid(), found.gid(), found.mode() & 0o7777) != (0, 0, ROOT_MODE))
}
