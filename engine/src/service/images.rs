//! Images of one tenant; what happens to them is told to whoever listens.

use super::Scope;
use crate::{
    error::Error,
    events::{self, Event},
    ids::ImageId,
    image::{Auth, Image, Import, InUse, Platform, Progress, Reference, Removal, Removed},
};
use std::{collections::BTreeMap, sync::Arc};
use tokio::io::AsyncRead;

impl Scope {
    /// By name, id or a prefix of an id that is one only.
    ///
    /// # Errors
    /// `NotFound`; `Invalid` for a name that is none.
    pub fn image(&self, name: &str) -> Result<Arc<Image>, Error> {
        self.engine.images.resolve(&self.tenant, name)
    }

    /// All of them.
    #[must_use]
    pub fn images(&self) -> Vec<Arc<Image>> {
        self.engine.images.list(&self.tenant)
    }

    /// Bytes of an image's layers, unpacked, lowest first.
    #[must_use]
    pub fn layer_sizes(&self, image: &Image) -> Vec<u64> {
        let store = &self.engine.tools.store;
        image.layers.iter().map(|layer| store.layer_size(*layer).unwrap_or(0)).collect()
    }

    /// Gives an image one more name.
    ///
    /// # Errors
    /// `NotFound` for the image.
    pub async fn tag_image(&self, name: &str, new: &Reference) -> Result<(), Error> {
        let image = self.engine.images.tag(&self.tenant, name, new).await?;
        self.announce_image("tag", &image.id.to_string(), &new.familiar(), &labels(&image));
        Ok(())
    }

    /// Takes a name away, or the image and its layers.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` if a container or another name is in the way.
    pub async fn remove_image(&self, name: &str, how: Removal) -> Result<Vec<Removed>, Error> {
        let image = self.image(name)?;
        let (id, labels) = (image.id, labels(&image));
        let users = self.clone();
        let in_use = Arc::new(move |id: &ImageId| users.user_of(id));
        let removed = self.engine.images.remove(&self.tenant, name, how, in_use).await?;
        let id = id.to_string();
        for line in &removed {
            match line {
                Removed::Untagged(_) => self.announce_image("untag", &id, &id, &labels),
                Removed::Deleted(gone) => {
                    let gone = gone.to_string();
                    // Docker tells of the image, not of its parents' layers.
                    if gone == id {
                        self.announce_image("delete", &gone, &gone, &labels);
                    }
                }
            }
        }
        Ok(removed)
    }

    /// The container that keeps an image, a running one rather than another.
    fn user_of(&self, id: &ImageId) -> Option<InUse> {
        let containers = self.containers();
        let users = containers.iter().filter(|container| container.record.image == *id);
        let user = users.max_by_key(|container| container.state.is_up())?;
        Some(InUse { container: user.record.id.short(), running: user.state.is_up() })
    }

    /// `docker load`.
    ///
    /// # Errors
    /// `Invalid` for what is no archive of images.
    pub async fn load_images<R>(&self, archive: R, progress: Progress) -> Result<(), Error>
    where
        R: AsyncRead + Send + Unpin + 'static,
    {
        for image in self.engine.images.load(&self.tenant, archive, progress).await? {
            let id = image.id.to_string();
            self.announce_image("load", &id, &id, &labels(&image));
        }
        Ok(())
    }

    /// `docker import`.
    ///
    /// # Errors
    /// `Invalid` for what is no archive of files, and for changes that are none.
    pub async fn import_image<R>(
        &self,
        archive: R,
        how: Import,
        progress: Progress,
    ) -> Result<(), Error>
    where
        R: AsyncRead + Send + Unpin + 'static,
    {
        let image = self.engine.images.import(&self.tenant, archive, how, progress).await?;
        let id = image.id.to_string();
        self.announce_image("import", &id, &id, &labels(&image));
        Ok(())
    }

    /// `docker pull`.
    ///
    /// # Errors
    /// `NotFound` and `Unauthorized` as the registry says.
    pub async fn pull_image(
        &self,
        reference: &Reference,
        platform: Option<Platform>,
        auth: Option<Auth>,
        progress: Progress,
    ) -> Result<(), Error> {
        let images = &self.engine.images;
        let image = images.pull(&self.tenant, reference, platform, auth, progress).await?;
        let name = reference.familiar_name();
        self.announce_image("pull", &reference.familiar(), &name, &labels(&image));
        Ok(())
    }

    pub(super) fn announce_image(&self, action: &str, id: &str, name: &str, labels: &Labels) {
        let mut attributes = labels.clone();
        attributes.insert("name".into(), name.to_owned());
        self.engine.tools.events.publish(Event {
            tenant: self.tenant.clone(),
            kind: "image",
            action: action.to_owned(),
            actor: id.to_owned(),
            attributes,
            at: events::now(),
        });
    }
}

pub(super) type Labels = BTreeMap<String, String>;

pub(super) fn labels(image: &Image) -> Labels {
    image.config.config.labels.clone()
}
