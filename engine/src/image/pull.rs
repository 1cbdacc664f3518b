//! `docker pull`: from a registry's manifest to an image.
//!
//! A pull is a task of its own. Two clients that pull the same share one, and
//! it goes on to its end when they leave.
//!
//! A layer is unpacked while it is downloaded: its bytes are on the disk once.
//! They are hashed as they go by, and only when both digests (of what came and
//! of what came out of it) are right does the directory become a layer.

use super::{
    Auth, Detail, Image, Images, Platform, Progress, Reference,
    distribution::told,
    layer::{LayerError, obtain},
    load::config_of,
    manifest::{Descriptor, Document, Manifest},
    pipe::{self, Inflow},
    registry::{Access, RegistryError, Repository},
    remote::Remote,
};
use crate::{
    error::Error,
    ids::{Digest, TenantName},
    storage::{
        Pin, Store,
        archive::unpack::{Limits, UnpackError},
    },
};
use bytes::Bytes;
use futures_util::{
    FutureExt, StreamExt, TryStreamExt,
    future::{BoxFuture, Shared},
};
use sha2::{Digest as _, Sha256};
use std::{
    collections::HashMap,
    io::{self, Read},
    sync::Arc,
    time::Duration,
};
use tokio::sync::mpsc;

/// Layers at once, as in Docker.
const PARALLEL: usize = 3;
/// Times a layer's download is taken up again.
const RETRIES: u32 = 3;
const PAUSE: Duration = Duration::from_millis(200);

/// What a pull is of: who shares it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    tenant: TenantName,
    /// Without tag and digest: all tags.
    reference: Reference,
    platform: Option<Platform>,
    auth: Option<Auth>,
}

/// A pull that goes on.
#[derive(Debug, Clone)]
pub(super) struct Running {
    progress: Progress,
    outcome: Shared<BoxFuture<'static, Outcome>>,
}

type Outcome = Result<Vec<Arc<Image>>, Arc<Error>>;

pub(super) type Pulls = HashMap<Key, Running>;

/// Starts a pull or joins one.
pub(super) async fn pull(
    images: &Images,
    tenant: &TenantName,
    reference: Reference,
    (platform, auth): (Option<Platform>, Option<Auth>),
    progress: Progress,
) -> Result<Vec<Arc<Image>>, Error> {
    let key = Key { tenant: tenant.clone(), reference, platform, auth };
    let outcome = {
        let mut pulls = images.pulls();
        match pulls.get(&key) {
            Some(running) => {
                running.progress.join(&progress);
                running.outcome.clone()
            }
            None => {
                let running = start(images, &key, progress);
                pulls.insert(key, running.clone());
                running.outcome
            }
        }
    };
    outcome.await.map_err(|error| again(&error))
}

fn start(images: &Images, key: &Key, progress: Progress) -> Running {
    let (images, task, bars) = (images.clone(), key.clone(), progress.clone());
    let tracker = images.0.tracker.clone();
    let work = tracker.spawn(async move {
        let pull = Pull { images: images.clone(), progress: bars, key: task };
        let outcome = pull.run().await;
        images.pulls().remove(&pull.key);
        outcome
    });
    let stopped = || Error::Unavailable("the engine is stopping".to_owned());
    let outcome = async move { work.await.unwrap_or_else(|_| Err(stopped())).map_err(Arc::new) };
    Running { progress, outcome: outcome.boxed().shared() }
}

/// The same error for each of those who share a pull.
fn again(error: &Arc<Error>) -> Error {
    match &**error {
        Error::NotFound(text) => Error::NotFound(text.clone()),
        Error::Conflict(text) => Error::Conflict(text.clone()),
        Error::Invalid(text) => Error::Invalid(text.clone()),
        Error::Denied(text) => Error::Denied(text.clone()),
        Error::Unauthorized(text) => Error::Unauthorized(text.clone()),
        Error::Unsupported(text) => Error::Unsupported(text.clone()),
        Error::Unavailable(text) => Error::Unavailable(text.clone()),
        other @ (Error::NotModified | Error::NotStarted { .. } | Error::Internal { .. }) => {
            Error::internal(other.to_string(), error.clone())
        }
    }
}

struct Pull {
    images: Images,
    key: Key,
    progress: Progress,
}

impl Pull {
    async fn run(&self) -> Result<Vec<Arc<Image>>, Error> {
        let reference = &self.key.reference;
        let explained = |error| self.explain(error);
        let Key { tenant, auth, .. } = &self.key;
        let repository = Repository::open(tenant, reference, auth.clone(), Access::Pull)
            .await
            .map_err(explained)?;
        let wanted = match (reference.digest(), reference.tag()) {
            (Some(_), _) | (None, Some(_)) => vec![reference.clone()],
            (None, None) => {
                let tags = repository.tags().await.map_err(explained)?;
                // What is no tag is nothing that can be pulled.
                tags.iter().filter_map(|tag| reference.tagged(tag).ok()).collect()
            }
        };
        let (mut images, mut fresh) = (Vec::new(), false);
        for one in &wanted {
            let (image, new) = self.one(&repository, one).await?;
            fresh |= new;
            images.push(image);
        }
        let what = if fresh { "Downloaded newer image for" } else { "Image is up to date for" };
        self.progress.status(format!("Status: {what} {}", reference.familiar()));
        for image in &images {
            self.warn(image);
        }
        Ok(images)
    }

    /// A registry may have an image for one platform only, whichever was asked
    /// for: Docker takes it, and says so.
    fn warn(&self, image: &Image) {
        let Some(wanted) = self.key.platform.as_ref().filter(|it| !it.is_of(image)) else { return };
        let (name, found) = (self.key.reference.familiar(), Platform::of(image));
        self.progress.status(format!(
            "WARNING: image with reference {name} was found but its platform ({found}) does not \
             match the specified platform ({wanted})"
        ));
    }

    /// An image, and whether that name meant another one (or none) before.
    async fn one(
        &self,
        repository: &Repository,
        reference: &Reference,
    ) -> Result<(Arc<Image>, bool), Error> {
        let explained = |error| self.explain(error);
        let wanted = match (reference.digest(), reference.tag()) {
            (Some(digest), _) => digest.to_string(),
            (None, tag) => tag.unwrap_or("latest").to_owned(),
        };
        let fetched = repository.manifest(&wanted).await.map_err(explained)?;
        self.progress.about(&wanted, format!("Pulling from {}", reference.repository()));
        let manifest = self.choose(repository, &fetched.bytes).await?;
        let raw = repository.config(manifest.config.digest).await.map_err(explained)?;
        let raw = String::from_utf8(raw.into())
            .map_err(|_| Error::Invalid("the image's configuration is not text".to_owned()))?;
        let config = config_of(&raw, manifest.layers.len())?;
        let names = match reference.digest() {
            Some(digest) => vec![reference.at(digest)],
            None => vec![reference.clone(), reference.at(fetched.digest)],
        };
        let ledger = &self.images.0.ledger;
        let id = manifest.config.digest;
        let is_there = |name| ledger.look(&self.key.tenant, |c| c.named(name) == Some(id));
        let fresh = !names.iter().all(is_there);
        let pins = self.layers(repository, &manifest, &config.rootfs.diff_ids).await?;
        let mut complete = self.images.complete((raw, config), pins, names, None);
        let layers = complete.config.rootfs.diff_ids.iter().copied().zip(&manifest.layers);
        complete.remotes = layers.filter_map(|(id, layer)| remote(reference, id, layer)).collect();
        let image = ledger.register(&self.key.tenant, complete).await?;
        self.progress.status(format!("Digest: {}", fetched.digest));
        Ok((image, fresh))
    }

    /// The manifest for the platform: the document, or one that it points to.
    async fn choose(&self, repository: &Repository, bytes: &[u8]) -> Result<Manifest, Error> {
        let name = self.key.reference.familiar();
        let parse = |bytes: &[u8]| {
            let bad =
                |error| Error::Invalid(format!("cannot read the manifest of {name}: {error}"));
            Document::parse(bytes).map_err(bad)
        };
        let index = match parse(bytes)? {
            Document::Manifest(manifest) => return Ok(manifest),
            Document::Index(index) => index,
        };
        let platform = self.key.platform.clone().unwrap_or_else(Platform::host);
        let chosen = index.choose(&platform).ok_or_else(|| {
            Error::NotFound(format!(
                "no matching manifest for {platform} in the manifest list entries"
            ))
        })?;
        let fetched = repository.manifest(&chosen.digest.to_string()).await;
        match parse(&fetched.map_err(|error| self.explain(error))?.bytes)? {
            Document::Manifest(manifest) => Ok(manifest),
            Document::Index(_) => {
                Err(Error::Invalid(format!("the index of {name} points to another index")))
            }
        }
    }

    async fn layers(
        &self,
        repository: &Repository,
        manifest: &Manifest,
        diff_ids: &[Digest],
    ) -> Result<Vec<Pin>, Error> {
        for layer in &manifest.layers {
            self.progress.about(&layer.digest.short(), "Pulling fs layer");
        }
        let layers = manifest.layers.iter().zip(diff_ids).enumerate();
        let work = layers.map(|(index, (layer, diff_id))| {
            let work = self.layer(repository, layer, *diff_id);
            async move { Ok::<_, Error>((index, work.await?)) }
        });
        // Boxed: the futures of all layers would not fit on the stack.
        let mut pins = futures_util::stream::iter(work.map(FutureExt::boxed).collect::<Vec<_>>())
            .buffer_unordered(PARALLEL)
            .try_collect::<Vec<_>>()
            .await?;
        pins.sort_by_key(|(index, _)| *index);
        Ok(pins.into_iter().map(|(_, pin)| pin).collect())
    }

    async fn layer(
        &self,
        repository: &Repository,
        layer: &Descriptor,
        diff_id: Digest,
    ) -> Result<Pin, Error> {
        let short = layer.digest.short();
        let images = &self.images;
        // Only for who has shown the bytes before: see `layer::obtain`.
        if images.0.ledger.look(&self.key.tenant, |catalog| catalog.has_layer(diff_id))
            && let Some(pin) = images.0.store.pin_layer(diff_id)
        {
            self.progress.about(&short, "Already exists");
            return Ok(pin);
        }
        if layer.size > images.0.limits.bytes {
            return Err(Error::Invalid(format!("the layer {} is too large", layer.digest)));
        }
        let (blocks, inflow) = pipe::inwards();
        let (store, limits, digest) = (images.0.store.clone(), images.0.limits, layer.digest);
        let unpacking = images
            .0
            .tracker
            .spawn_blocking(move || take_in(&store, inflow, (digest, diff_id), limits));
        let cut = self.download(repository, layer, blocks).await.err();
        if cut.is_none() {
            self.progress.about(&short, "Verifying Checksum");
            self.progress.about(&short, "Download complete");
            let all = Detail { current: layer.size, total: Some(layer.size) };
            self.progress.tick(&short, "Extracting", all);
        }
        let unpacked = unpacking.await.map_err(super::stopping)?;
        let pin = match (unpacked, cut) {
            // It broke off, and so the archive did.
            (
                Err(Bad::Layer(LayerError::Unpack(UnpackError::Read { .. }))) | Ok(_),
                Some(error),
            ) => {
                return Err(self.explain(error));
            }
            (Err(Bad::Layer(error)), _) => return Err(error.into()),
            (Err(Bad::Blob(error)), _) => return Err(self.explain(error)),
            (Ok(pin), None) => pin,
        };
        self.progress.about(&short, "Pull complete");
        Ok(pin)
    }

    /// Downloads a blob, and takes it up where it was cut.
    async fn download(
        &self,
        repository: &Repository,
        layer: &Descriptor,
        blocks: mpsc::Sender<Option<Bytes>>,
    ) -> Result<(), RegistryError> {
        let mut sent = 0;
        let mut attempt = 0;
        loop {
            let last = sent;
            match self.some_of(repository, layer, &blocks, &mut sent).await {
                Ok(()) => {
                    // Fails where the archive was refused, and that is said.
                    drop(blocks.send(None).await);
                    return Ok(());
                }
                Err(RegistryError::Unreachable { .. } | RegistryError::Cut { .. })
                    if attempt < RETRIES || sent > last =>
                {
                    // It goes on as long as it gets on.
                    attempt = if sent > last { 1 } else { attempt + 1 };
                }
                Err(error) => return Err(error),
            }
            tokio::time::sleep(PAUSE * attempt).await;
        }
    }

    async fn some_of(
        &self,
        repository: &Repository,
        layer: &Descriptor,
        blocks: &mpsc::Sender<Option<Bytes>>,
        sent: &mut u64,
    ) -> Result<(), RegistryError> {
        let digest = layer.digest;
        let short = digest.short();
        let (stream, mut at) = repository.blob(digest, *sent).await?;
        let mut stream = std::pin::pin!(stream);
        let mut told = *sent;
        while let Some(chunk) = stream.next().await {
            let chunk = chunk?;
            // What we have already, from a registry that starts anew.
            let known = usize::try_from(sent.saturating_sub(at)).unwrap_or(usize::MAX);
            at += chunk.len() as u64;
            let chunk = chunk.slice(known.min(chunk.len())..);
            *sent += chunk.len() as u64;
            if *sent > layer.size {
                return Err(RegistryError::TooManyBytes { digest });
            }
            if *sent - told >= 512 << 10 {
                told = *sent;
                let detail = Detail { current: told, total: Some(layer.size) };
                self.progress.tick(&short, "Downloading", detail);
            }
            if blocks.send(Some(chunk)).await.is_err() {
                // The archive was refused: who reads it says why.
                return Ok(());
            }
        }
        if *sent < layer.size { Err(RegistryError::Cut { digest }) } else { Ok(()) }
    }

    /// A registry's error in Docker's words.
    fn explain(&self, error: RegistryError) -> Error {
        let name = self.key.reference.familiar_name();
        let whole = self.key.reference.familiar();
        if let RegistryError::NoCredentials { url } = &error {
            // As Docker has it. A 401 would make its CLI ask for a password,
            // and wait for one for ever where nobody is there to type it.
            let method = if url.contains("/manifests/") { "Head" } else { "Get" };
            return Error::internal(format!("{method} \"{url}\""), error);
        }
        let code = if let RegistryError::Refused { code, .. } = &error { code } else { "" };
        match code {
            "DENIED" => {
                return Error::NotFound(format!(
                    "pull access denied for {name}, repository does not exist or may require \
                     'docker login': {error}"
                ));
            }
            "MANIFEST_UNKNOWN" => {
                return Error::NotFound(format!("manifest for {whole} not found: {error}"));
            }
            "NAME_UNKNOWN" => {
                return Error::NotFound(format!("repository {name} not found: {error}"));
            }
            _ => {}
        }
        let told = told(error);
        if let Error::Internal { doing, source } = told {
            return Error::Internal { doing: format!("cannot pull {whole}: {doing}"), source };
        }
        told
    }
}

/// Where a layer is, if it is compressed as a push would do it.
fn remote(reference: &Reference, diff_id: Digest, layer: &Descriptor) -> Option<(Digest, Remote)> {
    let (registry, repository) =
        (reference.registry().to_owned(), reference.repository().to_owned());
    let remote = Remote { digest: layer.digest, size: layer.size, registry, repository };
    layer.media_type.ends_with("gzip").then_some((diff_id, remote))
}

/// What is wrong with what came.
enum Bad {
    Blob(RegistryError),
    Layer(LayerError),
}

/// Unpacks what comes, and checks that it is the blob `digest`. Blocks.
fn take_in(
    store: &Store,
    inflow: Inflow,
    (expected, diff_id): (Digest, Digest),
    limits: Limits,
) -> Result<Pin, Bad> {
    let mut hashed = Hashed { stream: inflow, hash: Sha256::new() };
    let layer = obtain(store, &mut hashed, Some(diff_id), limits);
    // Other bytes than were announced make a bad archive: then it is the bytes
    // that are to blame.
    let doubtful = match &layer {
        Ok(_) | Err(LayerError::WrongDiffId { .. }) => true,
        Err(LayerError::Unpack(UnpackError::Read { .. })) => true,
        Err(LayerError::Unpack(_) | LayerError::Store(_)) => false,
    };
    let whole = doubtful && io::copy(&mut hashed, &mut io::sink()).is_ok();
    let received = Digest::of(hashed.hash.finalize().into());
    if whole && received != expected {
        return Err(Bad::Blob(RegistryError::WrongDigest { expected, received }));
    }
    match layer {
        Ok(_) if !whole => {
            let source = io::ErrorKind::UnexpectedEof.into();
            Err(Bad::Layer(UnpackError::Read { source }.into()))
        }
        layer => layer.map_err(Bad::Layer),
    }
}

struct Hashed<R> {
    stream: R,
    hash: Sha256,
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.stream.read(buffer)?;
        self.hash.update(buffer.get(..count).unwrap_or_default());
        Ok(count)
    }
}
