//! Unpacked layers, by diff id, shared by all images and tenants.
//!
//! A layer's directory has a short name (`1`, `2`, … in base 36), since the
//! names of all of an image's layers must fit into one page of overlayfs's
//! mount options. The record of a layer maps its diff id to the name.
//!
//! A layer lives while somebody counts on it: an image or a container (that
//! is counted by [`Store::commit_image`], [`Store::hold_layers`],
//! [`Store::rootfs`]; the counts are rebuilt at start by the rooms that have
//! the records), or a [`Pin`] of work in progress. When the last one lets go,
//! its record is removed, then the directory.

use super::{Batch, LayerArchive, RecipeWriter, Store, StoreError, Table};
use crate::ids::Digest;
use serde::{Deserialize, Serialize};
use std::{
    collections::{HashMap, HashSet},
    ffi::OsString,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Mutex,
};

/// The directory that stands below an image without layers.
pub(super) const EMPTY: &str = "0";

/// The directory that stands below a container's image: the places that the
/// runtime mounts at, so that it need not make them in the container's own
/// layer, where they would be taken for something that the container has made.
pub(super) const MOUNT_POINTS: &str = "mount-points";

/// As Docker's overlay2 has it, less the container's own.
pub const MOST: usize = 127;

/// What is on disk about a layer.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct LayerRecord {
    name: String,
    /// Bytes of its files.
    size: u64,
    /// The archive said who owns the root directory, and its mode.
    root: bool,
    /// Bytes of its archive, if there is a recipe for that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    archive: Option<u64>,
}

#[derive(Debug)]
struct Layer {
    record: LayerRecord,
    users: usize,
    /// A record of it may be in the database.
    recorded: bool,
    /// What is new of it on disk may not outlive a power cut yet.
    fresh: bool,
}

#[derive(Debug, Default)]
pub(super) struct Layers {
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    layers: HashMap<Digest, Layer>,
    /// The last name given, as a number.
    last: u64,
}

impl Layers {
    pub(super) fn names(&self) -> HashSet<OsString> {
        self.known().layers.values().map(|layer| layer.record.name.clone().into()).collect()
    }

    /// Names of those that have a recipe.
    pub(super) fn recipes(&self) -> HashSet<OsString> {
        let known = self.known();
        let with = known.layers.values().filter(|layer| layer.record.archive.is_some());
        with.map(|layer| layer.record.name.clone().into()).collect()
    }

    /// Knows those of the records whose directory exists; tells the others.
    pub(super) fn load(
        &self,
        dir: &Path,
        rows: Vec<(String, Vec<u8>)>,
    ) -> Result<Vec<String>, StoreError> {
        let mut known = self.known();
        let mut lost = Vec::new();
        for (key, value) in rows {
            let record: LayerRecord = super::records::read(Table::Layers, &key, &value)?;
            let number = u64::from_str_radix(&record.name, 36).unwrap_or(0);
            known.last = known.last.max(number);
            match key.parse::<Digest>() {
                Ok(digest) if dir.join(&record.name).is_dir() => {
                    known
                        .layers
                        .insert(digest, Layer { record, users: 0, recorded: true, fresh: false });
                }
                _ => lost.push(key),
            }
        }
        Ok(lost)
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().expect("no panic happens under this lock")
    }
}

/// A directory that a layer is being unpacked into. Dropped before
/// [`Staged::publish`], it leaves nothing.
#[derive(Debug)]
pub struct Staged {
    store: Store,
    /// What becomes the layer.
    path: PathBuf,
    /// What is taken away: `path`, or a directory that it stands in.
    place: PathBuf,
    /// The recipe's directory, once there is one.
    recipe: PathBuf,
    /// Bytes of the archive that the recipe makes.
    archive: Option<u64>,
}

/// While this lives, the layer does.
#[derive(Debug)]
pub struct Pin {
    store: Store,
    digest: Digest,
}

impl Pin {
    /// The layer's diff id.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.store.release_layers(&[self.digest]);
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        for path in [&self.place, &self.recipe] {
            if let Err(error) = self.store.trash().take(path) {
                tracing::warn!(error = %error, "cannot remove a half-unpacked layer");
            }
        }
    }
}

impl Staged {
    /// The directory, empty at first, mode 0755.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn place(&self) -> &Path {
        &self.place
    }

    /// Begins the recipe by which the layer's archive can be made again.
    ///
    /// # Errors
    /// The state directory cannot be written to.
    pub(crate) fn recipe(&self) -> Result<RecipeWriter, StoreError> {
        RecipeWriter::create(&self.recipe)
    }

    /// The recipe is complete: it makes an archive of so many bytes.
    pub(crate) fn has_recipe(&mut self, archive: u64) {
        self.archive = Some(archive);
    }

    /// The directory is complete: it becomes the layer `digest`, or is dropped
    /// in favour of the one that is there already (which takes the recipe, if
    /// it has none). Not durable before [`Store::commit_image`]. Blocks.
    ///
    /// # Errors
    /// The directory cannot be renamed.
    pub fn publish(self, digest: Digest, size: u64, root: bool) -> Result<Pin, StoreError> {
        let mut guard = self.store.layers().known();
        let known = &mut *guard;
        if let Some(layer) = known.layers.get_mut(&digest) {
            if layer.record.archive.is_none() && self.archive.is_some() {
                self.place_recipe(&layer.record.name)?;
                layer.record.archive = self.archive;
                layer.fresh = true;
            }
            layer.users += 1;
        } else {
            known.last += 1;
            let name = base36(known.last);
            self.place_recipe(&name)?;
            let path = self.store.layers_dir().join(&name);
            std::fs::rename(&self.path, &path)
                .map_err(StoreError::io("rename into place", &path))?;
            let record = LayerRecord { name, size, root, archive: self.archive };
            known.layers.insert(digest, Layer { record, users: 1, recorded: false, fresh: true });
        }
        drop(guard);
        Ok(Pin { store: self.store.clone(), digest })
    }

    fn place_recipe(&self, name: &str) -> Result<(), StoreError> {
        if self.archive.is_none() {
            return Ok(());
        }
        let path = self.store.recipes_dir().join(name);
        std::fs::rename(&self.recipe, &path).map_err(StoreError::io("rename into place", &path))
    }
}

impl Store {
    /// Begins a layer. Blocks.
    ///
    /// # Errors
    /// The state directory cannot be written to.
    pub fn stage_layer(&self) -> Result<Staged, StoreError> {
        let path = self.temporary_path();
        let made = std::fs::DirBuilder::new().mode(0o755).create(&path);
        made.map_err(StoreError::io("create", &path))?;
        let recipe = self.temporary_path();
        let staged =
            Staged { store: self.clone(), place: path.clone(), path, recipe, archive: None };
        // The umask has had a say.
        let mode = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(&staged.path, mode)
            .map_err(StoreError::io("set the mode of", &staged.path))?;
        Ok(staged)
    }

    /// Begins a layer whose directory, `name`, is yet to come into a place of
    /// its own. Blocks.
    pub(super) fn stage_in(&self, name: &str) -> Result<Staged, StoreError> {
        let place = self.temporary_path();
        let made = std::fs::DirBuilder::new().mode(0o700).create(&place);
        made.map_err(StoreError::io("create", &place))?;
        let recipe = self.temporary_path();
        Ok(Staged { store: self.clone(), path: place.join(name), place, recipe, archive: None })
    }

    /// Keeps a layer, if it is here.
    #[must_use]
    pub fn pin_layer(&self, digest: Digest) -> Option<Pin> {
        self.hold_layers(&[digest]).ok()?;
        Some(Pin { store: self.clone(), digest })
    }

    /// All that are here.
    #[must_use]
    pub fn all_layers(&self) -> Vec<Digest> {
        self.layers().known().layers.keys().copied().collect()
    }

    /// Whether a layer's archive can be made again.
    #[must_use]
    pub fn has_archive(&self, digest: Digest) -> bool {
        self.layers().known().layers.get(&digest).is_some_and(|it| it.record.archive.is_some())
    }

    /// A layer's directory, and whether its root is one of its entries.
    pub(super) fn place_of(&self, digest: Digest) -> Result<(PathBuf, bool), StoreError> {
        let known = self.layers().known();
        let layer = known.layers.get(&digest).ok_or(StoreError::NoLayer(digest))?;
        Ok((self.layers_dir().join(&layer.record.name), layer.record.root))
    }

    /// The recipe at `place` is the layer's from now on, if it has none yet,
    /// and that is durable. Blocks.
    pub(super) fn adopt_recipe(
        &self,
        digest: Digest,
        place: &Path,
        archive: u64,
    ) -> Result<(), StoreError> {
        let batch = {
            let mut known = self.layers().known();
            let layer = known.layers.get_mut(&digest).ok_or(StoreError::NoLayer(digest))?;
            if layer.record.archive.is_some() {
                return Ok(());
            }
            let to = self.recipes_dir().join(&layer.record.name);
            std::fs::rename(place, &to).map_err(StoreError::io("rename into place", &to))?;
            layer.record.archive = Some(archive);
            // What is not recorded yet will be, with this.
            if !layer.recorded {
                return Ok(());
            }
            Batch::default().put(Table::Layers, digest.to_string(), &layer.record)
        };
        self.sync_layers()?;
        self.0.writer.commit(batch).blocking_recv().map_err(|_| StoreError::Stopping)?
    }

    /// Bytes of a layer's archive.
    ///
    /// # Errors
    /// [`StoreError::NoLayer`], [`StoreError::NoArchive`].
    pub fn archive_size(&self, digest: Digest) -> Result<u64, StoreError> {
        let known = self.layers().known();
        let layer = known.layers.get(&digest).ok_or(StoreError::NoLayer(digest))?;
        layer.record.archive.ok_or(StoreError::NoArchive(digest))
    }

    /// The layer's archive, as it was before it was unpacked. The layer must be
    /// pinned, or counted on, until that has been read. Blocks.
    ///
    /// # Errors
    /// [`StoreError::NoLayer`], [`StoreError::NoArchive`]; the recipe is gone.
    pub fn layer_archive(&self, digest: Digest) -> Result<LayerArchive, StoreError> {
        let (name, size) = {
            let known = self.layers().known();
            let layer = known.layers.get(&digest).ok_or(StoreError::NoLayer(digest))?;
            (layer.record.name.clone(), layer.record.archive)
        };
        let size = size.ok_or(StoreError::NoArchive(digest))?;
        let (layer, recipe) = (self.layers_dir().join(&name), self.recipes_dir().join(&name));
        LayerArchive::open(digest, size, &layer, &recipe)
    }

    /// Bytes of a layer's files.
    #[must_use]
    pub fn layer_size(&self, digest: Digest) -> Option<u64> {
        self.layers().known().layers.get(&digest).map(|layer| layer.record.size)
    }

    /// Makes records durable together with the layers that they count on, and
    /// counts on those (once more for each call).
    ///
    /// # Errors
    /// [`StoreError::NoLayer`], or the disk is full; nothing has changed.
    pub async fn commit_image(&self, batch: Batch, layers: &[Digest]) -> Result<(), StoreError> {
        self.hold_layers(layers)?;
        let outcome = self.commit_held(batch, layers).await;
        if outcome.is_err() {
            self.release_layers(layers);
        }
        outcome
    }

    async fn commit_held(&self, mut batch: Batch, layers: &[Digest]) -> Result<(), StoreError> {
        let mut fresh = false;
        {
            let mut known = self.layers().known();
            for digest in layers {
                if let Some(layer) = known.layers.get_mut(digest) {
                    fresh |= std::mem::take(&mut layer.fresh);
                    layer.recorded = true;
                    batch = batch.put(Table::Layers, digest.to_string(), &layer.record);
                }
            }
        }
        if fresh {
            // A record must not outlive a power cut that its layer did not.
            self.blocking(Self::sync_layers).await?;
        }
        self.commit(batch).await
    }

    fn sync_layers(&self) -> Result<(), StoreError> {
        let dir = self.layers_dir();
        let open = std::fs::File::open(&dir).map_err(StoreError::io("open", &dir))?;
        rustix::fs::syncfs(&open).map_err(|errno| StoreError::io("sync", &dir)(errno.into()))
    }

    /// Counts on layers: once for each call and layer.
    ///
    /// # Errors
    /// [`StoreError::NoLayer`]; then on none of them.
    pub fn hold_layers(&self, layers: &[Digest]) -> Result<(), StoreError> {
        let mut known = self.layers().known();
        if let Some(absent) = layers.iter().find(|digest| !known.layers.contains_key(digest)) {
            return Err(StoreError::NoLayer(*absent));
        }
        for digest in layers {
            if let Some(layer) = known.layers.get_mut(digest) {
                layer.users += 1;
            }
        }
        Ok(())
    }

    /// Counts on them no longer. What nobody counts on is removed.
    pub fn release_layers(&self, layers: &[Digest]) {
        let mut known = self.layers().known();
        for digest in layers {
            if let Some(layer) = known.layers.get_mut(digest) {
                layer.users = layer.users.saturating_sub(1);
            }
        }
        self.discard_unused(&mut known, layers);
    }

    /// Removes what a crash between two steps left: layers that nobody counts
    /// on. For when every room has counted, at the end of the engine's start.
    pub fn collect_layers(&self) {
        let mut known = self.layers().known();
        let all = known.layers.keys().copied().collect::<Vec<_>>();
        self.discard_unused(&mut known, &all);
    }

    /// The removals are enqueued under the lock, so that a layer that comes
    /// back gets its new record after the old one has been removed.
    fn discard_unused(&self, known: &mut Known, candidates: &[Digest]) {
        let mut batch = Batch::default();
        let mut paths = Vec::new();
        for digest in candidates {
            if known.layers.get(digest).is_none_or(|layer| layer.users > 0) {
                continue;
            }
            if let Some(layer) = known.layers.remove(digest) {
                paths.push(self.layers_dir().join(&layer.record.name));
                if layer.record.archive.is_some() {
                    paths.push(self.recipes_dir().join(&layer.record.name));
                }
                if layer.recorded {
                    batch = batch.remove(Table::Layers, digest.to_string());
                }
            }
        }
        if !paths.is_empty() {
            self.trash_after(batch, paths);
        }
    }

    /// Names of directories for overlayfs, uppermost first.
    pub(super) fn lower(&self, layers: &[Digest]) -> Result<Vec<String>, StoreError> {
        if layers.len() > MOST {
            return Err(StoreError::TooManyLayers { found: layers.len(), allowed: MOST });
        }
        let known = self.layers().known();
        let mut lower = Vec::<String>::with_capacity(layers.len());
        for digest in layers.iter().rev() {
            let layer = known.layers.get(digest).ok_or(StoreError::NoLayer(*digest))?;
            // overlayfs refuses a directory twice; only the upper one shows.
            if !lower.contains(&layer.record.name) {
                lower.push(layer.record.name.clone());
            }
        }
        if lower.is_empty() {
            lower.push(EMPTY.to_owned());
        }
        Ok(lower)
    }
}

fn base36(mut number: u64) -> String {
    let mut name = Vec::new();
    while number > 0 {
        let digit = u32::try_from(number % 36).unwrap_or(0);
        name.push(char::from_digit(digit, 36).unwrap_or('0'));
        number /= 36;
    }
    name.iter().rev().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_and_read_back() {
        for number in [1, 35, 36, 1_000_000, 36_u64.pow(8) - 1] {
            let name = base36(number);
            assert!(name.len() <= 8);
            assert_eq!(u64::from_str_radix(&name, 36), Ok(number));
        }
    }
}
