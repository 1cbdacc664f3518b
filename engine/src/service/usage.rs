//! How much room this tenant's things take: `docker system df`, `ps -s`.

use super::{Scope, VolumeView};
use crate::{
    container::{Record, Snapshot},
    error::Error,
    ids::Digest,
    image::Image,
};
use std::{collections::HashMap, sync::Arc};

/// Bytes of a container.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ContainerSize {
    /// What it has written (Docker's `SizeRw`).
    pub own: u64,
    /// With its image (Docker's `SizeRootFs`).
    pub all: u64,
}

/// An image, and how much of it others have too.
#[derive(Debug, Clone)]
pub struct ImageUsage {
    pub image: Arc<Image>,
    /// Bytes of layers that another image has as well.
    pub shared: u64,
    /// How many containers were made from it.
    pub containers: usize,
}

impl Scope {
    /// Measures what a container has written.
    ///
    /// # Errors
    /// Its directory cannot be read.
    pub async fn container_size(&self, record: &Record) -> Result<ContainerSize, Error> {
        let store = &self.engine.tools.store;
        let own = self.size(store.container_dir(record.id).join("upper")).await?;
        let image: u64 =
            record.layers.iter().map(|layer| store.layer_size(*layer).unwrap_or(0)).sum();
        Ok(ContainerSize { own, all: own + image })
    }

    /// All images, and bytes of all their layers.
    #[must_use]
    pub fn image_usage(&self) -> (Vec<ImageUsage>, u64) {
        let sizes = self.layers_of_all();
        let images = self.images();
        let mut users: HashMap<Digest, usize> = HashMap::new();
        for image in &images {
            for layer in &image.layers {
                *users.entry(*layer).or_default() += 1;
            }
        }
        let containers = self.containers();
        let usage = images.into_iter().map(|image| {
            let shared = image.layers.iter().filter(|layer| users.get(layer) > Some(&1));
            let shared = shared.filter_map(|layer| sizes.get(layer)).sum();
            let containers = containers.iter().filter(|it| it.record.image == image.id).count();
            ImageUsage { image, shared, containers }
        });
        (usage.collect(), sizes.values().sum())
    }

    /// All containers with what they have written.
    ///
    /// # Errors
    /// A directory cannot be read.
    pub async fn container_usage(&self) -> Result<Vec<(Arc<Snapshot>, ContainerSize)>, Error> {
        let mut usage = Vec::new();
        for snapshot in self.containers() {
            let size = self.container_size(&snapshot.record).await?;
            usage.push((snapshot, size));
        }
        Ok(usage)
    }

    /// All volumes that are directories of the engine's, with what is in them.
    ///
    /// # Errors
    /// A directory cannot be read.
    pub async fn volume_usage(&self) -> Result<Vec<(VolumeView, u64)>, Error> {
        let mut usage = Vec::new();
        // The size of what is mounted from elsewhere says nothing of this disk.
        for view in self.volumes().into_iter().filter(|it| it.used.volume.options.is_empty()) {
            let size = self.size(view.path.clone()).await?;
            usage.push((view, size));
        }
        Ok(usage)
    }
}
