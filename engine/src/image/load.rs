//! `docker load`: images out of an archive, Docker's or OCI's layout.

use super::{
    Detail, Image, ImageConfig, Images, Platform, Progress, Reference,
    archive::Files,
    catalog,
    ledger::Complete,
    manifest::{Descriptor, Document},
};
use crate::{
    error::Error,
    ids::{Digest, ImageId, TenantName},
};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use std::{io::Read, sync::Arc};

/// Indexes in indexes, at most.
const DEPTH: u32 = 4;

/// One element of `manifest.json`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
    #[serde(default)]
    parent: Option<String>,
}

/// An image in the archive: names of files, and of the image.
#[derive(Debug)]
struct Found {
    config: String,
    layers: Vec<String>,
    names: Vec<Reference>,
    parent: Option<ImageId>,
}

/// Takes all images out of the archive, then registers them.
pub(super) async fn load(
    images: Images,
    tenant: TenantName,
    archive: impl Read + Send + 'static,
    platform: Option<Platform>,
    progress: Progress,
) -> Result<Vec<Arc<Image>>, Error> {
    let (worker, bars) = (images.clone(), progress.clone());
    let unpacked = images.blocking(move || {
        let mut files = Files::read(&worker.0.store, archive, worker.0.limits, &bars)?;
        let found = found(&files, platform.as_ref())?;
        let images = found.into_iter().map(|found| complete(&worker, &mut files, found));
        images.collect::<Result<Vec<_>, Error>>()
    });
    let mut loaded = Vec::new();
    for mut image in unpacked.await? {
        let (names, id) = (image.names.clone(), image.id);
        // A parent that this tenant does not have is no parent.
        image.parent =
            image.parent.filter(|p| images.0.ledger.look(&tenant, |c| c.get(*p).is_some()));
        for name in &names {
            let last = images.0.ledger.look(&tenant, |catalog| catalog.named(name));
            if let Some(last) = last.filter(|last| *last != id) {
                progress.line(format!(
                    "The image {} already exists, renaming the old one with ID {last} to empty \
                     string\n",
                    name.familiar()
                ));
            }
        }
        loaded.push(images.0.ledger.register(&tenant, image).await?);
        for name in &names {
            progress.line(format!("Loaded image: {}\n", name.familiar()));
        }
        if names.is_empty() {
            progress.line(format!("Loaded image ID: {id}\n"));
        }
    }
    Ok(loaded)
}

fn found(files: &Files<'_>, platform: Option<&Platform>) -> Result<Vec<Found>, Error> {
    if !files.has("manifest.json") {
        if files.has("index.json") {
            let mut found = Vec::new();
            let host = Platform::host();
            let platform = platform.unwrap_or(&host);
            from_index(files, "index.json", (None, platform), DEPTH, &mut found)?;
            return Ok(found);
        }
        let text = "invalid archive: does not contain a manifest.json";
        return Err(Error::Invalid(text.to_owned()));
    }
    let text = files.document("manifest.json")?;
    let saved = serde_json::from_str::<Vec<Saved>>(&text)
        .map_err(|source| Error::Invalid(format!("invalid manifest.json: {source}")))?;
    let of_saved = |saved: Saved| {
        let names = saved.repo_tags.unwrap_or_default();
        let names = names.iter().map(|name| Ok(catalog::parse(name)?.or_latest()));
        Ok(Found {
            names: names.collect::<Result<_, Error>>()?,
            config: saved.config,
            layers: saved.layers.unwrap_or_default(),
            parent: saved.parent.and_then(|parent| catalog::whole_id(&parent)),
        })
    };
    saved.into_iter().map(of_saved).collect()
}

/// Docker and containerd write an image's name beside it in the index.
fn name_of(descriptor: &Descriptor) -> Option<Reference> {
    let whole = descriptor.annotations.get("io.containerd.image.name");
    let name = whole.or_else(|| descriptor.annotations.get("org.opencontainers.image.ref.name"))?;
    Some(name.parse::<Reference>().ok()?.or_latest())
}

fn from_index(
    files: &Files<'_>,
    file: &str,
    (name, platform): (Option<&Reference>, &Platform),
    depth: u32,
    found: &mut Vec<Found>,
) -> Result<(), Error> {
    let bad = |why: String| Error::Invalid(format!("invalid {file}: {why}"));
    let text = files.document(file)?;
    match Document::parse(text.as_bytes()).map_err(|error| bad(error.to_string()))? {
        Document::Manifest(manifest) => {
            let layers = manifest.layers.iter().map(|layer| blob(layer.digest)).collect();
            let names = name.cloned().into_iter().collect();
            found.push(Found { config: blob(manifest.config.digest), layers, names, parent: None });
        }
        Document::Index(_) if depth == 0 => return Err(bad("it is nested too deeply".to_owned())),
        Document::Index(index) if depth == DEPTH => {
            for descriptor in &index.manifests {
                let name = name_of(descriptor);
                let wanted = (name.as_ref(), platform);
                from_index(files, &blob(descriptor.digest), wanted, depth - 1, found)?;
            }
        }
        // One image for several platforms.
        Document::Index(index) => {
            let chosen = index.choose(platform);
            let chosen = chosen.ok_or_else(|| bad(format!("there is nothing for {platform}")))?;
            from_index(files, &blob(chosen.digest), (name, platform), depth - 1, found)?;
        }
    }
    Ok(())
}

fn blob(digest: Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

fn complete(images: &Images, files: &mut Files<'_>, found: Found) -> Result<Complete, Error> {
    let raw = files.document(&found.config)?;
    let config = config_of(&raw, found.layers.len())?;
    let layers = found.layers.iter().zip(&config.rootfs.diff_ids);
    let pins = layers.map(|(file, diff_id)| files.layer(file, *diff_id));
    let pins = pins.collect::<Result<Vec<_>, _>>()?;
    Ok(images.complete((raw, config), pins, found.names, found.parent))
}

/// Parses a configuration and checks that it fits its manifest.
pub(super) fn config_of(raw: &str, layers: usize) -> Result<ImageConfig, Error> {
    let config = serde_json::from_str::<ImageConfig>(raw)
        .map_err(|source| Error::Invalid(format!("invalid image configuration: {source}")))?;
    let expected = config.rootfs.diff_ids.len();
    if expected != layers {
        return Err(Error::Invalid(format!(
            "invalid manifest, layers length mismatch: expected {expected}, got {layers}"
        )));
    }
    if layers > crate::storage::MOST_LAYERS {
        return Err(Error::Invalid("max depth exceeded".to_owned()));
    }
    Ok(config)
}

impl Images {
    /// A configuration's bytes, and what they say, with all of its layers.
    pub(super) fn complete(
        &self,
        (raw, config): (String, ImageConfig),
        pins: Vec<crate::storage::Pin>,
        names: Vec<Reference>,
        parent: Option<ImageId>,
    ) -> Complete {
        let sizes = pins.iter().filter_map(|pin| self.0.store.layer_size(pin.digest()));
        Complete {
            id: Digest::of(Sha256::digest(&raw).into()),
            size: sizes.sum(),
            config,
            raw: raw.into(),
            parent,
            names,
            remotes: Vec::new(),
            pins,
        }
    }
}

/// A progress bar that moves as a stream is read.
pub(super) struct Bar<'a> {
    pub(super) progress: &'a Progress,
    pub(super) id: String,
    pub(super) status: &'static str,
    pub(super) total: u64,
}

struct Watched<'a, R> {
    stream: R,
    bar: Bar<'a>,
    current: u64,
    told: u64,
}

/// Bytes between two ticks.
const STEP: u64 = 512 << 10;

impl<'a> Bar<'a> {
    pub(super) fn around<R: Read>(self, stream: R) -> impl Read + use<'a, R> {
        Watched { stream, bar: self, current: 0, told: 0 }
    }
}

impl<R: Read> Read for Watched<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.stream.read(buffer)?;
        self.current += count as u64;
        if self.current >= self.told + STEP || (count == 0 && self.told < self.current) {
            self.told = self.current;
            let detail = Detail { current: self.current, total: Some(self.bar.total) };
            self.bar.progress.tick(&self.bar.id, self.bar.status, detail);
        }
        Ok(count)
    }
}
