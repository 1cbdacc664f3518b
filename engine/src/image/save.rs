//! `docker save`: images into an archive that is Docker's own and an OCI
//! layout at once, as Docker 28 writes it.
//!
//! Every layer stands in it once, uncompressed, however many images have it.
//! Nothing is written to the disk: layers' archives are made again from their
//! recipes while the client reads.

use super::{
    Image, Images, Platform, Reference,
    catalog::{Catalog, parse, whole_id},
    pipe::{self, Flow, Outflow},
};
use crate::{
    error::Error,
    ids::{Digest, ImageId, TenantName},
    storage::{Pin, Store, StoreError},
};
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use std::{
    collections::BTreeMap,
    io::{self, Write},
    sync::Arc,
};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// An archive on its way.
#[derive(Debug)]
pub struct Saved {
    /// What is in it.
    pub images: Vec<Arc<Image>>,
    pub archive: Flow,
}

/// An image and the names that it shall have in the archive.
type Chosen = Vec<(Arc<Image>, Vec<Reference>)>;

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct Described {
    media_type: &'static str,
    digest: Digest,
    size: u64,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<&'static str, String>,
}

impl Described {
    fn new(media_type: &'static str, digest: Digest, size: u64) -> Self {
        Self { media_type, digest, size, annotations: BTreeMap::new() }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Manifest<'a> {
    schema_version: u32,
    media_type: &'static str,
    config: Described,
    layers: &'a [Described],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Index {
    schema_version: u32,
    media_type: &'static str,
    /// `null` where there are none, as Docker has it.
    manifests: Option<Vec<Described>>,
}

/// One element of `manifest.json`.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent: Option<ImageId>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    layer_sources: BTreeMap<Digest, Described>,
}

/// Bytes of the archive that have a digest for a name.
#[derive(Debug)]
enum Blob {
    /// With its time, in seconds since 1970.
    Text(Vec<u8>, u64),
    Layer(u64),
}

/// Everything but the layers' bytes, worked out before the first byte is sent.
#[derive(Debug, Default)]
struct Contents {
    blobs: BTreeMap<Digest, Blob>,
    documents: Vec<(&'static str, Vec<u8>)>,
    pins: Vec<Pin>,
}

pub(super) async fn save(
    images: &Images,
    tenant: &TenantName,
    names: &[String],
    platform: Option<&Platform>,
) -> Result<Saved, Error> {
    let store = &images.0.store;
    let chosen = images.0.ledger.look(tenant, |catalog| choose(catalog, names))?;
    for (image, _) in &chosen {
        if let Some(platform) = platform.filter(|platform| !platform.is_of(image)) {
            return Err(Error::NotFound(format!(
                "no suitable export target found for platform {platform}"
            )));
        }
    }
    let worker = store.clone();
    let planned = images.blocking(move || Ok((contents(&worker, &chosen)?, chosen)));
    let (contents, chosen) = planned.await?;
    let (out, archive) = pipe::outwards();
    let worker = store.clone();
    images.0.tracker.spawn_blocking(move || {
        let mut out = out;
        let written = write(&worker, contents, &mut out);
        if let Err(error) = &written
            && error.kind() != io::ErrorKind::BrokenPipe
        {
            // The client only sees that the answer breaks off.
            tracing::error!(error = %crate::error::chain(error), "cannot save images");
        }
        out.end(written);
    });
    Ok(Saved { images: chosen.into_iter().map(|(image, _)| image).collect(), archive })
}

/// Which images those names mean, each once, in the order of the names.
fn choose(catalog: &Catalog, names: &[String]) -> Result<Chosen, Error> {
    let mut chosen = Chosen::new();
    let mut add = |image: &Arc<Image>, name: Option<Reference>| {
        let index = chosen.iter().position(|(known, _)| known.id == image.id);
        let index = index.unwrap_or_else(|| {
            chosen.push((image.clone(), Vec::new()));
            chosen.len() - 1
        });
        if let (Some(name), Some((_, names))) = (name, chosen.get_mut(index))
            && name.digest().is_none()
            && !names.contains(&name)
        {
            names.push(name);
        }
    };
    for name in names {
        if whole_id(name).is_some() {
            add(catalog.find(name)?, None);
            continue;
        }
        let reference = parse(name)?;
        if reference.tag().is_some() || reference.digest().is_some() {
            let absent = || Error::NotFound("reference does not exist".to_owned());
            let image = catalog.find(name).map_err(|_| absent())?;
            // `sha256:12ab` reads as a name, and is the beginning of an id.
            let named = catalog.named(&reference) == Some(image.id);
            add(image, named.then_some(reference));
            continue;
        }
        let tags = catalog.tags_of(&reference);
        if tags.is_empty() {
            let bare = |_| Error::NotFound(format!("No such image: {name}"));
            add(catalog.find(name).map_err(bare)?, None);
        }
        for (tag, image) in tags {
            add(image, Some(tag));
        }
    }
    Ok(chosen)
}

/// Blocks.
fn contents(store: &Store, chosen: &Chosen) -> Result<Contents, Error> {
    let mut contents = Contents::default();
    let mut entries = Vec::new();
    let mut manifests = Vec::new();
    let mut repositories = BTreeMap::<String, BTreeMap<String, String>>::new();
    let json = |source| Error::internal("write the archive's index", source);
    for (image, names) in chosen {
        let layers = layers(store, image, &mut contents)?;
        let raw = image.raw.as_bytes().to_vec();
        let id = Digest::of(Sha256::digest(&raw).into());
        let size = raw.len() as u64;
        contents.blobs.insert(id, Blob::Text(raw, made(image)));
        let manifest = serde_json::to_vec(&Manifest {
            schema_version: 2,
            media_type: MANIFEST,
            config: Described::new(CONFIG, id, size),
            layers: &layers,
        });
        let manifest = manifest.map_err(json)?;
        let digest = Digest::of(Sha256::digest(&manifest).into());
        let described = Described::new(MANIFEST, digest, manifest.len() as u64);
        contents.blobs.insert(digest, Blob::Text(manifest, 0));
        for name in names {
            let tag = name.tag().unwrap_or("latest").to_owned();
            let mut described = described.clone();
            described.annotations.insert("io.containerd.image.name", name.to_string());
            described.annotations.insert("org.opencontainers.image.ref.name", tag.clone());
            manifests.push(described);
            let top = image.layers.last().map(Digest::hex).unwrap_or_default();
            repositories.entry(name.familiar_name()).or_default().insert(tag, top);
        }
        if names.is_empty() {
            manifests.push(described);
        }
        let tags = names.iter().map(Reference::familiar).collect::<Vec<_>>();
        let saved = |parent: &ImageId| chosen.iter().any(|(image, _)| image.id == *parent);
        entries.push(Entry {
            config: path(id),
            repo_tags: (!tags.is_empty()).then_some(tags),
            layers: layers.iter().map(|layer| path(layer.digest)).collect(),
            parent: image.parent.filter(saved),
            layer_sources: layers.into_iter().map(|layer| (layer.digest, layer)).collect(),
        });
    }
    let manifests = (!manifests.is_empty()).then_some(manifests);
    let index = Index { schema_version: 2, media_type: INDEX, manifests };
    let entries = (!entries.is_empty()).then_some(entries);
    contents.documents = vec![
        ("index.json", serde_json::to_vec(&index).map_err(json)?),
        ("manifest.json", serde_json::to_vec(&entries).map_err(json)?),
        ("oci-layout", br#"{"imageLayoutVersion": "1.0.0"}"#.to_vec()),
    ];
    if !repositories.is_empty() {
        let mut repositories = serde_json::to_vec(&repositories).map_err(json)?;
        repositories.push(b'\n');
        contents.documents.push(("repositories", repositories));
    }
    Ok(contents)
}

/// An image's layers; they are pinned until the archive has been written.
fn layers(
    store: &Store,
    image: &Image,
    contents: &mut Contents,
) -> Result<Vec<Described>, StoreError> {
    let mut layers = Vec::with_capacity(image.layers.len());
    for digest in &image.layers {
        let size = match contents.blobs.get(digest) {
            Some(Blob::Layer(size)) => *size,
            Some(Blob::Text(..)) | None => {
                contents.pins.push(store.pin_layer(*digest).ok_or(StoreError::NoLayer(*digest))?);
                store.learn_recipe(*digest)?;
                let size = store.archive_size(*digest)?;
                contents.blobs.insert(*digest, Blob::Layer(size));
                size
            }
        };
        layers.push(Described::new(LAYER, *digest, size));
    }
    Ok(layers)
}

fn path(digest: Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// When the image was made, in seconds since 1970.
fn made(image: &Image) -> u64 {
    let at = image.config.created.as_deref().and_then(|at| at.parse::<jiff::Timestamp>().ok());
    at.and_then(|at| u64::try_from(at.as_second()).ok()).unwrap_or(0)
}

/// Blocks.
fn write(store: &Store, contents: Contents, out: &mut Outflow) -> io::Result<()> {
    let mut tar = tar::Builder::new(out);
    if !contents.blobs.is_empty() {
        for directory in ["blobs/", "blobs/sha256/"] {
            let mut header = header(tar::EntryType::Directory, 0, 0);
            tar.append_data(&mut header, directory, io::empty())?;
        }
    }
    for (digest, blob) in contents.blobs {
        match blob {
            Blob::Text(bytes, at) => {
                let mut header = header(tar::EntryType::Regular, bytes.len() as u64, at);
                tar.append_data(&mut header, path(digest), bytes.as_slice())?;
            }
            Blob::Layer(size) => {
                let archive = store.layer_archive(digest).map_err(io::Error::other)?;
                let mut header = header(tar::EntryType::Regular, size, 0);
                tar.append_data(&mut header, path(digest), archive)?;
            }
        }
    }
    for (name, bytes) in contents.documents {
        let mut header = header(tar::EntryType::Regular, bytes.len() as u64, 0);
        tar.append_data(&mut header, name, bytes.as_slice())?;
    }
    tar.finish()?;
    tar.into_inner()?.flush()
}

fn header(kind: tar::EntryType, size: u64, at: u64) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(if kind.is_dir() { 0o755 } else { 0o644 });
    header.set_mtime(at);
    header.set_uid(0);
    header.set_gid(0);
    header
}
