//! Images of one tenant; what happens to them is told to whoever listens.

use super::{Scope, policy};
use crate::{
    error::Error,
    events::{self, Event},
    ids::ImageId,
    image::{
        Auth, Distribution, Flow, Found as FoundImage, Image, Import, InUse, Platform, Progress,
        Reference, Removal, Removed,
    },
};
use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};
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

    /// The image and those that it was made from, as far as they are here,
    /// newest first.
    #[must_use]
    pub fn lineage(&self, image: &Arc<Image>) -> Vec<Arc<Image>> {
        let parent = |image: &Arc<Image>| {
            let parent = image.parent?;
            self.engine.images.resolve(&self.tenant, &parent.to_string()).ok()
        };
        // As long as a history can be: a record that is its own parent ends, too.
        std::iter::successors(Some(image.clone()), parent).take(1024).collect()
    }

    /// Bytes of an image's layers that other images have too.
    #[must_use]
    pub fn shared_size(&self, image: &Image) -> u64 {
        self.engine.images.shared_size(&self.tenant, image)
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
        let known: HashSet<_> = self.images().iter().map(|image| image.id).collect();
        let users = self.clone();
        let in_use = Arc::new(move |id: &ImageId| users.user_of(id));
        let removed = self.engine.images.remove(&self.tenant, name, how, in_use).await?;
        let id = id.to_string();
        for line in &removed {
            match line {
                Removed::Untagged(_) => self.announce_image("untag", &id, &id, &labels),
                // Of layers too: Docker tells of images only.
                Removed::Deleted(gone) if known.contains(gone) => {
                    let gone = gone.to_string();
                    self.announce_image("delete", &gone, &gone, &Labels::default());
                }
                Removed::Deleted(_) => {}
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
    pub async fn load_images<R>(
        &self,
        archive: R,
        platform: Option<Platform>,
        progress: Progress,
    ) -> Result<(), Error>
    where
        R: AsyncRead + Send + Unpin + 'static,
    {
        for image in self.engine.images.load(&self.tenant, archive, platform, progress).await? {
            let id = image.id.to_string();
            self.announce_image("load", &id, &id, &labels(&image));
        }
        Ok(())
    }

    /// `docker save`.
    ///
    /// # Errors
    /// `NotFound` for one of the names.
    pub async fn save_images(
        &self,
        names: &[String],
        platform: Option<&Platform>,
    ) -> Result<Flow, Error> {
        let saved = self.engine.images.save(&self.tenant, names, platform).await?;
        for image in &saved.images {
            let id = image.id.to_string();
            self.announce_image("save", &id, &id, &labels(image));
        }
        Ok(saved.archive)
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
        let name = how.reference.clone();
        let image = self.engine.images.import(&self.tenant, archive, how, progress).await?;
        let id = image.id.to_string();
        if let Some(name) = name {
            self.announce_image("tag", &id, &name.familiar(), &labels(&image));
        }
        self.announce_image("import", &id, &id, &labels(&image));
        Ok(())
    }

    /// `docker pull`: one image, or all tags of a repository.
    ///
    /// # Errors
    /// `NotFound` and `Unauthorized` as the registry says; `Denied` by policy.
    pub async fn pull_image(
        &self,
        reference: &Reference,
        platform: Option<Platform>,
        auth: Option<Auth>,
        progress: Progress,
    ) -> Result<(), Error> {
        policy::registry(&self.tenant, reference.registry())?;
        let images = &self.engine.images;
        let pulled = images.pull(&self.tenant, reference, platform, auth, progress).await?;
        self.announce_transfer("pull", reference, &pulled);
        Ok(())
    }

    /// `docker push`: one tag, or all of a repository.
    ///
    /// # Errors
    /// `NotFound`; what the registry says; `Denied` by policy.
    pub async fn push_image(
        &self,
        reference: &Reference,
        platform: Option<Platform>,
        auth: Option<Auth>,
        progress: Progress,
    ) -> Result<(), Error> {
        policy::registry(&self.tenant, reference.registry())?;
        let images = &self.engine.images;
        let pushed = images.push(&self.tenant, reference, platform, auth, progress).await?;
        self.announce_transfer("push", reference, &pushed);
        Ok(())
    }

    /// An image's labels, if it is one image.
    fn announce_transfer(&self, action: &str, reference: &Reference, images: &[Arc<Image>]) {
        let is_one = reference.tag().is_some() || reference.digest().is_some();
        let one = images.first().filter(|_| is_one);
        let labels = one.map(|image| labels(image)).unwrap_or_default();
        self.announce_image(action, &reference.familiar(), &reference.familiar_name(), &labels);
    }

    /// `docker login`: a token to show the next time, which may be empty.
    ///
    /// # Errors
    /// `Unauthorized`; the registry cannot be reached; `Denied` by policy.
    pub async fn login(&self, registry: &str, auth: Auth) -> Result<String, Error> {
        policy::registry(&self.tenant, registry)?;
        self.engine.images.login(&self.tenant, registry, auth).await
    }

    /// What a registry says of an image.
    ///
    /// # Errors
    /// `NotFound` and `Unauthorized` as the registry says; `Denied` by policy.
    pub async fn distribution(
        &self,
        reference: &Reference,
        auth: Option<Auth>,
    ) -> Result<Distribution, Error> {
        policy::registry(&self.tenant, reference.registry())?;
        self.engine.images.distribution(&self.tenant, reference, auth).await
    }

    /// `docker search`.
    ///
    /// # Errors
    /// The registry cannot be reached or searched; `Denied` by policy.
    pub async fn search(
        &self,
        term: &str,
        limit: u32,
        auth: Option<&Auth>,
    ) -> Result<Vec<FoundImage>, Error> {
        let host = term.split_once('/').map_or("", |(host, _)| host);
        policy::registry(&self.tenant, host)?;
        self.engine.images.search(&self.tenant, term, limit, auth).await
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
