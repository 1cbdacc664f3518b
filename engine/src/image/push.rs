//! `docker push`: an image's layers, configuration and manifest to a registry.
//!
//! Layers' archives are made again from their recipes and compressed on the
//! way: nothing is written to the disk. What the registry has already, there
//! or in another repository, is not sent. The work stops when nobody waits for
//! it any more: a push that nobody watches is not wanted.

use super::{
    Auth, Image, Images, Platform, Progress, Reference,
    distribution::told,
    load::Bar,
    pipe,
    registry::{Access, Mount, RegistryError, Repository},
    remote::{Remote, Remotes},
};
use crate::{
    error::Error,
    ids::{Digest, TenantName},
    storage::{Pin, Store, StoreError},
};
use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use futures_util::{FutureExt, StreamExt, TryStreamExt};
use reqwest::{Body, Url};
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use std::{
    collections::{BTreeSet, HashMap},
    io::{self, BufRead, BufReader, Write},
    sync::Arc,
    time::Duration,
};

const MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
/// Layers at once, as in Docker.
const PARALLEL: usize = 5;
/// Times a layer is sent before it is given up.
const TRIES: u32 = 5;
const PAUSE: Duration = Duration::from_millis(200);
/// Blobs of which a registry is asked whether it has them, for one layer.
const CHECKS: usize = 4;
const BUFFER: usize = 128 << 10;

/// What the manifest says of a blob; in Docker's order, since the manifest's
/// digest depends on it.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct Described {
    media_type: &'static str,
    size: u64,
    digest: Digest,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    schema_version: u32,
    media_type: &'static str,
    config: Described,
    layers: Vec<Described>,
}

/// What to push: one tag, or all of a repository.
#[derive(Debug)]
pub(super) struct Wish {
    pub(super) tenant: TenantName,
    pub(super) reference: Reference,
    pub(super) platform: Option<Platform>,
    pub(super) auth: Option<Auth>,
}

struct Push<'a> {
    images: &'a Images,
    wish: &'a Wish,
    repository: Repository,
    progress: Progress,
}

/// Pushes, and says which images those were.
pub(super) async fn push(
    images: &Images,
    wish: &Wish,
    progress: Progress,
) -> Result<Vec<Arc<Image>>, Error> {
    let reference = &wish.reference;
    if reference.digest().is_some() {
        return Err(Error::Invalid("cannot push a digest reference".to_owned()));
    }
    let (registry, name) = (reference.registry(), reference.repository());
    progress.status(format!("The push refers to repository [{registry}/{name}]"));
    let tags = images.0.ledger.look(&wish.tenant, |catalog| {
        let tags = catalog.tags_of(reference).into_iter();
        tags.map(|(tag, image)| (tag, image.clone())).collect::<Vec<_>>()
    });
    if tags.is_empty() {
        let name = reference.familiar_name();
        let text = format!("An image does not exist locally with the tag: {name}");
        return Err(Error::NotFound(text));
    }
    let asked = |(tag, _): &(Reference, Arc<Image>)| {
        reference.tag().is_none_or(|wanted| tag.tag() == Some(wanted))
    };
    let tags = tags.into_iter().filter(asked).collect::<Vec<_>>();
    if tags.is_empty() {
        return Err(Error::NotFound(format!("tag does not exist: {}", reference.familiar())));
    }
    let layers = tags.iter().flat_map(|(_, image)| &image.layers).copied();
    let known = images.0.ledger.look(&wish.tenant, |catalog| catalog.remotes(layers));
    let sources = known.values().flat_map(|remotes| remotes.sources(registry, name));
    let from = sources.map(|remote| remote.repository).collect::<BTreeSet<_>>();
    let access = Access::Push { from: from.into_iter().collect() };
    let repository = Repository::open(&wish.tenant, reference, wish.auth.clone(), access).await;
    let repository = repository.map_err(told)?;
    let push = Push { images, wish, repository, progress };
    for (tag, image) in &tags {
        push.image(tag, image, &known).await?;
    }
    Ok(tags.into_iter().map(|(_, image)| image).collect())
}

impl Push<'_> {
    async fn image(
        &self,
        tag: &Reference,
        image: &Arc<Image>,
        known: &HashMap<Digest, Remotes>,
    ) -> Result<(), Error> {
        if let Some(platform) = self.wish.platform.as_ref().filter(|it| !it.is_of(image)) {
            let text = format!("{} does not provide the platform {platform}", tag.familiar());
            return Err(Error::NotFound(text));
        }
        let mut unique = Vec::<Digest>::new();
        for layer in image.layers.iter().rev() {
            if !unique.contains(layer) {
                self.progress.about(&layer.short(), "Preparing");
                unique.push(*layer);
            }
        }
        let nothing = Remotes::default();
        let work = unique.iter().map(|diff_id| {
            let known = known.get(diff_id).unwrap_or(&nothing);
            async move { Ok::<_, Error>((*diff_id, self.layer(*diff_id, known).await?)) }.boxed()
        });
        let sent = futures_util::stream::iter(work.collect::<Vec<_>>()).buffer_unordered(PARALLEL);
        let sent = sent.try_collect::<HashMap<_, Remote>>().await?;
        let remembered = sent.iter().map(|(diff_id, remote)| (*diff_id, remote.clone()));
        let remembered = remembered.collect();
        let layers = image.layers.iter().filter_map(|diff_id| sent.get(diff_id));
        let layers = layers.map(|sent| Described {
            media_type: LAYER,
            size: sent.size,
            digest: sent.digest,
        });
        let config = self.config(image).await?;
        let manifest = manifest(config, layers.collect())?;
        let digest = Digest::of(Sha256::digest(&manifest).into());
        let (size, name) = (manifest.len(), tag.tag().unwrap_or("latest"));
        self.repository.put_manifest(name, MANIFEST, manifest.into()).await.map_err(told)?;
        let ledger = &self.images.0.ledger;
        ledger.pushed(&self.wish.tenant, (image.id, tag.at(digest)), remembered).await?;
        self.progress.status(format!("{name}: digest: {digest} size: {size}"));
        self.progress.aux(serde_json::json!({
            "Tag": name, "Digest": digest.to_string(), "Size": size,
        }));
        Ok(())
    }

    async fn config(&self, image: &Image) -> Result<Described, Error> {
        let bytes = Bytes::copy_from_slice(image.raw.as_bytes());
        let digest = Digest::of(Sha256::digest(&bytes).into());
        let described = Described { media_type: CONFIG, size: bytes.len() as u64, digest };
        if !self.repository.has(digest).await.map_err(told)? {
            let place = self.repository.upload().await.map_err(told)?;
            let place = self.repository.send(&place, bytes.into()).await.map_err(told)?;
            self.repository.finish(&place, digest).await.map_err(told)?;
        }
        Ok(described)
    }

    /// Sees to it that the repository has a layer.
    async fn layer(&self, diff_id: Digest, known: &Remotes) -> Result<Remote, Error> {
        let short = diff_id.short();
        let of = &self.wish.reference;
        for remote in known.blobs(of.registry(), of.repository()).into_iter().take(CHECKS) {
            if self.repository.has(remote.digest).await.map_err(told)? {
                self.progress.about(&short, "Layer already exists");
                return Ok(self.here(remote.digest, remote.size));
            }
        }
        let mut place = None;
        for remote in known.sources(of.registry(), of.repository()).into_iter().take(CHECKS) {
            let mounted = self.repository.mount(remote.digest, &remote.repository).await;
            match mounted.map_err(told)? {
                Mount::Mounted => {
                    self.progress.about(&short, format!("Mounted from {}", remote.repository));
                    return Ok(self.here(remote.digest, remote.size));
                }
                Mount::Upload(begun) => place = Some(begun),
            }
        }
        let pin = self.images.0.store.pin_layer(diff_id);
        let pin = Arc::new(pin.ok_or(StoreError::NoLayer(diff_id))?);
        let mut tries = 1;
        loop {
            match self.send(&pin, place.take()).await {
                Ok(sent) => {
                    self.progress.about(&short, "Pushed");
                    return Ok(sent);
                }
                Err(Failed::Registry(RegistryError::Unreachable { .. })) if tries < TRIES => {
                    tokio::time::sleep(PAUSE * tries).await;
                    tries += 1;
                }
                Err(Failed::Registry(error)) => return Err(told(error)),
                Err(Failed::Here(error)) => return Err(error),
            }
        }
    }

    fn here(&self, digest: Digest, size: u64) -> Remote {
        let of = &self.wish.reference;
        let (registry, repository) = (of.registry().to_owned(), of.repository().to_owned());
        Remote { digest, size, registry, repository }
    }

    async fn send(&self, pin: &Arc<Pin>, place: Option<Url>) -> Result<Remote, Failed> {
        let repository = &self.repository;
        let place = match place {
            Some(place) => place,
            None => repository.upload().await.map_err(Failed::Registry)?,
        };
        let (out, flow) = pipe::outwards();
        let (store, pin) = (self.images.0.store.clone(), pin.clone());
        let progress = self.progress.clone();
        let tracker = &self.images.0.tracker;
        let packing = tracker.spawn_blocking(move || pack(&store, &pin, out, &progress));
        let sent = repository.send(&place, Body::wrap_stream(flow.into_stream())).await;
        let packed = packing.await.map_err(|stopped| Failed::Here(super::stopping(stopped)))?;
        let end = match (packed, sent) {
            // The pipe breaks when the registry does not want any more.
            (Err(Broken::Pipe) | Ok(_), Err(error)) => {
                // A courtesy: the registry forgets it by itself, some day.
                drop(repository.cancel(&place).await);
                return Err(Failed::Registry(error));
            }
            (Err(Broken::Layer(error)), _) => {
                drop(repository.cancel(&place).await);
                return Err(Failed::Here(error));
            }
            // It answered before it had all: what it has is not the blob.
            (Err(Broken::Pipe), Ok(_)) => {
                let url = place.to_string();
                return Err(Failed::Registry(RegistryError::NoLocation { url }));
            }
            (Ok(packed), Ok(end)) => (packed, end),
        };
        let ((digest, size), end) = end;
        repository.finish(&end, digest).await.map_err(Failed::Registry)?;
        Ok(self.here(digest, size))
    }
}

/// Why a layer could not be sent.
enum Failed {
    Registry(RegistryError),
    Here(Error),
}

/// Why a layer could not be read to its end.
enum Broken {
    /// Nobody reads what is compressed.
    Pipe,
    Layer(Error),
}

/// Compresses a layer's archive; the digest and size of what came out. Blocks.
fn pack(
    store: &Store,
    pin: &Pin,
    out: pipe::Outflow,
    progress: &Progress,
) -> Result<(Digest, u64), Broken> {
    let diff_id = pin.digest();
    let archive = store.learn_recipe(diff_id).and_then(|()| store.layer_archive(diff_id));
    let archive = archive.map_err(|error| Broken::Layer(error.into()))?;
    let total = store.layer_size(diff_id).unwrap_or(0);
    let bar = Bar { progress, id: diff_id.short(), status: "Pushing", total };
    let mut archive = BufReader::with_capacity(BUFFER, bar.around(archive));
    let hashing = Hashing { out, hash: Sha256::new(), size: 0 };
    let mut packed = GzEncoder::new(hashing, Compression::default());
    loop {
        let bytes = archive.fill_buf().map_err(|source| {
            Broken::Layer(Error::internal(format!("read the layer {diff_id}"), source))
        })?;
        let count = bytes.len();
        if count == 0 {
            break;
        }
        packed.write_all(bytes).map_err(|_| Broken::Pipe)?;
        archive.consume(count);
    }
    let Hashing { out, hash, size } = packed.finish().map_err(|_| Broken::Pipe)?;
    out.end(Ok(()));
    Ok((Digest::of(hash.finalize().into()), size))
}

struct Hashing<W> {
    out: W,
    hash: Sha256,
    size: u64,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.out.write(bytes)?;
        self.hash.update(bytes.get(..count).unwrap_or_default());
        self.size += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// As Docker writes it, to the byte.
fn manifest(config: Described, layers: Vec<Described>) -> Result<Vec<u8>, Error> {
    let manifest = Manifest { schema_version: 2, media_type: MANIFEST, config, layers };
    let mut bytes = Vec::new();
    let indent = serde_json::ser::PrettyFormatter::with_indent(b"   ");
    let mut writer = serde_json::Serializer::with_formatter(&mut bytes, indent);
    let written = manifest.serialize(&mut writer);
    written.map_err(|source| Error::internal("write the manifest", source))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_is_dockers_to_the_byte() {
        let described = |media_type, size| {
            let digest = Digest::of([0x11; 32]);
            Described { media_type, size, digest }
        };
        let bytes = manifest(described(CONFIG, 7), vec![described(LAYER, 99)]).unwrap();
        let text = String::from_utf8(bytes).unwrap();
        let ones = "11".repeat(32);
        let wanted = format!(
            "{{\n   \"schemaVersion\": 2,\n   \"mediaType\": \"{MANIFEST}\",\n   \"config\": {{\n      \
             \"mediaType\": \"{CONFIG}\",\n      \"size\": 7,\n      \"digest\": \"sha256:{ones}\"\n   \
             }},\n   \"layers\": [\n      {{\n         \"mediaType\": \"{LAYER}\",\n         \"size\": \
             99,\n         \"digest\": \"sha256:{ones}\"\n      }}\n   ]\n}}"
        );
        assert_eq!(text, wanted);
    }
}
