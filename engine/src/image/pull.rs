//! `docker pull`: from a registry's manifest to an image.
//!
//! A pull is a task of its own. Two clients that pull the same share one, and
//! it goes on to its end when they leave.

use super::{
    Auth, Detail, Image, Images, Platform, Progress, Reference,
    layer::obtain,
    load::{Bar, config_of},
    manifest::{Descriptor, Document, Manifest},
    registry::{RegistryError, Repository},
};
use crate::{
    error::Error,
    ids::{Digest, TenantName},
    storage::{Blob, Pin, StoreError},
};
use bytes::Bytes;
use futures_util::{
    FutureExt, StreamExt, TryStreamExt,
    future::{BoxFuture, Shared},
};
use std::{collections::HashMap, sync::Arc, time::Duration};
use tokio::sync::mpsc;

/// Layers at once, as in Docker.
const PARALLEL: usize = 3;
/// Times a layer's download is taken up again.
const RETRIES: u32 = 3;
const PAUSE: Duration = Duration::from_millis(200);
/// Chunks between the network and the disk.
const QUEUE: usize = 32;

/// What a pull is of: who shares it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    tenant: TenantName,
    reference: Reference,
    platform: Option<Platform>,
    auth: Option<Auth>,
}

/// A pull that goes on.
#[derive(Debug, Clone)]
pub(super) struct Running {
    progress: Progress,
    outcome: Shared<BoxFuture<'static, Result<Arc<Image>, Arc<Error>>>>,
}

pub(super) type Pulls = HashMap<Key, Running>;

/// Starts a pull or joins one.
pub(super) async fn pull(
    images: &Images,
    tenant: &TenantName,
    reference: Reference,
    (platform, auth): (Option<Platform>, Option<Auth>),
    progress: Progress,
) -> Result<Arc<Image>, Error> {
    let (tenant, reference) = (tenant.clone(), reference.or_latest());
    let key = Key { tenant, reference, platform, auth };
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
    async fn run(&self) -> Result<Arc<Image>, Error> {
        let reference = &self.key.reference;
        let wanted = match (reference.digest(), reference.tag()) {
            (Some(digest), _) => digest.to_string(),
            (None, tag) => tag.unwrap_or("latest").to_owned(),
        };
        let told = |error| self.explain(error);
        let repository = Repository::open(reference, self.key.auth.clone()).await.map_err(told)?;
        let fetched = repository.manifest(&wanted).await.map_err(told)?;
        self.progress.about(&wanted, format!("Pulling from {}", reference.repository()));
        let manifest = self.choose(&repository, &fetched.bytes).await?;
        let raw = repository.config(manifest.config.digest).await.map_err(told)?;
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
        let pins = self.layers(&repository, &manifest, &config.rootfs.diff_ids).await?;
        let complete = self.images.complete((raw, config), pins, names, None);
        let image = ledger.register(&self.key.tenant, complete).await?;
        self.progress.status(format!("Digest: {}", fetched.digest));
        let what = if fresh { "Downloaded newer image for" } else { "Image is up to date for" };
        self.progress.status(format!("Status: {what} {}", reference.familiar()));
        Ok(image)
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
        let layers = manifest.layers.iter().zip(diff_ids);
        let work = layers.map(|(layer, diff_id)| self.layer(repository, layer, *diff_id));
        // Boxed: the futures of all layers would not fit on the stack.
        futures_util::stream::iter(work.map(FutureExt::boxed).collect::<Vec<_>>())
            .buffered(PARALLEL)
            .try_collect()
            .await
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
        let blob = self.download(repository, layer).await?;
        self.progress.about(&short, "Download complete");
        let (worker, progress, total) = (images.clone(), self.progress.clone(), blob.size());
        let id = short.clone();
        let pin = images.blocking(move || {
            let bar = Bar { progress: &progress, id, status: "Extracting", total };
            let archive = bar.around(blob.open()?);
            Ok(obtain(&worker.0.store, archive, Some(diff_id), worker.0.limits)?)
        });
        let pin = pin.await?;
        self.progress.about(&short, "Pull complete");
        Ok(pin)
    }

    /// Downloads a blob, and takes it up where it was cut.
    async fn download(&self, repository: &Repository, layer: &Descriptor) -> Result<Blob, Error> {
        if layer.size > self.images.0.limits.bytes {
            return Err(Error::Invalid(format!("the layer {} is too large", layer.digest)));
        }
        let (chunks, mut received) = mpsc::channel::<Bytes>(QUEUE);
        let (store, digest) = (self.images.0.store.clone(), layer.digest);
        let written = self.images.0.tracker.spawn_blocking(move || {
            let mut blob = store.write_blob()?;
            while let Some(chunk) = received.blocking_recv() {
                blob.write(&chunk)?;
            }
            blob.finish(Some(digest))
        });
        let mut sent = 0;
        let mut attempt = 0;
        let cut = loop {
            let last = sent;
            match self.some_of(repository, layer, &chunks, &mut sent).await {
                Ok(()) => break None,
                Err(RegistryError::Unreachable { .. } | RegistryError::Cut { .. })
                    if attempt < RETRIES || sent > last =>
                {
                    // It goes on as long as it gets on.
                    attempt = if sent > last { 1 } else { attempt + 1 };
                }
                Err(error) => break Some(error),
            }
            tokio::time::sleep(PAUSE * attempt).await;
        };
        drop(chunks);
        let written = written.await.map_err(|_| StoreError::Stopping)?;
        match (written, cut) {
            // A full disk stops the download, and is what the user must know.
            (Err(error @ StoreError::Io { .. }), _) => Err(error.into()),
            (_, Some(error)) => Err(self.explain(error)),
            (Err(StoreError::WrongDigest { expected, received }), None) => {
                Err(self.explain(RegistryError::WrongDigest { expected, received }))
            }
            (written, None) => Ok(written?),
        }
    }

    async fn some_of(
        &self,
        repository: &Repository,
        layer: &Descriptor,
        chunks: &mpsc::Sender<Bytes>,
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
            if chunks.send(chunk).await.is_err() {
                // The disk is full: the writer says so.
                return Ok(());
            }
        }
        if *sent < layer.size { Err(RegistryError::Cut { digest }) } else { Ok(()) }
    }

    /// A registry's error in Docker's words.
    fn explain(&self, error: RegistryError) -> Error {
        let name = self.key.reference.familiar_name();
        let whole = self.key.reference.familiar();
        match &error {
            RegistryError::Refused { code, .. } if code == "DENIED" => Error::NotFound(format!(
                "pull access denied for {name}, repository does not exist or may require 'docker \
                 login': {error}"
            )),
            RegistryError::Refused { code, .. } if code == "MANIFEST_UNKNOWN" => {
                Error::NotFound(format!("manifest for {whole} not found: {error}"))
            }
            RegistryError::Refused { code, .. } if code == "NAME_UNKNOWN" => {
                Error::NotFound(format!("repository {name} not found: {error}"))
            }
            RegistryError::Refused { status, .. } | RegistryError::Status { status }
                if *status == reqwest::StatusCode::UNAUTHORIZED =>
            {
                Error::Unauthorized(format!("cannot pull {whole}: {error}"))
            }
            RegistryError::Refused { .. }
            | RegistryError::Status { .. }
            | RegistryError::Unreachable { .. }
            | RegistryError::TooLong { .. }
            | RegistryError::WrongDigest { .. }
            | RegistryError::TooManyBytes { .. }
            | RegistryError::Cut { .. }
            | RegistryError::BadToken { .. }
            | RegistryError::BadChallenge { .. } => {
                Error::internal(format!("cannot pull {whole}: {error}"), error)
            }
        }
    }
}
