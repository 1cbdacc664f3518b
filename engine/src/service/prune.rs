//! What nobody uses any more, removed: volumes, containers, images.

use super::{Scope, volumes::ANONYMOUS};
use crate::{
    container::{RemoveOptions, Snapshot},
    error::Error,
    events::{self, Event},
    ids::Digest,
    image::{Image, Removal, Removed},
    storage::size_of,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// What was removed, and how many bytes are free for it.
#[derive(Debug, Clone, Default)]
pub struct Pruned<T> {
    pub removed: Vec<T>,
    pub reclaimed: u64,
}

impl Scope {
    /// Volumes without users: those that were given no name, or `all`. Volumes
    /// with options of the driver are not the engine's to empty.
    ///
    /// # Errors
    /// One of them cannot be removed.
    pub async fn prune_volumes(
        &self,
        all: bool,
        wanted: impl Fn(&BTreeMap<String, String>) -> bool + Send,
    ) -> Result<Pruned<String>, Error> {
        let mut pruned = Pruned { removed: Vec::new(), reclaimed: 0 };
        for view in self.volumes() {
            let volume = &view.used.volume;
            let labels = volume.labels.clone().unwrap_or_default();
            let unused = view.used.users.is_empty() && volume.options.is_empty();
            if !unused || !(all || labels.contains_key(ANONYMOUS)) || !wanted(&labels) {
                continue;
            }
            let size = self.size(view.path.clone()).await?;
            match self.remove_volume(volume.name.as_str()).await {
                Ok(()) => {
                    pruned.removed.push(volume.name.to_string());
                    pruned.reclaimed += size;
                }
                // Taken into use, or removed by somebody else, since we looked.
                Err(Error::Conflict(_) | Error::NotFound(_)) => {}
                Err(error) => return Err(error),
            }
        }
        self.announce_prune("volume", pruned.reclaimed);
        Ok(pruned)
    }

    /// Containers that do not run.
    ///
    /// # Errors
    /// One of them cannot be removed.
    pub async fn prune_containers(
        &self,
        wanted: impl Fn(&Snapshot) -> bool + Send,
    ) -> Result<Pruned<String>, Error> {
        let mut pruned = Pruned { removed: Vec::new(), reclaimed: 0 };
        for snapshot in self.containers() {
            let up = snapshot.state.is_up() || snapshot.state.name() == "restarting";
            if up || !wanted(&snapshot) {
                continue;
            }
            let id = snapshot.record.id.hex();
            let size = self.container_size(&snapshot.record).await?;
            let Ok(handle) = self.container(&id) else { continue };
            match handle.remove(RemoveOptions::default(), &id).await {
                Ok(()) => {
                    pruned.removed.push(id);
                    pruned.reclaimed += size.own;
                }
                // Started, or removed by somebody else, since we looked.
                Err(Error::Conflict(_) | Error::NotFound(_)) => {}
                Err(error) => return Err(error),
            }
        }
        self.announce_prune("container", pruned.reclaimed);
        Ok(pruned)
    }

    /// Images that no container was made from: those without a tag only, or
    /// all of them.
    ///
    /// # Errors
    /// One of them cannot be removed.
    pub async fn prune_images(
        &self,
        dangling_only: bool,
        wanted: impl Fn(&Image) -> bool + Send,
    ) -> Result<Pruned<Removed>, Error> {
        let before = self.layers_of_all();
        let mut pruned = Pruned { removed: Vec::new(), reclaimed: 0 };
        for image in self.images() {
            let dangling = image.repo_tags.is_empty();
            if (dangling_only && !dangling) || self.is_used(&image) || !wanted(&image) {
                continue;
            }
            let names: Vec<String> = match image.repo_tags.as_slice() {
                [] => vec![image.id.to_string()],
                tags => tags.to_vec(),
            };
            for name in names {
                let how = Removal { force: false, no_prune: false };
                match self.remove_image(&name, how).await {
                    Ok(lines) => pruned.removed.extend(lines),
                    // It has children, or has been taken into use since we looked.
                    Err(Error::Conflict(_) | Error::NotFound(_)) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        let after = self.layers_of_all();
        let gone = before.iter().filter(|(layer, _)| !after.contains_key(layer));
        pruned.reclaimed = gone.map(|(_, size)| size).sum();
        self.announce_prune("image", pruned.reclaimed);
        Ok(pruned)
    }

    fn is_used(&self, image: &Arc<Image>) -> bool {
        self.containers().iter().any(|container| container.record.image == image.id)
    }

    /// Every layer of this tenant's images, with its size.
    pub(super) fn layers_of_all(&self) -> BTreeMap<Digest, u64> {
        let layers: BTreeSet<Digest> =
            self.images().iter().flat_map(|image| image.layers.clone()).collect();
        let store = &self.engine.tools.store;
        layers.into_iter().map(|layer| (layer, store.layer_size(layer).unwrap_or(0))).collect()
    }

    /// Bytes in a directory.
    pub(super) async fn size(&self, path: std::path::PathBuf) -> Result<u64, Error> {
        let doing = format!("cannot measure {}", path.display());
        let measured = self.engine.tools.tracker.spawn_blocking(move || match size_of(&path) {
            // Removed since it was listed.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(0),
            measured => measured,
        });
        let measured = measured.await.map_err(std::io::Error::other).flatten();
        measured.map_err(|error| Error::internal(doing, error))
    }

    fn announce_prune(&self, kind: &'static str, reclaimed: u64) {
        self.engine.tools.events.publish(Event {
            tenant: self.tenant.clone(),
            kind,
            action: "prune".into(),
            actor: String::new(),
            attributes: [("reclaimed".to_owned(), reclaimed.to_string())].into(),
            at: events::now(),
        });
    }
}
