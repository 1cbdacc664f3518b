//! What one tenant's images are called: pure, no I/O, no clock.

use super::{BadReference, Image, Reference, remote::Remotes};
use crate::{
    error::Error,
    ids::{Digest, ImageId},
};
use sha2::{Digest as _, Sha256};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

/// Images by id, and references to them: `x:tag` and `x@digest`.
#[derive(Debug, Default, Clone)]
pub(super) struct Catalog {
    images: HashMap<ImageId, Arc<Image>>,
    references: BTreeMap<Reference, ImageId>,
    /// Where layers are in registries, by diff id.
    remotes: HashMap<Digest, Remotes>,
}

impl Catalog {
    /// Adds an image, or one more sight of it.
    pub(super) fn add(&mut self, image: Image) {
        self.images.entry(image.id).or_insert_with(|| Arc::new(image));
    }

    /// Gives a name to an image, maybe away from another one.
    pub(super) fn name(&mut self, reference: Reference, id: ImageId, at: i64) {
        let last = self.references.insert(reference, id);
        self.refresh(id, Some(at));
        if let Some(last) = last {
            self.refresh(last, None);
        }
    }

    pub(super) fn unname(&mut self, reference: &Reference) {
        if let Some(id) = self.references.remove(reference) {
            self.refresh(id, None);
        }
    }

    pub(super) fn forget(&mut self, id: ImageId) {
        self.references.retain(|_, named| *named != id);
        self.images.remove(&id);
    }

    /// Writes an image's names into it.
    fn refresh(&mut self, id: ImageId, at: Option<i64>) {
        let (tags, digests) = self.names(id).partition::<Vec<_>, _>(|r| r.digest().is_none());
        if let Some(image) = self.images.get_mut(&id) {
            let image = Arc::make_mut(image);
            image.repo_tags = tags.iter().map(Reference::familiar).collect();
            image.repo_digests = digests.iter().map(Reference::familiar).collect();
            image.tagged_at = at.unwrap_or(image.tagged_at);
        }
    }

    pub(super) fn names(&self, id: ImageId) -> impl Iterator<Item = Reference> {
        self.references.iter().filter(move |(_, named)| **named == id).map(|(r, _)| r.clone())
    }

    pub(super) fn named(&self, reference: &Reference) -> Option<ImageId> {
        self.references.get(reference).copied()
    }

    /// The tags of a reference's repository, and what they name.
    pub(super) fn tags_of(&self, of: &Reference) -> Vec<(Reference, &Arc<Image>)> {
        let is_one = |name: &&Reference| {
            name.digest().is_none()
                && name.registry() == of.registry()
                && name.repository() == of.repository()
        };
        let tags = self.references.iter().filter(|(name, _)| is_one(name));
        tags.filter_map(|(name, id)| Some((name.clone(), self.images.get(id)?))).collect()
    }

    pub(super) fn get(&self, id: ImageId) -> Option<&Arc<Image>> {
        self.images.get(&id)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<Image>> {
        self.images.values()
    }

    /// Whether this tenant has a layer already, and so may use it unseen.
    pub(super) fn has_layer(&self, diff_id: Digest) -> bool {
        self.images.values().any(|image| image.layers.contains(&diff_id))
    }

    pub(super) fn has_children(&self, id: ImageId) -> bool {
        self.images.values().any(|image| image.parent == Some(id))
    }

    /// What is known of those layers in registries.
    pub(super) fn remotes(&self, layers: impl Iterator<Item = Digest>) -> HashMap<Digest, Remotes> {
        layers.filter_map(|layer| Some((layer, self.remotes.get(&layer)?.clone()))).collect()
    }

    pub(super) fn set_remotes(&mut self, layer: Digest, remotes: Remotes) {
        self.remotes.insert(layer, remotes);
    }

    /// Forgets it of layers that no image has any more; tells which.
    pub(super) fn forget_remotes(&mut self, layers: &[Digest]) -> Vec<Digest> {
        let gone = |layer: &&Digest| self.remotes.contains_key(*layer) && !self.has_layer(**layer);
        let gone = layers.iter().filter(gone).copied().collect::<Vec<_>>();
        gone.iter().for_each(|layer| drop(self.remotes.remove(layer)));
        gone
    }

    /// By name, id, or the beginning of an id, as Docker looks them up.
    pub(super) fn find(&self, text: &str) -> Result<&Arc<Image>, Error> {
        let unknown = |what: &str| Error::NotFound(format!("No such image: {what}"));
        if let Some(id) = whole_id(text) {
            return self.get(id).ok_or_else(|| unknown(&id.to_string()));
        }
        let reference = parse(text)?.or_latest();
        // A digest is the stronger name: the tag beside it is for people.
        let stored = match reference.digest() {
            Some(digest) => reference.at(digest),
            None => reference.clone(),
        };
        let found = self.named(&stored).and_then(|id| self.get(id));
        found.or_else(|| self.by_prefix(text)).ok_or_else(|| unknown(&reference.familiar()))
    }

    fn by_prefix(&self, text: &str) -> Option<&Arc<Image>> {
        let digits = text.strip_prefix("sha256:").unwrap_or(text);
        if digits.is_empty() || !digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return None;
        }
        let mut found = self.images.values().filter(|image| image.id.hex().starts_with(digits));
        let first = found.next()?;
        // One of several is none.
        found.next().is_none().then_some(first)
    }

    /// Which of an image's layers another image has, on the same layers below.
    pub(super) fn shared_layers(&self, image: &Image) -> Vec<Digest> {
        let others = self.images.values().filter(|other| other.id != image.id);
        let depth = others.map(|other| {
            let pairs = image.layers.iter().zip(&other.layers);
            pairs.take_while(|(mine, theirs)| mine == theirs).count()
        });
        let depth = depth.max().unwrap_or(0);
        image.layers.iter().take(depth).copied().collect()
    }

    /// Which of an image's chain ids no other image has.
    pub(super) fn chains_only_of(&self, image: &Image) -> Vec<Digest> {
        let others = self.images.values().filter(|other| other.id != image.id);
        let kept = others.flat_map(|other| chain_ids(&other.layers)).collect::<HashSet<_>>();
        chain_ids(&image.layers).into_iter().rev().filter(|id| !kept.contains(id)).collect()
    }
}

/// `sha256:` and 64 digits, or only those.
pub(super) fn whole_id(text: &str) -> Option<ImageId> {
    text.parse().ok().or_else(|| format!("sha256:{text}").parse().ok())
}

pub(super) fn parse(text: &str) -> Result<Reference, Error> {
    text.parse().map_err(|bad: BadReference| Error::Invalid(bad.to_string()))
}

/// Names of stacks of layers: image-spec, "Layer ChainID".
pub(super) fn chain_ids(layers: &[Digest]) -> Vec<Digest> {
    let mut chains = Vec::<Digest>::with_capacity(layers.len());
    for layer in layers {
        let chain = chains
            .last()
            .map_or(*layer, |below| Digest::of(Sha256::digest(format!("{below} {layer}")).into()));
        chains.push(chain);
    }
    chains
}
